"""Resplits against a plain loop, bands, grids."""

import numpy as np
import pytest

from segcal_cli.confidence.validation import alpha_grid, band_of, coverage_of, resplit_coverages, summarised
from segcal_cli.core.conformal import conformal_quantile, conformal_rank
from segcal_cli.metrics.coverage import share_moments, two_sided


@pytest.mark.parametrize("tied", [False, True])
def test_resplits_are_those_of_a_plain_loop(tied):
    rng = np.random.default_rng(0)
    pooled = rng.integers(0, 6, 60).astype(float) if tied else rng.normal(size=60)
    alphas = (0.01, 0.1, 0.25, 0.5)
    found = resplit_coverages(pooled, 25, alphas, 50, seed=3)
    ordered = np.sort(pooled)
    marks = np.zeros((50, 60), bool)
    marks[:, :25] = True
    chosen = np.random.default_rng(3).permuted(
        np.resize(np.r_[np.ones(25, bool), np.zeros(35, bool)], (max(1, (1 << 22) // 60), 60))[:50], axis=1
    )
    for row, mark in zip(found, chosen, strict=True):
        expected = [(ordered[~mark] <= conformal_quantile(ordered[mark], a)).mean() for a in alphas]
        assert row.tolist() == pytest.approx(expected)


def test_resplits_without_ties_have_the_mean_and_spread_of_the_law():
    pooled = np.random.default_rng(1).normal(size=349)
    found = summarised(resplit_coverages(pooled, 149, (0.1,), 1000, 0), (0.1,), 149, 200)
    assert found.law_mean[0] == pytest.approx(0.9)
    assert found.law_sd[0] == pytest.approx(0.0323, abs=1e-4)
    assert abs(found.mean[0] - 0.9) < 0.004
    assert share_moments(200, 149, 150) == (1.0, 0.0)


def test_the_grid_has_round_levels():
    grid = alpha_grid(0.01, 0.5, 0.01)
    assert (len(grid), grid[0], grid[6], grid[-1]) == (50, 0.01, 0.07, 0.5)


def test_a_tied_threshold_has_no_two_sided_p():
    covered = np.repeat([True, False], [90, 10])
    k = conformal_rank(99, 0.1)
    assert coverage_of("inner", covered, 0.1, 99, k).p_two == two_sided(90, 100, 99, k) == 1.0
    assert coverage_of("inner", covered, 0.1, 99, k, tied=True).p_two is None
    assert coverage_of("inner", covered, 0.1, 99, None).expected is None
    assert coverage_of("inner", covered[:0], 0.1, 99, k).p_low is None


def test_bands_of_false_coverage_hold_alpha():
    low, high = band_of(200, 149, conformal_rank(149, 0.1))
    assert low < 0.1 < high
    assert band_of(0, 149, 135) == (None, None)
