"""The rank rule, its infinities, and the n that would do."""

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from segcal_cli.core.conformal import (
    BadLevel,
    UndefinedScore,
    conformal_quantile,
    conformal_rank,
    smallest_sufficient_n,
)


@pytest.mark.parametrize(
    ("n", "alpha", "k"),
    [
        (9, 0.1, 9),
        (8, 0.1, 9),
        (19, 0.05, 19),
        (19, 0.1, 18),
        (99, 0.1, 90),
        (100, 0.1, 91),
        (50, 0.1, 46),
        (1, 0.5, 1),
    ],
)
def test_the_rank_is_ceil_of_n_plus_1_times_1_minus_alpha(n, alpha, k):
    assert conformal_rank(n, alpha) == k


@given(st.integers(0, 500), st.integers(1, 99))
def test_the_rank_is_exact_in_whole_per_cents(n, percent):
    """In integers there is no rounding: k = ceil((n + 1)(100 - percent) / 100)."""
    assert conformal_rank(n, percent / 100) == -((n + 1) * (100 - percent) // -100)


def test_too_few_units_give_an_infinite_threshold_and_the_last_sufficient_n_does_not():
    scores = np.arange(8.0)
    assert conformal_quantile(scores, 0.1) == math.inf
    assert conformal_quantile(np.arange(9.0), 0.1) == 8.0


@pytest.mark.parametrize(("alpha", "n"), [(0.1, 9), (0.05, 19), (0.2, 4), (0.32, 3), (0.5, 1), (0.01, 99), (0.9, 1)])
def test_the_smallest_sufficient_n(alpha, n):
    assert smallest_sufficient_n(alpha) == n


def test_infinite_scores_are_ranked_like_any_other():
    assert conformal_quantile(np.array([-math.inf, 1.0, math.inf]), 0.25) == math.inf
    assert conformal_quantile(np.array([-math.inf, 1.0, math.inf]), 0.5) == 1.0


def test_nan_has_no_rank():
    with pytest.raises(UndefinedScore, match="1 of 3 scores are NaN"):
        conformal_quantile(np.array([0.0, math.nan, 1.0]), 0.5)


@pytest.mark.parametrize("alpha", [0.0, 1.0, -0.1, 1.5, math.nan])
def test_alpha_lies_strictly_between_0_and_1(alpha):
    with pytest.raises(BadLevel, match="strictly between 0 and 1"):
        conformal_quantile(np.arange(3.0), alpha)


def test_a_level_of_almost_nothing_still_has_a_rank():
    assert conformal_rank(24, 1 - 1e-12) == 1
