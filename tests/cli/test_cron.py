"""A folder that scans arrive in, and a run every few minutes that nobody looks at."""

from __future__ import annotations

import random
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest

from tests.cli.builders_reading import Study, nnunet_study, segcal, softmax_of, write_npz
from tests.cli.builders_runs import record_of, states, temps
from tests.io.builders_nifti import save

SHAPE = (2, 3, 4)
SEED = 20260131
LATER = 10_000.0
"""Seconds by which the clock is put forward where every file is to be old enough."""


@pytest.fixture(scope="module")
def fitted(tmp_path_factory) -> Study:
    study = nnunet_study(tmp_path_factory.mktemp("fitted"))
    assert segcal("calibrate", "fit", *study.both, "-o", study.root / "cal.npz", "--no-summary").code == 0
    options = ("--target", "edema", "--alpha", "0.4")
    assert segcal("conformal-sets", "fit", *study.both, "-o", study.root / "sets.npz", *options).code == 0
    options = ("--numerator", "necrosis", "--denominator", "edema,necrosis", "--method", "joint", "--level", "0.7")
    assert segcal("ntr-interval", "fit", *study.both, "-o", study.root / "ratio.npz", *options).code == 0
    return study


class Ward:
    """Where scans arrive. Keeps count of what each scan holds, so that a test can say what should have been done."""

    def __init__(self, root: Path, fitted: Study) -> None:
        self.arriving, self.out, self.fitted = root / "in", root / "out", fitted
        self.arriving.mkdir()
        for name in ("dataset.json", "plans.json"):
            (self.arriving / name).write_bytes((fitted.predictions / name).read_bytes())
        self.version: dict[str, int] = {}
        self.broken: set[str] = set()

    def arrive(self, case: str) -> None:
        """A new scan, or a new version of it."""
        self.version[case] = self.version.get(case, 0) + 1
        seed = [int(case.removeprefix("scan-")), self.version[case]]
        logits = np.random.default_rng(seed).normal(0, 2, (3, *SHAPE)).astype(np.float32)
        p = softmax_of(logits)
        write_npz(self.arriving / f"{case}.npz", probabilities=p)
        save(self.arriving / f"{case}.nii.gz", p.argmax(axis=0).astype(np.uint8), np.diag([1, 1, 2, 1]))
        self.broken.discard(case)

    def spoil(self, case: str) -> None:
        path = self.arriving / f"{case}.npz"
        path.write_bytes(path.read_bytes()[:-40])
        self.broken.add(case)

    def run(self, *options: object):
        command = ["calibrate", "apply", self.fitted.root / "cal.npz", self.arriving, "-o", self.out]
        return segcal(*command, "--skip-existing", "--if-locked", "skip", *options)


def worked_off(ward: Ward, scans: int, rounds: int) -> None:
    """Scans arrive, change and fail between runs; after each run the record says so, and in the end each version of
    each good scan was done exactly once.
    """
    draw = random.Random(SEED)
    cases = [f"scan-{number:03d}" for number in range(scans)]
    todo = iter(cases)
    made: dict[str, int] = {}
    expected: dict[str, int] = {}
    for turn in range(rounds):
        fresh = [case for _, case in zip(range(scans // (rounds - 2) + 1), todo, strict=False)]
        changed = draw.sample(sorted(ward.version), min(len(ward.version), scans // 20))
        for case in {*fresh, *changed, *draw.sample(sorted(ward.broken), len(ward.broken) // 2)}:
            ward.arrive(case)
            expected[case] = expected.get(case, 0) + 1
        if turn < rounds - 1:
            for case in draw.sample(fresh, len(fresh) // 8):
                ward.spoil(case)
                expected[case] -= 1
        else:
            for case in sorted(ward.broken):
                ward.arrive(case)
                expected[case] += 1
        ran = ward.run("-q")
        assert ran.code == (8 if ward.broken else 0), ran.err
        assert (ran.err == "") == (ran.code == 0)
        found = states(ward.out)
        assert {case for case, state in found.items() if state == "failed"} == ward.broken
        for case, state in found.items():
            if state == "done":
                made[case] = made.get(case, 0) + 1
    assert made == expected
    assert set(states(ward.out)) == set(cases)
    assert temps(ward.out) == []
    again = ward.run()
    assert again.closing == f"segcal: {scans} cases, 0 done, {scans} skipped (exit 0)"


def test_forty_scans_are_worked_off_each_version_once(fitted, tmp_path):
    worked_off(Ward(tmp_path, fitted), 40, 6)


@pytest.mark.slow
def test_two_hundred_scans_are_worked_off_each_version_once(fitted, tmp_path):
    worked_off(Ward(tmp_path, fitted), 200, 12)


@pytest.mark.slow
def test_runs_that_overlap_and_are_killed_while_scans_arrive_and_change_leave_what_one_run_makes(fitted, tmp_path):
    """Twenty seconds of processes on one folder, up to three at a time, some of them killed, each way of waiting."""
    ward, draw = Ward(tmp_path, fitted), random.Random(SEED)
    cases = [f"scan-{number:03d}" for number in range(40)]
    command = [sys.executable, "-m", "segcal_cli", "conformal-sets", "apply", str(fitted.root / "sets.npz")]
    command += [str(ward.arriving), "--skip-existing", "-q", "-o"]
    root = Path(__file__).parents[2]
    running: list[subprocess.Popen[str]] = []
    end = time.monotonic() + 20.0
    while time.monotonic() < end:
        for case in draw.sample(cases, 3):
            ward.arrive(case)
        if sum(run.poll() is None for run in running) < 3:
            wait = ["--if-locked", draw.choice(["fail", "skip", "wait"])]
            words = [*command, str(ward.out), *wait]
            running.append(subprocess.Popen(words, stderr=subprocess.PIPE, text=True, cwd=root))
        if draw.random() < 0.2:
            draw.choice(running).send_signal(draw.choice([signal.SIGKILL, signal.SIGTERM, signal.SIGINT]))
        time.sleep(draw.uniform(0.1, 0.5))
    for run in running:
        said = run.communicate(timeout=120)[1]
        assert run.returncode in (0, 4, 8, 130, -signal.SIGKILL, -signal.SIGTERM, -signal.SIGINT), said
        # A signal that comes before segcal has begun is Python's to tell.
        assert "Traceback" not in said or "KeyboardInterrupt" in said
    for case in cases:
        ward.arrive(case)
    for out in (ward.out, tmp_path / "whole"):
        subprocess.run([*command, str(out)], check=True, cwd=root)
    assert set(states(ward.out)) == set(cases)
    assert made_files(ward.out) == made_files(tmp_path / "whole")
    assert temps(ward.out) == []


def made_files(folder: Path) -> dict[str, bytes]:
    """Outputs; not records, and not what remembers every scan that was ever seen."""
    found = {path.name: path.read_bytes() for path in folder.iterdir() if path.is_file()}
    return {name: content for name, content in found.items() if "segcal" not in name and "drift" not in name}


def test_a_scan_that_still_arrives_waits_and_is_no_failure(fitted, tmp_path, monkeypatch):
    ward = Ward(tmp_path, fitted)
    ward.arrive("scan-001")
    ward.spoil("scan-001")
    assert ward.run("--min-age", 3600).closing == "segcal: 1 case, 0 done, 1 waiting (exit 0)"
    assert ward.run("--min-age", 3600, "-q").err == ""
    assert not ward.out.exists()
    ward.arrive("scan-001")
    real = time.time
    monkeypatch.setattr("segcal_cli.io.fingerprints.time.time", lambda: real() + LATER)
    assert ward.run("--min-age", 3600).closing == "segcal: 1 case, 1 done (exit 0)"


def test_what_is_old_enough_is_done_while_the_rest_waits(fitted, tmp_path, monkeypatch):
    from segcal_cli.workflows import case_inputs

    ward = Ward(tmp_path, fitted)
    for number in range(3):
        ward.arrive(f"scan-00{number}")
    monkeypatch.setattr(case_inputs, "younger_than", lambda path, seconds: path.name == "scan-001.nii.gz")
    assert ward.run("--min-age", 60).closing == "segcal: 3 cases, 2 done, 1 waiting (exit 0)"
    assert states(ward.out) == {"scan-000": "done", "scan-001": "waiting", "scan-002": "done"}
    assert ward.run().closing == "segcal: 3 cases, 1 done, 2 skipped (exit 0)"


def test_a_scan_that_is_sent_again_keeps_its_output_while_it_waits(fitted, tmp_path):
    ward = Ward(tmp_path, fitted)
    ward.arrive("scan-000")
    ward.arrive("scan-001")
    assert ward.run().code == 0
    before = record_of(ward.out)["cases"][0]
    ward.run("--min-age", 3600)
    assert ward.run().closing == "segcal: 2 cases, 0 done, 2 skipped (exit 0)"
    assert record_of(ward.out)["cases"][0]["key"] == before["key"]


def test_a_copied_file_is_young_though_its_mtime_is_old(tmp_path):
    from segcal_cli.io.fingerprints import younger_than

    path = tmp_path / "copied"
    subprocess.run(["cp", "-p", __file__, path], check=True)
    assert path.stat().st_mtime < time.time() - 1
    assert younger_than(path, 60)


def test_tables_of_sets_hold_every_case_of_the_folder_whoever_was_done_today(fitted, tmp_path):
    ward, whole = Ward(tmp_path, fitted), tmp_path / "whole"
    command = ["conformal-sets", "apply", fitted.root / "sets.npz", ward.arriving, "--skip-existing", "-o"]
    for numbers in ((1, 2), (3,), ()):
        for number in numbers:
            ward.arrive(f"scan-{number:03d}")
        assert segcal(*command, ward.out).code == 0
    assert segcal(*command, whole).code == 0
    assert (ward.out / "cases.csv").read_bytes() == (whole / "cases.csv").read_bytes()
    for end in (".npz", ".nii.gz"):
        (ward.arriving / f"scan-001{end}").unlink()
    assert segcal(*command, ward.out).code == 0
    assert (ward.out / "cases.csv").read_bytes() == (whole / "cases.csv").read_bytes()


def test_a_table_of_ratios_holds_rows_that_were_measured_before_and_never_lies(fitted, tmp_path):
    ward, table, whole = Ward(tmp_path, fitted), tmp_path / "ratios.csv", tmp_path / "whole.csv"
    command = ["ntr-interval", "apply", fitted.root / "ratio.npz", ward.arriving, "--skip-existing", "-o"]
    ward.arrive("scan-001")
    ward.arrive("scan-002")
    assert segcal(*command, table).closing == "segcal: 2 cases, 2 done (exit 0)"
    ward.arrive("scan-003")
    ward.arrive("scan-001")
    assert segcal(*command, table).closing == "segcal: 3 cases, 2 done, 1 skipped (exit 0)"
    segcal(*command, whole)
    assert table.read_bytes() == whole.read_bytes()
    table.write_text("edited")
    assert segcal(*command, table).closing == "segcal: 3 cases, 0 done, 3 skipped (exit 0)"
    assert table.read_bytes() == whole.read_bytes()
    # Another level is another table from the same numbers: nothing has to be read again.
    assert segcal(*command, table, "--level", "0.6").closing == "segcal: 3 cases, 0 done, 3 skipped (exit 0)"
    other = tmp_path / "other.csv"
    assert segcal(*command, other, "--level", "0.6").closing == "segcal: 3 cases, 3 done (exit 0)"
    assert table.read_bytes() == other.read_bytes() != whole.read_bytes()


def test_a_scan_that_breaks_gets_a_row_that_says_so(fitted, tmp_path):
    ward, table = Ward(tmp_path, fitted), tmp_path / "ratios.csv"
    command = ["ntr-interval", "apply", fitted.root / "ratio.npz", ward.arriving, "--skip-existing", "-o", table]
    ward.arrive("scan-001")
    ward.arrive("scan-002")
    segcal(*command)
    ward.spoil("scan-002")
    assert segcal(*command).code == 8
    assert [line.split(",")[2] for line in table.read_text().splitlines()[1:]] == ["ok", "failed"]
