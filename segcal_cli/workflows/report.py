"""The report of ``reliability``: what its page says, from the study and its pictures."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence

from segcal_cli import __version__
from segcal_cli.core.errors import count_text, with_case
from segcal_cli.core.labels import ALL_CLASSES
from segcal_cli.core.observer import Recorder
from segcal_cli.metrics.comparison import Compared, heading_of
from segcal_cli.metrics.summaries import Spread
from segcal_cli.reporting.page import Cell, Page, Section, Shown, SortableTable
from segcal_cli.reporting.pictures import Picture
from segcal_cli.reporting.tables import short
from segcal_cli.workflows.judged import PICTURED, reading_of
from segcal_cli.workflows.kinds import Reading
from segcal_cli.workflows.measure_tables import IN_SAMPLE_MARK, Evaluation
from segcal_cli.workflows.measure_text import comparison_note
from segcal_cli.workflows.scene import marked
from segcal_cli.workflows.study import Study

SUMMARISED = ("ece", "ace", "mce", "smooth_ece", "brier", "nll", "volume_bias", "dice")
"""Measures of the tables, as far as they were computed."""

MOSTLY_EXACT = 0.5
"""Above this share of voxels that are exactly 0 or 1, they rule the mean."""


READING: Mapping[str, Reading] = {
    "dataset-diagram": Reading(
        "Reliability of the data set",
        "Of the voxels that the model gives a probability of 0.8, 80 % should belong to the class: on the dashed "
        "diagonal they do, below it the model is over-confident, above it under-confident. Inside the hatched band the "
        "distance is what chance between patients explains; the lower panel says how many voxels a point rests on.",
    ),
    "mass": Reading(
        "Where the voxels are",
        "Most voxels of a scan are easy and lie in the first and the last bin, so they rule ECE, while the inner bins "
        "hold the borders. A large share of exact 0 or 1 means that the model, or a crop around it, leaves no doubt to "
        "be measured.",
    ),
    "corp": Reading(
        "Reliability without bins (CORP)",
        "The curve is the best correction that keeps the order of the probabilities; where it lies on the diagonal no "
        "correction is needed. MCB is what miscalibration costs in the Brier score, DSC what the model knows, UNC what "
        "there was to know; the thin grey line is a kernel mean of the same voxels.",
    ),
    "dataset-histogram": Reading(
        "Case by case",
        "Each column is a bin of predicted probability, and its colours say in which share of the cases the observed "
        "frequency was how high. A model that is calibrated in every scan is bright along the diagonal only; a wide "
        "column means that scans differ although their mean may be right.",
    ),
    "case-violin": Reading(
        "Spread over cases",
        "For each bin of predicted probability the violin shows how the observed frequency varies from scan to scan, "
        "with median and quartiles. Short violins on the diagonal mean that the probability can be trusted in a single "
        "scan.",
    ),
    "mean-curve": Reading(
        "Mean over cases",
        "Each scan counts the same here, whatever its size: the marker is the mean over scans, the bar its standard "
        "deviation, the shade the middle half. Markers on the diagonal mean that the probability is right on average "
        "over scans.",
    ),
    "boxplot": Reading(
        "Measures over cases",
        "Each small marker is one scan; the box holds the middle half, the line is the median, the diamond the mean. "
        "Calibration errors should lie near 0, Dice near 1.",
    ),
    "case-scatter": Reading(
        "Dice and calibration, case by case",
        "Each marker is one scan, and grey lines join the sources of the same scan: a line straight down is better "
        "calibration at the same Dice. Scans in the upper left corner are badly segmented and badly calibrated.",
    ),
    "pareto": Reading(
        "Overlap and calibration",
        "The best place is the lower right corner: high Dice, low calibration error. Filled markers are on the front, "
        "where no other source is better in both; hollow ones are beaten by another source.",
    ),
    "case-diagram": Reading(
        "Single cases",
        "The black tick is the observed frequency in a bin, and the bar spans its gap to the mean probability there: "
        "striped where the model is over-confident, crossed where it is under-confident. The arrow points at the "
        "widest gap (MCE); bins with few voxels in the lower panel can be wide by chance.",
    ),
}
"""Plot -> title and reading."""


def page(
    study: Study,
    pictures: Iterable[tuple[Picture, str, tuple[str, ...]]],
    options: Sequence[tuple[str, str]],
    heard: Recorder,
) -> Page:
    """What the report says. pictures: each with its SVG and the names of its files; heard: all that was said."""
    evaluation = study.evaluation
    sections: dict[str, list[Shown]] = {}
    for picture, svg, files in pictures:
        endings = tuple(file.rpartition(".")[2] for file in files)
        shown = Shown(svg, picture.title, picture.drawing.alt, picture.stem, endings)
        sections.setdefault(picture.plot, []).append(shown)
    return Page(
        version=__version__,
        summary=_summary(evaluation),
        guarantee=evaluation.guarantee,
        left_out=[_left_out(failure) for failure in study.dropped],
        warnings=[*heard.warnings, *exact_warnings(evaluation)],
        notes=heard.notes,
        tables=[summary_table(evaluation), *([comparison_table(evaluation)] if evaluation.comparison else [])],
        sections=[
            Section(plot, reading.title, reading.how, tuple(those))
            for plot, those in sections.items()
            for reading in [reading_of(plot) if plot in PICTURED else READING[plot]]
        ],
        options=options,
        digests=_digests(study),
    )


def exact_warnings(evaluation: Evaluation) -> list[str]:
    """Sources whose voxels are mostly exactly 0 or 1, by class: they dilute every mean over voxels."""
    found = []
    for source in evaluation.sources:
        for name in source.pooled.averaged:
            row = evaluation.summaries[source.name].micro.classes[name]
            share = (row["at_zero"] or 0.0) + (row["at_one"] or 0.0)
            if share > MOSTLY_EXACT:
                found.append(
                    f"{source.name}, {name}: {100 * share:.0f} % of the voxels are exactly 0 or 1. They dilute ECE and "
                    "every other mean over voxels; --roi leaves them out"
                )
    return found


def summary_table(evaluation: Evaluation) -> SortableTable:
    """Macro means with intervals, a row per source and class."""
    keys = [key for key in SUMMARISED if key in evaluation.settings.wanted]
    rows = []
    for source in evaluation.sources:
        macro = evaluation.summaries[source.name].macro
        for name in _rows(evaluation):
            spreads = macro.all if name == ALL_CLASSES else macro.classes[name]
            rows.append((Cell(marked(source)), Cell(name), *(_spread_cell(spreads[key]) for key in keys)))
    level = f"{100 * evaluation.intervals.level:.4g} %"
    cases = len(evaluation.sources[0].cases)
    caption = f"Means over {count_text(evaluation.n_groups, 'patient')} (unit; {count_text(cases, 'case')}), "
    caption += f"[{level} interval]. {evaluation.conventions}. {len(evaluation.absent)} absent (case, class) pairs. "
    caption += evaluation.guarantee
    if any(source.in_sample for source in evaluation.sources):
        caption += f" {IN_SAMPLE_MARK} fitted on some of these cases: in-sample."
    return SortableTable(
        "Summary", ("source", "class", *keys), tuple(rows), caption, frozenset(range(2, 2 + len(keys)))
    )


def comparison_table(evaluation: Evaluation) -> SortableTable:
    """Sources against the best one, by class and measure."""
    names = {source.name: marked(source) for source in evaluation.sources}
    rows = [
        _compared(row, names)
        for row in evaluation.comparison
        if row.metric in SUMMARISED and row.name in _rows(evaluation)
    ]
    caption = comparison_note(evaluation) + " Difference: median over patients of this source minus the best; better "
    caption += "in: share of patients; p Holm: adjusted for the number of sources. "
    caption += f"{evaluation.conventions}; unit: patient."
    for name in _rows(evaluation):
        if name in evaluation.fronts:
            front = ", ".join(names[source] for source in evaluation.fronts[name])
            caption += f" Pareto front of Dice and ECE, {name}: {front}."
    columns = (
        "class", "measure", "source", "mean", "difference", "better in", "p Wilcoxon", "p Holm", "p t-test", "n",
    )  # fmt: skip
    return SortableTable("Sources compared", columns, tuple(rows), caption, frozenset(range(3, len(columns))))


def _compared(row: Compared, names: Mapping[str, str]) -> tuple[Cell, ...]:
    best = row.source == row.best
    share = None if best else row.better_in
    return (
        Cell(row.name),
        Cell(heading_of(row.metric)),
        Cell(names[row.source]),
        Cell(short(row.mean) + (" *" if row.bold else ""), row.mean, row.bold),
        _number(None if best else row.median_difference),
        Cell("-" if share is None else f"{100 * share:.0f} %", share),
        *(_probability(p) for p in (row.p_wilcoxon, row.p_holm, row.p_ttest)),
        Cell(str(row.n), row.n),
    )


def _number(value: float | None) -> Cell:
    return Cell(short(value), value)


def _probability(p: float | None) -> Cell:
    return Cell("< 0.001" if p is not None and p < 0.001 else short(p, 3), p)


def _spread_cell(spread: Spread) -> Cell:
    if spread.low is None:
        return Cell(short(spread.mean), spread.mean)
    return Cell(short(spread.mean), spread.mean, note=f"[{short(spread.low)}, {short(spread.high)}]")


def _rows(evaluation: Evaluation) -> tuple[str, ...]:
    """The classes of the pictures, and their mean; of one class, which is both, the class."""
    averaged = evaluation.sources[0].pooled.averaged
    return averaged if len(averaged) == 1 else (*averaged, ALL_CLASSES)


def _summary(evaluation: Evaluation) -> str:
    cases = len(evaluation.sources[0].cases)
    sources = ", ".join(marked(source) for source in evaluation.sources)
    return (
        f"{count_text(cases, 'case')} of {count_text(evaluation.n_groups, 'patient')}; sources: {sources}; "
        f"classes: {', '.join(evaluation.sources[0].pooled.averaged)}. {evaluation.conventions}."
    )


def _left_out(failure: Mapping[str, str]) -> str:
    """A failed case in one sentence."""
    return f"{with_case(failure['case'], failure['message'])} ({failure['error']})"


def _digests(study: Study) -> SortableTable:
    rows = [
        (Cell("artifact"), Cell(name), Cell(""), Cell(""), Cell(digest))
        for name, digest in sorted(study.artifacts.items())
    ]
    for one in study.provenance.inputs:
        names = ", ".join(one.sources) or "of all sources"
        rows.append((Cell(one.what), Cell(names), Cell(""), Cell(str(one.cases), one.cases), Cell(one.sha256)))
    for case in study.evaluation.sources[0].cases:
        digest = study.digests.get(case.case, "")
        rows.append((Cell("case"), Cell(case.case), Cell(case.group), Cell("1", 1), Cell(digest)))
    caption = (
        "sha256 of what was read. Artifact: the file. Predictions, labels, regions of interest: over a line for each "
        "case, by id, of the id, a tab and the sha256 of its predictions as an array, or of the file of its labels or "
        "region (of several files: over a line for each, sorted). Case: the first folder's prediction as an array, "
        "none where it is blank."
    )
    columns = ("what", "name", "patient", "cases", "sha256")
    return SortableTable("Inputs", columns, tuple(rows), caption, frozenset([3]))
