"""Pictures of a study: from its measures to the arrays that each plot shows, and the words around them.

A picture names what it rests on: bins and their closed side, what happens to empty bins and absent classes, the voxels
that count, the unit, and how many there are.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from functools import cached_property

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
from segcal_cli.reporting import comparisons, curves, diagrams, distributions
from segcal_cli.reporting.diagrams import Bins, Bounds, Errors
from segcal_cli.reporting.distributions import Sample, Series
from segcal_cli.reporting.pictures import Drawing, Picture
from segcal_cli.reporting.style import LOOKS, Look, Words, look
from segcal_cli.workflows.measure_tables import IN_SAMPLE_MARK, Evaluation, SourceResult

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


@dataclass(frozen=True)
class Scene:
    """A study and what is shown of it. shown: ids of the cases with diagrams of their own, in that order."""

    evaluation: Evaluation
    shown: tuple[str, ...]
    min_voxels: int

    @property
    def sources(self) -> list[SourceResult]:
        return self.evaluation.sources

    @property
    def classes(self) -> tuple[str, ...]:
        """Those that ``(all)`` averages over."""
        return self.sources[0].pooled.averaged

    @property
    def classes_and_all(self) -> tuple[str, ...]:
        """The same and their mean, unless that is the same."""
        return self.classes if len(self.classes) == 1 else (*self.classes, ALL_CLASSES)

    @cached_property
    def case_ids(self) -> list[str]:
        return [case.case for case in self.sources[0].cases]

    @cached_property
    def groups(self) -> list[str]:
        return sorted(self.sources[0].groups)

    def look(self, source: SourceResult) -> Look:
        return look([one.name for one in self.sources].index(source.name))

    def counted(self, source: SourceResult, name: str) -> list[CaseMeasures]:
        """Cases whose calibration counts in this class."""
        return [case for case in source.cases if not self.skips or case.classes[name]["n_label"]]

    @property
    def skips(self) -> bool:
        """Whether single cases that do not hold a class do not count in it."""
        return self.evaluation.settings.absent == "skip"

    def by_group(self, source: SourceResult) -> list[list[CaseMeasures]]:
        """The cases of each group."""
        return [[case for case in source.cases if case.group == group] for group in self.groups]

    # Words.

    @property
    def population(self) -> str:
        """How many cases of how many patients."""
        return f"{count_text(len(self.case_ids), 'case')} of {count_text(len(self.groups), 'patient')}"

    def cases(self, n: int) -> str:
        """The unit of a picture of ``n`` single cases."""
        return f"Unit: case, n = {n}, of {count_text(len(self.groups), 'patient')}."

    def words(
        self,
        kind: str,
        name: str,
        source: SourceResult | None,
        *sentences: str,
        case: str = "",
        pooled: bool = False,
        binned: bool = True,
    ) -> Words:
        """Title and caption. sentences: what is special to the picture: its unit and n. pooled: it shows the voxels of
        all cases together; binned: what it shows depends on bins.
        """
        of = {"": "all classes", ALL_CLASSES: "mean over classes"}.get(name, name)
        parts = [of, *([] if source is None else [marked(source)]), *([case] if case else [])]
        title = f"{kind}: {', '.join(parts)}"
        marks = [one for one in self.sources if one.in_sample and (source is None or one is source)]
        dagger = [f"{IN_SAMPLE_MARK} fitted on some of these cases: in-sample."] if marks else []
        return Words(title, " ".join([*sentences, self.conventions(pooled=pooled, binned=binned), *dagger]))

    def conventions(self, *, pooled: bool, binned: bool) -> str:
        """Those that the picture rests on. Only single cases can be skipped: what is pooled holds every voxel."""
        s = self.evaluation.settings
        parts = [self.evaluation.binning, f"empty bins: {s.empty_bins}"] if binned else []
        pooled_too = "pooled like all others (skip concerns single cases)"
        parts.append(f"absent classes: {pooled_too if pooled and self.skips else s.absent}")
        parts.append("voxels of the region of interest" if self.evaluation.roi else "all voxels")
        text = "; ".join(parts)
        return f"{text[0].upper()}{text[1:]}."

    @property
    def overlap_conventions(self) -> str:
        s = self.evaluation.settings
        decision = s.decision if self.evaluation.space.exclusive else "p > 0.5"
        return f"Dice of the decision by {decision}, two empty masks: {'undefined' if s.empty_dice == 'null' else '1'}."

    @property
    def least(self) -> str:
        """When a case counts in a bin."""
        return f"A case counts in a bin where it has {count_text(max(self.min_voxels, 1), 'voxel')} or more."

    @property
    def too_few(self) -> str:
        """Why no case counts in any bin."""
        return f"no case has {count_text(max(self.min_voxels, 1), 'voxel')} in a bin (--min-voxels)"


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


def marked(source: SourceResult) -> str:
    """Its name, with a dagger if its calibrator has seen these cases."""
    return source.name + (IN_SAMPLE_MARK if source.in_sample else "")


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
            *([] if len(series) < 2 else [sideways if len(series) <= distributions.SIDE_BY_SIDE else panels]),
        )  # fmt: skip
        if all(np.isnan(each.values).all() for each in series):
            yield LeftOut("mean-curve", name, scene.too_few if cases else NO_LABEL)
        else:
            yield _picture("mean-curve", name, one, None, words, distributions.mean_curve(series, words))


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
        intervals = any(point.dice.low is not None or point.ece.low is not None for point in points)
        words = scene.words(
            "Overlap and calibration", name, None, _means_sentence(scene, intervals=intervals),
            scene.overlap_conventions,
        )  # fmt: skip
        if not points:
            yield LeftOut("pareto", _spoken(name), "no source has both Dice and ECE")
        else:
            yield _picture("pareto", name, None, None, words, comparisons.pareto(points, words))


def _means_sentence(scene: Scene, *, intervals: bool) -> str:
    level = f"{100 * scene.evaluation.intervals.level:.4g} %"
    bars = f"Bars: {level} intervals (bootstrap-t)." if intervals else "No intervals: too few patients or no resamples."
    return f"Means over patients (unit), n = {len(scene.groups)} ({count_text(len(scene.case_ids), 'case')}). {bars}"


def _interval(scene: Scene, source: SourceResult, name: str, key: str) -> comparisons.Interval:
    macro = scene.evaluation.summaries[source.name].macro
    spread: Spread = (macro.all if name == ALL_CLASSES else macro.classes[name])[key]
    assert spread.mean is not None, "only sources with both means are points"
    return comparisons.Interval(spread.mean, spread.low, spread.high)


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
