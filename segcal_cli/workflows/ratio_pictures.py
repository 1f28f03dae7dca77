"""Pictures of a ratio artifact on labelled cases: intervals, widths, errors, and how these go together."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence

import numpy as np

from segcal_cli.metrics.coverage import clopper_pearson
from segcal_cli.ratio.alarms import rounded
from segcal_cli.ratio.comparison import Comparison, spearman
from segcal_cli.ratio.guarantees import percent
from segcal_cli.ratio.regions import Region
from segcal_cli.ratio.settings import METHODS, Method
from segcal_cli.ratio.table import RatioTable
from segcal_cli.reporting.pictures import Drawing, Picture
from segcal_cli.reporting.ratios import (
    Cloud,
    Outline,
    Panel,
    bias_histogram,
    interval_panels,
    width_error_scatter,
    width_histogram,
)
from segcal_cli.reporting.style import Look, Words, look
from segcal_cli.workflows.kinds import IN_SAMPLE, Reading
from segcal_cli.workflows.ratio_artifacts import LoadedRatio

PAGE = 60
"""Cases of a picture of intervals."""

SHOWN: tuple[Method, ...] = ("nested", "care", "cp")
"""Methods with panels of their own."""

MOST_NAMED = 12
"""Cases without a ratio that a caption names."""

READING: Mapping[str, Reading] = {
    "ntr-intervals": Reading(
        "Intervals of the ratio",
        "Each grey bar is the interval of one scan, the tick the predicted ratio, the dot what the annotator drew; a "
        "crossed dot lies outside. Among new patients as many dots may be missed as the level says, and a good method "
        "has short bars where prediction and label agree.",
    ),
    "ntr-widths": Reading(
        "Widths of the intervals",
        "A method that knows which scans are hard has short and long intervals; one that does not has a single width. "
        "Scans to the right of the alarm line are those to look at.",
    ),
    "ntr-bias": Reading(
        "Errors of the ratio",
        "How far the predicted ratio lies from the labelled one, for the sums of probabilities and for hard masks.",
    ),
    "ntr-width-error": Reading(
        "Width against error",
        "Wide intervals should belong to large errors: then the marks rise to the right, and the width can be used to "
        "choose scans for a second look. A rank correlation of 0 means that the width says nothing about the error.",
    ),
}
"""Plot -> how to read it."""


def draw(
    name: str,
    loaded: LoadedRatio,
    new: RatioTable,
    compared: Sequence[Comparison],
    plots: Sequence[str],
    *,
    in_sample: bool,
) -> Iterator[Picture]:
    """The pictures that are asked for, at the level of the fit. new: all labelled cases; in_sample: some of them, or
    their patients, were used in the fit or by its calibrator."""
    level = loaded.settings.level
    soft = {one.settings.method: one for one in compared if one.source == "soft" and one.settings.level == level}
    if not soft:
        return
    shown = [soft[method] for method in SHOWN]
    caption = _caption(loaded, new, shown[0].cases, in_sample=in_sample)
    top = _top(shown, loaded.ratio.limit)
    ratio = " / ".join(_named(region) for region in (loaded.ratio.numerator, loaded.ratio.denominator))
    title = f"{ratio}, level {percent(level)}, {name}"
    for plot in plots:
        words = Words(f"{READING[plot].title}: {title}", caption)
        if plot == "ntr-intervals":
            yield from _interval_pages(name, shown, top, loaded.settings.cutoff, words)
        elif plot == "ntr-widths":
            every = [Outline(method, _look(method), one.found.width) for method, one in soft.items()]
            alarm = shown[0].alarm_threshold
            line = alarm if np.isfinite(alarm) else None
            yield _picture(plot, name, words, width_histogram(every, top, line, words))
        elif plot == "ntr-bias":
            hard = next((one for one in compared if one.source == "hard"), None)
            kinds = [Outline("soft volumes", look(0), np.abs(shown[0].error))]
            kinds += [] if hard is None else [Outline("hard masks", look(1), np.abs(hard.error))]
            yield _picture(plot, name, words, bias_histogram(kinds, words))
        else:
            clouds = [_cloud(one) for one in shown]
            yield _picture(plot, name, words, width_error_scatter(clouds, top, words))


def _interval_pages(
    name: str, shown: Sequence[Comparison], top: float, cutoff: float | None, words: Words
) -> Iterator[Picture]:
    cases = shown[0].cases
    order = sorted(range(len(cases)), key=lambda i: (cases.ratio[i], cases.ids[i].encode()))
    pages = [order[start : start + PAGE] for start in range(0, len(order), PAGE)]
    for number, page in enumerate(pages, start=1):
        many = len(pages) > 1
        title = f"{words.title} (page {number} of {len(pages)})" if many else words.title
        own = Words(title, words.caption)
        drawing = interval_panels([_panel(one, page) for one in shown], top, cutoff, own)
        yield _picture("ntr-intervals", name, own, drawing, page=number if many else None)


def _panel(one: Comparison, page: Sequence[int]) -> Panel:
    """The cases of a page; the heading counts all."""
    at = np.array(page)
    n, covered = len(one.cases), int(one.covered.sum())
    low, high = clopper_pearson(covered, n)
    heading = f"{one.settings.method}: {covered}/{n} = {covered / n:.2f} ({low:.2f} to {high:.2f})"
    return Panel(
        one.settings.method,
        heading,
        tuple(one.cases.ids[i] for i in page),
        one.found.clipped.low[at],
        one.found.clipped.high[at],
        one.cases.ratio[at],
        one.cases.ratio_label[at],
        one.covered[at],
    )


def _cloud(one: Comparison) -> Cloud:
    width, error = rounded(one.found.width), np.abs(one.error)
    return Cloud(one.settings.method, _look(one.settings.method), one.cases.ids, width, error, spearman(width, error))


def _look(method: Method) -> Look:
    """The same in every picture."""
    return look(METHODS.index(method))


def _named(region: Region) -> str:
    return region.names[0] if len(region.names) == 1 else f"({' + '.join(region.names)})"


def _top(shown: Sequence[Comparison], limit: float) -> float:
    """The end of the ratio's axis: 1 for a contained ratio, else a little above everything that is finite."""
    if np.isfinite(limit):
        return limit
    ends = [one.found.clipped.high[np.isfinite(one.found.clipped.high)] for one in shown]
    return 1.05 * float(max(np.concatenate([*ends, shown[0].cases.ratio, shown[0].cases.ratio_label])))


def _caption(loaded: LoadedRatio, new: RatioTable, scored: RatioTable, *, in_sample: bool) -> str:
    without = sorted(set(new.ids) - set(scored.ids), key=str.encode)
    named = ", ".join(without[:MOST_NAMED]) + (", ..." if len(without) > MOST_NAMED else "")
    n, patients = len(scored), len(set(scored.groups))
    return (
        f"Unit: case, n = {n}, of {patients} patient{'' if patients == 1 else 's'}; coverage with its exact 95 % "
        f"interval. Thresholds from {loaded.calibration(loaded.settings).n} calibration patients."
        + (IN_SAMPLE if in_sample else "")
        + (f" Without a ratio: {named}." if without else "")
    )


def _picture(plot: str, artifact: str, words: Words, drawing: Drawing, page: int | None = None) -> Picture:
    return Picture(
        plot,
        "",
        artifact,
        None if page is None else f"page-{page}",
        words.title,
        words.caption,
        drawing,
        of_artifact=True,
    )
