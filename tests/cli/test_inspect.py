"""``segcal inspect``: what an artifact is, in words and as a document."""

from __future__ import annotations

import hashlib

import pytest

from tests.cli.builders_reading import nnunet_study, region_study, segcal


@pytest.fixture(scope="module")
def artifact(tmp_path_factory):
    study = nnunet_study(tmp_path_factory.mktemp("study"))
    options = ("--split-kind", "held-out", "--no-prove", "--ignore-label", "9")
    ran = segcal("calibrate", "fit", *study.both, "-o", study.root / "t.npz", *options)
    assert ran.code == 0, ran.err
    return study.root / "t.npz"


def test_the_text_goes_to_stdout(artifact):
    ran = segcal("inspect", artifact)
    assert ran.code == 0
    lines = ran.out.splitlines()
    assert lines[0] == "t.npz"
    assert "kind        calibrate, method temperature" in lines
    assert "fitted on   4 cases of 4 patients, probabilities" in lines
    assert "classes     background (0), edema (1), necrosis (2); exclusive" in lines
    assert "split       held out of the network's training" in lines
    assert any(
        line.startswith("guarantee   Calibrated on 4 cases of 4 patients by NLL; no finite-sample") for line in lines
    )
    assert any(line.startswith("parameter   temperature = 1.9") for line in lines)


def test_a_fit_that_was_not_proved_is_told(artifact):
    line = "proof       predictions were not checked against the segmentations beside them (--no-prove)"
    assert line in segcal("inspect", artifact).out.splitlines()


def test_the_document_holds_the_whole_header(artifact):
    result = segcal("inspect", artifact, "--json").document["result"]
    assert result["sha256"] == hashlib.sha256(artifact.read_bytes()).hexdigest()
    assert (result["kind"], result["method"], result["values"]) == ("calibrate", "temperature", "probabilities")
    assert result["case_ids"] == ["case-1", "case-2", "case-3", "case-4"]
    assert result["spec"]["prove"] is False
    assert result["spec"]["ignore_label"] == 9
    assert [channel["name"] for channel in result["space"]["channels"]] == ["background", "edema", "necrosis"]


def test_regions_are_independent(tmp_path):
    study = region_study(tmp_path)
    ran = segcal("calibrate", "fit", *study.both, "-o", tmp_path / "t.npz", "--no-summary")
    assert ran.code == 0, ran.err
    assert "classes     whole (1/2), core (2); independent" in segcal("inspect", tmp_path / "t.npz").out.splitlines()


def test_what_is_no_artifact_is_exit_5(tmp_path):
    (tmp_path / "t.npz").write_bytes(b"")
    ran = segcal("inspect", tmp_path / "t.npz")
    assert (ran.code, ran.out) == (5, "")
    assert ran.closing == f"segcal: {tmp_path / 't.npz'} is not a segcal artifact: is empty (0 bytes) (exit 5)"


def test_a_folder_is_no_artifact(tmp_path):
    ran = segcal("inspect", tmp_path)
    assert (ran.code, ran.closing) == (5, f"segcal: {tmp_path} is not a segcal artifact: not a file (exit 5)")


def test_notes_are_told_and_figures_through_a_calibrator_of_the_same_cases_are_not_called_clean(tmp_path):
    study = nnunet_study(tmp_path)
    first, second = tmp_path / "first.npz", tmp_path / "second.npz"
    ran = segcal("calibrate", "fit", *study.both, "-o", first, "--method", "histogram", "--no-prove")
    assert ran.code == 0, ran.err
    assert any(line.startswith("note        voxels on one step") for line in segcal("inspect", first).out.splitlines())
    words = ("--calibrator", first, "--allow-overlap", "--no-prove")
    ran = segcal("calibrate", "fit", *study.both, "-o", second, *words)
    told = "Some of these cases had been used to fit the calibrator in front: figures are in-sample in part."
    assert (ran.code, f"warning: {told}" in ran.err.splitlines()) == (0, True), ran.err
    guarantee = next(line for line in segcal("inspect", second).out.splitlines() if line.startswith("guarantee"))
    assert guarantee.endswith(told)
