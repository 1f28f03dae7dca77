"""``segcal cluster``: what fit, apply, inspect and evaluate write and say, and every kind of trouble."""

from __future__ import annotations

import csv
import json
from dataclasses import replace
from pathlib import Path

import nibabel
import numpy as np
import pytest

from segcal_cli.io.images import write_label_png
from segcal_cli.kandinsky import annuli
from tests.cli.builders import (
    AFFINE,
    SHAPE,
    make_folders,
    make_scans,
    read_rows,
    segcal,
    softmax,
    write_predictions,
    write_volume,
)

GIVEN = ("--values", "probabilities")
KMEANS = ("--method", "kmeans", "--k", "2", "--min-count", "1")
"""The quickest of the learned maps."""

NAMES = ("background", "class1", "class2")


@pytest.fixture(scope="module")
def study(tmp_path_factory):
    """24 scans of 12 patients for the fit, 6 others to apply to."""
    root = tmp_path_factory.mktemp("study")
    old = make_folders(root / "old", make_scans(24))
    new = make_folders(root / "new", [scan for scan in make_scans(30) if scan.name >= "case_24"])
    rows = [f"case_{n:02d},p{n // 2:02d}" for n in range(30)]
    (root / "groups.csv").write_text("case,group\n" + "\n".join(rows) + "\n")
    return root, old, new


def fit(study, output, *options, folders=None, grouped=True):
    root, old, _ = study
    groups = ("--groups", root / "groups.csv") if grouped else ()
    return segcal("cluster", "fit", *(folders or old).arguments, *GIVEN, *groups, "-o", output, *options)


def apply(study, artifact, output, *options, folders=None):
    _root, _, new = study
    chosen = folders or new
    return segcal(
        "cluster", "apply", artifact, chosen.predictions, "--classes", chosen.classes, *GIVEN, "-o", output, *options
    )


def volume(path):
    return np.asarray(nibabel.load(path).dataobj)


@pytest.fixture(scope="module")
def artifact(study, tmp_path_factory):
    path = tmp_path_factory.mktemp("artifact") / "grid.npz"
    assert fit(study, path, "--method", "grid", "--grid", "2x2").code == 0
    return path


# Fit.


@pytest.mark.parametrize("options", [
    ("--method", "image"), ("--method", "pixel"), ("--method", "kmeans", "--k", "2", "--min-count", "1"),
    ("--k", "2"), ("--method", "star", "--k", "2"), ("--method", "grid", "--grid", "2x2x2"), ("--method", "boundary"),
    ("--method", "boundary", "--edges", "-1,1"),
    *(pytest.param(options, marks=pytest.mark.slow) for options in (
        ("--k", "2", "--coords", "object"), ("--k", "2", "--coords", "mm"),
        ("--k", "2", "--shared-map", "--block", "2"),
        ("--method", "kmeans", "--features", "quantiles", "--k", "auto"),
    )),
])  # fmt: skip
def test_every_method_fits_applies_and_is_measured(study, tmp_path, monkeypatch, options):
    # Where the shells lie does not matter here; tests of the maps search in full.
    monkeypatch.setattr(annuli, "GENERATIONS", 4)
    path = tmp_path / "c.npz"
    said = fit(study, path, *options, "--json")
    assert said.code == 0, said.stderr
    assert said.document["result"]["artifact"]["file"] == "c.npz"
    assert "guarantee" in said.document["result"]
    assert apply(study, path, tmp_path / "out").code == 0
    assert len(list((tmp_path / "out").glob("*_sets.nii.gz"))) == 6
    measured = segcal("evaluate", *study[2].arguments, *GIVEN, "--artifact", path, "-o", tmp_path / "m.csv", "--json")
    assert measured.code == 0, measured.stderr
    assert measured.document["result"]["cluster"][0]["method"] == said.document["result"]["method"]


def test_jobs_and_a_second_run_give_the_same_bytes(study, tmp_path):
    for name, options in (("a", ()), ("b", ("--jobs", "2")), ("c", ())):
        assert fit(study, tmp_path / f"{name}.npz", *KMEANS, *options).code == 0
    assert len({(tmp_path / f"{name}.npz").read_bytes() for name in "abc"}) == 1


def test_patients_are_split_whole_between_map_and_calibration(study, tmp_path):
    path = tmp_path / "c.npz"
    fit(study, path, *KMEANS)
    results = segcal("inspect", path, "--json").document["result"]
    assert (results["n_map_groups"], results["n_calibration_groups"]) == (4, 8)
    makers = results["results"]["map_cases"]
    assert not {f"p{int(case[-2:]) // 2:02d}" for case in results["results"]["calibration_cases"]} & set(
        makers.values()
    )


def test_too_few_patients_make_a_class_stand_in_every_set_and_are_named(study, tmp_path):
    said = fit(study, tmp_path / "c.npz", "--method", "image", "--alpha", "0.05")
    assert said.code == 0
    assert "class1: 12 patients, alpha 0.05 needs 19; the class stands in every set everywhere" in said.stderr
    assert "Vacuous at alpha 0.05" in said.stderr
    apply(study, tmp_path / "c.npz", tmp_path / "out")
    assert (volume(tmp_path / "out" / "case_24_sets.nii.gz") == 0b111).all()


def test_what_is_promised_is_said_with_its_numbers(study, tmp_path):
    said = fit(study, tmp_path / "c.npz", "--method", "grid", "--grid", "2x2")
    assert (
        "For a new patient exchangeable with the 12 calibration patients: of the patient's voxels of a class in a "
        "cluster the set misses at most 10 % on average over patients, for each class and cluster with at least 9 "
        "patients (here 12 of 12). Nothing is promised for one voxel, one scan, the whole image, or several clusters "
        "or classes at once."
    ) in said.stderr


@pytest.mark.parametrize(("options", "words"), [
    (("--reuse", *KMEANS), "No guarantee: the map was made from the calibration patients themselves (--reuse)."),
    (("--weighting", "voxel", "--method", "image"), "No guarantee: voxels of one patient are pooled"),
])  # fmt: skip
def test_where_nothing_is_promised_every_output_says_so(study, tmp_path, options, words):
    path = tmp_path / "c.npz"
    assert words in fit(study, path, *options).stderr
    assert words in segcal("inspect", path).stdout
    assert words in apply(study, path, tmp_path / "out").stderr
    assert words in segcal("evaluate", *study[2].arguments, *GIVEN, "--artifact", path, "-o", tmp_path / "m.csv").stderr


def test_without_groups_each_file_is_a_patient_and_that_is_said(study, tmp_path):
    said = fit(study, tmp_path / "c.npz", "--method", "image", grouped=False)
    assert (
        "without --groups each file counts as a patient; several files of one patient break the promise" in said.stderr
    )
    assert "24 calibration patients" in said.stderr


def test_one_patient_cannot_make_a_map_and_calibrate(study, tmp_path):
    _root, _, _ = study
    (tmp_path / "one.csv").write_text("case,group\n" + "".join(f"case_{n:02d},p\n" for n in range(24)))
    said = segcal(
        "cluster", "fit", *study[1].arguments, *GIVEN, "--groups", tmp_path / "one.csv", "-o", tmp_path / "c.npz"
    )
    assert said.code == 4
    assert (
        "1 patient cannot be split into map and calibration; use --map, or a method without a learned map"
        in said.stderr
    )
    assert not (tmp_path / "c.npz").exists()


def test_a_class_in_no_label_stands_in_every_set_and_the_others_are_unaffected(study, tmp_path):
    _root, old, _ = study
    classes = tmp_path / "classes.json"
    classes.write_text(json.dumps({"background": 0, "class1": [1, 2], "class2": 9}))
    said = segcal(
        "cluster",
        "fit",
        old.predictions,
        old.labels,
        "--classes",
        classes,
        *GIVEN,
        "--method",
        "image",
        "-o",
        tmp_path / "c.npz",
    )
    assert said.code == 0
    assert "class class2 occurs in no calibration label: it will stand in every set" in said.stderr
    rows = segcal("inspect", tmp_path / "c.npz", "--alpha", "0.1", "--json").document["result"]["thresholds"]
    assert [row["vacuous"] for row in rows] == [False, False]


def test_a_table_of_cases_without_patients_is_no_better_than_files_without_groups(study, tmp_path):
    _root, old, _ = study
    rows = [f"{s.name},{old.predictions / s.name}.nii.gz,{old.labels / s.name}.nii.gz" for s in old.scans]
    (tmp_path / "cases.csv").write_text("case,prediction,label\n" + "\n".join(rows) + "\n")
    said = segcal(
        "cluster", "fit", *old.arguments, *GIVEN, "--cases", tmp_path / "cases.csv", "--method", "image", "-o",
        tmp_path / "c.npz",
    )  # fmt: skip
    assert said.code == 0, said.stderr
    assert "once. Without --groups each file counts as a patient; several files of one patient break" in said.stderr


def test_an_artifact_of_one_region_is_refused_for_another(study, tmp_path):
    root, old, new = study
    mask = np.zeros(SHAPE, np.uint8)
    mask[:, 2:6, 3:9] = 1
    for scan in (*old.scans, *new.scans):
        write_volume(tmp_path / "roi" / f"{scan.name}.nii.gz", mask)
    region, path = ("--roi", tmp_path / "roi"), tmp_path / "c.npz"
    without = f"segcal: {path} was fitted without a region of interest: leave --roi, or the column roi of --cases, away"
    within = f"segcal: {path} was fitted with a region of interest: give --roi FOLDER, or --cases with a column roi"
    judged = ("evaluate", *new.arguments, *GIVEN, "--groups", root / "groups.csv", "--artifact", path, "-o")
    for number, (fitted, used, words) in enumerate((((), region, without), (region, (), within))):
        promise = fit(study, path, "--method", "image", "--overwrite", *fitted)
        assert ("Only voxels inside the region of interest count." in promise.stderr) == bool(fitted)
        for said in (
            apply(study, path, tmp_path / f"other{number}", *used),
            segcal(*judged, tmp_path / f"other{number}.csv", *used),
        ):
            assert said.code == 2
            assert f"{words} (exit 2)" in said.stderr
        assert "For a new patient" in apply(study, path, tmp_path / f"same{number}", *fitted).stderr


def test_levels_that_differ_by_class_are_promised_class_by_class(study, tmp_path, artifact):
    said = apply(study, artifact, tmp_path / "out", "--alpha", "0.1", "--alpha", "class1=0.3")
    assert (
        "the set misses on average over patients at most 10 % (background, class2; from 9 patients) or 30 % (class1; "
        "from 3 patients), for each class and cluster with so many patients (here 12 of 12). Nothing is promised"
    ) in said.stderr
    assert "misses at most 10 %" not in said.stderr
    assert (
        "no class and cluster has the patients that it needs (at most 12 are there)"
        in apply(study, artifact, tmp_path / "few", "--alpha", "0.01", "--alpha", "class1=0.02").stderr
    )


def test_copies_of_map_making_scans_under_other_names_do_not_calibrate(study, tmp_path):
    fit(study, tmp_path / "map.npz", *KMEANS)
    scans = [replace(scan, name=scan.name.replace("case", "copy")) for scan in study[1].scans]
    copies = make_folders(tmp_path / "copies", scans)
    common = ("cluster", "fit", *copies.arguments, *GIVEN, "--map", tmp_path / "map.npz", "-o", tmp_path / "c.npz")
    refused = segcal(*common)
    assert refused.code == 4
    assert "8 patients make the map and calibrate on it: copy_" in refused.stderr
    assert not (tmp_path / "c.npz").exists()
    assert "was fitted with patients as units (12 of 24 cases)" in refused.stderr
    allowed = segcal(*common, "--allow-overlap")
    assert "No guarantee: some patients made the map and calibrated it too (--allow-overlap)." in allowed.stderr


def test_files_of_an_earlier_run_that_this_one_does_not_write_are_named(study, tmp_path, artifact):
    assert "stay as an earlier run made them" not in apply(study, artifact, tmp_path / "out").stderr
    said = apply(study, artifact, tmp_path / "out", "--alpha", "0.3", "--emit", "pvalue", "--skip-existing")
    assert "12 files of kinds that --emit leaves out stay as an earlier run made them" in said.stderr


def test_a_map_of_other_patients_lets_everyone_calibrate(study, tmp_path):
    root, _old, new = study
    fit(study, tmp_path / "map.npz", *KMEANS)
    said = segcal(
        "cluster", "fit", *new.arguments, *GIVEN, "--groups", root / "groups.csv", "--map", tmp_path / "map.npz",
        "--alpha", "0.3", "-o", tmp_path / "c.npz", "--json",
    )  # fmt: skip
    assert said.code == 0, said.stderr
    result = said.document["result"]
    assert (result["n_map_groups"], result["n_calibration_groups"]) == (4, 3)
    refused = fit(study, tmp_path / "d.npz", "--map", tmp_path / "map.npz")
    assert refused.code == 4
    assert "4 patients make the map and calibrate on it" in refused.stderr
    allowed = fit(study, tmp_path / "d.npz", "--map", tmp_path / "map.npz", "--allow-overlap")
    assert allowed.code == 0
    assert "No guarantee: some patients made the map and calibrated it too (--allow-overlap)." in allowed.stderr


def test_a_list_of_map_making_cases_may_not_split_a_patient(study, tmp_path):
    (tmp_path / "split.csv").write_text("case\ncase_00\ncase_01\ncase_02\n")
    said = fit(study, tmp_path / "c.npz", *KMEANS, "--split", tmp_path / "split.csv")
    assert said.code == 4
    assert "1 patient makes the map and calibrates on it: p01" in said.stderr
    (tmp_path / "split.csv").write_text("case\ncase_00\ncase_01\ncase_02\ncase_03\n")
    assert fit(study, tmp_path / "c.npz", *KMEANS, "--split", tmp_path / "split.csv").code == 0
    (tmp_path / "split.csv").write_text("case\nnobody\n")
    assert "no such case: nobody" in fit(study, tmp_path / "d.npz", *KMEANS, "--split", tmp_path / "split.csv").stderr


@pytest.mark.parametrize("options", [
    ("--method", "rings"), ("--method", "grid"), ("--method", "atlas"), ("--method", "image", "--coords", "mm"),
    ("--method", "boundary", "--shared-map"), ("--reuse", "--split", "0.5"), ("--alpha", "1.5"), ("--k", "0"),
    ("--only", "liver"), ("--memory", "much"), ("--split", "2"), ("--method", "boundary", "--edges", "5,1"),
    ("--grid", "2x2"), ("--levels", ".5"), ("--method", "star", "--roughness", "inf"),
    ("--method", "star", "--order", "33"), ("--method", "kmeans", "--smooth", "inf"),
    ("--method", "image", "--only", "class1"), ("--method", "image", "--reuse"), ("--method", "pixel", "--split", ".5"),
    ("--method", "boundary", "--edges", "0", "--split", "0.5"),
])  # fmt: skip
def test_options_that_make_no_sense_are_usage_errors(study, tmp_path, options):
    said = fit(study, tmp_path / "c.npz", *options)
    assert said.code == 2, said.stderr
    assert not (tmp_path / "c.npz").exists()


def test_a_gpu_that_is_not_there_is_a_usage_error(study, tmp_path, monkeypatch):
    torch = pytest.importorskip("torch")
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    said = fit(study, tmp_path / "c.npz", *KMEANS, "--device", "cuda")
    assert said.code == 2
    assert "--device cuda: torch finds no CUDA GPU here; allowed are auto and cpu" in said.stderr
    assert not (tmp_path / "c.npz").exists()


def test_the_torch_path_writes_the_same_artifact_as_numpys(study, tmp_path, monkeypatch):
    from segcal_cli.kandinsky.tensors import TensorArrays
    from segcal_cli.workflows import cluster_fit

    pytest.importorskip("torch")
    for method in (("--method", "grid", "--grid", "2x2"), KMEANS):
        assert fit(study, tmp_path / "numpy.npz", *method, "--device", "cpu").code == 0
        with monkeypatch.context() as patched:
            patched.setattr(cluster_fit, "arrays_on", lambda device: TensorArrays("cpu"))
            assert fit(study, tmp_path / "torch.npz", *method).code == 0
        assert (tmp_path / "numpy.npz").read_bytes() == (tmp_path / "torch.npz").read_bytes()
        for name in ("numpy", "torch"):
            (tmp_path / f"{name}.npz").unlink()


def test_scores_beyond_the_memory_become_coarser_and_stay_valid(study, tmp_path):
    said = fit(study, tmp_path / "c.npz", "--method", "pixel", "--memory", "400KB")
    assert said.code == 0
    assert "scores were made coarser by" in said.stderr
    assert apply(study, tmp_path / "c.npz", tmp_path / "out").code == 0


# Shapes and orientations.


def shaped(root, shapes):
    scans = [make_scans(1, shape=shape, seed=n)[0] for n, shape in enumerate(shapes)]
    scans = [type(scan)(f"case_{n:02d}", scan.logits, scan.labels) for n, scan in enumerate(scans)]
    return make_folders(root, scans)


def test_scans_of_several_shapes_are_placed_by_share_or_refused(study, tmp_path):
    folders = shaped(tmp_path / "mixed", [(4, 9, 11), (5, 9, 11), (4, 8, 11), (4, 9, 12)])
    said = fit(study, tmp_path / "c.npz", *KMEANS, folders=folders, grouped=False)
    assert said.code == 0
    assert "scans differ in shape or spacing (4 shapes): places are shares of the extent" in said.stderr
    said = fit(study, tmp_path / "d.npz", *KMEANS, "--coords", "index", folders=folders, grouped=False)
    assert said.code == 4
    assert "--coords index needs scans of one shape" in said.stderr
    said = fit(study, tmp_path / "d.npz", "--method", "pixel", folders=folders, grouped=False)
    assert said.code == 4
    assert "pixel needs one common grid" in said.stderr


def test_a_scan_stored_in_another_orientation_has_the_same_sets(study, tmp_path):
    _root, _, new = study
    fit(study, tmp_path / "c.npz", "--method", "grid", "--grid", "3x2x2", "--alpha", "0.3")
    apply(study, tmp_path / "c.npz", tmp_path / "out", "--emit", "sets,clusters")
    turned = tmp_path / "turned"
    for path in sorted(new.predictions.glob("*.nii.gz")):
        image = nibabel.load(path)
        other = image.as_reoriented(nibabel.orientations.axcodes2ornt("PSL"))
        (turned / "predictions").mkdir(parents=True, exist_ok=True)
        nibabel.save(other, turned / "predictions" / path.name)
    folders = type(new)(turned, new.scans)
    folders.classes.write_text(new.classes.read_text())
    said = apply(study, tmp_path / "c.npz", tmp_path / "out2", "--emit", "sets,clusters", folders=folders)
    assert said.code == 0, said.stderr
    for kind in ("sets", "clusters_class1"):
        mine = nibabel.load(tmp_path / "out2" / f"case_24_{kind}.nii.gz")
        assert nibabel.aff2axcodes(mine.affine) == nibabel.aff2axcodes(other.affine) != ("R", "A", "S")
        back = nibabel.as_closest_canonical(mine)
        assert np.array_equal(np.asarray(back.dataobj), volume(tmp_path / "out" / f"case_24_{kind}.nii.gz"))


def test_a_map_of_volumes_is_not_for_images(study, tmp_path, artifact):
    flat = shaped(tmp_path / "flat", [(1, 9, 11)] * 2)
    said = apply(study, artifact, tmp_path / "out", folders=flat)
    assert said.code == 5
    assert "was fitted on 3-D scans" in said.stderr


# Apply.


def test_sets_sizes_and_p_values_of_a_case_say_the_same(study, tmp_path, artifact):
    said = apply(
        study, artifact, tmp_path / "out", "--emit", "sets,size,pvalue,clusters,thresholds", "--empty", "allow",
        "--alpha", "0.2", "--alpha", "class2=0.4",
    )  # fmt: skip
    assert said.code == 0, said.stderr
    out = tmp_path / "out"
    sets, size = volume(out / "case_24_sets.nii.gz"), volume(out / "case_24_size.nii.gz")
    held = np.stack([(sets >> c) & 1 for c in range(3)]).astype(bool)
    assert np.array_equal(held.sum(axis=0), size)
    for channel, (name, alpha) in enumerate(zip(NAMES, (0.2, 0.2, 0.4), strict=True)):
        assert np.array_equal(held[channel], volume(out / f"case_24_pvalue_{name}.nii.gz") > alpha)
        p = softmax(2 * study[2].scans[0].logits)[channel].T
        threshold = volume(out / f"case_24_thresholds_{name}.nii.gz")
        clear = np.abs(p - threshold) > 3e-4
        assert np.array_equal(held[channel][clear], (p >= threshold)[clear])
        assert set(np.unique(volume(out / f"case_24_clusters_{name}.nii.gz"))) <= set(range(4))
    rows = read_rows(out / "cases.csv")
    assert rows[0]["case"] == "case_24"
    assert [row["alpha"] for row in rows[:3]] == ["0.2", "0.2", "0.4"]
    assert int(rows[1]["set_voxels"]) == held[1].sum()
    assert int(rows[1]["only_voxels"]) == (held[1] & (size == 1)).sum()
    assert float(rows[1]["empty_share"]) == pytest.approx((size == 0).mean())


def test_an_empty_set_gets_the_most_probable_class_unless_allowed(study, tmp_path, artifact):
    apply(study, artifact, tmp_path / "top1", "--alpha", "0.6")
    apply(study, artifact, tmp_path / "allow", "--alpha", "0.6", "--empty", "allow")
    filled, left = (volume(tmp_path / name / "case_25_sets.nii.gz") for name in ("top1", "allow"))
    assert (left == 0).any()
    assert (filled != 0).all()
    best = softmax(2 * study[2].scans[1].logits).argmax(axis=0).T
    assert np.array_equal(filled[left == 0], (1 << best)[left == 0])
    assert np.array_equal(filled[left != 0], left[left != 0])


def test_voxels_outside_the_region_of_interest_are_marked_as_not_evaluated(study, tmp_path):
    mask = np.zeros(SHAPE, np.uint8)
    mask[:, 2:6, 3:9] = 1
    for scan in (*study[1].scans, *study[2].scans):
        write_volume(tmp_path / "roi" / f"{scan.name}.nii.gz", mask)
    region = ("--roi", tmp_path / "roi")
    assert fit(study, tmp_path / "c.npz", "--method", "grid", "--grid", "2x2", *region).code == 0
    emit = ("--emit", "sets,size,pvalue,clusters")
    assert apply(study, tmp_path / "c.npz", tmp_path / "out", *region, *emit).code == 0
    outside = mask.T == 0
    values = {
        kind: volume(tmp_path / "out" / f"case_24_{kind}.nii.gz")
        for kind in ("sets", "size", "pvalue_class1", "clusters_class1")
    }
    assert (values["sets"][outside] == 0).all()
    assert (values["size"][outside] == 255).all()
    assert np.isnan(values["pvalue_class1"][outside]).all()
    assert (values["clusters_class1"][outside] == 255).all()
    assert (values["size"][~outside] <= 3).all()


@pytest.mark.parametrize(("options", "code"), [
    (("--alpha", "liver=0.1"), 2), (("--alpha", "1.2"), 2), (("--alpha", "x"), 2), (("--emit", "nothing"), 2),
    (("--atlas", "here"), 5),
])  # fmt: skip
def test_levels_and_outputs_that_cannot_be_are_refused(study, tmp_path, artifact, options, code):
    assert apply(study, artifact, tmp_path / "out", *options).code == code
    assert not (tmp_path / "out").exists()


def test_cases_of_the_fit_are_flagged_by_apply_and_refused_by_evaluate(study, tmp_path):
    root, old, _ = study
    fit(study, tmp_path / "c.npz", *KMEANS)
    said = segcal(
        "cluster", "apply", tmp_path / "c.npz", old.predictions, "--classes", old.classes, *GIVEN, "--groups",
        root / "groups.csv", "-o", tmp_path / "out",
    )  # fmt: skip
    assert said.code == 0
    assert {row["flags"] for row in read_rows(tmp_path / "out" / "cases.csv")} == {"in_calibration", "in_map"}
    judged = ("evaluate", *old.arguments, *GIVEN, "--artifact", tmp_path / "c.npz", "-o", tmp_path / "m.csv")
    assert segcal(*judged).code == 4
    allowed = segcal(*judged, "--allow-overlap")
    assert allowed.code == 0
    assert "In-sample: some of the cases measured here were used in the fit" in allowed.stderr


def test_a_scan_of_the_fit_is_flagged_under_another_name_too(study, tmp_path, artifact):
    scans = [replace(study[1].scans[0], name="stranger"), study[2].scans[0]]
    folders = make_folders(tmp_path / "renamed", scans)
    said = apply(study, artifact, tmp_path / "out", folders=folders)
    assert {row["case"]: row["flags"] for row in read_rows(tmp_path / "out" / "cases.csv")} == {
        "case_24": "", "stranger": "in_calibration"
    }  # fmt: skip
    assert "1 of these cases was used in the fit" in said.stderr


def test_apply_says_where_patients_are_no_longer_told_apart(study, tmp_path, artifact):
    root = study[0]
    assert (
        "give --groups, or scans of patients of the fit go unnoticed" in apply(study, artifact, tmp_path / "a").stderr
    )
    told = apply(study, artifact, tmp_path / "b", "--groups", root / "groups.csv")
    assert "go unnoticed" not in told.stderr


def test_a_calibrator_of_the_fit_is_asked_for_at_apply(study, tmp_path):
    _root, old, new = study
    assert segcal("calibrate", "fit", *old.arguments, *GIVEN, "-o", tmp_path / "t.npz", "--no-summary").code == 0
    said = fit(study, tmp_path / "c.npz", "--method", "image", "--calibrator", tmp_path / "t.npz", "--allow-overlap")
    assert said.code == 0, said.stderr
    assert "No guarantee: the calibrator had been fitted on some of the calibration patients" in said.stderr
    said = apply(study, tmp_path / "c.npz", tmp_path / "out")
    assert said.code == 5
    assert "through the calibrator" in said.stderr
    assert apply(study, tmp_path / "c.npz", tmp_path / "out", "--calibrator", tmp_path / "t.npz").code == 0
    calibrator = tmp_path / "u.npz"
    assert segcal("calibrate", "fit", *new.arguments, *GIVEN, "-o", calibrator, "--no-summary").code == 0
    assert fit(study, tmp_path / "d.npz", "--method", "image", "--calibrator", calibrator).code == 0
    assert apply(study, tmp_path / "d.npz", tmp_path / "taught", "--calibrator", calibrator).code == 0
    assert {row["flags"] for row in read_rows(tmp_path / "taught" / "cases.csv")} == {"in_calibrator"}
    other = make_folders(tmp_path / "copies", [replace(new.scans[0], name="stranger")])
    assert apply(study, tmp_path / "d.npz", tmp_path / "e", "--calibrator", calibrator, folders=other).code == 0
    assert {row["flags"] for row in read_rows(tmp_path / "e" / "cases.csv")} == {"in_calibrator"}


def test_other_classes_and_damaged_artifacts_exit_5(study, tmp_path, artifact):
    other = make_folders(tmp_path / "other", make_scans(2, 4))
    assert apply(study, artifact, tmp_path / "out", folders=other).code == 5
    broken = tmp_path / "broken.npz"
    broken.write_bytes(artifact.read_bytes()[:-2000])
    assert apply(study, broken, tmp_path / "out").code == 5


def test_regions_that_overlap_have_sets_of_any_kind(study, tmp_path):
    folders = make_folders(tmp_path / "lesion", make_scans(20, 1))
    said = segcal("cluster", "fit", *folders.arguments, *GIVEN, "--method", "image", "-o", tmp_path / "c.npz")
    assert said.code == 0, said.stderr
    assert "of the patient's lesion voxels the set misses" in said.stderr
    new = make_folders(tmp_path / "more", [scan for scan in make_scans(22, 1) if scan.name >= "case_20"])
    assert apply(study, tmp_path / "c.npz", tmp_path / "out", folders=new).code == 0
    assert set(np.unique(volume(tmp_path / "out" / "case_20_sets.nii.gz"))) <= {0, 1}
    assert apply(study, tmp_path / "c.npz", tmp_path / "o2", "--empty", "top1", folders=new).code == 2


def test_images_without_a_grid_are_written_as_png(study, tmp_path):
    from PIL import Image

    rng = np.random.default_rng(0)
    for n in range(12):
        p = rng.integers(0, 65536, (12, 16)).astype(np.uint16)
        label = (rng.random((12, 16)) < p / 65535).astype(np.uint8) * 255
        for name, array in (("predictions", p), ("labels", label)):
            (tmp_path / name).mkdir(exist_ok=True)
            with (tmp_path / name / f"i_{n:02d}.png").open("wb") as file:
                write_label_png(file, array)
    (tmp_path / "classes.json").write_text('{"cell": 1}')
    common = ("--classes", tmp_path / "classes.json", *GIVEN)
    said = segcal(
        "cluster",
        "fit",
        tmp_path / "predictions",
        tmp_path / "labels",
        *common,
        "--k",
        "2",
        "-o",
        tmp_path / "c.npz",
        "--reuse",
        "--mask-value",
        "255",
    )
    assert said.code == 0, said.stderr
    said = segcal(
        "cluster",
        "apply",
        tmp_path / "c.npz",
        tmp_path / "predictions",
        *common,
        "-o",
        tmp_path / "out",
        "--emit",
        "sets,pvalue",
    )
    assert said.code == 0, said.stderr
    sets = np.asarray(Image.open(tmp_path / "out" / "i_00_sets.png"))
    p = np.asarray(Image.open(tmp_path / "out" / "i_00_pvalue_cell.png"))
    assert sets.shape == p.shape == (12, 16)
    assert np.array_equal(sets == 1, p / 65535 > 0.1)


# Boundary and atlas.


def test_a_class_predicted_nowhere_or_everywhere_has_its_cluster(study, tmp_path):
    fit(study, tmp_path / "c.npz", "--method", "boundary", "--edges", "-1,1")
    new = study[2]
    logits = {"nowhere": np.full((3, *SHAPE), -9.0), "everywhere": np.full((3, *SHAPE), -9.0)}
    logits["nowhere"][0] = logits["everywhere"][1] = 9.0
    for name, z in logits.items():
        write_volume(tmp_path / "extreme" / "predictions" / f"{name}.nii.gz", softmax(z))
    folders = type(new)(tmp_path / "extreme", new.scans)
    folders.classes.write_text(new.classes.read_text())
    said = apply(study, tmp_path / "c.npz", tmp_path / "out", "--emit", "clusters,sets", folders=folders)
    assert said.code == 0, said.stderr
    assert (volume(tmp_path / "out" / "nowhere_clusters_class1.nii.gz") == 3).all()
    assert (volume(tmp_path / "out" / "everywhere_clusters_class1.nii.gz") == 0).all()
    shares = {(row["case"], row["class"]): row["infinite_share"] for row in read_rows(tmp_path / "out" / "cases.csv")}
    assert float(shares["nowhere", "class1"]) == 1.0
    assert (volume(tmp_path / "out" / "nowhere_sets.nii.gz") & 0b110 == 0b110).all()


def regions_of(n=3):
    atlas = np.zeros(SHAPE, np.int16)
    atlas[:, 3:] = 5
    atlas[:, 6:] = 10 * (n > 2) + 5
    return atlas


def test_an_atlas_of_one_file_is_kept_in_the_artifact(study, tmp_path):
    path = write_volume(tmp_path / "atlas.nii.gz", regions_of())
    said = fit(study, tmp_path / "c.npz", "--method", "atlas", "--atlas", path)
    assert said.code == 0, said.stderr
    assert "3 regions of an atlas (0, 5, 15)" in said.stderr
    assert apply(study, tmp_path / "c.npz", tmp_path / "out", "--emit", "clusters").code == 0
    assert np.array_equal(
        volume(tmp_path / "out" / "case_24_clusters_class1.nii.gz"), np.searchsorted([0, 5, 15], regions_of().T)
    )
    measured = segcal(
        "evaluate", *study[2].arguments, *GIVEN, "--artifact", tmp_path / "c.npz", "-o", tmp_path / "m.csv"
    )
    assert measured.code == 0, measured.stderr


def test_atlases_of_single_cases_are_asked_for_again_and_new_regions_stand_in_every_set(study, tmp_path):
    for scan in study[1].scans:
        write_volume(tmp_path / "old" / f"{scan.name}.nii.gz", regions_of(2))
    for scan in study[2].scans:
        write_volume(tmp_path / "new" / f"{scan.name}.nii.gz", regions_of(3))
    assert fit(study, tmp_path / "c.npz", "--method", "atlas", "--atlas", tmp_path / "old").code == 0
    said = apply(study, tmp_path / "c.npz", tmp_path / "out")
    assert said.code == 5
    assert "give --atlas FOLDER" in said.stderr
    assert apply(study, tmp_path / "c.npz", tmp_path / "out", "--atlas", tmp_path / "new").code == 0
    row = read_rows(tmp_path / "out" / "cases.csv")[0]
    assert float(row["unseen_share"]) == float(row["infinite_share"]) == pytest.approx(3 / 9)
    assert (volume(tmp_path / "out" / "case_24_sets.nii.gz")[regions_of().T == 15] == 0b111).all()


def test_an_atlas_that_is_the_labels_is_noticed(study, tmp_path):
    labels = fit(study, tmp_path / "c.npz", "--method", "atlas", "--atlas", study[1].labels)
    assert "every class lies in one region of its own, as if the atlas were the labels" in labels.stderr
    values = np.zeros(SHAPE, np.uint8)
    values[..., SHAPE[2] // 2 :] = 1
    write_volume(tmp_path / "halves.nii.gz", values)
    halves = fit(study, tmp_path / "d.npz", "--method", "atlas", "--atlas", tmp_path / "halves.nii.gz")
    assert halves.code == 0
    assert "as if the atlas were the labels" not in halves.stderr


def test_an_atlas_of_fractions_or_on_another_grid_is_refused(study, tmp_path):
    path = write_volume(tmp_path / "soft.nii.gz", np.full(SHAPE, 0.5, np.float32))
    said = fit(study, tmp_path / "c.npz", "--method", "atlas", "--atlas", path)
    assert said.code == 4
    assert "holds fractions" in said.stderr
    moved = AFFINE.copy()
    moved[0, 3] = 30.0
    path = write_volume(tmp_path / "moved.nii.gz", regions_of(), moved)
    assert fit(study, tmp_path / "c.npz", "--method", "atlas", "--atlas", path).code == 4


# Inspect and evaluate.


def test_inspect_shows_the_map_and_every_threshold(study, artifact):
    result = segcal("inspect", artifact, "--alpha", "0.1", "--alpha", "0.05", "--json").document["result"]
    assert result["kind"] == "cluster"
    assert {"method", "weighting", "n_map_groups", "n_calibration_groups", "reuse", "smallest_alpha", "maps"} <= set(
        result
    )
    rows = result["thresholds"]
    assert len(rows) == 2 * 3 * 4
    assert set(rows[0]) == {
        "class", "class_index", "cluster", "cells", "n_groups", "n_voxels", "needed_groups", "alpha", "code",
        "score_low", "score_high", "probability", "vacuous",
    }  # fmt: skip
    vacuous = [row for row in rows if row["alpha"] == 0.05]
    assert {(row["code"], row["score_high"], row["needed_groups"]) for row in vacuous} == {(None, "inf", 19)}
    finite = [row for row in rows if row["alpha"] == 0.1]
    assert all(row["score_low"] < row["score_high"] and row["probability"] == 1 - row["score_high"] for row in finite)
    text = segcal("inspect", artifact).stdout
    assert "2 x 2 blocks" in text
    assert "vacuous: class1: clusters 1, 2, 3, 4: 12, 12, 12, 12 patients, alpha 0.05 needs 19" in text
    assert segcal("inspect", artifact, "--alpha", "2").code == 2


def test_inspect_refuses_levels_of_a_calibrator(study, tmp_path):
    assert segcal("calibrate", "fit", *study[1].arguments, *GIVEN, "-o", tmp_path / "t.npz", "--no-summary").code == 0
    assert segcal("inspect", tmp_path / "t.npz", "--alpha", "0.1").code == 2


def test_evaluate_measures_cluster_artifacts_beside_the_predictions(study, tmp_path, artifact):
    fit(study, tmp_path / "image.npz", "--method", "image")
    said = segcal(
        "evaluate", *study[2].arguments, *GIVEN, "--groups", study[0] / "groups.csv", "--artifact", artifact,
        "--artifact", f"whole={tmp_path / 'image.npz'}", "--alphas", "0.1:0.4:0.1", "--min-positives", "2",
        "-o", tmp_path / "m.csv", "--json",
    )  # fmt: skip
    assert said.code == 0, said.stderr
    entries = said.document["result"]["cluster"]
    assert [entry["artifact"] for entry in entries] == ["grid.npz", "image.npz"]
    first = entries[0]
    assert {"coverage", "errors", "levels", "sets", "cases", "methods", "guarantee"} <= set(first)
    assert len(first["coverage"]) == 4 * 3 * 5
    assert {row["cluster"] for row in first["coverage"]} == {"(all)", 0, 1, 2, 3}
    assert {row["n_groups"] for row in first["coverage"]} == {3}
    assert len(first["levels"]) == 3 * 5 * 20
    assert [row["level"] for row in first["levels"][:20]] == pytest.approx([m / 20 for m in range(1, 21)])
    assert first["levels"][19]["coverage_voxel"] == 1.0
    assert [entry["alpha"] for entry in first["sets"]] == [0.1, 0.2, 0.3, 0.4]
    assert {row["artifact"] for row in first["methods"]} == {"grid", "whole"}
    for name in ("grid", "whole"):
        for end in ("coverage", "errors", "levels", "sets", "cases"):
            assert read_rows(tmp_path / f"m.{name}.{end}.csv")
    assert len(read_rows(tmp_path / "m.cluster.methods.csv")) == 6
    with (tmp_path / "m.grid.sets.csv").open() as file:
        assert "false_inclusion_class1" in next(csv.reader(file))


def test_the_error_of_one_artifact_beside_itself_is_that_of_the_image(study, tmp_path):
    fit(study, tmp_path / "image.npz", "--method", "image")
    said = segcal(
        "evaluate",
        *study[2].arguments,
        *GIVEN,
        "--artifact",
        tmp_path / "image.npz",
        "-o",
        tmp_path / "m.csv",
        "--json",
    )
    for row in said.document["result"]["cluster"][0]["errors"]:
        assert row["ce20_mean"] == row["image_ce20_mean"]


@pytest.mark.parametrize("options", [
    ("--alphas", "0.1"), ("--alphas", "0:1:0.1"), ("--ce-bins", "1"), ("--min-positives", "0"), ("--alpha", "liver=.1"),
])  # fmt: skip
def test_evaluate_refuses_conventions_that_cannot_be(study, tmp_path, artifact, options):
    said = segcal("evaluate", *study[2].arguments, *GIVEN, "--artifact", artifact, "-o", tmp_path / "m.csv", *options)
    assert said.code == 2
    assert not (tmp_path / "m.csv").exists()


@pytest.fixture(scope="module")
def calibrator(study, tmp_path_factory):
    """It promises nothing that could be judged."""
    root, old, _ = study
    path = tmp_path_factory.mktemp("calibrator") / "calibrator.npz"
    said = segcal("calibrate", "fit", *old.arguments, *GIVEN, "--groups", root / "groups.csv", "-o", path)
    assert said.code == 0, said.stderr
    return path


@pytest.mark.parametrize(("options", "words"), [
    (("--alpha", "0.2"), "--alpha is of conformal-sets or cluster artifacts"),
    (("--alphas", "0.1:0.4:0.1"), "--alphas is of conformal-sets or cluster artifacts"),
    (("--empty", "allow"), "--empty is of cluster artifacts"),
    (("--ce-bins", "10"), "--ce-bins is of cluster artifacts"),
    (("--block", "2"), "--block is of cluster artifacts"), (("--atlas", "."), "--atlas is of cluster artifacts"),
    (("--min-positives", "2"), "--min-positives is of cluster artifacts"),
    (("--resplits", "9"), "--resplits is of conformal-sets artifacts"),
    (("--ratio-tolerance", "0.2"), "--ratio-tolerance is of ntr-interval artifacts"),
])  # fmt: skip
def test_evaluate_refuses_what_no_given_artifact_can_use(study, tmp_path, calibrator, options, words):
    common = ("evaluate", *study[2].arguments, *GIVEN, "-o", tmp_path / "m.csv", *options)
    for given in ((), ("--artifact", calibrator)):
        said = segcal(*common, *given)
        assert said.code == 2
        assert f"{words}, and none is given with --artifact" in said.stderr
        assert not (tmp_path / "m.csv").exists()


@pytest.mark.parametrize(("options", "words"), [
    (("--alpha", "0.2"), "--alpha is of conformal-sets or cluster artifacts"),
    (("--cells", "1,1,1"), "--cells is of cluster artifacts"),
    (("--max-cases", "3"), "--max-cases is of conformal-sets artifacts"),
])  # fmt: skip
def test_reliability_refuses_what_no_given_artifact_can_use(study, tmp_path, options, words):
    said = segcal("reliability", *study[2].arguments, *GIVEN, "-o", tmp_path / "report", *options)
    assert said.code == 2
    assert f"{words}, and none is given with --artifact" in said.stderr
    assert not (tmp_path / "report").exists()


def test_one_alpha_of_evaluate_serves_clusters_and_conformal_sets_alike(study, tmp_path, artifact):
    root, old, new = study
    sets = tmp_path / "sets.npz"
    common = ("--groups", root / "groups.csv", *GIVEN)
    made = segcal("conformal-sets", "fit", *old.arguments, *common, "--target", "class1", "-o", sets)
    assert made.code == 0, made.stderr
    said = segcal(
        "evaluate", *new.arguments, *common, "--artifact", artifact, "--artifact", sets, "--alpha", "0.3",
        "-o", tmp_path / "m.csv", "--json",
    )  # fmt: skip
    assert said.code == 0, said.stderr
    result = said.document["result"]
    assert {row["alpha"] for row in result["cluster"][0]["coverage"]} == {0.3}
    assert result["conformal_sets"][0]["alpha"] == 0.3
    for path in (artifact, sets):
        shown = segcal("inspect", path, "--alpha", "0.3", "--json").document["result"]
        assert {row["alpha"] for row in shown["thresholds"]} == {0.3}


def test_a_failing_case_of_a_fit_is_left_out_only_if_asked_and_named(study, tmp_path):
    folders = make_folders(tmp_path / "some", make_scans(20))
    write_predictions(folders.predictions, folders.scans)
    bad = folders.predictions / "case_03.nii.gz"
    p = softmax(folders.scans[3].logits)
    p[0, 0, 0, 0] = np.nan
    write_volume(bad, p)
    common = ("--method", "image", "-o", tmp_path / "c.npz")
    assert segcal("cluster", "fit", *folders.arguments, *GIVEN, *common).code == 4
    said = segcal("cluster", "fit", *folders.arguments, *GIVEN, *common, "--on-failure", "continue")
    assert said.code == 8
    assert "After leaving out 1 of 20 cases" in said.stderr
    assert Path(tmp_path / "c.npz").exists()


# Pictures.


def test_reliability_draws_maps_coverage_and_errors(study, tmp_path):
    fit(study, tmp_path / "kmeans.npz", *KMEANS, "--only", "class1")
    fit(study, tmp_path / "shells.npz", "--method", "boundary", "--edges", "-1,1", "--only", "class1")
    plots = ("cluster-map", "coverage-diagram", "coverage-violin", "difference-map", "error-map")
    common = (
        "reliability", *study[2].arguments, *GIVEN, "--artifact", tmp_path / "kmeans.npz", "--artifact",
        tmp_path / "shells.npz", "--min-positives", "2", "--format", "svg",
    )  # fmt: skip
    said = segcal(*common, "--plots", ",".join(plots), "--cells", "3,4,1", "-o", tmp_path / "report")
    assert said.code == 0, said.stderr
    names = {path.name for path in (tmp_path / "report").glob("*.svg")}
    assert "cluster-map__class1__kmeans.svg" in names
    assert {f"cluster-map__class1__shells__case_{n}.svg" for n in (24, 25, 26)} <= names
    assert {"coverage-violin__class1__all.svg", "difference-map__class1__kmeans.svg"} <= names
    rows = read_rows(tmp_path / "report" / "cluster-map__class1__kmeans.csv")
    assert {row["plane"].split(",")[0] for row in rows} == {"axial", "coronal", "sagittal"}
    assert {row["cluster"] for row in rows} == {"0", "1"}
    assert all(0 <= float(row["mean_probability"]) <= 1 for row in rows)
    lines = read_rows(tmp_path / "report" / "coverage-diagram__class1__kmeans.csv")
    assert {row["line"] for row in lines} == {"whole image", "cluster 1", "cluster 2", "place 3,4,1"}
    page = (tmp_path / "report" / "report.html").read_text()
    assert "Where clusters help" in page
    # A picture of several artifacts says of each what it promises.
    assert "kmeans: Vacuous at alpha 0.1: " in page
    assert "shells: For a new patient" in page
    refused = segcal(*common, "--plots", "coverage-diagram", "--cells", "99,0,0", "-o", tmp_path / "r2")
    assert refused.code == 2
    assert "the field is 11 x 9 x 4 voxels" in refused.stderr


def test_the_mean_probability_below_a_map_is_that_of_the_scans(study, tmp_path):
    fit(study, tmp_path / "kmeans.npz", *KMEANS, "--only", "class1")
    said = segcal(
        "reliability", *study[2].arguments, *GIVEN, "--artifact", tmp_path / "kmeans.npz", "--plots", "cluster-map",
        "--format", "png", "-o", tmp_path / "report",
    )  # fmt: skip
    assert said.code == 0, said.stderr
    mean = np.mean([softmax(2 * scan.logits)[1] for scan in study[2].scans], axis=0)
    for row in read_rows(tmp_path / "report" / "cluster-map__class1__kmeans.csv"):
        if row["plane"].startswith("axial"):
            z = int(row["plane"].split("=")[1])
            assert float(row["mean_probability"]) == pytest.approx(
                mean[z, int(row["row"]), int(row["column"])], abs=0.02
            )
