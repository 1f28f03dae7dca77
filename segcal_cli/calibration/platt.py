"""Platt scaling: sigmoid(a z + b), a slope and an offset per class. The decision moves from z = 0 to z = -b/a.

Platt 1999, "Probabilistic outputs for support vector machines"; for segmentation Rousseau, Becker, Bertels, Blaschko,
Valkenborg 2021, "Post training uncertainty calibration of deep networks for medical image segmentation".
"""

from __future__ import annotations

from dataclasses import replace

import numpy as np

from segcal_cli.calibration.error_fits import Linear, fitted_to_error
from segcal_cli.calibration.likelihood import LOSSES
from segcal_cli.calibration.method import SLOPE_LIMIT, Aim, Sketched
from segcal_cli.calibration.sketch import Moments
from segcal_cli.calibration.solvers import newton
from segcal_cli.calibration.temperature import best_slopes

OFFSET_LIMIT = 1e6
"""Offsets beyond this are those of a class without, or with nothing but, voxels; such fits are refused before."""


def solve(moments: Moments, aim: Aim, near: np.ndarray | None = None) -> np.ndarray:
    """float64 "problem 2", rows (a, b) of least loss, |a| <= 20. near: a row to start from."""
    lower, upper = np.array([-SLOPE_LIMIT, -OFFSET_LIMIT]), np.array([SLOPE_LIMIT, OFFSET_LIMIT])
    # From the best temperature: saturated logits are flat around a = 1, where both parameters at once would wander.
    start = best_slopes(moments, replace(aim, loss="nll")) if near is None else np.tile(near, (len(moments.total), 1))
    rows = newton(lambda theta: LOSSES["nll"](moments, theta), start, lower, upper, aim.tally)
    if aim.loss == "nll":
        return rows
    return newton(lambda theta: LOSSES[aim.loss](moments, theta), rows, lower, upper, aim.tally)


def log_odds(row: np.ndarray, z: np.ndarray) -> np.ndarray:
    """float64 a z + b."""
    return row[0] * z + row[1]


def loss_of(moments: Moments, rows: np.ndarray, aim: Aim) -> np.ndarray:
    """float64 "problem": mean loss per voxel."""
    return LOSSES[aim.loss](moments, rows).value


def gradient_of(moments: Moments, rows: np.ndarray, aim: Aim) -> np.ndarray:
    """float64 "problem 2": derivatives of the mean loss in a and b."""
    return LOSSES[aim.loss](moments, rows).gradient


def slope_of(row: np.ndarray) -> float:
    """a."""
    return float(row[0])


def cut_of(row: np.ndarray) -> float | None:
    """-b/a, or None where the calibrated probability falls with z."""
    return float(-row[1] / row[0]) if row[0] > 0.0 else None


def features(z: np.ndarray) -> np.ndarray:
    """float64 "2 ...": log-odds, and 1."""
    return np.stack([z, np.ones_like(z)])


METHOD = fitted_to_error(
    Sketched(
        name="platt",
        families={"binary": "sketch", "sigmoid": "sketch", "softmax": "sketch"},
        parameters=("a", "b"),
        identity=(1.0, 0.0),
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
    Linear(features, np.copy, (1.0, 0.0), (-SLOPE_LIMIT, -OFFSET_LIMIT), (SLOPE_LIMIT, OFFSET_LIMIT)),
)
