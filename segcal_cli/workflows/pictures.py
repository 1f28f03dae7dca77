"""Pictures of a study: from its measures to the arrays that each plot shows.

What would show no value is not drawn, and said instead: an empty panel, or a curve beside undefined measures, would
look like a result.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence

import numpy as np

from segcal_cli.core.errors import count_text
from segcal_cli.core.frozen import dataclass
from segcal_cli.core.labels import ALL_CLASSES
from segcal_cli.core.observer import Observer
from segcal_cli.metrics.bands import MIN_GROUPS, Band, confidence_band, consistency_band
from segcal_cli.metrics.calibration_errors import BinTable
from segcal_cli.metrics.columns import Row
from segcal_cli.metrics.comparison import overlap_and_error, pareto_front
from segcal_cli.metrics.curves import corp_band, corp_curve
from segcal_cli.metrics.frequencies import case_frequencies, joint_histogram
from segcal_cli.metrics.measures import CaseMeasures
from segcal_cli.metrics.pooling import UNITS
from segcal_cli.metrics.smooth_error import smoothed_frequency
from segcal_cli.metrics.summaries import Spread, pool
from segcal_cli.reporting import comparisons, curves, diagrams, distributions, mean_curves
from segcal_cli.reporting.diagrams import Bins, Bounds, Errors
from segcal_cli.reporting.distributions import Sample, Series
from segcal_cli.reporting.pictures import Drawing, Picture
from segcal_cli.reporting.style import LOOKS, Words
from segcal_cli.workflows.measure_tables import SourceResult
from segcal_cli.workflows.scene import Scene, marked

BOXED = {"ece": "ECE", "ace": "ACE", "mce": "MCE", "dice": "Dice"}
"""Measures of the box plots and scatters, and how they are called there."""

SOURCES_IN_A_VIOLIN = 2
"""Two sources share a violin, each with its half; more get pictures of their own."""

MAX_SHIFT = 0.5
"""In kernel widths. A kernel mean of voxels that lie further from where it is drawn is not drawn."""

NAMED = 5
"""So many pictures stand in the note about those that are not drawn."""

NO_LABEL = "no label holds the class, and --absent skip leaves its calibration undefined"

NOT_HELD = "the case does not hold the class, and --absent skip leaves its calibration undefined"

NO_VALUE = "no case has a value"


@dataclass(frozen=True, slots=True)
class LeftOut:
    """A picture, or a panel of one, that would show nothing. of: what it would be of."""

    plot: str
    of: str
    why: str


Made = Picture | LeftOut


def draw(scene: Scene, plots: Sequence[str], observer: Observer) -> Iterator[Picture]:
    """The pictures of the plots that are asked for, in the order of PLOTS. What is not drawn is a note."""
    if len(scene.sources) > len(LOOKS):
        observer.warn(
            f"{len(scene.sources)} sources, and {len(LOOKS)} combinations of colour and marker: pictures of several "
            f"sources show the first {len(LOOKS)} apart; compare fewer at a time"
        )
    left: dict[tuple[str, str], dict[str, None]] = {}
    for plot, build in PLOTS.items():
        for made in build(scene) if plot in plots else ():
            if isinstance(made, LeftOut):
                left.setdefault((made.plot, made.why), {})[made.of] = None
            else:
                yield made
    for (plot, why), those in left.items():
        more = f" and {len(those) - NAMED} more" if len(those) > NAMED else ""
        observer.note(f"{plot} of {', '.join([*those][:NAMED])}{more} is not drawn: {why}")


def _case_diagrams(scene: Scene) -> Iterator[Made]:
    for case_id in scene.shown:
        for name in scene.classes:
            for source in scene.sources:
                case = source.cases[scene.case_ids.index(case_id)]
                if scene.skips and not case.classes[name]["n_label"]:
                    yield LeftOut("case-diagram", f"{case_id} ({name})", NOT_HELD)
                    continue
                table = case.pooled.table(name)
                unit = f"Unit: voxel, n = {_grouped(int(table.n.sum()))}" + (
                    f", patient {case.group}." if case.group != case.case else "."
                )
                words = scene.words("Reliability of one case", name, source, unit, case=case_id)
                drawing = diagrams.case_diagram(_bins(table), _errors(case.classes[name]), words)
                yield _picture("case-diagram", name, source, case_id, words, drawing)


def _dataset_diagrams(scene: Scene) -> Iterator[Made]:
    intervals = scene.evaluation.intervals
    for name in scene.classes:
        for source in scene.sources:
            micro = scene.evaluation.summaries[source.name].micro.classes[name]
            if micro["ece"] is None:
                yield LeftOut("dataset-diagram", name, NO_LABEL)
                continue
            table = source.pooled.table(name)
            groups = [pool(cases).table(name) for cases in scene.by_group(source)]
            consistency = consistency_band(groups, intervals.level, intervals.seed)
            confidence = (
                confidence_band(groups, intervals.level, intervals.resamples, intervals.seed)
                if intervals.resamples
                else None
            )
            words = scene.words(
                "Reliability of the data set", name, source,
                f"Voxels of {scene.population} pooled, n = {_grouped(int(table.n.sum()))}.", _bands_sentence(scene),
                pooled=True,
            )  # fmt: skip
            low_high = None if consistency is None else Bounds(
                table.mean_probability + consistency.low, table.mean_probability + consistency.high
            )  # fmt: skip
            drawing = diagrams.dataset_diagram(
                _bins(table), _errors(micro), low_high, _bounds(confidence), scene.look(source), words
            )
            yield _picture("dataset-diagram", name, source, None, words, drawing)


def _bands_sentence(scene: Scene) -> str:
    intervals = scene.evaluation.intervals
    if len(scene.groups) < MIN_GROUPS:
        return f"No bands: fewer than {MIN_GROUPS} patients."
    level = f"{100 * intervals.level:.4g} %"
    boot = "" if intervals.resamples else " No confidence band without resamples."
    return f"Bands: {level}, pointwise, unit: patient.{boot}"


def _dataset_histograms(scene: Scene) -> Iterator[Made]:
    for name in scene.classes:
        for source in scene.sources:
            cases = scene.counted(source, name)
            words = scene.words(
                "Case by case", name, source, scene.cases(len(cases)), scene.least,
                "Each column is scaled to sum one.",
            )  # fmt: skip
            counts = joint_histogram([case.pooled.table(name) for case in cases], scene.min_voxels) if cases else None
            if counts is None or not counts.any():
                yield LeftOut("dataset-histogram", name, NO_LABEL if counts is None else scene.too_few)
            else:
                drawing = distributions.dataset_histogram(counts, words)
                yield _picture("dataset-histogram", name, source, None, words, drawing)


def _case_violins(scene: Scene) -> Iterator[Made]:
    together = len(scene.sources) <= SOURCES_IN_A_VIOLIN
    for name in scene.classes:
        for sources in [scene.sources] if together else [[source] for source in scene.sources]:
            series, cases = _series(scene, name, sources)
            one = sources[0] if len(sources) == 1 else None
            words = scene.words(
                "Spread over cases", name, one, scene.cases(len(cases)), scene.least,
                f"Points where a bin has fewer than {distributions.MIN_VIOLIN} cases.",
            )  # fmt: skip
            if all(np.isnan(each.values).all() for each in series):
                yield LeftOut("case-violin", name, scene.too_few if cases else NO_LABEL)
            else:
                drawing = distributions.case_violin(series, cases, words)
                yield _picture("case-violin", name, one, None, words, drawing)


def _mean_curves(scene: Scene) -> Iterator[Made]:
    for name in scene.classes:
        series, cases = _series(scene, name, scene.sources)
        one = scene.sources[0] if len(scene.sources) == 1 else None
        sideways = f"The {len(series)} sources stand side by side within each bin, not at different probabilities."
        panels = f"A panel a source; the thin line is the mean of {marked(scene.sources[0])}."
        words = scene.words(
            "Mean over cases", name, one, scene.cases(len(cases)), scene.least,
            "A deviation without a cap goes on beyond 0 or 1.",
            *([] if len(series) < 2 else [sideways if len(series) <= mean_curves.SIDE_BY_SIDE else panels]),
        )  # fmt: skip
        if all(np.isnan(each.values).all() for each in series):
            yield LeftOut("mean-curve", name, scene.too_few if cases else NO_LABEL)
        else:
            yield _picture("mean-curve", name, one, None, words, mean_curves.mean_curve(series, words))


def _series(scene: Scene, name: str, sources: Sequence[SourceResult]) -> tuple[list[Series], list[str]]:
    """Frequencies of single cases, the same cases for every source."""
    counted = {source.name: scene.counted(source, name) for source in sources}
    cases = [case.case for case in next(iter(counted.values()))]
    series = []
    for source in sources if cases else ():
        tables = [case.pooled.table(name) for case in counted[source.name]]
        series.append(Series(marked(source), scene.look(source), case_frequencies(tables, scene.min_voxels)))
    return series, cases


def _pareto(scene: Scene) -> Iterator[Made]:
    cases = {source.name: source.cases for source in scene.sources}
    for name in scene.classes_and_all:
        means = overlap_and_error(cases, name)
        front = pareto_front(means)
        points = [
            comparisons.Point(
                marked(source),
                scene.look(source),
                _interval(scene, source, name, "dice"),
                _interval(scene, source, name, "ece"),
                source.name in front,
            )
            for source in scene.sources
            if source.name in means
        ]
        words = scene.words(
            "Overlap and calibration", name, None, _means_sentence(scene, points),
            scene.overlap_conventions,
        )  # fmt: skip
        if not points:
            yield LeftOut("pareto", _spoken(name), "no source has both Dice and ECE")
        else:
            yield _picture("pareto", name, None, None, words, comparisons.pareto(points, words))


def _means_sentence(scene: Scene, points: Sequence[comparisons.Point]) -> str:
    ends = [end for point in points for end in (point.dice, point.ece)]
    level = f"{100 * scene.evaluation.intervals.level:.4g} %"
    bars = "No intervals: too few patients or no resamples."
    if any(end.low is not None for end in ends):
        bars = f"Bars: {level} intervals (bootstrap-t)."
    least = min((end.n for end in ends), default=0)
    n = f"{least} to {len(scene.groups)}" if least < len(scene.groups) else str(least)
    return f"Means over patients (unit) with a value, n = {n}, of {scene.population}. {bars}"


def _interval(scene: Scene, source: SourceResult, name: str, key: str) -> comparisons.Interval:
    macro = scene.evaluation.summaries[source.name].macro
    spread: Spread = (macro.all if name == ALL_CLASSES else macro.classes[name])[key]
    assert spread.mean is not None, "only sources with both means are points"
    return comparisons.Interval(spread.mean, spread.low, spread.high, spread.n)


def _case_scatters(scene: Scene) -> Iterator[Made]:
    for name in scene.classes_and_all:
        samples = _samples(scene, name)
        both = [
            i
            for i in range(len(scene.case_ids))
            if any(one.values["dice"][i] is not None and one.values["ece"][i] is not None for one in samples)
        ]
        if not both:
            yield LeftOut("case-scatter", _spoken(name), "no case has both Dice and ECE")
            continue
        words = _case_words(scene, "Dice and calibration, case by case", name, scene.cases(len(both)))
        drawing = comparisons.case_scatter(samples, scene.case_ids, words)
        yield _picture("case-scatter", name, None, None, words, drawing)


def _boxplots(scene: Scene) -> Iterator[Made]:
    for name in scene.classes_and_all:
        samples = _samples(scene, name)
        known = {key: [sum(v is not None for v in one.values[key]) for one in samples] for key in BOXED}
        shown = {key: _counted_label(label, known[key]) for key, label in BOXED.items() if any(known[key])}
        if not shown:
            yield LeftOut("boxplot", _spoken(name), NO_VALUE)
            continue
        for key in BOXED:
            if key not in shown:
                yield LeftOut("boxplot", f"{_spoken(name)} ({BOXED[key]})", NO_VALUE)
        unit = f"Unit: case, of {count_text(len(scene.groups), 'patient')}; n with each measure."
        words = _case_words(scene, "Measures over cases", name, unit)
        drawing = distributions.boxplot(samples, scene.case_ids, shown, words)
        yield _picture("boxplot", name, None, None, words, drawing)


def _counted_label(label: str, known: Sequence[int]) -> str:
    """A measure, and how many cases have it, which the decisions of a source can change."""
    return f"{label} (n = {known[0]})" if len(set(known)) == 1 else f"{label} (n = {min(known)} to {max(known)})"


def _spoken(name: str) -> str:
    return "the mean over classes" if name == ALL_CLASSES else name


def _case_words(scene: Scene, kind: str, name: str, unit: str) -> Words:
    return scene.words(kind, name, None, unit, scene.overlap_conventions)


def _samples(scene: Scene, name: str) -> list[Sample]:
    return [
        Sample(
            marked(source),
            scene.look(source),
            {key: [_row(case, name)[key] for case in source.cases] for key in BOXED},
        )
        for source in scene.sources
    ]


def _corp(scene: Scene) -> Iterator[Made]:
    intervals = scene.evaluation.intervals
    for row, name in enumerate(scene.sources[0].pooled.classes):
        if name not in scene.classes:
            continue
        for source in scene.sources:
            micro = scene.evaluation.summaries[source.name].micro.classes[name]
            if micro["ece"] is None:
                yield LeftOut("corp", name, NO_LABEL)
                continue
            pooled = source.pooled
            cells = BinTable(pooled.n[row], pooled.hits[row], pooled.p[row] / UNITS)
            curve = corp_curve(cells)
            groups = [
                np.sum([case.curves[:, row] for case in cases if case.curves is not None], axis=0)
                for cases in scene.by_group(source)
            ]
            found = corp_band(groups, intervals.level, intervals.resamples, intervals.seed)
            band = None if found is None else (found[0], Bounds(found[1].low, found[1].high))
            mean = smoothed_frequency(cells)
            told = (mean.reach >= max(scene.min_voxels, 1)) & (mean.shift <= MAX_SHIFT)
            smooth = curves.Curve(mean.t, np.where(told, mean.frequency, np.nan))
            parts = curves.Parts(*(micro[f"brier_{key}"] for key in ("mcb", "dsc", "unc")))
            words = scene.words(
                "Reliability without bins (CORP)", name, source,
                f"Voxels of {scene.population} pooled, n = {_grouped(int(cells.n.sum()))}.", _corp_sentence(scene),
                f"Kernel mean: of voxels within some {mean.width:.2g}; it need not rise as CORP must, and is left out "
                "where those voxels lie to one side.",
                pooled=True, binned=False,
            )  # fmt: skip
            drawing = curves.corp(curves.Curve(curve.p, curve.r), band, smooth, parts, scene.look(source), words)
            yield _picture("corp", name, source, None, words, drawing)


def _corp_sentence(scene: Scene) -> str:
    intervals = scene.evaluation.intervals
    if len(scene.groups) < MIN_GROUPS:
        return f"No band: fewer than {MIN_GROUPS} patients."
    if not intervals.resamples:
        return "No band without resamples."
    return f"Band: {100 * intervals.level:.4g} %, pointwise, unit: patient."


def _mass(scene: Scene) -> Iterator[Made]:
    for source in scene.sources:
        micro = scene.evaluation.summaries[source.name].micro.classes
        classes = [
            curves.Mass(name, _bins(source.pooled.table(name)), micro[name]["at_zero"], micro[name]["at_one"])
            for name in scene.classes
        ]
        n = _grouped(int(classes[0].bins.n.sum()))
        words = scene.words(
            "Where the voxels are", "", source, f"Unit: voxel, n = {n} a class, of {scene.population}.", pooled=True
        )
        yield _picture("mass", "", source, None, words, curves.mass(classes, scene.look(source), words))


PLOTS: Mapping[str, Callable[[Scene], Iterator[Made]]] = {
    "dataset-diagram": _dataset_diagrams,
    "mass": _mass,
    "corp": _corp,
    "dataset-histogram": _dataset_histograms,
    "case-violin": _case_violins,
    "mean-curve": _mean_curves,
    "boxplot": _boxplots,
    "case-scatter": _case_scatters,
    "pareto": _pareto,
    "case-diagram": _case_diagrams,
}
"""Plot -> what draws it, from the whole data set to single cases."""


def _picture(
    plot: str, name: str, source: SourceResult | None, case: str | None, words: Words, drawing: Drawing
) -> Picture:
    return Picture(plot, name, "" if source is None else source.name, case, words.title, words.caption, drawing)


def _bins(table: BinTable) -> Bins:
    return Bins(table.n, table.mean_probability, table.frequency, table.gap)


def _errors(row: Row) -> Errors:
    where = row["mce_bin"]
    return Errors(row["ece"], row["ace"], row["mce"], None if where is None else int(where))


def _bounds(band: Band | None) -> Bounds | None:
    return None if band is None else Bounds(band.low, band.high)


def _row(case: CaseMeasures, name: str) -> Row:
    return case.all if name == ALL_CLASSES else case.classes[name]


def _grouped(n: int) -> str:
    """A large number with thin spaces between thousands."""
    return f"{n:,}".replace(",", " ")
