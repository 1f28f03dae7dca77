"""Drift, outliers and estimated weights."""

import numpy as np
import pytest

from segcal_cli.confidence.drift import batch_p_values, drift_json, outlier, stream_p_values, stream_test, tie_breaks
from segcal_cli.confidence.weighting import LARGEST_RATIO, estimated_weights
from segcal_cli.metrics.coverage import BadWeight, check_weights, effective_sample_size


def test_tie_breaks_hang_on_seed_case_and_feature_alone():
    one, two = tie_breaks(0, ["a", "b"], ["x", "y"]), tie_breaks(0, ["b", "c"], ["y"])
    assert one[1, 1] == two[0, 0]
    assert tie_breaks(1, ["a"], ["x"])[0, 0] != one[0, 0]
    assert ((one >= 0) & (one < 1)).all()


def test_a_stream_is_ranked_among_everything_before_it():
    p = stream_p_values(np.array([[1.0], [2.0]]), np.array([[3.0], [0.0], [3.0]]), np.full((3, 1), 0.5))
    assert p[:, 0].tolist() == [0.5 / 3, 3.5 / 4, (0.5 * 2) / 5]


def test_a_stream_without_scans_has_its_capital_untouched():
    report = drift_json(["x"], stream_test(np.empty((0, 1))), None, 0)
    assert (report["alarm"], report["mean_capital"], report["features"][0]["capital"]) == (False, 1.0, 1.0)


def test_a_case_far_from_all_others_has_the_smallest_p_and_names_the_feature():
    rng = np.random.default_rng(0)
    calibration = rng.normal(size=(99, 3))
    assert outlier(calibration, np.array([0.0, 50.0, 0.0])) == (0.01, 1)
    assert outlier(calibration, np.zeros(3))[0] > 0.5


def test_a_shifted_batch_shows_in_the_feature_that_moved():
    rng = np.random.default_rng(1)
    p = batch_p_values(rng.normal(size=(80, 2)), rng.normal(loc=(0.0, 2.0), size=(60, 2)))
    assert p[0] > 0.05 > 1e-6 > p[1]


def test_estimated_weights_follow_the_density_ratio_of_a_shift():
    """N(0, 1) to N(0.7, 1): the log ratio is 0.7 x - 0.245."""
    rng = np.random.default_rng(2)
    old, new = rng.normal(size=(3000, 1)), rng.normal(size=(3000, 1)) + 0.7
    weights, of_new = estimated_weights(old, new)
    slope, start = np.polyfit(old[:, 0], np.log(weights), 1)
    assert slope == pytest.approx(0.7, abs=0.08)
    assert start == pytest.approx(-0.245, abs=0.08)
    assert of_new.shape == (3000,)


def test_estimated_weights_are_clipped_and_survive_a_constant_feature():
    old, new = np.zeros((50, 2)), np.ones((50, 2))
    old[:, 1] = np.linspace(0, 1, 50)
    new[:, 1] = np.linspace(40, 41, 50)
    weights, of_new = estimated_weights(old, new)
    assert weights.min() >= 1 / LARGEST_RATIO
    assert of_new.max() == LARGEST_RATIO


def test_the_effective_number_hangs_on_ratios_of_weights_alone():
    assert effective_sample_size(np.ones(7)) == 7
    assert effective_sample_size(np.array([1e300, 1e-300])) == 1
    assert effective_sample_size(np.full(5, 1e-300)) == 5


def test_weights_that_are_no_ratios():
    for weights in ([1.0, -1.0], [np.nan, 1.0], [0.0, 0.0]):
        with pytest.raises(BadWeight):
            check_weights(np.array(weights))
