"""The conformal rank: one rule, used by every method that prints a guarantee.

With n exchangeable units and a new one, the k-th smallest of the n scores is exceeded by the new score with
probability at most alpha, for k = ceil((n + 1)(1 - alpha)). Where k > n no finite threshold can promise that, so it
is +inf, never a clipped or interpolated value. Lei, G'Sell, Rinaldo, Tibshirani, Wasserman 2018, "Distribution-Free
Predictive Inference for Regression", Algorithm 2.
"""

from __future__ import annotations

import math

import numpy as np

from segcal_cli.core.errors import FitError, UsageError

LEVEL_ROUNDING = 1e-9
"""alpha * (n + 1) can miss a whole number by a few ulp; within this it counts as whole."""


class BadLevel(UsageError):
    """alpha is not a probability strictly between 0 and 1."""

    template = "alpha = {0} is not allowed; it must lie strictly between 0 and 1"


class UndefinedScore(FitError):
    """A score is NaN, so it has no rank."""

    template = "{0} of {1} scores are NaN; a conformal threshold needs a score for every unit"


def conformal_rank(n: int, alpha: float) -> int:
    """The rank k, from 1, whose score is the threshold; k = n + 1 means that n units are too few. Raises BadLevel."""
    if not 0.0 < alpha < 1.0:
        raise BadLevel(alpha)
    return max(1, n + 1 - math.floor(alpha * (n + 1) + LEVEL_ROUNDING))


def conformal_quantile(scores: np.ndarray, alpha: float) -> float:
    """The smallest threshold that a new score exceeds with probability at most alpha.

    scores: float "n", one per exchangeable unit, infinities allowed; the result has their unit, and is +inf if n is too
    small. Raises UndefinedScore, BadLevel.
    """
    undefined = int(np.isnan(scores).sum())
    if undefined:
        raise UndefinedScore(undefined, scores.size)
    k = conformal_rank(scores.size, alpha)
    return math.inf if k > scores.size else float(np.partition(scores, k - 1)[k - 1])


def smallest_sufficient_n(alpha: float) -> int:
    """The smallest number of units with a finite threshold at this alpha. Raises BadLevel."""
    n = max(1, math.floor(1.0 / alpha) - 2) if 0.0 < alpha < 1.0 else 1
    while conformal_rank(n, alpha) > n:
        n += 1
    return n
