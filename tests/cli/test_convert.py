"""``segcal convert``: every readable prediction becomes NIfTI on its scan's grid, bit for bit."""

from __future__ import annotations

import json
import shutil
import tempfile
from pathlib import Path

import nibabel as nib
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.cli.builders_reading import (
    AFFINE,
    CLASSES,
    SHAPE,
    Study,
    logits_of,
    nifti_study,
    nnunet_study,
    png_study,
    segcal,
    sigmoid_of,
    softmax_of,
    tree,
    write_classes,
    write_npz,
)
from tests.io.builders_arrays import npy_bytes, saved_image
from tests.io.builders_nifti import ALL_ORIENTATIONS, affine_of, save
from tests.io.builders_nnunet import in_ras, pad, softmax_field

REORIENTING = pytest.mark.parametrize("reader", ["NibabelIOWithReorient", "SimpleITKIOWithReorient"])


def converted(study: Study, *more: object, case: str = "a", kind: str = "probseg") -> np.ndarray:
    """Convert, and the written numbers as nibabel reads them, "class z y x"."""
    ran = segcal("convert", study.predictions, "-o", study.root / "out", "--overwrite", *more)
    assert ran.code == 0, ran.err
    return written(study.root / "out" / f"{case}_{kind}.nii.gz")


def written(path: Path) -> np.ndarray:
    return np.asarray(nib.load(path).dataobj).T


def model(folder: Path, classes: int, reader: str | None = "SimpleITKIO") -> Path:
    folder.mkdir(parents=True, exist_ok=True)
    write_classes(folder / "dataset.json", {"labels": {f"c{i}": i for i in range(classes)}})
    if reader is not None:
        write_classes(folder / "plans.json", {"image_reader_writer": reader})
    return folder


@settings(max_examples=40, deadline=None)
@given(
    shape=st.tuples(*[st.integers(1, 9)] * 3),
    codes=st.sampled_from(ALL_ORIENTATIONS),
    classes=st.integers(2, 5),
    seed=st.integers(0, 2**16),
)
def test_float32_passes_bit_for_bit_and_back(shape, codes, classes, seed):
    with tempfile.TemporaryDirectory() as name:
        root = Path(name)
        field, segmentation = softmax_field(shape, classes, seed)
        folder = model(root / "p", classes)
        write_npz(folder / "a.npz", probabilities=field)
        place = affine_of(codes, oblique=7.0)
        save(folder / "a.nii.gz", segmentation, place)
        ran = segcal("convert", folder, "-o", root / "once")
        assert ran.code == 0, ran.err
        image = nib.load(root / "once" / "a_probseg.nii.gz")
        np.testing.assert_array_equal(np.asarray(image.dataobj).T.view(np.uint32), field.view(np.uint32))
        assert image.get_data_dtype() == np.float32
        np.testing.assert_allclose(image.affine, place, atol=1e-5)
        options = ("--values", "probabilities", "--classes", folder / "dataset.json")
        ran = segcal("convert", root / "once", "-o", root / "twice", *options)
        assert ran.code == 0, ran.err
        assert tree(root / "once") == tree(root / "twice")


@REORIENTING
@pytest.mark.parametrize("codes", ["RAS", "LPS", "LPI", "ASL", "PLS"])
@pytest.mark.parametrize("degrees", [0.0, 12.0])
@pytest.mark.parametrize("shape", [(6, 7, 9), (8, 8, 8)])
def test_the_turn_of_a_reorienting_reader_is_undone(reader, codes, degrees, shape, tmp_path):
    field, segmentation = softmax_field(shape, 3)
    place = affine_of(codes, oblique=degrees)
    study = Study(tmp_path)
    model(study.predictions, 3, reader)
    write_npz(study.predictions / "a.npz", probabilities=in_ras(field, place))
    save(study.predictions / "a.nii.gz", segmentation, place)
    np.testing.assert_array_equal(converted(study), field)


def _reoriented(root: Path, reader: str | None) -> tuple[Study, np.ndarray]:
    field, segmentation = softmax_field((8, 8, 8), 3)
    study = Study(root)
    model(study.predictions, 3, reader)
    write_npz(study.predictions / "a.npz", probabilities=in_ras(field, AFFINE))
    save(study.predictions / "a.nii.gz", segmentation, AFFINE)
    return study, field


def test_without_plans_the_segmentation_tells_the_reader(tmp_path):
    study, field = _reoriented(tmp_path, None)
    np.testing.assert_array_equal(converted(study), field)


def test_the_reader_of_the_command_line_wins_over_plans(tmp_path):
    study, field = _reoriented(tmp_path, "SimpleITKIO")
    np.testing.assert_array_equal(converted(study, "--reader", "NibabelIOWithReorient"), field)


def test_no_prove_reads_by_the_reader_alone(tmp_path):
    study, field = _reoriented(tmp_path, "NibabelIOWithReorient")
    save(study.predictions / "a.nii.gz", np.ones((8, 8, 8), np.uint8), AFFINE)
    np.testing.assert_array_equal(converted(study, "--no-prove"), field)


def test_a_reoriented_array_without_segmentation_is_turned_onto_its_geometry(tmp_path):
    study, field = _reoriented(tmp_path, "NibabelIOWithReorient")
    (tmp_path / "images").mkdir()
    (study.predictions / "a.nii.gz").rename(tmp_path / "images" / "a_0000.nii.gz")
    np.testing.assert_array_equal(converted(study, "--geometry", tmp_path / "images"), field)


def test_a_cropped_array_of_nnunet_v1_is_placed_and_the_rest_is_background(tmp_path):
    field, segmentation = softmax_field((5, 6, 7), 3, 4)
    crop = field.astype(np.float16)
    study = Study(tmp_path)
    model(study.predictions, 3, None)
    write_npz(study.predictions / "a.npz", softmax=crop)
    full = np.pad(segmentation, ((2, 1), (0, 3), (4, 0)))
    save(study.predictions / "a.nii.gz", full, AFFINE)
    expected = pad(crop.astype(np.float32), (2, 0, 4), (1, 3, 0), first=1.0)
    np.testing.assert_array_equal(converted(study), expected)


def _vector(study: Study, field: np.ndarray) -> None:
    save(study.predictions / "a.nii.gz", field[:, None], AFFINE)


def _big_endian(study: Study, field: np.ndarray) -> None:
    save(study.predictions / "a.nii.gz", field, AFFINE, big_endian=True)


def _plain(study: Study, field: np.ndarray) -> None:
    save(study.predictions / "a.nii", field, AFFINE)


def _per_class(study: Study, field: np.ndarray) -> None:
    for name, channel in zip(CLASSES, field, strict=True):
        save(study.predictions / f"a_{name}.nii.gz", channel, AFFINE)


def _bids(study: Study, field: np.ndarray) -> None:
    for name, channel in zip(CLASSES, field, strict=True):
        save(study.predictions / f"a_label-{name}_probseg.nii.gz", channel, AFFINE)


def _big_endian_array(study: Study, field: np.ndarray) -> None:
    (study.predictions / "a.npy").write_bytes(npy_bytes(field.astype(">f4")))


def _fortran_array(study: Study, field: np.ndarray) -> None:
    (study.predictions / "a.npy").write_bytes(npy_bytes(np.asfortranarray(field)))


def _double_array(study: Study, field: np.ndarray) -> None:
    write_npz(study.predictions / "a.npz", mine=field.astype(np.float64))


@pytest.mark.parametrize(
    "write",
    [
        _vector,
        _big_endian,
        _plain,
        _per_class,
        _bids,
        _big_endian_array,
        _fortran_array,
        _double_array,
    ],
)
def test_every_form_of_one_prediction_gives_the_same_volume(write, tmp_path):
    study = Study(tmp_path).folders()
    write_classes(study.classes, {name: value for value, name in enumerate(CLASSES)})
    field = softmax_of(logits_of(3, 1))
    write(study, field)
    (tmp_path / "images").mkdir()
    save(tmp_path / "images" / "a.nii.gz", field[0], AFFINE)
    bare = ("--geometry", tmp_path / "images") if write in (_big_endian_array, _fortran_array, _double_array) else ()
    options = ("--classes", study.classes, "--values", "probabilities", *bare)
    np.testing.assert_array_equal(converted(study, *options), field)


def test_channels_that_come_first_on_disk(tmp_path):
    study = Study(tmp_path).folders()
    write_classes(study.classes, {name: value for value, name in enumerate(CLASSES)})
    field = logits_of(3, 1)
    save(study.predictions / "a.nii.gz", np.moveaxis(field, 0, -1), AFFINE)
    options = ("--classes", study.classes, "--values", "logits", "--channel-axis", "first")
    np.testing.assert_array_equal(converted(study, *options, kind="logits"), field)


def test_a_flat_volume_of_channels_is_two_dimensional(tmp_path):
    study = Study(tmp_path).folders()
    write_classes(study.classes, {name: value for value, name in enumerate(CLASSES)})
    field = logits_of(3, 1, (1, 6, 7))
    save(study.predictions / "a.nii.gz", field, AFFINE)
    options = ("--classes", study.classes, "--values", "logits")
    np.testing.assert_array_equal(converted(study, *options, kind="logits"), field)


def test_an_image_of_two_axes_is_one_channel(tmp_path):
    study = Study(tmp_path).folders()
    field = sigmoid_of(logits_of(1, 1, (1, 6, 7)))
    save(study.predictions / "a.nii.gz", field[0, 0], AFFINE)
    ran = segcal("convert", study.predictions, "-o", tmp_path / "out", "--values", "probabilities")
    assert ran.code == 0, ran.err
    np.testing.assert_array_equal(written(tmp_path / "out" / "a_label-foreground_probseg.nii.gz"), field[0])


def test_an_absent_background_is_what_the_other_classes_leave(tmp_path):
    study = Study(tmp_path).folders()
    write_classes(study.classes, {name: value for value, name in enumerate(CLASSES)})
    field = softmax_of(logits_of(3, 1))
    for name, channel in zip(CLASSES[1:], field[1:], strict=True):
        save(study.predictions / f"a_{name}.nii.gz", channel, AFFINE)
    ran = segcal(
        "convert", study.predictions, "-o", tmp_path / "out", "--classes", study.classes, "--values", "probabilities"
    )
    assert ran.code == 0, ran.err
    assert ran.err.count("background (background) = 1 - the sum of the other classes' files") == 1
    out = written(tmp_path / "out" / "a_probseg.nii.gz")
    np.testing.assert_array_equal(out[1:], field[1:])
    np.testing.assert_allclose(out[0], 1 - field[1:].sum(axis=0, dtype=np.float64), atol=1e-7)


def test_class_files_that_count_their_voxels_from_another_side_are_turned(tmp_path):
    study = Study(tmp_path).folders()
    write_classes(study.classes, {name: value for value, name in enumerate(CLASSES)})
    field = softmax_of(logits_of(3, 1))
    _per_class(study, field)
    back = AFFINE @ np.diag([-1.0, 1, 1, 1])
    back[:3, 3] += (SHAPE[2] - 1) * AFFINE[:3, 0]
    save(study.predictions / "a_necrosis.nii.gz", field[2, :, :, ::-1], back)
    options = ("--classes", study.classes, "--values", "probabilities")
    np.testing.assert_array_equal(converted(study, *options), field)


@pytest.mark.parametrize("reduce", [None, "mean-probabilities", "mean-logits"])
def test_samples_are_joined_as_asked(reduce, tmp_path):
    study = Study(tmp_path).folders()
    write_classes(study.classes, {name: value for value, name in enumerate(CLASSES)})
    samples = [logits_of(3, seed) for seed in range(3)]
    for index, sample in enumerate(samples):
        (study.predictions / f"fold_{index}").mkdir()
        save(study.predictions / f"fold_{index}" / "a.nii.gz", sample, AFFINE)
    options = ["--classes", study.classes, "--values", "logits", "--pattern", "fold_{sample}/{case}"]
    if reduce is not None:
        options += ["--reduce", reduce]
    if reduce == "mean-logits":
        np.testing.assert_allclose(converted(study, *options, kind="logits"), np.mean(samples, axis=0), atol=1e-6)
    else:
        expected = np.mean([softmax_of(sample) for sample in samples], axis=0)
        np.testing.assert_allclose(converted(study, *options), expected, atol=1e-6)


def test_samples_of_nnunet_folds_are_each_proved(tmp_path):
    study = Study(tmp_path).folders()
    fields = []
    for fold in range(2):
        field, segmentation = softmax_field(SHAPE, 3, fold)
        folder = model(study.predictions / f"fold_{fold}", 3)
        write_npz(folder / "a.npz", probabilities=field)
        save(folder / "a.nii.gz", segmentation, AFFINE)
        fields.append(field)
    options = ("--pattern", "fold_{sample}/{case}", "--classes", study.predictions / "fold_0" / "dataset.json")
    np.testing.assert_allclose(converted(study, *options), np.mean(fields, axis=0), atol=1e-7)


def test_split_classes_writes_one_file_per_class_that_reads_back_the_same(tmp_path):
    study = nnunet_study(tmp_path, ("a",))
    whole = converted(study)
    shutil.rmtree(tmp_path / "out")
    ran = segcal("convert", study.predictions, "-o", tmp_path / "out", "--split-classes")
    assert ran.code == 0, ran.err
    assert sorted(tree(tmp_path / "out")) == [f"a_label-{name}_probseg.nii.gz" for name in CLASSES]
    again = Study(tmp_path)
    ran = segcal(
        "convert", tmp_path / "out", "-o", tmp_path / "again", "--values", "probabilities",
        "--classes", study.predictions / "dataset.json",
    )  # fmt: skip
    assert ran.code == 0, ran.err
    np.testing.assert_array_equal(written(again.root / "again" / "a_probseg.nii.gz"), whole)


def test_the_side_file_names_the_channels(tmp_path):
    study = nnunet_study(tmp_path, ("a",))
    converted(study)
    side = json.loads((tmp_path / "out" / "a_probseg.json").read_text())
    assert side == {"LabelMap": list(CLASSES)}


def test_nothing_of_the_patient_is_copied(tmp_path):
    study = nifti_study(tmp_path, ("a",))
    path = study.predictions / "a.nii.gz"
    image = nib.load(path)
    image.header["descrip"] = b"Jane Doe"
    image.header["intent_name"] = b"Jane Doe"
    nib.save(nib.Nifti1Image(np.asarray(image.dataobj), image.affine, image.header), path)
    converted(study, "--classes", study.classes, "--values", "logits", kind="logits")
    header = nib.load(tmp_path / "out" / "a_logits.nii.gz").header
    assert (bytes(header["descrip"]).strip(b"\0"), bytes(header["intent_name"]).strip(b"\0")) == (b"", b"")


def test_saturation_is_reported_per_class(tmp_path):
    study = nnunet_study(tmp_path, ("a",))
    field = softmax_of(logits_of(3, 0))
    field[:, 0, 0, 0] = (0, 1, 0)
    write_npz(study.predictions / "a.npz", probabilities=field)
    save(study.predictions / "a.nii.gz", field.argmax(axis=0).astype(np.uint8), AFFINE)
    ran = segcal("convert", study.predictions, "-o", tmp_path / "out", "--json")
    (case,) = ran.document["result"]["cases"]
    voxels = np.prod(SHAPE)
    for index, name in enumerate(CLASSES):
        assert case["saturation"][name] == {
            "p_zero": (field[index] == 0).sum() / voxels,
            "p_one": (field[index] == 1).sum() / voxels,
            "p_below_1e-6": (field[index] < 1e-6).sum() / voxels,
            "p_above_1-1e-6": (field[index] > 1 - 1e-6).sum() / voxels,
        }


def test_a_folder_without_names_of_cases_in_common_keeps_every_id_to_itself(tmp_path):
    """Ids with dots, blanks, umlauts and BIDS entities become names of files unharmed."""
    cases = ("case.1.2", "zwei Wörter", "sub-01_space-T1w", "_x")
    study = nnunet_study(tmp_path, cases)
    ran = segcal("convert", study.predictions, "-o", tmp_path / "out")
    assert ran.code == 0, ran.err
    for case in cases:
        assert (tmp_path / "out" / f"{case}_probseg.nii.gz").is_file()


@pytest.mark.parametrize("bits", [8, 16])
def test_a_gray_image_holds_shares_of_its_largest_value(bits, tmp_path):
    study = png_study(tmp_path, ("a",), bits=bits)
    (tmp_path / "images").mkdir()
    save(tmp_path / "images" / "a.nii.gz", np.zeros((1, 24, 31), np.uint8), AFFINE)
    ran = segcal("convert", study.predictions, "-o", tmp_path / "out", "--geometry", tmp_path / "images")
    assert ran.code == 0, ran.err
    p = sigmoid_of(logits_of(1, 0, (1, 24, 31)))[0]
    step = 1 / (2**bits - 1)
    np.testing.assert_allclose(written(tmp_path / "out" / "a_label-foreground_probseg.nii.gz"), p, atol=step / 2 + 1e-7)


def test_a_tiff_lies_where_its_side_file_says(tmp_path):
    import tifffile

    study = Study(tmp_path).folders()
    field = sigmoid_of(logits_of(1, 3))[0]
    tifffile.imwrite(study.predictions / "a.tif", field)
    (study.predictions / "a.json").write_text('{"spacing": [2.0, 1.5, 0.5]}')
    ran = segcal("convert", study.predictions, "-o", tmp_path / "out", "--values", "probabilities")
    assert ran.code == 0, ran.err
    image = nib.load(tmp_path / "out" / "a_label-foreground_probseg.nii.gz")
    assert image.header.get_zooms() == (0.5, 1.5, 2.0)
    np.testing.assert_array_equal(np.asarray(image.dataobj).T, field)


def test_numbers_of_a_display_file_are_warned_about_when_read(tmp_path):
    study = nnunet_study(tmp_path)
    artifact = tmp_path / "t.npz"
    assert segcal("calibrate", "fit", *study.both, "-o", artifact).code == 0
    ran = segcal("calibrate", "apply", artifact, study.predictions, "-o", tmp_path / "display", "--dtype", "uint16")
    assert ran.code == 0, ran.err
    ran = segcal(
        "convert", tmp_path / "display", "-o", tmp_path / "out", "--values", "probabilities",
        "--classes", study.predictions / "dataset.json",
    )  # fmt: skip
    assert ran.code == 0, ran.err
    warning = "warning: written for display, in steps of 1/65535: smaller probabilities are lost (4 cases)"
    assert warning in ran.err.splitlines()


def test_one_broken_case_does_not_stop_the_others(tmp_path):
    study = nnunet_study(tmp_path)
    (study.predictions / "case-2.npz").write_bytes(b"")
    ran = segcal("convert", study.predictions, "-o", tmp_path / "out")
    assert ran.code == 8
    assert ran.closing == "segcal: 4 cases, 3 done, 1 failed: case-2 (exit 8)"
    assert f"{study.predictions / 'case-2.npz'}: is empty (0 bytes)" in ran.err.splitlines()
    assert len(tree(tmp_path / "out")) == 6


def test_stop_ends_at_a_broken_case(tmp_path):
    study = nnunet_study(tmp_path)
    (study.predictions / "case-2.npz").write_bytes(b"")
    ran = segcal("convert", study.predictions, "-o", tmp_path / "out", "--on-failure", "stop")
    assert (ran.code, tree(tmp_path / "out")) == (4, {})


def test_stop_at_a_broken_voxel_keeps_finished_cases(tmp_path):
    study = nnunet_study(tmp_path)
    write_npz(study.predictions / "case-2.npz", probabilities=np.full((3, *SHAPE), np.nan, np.float32))
    ran = segcal("convert", study.predictions, "-o", tmp_path / "out", "--on-failure", "stop", "--json")
    assert ran.code == 8
    assert sorted(tree(tmp_path / "out")) == ["case-1_probseg.json", "case-1_probseg.nii.gz"]
    assert ran.document["result"]["not_run"] == 2
    (failure,) = ran.document["failures"]
    assert (failure["case"], failure["file"], failure["error"]) == ("case-2", "case-2.npz", "NotFinite")


def test_overwrite_replaces_what_is_there(tmp_path):
    study = nnunet_study(tmp_path, ("a",))
    first = converted(study)
    (tmp_path / "out" / "a_probseg.nii.gz").write_bytes(b"mine")
    np.testing.assert_array_equal(converted(study), first)


def test_a_palette_of_one_class_per_file_is_no_probability(tmp_path):
    study = Study(tmp_path).folders()
    write_classes(study.classes, {name: value for value, name in enumerate(CLASSES)})
    for name in CLASSES:
        saved_image(study.predictions / f"a_{name}.png", np.zeros((6, 7), np.uint8), "P")
    ran = segcal("convert", study.predictions, "-o", tmp_path / "out", "--classes", study.classes)
    assert ran.code == 4
    assert "a colour image cannot hold probabilities; one gray image per class" in ran.err
