"""Coverage: what a conformal threshold promises beyond its rank, and what observed coverage says about it.

The threshold at rank k of n exchangeable units covers a new unit with probability k / (n + 1) on average over
calibration sets. One artifact's own coverage, given its n units, is Beta(k, n + 1 - k); of m new units the number
covered is beta-binomial, whatever the data (Vovk 2012, "Conditional validity of inductive conformal predictors"). Two
more rules share the idea of a weight per score: patients with several cases (Lee, Barber, Willett 2023,
"Distribution-free inference with hierarchical data"), and known density ratios (Tibshirani, Barber, Candes, Ramdas
2019, "Conformal prediction under covariate shift").
"""

from __future__ import annotations

import math

import numpy as np

from segcal_cli.core.conformal import BadLevel, UndefinedScore, smallest_sufficient_n
from segcal_cli.core.errors import FitError

WEIGHT_ROUNDING = 1e-9
"""Sums of weights can miss a level by a few ulp; relative to the level, within this they reach it."""


class BadWeight(FitError):
    """Weights that are no density ratios."""

    template = "{0}"


def confident_rank(n: int, alpha: float, confidence: float) -> int:
    """The smallest rank k whose threshold has coverage >= 1 - alpha in a share ``confidence`` of calibration sets.

    P(Beta(k, n + 1 - k) >= 1 - alpha) >= confidence; n + 1 where no rank does that. Raises BadLevel.
    """
    from scipy.special import betaincc

    for level in (alpha, confidence):
        if not 0.0 < level < 1.0:
            raise BadLevel(level)
    ranks = np.arange(1, n + 1)
    enough = betaincc(ranks, n + 1 - ranks, 1.0 - alpha) >= confidence
    return int(np.argmax(enough)) + 1 if enough.any() else n + 1


def sufficient_n(alpha: float, confidence: float | None = None) -> int:
    """The smallest number of units with a finite threshold: ceil(1/alpha) - 1, or (1 - alpha)^n <= 1 - confidence."""
    if confidence is None:
        return smallest_sufficient_n(alpha)
    n = max(1, math.floor(math.log1p(-confidence) / math.log1p(-alpha)))
    while confident_rank(n, alpha, confidence) > n:
        n += 1
    return n


def coverage_range(n: int, rank: int, mass: float = 0.9) -> tuple[float, float]:
    """The central range of this artifact's own coverage, Beta(k, n + 1 - k); (1, 1) for a threshold at infinity."""
    # The very numbers of scipy.stats.beta, without the second that importing scipy.stats takes.
    from scipy.special import betaincinv

    if rank > n:
        return 1.0, 1.0
    low, high = betaincinv(rank, n + 1 - rank, [(1.0 - mass) / 2.0, (1.0 + mass) / 2.0])
    return float(low), float(high)


def probability_of_at_most(covered: int, m: int, n: int, rank: int) -> float:
    """P(C <= covered) of the beta-binomial number C of m covered units; small: coverage is too low for chance.

    With ties the law is a lower bound, so a small value stays one. 1 for a threshold at infinity.
    """
    from scipy.stats import betabinom

    return 1.0 if rank > n else float(betabinom.cdf(covered, m, rank, n + 1 - rank))


def two_sided(covered: int, m: int, n: int, rank: int) -> float | None:
    """min(1, 2 min(P(C <= c), P(C >= c))); None for a threshold at infinity. Only for scores without ties."""
    from scipy.stats import betabinom

    if rank > n:
        return None
    law = betabinom(m, rank, n + 1 - rank)
    return float(min(1.0, 2.0 * min(law.cdf(covered), law.sf(covered - 1))))


def coverage_band(m: int, n: int, rank: int, mass: float = 0.95) -> tuple[float, float]:
    """The central range of the share covered among m new units, as beta-binomial quantiles."""
    from scipy.stats import betabinom

    if rank > n:
        return 1.0, 1.0
    low, high = betabinom.ppf([(1.0 - mass) / 2.0, (1.0 + mass) / 2.0], m, rank, n + 1 - rank)
    return float(low) / m, float(high) / m


def share_moments(m: int, n: int, rank: int) -> tuple[float, float]:
    """Mean and standard deviation of the share covered among m new units."""
    if rank > n:
        return 1.0, 0.0
    a, b = rank, n + 1 - rank
    mean = a / (a + b)
    return mean, math.sqrt(mean * (1.0 - mean) * (a + b + m) / (m * (a + b + 1)))


def clopper_pearson(covered: int, m: int, level: float = 0.95) -> tuple[float, float]:
    """The exact binomial interval of covered / m. NaN where m is 0."""
    from scipy.special import betaincinv

    if m == 0:
        return math.nan, math.nan
    tail = (1.0 - level) / 2.0
    low = 0.0 if covered == 0 else float(betaincinv(covered, m - covered + 1, tail))
    high = 1.0 if covered == m else float(betaincinv(covered + 1, m - covered, 1.0 - tail))
    return low, high


def weighted_quantile(scores: np.ndarray, weights: np.ndarray, new_weight: float, alpha: float) -> float:
    """The smallest score q with sum of w_i 1[s_i <= q] >= (1 - alpha)(sum w_i + new_weight), else +inf.

    scores, weights: float "n". Tibshirani et al. 2019, equation 5. Raises UndefinedScore, BadWeight, BadLevel.
    """
    if not 0.0 < alpha < 1.0:
        raise BadLevel(alpha)
    undefined = int(np.isnan(scores).sum())
    if undefined:
        raise UndefinedScore(undefined, scores.size)
    check_weights(weights)
    order = np.argsort(scores, kind="stable")
    reached = np.cumsum(weights[order])
    level = (1.0 - alpha) * (float(weights.sum()) + new_weight) * (1.0 - WEIGHT_ROUNDING)
    at = int(np.searchsorted(reached, level))
    return math.inf if at >= scores.size else float(scores[order[at]])


def hierarchical_quantile(scores: np.ndarray, groups: np.ndarray, alpha: float) -> float:
    """The threshold for a random case of a new group, from groups that hold several cases each.

    Each of K groups has weight 1, shared equally by its cases, and the new group weight 1: the smallest q with sum_p
    sum_j 1[s_pj <= q] / m_p >= (1 - alpha)(K + 1), else +inf. groups: any labels "n". Lee, Barber, Willett 2023.
    """
    return weighted_quantile(scores, group_weights(groups), 1.0, alpha)


def group_weights(groups: np.ndarray) -> np.ndarray:
    """float64 "n": 1 over the number of cases of the case's own group."""
    _, which, sizes = np.unique(groups, return_inverse=True, return_counts=True)
    return 1.0 / sizes[which]


def check_weights(weights: np.ndarray) -> None:
    """Raise BadWeight unless all are finite and >= 0 and one is above 0."""
    if not np.isfinite(weights).all() or (weights < 0).any():
        raise BadWeight("weights must be finite and not negative")
    if weights.size and not weights.any():
        raise BadWeight("all weights are zero")


def effective_sample_size(weights: np.ndarray) -> float:
    """(sum w)^2 / sum w^2: how many equally weighted units these are worth."""
    # Only ratios matter, and squares of very large or small weights are no numbers.
    shares = weights / weights.max()
    return float(shares.sum() ** 2 / np.square(shares).sum())
