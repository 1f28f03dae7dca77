"""Samples of voxels: their size, their weights, what they depend on."""

from __future__ import annotations

import numpy as np
import pytest

from segcal_cli.calibration.sampling import draw, generator, unsure


def test_few_voxels_are_all_taken_with_weight_one():
    indices, weights = draw(np.ones(7), 7, generator(0, "a"))
    assert indices.tolist() == list(range(7))
    assert weights.tolist() == [1.0] * 7


def test_a_sample_has_its_size_and_no_voxel_twice():
    worth = np.random.default_rng(0).exponential(size=5000) ** 3
    indices, weights = draw(worth, 400, generator(0, "a"))
    assert 399 <= len(np.unique(indices)) == len(indices) <= 400
    assert weights.min() >= 1.0


def test_weighted_sums_are_unbiased():
    """Mean of 400 estimates against the sum itself, four standard errors: false alarm 6e-5."""
    rng = np.random.default_rng(1)
    worth, values = rng.exponential(size=2000), rng.normal(3.0, 1.0, 2000)
    sums = []
    for seed in range(400):
        indices, weights = draw(worth + 0.1, 150, generator(seed, "a"))
        sums.append((weights * values[indices]).sum())
    assert abs(np.mean(sums) - values.sum()) <= 4.0 * np.std(sums) / 20.0


def test_a_draw_depends_on_the_seed_and_the_case_alone():
    worth = np.random.default_rng(0).random(1000)
    first = draw(worth, 100, generator(3, "case"))[0]
    np.testing.assert_array_equal(first, draw(worth, 100, generator(3, "case"))[0])
    assert not np.array_equal(first, draw(worth, 100, generator(4, "case"))[0])
    assert not np.array_equal(first, draw(worth, 100, generator(3, "other"))[0])


def test_a_voxel_is_worth_most_where_the_model_is_least_sure():
    assert unsure(np.array([[0.5], [0.5]]), exclusive=True)[0] == pytest.approx(0.5**0.5 + 0.01)
    assert unsure(np.array([[1.0], [0.0]]), exclusive=True)[0] == pytest.approx(0.01)
    assert unsure(np.array([[0.5]]), exclusive=False)[0] == pytest.approx(0.501)
