"""Local temperature scaling: the map of T, decisions, training, what it gains where T depends on the place."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.ndimage import gaussian_filter

from segcal_cli.calibration import local, patients
from segcal_cli.calibration.calibrator import Calibrator
from segcal_cli.calibration.equipment import NOTHING, Equipment
from segcal_cli.calibration.fit import CalibrationFit
from segcal_cli.calibration.local import ImageNeeded, LocalNetwork, scaled, surroundings, temperatures
from segcal_cli.calibration.local_pass import left_out
from segcal_cli.calibration.local_training import Training, first_layers, standards, train
from segcal_cli.calibration.result import calibrator_from
from segcal_cli.calibration.spec import BadOption, FitSpec
from segcal_cli.calibration.text import calibration_map
from segcal_cli.calibration.tiles import tiles_of
from segcal_cli.core.volume import Grid, Stored, Volume
from tests.calibration.builders_cases import case_of, regions, space_of
from tests.calibration.test_fit import QUIET, artifact_of, run

BINARY = space_of(1, "sigmoid")
SPEC = replace(QUIET, method="local", epochs=6)
SPACES = [BINARY, space_of(2), space_of(3), regions({1, 2}, {2})]
NAMES = ["channel", "two", "softmax", "regions"]


@pytest.fixture(autouse=True)
def _few_resamples(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(patients, "RESAMPLES", 50)


def textured_cases(space, n=6, shape=(6, 16, 18), seed=0):
    """Smooth log-odds that are true on the left; on the right they are four times too large, and rough."""
    rng = np.random.default_rng(seed)
    cases, count = [], len(space.channels)
    right = np.arange(shape[2]) >= shape[2] // 2
    for i in range(n):
        true = 14.0 * gaussian_filter(rng.normal(size=(count, *shape)), (0.0, 0.0, 2.0, 2.0))
        rough = np.where(np.indices(shape[1:]).sum(axis=0) % 2, 2.0, -2.0)
        if space.exclusive:
            y = (true + rng.gumbel(size=true.shape)).argmax(axis=0).reshape(-1)
        else:
            y = rng.random((1, *shape)) < 1.0 / (1.0 + np.exp(-true))
            y = y.reshape(count, -1)
        shown = np.where(right, 4.0 * true + rough * (np.arange(count) % 2 == 0)[:, None, None, None], true)
        cases.append(case_of(shown.astype(np.float32), y, space, name=f"case{i}"))
    return cases


def network_of(problems: int, dim: int, seed: int = 0, *, temperature: float = 1.7, image: bool = False):
    """A network with random weights, in the last layer too."""
    rng = np.random.default_rng(seed)
    layers = first_layers(problems + image, dim, rng)
    layers[-2] = rng.normal(scale=0.5, size=layers[-2].shape).astype(np.float32)
    mean, spread = rng.normal(size=problems + image), rng.uniform(0.5, 2.0, problems + image)
    return LocalNetwork(tuple(layers), mean, spread, temperature, image)


def volume_of(array, values="logits", dtype="float32", image=None):
    return Volume(
        np.ascontiguousarray(array, dtype=np.float32), Grid(array.shape[1:]), values, Stored(dtype), image=image
    )


@pytest.mark.parametrize("dim", [2, 3])
def test_the_map_is_what_torch_layers_make_of_the_padded_volume(dim: int):
    rng = np.random.default_rng(1)
    z = rng.normal(scale=9.0, size=(1, 5, 11, 12))
    network, volume = network_of(1, dim), volume_of(z)
    kind = torch.nn.Conv3d if dim == 3 else torch.nn.Conv2d
    convolutions = [kind(1, 16, 3), kind(16, 16, 3), kind(16, 16, 3), kind(16, 1, 1)]
    with torch.no_grad():
        for layer, weight, bias in zip(convolutions, network.layers[::2], network.layers[1::2], strict=True):
            layer.weight.copy_(torch.from_numpy(weight))
            layer.bias.copy_(torch.from_numpy(bias))
        x = (np.clip(volume.array, -20.0, 20.0) - network.mean[0]) / network.spread[0]
        x = np.pad(x, ((0, 0), (3, 3) if dim == 3 else (0, 0), (3, 3), (3, 3)), mode="edge").astype(np.float32)
        h = torch.from_numpy(x[np.newaxis] if dim == 3 else x.transpose(1, 0, 2, 3))
        for layer in convolutions[:-1]:
            h = torch.relu(layer(h))
        h = convolutions[-1](h).numpy().reshape(5, 11, 12)
    found = temperatures(volume, BINARY, network, surroundings(dim, "z"))
    np.testing.assert_allclose(found, 1.7 * np.exp(2.0 * np.tanh(h / 2.0)), rtol=2e-5)
    assert found.std() > 0.01


@pytest.mark.parametrize("dim", [2, 3])
def test_blocks_cannot_be_seen_in_the_map(dim: int, monkeypatch: pytest.MonkeyPatch):
    volume = volume_of(np.random.default_rng(2).normal(scale=4.0, size=(3, 7, 20, 18)))
    network, hood = network_of(3, dim), surroundings(dim, "auto")
    whole = temperatures(volume, space_of(3), network, hood)
    monkeypatch.setattr(local, "BLOCK_EDGES", {2: (2, 7, 5), 3: (3, 7, 5)})
    np.testing.assert_allclose(temperatures(volume, space_of(3), network, hood), whole, rtol=2e-6)


def test_temperatures_stay_within_a_factor_of_e_squared_of_t0():
    network = network_of(1, 2)
    wild = replace(network, layers=tuple(100.0 * layer for layer in network.layers))
    found = temperatures(
        volume_of(np.random.default_rng(0).normal(size=(1, 1, 30, 30))), BINARY, wild, surroundings(2, "z")
    )
    assert found.min() == pytest.approx(1.7 * np.exp(-2.0), rel=1e-5)
    assert found.max() == pytest.approx(1.7 * np.exp(2.0), rel=1e-5)


def test_weights_are_as_many_as_the_method_says():
    assert network_of(4, 2).size == 5249
    assert network_of(4, 3).size == 15617


@settings(max_examples=40)
@given(st.integers(0, 10**6), st.integers(2, 6), st.sampled_from(["float32", "float16", "uint16"]), st.booleans())
def test_decisions_are_kept_in_every_written_type(seed: int, classes: int, dtype: str, coarse: bool):
    rng = np.random.default_rng(seed)
    array = rng.normal(scale=10.0 ** rng.uniform(-2, 4), size=(classes, 1, 6, 7))
    if coarse:  # ties
        array = np.round(array)
    volume, space = volume_of(array), space_of(classes)
    problems = 1 if classes == 2 else classes
    network = network_of(problems, 2, seed % 7)
    calibrator = Calibrator("local", space, np.array([[1.7]]), hood=surroundings(2, "z"), network=network)
    single, given_ = calibrator.pointwise(volume)
    applied = single.apply(given_.array, given_.values, given_.stored, dtype)
    np.testing.assert_array_equal(applied.array.argmax(axis=0), volume.array.argmax(axis=0))


@settings(max_examples=25)
@given(st.integers(0, 10**6), st.sampled_from(["logits", "probabilities"]))
def test_regions_keep_their_decisions_and_stay_nested(seed: int, values: str):
    rng = np.random.default_rng(seed)
    z = np.sort(rng.normal(scale=10.0 ** rng.uniform(-3, 3), size=(2, 1, 6, 7)), axis=0)[::-1]
    array = z if values == "logits" else 1.0 / (1.0 + np.exp(-np.clip(z, -80, 80)))
    volume, space = volume_of(array, values), regions({1, 2}, {2})
    calibrator = Calibrator(
        "local", space, np.array([[1.7], [1.7]]), hood=surroundings(2, "z"), network=network_of(2, 2, seed % 7)
    )
    single, given_ = calibrator.pointwise(volume)
    applied = single.apply(given_.array, given_.values, given_.stored)
    cut = 0.0 if values == "logits" else 0.5
    np.testing.assert_array_equal(applied.array > 0.5, volume.array > cut)
    assert (applied.array[1] <= applied.array[0]).all()


def test_probabilities_and_logits_of_one_model_are_scaled_alike():
    logits = np.random.default_rng(0).normal(scale=2.0, size=(3, 2, 8, 9))
    power = np.exp(logits)
    t = np.full((2, 8, 9), 2.5, dtype=np.float32)
    by_logits, by_p = (scaled(volume, space_of(3), t) for volume in (
        volume_of(logits), volume_of(power / power.sum(axis=0), "probabilities")
    ))  # fmt: skip
    np.testing.assert_allclose(by_logits.array, by_p.array, atol=1e-5)


@pytest.mark.parametrize(("space", "dim"), [*((space, 2) for space in SPACES), (SPACES[2], 3)], ids=[*NAMES, "volume"])
def test_it_beats_one_temperature_where_the_place_tells_which_predictions_are_too_sure(space, dim: int):
    result = run(textured_cases(space), replace(SPEC, dim=dim, learning_rate=5e-3, epochs=12, batch=1))
    told = result.facts["training"]
    assert told["kept"]
    assert told["left_out"] == 1
    assert told["nll"]["after"] < 0.99 * told["nll"]["alone"] < told["nll"]["before"]
    before, after = (result.summary[phase]["micro"]["all"] for phase in ("before", "after"))
    assert after["dice"] == before["dice"]
    assert result.summary["evaluated_on"] == "held-out"
    assert result.guarantee.endswith(f"Held out NLL {told['nll']['before']:.4g} -> {told['nll']['after']:.4g}.")
    array = textured_cases(space, 1)[0].volume
    again, mine = calibrator_from(artifact_of(result)).temperatures(array), result.calibrator.temperatures(array)
    np.testing.assert_array_equal(again, mine)
    half = array.array.shape[3] // 2
    assert again[..., half + 3 :].mean() > 1.3 * again[..., : half - 3].mean()


def test_where_the_network_gains_nothing_the_temperature_of_all_patients_stands():
    rng = np.random.default_rng(0)
    cases = []
    for i in range(6):
        z = rng.normal(scale=3.0, size=(1, 1, 20, 20))
        cases.append(
            case_of(z, rng.random((1, 400)) < 1.0 / (1.0 + np.exp(-0.5 * z.reshape(1, -1))), BINARY, name=str(i))
        )
    result, alone = run(cases, SPEC), run(cases)
    assert not result.facts["training"]["kept"]
    assert result.parameters["temperature"] == pytest.approx(alone.parameters["temperature"], rel=1e-12)
    assert result.parameters["weights"] == 0
    assert result.objective["after"] == pytest.approx(alone.objective["after"], rel=1e-12)
    assert "T stands alone" in result.notes[0]
    calibrator = calibrator_from(artifact_of(result))
    assert calibrator.network is None
    single, given_ = calibrator.pointwise(cases[0].volume)
    expected = alone.calibrator.apply(cases[0].volume.array, "logits", Stored("float32")).array
    np.testing.assert_allclose(single.apply(given_.array, given_.values, given_.stored).array, expected, rtol=1e-6)
    assert (calibrator.temperatures(cases[0].volume) == np.float32(result.parameters["temperature"])).all()
    np.testing.assert_allclose(calibration_map(calibrator)["c0"], calibration_map(alone.calibrator)["c0"], rtol=1e-9)


def test_without_a_voxel_of_the_class_nothing_is_trained():
    cases = [replace(case, labels=replace(case.labels, codes=0 * case.labels.codes)) for case in textured_cases(BINARY)]
    result = run(cases, SPEC)
    assert result.parameters == {"temperature": 1.0, "weights": 0}
    assert result.facts["training"]["epochs"] == 0
    assert any("no voxel of it in any case; left as it is" in warning for warning in result.warnings)


def test_the_same_cases_give_the_same_bytes_in_any_order_and_by_workers():
    cases = textured_cases(BINARY, 4, (2, 12, 13))
    serial, sharded = run(cases, SPEC), run(cases[::-1], SPEC, shards=3)
    assert serial.results() == sharded.results()
    for one, other in zip(serial.arrays.values(), sharded.arrays.values(), strict=True):
        assert one.tobytes() == other.tobytes()
    assert run(cases, replace(SPEC, seed=1)).facts["training"]["losses"] != serial.facts["training"]["losses"]


def test_before_training_the_loss_is_that_of_t0_and_the_gradient_that_of_finite_differences():
    case = textured_cases(BINARY, 1, (1, 10, 11))[0]
    hood = surroundings(2, "z")
    tiles = [(tile, 1.0) for tile in tiles_of(case, hood, 0)]
    trained = train(tiles, [], 2.0, hood, Training(epochs=1), exclusive=False, image=False)
    z, y = case.volume.array.reshape(-1).astype(np.float64), case.labels.holds(0).reshape(-1)
    assert trained.losses[0] == pytest.approx(np.mean(np.logaddexp(0.0, z / 2.0) - y * z / 2.0), rel=1e-6)
    assert trained.best == 1
    network = trained.network

    def loss(shift: float) -> float:
        layers = (*network.layers[:-1], network.layers[-1] + np.float32(shift))
        t = temperatures(case.volume, BINARY, replace(network, layers=layers), hood).reshape(-1)
        return float(np.mean(np.logaddexp(0.0, z / t) - y * z / t))

    slope = (loss(1e-2) - loss(-1e-2)) / 2e-2
    assert trained.gradient >= abs(slope) * (1.0 - 1e-2)


def test_inputs_are_standardised_by_what_training_sees():
    case = textured_cases(space_of(3), 1)[0]
    hood = surroundings(2, "z")
    mean, spread = standards(list(tiles_of(case, hood, 0)), hood, image=False)
    logs = case.volume.array.reshape(3, -1).astype(np.float64)
    logs = np.clip(logs - np.logaddexp.reduce(logs, axis=0), -20.0, 20.0)
    np.testing.assert_allclose(mean, logs.mean(axis=1), rtol=1e-5)
    np.testing.assert_allclose(spread, logs.std(axis=1), rtol=1e-5)


def test_every_fifth_patient_is_left_out_of_training_and_the_last_where_there_are_fewer():
    assert np.flatnonzero(left_out(12, 5)).tolist() == [4, 9]
    assert np.flatnonzero(left_out(3, 5)).tolist() == [2]
    assert np.flatnonzero(left_out(6, 2)).tolist() == [1, 3, 5]
    assert not left_out(1, 5).any()


def test_the_summary_of_one_patient_and_of_no_folds_is_in_sample():
    cases = textured_cases(BINARY, 3, (1, 12, 13))
    alone, few = run(cases[:1], SPEC), run(cases, replace(SPEC, folds=0))
    for result in (alone, few):
        assert result.summary["evaluated_on"] == "in-sample"
        assert result.summary["in_sample"]
    assert any("only one patient" in warning for warning in alone.warnings)
    assert few.facts["training"]["left_out"] == 1


def passes_of(cases, spec, equipment=NOTHING):
    """What a fit goes on with after its first pass."""
    step = CalibrationFit(spec, cases[0].space, cases[0].volume.values, 1, equipment)
    state = step.empty()
    for case in cases:
        state = step.update(state, case)
    return step.finish(state)


def test_patients_left_out_do_not_touch_t0_or_what_is_standardised():
    cases = textured_cases(BINARY, 5, (1, 12, 13))
    other = replace(textured_cases(BINARY, 1, (1, 12, 13), seed=9)[0], id="case4", group="case4")
    one, two = (passes_of(some, replace(SPEC, epochs=1)) for some in (cases, [*cases[:4], other]))
    assert one.found.losses[0] != two.found.losses[0]
    np.testing.assert_array_equal(one.alone.rows, two.alone.rows)
    np.testing.assert_array_equal(one.near.network.mean, two.near.network.mean)


def test_the_scan_can_tell_what_log_odds_cannot():
    rng = np.random.default_rng(0)
    cases = []
    for i in range(6):
        z = rng.normal(scale=2.0, size=(1, 1, 20, 22))
        noisy = np.broadcast_to(np.arange(22) % 11 < 5, z.shape[1:])
        y = rng.random((1, 440)) < 1.0 / (1.0 + np.exp(-(z * np.where(noisy, 0.1, 1.5)).reshape(1, -1)))
        case = case_of(z, y, BINARY, name=str(i))
        cases.append(replace(case, volume=replace(case.volume, image=noisy.astype(np.float32) * 100.0)))
    judging = passes_of(cases, replace(SPEC, epochs=10, learning_rate=1e-2), Equipment(image=True))
    state = judging.empty()
    for case in cases:
        state = judging.update(state, case)
    step = judging.finish(state)
    told = step.facts["training"]["nll"]
    assert told["after"] < 0.95 * told["alone"]
    calibrator = calibrator_from(artifact_of(step))
    assert calibrator.network.image
    with pytest.raises(ImageNeeded, match="--images FOLDER is needed"):
        calibrator.pointwise(replace(cases[0].volume, image=None))
    assert len(calibration_map(calibrator)["c0"]) == 11


@pytest.mark.parametrize(("options", "message"), [
    ({"epochs": 0}, "--epochs 0: it is 1 or more"),
    ({"batch": 0}, "--batch 0: it is 1 or more"),
    ({"learning_rate": 0.0}, "--learning-rate 0.0: it is more than 0"),
])  # fmt: skip
def test_options_of_training_have_limits(options: dict, message: str):
    with pytest.raises(BadOption, match=message):
        FitSpec(method="local", **options)


@pytest.mark.parametrize("option", [{"epochs": 3}, {"batch": 2}, {"learning_rate": 0.1}])
def test_options_of_training_are_for_methods_that_train(option: dict):
    with pytest.raises(BadOption, match="it is for --method local"):
        FitSpec(method="temperature", **option).check(BINARY)
    with pytest.raises(BadOption, match="local cannot be fitted to it"):
        FitSpec(method="local", loss="brier").check(BINARY)
