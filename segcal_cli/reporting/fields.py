"""Fields: pictures of places. Cluster maps over the mean probability, coverage errors place by place, and the coverage
of prediction sets against their level.

After Brunekreef et al. 2023, "Kandinsky Conformal Prediction": cluster maps (Figs. 3 and 4), the coverage diagram (Fig.
2), violins of coverage errors (Fig. 5) and difference maps (Figs. 7 and 10).
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from segcal_cli.core.errors import count_text
from segcal_cli.core.frozen import dataclass
from segcal_cli.reporting.pictures import Drawing
from segcal_cli.reporting.style import INK, QUIET, SMALL_POINTS, Look, Sheet, Words, unit_axis, wrapped
from segcal_cli.reporting.tables import short

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

PLANE_WIDTH, PLANE_GAP = 3.4, 0.35
"""Inches of a plane's place, and between two."""

OVERLAY = 0.55
"""Opacity of a cluster's colour over the grey image."""

DARKEST = 0.8
"""How far below probability 0 black lies, in parts of the brightest: on black no cluster looks as in the legend."""

INKS = ("#D55E00", "#56B4E9", "#CC79A7")
"""Outlines of further maps: told apart by any colour vision, and light enough for dark clusters."""

PALE = 0.25
"""Opacity of what noise alone could make."""

VIOLIN_POINTS = 200

LINE_INCHES = 0.15
"""From line to line of the names below violins."""

OUTLINES = ((0, ()), (0, (4, 1.5)), (0, (1, 1.2)))
"""Line styles of outlines of further maps."""


@dataclass(frozen=True, slots=True)
class Plane:
    """One section. values: float "row column", NaN where nothing is known; row 0 is at the bottom where ``letters`` are
    given (canonical axes), else on top (images).

    size_mm: height and width of what is shown: all of it, or ``window``, half-open ranges of rows and columns.
    letters: at the left, right, bottom and top, or None. title: where it lies. grey: mean probability, like values, or
    None. faded: bool, what is shown pale, or None.
    """

    values: np.ndarray
    size_mm: tuple[float, float]
    letters: tuple[str, str, str, str] | None = None
    title: str = ""
    grey: np.ndarray | None = None
    faded: np.ndarray | None = None
    window: tuple[tuple[int, int], tuple[int, int]] | None = None


@dataclass(frozen=True, slots=True)
class Outline:
    """Another map's clusters on the same planes, shown by their borders."""

    name: str
    planes: tuple[np.ndarray, ...]


@dataclass(frozen=True, slots=True)
class CoverageLine:
    """Coverage at levels 1/M .. 1. low, high: a band, or None. n: behind it."""

    name: str
    coverage: np.ndarray
    look: Look
    n: str
    low: np.ndarray | None = None
    high: np.ndarray | None = None


@dataclass(frozen=True, slots=True)
class Violin:
    """Values over places. note: numbers written below."""

    name: str
    values: np.ndarray
    look: Look | None
    note: str


def cluster_map(
    planes: Sequence[Plane], legend: Sequence[str], words: Words, outlines: Sequence[Outline] = ()
) -> Drawing:
    """Clusters in colours over the mean probability in grey. values of the planes: cluster numbers from 0.

    legend: one entry per cluster.
    """
    rows = list(_map_rows(planes, "cluster"))
    alt = f"{words.title}. {count_text(len(legend), 'cluster')}: {'; '.join(legend)}."
    columns = ("plane", "row", "column", "cluster", "mean_probability")
    return Drawing(lambda: _cluster_figure(planes, legend, words, outlines), columns, tuple(rows), alt)


def value_map(planes: Sequence[Plane], label: str, words: Words, *, signed: bool) -> Drawing:
    """A number per place. signed: a scale symmetric about 0, blue above, red below; pale what noise could make."""
    rows = list(_map_rows(planes, "value"))
    every = np.concatenate([plane.values[np.isfinite(plane.values)] for plane in planes])
    alt = f"{words.title}. " + (
        f"Values from {short(float(every.min()))} to {short(float(every.max()))}, mean {short(float(every.mean()))}."
        if every.size
        else "No place has enough positives."
    )
    columns = ("plane", "row", "column", "value", "faded")
    return Drawing(lambda: _value_figure(planes, label, words, signed=signed), columns, tuple(rows), alt)


def coverage_diagram(lines: Sequence[CoverageLine], words: Words) -> Drawing:
    """Coverage against the level that was asked for."""
    rows = [
        {
            "line": line.name,
            "level": (m + 1) / line.coverage.size,
            "coverage": float(value),
            "low": None if line.low is None else float(line.low[m]),
            "high": None if line.high is None else float(line.high[m]),
            "n": line.n,
        }
        for line in lines
        for m, value in enumerate(line.coverage)
    ]
    worst = min((float((line.coverage - _levels(line.coverage.size)).min()), line.name) for line in lines)
    alt = f"{words.title}. The largest shortfall is {short(max(0.0, -worst[0]))}, of {worst[1]}."
    return Drawing(lambda: _diagram_figure(lines, words), tuple(rows[0]), tuple(rows), alt)


def coverage_violin(violins: Sequence[Violin], words: Words) -> Drawing:
    """Coverage errors over places, one violin per method, with mean and 5 and 95 %."""
    rows = []
    for one in violins:
        low, mean, high = _marks(one.values)
        rows.append({"method": one.name, "n": one.values.size, "mean": mean, "q05": low, "q95": high, "note": one.note})
    alt = f"{words.title}. Means: " + ", ".join(f"{one.name} {short(_marks(one.values)[1])}" for one in violins) + "."
    return Drawing(lambda: _violin_figure(violins, words), tuple(rows[0]), tuple(rows), alt)


def _marks(values: np.ndarray) -> tuple[float | None, float | None, float | None]:
    if not values.size:
        return None, None, None
    low, high = np.quantile(values, (0.05, 0.95))
    return float(low), float(values.mean()), float(high)


def _levels(n: int) -> np.ndarray:
    return np.arange(1, n + 1) / n


def _map_rows(planes: Sequence[Plane], key: str) -> Iterator[Mapping[str, Any]]:
    for number, plane in enumerate(planes):
        for (row, column), value in np.ndenumerate(plane.values):
            if not np.isfinite(value):
                continue
            place = {"plane": plane.title or number + 1, "row": row, "column": column}
            if key == "cluster":
                grey = None if plane.grey is None else float(plane.grey[row, column])
                yield {**place, "cluster": int(value), "mean_probability": grey}
            else:
                faded = plane.faded is not None and bool(plane.faded[row, column])
                yield {**place, "value": float(value), "faded": faded}


def _laid_out(
    planes: Sequence[Plane], words: Words, legend: Sequence[Any], right: float = 0.0
) -> tuple[Sheet, list[Axes]]:
    """Planes side by side at one scale, so that lengths can be compared between them."""
    scale = PLANE_WIDTH / max(max(plane.size_mm) for plane in planes)
    sizes = [(plane.size_mm[0] * scale, plane.size_mm[1] * scale) for plane in planes]
    margin = 0.3
    width = sum(w for _, w in sizes) + PLANE_GAP * (len(planes) - 1) + 2 * margin + right
    height = max(h for h, _ in sizes) + 0.7
    sheet = Sheet(words, max(width, 5.2), height, legend)
    left, made = margin, []
    for plane, (h, w) in zip(planes, sizes, strict=True):
        axes = sheet.axes(left, 0.3 + (max(h for h, _ in sizes) - h) / 2, w, h)
        _dress(axes, plane)
        made.append(axes)
        left += w + PLANE_GAP
    return sheet, made


def _dress(axes: Axes, plane: Plane) -> None:
    axes.set(xticks=[], yticks=[], facecolor="#dddddd")
    for side in ("top", "right"):
        axes.spines[side].set_visible(True)
    if plane.title:
        axes.set_title(plane.title, size=SMALL_POINTS, pad=14 if plane.letters else 4)
    if plane.letters is not None:
        around = (
            ((0, 0.5), (-4, 0), "right", "center"),
            ((1, 0.5), (4, 0), "left", "center"),
            ((0.5, 0), (0, -3), "center", "top"),
            ((0.5, 1), (0, 2), "center", "bottom"),
        )
        for letter, (at, offset, across, up) in zip(plane.letters, around, strict=True):
            axes.annotate(
                letter, at, offset, "axes fraction", "offset points", ha=across, va=up, size=SMALL_POINTS, color=INK
            )


def _origin(plane: Plane) -> Any:
    return "upper" if plane.letters is None else "lower"


def _cluster_figure(
    planes: Sequence[Plane], legend: Sequence[str], words: Words, outlines: Sequence[Outline]
) -> Figure:
    from matplotlib import colormaps
    from matplotlib.colors import ListedColormap
    from matplotlib.lines import Line2D
    from matplotlib.patches import Patch

    k = len(legend)
    colours = [colormaps["cividis"](x) for x in (np.linspace(0.08, 1.0, k) if k > 1 else [0.5])]
    signs: list[Any] = [Patch(facecolor=c, edgecolor=INK, label=text) for c, text in zip(colours, legend, strict=True)]
    for number, outline in enumerate(outlines):
        ink, style = INKS[number % len(INKS)], OUTLINES[number % len(OUTLINES)]
        signs.append(
            Line2D([], [], color=ink, ls=style if style[1] else "-", lw=1.6, label=f"borders of {outline.name}")
        )
    sheet, every = _laid_out(planes, words, signs)
    for index, (plane, axes) in enumerate(zip(planes, every, strict=True)):
        rows, columns = plane.values.shape
        extent = (-0.5, columns - 0.5, -0.5, rows - 0.5) if plane.letters else (-0.5, columns - 0.5, rows - 0.5, -0.5)
        how = {"extent": extent, "origin": _origin(plane), "aspect": "auto", "interpolation": "nearest"}
        if plane.grey is not None:
            top = max(float(np.nanmax(plane.grey)), 1e-6)
            axes.imshow(plane.grey, cmap="gray", vmin=-DARKEST * top, vmax=top, **how)
        axes.imshow(plane.values, cmap=ListedColormap(colours), vmin=-0.5, vmax=k - 0.5, alpha=OVERLAY, **how)
        _borders(axes, plane.values, INK, "-", 0.8)
        for number, outline in enumerate(outlines):
            ink, style = INKS[number % len(INKS)], OUTLINES[number % len(OUTLINES)]
            _borders(axes, outline.planes[index], ink, style if style[1] else "-", 1.6)
    return sheet.figure


def _borders(axes: Axes, labels: np.ndarray, colour: str, style: Any, width: float) -> None:
    """Lines between cells of different clusters."""
    from matplotlib.collections import LineCollection

    axes.add_collection(LineCollection(chains(labels), colors=colour, linestyles=[style], linewidths=width))


def chains(labels: np.ndarray) -> list[list[tuple[float, float]]]:
    """Borders between cells of different clusters as lines (x, y) that are as long as can be: dashes start anew with
    every line. labels: "row column"; the centre of the first cell is (0, 0)."""
    beyond: dict[tuple[float, float], list[tuple[float, float]]] = {}
    for along, far in (((0, 1), labels[:, 1:] != labels[:, :-1]), ((1, 0), labels[1:] != labels[:-1])):
        for row, column in zip(*np.nonzero(far), strict=True):
            end = (column + 0.5, row + 0.5)
            start = (end[0] - along[0], end[1] - along[1])
            beyond.setdefault(start, []).append(end)
            beyond.setdefault(end, []).append(start)
    lines = []
    # Open ends and crossings first, so that what is left are closed rings.
    for start in sorted(beyond, key=lambda point: (len(beyond[point]) == 2, point)):
        while beyond[start]:
            line = [start]
            while beyond[line[-1]]:
                following = beyond[line[-1]].pop()
                beyond[following].remove(line[-1])
                line.append(following)
            lines.append(line)
    return lines


def _value_figure(planes: Sequence[Plane], label: str, words: Words, *, signed: bool) -> Figure:
    from matplotlib import colormaps
    from matplotlib.cm import ScalarMappable
    from matplotlib.colors import Normalize

    finite = np.concatenate([plane.values[np.isfinite(plane.values)] for plane in planes])
    top = float(np.quantile(np.abs(finite), 0.99)) if finite.size else 1.0
    top = max(top, 1e-3)
    norm = Normalize(-top, top) if signed else Normalize(0.0, top)
    colours = colormaps["RdBu"] if signed else colormaps["cividis"]
    sheet, every = _laid_out(planes, words, (), right=0.9)
    for plane, axes in zip(planes, every, strict=True):
        rows, columns = plane.values.shape
        extent = (-0.5, columns - 0.5, -0.5, rows - 0.5) if plane.letters else (-0.5, columns - 0.5, rows - 0.5, -0.5)
        opaque = np.isfinite(plane.values).astype(float)
        if plane.faded is not None:
            opaque[plane.faded] *= PALE
        shown = colours(norm(np.nan_to_num(plane.values)))
        shown[..., 3] = opaque
        axes.imshow(shown, extent=extent, origin=_origin(plane), aspect="auto", interpolation="nearest")
        if plane.window is not None:
            low, high = (np.array([start, stop]) - 0.5 for start, stop in plane.window)
            axes.set(xlim=high, ylim=low if plane.letters else low[::-1])
    last = every[-1].get_position()
    bar = sheet.figure.add_axes((last.x1 + 0.28 / sheet.width, last.y0, 0.14 / sheet.width, last.height))
    colour_bar = sheet.figure.colorbar(ScalarMappable(norm, colours), cax=bar, extend="both" if signed else "max")
    colour_bar.set_label(label)
    colour_bar.outline.set_linewidth(0.6)
    return sheet.figure


def _diagram_figure(lines: Sequence[CoverageLine], words: Words) -> Figure:
    from matplotlib.lines import Line2D

    legend: list[Any] = [Line2D([], [], color=QUIET, lw=1.0, label="exact coverage")]
    legend += [
        Line2D([], [], color=one.look.colour, ls=one.look.line, marker=one.look.marker, ms=4, lw=1.4,
               label=f"{one.name} ({one.n})")
        for one in lines
    ]  # fmt: skip
    side = 4.2
    sheet = Sheet(words, side + 1.0, side + 0.6, legend)
    axes = sheet.axes(0.66, 0.5, side, side)
    axes.plot([0, 1], [0, 1], color=QUIET, lw=1.0)
    for one in lines:
        levels = _levels(one.coverage.size)
        if one.low is not None and one.high is not None:
            axes.fill_between(levels, one.low, one.high, color=one.look.colour, alpha=0.18, lw=0)
        axes.plot(levels, one.coverage, color=one.look.colour, ls=one.look.line, marker=one.look.marker, ms=3.5, lw=1.4)
    unit_axis(axes, "x", "level asked for (1 - alpha)")
    unit_axis(axes, "y", "coverage")
    axes.set(ylim=(0.0, 1.02))
    return sheet.figure


def _violin_figure(violins: Sequence[Violin], words: Words) -> Figure:
    from scipy.stats import gaussian_kde

    each = 1.25
    marks = [_marks(one.values) for one in violins]
    # Numbers stand below the violins, where nothing is covered by them.
    labels = [
        [*wrapped(one.name, each - 0.1, SMALL_POINTS), f"mean {short(mean, 3)}", one.note]
        for one, (_, mean, _) in zip(violins, marks, strict=True)
    ]
    below = 0.2 + LINE_INCHES * max(map(len, labels))
    sheet = Sheet(words, max(5.2, 0.9 + each * len(violins)), 3.4 + below)
    axes = sheet.plot_box(bottom=below)
    top = max((float(one.values.max()) for one in violins if one.values.size), default=0.1)
    for at, (one, (low, mean, high)) in enumerate(zip(violins, marks, strict=True)):
        colour = QUIET if one.look is None else one.look.colour
        if one.values.size > 1 and one.values.std() > 1e-9:
            grid = np.linspace(one.values.min(), one.values.max(), VIOLIN_POINTS)
            density = gaussian_kde(one.values)(grid)
            half = 0.42 * density / density.max()
            axes.fill_betweenx(grid, at - half, at + half, facecolor=colour, alpha=0.35, lw=0)
            around = np.concatenate([at - half, (at + half)[::-1], at - half[:1]])
            axes.plot(around, np.concatenate([grid, grid[::-1], grid[:1]]), color=colour, lw=0.9)
        if mean is not None and low is not None and high is not None:
            axes.plot([at - 0.28, at + 0.28], [mean, mean], color=INK, lw=1.8)
            for value in (low, high):
                axes.plot([at - 0.16, at + 0.16], [value, value], color=INK, lw=1.0, ls=(0, (2, 1.2)))
    axes.set(xlim=(-0.6, len(violins) - 0.4), ylim=(0.0, 1.05 * top), ylabel="coverage error of a place")
    axes.set_xticks(range(len(violins)), ["\n".join(lines) for lines in labels], size=SMALL_POINTS)
    return sheet.figure
