"""``segcal pairs``: what would be read, as the table that --cases takes, with everything that is wrong in it."""

from __future__ import annotations

import csv
from pathlib import Path

import numpy as np
import pytest

from tests.cli.builders_reading import (
    AFFINE,
    CLASSES,
    SHAPE,
    Ran,
    Study,
    logits_of,
    nifti_study,
    nnunet_study,
    png_study,
    segcal,
    softmax_of,
    write_classes,
    write_npz,
)
from tests.io.builders_nifti import save

COLUMNS = "case,prediction,label,group,roi,format,values,reader,shape,spacing,status,problem"


def rows(text: str) -> list[dict[str, str]]:
    return list(csv.DictReader(text.splitlines()))


def problems(ran: Ran) -> dict[str, str]:
    return {row["case"]: row["problem"] for row in rows(ran.out)}


def test_the_table_goes_to_stdout_with_paths_from_here(tmp_path, monkeypatch):
    nnunet_study(tmp_path, ("a", "b"))
    monkeypatch.chdir(tmp_path)
    ran = segcal("pairs", "predictions", "labels")
    assert ran.code == 0
    assert ran.out == (
        f"{COLUMNS}\n"
        "a,predictions/a.npz,labels/a.nii.gz,a,,npz,probabilities,SimpleITKIO,7 6 5,0.9 1.1 2.5,ok,\n"
        "b,predictions/b.npz,labels/b.nii.gz,b,,npz,probabilities,SimpleITKIO,7 6 5,0.9 1.1 2.5,ok,\n"
    )
    assert ran.err == "segcal: 2 cases, 2 done (exit 0)\n"


def test_a_file_gets_paths_from_its_own_folder(tmp_path):
    study = nnunet_study(tmp_path, ("a",))
    (tmp_path / "tables").mkdir()
    ran = segcal("pairs", *study.both, "-o", tmp_path / "tables" / "cases.csv")
    assert (ran.code, ran.out) == (0, "")
    (row,) = rows((tmp_path / "tables" / "cases.csv").read_text())
    assert (row["prediction"], row["label"]) == ("../predictions/a.npz", "../labels/a.nii.gz")


def test_labels_are_not_needed(tmp_path):
    ran = segcal("pairs", nnunet_study(tmp_path, ("a",)).predictions)
    assert [row["label"] for row in rows(ran.out)] == [""]
    assert ran.code == 0


def test_an_image_in_pixels_has_no_spacing(tmp_path):
    ran = segcal("pairs", *png_study(tmp_path, ("a",)).both)
    (row,) = rows(ran.out)
    assert (row["format"], row["shape"], row["spacing"], row["values"]) == ("png", "31 24 1", "", "probabilities")


def test_a_fit_asks_for_values_but_a_look_at_headers_does_not(tmp_path):
    study = nifti_study(tmp_path, ("a",))
    ran = segcal("pairs", *study.both, "--classes", study.classes)
    (row,) = rows(ran.out)
    assert (ran.code, row["values"], row["status"]) == (0, "", "ok")
    path = study.predictions / "a.nii.gz"
    assert f"{path} does not say what it holds; give --values logits or probabilities" in ran.err.splitlines()
    ran = segcal("pairs", *study.both, "--classes", study.classes, "--prove")
    assert (ran.code, ran.out) == (2, "")


def test_every_problem_stands_in_the_row_of_its_case(tmp_path):
    study = nnunet_study(tmp_path, ("a", "b", "c", "d"))
    (study.labels / "a.nii.gz").unlink()
    (study.predictions / "b.npz").write_bytes(b"")
    save(study.labels / "c.nii.gz", np.zeros((4, 6, 7), np.uint8), AFFINE)
    ran = segcal("pairs", *study.both)
    assert ran.code == 4
    assert problems(ran) == {
        "a": "no label",
        "b": f"{study.predictions / 'b.npz'}: is empty (0 bytes)",
        "c": f"{study.predictions / 'c.nii.gz'} is 7 x 6 x 5, {study.labels / 'c.nii.gz'} is 7 x 6 x 4 (x y z): "
        "one holds the other, cropped",
        "d": "",
    }
    assert [row["status"] for row in rows(ran.out)] == ["problem", "problem", "problem", "ok"]
    assert ran.closing == "segcal: 4 cases, 1 done, 3 failed: a, b, c (exit 4)"


def test_cases_that_cannot_be_paired_have_a_row_too(tmp_path):
    study = nnunet_study(tmp_path, ("a", "b"))
    save(study.labels / "a.nii", np.zeros(SHAPE, np.uint8), AFFINE)
    ran = segcal("pairs", *study.both)
    assert ran.code == 4
    assert problems(ran) == {
        "a": f"a: both {study.labels / 'a.nii'} and {study.labels / 'a.nii.gz'}",
        "b": "",
    }


def test_prove_reads_every_voxel(tmp_path):
    study = nnunet_study(tmp_path, ("a", "b", "c"))
    write_npz(study.predictions / "a.npz", probabilities=softmax_of(logits_of(3, 9)))
    field = softmax_of(logits_of(3, 1))
    field[:, 0, 0, 0] = np.nan
    write_npz(study.predictions / "b.npz", probabilities=field)
    assert segcal("pairs", *study.both).code == 0
    ran = segcal("pairs", *study.both, "--prove")
    assert ran.code == 4
    found = problems(ran)
    assert "read as SimpleITKIO it reproduces a.nii.gz on 0." in found["a"]
    assert found["b"].endswith("b.npz: 3 NaN and 0 infinite values, first at (x,y,z) = (0, 0, 0), class background")
    assert found["c"] == ""


@pytest.mark.parametrize("jobs", [1, 2])
def test_prove_says_how_each_case_was_proved(jobs, tmp_path):
    study = nnunet_study(tmp_path, ("a", "b", "c"))
    (study.predictions / "c.nii.gz").unlink()
    field = softmax_of(logits_of(3, 1) + np.array([20, 0, 0]).reshape(3, 1, 1, 1))
    write_npz(study.predictions / "b.npz", probabilities=field)
    save(study.predictions / "b.nii.gz", np.zeros(SHAPE, np.uint8), AFFINE)
    ran = segcal("pairs", *study.both, "--prove", "--json", "-j", jobs)
    assert [case["proof"] for case in ran.document["result"]["cases"]] == ["proved", "background", "unproved"]


def test_one_prediction_under_two_ids_is_a_problem_of_both(tmp_path):
    study = nifti_study(tmp_path, ("a", "b"))
    (study.predictions / "b.nii.gz").unlink()
    (study.predictions / "b.nii.gz").symlink_to("a.nii.gz")
    ran = segcal("pairs", study.predictions, "--classes", study.classes, "--values", "logits")
    text = "a and b hold the same prediction: duplicates break exchangeability"
    assert (ran.code, problems(ran)) == (4, {"a": text, "b": text})


def _classes(root: Path) -> Study:
    study = Study(root, ("a",)).folders()
    write_classes(study.classes, {name: value for value, name in enumerate(CLASSES)})
    for name, channel in zip(CLASSES, softmax_of(logits_of(3, 0)), strict=True):
        save(study.predictions / f"a_{name}.nii.gz", channel, AFFINE)
    return study


def test_one_file_per_class_has_a_row_each_and_reads_back(tmp_path):
    study = _classes(tmp_path)
    options = ("--classes", study.classes, "--values", "probabilities")
    ran = segcal("pairs", study.predictions, "-o", tmp_path / "cases.csv", *options)
    assert ran.code == 0, ran.err
    table = (tmp_path / "cases.csv").read_text()
    assert [(row["case"], row["class"]) for row in rows(table)] == [("a", name) for name in CLASSES]
    again = segcal(
        "pairs", study.predictions, "--cases", tmp_path / "cases.csv", "-o", tmp_path / "again.csv", *options
    )
    assert again.code == 0, again.err
    assert (tmp_path / "again.csv").read_text() == table


def test_sub_folders_are_proposed_as_a_pattern(tmp_path):
    study = nifti_study(tmp_path, ("a", "b"))
    for case in study.cases:
        (study.predictions / case).mkdir()
        (study.predictions / f"{case}.nii.gz").rename(study.predictions / case / f"{case}_trans.nii.gz")
    ran = segcal("pairs", *study.both, "--classes", study.classes, "--values", "logits")
    assert ran.code == 3
    assert "see segcal pairs, --pattern '{case}/{case}_trans.nii.gz'" in ran.closing
    pattern = ("--pattern", "{case}/{case}_trans")
    ran = segcal("pairs", *study.both, "--classes", study.classes, "--values", "logits", *pattern)
    assert ran.code == 0, ran.err


def test_a_shared_tail_is_no_part_of_the_id(tmp_path):
    study = nifti_study(tmp_path, ("a", "b"))
    for case in study.cases:
        (study.predictions / f"{case}.nii.gz").rename(study.predictions / f"{case}_probseg.nii.gz")
        (study.labels / f"{case}.nii.gz").rename(study.labels / f"{case}_dseg.nii.gz")
    ran = segcal("pairs", *study.both, "--classes", study.classes, "--values", "logits")
    assert [row["case"] for row in rows(ran.out)] == ["a", "b"]


def test_two_single_files_are_one_case(tmp_path):
    study = nnunet_study(tmp_path, ("a",))
    (study.labels / "a.nii.gz").rename(study.labels / "truth.nii.gz")
    ran = segcal("pairs", study.predictions / "a.npz", study.labels / "truth.nii.gz")
    (row,) = rows(ran.out)
    assert (ran.code, row["case"], row["status"]) == (0, "a", "ok")


def test_a_case_without_a_group_is_a_problem_of_its_row(tmp_path):
    study = nnunet_study(tmp_path, ("p1-a", "x"))
    ran = segcal("pairs", *study.both, "--groups", "^(p[0-9])")
    assert (ran.code, problems(ran)) == (4, {"p1-a": "", "x": "x: no group in ^(p[0-9])"})
