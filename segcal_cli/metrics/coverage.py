"""Coverage: how many of n promises were kept, and whether that is fewer than chance explains.

A conformal threshold from n units, the k-th smallest score, covers a share of new units that is itself random:
Beta(k, n + 1 - k) over calibration sets. So the number covered among m new units follows a beta-binomial law (Vovk
2012, "Conditional validity of inductive conformal predictors"), which is what an observed coverage is held against.
"""

from __future__ import annotations


def exact_interval(covered: int, n: int, level: float = 0.95) -> tuple[float, float] | tuple[None, None]:
    """The exact binomial interval of a coverage (Clopper, Pearson 1934). (None, None) where n is 0."""
    if n == 0:
        return None, None
    from scipy.special import betaincinv

    tail = (1.0 - level) / 2.0
    low = 0.0 if covered == 0 else float(betaincinv(covered, n - covered + 1, tail))
    high = 1.0 if covered == n else float(betaincinv(covered + 1, n - covered, 1.0 - tail))
    return low, high


def undercoverage_p(covered: int, m: int, k: int, n: int) -> float | None:
    """P(as few or fewer of m new units covered) where the k-th of n scores is the threshold.

    1 for an infinite threshold (k > n), which covers everything; None where m is 0.
    """
    if m == 0:
        return None
    if k > n:
        return 1.0
    from scipy.stats import betabinom

    return float(betabinom.cdf(covered, m, k, n + 1 - k))
