"""Sums and networks on a device: the code that runs on a GPU, here on the CPU, and on a GPU where there is one."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from segcal_cli.calibration import on_device, patients
from segcal_cli.calibration.auxiliary import AuxiliaryModel, Surroundings, convolved, slabs
from segcal_cli.calibration.equipment import Equipment
from segcal_cli.calibration.fine_tuning import FineTuneModel, problem_weights, tuned
from segcal_cli.calibration.fit import CalibrationFit
from segcal_cli.calibration.linear import Voxels, inputs, sums_of
from segcal_cli.calibration.local import surroundings, temperatures
from segcal_cli.core.estimator import Estimator
from tests.calibration.builders_cases import case_of, regions, space_of
from tests.calibration.test_fine_tuning import featured_cases, layer_of
from tests.calibration.test_fit import QUIET
from tests.calibration.test_local import network_of, textured_cases, volume_of

DEVICES = ["cpu", pytest.param("cuda", marks=pytest.mark.gpu)]
SPACES = [space_of(1, "sigmoid"), space_of(3), regions({1, 2}, {2})]
NAMES = ["channel", "softmax", "regions"]
AGAINST = ["cpu:0", pytest.param("cuda", marks=pytest.mark.gpu)]
"""Devices that whole fits are compared on with "cpu". The first is the CPU by a name that sends sums to torch."""

OBJECTIVE = 1e-6
"""Allowed difference of a mean loss between devices."""


@pytest.fixture(autouse=True)
def _few_resamples(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(patients, "RESAMPLES", 50)


def random_case(space, shape=(3, 9, 8)):
    rng = np.random.default_rng(0)
    count = len(space.channels)
    z = rng.normal(scale=8.0, size=(count, *shape))
    z[:, 0, 0] *= 50.0  # saturated
    y = rng.integers(0, count, np.prod(shape)) if space.exclusive else rng.random((count, np.prod(shape))) < 0.4
    return case_of(z, y, space, roi=rng.random(shape) < 0.8)


def both_fits(cases, spec, device, layer=None):
    found = []
    for where in ("cpu", device):
        step = CalibrationFit(spec, cases[0].space, cases[0].volume.values, 1, Equipment(where, layer))
        while isinstance(step, Estimator):
            state = step.empty()
            for case in cases:
                state = step.merge(state, step.update(step.empty(), case))
            step = step.finish(state)
        found.append(step)
    return found


@pytest.mark.parametrize("device", DEVICES)
@pytest.mark.parametrize("dim", [2, 3])
@pytest.mark.parametrize("space", SPACES, ids=NAMES)
def test_sums_of_slabs_are_those_of_numpy(space, dim: int, device: str):
    case, hood = random_case(space), Surroundings(5, dim)
    model = AuxiliaryModel(space, hood)
    weights = np.random.default_rng(1).normal(scale=0.1, size=(len(space.channels), hood.taps + 1))
    weights[:, hood.centre] += 1.0
    expected = model.sums(case, weights, 1)
    (slab,) = slabs(case.volume, space, hood)
    np.testing.assert_allclose(
        on_device.convolved(slab, weights, hood, device), convolved(slab, weights, hood), rtol=1e-12, atol=1e-10
    )
    truth = case.labels.members[:, case.labels.codes]
    found = on_device.slab_sums(slab, truth, case.roi, weights, hood, exclusive=model.exclusive, device=device)
    assert found.value == pytest.approx(expected.value, rel=1e-12)
    assert found.weight == expected.weight
    np.testing.assert_allclose(found.gradient, expected.gradient, rtol=1e-10, atol=1e-9)


@pytest.mark.parametrize("device", DEVICES)
@pytest.mark.parametrize("exclusive", [True, False])
def test_linear_sums_are_those_of_numpy(exclusive: bool, device: str):
    rng = np.random.default_rng(0)
    truth = np.eye(3, dtype=bool)[:, rng.integers(0, 3, 200)]
    voxels = Voxels(rng.normal(size=(1, 6, 200)).astype(np.float16), truth, rng.uniform(0.5, 3.0, 200))
    weights = rng.normal(scale=30.0, size=(3, 7))
    expected = sums_of(weights, voxels, exclusive=exclusive, curvature=False)
    found = on_device.linear_sums(weights, voxels, exclusive=exclusive, device=device)
    assert found.value == pytest.approx(expected.value, rel=1e-12)
    assert found.weight == expected.weight
    np.testing.assert_allclose(found.gradient, expected.gradient, rtol=1e-10, atol=1e-9)
    np.testing.assert_allclose(
        on_device.linear_inputs(weights, voxels.x, device), inputs(weights, voxels.x), rtol=1e-12
    )


@pytest.mark.parametrize("device", AGAINST)
@pytest.mark.parametrize(
    "space", [SPACES[0], *(pytest.param(one, marks=pytest.mark.slow) for one in SPACES[1:])], ids=NAMES
)
def test_auxiliary_by_torch_is_that_of_numpy(space, device: str):
    cpu, gpu = both_fits(textured_cases(space), replace(QUIET, method="auxiliary", voxels=1000, refine=30), device)
    assert gpu.objective["gradient"] < 1e-8
    assert gpu.objective["after"] == pytest.approx(cpu.objective["after"], abs=OBJECTIVE)
    np.testing.assert_allclose(gpu.calibrator.rows, cpu.calibrator.rows, atol=1e-6)
    volume = textured_cases(space, 1)[0].volume
    arrays = [result.calibrator.pointwise(volume)[1].array for result in (cpu, gpu)]
    np.testing.assert_allclose(arrays[0], arrays[1], atol=1e-4)


@pytest.mark.parametrize("device", AGAINST)
@pytest.mark.parametrize("space", SPACES, ids=NAMES)
def test_fine_tuning_by_torch_is_that_of_numpy(space, device: str):
    layer, cases = layer_of(space), featured_cases(space)
    cpu, gpu = both_fits(cases, replace(QUIET, method="fine-tune", voxels=120, refine=30), device, layer)
    assert gpu.objective["gradient"] < 1e-8
    assert gpu.objective["after"] == pytest.approx(cpu.objective["after"], abs=OBJECTIVE)
    weights = problem_weights(layer, space)
    volumes = [tuned(cases[0].volume, space, weights, layer, where) for where in ("cpu", device)]
    np.testing.assert_allclose(volumes[0].array, volumes[1].array, atol=1e-5)
    model = FineTuneModel(space, layer)
    one, other = model.sums(cases[0], weights, 1), replace(model, device=device).sums(cases[0], weights, 1)
    assert other.value == pytest.approx(one.value, rel=1e-12)


@pytest.mark.gpu
@pytest.mark.parametrize("dim", [2, 3])
def test_the_map_of_temperatures_on_the_gpu_is_that_of_the_cpu(dim: int):
    volume = volume_of(np.random.default_rng(2).normal(scale=4.0, size=(3, 7, 40, 38)))
    network, hood = network_of(3, dim), surroundings(dim, "auto")
    maps = [temperatures(volume, space_of(3), network, hood, device) for device in ("cpu", "cuda")]
    np.testing.assert_allclose(maps[0], maps[1], rtol=5e-5)


@pytest.mark.gpu
@pytest.mark.parametrize("dim", [2, 3])
@pytest.mark.parametrize("space", SPACES, ids=NAMES)
def test_training_on_the_gpu_reaches_the_objective_of_the_cpu(space, dim: int):
    spec = replace(QUIET, method="local", dim=dim, epochs=8, batch=1)
    cpu, gpu = both_fits(textured_cases(space), spec, "cuda")
    assert gpu.facts["training"]["losses"][0] == pytest.approx(cpu.facts["training"]["losses"][0], abs=OBJECTIVE)
    assert gpu.facts["training"]["losses"] == pytest.approx(cpu.facts["training"]["losses"], abs=OBJECTIVE)
    assert gpu.objective["after"] == pytest.approx(cpu.objective["after"], abs=OBJECTIVE)
