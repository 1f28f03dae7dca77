"""Counting: oracles on random inputs, invariants, and sums that float32 cannot hold."""

from __future__ import annotations

import dataclasses

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn.metrics import brier_score_loss, log_loss
from torchmetrics.functional.classification import binary_calibration_error, multiclass_calibration_error

from segcal_cli.core.scores import Scores
from segcal_cli.metrics import counting, measures
from segcal_cli.metrics.cells import CellGrid
from segcal_cli.metrics.counting import BlockCounter
from segcal_cli.metrics.likelihood import most_probable, sum_of_logs
from segcal_cli.metrics.measures import Settings, measure_case
from tests.metrics.builders_measures import binary_case, measured, random_softmax, softmax_case

SIZES = st.integers(2, 400)
SEEDS = st.integers(0, 2**32 - 1)
SPREADS = st.sampled_from([0.3, 2.0, 8.0, 20.0])


def binary(seed, size, spread):
    """float32 probabilities, off the edges of 20 bins and never 0 or 1, and truths; both classes are there."""
    rng = np.random.default_rng(seed)
    p = (1.0 / (1.0 + np.exp(-rng.normal(scale=spread, size=size)))).clip(1e-6, 1 - 1e-6).astype(np.float32)
    y = rng.integers(0, 2, size)
    y[:2] = 0, 1
    return p, y


@settings(max_examples=200, deadline=None)
@given(SEEDS, SIZES, SPREADS)
def test_brier_and_log_loss_equal_scikit_learn(seed, size, spread):
    p, y = binary(seed, size, spread)
    row = measured(binary_case(p, y)).classes["lesion"]
    wide = p.astype(np.float64)
    assert row["brier"] == pytest.approx(brier_score_loss(y, wide), abs=1e-12)
    assert row["nll"] == pytest.approx(log_loss(y, np.stack([1 - wide, wide], axis=1)), abs=1e-12)


@settings(max_examples=200, deadline=None)
@given(SEEDS, SIZES, SPREADS)
def test_ece_and_mce_equal_torchmetrics_off_the_edges(seed, size, spread):
    p, y = binary(seed, size, spread)
    row = measured(binary_case(p, y)).classes["lesion"]
    for key, norm in (("ece", "l1"), ("mce", "max")):
        other = binary_calibration_error(torch.from_numpy(p), torch.from_numpy(y), n_bins=20, norm=norm)
        assert row[key] == pytest.approx(float(other), abs=1e-6)


@settings(max_examples=50, deadline=None)
@given(SEEDS, SIZES, st.integers(3, 6))
def test_top_label_ece_equals_the_multiclass_one_of_torchmetrics(seed, size, classes):
    rng = np.random.default_rng(seed)
    p, y = random_softmax(rng, classes, size), rng.integers(0, classes, size)
    top = measured(softmax_case(p, y)).all["top_ece"]
    other = multiclass_calibration_error(
        torch.from_numpy(p.T.copy()), torch.from_numpy(y), num_classes=classes, n_bins=20
    )
    assert top == pytest.approx(float(other), abs=1e-6)


@settings(max_examples=50, deadline=None)
@given(SEEDS, SIZES, SPREADS, st.sampled_from(["right", "left"]))
def test_invariants_of_every_case(seed, size, spread, closed):
    p, y = binary(seed, size, spread)
    coarse = measured(binary_case(p, y), Settings(bins=10, closed=closed)).classes["lesion"]
    fine = measured(binary_case(p, y), Settings(bins=50, closed=closed)).classes["lesion"]
    for row in (coarse, fine):
        assert abs(row["volume_bias"]) <= row["ece"] + 1e-12
        assert 0.0 <= row["ace"] <= row["mce"]
        for score in ("brier", "nll"):
            assert row[f"{score}_mcb"] >= -1e-5  # the isotonic fit is on cells, the score on voxels
            total = row[f"{score}_mcb"] - row[f"{score}_dsc"] + row[f"{score}_unc"]
            assert total == pytest.approx(row[score], abs=1e-12)
    assert coarse["ece"] <= fine["ece"] + 1e-12


def same(a, b, tolerance=1e-12):
    assert a.keys() == b.keys()
    for key in a:
        assert a[key] == (None if b[key] is None else pytest.approx(b[key], abs=tolerance)), key


@pytest.mark.parametrize("spread", [1.0, 10.0])
def test_order_axes_and_blocks_of_voxels_change_nothing(spread, monkeypatch):
    rng = np.random.default_rng(11)
    p, y = random_softmax(rng, 3, 24 * 25 * 26, spread), rng.integers(0, 3, 24 * 25 * 26)
    volume, labels = p.reshape(3, 24, 25, 26), y.reshape(24, 25, 26)
    whole = measured(softmax_case(volume, labels))
    order = rng.permutation(y.size)
    shuffled = measured(softmax_case(p[:, order], y[order]))
    turned = measured(softmax_case(volume.transpose(0, 3, 1, 2), labels.transpose(2, 0, 1)))
    monkeypatch.setattr(measures, "BLOCK_VOXELS", 777)
    monkeypatch.setattr(counting, "PIECE_VOXELS", 100)
    cut = measured(softmax_case(p, y))
    for other in (shuffled, turned, cut):
        same(whole.all, other.all)
        for name, row in whole.classes.items():
            same(row, other.classes[name])


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
@pytest.mark.parametrize("closed", ["right", "left"])
@pytest.mark.parametrize("spread", [1.0, 12.0])
def test_certain_voxels_are_counted_as_the_general_way_counts_them(dtype, closed, spread):
    """Every cell, against one plain pass over single voxels in float64, whichever voxels were the certain ones."""
    rng = np.random.default_rng(12)
    p = random_softmax(rng, 4, 5000, spread).astype(dtype)
    codes = np.where(rng.random(5000) < 0.9, p.argmax(axis=0), rng.integers(0, 4, 5000)).astype(np.uint8)
    grid = CellGrid(20, closed)
    counter = BlockCounter(grid, np.eye(4, dtype=bool), (0, 1, 2, 3), exclusive=True, argmax=True)
    counts = counter.count(Scores(p, True, 2.0**-149, 2.0**-25), codes, None)
    wide = p.astype(np.float64)
    for c in range(4):
        others = [o for o in range(4) if o != c]
        q = wide[others].sum(axis=0)
        index = grid.uniform_bin(wide[c])
        low, high = np.minimum(geometric(wide[c]), 237), np.minimum(geometric(q), 237)
        cell = np.where(index == 0, low, np.where(index == 1199, 1673 - high, index + 237))
        np.testing.assert_array_equal(counts.n[c], np.bincount(cell, minlength=1674))
        np.testing.assert_array_equal(counts.hits[c], np.bincount(cell[codes == c], minlength=1674))
        np.testing.assert_allclose(counts.p[c], np.bincount(cell, wide[c], 1674), rtol=1e-12, atol=1e-12)
        nll = -np.log(np.where(codes == c, np.maximum(wide[c], 2.0**-149), np.maximum(q, 2.0**-149))).sum()
        assert counts.sums[c, 1] == pytest.approx(nll, rel=1e-6)
        assert counts.sums[c, 0] == pytest.approx(((wide[c] - (codes == c)) ** 2).sum(), rel=1e-12)


def geometric(q):
    f, e = np.frexp(np.maximum(q, 2.0**-40))
    return 8 * (e + 39) + np.floor(8 * (2 * f - 1)).astype(int)


def test_the_running_maximum_is_argmax():
    p = np.random.default_rng(13).integers(0, 3, (5, 1000)).astype(np.float32)
    best, decision = most_probable(p)
    np.testing.assert_array_equal(decision, p.argmax(axis=0))
    np.testing.assert_array_equal(best, p.max(axis=0))


@pytest.mark.parametrize("size", [0, 1, 63, 64, 1000])
def test_a_logarithm_of_products_is_the_sum_of_logarithms(size):
    rng = np.random.default_rng(14)
    values = np.where(rng.random(size) < 0.2, 2.0 ** -rng.uniform(0, 149, size), rng.random(size))
    assert sum_of_logs(values) == pytest.approx(np.log(values).sum(), rel=1e-13)


def test_forty_million_small_probabilities_are_summed_exactly():
    """p near 5e-4: a float32 sum stops at 2^24 voxels and is wrong by a factor of 16; the exact sum is of integers."""
    block, times = 1 << 20, 40
    steps = np.random.default_rng(15).integers(1, 1 << 13, block)
    p = (steps * 2.0**-23).astype(np.float32)  # every multiple of 2^-23 is exact in float32
    case = binary_case(np.broadcast_to(p, (times, block)), np.zeros((times, block)))
    row = measured(case).classes["lesion"]
    exact = int(steps.sum()) * times * 2.0**-23 / (times * block)
    assert row["n_voxels"] == times * block
    assert row["ece"] == pytest.approx(exact, abs=1e-9)
    assert row["ece"] == pytest.approx(exact, rel=1e-12)


def test_two_sources_share_nothing_that_one_could_change():
    rng = np.random.default_rng(16)
    case = binary_case(rng.random(500).astype(np.float32), rng.integers(0, 2, 500))
    source = lambda raw: Scores(raw, False, 2.0**-149, 2.0**-25)  # noqa: E731
    before = case.volume.array.copy()
    found = measure_case(case, {"a": source, "b": source}, Settings())
    assert found["a"].classes == found["b"].classes
    np.testing.assert_array_equal(case.volume.array, before)
    assert dataclasses.is_dataclass(found["a"])
