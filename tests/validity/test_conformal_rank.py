"""The promise behind every conformal threshold: a new score is covered with probability k / (n + 1)."""

import numpy as np
import pytest
from scipy.stats import binomtest, kstest

from segcal_cli.core.conformal import conformal_quantile, conformal_rank

STUDIES = 4000


@pytest.mark.validity
@pytest.mark.parametrize(("n", "alpha"), [(9, 0.1), (19, 0.1), (50, 0.1), (100, 0.05), (6, 0.32)])
def test_a_new_score_is_covered_with_probability_k_over_n_plus_1(n, alpha):
    """Continuous scores: exactly k/(n+1). Two-sided binomial test; false alarm 1e-4 a case over seeds."""
    draws = np.random.default_rng(20260101).exponential(size=(STUDIES, n + 1))
    covered = sum(row[n] <= conformal_quantile(row[:n], alpha) for row in draws)
    assert binomtest(int(covered), STUDIES, conformal_rank(n, alpha) / (n + 1)).pvalue > 1e-4


@pytest.mark.validity
def test_ties_only_help():
    """Scores on five values: coverage at least 1 - alpha. One-sided binomial test; false alarm 1e-4 over seeds."""
    draws = np.random.default_rng(20260102).integers(0, 5, size=(STUDIES, 31)).astype(float)
    covered = sum(row[30] <= conformal_quantile(row[:30], 0.1) for row in draws)
    assert binomtest(int(covered), STUDIES, 0.9, alternative="less").pvalue > 1e-4


@pytest.mark.validity
def test_the_coverage_of_one_threshold_is_beta_distributed():
    """Given its n scores, a threshold covers Beta(k, n + 1 - k). Kolmogorov-Smirnov; false alarm 1e-4 over seeds."""
    draws = np.random.default_rng(20260103).uniform(size=(STUDIES, 40))
    coverages = [conformal_quantile(row, 0.1) for row in draws]
    k = conformal_rank(40, 0.1)
    assert kstest(coverages, "beta", args=(k, 41 - k)).pvalue > 1e-4
