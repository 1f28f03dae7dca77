"""What intervals, bands and tests promise, simulated.

Each bound lies at least 3.5 binomial standard errors from the rate of a right implementation, so over seeds a bound
fails with probability below 5e-4; the seed is fixed.
"""

from __future__ import annotations

import numpy as np
import pytest

from segcal_cli.metrics.bands import consistency_band
from segcal_cli.metrics.calibration_errors import BinTable
from segcal_cli.metrics.comparison import wilcoxon
from segcal_cli.metrics.intervals import bootstrap_t, resample

STUDIES = 2000


@pytest.mark.validity
def test_the_interval_of_a_macro_mean_covers_it_in_95_of_100_studies():
    """20 patients, gamma-distributed errors. Every study is a measure of its own on the same resamples."""
    errors = np.random.default_rng(0).gamma(2.0, size=(20, STUDIES))
    low, high = bootstrap_t(errors, resample(20, 2000, seed=0))
    assert 0.930 <= ((low <= 2.0) & (high >= 2.0)).mean() <= 0.968


@pytest.mark.validity
def test_the_consistency_band_raises_5_false_alarms_in_100():
    """30 patients whose frequency in a bin of p = 0.3 is Beta(2.4, 5.6): calibrated on average, correlated within."""
    rng = np.random.default_rng(0)
    alarms = 0
    for study in range(STUDIES):
        n = np.full(1, 200)
        frequency = rng.beta(0.3 * 8, 0.7 * 8, 30)
        hits = rng.binomial(200, frequency)
        band = consistency_band([BinTable(n, np.array([h]), 0.3 * n) for h in hits], seed=study)
        shift = (hits.sum() - 0.3 * 200 * 30) / (200 * 30)
        alarms += not band.low[0] <= shift <= band.high[0]
    assert 0.03 <= alarms / STUDIES <= 0.08


@pytest.mark.validity
def test_equal_sources_are_called_different_in_5_of_100_studies():
    """20 patients, the same gamma-distributed errors for both sources."""
    errors = np.random.default_rng(0).gamma(2.0, size=(STUDIES, 2, 20))
    found = np.mean([wilcoxon(a - b) < 0.05 for a, b in errors])
    assert 0.03 <= found <= 0.068
