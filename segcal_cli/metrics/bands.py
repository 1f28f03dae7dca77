"""Bands: how far a pooled reliability curve would stray by chance.

Neighbouring voxels say the same thing, so a band from binomial draws of voxels is far too narrow: with 30 patients it
raises 0.80 false alarms at a nominal 0.05. Patients are independent. The *consistency band*, around the diagonal, asks
how far the curve of a calibrated model strays: the residual of group g in bin m is r_gm = sum y - sum p, and under
calibration its sign is as good as random, one sign per group for all bins. The *confidence band*, around the curve
itself, resamples groups. Both are pointwise: at each bin on its own.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from segcal_cli.core.frozen import dataclass
from segcal_cli.metrics.calibration_errors import BinTable
from segcal_cli.metrics.intervals import percentile, resample, tails

MIN_GROUPS = 6
"""With fewer groups there are too few signs to flip for a quantile at 0.025."""

SIGN_DRAWS = 999


@dataclass(frozen=True, slots=True)
class Band:
    """Pointwise band. low, high: float64 "bin", NaN in bins without voxels."""

    low: np.ndarray
    high: np.ndarray


def consistency_band(groups: Sequence[BinTable], level: float = 0.95, seed: int = 0) -> Band | None:
    """Where o_m - e_m of a calibrated model lies: add it to e_m. None with fewer than six groups.

    groups: reported bins of each group. Raises BadInterval.
    """
    ends = tails(level)
    if len(groups) < MIN_GROUPS:
        return None
    residual = np.stack([group.hits - group.p for group in groups])
    n = np.sum([group.n for group in groups], axis=0)
    signs = np.random.default_rng(seed).choice(np.array([-1.0, 1.0]), size=(SIGN_DRAWS, len(groups)))
    shift = np.where(n > 0, np.einsum("sg,gm->sm", signs, residual) / np.maximum(n, 1), np.nan)
    low, high = np.quantile(shift, ends, axis=0)
    return Band(low, high)


def confidence_band(
    groups: Sequence[BinTable], level: float = 0.95, resamples: int = 2000, seed: int = 0
) -> Band | None:
    """Percentile interval of the pooled frequency o_m. None with fewer than six groups. Raises BadInterval."""
    if len(groups) < MIN_GROUPS:
        return None
    drawn = resample(len(groups), resamples, seed)
    n, hits = (drawn @ np.stack([getattr(group, name) for group in groups]) for name in ("n", "hits"))
    low, high = percentile(np.where(n > 0, hits / np.maximum(n, 1), np.nan), level)
    return Band(low, high)
