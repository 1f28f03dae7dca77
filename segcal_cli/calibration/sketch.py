"""The sketch: all that a binary calibrator needs to know of a case, in a table of log-odds bins.

Voxels are counted in bins of z = log p - log(1 - p): 1/64 wide for |z| < 16, then 64 bins per factor of two up to
2^14 on each side. A bin keeps five sums: voxels n, sum z, sum z^2, voxels of the class sum y, and sum yz. The label
term of the negative log-likelihood is linear in z, so it is exact; the bin's variance removes the width of the bins
from the rest. A fixed range such as [-30, 30] would not do: logits of real networks leave it, and the optimum moves
by far more than a bin.

z is summed relative to the middle of its bin, because sum z^2 / n - mean^2 cancels for large z.
"""

from __future__ import annotations

import numpy as np

from segcal_cli.core.frozen import dataclass

LINEAR_LIMIT = 16.0
"""Below this |z| bins have one width; beyond it they grow with z."""

PER_UNIT = 64
"""Bins per unit of z inside the linear range, and bins per factor of two outside."""

OCTAVES = 10
"""Factors of two beyond the linear range, up to |z| = 2^14; what lies beyond is in the last bin."""

_LINEAR = 2 * int(LINEAR_LIMIT) * PER_UNIT
_OUTER = OCTAVES * PER_UNIT

BINS = _LINEAR + 2 * _OUTER
"""3328 bins."""

SUMS = 5
"""Rows of a table: n, sum d, sum d^2, sum y, sum yd, where d = z - middle of the bin."""


def _middles() -> np.ndarray:
    linear = (np.arange(_LINEAR) + 0.5) / PER_UNIT - LINEAR_LIMIT
    octave, step = np.divmod(np.arange(_OUTER), PER_UNIT)
    outer = LINEAR_LIMIT * 2.0**octave * (1.0 + (step + 0.5) / PER_UNIT)
    return np.concatenate([-outer[::-1], linear, outer])


def _uppers() -> np.ndarray:
    linear = (np.arange(_LINEAR) + 1.0) / PER_UNIT - LINEAR_LIMIT
    octave, step = np.divmod(np.arange(_OUTER), PER_UNIT)
    near = LINEAR_LIMIT * 2.0**octave * (1.0 + step / PER_UNIT)
    far = LINEAR_LIMIT * 2.0**octave * (1.0 + (step + 1.0) / PER_UNIT)
    return np.concatenate([-near[::-1], linear, far])


UPPERS = _uppers()
"""float64 "bin": the upper edge of each bin, which belongs to it."""
UPPERS.flags.writeable = False


MIDDLES = _middles()
"""float64 "bin": the middle of each bin."""
MIDDLES.flags.writeable = False


@dataclass(frozen=True, slots=True)
class Sketch:
    """The occupied bins of one case and class. bins: uint16 "entry", ascending; sums: float64 "5 entry", see SUMS."""

    bins: np.ndarray
    sums: np.ndarray

    @property
    def voxels(self) -> float:
        return float(self.sums[0].sum())

    @property
    def positives(self) -> float:
        return float(self.sums[3].sum())

    def dense(self) -> np.ndarray:
        """float64 "5 bin" over all bins."""
        table = np.zeros((SUMS, BINS))
        table[:, self.bins] = self.sums
        return table


def sketch_of(table: np.ndarray) -> Sketch:
    """The sparse form of a dense table "5 bin"."""
    bins = np.flatnonzero(table[0])
    return Sketch(bins.astype(np.uint16), np.ascontiguousarray(table[:, bins]))


def bin_of(z: np.ndarray) -> np.ndarray:
    """int64 bin indices of log-odds "voxel". Bins are closed on the right, so that z = 0, no detection, is in a
    negative one."""
    linear = np.ceil(z * PER_UNIT)
    np.clip(linear, 1 - _LINEAR // 2, _LINEAR // 2, out=linear)
    index = linear.astype(np.int64)
    index += _OUTER + _LINEAR // 2 - 1
    far = np.flatnonzero(np.abs(z) >= LINEAR_LIMIT)
    if far.size:
        beyond = z[far]
        up = beyond > 0.0
        # The exponent and the first six binary places of |z| are the octave and the step in it. Bins mirror each other:
        # what is closed on the right in z is closed on the left in |z| on the negative side.
        level = ((np.abs(beyond).view(np.int64) - up) >> _PLACES_BELOW) - _FIRST_LEVEL
        np.minimum(level, _OUTER - 1, out=level)
        index[far] = np.where(up, _OUTER + _LINEAR + level, _OUTER - 1 - level)
    return index


_PLACES_BELOW = 52 - 6
_FIRST_LEVEL = int(np.float64(LINEAR_LIMIT).view(np.int64)) >> _PLACES_BELOW


def table_of(z: np.ndarray, y: np.ndarray) -> np.ndarray:
    """float64 "5 bin" of log-odds float64 "voxel" and labels bool "voxel"."""
    index = bin_of(z)
    d = z - MIDDLES[index]
    squares = np.bincount(index, weights=d * d, minlength=BINS)
    # Both labels in one go: the class in the upper half.
    index[y] += BINS
    counts = np.bincount(index, minlength=2 * BINS).reshape(2, BINS)
    offsets = np.bincount(index, weights=d, minlength=2 * BINS).reshape(2, BINS)
    return np.stack([counts.sum(axis=0), offsets.sum(axis=0), squares, counts[1], offsets[1]])


@dataclass(frozen=True, slots=True)
class Moments:
    """Tables ready for an objective, several at once (bootstrap resamples, folds).

    n, c, v, positives, label_mean: float64 "problem bin": weight, mean and variance of z, weight and mean z of the
    class. total, sum_y, sum_yz: float64 "problem". uppers: float64 "bin", upper edges. voxels: float64 "problem",
    counted once each whatever their weight. Bins that are empty in every problem are dropped.
    """

    n: np.ndarray
    c: np.ndarray
    v: np.ndarray
    positives: np.ndarray
    label_mean: np.ndarray
    total: np.ndarray
    sum_y: np.ndarray
    sum_yz: np.ndarray
    uppers: np.ndarray
    voxels: np.ndarray


def moments_of(tables: np.ndarray, bins: np.ndarray | None = None, voxels: np.ndarray | None = None) -> Moments:
    """tables: float64 "problem 5 bin", weighted sums of case tables; bins: which ones, all if None; voxels: as in
    Moments, the weights if None."""
    occupied = (tables[:, 0] > 0).any(axis=0)
    tables = tables[:, :, occupied]
    bins = np.flatnonzero(occupied) if bins is None else bins[occupied]
    middles = MIDDLES[bins]
    n, offset, square, y, y_offset = (tables[:, row] for row in range(SUMS))
    mean = np.divide(offset, n, out=np.zeros_like(n), where=n > 0)
    spread = np.divide(square, n, out=np.zeros_like(n), where=n > 0) - mean * mean
    label_offset = np.divide(y_offset, y, out=np.zeros_like(y), where=y > 0)
    return Moments(
        n=n,
        c=middles + mean,
        v=np.maximum(spread, 0.0),
        positives=y,
        label_mean=middles + label_offset,
        total=n.sum(axis=1),
        sum_y=y.sum(axis=1),
        sum_yz=(y * middles + y_offset).sum(axis=1),
        uppers=UPPERS[bins],
        voxels=n.sum(axis=1) if voxels is None else voxels,
    )
