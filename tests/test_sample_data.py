"""The committed sample data: files pair up, agree with each other, and stay small."""

import functools
import json
import re
from pathlib import Path

import nibabel as nib
import numpy as np
import pytest
from PIL import Image
from scipy.special import softmax

SAMPLE_DATA = Path(__file__).parents[1] / "sample_data"
BRAIN, NNUNET, CELLS = SAMPLE_DATA / "brain", SAMPLE_DATA / "nnunet", SAMPLE_DATA / "cells"
KINDS = ("images", "labels", "predictions")
SIZE_LIMIT = 9_000_000
FILE_BLOCK = 4096
"""Bytes that a file system hands out at a time; what `du` counts."""


def case_names(folder: Path, suffix: str) -> list[str]:
    return sorted(path.name.removesuffix(suffix) for path in folder.glob(f"*{suffix}"))


def patient(case: str) -> str:
    found = re.match(r"(patient_\d+)", case)
    assert found is not None
    return found.group(1)


BRAIN_CASES = [
    (part, case) for part in ("calibration", "test") for case in case_names(BRAIN / part / "images", ".nii.gz")
]
NNUNET_CASES = case_names(NNUNET, ".npz")
CELL_CASES = [(part, case) for part in ("calibration", "test") for case in case_names(CELLS / part / "images", ".png")]


@functools.cache
def read_brain(part: str, case: str) -> dict[str, nib.Nifti1Image]:
    return {kind: nib.load(BRAIN / part / kind / f"{case}.nii.gz") for kind in KINDS}


def array_of(image: nib.Nifti1Image) -> np.ndarray:
    """As stored, and kept by the image: get_fdata() would be a float64 copy."""
    return np.asanyarray(image.dataobj)


def nonzero_box(image: np.ndarray) -> tuple[slice, ...]:
    return tuple(slice(places.min(), places.max() + 1) for places in np.nonzero(image))


def test_all_of_it_is_under_the_size_limit():
    files = [path for path in SAMPLE_DATA.rglob("*") if path.is_file() and "__pycache__" not in path.parts]
    assert sum(-(-path.stat().st_size // FILE_BLOCK) * FILE_BLOCK for path in files) < SIZE_LIMIT


@pytest.mark.parametrize("part", ["calibration", "test"])
@pytest.mark.parametrize(("folder", "suffix"), [(BRAIN, ".nii.gz"), (CELLS, ".png")])
def test_images_labels_and_predictions_pair_up(folder, suffix, part):
    names = [sorted(path.name for path in (folder / part / kind).iterdir()) for kind in KINDS]
    assert names[0] == names[1] == names[2]
    assert all(name.endswith(suffix) for name in names[0])


def test_the_brain_has_24_calibration_and_16_test_patients_and_none_in_both():
    calibration = {patient(case) for part, case in BRAIN_CASES if part == "calibration"}
    test = {patient(case) for part, case in BRAIN_CASES if part == "test"}
    assert (len(calibration), len(test), calibration & test) == (24, 16, set())


def test_four_calibration_patients_were_scanned_twice():
    calibration = [patient(case) for part, case in BRAIN_CASES if part == "calibration"]
    assert sorted(name for name in set(calibration) if calibration.count(name) == 2) == [
        f"patient_{number:03d}" for number in (3, 7, 12, 18)
    ]


def test_there_are_48_calibration_and_24_test_images_of_cells():
    assert [sum(part == wanted for part, _ in CELL_CASES) for wanted in ("calibration", "test")] == [48, 24]


@pytest.mark.parametrize(("part", "case"), BRAIN_CASES)
def test_a_brain_case_lies_on_one_grid(part, case):
    images = read_brain(part, case)
    shape = images["images"].shape
    assert (images["labels"].shape, images["predictions"].shape) == (shape, (*shape, 4))
    for image in images.values():
        np.testing.assert_array_equal(image.affine, images["images"].affine)
        np.testing.assert_allclose(image.get_qform(), image.get_sform(), atol=1e-4)


@pytest.mark.parametrize(("part", "case"), BRAIN_CASES)
def test_a_brain_case_holds_bytes_and_logits_in_sixteenths(part, case):
    images = read_brain(part, case)
    assert [images[kind].get_data_dtype() for kind in KINDS] == [np.uint8, np.uint8, np.float32]
    logits = array_of(images["predictions"])
    assert np.abs(logits).max() <= 30
    np.testing.assert_array_equal(logits * 16, np.rint(logits * 16))


@pytest.mark.parametrize(("part", "case"), BRAIN_CASES)
def test_brain_labels_are_in_the_class_table(part, case):
    table = json.loads((BRAIN / "dataset.json").read_text())["labels"]
    labels = np.unique(array_of(read_brain(part, case)["labels"]))
    assert set(labels.tolist()) <= set(table.values())


def test_one_scan_of_each_part_has_no_tumour():
    empty = [name for name in BRAIN_CASES if not array_of(read_brain(*name)["labels"]).any()]
    assert empty == [("calibration", "patient_011"), ("test", "patient_033")]


def test_some_scans_are_oblique_and_all_are_anisotropic():
    affines = [read_brain(*name)["images"].affine for name in BRAIN_CASES]
    oblique = [affine for affine in affines if np.count_nonzero(affine[:3, :3]) > 3]
    assert 0 < len(oblique) < len(affines) / 2
    for affine in affines:
        x, _, z = nib.affines.voxel_sizes(affine)
        assert z > 2 * x


def test_the_nnunet_folder_holds_the_test_scans():
    test = [case for part, case in BRAIN_CASES if part == "test"]
    assert test == NNUNET_CASES == case_names(NNUNET, ".nii.gz")
    assert json.loads((NNUNET / "dataset.json").read_text()) == json.loads((BRAIN / "dataset.json").read_text())
    assert json.loads((NNUNET / "plans.json").read_text())["image_reader_writer"] == "SimpleITKIO"


@pytest.mark.parametrize("case", NNUNET_CASES)
def test_an_nnunet_segmentation_is_the_argmax_of_its_array(case):
    segmentation = nib.load(NNUNET / f"{case}.nii.gz")
    with np.load(NNUNET / f"{case}.npz") as arrays:
        assert arrays.files == ["probabilities"]
        probabilities = arrays["probabilities"]
    assert (probabilities.dtype, segmentation.get_data_dtype()) == (np.float32, np.uint8)
    np.testing.assert_array_equal(probabilities.argmax(axis=0), array_of(segmentation).T)
    np.testing.assert_array_equal(segmentation.affine, nib.load(BRAIN / "test/images" / f"{case}.nii.gz").affine)


@pytest.mark.parametrize("case", NNUNET_CASES)
def test_an_nnunet_array_is_the_softmax_of_the_logits_in_the_nonzero_box_and_padding_outside(case):
    images = read_brain("test", case)
    with np.load(NNUNET / f"{case}.npz") as arrays:
        probabilities = arrays["probabilities"]
    logits = array_of(images["predictions"]).T.astype(np.float64)
    box = (slice(None), *nonzero_box(array_of(images["images"]).T))
    np.testing.assert_allclose(probabilities[box], softmax(logits, axis=0)[box], rtol=1e-6)
    outside = np.ones(probabilities.shape, bool)
    outside[box] = False
    padding = np.broadcast_to(np.array([1, 0, 0, 0])[:, None, None, None], outside.shape)
    np.testing.assert_array_equal(probabilities[outside], padding[outside])


def test_some_nnunet_cases_are_padded_and_some_are_not():
    boxes = {case: array_of(nib.load(BRAIN / "test/images" / f"{case}.nii.gz")) for case in NNUNET_CASES}
    padded = [image[nonzero_box(image)].shape != image.shape for image in boxes.values()]
    assert 2 < sum(padded) < len(padded)


@pytest.mark.parametrize(("part", "case"), CELL_CASES)
def test_a_cell_case_is_an_8_bit_image_a_mask_and_a_16_bit_probability(part, case):
    files = [Image.open(CELLS / part / kind / f"{case}.png") for kind in KINDS]
    arrays = [np.asarray(file) for file in files]
    assert [file.mode for file in files] == ["L", "L", "I;16"]
    assert [array.shape for array in arrays] == [(96, 96)] * 3
    assert set(np.unique(arrays[1]).tolist()) <= {0, 255}


def test_the_cell_class_table_names_background_and_cell():
    assert json.loads((CELLS / "classes.json").read_text()) == {"background": 0, "cell": 1}


@pytest.mark.parametrize("folder", [BRAIN / "test", CELLS / "test"])
def test_predictions_have_a_border_of_doubt(folder):
    """Some voxels, but no more than a tenth, lie between 0.05 and 0.95 for the foreground."""
    shares = []
    for path in sorted((folder / "predictions").iterdir()):
        if path.suffix == ".png":
            foreground = np.asarray(Image.open(path)) / 65535
        else:
            foreground = 1 - softmax(array_of(nib.load(path)), axis=-1)[..., 0]
        shares.append(((foreground > 0.05) & (foreground < 0.95)).mean())
    assert 0.01 < np.mean(shares) < 0.1
