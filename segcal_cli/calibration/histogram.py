"""Histogram binning: each bin of raw probability becomes the share of the class among the voxels in it.

Zadrozny, Elkan 2001, "Obtaining calibrated probability estimates from decision trees and naive Bayesian classifiers".
Bins hold equal numbers of voxels (mass), or are equally wide in p (width). Edges are those of the sketch's own bins,
so that shares are exact; in p they are moved by at most 0.002. A volume is mostly sure background, which equal mass
spends most bins on. Voxels of a bin become equally probable: their order is lost.
"""

from __future__ import annotations

from functools import partial

import numpy as np

from segcal_cli.calibration.curves import limits, log_odds_of, loss_of, no_gradient, require_curve
from segcal_cli.calibration.likelihood import sigmoid
from segcal_cli.calibration.method import Aim, Sketched, filled, stacked
from segcal_cli.calibration.sketch import UPPERS, Moments


def solve(moments: Moments, aim: Aim, near: np.ndarray | None = None) -> np.ndarray:
    """float64 "problem parameter": inner edges in z, each belonging to the bin below it, then p of the bins."""
    rows = []
    for i in range(len(moments.total)):
        n, y = moments.n[i], moments.positives[i]
        edges = _equal_mass(n, moments.uppers, aim.bins) if aim.binning == "mass" else _equal_width(aim.bins)
        place = np.searchsorted(edges, moments.uppers, side="left")
        mass, hits = (np.bincount(place, weights=w, minlength=len(edges) + 1) for w in (n, y))
        ends = np.concatenate([[0.0], sigmoid(edges), [1.0]])
        middles = (ends[1:] + ends[:-1]) / 2.0
        shares = np.divide(hits, mass, out=middles, where=mass > 0.0)
        rows.append(np.concatenate([edges, np.clip(shares, *limits(moments.voxels[i]))]))
    return stacked(rows)


def _equal_mass(n: np.ndarray, uppers: np.ndarray, bins: int) -> np.ndarray:
    """Edges that cut the voxels into at most so many equal parts; fewer where many voxels are equal."""
    running = np.cumsum(n)
    targets = running[-1] * np.arange(1, bins) / bins
    last = np.flatnonzero(n)[-1]
    cuts = np.unique(np.searchsorted(running, targets, side="left"))
    return uppers[cuts[cuts < last]]


def _equal_width(bins: int) -> np.ndarray:
    """The edges of the sketch that are nearest to k / bins."""
    p = np.arange(1, bins) / bins
    z = np.log(p / (1.0 - p))
    at = np.clip(np.searchsorted(UPPERS, z), 1, len(UPPERS) - 1)
    return np.unique(np.where(z - UPPERS[at - 1] <= UPPERS[at] - z, UPPERS[at - 1], UPPERS[at]))


def curve(row: np.ndarray, z: np.ndarray) -> np.ndarray:
    """float64 probabilities at log-odds z."""
    edges, p = np.split(row, [len(row) // 2])
    return p[np.searchsorted(edges, z, side="left")]


def require(row: np.ndarray) -> None:
    """Raise ValueError unless a row is edges and one probability more, or empty."""
    size = filled(row).size
    if size and size % 2 == 0:
        raise ValueError("edges that do not fit the bins")
    require_curve(row, size // 2)


def cut_of(row: np.ndarray) -> float | None:
    """The edge at which the probability rises above 0.5; None where there is no such edge, or several crossings."""
    row = filled(row)
    if not row.size:
        return 0.0
    edges, p = np.split(row, [len(row) // 2])
    crossings = np.flatnonzero(np.diff(p > 0.5))
    return float(edges[crossings[0]]) if len(crossings) == 1 and p[-1] > 0.5 else None


METHOD = Sketched(
    name="histogram",
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
    options=("histogram_bins", "binning"),
    pieces="bins",
    require_curve=require,
)
