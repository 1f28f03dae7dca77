"""What is counted over the values of a volume, so that its numbers can be judged.

The extremes per class, the sum over the channels of a voxel, and how many values stand at or next to 0 and 1. A
``Tally`` holds these; it is taken from slabs that fit into a processor's cache, in any order and in any thread, and
tallies of disjoint slabs merge exactly.
"""

from __future__ import annotations

import math
from collections.abc import Iterator

import numpy as np

from segcal_cli.core.frozen import dataclass
from segcal_cli.core.volume import Values

SLAB_ELEMENTS = 1 << 18
"""Numbers in a slab: 1 MiB of float32, so that the passes over it after the first run in cache."""
PROBABILITY_SLACK = 1e-6
"""How far outside [0, 1] a probability may lie by rounding; it is clipped. More is refused."""
SATURATION = 1e-6
"""A probability closer to 0 or 1 than this counts as saturated: beyond, stored types differ in what they can tell."""
TRUNCATION_LOW = 0.1
"""The threshold at which maps are clipped most often; the other one is a half, where the class wins."""


@dataclass(frozen=True, slots=True)
class Tally:
    """What is counted over the voxels of disjoint slabs. ``+`` merges, exactly, in any order.

    lo, hi: float32 "class", extremes; NaN if there is one. sum_lo, sum_hi: extremes of the sum over channels,
    infinite where a value is no probability; voxels of exclusive classes whose channels are all exactly 0 are counted
    in ``empty`` instead. zeros, ones, near_zero, near_one: int64 "class", values p = 0, p = 1, p < 1e-6, p > 1 -
    1e-6. faint, weak, strong: int64 "class", values in (0, 0.1), [0.1, 0.5), (0.5, 1), of channels that are not
    exclusive; where a slab holds faint ones the other two are left at 0, since a map with faint values is not cut
    off.
    """

    voxels: int
    lo: np.ndarray
    hi: np.ndarray
    sum_lo: float
    sum_hi: float
    empty: int
    zeros: np.ndarray
    ones: np.ndarray
    near_zero: np.ndarray
    near_one: np.ndarray
    faint: np.ndarray
    weak: np.ndarray
    strong: np.ndarray

    def __add__(self, other: Tally) -> Tally:
        return Tally(
            self.voxels + other.voxels,
            np.minimum(self.lo, other.lo),
            np.maximum(self.hi, other.hi),
            min(self.sum_lo, other.sum_lo),
            max(self.sum_hi, other.sum_hi),
            self.empty + other.empty,
            self.zeros + other.zeros,
            self.ones + other.ones,
            self.near_zero + other.near_zero,
            self.near_one + other.near_one,
            self.faint + other.faint,
            self.weak + other.weak,
            self.strong + other.strong,
        )


def merge(a: Tally, b: Tally) -> Tally:
    """The tally of the slabs of both. Commutative and associative, exact."""
    return a + b


def slabs(n_channels: int, n_voxels: int) -> Iterator[slice]:
    """Ranges of voxels that cut a "class voxel" array into slabs of about SLAB_ELEMENTS numbers."""
    step = max(1, SLAB_ELEMENTS // n_channels)
    for start in range(0, n_voxels, step):
        yield slice(start, min(start + step, n_voxels))


def count(slab: np.ndarray, exclusive: bool, values: Values) -> Tally:
    """Count over a slab, float32 "class voxel". Probabilities that miss [0, 1] by rounding are clipped in place.

    exclusive: whether the channels of a voxel are to sum to 1.
    """
    lo, hi = slab.min(axis=1), slab.max(axis=1)
    counts = np.zeros((7, len(slab)), dtype=np.int64)
    # False for NaN too. Values outside [0, 1] decide on their own what the volume is; nothing else is asked then.
    if not (lo.min() >= -PROBABILITY_SLACK and hi.max() <= 1 + PROBABILITY_SLACK):
        return Tally(slab.shape[1], lo, hi, -math.inf, math.inf, 0, *counts)
    sum_lo, sum_hi, empty = math.inf, -math.inf, 0
    if len(slab) > 1:
        sum_lo, sum_hi, empty = _sums(slab, filled_only=exclusive and values == "probabilities")
    if values == "probabilities":
        for channel, row in enumerate(slab):
            if lo[channel] < 0 or hi[channel] > 1:
                np.clip(row, 0, 1, out=row)
                lo[channel], hi[channel] = row.min(), row.max()
            counts[:, channel] = _counts(row, exclusive, float(lo[channel]), float(hi[channel]))
    return Tally(slab.shape[1], lo, hi, sum_lo, sum_hi, empty, *counts)


def _sums(slab: np.ndarray, filled_only: bool) -> tuple[float, float, int]:
    """Extremes of the sum over channels, and how many voxels of all zeros (nnU-Net v1's padding) were left out."""
    sums = slab.sum(axis=0)
    lo, hi = float(sums.min()), float(sums.max())
    if lo != 0 or not filled_only:
        return lo, hi, 0
    # No channel is negative beyond rounding, so a sum of 0 means all zeros.
    filled = sums[sums != 0]
    if not filled.size:
        return math.inf, -math.inf, sums.size
    return float(filled.min()), hi, sums.size - filled.size


def _counts(row: np.ndarray, exclusive: bool, lo: float, hi: float) -> tuple[int, int, int, int, int, int, int]:
    """Zeros, ones, near_zero, near_one, faint, weak and strong values of one channel; see Tally.

    The extremes say beforehand that most of these are 0, which saves the passes.
    """
    near_zero = int(np.count_nonzero(row < np.float32(SATURATION))) if lo < SATURATION else 0
    near_one = int(np.count_nonzero(row > np.float32(1 - SATURATION))) if hi > 1 - SATURATION else 0
    zeros = row.size - int(np.count_nonzero(row)) if near_zero and lo <= 0 else 0
    ones = int(np.count_nonzero(row == 1)) if near_one and hi >= 1 else 0
    if exclusive:
        return zeros, ones, near_zero, near_one, 0, 0, 0
    faint = int(np.count_nonzero(row < np.float32(TRUNCATION_LOW))) - zeros if lo < TRUNCATION_LOW else 0
    if faint:
        return zeros, ones, near_zero, near_one, faint, 0, 0
    weak = int(np.count_nonzero(row < np.float32(0.5))) - zeros
    strong = int(np.count_nonzero(row > np.float32(0.5))) - ones
    return zeros, ones, near_zero, near_one, faint, weak, strong
