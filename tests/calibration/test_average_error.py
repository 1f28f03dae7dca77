"""The soft average calibration error as a loss: its value, its slope, and what fits to it find."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch

from segcal_cli.calibration import beta, patients, platt, temperature
from segcal_cli.calibration.average_error import ACE_LOSSES, SketchedError, soft_ace
from segcal_cli.calibration.method import NLL, Aim
from segcal_cli.calibration.sketch import moments_of, table_of
from segcal_cli.calibration.spec import FitSpec
from segcal_cli.losses import ACELoss
from tests.calibration.builders_cases import binary_cases, case_of, softmax_cases, space_of
from tests.calibration.test_fit import run
from tests.calibration.test_recipes import scans

METHODS = {"temperature": temperature, "platt": platt, "beta": beta}


@pytest.fixture(autouse=True)
def _few_resamples(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(patients, "RESAMPLES", 50)


def of_loss(p: np.ndarray, y: np.ndarray) -> float:
    """Soft ACE of voxels, by the training loss. p, y: "class voxel"."""
    loss = ACELoss(20, binning="soft", activation="identity")
    return float(loss(torch.from_numpy(p)[None], torch.from_numpy(y.astype(np.float64))[None]))


def sigmoid(u: np.ndarray) -> np.ndarray:
    return 1.0 / (1.0 + np.exp(-u))


def voxels(count: int = 20_000) -> tuple[np.ndarray, np.ndarray]:
    """Log-odds and labels that no line in log-odds makes agree."""
    rng = np.random.default_rng(3)
    z = rng.normal(-1.0, 3.0, count)
    return z, rng.random(count) < sigmoid(0.6 * z - 0.4 + 0.3 * np.sin(z))


def test_the_error_of_single_voxels_is_that_of_the_training_loss():
    rng = np.random.default_rng(0)
    p, y = rng.random(5000) ** 3, rng.random(5000) < 0.3
    p[:4] = (0.0, 1.0, 0.025, 0.975)  # both ends, and the outermost centres
    found = soft_ace(p, np.ones(p.size), p[y], np.ones(int(y.sum())), p.size)
    assert found.value == pytest.approx(of_loss(p[None], y[None]), abs=1e-12)


def test_the_slope_is_that_of_differences():
    z, y = voxels(2000)
    moments = moments_of(table_of(z, y)[np.newaxis])
    error = SketchedError(moments, platt.features(moments.c[0]), platt.features(moments.label_mean[0]))
    at, step = np.array([0.71, -0.33]), 1e-7
    slopes = [(error(at + step * d) - error(at - step * d)) / (2 * step) for d in np.eye(2)]
    np.testing.assert_allclose(error.gradient(at), slopes, atol=1e-6)


@pytest.mark.parametrize(
    "method", [name if name == "beta" else pytest.param(name, marks=pytest.mark.slow) for name in METHODS]
)
def test_a_fit_reaches_the_least_error_that_a_global_search_over_all_voxels_finds(method: str):
    """Oracle: differential evolution on the single voxels, by the training loss. Sketch: within 3e-4."""
    from scipy.optimize import differential_evolution

    z, y = voxels(4000)
    module = METHODS[method]
    moments = moments_of(table_of(z, y)[np.newaxis])
    row = module.METHOD.solve(moments, Aim("soft-ace"))[0]

    def error(parameters: np.ndarray) -> float:
        return of_loss(sigmoid(module.METHOD.log_odds(np.asarray(parameters), z))[None], y[None])

    bounds = {"temperature": [(0.3, 5.0)], "platt": [(0.1, 2), (-2, 2)], "beta": [(0.0, 2), (0.0, 2), (-2, 2)]}[method]
    found = differential_evolution(error, bounds, seed=0, maxiter=25, popsize=10, tol=1e-8)
    assert error(row) <= found.fun + 3e-4
    assert error(row) < error(module.METHOD.solve(moments, NLL)[0])


def test_a_softmax_temperature_has_the_least_error_of_a_grid_over_all_voxels():
    """Within 3e-5: the error has valleys that are narrower than the places that are looked at."""
    cases = softmax_cases(3, 1500, 0, scale=0.5)
    result = run(cases, FitSpec(split_kind="held-out", loss="soft-ace"))
    logits = np.concatenate([case.volume.array.reshape(4, -1) for case in cases], axis=1).astype(np.float64)
    truth = np.concatenate([case.labels.codes.reshape(-1) for case in cases])[None] == np.arange(4)[:, None]

    def error(t: float) -> float:
        power = np.exp((logits - logits.max(axis=0)) / t)
        return of_loss(power / power.sum(axis=0), truth)

    t = result.parameters["temperature"]
    assert error(t) == pytest.approx(result.objective["after"], abs=1e-9)
    assert error(t) <= min(error(x) for x in np.geomspace(1.0, 4.0, 200)) + 3e-5
    assert result.objective["nll_after"] < result.objective["nll_before"]
    assert result.interval == {"temperature": None}


def test_the_weight_moves_the_optimum_from_that_of_the_likelihood_to_that_of_the_error():
    cases = binary_cases(4, 2000, 1)
    spec = FitSpec(split_kind="held-out", method="platt", folds=0)

    def slope(**options: object) -> float:
        return run(cases, replace(spec, **options)).parameters["a"]["c0"]

    ends = slope(loss="nll"), slope(loss="soft-ace")
    assert slope(loss="nll+ace", ace_weight=1e-9) == pytest.approx(ends[0], abs=1e-4)
    assert slope(loss="nll+ace", ace_weight=1e9) == pytest.approx(ends[1], abs=1e-4)


def test_a_temperature_far_from_the_likeliest_is_said():
    rng = np.random.default_rng(0)
    cases = []
    for i in range(4):  # the many sure voxels are right, the few others far too sure
        z = np.concatenate([rng.choice([-1.0, 1.0], 4000) * 9.0, rng.normal(scale=2.0, size=100)])
        y = rng.random(z.size) < sigmoid(np.where(np.abs(z) > 8.0, z, 0.05 * z))
        cases.append(case_of(z[np.newaxis], y[np.newaxis], space_of(1, "sigmoid"), name=f"case{i}"))
    said = run(cases, FitSpec(split_kind="held-out", loss="soft-ace")).warnings
    assert any("that of least NLL" in text and "rare middle probabilities" in text for text in said)


@pytest.mark.parametrize("loss", ACE_LOSSES)
def test_shards_give_the_same_fit(loss: str):
    cases = softmax_cases(5, 800, 0)
    spec = FitSpec(split_kind="held-out", loss=loss)
    assert run(cases, spec).results() == run(cases, spec, shards=3).results()


@pytest.mark.parametrize(
    ("loss", "words"), [("soft-ace", "soft ACE"), ("nll+ace", "NLL and soft ACE"), ("brier", "Brier score")]
)
def test_the_guarantee_names_what_was_minimised(loss: str, words: str):
    result = run(scans(1), FitSpec(split_kind="held-out", loss=loss, folds=0))
    assert f" by {words}; no finite-sample guarantee." in result.guarantee
