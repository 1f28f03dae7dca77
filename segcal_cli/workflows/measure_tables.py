"""The tables of ``evaluate``: a row per source, case and class; summaries over patients; what people see.

Column names are the keys of the JSON document, so a table and a document can be told apart by their form alone.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass, field
from functools import cached_property
from typing import Any

from segcal_cli.core.labels import ALL_CLASSES, LabelSpace
from segcal_cli.metrics.columns import ALL_COLUMNS, Row
from segcal_cli.metrics.measures import CaseMeasures, Settings
from segcal_cli.metrics.pooling import Pooled
from segcal_cli.metrics.summaries import Summary, summarise
from segcal_cli.reporting.tables import Table, short

TABLE_COLUMNS = ("source", "case", "group", "class", *ALL_COLUMNS)
"""Columns of the table of cases, in order."""

SUMMARY_COLUMNS = (
    "source", "class", "average", "metric", "mean", "std", "median", "q25", "q75", "low", "high", "n",
)  # fmt: skip

SHOWN = ("ece", "ace", "mce", "brier", "nll", "volume_bias", "dice")
"""Measures of the table for people."""

GUARANTEE = (
    "Descriptive measures; no coverage guarantee. Intervals: bootstrap over {n} patients, valid if patients are "
    "independent."
)

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


@dataclass(frozen=True)
class Evaluation:
    """All sources, and the conventions by which they were measured. roi: whether voxels outside one were left out."""

    space: LabelSpace
    settings: Settings
    sources: list[SourceResult]
    roi: bool = False
    level: float = 0.95
    resamples: int = 2000
    seed: int = field(default=0)

    @cached_property
    def summaries(self) -> dict[str, Summary]:
        """Source -> summary, all with the same resamples."""
        return {
            source.name: summarise(
                source.cases, source.pooled, self.settings, level=self.level, resamples=self.resamples, seed=self.seed
            )
            for source in self.sources
        }

    @property
    def absent(self) -> list[tuple[str, str]]:
        """(case, class) pairs where no voxel of the class is labelled."""
        cases = self.sources[0].cases
        return [(case.case, name) for case in cases for name, row in case.classes.items() if row["n_label"] == 0]

    @property
    def conventions(self) -> str:
        """What was counted and how, in one line."""
        s = self.settings
        dice = f"Dice of two empty masks: {'undefined' if s.empty_dice == 'null' else '1'}"
        background = "" if self.space.binary or not self.space.exclusive else f", background {s.background}d"
        where = "voxels of the region of interest" if self.roi else "all voxels"
        parts = [
            f"{s.bins} bins, {s.closed}-closed", f"empty bins: {s.empty_bins}", f"absent classes: {s.absent}",
            f"decision: {s.decision if self.space.exclusive else 'p > 0.5'}{background}", dice, where,
        ]  # fmt: skip
        return "; ".join(parts)


def table_rows(evaluation: Evaluation) -> Iterator[dict[str, Any]]:
    """Rows by source, case id and class order, ``(all)`` last."""
    for source in evaluation.sources:
        for case in source.cases:
            for name, row in [*case.classes.items(), (ALL_CLASSES, case.all)]:
                yield {"source": source.name, "case": case.case, "group": case.group, "class": name, **row}


def summary_rows(evaluation: Evaluation) -> Iterator[dict[str, Any]]:
    """Rows by source, class, average and metric."""
    for source in evaluation.sources:
        summary = evaluation.summaries[source.name]
        n = len(source.groups)
        for name in [*summary.macro.classes, ALL_CLASSES]:
            macro = summary.macro.all if name == ALL_CLASSES else summary.macro.classes[name]
            for metric, spread in macro.items():
                values = {k: v for k, v in spread.to_json().items() if k in SUMMARY_COLUMNS}
                yield {"source": source.name, "class": name, "average": "macro", "metric": metric, **values}
            micro: Row = summary.micro.all if name == ALL_CLASSES else summary.micro.classes[name]
            ends = summary.micro_interval
            intervals = ends.all if name == ALL_CLASSES else ends.classes.get(name, {})
            for metric, value in micro.items():
                low, high = intervals.get(metric, (None, None))
                yield {
                    "source": source.name, "class": name, "average": "micro", "metric": metric,
                    "mean": value, "low": low, "high": high, "n": n,
                }  # fmt: skip


def evaluation_json(evaluation: Evaluation) -> dict[str, Any]:
    """The ``result`` of ``evaluate --json``."""
    first = evaluation.sources[0]
    return {
        "options": {**asdict(evaluation.settings), "level": evaluation.level, "bootstrap": evaluation.resamples},
        "conventions": evaluation.conventions,
        "guarantee": GUARANTEE.format(n=len(first.groups)),
        "activation": evaluation.space.activation,
        "classes": list(evaluation.space.names),
        "n_cases": len(first.cases),
        "n_groups": len(first.groups),
        "sources": [_source_json(source, evaluation.summaries[source.name]) for source in evaluation.sources],
        "absent": [{"case": case, "class": name} for case, name in evaluation.absent],
    }


def people_tables(evaluation: Evaluation) -> Iterator[Table]:
    """Macro means over patients, one row per source and class."""
    rows = []
    for source in evaluation.sources:
        summary = evaluation.summaries[source.name]
        for name in [*summary.macro.classes, ALL_CLASSES]:
            if name == ALL_CLASSES and len(summary.macro.classes) == 1:
                continue
            spreads = summary.macro.all if name == ALL_CLASSES else summary.macro.classes[name]
            cells = [_cell(spreads[key].mean, spreads[key].std) for key in SHOWN]
            rows.append((source.name + (IN_SAMPLE_MARK if source.in_sample else ""), name, *cells))
    first = evaluation.sources[0]
    caption = f"Mean ± standard deviation over {len(first.groups)} patients ({len(first.cases)} cases). "
    caption += f"{evaluation.conventions}. {len(evaluation.absent)} absent (case, class) pairs. "
    caption += GUARANTEE.format(n=len(first.groups))
    if any(source.in_sample for source in evaluation.sources):
        caption += f" {IN_SAMPLE_MARK} fitted on some of these cases: in-sample."
    yield Table("", ("source", "class", *SHOWN), tuple(rows), caption)


def _cell(mean: float | None, std: float | None) -> str:
    return short(mean) if std is None else f"{short(mean)} ± {short(std)}"


def _source_json(source: SourceResult, summary: Summary) -> dict[str, Any]:
    return {
        "name": source.name,
        "artifact": source.artifact,
        "in_sample": source.in_sample,
        "cases": [
            {"case": case.case, "group": case.group, "classes": case.classes, "all": case.all} for case in source.cases
        ],
        "macro": {
            "classes": {
                name: {key: spread.to_json() for key, spread in spreads.items()}
                for name, spreads in summary.macro.classes.items()
            },
            "all": {key: spread.to_json() for key, spread in summary.macro.all.items()},
        },
        "micro": {"classes": summary.micro.classes, "all": summary.micro.all},
        "micro_interval": {
            "classes": _pairs_by_class(summary.micro_interval.classes),
            "all": {key: list(ends) for key, ends in summary.micro_interval.all.items()},
        },
    }


def _pairs_by_class(classes: dict[str, dict[str, tuple[float | None, float | None]]]) -> dict[str, dict[str, Sequence]]:
    return {name: {key: list(ends) for key, ends in columns.items()} for name, columns in classes.items()}
