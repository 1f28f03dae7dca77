"""Sketches: bins, sums, and optima against Newton over single voxels."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from segcal_cli.calibration import platt, temperature
from segcal_cli.calibration.canonical import log_odds
from segcal_cli.calibration.likelihood import LOSSES, sigmoid, softplus
from segcal_cli.calibration.method import BRIER, NLL
from segcal_cli.calibration.sketch import BINS, MIDDLES, bin_of, moments_of, sketch_of, table_of
from segcal_cli.core.volume import Stored
from tests.calibration.builders_cases import space_of

FIT = np.load(Path(__file__).parent / "fixtures" / "fit.npz")


def per_voxel_newton(z: np.ndarray, y: np.ndarray, start: tuple[float, float], *, offset: bool) -> np.ndarray:
    """(a, b) of least NLL by Newton over all voxels, float64; b stays 0 without offset."""
    theta = np.array(start)
    design = np.stack([z, np.ones_like(z) if offset else np.zeros_like(z)])
    for _ in range(50):
        p = sigmoid(theta @ design)
        gradient = design @ (p - y)
        hessian = (design * (p * (1 - p))) @ design.T + (0 if offset else np.diag([0.0, 1.0]))
        step = np.linalg.solve(hessian, gradient)
        theta = theta - step
        if np.abs(step).max() < 1e-13:
            break
    return theta


def mean_nll(z: np.ndarray, y: np.ndarray, theta: np.ndarray) -> float:
    u = theta[0] * z + theta[1]
    return float((softplus(u) - y * u).mean())


def test_there_are_3328_bins():
    assert BINS == 3328
    assert MIDDLES.shape == (3328,)
    assert (np.diff(MIDDLES) > 0).all()


def test_bins_are_closed_on_the_right_and_mirror_each_other():
    inner = np.arange(-1024, 1025) / 64
    outer = 16.0 * 2.0 ** np.repeat(np.arange(10), 64) * (1 + np.tile(np.arange(64), 10) / 64)
    edges = np.concatenate([-outer[:0:-1], inner, outer[1:]])
    rng = np.random.default_rng(0)
    z = np.concatenate([edges, rng.normal(0, 1, 5000) * 10.0 ** rng.uniform(-3, 5, 5000)])
    assert (bin_of(z) == np.searchsorted(edges, z, side="left")).all()


def test_zero_lies_in_a_negative_bin_because_it_is_no_detection():
    assert MIDDLES[bin_of(np.zeros(1))][0] < 0


def test_sums_by_bin_give_back_the_sums_of_all_voxels():
    z, y = FIT["fit_z"] * 9, FIT["fit_y"].astype(bool)
    n, d, dd, positives, yd = table_of(z, y)
    assert n.sum() == 4000
    assert positives.sum() == y.sum()
    np.testing.assert_allclose((d + n * MIDDLES).sum(), z.sum(), rtol=1e-12)
    np.testing.assert_allclose((yd + positives * MIDDLES).sum(), z[y].sum(), rtol=1e-12)
    np.testing.assert_allclose(dd.sum(), ((z - MIDDLES[bin_of(z)]) ** 2).sum(), rtol=1e-12)


def test_sparse_and_dense_tables_are_the_same():
    table = table_of(FIT["fit_z"], FIT["fit_y"].astype(bool))
    sketch = sketch_of(table)
    assert (sketch.dense() == table).all()
    assert sketch.voxels == 4000
    assert sketch.positives == FIT["fit_y"].sum()


def test_temperature_and_platt_of_the_reference_set():
    moments = moments_of(table_of(FIT["fit_z"], FIT["fit_y"].astype(bool))[np.newaxis])
    rows = temperature.solve(moments, NLL)
    assert rows[0, 0] == pytest.approx(2.2014442559, abs=1e-6)
    assert temperature.loss_of(moments, rows, NLL)[0] == pytest.approx(0.5079243439, abs=1e-9)
    rows = platt.solve(moments, NLL)
    np.testing.assert_allclose(rows[0], [0.5333824887, 0.4115134287], atol=1e-6)
    assert platt.loss_of(moments, rows, NLL)[0] == pytest.approx(0.4973587988, abs=1e-9)
    assert np.abs(platt.gradient_of(moments, rows, NLL)).max() <= 1e-8


@pytest.mark.parametrize("scale", [0.3, 1.0, 2.2, 6.0, 10.0])
def test_optima_are_those_of_all_voxels_at_any_scale_of_the_logits(scale: float):
    rng = np.random.default_rng(1)
    z = rng.normal(-2, 3, 200_000)
    y = rng.random(z.size) < sigmoid(0.8 * z + 0.4)
    z = z * scale
    moments = moments_of(table_of(z, y)[np.newaxis])
    slope = 0.8 / scale
    exact = per_voxel_newton(z, y, (slope, 0.0), offset=False)
    found = temperature.solve(moments, NLL)
    assert found[0, 0] == pytest.approx(1 / exact[0], rel=1e-6)
    assert temperature.loss_of(moments, found, NLL)[0] == pytest.approx(mean_nll(z, y, exact), rel=1e-9)
    exact = per_voxel_newton(z, y, (slope, 0.4), offset=True)
    found = platt.solve(moments, NLL)
    np.testing.assert_allclose(found[0], exact, rtol=1e-6)
    assert platt.loss_of(moments, found, NLL)[0] == pytest.approx(mean_nll(z, y, exact), rel=1e-9)


@pytest.mark.parametrize("loss", ["nll", "brier"])
def test_gradients_are_the_slopes_of_the_losses(loss: str):
    moments = moments_of(table_of(FIT["fit_z"] * 3, FIT["fit_y"].astype(bool))[np.newaxis])
    theta, h = np.array([[0.3, 0.2]]), 1e-6
    gradient = LOSSES[loss](moments, theta).gradient[0]
    for i in range(2):
        step = np.eye(2)[i : i + 1] * h
        slope = (LOSSES[loss](moments, theta + step).value - LOSSES[loss](moments, theta - step).value) / (2 * h)
        assert gradient[i] == pytest.approx(slope[0], rel=1e-6, abs=1e-8)


def test_brier_is_that_of_all_voxels_and_its_optimum_beats_that_of_nll():
    z, y = FIT["fit_z"], FIT["fit_y"].astype(bool)
    moments = moments_of(table_of(z, y)[np.newaxis])
    by_brier, by_nll = platt.solve(moments, BRIER), platt.solve(moments, NLL)
    assert platt.loss_of(moments, by_brier, BRIER)[0] < platt.loss_of(moments, by_nll, BRIER)[0]
    exact = ((sigmoid(by_brier[0, 0] * z + by_brier[0, 1]) - y) ** 2).mean()
    assert platt.loss_of(moments, by_brier, BRIER)[0] == pytest.approx(exact, rel=1e-4)
    assert np.abs(platt.gradient_of(moments, by_brier, BRIER)).max() <= 1e-8


def test_logits_up_to_ten_thousand_do_not_overshoot():
    rng = np.random.default_rng(2)
    z = rng.normal(0, 1, 20_000)
    y = rng.random(z.size) < sigmoid(z)
    moments = moments_of(table_of(z * 3000, y)[np.newaxis])
    assert temperature.solve(moments, NLL)[0, 0] == 20.0  # its bound: the truth is 3000
    rows = platt.solve(moments, NLL)
    assert np.abs(platt.gradient_of(moments, rows, NLL)).max() <= 1e-8
    assert 1 / rows[0, 0] == pytest.approx(3000, rel=0.05)


def test_float64_probabilities_and_logits_of_one_model_have_the_same_temperature():
    y, space, stored = FIT["fit_y"].astype(bool), space_of(1, "sigmoid"), Stored("float64")
    z = log_odds(sigmoid(FIT["fit_z"])[np.newaxis], "probabilities", stored, space)[0]
    found = [temperature.solve(moments_of(table_of(x, y)[np.newaxis]), NLL)[0, 0] for x in (FIT["fit_z"], z)]
    assert found[1] == pytest.approx(found[0], rel=1e-6)


def test_several_problems_at_once_have_the_optima_of_each():
    tables = np.stack([table_of(FIT["fit_z"] * s, FIT["fit_y"].astype(bool)) for s in (0.5, 1.0, 4.0)])
    together = platt.solve(moments_of(tables), NLL)
    alone = np.concatenate([platt.solve(moments_of(table[np.newaxis]), NLL) for table in tables])
    np.testing.assert_allclose(together, alone, rtol=1e-9)


def test_a_temperature_settles_although_the_offset_that_it_does_not_have_would_not():
    """The slope along the held offset grows while that along 1/T vanishes; it must not end the descent early."""
    for seed in range(20):
        rng = np.random.default_rng(seed)
        z = rng.normal(-0.5, 3.0, 2000)
        y = rng.random(2000) < 1.0 / (1.0 + np.exp(-0.3 - 0.5 * z))
        moments = moments_of(table_of(z, y)[np.newaxis])
        rows = temperature.solve(moments, NLL)
        assert np.abs(temperature.gradient_of(moments, rows, NLL)).max() <= 1e-10
