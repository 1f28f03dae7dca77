"""``segcal-run.json`` says what was made of what, by what and when, and nothing of the machine."""

from __future__ import annotations

import getpass
import hashlib
import json
import platform
import re
import shutil
import socket
from pathlib import Path

import jsonschema
import pytest

from segcal_cli.workflows.folder_runs import FolderRun
from tests.cli.builders_reading import Study, nnunet_study, segcal
from tests.cli.builders_runs import record_of, states

SCHEMA = json.loads((Path(__file__).parent / "schemas" / "run.json").read_text())


@pytest.fixture(scope="module")
def fitted(tmp_path_factory) -> Study:
    study = nnunet_study(tmp_path_factory.mktemp("study"))
    assert segcal("calibrate", "fit", *study.both, "-o", study.root / "t.npz", "--no-summary").code == 0
    return study


@pytest.fixture
def study(fitted, tmp_path) -> Study:
    shutil.copytree(fitted.root, tmp_path / "study")
    return Study(tmp_path / "study")


def apply(study: Study, *options: object):
    return segcal("calibrate", "apply", study.root / "t.npz", study.predictions, "-o", study.root / "out", *options)


def spoil(path: Path) -> None:
    """Damage the voxels of a file whose headers stay good."""
    data = bytearray(path.read_bytes())
    data[len(data) // 2] ^= 0xFF
    path.write_bytes(data)


def test_the_record_fits_its_schema(study):
    assert apply(study).code == 0
    jsonschema.validate(record_of(study.root / "out"), SCHEMA)


def test_digests_and_sizes_are_those_of_the_files(study):
    apply(study)
    record = record_of(study.root / "out")
    artifact = (study.root / "t.npz").read_bytes()
    assert record["artifact"] == {"file": "t.npz", "sha256": hashlib.sha256(artifact).hexdigest()}
    entry = record["cases"][1]
    assert [(one["role"], one["file"]) for one in entry["inputs"]] == [
        ("prediction", "case-2.npz"),
        ("segmentation", "case-2.nii.gz"),
        ("dataset.json", "dataset.json"),
        ("plans.json", "plans.json"),
    ]
    for folder, files in ((study.predictions, entry["inputs"]), (study.root / "out", entry["outputs"])):
        for one in files:
            data = (folder / one["file"]).read_bytes()
            assert (one["sha256"], one["size"]) == (hashlib.sha256(data).hexdigest(), len(data))
            assert one["mtime_ns"] == (folder / one["file"]).stat().st_mtime_ns
    assert (entry["proof"], entry["status"], entry["error"]) == (1.0, "done", None)


def test_a_failed_case_stands_with_its_error_and_the_status_is_partial(study):
    (study.predictions / "case-2.npz").write_bytes(b"")
    assert apply(study).code == 8
    record = record_of(study.root / "out")
    jsonschema.validate(record, SCHEMA)
    assert (record["status"], record["exit_code"]) == ("partial", 8)
    assert record["counts"] == {
        "cases": 4, "done": 3, "skipped": 0, "failed": 1, "waiting": 0, "not_run": 0, "kept": 0,
    }  # fmt: skip
    entry = record["cases"][1]
    assert entry["error"] == {"file": "case-2.npz", "error": "EmptyFile", "message": "case-2.npz: is empty (0 bytes)"}
    assert (entry["key"], entry["outputs"]) == (None, [])


def test_a_run_without_one_good_case_has_a_record_too(study):
    for case in study.cases:
        spoil(study.predictions / f"{case}.npz")
    assert apply(study).code == 4
    record = record_of(study.root / "out")
    assert (record["status"], record["exit_code"], record["counts"]["failed"]) == ("failed", 4, 4)


def test_a_part_may_be_enough_and_the_record_says_that_it_is_one(study):
    (study.predictions / "case-2.npz").write_bytes(b"")
    ran = apply(study, "--allow-partial", "--json")
    assert (ran.code, ran.document["status"], ran.document["exit_code"]) == (0, "partial", 0)
    assert ran.closing == "segcal: 4 cases, 3 done, 1 failed: case-2 (exit 0)"
    record = record_of(study.root / "out")
    assert (record["status"], record["exit_code"]) == ("partial", 0)


def test_a_part_is_never_nothing(study):
    for case in study.cases:
        (study.predictions / f"{case}.npz").write_bytes(b"")
    assert apply(study, "--allow-partial").code == 4


def test_a_part_of_a_run_that_stops_is_a_usage_error(study):
    ran = apply(study, "--allow-partial", "--on-failure", "stop")
    assert ran.code == 2
    assert "--allow-partial has no meaning where the first failure stops the run" in ran.closing
    fit = segcal("calibrate", "fit", *study.both, "-o", study.root / "x.npz", "--allow-partial")
    assert (fit.code, (study.root / "x.npz").exists()) == (2, False)


def test_a_fit_without_some_cases_may_be_enough(study):
    (study.predictions / "case-2.npz").write_bytes(b"")
    options = ("--on-failure", "continue", "--allow-partial", "--no-summary", "--json")
    ran = segcal("calibrate", "fit", *study.both, "-o", study.root / "x.npz", *options)
    assert (ran.code, ran.document["status"]) == (0, "partial")


def test_the_first_failure_ends_a_run_that_stops_and_the_rest_is_not_run(study):
    (study.predictions / "case-1.npz").write_bytes(b"")
    assert apply(study, "--on-failure", "stop").code == 4
    assert states(study.root / "out") == {
        "case-1": "failed", "case-2": "not_run", "case-3": "not_run", "case-4": "not_run",
    }  # fmt: skip


def test_cases_that_were_done_before_the_first_failure_stay(study):
    spoil(study.predictions / "case-3.npz")
    ran = apply(study, "--on-failure", "stop")
    assert ran.closing == "segcal: 4 cases, 2 done, 1 not run, 1 failed: case-3 (exit 8)"
    assert states(study.root / "out") == {
        "case-1": "done", "case-2": "done", "case-3": "failed", "case-4": "not_run",
    }  # fmt: skip


def test_the_record_says_nothing_of_the_machine(study):
    (study.predictions / "case-2.npz").write_bytes(b"")
    apply(study, "--groups", "(case-.)")
    text = (study.root / "out" / "segcal-run.json").read_text()
    for secret in (str(study.root), "/tmp", socket.gethostname(), f'"{getpass.getuser()}"', platform.node()):
        assert secret not in text
    for entry in record_of(study.root / "out")["cases"]:
        for one in (*entry["inputs"], *entry["outputs"]):
            assert "/" not in one["file"]
    assert (study.root / "out" / ".segcal.lock").read_bytes() == b""


def test_members_and_files_in_sub_folders_are_named_below_their_folder(study, tmp_path):
    for case in study.cases:
        (study.root / "deep" / case).mkdir(parents=True)
        shutil.copy(study.predictions / f"{case}.npz", study.root / "deep" / case / "soft.npz")
        shutil.copy(study.predictions / f"{case}.nii.gz", study.root / "deep" / case / "soft.nii.gz")
    shutil.copy(study.predictions / "dataset.json", study.root / "deep")
    shutil.copy(study.predictions / "plans.json", study.root / "deep")
    command = ["calibrate", "apply", study.root / "t.npz", study.root / "deep", "-o", tmp_path / "out"]
    ran = segcal(*command, "--pattern", "{case}/soft.npz")
    assert ran.code == 0, ran.err
    inputs = record_of(tmp_path / "out")["cases"][0]["inputs"]
    assert [one["file"] for one in inputs[:2]] == ["case-1/soft.npz", "case-1/soft.nii.gz"]


def test_times_are_utc_and_versions_are_named(study):
    apply(study)
    record = record_of(study.root / "out")
    assert re.fullmatch(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\dZ", record["started"])
    assert record["python"] == platform.python_version()
    assert {"numpy", "nibabel"} <= set(record["libraries"])
    assert (record["command"], record["shard"]) == ("calibrate apply", None)


def test_a_table_has_its_record_beside_it_under_its_name(study, tmp_path):
    options = ("--numerator", "necrosis", "--denominator", "edema,necrosis", "--method", "joint", "--level", "0.7")
    assert segcal("ntr-interval", "fit", *study.both, "-o", tmp_path / "r.npz", *options).code == 0
    command = ["ntr-interval", "apply", tmp_path / "r.npz", study.predictions, "--skip-existing", "-o"]
    for name in ("one.csv", "two.csv"):
        assert segcal(*command, tmp_path / name).code == 0
    record = record_of(tmp_path, "one.csv.segcal-run.json")
    jsonschema.validate(record, SCHEMA)
    assert [one["file"] for one in record["outputs"]] == ["one.csv"]
    assert states(tmp_path, "two.csv.segcal-run.json") == dict.fromkeys(study.cases, "done")


def test_a_temp_that_a_killed_worker_left_goes_with_the_end_of_the_run(study, monkeypatch):
    done, left = FolderRun.map, []

    def killed(run, *args, **kwargs):
        done(run, *args, **kwargs)
        left.append(run.files.folder / f".case_probseg.tmp-{run.files.tag}-0123456789ab.nii.gz")
        left[0].write_bytes(b"half")

    monkeypatch.setattr(FolderRun, "map", killed)
    assert apply(study).code == 0
    assert left
    assert not left[0].exists()
