"""Codes: the same integers on every machine, in the order of the scores."""

import numpy as np
import pytest

from segcal_cli.kandinsky.codes import (
    INFINITE,
    codes_of_odds,
    score_codes,
    score_interval,
    smallest_probability,
    true_codes,
)


def of_probabilities(*p):
    return score_codes(np.array([p], np.float32), "probabilities", 0, exclusive=False).tolist()


def test_certainty_even_odds_and_impossibility_have_the_codes_of_the_definition():
    assert of_probabilities(1.0, 0.5, 0.0) == [0, 32768, 65535]


def test_multiples_of_a_2048th_all_get_different_codes_in_falling_order():
    codes = of_probabilities(*(np.arange(2049) / 2048))
    assert len(set(codes)) == 2049
    assert codes == sorted(codes, reverse=True)


def test_probabilities_next_to_one_are_told_apart():
    assert len(set(of_probabilities(1 - 2**-24, 1 - 2**-23, 1 - 2**-20, 0.9999))) == 4


def test_the_interval_of_a_code_holds_its_score_and_neighbours_touch():
    p = np.random.default_rng(0).random(500).astype(np.float32)
    for value, code in zip(p, of_probabilities(*p), strict=True):
        low, high = score_interval(code)
        assert low <= (1 - float(value)) + 1e-7
        assert 1 - float(value) < high + 1e-7
        assert score_interval(code + 1)[0] == high


def test_the_infinite_code_admits_every_probability():
    assert score_interval(INFINITE) == (float("inf"), float("inf"))
    assert smallest_probability(INFINITE) == 0.0


def test_logits_and_their_softmax_differ_by_at_most_one_code():
    z = np.random.default_rng(1).normal(0, 4, (4, 3000)).astype(np.float32)
    p = np.exp(z.astype(np.float64) - z.max(0))
    p = (p / p.sum(0)).astype(np.float32)
    for channel in range(4):
        a = score_codes(z, "logits", channel, exclusive=True).astype(int)
        b = score_codes(p, "probabilities", channel, exclusive=True).astype(int)
        assert np.abs(a - b)[p[channel] < 0.99].max() <= 1


def test_a_constant_added_to_all_logits_of_a_voxel_changes_nothing():
    """Multiples of 1/64 and a whole constant: sums are exact in float32."""
    z = np.round(np.random.default_rng(2).normal(0, 4, (3, 400)) * 64) / 64
    shifted = (z + np.random.default_rng(3).integers(-50, 50, 400)).astype(np.float32)
    for channel in range(3):
        assert np.array_equal(
            score_codes(z.astype(np.float32), "logits", channel, exclusive=True),
            score_codes(shifted, "logits", channel, exclusive=True),
        )


@pytest.mark.parametrize(("values", "exclusive"), [("logits", True), ("probabilities", True), ("logits", False)])
def test_codes_at_chosen_voxels_are_those_of_the_whole(values, exclusive):
    array = np.random.default_rng(4).random((3, 100)).astype(np.float32)
    where = np.array([0, 5, 99])
    whole = score_codes(array, values, 1, exclusive=exclusive)
    assert np.array_equal(true_codes(array, values, 1, where, exclusive=exclusive), whole[where])


def test_sigmoid_logits_have_the_odds_of_their_own_channel():
    z = np.array([[-3.0, 0.0, 2.0], [9.0, 9.0, 9.0]], np.float32)
    assert np.array_equal(score_codes(z, "logits", 0, exclusive=False), codes_of_odds(np.exp(-z[0])))
