"""Hard masks: the numerator and the denominator that a thresholded segmentation would give.

For comparison only. Exclusive classes: the largest channel, the first on ties. Regions: painted one over the other
where p > 0.5, as nnU-Net does, or, without a paint order, each channel on its own.
"""

from __future__ import annotations

import numpy as np

from segcal_cli.core.labels import LabelSpace
from segcal_cli.core.volume import Values
from segcal_cli.ratio.regions import Ratio, Region
from segcal_cli.ratio.voxels import Slab

TIE_SLACK = 1e-6
"""Rounding of stored probabilities: a channel that wins holds at least 1/C of a voxel, but for this."""


def hard_masks(slab: Slab, ratio: Ratio, values: Values, space: LabelSpace) -> tuple[np.ndarray, np.ndarray]:
    """bool "z y x" twice: hard numerator and denominator; voxels that do not count are in neither."""
    if space.exclusive:
        masks = _winners(slab, ratio, space)
    else:
        threshold = 0.0 if values == "logits" else 0.5
        masks = _painted(slab.raw > threshold, ratio, space)
    if slab.kept is None:
        return masks
    return masks[0] & slab.kept, masks[1] & slab.kept


def _winners(slab: Slab, ratio: Ratio, space: LabelSpace) -> tuple[np.ndarray, np.ndarray]:
    """Only voxels where a region holds 1/C of the probability can be won by one of its channels: few of a scan."""
    least = 1.0 / len(space.channels) - TIE_SLACK
    likely = slab.b >= least
    if not ratio.contained:
        likely |= slab.a >= least
    where = np.flatnonzero(likely)
    winner = slab.raw.reshape(len(slab.raw), -1)[:, where].argmax(axis=0)
    member = np.eye(len(space.channels), dtype=bool)
    return _scattered(slab, where, ratio.numerator.holds(member)[winner]), _scattered(
        slab, where, ratio.denominator.holds(member)[winner]
    )


def _scattered(slab: Slab, where: np.ndarray, inside: np.ndarray) -> np.ndarray:
    mask = np.zeros(slab.b.shape, dtype=bool)
    mask.reshape(-1)[where] = inside
    return mask


def _painted(decided: np.ndarray, ratio: Ratio, space: LabelSpace) -> tuple[np.ndarray, np.ndarray]:
    if space.paint is None:
        return ratio.numerator.holds(decided), ratio.denominator.holds(decided)
    painted = np.zeros(decided.shape[1:], dtype=np.int64)
    for value, channel in zip(space.paint, decided, strict=True):
        painted[channel] = value
    return _among(painted, ratio.numerator), _among(painted, ratio.denominator)


def _among(painted: np.ndarray, region: Region) -> np.ndarray:
    return np.isin(painted, region.values)
