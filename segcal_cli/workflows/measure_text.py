"""What people see of ``evaluate``: means over patients, and which source is better, in two tables with captions."""

from __future__ import annotations

from collections.abc import Iterator

from segcal_cli.core.errors import count_text
from segcal_cli.core.frozen import dataclass
from segcal_cli.core.labels import ALL_CLASSES
from segcal_cli.metrics.columns import TOP_COLUMNS
from segcal_cli.metrics.comparison import MIN_TESTED_GROUPS, SIGNIFICANCE, Compared, heading_of
from segcal_cli.reporting.tables import Table, short
from segcal_cli.workflows.measure_tables import IN_SAMPLE_MARK, Evaluation, SourceResult

BEST_MARK = "*"
"""Marks the best source and those that no test tells apart from it."""


@dataclass(frozen=True, slots=True)
class Shown:
    """A measure of the tables for people: its key, its heading, and what it is multiplied by."""

    key: str
    heading: str
    factor: float = 1.0


SHOWN = tuple(Shown(key, key) for key in ("ece", "ace", "mce", "brier", "nll", "volume_bias", "dice"))

SHOWN_BY_CONVENTION = {"rousseau": (Shown("ece", "ece [%]", 100.0), *SHOWN[1:])}
"""Rousseau et al. print ECE in per cent."""

SHOWN_ON_TOP = tuple(Shown(key, key) for key in TOP_COLUMNS)
"""Measures of the most probable class, by which papers on classifiers go."""

MICRO_CONVENTIONS = frozenset({"classification"})
"""Conventions whose figures are of all voxels pooled."""


def people_tables(evaluation: Evaluation) -> Iterator[Table]:
    """Means, one row per source and class; then the comparison, where there is one."""
    if evaluation.convention in MICRO_CONVENTIONS and not evaluation.settings.wanted.isdisjoint(TOP_COLUMNS):
        yield _on_top(evaluation)
    yield _means(evaluation)
    if evaluation.comparison:
        yield _comparison(evaluation)


def comparison_note(evaluation: Evaluation) -> str:
    """How the comparison is to be read, or why there is none."""
    n = evaluation.n_groups
    if len(evaluation.sources) < 2:
        return "One source: nothing to compare."
    if n < 2:
        return "One patient: no comparison."
    if n < MIN_TESTED_GROUPS:
        return (
            f"{n} patients: with fewer than {MIN_TESTED_GROUPS} no two-sided signed-rank test can reach p < "
            f"{SIGNIFICANCE}, so only the best source is marked."
        )
    return (
        "Marked: the source with the best mean, and every source whose Wilcoxon signed-rank test against it gives "
        f"p >= {SIGNIFICANCE} (two-sided, pairs of patients, zeros dropped)."
    )


def _means(evaluation: Evaluation) -> Table:
    shown = _shown(evaluation)
    micro = evaluation.convention in MICRO_CONVENTIONS
    rows = []
    for source in evaluation.sources:
        for name in _rows(evaluation):
            rows.append((source.marked, name, *(_cell(evaluation, source, name, one, micro=micro) for one in shown)))
    first = evaluation.sources[0]
    how = "All voxels pooled (micro), [interval] over" if micro else "Mean ± standard deviation over"
    caption = f"{how} {count_text(evaluation.n_groups, 'patient')} ({count_text(len(first.cases), 'case')}). "
    caption += f"{evaluation.conventions}. {len(evaluation.absent)} absent (case, class) pairs. "
    caption += evaluation.guarantee
    if any(source.in_sample for source in evaluation.sources):
        caption += f" {IN_SAMPLE_MARK} fitted on some of these cases: in-sample."
    return Table("", ("source", "class", *(one.heading for one in shown)), tuple(rows), caption)


def _on_top(evaluation: Evaluation) -> Table:
    """The most probable class of all voxels, one row per source; its caption is that of the table below it."""
    shown = [one for one in SHOWN_ON_TOP if one.key in evaluation.settings.wanted]
    rows = tuple(
        (source.marked, *(_cell(evaluation, source, ALL_CLASSES, one, micro=True) for one in shown))
        for source in evaluation.sources
    )
    caption = f"The most probable class; {evaluation.binning}, all as below."
    return Table("", ("source", *(one.heading for one in shown)), rows, caption)


def _comparison(evaluation: Evaluation) -> Table:
    """The row ``(all)`` of the measures that people see."""
    name = ALL_CLASSES
    names = {source.name: source.marked for source in evaluation.sources}
    rows = [
        (heading_of(one.key) if one.key == one.heading else one.heading, names[row.source], *_compared(row, one.factor))
        for one in (*_compared_on_top(evaluation), *_shown(evaluation))
        for row in evaluation.comparison
        if row.name == name and row.metric == one.key
    ]
    caption = f"{comparison_note(evaluation)} Macro means over patients; {evaluation.binning}, conventions as above. "
    caption += "Difference: median of this source minus the "
    caption += "best; better in: share of patients; p Holm: adjusted for the number of sources."
    if name in evaluation.fronts:
        front = ", ".join(names[source] for source in evaluation.fronts[name])
        caption += f" Pareto front of Dice and ECE: {front}."
    columns = ("measure", "source", "mean", "difference", "better in", "p Wilcoxon", "p Holm", "p t-test", "n")
    return Table(f"Sources compared, {name}", columns, tuple(rows), caption)


def _compared(row: Compared, factor: float) -> tuple[str, ...]:
    mean = short(_times(row.mean, factor)) + (BEST_MARK if row.bold else "")
    if row.source == row.best:
        return mean, "-", "-", "-", "-", "-", str(row.n)
    share = "-" if row.better_in is None else f"{100 * row.better_in:.0f} %"
    ps = (_p(p) for p in (row.p_wilcoxon, row.p_holm, row.p_ttest))
    return mean, short(_times(row.median_difference, factor)), share, *ps, str(row.n)


def _p(value: float | None) -> str:
    return "<0.001" if value is not None and value < 0.001 else short(value, 3)


def _compared_on_top(evaluation: Evaluation) -> tuple[Shown, ...]:
    return SHOWN_ON_TOP if evaluation.convention in MICRO_CONVENTIONS else ()


def _shown(evaluation: Evaluation) -> list[Shown]:
    shown = SHOWN_BY_CONVENTION.get(evaluation.convention or "", SHOWN)
    wanted = [one for one in shown if one.key in evaluation.settings.wanted]
    return wanted or [Shown(key, key) for key in evaluation.settings.metrics[: len(SHOWN)]]


def _rows(evaluation: Evaluation) -> tuple[str, ...]:
    """Classes and ``(all)``; of one class, which is both, the class."""
    rows = evaluation.rows
    return rows[:1] if len(rows) == 2 else rows


def _cell(evaluation: Evaluation, source: SourceResult, name: str, one: Shown, *, micro: bool) -> str:
    summary = evaluation.summaries[source.name]
    if micro:
        row = summary.micro.all if name == ALL_CLASSES else summary.micro.classes[name]
        intervals = summary.micro_interval
        ends = intervals.all if name == ALL_CLASSES else intervals.classes.get(name, {})
        low, high = ends.get(one.key, (None, None))
        value = _times(row.get(one.key), one.factor)
        return short(value) if low is None else f"{short(value)} [{_end(low, one)}, {_end(high, one)}]"
    spreads = summary.macro.all if name == ALL_CLASSES else summary.macro.classes[name]
    if one.key not in spreads:
        return "-"
    mean, std = (_times(value, one.factor) for value in (spreads[one.key].mean, spreads[one.key].std))
    return short(mean) if std is None else f"{short(mean)} ± {short(std)}"


def _times(value: float | None, factor: float) -> float | None:
    return None if value is None else value * factor


def _end(value: float | None, one: Shown) -> str:
    return short(_times(value, one.factor))
