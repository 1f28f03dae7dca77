"""Isotonic regression: the rising curve of least squared error, and of every other proper score.

Zadrozny, Elkan 2002, "Transforming classifier scores into accurate multiclass probability estimates". Bins of z whose
label shares fall are pooled (PAV); the curve is flat over a pooled block, straight between blocks, constant beyond the
outermost. Voxels of one block become equally probable: their order is lost.
"""

from __future__ import annotations

from functools import partial

import numpy as np

from segcal_cli.calibration.curves import limits, log_odds_of, loss_of, no_gradient, require_curve
from segcal_cli.calibration.method import Aim, Sketched, filled, stacked
from segcal_cli.calibration.sketch import Moments


def solve(moments: Moments, aim: Aim, near: np.ndarray | None = None) -> np.ndarray:
    """float64 "problem parameter": z of the knots, then p of the knots."""
    from scipy.optimize import isotonic_regression

    rows = []
    for i in range(len(moments.total)):
        used = moments.n[i] > 0.0
        n, z, y = (table[i][used] for table in (moments.n, moments.c, moments.positives))
        blocks = isotonic_regression(y / n, weights=n)
        first, last = blocks.blocks[:-1], blocks.blocks[1:] - 1
        # A block of one bin has one knot.
        knots = np.unique(np.concatenate([first, last]))
        rows.append(np.concatenate([z[knots], np.clip(blocks.x[knots], *limits(moments.voxels[i]))]))
    return stacked(rows)


def curve(row: np.ndarray, z: np.ndarray) -> np.ndarray:
    """float64 probabilities at log-odds z."""
    knots, p = np.split(row, 2)
    return np.interp(z, knots, p)


def require(row: np.ndarray) -> None:
    """Raise ValueError unless a row is knots and as many probabilities that do not fall, or empty."""
    knots = filled(row).size // 2
    if filled(row).size != 2 * knots:
        raise ValueError("knots without probabilities")
    require_curve(row, knots)
    if (np.diff(row[knots : 2 * knots]) < 0.0).any():
        raise ValueError("a curve that falls")


def cut_of(row: np.ndarray) -> float | None:
    """Where the curve rises through 0.5, or None where it does not."""
    if not filled(row).size:
        return 0.0
    knots, p = np.split(filled(row), 2)
    above = np.flatnonzero(p > 0.5)
    if not above.size or above[0] == 0:
        return None
    high = above[0]
    return float(np.interp(0.5, p[high - 1 : high + 1], knots[high - 1 : high + 1]))


METHOD = Sketched(
    name="isotonic",
    families={"binary": "sketch", "sigmoid": "sketch", "softmax": "sketch"},
    parameters=(),
    identity=(),
    keeps_decisions=False,
    scopes=("per-class",),
    losses=("nll",),
    solve=solve,
    log_odds=partial(log_odds_of, curve),
    loss=partial(loss_of, curve),
    gradient=no_gradient,
    cut=cut_of,
    pieces="knots",
    require_curve=require,
)
