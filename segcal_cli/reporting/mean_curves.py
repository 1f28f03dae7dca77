"""Means over cases: each scan counts the same, whatever its size, with the spread around them.

After Rousseau et al. 2021, Fig. 2. A few sources share the axes, side by side within each bin; where they would hide
each other they get a panel each.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from segcal_cli.core.frozen import dataclass
from segcal_cli.reporting.distributions import Series, spread_sentence
from segcal_cli.reporting.pictures import Drawing
from segcal_cli.reporting.style import (
    INK,
    QUIET,
    SMALL_POINTS,
    Look,
    Sheet,
    Words,
    diagonal,
    diagonal_sign,
    shortened,
    unit_axis,
)

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

SIDE_BY_SIDE = 3
"""So many sources share the axes of a mean curve; more get a panel each, with the mean of the first one in it."""

SPREAD = 0.6
"""Of a bin's width: over which sources that share axes are moved apart."""


def mean_curve(series: Sequence[Series], words: Words) -> Drawing:
    """Per bin and source the mean over cases, its standard deviation, and the quartiles."""
    bins = series[0].values.shape[1]
    rows = []
    for one in series:
        for m in range(bins):
            known = one.values[~np.isnan(one.values[:, m]), m]
            row: dict[str, Any] = {"source": one.name, "bin": m, "lower": m / bins, "upper": (m + 1) / bins}
            row["cases"] = known.size
            if known.size:
                row |= {"mean": known.mean(), "q25": np.quantile(known, 0.25), "q75": np.quantile(known, 0.75)}
                row["std"] = known.std(ddof=1) if known.size > 1 else None
            rows.append(row)
    columns = ("source", "bin", "lower", "upper", "cases", "mean", "std", "q25", "q75")
    alt = f"{words.title}. " + " ".join(spread_sentence(one) for one in series)
    return Drawing(lambda: _mean_figure(series, rows, words), columns, tuple(rows), alt)


def _mean_figure(series: Sequence[Series], rows: Sequence[Mapping[str, Any]], words: Words) -> Figure:
    from matplotlib.lines import Line2D
    from matplotlib.patches import Patch

    bins = series[0].values.shape[1]
    found = [_Means.of([row for row in rows if row["source"] == one.name]) for one in series]
    legend: list[Any] = [
        Line2D([], [], color=one.look.colour, marker=one.look.marker, ls=one.look.line, ms=5, label=one.name)
        for one in series
    ]
    legend.append(Line2D([], [], color=INK, lw=1.0, marker="|", ms=6, ls="-", label="± standard deviation"))
    legend += [Patch(facecolor=QUIET, alpha=0.35, label="quartiles"), diagonal_sign()]
    if len(series) <= SIDE_BY_SIDE:
        sheet = Sheet(words, 7.2, 4.3, legend)
        axes = sheet.plot_box()
        _mean_axes(axes)
        slot = SPREAD / bins / len(series)
        for place, (one, means) in enumerate(zip(series, found, strict=True)):
            _means(axes, means, one.look, (place - (len(series) - 1) / 2) * slot, 0.8 * slot)
        return sheet.figure
    across, side, left, above, under = 3, 1.78, 0.56, 0.26, 0.5
    down = -(-len(series) // across)
    sheet = Sheet(words, across * (left + side) + 0.18, down * (above + side + under), legend)
    for place, (one, means) in enumerate(zip(series, found, strict=True)):
        bottom = (down - 1 - place // across) * (above + side + under) + under
        axes = sheet.axes(left + place % across * (left + side), bottom, side, side)
        axes.set_title(shortened(one.name, side), loc="left", size=SMALL_POINTS, weight="bold", pad=5)
        _mean_axes(axes, left=place % across == 0, bottom=place + across >= len(series))
        if place:
            axes.plot(found[0].center, found[0].mean, color=series[0].look.colour, ls=series[0].look.line, lw=0.8)
        _means(axes, means, one.look, 0.0, 0.5 / bins)
    return sheet.figure


@dataclass(frozen=True, slots=True)
class _Means:
    """What is drawn of one source, float64 "bin". NaN where no case counts, so that no line bridges what is unknown."""

    center: np.ndarray
    mean: np.ndarray
    q25: np.ndarray
    q75: np.ndarray
    std: np.ndarray

    @classmethod
    def of(cls, rows: Sequence[Mapping[str, Any]]) -> _Means:
        center = np.array([(row["lower"] + row["upper"]) / 2 for row in rows])
        # A single case has no deviation: None.
        columns = [[row.get(key) for row in rows] for key in ("mean", "q25", "q75", "std")]
        return cls(center, *(np.array(column, np.float64) for column in columns))


def _mean_axes(axes: Axes, *, left: bool = True, bottom: bool = True) -> None:
    diagonal(axes)
    unit_axis(axes, "x", "predicted probability" if bottom else "")
    unit_axis(axes, "y", "frequency, mean over cases" if left else "")


def _means(axes: Axes, means: _Means, look: Look, shift: float, width: float) -> None:
    """Markers, moved sideways by ``shift``, over quartiles of that width. A deviation ends in a cap, but where it
    reaches beyond the axis it does not end at the edge.
    """
    x = means.center + shift
    axes.bar(x, means.q75 - means.q25, width, means.q25, color=look.colour, alpha=0.3, lw=0.0, zorder=2)
    low, high = means.mean - means.std, means.mean + means.std
    axes.vlines(x, np.maximum(low, 0.0), np.minimum(high, 1.0), color=look.colour, lw=1.0, zorder=3)
    axes.plot(
        [*x[low >= 0.0], *x[high <= 1.0]], [*low[low >= 0.0], *high[high <= 1.0]], color=look.colour, marker="_", ms=4,
        ls="", zorder=3,
    )  # fmt: skip
    axes.plot(x, means.mean, color=look.colour, marker=look.marker, ls=look.line, ms=4, lw=1.0, zorder=4, clip_on=False)
