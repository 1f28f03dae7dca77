"""The tables of ``evaluate``: a row per source, case and class; summaries and comparisons over patients; bins.

Column names are the keys of the JSON document, so a table and a document can be told apart by their form alone.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import asdict, field
from functools import cached_property
from typing import Any

from segcal_cli.core.errors import count_text
from segcal_cli.core.frozen import dataclass
from segcal_cli.core.labels import ALL_CLASSES, LabelSpace
from segcal_cli.metrics.columns import ALL_COLUMNS, ALWAYS, Row
from segcal_cli.metrics.comparison import COMPARED, Compared, compare, overlap_and_error, pareto_front
from segcal_cli.metrics.measures import CaseMeasures, Settings
from segcal_cli.metrics.pooling import Pooled
from segcal_cli.metrics.summaries import Summary, summarise
from segcal_cli.workflows.conventions import Intervals

TABLE_COLUMNS = ("source", "case", "group", "class", *ALL_COLUMNS)
"""Columns of the table of cases, in order."""

SUMMARY_COLUMNS = (
    "source", "class", "average", "metric", "mean", "std", "median", "q25", "q75", "low", "high", "n",
)  # fmt: skip

COMPARISON_COLUMNS = (
    "metric", "class", "source", "best", "mean", "n", "n_zero", "median_difference", "p_wilcoxon", "p_holm", "p_ttest",
    "better_in", "bold", "pareto",
)  # fmt: skip

BIN_COLUMNS = (
    "source", "case", "class", "bin", "lower", "upper", "n", "mean_probability", "frequency", "gap",
)  # fmt: skip

POOLED_CASES = "(micro)"
"""Stands for all cases pooled in the column of cases."""

DESCRIPTIVE = "Descriptive measures; no coverage guarantee."

IN_SAMPLE_MARK = "†"
"""Marks a source whose calibrator was fitted on some of these cases."""


@dataclass(frozen=True, slots=True)
class SourceResult:
    """One source over all cases. artifact: its file, or None; in_sample: it was fitted on some of these cases."""

    name: str
    artifact: str | None
    in_sample: bool
    cases: list[CaseMeasures]
    pooled: Pooled

    @property
    def groups(self) -> set[str]:
        return {case.group for case in self.cases}

    @property
    def marked(self) -> str:
        """The name in tables and pictures."""
        return self.name + (IN_SAMPLE_MARK if self.in_sample else "")


@dataclass(frozen=True)
class Evaluation:
    """All sources, and the conventions by which they were measured.

    roi: whether voxels outside a region of interest were left out. convention: the published one that was named.
    """

    space: LabelSpace
    settings: Settings
    sources: list[SourceResult]
    roi: bool = False
    intervals: Intervals = field(default_factory=Intervals)
    convention: str | None = None

    @cached_property
    def summaries(self) -> dict[str, Summary]:
        """Source -> summary, all with the same resamples."""
        return {
            source.name: summarise(
                source.cases,
                source.pooled,
                self.settings,
                level=self.intervals.level,
                resamples=self.intervals.resamples,
                seed=self.intervals.seed,
            )
            for source in self.sources
        }

    @cached_property
    def comparison(self) -> list[Compared]:
        """Every source against the best one, by class and measure; empty for one source or one patient."""
        if len(self.sources) < 2 or self.n_groups < 2:
            return []
        cases = {source.name: source.cases for source in self.sources}
        asked = [metric for metric in COMPARED if metric in self.settings.wanted]
        return [row for name in self.rows for row in compare(cases, name, asked)]

    @cached_property
    def fronts(self) -> dict[str, list[str]]:
        """Class -> sources on the Pareto front of Dice and ECE; classes where both are known, of several sources."""
        if len(self.sources) < 2 or not {"dice", "ece"} <= self.settings.wanted:
            return {}
        cases = {source.name: source.cases for source in self.sources}
        points = {name: overlap_and_error(cases, name) for name in self.rows}
        return {name: pareto_front(of) for name, of in points.items() if of}

    @property
    def rows(self) -> tuple[str, ...]:
        """Measured classes, ``(all)`` last."""
        return (*self.sources[0].pooled.classes, ALL_CLASSES)

    @property
    def n_groups(self) -> int:
        return len(self.sources[0].groups)

    @property
    def absent(self) -> list[tuple[str, str]]:
        """(case, class) pairs where no voxel of the class is labelled."""
        cases = self.sources[0].cases
        return [(case.case, name) for case in cases for name, row in case.classes.items() if row["n_label"] == 0]

    @property
    def binning(self) -> str:
        return f"{count_text(self.settings.bins, 'bin')}, {self.settings.closed}-closed"

    @property
    def conventions(self) -> str:
        """What was counted and how, in one line."""
        s = self.settings
        dice = f"Dice of two empty masks: {'undefined' if s.empty_dice == 'null' else '1'}"
        background = "" if self.space.binary or not self.space.exclusive else f", background {s.background}d"
        where = "voxels of the region of interest" if self.roi else "all voxels"
        parts = [
            self.binning, f"empty bins: {s.empty_bins}", f"absent classes: {s.absent}",
            f"decision: {s.decision if self.space.exclusive else 'p > 0.5'}{background}", dice, where,
        ]  # fmt: skip
        if "kde_ece" in s.wanted:
            width = "the likeliest bandwidth" if s.kde_bandwidth is None else f"bandwidth {s.kde_bandwidth:g}"
            parts.append(f"kde_ece: {s.kde_sample} voxels of a case, {width}")
        return "; ".join(parts)

    @property
    def guarantee(self) -> str:
        """What the numbers promise: nothing, and on what their intervals rest."""
        if self.n_groups < 2 or not self.intervals.resamples:
            return f"{DESCRIPTIVE} No intervals{': one patient' if self.n_groups < 2 else ''}."
        return f"{DESCRIPTIVE} Intervals: bootstrap over {self.n_groups} patients, valid if patients are independent."


def table_rows(evaluation: Evaluation) -> Iterator[dict[str, Any]]:
    """Rows by source, case id and class order, ``(all)`` last."""
    for source in evaluation.sources:
        for case in source.cases:
            for name, row in [*case.classes.items(), (ALL_CLASSES, case.all)]:
                yield {"source": source.marked, "case": case.case, "group": case.group, "class": name, **row}


def summary_rows(evaluation: Evaluation) -> Iterator[dict[str, Any]]:
    """Rows by source, class, average and metric."""
    for source in evaluation.sources:
        summary = evaluation.summaries[source.name]
        n = len(source.groups)
        for name in [*summary.macro.classes, ALL_CLASSES]:
            macro = summary.macro.all if name == ALL_CLASSES else summary.macro.classes[name]
            for metric, spread in macro.items():
                if metric not in _columns(evaluation):
                    continue
                values = {k: v for k, v in spread.to_json().items() if k in SUMMARY_COLUMNS}
                yield {"source": source.marked, "class": name, "average": "macro", "metric": metric, **values}
            micro: Row = summary.micro.all if name == ALL_CLASSES else summary.micro.classes[name]
            ends = summary.micro_interval
            intervals = ends.all if name == ALL_CLASSES else ends.classes.get(name, {})
            for metric, value in micro.items():
                if metric not in _columns(evaluation):
                    continue
                low, high = intervals.get(metric, (None, None))
                yield {
                    "source": source.marked, "class": name, "average": "micro", "metric": metric,
                    "mean": value, "low": low, "high": high, "n": n,
                }  # fmt: skip


def comparison_rows(evaluation: Evaluation) -> Iterator[dict[str, Any]]:
    """Rows by class, measure and source."""
    for row in evaluation.comparison:
        values = asdict(row)
        values["class"] = values.pop("name")
        yield {column: values[column] for column in COMPARISON_COLUMNS}


def marked_comparison_rows(evaluation: Evaluation) -> Iterator[dict[str, Any]]:
    """The same, with the names that tables show."""
    marked = {source.name: source.marked for source in evaluation.sources}
    for row in comparison_rows(evaluation):
        yield {**row, "source": marked[row["source"]], "best": marked[row["best"]]}


def bin_rows(evaluation: Evaluation) -> Iterator[dict[str, Any]]:
    """Rows by source, case id (all cases pooled last), class and bin."""
    bins = evaluation.settings.bins
    for source in evaluation.sources:
        tables = [(case.case, case.pooled) for case in source.cases] + [(POOLED_CASES, source.pooled)]
        for case, pooled in tables:
            for name in pooled.classes:
                table = pooled.table(name)
                for m in range(bins):
                    yield {
                        "source": source.marked, "case": case, "class": name, "bin": m,
                        "lower": m / bins, "upper": (m + 1) / bins, "n": int(table.n[m]),
                        "mean_probability": float(table.mean_probability[m]),
                        "frequency": float(table.frequency[m]), "gap": float(table.gap[m]),
                    }  # fmt: skip


def _columns(evaluation: Evaluation) -> frozenset[str]:
    """Measures that were asked for, and counts."""
    return evaluation.settings.wanted | frozenset(ALWAYS)
