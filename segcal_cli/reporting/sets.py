"""Pictures of inner and outer sets in numbers: how often they are wrong, how large, on which scores."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from segcal_cli.core.frozen import dataclass
from segcal_cli.reporting.pictures import Drawing
from segcal_cli.reporting.style import BLUE, INK, ORANGE, QUIET, SMALL_POINTS, VERMILLION, Sheet, Words
from segcal_cli.reporting.tables import short

if TYPE_CHECKING:
    from matplotlib.figure import Figure

PANEL, GAP = 2.5, 0.62
"""Inches of a panel, and of the room for labels between two."""

SCORE_BINS = 24

MARKED = 0.1
"""Level whose numbers stand in the words for those who do not see a picture."""


@dataclass(frozen=True, slots=True)
class ErrorCurve:
    """How often one side was wrong, by its own level. Arrays are "alpha"; low, high, expected may be NaN (no law)."""

    side: str
    level: np.ndarray
    observed: np.ndarray
    expected: np.ndarray
    low: np.ndarray
    high: np.ndarray


@dataclass(frozen=True, slots=True)
class SizeCurve:
    """Median diameter ratios by alpha: d-th root of the set's size over the truth's."""

    alpha: np.ndarray
    inner: np.ndarray
    outer: np.ndarray


@dataclass(frozen=True, slots=True)
class Splits:
    """Coverage over random resplits, and the law: probability of each number covered of m."""

    side: str
    coverage: np.ndarray
    law: np.ndarray


@dataclass(frozen=True, slots=True)
class ScoreSet:
    """Scores of one side: of calibration and of evaluated units, infinite ones among them. voxels: scores of single
    voxels inside and outside the truth, on the side's own scale."""

    side: str
    unit: str
    calibration: np.ndarray
    evaluated: np.ndarray
    threshold: float
    inside: np.ndarray
    outside: np.ndarray


def false_coverage(curves: Sequence[ErrorCurve], words: Words) -> Drawing:
    """Share of wrong sets against the level, a panel per side."""
    rows = [
        {
            "side": curve.side,
            "level": float(curve.level[i]),
            "false_coverage": float(curve.observed[i]),
            "expected": _known(curve.expected[i]),
            "band_low": _known(curve.low[i]),
            "band_high": _known(curve.high[i]),
        }
        for curve in curves
        for i in range(curve.level.size)
    ]
    said = []
    for curve in curves:
        near = int(np.argmin(np.abs(curve.level - MARKED)))
        said.append(f"{curve.side}: {short(float(curve.observed[near]), 3)} wrong at level {curve.level[near]:.3g}")
    alt = f"{words.title}. {'; '.join(said)}."
    return Drawing(lambda: _error_figure(curves, words), tuple(rows[0]), tuple(rows), alt)


def _error_figure(curves: Sequence[ErrorCurve], words: Words) -> Figure:
    from matplotlib.lines import Line2D
    from matplotlib.patches import Patch

    legend: list[Any] = [
        Line2D([], [], color=INK, lw=1.4, label="observed"),
        Line2D([], [], color=BLUE, lw=1.0, ls="-.", label="staircase 1 - k/(n+1)"),
        Line2D([], [], color=QUIET, lw=1.0, ls="--", label="level"),
        Patch(facecolor="none", edgecolor=QUIET, hatch="////", label="95 % beta-binomial band"),
    ]
    sheet = _panels(words, len(curves), legend)
    top = max(float(max(c.level.max(), np.nanmax(c.observed, initial=0.0))) for c in curves)
    for number, curve in enumerate(curves):
        axes = _panel(sheet, number)
        axes.plot([0, top], [0, top], color=QUIET, lw=1.0, ls="--", zorder=1)
        if np.isfinite(curve.low).any():
            axes.fill_between(
                curve.level, curve.low, curve.high, facecolor="none", edgecolor=QUIET, hatch="////", lw=0.0, zorder=1
            )
            axes.step(curve.level, curve.expected, where="post", color=BLUE, lw=1.0, ls="-.", zorder=2)
        axes.plot(curve.level, curve.observed, color=INK, lw=1.4, zorder=3)
        axes.set(xlim=(0, top), ylim=(0, max(top, 1e-3)), xlabel="level alpha", title=curve.side)
        axes.title.set_fontsize(SMALL_POINTS + 1)
        if number == 0:
            axes.set_ylabel("share of wrong sets")
    return sheet.figure


def set_sizes(curve: SizeCurve, words: Words) -> Drawing:
    """Diameter ratios of inner and outer sets against alpha; 1 is the size of the truth."""
    rows = [
        {"alpha": float(a), "inner_diameter_ratio": _known(i), "outer_diameter_ratio": _known(o)}
        for a, i, o in zip(curve.alpha, curve.inner, curve.outer, strict=True)
    ]
    near = int(np.argmin(np.abs(curve.alpha - MARKED)))
    alt = (
        f"{words.title}. At alpha {curve.alpha[near]:.3g} the inner set has {short(float(curve.inner[near]), 3)} and "
        f"the outer set {short(float(curve.outer[near]), 3)} times the diameter of the truth."
    )
    return Drawing(lambda: _size_figure(curve, words), tuple(rows[0]), tuple(rows), alt)


def _size_figure(curve: SizeCurve, words: Words) -> Figure:
    from matplotlib.lines import Line2D

    looks = {"inner": (VERMILLION, "-"), "outer": (BLUE, "--")}
    legend: list[Any] = [
        Line2D([], [], color=colour, ls=line, lw=1.6, label=side) for side, (colour, line) in looks.items()
    ]
    sheet = Sheet(words, 4.8, 3.1, legend)
    axes = sheet.plot_box()
    axes.axhline(1.0, color=QUIET, lw=1.0, ls=":")
    for side, (colour, line) in looks.items():
        axes.plot(curve.alpha, getattr(curve, side), color=colour, ls=line, lw=1.6)
    axes.set(xlabel="alpha", ylabel="diameter ratio (1: as the truth)", xlim=(0, float(curve.alpha.max())))
    axes.set_ylim(bottom=0.0)
    axes.grid(color=QUIET, alpha=0.25, lw=0.6)
    return sheet.figure


def resplits(splits: Sequence[Splits], words: Words) -> Drawing:
    """Histogram of the coverages of resplits over the beta-binomial law, a panel per side."""
    rows: list[Mapping[str, Any]] = []
    for one in splits:
        m = one.law.size - 1
        counts = np.bincount(np.rint(one.coverage * m).astype(int), minlength=m + 1) / one.coverage.size
        rows += [
            {"side": one.side, "covered": c, "m": m, "share_of_resplits": float(counts[c]), "law": float(one.law[c])}
            for c in range(m + 1)
        ]
    alt = f"{words.title}. " + "; ".join(
        f"{one.side}: mean {short(float(one.coverage.mean()), 3)}, standard deviation "
        f"{short(float(one.coverage.std()), 3)} over {one.coverage.size} resplits"
        for one in splits
    )
    return Drawing(lambda: _split_figure(splits, words), tuple(rows[0]), tuple(rows), f"{alt}.")


def _split_figure(splits: Sequence[Splits], words: Words) -> Figure:
    from matplotlib.lines import Line2D
    from matplotlib.patches import Patch

    legend: list[Any] = [
        Patch(facecolor=ORANGE, label="resplits"),
        Line2D([], [], color=INK, lw=1.2, marker="o", ms=2.5, label="beta-binomial law"),
    ]
    sheet = _panels(words, len(splits), legend)
    for number, one in enumerate(splits):
        m = one.law.size - 1
        counts = np.bincount(np.rint(one.coverage * m).astype(int), minlength=m + 1) / one.coverage.size
        axes = _panel(sheet, number)
        at = np.arange(m + 1) / m
        axes.bar(at, counts, width=0.9 / m, color=ORANGE, zorder=2)
        axes.plot(at, one.law, color=INK, lw=1.2, marker="o", ms=2.0, zorder=3)
        shown = at[(counts > 0) | (one.law > 1e-4)]
        axes.set(xlim=(float(shown.min()) - 1.5 / m, 1.0 + 1.5 / m), xlabel="coverage", title=one.side)
        axes.title.set_fontsize(SMALL_POINTS + 1)
        if number == 0:
            axes.set_ylabel("share")
    return sheet.figure


def set_scores(sides: Sequence[ScoreSet], words: Words) -> Drawing:
    """Scores of units with the threshold, infinite ones as a bar at the edge; below them those of single voxels."""
    rows: list[Mapping[str, Any]] = []
    for one in sides:
        edges = _edges(one)
        for name, values in (("calibration", one.calibration), ("evaluated", one.evaluated)):
            for low, high, count in _counted(values, edges):
                rows.append({
                    "side": one.side, "what": name, "unit": one.unit, "low": low, "high": high, "count": count,
                    "threshold": one.threshold,
                })  # fmt: skip
        for name, values in (("voxels inside", one.inside), ("voxels outside", one.outside)):
            for low, high, count in _counted(values, _voxel_edges(one)):
                rows.append({
                    "side": one.side, "what": name, "unit": one.unit, "low": low, "high": high, "count": count,
                    "threshold": one.threshold,
                })  # fmt: skip
    alt = f"{words.title}. " + "; ".join(
        f"{one.side}: threshold {one.threshold:.4g} {one.unit} over {one.calibration.size} calibration scores, "
        f"{int(np.isinf(one.calibration).sum())} of them infinite"
        for one in sides
    )
    return Drawing(lambda: _score_figure(sides, words), tuple(rows[0]), tuple(rows), f"{alt}.")


def _score_figure(sides: Sequence[ScoreSet], words: Words) -> Figure:
    from matplotlib.lines import Line2D
    from matplotlib.patches import Patch

    legend: list[Any] = [
        Patch(facecolor=BLUE, label="calibration"),
        Patch(facecolor="none", edgecolor=ORANGE, hatch="////", label="evaluated"),
        Line2D([], [], color=INK, lw=1.3, ls="--", label="threshold"),
    ]
    voxels = any(one.inside.size or one.outside.size for one in sides)
    if voxels:
        legend += [
            Line2D([], [], color=VERMILLION, lw=1.3, label="voxels in the truth"),
            Line2D([], [], color=QUIET, lw=1.3, ls="-.", label="voxels outside"),
        ]
    height = PANEL + GAP + (PANEL + GAP if voxels else 0.0)
    sheet = Sheet(words, len(sides) * (PANEL + GAP + 0.3) + 0.3, height + 0.1, legend)
    for number, one in enumerate(sides):
        left = GAP + number * (PANEL + GAP + 0.3)
        axes = sheet.axes(left, height - PANEL - 0.1, PANEL, PANEL - 0.25)
        edges = _edges(one)
        for name, values, look in (
            ("calibration", one.calibration, {"color": BLUE, "alpha": 0.75}),
            ("evaluated", one.evaluated, {"facecolor": "none", "edgecolor": ORANGE, "hatch": "////"}),
        ):
            counted = _counted(values, edges)
            total = max(1, sum(count for _, _, count in counted))
            at = [_place(low, high, edges) for low, high, _ in counted]
            axes.bar(
                [start for start, _ in at], [count / total for _, _, count in counted],
                width=[width for _, width in at], align="edge", label=name, lw=0.6, **look,
            )  # fmt: skip
        if np.isfinite(one.threshold):
            axes.axvline(one.threshold, color=INK, lw=1.3, ls="--")
        axes.set(title=f"{one.side} ({one.unit})", xlabel=f"{'tau' if one.side == 'inner' else 'gamma'}")
        axes.title.set_fontsize(SMALL_POINTS + 1)
        if number == 0:
            axes.set_ylabel("share of units")
        if voxels:
            below = sheet.axes(left, GAP - 0.1, PANEL, PANEL - 0.35)
            for values, colour, line in ((one.inside, VERMILLION, "-"), (one.outside, QUIET, "-.")):
                if values.size:
                    marks = _voxel_edges(one)
                    counts = np.histogram(np.clip(values, marks[0], marks[-1]), marks)[0] / values.size
                    below.stairs(counts, marks, color=colour, ls=line, lw=1.3)
            if np.isfinite(one.threshold):
                below.axvline(one.threshold, color=INK, lw=1.3, ls="--")
            below.set(xlabel=f"{'f_I' if one.side == 'inner' else '-f_O'} of a voxel")
            if number == 0:
                below.set_ylabel("share of voxels")
    return sheet.figure


def _panels(words: Words, count: int, legend: Sequence[Any]) -> Sheet:
    return Sheet(words, count * (PANEL + GAP) + 0.3, PANEL + GAP + 0.05, legend)


def _panel(sheet: Sheet, number: int) -> Any:
    return sheet.axes(GAP + number * (PANEL + GAP), GAP - 0.12, PANEL, PANEL - 0.15)


def _edges(one: ScoreSet) -> np.ndarray:
    finite = np.concatenate([one.calibration, one.evaluated])
    finite = finite[np.isfinite(finite)]
    return _grid(finite)


def _voxel_edges(one: ScoreSet) -> np.ndarray:
    values = np.concatenate([one.inside, one.outside])
    return _grid(values[np.isfinite(values)])


def _grid(finite: np.ndarray) -> np.ndarray:
    low, high = (float(finite.min()), float(finite.max())) if finite.size else (0.0, 1.0)
    if high <= low:
        low, high = low - 0.5, high + 0.5
    return np.linspace(low, high, SCORE_BINS + 1)


def _counted(values: np.ndarray, edges: np.ndarray) -> list[tuple[float, float, int]]:
    """(low, high, count) of each bin; infinite values in bins of their own at both ends."""
    found = [(-np.inf, -np.inf, int(np.count_nonzero(values == -np.inf)))]
    counts, _ = np.histogram(values[np.isfinite(values)], edges)
    found += [(float(a), float(b), int(c)) for a, b, c in zip(edges, edges[1:], counts, strict=False)]
    return [*found, (np.inf, np.inf, int(np.count_nonzero(values == np.inf)))]


def _place(low: float, high: float, edges: np.ndarray) -> tuple[float, float]:
    """(start, width) of a bar; infinite bins stand a step beyond the edge."""
    step = float(edges[1] - edges[0])
    if low == -np.inf:
        return float(edges[0]) - 3 * step, 2 * step
    return (float(edges[-1]) + step, 2 * step) if high == np.inf else (low, high - low)


def _known(value: float) -> float | None:
    return float(value) if np.isfinite(value) else None
