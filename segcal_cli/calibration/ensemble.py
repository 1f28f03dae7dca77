"""The ensemble by itself: the mean of its members, and nothing fitted on top.

Folds, checkpoints, seeds and Monte Carlo dropout samples are joined where they are read; every other method calibrates
what they are joined to. This one leaves it as it is, so that an artifact can say what the ensemble is, and a table what
it is worth alone. Rousseau, Becker, Bertels, Blaschko, Valkenborg 2021, "Post training uncertainty calibration of deep
networks for medical image segmentation", section 3.4.
"""

from __future__ import annotations

import numpy as np

from segcal_cli.calibration.method import NLL, Aim, Sketched
from segcal_cli.calibration.platt import METHOD as PLATT
from segcal_cli.calibration.sketch import Moments


def solve(moments: Moments, aim: Aim, near: np.ndarray | None = None) -> np.ndarray:
    """float64 "problem 0": there is nothing to find."""
    return np.zeros((len(moments.total), 0))


def log_odds(row: np.ndarray, z: np.ndarray) -> np.ndarray:
    """float64 z."""
    return z


def loss_of(moments: Moments, rows: np.ndarray, aim: Aim) -> np.ndarray:
    """float64 "problem": mean loss per voxel of the predictions as they are."""
    return PLATT.loss(moments, np.tile(PLATT.identity, (len(moments.total), 1)), aim)


def gradient_of(moments: Moments, rows: np.ndarray, aim: Aim) -> np.ndarray:
    """float64 "problem 1": 0."""
    return np.zeros((len(moments.total), 1))


def cut_of(row: np.ndarray) -> float | None:
    """0: decisions stay."""
    return 0.0


METHOD = Sketched(
    name="ensemble",
    families={"binary": "sketch", "sigmoid": "sketch", "softmax": "sketch"},
    parameters=(),
    identity=(),
    keeps_decisions=True,
    losses=(NLL.loss,),
    solve=solve,
    log_odds=log_odds,
    loss=loss_of,
    gradient=gradient_of,
    cut=cut_of,
)
