"""Soft average calibration error as what a fit minimises, alone or beside the negative log-likelihood.

Probabilities are sorted into M bins of equal width, each voxel shared between the two bins whose centres enclose it.
With n, e and o the weight, the mean probability and the share of the class in a bin,

    soft ACE = mean over non-empty bins of |e - o|

(Barfoot, Garcia Peraza Herrera, Glocker, Vercauteren 2024, "Average Calibration Error", equation 3, with the soft bins
of their later work). Hard bins would not do: what they give for a gradient is not the slope of the error. Every bin
counts the same, however few voxels it holds, so rare middle probabilities decide, and the optimum can lie far from that
of the likelihood. The error is neither convex nor smooth: one parameter is found by a scan of its whole range, two or
three by the simplex method of Nelder and Mead 1965 from the likeliest and from the best temperature.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import fields, replace
from typing import NamedTuple

import numpy as np

from segcal_cli.calibration.likelihood import sigmoid
from segcal_cli.calibration.sketch import Moments
from segcal_cli.calibration.solvers import Tally

ACE_LOSSES = ("soft-ace", "nll+ace")
"""Losses that hold the soft average calibration error; the second has the likelihood besides."""

BINS = 20

EMPTY = 0.01
"""Voxels up to which a soft bin counts as empty; its mean would be a quotient of two rounding errors."""

SCANNED = 161
"""Places, equally far apart in the logarithm, at which an error of one parameter is looked at before the best of them
is refined between its neighbours."""

RESTARTS = 3
"""A simplex that has collapsed short of the minimum is started again from where it ended."""

SIMPLEX_STEP = 0.3
"""First edges of a simplex: of slopes relatively, of offsets in log-odds. Smaller ones settle in nearby valleys."""

PARAMETER_TOLERANCE, VALUE_TOLERANCE = 1e-7, 1e-10
"""Where a simplex has arrived."""


class SoftError(NamedTuple):
    """The error and its derivatives: by the probability of each cell, and by that of its voxels of the class."""

    value: float
    along_p: np.ndarray
    along_q: np.ndarray


def soft_ace(p: np.ndarray, n: np.ndarray, q: np.ndarray, y: np.ndarray, voxels: float) -> SoftError:
    """The error of cells. p: float64 "cell", probability of all its voxels, whose weight is n; q, y: the same of its
    voxels of the class. voxels: how many there are, whatever they weigh."""
    lower, share, moving = _places(p)
    lower_y, share_y, moving_y = _places(q)
    total = _shared(lower, share, n)
    residual = _shared(lower, share, n * p) - _shared(lower_y, share_y, y)
    filled = total * (voxels / max(float(n.sum()), np.finfo(np.float64).tiny)) > EMPTY
    count = np.where(filled, total, 1.0)
    gap = np.where(filled, residual / count, 0.0)
    factor = np.where(filled, np.sign(gap) / (count * filled.sum()), 0.0)
    # d|gap| = sign (d residual - gap d total) / total, of the two bins that a cell is shared between.
    steps = factor[lower + 1] - factor[lower]
    level = factor[lower] * (1.0 - share) + factor[lower + 1] * share
    drift = (factor * gap)[lower + 1] - (factor * gap)[lower]
    along_p = n * (level + moving * (steps * p - drift))
    along_q = -y * moving_y * (factor[lower_y + 1] - factor[lower_y])
    return SoftError(float(np.abs(gap).sum() / max(int(filled.sum()), 1)), along_p, along_q)


def soft_ace_of_voxels(p: np.ndarray, y: np.ndarray, weights: np.ndarray, voxels: float) -> float:
    """The error of single voxels. p, weights: float64 "voxel"; y: bool "voxel"; voxels: how many they stand for."""
    lower, share, _ = _places(p)
    total = _shared(lower, share, weights)
    gap = np.abs(_shared(lower, share, weights * (p - y)))
    filled = total * (voxels / weights.sum()) > EMPTY
    return float((gap[filled] / total[filled]).mean())


def _places(p: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Of probabilities: the lower of the two bins, the share of the upper one, and how fast that grows with p."""
    position = BINS * p - 0.5
    inside = (position > 0.0) & (position < BINS - 1)
    position = np.clip(position, 0.0, BINS - 1)
    lower = np.minimum(position.astype(np.int64), BINS - 2)
    return lower, position - lower, np.where(inside, float(BINS), 0.0)


def _shared(lower: np.ndarray, share: np.ndarray, values: np.ndarray) -> np.ndarray:
    """float64 "bin": sums of values, each shared between its two bins."""
    passed_on = np.bincount(lower, weights=values * share, minlength=BINS)
    return np.bincount(lower, weights=values, minlength=BINS) - passed_on + np.roll(passed_on, 1)


class SketchedError:
    """The soft error of one problem of moments, of parameters that the log-odds of all cells are linear in.

    features: "parameter cell" at the means of all voxels of a bin, and of those of the class.
    """

    def __init__(self, moments: Moments, at_all: np.ndarray, at_labels: np.ndarray) -> None:
        self.moments = moments
        self.at_all, self.at_labels = at_all, at_labels

    def __call__(self, theta: np.ndarray) -> float:
        return self._error(theta)[0].value

    def gradient(self, theta: np.ndarray) -> np.ndarray:
        """float64 "parameter"."""
        error, p, q = self._error(theta)
        return self.at_all @ (error.along_p * p * (1.0 - p)) + self.at_labels @ (error.along_q * q * (1.0 - q))

    def _error(self, theta: np.ndarray) -> tuple[SoftError, np.ndarray, np.ndarray]:
        of = self.moments
        p, q = sigmoid(theta @ self.at_all), sigmoid(theta @ self.at_labels)
        return soft_ace(p, of.n[0], q, of.positives[0], float(of.voxels[0])), p, q


def each(moments: Moments) -> list[Moments]:
    """The problems of moments, one by one."""
    shared = {"uppers"}
    return [
        replace(
            moments, **{f.name: getattr(moments, f.name)[i : i + 1] for f in fields(Moments) if f.name not in shared}
        )
        for i in range(len(moments.total))
    ]


def least_along(
    objective: Callable[[float], float], low: float, high: float, tally: Tally | None = None, *, scanned: int = SCANNED
) -> float:
    """The minimum of a function of one positive number between low and high, sought over the whole range. tally:
    counts the steps. scanned: at how many places the function is looked at first."""
    from scipy.optimize import minimize_scalar

    places = np.linspace(np.log(low), np.log(high), scanned)
    values = [objective(float(np.exp(x))) for x in places]
    at = int(np.argmin(values))
    ends = (float(places[max(at - 1, 0)]), float(places[min(at + 1, scanned - 1)]))
    fine = minimize_scalar(
        lambda x: objective(float(np.exp(x))), bounds=ends, method="bounded", options={"xatol": PARAMETER_TOLERANCE}
    )
    if tally is not None:
        tally.steps += scanned + int(fine.nit)
    return float(np.exp(fine.x if fine.fun < values[at] else places[at]))


def least(
    objective: Callable[[np.ndarray], float],
    starts: Sequence[np.ndarray],
    lower: np.ndarray,
    upper: np.ndarray,
    tally: Tally | None = None,
) -> np.ndarray:
    """float64 "parameter": the least of what simplexes from several starts find. All starts are within the bounds.
    tally: counts the steps."""
    from scipy.optimize import Bounds, minimize

    best, value = starts[0], objective(starts[0])
    for start in starts:
        theta = start
        for _ in range(RESTARTS):
            corners = np.tile(theta, (len(theta) + 1, 1))
            steps = SIMPLEX_STEP * np.maximum(np.abs(theta), 1.0)
            corners[1:] += np.diag(np.where(theta + steps <= upper, steps, -steps))
            found = minimize(
                objective,
                theta,
                method="Nelder-Mead",
                bounds=Bounds(lower, upper),
                options={
                    "initial_simplex": corners,
                    "xatol": PARAMETER_TOLERANCE,
                    "fatol": VALUE_TOLERANCE,
                    "maxfev": 400 * len(theta),
                },
            )
            theta = found.x
            if tally is not None:
                tally.steps += int(found.nit)
        if found.fun < value:
            best, value = theta, float(found.fun)
    return best
