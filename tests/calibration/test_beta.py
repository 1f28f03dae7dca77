"""Beta calibration: the optimum of independent code, held slopes, the map."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from scipy.optimize import minimize

from segcal_cli.calibration import beta, platt
from segcal_cli.calibration.method import BRIER, NLL
from segcal_cli.calibration.sketch import moments_of, table_of

FIT = np.load(Path(__file__).parent / "fixtures" / "fit.npz")


def mean_nll(row: np.ndarray, z: np.ndarray, y: np.ndarray) -> float:
    u = beta.log_odds(row, z)
    return float((np.logaddexp(0.0, u) - y * u).mean())


def test_the_reference_parameters():
    moments = moments_of(table_of(FIT["fit_z"], FIT["fit_y"].astype(bool))[np.newaxis])
    rows = beta.solve(moments, NLL)
    np.testing.assert_allclose(rows[0], [0.4758434078, 0.6705517264, 0.2262944181], atol=1e-5)
    assert mean_nll(rows[0], FIT["fit_z"], FIT["fit_y"]) == pytest.approx(0.4967988532, abs=1e-9)
    assert beta.loss_of(moments, rows, NLL)[0] == pytest.approx(0.4967988532, abs=1e-7)
    assert np.abs(beta.gradient_of(moments, rows, NLL)).max() <= 1e-8


@pytest.mark.parametrize("scale", [0.3, 1.0, 4.0])
def test_the_optimum_is_that_of_an_independent_optimiser_on_all_voxels(scale: float):
    rng = np.random.default_rng(0)
    z = scale * rng.normal(-1.0, 3.0, 30_000)
    truth = np.array([0.7, 0.3, -0.4]) / [scale, scale, 1.0]
    y = rng.random(z.size) < 1.0 / (1.0 + np.exp(-beta.log_odds(truth, z)))
    found = beta.solve(moments_of(table_of(z, y)[np.newaxis]), NLL)[0]
    other = minimize(mean_nll, found * 0.8, (z, y), method="Nelder-Mead", options={"xatol": 1e-9, "fatol": 1e-13})
    assert mean_nll(found, z, y) == pytest.approx(other.fun, abs=1e-8)
    np.testing.assert_allclose(found, other.x, atol=1e-4 * max(1.0, np.abs(other.x).max()))


def test_a_negative_slope_is_held_at_zero_where_the_others_are_best():
    rng = np.random.default_rng(1)
    z = rng.normal(0.0, 2.0, 20_000)
    y = rng.random(z.size) < 1.0 / (1.0 + np.exp(-beta.log_odds(np.array([-0.3, 0.8, 0.2]), z)))
    moments = moments_of(table_of(z, y)[np.newaxis])
    row = beta.solve(moments, NLL)[0]
    assert row[0] == 0.0
    held = minimize(lambda t: mean_nll(np.array([0.0, *t]), z, y), [0.5, 0.0], method="BFGS")
    np.testing.assert_allclose(row[1:], held.x, atol=1e-4)
    assert np.abs(beta.gradient_of(moments, row[np.newaxis], NLL)).max() <= 1e-8


def test_equal_slopes_are_platt_scaling():
    z = np.linspace(-30.0, 30.0, 101)
    row = np.array([0.7, 0.7, -0.2])
    np.testing.assert_allclose(beta.log_odds(row, z), platt.log_odds(np.array([0.7, -0.2]), z), rtol=1e-12)
    assert beta.cut_of(row) == pytest.approx(0.2 / 0.7)


def test_the_gradients_are_those_of_the_losses():
    moments = moments_of(table_of(FIT["fit_z"], FIT["fit_y"].astype(bool))[np.newaxis])
    row, step = np.array([[0.4, 0.9, 0.1]]), 1e-5
    for aim in (NLL, BRIER):
        numeric = [
            (beta.loss_of(moments, row + e, aim) - beta.loss_of(moments, row - e, aim))[0] / (2 * step)
            for e in step * np.eye(3)
        ]
        np.testing.assert_allclose(beta.gradient_of(moments, row, aim)[0], numeric, atol=1e-8)


def test_a_map_that_never_reaches_one_half_has_no_cut():
    assert beta.cut_of(np.array([0.5, 0.0, -0.1])) is None
