"""Pictures of ratio intervals: whether they hold what an annotator drew, how wide they are, and when.

An interval is shown with the ratio that was predicted and the one that was labelled. A label outside its interval has
another colour and another shape, so that it is seen without colours too.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from segcal_cli.core.errors import count_text
from segcal_cli.core.frozen import dataclass
from segcal_cli.reporting.pictures import Drawing
from segcal_cli.reporting.style import BLUE, INK, QUIET, SMALL_POINTS, VERMILLION, Look, Sheet, Words
from segcal_cli.reporting.tables import short

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

WIDTH_BIN, BIAS_BIN = 0.05, 0.02
"""Bins of the histograms of widths and of errors."""

PANEL = 3.1
"""Inches of a panel of intervals."""


@dataclass(frozen=True, slots=True)
class Panel:
    """Intervals of one method, in order of the predicted ratio. All arrays are "case"; high may be infinite.

    heading: method, covered of n, coverage with its interval.
    """

    method: str
    heading: str
    cases: tuple[str, ...]
    low: np.ndarray
    high: np.ndarray
    ratio: np.ndarray
    target: np.ndarray
    covered: np.ndarray


@dataclass(frozen=True, slots=True)
class Outline:
    """Numbers of one method, or of one kind of masks, and how they are told from others."""

    name: str
    look: Look
    values: np.ndarray


@dataclass(frozen=True, slots=True)
class Cloud:
    """Width against absolute error, "case" each, of one method. spearman: None where it is undefined."""

    name: str
    look: Look
    cases: tuple[str, ...]
    width: np.ndarray
    error: np.ndarray
    spearman: float | None


def interval_panels(panels: Sequence[Panel], top: float, cutoff: float | None, words: Words) -> Drawing:
    """One panel per method at the same scale, from 0 to ``top``. cutoff: a clinical cut-off, drawn across."""
    rows = tuple(
        {
            "method": panel.method,
            "case": case,
            "ratio": float(panel.ratio[i]),
            "ratio_low": float(panel.low[i]),
            "ratio_high": float(panel.high[i]),
            "ratio_label": float(panel.target[i]),
            "covered": bool(panel.covered[i]),
        }
        for panel in panels
        for i, case in enumerate(panel.cases)
    )
    alt = f"{words.title}. " + ". ".join(panel.heading for panel in panels) + "."
    columns = ("method", "case", "ratio", "ratio_low", "ratio_high", "ratio_label", "covered")
    return Drawing(lambda: _interval_figure(panels, top, cutoff, words), columns, rows, alt)


def _interval_figure(panels: Sequence[Panel], top: float, cutoff: float | None, words: Words) -> Figure:
    from matplotlib.lines import Line2D

    legend: list[Any] = [
        Line2D([], [], color=QUIET, lw=2.0, label="interval"),
        Line2D([], [], color=INK, marker="_", ms=6, lw=0, label="predicted ratio"),
        Line2D([], [], color=BLUE, marker="o", ms=4, lw=0, label="labelled, inside"),
        Line2D([], [], color=VERMILLION, marker="X", ms=6, lw=0, label="labelled, missed"),
    ]
    if cutoff is not None:
        legend.append(Line2D([], [], color=INK, lw=1.0, ls=(0, (4, 3)), label=f"cut-off {cutoff:g}"))
    left, gap, bottom, height = 0.7, 0.25, 0.45, 3.0
    sheet = Sheet(words, left + len(panels) * (PANEL + gap), bottom + height + 0.35, legend)
    for number, panel in enumerate(panels):
        axes = sheet.axes(left + number * (PANEL + gap), bottom, PANEL, height)
        _panel(axes, panel, top)
        if cutoff is not None:
            axes.axhline(cutoff, color=INK, lw=1.0, ls=(0, (4, 3)), zorder=1)
        axes.set_title(panel.heading, size=SMALL_POINTS, loc="left")
        axes.set_xlabel("cases by predicted ratio")
        axes.set_ylabel("ratio" if number == 0 else "")
        axes.tick_params(labelleft=number == 0)
    return sheet.figure


def _panel(axes: Axes, panel: Panel, top: float) -> None:
    place = np.arange(len(panel.cases))
    axes.vlines(place, panel.low, np.minimum(panel.high, top), color=QUIET, lw=2.0, zorder=2)
    axes.plot(place, panel.ratio, "_", color=INK, ms=5, mew=1.1, zorder=3)
    for inside, colour, marker, size in ((True, BLUE, "o", 3.2), (False, VERMILLION, "X", 5.0)):
        those = panel.covered == inside
        axes.plot(
            place[those], panel.target[those], marker, color=colour, ms=size, mew=0.0, zorder=4, clip_on=False,
            gid="missed" if not inside else "inside",
        )  # fmt: skip
    axes.set(xlim=(-1.0, max(len(place), 1)), ylim=(0.0, top), xticks=[])


def width_histogram(methods: Sequence[Outline], top: float, alarm: float | None, words: Words) -> Drawing:
    """Outlines of the widths of each method, bins of 0.05 over [0, top]; wider ones stand in the last bin.

    alarm: the width above which there is an alarm, of the first method.
    """
    return _histogram(methods, _edges(WIDTH_BIN, top), "width of the interval", alarm, words)


def bias_histogram(kinds: Sequence[Outline], words: Words) -> Drawing:
    """Outlines of the absolute errors of the ratio, of soft volumes and of hard masks; bins of 0.02."""
    largest = max((float(one.values.max(initial=0.0)) for one in kinds), default=0.0)
    return _histogram(kinds, _edges(BIAS_BIN, max(largest, 5 * BIAS_BIN)), "absolute error of the ratio", None, words)


def _edges(step: float, top: float) -> np.ndarray:
    return step * np.arange(int(np.ceil(top / step - 1e-9)) + 1)


def _histogram(outlines: Sequence[Outline], edges: np.ndarray, label: str, line: float | None, words: Words) -> Drawing:
    counts = [np.histogram(np.clip(one.values, edges[0], edges[-1]), edges)[0] for one in outlines]
    rows = tuple(
        {"name": one.name, "lower": float(edges[m]), "upper": float(edges[m + 1]), "cases": int(count[m])}
        for one, count in zip(outlines, counts, strict=True)
        for m in range(edges.size - 1)
    )
    alt = f"{words.title}. " + " ".join(
        f"{one.name}: median {short(float(np.median(one.values)), 3)} over {count_text(one.values.size, 'case')}."
        for one in outlines
        if one.values.size
    )
    return Drawing(
        lambda: _histogram_figure(outlines, counts, edges, label, line, words),
        ("name", "lower", "upper", "cases"),
        rows,
        alt,
    )


def _histogram_figure(
    outlines: Sequence[Outline],
    counts: Sequence[np.ndarray],
    edges: np.ndarray,
    label: str,
    line: float | None,
    words: Words,
) -> Figure:
    from matplotlib.lines import Line2D
    from matplotlib.ticker import MaxNLocator

    legend: list[Any] = [
        Line2D([], [], color=one.look.colour, ls=one.look.line, lw=1.6, label=one.name) for one in outlines
    ]
    if line is not None:
        legend.append(Line2D([], [], color=INK, lw=1.0, ls=(0, (4, 3)), label=f"alarm above {line:.3g}"))
    sheet = Sheet(words, 6.2, 3.4, legend)
    axes = sheet.plot_box()
    for one, count in zip(outlines, counts, strict=True):
        axes.stairs(count, edges, color=one.look.colour, ls=one.look.line, lw=1.6)
    if line is not None and line <= edges[-1]:
        axes.axvline(line, color=INK, lw=1.0, ls=(0, (4, 3)))
    axes.set(xlim=(edges[0], edges[-1]), xlabel=label, ylabel="cases")
    axes.set_ylim(0.0, 1.1 * max(int(count.max(initial=1)) for count in counts))
    axes.yaxis.set_major_locator(MaxNLocator(5, integer=True))
    return sheet.figure


def width_error_scatter(clouds: Sequence[Cloud], top: float, words: Words) -> Drawing:
    """Width against absolute error, one panel per method. Widths beyond ``top`` stand there."""
    rows = tuple(
        {"method": cloud.name, "case": case, "width": float(cloud.width[i]), "error": float(cloud.error[i])}
        for cloud in clouds
        for i, case in enumerate(cloud.cases)
    )
    alt = f"{words.title}. " + " ".join(f"{cloud.name}: {_correlation(cloud)}." for cloud in clouds)
    return Drawing(lambda: _scatter_figure(clouds, top, words), ("method", "case", "width", "error"), rows, alt)


def _correlation(cloud: Cloud) -> str:
    return "no correlation, one width" if cloud.spearman is None else f"Spearman {short(cloud.spearman, 2)}"


def _scatter_figure(clouds: Sequence[Cloud], top: float, words: Words) -> Figure:
    left, gap, bottom, side = 0.75, 0.25, 0.5, 2.5
    sheet = Sheet(words, left + len(clouds) * (side + gap), bottom + side + 0.35)
    highest = max((float(cloud.error.max(initial=0.0)) for cloud in clouds), default=0.0) or 1.0
    for number, cloud in enumerate(clouds):
        axes = sheet.axes(left + number * (side + gap), bottom, side, side)
        width = np.minimum(cloud.width, top)
        # Each method has a scale of its own: what counts is whether wide goes with wrong, not how wide.
        end = min(top, 1.08 * float(width.max(initial=0.0))) or top
        axes.plot(
            width, cloud.error, cloud.look.marker, mfc="none", mec=cloud.look.colour, ms=4.5,
            mew=1.0, clip_on=False,
        )  # fmt: skip
        axes.set(xlim=(0.0, end), ylim=(0.0, 1.08 * highest), xlabel="width of the interval")
        axes.set_ylabel("absolute error of the ratio" if number == 0 else "")
        axes.tick_params(labelleft=number == 0)
        axes.set_title(f"{cloud.name}: {_correlation(cloud)}", size=SMALL_POINTS, loc="left")
        axes.locator_params(axis="x", nbins=5)
    return sheet.figure
