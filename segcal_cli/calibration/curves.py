"""Curves: calibrators that are a table of z and p instead of a formula; what isotonic regression and histograms share.

Their losses are taken at bin means, where the curve is evaluated. Probabilities of a curve lie in [1/(n + 1), n/(n +
1)], n the voxels fitted, so that no new voxel can cost an infinite likelihood. An empty row is a curve that was not
fitted and changes nothing.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

from segcal_cli.calibration.likelihood import LOSSES, sigmoid, softplus
from segcal_cli.calibration.method import Aim, filled
from segcal_cli.calibration.sketch import Moments

Curve = Callable[[np.ndarray, np.ndarray], np.ndarray]
"""Probabilities of a filled row and log-odds."""


def limits(voxels: float) -> tuple[float, float]:
    """The least and the largest probability of a curve that was fitted on so many voxels."""
    return 1.0 / (voxels + 1.0), voxels / (voxels + 1.0)


def require_curve(row: np.ndarray, places: int) -> None:
    """Raise ValueError unless a row, without what ``stacked`` added, is so many rising places and probabilities."""
    where, p = np.split(filled(row), [places])
    if np.isnan(row[: places + len(p)]).any():
        raise ValueError("a curve with gaps")
    if not (where[1:] > where[:-1]).all():
        raise ValueError("a curve whose places do not rise")
    if not ((p > 0.0) & (p < 1.0)).all():
        raise ValueError("a curve beyond probabilities")


def log_odds_of(curve: Curve, row: np.ndarray, z: np.ndarray) -> np.ndarray:
    """float64 log-odds of the curve at z; z itself for an empty row."""
    row = filled(row)
    if not row.size:
        return z
    p = curve(row, z)
    return np.log(p / (1.0 - p))


def loss_of(curve: Curve, moments: Moments, rows: np.ndarray, aim: Aim) -> np.ndarray:
    """float64 "problem": mean loss per voxel."""
    losses = np.empty(len(rows))
    unchanged = LOSSES[aim.loss](moments, np.tile([1.0, 0.0], (len(rows), 1))).value
    for i, row in enumerate(rows):
        u = log_odds_of(curve, row, moments.c[i])
        n, y = moments.n[i], moments.positives[i]
        p = sigmoid(u)
        whole = n * softplus(u) - y * u if aim.loss == "nll" else n * p * p - 2.0 * y * p + y
        losses[i] = whole.sum() / moments.total[i] if filled(row).size else unchanged[i]
    return losses


def no_gradient(moments: Moments, rows: np.ndarray, aim: Aim) -> np.ndarray:
    """float64 "problem 1": 0; a curve is found exactly, not by descent."""
    return np.zeros((len(rows), 1))
