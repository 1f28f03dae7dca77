"""Reliability diagrams: frequency against predicted probability, bin by bin, with the voxel counts below.

Of one case as in Barfoot et al. 2024, Fig. 1: a black tick at the frequency, and a bar that spans the gap between it
and the mean probability. Of a data set: the pooled curve, with the band in which a calibrated model's curve would lie,
and the band in which this one's lies, both over patients.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import numpy as np

from segcal_cli.core.errors import count_text
from segcal_cli.core.frozen import dataclass
from segcal_cli.reporting.pictures import Drawing
from segcal_cli.reporting.style import (
    BLUE,
    INK,
    PAPER,
    QUIET,
    SMALL_POINTS,
    VERMILLION,
    Look,
    Sheet,
    Words,
    count_axis,
    diagonal,
    diagonal_sign,
    unit_axis,
)
from segcal_cli.reporting.tables import short

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

SIDE, MASS = 3.8, 0.95
"""Inches: the square of the curve, and the voxel counts below it (4 : 1)."""

GAP = 0.16

LABEL = 0.46
"""Inches from an axis to its label, the same for both panels whatever the numbers between."""

POINT_BAND = 0.02
"""Width of the band of a curve that is one point."""

OVER, UNDER = VERMILLION, BLUE
OVER_HATCH, UNDER_HATCH = "////", "xxxx"
"""Over-confidence (probability above frequency) and under-confidence, in colour and in hatch."""

BIN_COLUMNS = ("bin", "lower", "upper", "n", "mean_probability", "frequency", "gap")


@dataclass(frozen=True, slots=True)
class Bins:
    """Reported bins of one class: n int64 "bin"; mean probability e_m, frequency o_m and |o_m - e_m|, NaN in an empty
    bin. The gap comes along because the difference of two rounded means is not the number that was measured.
    """

    n: np.ndarray
    mean_probability: np.ndarray
    frequency: np.ndarray
    gap: np.ndarray

    @property
    def edges(self) -> np.ndarray:
        """float64 "bin + 1"."""
        return np.arange(self.n.size + 1) / self.n.size

    @property
    def centers(self) -> np.ndarray:
        return (np.arange(self.n.size) + 0.5) / self.n.size

    @property
    def width(self) -> float:
        return 1.0 / self.n.size

    def rows(self) -> list[dict[str, Any]]:
        """A row per bin: BIN_COLUMNS."""
        return [
            {
                "bin": m,
                "lower": self.edges[m],
                "upper": self.edges[m + 1],
                "n": int(self.n[m]),
                "mean_probability": self.mean_probability[m],
                "frequency": self.frequency[m],
                "gap": self.gap[m],
            }
            for m in range(self.n.size)
        ]


@dataclass(frozen=True, slots=True)
class Errors:
    """Binned errors that stand in the corner; None where undefined. mce_bin: from 0."""

    ece: float | None
    ace: float | None
    mce: float | None
    mce_bin: int | None

    @property
    def text(self) -> str:
        return "\n".join(f"{name} {short(value)}" for name, value in self.named.items())

    @property
    def named(self) -> Mapping[str, float | None]:
        return {"ECE": self.ece, "ACE": self.ace, "MCE": self.mce}

    @property
    def sentence(self) -> str:
        return ", ".join(f"{name} {short(value)}" for name, value in self.named.items())


@dataclass(frozen=True, slots=True)
class Bounds:
    """Low and high ends of a band, float64 "bin"."""

    low: np.ndarray
    high: np.ndarray


def case_diagram(bins: Bins, errors: Errors, words: Words) -> Drawing:
    """Of one case, class and source."""
    gap = bins.frequency - bins.mean_probability
    over, under = int((gap < 0).sum()), int((gap > 0).sum())
    alt = (
        f"{words.title}. {errors.sentence}. Of {int((bins.n > 0).sum())} bins with voxels {over} are over-confident "
        f"and {under} under-confident."
    )
    return Drawing(lambda: _case_figure(bins, errors, words), BIN_COLUMNS, tuple(bins.rows()), alt)


def _case_figure(bins: Bins, errors: Errors, words: Words) -> Figure:
    from matplotlib.lines import Line2D
    from matplotlib.patches import Patch

    legend = [
        Line2D([], [], color=INK, lw=2.0, label="frequency"),
        Patch(facecolor=OVER, alpha=0.45, hatch=OVER_HATCH, edgecolor=OVER, label="over-confident"),
        Patch(facecolor=UNDER, alpha=0.45, hatch=UNDER_HATCH, edgecolor=UNDER, label="under-confident"),
        diagonal_sign(),
    ]
    sheet, curve, mass = _two_panels(words, legend)
    diagonal(curve)
    e, o = bins.mean_probability, bins.frequency
    for sign, colour, hatch in ((-1, OVER, OVER_HATCH), (1, UNDER, UNDER_HATCH)):
        here = np.flatnonzero(sign * (o - e) > 0.0)
        bottom, top = np.minimum(e, o)[here], np.maximum(e, o)[here]
        x = bins.centers[here]
        curve.bar(x, top - bottom, bins.width, bottom, color=colour, alpha=0.35, lw=0.0)
        curve.bar(x, top - bottom, bins.width, bottom, fill=False, hatch=hatch, edgecolor=colour, lw=0.8)
    filled = np.flatnonzero(bins.n > 0)
    half = bins.width / 2
    curve.hlines(o[filled], bins.centers[filled] - half, bins.centers[filled] + half, color=INK, lw=2.0, zorder=4)
    corner = _errors_in_a_free_corner(curve, bins, errors)
    if errors.mce_bin is not None and errors.mce:
        m = errors.mce_bin
        curve.annotate(
            "",
            (bins.centers[m], (e[m] + o[m]) / 2),
            corner,
            arrowprops={"arrowstyle": "->", "color": INK, "lw": 1.0, "shrinkA": 2, "shrinkB": 0},
            zorder=6,
        )
    _mass(mass, bins)
    return sheet.figure


def dataset_diagram(
    bins: Bins, errors: Errors, consistency: Bounds | None, confidence: Bounds | None, look: Look, words: Words
) -> Drawing:
    """Pooled over cases. consistency: frequencies of a calibrated model, around the diagonal; confidence: around the
    curve; None where there are too few patients.
    """
    rows = bins.rows()
    for name, band in (("consistency", consistency), ("confidence", confidence)):
        for m, row in enumerate(rows):
            row[f"{name}_low"], row[f"{name}_high"] = (None, None) if band is None else (band.low[m], band.high[m])
    columns = (*BIN_COLUMNS, "consistency_low", "consistency_high", "confidence_low", "confidence_high")
    alt = f"{words.title}. {errors.sentence}."
    if consistency is not None:
        outside = (bins.frequency < consistency.low) | (bins.frequency > consistency.high)
        alt += f" The curve leaves the consistency band in {int(outside.sum())} of {int((bins.n > 0).sum())} bins."
    figure = lambda: _dataset_figure(bins, errors, consistency, confidence, look, words)  # noqa: E731
    return Drawing(figure, columns, tuple(rows), alt)


def _dataset_figure(
    bins: Bins, errors: Errors, consistency: Bounds | None, confidence: Bounds | None, look: Look, words: Words
) -> Figure:
    from matplotlib.lines import Line2D
    from matplotlib.patches import Patch

    legend: list[Any] = [Line2D([], [], color=look.colour, marker=look.marker, ls=look.line, ms=4, label="frequency")]
    if confidence is not None:
        legend.append(Patch(facecolor=look.colour, alpha=0.3, label="confidence band"))
    if consistency is not None:
        legend.append(Patch(facecolor="none", edgecolor=QUIET, hatch="////", label="consistency band"))
    legend.append(diagonal_sign())
    sheet, curve, mass = _two_panels(words, legend)
    diagonal(curve)
    filled = bins.n > 0
    e = bins.mean_probability[filled]
    if consistency is not None:
        low, high = np.clip(consistency.low[filled], 0, 1), np.clip(consistency.high[filled], 0, 1)
        filled_band(curve, e, low, high, facecolor="none", edgecolor=QUIET, hatch="////", lw=0.6)
    if confidence is not None:
        low, high = confidence.low[filled], confidence.high[filled]
        filled_band(curve, e, low, high, color=look.colour, alpha=0.3, lw=0.0, zorder=3)
    curve.plot(
        e, bins.frequency[filled], color=look.colour, marker=look.marker, ls=look.line, ms=4, lw=1.4,
        zorder=4, clip_on=False,
    )  # fmt: skip
    _errors_in_a_free_corner(curve, bins, errors)
    _mass(mass, bins)
    return sheet.figure


def filled_band(axes: Axes, x: np.ndarray, low: np.ndarray, high: np.ndarray, **style: Any) -> None:
    """The area between two curves; at a single x, where it would have no width, as wide as POINT_BAND."""
    if x.size == 1:
        x, low, high = x + np.array([-0.5, 0.5]) * POINT_BAND, low.repeat(2), high.repeat(2)
    axes.fill_between(x, low, high, **style)


def _two_panels(words: Words, legend: list[Any]) -> tuple[Sheet, Axes, Axes]:
    left, bottom = 0.72, 0.48
    sheet = Sheet(words, left + SIDE + 0.22, bottom + MASS + GAP + SIDE + 0.08, legend)
    curve = sheet.axes(left, bottom + MASS + GAP, SIDE, SIDE)
    mass = sheet.axes(left, bottom, SIDE, MASS)
    unit_axis(curve, "x", "")
    unit_axis(curve, "y", "observed frequency")
    curve.tick_params(labelbottom=False)
    curve.yaxis.set_label_coords(-LABEL / SIDE, 0.5)
    unit_axis(mass, "x", "predicted probability")
    return sheet, curve, mass


def _mass(axes: Axes, bins: Bins) -> None:
    axes.bar(bins.centers, bins.n, bins.width, color=QUIET, edgecolor=PAPER, lw=0.4)
    count_axis(axes, bins.n.tolist(), "voxels")
    axes.yaxis.set_label_coords(-LABEL / SIDE, 0.5)


def _errors_in_a_free_corner(axes: Axes, bins: Bins, errors: Errors) -> tuple[float, float]:
    """Writes the errors where fewer bars are: top left, or bottom right. Returns where an arrow may start."""
    wide, high = 0.42, 0.30
    bottom, top = np.fmin(bins.mean_probability, bins.frequency), np.fmax(bins.mean_probability, bins.frequency)
    top_left = int(((bins.centers < wide) & (top > 1.0 - high)).sum())
    bottom_right = int(((bins.centers > 1.0 - wide) & (bottom < high)).sum())
    upper = top_left <= bottom_right
    axes.text(
        0.03 if upper else 0.97,
        0.97 if upper else 0.03,
        f"{errors.text}\n({count_text(bins.n.size, 'bin')})",
        ha="left" if upper else "right",
        va="top" if upper else "bottom",
        transform=axes.transAxes,
        linespacing=1.35,
        size=SMALL_POINTS,
        zorder=5,
        bbox={"facecolor": PAPER, "edgecolor": QUIET, "lw": 0.6, "alpha": 0.9, "boxstyle": "square,pad=0.35"},
    )
    return (0.14, 0.79) if upper else (0.86, 0.22)
