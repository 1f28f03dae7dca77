"""Intervals over patients.

Patients (groups) are independent; voxels and cases of one patient are not. So every interval resamples groups, with the
same resamples for all sources, classes and measures. The interval of a macro mean is the bootstrap-t (Efron, Tibshirani
1993, "An Introduction to the Bootstrap", chapter 12): with t* = (m* - m) / se* it is [m - t_(1-a/2) se, m - t_(a/2)
se]. Errors of patients are skewed, and at 10 patients the percentile bootstrap of a nominal 95 % interval covers 88 %,
this one 95 %. Micro values are resampled by adding up the tables of the groups drawn, with percentile intervals.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from segcal_cli.core.errors import UsageError

MIN_GROUPS = 4
"""Nominal 95 % intervals of skewed errors cover 93 % at 4 and 5 groups, but 83 % at 3; 2 have no spread left."""


class BadInterval(UsageError):
    """Level or number of resamples out of range."""

    template = "{0} = {1} is not allowed; {2}"


def resample(groups: int, resamples: int, seed: int = 0) -> np.ndarray:
    """int64 "resample group": how often each group is drawn; shared by all that is compared. Raises BadInterval."""
    if resamples < 0:
        raise BadInterval("bootstrap", resamples, "it must be 0 (no intervals) or more")
    return np.random.default_rng(seed).multinomial(groups, np.full(groups, 1.0 / groups), size=resamples)


def bootstrap_t(values: np.ndarray, drawn: np.ndarray, level: float = 0.95) -> np.ndarray:
    """float64 "2 measure": low and high ends of the means over groups; NaN with fewer than four groups.

    values: float64 "group measure", NaN where a group has no value: that group is left out of that mean. drawn: int64
    "resample group". Raises BadInterval.
    """
    ends = tails(level)
    present = ~np.isnan(values)
    n = present.sum(axis=0)
    filled = np.where(present, values, 0.0)
    center = filled.sum(axis=0) / np.maximum(n, 1)
    deviation = np.where(present, values - center, 0.0)
    with np.errstate(invalid="ignore", divide="ignore"):
        error = np.sqrt((deviation**2).sum(axis=0) / (n - 1) / n)
        size = _weighted(drawn, present.astype(np.float64))
        shift = _weighted(drawn, deviation) / size
        spread = _weighted(drawn, deviation**2) - size * shift**2
        t = shift / np.sqrt(np.maximum(spread, 0.0) / (size - 1) / size)
    low, high = np.full((2, values.shape[1]), np.nan)
    for measure in range(values.shape[1]):
        if n[measure] < MIN_GROUPS or not len(drawn):
            continue
        if not deviation[:, measure].any():
            low[measure] = high[measure] = center[measure]
            continue
        finite = t[np.isfinite(t[:, measure]), measure]
        if finite.size:
            lower, upper = quantiles(finite, ends).tolist()
            low[measure] = center[measure] - upper * error[measure]
            high[measure] = center[measure] - lower * error[measure]
    return np.stack([low, high])


def percentile(values: np.ndarray, level: float = 0.95) -> np.ndarray:
    """float64 "2 ...": low and high quantiles of resampled values "resample ...", undefined ones left out."""
    return quantiles(values, tails(level))


def quantiles(values: np.ndarray, levels: Sequence[float]) -> np.ndarray:
    """float64 "level ...": quantiles along the first axis, interpolated between neighbours; NaNs are left out, and
    where there is nothing else the quantile is NaN.

    To the last digit what ``np.nanquantile`` gives, which takes axes one by one and imports masked arrays.
    """
    in_order = np.sort(values, axis=0)  # NaNs come last
    last = np.maximum(np.count_nonzero(~np.isnan(values), axis=0) - 1, 0)
    at = np.multiply.outer(np.asarray(levels, np.float64), last)
    below = np.floor(at).astype(np.intp)
    low = np.take_along_axis(in_order, below, axis=0)
    high = np.take_along_axis(in_order, np.minimum(below + 1, last), axis=0)
    share, step = at - below, high - low
    return np.where(share < 0.5, low + step * share, high - step * (1.0 - share))


def tails(level: float) -> tuple[float, float]:
    """The two quantile levels of an interval. Raises BadInterval."""
    if not 0.0 < level < 1.0:
        raise BadInterval("level", level, "it must lie strictly between 0 and 1")
    return (1.0 - level) / 2.0, (1.0 + level) / 2.0


def _weighted(drawn: np.ndarray, values: np.ndarray) -> np.ndarray:
    """ "resample measure": sums over groups, by numpy itself so that no BLAS decides the last digit."""
    return np.einsum("rg,gm->rm", drawn.astype(np.float64), values)
