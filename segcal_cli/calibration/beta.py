"""Beta calibration: sigmoid(a log p - b log(1 - p) + c), with one slope for each end of the scale.

Kull, Silva Filho, Flach 2017, "Beta calibration: a well-founded and easily implemented improvement on logistic
calibration". a = b is Platt scaling; unequal slopes bend the map, for a model that is too sure of one label only. Both
slopes are at least 0, so that the map never falls; where the free optimum has a negative one, it is held at 0.

log p and log(1 - p) are functions of z, so the sketch serves here too. With features F(z) = (log p, -log(1 - p), 1),
u = F theta, and c and v the mean and variance of z in a bin, the second-order term takes out the width of the bins:

    nll(theta) = [sum n (softplus(u) + v (s(1 - s) u'^2 + s u'') / 2) - sum y u(label mean)] / sum n
"""

from __future__ import annotations

from dataclasses import replace
from typing import NamedTuple

import numpy as np

from segcal_cli.calibration.error_fits import Linear, fitted_to_error
from segcal_cli.calibration.likelihood import sigmoid, softplus
from segcal_cli.calibration.method import SLOPE_LIMIT, Aim, Sketched
from segcal_cli.calibration.platt import OFFSET_LIMIT
from segcal_cli.calibration.sketch import Moments
from segcal_cli.calibration.solvers import Evaluation, Tally, newton
from segcal_cli.calibration.temperature import best_slopes


class Features(NamedTuple):
    """F(z) and its first two derivatives, each float64 "parameter problem bin"."""

    value: np.ndarray
    first: np.ndarray
    second: np.ndarray


def features(z: np.ndarray) -> Features:
    """log p, -log(1 - p) and 1 as functions of log-odds of any shape."""
    s, bend = sigmoid(z), sigmoid(z) * sigmoid(-z)
    zero = np.zeros_like(z)
    return Features(
        np.stack([-softplus(-z), softplus(z), np.ones_like(z)]),
        np.stack([sigmoid(-z), s, zero]),
        np.stack([-bend, bend, zero]),
    )


class Objective:
    """Losses of rows (a, b, c) on moments, with the features of all bins computed once."""

    def __init__(self, moments: Moments) -> None:
        self.moments = moments
        self.bins = features(moments.c)
        self.labels = features(moments.label_mean)
        # The spread of the class's voxels inside a bin is taken to be that of all its voxels.
        ends = self.labels.value + 0.5 * moments.v * self.labels.second
        self.label_sums = (moments.positives * ends).sum(axis=2).T

    def nll(self, theta: np.ndarray) -> Evaluation:
        """Mean negative log-likelihood; the curvature leaves out small derivatives of the second-order term."""
        n, v = self.moments.n, self.moments.v
        u, slope, bend = (_along(theta, part) for part in self.bins)
        s = sigmoid(u)
        s1 = s * sigmoid(-u)
        s2 = s1 * (1.0 - 2.0 * s)
        value = (n * (softplus(u) + 0.5 * v * (s1 * slope * slope + s * bend))).sum(axis=1)
        value -= (theta * self.label_sums).sum(axis=1)
        along_u = n * (s + 0.5 * v * (s2 * slope * slope + s1 * bend))
        gradient = np.einsum("kb,pkb->kp", along_u, self.bins.value)
        gradient += np.einsum("kb,pkb->kp", n * v * s1 * slope, self.bins.first)
        gradient += np.einsum("kb,pkb->kp", 0.5 * n * v * s, self.bins.second)
        return self._per_voxel(value, gradient - self.label_sums, n * s1)

    def brier(self, theta: np.ndarray) -> Evaluation:
        """Mean squared difference of p and y, at bin means. Gauss-Newton curvature."""
        n, y = self.moments.n, self.moments.positives
        p, q = sigmoid(_along(theta, self.bins.value)), sigmoid(_along(theta, self.labels.value))
        value = (n * p * p - 2.0 * y * q + y).sum(axis=1)
        gradient = np.einsum("kb,pkb->kp", 2.0 * n * p * p * (1.0 - p), self.bins.value)
        gradient -= np.einsum("kb,pkb->kp", 2.0 * y * q * (1.0 - q), self.labels.value)
        return self._per_voxel(value, gradient, 2.0 * n * (p * (1.0 - p)) ** 2)

    def of(self, aim: Aim, theta: np.ndarray) -> Evaluation:
        return self.nll(theta) if aim.loss == "nll" else self.brier(theta)

    def _per_voxel(self, value: np.ndarray, gradient: np.ndarray, weight: np.ndarray) -> Evaluation:
        total = self.moments.total
        curvature = np.einsum("kb,pkb,qkb->kpq", weight, self.bins.value, self.bins.value)
        return Evaluation(value / total, gradient / total[:, np.newaxis], curvature / total[:, np.newaxis, np.newaxis])


def solve(moments: Moments, aim: Aim, near: np.ndarray | None = None) -> np.ndarray:
    """float64 "problem 3", rows (a, b, c) of least loss with 0 <= a, b <= 20. near: a row to start from."""
    objective = Objective(moments)
    if near is None:
        slopes = best_slopes(moments, replace(aim, loss="nll"))
        start = np.stack([slopes[:, 0], slopes[:, 0], slopes[:, 1]], axis=1)
    else:
        start = np.tile(near, (len(moments.total), 1))
    rows = _solved(objective.nll, start, aim.tally)
    return rows if aim.loss == "nll" else _solved(lambda theta: objective.of(aim, theta), rows, aim.tally)


def _solved(objective: object, start: np.ndarray, tally: Tally | None) -> np.ndarray:
    """The free optimum; a problem with a negative slope once more, with that slope held at 0."""
    upper = np.array([SLOPE_LIMIT, SLOPE_LIMIT, OFFSET_LIMIT])
    rows = newton(objective, start, -upper, upper, tally)  # type: ignore[arg-type]
    for _ in range(2):  # holding one slope can turn the other negative
        wrong = rows[:, :2] < 0.0
        if not wrong.any():
            break
        held = np.concatenate([wrong | (rows[:, :2] == 0.0), np.zeros((len(rows), 1), dtype=bool)], axis=1)
        low, high = np.where(held, 0.0, -upper), np.where(held, 0.0, upper)
        rows = newton(objective, np.where(held, 0.0, rows), low, high, tally)  # type: ignore[arg-type]
    return rows


def log_odds(row: np.ndarray, z: np.ndarray) -> np.ndarray:
    """float64 a log p - b log(1 - p) + c."""
    tail = np.log1p(np.exp(-np.abs(z)))
    return row[0] * (np.minimum(z, 0.0) - tail) + row[1] * (np.maximum(z, 0.0) + tail) + row[2]


def loss_of(moments: Moments, rows: np.ndarray, aim: Aim) -> np.ndarray:
    """float64 "problem": mean loss per voxel."""
    return Objective(moments).of(aim, rows).value


def gradient_of(moments: Moments, rows: np.ndarray, aim: Aim) -> np.ndarray:
    """float64 "problem 3": derivatives of the mean loss; 0 along a slope that is held at 0 against it."""
    gradient = Objective(moments).of(aim, rows).gradient
    held = (rows[:, :2] == 0.0) & (gradient[:, :2] > 0.0)
    gradient[:, :2][held] = 0.0
    return gradient


def slope_of(row: np.ndarray) -> float:
    """The steeper of the two slopes."""
    return float(max(row[0], row[1]))


def cut_of(row: np.ndarray) -> float | None:
    """The root of the map in log-odds, by Brent's method; None where it does not cross 0."""
    from scipy.optimize import brentq

    def at(z: float) -> float:
        return float(log_odds(row, np.array(z)))

    return float(brentq(at, -CUT_RANGE, CUT_RANGE, xtol=1e-13)) if at(-CUT_RANGE) < 0.0 < at(CUT_RANGE) else None


CUT_RANGE = 700.0
"""Log-odds between which the cut is sought: beyond, probabilities are 0 and 1 in every type."""


def values(z: np.ndarray) -> np.ndarray:
    """float64 "3 ...": log p, -log(1 - p) and 1 of log-odds."""
    return features(z).value


METHOD = fitted_to_error(
    Sketched(
        name="beta",
        families={"binary": "sketch", "sigmoid": "sketch", "softmax": "sketch"},
        parameters=("a", "b", "c"),
        identity=(1.0, 1.0, 0.0),
        keeps_decisions=False,
        scopes=("per-class", "shared"),
        losses=("nll", "brier"),
        options=("allow_inverted",),
        solve=solve,
        log_odds=log_odds,
        loss=loss_of,
        gradient=gradient_of,
        slope=slope_of,
        cut=cut_of,
    ),
    Linear(values, np.copy, (1.0, 1.0, 0.0), (0.0, 0.0, -OFFSET_LIMIT), (SLOPE_LIMIT, SLOPE_LIMIT, OFFSET_LIMIT)),
)


def _along(theta: np.ndarray, part: np.ndarray) -> np.ndarray:
    """float64 "problem bin": features times parameters."""
    return np.einsum("kp,pkb->kb", theta, part)
