"""Labels on the grid of their prediction: compared by headers, turned without loss, looked up in the class table."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from segcal_cli.core.labels import LabelSpace
from segcal_cli.io.case_files import CaseFiles, LabelFile, PredictionFile
from segcal_cli.io.geometry import ShapeMismatch, VoxelSizeAmbiguous
from segcal_cli.io.nnunet import find_model_files
from segcal_cli.io.predictions import ReadingRules, open_prediction
from segcal_cli.io.truth import TruthRules, TruthSource, open_truth, read_truth
from tests.io.builders_arrays import npy_bytes
from tests.io.builders_folders import exclusive
from tests.io.builders_nifti import ALL_ORIENTATIONS, affine_of, save, softmax_field, turned

SHAPE = (4, 5, 6)
THREE = exclusive("background", "edema", "necrosis")
TWO = exclusive("background", "tumour")
AFFINE = affine_of("LPS", oblique=9.0)
LABELS = np.random.default_rng(0).integers(0, 3, SHAPE).astype(np.uint8)


def truth(
    tmp_path: Path,
    *labels: LabelFile,
    roi: Path | None = None,
    rules: TruthRules = TruthRules(),  # noqa: B008 - an immutable record
    prediction: Path | None = None,
    table: LabelSpace = THREE,
    reader: str | None = None,
) -> TruthSource:
    """The truth of one case, opened; the prediction is a NIfTI volume unless another is given."""
    path = prediction or save(tmp_path / "p.nii.gz", softmax_field((3, *SHAPE)), AFFINE)
    case = CaseFiles("a", "a", (PredictionFile(path),), labels, roi)
    reading = ReadingRules(values="probabilities", reader=reader)
    opened = open_prediction(case, table, reading, find_model_files(path), placed_by_label=True)
    return open_truth(case, opened, table, rules)


def label(
    tmp_path: Path, values: np.ndarray = LABELS, affine: np.ndarray = AFFINE, name: str = "l", **more
) -> LabelFile:
    return LabelFile(save(tmp_path / f"{name}.nii.gz", values, affine, **more))


@pytest.mark.parametrize("codes", ALL_ORIENTATIONS)
def test_a_label_in_any_orientation_is_turned_without_loss(codes, tmp_path):
    values, affine = turned(LABELS, AFFINE, codes)
    source = truth(tmp_path, label(tmp_path, values, affine))
    labels, roi = read_truth(source)
    np.testing.assert_array_equal(labels.codes, LABELS)
    assert (labels.ignored, roi) == (None, None)
    assert bool(source.turned) == (codes != "LPS")
    assert source.distance_mm == pytest.approx(0, abs=1e-4)


def test_a_region_of_interest_is_turned_as_well(tmp_path):
    mask = (LABELS > 1).astype(np.uint8) * 7
    values, affine = turned(mask, AFFINE, "ASR")
    roi = save(tmp_path / "roi.nii.gz", values, affine)
    np.testing.assert_array_equal(read_truth(truth(tmp_path, label(tmp_path), roi=roi))[1], LABELS > 1)


def test_a_bare_array_lies_where_its_label_does(tmp_path):
    path = tmp_path / "p.npy"
    path.write_bytes(npy_bytes(softmax_field((3, *SHAPE))))
    source = truth(tmp_path, label(tmp_path), prediction=path)
    np.testing.assert_allclose(source.place.grid.affine, AFFINE, atol=1e-5)


def test_a_bare_array_of_another_shape_than_its_label_is_refused(tmp_path):
    path = tmp_path / "p.npy"
    path.write_bytes(npy_bytes(softmax_field((3, *SHAPE))))
    with pytest.raises(ShapeMismatch):
        truth(tmp_path, label(tmp_path, LABELS[1:]), prediction=path)


@pytest.mark.parametrize(("reader", "placed"), [("NibabelIOWithReorient", True), ("SimpleITKIO", False)])
def test_only_a_reorienting_reader_lets_an_array_have_the_axes_of_its_label_in_another_order(reader, placed, tmp_path):
    path = tmp_path / "p.npy"
    path.write_bytes(npy_bytes(softmax_field((3, *SHAPE))))
    values, affine = turned(LABELS, AFFINE, "SPL")
    if placed:
        source = truth(tmp_path, label(tmp_path, values, affine), prediction=path, reader=reader)
        assert source.place.grid.shape == values.shape
    else:
        with pytest.raises(ShapeMismatch):
            truth(tmp_path, label(tmp_path, values, affine), prediction=path, reader=reader)


def test_a_foreground_alone_is_compared_with_the_foreground_of_its_label(tmp_path):
    path = save(tmp_path / "p.nii.gz", softmax_field((3, *SHAPE))[0], AFFINE)
    source = truth(tmp_path, label(tmp_path, np.minimum(LABELS, 1)), prediction=path, table=TWO)
    labels, _ = read_truth(source)
    np.testing.assert_array_equal(labels.holds(0), LABELS > 0)
    assert labels.members.shape[0] == 1


def test_masks_of_single_classes_are_each_turned_and_joined(tmp_path):
    files = []
    for value, (name, codes) in enumerate((("edema", "RAS"), ("necrosis", "PIL")), 1):
        values, affine = turned((value == LABELS).astype(np.uint8), AFFINE, codes)
        files.append(LabelFile(save(tmp_path / f"{name}.nii.gz", values, affine), name))
    labels, _ = read_truth(truth(tmp_path, *files))
    np.testing.assert_array_equal(labels.codes, LABELS)


def test_an_ignored_value_stands_apart(tmp_path):
    values = LABELS.copy()
    values[0] = 9
    labels, _ = read_truth(truth(tmp_path, label(tmp_path, values), rules=TruthRules(ignore_label=9)))
    np.testing.assert_array_equal(labels.ignored, values == 9)


def test_a_voxel_size_in_doubt_is_refused_where_volumes_are_given(tmp_path):
    other = affine_of("LPS", oblique=9.0, spacing=(0.9, 1.1, 2.6))
    path = save(tmp_path / "p.nii.gz", softmax_field((3, *SHAPE)), AFFINE, qform_affine=other)
    file = label(tmp_path, qform_affine=other)
    source = truth(tmp_path, file, prediction=path)
    assert len(source.warnings) == 1
    with pytest.raises(VoxelSizeAmbiguous):
        truth(tmp_path, file, prediction=path, rules=TruthRules(volumes=True))
