"""Counting voxels into cells: the one pass over a volume from which every measure comes.

Nine voxels in ten of a scan are certain and right: p in the first uniform bin where the class is not, or in the last
one where it is. For them nothing general is needed. Their geometric cell is the exponent and three mantissa bits of the
float, and -log(1 - p) = p + p^2/2 + p^3/3 + ... comes from sums of powers, without a logarithm per voxel. Per class and
block the larger of these two sets is counted so, by one ``np.bincount`` of a small table; the rest takes the general
way.

Volumes are counted in blocks of voxels of a fixed length. Counts are int64, sums are float64; blocks are added up in
their order, so the number of threads that counted them cannot be seen in the result. float32 sums would stop growing at
2^24.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import numpy as np

from segcal_cli.core.frozen import dataclass
from segcal_cli.core.scores import Scores
from segcal_cli.metrics.cells import FIRST_KEY32, FIRST_KEY64, SMALLEST_CELL, CellGrid, geometric_cell
from segcal_cli.metrics.likelihood import complement, compressed, joined, most_probable, nll_of_hits, nll_of_misses

NEAR = 1e-6
"""Probabilities closer than this to 0 or 1 are reported as near it."""

PIECE_VOXELS = 1 << 16
"""Voxels whose cells are computed at a time: few enough that what is computed from them stays in a cache, and enough
that numpy's start of a computation costs little beside it."""

ROW = 1 << 13
"""Numbers whose squares are summed at a time; OpenBLAS takes one thread up to 10,000."""

LANES = 4
"""Neighbours often share a cell, and an addition waits for the one before it; so voxels in turn add to tables of their
own."""

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


JOINT = ("nll", "brier")
"""Entries of ``Counts.joint``."""


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
    most probable one (ties: the lowest index), not p > 0.5. regions: unions of exclusive channels, problems besides.
    """

    def __init__(
        self,
        grid: CellGrid,
        members: np.ndarray,
        measured: tuple[int, ...],
        *,
        exclusive: bool,
        argmax: bool,
        regions: Sequence[tuple[int, ...]] = (),
    ) -> None:
        self.grid = grid
        self.measured = measured
        self.regions = regions
        self.exclusive = exclusive
        self.argmax = argmax and exclusive
        self.codes = [np.flatnonzero(row) for row in members]
        lane = np.arange(PIECE_VOXELS) % LANES * (grid.tail + 1)
        self.lanes: dict[np.dtype, np.ndarray] = {
            np.dtype(np.int32): (lane + 1 - FIRST_KEY32).astype(np.int32),
            np.dtype(np.int64): lane + 1 - FIRST_KEY64,
        }
        self.edges = {dtype: _Edges.of(grid, dtype) for dtype in (np.dtype(np.float32), np.dtype(np.float64))}

    @property
    def size(self) -> int:
        """How many binary problems there are: measured channels, then regions."""
        return len(self.measured) + len(self.regions)

    def count(self, scores: Scores, codes: np.ndarray, inside: np.ndarray | None) -> Counts:
        """Counts of a block. codes: "voxel"; inside: bool "voxel", False for padding, or None if there is none."""
        counts = Counts.zero(self.size, self.grid)
        best, decision = most_probable(scores.p) if self.exclusive else (scores.p[0], None)
        unions = joined(scores, self.regions) if self.regions else scores
        truths = [
            *(self._truth(channel, codes) for channel in self.measured),
            *(_any([self._truth(channel, codes) for channel in parts]) for parts in self.regions),
        ]
        for row, (problem, channel) in enumerate(self._problems(scores, unions)):
            if self.argmax and decision is not None:
                parts = (channel,) if row < len(self.measured) else self.regions[channel]
                predicted = _any([decision == part for part in parts])
            else:
                predicted = problem.p[channel] > 0.5
            counts.whole[row, :3] = (
                np.count_nonzero(truths[row]),
                np.count_nonzero(predicted),
                np.count_nonzero(predicted & truths[row]),
            )
        if inside is not None:
            outside = ~inside
            for row, (problem, channel) in enumerate(self._problems(scores, unions)):
                padded = problem.p[channel][outside].sum(dtype=np.float64)
                counts.sums[row, 2] = padded - np.count_nonzero(truths[row] & outside)
            scores, codes, best = compressed(scores, inside), codes[inside], best[inside]
            unions = compressed(unions, inside) if self.regions else scores
            decision = None if decision is None else decision[inside]
            truths = [truth[inside] for truth in truths]
            if not codes.size:
                return counts
        for row, (problem, channel) in enumerate(self._problems(scores, unions)):
            nll_hits = self._count_class(counts, row, problem, channel, truths[row])
            if row < len(self.measured):
                counts.joint[0] += nll_hits
        self._count_top(counts, scores, codes, best, decision, truths)
        return counts

    def _problems(self, scores: Scores, unions: Scores) -> Iterator[tuple[Scores, int]]:
        """Every binary problem: the scores that hold it, and its channel there."""
        yield from ((scores, channel) for channel in self.measured)
        yield from ((unions, region) for region in range(len(self.regions)))

    def _truth(self, channel: int, codes: np.ndarray) -> np.ndarray:
        """bool "voxel": membership by comparing small codes, which is many times faster than a look-up per voxel."""
        held = self.codes[channel]
        if len(held) == 1:
            return codes == held[0]
        truth = np.zeros(codes.shape, bool)
        for code in held:
            truth |= codes == code
        return truth

    def _count_class(self, counts: Counts, row: int, scores: Scores, channel: int, truth: np.ndarray) -> float:
        """Cells, saturation and scores of one binary problem; the certain voxels apart, as the module says.

        Returns the sum of -log p over the voxels of the class.
        """
        p, edges, tail = scores.p[channel], self.edges[scores.p.dtype], self.grid.tail
        other = np.less_equal(p <= edges.first_end, truth)
        upper = 2 * np.count_nonzero(other) > p.size
        if upper:
            np.less_equal(p, edges.before_last, out=other)
            np.greater_equal(other, truth, out=other)
        rest = np.flatnonzero(other)
        n, deviation, squares = self._certain_cells(scores, channel, rest, upper=upper)
        centroid = deviation / np.maximum(n, 1)
        certain_nll = deviation.sum() + squares / 2.0 + (n * centroid**3).sum() / 3.0
        if upper:
            counts.n[row, -tail:] += n[::-1]
            counts.hits[row, -tail:] += n[::-1]
            counts.p[row, -tail:] += (n - deviation)[::-1]
        else:
            counts.n[row, :tail] += n
            counts.p[row, :tail] += deviation

        hit, wide = truth[rest], p[rest].astype(np.float64)
        cell = self._cell(wide, scores, channel, rest)
        p_hits, p_misses = wide[hit], wide[~hit]
        counts.n[row] += np.bincount(cell, minlength=self.grid.size)
        counts.p[row] += np.bincount(cell, weights=wide, minlength=self.grid.size)
        counts.hits[row] += np.bincount(cell[hit], minlength=self.grid.size)
        nll_hits = nll_of_hits(scores, channel, rest[hit], p_hits) + (certain_nll if upper else 0.0)
        nll_misses = nll_of_misses(scores, channel, rest[~hit]) + (0.0 if upper else certain_nll)
        certain_bias = -deviation.sum() if upper else deviation.sum()
        counts.sums[row] += (
            squares + np.square(p_hits - 1.0).sum() + np.square(p_misses).sum(),
            nll_hits + nll_misses,
            certain_bias + wide.sum() - p_hits.size,
        )

        # Extremes say faster than counting where nothing is as small or as large as that.
        small, large = (wide, p) if upper else (p, wide)
        lowest, highest = small.min(initial=1.0), large.max(initial=0.0)
        counts.whole[row, 3:] += (
            np.count_nonzero(small <= 0.0) if lowest <= 0.0 else 0,
            np.count_nonzero(large >= 1.0) if highest >= 1.0 else 0,
            np.count_nonzero(small < self.edges[small.dtype].near_zero) if lowest < NEAR else 0,
            np.count_nonzero(large > self.edges[large.dtype].before_near_one) if highest > 1.0 - NEAR else 0,
            np.count_nonzero(p_hits <= 0.0) if lowest <= 0.0 else 0,
            np.count_nonzero(p_misses >= 1.0) if highest >= 1.0 else 0,
        )
        return nll_hits

    def _certain_cells(
        self, scores: Scores, channel: int, rest: np.ndarray, *, upper: bool
    ) -> tuple[np.ndarray, np.ndarray, float]:
        """Certain voxels by geometric cell: their number, sum of d, and over all cells sum of d^2; d = p or, upper,
        1 - p.

        rest: the other voxels, in order. They go to key 0, below every cell, with d = 0. Done in pieces that fit a
        cache, in memory that is taken once, since fresh memory is slow.
        """
        p, tail = scores.p[channel], self.grid.tail
        narrow = p.dtype == np.float32 and (scores.exclusive or not upper)
        kind = np.dtype(np.int32 if narrow else np.int64)
        shift, first = (20, FIRST_KEY32) if narrow else (49, FIRST_KEY64)
        n, deviation = np.zeros((LANES, tail + 1), np.int64), np.zeros((LANES, tail + 1))
        squares = 0.0
        length = min(PIECE_VOXELS, p.size)
        keys, ds = np.empty(length, np.intp), np.empty(length)
        floats = np.empty(length, np.float32 if narrow else np.float64)
        lane = self.lanes[kind]
        starts = np.arange(0, p.size, PIECE_VOXELS)
        borders = [*np.searchsorted(rest, starts).tolist(), rest.size]
        for number, start in enumerate(starts.tolist()):
            piece = p[start : start + PIECE_VOXELS]
            key, d = keys[: piece.size], ds[: piece.size]
            np.copyto(d, piece)
            q = piece
            if upper:
                np.subtract(1.0, d, out=d)
                q = complement(scores, channel, slice(start, start + piece.size), p.dtype)
            # Of floats: the maximum of integers takes several times as long.
            bit = np.maximum(q, SMALLEST_CELL, out=floats[: piece.size]).view(kind)
            np.right_shift(bit, shift, out=bit)
            if upper:  # channels that sum to a little more than 1 can leave 1 - p above the bin that p is in
                np.minimum(bit, first + tail - 1, out=bit)
            np.add(bit, lane[: piece.size], out=key)
            others = rest[borders[number] : borders[number + 1]] - start
            key[others] = 0
            d[others] = 0.0
            n += np.bincount(key, minlength=n.size).reshape(n.shape)
            deviation += np.bincount(key, weights=d, minlength=n.size).reshape(n.shape)
            squares += _sum_of_squares(d)
        return n.sum(axis=0)[1:], deviation.sum(axis=0)[1:], squares

    def _cell(self, p: np.ndarray, scores: Scores, channel: int, where: np.ndarray) -> np.ndarray:
        """int "voxel": the cells of the voxels at ``where``, whose probabilities are p."""
        grid = self.grid
        cell = grid.uniform_bin(p)
        first, last = np.flatnonzero(cell == 0), np.flatnonzero(cell == grid.uniform - 1)
        cell += grid.tail - 1
        cell[first] = np.minimum(geometric_cell(p[first]), grid.tail - 1)
        q = complement(scores, channel, where[last], scores.p.dtype).astype(np.float64)
        cell[last] = grid.size - 1 - np.minimum(geometric_cell(q), grid.tail - 1)
        return cell

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
                counts.joint[1] += np.square(miss).sum()
            counts.joint[1] += counts.sums[: len(self.measured), 0].sum()
        elif len(scores.p) == 1:
            hit = (best > 0.5) == truths[0]
            wide = best.astype(np.float64)
            best = np.maximum(wide, 1.0 - wide)
            counts.joint[1] = 2.0 * counts.sums[0, 0]
        else:
            counts.joint[:] = 0.0
            return
        if len(self.measured) == 1:  # both classes of a binary problem
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


def _sum_of_squares(numbers: np.ndarray) -> float:
    """In rows too short for BLAS to share them among threads, whose number would be seen in the last digits."""
    whole = numbers.size - numbers.size % ROW
    rows = numbers[:whole].reshape(-1, ROW)
    return float(np.vecdot(rows, rows).sum() + np.dot(numbers[whole:], numbers[whole:]))


def _any(masks: Sequence[np.ndarray]) -> np.ndarray:
    """bool "voxel": True where any mask is."""
    return masks[0] if len(masks) == 1 else np.logical_or.reduce(masks)


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
