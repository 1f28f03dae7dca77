"""Members of an ensemble on the command line: joined, fitted, applied, measured, mapped."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import nibabel as nib
import numpy as np
import pytest

from tests.cli.builders import make_folders, segcal, softmax, write_predictions


@pytest.fixture
def study(tmp_path: Path):
    folders = make_folders(tmp_path)
    rng = np.random.default_rng(5)
    members = []
    for name in ("b", "c"):
        scans = [
            replace(s, logits=s.logits + rng.normal(size=s.logits.shape).astype(np.float32)) for s in folders.scans
        ]
        members.append((write_predictions(tmp_path / name, scans), scans))
    return folders, members


def options_of(members):
    return [word for folder, _ in members for word in ("--member", folder)]


def test_an_ensemble_is_fitted_applied_and_measured_like_its_mean(study, tmp_path: Path):
    folders, members = study
    words = options_of(members)
    joined = tmp_path / "joined.npz"
    fit = ["calibrate", "fit", *folders.arguments, "--values", "probabilities", "--method", "platt"]
    assert segcal(*fit, *words, "-o", joined).code == 0
    inspected = segcal("inspect", joined, "--json").document["result"]
    assert inspected["spec"]["members"] == 3
    assert inspected["spec"]["reduce"] == "mean-probabilities"
    read = [folders.predictions, "--classes", folders.classes, "--values", "probabilities"]
    out = tmp_path / "out"
    maps = "entropy,mutual-information,variance"
    assert segcal("calibrate", "apply", joined, *read, *words, "--write", maps, "-o", out).code == 0
    scan = folders.scans[0]
    every = np.stack([softmax(s.logits * 2.0).astype(np.float64) for s in (scan, *(m[1][0] for m in members))])
    mean = every.mean(axis=0)
    entropy = nib.load(out / f"{scan.name}_desc-entropy_map.nii.gz").get_fdata().T
    np.testing.assert_allclose(entropy, -(mean * np.log(mean)).sum(axis=0), atol=1e-6)
    information = nib.load(out / f"{scan.name}_desc-mutualInformation_map.nii.gz").get_fdata().T
    each = -(every * np.log(every)).sum(axis=1).mean(axis=0)
    np.testing.assert_allclose(information, entropy - each, atol=2e-6)
    assert (out / f"{scan.name}_desc-variance_map.nii.gz").is_file()
    measured = segcal(
        "evaluate", *folders.arguments, "--values", "probabilities", *words, "--artifact", joined, "--allow-overlap",
        "-o", tmp_path / "m.csv",
    )  # fmt: skip
    assert measured.code == 0


def test_an_artifact_refuses_another_number_of_members(study, tmp_path: Path):
    folders, members = study
    joined = tmp_path / "joined.npz"
    fit = ["calibrate", "fit", *folders.arguments, "--values", "probabilities"]
    assert segcal(*fit, *options_of(members), "-o", joined).code == 0
    read = [folders.predictions, "--classes", folders.classes, "--values", "probabilities"]
    for words, now in ((options_of(members[:1]), "2 members joined by mean-probabilities"), ([], "one prediction")):
        said = segcal("calibrate", "apply", joined, *read, *words, "-o", tmp_path / "out")
        assert said.code == 5
        assert "3 members joined by mean-probabilities" in said.closing
        assert now in said.closing


def test_a_case_that_a_member_lacks_fails(study, tmp_path: Path):
    folders, members = study
    (members[0][0] / "case_03.nii.gz").unlink()
    fit = ["calibrate", "fit", *folders.arguments, "--values", "probabilities", *options_of(members)]
    said = segcal(*fit, "-o", tmp_path / "joined.npz")
    assert said.code == 4
    assert "case_03: the member" in said.stderr
    assert not (tmp_path / "joined.npz").exists()


@pytest.mark.parametrize(
    ("maps", "text"), [("entropy", "needs several predictions of each case"), ("noise", "it is one or more of entropy")]
)
def test_maps_without_members_and_unknown_maps_are_usage_errors(study, tmp_path: Path, maps: str, text: str):
    folders, _ = study
    fitted = tmp_path / "one.npz"
    assert segcal("calibrate", "fit", *folders.arguments, "--values", "probabilities", "-o", fitted).code == 0
    read = [folders.predictions, "--classes", folders.classes, "--values", "probabilities"]
    said = segcal("calibrate", "apply", fitted, *read, "--write", maps, "-o", tmp_path / "out")
    assert said.code == 2
    assert text in said.closing


def test_an_ensemble_by_itself_is_the_mean_of_its_members_in_an_artifact(study, tmp_path: Path):
    folders, members = study
    words, fitted, out = options_of(members), tmp_path / "ensemble.npz", tmp_path / "out"
    fit = ["calibrate", "fit", *folders.arguments, "--values", "probabilities", "--method", "ensemble"]
    said = segcal(*fit, *words, "-o", fitted, "--json")
    assert said.code == 0
    result = said.document["result"]
    assert result["parameters"] == {}
    assert result["guarantee"].startswith("Members joined, nothing fitted (8 cases of 8 patients)")
    after = result["summary"]["after"]["micro"]["all"]
    for key, value in result["summary"]["before"]["micro"]["all"].items():
        assert after[key] == pytest.approx(value, rel=1e-6)
    assert "nothing fitted" in segcal("inspect", fitted).stdout
    read = [folders.predictions, "--classes", folders.classes, "--values", "probabilities"]
    assert segcal("calibrate", "apply", fitted, *read, *words, "-o", out).code == 0
    scan = folders.scans[0]
    every = [softmax(s.logits * 2.0).astype(np.float64) for s in (scan, *(m[1][0] for m in members))]
    written = nib.load(out / f"{scan.name}_desc-calibrated_probseg.nii.gz").get_fdata()
    np.testing.assert_allclose(written.T.astype(np.float64), np.mean(every, axis=0), atol=1e-6)


def test_an_ensemble_of_one_prediction_is_a_usage_error(study, tmp_path: Path):
    folders, _ = study
    fit = ["calibrate", "fit", *folders.arguments, "--values", "probabilities", "--method", "ensemble"]
    said = segcal(*fit, "-o", tmp_path / "ensemble.npz")
    assert said.code == 2
    assert "--method ensemble: it needs several predictions of each case: --member, or samples" in said.closing


@pytest.mark.parametrize("again", ["first", "member"])
def test_one_folder_is_not_two_members(study, tmp_path: Path, again: str):
    folders, members = study
    twice = folders.predictions if again == "first" else tmp_path / "x" / ".." / members[0][0].name
    (tmp_path / "x").mkdir()
    fit = ["calibrate", "fit", *folders.arguments, "--values", "probabilities", *options_of(members)]
    said = segcal(*fit, "--member", twice, "-o", tmp_path / "joined.npz")
    assert said.code == 2
    assert f"--member {twice}: this folder is a member already" in said.closing
