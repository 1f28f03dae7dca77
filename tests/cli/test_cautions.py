"""What is read although something may be wrong, and the sentence that says so, once for all cases that share it."""

from __future__ import annotations

import os
from collections.abc import Callable

import numpy as np
import pytest

from tests.cli.builders_reading import (
    AFFINE,
    SHAPE,
    Study,
    drawn_labels,
    logits_of,
    nested_regions,
    nifti_study,
    nnunet_study,
    png_study,
    region_study,
    segcal,
    sigmoid_of,
    softmax_of,
    tree,
    write_classes,
    write_npz,
)
from tests.io.builders_nifti import affine_of, edit, save


def lines(study: Study, *more: object) -> list[str]:
    """What a fit says. Raises if it does not end well."""
    ran = segcal("calibrate", "fit", *study.both, "-o", study.root / "t.npz", "--overwrite", *more)
    assert ran.code == 0, ran.err
    return ran.err.splitlines()


def volumes_of(seed: int) -> tuple[np.ndarray, np.ndarray]:
    """A case's segmentation and its label."""
    logits = logits_of(3, seed)
    return logits.argmax(axis=0).astype(np.uint8), drawn_labels(logits, seed)


def rewritten(study: Study, change: Callable[[np.ndarray], np.ndarray]) -> Study:
    """The nnU-Net study with other probabilities, and the segmentations that follow from them."""
    for seed, case in enumerate(study.cases):
        field = change(softmax_of(logits_of(3, seed))).astype(np.float32)
        write_npz(study.predictions / f"{case}.npz", probabilities=field)
        save(study.predictions / f"{case}.nii.gz", field.argmax(axis=0).astype(np.uint8), AFFINE)
    return study


# Values.


def test_softmax_applied_twice(tmp_path):
    study = rewritten(nnunet_study(tmp_path, ("a",)), softmax_of)
    (found,) = [line for line in lines(study) if "activation" in line]
    assert found == "warning: all values within 0.212..0.5761, as when the activation is applied twice (a)"


def test_one_hard_prediction_among_soft_ones(tmp_path):
    study = nnunet_study(tmp_path)
    field = softmax_of(1000 * logits_of(3, 0)).round()
    write_npz(study.predictions / "case-1.npz", probabilities=field)
    assert "warning: holds only 0 and 1: a hard mask, or a writer that rounded (case-1)" in lines(study)


def test_a_constant_prediction_among_others(tmp_path):
    study = nnunet_study(tmp_path)
    field = np.broadcast_to(np.array([0.5, 0.3, 0.2], np.float32).reshape(3, 1, 1, 1), (3, *SHAPE))
    write_npz(study.predictions / "case-1.npz", probabilities=field)
    save(study.predictions / "case-1.nii.gz", np.zeros(SHAPE, np.uint8), AFFINE)
    assert "warning: every voxel holds the same values (case-1)" in lines(study)


def test_regions_that_sum_to_one(tmp_path):
    study = region_study(tmp_path)
    for seed, case in enumerate(study.cases):
        p = sigmoid_of(nested_regions(seed)[0])[0]
        field = np.stack([p, 1 - p])
        write_npz(study.predictions / f"{case}.npz", probabilities=field)
        save(study.predictions / f"{case}.nii.gz", np.where(field[1] > 0.5, 2, field[0] > 0.5).astype(np.uint8), AFFINE)
    text = "warning: the channels of every voxel sum to 1, which looks like softmax, not sigmoid (4 cases)"
    assert text in lines(study)


def test_a_rounding_error_outside_0_and_1_is_clipped(tmp_path):
    study = nnunet_study(tmp_path, ("a",))
    field = softmax_of(logits_of(3, 0))
    field[:, 0, 0, 0] = (1 + 5e-7, -2.5e-7, -2.5e-7)
    write_npz(study.predictions / "a.npz", probabilities=field)
    save(study.predictions / "a.nii.gz", field.argmax(axis=0).astype(np.uint8), AFFINE)
    lines(study)


def test_log_probabilities_are_logits(tmp_path):
    study = nifti_study(tmp_path)
    for seed, case in enumerate(study.cases):
        save(study.predictions / f"{case}.nii.gz", np.log(softmax_of(logits_of(3, seed))), AFFINE)
    lines(study, "--classes", study.classes, "--values", "logits")


@pytest.mark.parametrize(("kind", "top"), [(np.uint8, 255), (np.uint16, 65535)])
def test_probabilities_in_scaled_integers(kind, top, tmp_path):
    study = nifti_study(tmp_path)
    for seed, case in enumerate(study.cases):
        stored = np.rint(softmax_of(logits_of(3, seed)) * top).astype(kind)
        save(study.predictions / f"{case}.nii.gz", stored, AFFINE, slope=(1 / top, 0.0))
    said = lines(study, "--classes", study.classes, "--values", "probabilities")
    text = "warning: uint8 probabilities: logits beyond 5.5 are lost; T and slope are lower bounds"
    assert (text in said) == (kind is np.uint8)


def test_one_channel_of_probabilities_has_lost_its_upper_tail(tmp_path):
    text = "one channel of probabilities: close to 1, log(1 - p) is lost; logits would keep it"
    assert lines(png_study(tmp_path), "--method", "platt").count(text) == 1


def test_padding_is_named_with_its_share(tmp_path):
    study = nnunet_study(tmp_path)
    for seed, case in enumerate(study.cases):
        field = softmax_of(logits_of(3, seed))
        field[:, :, :3] = np.array([1, 0, 0]).reshape(3, 1, 1, 1)
        write_npz(study.predictions / f"{case}.npz", probabilities=field)
        save(study.predictions / f"{case}.nii.gz", field.argmax(axis=0).astype(np.uint8), AFFINE)
    text = (
        "padding outside the model's crop: 50.0 % of the voxels on average; "
        "left out of calibration, kept in overlap and volumes"
    )
    assert lines(study).count(text) == 1


def test_a_segmentation_of_background_proves_the_shape_only(tmp_path):
    study = nnunet_study(tmp_path)
    field = softmax_of(logits_of(3, 0) + np.array([30, 0, 0]).reshape(3, 1, 1, 1))
    write_npz(study.predictions / "case-1.npz", probabilities=field)
    save(study.predictions / "case-1.nii.gz", np.zeros(SHAPE, np.uint8), AFFINE)
    assert "1 segmentation holds background only: the shape is proved, the place is not" in lines(study)


# Geometry.


@pytest.mark.parametrize(("share", "code"), [(0.9, 0), (1.1, 4)])
def test_a_hundredth_of_a_voxel_is_the_tolerance(share, code, tmp_path):
    study = nnunet_study(tmp_path, ("a",))
    moved = AFFINE.copy()
    moved[0, 3] += share * 0.01 * 0.9
    save(study.labels / "a.nii.gz", drawn_labels(logits_of(3, 0), 0), moved)
    ran = segcal("calibrate", "fit", *study.both, "-o", tmp_path / "t.npz")
    assert ran.code == code, ran.err


def test_two_places_that_both_files_share(tmp_path):
    study = nnunet_study(tmp_path, ("a",))
    moved = AFFINE.copy()
    moved[1, 3] += 5
    labels = drawn_labels(logits_of(3, 0), 0)
    segmentation = logits_of(3, 0).argmax(axis=0).astype(np.uint8)
    save(study.predictions / "a.nii.gz", segmentation, AFFINE, qform_affine=moved)
    save(study.labels / "a.nii.gz", labels, AFFINE, qform_affine=moved)
    path = study.predictions / "a.nii.gz"
    assert f"warning: {path}: qform and sform differ by 5 mm; the two files agree in both (a)" in lines(study)


def test_a_file_that_says_nothing_of_its_place(tmp_path):
    study = nnunet_study(tmp_path, ("a",))
    affine = np.diag([0.9, 1.1, 2.5, 1.0])
    for folder, volume in zip(
        study.both, (logits_of(3, 0).argmax(axis=0), drawn_labels(logits_of(3, 0), 0)), strict=True
    ):
        save(folder / "a.nii.gz", volume.astype(np.uint8), affine, sform=0, qform=0)
    for folder in study.both:
        text = f"{folder / 'a.nii.gz'}: neither qform nor sform is set; its place in space is taken from pixdim alone"
        assert f"warning: {text} (a)" in lines(study)


def test_metres_are_made_millimetres(tmp_path):
    study = nnunet_study(tmp_path, ("a",))
    metres = np.diag([0.001, 0.001, 0.001, 1.0]) @ AFFINE
    labels = drawn_labels(logits_of(3, 0), 0)
    path = save(study.labels / "a.nii.gz", labels, metres, units=1)
    assert edit(path, 0, b"")
    lines(study)


def test_sheared_axes_are_fine_where_no_distance_is_taken(tmp_path):
    study = nnunet_study(tmp_path, ("a",))
    sheared = AFFINE.copy()
    sheared[:3, 0] += 0.3 * sheared[:3, 1]
    for folder, volume in zip(
        study.both, (logits_of(3, 0).argmax(axis=0), drawn_labels(logits_of(3, 0), 0)), strict=True
    ):
        save(folder / "a.nii.gz", volume.astype(np.uint8), sheared, qform=0)
    lines(study)


# Labels, pairing, folders.


def test_labels_without_prediction_are_a_note(tmp_path):
    study = nnunet_study(tmp_path)
    save(study.labels / "spare.nii.gz", np.zeros(SHAPE, np.uint8))
    assert f"{study.labels}: 1 label has no prediction: spare" in lines(study)


def test_files_of_other_kinds_beside_good_ones_are_left_out_and_named(tmp_path):
    study = nnunet_study(tmp_path)
    (study.predictions / "photo.jpg").write_bytes(b"")
    text = f"{study.predictions}: 1 file of a kind that segcal does not read is left out: photo.jpg"
    assert text in lines(study)


def test_a_label_volume_with_axes_of_length_1_around_it(tmp_path):
    study = nnunet_study(tmp_path, ("a",))
    save(study.labels / "a.nii.gz", drawn_labels(logits_of(3, 0), 0)[None, None], AFFINE)
    lines(study)


def test_a_class_table_of_decathlon(tmp_path):
    study = nifti_study(tmp_path)
    write_classes(study.classes, {"labels": {"0": "background", "2": "necrosis", "1": "edema"}})
    lines(study, "--classes", study.classes, "--values", "logits")


def test_all_headers_are_looked_at_before_evaluate_reads_a_voxel(tmp_path):
    study = nnunet_study(tmp_path)
    write_npz(study.predictions / "case-1.npz", probabilities=np.full((3, *SHAPE), np.nan, np.float32))
    (study.predictions / "case-2.npz").write_bytes(b"")
    save(study.labels / "case-4.nii.gz", np.zeros((4, 6, 7), np.uint8), affine_of("RAS"))
    ran = segcal("evaluate", *study.both, "-o", tmp_path / "m.csv")
    assert (ran.code, ran.closing) == (4, "segcal: 2 of 4 inputs are unusable, nothing written (exit 4)")
    assert "case-2.npz: is empty (0 bytes)" in ran.err
    assert "case-4.nii.gz is 7 x 6 x 4 (x y z)" in ran.err
    assert not (tmp_path / "m.csv").exists()


def test_an_output_that_cannot_be_written_leaves_nothing(tmp_path, monkeypatch):
    """A full disk: the temp is removed, the case fails, the message names the output."""
    study = nnunet_study(tmp_path)

    def full(descriptor: int) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "fsync", full)
    ran = segcal("convert", study.predictions, "-o", tmp_path / "out")
    assert ran.code == 4
    first = tmp_path / "out" / "case-1_probseg.json"
    assert f"cannot write {first}: no space left on device" in ran.err.splitlines()
    assert tree(tmp_path / "out") == {}
