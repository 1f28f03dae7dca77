"""Published recipes: what they come to, that they are labelled, and that the exact fit is never worse."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch

from segcal_cli.calibration import patients, recipes
from segcal_cli.calibration.auxiliary import Surroundings, convolved, slabs
from segcal_cli.calibration.recipes import Recipe, Slices
from segcal_cli.calibration.registry import METHODS
from segcal_cli.calibration.spec import BadOption, FitSpec
from segcal_cli.core.case import Case
from tests.calibration.builders_cases import case_of, space_of
from tests.calibration.test_fit import artifact_of, run


@pytest.fixture(autouse=True)
def _few_resamples(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(patients, "RESAMPLES", 20)


def scans(classes: int, count: int = 5) -> list[Case]:
    """Scans of two sizes, too sure by a factor of two."""
    cases = []
    for i in range(count):
        rng = np.random.default_rng([7, i])
        shape = (6, 12, 10) if i % 2 else (5, 11, 13)
        logits = rng.normal(scale=1.5, size=(max(classes, 2), *shape))
        logits[0] += 1.0
        labels = (logits + rng.gumbel(size=logits.shape)).argmax(axis=0)
        if classes == 1:
            z = 2.0 * (logits[1:] - logits[:1])
            cases.append(case_of(z, labels[None] == 1, space_of(1, "sigmoid"), name=f"case{i}"))
        else:
            cases.append(case_of(2.0 * logits, labels, space_of(classes), name=f"case{i}"))
    return cases


SPEC = FitSpec(split_kind="held-out", folds=0)

PREDICTIONS_ONLY = tuple(name for name in recipes.RECIPES if not METHODS[name].beside)
"""``test_fine_tuning.py`` has the other one."""


@pytest.mark.slow
@pytest.mark.parametrize("classes", [1, 3])
@pytest.mark.parametrize("method", PREDICTIONS_ONLY)
def test_the_exact_fit_is_never_worse_than_the_recipe(method: str, classes: int):
    """Three seeds. The ridge of the auxiliary method is no part of what is compared: 1e-6 of squared weights."""
    cases = scans(classes)
    spec = replace(SPEC, method=method, pad="zero" if method == "auxiliary" else "replicate")
    exact = run(cases, spec).objective
    for seed in range(3):
        adam = run(cases, replace(spec, optimiser="adam", seed=seed, epochs=None if method == "temperature" else 6))
        assert exact["nll_after"] <= adam.objective["nll_after"] + (2e-5 if method == "auxiliary" else 1e-9)
        assert exact["after"] <= adam.objective["after"] + 1e-9
        assert adam.objective["gradient"] > exact["gradient"]
        assert any("reproduction of a published recipe (Adam)" in note for note in adam.notes)
        assert adam.results()["optimiser"] == "adam"


def test_the_temperature_takes_a_step_of_the_rate_for_every_case():
    """Barfoot et al.: one epoch from 1.5. Adam's first steps are as long as the rate, whatever the slope."""
    cases = scans(3, 4)
    result = run(cases, replace(SPEC, optimiser="adam"))
    assert result.objective["iterations"] == 4
    assert result.parameters["temperature"] == pytest.approx(1.5 + 4e-3, abs=2e-4)
    long = run(cases, replace(SPEC, optimiser="adam", epochs=300, learning_rate=0.02, batch=4))
    assert long.parameters["temperature"] == pytest.approx(run(cases, SPEC).parameters["temperature"], abs=2e-3)


@pytest.mark.slow
def test_many_small_steps_of_one_tap_end_near_platts_optimum():
    """Seven steps an epoch: with one, six epochs without gain end the run up to 5e-3 above the optimum."""
    cases = scans(1)
    exact = run(cases, replace(SPEC, method="platt"))
    adam = run(cases, replace(SPEC, method="platt", optimiser="adam", epochs=400, batch=4, learning_rate=0.01))
    assert adam.objective["nll_after"] == pytest.approx(exact.objective["nll_after"], abs=1e-4)
    assert adam.parameters["a"]["c0"] == pytest.approx(exact.parameters["a"]["c0"], abs=0.02)


@pytest.mark.parametrize("pad", ["zero", "replicate"])
def test_kernels_mean_the_same_as_where_they_are_applied(pad: str):
    """The weights of the recipe go into ``convolved`` unchanged: torch's order of taps, its padding, its sign."""
    case = scans(3, 1)[0]
    hood = Surroundings(5, 2, pad)  # type: ignore[arg-type]
    weights = np.random.default_rng(0).normal(size=(3, 26))
    slices = recipes.slices_of(case, hood, 0, against_rest=False)
    z = torch.from_numpy(slices.z).double()
    padded = torch.nn.functional.pad(z, (2,) * 4, mode="constant" if pad == "zero" else "replicate")
    kernel = torch.from_numpy(weights[:, :-1].reshape(3, 1, 5, 5))
    u = torch.nn.functional.conv2d(padded, kernel, torch.from_numpy(weights[:, -1]), groups=3).numpy()
    found = np.concatenate([convolved(slab, weights, hood) for slab in slabs(case.volume, case.space, hood)], axis=1)
    np.testing.assert_allclose(np.moveaxis(u, 1, 0), found, atol=1e-5)


def test_the_run_ends_after_six_epochs_without_gain():
    rng = np.random.default_rng(0)
    z = rng.normal(size=(8, 1, 6, 6)).astype(np.float32)
    one = Slices(z, rng.random(z.shape) < 0.5, np.ones((8, 6, 6), dtype=bool))
    _, steps = recipes.convolution([one], 1, Recipe(50, 64, 1e-9), 0, exclusive=False, pad="zero")
    assert steps == 1 + recipes.END  # nothing moves at such a rate


@pytest.mark.parametrize("method", PREDICTIONS_ONLY)
def test_the_same_seed_gives_the_same_bytes_however_cases_are_dealt(method: str):
    cases = scans(3)
    spec = replace(SPEC, method=method, optimiser="adam", folds=2, epochs=2)
    first, second = (artifact_of(run(cases, spec, shards=shards)) for shards in (1, 3))
    assert first.header == second.header
    for name, array in first.arrays.items():
        np.testing.assert_array_equal(array, second.arrays[name])
    other = run(cases, replace(spec, seed=1))
    assert method == "temperature" or not np.array_equal(other.arrays["parameters"], first.arrays["parameters"])


def test_a_recipe_that_ends_before_its_slope_has_turned_warns_and_is_not_refused():
    """A uniform start can be negative, and two epochs do not turn it; the data are not at fault."""
    result = run(scans(3), replace(SPEC, method="platt", optimiser="adam", epochs=2))
    assert min(result.parameters["a"].values()) < 0.0
    assert any("higher confidence does not go with the class" in text for text in result.warnings)


@pytest.mark.parametrize(
    ("options", "text"),
    [
        (
            {"method": "vector", "optimiser": "adam"},
            "--optimiser adam: vector has no published recipe",
        ),
        ({"epochs": 3}, "--epochs 3: it is for --method local, or --optimiser adam"),
        ({"learning_rate": 0.1}, "--learning-rate 0.1: it is for --method local, or --optimiser adam"),
        ({"optimiser": "adam", "batch": 0}, "--batch 0: it is 1 or more"),
        ({"optimiser": "adam", "loss": "brier"}, "--loss brier: the published recipe"),
        ({"optimiser": "adam", "weight": "case"}, "--weight case: the published recipe"),
        ({"method": "auxiliary", "optimiser": "adam", "dim": 3}, "--dim 3: the published recipe"),
    ],
)
def test_what_a_recipe_does_not_have_is_a_usage_error(options: dict, text: str):
    with pytest.raises(BadOption) as raised:
        FitSpec(**options).check(space_of(3))
    assert text in str(raised.value)
