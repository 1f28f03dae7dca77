"""Distributions over cases: how far single scans stray from what the pooled curve shows.

The joint histogram of Barfoot et al. 2024, Fig. 2; frequencies of each bin as violins, after Rousseau et al.
2021, Fig. 3; and box plots of the measures themselves.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from segcal_cli.core.frozen import dataclass
from segcal_cli.reporting.pictures import Drawing
from segcal_cli.reporting.style import (
    INK,
    PAPER,
    QUIET,
    SMALL_POINTS,
    Look,
    Sheet,
    Words,
    diagonal,
    diagonal_sign,
    keep_within,
    shortened,
    text_width,
    unit_axis,
)
from segcal_cli.reporting.tables import short

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

MIN_VIOLIN = 10
"""With fewer cases a smoothed outline would invent what single points show."""

MIN_BANDWIDTH = 0.01
"""Of a violin's kernel: where all cases agree, the violin is a short bar and not a line."""

VECTOR_BINS = 64
"""Up to this many bins a map is drawn as squares that stay sharp at any size; above, as an image."""


@dataclass(frozen=True, slots=True)
class Series:
    """Frequencies of one source. values: float64 "case bin", NaN where a case has too few voxels in the bin."""

    name: str
    look: Look
    values: np.ndarray


def dataset_histogram(counts: np.ndarray, words: Words) -> Drawing:
    """Joint histogram of prediction bins (columns) and the case's own frequency (rows, row 0 = frequency near 1).

    counts: int64 "row bin" cases. Columns are scaled to sum 1; one without cases stays blank.
    """
    bins = counts.shape[1]
    cases = counts.sum(axis=0)
    share = np.where(cases > 0, counts / np.maximum(cases, 1), np.nan)
    edges = np.arange(bins + 1) / bins
    rows = [
        {
            "bin": m,
            "lower": edges[m],
            "upper": edges[m + 1],
            "frequency_lower": edges[bins - 1 - row],
            "frequency_upper": edges[bins - row],
            "cases": int(counts[row, m]),
            "share": share[row, m],
            "cases_in_column": int(cases[m]),
        }
        for m in range(bins)
        for row in range(bins - 1, -1, -1)
    ]
    level = bins - 1 - np.arange(bins)[:, None]
    near = counts[np.abs(level - np.arange(bins)) <= 1].sum()
    alt = (
        f"{words.title}. Of {int(cases.sum())} pairs of case and bin {short(100.0 * near / max(cases.sum(), 1), 0)} % "
        "lie on the diagonal or one bin beside it."
    )
    return Drawing(lambda: _histogram_figure(share, cases, words), tuple(rows[0]), tuple(rows), alt)


def _histogram_figure(share: np.ndarray, cases: np.ndarray, words: Words) -> Figure:
    from matplotlib import colormaps
    from matplotlib.cm import ScalarMappable
    from matplotlib.colors import PowerNorm

    bins = cases.size
    side, left, bottom, above = 3.8, 0.68, 0.48, 0.62
    sheet = Sheet(words, left + side + 1.0, bottom + side + 0.12 + above + 0.08)
    axes = sheet.axes(left, bottom, side, side)
    column = sheet.axes(left, bottom + side + 0.12, side, above)
    bar = sheet.axes(left + side + 0.15, bottom, 0.16, side)
    edges = np.arange(bins + 1) / bins
    norm, colours = PowerNorm(0.35, 0.0, 1.0), colormaps["cividis"]
    vector = bins <= VECTOR_BINS
    axes.pcolormesh(
        edges, edges, np.ma.masked_invalid(share[::-1]), norm=norm, cmap=colours, rasterized=not vector,
        edgecolors="face" if vector else "none", lw=0.2 if vector else 0.0,
    )  # fmt: skip
    axes.plot([0, 1], [0, 1], color="white", lw=2.4)
    axes.plot([0, 1], [0, 1], color="black", lw=1.2, ls=(0, (4, 3)))
    unit_axis(axes, "x", "predicted probability")
    unit_axis(axes, "y", "observed frequency of the case")
    column.bar((edges[:-1] + edges[1:]) / 2, cases, 1.0 / bins, color=QUIET, edgecolor=PAPER, lw=0.4)
    unit_axis(column, "x", "")
    column.tick_params(labelbottom=False)
    top = int(cases.max(initial=1))
    column.set(ylim=(0, 1.1 * top), yticks=[0, top], ylabel="cases")
    colour_bar = sheet.figure.colorbar(ScalarMappable(norm, colours), cax=bar, ticks=[0, 0.05, 0.2, 0.5, 1])
    colour_bar.set_label("share of the cases in the column")
    colour_bar.outline.set_linewidth(0.6)
    return sheet.figure


def case_violin(series: Sequence[Series], cases: Sequence[str], words: Words) -> Drawing:
    """Per bin the distribution over cases. series: one source, or two, each with its half of the violin."""
    rows = list(_long_rows(series, cases))
    columns = ("source", "bin", "lower", "upper", "case", "frequency", "median", "q25", "q75")
    alt = f"{words.title}. " + " ".join(spread_sentence(one) for one in series)
    return Drawing(lambda: _violin_figure(series, words), columns, tuple(rows), alt)


def _violin_figure(series: Sequence[Series], words: Words) -> Figure:
    from matplotlib.lines import Line2D
    from matplotlib.patches import Patch

    legend: list[Any] = [
        Patch(facecolor=_pale(one.look), edgecolor=one.look.colour, hatch=one.look.hatch, label=one.name)
        for one in series
    ]
    legend += [
        Line2D([], [], color=INK, lw=1.6, label="median"),
        Line2D([], [], color=INK, lw=1.0, ls=(0, (2, 1.5)), label="quartiles"),
        diagonal_sign(),
    ]
    bins = series[0].values.shape[1]
    sheet = Sheet(words, 7.2, 4.3, legend)
    axes = sheet.plot_box()
    diagonal(axes)
    for place, one in enumerate(series):
        sides = (-1.0, 1.0) if len(series) == 1 else ((-1.0, 0.0) if place == 0 else (0.0, 1.0))
        for m in range(bins):
            known = one.values[~np.isnan(one.values[:, m]), m]
            if known.size:
                _violin(axes, (m + 0.5) / bins, 0.45 / bins, known, one.look, sides)
    unit_axis(axes, "x", "predicted probability")
    unit_axis(axes, "y", "observed frequency of the case")
    axes.set_ylim(-0.02, 1.02)
    return sheet.figure


def _violin(axes: Axes, center: float, half: float, values: np.ndarray, look: Look, sides: tuple[float, float]) -> None:
    """One violin, or the half of it that ``sides`` (multiples of ``half``) leaves."""
    left, right = center + half * sides[0], center + half * sides[1]
    q25, median, q75 = np.quantile(values, (0.25, 0.5, 0.75))
    if values.size < MIN_VIOLIN:
        spread = np.linspace(0.25, 0.75, values.size) if values.size > 1 else np.array([0.5])
        axes.plot(
            left + (right - left) * spread, np.sort(values), marker=look.marker, ms=3.0, mfc=_pale(look),
            mec=look.colour, mew=0.8, ls="", clip_on=False,
        )  # fmt: skip
        axes.hlines(median, left, right, color=INK, lw=1.6, zorder=4)
        return
    y = np.linspace(values.min(), values.max(), 80)
    if y[0] == y[-1]:
        y = np.array([y[0] - MIN_BANDWIDTH / 4, y[0] + MIN_BANDWIDTH / 4])
    width = half * density(values, y)
    axes.fill_betweenx(
        y, center + sides[0] * width, center + sides[1] * width, facecolor=_pale(look), edgecolor=look.colour,
        hatch=look.hatch, lw=0.8, zorder=3, clip_on=False,
    )  # fmt: skip
    for level, line, weight in ((q25, (0, (2, 1.5)), 1.0), (median, "-", 1.6), (q75, (0, (2, 1.5)), 1.0)):
        reach = float(np.interp(level, y, width))
        axes.hlines(
            level, center + sides[0] * reach, center + sides[1] * reach, color=INK, lw=weight, ls=line, zorder=4
        )


def density(values: np.ndarray, at: np.ndarray) -> np.ndarray:
    """Normal kernel estimate, scaled to a largest value of 1. Bandwidth by Scott's rule, at least MIN_BANDWIDTH."""
    bandwidth = max(float(values.std(ddof=1)) * values.size ** (-1 / 5), MIN_BANDWIDTH)
    found = np.exp(-0.5 * ((at[:, None] - values) / bandwidth) ** 2).sum(axis=1)
    return found / found.max()


@dataclass(frozen=True, slots=True)
class Sample:
    """A measure of one source in each case, None where undefined."""

    name: str
    look: Look
    values: Mapping[str, Sequence[float | None]]


def boxplot(samples: Sequence[Sample], cases: Sequence[str], measures: Mapping[str, str], words: Words) -> Drawing:
    """Per source the distribution over cases. measures: key -> label of the axis, a panel each."""
    rows = [
        {"source": one.name, "case": case, **{key: one.values[key][i] for key in measures}}
        for one in samples
        for i, case in enumerate(cases)
    ]
    parts = []
    for one in samples:
        medians = {key: _known(one.values[key]) for key in measures}
        shown = ", ".join(f"{measures[k]} {short(float(np.median(v)))}" for k, v in medians.items() if v.size)
        parts.append(f"Medians of {one.name}: {shown}." if shown else f"{one.name}: no values.")
    alt = f"{words.title}. " + " ".join(parts)
    return Drawing(lambda: _box_figure(samples, measures, words), ("source", "case", *measures), tuple(rows), alt)


def _box_figure(samples: Sequence[Sample], measures: Mapping[str, str], words: Words) -> Figure:
    from matplotlib.lines import Line2D
    from matplotlib.patches import Patch
    from matplotlib.ticker import MaxNLocator

    legend: list[Any] = [
        Line2D([], [], color=INK, lw=1.8, label="median"),
        Line2D([], [], color=INK, marker="D", mfc=PAPER, ls="", ms=4, label="mean"),
        Patch(facecolor=QUIET, alpha=0.35, label="quartiles"),
        Line2D([], [], color=INK, lw=1.0, marker="|", ms=6, label="to the last case within 1.5 lengths of the box"),
        Line2D([], [], color=INK, marker=samples[0].look.marker, ls="", ms=2.6, label="case (heights keep them apart)"),
    ]
    names = [shortened(one.name, 1.3) for one in samples]
    left = 0.25 + max(text_width(name, SMALL_POINTS) for name in names)
    panel, row = (7.2 - left - 0.45) / 2, 0.34 * len(samples) + 0.18
    columns = 2
    lines = -(-len(measures) // columns)
    sheet = Sheet(words, 7.2, lines * (row + 0.62) + 0.05, legend)
    for place, (key, label) in enumerate(measures.items()):
        across, down = place % columns, place // columns
        bottom = 0.5 + (lines - 1 - down) * (row + 0.62)
        axes = sheet.axes(left + across * (panel + 0.25), bottom, panel, row)
        for i, one in enumerate(samples):
            known = _known(one.values[key])
            if known.size:
                _box(axes, len(samples) - 1 - i, known, one.look)
        axes.set(ylim=(-0.6, len(samples) - 0.4), xlabel=label)
        keep_within(axes, "x")
        axes.set_yticks(range(len(samples)), names[::-1] if across == 0 else [""] * len(samples))
        axes.tick_params(axis="y", length=0)
        axes.xaxis.set_major_locator(MaxNLocator(5))
        axes.grid(axis="x", color=QUIET, alpha=0.25, lw=0.6)
    return sheet.figure


def _box(axes: Axes, y: int, values: np.ndarray, look: Look) -> None:
    """A box with whiskers to 1.5 times its length, every case as a point over it."""
    made = axes.boxplot(
        [values], positions=[y], orientation="horizontal", widths=0.5, patch_artist=True, showfliers=False,
        showmeans=True, medianprops={"color": INK, "lw": 1.8}, whiskerprops={"color": look.colour},
        capprops={"color": look.colour}, meanprops={"marker": "D", "mfc": PAPER, "mec": INK, "ms": 4, "zorder": 6},
    )  # fmt: skip
    for box in made["boxes"]:
        box.set(facecolor=_pale(look), edgecolor=look.colour, hatch=look.hatch, lw=1.0)
    # A fixed comb instead of random jitter: neighbours in order never share a height.
    offset = 0.16 * (np.arange(values.size) % 3 - 1)
    axes.plot(
        np.sort(values), y + offset, marker=look.marker, ms=2.6, mfc=look.colour, mec=PAPER, mew=0.3, ls="", alpha=0.8,
        zorder=5, clip_on=False,
    )  # fmt: skip


def _pale(look: Look) -> tuple[float, float, float, float]:
    """The source's colour, translucent: hatches and lines over it stay visible."""
    from matplotlib.colors import to_rgba

    return to_rgba(look.colour, 0.35)


def _known(values: Sequence[float | None]) -> np.ndarray:
    return np.array([value for value in values if value is not None], np.float64)


def _long_rows(series: Sequence[Series], cases: Sequence[str]) -> Any:
    for one in series:
        bins = one.values.shape[1]
        for m in range(bins):
            known = one.values[~np.isnan(one.values[:, m]), m]
            quartiles = (
                dict(zip(("q25", "median", "q75"), np.quantile(known, (0.25, 0.5, 0.75)), strict=True))
                if known.size
                else {}
            )
            for i, case in enumerate(cases):
                if not np.isnan(one.values[i, m]):
                    yield {
                        "source": one.name, "bin": m, "lower": m / bins, "upper": (m + 1) / bins, "case": case,
                        "frequency": one.values[i, m], **quartiles,
                    }  # fmt: skip


def spread_sentence(one: Series) -> str:
    """How far bins of single cases lie from their centres, for those who do not see the picture."""
    centers = (np.arange(one.values.shape[1]) + 0.5) / one.values.shape[1]
    distance = np.abs(one.values - centers)
    known = distance[~np.isnan(distance)]
    if not known.size:
        return f"{one.name}: no case has enough voxels in a bin."
    return f"{one.name}: half of all cases and bins lie within {short(float(np.median(known)), 3)} of the diagonal."
