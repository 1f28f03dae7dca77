"""Log-odds and predicted masks, from logits and from stored probabilities."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from segcal_cli.confidence.log_odds import LOG_ODDS_CLIP, full_log_odds, log_odds, predicted_masks
from segcal_cli.confidence.targets import Target

TWO = (Target("b", (1,)), Target("bc", (1, 2)))


def logits(seed=0, classes=4, shape=(3, 5, 7), scale=6.0):
    return (np.random.default_rng(seed).normal(size=(classes, *shape)) * scale).astype(np.float32)


def test_a_union_is_logsumexp_of_its_channels_minus_that_of_the_rest():
    z = logits().astype(np.float64)
    expected = np.log(np.exp(z[1]) + np.exp(z[2])) - np.log(np.exp(z[0]) + np.exp(z[3]))
    assert np.allclose(log_odds(logits(), "logits", TWO, exclusive=True)[1], expected, rtol=1e-13)


def test_a_constant_added_to_all_logits_of_a_voxel_changes_no_digit_that_counts():
    offset = np.random.default_rng(1).integers(-64, 64, size=(3, 5, 7)).astype(np.float32)
    plain = np.round(logits() * 8) / 8
    assert np.allclose(
        log_odds(plain + offset, "logits", TWO, exclusive=True), log_odds(plain, "logits", TWO, exclusive=True)
    )


def test_probabilities_are_summed_over_stored_channels_and_never_subtracted_from_one():
    p = np.array([[1e-12], [1.0], [2e-12]], np.float32)
    found = log_odds(p, "probabilities", (Target("b", (1,)),), exclusive=True)[0, 0]
    assert found == pytest.approx(-np.log(3e-12), rel=1e-6)


def test_exact_zeros_and_ones_land_at_the_clip():
    p = np.array([[0.0, 1.0], [1.0, 0.0]], np.float32)
    assert log_odds(p, "probabilities", (Target("b", (1,)),), exclusive=True)[0].tolist() == [100.0, -100.0]
    single = np.array([[0.0, 1.0, 0.25]], np.float32)
    found = log_odds(single, "probabilities", (Target("a", (0,)),), exclusive=False)[0]
    assert found.tolist() == [-LOG_ODDS_CLIP, LOG_ODDS_CLIP, np.log(0.25) - np.log1p(-0.25)]


def test_slabs_give_the_digits_of_the_whole():
    z = logits(shape=(40, 70, 90))
    whole = log_odds(z, "logits", TWO, exclusive=True)
    assert np.array_equal(full_log_odds(z, "logits", TWO[1], exclusive=True), whole[1])


@given(st.integers(0, 2**32 - 1))
def test_the_predicted_mask_is_argmax_with_the_first_maximum(seed):
    z = np.random.default_rng(seed).integers(0, 3, size=(3, 2, 4, 4)).astype(np.float32)
    found = predicted_masks(z, "logits", TWO, exclusive=True)
    winner = z.argmax(axis=0)
    assert np.array_equal(found[0], winner == 1)
    assert np.array_equal(found[1], winner > 0)


def test_the_predicted_mask_of_a_region_is_log_odds_above_zero():
    z = np.array([[[[-1.0, 0.0, 1e-6]]]], np.float32)
    assert predicted_masks(z, "logits", (Target("a", (0,)),), exclusive=False).tolist() == [[[[False, False, True]]]]
    p = np.array([[[[0.4, 0.5, 0.6]]]], np.float32)
    assert predicted_masks(p, "probabilities", (Target("a", (0,)),), exclusive=False)[0, 0, 0].tolist() == [
        False, False, True,
    ]  # fmt: skip
