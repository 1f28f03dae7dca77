"""One drawing of each plot, from small arrays, with names that are hard to place."""

from __future__ import annotations

import numpy as np

from segcal_cli.reporting import comparisons, curves, diagrams, distributions, mean_curves
from segcal_cli.reporting.diagrams import Bins, Bounds, Errors
from segcal_cli.reporting.distributions import Sample, Series
from segcal_cli.reporting.pictures import Drawing
from segcal_cli.reporting.style import Words, look

LONG = "a_source_with_one_very_long_name_" * 3

WORDS = Words(f"Title of $5 & <b> {LONG}", "20 bins, right-closed; unit: case, n = 12. " * 4)

CASES = tuple(f"case_{i:02d}" for i in range(12))

ERRORS = Errors(0.0123, 0.25, 0.7, 3)


def bins(count: int = 20, seed: int = 0) -> Bins:
    """Bins of a model that is too sure, the fifth one empty."""
    rng = np.random.default_rng(seed)
    n = rng.integers(1, 2000, count)
    n[0] = 10**7
    if count > 4:
        n[4] = 0
    center = (np.arange(count) + 0.5) / count
    e = np.where(n > 0, center, np.nan)
    o = np.where(n > 0, np.clip(0.5 + 0.6 * (center - 0.5), 0.0, 1.0), np.nan)
    return Bins(n, e, o, np.abs(o - e))


def series(sources: int = 1, cases: int = 12, count: int = 20) -> list[Series]:
    rng = np.random.default_rng(1)
    made = []
    for place in range(sources):
        values = np.clip((np.arange(count) + 0.5) / count + rng.normal(scale=0.1, size=(cases, count)), 0.0, 1.0)
        values[:, 7] = np.nan
        values[1:, 8] = np.nan
        values[:, 9] = 0.5
        made.append(Series(f"{LONG}{place}", look(place), values))
    return made


def samples(sources: int = 3) -> list[Sample]:
    rng = np.random.default_rng(2)
    made = []
    for place in range(sources):
        values = {key: [None, *rng.random(11).tolist()] for key in ("ece", "ace", "mce", "dice")}
        made.append(Sample(f"{LONG}{place}", look(place), values))
    return made


def points(sources: int = 5) -> list[comparisons.Point]:
    return [
        comparisons.Point(
            f"{LONG}{place}",
            look(place),
            comparisons.Interval(0.8 + 0.01 * place, 0.75, 0.9, 12),
            comparisons.Interval(0.02 + 0.001 * place, None, None, 12),
            place < 3,
        )
        for place in range(sources)
    ]


def curve() -> curves.Curve:
    x = np.linspace(0.0, 1.0, 50)
    return curves.Curve(x, np.where(x < 0.2, np.nan, x**2))


def every_drawing() -> dict[str, Drawing]:
    """Plot -> a drawing of it."""
    low, high = np.linspace(0.0, 0.9, 20), np.linspace(0.1, 1.0, 20)
    band = Bounds(low, high)
    measures = {"ece": "ECE", "ace": "ACE", "mce": "MCE", "dice": "Dice"}
    parts = curves.Parts(0.001, 0.02, 0.03)
    step = curves.Curve(np.linspace(0.0, 1.0, 8), np.repeat([0.1, 0.4, 0.6, 0.9], 2))
    masses = [curves.Mass(f"{name} $x", bins(), 0.25, 1e-6) for name in "abc"]
    return {
        "case-diagram": diagrams.case_diagram(bins(), ERRORS, WORDS),
        "dataset-diagram": diagrams.dataset_diagram(bins(), ERRORS, band, band, look(1), WORDS),
        "dataset-histogram": distributions.dataset_histogram(np.eye(20, dtype=np.int64)[::-1] * 3, WORDS),
        "case-violin": distributions.case_violin(series(2), CASES, WORDS),
        "mean-curve": mean_curves.mean_curve(series(3), WORDS),
        "mean-curve of many": mean_curves.mean_curve(series(8), WORDS),
        "boxplot": distributions.boxplot(samples(), CASES, measures, WORDS),
        "case-scatter": comparisons.case_scatter(samples(), CASES, WORDS),
        "pareto": comparisons.pareto(points(), WORDS),
        "corp": curves.corp(step, (np.linspace(0.0, 1.0, 20), band), curve(), parts, look(2), WORDS),
        "mass": curves.mass(masses, look(3), WORDS),
    }


DRAWINGS = every_drawing()
