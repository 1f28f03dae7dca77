"""KDE-ECE against the published implementation."""

from __future__ import annotations

import numpy as np
import pytest
from scipy import stats
from scipy.special import logsumexp

from segcal_cli.core.scores import Scores
from segcal_cli.metrics.kde import BANDWIDTHS, case_kde_ece, kde_ece, likeliest_bandwidth
from tests.metrics.builders_measures import REFERENCE, binary_case

P = REFERENCE["bin_prob"][0].ravel()[:600]
Y = REFERENCE["bin_label"][0].ravel()[:600]


@pytest.mark.parametrize("h", ["0.01", "0.05", "0.1"])
def test_it_is_half_the_value_of_the_published_code(h):
    assert 2 * kde_ece(P, Y, float(h)) == pytest.approx(REFERENCE[f"ece_kde.bin0_first600.L1.h{h}"], abs=1e-5)


def test_the_likeliest_bandwidth_narrows_as_probabilities_cluster():
    rng = np.random.default_rng(0)
    spread, clustered = rng.random(300), np.repeat(rng.random(10), 30) + rng.normal(scale=1e-3, size=300)
    assert likeliest_bandwidth(clustered) < likeliest_bandwidth(spread)
    assert likeliest_bandwidth(spread) in BANDWIDTHS


@pytest.mark.parametrize("digits", [2, 15])
@pytest.mark.parametrize("middle", [-14.0, -4.0, 0.0])
def test_the_likeliest_bandwidth_is_that_of_every_voxel_against_all_others(middle, digits):
    p = np.round(1 / (1 + np.exp(-np.random.default_rng(0).normal(middle, 3, 120))), digits)
    at = np.clip(p, 1e-6, 1 - 1e-6)[:, None]
    likelihood = []
    for h in BANDWIDTHS:
        density = stats.beta.logpdf(at, at.T / h + 1, (1 - at.T) / h + 1)
        np.fill_diagonal(density, -np.inf)
        likelihood.append(logsumexp(density, axis=1).sum())
    assert likeliest_bandwidth(p) == BANDWIDTHS[int(np.argmax(likelihood))]


def test_a_sample_of_a_case_depends_on_seed_and_case_alone():
    case = binary_case(P, Y)
    source = lambda raw: Scores(raw, False, 2.0**-149, 2.0**-25)  # noqa: E731
    first, again, other = (case_kde_ece(case, source, sample=200, bandwidth=0.1, seed=s) for s in (0, 0, 1))
    assert first == again != other
    assert case_kde_ece(case, source, bandwidth=0.1)["lesion"] == kde_ece(P, Y, 0.1)
