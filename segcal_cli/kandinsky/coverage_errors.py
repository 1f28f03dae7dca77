"""Coverage errors: by how much the share of covered images misses its level, place by place.

    CE_M(v) = (1/M) sum over m = 1..M of | cov_v(C_{1 - m/M}) - m/M |

with cov_v the share of the test images with label c at v whose set, before empty sets are filled, holds c (Brunekreef
et al. 2023, eq. 6, with the absolute value and the 1/M that it needs). Even exact coverage has such an error at n test
images: the floor, about .31 / sqrt(n). Values are comparable at equal n only. The shortfall counts missing coverage
alone: the dangerous half.
"""

from __future__ import annotations

import numpy as np

from segcal_cli.core.frozen import dataclass

CACHED_CELLS = 1 << 14
"""Cells worked on at a time: a few tables of all levels stay in a core's cache, however large the field is."""


@dataclass(frozen=True, slots=True)
class CellErrors:
    """Per cell of one class. n: positives; error, shortfall, floor: NaN where n = 0."""

    n: np.ndarray
    error: np.ndarray
    shortfall: np.ndarray
    floor: np.ndarray


def cell_errors(levels: np.ndarray) -> CellErrors:
    """levels: int64 "cell level", positives first covered at level m = 1..M, in columns 0..M-1."""
    n_levels = levels.shape[1]
    n = levels.sum(axis=1)
    known = n > 0
    error, shortfall, floor = np.full((3, len(n)), np.nan)
    for start in range(0, len(n), CACHED_CELLS):
        some = start + np.flatnonzero(known[start : start + CACHED_CELLS])
        covered = np.cumsum(levels[some], axis=1) / n[some, None]
        gap = np.arange(1, n_levels + 1) / n_levels - covered
        error[some] = np.abs(gap).mean(axis=1)
        shortfall[some] = np.maximum(gap, 0.0).mean(axis=1)
    different, which = np.unique(n[known], return_inverse=True)
    floor[known] = np.array([noise_floor(int(count), n_levels) for count in different])[which]
    return CellErrors(n, error, shortfall, floor)


def noise_floor(n: int, n_levels: int = 20) -> float:
    """The mean coverage error of exact coverage at n positives: (1/M) sum of E |Bin(n, m/M)/n - m/M|.

    The mean absolute deviation of a binomial is 2 (1-p)^(n-j+1) p^j j C(n, j) with j = floor(np) + 1 (de Moivre).
    """
    from scipy.stats import binom

    m = np.arange(1, n_levels)
    j = (n * m) // n_levels + 1
    p = m / n_levels
    return float((2 * (1 - p) * j / n * binom.pmf(j, n, p)).sum() / n_levels)
