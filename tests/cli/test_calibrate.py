"""``segcal calibrate fit|apply``: the same result from every form of input, and outputs that can be trusted."""

from __future__ import annotations

import csv
import json
import shutil
from pathlib import Path

import nibabel as nib
import numpy as np
import pytest

from segcal_cli.io.artifacts import read_artifact
from tests.cli.builders_reading import (
    AFFINE,
    CASES,
    CLASSES,
    SHAPE,
    Ran,
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
from tests.io.builders_arrays import npy_bytes, palette_png
from tests.io.builders_nifti import save


def fit(study: Study, *more: object, name: str = "fitted.npz") -> Path:
    ran = segcal("calibrate", "fit", *study.both, "-o", study.root / name, "--no-summary", *more)
    assert ran.code == 0, ran.err
    return study.root / name


def apply(study: Study, artifact: Path, *more: object, folder: str = "out") -> Ran:
    ran = segcal("calibrate", "apply", artifact, study.predictions, "-o", study.root / folder, *more)
    assert ran.code == 0, ran.err
    return ran


def temperature(artifact: Path) -> float:
    return read_artifact(artifact).header.results["parameters"]["temperature"]


def read(path: Path) -> np.ndarray:
    return np.asarray(nib.load(path).dataobj).T


# The same fit from every form.


@pytest.fixture(scope="module")
def reference(tmp_path_factory) -> float:
    study = nifti_study(tmp_path_factory.mktemp("reference"))
    return temperature(fit(study, "--classes", study.classes, "--values", "logits"))


def test_logits_and_probabilities_give_one_temperature(reference, tmp_path):
    study = nifti_study(tmp_path, values="probabilities")
    found = temperature(fit(study, "--classes", study.classes, "--values", "probabilities"))
    assert found == pytest.approx(reference, abs=1e-4)


def test_an_nnunet_folder_gives_the_same_temperature(reference, tmp_path):
    assert temperature(fit(nnunet_study(tmp_path))) == pytest.approx(reference, abs=1e-4)


def test_half_precision_gives_nearly_the_same_temperature(reference, tmp_path):
    assert temperature(fit(nnunet_study(tmp_path, dtype="float16", key="softmax"))) == pytest.approx(
        reference, rel=0.02
    )


def test_half_precision_is_warned_about(tmp_path):
    study = nnunet_study(tmp_path, dtype="float16", key="softmax")
    ran = segcal("calibrate", "fit", *study.both, "-o", tmp_path / "a.npz")
    assert "warning: float16 probabilities: logits beyond 7.6 are lost; T and slope are lower bounds" in ran.err


def test_one_file_per_class_gives_the_same_temperature(reference, tmp_path):
    study = nifti_study(tmp_path, values="probabilities")
    for case in study.cases:
        field = read(study.predictions / f"{case}.nii.gz")
        (study.predictions / f"{case}.nii.gz").unlink()
        for name, channel in zip(CLASSES[1:], field[1:], strict=True):
            save(study.predictions / f"{case}_{name}.nii.gz", channel, AFFINE)
    found = temperature(fit(study, "--classes", study.classes, "--values", "probabilities"))
    assert found == pytest.approx(reference, abs=1e-3)


def test_bare_arrays_lie_where_their_labels_lie(reference, tmp_path):
    study = nifti_study(tmp_path)
    for seed, case in enumerate(study.cases):
        (study.predictions / f"{case}.nii.gz").unlink()
        (study.predictions / f"{case}.npy").write_bytes(npy_bytes(np.moveaxis(logits_of(3, seed), 0, -1).copy()))
    options = ("--classes", study.classes, "--values", "logits", "--channel-axis", "last")
    assert temperature(fit(study, *options)) == reference


def test_labels_counted_from_another_side_are_turned_and_that_is_said_once(reference, tmp_path):
    study = nifti_study(tmp_path)
    back = AFFINE @ np.diag([-1.0, 1, 1, 1])
    back[:3, 3] += (SHAPE[2] - 1) * AFFINE[:3, 0]
    for seed, case in enumerate(study.cases):
        save(study.labels / f"{case}.nii.gz", drawn_labels(logits_of(3, seed), seed)[:, :, ::-1], back)
    ran = segcal(
        "calibrate", "fit", *study.both, "-o", tmp_path / "t.npz", "--classes", study.classes, "--values", "logits"
    )
    note = (
        "label turned onto the prediction's grid without loss (prediction's x, y, z are the label's -x, +y, +z) "
        "(4 of 4 cases)"
    )
    assert ran.err.splitlines().count(note) == 1
    assert temperature(tmp_path / "t.npz") == reference


def test_masks_of_single_classes_are_joined(reference, tmp_path):
    """As TotalSegmentator leaves them: a folder per case, a mask per class, none for the background."""
    study = nifti_study(tmp_path)
    for seed, case in enumerate(study.cases):
        labels = drawn_labels(logits_of(3, seed), seed)
        (study.labels / f"{case}.nii.gz").unlink()
        (study.labels / case).mkdir()
        for value, name in ((1, "edema"), (2, "necrosis")):
            save(study.labels / case / f"{name}.nii.gz", (labels == value).astype(np.uint8), AFFINE)
    options = ("--classes", study.classes, "--values", "logits", "--label-pattern", "{case}/{class}")
    assert temperature(fit(study, *options)) == reference


def test_a_label_table_inside_the_labels_names_the_classes(reference, tmp_path):
    study = nifti_study(tmp_path)
    entries = "".join(f'<Label Key="{value}">{name}</Label>' for value, name in enumerate(CLASSES) if value)
    xml = f"<CaretExtension><VolumeInformation><LabelTable>{entries}</LabelTable></VolumeInformation></CaretExtension>"
    for seed, case in enumerate(study.cases):
        labels = drawn_labels(logits_of(3, seed), seed)
        save(study.labels / f"{case}.nii.gz", labels, AFFINE, extension=(0, xml.encode()))
    artifact = fit(study, "--values", "logits")
    assert temperature(artifact) == reference
    assert read_artifact(artifact).header.space.names == CLASSES


def test_scaled_and_floating_labels_are_labels(reference, tmp_path):
    study = nifti_study(tmp_path)
    for seed, case in enumerate(study.cases):
        labels = drawn_labels(logits_of(3, seed), seed)
        if seed % 2:
            save(study.labels / f"{case}.nii.gz", labels.astype(np.float32), AFFINE)
        else:
            stored = np.rint(labels / 4.58e-05).astype(np.int32)
            save(study.labels / f"{case}.nii.gz", stored, AFFINE, slope=(4.58e-05, 0.0))
    assert temperature(fit(study, "--classes", study.classes, "--values", "logits")) == reference


def _two_classes(root: Path, form: str) -> tuple[Study, tuple[object, ...]]:
    """One binary problem as two exclusive channels, or as the foreground alone."""
    study = Study(root).folders()
    write_classes(study.classes, {"background": 0, "tumour": [1, 3]})
    for seed, case in enumerate(study.cases):
        z = logits_of(1, seed)
        labels = np.array([0, 1, 3], np.uint8)[(sigmoid_of(0.5 * z[0]) > np.random.default_rng(seed).random(SHAPE)) * 2]
        array = z if form == "foreground" else np.concatenate([np.zeros_like(z), z])
        save(study.predictions / f"{case}.nii.gz", array[0] if form == "foreground" else array, AFFINE)
        save(study.labels / f"{case}.nii.gz", labels, AFFINE)
    return study, ("--classes", study.classes, "--values", "logits", "--method", "platt")


def test_the_foreground_alone_stands_for_two_exclusive_classes(tmp_path):
    found = []
    for form in ("both", "foreground"):
        study, options = _two_classes(tmp_path / form, form)
        parameters = read_artifact(fit(study, *options)).header.results["parameters"]
        found.append((parameters["a"]["tumour"], parameters["b"]["tumour"]))
    assert found[0] == pytest.approx(found[1], abs=1e-6)


# Samples and folds.


def test_folds_joined_by_a_star_are_out_of_fold_by_themselves(reference, tmp_path):
    study = nnunet_study(tmp_path)
    folds = tmp_path / "folds"
    for index, case in enumerate(study.cases):
        there = folds / f"fold_{index % 2}" / "validation"
        there.mkdir(parents=True, exist_ok=True)
        for suffix in (".npz", ".nii.gz"):
            shutil.copy(study.predictions / f"{case}{suffix}", there)
    for name in ("dataset.json", "plans.json"):
        shutil.copy(study.predictions / name, folds)
    artifact = tmp_path / "cv.npz"
    ran = segcal("calibrate", "fit", folds / "fold_*" / "validation", study.labels, "-o", artifact)
    assert ran.code == 0, ran.err
    header = read_artifact(artifact).header
    assert (header.spec["source"], header.results["split_kind"]) == ("cross-validation", "out-of-fold")
    assert temperature(artifact) == pytest.approx(reference, abs=1e-4)
    note = "the calibrator was fitted on the models of single folds, which are not the deployed ensemble"
    assert note in apply(study, artifact).err.splitlines()


def test_how_samples_were_joined_is_recorded_by_default_too(tmp_path):
    study = nifti_study(tmp_path)
    for seed, case in enumerate(study.cases):
        (study.predictions / f"{case}.nii.gz").unlink()
        for sample in range(2):
            save(study.predictions / f"{case}_pred_{sample}.nii.gz", logits_of(3, 2 * seed + sample), AFFINE)
    options = ("--classes", study.classes, "--values", "logits", "--pattern", "{case}_pred_{sample}")
    header = read_artifact(fit(study, *options)).header
    assert (header.spec["reduce"], header.values) == ("mean-probabilities", "probabilities")


def test_a_reduction_without_samples_is_not_recorded(tmp_path):
    header = read_artifact(fit(nnunet_study(tmp_path), "--reduce", "mean-logits")).header
    assert (header.spec["reduce"], header.values) == (None, "probabilities")


# Determinism.


def test_jobs_and_order_of_files_do_not_change_a_byte(tmp_path):
    cases = ("Zebra", "a", "b.1", "sub-01_space-T1w", "ä")
    studies = [nnunet_study(tmp_path / str(index), order) for index, order in enumerate((cases, cases))]
    # The second folder gets its files in another order, so that a listing gives them otherwise.
    moved = tmp_path / "moved"
    for folder in ("predictions", "labels"):
        (moved / folder).mkdir(parents=True)
        for path in sorted((studies[1].root / folder).iterdir(), reverse=True):
            shutil.copy(path, moved / folder)
    artifacts, outputs = [], []
    for study, jobs in ((studies[0], 1), (studies[0], 2), (Study(moved, cases), 1)):
        name = f"{jobs}.npz"
        ran = segcal("calibrate", "fit", *study.both, "-o", study.root / name, "-j", jobs)
        assert ran.code == 0, ran.err
        apply(study, study.root / name, "-j", jobs, folder=f"out-{jobs}")
        artifacts.append((study.root / name).read_bytes())
        outputs.append(tree(study.root / f"out-{jobs}"))
    assert artifacts[0] == artifacts[1] == artifacts[2]
    assert outputs[0] == outputs[1] == outputs[2]
    assert len(outputs[0]) == 2 * len(cases)


def test_a_shuffled_table_gives_the_same_artifact(tmp_path):
    study = nnunet_study(tmp_path)
    plain = fit(study).read_bytes()
    rows = [f"{case},predictions/{case}.npz,labels/{case}.nii.gz\n" for case in study.cases]
    (tmp_path / "cases.csv").write_text("case,prediction,label\n" + "".join(reversed(rows)))
    assert fit(study, "--cases", tmp_path / "cases.csv", name="table.npz").read_bytes() == plain


def test_what_pairs_writes_is_what_a_fit_takes(tmp_path):
    study = nnunet_study(tmp_path)
    ran = segcal("pairs", *study.both, "-o", tmp_path / "cases.csv")
    assert ran.code == 0, ran.err
    table = fit(study, "--cases", tmp_path / "cases.csv", name="table.npz").read_bytes()
    assert table == fit(study).read_bytes()


# What apply writes.


@pytest.mark.parametrize("form", [("float32", None), ("float32", "npz"), ("float16", "npz"), ("uint16", None)])
def test_argmax_is_untouched_in_the_written_type(form, tmp_path):
    dtype, layout = form
    study = nnunet_study(tmp_path)
    artifact = fit(study)
    apply(study, artifact, "--dtype", dtype, *(("--format", layout) if layout else ()))
    for seed, case in enumerate(study.cases):
        if layout == "npz":
            array = np.load(tmp_path / "out" / f"{case}.npz")["probabilities"]
            assert array.dtype == dtype
        else:
            image = nib.load(tmp_path / "out" / f"{case}_desc-calibrated_probseg.nii.gz")
            assert image.get_data_dtype() == dtype
            array = np.asarray(image.dataobj).T
        np.testing.assert_array_equal(array.argmax(axis=0), softmax_of(logits_of(3, seed)).argmax(axis=0))


def test_written_probabilities_are_the_cooled_softmax(tmp_path):
    study = nifti_study(tmp_path)
    options = ("--classes", study.classes, "--values", "logits")
    artifact = fit(study, *options)
    apply(study, artifact, *options)
    for seed, case in enumerate(study.cases):
        image = nib.load(tmp_path / "out" / f"{case}_desc-calibrated_probseg.nii.gz")
        expected = softmax_of(logits_of(3, seed) / np.float64(temperature(artifact)))
        np.testing.assert_allclose(np.asarray(image.dataobj).T, expected, atol=1e-7)
        np.testing.assert_allclose(image.affine, AFFINE, atol=1e-5)
        side = json.loads((tmp_path / "out" / f"{case}_desc-calibrated_probseg.json").read_text())
        assert side == {"LabelMap": list(CLASSES)}


@pytest.mark.parametrize("build", [nnunet_study, region_study])
@pytest.mark.parametrize("dtype", ["float32", "float16"])
def test_the_npz_form_proves_itself_when_it_is_read_again(build, dtype, tmp_path):
    study = build(tmp_path)
    artifact = fit(study, "--method", "platt" if build is region_study else "temperature")
    apply(study, artifact, "--format", "npz", "--dtype", dtype)
    ran = segcal("pairs", tmp_path / "out", "--prove", "--json")
    assert ran.code == 0, ran.err
    assert [case["proof"] for case in ran.document["result"]["cases"]] == ["proved"] * 4


@pytest.mark.parametrize(("segmentation", "threshold"), [("keep", False), ("recompute", True)])
def test_the_segmentation_is_the_raw_decision_or_the_calibrated_one(segmentation, threshold, tmp_path):
    study = region_study(tmp_path)
    artifact = fit(study, "--method", "platt")
    apply(study, artifact, "--segmentation", segmentation)
    for seed, case in enumerate(study.cases):
        p = sigmoid_of(nested_regions(seed)[0])
        if threshold:
            p = read(tmp_path / "out" / f"{case}_desc-calibrated_probseg.nii.gz")
        expected = np.zeros(SHAPE, np.uint8)
        expected[p[0] > 0.5] = 1
        expected[p[1] > 0.5] = 2
        np.testing.assert_array_equal(read(tmp_path / "out" / f"{case}_desc-calibrated_dseg.nii.gz"), expected)
    table = (tmp_path / "out" / "dseg.tsv").read_text()
    assert table == "index\tname\n0\tbackground\n1\twhole\n2\twhole+core\n"


def test_split_classes_writes_one_file_per_class(tmp_path):
    study = nnunet_study(tmp_path, ("sub-1_label-x_desc-y",))
    artifact = fit(study)
    apply(study, artifact, "--split-classes")
    names = [f"sub-1_label-{name}_desc-calibrated_probseg.nii.gz" for name in CLASSES]
    assert sorted(tree(tmp_path / "out")) == names


def test_images_without_a_place_become_arrays_and_png(tmp_path):
    from PIL import Image

    study = png_study(tmp_path)
    artifact = fit(study, "--method", "platt")
    apply(study, artifact, "--segmentation", "recompute")
    with np.load(tmp_path / "out" / "case-1.npz") as archive:
        assert archive.files == ["probabilities"]
        array = archive["probabilities"]
    assert (array.dtype, array.shape) == (np.float32, (1, 1, 24, 31))
    label = np.asarray(Image.open(tmp_path / "out" / "case-1_desc-calibrated_dseg.png"))
    np.testing.assert_array_equal(label, array[0, 0] > 0.5)


def test_padding_of_the_model_stays_padding(tmp_path):
    study = nnunet_study(tmp_path)
    for seed, case in enumerate(study.cases):
        field = softmax_of(logits_of(3, seed))
        field[:, :2] = np.array([1, 0, 0]).reshape(3, 1, 1, 1)
        write_npz(study.predictions / f"{case}.npz", probabilities=field)
        save(study.predictions / f"{case}.nii.gz", field.argmax(axis=0).astype(np.uint8), AFFINE)
    artifact = fit(study)
    assert read_artifact(artifact).header.results["n_voxels"] == 4 * 3 * 6 * 7
    for more in ((), ("--format", "npz"), ("--dtype", "uint16")):
        ran = apply(study, artifact, *more, "--json", folder=f"out{len(more)}{more[-1:]}")
        for case in ran.document["result"]["cases"]:
            assert case["padding_share"] == pytest.approx(0.4)
    array = read(tmp_path / "out0()" / "case-1_desc-calibrated_probseg.nii.gz")
    np.testing.assert_array_equal(array[:, :2], np.broadcast_to(np.array([1, 0, 0]).reshape(3, 1, 1, 1), (3, 2, 6, 7)))


def test_a_calibrator_on_the_fly_is_the_written_calibration(tmp_path):
    study = nnunet_study(tmp_path)
    artifact = fit(study)
    apply(study, artifact)
    ran = segcal("convert", study.predictions, "-o", tmp_path / "fly", "--calibrator", artifact)
    assert ran.code == 0, ran.err
    for case in study.cases:
        written = read(tmp_path / "out" / f"{case}_desc-calibrated_probseg.nii.gz")
        np.testing.assert_array_equal(read(tmp_path / "fly" / f"{case}_probseg.nii.gz"), written)


def test_a_second_calibrator_on_top_finds_nothing_left_to_do(tmp_path):
    study = nnunet_study(tmp_path)
    first = fit(study)
    second = fit(study, "--calibrator", first, "--allow-overlap", name="second.npz")
    assert temperature(second) == pytest.approx(1.0, abs=1e-4)
    header = read_artifact(second).header
    assert header.spec["calibrator"] == read_artifact(first).digest
    assert header.spec["overlap_allowed"] is True
    ran = segcal("calibrate", "apply", second, study.predictions, "-o", tmp_path / "out")
    assert (ran.code, ran.out) == (5, "")
    apply(study, second, "--calibrator", first)


# Options that decide which voxels count.


def test_an_ignored_value_leaves_its_voxels_out(tmp_path):
    study = nnunet_study(tmp_path)
    for seed, case in enumerate(study.cases):
        labels = drawn_labels(logits_of(3, seed), seed)
        labels[:2] = 9
        save(study.labels / f"{case}.nii.gz", labels, AFFINE)
    header = read_artifact(fit(study, "--ignore-label", "9")).header
    assert header.results["n_voxels"] == 4 * 3 * 6 * 7
    assert header.spec["ignore_label"] == 9


def test_a_region_of_interest_leaves_the_rest_out(tmp_path):
    study = nnunet_study(tmp_path)
    (tmp_path / "roi").mkdir()
    for case in study.cases:
        mask = np.zeros(SHAPE, np.uint8)
        mask[1:] = 5
        save(tmp_path / "roi" / f"{case}.nii.gz", mask, AFFINE)
    header = read_artifact(fit(study, "--roi", tmp_path / "roi")).header
    assert header.results["n_voxels"] == 4 * 4 * 6 * 7
    assert header.spec["roi"] is True


def test_a_region_of_interest_in_a_table_counts_too(tmp_path):
    study = nnunet_study(tmp_path)
    mask = np.zeros(SHAPE, np.uint8)
    mask[1:] = 5
    save(tmp_path / "roi.nii.gz", mask, AFFINE)
    rows = "".join(f"{case},predictions/{case}.npz,labels/{case}.nii.gz,roi.nii.gz\n" for case in study.cases)
    (tmp_path / "cases.csv").write_text("case,prediction,label,roi\n" + rows)
    header = read_artifact(fit(study, "--cases", tmp_path / "cases.csv")).header
    assert header.results["n_voxels"] == 4 * 4 * 6 * 7
    assert header.spec["roi"] is True


@pytest.mark.parametrize("value", [1, 255, 7])
def test_a_png_mask_of_any_value(value, tmp_path):
    study = png_study(tmp_path, foreground=value)
    artifact = fit(study, "--method", "platt", *(("--mask-value", value) if value == 7 else ()))
    reference = fit(png_study(tmp_path / "other"), "--method", "platt")
    ours, theirs = (read_artifact(path).header.results["parameters"] for path in (artifact, reference))
    assert ours == theirs


def test_palette_labels_are_their_indices(tmp_path):
    from PIL import Image

    study = png_study(tmp_path, foreground=1)
    reference = read_artifact(fit(study, "--method", "platt")).header.results["parameters"]
    for case in study.cases:
        indices = np.asarray(Image.open(study.labels / f"{case}.png"))
        palette_png(study.labels / f"{case}.png", indices)
    again = read_artifact(fit(study, "--method", "platt", name="again.npz")).header.results["parameters"]
    assert again == reference


def test_groups_are_recorded(tmp_path):
    study = nnunet_study(tmp_path, ("p1-a", "p1-b", "p2-a"))
    header = read_artifact(fit(study, "--groups", "^(p[0-9])")).header
    assert header.group_ids == ("p1", "p1", "p2")
    (tmp_path / "groups.csv").write_text("case,group\np1-a,x\np1-b,y\np2-a,x\n")
    header = read_artifact(fit(study, "--groups", tmp_path / "groups.csv", name="g.npz")).header
    assert header.group_ids == ("x", "y", "x")


# Failures.


def test_what_was_left_out_of_a_fit_is_recorded_without_folders(tmp_path):
    study = nnunet_study(tmp_path)
    (study.predictions / "case-2.npz").write_bytes(b"")
    write_npz(study.predictions / "case-3.npz", probabilities=np.full((3, *SHAPE), np.nan, np.float32))
    artifact = tmp_path / "t.npz"
    ran = segcal("calibrate", "fit", *study.both, "-o", artifact, "--on-failure", "continue")
    assert ran.code == 8
    assert ran.closing == "segcal: 4 cases, 2 done, 2 failed: case-2, case-3 (exit 8)"
    header = read_artifact(artifact).header
    assert header.dropped == (
        {"case": "case-2", "error": "case-2.npz: is empty (0 bytes)"},
        {
            "case": "case-3",
            "error": "case-3.npz: 630 NaN and 0 infinite values, first at (x,y,z) = (0, 0, 0), class background",
        },
    )
    assert header.guarantee.endswith(
        "After leaving out 2 of 4 cases; it holds only if they did not fail for a reason related to their scores."
    )
    assert str(tmp_path).encode() not in artifact.read_bytes()


def test_apply_finishes_the_good_cases(tmp_path):
    study = nnunet_study(tmp_path)
    artifact = fit(study)
    (study.predictions / "case-2.nii.gz").write_bytes(b"")
    ran = segcal("calibrate", "apply", artifact, study.predictions, "-o", tmp_path / "out", "--json")
    assert ran.code == 8
    counts = {"cases": 4, "done": 3, "skipped": 0, "failed": 1, "waiting": 0, "not_run": 0, "kept": 0}
    assert (ran.document["status"], ran.document["counts"]) == ("partial", counts)
    assert [failure["case"] for failure in ran.document["failures"]] == ["case-2"]


def test_a_case_of_the_fit_is_flagged_when_it_is_calibrated(tmp_path):
    study = nnunet_study(tmp_path)
    (tmp_path / "cases.csv").write_text("case,prediction,label\ncase-1,predictions/case-1.npz,labels/case-1.nii.gz\n")
    artifact = fit(study, "--cases", tmp_path / "cases.csv")
    ran = apply(study, artifact, "--json")
    assert [case["in_calibration"] for case in ran.document["result"]["cases"]] == [True, False, False, False]


def test_a_copy_of_a_case_of_the_fit_is_flagged_under_another_name(tmp_path):
    study = nnunet_study(tmp_path)
    artifact = fit(study)
    study.predictions.rename(tmp_path / "old")
    study.predictions.mkdir()
    for path in (tmp_path / "old").glob("case-1*"):
        shutil.copy(path, study.predictions / path.name.replace("case-1", "fresh"))
    for path in (tmp_path / "old").glob("*.json"):
        shutil.copy(path, study.predictions)
    ran = apply(study, artifact)
    assert "1 of these cases was used to fit the calibrator: fresh" in ran.err.splitlines()


def test_a_copy_of_a_prediction_is_only_warned_about_by_apply(tmp_path):
    study = nnunet_study(tmp_path)
    artifact = fit(study)
    for suffix in (".npz", ".nii.gz"):
        (study.predictions / f"copy{suffix}").symlink_to(f"case-1{suffix}")
    warning = "warning: case-1 and copy hold the same prediction: duplicates break exchangeability"
    assert warning in apply(study, artifact).err.splitlines()


def test_existing_outputs_are_replaced_only_when_asked(tmp_path):
    study = nnunet_study(tmp_path)
    artifact = fit(study)
    apply(study, artifact)
    first = tree(tmp_path / "out")
    ran = segcal("calibrate", "apply", artifact, study.predictions, "-o", tmp_path / "out")
    names = ", ".join(f"{case}_desc-calibrated_probseg.nii.gz" for case in CASES[1:])
    first_there = tmp_path / "out" / "case-1_desc-calibrated_probseg.nii.gz"
    assert ran.closing == f"segcal: {first_there} exists (and {names}); give --overwrite (exit 2)"
    apply(study, artifact, "--overwrite")
    assert tree(tmp_path / "out") == first


def test_a_table_of_the_whole_folder_is_not_replaced_by_another(tmp_path):
    study = nnunet_study(tmp_path)
    artifact = fit(study)
    (tmp_path / "out").mkdir()
    (tmp_path / "out" / "dseg.tsv").write_text("mine")
    options = ("-o", tmp_path / "out", "--segmentation", "keep")
    ran = segcal("calibrate", "apply", artifact, study.predictions, *options)
    assert ran.closing == f"segcal: {tmp_path / 'out' / 'dseg.tsv'} exists; give --overwrite (exit 2)"
    assert sorted(tree(tmp_path / "out")) == ["dseg.tsv"]


def test_case_ids_that_are_hard_to_print_pass_unharmed(tmp_path):
    cases = ("1.5", "a b", "a[red]b", 'q"q', "x,y", "é")
    study = nnunet_study(tmp_path, cases)
    artifact = fit(study)
    ran = apply(study, artifact, "--json")
    assert tuple(case["case"] for case in ran.document["result"]["cases"]) == cases
    ran = segcal("pairs", *study.both)
    assert tuple(row["case"] for row in csv.DictReader(ran.out.splitlines())) == cases
