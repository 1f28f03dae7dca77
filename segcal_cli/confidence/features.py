"""Features of a case that need no label: what drift, atypical cases and estimated weights are judged by."""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np

from segcal_cli.confidence.boxes import components
from segcal_cli.confidence.views import TargetView, voxel_volume
from segcal_cli.core.frozen import dataclass

BAND = 2.0
"""Log-odds nearer to 0 than this count as uncertain (probabilities .12 to .88)."""

SOFT_FEATURES = ("log1p volume", "uncertain fraction", "log band", "mean |log-odds|", "max log-odds")
LABEL_FEATURES = ("log1p volume", "log1p components", "log1p box volume")


@dataclass(frozen=True, slots=True)
class BandSums:
    """Sums over voxels: their number, how many have |s| < 2, s > -2, s > 2, the sum of |s|, the largest s."""

    voxels: int
    uncertain: int
    above_low: int
    above_high: int
    total: float
    largest: float

    @classmethod
    def of(cls, s: np.ndarray, near: np.ndarray | None = None) -> BandSums:
        """s: float32 or float64 log-odds of any voxels; summed in float64. near: those above -BAND, if at hand."""
        # Most voxels are surely background, and only the rest is looked at again.
        high = s[s > -BAND] if near is None else near
        return cls(
            s.size,
            int(np.count_nonzero(high < BAND)),
            high.size,
            int(np.count_nonzero(high > BAND)),
            float(np.abs(s).sum(dtype=np.float64)),
            float((high if high.size else s).max(initial=-np.inf)),
        )

    @classmethod
    def joined(cls, parts: Sequence[BandSums]) -> BandSums:
        """The same of all parts together; the sum does not hang on their order."""
        return cls(
            sum(part.voxels for part in parts),
            sum(part.uncertain for part in parts),
            sum(part.above_low for part in parts),
            sum(part.above_high for part in parts),
            math.fsum(part.total for part in parts),
            max(part.largest for part in parts),
        )


def soft_features(view: TargetView, bands: BandSums) -> np.ndarray:
    """float64 "feature" of SOFT_FEATURES: log(1 + |M| in mm3); #{|s|<2} / max(|M|, 1); log(1 + #{s>-2}) - log(1 +
    #{s>2}); mean |s|; max s. The last two are 0 of a scan without voxels."""
    voxels = view.mask_voxels
    return np.array(
        [
            math.log1p(voxels * voxel_volume(view.case)),
            bands.uncertain / max(voxels, 1),
            math.log1p(bands.above_low) - math.log1p(bands.above_high),
            bands.total / max(bands.voxels, 1),
            bands.largest if bands.voxels else 0.0,
        ]
    )


def label_features(view: TargetView) -> np.ndarray:
    """float64 "feature" of LABEL_FEATURES, where predictions are label maps."""
    volume = voxel_volume(view.case)
    if view.mask_box is None:
        return np.zeros(len(LABEL_FEATURES))
    box = math.prod(side.stop - side.start for side in view.mask_box)
    return np.array(
        [
            math.log1p(view.mask_voxels * volume),
            math.log1p(len(components(view.mask[view.mask_box]))),
            math.log1p(box * volume),
        ]
    )
