"""Killed at any moment, a run leaves whole files, and the next run ends where an undisturbed one would have ended."""

from __future__ import annotations

import json
import random
import signal
from pathlib import Path

import numpy as np
import pytest

from segcal_cli.core.observer import CASE
from segcal_cli.io import journal
from segcal_cli.workflows import calibrate_apply, requests
from tests.cli.builders_reading import AFFINE, Study, nifti_study, nnunet_study, segcal, tree, write_npz
from tests.cli.builders_runs import Forks, forks, record_of, states, temps, without_times
from tests.io.builders_nifti import save

CASES = tuple(f"case-{number:02d}" for number in range(12))
SEED = 20260131


@pytest.fixture(scope="module")
def study(tmp_path_factory) -> Study:
    study = nnunet_study(tmp_path_factory.mktemp("study"), CASES)
    assert segcal("calibrate", "fit", *study.both, "-o", study.root / "t.npz", "--no-summary").code == 0
    options = ("--target", "edema", "--target", "necrosis", "--alpha", "0.3")
    assert segcal("conformal-sets", "fit", *study.both, "-o", study.root / "s.npz", *options).code == 0
    options = ("--numerator", "necrosis", "--denominator", "edema,necrosis", "--method", "joint", "--level", "0.7")
    assert segcal("ntr-interval", "fit", *study.both, "-o", study.root / "r.npz", *options).code == 0
    return study


@pytest.fixture(scope="module")
def forked(tmp_path_factory):
    with forks(tmp_path_factory.mktemp("forks")) as warmed:
        yield warmed


def calibrating(study: Study, out: Path, *options: object) -> list[object]:
    command = ["calibrate", "apply", study.root / "t.npz", study.predictions, "-o", out]
    return [*command, "--segmentation", "keep", *options]


def making_sets(study: Study, out: Path, *options: object) -> list[object]:
    return ["conformal-sets", "apply", study.root / "s.npz", study.predictions, "-o", out, *options]


def measuring(study: Study, out: Path, *options: object) -> list[object]:
    out.mkdir(exist_ok=True)
    return ["ntr-interval", "apply", study.root / "r.npz", study.predictions, "-o", out / "ratios.csv", *options]


def finished_entries(out: Path) -> list[dict]:
    """Every case that a record or a journal calls done."""
    found = [entry for path in out.glob(".*journal.jsonl") for entry in journal.entries(path)]
    found += [entry for path in out.glob("*segcal-run.json") for entry in json.loads(path.read_text())["cases"]]
    return [entry for entry in found if entry["status"] == "done"]


def killed_and_finished(forked: Forks, study: Study, root: Path, command, moments: int, *options: object) -> int:
    """Kill a run at seeded moments, each in a folder of its own, look at what is left, and let a second run end it.

    Returns how many runs were killed before they had ended.
    """
    whole = root / "whole"
    # The faster of two: after a slow one most moments would come too late.
    seconds = min(forked.run(*command(study, place, *options))[1] for place in (whole, root / "first"))
    expected = tree(whole)
    record = without_times(record_of(whole, next(whole.glob("*segcal-run.json")).name))
    draw = random.Random(SEED)
    killed = 0
    for moment in range(moments):
        out = root / f"out-{moment}"
        ran, _ = forked.run(*command(study, out, *options), after=draw.uniform(0.0, 1.05 * seconds))
        killed += ran.code == -signal.SIGKILL
        left = tree(out) if out.exists() else {}
        # What several cases share grows from run to run; what stands for a case is there whole or not at all.
        partial = {name: data for name, data in left.items() if name in expected and data != expected[name]}
        assert not partial, sorted(partial)
        assert all(name in expected or ".tmp-" in name or "journal" in name for name in left), sorted(left)
        for entry in finished_entries(out):
            for output in entry["outputs"]:
                assert left[output["file"]] == expected[output["file"]]
        again, _ = forked.run(*command(study, out, *options, "--skip-existing"))
        assert (again.code, temps(out)) == (0, [])
        assert tree(out) == expected
        assert_same_record(record, without_times(record_of(out, next(out.glob("*segcal-run.json")).name)))
    return killed


def assert_same_record(a: dict, b: dict) -> None:
    for document in (a, b):
        document["options"].pop("skip-existing", None)
    assert a == b


def test_kill_9_at_any_moment_costs_the_running_cases_only(forked, study, tmp_path):
    assert killed_and_finished(forked, study, tmp_path, calibrating, 10) >= 5


def test_kill_9_while_sets_are_made_and_their_tables_written(forked, study, tmp_path):
    assert killed_and_finished(forked, study, tmp_path, making_sets, 6) >= 3


def test_kill_9_while_a_table_of_ratios_is_made(forked, study, tmp_path):
    assert killed_and_finished(forked, study, tmp_path, measuring, 5) >= 2


@pytest.mark.slow
@pytest.mark.parametrize(("command", "moments"), [(calibrating, 100), (making_sets, 70), (measuring, 30)])
def test_kill_9_at_200_moments(forked, study, tmp_path, command, moments):
    assert killed_and_finished(forked, study, tmp_path, command, moments) >= moments // 2


@pytest.mark.slow
def test_kill_9_of_a_run_with_workers(forked, study, tmp_path):
    """Workers are told of the death of their parent, and none of them writes beside the next run."""
    killed_and_finished(forked, study, tmp_path, calibrating, 12, "-j", 2)


def test_a_torn_line_of_the_journal_is_passed_over_and_nobody_writes_behind_it(forked, study, tmp_path):
    out = tmp_path / "out"
    segcal(*calibrating(study, out))
    entries = record_of(out)["cases"]
    (out / "segcal-run.json").unlink()
    path = out / ".segcal-journal.jsonl"
    for entry in entries[:3]:
        journal.append(path, entry)
    with path.open("ab") as file:
        file.write(json.dumps(entries[3]).encode()[:200])
    ran = segcal(*calibrating(study, out, "--skip-existing"))
    assert ran.closing == "segcal: 12 cases, 9 done, 3 skipped (exit 0)"
    assert not path.exists()


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_signal_removes_temps_and_keeps_and_records_finished_cases(forked, study, tmp_path, number):
    _, seconds = forked.run(*calibrating(study, tmp_path / "whole"))
    expected = tree(tmp_path / "whole")
    draw = random.Random(SEED + number)
    interrupted = 0
    for moment in range(6):
        out = tmp_path / f"out-{moment}"
        ran, _ = forked.run(*calibrating(study, out), after=draw.uniform(0.1, 0.9) * seconds, number=number)
        if ran.code == 0:
            continue
        assert ran.code == 130
        assert "Traceback" not in ran.err
        assert ran.closing.startswith("segcal: interrupted ")
        assert ran.closing.endswith(" (exit 130)")
        assert temps(out) == [] if out.exists() else True
        if (out / "segcal-run.json").exists():
            interrupted += 1
            record = record_of(out)
            assert (record["status"], record["exit_code"]) == ("failed", 130)
            assert set(states(out)) == set(CASES)
            assert set(states(out).values()) <= {"done", "not_run"}
            count = record["counts"]["done"]
            assert ran.closing == f"segcal: interrupted after {count} of 12 cases (exit 130)"
        again, _ = forked.run(*calibrating(study, out, "--skip-existing"))
        assert again.code == 0
        assert tree(out) == expected
    assert interrupted


def large_study(root: Path) -> Study:
    """Three cases, of which the second takes more room than the others."""
    study = nifti_study(root, ("a", "b", "c"))
    noise = np.random.default_rng(1).normal(size=(3, 24, 24, 24)).astype(np.float32)
    save(study.predictions / "b.nii.gz", noise, AFFINE)
    return study


def test_a_full_disk_fails_the_case_and_leaves_no_temp(forked, tmp_path):
    study = large_study(tmp_path)
    command = ["convert", study.predictions, "-o", tmp_path / "out", "--classes", study.classes, "--values", "logits"]
    ran, _ = forked.run(*command, limit=100_000)
    assert ran.code == 8
    assert ran.closing == "segcal: 3 cases, 2 done, 1 failed: b (exit 8)"
    assert "cannot write" in ran.err
    assert "b_logits.nii.gz: file too large" in ran.err
    assert (temps(tmp_path / "out"), states(tmp_path / "out")) == ([], {"a": "done", "b": "failed", "c": "done"})
    assert not (tmp_path / "out" / "b_logits.nii.gz").exists()
    again, _ = forked.run(*command, "--skip-existing")
    assert again.closing == "segcal: 3 cases, 1 done, 2 skipped (exit 0)"


def test_a_disk_that_takes_nothing_is_exit_4(forked, tmp_path):
    study = large_study(tmp_path)
    command = ["convert", study.predictions, "-o", tmp_path / "out", "--classes", study.classes, "--values", "logits"]
    ran, _ = forked.run(*command, limit=1000)
    assert ran.code == 4
    assert "Traceback" not in ran.err
    assert sorted(path.name for path in (tmp_path / "out").iterdir()) == [".segcal.lock"]


def test_a_disk_that_is_full_when_the_record_is_written_is_exit_8_and_the_cases_are_known(forked, study, tmp_path):
    """The journal holds a line per case; the record, of all cases, is larger than the limit."""
    out = tmp_path / "out"
    forked.run(*calibrating(study, tmp_path / "whole"))
    largest = max(path.stat().st_size for path in (tmp_path / "whole").glob("*.nii.gz"))
    record = (tmp_path / "whole" / "segcal-run.json").stat().st_size
    assert largest < record
    ran, _ = forked.run(*calibrating(study, out), limit=record - 1000)
    assert ran.code == 8
    assert ran.closing == f"segcal: cannot write {out / 'segcal-run.json'}: file too large (exit 8)"
    assert temps(out) == []
    again, _ = forked.run(*calibrating(study, out, "--skip-existing"))
    assert again.closing == "segcal: 12 cases, 0 done, 12 skipped (exit 0)"


def test_a_place_that_cannot_be_written_is_exit_4(study):
    ran = segcal(*calibrating(study, Path("/proc/segcal-out")))
    assert ran.code == 4
    assert ran.closing.startswith("segcal: cannot write /proc/segcal-out: ")


class Meddler:
    """An Observer that does something to the inputs once the first case is through."""

    def __init__(self, meddle) -> None:
        self.meddle = meddle

    def note(self, text: str) -> None:
        pass

    def warn(self, text: str, case: str | None = None) -> None:
        pass

    def progress(self, done: int, total: int, what: str, unit: str = CASE) -> None:
        if done == 1:
            self.meddle()


def meddled(study: Study, out: Path, meddle):
    return calibrate_apply.run(
        study.root / "t.npz",
        study.predictions,
        out,
        requests.CalibrateApplyOptions(),
        requests.PredictionOptions(),
        requests.RunOptions(),
        requests.FolderOptions(),
        Meddler(meddle),
    )


@pytest.fixture
def own_study(tmp_path) -> Study:
    study = nnunet_study(tmp_path / "own", CASES)
    assert segcal("calibrate", "fit", *study.both, "-o", study.root / "t.npz", "--no-summary").code == 0
    return study


def test_an_input_that_vanishes_fails_alone_and_is_named(own_study, tmp_path):
    path = own_study.predictions / "case-11.npz"
    outcome = meddled(own_study, tmp_path / "out", path.unlink)
    assert (outcome.code, outcome.counts.done) == (8, 11)
    assert [(f["case"], f["message"]) for f in outcome.failures] == [("case-11", f"{path}: no such file or directory")]
    entry = record_of(tmp_path / "out")["cases"][11]
    assert entry["error"] == {
        "file": "case-11.npz",
        "error": "UnreadableFile",
        "message": "case-11.npz: no such file or directory",
    }


def test_an_input_that_changes_after_it_was_opened_fails(own_study, tmp_path):
    path = own_study.predictions / "case-11.npz"
    outcome = meddled(
        own_study, tmp_path / "out", lambda: write_npz(path, probabilities=np.zeros((3, 2, 2, 2), np.float32))
    )
    assert [f["message"] for f in outcome.failures] == [f"{path}: changed while it was read"]


def test_an_input_that_changes_while_it_is_read_fails(own_study, tmp_path, monkeypatch):
    from segcal_cli.io.case_sources import CaseReader

    path = own_study.predictions / "case-03.npz"
    real = CaseReader.__call__

    def reading(self, source):
        case = real(self, source)
        if source.id == "case-03":
            with path.open("ab") as file:
                file.write(b"\0")
        return case

    monkeypatch.setattr(CaseReader, "__call__", reading)
    ran = segcal(*calibrating(own_study, tmp_path / "out"))
    assert ran.closing == "segcal: 12 cases, 11 done, 1 failed: case-03 (exit 8)"
    assert f"{path}: changed while it was read" in ran.err.splitlines()
    assert not list((tmp_path / "out").glob("case-03*"))
