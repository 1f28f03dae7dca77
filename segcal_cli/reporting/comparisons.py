"""Overlap against calibration: what a better calibrated source costs, or does not cost, in Dice.

Over the data set as in Rousseau et al. 2021, Fig. 1: a point a source, with the Pareto front. Over single cases as in
Barfoot et al. 2024, Fig. 3, where sources of the same case are joined.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from segcal_cli.core.errors import count_text
from segcal_cli.core.frozen import dataclass
from segcal_cli.reporting.distributions import Sample
from segcal_cli.reporting.pictures import Drawing
from segcal_cli.reporting.style import INK, PAPER, QUIET, Look, Sheet, Words, keep_within
from segcal_cli.reporting.tables import short

if TYPE_CHECKING:
    from matplotlib.figure import Figure

PERCENT = 100.0

FRONT: Mapping[str, Any] = {"color": INK, "lw": 1.8, "ls": (0, (4, 2))}
"""The line of the front: over intervals, under markers, seen among both."""

SCATTER = {"ece": "ECE", "ace": "ACE", "mce": "MCE"}
"""Measures of the scatter, a panel each."""


@dataclass(frozen=True, slots=True)
class Interval:
    """A mean over ``n`` and the ends of its interval, None where there is none."""

    mean: float
    low: float | None
    high: float | None
    n: int

    def bars(self, scale: float = 1.0) -> list[list[float]] | None:
        """Lengths of the error bar below and above the mean, None where there is no interval."""
        if self.low is None or self.high is None:
            return None
        return [[scale * max(self.mean - self.low, 0.0)], [scale * max(self.high - self.mean, 0.0)]]


@dataclass(frozen=True, slots=True)
class Point:
    """One source: mean Dice, mean ECE, and whether no other source is better in both."""

    name: str
    look: Look
    dice: Interval
    ece: Interval
    on_front: bool


def pareto(points: Sequence[Point], words: Words) -> Drawing:
    """Mean Dice against mean ECE. points: sources that have both."""
    rows = [
        {
            "source": point.name,
            "dice": point.dice.mean,
            "dice_low": point.dice.low,
            "dice_high": point.dice.high,
            "ece_percent": PERCENT * point.ece.mean,
            "ece_percent_low": None if point.ece.low is None else PERCENT * point.ece.low,
            "ece_percent_high": None if point.ece.high is None else PERCENT * point.ece.high,
            "on_front": point.on_front,
        }
        for point in points
    ]
    shown = "; ".join(
        f"{point.name}: Dice {short(point.dice.mean, 3)}, ECE {short(PERCENT * point.ece.mean, 3)} %, "
        f"{'on the front' if point.on_front else 'dominated'}"
        for point in points
    )
    return Drawing(lambda: _pareto_figure(points, words), tuple(rows[0]), tuple(rows), f"{words.title}. {shown}.")


def _pareto_figure(points: Sequence[Point], words: Words) -> Figure:
    from matplotlib.lines import Line2D
    from matplotlib.ticker import MaxNLocator

    legend: list[Any] = [
        Line2D(
            [], [], color=point.look.colour, marker=point.look.marker, ls="", ms=7, mew=1.4,
            mfc=point.look.colour if point.on_front else PAPER,
            label=f"{point.name} ({'on the front' if point.on_front else 'dominated'})",
        )
        for point in points
    ]  # fmt: skip
    front = sorted((point.dice.mean, PERCENT * point.ece.mean) for point in points if point.on_front)
    if len(set(front)) > 1:
        legend.append(Line2D([], [], **FRONT, label="Pareto front"))
    sheet = Sheet(words, 5.4, 4.2, legend)
    axes = sheet.plot_box(left=0.72, right=0.25)
    for point in points:
        axes.errorbar(
            point.dice.mean, PERCENT * point.ece.mean, point.ece.bars(PERCENT), point.dice.bars(),
            color=point.look.colour, fmt="none", lw=0.9, capsize=3, zorder=2,
        )  # fmt: skip
        axes.plot(
            point.dice.mean, PERCENT * point.ece.mean, color=point.look.colour, marker=point.look.marker, ms=7,
            mew=1.4, ls="", mfc=point.look.colour if point.on_front else PAPER, zorder=4, clip_on=False,
        )  # fmt: skip
    axes.step(*zip(*front, strict=True), where="pre", **FRONT, zorder=3)
    axes.margins(0.12)
    keep_within(axes, "x")
    keep_within(axes, "y", PERCENT)
    axes.xaxis.set_major_locator(MaxNLocator(6))
    axes.set(xlabel="mean Dice (higher is better)", ylabel="mean ECE in % (lower is better)")
    axes.grid(color=QUIET, alpha=0.25, lw=0.6)
    return sheet.figure


def case_scatter(samples: Sequence[Sample], cases: Sequence[str], words: Words) -> Drawing:
    """Dice against ECE, ACE and MCE of each case."""
    columns = ("source", "case", "dice", *SCATTER)
    rows = [
        {"source": one.name, "case": case, **{key: one.values[key][i] for key in ("dice", *SCATTER)}}
        for one in samples
        for i, case in enumerate(cases)
    ]
    alt = f"{words.title}. {count_text(len(cases), 'case')}; " + "; ".join(_middle(one) for one in samples) + "."
    return Drawing(lambda: _scatter_figure(samples, words), columns, tuple(rows), alt)


def _scatter_figure(samples: Sequence[Sample], words: Words) -> Figure:
    from matplotlib.lines import Line2D
    from matplotlib.ticker import MaxNLocator

    legend: list[Any] = [
        Line2D([], [], color=one.look.colour, marker=one.look.marker, ls="", ms=5, label=one.name) for one in samples
    ]
    if len(samples) > 1:
        legend.append(Line2D([], [], color=QUIET, lw=0.8, label="same case"))
    side, left, between = 1.85, 0.8, 0.74
    sheet = Sheet(words, left + 3 * side + 2 * between + 0.15, 0.48 + side + 0.12, legend)
    for place, (key, label) in enumerate(SCATTER.items()):
        axes = sheet.axes(left + place * (side + between), 0.48, side, side)
        x, y = (np.array([_numbers(one.values[name]) for one in samples]) for name in ("dice", key))
        if len(samples) > 1:
            axes.plot(x, y, color=QUIET, lw=0.5, alpha=0.6, zorder=2)
        for one, dice, error in zip(samples, x, y, strict=True):
            axes.plot(
                dice, error, marker=one.look.marker, ms=4, mfc=one.look.colour, mec="none", alpha=0.75, ls="",
                zorder=3, clip_on=False,
            )  # fmt: skip
        axes.set(xlabel="Dice", ylabel=label)
        axes.margins(0.08)
        keep_within(axes, "x")
        keep_within(axes, "y")
        axes.xaxis.set_major_locator(MaxNLocator(4))
        axes.yaxis.set_major_locator(MaxNLocator(5))
        axes.grid(color=QUIET, alpha=0.25, lw=0.6)
    return sheet.figure


def _numbers(values: Sequence[float | None]) -> list[float]:
    return [np.nan if value is None else float(value) for value in values]


def _middle(one: Sample) -> str:
    medians = {
        key: float(np.median(known)) if (known := [v for v in one.values[key] if v is not None]) else None
        for key in ("dice", "ece")
    }
    return f"{one.name}: median Dice {short(medians['dice'], 3)}, median ECE {short(medians['ece'])}"
