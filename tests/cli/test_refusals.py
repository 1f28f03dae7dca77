"""Every input that is refused: what is said, with which exit code, and that nothing is written.

A row builds its files below a folder and returns the command. ``says`` is the closing line, or all lines on stderr from
the first problem on, with the folder left out; each row is run twice, for people and with ``--json``.
"""

from __future__ import annotations

import gzip
import json
import os
import shutil
import struct
import zipfile
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pytest

from segcal_cli.io.seals import sealed
from tests.cli.builders_reading import (
    AFFINE,
    CLASSES,
    SHAPE,
    Study,
    drawn_labels,
    logits_of,
    nested_regions,
    nifti_study,
    nnunet_study,
    painted,
    png_study,
    region_study,
    segcal,
    sigmoid_of,
    softmax_of,
    tree,
    write_classes,
    write_npz,
)
from tests.io.builders_arrays import npy_bytes, pickled_npy, saved_image
from tests.io.builders_arrays import write_npz as write_members
from tests.io.builders_nifti import affine_of, edit, flipped, save, with_dims
from tests.io.builders_nnunet import in_ras, softmax_field

Command = list[object]


@dataclass(frozen=True, slots=True)
class Row:
    build: Callable[[Path], Command]
    code: int
    says: tuple[str, ...]


ROWS: list[Row] = []


def refused(code: int, *says: str) -> Callable[[Callable[[Path], Command]], Callable[[Path], Command]]:
    def add(build: Callable[[Path], Command]) -> Callable[[Path], Command]:
        ROWS.append(Row(build, code, says))
        return build

    return add


def unusable(*problems: str, of: int = 1) -> Callable[[Callable[[Path], Command]], Callable[[Path], Command]]:
    """As ``refused``, for problems of single cases: each has a line, and the closing line counts them."""
    n, nouns, verb = len(problems), "input" if of == 1 else "inputs", "is" if len(problems) == 1 else "are"
    return refused(4, *problems, f"{n} of {of} {nouns} {verb} unusable, nothing written")


@pytest.mark.parametrize("row", ROWS, ids=lambda row: row.build.__name__)
def test_refused(row, tmp_path, request):
    command = row.build(tmp_path)
    before = tree(tmp_path)
    ran = segcal(*command)
    lines = [line.replace(f"{tmp_path}/", "") for line in ran.err.splitlines()]
    lines = [line for line in lines if not line.startswith("warning: ")]
    closing = f"segcal: {row.says[-1]} (exit {row.code})"
    assert lines[-len(row.says) :] == [*row.says[:-1], closing]
    assert ran.code == row.code
    assert ran.out == ""
    assert tree(tmp_path) == before

    ran = segcal(*command, "--json")
    document = ran.document
    assert (ran.code, document["exit_code"], document["status"]) == (row.code, row.code, "failed")
    messages = [failure["message"].replace(f"{tmp_path}/", "") for failure in document["failures"]]
    assert messages
    for message in messages:
        assert any(message in line for line in lines)
    assert tree(tmp_path) == before


# Commands.


def fit(study: Study, *more: object) -> Command:
    return ["calibrate", "fit", *study.both, "-o", study.root / "out.npz", *more]


def evaluate(study: Study, *more: object) -> Command:
    return ["evaluate", *study.both, "-o", study.root / "out.csv", *more]


def convert(study: Study, *more: object) -> Command:
    return ["convert", study.predictions, "-o", study.root / "out", *more]


def fit_nifti(study: Study, *more: object) -> Command:
    return fit(study, "--classes", study.classes, "--values", "logits", *more)


def fit_probabilities(study: Study, *more: object) -> Command:
    return fit(study, "--classes", study.classes, "--values", "probabilities", *more)


def one(root: Path, build: Callable[..., Study] = nnunet_study, **more: object) -> Study:
    return build(root, ("a",), **more)


def fitted(study: Study, *more: object) -> Path:
    """An artifact fitted on the study, beside it."""
    artifact = study.root / "fitted.npz"
    ran = segcal("calibrate", "fit", *study.both, "-o", artifact, *more)
    assert ran.code == 0, ran.err
    return artifact


# Predictions: nnU-Net.


@unusable(
    "predictions/a.npz: no segmentation a.nii.gz beside it, so its place in space is unknown; give --geometry FOLDER"
)
def array_without_segmentation(root):
    study = one(root)
    (study.predictions / "a.nii.gz").unlink()
    return convert(study)


@unusable(
    "predictions/a.npz: array 5 x 4 x 4, scan 7 x 6 x 5: nnU-Net v1 saved the cropped box and its place "
    "cannot be found (no foreground)"
)
def v1_crop_without_foreground(root):
    study = one(root, dtype="float16", key="softmax")
    write_npz(study.predictions / "a.npz", softmax=softmax_field((4, 4, 5), 3)[0].astype(np.float16))
    save(study.predictions / "a.nii.gz", np.zeros(SHAPE, np.uint8), AFFINE)
    return fit(study)


@refused(
    4,
    "predictions/a.npz: holds only 0 and 1 (nnU-Net v1 of spring 2023 rounded its softmax); predict again",
    "predictions/b.npz: holds only 0 and 1 (nnU-Net v1 of spring 2023 rounded its softmax); predict again",
    "2 of 2 inputs are unusable, nothing written",
)
def v1_rounded_softmax(root):
    study = nnunet_study(root, ("a", "b"), dtype="float16", key="softmax")
    for seed, case in enumerate(study.cases):
        hard = softmax_of(100 * logits_of(3, seed)).round().astype(np.float16)
        write_npz(study.predictions / f"{case}.npz", softmax=hard)
    return fit(study)


def _reoriented(root: Path) -> Study:
    study = one(root)
    probabilities, segmentation = softmax_field(SHAPE, 3)
    write_npz(study.predictions / "a.npz", probabilities=in_ras(probabilities, AFFINE))
    save(study.predictions / "a.nii.gz", segmentation, AFFINE)
    return study


@unusable(
    "predictions/a.npz: read as SimpleITKIO it reproduces a.nii.gz on 0.3428 of the voxels. "
    "With axes (-x, -y, z) it is 1: wrong reader or orientation"
)
def reoriented_array_read_as_plain(root):
    return fit(_reoriented(root))


@unusable(
    "predictions/a.npz: cannot tell which nnU-Net reader wrote this (plain 0.3666, RAS 0.3476 agreement); give --reader"
)
def array_of_no_known_reader(root):
    study = _reoriented(root)
    (study.predictions / "plans.json").unlink()
    save(study.predictions / "a.nii.gz", softmax_field(SHAPE, 3, seed=9)[1], AFFINE)
    return fit(study)


@unusable(
    "predictions/a.npz: read as SimpleITKIO it reproduces a.nii.gz on 0.338 of the voxels. "
    "With channels in the order (background, necrosis, edema) it is 1: the class table is not the model's"
)
def swapped_channels(root):
    study = one(root)
    probabilities, segmentation = softmax_field(SHAPE, 3)
    write_npz(study.predictions / "a.npz", probabilities=probabilities[[0, 2, 1]])
    save(study.predictions / "a.nii.gz", segmentation, AFFINE)
    return fit(study)


@unusable(
    "predictions/a.npz: read as SimpleITKIO it reproduces a.nii.gz on 0.3857 of the voxels. "
    "As painted from sigmoid(p) it is 1: nnUNetv2_ensemble before 2.7.0; the .npz is right, the segmentation is not: "
    "--no-prove"
)
def regions_painted_twice(root):
    study = one(root, region_study)
    regions = sigmoid_of(nested_regions(0)[0])
    regions[:, 0] = 0
    write_npz(study.predictions / "a.npz", probabilities=regions)
    save(study.predictions / "a.nii.gz", painted(sigmoid_of(regions)), AFFINE)
    return fit(study)


@unusable(
    "predictions/a.npz: read as SimpleITKIO it reproduces a.nii.gz on 0.6857 of the voxels. "
    "The segmentation looks post-processed (components removed): --no-prove accepts it"
)
def post_processed_segmentation(root):
    study = one(root)
    logits = logits_of(3, 0)
    segmentation = logits.argmax(axis=0).astype(np.uint8)
    segmentation[segmentation == 2] = 0
    save(study.predictions / "a.nii.gz", segmentation, AFFINE)
    return fit(study)


@unusable(
    "predictions/a.npz: read as SimpleITKIO it reproduces a.nii.gz on 0.4095 of the voxels. "
    "Is a.nii.gz from the same model and run?"
)
def segmentation_of_another_run(root):
    study = one(root)
    save(study.predictions / "a.nii.gz", logits_of(3, 5).argmax(axis=0).astype(np.uint8), AFFINE)
    return fit(study)


@refused(4, "predictions/dataset.json: 2 regions but regions_class_order has 1 entries")
def regions_without_order(root):
    study = one(root, region_study)
    table = {"labels": {"background": 0, "whole": [1, 2], "core": 2}, "regions_class_order": [1]}
    write_classes(study.predictions / "dataset.json", table)
    return fit(study)


@unusable(
    "predictions/a.npz: lies on TotalSegmentator's cropped, resampled grid 5 x 4 x 4, not on the scan's 7 x 6 x 5. "
    "With several part models each is saved to this one path, so only the last is left"
)
def total_segmentator_probabilities(root):
    study = nifti_study(root, ("a",))
    write_npz(study.predictions / "a.npz", probabilities=softmax_field((4, 4, 5), 3)[0])
    save(study.predictions / "a.nii.gz", np.zeros(SHAPE, np.uint8), AFFINE)
    return fit(study, "--classes", study.classes)


@unusable("predictions/a.npy is 5 x 4 x 4, predictions/a.nii.gz is 7 x 6 x 5 (x y z)")
def array_of_another_shape_than_its_segmentation(root):
    study = nifti_study(root, ("a",))
    (study.predictions / "a.npy").write_bytes(npy_bytes(softmax_field((4, 4, 5), 3)[0]))
    save(study.predictions / "a.nii.gz", np.zeros(SHAPE, np.uint8), AFFINE)
    return fit_probabilities(study)


# Predictions: NIfTI.


@unusable("predictions/a.nii.gz: last axis has 4 entries, the class table 3")
def other_number_of_channels(root):
    study = one(root, nifti_study)
    save(study.predictions / "a.nii.gz", logits_of(4, 0), AFFINE)
    return fit_nifti(study)


@unusable("predictions/a.nii.gz: last axis has 5 entries, the class table 3; the first would fit: --channel-axis first")
def channels_on_the_first_axis(root):
    study = one(root, nifti_study)
    save(study.predictions / "a.nii.gz", np.moveaxis(logits_of(3, 0), 0, -1), AFFINE)
    return fit_nifti(study)


@unusable("predictions/a.nii.gz: 5-D with 2 time points; one volume per case is expected")
def time_series(root):
    study = one(root, nifti_study)
    save(study.predictions / "a.nii.gz", np.zeros((3, 2, *SHAPE), np.float32), AFFINE)
    return fit_nifti(study)


@unusable("predictions/a.nii.gz: one channel, but the class table has 3")
def one_channel_for_three_classes(root):
    study = one(root, nifti_study)
    save(study.predictions / "a.nii.gz", logits_of(3, 0)[0], AFFINE)
    return fit_nifti(study)


@unusable("predictions/a.nii.gz: a hard mask; calibration needs logits or probabilities")
def label_map_as_prediction(root):
    study = one(root, nifti_study)
    write_classes(study.classes, {"background": 0, "edema": 1})
    for folder in (study.predictions, study.labels):
        save(folder / "a.nii.gz", (logits_of(1, 0)[0] > 0).astype(np.uint8), AFFINE)
    return fit_probabilities(study)


# Predictions: arrays.


@unusable("predictions/a.npz: several arrays (first, second); expected one of probabilities, softmax, logits")
def several_arrays(root):
    study = one(root)
    write_npz(study.predictions / "a.npz", first=np.zeros((3, 2, 2)), second=np.zeros((3, 2, 2)))
    return fit(study)


@refused(2, "predictions/a.npy does not say what it holds; give --values logits or probabilities")
def array_that_does_not_say_what_it_holds(root):
    study = one(root, nifti_study)
    (study.predictions / "a.nii.gz").unlink()
    (study.predictions / "a.npy").write_bytes(npy_bytes(logits_of(3, 0)))
    return fit(study, "--classes", study.classes)


@refused(2, "predictions/case-1.nii.gz does not say what it holds; give --values logits or probabilities")
def nifti_that_does_not_say_what_it_holds(root):
    study = nifti_study(root)
    return fit(study, "--classes", study.classes)


@unusable("predictions/a.npz: holds probabilities by its format (key probabilities), not logits; leave --values out")
def values_against_the_key(root):
    return fit(one(root), "--values", "logits")


@unusable(
    "predictions/a.npy: first and last axis both have 3 entries, as the class table has; "
    "give --channel-axis first or last"
)
def class_axis_unclear(root):
    study = one(root, nifti_study)
    (study.predictions / "a.nii.gz").unlink()
    (study.predictions / "a.npy").write_bytes(npy_bytes(logits_of(3, 0)[..., :3].copy()))
    return fit_nifti(study)


@unusable("predictions/a.npy: first axis has 5 entries, the class table 3; the last would fit: --channel-axis last")
def class_axis_last(root):
    study = one(root, nifti_study)
    (study.predictions / "a.nii.gz").unlink()
    (study.predictions / "a.npy").write_bytes(npy_bytes(np.ascontiguousarray(np.moveaxis(logits_of(3, 0), 0, -1))))
    return fit_nifti(study)


@unusable("a: neither a nor a_0000 in images")
def geometry_without_the_case(root):
    study = one(root)
    (study.predictions / "a.nii.gz").unlink()
    save(root / "images" / "b.nii.gz", np.zeros(SHAPE, np.uint8)) if (root / "images").mkdir() is None else None
    return convert(study, "--geometry", root / "images")


@unusable("predictions/a.npz is 7 x 6 x 5, images/a_0000.nii.gz is 7 x 6 x 4 (x y z)")
def geometry_of_another_shape(root):
    study = one(root)
    (study.predictions / "a.nii.gz").unlink()
    (study.predictions / "dataset.json").rename(study.classes)
    (root / "images").mkdir()
    save(root / "images" / "a_0000.nii.gz", np.zeros((4, 6, 7), np.uint8))
    write_npz(study.predictions / "a.npz", other=softmax_of(logits_of(3, 0)))
    return convert(study, "--geometry", root / "images", "--classes", study.classes, "--values", "probabilities")


# Predictions: one file per class, samples, folds.


def _per_class(root: Path, *, axis_names: tuple[str, ...] = CLASSES) -> Study:
    study = one(root, nifti_study)
    (study.predictions / "a.nii.gz").unlink()
    for name, channel in zip(CLASSES, softmax_of(logits_of(3, 0)), strict=True):
        if name in axis_names:
            save(study.predictions / f"a_{name}.nii.gz", channel, AFFINE)
    return study


@unusable("a: no file for class necrosis (looked for predictions/a_necrosis.nii.gz)")
def class_without_a_file(root):
    study = _per_class(root)
    for name in CLASSES:
        shutil.copy(study.predictions / f"a_{name}.nii.gz", study.predictions / f"b_{name}.nii.gz")
    shutil.copy(study.labels / "a.nii.gz", study.labels / "b.nii.gz")
    (study.predictions / "a_necrosis.nii.gz").unlink()
    return fit_probabilities(study)


@unusable("predictions/a_background.nii.gz is 7 x 6 x 5, predictions/a_edema.nii.gz is 7 x 6 x 4 (x y z)")
def class_files_of_two_shapes(root):
    study = _per_class(root)
    save(study.predictions / "a_edema.nii.gz", softmax_of(logits_of(3, 0))[1, 1:], affine_of("RAS"))
    return fit_probabilities(study)


@unusable("predictions/a_edema.nii.gz: logits of one file per class need a file for background too")
def class_files_of_logits_without_background(root):
    return fit_nifti(_per_class(root, axis_names=("edema", "necrosis")))


def _samples(root: Path) -> Study:
    study = one(root, nifti_study)
    (study.predictions / "a.nii.gz").unlink()
    for sample in range(3):
        save(study.predictions / f"a_pred_{sample}.nii.gz", logits_of(3, sample), AFFINE)
    return study


@unusable("b: 2 of 3 samples (1 absent)")
def missing_sample(root):
    study = _samples(root)
    for sample in (0, 2):
        save(study.predictions / f"b_pred_{sample}.nii.gz", logits_of(3, sample + 5), AFFINE)
    save(study.labels / "b.nii.gz", drawn_labels(logits_of(3, 1), 1), AFFINE)
    return fit_nifti(study, "--pattern", "{case}_pred_{sample}")


@unusable("predictions/a_pred_0.nii.gz is 7 x 6 x 5, predictions/a_pred_1.nii.gz is 7 x 6 x 4 (x y z)")
def samples_of_two_shapes(root):
    study = _samples(root)
    save(study.predictions / "a_pred_1.nii.gz", logits_of(3, 1)[:, 1:], affine_of("RAS"))
    return fit_nifti(study, "--pattern", "{case}_pred_{sample}")


@unusable(
    "predictions/a_pred_1.nii.gz and predictions/a_pred_0.nii.gz are samples of one case, but do not count its "
    "voxels in one order"
)
def samples_turned_against_each_other(root):
    study = _samples(root)
    back = AFFINE @ np.diag([-1.0, 1, 1, 1])
    back[:3, 3] += 6 * AFFINE[:3, 0]
    save(study.predictions / "a_pred_1.nii.gz", logits_of(3, 1)[..., ::-1], back)
    return fit_nifti(study, "--pattern", "{case}_pred_{sample}")


@unusable("a: found in folds/fold_0/validation and in folds/fold_1/validation")
def one_case_in_two_folds(root):
    study = nnunet_study(root, ("a", "b"))
    for fold, cases in enumerate((("a", "b"), ("a",))):
        there = root / "folds" / f"fold_{fold}" / "validation"
        there.mkdir(parents=True)
        for case in cases:
            for suffix in (".npz", ".nii.gz"):
                shutil.copy(study.predictions / f"{case}{suffix}", there)
    shutil.copy(study.predictions / "dataset.json", root / "folds")
    return ["calibrate", "fit", root / "folds" / "fold_*" / "validation", study.labels, "-o", root / "out.npz"]


# Predictions: images and foreign formats.


@pytest.mark.parametrize("mode", ["RGB", "RGBA", "LA", "P"])
def test_colour_images_cannot_hold_probabilities(mode, tmp_path):
    study = png_study(tmp_path, ("a",))
    saved_image(study.predictions / "a.png", np.arange(24 * 31, dtype=np.uint8).reshape(24, 31), mode)
    ran = segcal(*fit(study))
    message = f"{study.predictions / 'a.png'}: a colour image cannot hold probabilities; one gray image per class"
    assert ran.code == 4
    assert message in ran.err.splitlines()


@unusable("predictions/a.png: holds probabilities by its format (scaled integers), not logits; leave --values out")
def png_of_logits(root):
    return fit(png_study(root, ("a",)), "--values", "logits")


@pytest.mark.parametrize(
    ("suffix", "why"),
    [
        *(
            (suffix, f"segcal does not read {suffix}; convert it to NIfTI")
            for suffix in (".nrrd", ".mha", ".mhd", ".gipl", ".dcm", ".mat", ".h5")
        ),
        (".jpg", "segcal does not read .jpg; lossy"),
        (".pt", "segcal does not read .pt; never opened, it can run code"),
        (".pth", "segcal does not read .pth; never opened, it can run code"),
    ],
)
def test_foreign_formats_are_refused_by_name(suffix, why, tmp_path):
    study = Study(tmp_path, ("a",)).folders()
    (study.predictions / f"a{suffix}").write_bytes(b"whatever")
    (study.labels / "a.nii.gz").write_bytes(b"")
    ran = segcal(*fit(study))
    assert (ran.code, ran.closing) == (4, f"segcal: {study.predictions / f'a{suffix}'}: {why} (exit 4)")


def test_a_pickle_is_never_opened(tmp_path):
    study = nnunet_study(tmp_path)
    victim = tmp_path / "victim"
    (study.predictions / "case-1.pkl").write_bytes(pickled_npy(victim)[128:])
    write_members(study.predictions / "case-2.npz", {"probabilities.npy": pickled_npy(victim)})
    ran = segcal(*fit(study))
    assert ran.code == 4
    assert not victim.exists()


# Class tables and labels.


@refused(4, "predictions/a.nii.gz: 3 channels need names and label values: give --classes")
def no_class_table(root):
    return fit(one(root, nifti_study), "--values", "logits")


@refused(4, "classes.json: label 1 belongs to edema and necrosis; overlapping classes need --activation sigmoid")
def one_value_in_two_exclusive_classes(root):
    study = one(root, nifti_study)
    write_classes(study.classes, {"background": 0, "edema": [1, 2], "necrosis": 1})
    return fit_nifti(study)


@unusable("labels/a.nii.gz: 210 voxels are not whole numbers (e.g. 0.636962); a probability map?")
def label_of_probabilities(root):
    study = one(root)
    save(study.labels / "a.nii.gz", np.random.default_rng(0).random(SHAPE, np.float32) * 0.8 + 0.1 * 0 + 1e-9, AFFINE)
    field = np.random.default_rng(0).random(SHAPE)
    save(study.labels / "a.nii.gz", np.clip(field, 0.01, 0.99).astype(np.float32), AFFINE)
    return fit(study)


@unusable(
    "labels/a.nii.gz: label 4 (1 voxel) is not in the class table (background 0, edema 1, necrosis 2); "
    "add it, or --ignore-label 4"
)
def foreign_label(root):
    study = one(root)
    labels = drawn_labels(logits_of(3, 0), 0)
    labels[0, 0, 0] = 4
    save(study.labels / "a.nii.gz", labels, AFFINE)
    return fit(study)


@unusable("a: edema and necrosis overlap in 3 voxels; exclusive classes cannot")
def overlapping_masks_of_exclusive_classes(root):
    study = one(root)
    labels = drawn_labels(logits_of(3, 0), 0)
    masks = {"edema": labels == 1, "necrosis": labels == 2}
    masks["necrosis"].reshape(-1)[np.flatnonzero(masks["edema"])[:3]] = True
    (study.labels / "a.nii.gz").unlink()
    (study.labels / "a").mkdir()
    for name, mask in masks.items():
        save(study.labels / "a" / f"{name}.nii.gz", mask.astype(np.uint8), AFFINE)
    return fit(study, "--label-pattern", "{case}/{class}")


@refused(4, "labels/a.nii.gz: its label table cannot be read (it holds <!DOCTYPE); give --classes")
def label_table_with_a_document_type(root):
    study = one(root, nifti_study)
    xml = b'<!DOCTYPE x [<!ENTITY a "b">]><CaretExtension><Label Key="1">liver</Label></CaretExtension>'
    save(study.labels / "a.nii.gz", drawn_labels(logits_of(3, 0), 0), AFFINE, extension=(0, xml))
    return fit(study, "--values", "logits")


@unusable("labels/a.png: RGB label image; save palette indices or one mask per class")
def colour_label(root):
    study = png_study(root, ("a",))
    saved_image(study.labels / "a.png", np.zeros((24, 31), np.uint8), "RGB")
    return fit(study)


@unusable("labels/a.nii.gz: 3 channels in a label; expected one volume of label values")
def one_hot_label(root):
    study = one(root)
    save(study.labels / "a.nii.gz", np.zeros((3, *SHAPE), np.uint8), AFFINE)
    return fit(study)


@unusable("roi/a.nii.gz: the region of interest is empty")
def empty_region_of_interest(root):
    study = one(root)
    (root / "roi").mkdir()
    save(root / "roi" / "a.nii.gz", np.zeros(SHAPE, np.uint8), AFFINE)
    return fit(study, "--roi", root / "roi")


@refused(4, "1 prediction has no region of interest in roi: a")
def missing_region_of_interest(root):
    study = one(root)
    (root / "roi").mkdir()
    save(root / "roi" / "b.nii.gz", np.zeros(SHAPE, np.uint8), AFFINE)
    return fit(study, "--roi", root / "roi")


# Geometry.


def _label_at(root: Path, affine: np.ndarray, shape: tuple[int, int, int] = SHAPE) -> Study:
    study = one(root)
    save(study.labels / "a.nii.gz", np.ones(shape, np.uint8), affine)
    return study


@unusable(
    "predictions/a.nii.gz and labels/a.nii.gz differ by 1.5 mm at a corner (allowed 0.009): shift. "
    "Resample the label first"
)
def shifted_label(root):
    moved = AFFINE.copy()
    moved[0, 3] += 1.5
    return fit(_label_at(root, moved))


@unusable("predictions/a.nii.gz is 7 x 6 x 5, labels/a.nii.gz is 7 x 6 x 4 (x y z): one holds the other, cropped")
def cropped_label(root):
    return fit(_label_at(root, AFFINE, (4, 6, 7)))


@unusable("predictions/a.nii.gz is 7 x 6 x 5, labels/a.nii.gz is 14 x 12 x 10 (x y z): same extent, resampled")
def resampled_label(root):
    fine = AFFINE @ np.diag([0.5, 0.5, 0.5, 1])
    fine[:3, 3] -= 0.25 * AFFINE[:3, :3].sum(axis=1)
    return fit(_label_at(root, fine, (10, 12, 14)))


@unusable("predictions/a.png is 31 x 24 x 1, labels/a.png is 31 x 23 x 1 (x y z)")
def png_of_another_size(root):
    study = png_study(root, ("a",))
    saved_image(study.labels / "a.png", np.zeros((23, 31), np.uint8))
    return fit(study)


@unusable(
    "labels/a.nii.gz: qform and sform differ by 5 mm, and predictions/a.nii.gz and labels/a.nii.gz agree in sform only"
)
def label_with_two_places(root):
    study = one(root)
    moved = AFFINE.copy()
    moved[1, 3] += 5
    save(study.labels / "a.nii.gz", np.ones(SHAPE, np.uint8), AFFINE, qform_affine=moved)
    return fit(study)


@unusable(
    "predictions/a.nii.gz: voxel size is 0.9 x 1.1 x 2.5 mm by sform and 0.9 x 1.1 x 2.6 mm by qform; fix the header"
)
def two_voxel_sizes_where_volumes_are_given(root):
    study = one(root)
    other = affine_of("LPS", oblique=12.0, spacing=(0.9, 1.1, 2.6))
    for folder in study.both:
        save(folder / "a.nii.gz", logits_of(3, 0).argmax(axis=0).astype(np.uint8), AFFINE, qform_affine=other)
    return evaluate(study)


@unusable("labels/a.nii.gz: affine is not usable: pixdim = 0 1.1 2.5")
def zero_voxel_edge(root):
    study = one(root)
    edit(study.labels / "a.nii.gz", 80, struct.pack("<f", 0.0))
    return fit(study)


# Values.


def _with_value(root: Path, value: float) -> Study:
    study = one(root, nifti_study)
    logits = logits_of(3, 0)
    logits[1, 2, 3, 4] = value
    save(study.predictions / "a.nii.gz", logits, AFFINE)
    return study


@unusable("predictions/a.nii.gz: 1 NaN and 0 infinite values, first at (x,y,z) = (4, 3, 2), class edema")
def nan(root):
    return fit_nifti(_with_value(root, np.nan))


@unusable("predictions/a.nii.gz: 0 NaN and 1 infinite values, first at (x,y,z) = (4, 3, 2), class edema")
def infinite_logit(root):
    return fit_nifti(_with_value(root, -np.inf))


@unusable("predictions/a.nii.gz: values from -9.75 to 7.664 are not probabilities; logits? --values logits")
def logits_declared_as_probabilities(root):
    return fit_probabilities(one(root, nifti_study))


@unusable(
    "predictions/a.nii.gz: channels sum to 1.489 (0.07745 to 2.692) along axis 3: sigmoid? wrong --channel-axis? "
    "cubic resampling?"
)
def independent_channels_read_as_softmax(root):
    study = one(root, nifti_study)
    save(study.predictions / "a.nii.gz", sigmoid_of(logits_of(3, 0)), AFFINE)
    return fit_probabilities(study)


@unusable("predictions/a.nii.gz: these are probabilities; say --values probabilities")
def probabilities_declared_as_logits(root):
    return fit_nifti(one(root, nifti_study, values="probabilities"))


@unusable("predictions/a.npz: all values within 0.5..0.731, as when the activation is applied twice")
def sigmoid_applied_twice(root):
    study = one(root, region_study)
    twice = sigmoid_of(sigmoid_of(nested_regions(0)[0]))
    write_npz(study.predictions / "a.npz", probabilities=twice)
    save(study.predictions / "a.nii.gz", painted(twice), AFFINE)
    return fit(study)


@unusable("predictions/a.nii.gz: a truncated soft map: no value between 0 and 0.5; export the full map")
def truncated_soft_map(root):
    study = Study(root, ("a",)).folders()
    p = sigmoid_of(logits_of(1, 0, (20, 20, 20)))[0]
    save(study.predictions / "a.nii.gz", np.where(p > 0.5, p, 0).astype(np.float32), AFFINE)
    save(study.labels / "a.nii.gz", (p > 0.6).astype(np.uint8), AFFINE)
    return fit(study, "--values", "probabilities")


@refused(4, "2 of 2 predictions hold only 0 and 1: hard masks, or a writer that rounded")
def only_hard_masks(root):
    study = Study(root, ("a", "b")).folders()
    for seed, case in enumerate(study.cases):
        mask = (logits_of(1, seed)[0] > 0).astype(np.float32)
        save(study.predictions / f"{case}.nii.gz", mask, AFFINE)
        save(study.labels / f"{case}.nii.gz", mask.astype(np.uint8), AFFINE)
    return fit(study, "--values", "probabilities")


@refused(4, "every prediction is constant; nothing can be fitted")
def only_constants(root):
    study = Study(root, ("a", "b")).folders()
    for seed, case in enumerate(study.cases):
        save(study.predictions / f"{case}.nii.gz", np.full(SHAPE, 0.3 + 0.1 * seed, np.float32), AFFINE)
        save(study.labels / f"{case}.nii.gz", (logits_of(1, seed)[0] > 0).astype(np.uint8), AFFINE)
    return fit(study, "--values", "probabilities")


# Broken files.


@refused(
    4,
    "predictions/a.npz: is empty (0 bytes)",
    "labels/b.nii.gz: is empty (0 bytes)",
    "labels/c.nii.gz: is not gzip, though its name ends in .gz",
    "predictions/d.npz: broken .npz archive: it does not begin as a zip file",
    "4 of 5 inputs are unusable, nothing written",
)
def all_problems_of_all_headers(root):
    study = nnunet_study(root, ("a", "b", "c", "d", "e"))
    (study.predictions / "a.npz").write_bytes(b"")
    (study.labels / "b.nii.gz").write_bytes(b"")
    (study.labels / "c.nii.gz").write_bytes(b"no gzip at all")
    (study.predictions / "d.npz").write_bytes(b"no zip at all")
    return fit(study)


@unusable("predictions/a.nii.gz: the gzip stream ends too early; the file is truncated")
def truncated_gzip(root):
    study = one(root, nifti_study)
    path = study.predictions / "a.nii.gz"
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])
    return fit_nifti(study)


@unusable("predictions/a.nii.gz: the gzip stream is damaged (incorrect checksum found)")
def wrong_checksum(root):
    study = one(root, nifti_study)
    path = study.predictions / "a.nii.gz"
    path.write_bytes(flipped(path.read_bytes(), -6))
    return fit_nifti(study)


@unusable("predictions/a.nii.gz: bytes that are not gzip follow the end of the stream")
def bytes_after_the_stream(root):
    study = one(root, nifti_study)
    path = study.predictions / "a.nii.gz"
    path.write_bytes(path.read_bytes() + b"and more")
    return fit_nifti(study)


@unusable("predictions/a.nii.gz: is not gzip, though its name ends in .gz")
def plain_nifti_named_gz(root):
    study = one(root, nifti_study)
    path = study.predictions / "a.nii.gz"
    path.write_bytes(gzip.decompress(path.read_bytes()))
    return fit_nifti(study)


@unusable("predictions/a.nii.gz: its header declares dimensions -7 x 6 x 5 x 3 (rank 4), which no volume has")
def negative_dimension(root):
    study = one(root, nifti_study)
    with_dims(study.predictions / "a.nii.gz", 4, -7, 6, 5, 3)
    return fit_nifti(study)


@unusable(
    "predictions/a.npz: array probabilities holds Python objects, that is a pickle; never opened, it can run code"
)
def object_array(root):
    study = one(root)
    write_members(study.predictions / "a.npz", {"probabilities.npy": pickled_npy(root / "victim")})
    return fit(study)


@unusable("predictions/a.npz: its header asks for 2592000000000 bytes, more than its 2648 bytes can hold")
def absurd_array_header(root):
    study = one(root)
    member = npy_bytes(softmax_of(logits_of(3, 0)), shape=(3, 60000, 60000, 60))
    with zipfile.ZipFile(study.predictions / "a.npz", "w") as archive:
        archive.writestr("probabilities.npy", member)
    return fit(study)


# Pairing.


@refused(4, "2 predictions have no label: case-2, case-3")
def predictions_without_label(root):
    study = nnunet_study(root)
    for case in ("case-2", "case-3"):
        (study.labels / f"{case}.nii.gz").unlink()
    return fit(study)


@refused(3, "no case matched: predictions has a, labels has b; see segcal pairs, --pattern")
def no_common_case(root):
    study = one(root)
    (study.labels / "a.nii.gz").rename(study.labels / "b.nii.gz")
    return fit(study)


@refused(3, "no case matched: predictions has nothing, labels has a; see segcal pairs, --pattern")
def only_dot_files(root):
    study = Study(root).folders()
    (study.predictions / "._a.nii.gz").write_bytes(b"")
    save(study.labels / "a.nii.gz", np.zeros(SHAPE, np.uint8))
    return fit(study)


@unusable("a: both predictions/a.nii and predictions/a.nii.gz")
def two_files_for_one_case(root):
    study = nifti_study(root, ("a", "b"))
    (study.predictions / "a.nii").write_bytes(gzip.decompress((study.predictions / "a.nii.gz").read_bytes()))
    return fit_nifti(study)


@refused(4, "a and b hold the same prediction: duplicates break exchangeability")
def one_prediction_under_two_names(root):
    study = nnunet_study(root, ("a", "b", "c"))
    for folder in study.both:
        shutil.copy(folder / "a.nii.gz", folder / "b.nii.gz")
    write_npz(study.predictions / "b.npz", probabilities=softmax_of(logits_of(3, 0)))
    return fit(study)


@refused(4, "a and b hold the same prediction: duplicates break exchangeability")
def one_file_under_two_names(root):
    study = nifti_study(root, ("a", "b"))
    (study.predictions / "b.nii.gz").unlink()
    (study.predictions / "b.nii.gz").symlink_to("a.nii.gz")
    return fit_nifti(study)


def _table(study: Study, text: str) -> Command:
    (study.root / "cases.csv").write_text(text, encoding="utf-8")
    return fit(study, "--cases", study.root / "cases.csv")


@refused(
    4,
    "cases.csv:1: unknown column lable; known are case, prediction, label, "
    "group, roi, sample, class, format, values, reader, "
    "shape, spacing, status, problem",
)
def table_with_an_unknown_column(root):
    return _table(one(root), "case,prediction,lable\na,predictions/a.npz,labels/a.nii.gz\n")


@refused(4, "cases.csv:2: prediction predictions/b.npz does not exist")
def table_with_a_missing_path(root):
    return _table(one(root), "case,prediction,label\na,predictions/b.npz,labels/a.nii.gz\n")


@refused(4, "cases.csv:2: case id '../a' cannot be a file name")
def case_id_that_leads_elsewhere(root):
    return _table(one(root), "case,prediction,label\n../a,predictions/a.npz,labels/a.nii.gz\n")


@refused(4, "1 prediction has no label: a")
def table_without_labels(root):
    return _table(one(root), "case,prediction\na,predictions/a.npz\n")


@refused(2, "--roi does not go with --cases: the table names the files itself (column roi)")
def table_and_roi(root):
    return [*_table(one(root), "case,prediction,label\na,predictions/a.npz,labels/a.nii.gz\n"), "--roi", root]


@refused(2, "--pattern does not go with --cases: the table names the files itself")
def table_and_pattern(root):
    return [*_table(one(root), "case,prediction,label\na,predictions/a.npz,labels/a.nii.gz\n"), "--pattern", "{case}"]


@unusable("x: no group in ^(case)")
def case_without_group(root):
    study = nnunet_study(root, ("case-1", "x"))
    return fit(study, "--groups", "^(case)")


# The command line itself.


@refused(2, "nowhere does not exist")
def predictions_that_are_not_there(root):
    study = one(root)
    return ["calibrate", "fit", root / "nowhere", study.labels, "-o", root / "out.npz"]


@refused(2, "nowhere does not exist")
def labels_that_are_not_there(root):
    study = one(root)
    return ["calibrate", "fit", study.predictions, root / "nowhere", "-o", root / "out.npz"]


@pytest.mark.parametrize("option", ["--cases", "--classes", "--geometry", "--roi", "--calibrator"])
def test_a_path_of_an_option_must_be_there(option, tmp_path):
    ran = segcal(*fit(one(tmp_path), option, tmp_path / "nowhere"))
    code = 5 if option == "--calibrator" else 2
    assert ran.code == code
    assert "nowhere" in ran.closing


@refused(2, "PREDICTIONS and LABELS are the same folder")
def one_folder_for_both(root):
    study = one(root)
    return ["calibrate", "fit", study.predictions, study.predictions, "-o", root / "out.npz"]


@refused(2, "predictions/out.npz lies in predictions: the next run would read its own outputs")
def artifact_among_the_predictions(root):
    study = one(root)
    return ["calibrate", "fit", *study.both, "-o", study.predictions / "out.npz"]


@refused(2, "predictions/out lies in predictions: the next run would read its own outputs")
def output_folder_inside_the_input(root):
    study = one(root)
    return ["convert", study.predictions, "-o", study.predictions / "out"]


@refused(2, "out.npz exists; give --overwrite")
def artifact_that_is_there(root):
    (root / "out.npz").write_bytes(b"mine")
    return fit(one(root))


@refused(2, "out/case-1_probseg.nii.gz exists (and case-2_probseg.nii.gz); give --overwrite")
def outputs_that_are_there(root):
    (root / "out").mkdir()
    for case in ("case-1", "case-2"):
        (root / "out" / f"{case}_probseg.nii.gz").write_bytes(b"mine")
    return convert(nnunet_study(root))


@refused(4, "cannot write away/out.npz: the folder away does not exist")
def artifact_into_no_folder(root):
    return ["calibrate", "fit", *one(root).both, "-o", root / "away" / "out.npz"]


@refused(4, "cannot write out: file exists")
def output_folder_that_is_a_file(root):
    (root / "out").write_bytes(b"mine")
    return convert(one(root))


@refused(2, "--jobs -1 is not allowed; give 1 or more, or 0 for all usable cores")
def negative_jobs(root):
    return fit(one(root), "--jobs", "-1")


@refused(2, "--dtype float16 needs --format npz: NIfTI has no such type")
def half_precision_nifti(root):
    study = nnunet_study(root)
    return ["calibrate", "apply", fitted(study), study.predictions, "-o", root / "out", "--dtype", "float16"]


@refused(2, "predictions/a.png: has no place in space, so it cannot be written as NIfTI; give --geometry FOLDER")
def conversion_without_a_place(root):
    return convert(png_study(root, ("a",)))


@refused(2, "classes tumour 1 and tumour-1 would both be written as label-tumour1; rename one")
def classes_of_one_output_name(root):
    study = one(root, nifti_study)
    write_classes(study.classes, {"background": 0, "tumour 1": 1, "tumour-1": 2})
    return convert(study, "--classes", study.classes, "--values", "logits")


# Artifacts.


def apply(study: Study, artifact: Path, *more: object) -> Command:
    return ["calibrate", "apply", artifact, study.predictions, "-o", study.root / "out", *more]


@refused(5, "nowhere.npz is not a segcal artifact: no such file")
def artifact_that_is_not_there(root):
    return apply(one(root), root / "nowhere.npz")


@refused(5, "fitted.npz is not a segcal artifact: broken .npz archive: File is not a zip file; truncated?")
def truncated_artifact(root):
    study = nnunet_study(root)
    artifact = fitted(study)
    os.truncate(artifact, artifact.stat().st_size // 2)
    return apply(study, artifact)


@refused(5, "predictions/case-1.npz is not a segcal artifact: it has no header")
def prediction_as_artifact(root):
    study = nnunet_study(root)
    return apply(study, study.predictions / "case-1.npz")


def _edited(artifact: Path, **changes: object) -> Path:
    """The artifact with other entries in its header."""
    with np.load(artifact) as archive:
        arrays = dict(archive)
    header = json.loads(str(arrays.pop("header"))) | changes
    write_npz(artifact, header=np.array(json.dumps(sealed(header, arrays))), **arrays)
    return artifact


@refused(5, "fitted.npz has artifact format 99; this segcal reads up to 1. Install a newer segcal")
def artifact_of_a_newer_format(root):
    study = nnunet_study(root)
    return apply(study, _edited(fitted(study), format_version=99))


@refused(5, "fitted.npz is a cluster artifact; calibrate apply needs a calibrate artifact")
def artifact_of_another_kind(root):
    study = nnunet_study(root)
    return apply(study, _edited(fitted(study), kind="cluster"))


@refused(
    5,
    "fitted.npz was fitted on 3 classes (background=0; edema=1; necrosis=2), other/predictions has 2 classes "
    "(whole=1,2; core=2)",
)
def artifact_for_other_classes(root):
    artifact = fitted(nnunet_study(root))
    return apply(region_study(root / "other"), artifact)


@refused(5, "fitted.npz was fitted on probabilities, other/predictions has logits")
def artifact_for_other_values(root):
    artifact = fitted(nnunet_study(root))
    study = nifti_study(root / "other")
    return apply(study, artifact, "--classes", study.classes, "--values", "logits")


@refused(
    5,
    "fitted.npz was fitted on samples joined by mean-probabilities, predictions has samples joined by mean-logits",
)
def artifact_for_another_reduction(root):
    study = _samples(root)
    for sample in range(3):
        save(study.predictions / f"b_pred_{sample}.nii.gz", logits_of(3, 7 + sample), AFFINE)
    save(study.labels / "b.nii.gz", drawn_labels(logits_of(3, 8), 8), AFFINE)
    options = ("--pattern", "{case}_pred_{sample}", "--values", "logits", "--classes", study.classes)
    return apply(study, fitted(study, *options), *options, "--reduce", "mean-logits")


@refused(4, "4 cases were used to fit fitted.npz: case-1, case-2, case-3, case-4; use others, or --allow-overlap")
def fit_on_top_of_a_calibrator_of_the_same_cases(root):
    study = nnunet_study(root)
    return fit(study, "--calibrator", fitted(study))
