"""Curves without bins, and where the voxels are.

CORP (Dimitriadis, Gneiting, Jordan 2021) draws the best monotone recalibration, smooth ECE (Błasiok, Nakkiran 2023) a
kernel mean of the frequency; neither depends on a number of bins. The mass picture shows how few voxels the inner bins
hold, and how many predictions are exactly 0 or 1.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from segcal_cli.core.frozen import dataclass
from segcal_cli.reporting.diagrams import Bins, Bounds, filled_band
from segcal_cli.reporting.pictures import Drawing
from segcal_cli.reporting.style import (
    PAPER,
    QUIET,
    SMALL_POINTS,
    TEXT_POINTS,
    Look,
    Sheet,
    Words,
    count_axis,
    diagonal,
    diagonal_sign,
    unit_axis,
)

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure


@dataclass(frozen=True, slots=True)
class Curve:
    """x, y: float64 "point"; NaN in y leaves a gap."""

    x: np.ndarray
    y: np.ndarray


@dataclass(frozen=True, slots=True)
class Parts:
    """The Brier score taken apart; None where undefined."""

    miscalibration: float | None
    discrimination: float | None
    uncertainty: float | None

    @property
    def sentence(self) -> str:
        return (
            f"Brier score: MCB {_three(self.miscalibration)}, DSC {_three(self.discrimination)}, "
            f"UNC {_three(self.uncertainty)}"
        )

    @property
    def text(self) -> str:
        return self.sentence.replace(": ", "\n").replace(", ", "\n")


def corp(
    curve: Curve, band: tuple[np.ndarray, Bounds] | None, smooth: Curve, parts: Parts, look: Look, words: Words
) -> Drawing:
    """CORP step curve. band: its x and ends, None where there are too few patients. smooth: the kernel mean.

    Predictions that are all the same make a point of the curve.
    """
    rows: list[dict[str, Any]] = [
        {"curve": "corp", "p": x, "frequency": y} for x, y in zip(curve.x, curve.y, strict=True)
    ]
    if band is not None:
        rows += [
            {"curve": "band", "p": x, "low": low, "high": high}
            for x, low, high in zip(band[0], band[1].low, band[1].high, strict=True)
        ]
    rows += [
        {"curve": "smooth", "p": x, "frequency": y} for x, y in zip(smooth.x, smooth.y, strict=True) if not np.isnan(y)
    ]
    alt = f"{words.title}. {parts.sentence}."
    columns = ("curve", "p", "frequency", "low", "high")
    return Drawing(lambda: _corp_figure(curve, band, smooth, parts, look, words), columns, tuple(rows), alt)


def _corp_figure(
    curve: Curve, band: tuple[np.ndarray, Bounds] | None, smooth: Curve, parts: Parts, look: Look, words: Words
) -> Figure:
    from matplotlib.lines import Line2D
    from matplotlib.patches import Patch

    point: dict[str, Any] = {"marker": look.marker, "ms": 6} if curve.x.size == 1 else {}
    legend: list[Any] = [Line2D([], [], color=look.colour, lw=1.8, label="CORP", **point)]
    if band is not None:
        legend.append(Patch(facecolor=look.colour, alpha=0.3, label="bootstrap band"))
    drawn = not np.isnan(smooth.y).all()
    if drawn:
        legend.append(Line2D([], [], color=QUIET, lw=1.0, label="kernel mean"))
    legend.append(diagonal_sign())
    side, left, bottom = 3.8, 0.68, 0.48
    sheet = Sheet(words, left + side + 0.22, bottom + side + 0.08, legend)
    axes = sheet.axes(left, bottom, side, side)
    diagonal(axes)
    if band is not None:
        filled_band(axes, band[0], band[1].low, band[1].high, color=look.colour, alpha=0.3, lw=0.0, zorder=2)
    axes.plot(curve.x, curve.y, color=look.colour, lw=1.8, zorder=3, clip_on=False, **point)
    axes.plot(smooth.x, smooth.y, color=QUIET, lw=1.0, zorder=2.5)
    unit_axis(axes, "x", "predicted probability")
    unit_axis(axes, "y", "observed frequency, isotonic")
    # An increasing curve leaves one of these corners free: it cannot pass through both.
    above = float(np.nanmean(np.interp([0.1, 0.2, 0.3], curve.x, curve.y))) if curve.x.size else 0.0
    upper = above < 0.6
    axes.text(
        0.03 if upper else 0.97,
        0.97 if upper else 0.03,
        parts.text,
        ha="left" if upper else "right",
        va="top" if upper else "bottom",
        transform=axes.transAxes,
        size=SMALL_POINTS,
        linespacing=1.35,
        zorder=5,
        bbox={"facecolor": PAPER, "edgecolor": QUIET, "lw": 0.6, "alpha": 0.9, "boxstyle": "square,pad=0.35"},
    )
    return sheet.figure


@dataclass(frozen=True, slots=True)
class Mass:
    """Pooled bins of one class, and the share of voxels that are exactly 0 and exactly 1."""

    name: str
    bins: Bins
    at_zero: float | None
    at_one: float | None


def mass(classes: Sequence[Mass], look: Look, words: Words) -> Drawing:
    """Voxel counts per bin, a panel a class."""
    rows = [
        {
            "class": one.name,
            **{key: row[key] for key in ("bin", "lower", "upper", "n")},
            "at_zero": one.at_zero,
            "at_one": one.at_one,
        }
        for one in classes
        for row in one.bins.rows()
    ]
    shown = "; ".join(
        f"{one.name}: {_percent(one.at_zero)} exactly 0, {_percent(one.at_one)} exactly 1, "
        f"{_percent(_inner(one.bins))} in the inner bins"
        for one in classes
    )
    return Drawing(lambda: _mass_figure(classes, look, words), tuple(rows[0]), tuple(rows), f"{words.title}. {shown}.")


def _mass_figure(classes: Sequence[Mass], look: Look, words: Words) -> Figure:
    columns = min(2, len(classes))
    lines = -(-len(classes) // columns)
    width, height, left, above, under = (5.6 if columns == 1 else 2.75), 1.35, 0.68, 0.46, 0.5
    sheet = Sheet(words, columns * (left + width) + 0.25, lines * (above + height + under))
    for place, one in enumerate(classes):
        across, down = place % columns, place // columns
        axes = sheet.axes(
            left + across * (left + width), (lines - 1 - down) * (above + height + under) + under, width, height
        )
        axes.bar(one.bins.centers, one.bins.n, one.bins.width, color=look.colour, alpha=0.75, edgecolor=PAPER, lw=0.4)
        _ends(axes, one)
        unit_axis(axes, "x", "predicted probability")
        count_axis(axes, one.bins.n.tolist(), "voxels")
    return sheet.figure


def _ends(axes: Axes, one: Mass) -> None:
    """The class's name, and over the ends of the axis what lies exactly there."""
    axes.set_title(one.name, loc="left", size=TEXT_POINTS, weight="bold", pad=17)
    for x, side, value, share in ((0.0, "left", 0, one.at_zero), (1.0, "right", 1, one.at_one)):
        axes.annotate(
            f"exactly {value}: {_percent(share)}", (x, 1.0), (0, 4), xycoords="axes fraction",
            textcoords="offset points", ha=side, va="bottom", size=SMALL_POINTS,
        )  # fmt: skip


def _inner(bins: Bins) -> float | None:
    """Share of the voxels outside the first and the last bin."""
    total = int(bins.n.sum())
    return None if not total else 1.0 - float(bins.n[0] + (bins.n[-1] if bins.n.size > 1 else 0)) / total


def _three(value: float | None) -> str:
    """Three significant digits; a miscalibration of 0.00004 is not none."""
    return "-" if value is None else f"{value:#.3g}"


def _percent(share: float | None) -> str:
    """With as many digits as tell a small share from none."""
    if share is None:
        return "-"
    if share in (0.0, 1.0):
        return f"{100.0 * share:.0f} %"
    return "< 0.01 %" if share < 5e-5 else f"{100.0 * share:.2f} %"
