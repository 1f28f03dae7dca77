"""What comes along with predictions: features of all voxels or of some, last layers, scans."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from segcal_cli.core.volume import Box, Grid
from segcal_cli.io import nifti
from segcal_cli.io.companions import (
    Companions,
    FeatureForm,
    FeaturesElsewhere,
    NoFeatures,
    SomeVoxelsOnly,
    at_voxels,
    read_features,
    read_layer,
)
from segcal_cli.io.folders import ImageFolder, NoImage
from segcal_cli.io.geometry import Space
from tests.calibration.builders_cases import case_of, space_of

SHAPE = (2, 3, 4)
F = np.arange(5 * 24, dtype=np.float32).reshape(5, *SHAPE)
INDEX = np.array([[1, 2, 3], [0, 0, 0], [1, 0, 2]])


def saved(path: Path, **arrays: np.ndarray) -> Path:
    np.savez(path, **arrays)
    return path


def some(path: Path, **changes: np.ndarray) -> Path:
    """Features of three voxels."""
    arrays = {"features": F[:, INDEX[:, 0], INDEX[:, 1], INDEX[:, 2]].T, "index": INDEX, "shape": np.array(SHAPE)}
    return saved(path, **{name: array for name, array in {**arrays, **changes}.items() if array is not None})


def plain_case(**more):
    z = np.arange(24, dtype=np.float32).reshape(1, *SHAPE)
    return case_of(z, (np.arange(24) % 3 == 0)[np.newaxis], space_of(1, "sigmoid"), **more)


@pytest.mark.parametrize("dtype", [np.float16, np.float32])
def test_features_of_all_voxels_keep_their_type(tmp_path: Path, dtype: type):
    found, index = read_features(saved(tmp_path / "a.npz", features=F.astype(dtype)), SHAPE)
    assert index is None
    assert found.dtype == dtype
    np.testing.assert_array_equal(found, F)


def test_features_of_some_voxels_come_with_their_places(tmp_path: Path):
    found, index = read_features(some(tmp_path / "a.npz"), SHAPE)
    np.testing.assert_array_equal(index, INDEX)
    np.testing.assert_array_equal(found[:, 0], F[:, 1, 2, 3])


@pytest.mark.parametrize(("changes", "message"), [
    ({"features": F.astype(np.int32)}, "features are int32; save them as float16 or float32"),
    ({"features": F[0]}, r"features have 3 axes; they are \(F, z, y, x\), or \(n, F\) with index"),
    ({"features": np.where(F == 7, np.nan, F)}, "features hold NaN or infinite values"),
    ({"index": None}, r"need index \(n, 3\) and shape \(3,\), whole numbers"),
    ({"index": INDEX.astype(float)}, "whole numbers"),
    ({"index": INDEX[:2]}, r"index is \(2, 3\) and shape \(3,\) for 3 voxels"),
    ({"index": INDEX * [1, 1, 2]}, "index goes beyond shape"),
    ({"index": INDEX[[0, 0, 1]]}, "index names a voxel twice"),
])  # fmt: skip
def test_features_in_another_form_are_refused_with_their_file(tmp_path: Path, changes: dict, message: str):
    path = some(tmp_path / "a.npz", **changes)
    with pytest.raises(FeatureForm, match=f"^{path}: .*{message}"):
        read_features(path, SHAPE)


@pytest.mark.parametrize("changes", [{"features": F[:, :1]}, {"shape": np.array([2, 4, 3])}], ids=["all", "some"])
def test_features_of_another_grid_are_refused(tmp_path: Path, changes: dict):
    path = some(tmp_path / "a.npz", **changes)
    with pytest.raises(
        FeaturesElsewhere, match=r"features of a volume of \(.*\) \(z, y, x\), and the prediction has \(2"
    ):
        read_features(path, SHAPE)


def test_a_last_layer_is_weight_and_bias(tmp_path: Path):
    weight, bias = np.ones((3, 5), np.float32), np.zeros(3, np.float32)
    found = read_layer(saved(tmp_path / "layer.npz", weight=weight, bias=bias))
    assert [array.shape for array in found] == [(3, 5), (3,)]
    for arrays, message in (
        ({"weight": weight}, "no array bias; a last layer is"),
        ({"weight": weight[0], "bias": bias}, "weight is not finite floating-point of 2 axes"),
        ({"weight": weight, "bias": bias + np.inf}, "bias is not finite"),
    ):
        path = saved(tmp_path / "bad.npz", **arrays)
        with pytest.raises(FeatureForm, match=f"^{path}: {message}"):
            read_layer(path)


def test_a_case_shrinks_to_the_voxels_that_features_are_of():
    roi, ignored = np.zeros(24, dtype=bool), np.zeros(24, dtype=bool)
    roi[[0, 23]], ignored[14] = True, True
    case = plain_case(roi=roi, ignored=ignored)
    features = F[:, INDEX[:, 0], INDEX[:, 1], INDEX[:, 2]]
    volume = case.volume
    small = at_voxels(_with(case, features), INDEX)
    assert small.volume.array.reshape(-1).tolist() == [23.0, 0.0, 14.0]
    assert small.labels.holds(0).reshape(-1).tolist() == [False, True, False]
    assert small.roi.reshape(-1).tolist() == [True, True, False]
    assert small.labels.ignored.reshape(-1).tolist() == [False, False, True]
    assert small.volume.features.shape == (5, 1, 1, 3)
    assert small.volume.stored == volume.stored


def test_voxels_in_padding_are_left_out_of_it():
    case = plain_case(predicted=Box((0, 1), (0, 3), (0, 4)))
    small = at_voxels(_with(case, F[:, INDEX[:, 0], INDEX[:, 1], INDEX[:, 2]]), INDEX)
    assert small.volume.array.reshape(-1).tolist() == [0.0]
    np.testing.assert_array_equal(small.volume.features[:, 0, 0, 0], F[:, 0, 0, 0])


def _with(case, features):
    from dataclasses import replace

    return replace(case, volume=replace(case.volume, features=features))


def test_scans_are_turned_onto_the_grid_of_the_prediction(tmp_path: Path):
    scan = np.arange(24, dtype=np.float32).reshape(SHAPE)
    affine = np.diag([1.0, 1.0, 2.0, 1.0])
    flipped = affine.copy()
    flipped[0] = [-1.0, 0.0, 0.0, 3.0]
    nifti.write(tmp_path / "a.nii.gz", np.ascontiguousarray(scan[:, :, ::-1]), flipped)
    case = plain_case()
    place = Space("a.nii.gz", Grid(SHAPE, affine))
    volume, index = Companions(images=ImageFolder(tmp_path)).attached("a", case.volume, place)
    assert index is None
    np.testing.assert_array_equal(volume.image, scan)


def test_what_is_not_there_is_named(tmp_path: Path):
    case, place = plain_case(), Space("a.nii.gz", Grid(SHAPE))
    lacking = Companions(features=tmp_path)
    with pytest.raises(NoFeatures, match=rf"^a: no features {tmp_path / 'a.npz'}$"):
        lacking.attached("a", case.volume, place)
    assert isinstance(lacking.missing("a"), NoFeatures)
    assert isinstance(Companions(images=ImageFolder(tmp_path)).missing("a"), NoImage)
    some(tmp_path / "a.npz")
    assert lacking.missing("a") is None
    with pytest.raises(SomeVoxelsOnly, match="features of 3 voxels only; to apply and to measure"):
        lacking.attached("a", case.volume, place)
    volume, index = Companions(features=tmp_path, some=True).attached("a", case.volume, place)
    assert volume.features.shape == (5, 3)
    np.testing.assert_array_equal(index, INDEX)
