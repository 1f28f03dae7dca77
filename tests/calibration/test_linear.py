"""Vector, matrix and Dirichlet scaling: optima of independent code on all voxels, samples, exact passes, refusals."""

from __future__ import annotations

import json
import pickle
from dataclasses import replace

import numpy as np
import pytest
from scipy.optimize import minimize

from segcal_cli.calibration.affine import features, identity, shape_of
from segcal_cli.calibration.linear import Voxels, sums_of
from segcal_cli.calibration.registry import UnknownMethod
from segcal_cli.core.scores import log_softmax
from segcal_cli.core.volume import Stored
from tests.calibration.builders_cases import case_of, softmax_cases, space_of
from tests.calibration.test_fit import QUIET, reference_case, run

VECTOR = replace(QUIET, method="vector")


def all_voxels(cases, method):
    x = [features(method, c.volume.array.reshape(len(c.volume.array), -1), "logits", Stored("float32")) for c in cases]
    y = np.concatenate([c.labels.codes.reshape(-1) for c in cases])
    return np.concatenate(x, axis=1), y


def mean_nll(weights, x, y):
    u = weights[:, :-1] @ x + weights[:, -1:]
    return float(-log_softmax(u)[y, np.arange(y.size)].mean())


def weights_of(result):
    classes = len(result.space.channels)
    return result.calibrator.rows.reshape(classes, classes + 1)


def test_vector_reaches_the_reference_parameters():
    result = run([reference_case("softmax")], VECTOR)
    np.testing.assert_allclose(
        result.parameters["a"], [0.4748573961, 0.472102599, 0.5258959494, 0.4743826947], atol=1e-5
    )
    np.testing.assert_allclose(result.parameters["b"], [0, -0.3092251079, 0.2316569486, 0.1545789763], atol=1e-5)
    assert result.objective["after"] == pytest.approx(0.9890146007, abs=1e-8)  # float32 logits
    assert result.objective["gradient"] <= 1e-8


@pytest.mark.parametrize(
    ("method", "odir"), [("vector", 1e-6), ("matrix", 1e-6), ("dirichlet", 1e-6), ("dirichlet", 0.0)]
)
@pytest.mark.parametrize("voxels", [100, 20_000])
def test_samples_and_exact_passes_reach_the_optimum_of_an_independent_optimiser(method: str, odir: float, voxels: int):
    cases = softmax_cases(4, 2000, 0, classes=3)
    spec = replace(QUIET, method=method, voxels=voxels, refine=12, folds=0)
    result = run(cases, replace(spec, odir=odir) if method == "dirichlet" else spec)
    x, y = all_voxels(cases, method)
    shape = shape_of(method, odir, np.ones(3, dtype=bool))
    free = shape.start[shape.free]
    other = minimize(
        lambda t: mean_nll(shape.full(t), x, y) + shape.penalty(shape.full(t)),
        free,
        method="BFGS",
        options={"gtol": 1e-9},
    )
    found = weights_of(result)
    reached = mean_nll(found, x, y) + shape.penalty(found)
    # BFGS stops short of 1e-10 along the directions that only the penalty bends.
    assert other.fun - 2e-9 <= reached <= other.fun + 1e-10
    assert result.objective["after"] == pytest.approx(reached, abs=1e-12)
    assert result.objective["before"] == pytest.approx(mean_nll(shape.start, x, y), abs=0.01 if odir else 1e-10)
    np.testing.assert_allclose(log_softmax(found[:, :-1] @ x), log_softmax(shape.full(other.x)[:, :-1] @ x), atol=2e-3)


def test_without_exact_passes_the_optimum_of_the_sample_is_close():
    cases = softmax_cases(4, 30_000, 1, classes=3)
    exact = run(cases, replace(VECTOR, folds=0, summary=False))
    sampled = run(cases, replace(VECTOR, folds=0, summary=False, voxels=20_000, refine=0))
    x, y = all_voxels(cases, "vector")
    assert mean_nll(weights_of(sampled), x, y) - mean_nll(weights_of(exact), x, y) == pytest.approx(0.0, abs=1e-4)
    assert sampled.passes == 1
    assert exact.passes > 2


@pytest.mark.parametrize("method", ["vector", "matrix", "dirichlet"])
def test_shards_merged_in_any_order_and_threads_give_the_same_bytes(method: str):
    cases, spec = softmax_cases(7, 500, 0), replace(QUIET, method=method, voxels=100, refine=2)
    serial, sharded = run(cases, spec), run(cases[::-1], spec, shards=3, threads=2)
    assert json.dumps(serial.results()) == json.dumps(sharded.results())
    assert all(serial.arrays[name].tobytes() == sharded.arrays[name].tobytes() for name in serial.arrays)
    assert serial.passes == 4


def test_matrix_needs_logits_and_says_what_fits_probabilities():
    case = reference_case("softmax")
    p = np.exp(log_softmax(case.volume.array)).astype(np.float32)
    soft = replace(case, volume=replace(case.volume, array=p, values="probabilities"))
    with pytest.raises(UnknownMethod, match=r"--method matrix does not fit probabilities; .*dirichlet"):
        run([soft], replace(QUIET, method="matrix"))


@pytest.mark.parametrize("method", ["vector", "dirichlet"])
def test_probabilities_and_logits_of_one_model_have_the_same_weights(method: str):
    case = reference_case("softmax")
    p = np.exp(log_softmax(case.volume.array)).astype(np.float32)
    soft = replace(case, volume=replace(case.volume, array=p, values="probabilities"))
    spec = replace(QUIET, method=method)
    np.testing.assert_allclose(weights_of(run([soft], spec)), weights_of(run([case], spec)), atol=1e-4)


@pytest.mark.parametrize("method", ["vector", "matrix", "dirichlet"])
@pytest.mark.parametrize("absent", [0, 2])
def test_a_class_that_no_case_holds_stays_as_it_is(method: str, absent: int):
    cases = []
    for case in softmax_cases(3, 900, 0, classes=3):
        codes = case.labels.codes.reshape(-1).copy()
        codes[codes == absent] = 1
        cases.append(replace(case_of(case.volume.array, codes, space_of(3)), id=case.id, group=case.group))
    result = run(cases, replace(QUIET, method=method, folds=0))
    assert f"c{absent}: no voxel of it in any case; left as it is" in result.warnings
    np.testing.assert_array_equal(weights_of(result)[absent], identity(method, 3, 1e-6)[absent])
    assert np.isfinite(weights_of(result)).all()
    assert result.objective["after"] < result.objective["before"]


def test_weight_case_counts_a_small_case_like_a_large_one():
    large, small = softmax_cases(1, 6000, 0, scale=0.3)[0], softmax_cases(1, 500, 1, scale=1.0)[0]
    cases = [large, replace(small, id="small", group="small")]
    by_voxel, by_case = run(cases, VECTOR), run(cases, replace(VECTOR, weight="case"))
    assert np.mean(by_case.parameters["a"]) > np.mean(by_voxel.parameters["a"]) + 0.05


def test_a_pass_travels_to_workers_without_the_samples():
    from segcal_cli.calibration.fit import CalibrationFit

    cases = softmax_cases(3, 4000, 0)
    step = CalibrationFit(VECTOR, cases[0].space, "logits")
    state = step.empty()
    for case in cases:
        state = step.update(state, case)
    refinement = step.finish(state)
    assert len(pickle.dumps(refinement)) > 300_000
    assert len(pickle.dumps(refinement.for_update())) < 3000


def test_gradient_and_curvature_are_those_of_the_loss():
    rng = np.random.default_rng(0)
    for exclusive, sets in ((True, 1), (True, 3), (False, 3)):
        x = rng.normal(size=(sets, 4, 50))
        y = rng.integers(0, 3, 50)
        truth = np.eye(3, dtype=bool)[:, y] if exclusive else rng.random((3, 50)) < 0.4
        voxels = Voxels(x, truth, rng.random(50))
        weights, step = rng.normal(size=(3, 5)), 1e-6
        exact = sums_of(weights, voxels, exclusive=exclusive, curvature=True)
        for c in range(3):
            for j in range(5):
                moved = np.zeros((3, 5))
                moved[c, j] = step
                up, down = (sums_of(weights + s * moved, voxels, exclusive=exclusive, curvature=False) for s in (1, -1))
                assert exact.gradient[c, j] == pytest.approx((up.value - down.value) / (2 * step), abs=1e-6)
                np.testing.assert_allclose(exact.curvature[c, j], (up.gradient - down.gradient) / (2 * step), atol=1e-6)


@pytest.mark.parametrize("method", ["vector", "matrix", "dirichlet", "auxiliary"])
def test_where_no_class_occurs_beside_the_background_all_stays_as_it_is(method: str):
    cases = [
        replace(case, labels=replace(case.labels, codes=np.zeros_like(case.labels.codes)))
        for case in softmax_cases(4, 200, 0, classes=3)
    ]
    result = run(cases, replace(QUIET, method=method, dim=2, folds=2))
    assert result.objective["nll_after"] == pytest.approx(result.objective["nll_before"], rel=1e-12)
    assert result.objective["gradient"] == 0.0
    for name, why in (("c0", "every voxel belongs to it"), ("c1", "no voxel of it in any case")):
        assert any(text.startswith(f"{name}: {why}") for text in result.warnings)
