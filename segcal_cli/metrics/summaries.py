"""Summaries: from the measures of cases to those of a data set.

*macro*, the default of every summary: the mean over a group's cases, then over groups, so that each patient counts
once. *micro*: the voxels of all cases pooled, then measured, so that large structures count more. Voxels, hits and sums
of p are pooled with the same weights; averaging per-case bin means, or weighting only the labels, gives other numbers.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from dataclasses import fields
from functools import reduce
from operator import add
from typing import Generic, TypeVar

import numpy as np

from segcal_cli.core.errors import UsageError
from segcal_cli.core.frozen import dataclass
from segcal_cli.core.labels import ALL_CLASSES
from segcal_cli.metrics.columns import (
    ALL_COLUMNS,
    ALWAYS,
    CLASS_COLUMNS,
    UNAVERAGED,
    Row,
    all_row,
    binned_columns,
    class_rows,
    defined,
    mean,
    top_columns,
)
from segcal_cli.metrics.counting import Counts
from segcal_cli.metrics.intervals import bootstrap_t, percentile, quantiles, resample
from segcal_cli.metrics.measures import CaseMeasures, Settings
from segcal_cli.metrics.pooling import UNITS, Pooled

Entry = TypeVar("Entry")

SIGNED = "volume_bias"
"""Its macro summary also has the mean of its absolute value: signs of patients cancel."""


class NoCells(UsageError):
    """Micro averages of smooth and isotonic measures need the cells."""

    template = "micro averages need pooled counts with cells; add them up before making cases slim"


@dataclass(frozen=True, slots=True)
class Spread:
    """A measure over groups. std: ddof = 1; low, high: bootstrap-t interval of the mean; None where undefined.

    n: groups that have a value. mean_abs: only for signed measures.
    """

    mean: float | None
    std: float | None
    median: float | None
    q25: float | None
    q75: float | None
    low: float | None
    high: float | None
    n: int
    mean_abs: float | None = None

    def to_json(self) -> dict[str, float | int | None]:
        """Fields by name; ``mean_abs`` only where it is meant."""
        values = {field.name: getattr(self, field.name) for field in fields(self)}
        return values if self.mean_abs is not None else {k: v for k, v in values.items() if k != "mean_abs"}


@dataclass(frozen=True, slots=True)
class Level(Generic[Entry]):
    """One entry per class and column, and per column of ``(all)``."""

    classes: dict[str, dict[str, Entry]]
    all: dict[str, Entry]


@dataclass(frozen=True, slots=True)
class Summary:
    """A source over a data set. micro_interval holds (low, high) of those micro columns that resampling gives."""

    macro: Level[Spread]
    micro: Level[float | int | None]
    micro_interval: Level[tuple[float | None, float | None]]


def pool(cases: Iterable[CaseMeasures]) -> Pooled:
    """Counts of all cases together; exact, in any order."""
    return reduce(add, (case.pooled for case in cases))


def summarise(
    cases: Sequence[CaseMeasures],
    pooled: Pooled,
    settings: Settings,
    *,
    level: float = 0.95,
    resamples: int = 2000,
    seed: int = 0,
) -> Summary:
    """Macro and micro measures of one source, with intervals over groups.

    cases: of one source, slim or not, in any order. pooled: their counts with cells (``pool`` before ``slim``). The
    same groups, resamples and seed give the same draws for every source. Raises NoCells, BadInterval.
    """
    if not pooled.cells:
        raise NoCells()
    groups = sorted({case.group for case in cases})
    drawn = resample(len(groups), resamples, seed)
    counts = pooled.counts()
    bias_ml = None if pooled.bias_ml is None else pooled.bias_ml / UNITS
    rows = class_rows(pooled, counts, bias_ml, settings)
    micro = Level(rows, all_row(pooled.averaged, rows, counts, settings))
    return Summary(
        Level(
            {name: spreads(cases, name, drawn, level) for name in pooled.classes},
            spreads(cases, ALL_CLASSES, drawn, level),
        ),
        micro,
        micro_intervals(cases, groups, settings, drawn, level),
    )


def group_values(cases: Sequence[CaseMeasures], name: str, key: str) -> dict[str, float | None]:
    """The value of each group: the mean over its cases that have one. name: a class, or ``(all)``. Sorted by group."""
    members: dict[str, list[CaseMeasures]] = {}
    for case in cases:
        members.setdefault(case.group, []).append(case)
    return {group: mean(_row(case, name).get(key) for case in members[group]) for group in sorted(members)}


def spreads(cases: Sequence[CaseMeasures], name: str, drawn: np.ndarray, level: float) -> dict[str, Spread]:
    """Every column of one class over groups. drawn: int64 "resample group", groups sorted by name."""
    keys = [key for key in (ALL_COLUMNS if name == ALL_CLASSES else CLASS_COLUMNS) if key not in UNAVERAGED]
    values = np.array([list(group_values(cases, name, key).values()) for key in keys], dtype=np.float64).T
    low, high = bootstrap_t(values, drawn, level)
    return {
        key: _spread(values[:, i][~np.isnan(values[:, i])], low[i], high[i], signed=key == SIGNED)
        for i, key in enumerate(keys)
    }


def _spread(values: np.ndarray, low: float, high: float, *, signed: bool) -> Spread:
    if not values.size:
        return Spread(None, None, None, None, None, None, None, 0)
    center = math.fsum(values) / values.size
    std = math.sqrt(math.fsum((values - center) ** 2) / (values.size - 1)) if values.size > 1 else None
    q25, median, q75 = quantiles(values, (0.25, 0.5, 0.75)).tolist()
    mean_abs = math.fsum(np.abs(values)) / values.size if signed else None
    return Spread(center, std, median, q25, q75, defined(low), defined(high), values.size, mean_abs)


def micro_intervals(
    cases: Sequence[CaseMeasures], groups: list[str], settings: Settings, drawn: np.ndarray, level: float
) -> Level[tuple[float | None, float | None]]:
    """Percentile intervals of micro values, by adding up the binned counts of the groups drawn; none for one group."""
    if len(groups) < 2 or not len(drawn):
        return Level({}, {})
    of_group = [reduce(add, (case.pooled.binned() for case in cases if case.group == group)) for group in groups]
    together = lambda name: _drawn_sum(drawn, np.stack([getattr(part, name) for part in of_group]))  # noqa: E731
    counts = Counts(
        together("n"),
        together("hits"),
        together("p") / UNITS,
        together("whole"),
        together("sums") / UNITS,
        together("top_n"),
        together("top_hits"),
        together("top_p") / UNITS,
        together("joint") / UNITS,
    )
    spaced = all(part.bias_ml is not None for part in of_group)
    columns = binned_columns(counts, together("bias_ml") / UNITS if spaced else None, settings)
    names, averaged = of_group[0].classes, [of_group[0].classes.index(name) for name in of_group[0].averaged]
    classes: dict[str, dict[str, tuple[float | None, float | None]]] = {name: {} for name in names}
    row_all = {key: percentile(value, level) for key, value in top_columns(counts, settings).items()}
    wanted = {*settings.wanted, *ALWAYS}
    row_all = {key: ends for key, ends in row_all.items() if key in wanted}
    for key, value in columns.items():
        if key in UNAVERAGED or key not in wanted:
            continue
        ends = percentile(value, level)
        for row, name in enumerate(names):
            classes[name][key] = (defined(ends[0, row]), defined(ends[1, row]))
        chosen = value[:, averaged]
        known = np.isfinite(chosen)
        with np.errstate(invalid="ignore"):
            row_all[key] = percentile(np.where(known, chosen, 0.0).sum(axis=1) / known.sum(axis=1), level)
    return Level(classes, {key: (defined(ends[0]), defined(ends[1])) for key, ends in row_all.items()})


def _drawn_sum(drawn: np.ndarray, tables: np.ndarray) -> np.ndarray:
    """int64 "resample ...": tables "group ..." added up as often as their group was drawn. Integers, so exact."""
    return (drawn @ tables.reshape(len(tables), -1)).reshape(len(drawn), *tables.shape[1:])


def _row(case: CaseMeasures, name: str) -> Row:
    return case.all if name == ALL_CLASSES else case.classes[name]
