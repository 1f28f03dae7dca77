"""Temperature scaling: one number T that divides logits or log-odds. It never changes a decision.

Guo, Pleiss, Sun, Weinberger 2017, "On Calibration of Modern Neural Networks", section 4.2: softmax(l/T), or
sigmoid(z/T). The fit is over 1/T, in which the negative log-likelihood is convex and T -> infinity is an ordinary
point.
"""

from __future__ import annotations

import numpy as np

from segcal_cli.calibration.error_fits import Linear, fitted_to_error
from segcal_cli.calibration.likelihood import LOSSES
from segcal_cli.calibration.method import SLOPE_LIMIT, Aim, Sketched
from segcal_cli.calibration.sketch import Moments
from segcal_cli.calibration.solvers import newton


def best_slopes(moments: Moments, aim: Aim, first: float = 1.0) -> np.ndarray:
    """float64 "problem 2", rows (1/T, 0): the least loss with 1/T in [1/20, 20], sought from first."""
    start = np.zeros((len(moments.total), 2))
    start[:, 0] = first
    lower, upper = np.array([1.0 / SLOPE_LIMIT, 0.0]), np.array([SLOPE_LIMIT, 0.0])
    likeliest = newton(lambda theta: LOSSES["nll"](moments, theta), start, lower, upper, aim.tally)
    # Other losses are not convex; they are sought from the likeliest temperature, which is unique.
    if aim.loss == "nll":
        return likeliest
    return newton(lambda theta: LOSSES[aim.loss](moments, theta), likeliest, lower, upper, aim.tally)


def solve(moments: Moments, aim: Aim, near: np.ndarray | None = None) -> np.ndarray:
    """float64 "problem 1": T of least loss, in [1/20, 20]. near: a row to start from."""
    return 1.0 / best_slopes(moments, aim, 1.0 if near is None else 1.0 / float(near[0]))[:, :1]


def log_odds(row: np.ndarray, z: np.ndarray) -> np.ndarray:
    """float64 z/T."""
    return z / row[0]


def loss_of(moments: Moments, rows: np.ndarray, aim: Aim) -> np.ndarray:
    """float64 "problem": mean loss per voxel."""
    return LOSSES[aim.loss](moments, _linear(rows)).value


def gradient_of(moments: Moments, rows: np.ndarray, aim: Aim) -> np.ndarray:
    """float64 "problem 1": derivative of the mean loss in 1/T."""
    return LOSSES[aim.loss](moments, _linear(rows)).gradient[:, :1]


def slope_of(row: np.ndarray) -> float:
    """1/T."""
    return float(1.0 / row[0])


def cut_of(row: np.ndarray) -> float | None:
    """0: decisions stay."""
    return 0.0


def _linear(rows: np.ndarray) -> np.ndarray:
    return np.stack([1.0 / rows[:, 0], np.zeros(len(rows))], axis=1)


def features(z: np.ndarray) -> np.ndarray:
    """float64 "1 ...": log-odds themselves, what 1/T is a factor of."""
    return z[np.newaxis]


def turned(row: np.ndarray) -> np.ndarray:
    """1/T of T, and T of 1/T."""
    return 1.0 / row


METHOD = fitted_to_error(
    Sketched(
        name="temperature",
        families={"binary": "sketch", "sigmoid": "sketch", "softmax": "nodes"},
        parameters=("temperature",),
        identity=(1.0,),
        keeps_decisions=True,
        scopes=("per-class", "shared"),
        losses=("nll", "brier"),
        solve=solve,
        log_odds=log_odds,
        loss=loss_of,
        gradient=gradient_of,
        slope=slope_of,
        cut=cut_of,
    ),
    Linear(features, turned, (1.0,), (1.0 / SLOPE_LIMIT,), (SLOPE_LIMIT,)),
)
