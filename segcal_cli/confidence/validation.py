"""What observed coverage says: exact laws, random resplits, alpha sweeps, and leave-one-group-out.

Given n calibration and m new units without ties the number covered is beta-binomial whatever the data, so random
resplits prove nothing about exchangeability: they check the program and show the spread. Leaving out one group at a
time is the test that can fail.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import numpy as np

from segcal_cli.core.conformal import conformal_rank
from segcal_cli.core.frozen import dataclass
from segcal_cli.metrics.coverage import (
    clopper_pearson,
    confident_rank,
    coverage_band,
    probability_of_at_most,
    share_moments,
    two_sided,
)

SUSPICIOUS = 0.01
"""Below this probability coverage is called lower than exchangeability allows."""

CHUNK = 1 << 22
"""Random numbers drawn at a time for resplits."""


@dataclass(frozen=True, slots=True)
class Coverage:
    """One line of the coverage table. expected, p_low, p_two: None where no law holds."""

    side: str
    covered: int
    m: int
    nominal: float | None
    expected: float | None
    p_low: float | None
    p_two: float | None

    def to_json(self) -> dict[str, Any]:
        low, high = clopper_pearson(self.covered, self.m)
        return {
            "side": self.side,
            "covered": self.covered,
            "m": self.m,
            "coverage": self.covered / self.m if self.m else None,
            "low": low,
            "high": high,
            "nominal": self.nominal,
            "expected": self.expected,
            "p_low": self.p_low,
            "p_two": self.p_two,
        }


def coverage_of(
    side: str, covered: np.ndarray, alpha: float, n: int, rank: int | None, *, tied: bool = False
) -> Coverage:
    """Coverage of new units, bool "unit". rank: of the threshold among n, None where units are weighted."""
    count, m = int(np.count_nonzero(covered)), covered.size
    if rank is None or m == 0:
        return Coverage(side, count, m, 1.0 - alpha, None, None, None)
    return Coverage(
        side,
        count,
        m,
        1.0 - alpha,
        min(1.0, rank / (n + 1)),
        probability_of_at_most(count, m, n, rank),
        None if tied else two_sided(count, m, n, rank),
    )


@dataclass(frozen=True, slots=True)
class Resplits:
    """Coverage over random resplits. Arrays are float64 "alpha"."""

    alphas: tuple[float, ...]
    mean: np.ndarray
    sd: np.ndarray
    low: np.ndarray
    high: np.ndarray
    law_mean: np.ndarray
    law_sd: np.ndarray


def resplit_coverages(
    pooled: np.ndarray, n: int, alphas: Sequence[float], resplits: int, seed: int, confidence: float | None = None
) -> np.ndarray:
    """float64 "resplit alpha": coverage of the left-over m units when n random ones calibrate.

    pooled: float "n + m" scores. The scores are sorted once; a resplit is a random choice of n places, and its k-th
    chosen place is the threshold. Tied test scores count as covered.
    """
    m = pooled.size - n
    ordered = np.sort(pooled)
    # Everything up to the end of a run of ties is covered.
    last = np.searchsorted(ordered, ordered, side="right")
    ranks = ranks_of(n, alphas, confidence)
    reachable = ranks <= n
    made = np.ones((resplits, len(alphas)))
    tied = bool((last != np.arange(1, pooled.size + 1)).any())
    generator = np.random.default_rng(seed)
    rows = max(1, CHUNK // max(1, pooled.size))
    marks = np.zeros((rows, pooled.size), dtype=bool)
    marks[:, :n] = True
    for start in range(0, resplits, rows):
        some = min(rows, resplits - start)
        chosen = generator.permuted(marks[:some], axis=1)
        places = np.nonzero(chosen)[1].reshape(some, n)[:, ranks[reachable] - 1]
        if tied:
            ends = last[places]
            calibrated = np.take_along_axis(np.cumsum(chosen, axis=1, dtype=np.int32), ends - 1, axis=1)
        else:
            ends = places + 1
            calibrated = ranks[reachable]
        made[start : start + some, reachable] = (ends - calibrated) / m
    return made


def summarised(
    coverages: np.ndarray, alphas: Sequence[float], n: int, m: int, confidence: float | None = None
) -> Resplits:
    """Mean, spread and central 90 % of resplits, beside the law's mean and spread."""
    ranks = ranks_of(n, alphas, confidence)
    moments = np.array([share_moments(m, n, int(rank)) for rank in ranks])
    low, high = np.quantile(coverages, (0.05, 0.95), axis=0)
    return Resplits(
        tuple(alphas), coverages.mean(axis=0), coverages.std(axis=0), low, high, moments[:, 0], moments[:, 1]
    )


def ranks_of(n: int, alphas: Sequence[float], confidence: float | None = None) -> np.ndarray:
    """int64 "alpha": the rank of each level; n + 1 where there is none."""
    return np.array(
        [conformal_rank(n, a) if confidence is None else confident_rank(n, a, confidence) for a in alphas], np.int64
    )


def band_of(m: int, n: int, rank: int | None) -> tuple[float | None, float | None]:
    """The 95 % beta-binomial band of false coverage, 1 - coverage."""
    if rank is None or m == 0:
        return None, None
    low, high = coverage_band(m, n, rank)
    return 1.0 - high, 1.0 - low


def beta_binomial(m: int, n: int, rank: int) -> np.ndarray:
    """float64 "covered", from 0 to m: the probability of each number of covered units."""
    from scipy.stats import betabinom

    return betabinom.pmf(np.arange(m + 1), m, rank, n + 1 - rank)


def alpha_grid(start: float, stop: float, step: float) -> tuple[float, ...]:
    """start, start + step, ... up to stop, each rounded to 12 digits so that 0.1 is 0.1."""
    count = math.floor((stop - start) / step + 1e-9) + 1
    return tuple(round(start + index * step, 12) for index in range(count))
