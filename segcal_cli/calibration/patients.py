"""Patients: sums of case statistics by group, folds over groups, and bootstrap resamples of groups.

The patient is the unit of exchangeability, so folds never split one and resamples draw whole ones. Group i in byte
order of the ids is in fold i mod K.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np

from segcal_cli.calibration.linear import Voxels
from segcal_cli.calibration.nodes import NODES, Curves
from segcal_cli.calibration.sketch import SUMS, Moments, moments_of
from segcal_cli.calibration.statistics import CaseStatistics
from segcal_cli.core.frozen import dataclass

RESAMPLES = 1000
"""Bootstrap resamples of an interval."""

LEVEL = 0.95
"""Of the intervals of parameters."""

NUMBERS_AT_ONCE = 1 << 15
"""Resamples times bins solved together: arrays of this length stay in a core's cache."""


@dataclass(frozen=True, slots=True)
class Patients:
    """Cases in order of their ids, and the groups they belong to. member: int64 "case", index into ``groups``."""

    cases: tuple[CaseStatistics, ...]
    groups: tuple[str, ...]
    member: np.ndarray
    weights: np.ndarray

    @classmethod
    def of(cls, cases: Sequence[CaseStatistics], weight: str) -> Patients:
        """weight: "voxel", or "case" where each case sums to 1."""
        ordered = tuple(sorted(cases, key=lambda case: case.case.encode()))
        groups = tuple(sorted({case.group for case in ordered}, key=str.encode))
        place = {group: i for i, group in enumerate(groups)}
        weights = np.array([1.0 if weight == "voxel" else 1.0 / case.voxels for case in ordered])
        return cls(ordered, groups, np.array([place[case.group] for case in ordered]), weights)

    def fold_of(self, folds: int) -> np.ndarray:
        """int64 "group": the fold of each group, 0 to min(folds, groups) - 1."""
        return np.arange(len(self.groups)) % min(folds, len(self.groups))

    def sketch_tables(self, problems: Sequence[int]) -> GroupTables:
        """Weighted tables by group, of one problem or of several taken together."""
        occupied = np.unique(np.concatenate([case.sketches[i].bins for case in self.cases for i in problems]))
        tables = np.zeros((len(self.groups), SUMS, len(occupied)))
        positive = np.zeros(len(self.groups))
        negative = np.zeros(len(self.groups))
        for case, group, weight in zip(self.cases, self.member, self.weights, strict=True):
            for i in problems:
                sketch = case.sketches[i]
                tables[group][:, np.searchsorted(occupied, sketch.bins)] += weight * sketch.sums
                positive[group] += sketch.positives
                negative[group] += sketch.voxels - sketch.positives
        return GroupTables(tables, occupied, positive, negative)

    def curves(self) -> GroupCurves:
        """Weighted node sums by group. Columns: d, then squares if kept, then the label gap, then the weight of
        voxels."""
        rows = []
        for case in self.cases:
            sums = case.nodes
            assert sums is not None, "the nodes family keeps node sums"
            squares = np.zeros(0) if sums.squares is None else sums.squares
            rows.append(np.concatenate([sums.d, squares, [sums.label_gap, float(sums.voxels)]]))
        table = np.zeros((len(self.groups), len(rows[0])))
        for row, group, weight in zip(rows, self.member, self.weights, strict=True):
            table[group] += weight * row
        return GroupCurves(table)


@dataclass(frozen=True, slots=True)
class GroupTables:
    """Sketches of one problem. tables: float64 "group 5 bin"; bins: which, int64 "bin"; positive, negative: voxels
    "group"."""

    tables: np.ndarray
    bins: np.ndarray
    positive: np.ndarray
    negative: np.ndarray

    def moments(self, chosen: Sequence[np.ndarray]) -> Moments:
        """Of several sets of groups, each a bool "group". Sums run in the order of the groups."""
        voxels = np.array([(self.positive + self.negative)[groups].sum() for groups in chosen])
        return moments_of(np.stack([self.tables[groups].sum(axis=0) for groups in chosen]), self.bins, voxels)

    def resampled(self, counts: np.ndarray) -> Moments:
        """Of resamples. counts: float64 "resample group", how often each group was drawn."""
        flat = counts @ self.tables.reshape(len(self.tables), -1)
        return moments_of(flat.reshape(len(counts), *self.tables.shape[1:]), self.bins)


@dataclass(frozen=True, slots=True)
class GroupCurves:
    """Node sums by group. table: float64 "group column", see ``Patients.curves``."""

    table: np.ndarray

    def curves(self, chosen: Sequence[np.ndarray]) -> Curves:
        """Of several sets of groups, each a bool "group"."""
        return curves_of(np.stack([self.table[groups].sum(axis=0) for groups in chosen]))

    def resampled(self, counts: np.ndarray) -> Curves:
        return curves_of(counts @ self.table)


def curves_of(table: np.ndarray) -> Curves:
    """Curves from sums float64 "problem column"."""
    nodes = table[:, :-2]
    kept = nodes.shape[1] > NODES
    d = nodes[:, :NODES]
    return Curves(d, table[:, -2], table[:, -1], nodes[:, NODES:] if kept else None)


def joined(patients: Patients, groups: np.ndarray) -> Voxels:
    """The samples of the chosen groups, bool "group", as one."""
    parts = []
    for case, group, weight in zip(patients.cases, patients.member, patients.weights, strict=True):
        if groups[group]:
            assert case.sample is not None, "the sample family keeps samples"
            parts.append(Voxels(case.sample.x, case.sample.truth, case.sample.weights * weight))
    return Voxels(
        np.concatenate([part.x for part in parts], axis=2),
        np.concatenate([part.truth for part in parts], axis=1),
        np.concatenate([part.weights for part in parts]),
    )


def bootstrap(groups: int, width: int, seed: int, solve: Callable[[np.ndarray], np.ndarray]) -> np.ndarray:
    """float64 "2 parameter": lower and upper ends of the percentile intervals of parameters over resamples of groups.

    solve: parameters "resample parameter" for counts float64 "resample group", NaN where a resample cannot be fitted.
    width: numbers per resample, which decides how many are solved together. Efron 1979, "Bootstrap methods: another
    look at the jackknife".
    """
    draws = np.random.default_rng(seed).multinomial(groups, np.full(groups, 1.0 / groups), size=RESAMPLES)
    together = max(1, NUMBERS_AT_ONCE // width)
    found = [solve(draws[start : start + together].astype(np.float64)) for start in range(0, RESAMPLES, together)]
    tail = (1.0 - LEVEL) / 2.0
    return np.nanquantile(np.concatenate(found), [tail, 1.0 - tail], axis=0)
