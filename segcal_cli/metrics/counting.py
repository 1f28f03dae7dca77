"""Counting voxels into cells: the one pass over a volume from which every measure comes.

Nine voxels in ten of a scan are certain and right: p in the first uniform bin where the class is not, or in the last
one where it is. For them nothing general is needed. Their geometric cell is the exponent and three mantissa bits of the
float, and -log(1 - p) = p + p^2/2 + p^3/3 + ... comes from sums of powers, without a logarithm per voxel. Per class and
block the larger of these two sets is counted so, by one ``np.bincount`` of a small table; every other voxel takes the
general way.

Volumes are counted in blocks of voxels of a fixed length. Counts are int64, sums are float64; blocks are added up in
their order, so the number of threads that counted them cannot be seen in the result. float32 sums would stop growing at
2^24.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace

import numpy as np

from segcal_cli.core.scores import Scores
from segcal_cli.metrics.cells import FIRST_KEY32, FIRST_KEY64, SMALLEST_EXPONENT, CellGrid

NEAR = 1e-6
"""Probabilities closer than this to 0 or 1 are reported as near it."""

WHOLE = (
    "n_label",
    "n_predicted",
    "n_both",
    "at_zero",
    "at_one",
    "near_zero",
    "near_one",
    "wrong_at_zero",
    "wrong_at_one",
)
"""Integer columns of ``Counts.whole``. The first three keep padding and are of the hard decision."""

SUMS = ("brier", "nll", "bias")
"""Columns of ``Counts.sums``: sum (p - y)^2, sum -log of the probability of what is true, sum p - y with padding."""


@dataclass(frozen=True, slots=True)
class Counts:
    """What was counted on a run of voxels; adding up counts of parts gives the counts of the whole.

    n, hits: int64 "class cell", voxels and those of the class. p: float64 "class cell", sum of p. whole: int64 "class
    column" (WHOLE). sums: float64 "class column" (SUMS). top_n, top_hits: int64 "bin" and top_p: float64 "bin", of the
    most probable class, all 0 where classes do not exclude each other. joint: float64 (sum -log p of the true class,
    sum over voxels and classes of (p - y)^2). Classes are the measured channels.
    """

    n: np.ndarray
    hits: np.ndarray
    p: np.ndarray
    whole: np.ndarray
    sums: np.ndarray
    top_n: np.ndarray
    top_hits: np.ndarray
    top_p: np.ndarray
    joint: np.ndarray

    @classmethod
    def zero(cls, classes: int, grid: CellGrid) -> Counts:
        return cls(
            np.zeros((classes, grid.size), np.int64),
            np.zeros((classes, grid.size), np.int64),
            np.zeros((classes, grid.size)),
            np.zeros((classes, len(WHOLE)), np.int64),
            np.zeros((classes, len(SUMS))),
            np.zeros(grid.bins, np.int64),
            np.zeros(grid.bins, np.int64),
            np.zeros(grid.bins),
            np.zeros(2),
        )

    def add(self, part: Counts) -> None:
        """Add a part in place. The order of parts matters to the last digit of the float sums, and to nothing else."""
        for name in self.__slots__:
            total = getattr(self, name)
            total += getattr(part, name)


class BlockCounter:
    """Counts blocks of voxels of one class table on one grid.

    members: bool "channel code", as in LabelMap. measured: the channels that are problems of their own. exclusive: the
    channels of a voxel sum to 1, and codes are channel indices. argmax: the hard decision of exclusive channels is the
    most probable one (ties: the lowest index), not p > 0.5.
    """

    def __init__(
        self, grid: CellGrid, members: np.ndarray, measured: tuple[int, ...], *, exclusive: bool, argmax: bool
    ) -> None:
        self.grid = grid
        self.measured = measured
        self.exclusive = exclusive
        self.argmax = argmax and exclusive
        self.codes = [np.flatnonzero(row) for row in members]
        self.edges = {dtype: _Edges.of(grid, dtype) for dtype in (np.dtype(np.float32), np.dtype(np.float64))}

    def count(self, scores: Scores, codes: np.ndarray, inside: np.ndarray | None) -> Counts:
        """Counts of a block. codes: "voxel"; inside: bool "voxel", False for padding, or None if there is none."""
        counts = Counts.zero(len(self.measured), self.grid)
        if not codes.size:
            return counts
        best, decision = most_probable(scores.p) if self.exclusive else (scores.p[0], None)
        truths = [self._truth(channel, codes) for channel in self.measured]
        for row, channel in enumerate(self.measured):
            predicted = decision == channel if self.argmax else scores.p[channel] > 0.5
            counts.whole[row, :3] = (
                np.count_nonzero(truths[row]),
                np.count_nonzero(predicted),
                np.count_nonzero(predicted & truths[row]),
            )
        if inside is not None:
            outside = ~inside
            for row, channel in enumerate(self.measured):
                padded = scores.p[channel][outside].sum(dtype=np.float64)
                counts.sums[row, 2] = padded - np.count_nonzero(truths[row] & outside)
            scores, codes, best = _compressed(scores, inside), codes[inside], best[inside]
            decision = None if decision is None else decision[inside]
            truths = [truth[inside] for truth in truths]
            if not codes.size:
                return counts
        for row, channel in enumerate(self.measured):
            self._count_class(counts, row, scores, channel, truths[row])
        self._count_top(counts, scores, codes, best, decision, truths)
        return counts

    def _truth(self, channel: int, codes: np.ndarray) -> np.ndarray:
        """bool "voxel": membership by comparing small codes, which is many times faster than a look-up per voxel."""
        truth = np.zeros(codes.shape, bool)
        for code in self.codes[channel]:
            truth |= codes == code
        return truth

    def _count_class(self, counts: Counts, row: int, scores: Scores, channel: int, truth: np.ndarray) -> None:
        """Cells, saturation and scores of one binary problem; the certain voxels apart, as the module says."""
        p, edges = scores.p[channel], self.edges[scores.p.dtype]
        certain, upper = np.greater(p <= edges.first_end, truth), False
        if 2 * np.count_nonzero(certain) < p.size:
            certain, upper = (p > edges.before_last) & truth, True
        rest = np.flatnonzero(~certain)
        n, deviation, squares = _certain_cells(scores, channel, rest, self.grid.tail, upper=upper)
        centroid = deviation / np.maximum(n, 1)
        certain_nll = deviation.sum() + squares / 2.0 + (n * centroid**3).sum() / 3.0
        if upper:
            counts.n[row, -self.grid.tail :] = n[::-1]
            counts.hits[row, -self.grid.tail :] = n[::-1]
            counts.p[row, -self.grid.tail :] = (n - deviation)[::-1]
        else:
            counts.n[row, : self.grid.tail] = n
            counts.p[row, : self.grid.tail] = deviation

        surplus, hit = p[rest].astype(np.float64), truth[rest]
        cell = self.grid.cell(surplus, complement(scores, channel, rest))
        cell *= 2
        cell += hit
        pairs = np.bincount(cell, minlength=2 * self.grid.size).reshape(-1, 2)
        counts.n[row] += pairs.sum(axis=1)
        counts.hits[row] += pairs[:, 1]
        counts.p[row] += np.bincount(cell, weights=surplus, minlength=2 * self.grid.size).reshape(-1, 2).sum(axis=1)

        logs = _log_of_truth(scores, channel, rest, hit)
        of_hits = -logs[hit].sum()
        error = surplus - hit
        counts.sums[row, 0] = squares + _dot(error, error)
        counts.sums[row, 1] = certain_nll - logs.sum()
        counts.sums[row, 2] += counts.p[row].sum() - counts.hits[row].sum()
        counts.joint[0] += of_hits + (certain_nll if upper else 0.0)

        low, high = (surplus, p) if upper else (p, surplus)
        counts.whole[row, 3:] = (
            low.size - np.count_nonzero(low),
            np.count_nonzero(high >= 1.0),
            np.count_nonzero(low < (NEAR if low is surplus else edges.near_zero)),
            np.count_nonzero(high > (1.0 - NEAR if high is surplus else edges.before_near_one)),
            np.count_nonzero(hit & (surplus == 0.0)),
            np.count_nonzero((surplus >= 1.0) & ~hit),
        )

    def _count_top(
        self,
        counts: Counts,
        scores: Scores,
        codes: np.ndarray,
        best: np.ndarray,
        decision: np.ndarray | None,
        truths: list[np.ndarray],
    ) -> None:
        """The most probable class of each voxel, and the joint scores; nothing where classes do not exclude others."""
        if decision is not None:
            hit = decision == codes
            for channel in set(range(len(scores.p))) - set(self.measured):
                miss = scores.p[channel].astype(np.float64)
                miss -= self._truth(channel, codes)
                counts.joint[1] += _dot(miss, miss)
            counts.joint[1] += counts.sums[:, 0].sum()
        elif len(scores.p) == 1:
            hit = (best > 0.5) == truths[0]
            wide = best.astype(np.float64)
            best = np.maximum(wide, 1.0 - wide)
            counts.joint[1] = 2.0 * counts.sums[0, 0]
        else:
            counts.joint[:] = 0.0
            return
        if len(self.measured) == 1:
            counts.joint[0] = counts.sums[0, 1]
        edge = self.edges[best.dtype].before_last_bin
        rest = np.flatnonzero(best <= edge)
        surplus = best[rest].astype(np.float64)
        index = self.grid.reported_bin(surplus)
        hits = np.bincount(index[hit[rest]], minlength=self.grid.bins)
        counts.top_n[:] = np.bincount(index, minlength=self.grid.bins)
        counts.top_hits[:] = hits
        counts.top_p[:] = np.bincount(index, weights=surplus, minlength=self.grid.bins)
        counts.top_n[-1] += best.size - rest.size
        counts.top_hits[-1] += np.count_nonzero(hit) - hits.sum()
        counts.top_p[-1] += best.sum(dtype=np.float64) - surplus.sum()


@dataclass(frozen=True, slots=True)
class _Edges:
    """Where the certain voxels end, as numbers of the stored dtype, so that no array is widened to compare.

    first_end: the last number in the first uniform bin. before_last, before_last_bin: the last number before the last
    uniform, and the last reported bin. near_zero, before_near_one: p < NEAR and p > 1 - NEAR are p < near_zero and
    p > before_near_one.
    """

    first_end: np.floating
    before_last: np.floating
    before_last_bin: np.floating
    near_zero: np.floating
    before_near_one: np.floating

    @classmethod
    def of(cls, grid: CellGrid, dtype: np.dtype) -> _Edges:
        near_zero, near_one = dtype.type(NEAR), dtype.type(1.0 - NEAR)
        one = dtype.type(1.0)
        return cls(
            grid.last_before(1, grid.uniform, dtype),
            grid.last_before(grid.uniform - 1, grid.uniform, dtype),
            grid.last_before(grid.bins - 1, grid.bins, dtype) if grid.bins > 1 else -one,
            np.nextafter(near_zero, one) if float(near_zero) < NEAR else near_zero,
            np.nextafter(near_one, -one) if float(near_one) > 1.0 - NEAR else near_one,
        )


def most_probable(p: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """The largest probability and its channel, the lowest one of equals. p: "class voxel".

    A running maximum: ``np.argmax`` over the first axis transposes and takes ten times as long.
    """
    best = p[0].copy()
    channel_type = np.uint8 if len(p) <= 256 else np.uint16
    decision = np.zeros(best.shape, channel_type)
    for channel in range(1, len(p)):
        better = (p[channel] > best).astype(channel_type)
        better *= channel_type(channel)
        np.maximum(decision, better, out=decision)
        np.maximum(best, p[channel], out=best)
    return best, decision


def complement(scores: Scores, channel: int, where: np.ndarray | slice) -> np.ndarray:
    """float64 1 - p of the voxels at ``where``: the sum of the other channels if they exclude each other."""
    if scores.exclusive:
        others = [c for c in range(len(scores.p)) if c != channel]
        q = scores.p[others[0]][where].astype(np.float64)
        for other in others[1:]:
            q += scores.p[other][where]
        return q
    if scores.log_q is not None:
        return np.exp(scores.log_q[channel][where])
    return 1.0 - scores.p[channel][where].astype(np.float64)


def _certain_cells(
    scores: Scores, channel: int, rest: np.ndarray, tail: int, *, upper: bool
) -> tuple[np.ndarray, np.ndarray, float]:
    """Certain voxels by geometric cell: their number, sum of d, and over all cells sum of d^2; d = p or, upper, 1 - p.

    rest: the other voxels. They go to key 0, below every cell, with d = 0.
    """
    p = scores.p[channel]
    d = p.astype(np.float64)
    if upper:
        np.subtract(1.0, d, out=d)
    if upper or p.dtype == np.float64:
        q = complement(scores, channel, slice(None)) if upper else d
        key, first = np.maximum(q, 2.0**SMALLEST_EXPONENT).view(np.int64), FIRST_KEY64
        key >>= 49
        key -= first - 1
    else:
        key32 = np.maximum(p, np.float32(2.0**SMALLEST_EXPONENT)).view(np.int32)
        key32 >>= 20
        key32 -= FIRST_KEY32 - 1
        key = key32.astype(np.intp)
    key[rest] = 0
    d[rest] = 0.0
    n = np.bincount(key, minlength=tail + 1)[1:]
    deviation = np.bincount(key, weights=d, minlength=tail + 1)[1:]
    if n.size > tail:  # channels that sum to a little more than 1 can leave 1 - p above the bin that p is in
        n[tail - 1], deviation[tail - 1] = n[tail - 1 :].sum(), deviation[tail - 1 :].sum()
    return n[:tail], deviation[:tail], _dot(d, d)


def _log_of_truth(scores: Scores, channel: int, where: np.ndarray, hit: np.ndarray) -> np.ndarray:
    """float64 log p where the class is, log(1 - p) where it is not, of the voxels at ``where``."""
    if scores.log_p is not None and scores.log_q is not None:
        return np.where(hit, scores.log_p[channel][where], scores.log_q[channel][where])
    floor = scores.floor if scores.exclusive else scores.complement_floor
    likelihood = np.maximum(complement(scores, channel, where), floor)
    p = np.maximum(scores.p[channel][where].astype(np.float64), scores.floor)
    np.copyto(likelihood, p, where=hit)
    logs = np.log(likelihood)
    if scores.log_p is not None:
        np.copyto(logs, scores.log_p[channel][where], where=hit)
    return logs


def _dot(a: np.ndarray, b: np.ndarray) -> float:
    """Sum of products by numpy itself: a BLAS would share it among threads, and its last digits among machines."""
    return float(np.einsum("i,i->", a, b))


def _compressed(scores: Scores, inside: np.ndarray) -> Scores:
    """Scores of the voxels inside."""
    cut: Callable[[np.ndarray | None], np.ndarray | None] = lambda a: None if a is None else a[:, inside]  # noqa: E731
    return replace(scores, p=scores.p[:, inside], log_p=cut(scores.log_p), log_q=cut(scores.log_q))
