"""Node sums: the temperature of a softmax against root finding over single voxels."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from scipy.optimize import brentq

from segcal_cli.calibration.canonical import log_probabilities
from segcal_cli.calibration.nodes import Curves, NodeSums, added, best_temperatures, node_sums
from segcal_cli.core.scores import log_softmax
from segcal_cli.core.volume import Stored

FIT = np.load(Path(__file__).parent / "fixtures" / "fit.npz")


def curves(sums: NodeSums) -> Curves:
    squares = None if sums.squares is None else sums.squares[np.newaxis]
    return Curves(sums.d[np.newaxis], np.array([sums.label_gap]), np.array([float(sums.voxels)]), squares)


def exact_temperature(logits: np.ndarray, labels: np.ndarray) -> float:
    """T of least NLL: the root of its derivative in 1/T over all voxels."""
    of_label = np.take_along_axis(logits, labels[np.newaxis].astype(int), axis=0)[0]

    def slope(beta: float) -> float:
        return float(((np.exp(log_softmax(beta * logits)) * logits).sum(axis=0) - of_label).mean())

    return 1 / brentq(slope, 1 / 20, 20, xtol=1e-14)


def drawn(voxels: int, classes: int = 4, scale: float = 1.0) -> tuple[np.ndarray, np.ndarray]:
    rng = np.random.default_rng(3)
    logits = rng.normal(0, 2.5, (classes, voxels))
    labels = (0.5 * logits + rng.gumbel(size=logits.shape)).argmax(axis=0)
    return logits * scale, labels


def test_temperature_and_nll_of_the_reference_set():
    found = curves(node_sums(log_softmax(FIT["fit_Z"].T), FIT["fit_Y"], squares=False, single=False))
    best = best_temperatures(found, "nll")
    assert best[0] == pytest.approx(2.0875118294, abs=1e-6)
    assert found.nll(best)[0] == pytest.approx(0.9996443447, abs=1e-9)


@pytest.mark.parametrize("scale", [0.25, 1.0, 4.0])
@pytest.mark.parametrize("single", [False, True])
def test_temperature_is_that_of_all_voxels_at_any_scale(scale: float, single: bool):
    logits, labels = drawn(100_000, scale=scale)
    found = curves(node_sums(log_softmax(logits), labels, squares=False, single=single))
    assert best_temperatures(found, "nll")[0] == pytest.approx(exact_temperature(logits, labels), rel=1e-6)


def test_the_loss_between_nodes_is_that_of_all_voxels():
    logits, labels = drawn(5000)
    found = curves(node_sums(log_softmax(logits), labels, squares=True, single=False))
    onehot = np.eye(4)[labels].T
    for t in (0.07, 0.5, 1.0, 1.3, 17.0):
        log_p = log_softmax(logits / t)
        assert found.nll(np.array([t]))[0] == pytest.approx(-(log_p * onehot).sum() / 5000, rel=1e-7)
        exact = ((np.exp(log_p) - onehot) ** 2).sum() / 5000
        assert found.brier(np.array([t]))[0] == pytest.approx(exact, rel=1e-6)


def test_float64_probabilities_and_logits_of_one_model_have_the_same_temperature():
    logits, labels = drawn(5000)
    p = np.exp(log_softmax(logits))
    logs = [log_softmax(logits), log_probabilities(p, "probabilities", Stored("float64"))]
    found = [best_temperatures(curves(node_sums(l, labels, squares=False, single=False)), "nll")[0] for l in logs]  # noqa: E741
    assert found[1] == pytest.approx(found[0], rel=1e-6)


def test_brier_has_its_own_best_temperature():
    logits, labels = drawn(5000)
    found = curves(node_sums(log_softmax(logits), labels, squares=True, single=False))
    best = best_temperatures(found, "brier")
    around = [found.brier(best * f)[0] for f in (0.99, 1.0, 1.01)]
    assert around[1] == min(around)


def test_sums_of_parts_are_the_sums_of_the_whole():
    logits, labels = drawn(1000)
    logs = log_softmax(logits)
    whole = node_sums(logs, labels, squares=True, single=False)
    parts = added(
        [node_sums(logs[:, s], labels[s], squares=True, single=False) for s in (slice(300), slice(300, None))]
    )
    np.testing.assert_allclose(parts.d, whole.d, rtol=1e-12)
    np.testing.assert_allclose(parts.squares, whole.squares, rtol=1e-12)
    assert parts.label_gap == pytest.approx(whole.label_gap, rel=1e-12)
    assert parts.voxels == 1000


def test_labels_that_always_win_drive_the_temperature_to_its_lower_bound():
    logits, _ = drawn(500)
    found = curves(node_sums(log_softmax(logits), logits.argmax(axis=0), squares=False, single=False))
    assert best_temperatures(found, "nll")[0] == pytest.approx(1 / 20)


def test_labels_that_always_lose_drive_it_to_its_upper_bound():
    logits, _ = drawn(500)
    found = curves(node_sums(log_softmax(logits), logits.argmin(axis=0), squares=False, single=False))
    assert best_temperatures(found, "nll")[0] == pytest.approx(20.0)
