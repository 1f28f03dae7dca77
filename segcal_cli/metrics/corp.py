"""CORP: a score taken apart into miscalibration, discrimination and uncertainty.

Dimitriadis, Gneiting, Jordan 2021, "Stable reliability diagrams for probabilistic classifiers": r is the isotonic
regression of the truth on the forecast, the best recalibration that keeps the order. With S the mean score, MCB = S(p)
- S(r), DSC = S(rate) - S(r), UNC = S(rate), so that S(p) = MCB - DSC + UNC. S(p) is exact; r and the rate come from the
cells, which against single voxels changes the Brier score by 6e-6 and the log score by 5e-5 at most on a whole scan.
"""

from __future__ import annotations

import numpy as np

from segcal_cli.core.frozen import dataclass
from segcal_cli.metrics.calibration_errors import BinTable


@dataclass(frozen=True, slots=True)
class Decomposition:
    """score = miscalibration - discrimination + uncertainty."""

    miscalibration: float
    discrimination: float
    uncertainty: float


def recalibrated(cells: BinTable) -> np.ndarray:
    """float64 "cell": isotonic regression of the frequency on p, weighted by voxels; cells without voxels left out."""
    filled = cells.n > 0
    n = cells.n[filled].astype(np.float64)
    return np.clip(isotonic(cells.hits[filled] / n, n), 0.0, 1.0)


def isotonic(y: np.ndarray, weights: np.ndarray) -> np.ndarray:
    """float64 "cell": the rising numbers nearest to y in weighted least squares, by pooling adjacent violators.

    SciPy's function gives the same (and fits calibrators). Importing it takes longer than all else that starts up
    ``evaluate``, which needs no more than this for a few hundred cells.
    """
    means: list[float] = []
    totals: list[float] = []
    lengths: list[int] = []
    for mean, total in zip(y.tolist(), weights.tolist(), strict=True):
        length = 1
        while means and means[-1] >= mean:
            before = totals.pop()
            mean = (means.pop() * before + mean * total) / (before + total)
            total += before
            length += lengths.pop()
        means.append(mean)
        totals.append(total)
        lengths.append(length)
    return np.repeat(means, lengths)


def decompose(cells: BinTable, brier: float, nll: float) -> tuple[Decomposition, Decomposition]:
    """Brier and log score of one class, taken apart. brier, nll: the exact mean scores of p."""
    filled = cells.n > 0
    n, hits = cells.n[filled].astype(np.float64), cells.hits[filled].astype(np.float64)
    rate = np.full(n.shape, hits.sum() / n.sum())
    fitted = recalibrated(cells)
    parts = []
    for score, of_p in ((_brier, brier), (_nll, nll)):
        best, uncertainty = score(n, hits, fitted), score(n, hits, rate)
        parts.append(Decomposition(of_p - best, uncertainty - best, uncertainty))
    return parts[0], parts[1]


def _brier(n: np.ndarray, hits: np.ndarray, r: np.ndarray) -> float:
    return float((hits * (1.0 - r) ** 2 + (n - hits) * r**2).sum() / n.sum())


def _nll(n: np.ndarray, hits: np.ndarray, r: np.ndarray) -> float:
    """0 log 0 = 0: the isotonic fit is 0 or 1 only where all voxels agree with it."""
    with np.errstate(divide="ignore", invalid="ignore"):
        of_hits = np.where(hits > 0.0, hits * np.log(r), 0.0)
        of_misses = np.where(n > hits, (n - hits) * np.log1p(-r), 0.0)
    # Not -(sum): where nothing is uncertain that would be -0.0.
    return float((0.0 - (of_hits + of_misses).sum()) / n.sum())
