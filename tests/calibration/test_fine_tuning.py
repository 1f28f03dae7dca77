"""Fine-tuning of the last layer: its optimum, the layer in the network's own layout, what it refuses."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch
from scipy.optimize import minimize

from segcal_cli.calibration import statistics
from segcal_cli.calibration.canonical import kind_of
from segcal_cli.calibration.equipment import Equipment, LastLayer
from segcal_cli.calibration.fine_tuning import (
    RIDGE,
    FeaturesNeeded,
    FineTuneModel,
    LayerNeeded,
    NotOneModel,
    OtherLayer,
    layer_with,
    problem_weights,
    tuned,
)
from segcal_cli.calibration.fit import CalibrationFit
from segcal_cli.calibration.linear import Voxels, sums_of
from segcal_cli.calibration.result import calibrator_from, layer_from
from segcal_cli.core.estimator import Estimator
from segcal_cli.core.scores import log_softmax
from segcal_cli.core.volume import Box
from tests.calibration.builders_cases import case_of, regions, space_of
from tests.calibration.test_fit import QUIET, artifact_of

FEATURES = 5
SPEC = replace(QUIET, method="fine-tune", folds=2, refine=12)
SPACES = [space_of(1, "sigmoid"), space_of(2), space_of(4), regions({1, 2}, {2})]
NAMES = ["channel", "two", "softmax", "regions"]


def layer_of(space, seed: int = 5) -> LastLayer:
    rng = np.random.default_rng(seed)
    channels = len(space.channels)
    return LastLayer(
        rng.normal(size=(channels, FEATURES)).astype(np.float32), rng.normal(size=channels).astype(np.float32)
    )


def featured_cases(space, n: int = 4, shape=(2, 9, 10), *, values="logits", dtype=np.float32, seed: int = 0, **more):
    """Cases whose logits are the layer's, and whose labels are drawn from another, milder one."""
    rng, layer = np.random.default_rng(seed), layer_of(space)
    better = 0.5 * layer.weight + 0.3 * np.random.default_rng(8).normal(size=layer.weight.shape)
    cases = []
    for i in range(n):
        f = rng.normal(size=(FEATURES, *shape)).astype(dtype)
        logits = np.tensordot(layer.weight, f.astype(np.float32), 1) + layer.bias[:, None, None, None]
        true = np.tensordot(better, f.astype(np.float64), 1).reshape(len(better), -1)
        if space.exclusive:
            y = (true + rng.gumbel(size=true.shape)).argmax(axis=0)
            p = np.exp(log_softmax(logits.reshape(len(logits), -1))).reshape(logits.shape)
        else:
            y, p = rng.random(true.shape) < 1.0 / (1.0 + np.exp(-true)), 1.0 / (1.0 + np.exp(-logits))
        case = case_of(logits if values == "logits" else p, y, space, values, name=f"case{i}", **more)
        cases.append(replace(case, volume=replace(case.volume, features=f)))
    return cases


def fitted(cases, spec=SPEC, layer: LastLayer | None = None):
    space = cases[0].space
    step = CalibrationFit(spec, space, cases[0].volume.values, 1, Equipment(layer=layer or layer_of(space)))
    while isinstance(step, Estimator):
        state = step.empty()
        for case in cases:
            state = step.merge(state, step.update(step.empty(), case))
        step = step.finish(state)
    return step


def stacked(cases):
    """Features with a constant "feature+1 voxel", and truth "problem voxel", of all voxels."""
    x = np.concatenate([case.volume.features.reshape(FEATURES, -1) for case in cases], axis=1).astype(np.float64)
    space = cases[0].space
    y = np.concatenate([case.labels.members[:, case.labels.codes.reshape(-1)] for case in cases], axis=1)
    return np.concatenate([x, np.ones((1, x.shape[1]))]), y[list(space.measured)].astype(np.float64)


@pytest.mark.parametrize("space", SPACES, ids=NAMES)
def test_exact_passes_reach_the_optimum_of_an_independent_optimiser(space):
    cases = featured_cases(space)
    result = fitted(cases, replace(SPEC, voxels=100))
    x, y = stacked(cases)
    start = problem_weights(layer_of(space), space)

    def objective(flat):
        w = flat.reshape(start.shape)
        u = w @ x
        if kind_of(space) == "softmax":
            logs = log_softmax(u)
            loss, p = -(logs * y).sum(axis=0).mean(), np.exp(logs)
        else:
            loss, p = (np.logaddexp(0.0, u) - y * u).sum(axis=0).mean(), 1.0 / (1.0 + np.exp(-u))
        slope = (p - y) @ x.T / x.shape[1] + 2.0 * RIDGE * (w - start)
        return loss + RIDGE * ((w - start) ** 2).sum(), slope.ravel()

    other = minimize(objective, start.ravel(), jac=True, method="L-BFGS-B", options={"gtol": 1e-10, "ftol": 1e-15})
    found = result.calibrator.rows.reshape(start.shape)
    assert result.objective["gradient"] < 1e-8
    assert objective(found.ravel())[0] <= other.fun + 1e-9
    assert other.fun == pytest.approx(objective(found.ravel())[0], abs=1e-7)
    p = [1.0 / (1.0 + np.exp(-w.reshape(start.shape) @ x)) for w in (found.ravel(), other.x)]
    if kind_of(space) != "softmax":
        np.testing.assert_allclose(p[0], p[1], atol=2e-4)
    assert result.summary["after"]["micro"]["all"]["nll"] < result.summary["before"]["micro"]["all"]["nll"]


def test_logistic_regression_of_scikit_learn_finds_the_same():
    from sklearn.linear_model import LogisticRegression

    cases = featured_cases(SPACES[0])
    x, y = stacked(cases)
    other = LogisticRegression(C=np.inf, tol=1e-10, max_iter=2000).fit(x[:-1].T, y[0])
    found = fitted(cases).calibrator.rows[0]
    np.testing.assert_allclose(found[:-1], other.coef_[0], atol=2e-3)
    assert found[-1] == pytest.approx(other.intercept_[0], abs=2e-3)


@pytest.mark.parametrize("space", SPACES, ids=NAMES)
def test_sums_over_a_case_are_those_of_its_counted_voxels(space):
    roi = np.random.default_rng(1).random((2, 9, 10)) < 0.6
    case = featured_cases(space, 1, roi=roi, predicted=Box((0, 2), (1, 9), (0, 8)))[0]
    model = FineTuneModel(space, layer_of(space))
    places = np.flatnonzero(case.counted(padding=False))
    truth = case.labels.members[:, case.labels.codes.reshape(-1)[places]]
    few = Voxels(model.sample(case, places), truth[list(space.measured)], np.ones(places.size))
    weights = 0.1 + problem_weights(layer_of(space), space)
    whole = model.sums(case, weights, 1)
    expected = sums_of(weights, few, exclusive=model.exclusive, curvature=False)
    assert whole.value == pytest.approx(expected.value, rel=1e-12)
    assert whole.weight == expected.weight
    np.testing.assert_allclose(whole.gradient, expected.gradient, atol=1e-9)


@pytest.mark.parametrize("space", SPACES, ids=NAMES)
def test_the_exported_layer_makes_in_a_torch_convolution_what_apply_writes(space):
    cases = featured_cases(space)
    artifact = artifact_of(fitted(cases))
    layer = layer_from(artifact)
    assert layer.weight.dtype == np.float32
    convolution = torch.nn.Conv3d(FEATURES, len(space.channels), 1)
    convolution.load_state_dict({
        "weight": torch.from_numpy(layer.weight[:, :, None, None, None]), "bias": torch.from_numpy(layer.bias)
    })  # fmt: skip
    with torch.no_grad():
        logits = convolution(torch.from_numpy(cases[0].volume.features)[None])[0]
    expected = torch.softmax(logits, 0) if space.exclusive else torch.sigmoid(logits)
    calibrator = replace(calibrator_from(artifact), project=False)
    single, given = calibrator.pointwise(cases[0].volume)
    found = single.apply(given.array, given.values, given.stored).array
    np.testing.assert_allclose(found, expected.numpy(), atol=2e-6)


def test_of_two_classes_the_row_of_the_background_stays():
    space = space_of(2)
    layer = layer_of(space)
    moved = layer_with(problem_weights(layer, space) + 1.0, layer, space)
    np.testing.assert_array_equal(moved.weight[0], layer.weight[0])
    np.testing.assert_allclose(moved.weight[1], layer.weight[1] + 1.0, rtol=1e-6)


@pytest.mark.parametrize("space", SPACES, ids=NAMES)
def test_logits_and_probabilities_of_one_model_give_the_same_layer(space):
    rows = [fitted(featured_cases(space, values=values)).calibrator.rows for values in ("logits", "probabilities")]
    np.testing.assert_allclose(rows[0], rows[1], atol=1e-6)


def test_nested_regions_stay_nested():
    space = SPACES[3]
    cases = featured_cases(space)
    single, given = calibrator_from(artifact_of(fitted(cases))).pointwise(cases[0].volume)
    array = single.apply(given.array, given.values, given.stored).array
    assert (array[1] <= array[0]).all()


def test_features_in_half_precision_are_held_against_the_logits_less_strictly():
    space = SPACES[2]
    cases = featured_cases(space, dtype=np.float16)
    off = [replace(case, volume=replace(case.volume, array=case.volume.array + np.float32(0.01))) for case in cases]
    assert fitted(off).objective["after"] < fitted(off).objective["before"]
    single = featured_cases(space)
    off = [replace(case, volume=replace(case.volume, array=case.volume.array + np.float32(0.01))) for case in single]
    with pytest.raises(NotOneModel, match=r"^--features: features and last layer are not of one model: .* 0\.01 away"):
        fitted(off)


@pytest.mark.parametrize("values", ["logits", "probabilities"])
def test_apply_refuses_features_of_other_predictions(values: str):
    cases = featured_cases(SPACES[2], values=values)
    calibrator = calibrator_from(artifact_of(fitted(cases)))
    swapped = replace(cases[0].volume, features=cases[1].volume.features)
    with pytest.raises(NotOneModel, match="not of one model"):
        calibrator.pointwise(swapped)


def test_layer_and_features_have_to_fit_and_to_be_there():
    space = SPACES[2]
    cases = featured_cases(space)
    layer = layer_of(space)
    short = LastLayer(layer.weight[:, :-1], layer.bias)
    with pytest.raises(OtherLayer, match=r"^--last-layer: weight is \(4, 4\), bias \(4,\); 4 channels of 5 features"):
        fitted(cases, layer=short)
    with pytest.raises(LayerNeeded, match=r"^--last-layer FILE is needed"):
        CalibrationFit(SPEC, space, "logits").update(CalibrationFit(SPEC, space, "logits").empty(), cases[0])
    bare = [replace(case, volume=replace(case.volume, features=None)) for case in cases]
    with pytest.raises(FeaturesNeeded, match=r"^--features FOLDER is needed.*--export-weights"):
        fitted(bare)


def test_without_change_the_layer_makes_the_predictions_again():
    space = SPACES[3]
    case = featured_cases(space, 1)[0]
    again = tuned(case.volume, space, problem_weights(layer_of(space), space), layer_of(space))
    np.testing.assert_allclose(again.array, case.volume.array, atol=1e-5)


def test_a_class_without_voxels_keeps_its_row():
    space = space_of(3)
    cases = [
        replace(case, labels=replace(case.labels, codes=np.minimum(case.labels.codes, 1)))
        for case in featured_cases(space)
    ]
    result = fitted(cases)
    rows = result.calibrator.rows.reshape(3, -1)
    np.testing.assert_array_equal(rows[2], problem_weights(layer_of(space), space)[2])
    assert any("c2: no voxel of it in any case; left as it is" in warning for warning in result.warnings)


def test_it_is_no_rival_of_methods_that_need_predictions_only():
    from segcal_cli.calibration.rivals import usual_rivals

    assert {"fine-tune", "local"}.isdisjoint(usual_rivals(space_of(3), "logits"))
    assert "auxiliary" in usual_rivals(space_of(3), "logits")


def test_passes_that_end_too_early_are_told():
    cases = featured_cases(SPACES[2])
    early = fitted(cases, replace(SPEC, voxels=40, refine=1))
    warning = next(text for text in early.warnings if "exact passes ended" in text)
    assert f"the largest gradient is {early.objective['gradient']:.4g}, not below 1e-08" in warning
    assert not any("exact passes ended" in text for text in fitted(cases).warnings)


RECIPE = replace(SPEC, folds=0, refine=5, optimiser="adam")
"""The recipe has no exact passes of its own to choose."""


@pytest.mark.parametrize("seeds", [1, pytest.param(3, marks=pytest.mark.slow)])
@pytest.mark.parametrize("space", SPACES, ids=NAMES)
def test_the_published_recipe_never_ends_below_the_exact_optimum(space, seeds):
    """From the layer as it was, 1e-4 a step; three seeds, as published, among the slow tests."""
    cases = featured_cases(space)
    exact = fitted(cases, replace(SPEC, folds=0)).objective
    for seed in range(seeds):
        result = fitted(cases, replace(RECIPE, seed=seed))
        assert exact["after"] <= result.objective["after"] + 1e-9
        assert result.objective["after"] < result.objective["before"]
        assert result.objective["gradient"] > exact["gradient"]
        assert any("reproduction of a published recipe (Adam)" in note for note in result.notes)


@pytest.mark.parametrize("space", SPACES, ids=NAMES)
def test_many_steps_of_the_recipe_end_near_the_exact_optimum(space):
    cases = featured_cases(space)
    exact = fitted(cases, replace(SPEC, folds=0)).objective["nll_after"]
    found = fitted(cases, replace(RECIPE, epochs=200, learning_rate=1e-2)).objective["nll_after"]
    assert exact - 2e-5 <= found <= exact + 1e-3  # the ridge of the exact fit costs less than that


def test_the_recipe_takes_two_volumes_a_step_from_the_layer_as_it_was():
    """Adam's first steps are as long as the rate, whatever the slope; its second ones nearly so."""
    space = SPACES[0]
    cases = featured_cases(space, 5)
    start = problem_weights(layer_of(space), space)
    for epochs in (1, 2):
        result = fitted(cases, replace(RECIPE, epochs=epochs))
        assert result.objective["iterations"] == 3 * epochs
        moved = np.abs(result.calibrator.rows - start).max()
        assert 2.5e-4 * epochs < moved < 3.05e-4 * epochs


def test_a_step_of_the_recipe_goes_down_the_slope_of_all_voxels_of_two_volumes():
    """Adam's first step has the sign of the slope and the length of the rate."""
    space = SPACES[3]
    cases = featured_cases(space, 2)
    start = problem_weights(layer_of(space), space)
    result = fitted(cases, replace(RECIPE, epochs=1, learning_rate=1e-3))
    x, y = stacked(cases)
    slope = (1.0 / (1.0 + np.exp(-start @ x)) - y) @ x.T
    np.testing.assert_allclose(result.calibrator.rows - start, -1e-3 * np.sign(slope), rtol=1e-4)


def test_the_recipe_leaves_a_class_without_voxels_as_it_is():
    space = space_of(3)
    cases = [
        replace(case, labels=replace(case.labels, codes=np.minimum(case.labels.codes, 1)))
        for case in featured_cases(space)
    ]
    rows = fitted(cases, RECIPE).calibrator.rows.reshape(3, -1)
    start = problem_weights(layer_of(space), space)
    np.testing.assert_array_equal(rows[2], start[2])
    assert not np.array_equal(rows[1], start[1])


def test_of_more_voxels_than_are_kept_each_stands_for_several(monkeypatch):
    """The seed draws them; what they weigh is all that counted."""
    space = SPACES[2]
    case = featured_cases(space, 1, roi=np.arange(180).reshape(2, 9, 10) < 150)[0]
    model = FineTuneModel(space, layer_of(space))
    monkeypatch.setattr(statistics, "MOST_NUMBERS", 40 * FEATURES)
    found = statistics.whole_of(case, 3, model)
    assert found.count == 40
    assert found.weights.sum() == pytest.approx(150, rel=1e-12)
    columns = {tuple(column) for column in case.volume.features.reshape(FEATURES, -1)[:, :150].T}
    assert {tuple(column) for column in found.x[0].T} < columns
    np.testing.assert_array_equal(statistics.whole_of(case, 3, model).x, found.x)
    assert not np.array_equal(statistics.whole_of(case, 4, model).x, found.x)
