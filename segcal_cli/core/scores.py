"""Probabilities with logarithms that can be trusted.

NLL needs log p and log(1 - p). From logits both are exact. From stored probabilities a p of exactly 0 stands for
anything below the smallest positive number of the stored type, so that number, and no fixed epsilon, is the floor. 1
- p of a softmax channel is the float64 sum of the other channels, never 1 minus a float32.
"""

from __future__ import annotations

import numpy as np

from segcal_cli.core.frozen import dataclass
from segcal_cli.core.volume import Stored, Values


@dataclass(frozen=True, slots=True)
class Scores:
    """Probabilities of a run of voxels.

    p: float32 or float64 "class voxel". exclusive: channels sum to 1 (softmax). log_p, log_q: float64 "class voxel",
    exact log p and log(1 - p) where logits are known, else None; log_q is None for exclusive channels, where log(1 -
    p) is the log of the sum of the others. floor, complement_floor: what p and 1 - p are raised to before a
    logarithm. q: float64 "class voxel", 1 - p where it is known better than by subtraction, else None.
    """

    p: np.ndarray
    exclusive: bool
    floor: float
    complement_floor: float
    log_p: np.ndarray | None = None
    log_q: np.ndarray | None = None
    q: np.ndarray | None = None


def scores_of(array: np.ndarray, values: Values, stored: Stored, *, exclusive: bool) -> Scores:
    """Scores of raw stored numbers. array: float32 "class voxel"; values: what it holds. No value checks here."""
    if values == "probabilities":
        return Scores(array, exclusive, stored.floor, stored.complement_floor)
    if exclusive:
        return scores_of_log_softmax(log_softmax(array))
    return scores_of_log_odds(array.astype(np.float64))


def scores_of_log_softmax(log_p: np.ndarray) -> Scores:
    """Scores from float64 log-softmax values "class voxel"."""
    return Scores(np.exp(log_p), True, TINY, TINY, log_p)


def scores_of_log_odds(z: np.ndarray) -> Scores:
    """Scores of independent channels from float64 log-odds "class voxel": log p = -softplus(-z), log(1-p) =
    -softplus(z).
    """
    tail = np.log1p(np.exp(-np.abs(z)))
    log_p, log_q = np.minimum(z, 0.0) - tail, -np.maximum(z, 0.0) - tail
    return Scores(np.exp(log_p), False, TINY, TINY, log_p, log_q)


def log_softmax(logits: np.ndarray) -> np.ndarray:
    """float64 log-softmax over the first axis, stable for logits of any size."""
    shifted = logits.astype(np.float64) - logits.max(axis=0)
    shifted -= np.log(np.exp(shifted).sum(axis=0))
    return shifted


TINY = float(np.finfo(np.float64).tiny)
"""Floor for probabilities that were computed in float64: only an underflow of exp reaches it."""
