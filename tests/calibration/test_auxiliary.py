"""The auxiliary convolution: against torch, its gradient, its optimum, what it gains on structured errors."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from scipy.ndimage import gaussian_filter
from scipy.optimize import minimize

from segcal_cli.calibration import auxiliary
from segcal_cli.calibration.auxiliary import AuxiliaryModel, FlatImages, Surroundings, convolved, slabs
from segcal_cli.calibration.result import calibrator_from
from segcal_cli.calibration.spec import BadOption, FitSpec
from segcal_cli.core.volume import Box, Grid, Stored, Volume
from tests.calibration.builders_cases import case_of, regions, space_of
from tests.calibration.test_fit import QUIET, artifact_of, run

AUX = np.load(Path(__file__).parent / "fixtures" / "aux.npz")
BINARY = space_of(1, "sigmoid")
SPEC = replace(QUIET, method="auxiliary", folds=0)


def volume_of(array: np.ndarray) -> Volume:
    return Volume(np.ascontiguousarray(array, dtype=np.float32), Grid(array.shape[1:]), "logits", Stored("float32"))


def structured_cases(n: int = 4, shape: tuple[int, int, int] = (4, 20, 22), seed: int = 0):
    """Log-odds that say of each voxel less than the mean of its neighbours does."""
    rng = np.random.default_rng(seed)
    cases = []
    for i in range(n):
        smooth = 12.0 * gaussian_filter(rng.normal(size=shape), (0.0, 2.0, 2.0))
        z = (smooth + rng.normal(scale=2.0, size=shape)).astype(np.float32)
        y = rng.random(shape) < 1.0 / (1.0 + np.exp(-2.0 * smooth))
        cases.append(case_of(z[np.newaxis], y.reshape(1, -1), BINARY, name=f"case{i}"))
    return cases


def cut(case, planes: int, rows: int, columns: int):
    """A corner of a case."""
    array = case.volume.array[:, :planes, :rows, :columns]
    codes = case.labels.codes[:planes, :rows, :columns]
    return case_of(array, codes.reshape(1, -1) > 0, BINARY, name=case.id)


def test_the_convolution_is_that_of_torch_with_zero_padding():
    weights = np.append(AUX["weights"].astype(np.float64).ravel(), AUX["bias"])[np.newaxis]
    hood = Surroundings(5, 2, "zero")
    volume = volume_of(AUX["slices"].transpose(1, 0, 2, 3))
    found = np.concatenate([convolved(slab, weights, hood)[0] for slab in slabs(volume, BINARY, hood)])
    np.testing.assert_allclose(found, AUX["expected"][:, 0], atol=1e-5)


@pytest.mark.parametrize("pad", ["replicate", "zero"])
def test_in_three_dimensions_too_and_slabs_cannot_be_seen(pad: str, monkeypatch: pytest.MonkeyPatch):
    volume = AUX["volume"]
    layer = torch.nn.Conv3d(1, 1, 5, padding=2, padding_mode="zeros" if pad == "zero" else "replicate", bias=False)
    with torch.no_grad():
        layer.weight.copy_(torch.from_numpy(AUX["weights3"]))
        expected = layer(torch.from_numpy(volume))[0, 0].numpy()
    weights = np.append(AUX["weights3"].astype(np.float64).ravel(), 0.0)[np.newaxis]
    monkeypatch.setattr(auxiliary, "SLAB_NUMBERS", 250)
    found = auxiliary.calibrated(volume_of(volume[0]), BINARY, weights, Surroundings(5, 3, pad))
    np.testing.assert_allclose(found.array[0], expected, atol=1e-5)


def test_slices_are_across_the_axis_with_the_largest_spacing():
    hood = Surroundings()
    assert hood.front(Grid((4, 5, 6), np.diag([1.0, 3.0, 1.0, 1.0]))) == 1
    assert hood.front(Grid((4, 5, 6), np.diag([1.0, 1.0, 1.0, 1.0]))) == 0
    assert hood.front(Grid((4, 5, 6))) == 0
    assert Surroundings(slice_axis="x").front(Grid((4, 5, 6))) == 2
    assert Surroundings(slice_axis="x").front(Grid((1, 5, 6))) == 0
    array = np.random.default_rng(0).normal(size=(1, 6, 7, 8)).astype(np.float32)
    weights = np.random.default_rng(1).normal(size=(1, 26))
    along_x = auxiliary.calibrated(volume_of(array), BINARY, weights, Surroundings(slice_axis="x"))
    turned = auxiliary.calibrated(volume_of(np.moveaxis(array, 3, 1)), BINARY, weights, hood)
    np.testing.assert_allclose(np.moveaxis(along_x.array, 3, 1), turned.array, rtol=1e-6)


@pytest.mark.parametrize("dim", [2, 3])
@pytest.mark.parametrize("space", [BINARY, space_of(3), regions({1, 2}, {2})], ids=["binary", "softmax", "regions"])
def test_sums_over_a_case_are_those_of_all_its_voxels_as_a_sample(space, dim: int):
    rng = np.random.default_rng(0)
    shape, count = (3, 7, 6), len(space.channels)
    z = rng.normal(size=(count, *shape))
    y = rng.integers(0, count, np.prod(shape)) if space.exclusive else rng.random((count, np.prod(shape))) < 0.4
    roi = rng.random(shape) < 0.8
    case = case_of(z, y, space, roi=roi, predicted=Box((0, 3), (1, 7), (0, 6)))
    from segcal_cli.calibration.linear import Voxels, sums_of

    model = AuxiliaryModel(space, Surroundings(5, dim))
    places = np.flatnonzero(case.counted(padding=False))
    truth = case.labels.members[:, case.labels.codes.reshape(-1)[places]]
    sample = Voxels(model.sample(case, places), truth, np.ones(places.size))
    weights = rng.normal(scale=0.1, size=(count, model.hood.taps + 1))
    whole, few = model.sums(case, weights, 1), sums_of(weights, sample, exclusive=model.exclusive, curvature=False)
    assert whole.value == pytest.approx(few.value, rel=1e-6)
    assert whole.weight == few.weight
    np.testing.assert_allclose(whole.gradient, few.gradient, atol=1e-5)


def test_exact_passes_reach_the_optimum_of_an_independent_optimiser():
    cases = structured_cases(3, (2, 14, 15))
    result = run(cases, replace(SPEC, voxels=300, refine=15))
    model = AuxiliaryModel(BINARY, Surroundings())
    x = np.concatenate([model.sample(case, np.arange(case.labels.codes.size))[0] for case in cases], axis=1)
    x = np.concatenate([x, np.ones((1, x.shape[1]))]).astype(np.float64)
    y = np.concatenate([(case.labels.codes > 0).reshape(-1) for case in cases])
    assert result.objective["gradient"] < 1e-8
    found = result.calibrator.rows[0]

    def loss(w):
        u = w @ x
        s = 1.0 / (1.0 + np.exp(-u))
        return (np.logaddexp(0.0, u) - y * u).mean(), x @ (s - y) / y.size

    other = minimize(loss, np.zeros(26), jac=True, method="BFGS", options={"gtol": 1e-9})
    assert loss(found)[0] == pytest.approx(other.fun, abs=1e-5)  # the ridge costs this much at most
    np.testing.assert_allclose(found, other.x, atol=0.02)


def test_neighbours_beat_platt_on_structured_errors_out_of_fold():
    cases = structured_cases(5)
    spec = replace(SPEC, folds=5)
    near, alone = run(cases, spec), run(cases, replace(spec, method="platt"))
    assert near.summary["after"]["micro"]["all"]["nll"] < 0.8 * alone.summary["after"]["micro"]["all"]["nll"]
    assert near.summary["after"]["micro"]["all"]["dice"] > alone.summary["after"]["micro"]["all"]["dice"]


@pytest.mark.parametrize("space", [space_of(2), space_of(3), regions({1, 2}, {2})], ids=["two", "softmax", "regions"])
def test_an_artifact_gives_back_the_calibrator_and_regions_nest(space):
    rng = np.random.default_rng(0)
    count, shape, cases = len(space.channels), (2, 12, 11), []
    for i in range(3):
        z = 2.0 * rng.normal(size=(count, *shape))
        if space.exclusive:
            y = (0.5 * z.reshape(count, -1) + rng.gumbel(size=(count, 264))).argmax(axis=0)
        else:
            y = rng.random((1, 264)) < 1.0 / (1.0 + np.exp(-0.5 * z.reshape(count, -1)))
        cases.append(case_of(z, y, space, name=f"case{i}"))
    result = run(cases, replace(SPEC, folds=3))
    again = calibrator_from(artifact_of(result))
    calibrator, given = again.pointwise(cases[0].volume)
    array = calibrator.apply(given.array, given.values, given.stored).array
    mine, same = result.calibrator.pointwise(cases[0].volume)
    np.testing.assert_array_equal(array, mine.apply(same.array, same.values, same.stored).array)
    if space.exclusive:
        np.testing.assert_allclose(array.sum(axis=0), 1.0, atol=1e-6)
    else:
        assert (array[1] <= array[0]).all()


def test_shards_merged_in_any_order_give_the_same_bytes():
    cases, spec = structured_cases(5, (2, 9, 9)), replace(SPEC, folds=2, voxels=50, refine=2)
    serial, sharded = run(cases, spec), run(cases[::-1], spec, shards=3)
    assert serial.results() == sharded.results()
    assert serial.calibrator.rows.tobytes() == sharded.calibrator.rows.tobytes()


def test_a_volume_smaller_than_the_kernel_works():
    cases = [cut(case, 1, 3, 2) for case in structured_cases(4)]
    assert np.isfinite(run(cases, replace(SPEC, kernel=11)).calibrator.rows).all()


def test_three_dimensions_need_volumes_and_kernels_are_those_of_the_paper():
    flat = [cut(case, 1, 20, 22) for case in structured_cases(1)]
    with pytest.raises(FlatImages, match="--dim 3 needs volumes"):
        run(flat, replace(SPEC, dim=3))
    for options in ({"kernel": 4}, {"kernel": 13}, {"dim": 4}):
        with pytest.raises(BadOption, match="it is one of"):
            FitSpec(method="auxiliary", **options)
