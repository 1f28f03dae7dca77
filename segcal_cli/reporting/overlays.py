"""Pictures of inner and outer sets on the scan: truth, inner and outer outlines, slice by slice.

Outlines differ in colour and in line: the truth yellow and solid, the inner set red and solid but thick, the outer one
blue and dashed. A set that holds the whole slice is outlined along its border.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any, Literal

import numpy as np

from segcal_cli.core.frozen import dataclass
from segcal_cli.reporting.pictures import Drawing
from segcal_cli.reporting.style import QUIET, SMALL_POINTS, Sheet, Words

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

TRUTH, INNER, OUTER = "#F0E442", "#E8262A", "#2F8CFF"
"""Yellow, red, blue: as the sets are spoken of; they lie on grey scans, never on paper."""

LINES: Mapping[str, tuple[str, str, float]] = {
    "truth": (TRUTH, "-", 1.1),
    "inner": (INNER, "-", 1.7),
    "outer": (OUTER, "--", 1.5),
}

TILE = 2.3
"""Inches of the longer side of a slice."""

LEFT = 0.6

LINE = 0.15
"""Inches of a line of a label."""

ACROSS = 4
"""Images side by side."""


@dataclass(frozen=True, slots=True)
class Slice:
    """One slice. background: float "row column"; masks: bool of the same shape by name. edges: (row, column) spacing.

    towards: what the last row and the last column point to, such as ("S", "A"), or ("", "") in an image. name: which
    slice it is.
    """

    name: str
    background: np.ndarray
    masks: Mapping[str, np.ndarray]
    edges: tuple[float, float]
    towards: tuple[str, str]

    @property
    def extent(self) -> tuple[float, float]:
        """Height and width in units of ``edges``."""
        rows, columns = self.background.shape
        return rows * self.edges[0], columns * self.edges[1]


@dataclass(frozen=True, slots=True)
class Strip:
    """Slices side by side, under one label (a level, or a case). note: what the outlines cannot show."""

    label: str
    slices: tuple[Slice, ...]
    note: str = ""


def overlay(strips: Sequence[Strip], words: Words) -> Drawing:
    """A row of slices per strip."""
    rows = [
        {
            "row": strip.label,
            "slice": one.name,
            "note": strip.note,
            **{f"{name}_pixels": int(np.count_nonzero(one.masks[name])) for name in LINES},
            "inner_outside_truth": int(np.count_nonzero(one.masks["inner"] & ~one.masks["truth"])),
            "truth_outside_outer": int(np.count_nonzero(one.masks["truth"] & ~one.masks["outer"])),
        }
        for strip in strips
        for one in strip.slices
    ]
    alt = f"{words.title}. " + "; ".join(
        f"{row['row']}, {row['slice']}: truth {row['truth_pixels']}, inner {row['inner_pixels']}, outer "
        f"{row['outer_pixels']} pixels"
        for row in rows
    )
    return Drawing(lambda: _overlay_figure(strips, words), tuple(rows[0]), tuple(rows), f"{alt}.")


def score_maps(slices: Sequence[Slice], thresholds: Sequence[Sequence[float]], words: Words) -> Drawing:
    """Candidate score maps of one slice in grey, each with its thresholds as contours."""
    rows = [
        {"score": one.name, "threshold": float(value), "pixels_above": int(np.count_nonzero(one.background > value))}
        for one, values in zip(slices, thresholds, strict=True)
        for value in (values or [0.0])
    ]
    alt = f"{words.title}. " + "; ".join(f"{row['score']} > {row['threshold']:.4g}" for row in rows)
    return Drawing(lambda: _map_figure(slices, thresholds, words), tuple(rows[0]), tuple(rows), f"{alt}.")


def _overlay_figure(strips: Sequence[Strip], words: Words) -> Figure:
    from matplotlib.lines import Line2D

    legend: list[Any] = [
        Line2D([], [], color=colour, ls=line, lw=width, label=name) for name, (colour, line, width) in LINES.items()
    ]
    if all(len(strip.slices) == 1 for strip in strips):
        return _image_figure(strips, words, legend)
    sizes = [[_size(one) for one in strip.slices] for strip in strips]
    columns = max(len(row) for row in sizes)
    widths = [max((row[c][1] for row in sizes if c < len(row)), default=0.0) for c in range(columns)]
    heights = [max(size[0] for size in row) for row in sizes]
    start = LEFT + LINE * _lines(strips)
    width = max(start + sum(widths) + 0.3 * columns, 4.2)
    sheet = Sheet(words, width, sum(heights) + 0.34 * len(heights) + 0.05, legend)
    top = sheet.height
    for strip, row, height in zip(strips, sizes, heights, strict=True):
        top -= height + 0.34
        left = start
        for number, (one, (tall, wide)) in enumerate(zip(strip.slices, row, strict=True)):
            axes = sheet.axes(left, top + 0.08, wide, tall)
            _show(axes, one)
            axes.set_title(one.name, fontsize=SMALL_POINTS, pad=2)
            if number == 0:
                axes.text(-0.15 / wide, 0.5, _label(strip), rotation=90, va="center", ha="right",
                          ma="center", transform=axes.transAxes, fontsize=SMALL_POINTS)  # fmt: skip
            left += widths[number] + 0.3
    return sheet.figure


def _image_figure(strips: Sequence[Strip], words: Words, legend: Sequence[Any]) -> Figure:
    """Images have one slice each, so several stand side by side, each under its label."""
    sizes = [_size(strip.slices[0]) for strip in strips]
    rows = [range(start, min(start + ACROSS, len(strips))) for start in range(0, len(strips), ACROSS)]
    head = 0.12 + LINE * _lines(strips)
    heights = [max(sizes[at][0] for at in row) + head for row in rows]
    widest = max(sum(TILE + 0.2 for _ in row) for row in rows)
    sheet = Sheet(words, max(widest + 0.1, 4.2), sum(heights) + 0.05, list(legend))
    top = sheet.height
    for row, height in zip(rows, heights, strict=True):
        for column, at in enumerate(row):
            tall, wide = sizes[at]
            left = 0.15 + column * (TILE + 0.2) + (TILE - wide) / 2
            axes = sheet.axes(left, top - head - tall + 0.08, wide, tall)
            _show(axes, strips[at].slices[0])
            axes.set_title(_label(strips[at]), fontsize=SMALL_POINTS, pad=2)
        top -= height
    return sheet.figure


def _label(strip: Strip) -> str:
    return f"{strip.label}\n{strip.note}".strip()


def _lines(strips: Sequence[Strip]) -> int:
    """Lines of the longest label."""
    return max(_label(strip).count("\n") + 1 for strip in strips)


def _map_figure(slices: Sequence[Slice], thresholds: Sequence[Sequence[float]], words: Words) -> Figure:
    from matplotlib.lines import Line2D

    legend: list[Any] = [
        Line2D([], [], color=TRUTH, lw=1.2, label="truth"),
        Line2D([], [], color=INNER, lw=1.4, ls="--", label="threshold (0 where none is calibrated)"),
    ]
    across = min(4, len(slices))
    down = -(-len(slices) // across)
    tall, wide = _size(slices[0])
    sheet = Sheet(words, max(across * (wide + 0.3) + 0.3, 4.2), down * (tall + 0.4) + 0.05, legend)
    for number, (one, values) in enumerate(zip(slices, thresholds, strict=True)):
        row, column = divmod(number, across)
        axes = sheet.axes(0.3 + column * (wide + 0.3), sheet.height - (row + 1) * (tall + 0.4) + 0.05, wide, tall)
        _show(axes, one, only=("truth",))
        finite = one.background[np.isfinite(one.background)]
        for value in values or [0.0]:
            if finite.size and finite.min() < value < finite.max():
                axes.contour(one.background, levels=[value], colors=INNER, linewidths=1.4, linestyles="--")
        axes.set_title(one.name, fontsize=SMALL_POINTS, pad=2)
    return sheet.figure


def _size(one: Slice) -> tuple[float, float]:
    """Inches of a slice: its longer side is a tile."""
    height, width = one.extent
    scale = TILE / max(height, width)
    return max(height * scale, 0.25), max(width * scale, 0.25)


def _show(axes: Axes, one: Slice, only: Sequence[str] = tuple(LINES)) -> None:
    finite = one.background[np.isfinite(one.background)]
    low, high = np.quantile(finite, (0.01, 0.99)) if finite.size else (0.0, 1.0)
    origin: Literal["lower", "upper"] = "lower" if one.towards[0] else "upper"
    axes.imshow(
        np.clip(one.background, low, high), cmap="gray", vmin=low, vmax=max(high, low + 1e-9), origin=origin,
        aspect=one.edges[0] / one.edges[1], interpolation="nearest",
    )  # fmt: skip
    rows, columns = one.background.shape
    y, x = np.arange(-1, rows + 1), np.arange(-1, columns + 1)
    for name in only:
        mask = one.masks[name]
        if mask.any():
            colour, line, width = LINES[name]
            # With a ring of background around it every outline closes, also along the border of the slice.
            axes.contour(x, y, np.pad(mask, 1).astype(float), levels=[0.5], colors=colour, linestyles=line,
                         linewidths=width)  # fmt: skip
    axes.set(xlim=(-1, columns), ylim=(-1, rows) if one.towards[0] else (rows, -1), xticks=[], yticks=[])
    for side in axes.spines.values():
        side.set(visible=True, color=QUIET)
    if one.towards[1]:
        axes.set_xlabel(f"to {one.towards[1]}", fontsize=SMALL_POINTS, labelpad=1)
        axes.yaxis.set_label_position("right")
        axes.set_ylabel(f"to {one.towards[0]}", fontsize=SMALL_POINTS, labelpad=1)
