"""The table of a comparison of methods: a row per method and class, a column per measure, the best ones marked.

*Marked* (bold in print) are the method with the best mean and all that Wilcoxon's signed-rank test over patients does
not tell from it, as in Tables 1 and 2 of Rousseau et al. 2021.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

from segcal_cli.core.errors import count_text
from segcal_cli.core.labels import ALL_CLASSES
from segcal_cli.metrics.comparison import COMPARED, Compared
from segcal_cli.metrics.measures import Settings
from segcal_cli.reporting.tables import Table, short
from segcal_cli.workflows.measure_tables import IN_SAMPLE_MARK, Evaluation
from segcal_cli.workflows.measure_text import BEST_MARK, SHOWN_BY_CONVENTION, comparison_note

MEASURES = ("dice", "ece", "ace", "mce", "brier", "nll", "joint_nll", "joint_brier", "accuracy")
"""Columns of the table, overlap and calibration error first. Joint ones are of exclusive classes together."""

ENDINGS = ("", "_std", "_micro", "_p_wilcoxon", "_bold")
"""What is told of a measure: its mean over patients, their standard deviation, its value on all voxels pooled, p
against the best method, and whether it is marked."""


def shown_measures(settings: Settings, *, asked: bool) -> tuple[str, ...]:
    """Measures of the table; asked: all that were asked for and have a better side."""
    usual = [key for key in MEASURES if key in settings.wanted]
    return (*usual, *(key for key in COMPARED if asked and key in settings.wanted and key not in usual))


def columns_of(measures: Sequence[str]) -> tuple[str, ...]:
    return ("method", "class", "n", *(key + ending for key in measures for ending in ENDINGS), "pareto")


def method_rows(evaluation: Evaluation, measures: Sequence[str]) -> Iterator[dict[str, Any]]:
    """Rows by method and class, ``(all)`` last. n: patients. pareto: on the front of Dice and ECE."""
    tests = {(row.source, row.name, row.metric): row for row in evaluation.comparison}
    for source in evaluation.sources:
        summary = evaluation.summaries[source.name]
        for name in evaluation.rows:
            whole = name == ALL_CLASSES
            spreads = summary.macro.all if whole else summary.macro.classes[name]
            pooled = summary.micro.all if whole else summary.micro.classes[name]
            row: dict[str, Any] = {"method": source.name, "class": name, "n": len(source.groups)}
            for key in measures:
                spread, test = spreads.get(key), tests.get((source.name, name, key))
                told = (
                    None if spread is None else spread.mean,
                    None if spread is None else spread.std,
                    pooled.get(key),
                    None if test is None else test.p_wilcoxon,
                    None if test is None else test.bold,
                )
                row |= {key + ending: value for ending, value in zip(ENDINGS, told, strict=True)}
            yield row | {"pareto": source.name in evaluation.fronts.get(name, ())}


def people_table(evaluation: Evaluation, measures: Sequence[str], folds: int) -> Table:
    """Means over classes and patients, one row per method."""
    summaries = {source.name: evaluation.summaries[source.name].macro.all for source in evaluation.sources}
    shown = [key for key in measures if any(of[key].mean is not None for of in summaries.values())]
    factors = {one.key: one for one in SHOWN_BY_CONVENTION.get(evaluation.convention or "", ())}
    heads = [factors[key].heading if key in factors else key for key in shown]
    tests = {(row.source, row.metric): row for row in evaluation.comparison if row.name == ALL_CLASSES}
    rows = []
    for source in evaluation.sources:
        cells = []
        for key in shown:
            mean, factor = summaries[source.name][key].mean, factors[key].factor if key in factors else 1.0
            cells.append(short(None if mean is None else mean * factor, 5) + _mark(tests.get((source.name, key))))
        rows.append((source.marked, *cells))
    return Table("", ("method", *heads), tuple(rows), _caption(evaluation, folds))


def _mark(test: Compared | None) -> str:
    return BEST_MARK if test is not None and test.bold else ""


def _caption(evaluation: Evaluation, folds: int) -> str:
    patients, cases = evaluation.n_groups, len(evaluation.sources[0].cases)
    how = (
        f"each measured with parameters fitted without its fold ({folds} folds over patients)"
        if folds
        else "each measured with parameters that it had a part in"
    )
    over = f"{count_text(patients, 'patient')} ({count_text(cases, 'case')})"
    text = f"Means over classes, then over {over}, {how}. {comparison_note(evaluation)} "
    if any(source.in_sample for source in evaluation.sources):
        text += f"{IN_SAMPLE_MARK} fitted on some of these cases: in-sample, biased low. "
    front = ", ".join(evaluation.fronts.get(ALL_CLASSES, ()))
    text += f"Pareto front of Dice and ECE: {front}. " if front else ""
    return f"{text}{evaluation.conventions}. {evaluation.guarantee}"
