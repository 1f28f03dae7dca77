"""Optima: every convex method against an optimiser of another library, on all voxels at once, to 1e-5 in NLL."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from scipy.optimize import minimize, minimize_scalar
from sklearn.linear_model import LogisticRegression

from segcal_cli.calibration import patients
from segcal_cli.calibration.spec import FitSpec
from segcal_cli.core.case import Case
from tests.calibration.builders_cases import case_of, regions
from tests.calibration.test_fit import run
from tests.calibration.test_recipes import scans

NLL_TOLERANCE = 1e-5

SPEC = FitSpec(split_kind="held-out", folds=0, summary=False)


@pytest.fixture(autouse=True)
def _few_resamples(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(patients, "RESAMPLES", 5)


def region_scans() -> list[Case]:
    """A whole and its core, from scans of three classes."""
    cases = []
    for case in scans(3):
        wide = case.volume.array.astype(np.float64)
        odds = [np.logaddexp(wide[1], wide[2]) - wide[0], wide[2] - np.logaddexp(wide[0], wide[1])]
        labels = np.stack([case.labels.codes > 0, case.labels.codes == 2])
        cases.append(case_of(np.stack(odds), labels, regions({1, 2}, {2}), name=case.id))
    return cases


def flat(cases: list[Case]) -> tuple[np.ndarray, np.ndarray]:
    """float64 stored logits and bool truth, both "channel voxel", of all cases."""
    arrays = [case.volume.array.reshape(len(case.volume.array), -1) for case in cases]
    truth = [case.labels.members[:, case.labels.codes.reshape(-1)] for case in cases]
    return np.concatenate(arrays, axis=1).astype(np.float64), np.concatenate(truth, axis=1)


def log_softmax(z: np.ndarray) -> np.ndarray:
    z = z - z.max(axis=0)
    return z - np.log(np.exp(z).sum(axis=0))


def against_rest(z: np.ndarray) -> np.ndarray:
    logs = log_softmax(z)
    return np.stack([row - np.log(np.delete(np.exp(logs), c, axis=0).sum(axis=0)) for c, row in enumerate(logs)])


def binary_nll(u: np.ndarray, y: np.ndarray) -> float:
    return float(np.mean(np.logaddexp(0.0, u) - y * u))


def problems(kind: str) -> tuple[list[Case], np.ndarray, np.ndarray]:
    """Cases, log-odds and truth "problem voxel"."""
    cases = {"one": lambda: scans(1), "three": lambda: scans(3), "regions": region_scans}[kind]()
    z, y = flat(cases)
    return cases, against_rest(z) if kind == "three" else z, y


@pytest.mark.parametrize("kind", ["one", "three", "regions"])
def test_platt_is_the_logistic_regression_of_scikit_learn(kind: str):
    cases, z, y = problems(kind)
    result = run(cases, replace(SPEC, method="platt"))
    best = []
    for name, odds, truth in zip(result.space.names, z, y, strict=True):
        other = LogisticRegression(C=np.inf, tol=1e-10, max_iter=1000).fit(odds[:, None], truth)
        assert result.parameters["a"][name] == pytest.approx(other.coef_[0, 0], abs=1e-4)
        assert result.parameters["b"][name] == pytest.approx(other.intercept_[0], abs=1e-4)
        best.append(binary_nll(other.coef_[0, 0] * odds + other.intercept_[0], truth))
    assert result.objective["nll_after"] == pytest.approx(np.mean(best), abs=NLL_TOLERANCE)


@pytest.mark.parametrize("kind", ["one", "regions"])
def test_the_temperature_of_log_odds_is_that_of_a_bounded_search(kind: str):
    cases, z, y = problems(kind)
    result = run(cases, SPEC)
    found = [
        minimize_scalar(lambda b, u=u, t=t: binary_nll(b * u, t), bounds=(0.05, 20), method="bounded",
                        options={"xatol": 1e-10})
        for u, t in zip(z, y, strict=True)
    ]  # fmt: skip
    assert result.objective["nll_after"] == pytest.approx(np.mean([one.fun for one in found]), abs=NLL_TOLERANCE)
    told = result.parameters["temperature"]
    told = list(told.values()) if isinstance(told, dict) else [told]
    np.testing.assert_allclose(told, [1.0 / one.x for one in found], rtol=1e-5)


def test_the_temperature_of_a_softmax_is_that_of_a_bounded_search():
    cases = scans(3)
    z, y = flat(cases)
    found = minimize_scalar(
        lambda b: -float(log_softmax(b * z)[y].sum()) / z.shape[1], bounds=(0.05, 20), method="bounded",
        options={"xatol": 1e-10},
    )  # fmt: skip
    result = run(cases, SPEC)
    assert result.objective["nll_after"] == pytest.approx(found.fun, abs=NLL_TOLERANCE)
    assert result.parameters["temperature"] == pytest.approx(1.0 / found.x, rel=1e-5)


def neighbourhoods(cases: list[Case], *, exclusive: bool) -> np.ndarray:
    """float64 "problem tap voxel": 5 x 5 windows of each slice, edges repeated, by numpy's own windows."""
    parts = []
    for case in cases:
        z = case.volume.array.astype(np.float64)
        z = log_softmax(z) if exclusive else z
        windows = np.lib.stride_tricks.sliding_window_view(
            np.pad(z, ((0, 0), (0, 0), (2, 2), (2, 2)), mode="edge"), (5, 5), axis=(2, 3)
        )
        parts.append(windows.reshape(len(z), -1, 25).transpose(0, 2, 1))
    return np.concatenate(parts, axis=2)


@pytest.mark.parametrize("kind", ["one", "three", "regions"])
def test_auxiliary_reaches_the_optimum_of_quasi_newton_steps_on_all_windows(kind: str):
    cases, _, y = problems(kind)
    x = neighbourhoods(cases, exclusive=kind == "three")
    count, voxels = len(x), x.shape[2]

    def loss(theta: np.ndarray) -> tuple[float, np.ndarray]:
        w = theta.reshape(count, 26)
        u = np.einsum("ct,ctv->cv", w[:, :-1], x) + w[:, -1:]
        if kind == "three":
            logs = log_softmax(u)
            value, left = -float(logs[y].sum()) / voxels, np.exp(logs) - y
        else:
            value, left = binary_nll(u, y), (1.0 / (1.0 + np.exp(-u)) - y) / count
        slope = np.concatenate([np.einsum("cv,ctv->ct", left, x), left.sum(axis=1)[:, None]], axis=1) / voxels
        return value, slope.ravel()

    start = np.zeros((count, 26))
    start[:, 12] = 1.0
    other = minimize(loss, start.ravel(), jac=True, method="L-BFGS-B", options={"maxiter": 5000, "gtol": 1e-9})
    result = run(cases, replace(SPEC, method="auxiliary", refine=40))
    # The ridge of 1e-6 is no part of what the other optimiser minimises, and costs far less than the tolerance.
    assert result.objective["nll_after"] == pytest.approx(other.fun, abs=NLL_TOLERANCE)
    assert result.objective["gradient"] <= 1e-8


def beta_fit(z: np.ndarray, y: np.ndarray) -> np.ndarray:
    """float64 a, b, c of least NLL with a, b >= 0, by quasi-Newton steps on all voxels."""
    x = np.stack([-np.logaddexp(0.0, -z), np.logaddexp(0.0, z), np.ones_like(z)])  # log p, -log(1 - p), 1

    def loss(theta: np.ndarray) -> tuple[float, np.ndarray]:
        u = theta @ x
        return binary_nll(u, y), x @ (1.0 / (1.0 + np.exp(-u)) - y) / y.size

    bounds = [(0.0, None), (0.0, None), (None, None)]
    start = np.array([1.0, 1.0, 0.0])
    return minimize(loss, start, jac=True, method="L-BFGS-B", bounds=bounds, options={"gtol": 1e-10, "ftol": 1e-15}).x


def beta_nll(row: np.ndarray, z: np.ndarray, y: np.ndarray) -> float:
    return binary_nll(-row[0] * np.logaddexp(0.0, -z) + row[1] * np.logaddexp(0.0, z) + row[2], y)


@pytest.mark.parametrize("kind", ["one", "three", "regions"])
def test_beta_is_that_of_quasi_newton_steps_within_bounds(kind: str):
    cases, z, y = problems(kind)
    result = run(cases, replace(SPEC, method="beta"))
    best = []
    for name, odds, truth in zip(result.space.names, z, y, strict=True):
        other = beta_fit(odds, truth)
        np.testing.assert_allclose([result.parameters[key][name] for key in "abc"], other, atol=2e-3)
        best.append(beta_nll(other, odds, truth))
    assert result.objective["nll_after"] == pytest.approx(np.mean(best), abs=NLL_TOLERANCE)


@pytest.mark.parametrize("method", ["temperature", "platt", "beta"])
def test_a_calibrator_that_regions_share_is_that_of_all_their_voxels_together(method: str):
    cases, z, y = problems("regions")
    result = run(cases, replace(SPEC, method=method, scope="shared"))
    odds, truth = z.reshape(-1), y.reshape(-1)
    if method == "beta":
        best = beta_nll(beta_fit(odds, truth), odds, truth)
    elif method == "platt":
        other = LogisticRegression(C=np.inf, tol=1e-10, max_iter=1000).fit(odds[:, None], truth)
        best = binary_nll(other.coef_[0, 0] * odds + other.intercept_[0], truth)
    else:
        best = minimize_scalar(
            lambda b: binary_nll(b * odds, truth), bounds=(0.05, 20), method="bounded", options={"xatol": 1e-10}
        ).fun
    assert result.objective["nll_after"] == pytest.approx(best, abs=NLL_TOLERANCE)
    assert len({tuple(row) for row in result.calibrator.rows}) == 1


@pytest.mark.parametrize("method", ["vector", "matrix", "dirichlet"])
def test_linear_maps_of_a_softmax_are_those_of_quasi_newton_steps(method: str):
    """On the raw logits for matrix, on their log-softmax for the others; the default penalty of Dirichlet is theirs."""
    cases = scans(3)
    z, y = flat(cases)
    x = np.vstack([z if method == "matrix" else log_softmax(z), np.ones(z.shape[1])])
    penalty = 1e-6 if method == "dirichlet" else 0.0

    def loss(theta: np.ndarray) -> tuple[float, np.ndarray]:
        w = np.concatenate([np.diag(theta[:3]), theta[3:, None]], axis=1) if method == "vector" else theta.reshape(3, 4)
        logs = log_softmax(w @ x)
        slope = (np.exp(logs) - y) @ x.T / z.shape[1]
        off = w[:, :3] - np.diag(np.diag(w[:, :3]))
        value = -float(logs[y].sum()) / z.shape[1] + penalty * ((off**2).sum() / 6 + (w[:, 3] ** 2).sum() / 3)
        slope += penalty * 2 * np.concatenate([off / 6, w[:, 3:] / 3], axis=1)
        return value, np.concatenate([np.diag(slope[:, :3]), slope[:, 3]]) if method == "vector" else slope.ravel()

    start = np.array([1.0, 1.0, 1.0, 0.0, 0.0, 0.0]) if method == "vector" else np.eye(3, 4).ravel()
    other = minimize(loss, start, jac=True, method="L-BFGS-B", options={"maxiter": 5000, "gtol": 1e-10, "ftol": 1e-15})
    result = run(cases, replace(SPEC, method=method, refine=20))
    assert result.objective["after"] == pytest.approx(other.fun, abs=NLL_TOLERANCE)
    assert result.objective["gradient"] <= 1e-8
