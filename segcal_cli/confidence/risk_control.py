"""Risk control on the missed fraction: promises about the mean share of the target that is missed, no whole masks.

A comparison, not a set: conformal risk control (Angelopoulos, Bates, Fisch, Lei, Schuster 2022) bounds the mean, RCPS
(Bates, Angelopoulos, Lei, Malik, Jordan 2021) bounds it with high probability. Both take the largest threshold lambda
whose mean missed fraction of the truth by {s >= lambda} stays within a budget. The mean is a step function of lambda,
so that root finding lands just outside the valid side; it is kept on a grid of log-odds instead, in whole units rounded
up: exact in any order of merging, and conservative.
"""

from __future__ import annotations

import math

import numpy as np

EDGES = np.linspace(-32.0, 32.0, 8193)
"""Thresholds of the grid, 1/128 apart: all are exact in binary."""

EDGES_PER_UNIT = 128.0

UNITS = 1 << 40
"""A missed fraction of 1. Halves of the bits are divided at a time, so that no product leaves 64 bits."""

HALF_BITS = 20


def missed_below(s: np.ndarray) -> np.ndarray:
    """int64 "edge": how many of the log-odds of true voxels lie strictly below each edge."""
    return missed_from(filed(s))


def filed(s: np.ndarray) -> np.ndarray:
    """int64 "edge + 1": how many log-odds have this many edges up to them. Counts of parts add."""
    # Both products are exact, since edges are whole multiples of a power of two.
    first = np.clip(np.floor(s * EDGES_PER_UNIT) + (EDGES.size // 2 + 1), 0, EDGES.size).astype(np.intp)
    return np.bincount(first, minlength=EDGES.size + 1)


def missed_from(counts: np.ndarray) -> np.ndarray:
    """As ``missed_below``, of what ``filed`` counted."""
    return np.cumsum(counts)[: EDGES.size].astype(np.int64)


def missed_units(missed: np.ndarray, truth_voxels: int) -> np.ndarray:
    """int64 "edge": missed fraction in units of 2^-40, rounded up; 0 for an empty truth, which loses nothing."""
    if not truth_voxels:
        return np.zeros(EDGES.size, np.int64)
    high, rest = np.divmod(missed << HALF_BITS, truth_voxels)
    return (high << HALF_BITS) + -(-(rest << HALF_BITS) // truth_voxels)


def grid_threshold(curve: np.ndarray, n: int, budget: float) -> float:
    """The largest edge whose mean missed fraction is within budget, or -inf. curve: summed missed_units of n cases."""
    if budget < 0 or not n:
        return -math.inf
    within = curve <= math.floor(budget * n * UNITS)
    # The curve never falls, so the edges within budget are the first ones.
    count = int(np.count_nonzero(within))
    return -math.inf if count == 0 else float(EDGES[count - 1])


def crc_budget(n: int, alpha: float) -> float:
    """alpha - (1 - alpha)/n: the empirical mean that conformal risk control allows; below 0 everything is kept."""
    return alpha - (1.0 - alpha) / n


def rcps_budget(n: int, alpha: float, delta: float = 0.1) -> float:
    """The largest mean r with the Hoeffding-Bentkus bound HB(r) <= delta, or -1 where there is none.

    HB(r) = min(exp(-n kl(min(r, alpha), alpha)), e P(Bin(n, alpha) <= ceil(n r))). Bates et al. 2021, section 3.1.
    """
    from scipy.stats import binom

    def bound(r: float) -> float:
        hoeffding = math.exp(-n * _kl(min(r, alpha), alpha))
        return min(hoeffding, math.e * float(binom.cdf(math.ceil(n * r - 1e-12), n, alpha)))

    if bound(0.0) > delta:
        return -1.0
    low, high = 0.0, alpha
    while high - low > 1e-12:
        middle = (low + high) / 2.0
        low, high = (middle, high) if bound(middle) <= delta else (low, middle)
    return low


def hoeffding_budget(n: int, alpha: float, delta: float = 0.1) -> float:
    """alpha - sqrt(ln(1/delta) / 2n): the simpler, stricter budget."""
    return alpha - math.sqrt(math.log(1.0 / delta) / (2.0 * n))


def bonferroni_images(voxels: int, alpha: float) -> int:
    """How many calibration images a pixelwise Bonferroni correction needs for a finite threshold: |V|/alpha - 1."""
    return math.ceil(voxels / alpha - 1e-9) - 1


def _kl(a: float, b: float) -> float:
    left = 0.0 if a == 0.0 else a * math.log(a / b)
    return left + (1.0 - a) * math.log((1.0 - a) / (1.0 - b))
