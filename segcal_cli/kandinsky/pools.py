"""Pools: the calibration scores of each class in each cluster, with every patient weighing the same.

For one pool let g run over the G patients with at least one scored voxel there, and F_g(q) be the share of g's voxels
with a code of at most q. The threshold is the smallest code q with

    sum_g F_g(q) >= (G + 1) - alpha (G + 1)                                              weighting "patient"

and +inf if there is none. It is the hierarchical rule of Lee, Barber and Willett 2023, "Distribution-free inference
with hierarchical data", and conformal risk control (Angelopoulos et al. 2022) for the share of the patient's voxels of
the class that the set misses: that share, averaged over G + 1 exchangeable patients, is at most alpha. Weighting
"voxel" is the paper's: the k-th smallest of the pooled codes, as if voxels of one patient were independent.

Sums are exact in any order: per patient floor(2^44 F_g(q)) is an integer, and only its steps are kept.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Literal

import numpy as np

from segcal_cli.core.conformal import LEVEL_ROUNDING, conformal_rank
from segcal_cli.core.frozen import dataclass
from segcal_cli.kandinsky.codes import INFINITE, N_CODES
from segcal_cli.kandinsky.runs import Run

Weighting = Literal["patient", "voxel"]

CODE_BITS = 16
"""A key is slot * 2^16 + code; a slot is one class in one cluster."""

UNIT_BITS = 44
"""A patient's whole share is 2^44: fine enough for any count of voxels, and 2^19 patients fit into 63 bits."""

HALF_BITS = UNIT_BITS // 2

TABLE_SLOTS = 64
"""Up to this many slots p-values come from a dense table, beyond it from a search."""

MASS, COUNT = 0, 1
"""Columns of a pool's run: steps of the patients' shares, and voxels."""


def patient_run(run: Run) -> Run:
    """Steps of one patient's floor(2^44 F_g) beside its counts. run: counts by key slot * 2^16 + code."""
    keys, counts = run.keys, run.columns[0]
    if not keys.size:
        return Run(keys, np.empty((2, 0), np.int64))
    slots = keys >> CODE_BITS
    first = np.flatnonzero(np.concatenate(([True], slots[1:] != slots[:-1])))
    sizes = np.diff(np.append(first, keys.size))
    total = np.cumsum(counts)
    before = np.repeat(total[first] - counts[first], sizes)
    cumulative = total - before
    n = np.repeat(cumulative[first + sizes - 1], sizes)
    # (cumulative << 44) overflows from 2^19 voxels on; two halves of 22 bits do not.
    scaled = cumulative << HALF_BITS
    share = ((scaled // n) << HALF_BITS) + ((scaled % n) << HALF_BITS) // n
    steps = np.diff(share, prepend=0)
    steps[first] = share[first]
    return Run(keys, np.stack((steps, counts)))


@dataclass(frozen=True)
class Pools:
    """All pools of a fit. offsets: int64 "slot + 1", where each slot's pairs begin; codes: uint16 "pair"; mass, counts:
    int64 "pair". shift: low bits that were dropped from every code, here and wherever these pools are used.
    """

    offsets: np.ndarray
    codes: np.ndarray
    mass: np.ndarray
    counts: np.ndarray
    shift: int = 0

    @classmethod
    def of(cls, run: Run, n_slots: int, shift: int = 0) -> Pools:
        slots = run.keys >> CODE_BITS
        offsets = np.searchsorted(slots, np.arange(n_slots + 1)).astype(np.int64)
        codes = (run.keys & (N_CODES - 1)).astype(np.uint16)
        return cls(offsets, codes, run.columns[MASS], run.columns[COUNT], shift)

    @property
    def n_slots(self) -> int:
        return len(self.offsets) - 1

    @property
    def n_groups(self) -> np.ndarray:
        """int64 "slot": patients with a voxel there. Each left exactly 2^44."""
        return (_totals(self._running(self.mass), self.offsets) >> np.uint64(UNIT_BITS)).astype(np.int64)

    @property
    def n_voxels(self) -> np.ndarray:
        """int64 "slot"."""
        return _totals(self._running(self.counts), self.offsets).astype(np.int64)

    def units(self, weighting: Weighting) -> np.ndarray:
        """int64 "slot": how many exchangeable units the rule counts there."""
        return self.n_groups if weighting == "patient" else self.n_voxels

    def slice(self, start: int, stop: int) -> Pools:
        """The pools of the slots start..stop."""
        low, high = self.offsets[start], self.offsets[stop]
        return Pools(
            self.offsets[start : stop + 1] - low,
            self.codes[low:high],
            self.mass[low:high],
            self.counts[low:high],
            self.shift,
        )

    def thresholds(self, alpha: float | np.ndarray, weighting: Weighting) -> np.ndarray:
        """int32 "slot": the largest code in the set, INFINITE where no finite threshold is valid.

        alpha: one level, or one per slot, in (0, 1). Raises BadLevel.
        """
        running = self._running(self.mass if weighting == "patient" else self.counts)
        need = needed(self.units(weighting), np.broadcast_to(alpha, self.n_slots), weighting)
        start, stop = self.offsets[:-1], self.offsets[1:]
        base = running[start]
        low, high = start.copy(), stop.copy()
        # The first pair of each slot whose cumulative sum reaches what is needed, all slots at once.
        while (searching := low < high).any():
            middle = (low + high) // 2
            reached = (running[np.minimum(middle + 1, len(self.codes))] - base).astype(np.int64) >= need
            high = np.where(searching & reached, middle, high)
            low = np.where(searching & ~reached, middle + 1, low)
        found = np.full(self.n_slots, INFINITE, np.int32)
        inside = low < stop
        found[inside] = self.codes[low[inside]]
        return found

    def p_values(self, slots: np.ndarray, codes: np.ndarray, weighting: Weighting) -> np.ndarray:
        """float64, like ``codes`` (uint16, already shifted): a class is in the set at alpha iff p > alpha.

        patient: (1 + sum over g of the share of g's codes >= code) / (G + 1); voxel: the same with pooled voxels. 1
        where the slot is empty.
        """
        column = self.mass if weighting == "patient" else self.counts
        running = self._running(column)
        units = self.units(weighting)
        unit = 2.0**UNIT_BITS if weighting == "patient" else 1.0
        slack = np.array([rounding(int(n), weighting) for n in np.unique(units)])
        slack = slack[np.searchsorted(np.unique(units), units)]

        def level(slot: np.ndarray, code: np.ndarray) -> np.ndarray:
            keys = self._keys
            at = np.searchsorted(keys, (slot.astype(np.int64) << CODE_BITS) | code)
            before = (running[at] - running[self.offsets[slot]]).astype(np.int64) / unit
            n = units[slot]
            # What the rule forgives as rounding is not counted here either, so that set = (p > alpha) at every level.
            return np.where(before > 0, (n + 1 - before - slack[slot]) / (n + 1), 1.0)

        if self.n_slots <= TABLE_SLOTS and codes.size > self.n_slots * N_CODES >> self.shift:
            width = N_CODES >> self.shift
            grid = np.indices((self.n_slots, width)).reshape(2, -1)
            table = level(grid[0], grid[1])
            return table[slots.astype(np.int64) * width + codes]
        return level(slots, codes)

    def codes_share(self, code: int) -> np.ndarray:
        """float64 "slot": share of the voxels that have exactly this code; 0 for empty slots."""
        n = self.n_voxels
        at = np.searchsorted(self._keys, (np.arange(self.n_slots, dtype=np.int64) << CODE_BITS) | code)
        held = np.zeros(self.n_slots, np.int64)
        there = at < len(self.codes)
        match = np.zeros(self.n_slots, bool)
        match[there] = self._keys[at[there]] == (np.flatnonzero(there) << CODE_BITS | code)
        held[match] = self.counts[at[match]]
        return held / np.maximum(n, 1)

    @property
    def _keys(self) -> np.ndarray:
        slots = np.repeat(np.arange(self.n_slots, dtype=np.int64), np.diff(self.offsets))
        return (slots << CODE_BITS) | self.codes

    @staticmethod
    def _running(column: np.ndarray) -> np.ndarray:
        """uint64 "pair + 1": sums over all slots may wrap around, differences within a slot are right all the same."""
        running = np.zeros(len(column) + 1, np.uint64)
        np.cumsum(column.astype(np.uint64), out=running[1:])
        return running


def rounding(n: int, weighting: Weighting) -> float:
    """By how much a sum of n shares may miss its target: level rounding, and what n floors took."""
    return LEVEL_ROUNDING if weighting == "voxel" else max(LEVEL_ROUNDING, n * 2.0**-UNIT_BITS)


def _totals(running: np.ndarray, offsets: np.ndarray) -> np.ndarray:
    return running[offsets[1:]] - running[offsets[:-1]]


def needed(units: np.ndarray, alpha: np.ndarray, weighting: Weighting) -> np.ndarray:
    """int64 "slot": what the cumulative sum has to reach; beyond reach where no finite threshold is valid."""
    made: Mapping[tuple[int, float], int] = {
        (n, a): _need(n, a, weighting) for n, a in set(zip(units.tolist(), alpha.tolist(), strict=True))
    }
    return np.array([made[pair] for pair in zip(units.tolist(), alpha.tolist(), strict=True)], np.int64)


def _need(n: int, alpha: float, weighting: Weighting) -> int:
    rank = conformal_rank(n, alpha)
    if weighting == "voxel":
        return rank
    target = (n + 1) - alpha * (n + 1) - rounding(n, weighting)
    # At least the smallest step: a threshold is a code that occurs.
    return max(1, math.ceil(target * 2**UNIT_BITS))
