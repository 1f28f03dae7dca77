"""Data on stdout, everything for people on stderr, and an exit code that the closing line names."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from tests.cli.builders_reading import Ran, Study, nnunet_study, segcal, tree

SEGCAL = (sys.executable, "-m", "segcal_cli.cli.app")
ENVELOPE = {
    "schema", "segcal_version", "command", "status", "exit_code", "counts", "warnings", "failures", "result",
}  # fmt: skip


def process(*arguments: object, **environment: str) -> subprocess.CompletedProcess[str]:
    command = [*SEGCAL, *map(str, arguments)]
    return subprocess.run(command, capture_output=True, text=True, env={**os.environ, **environment}, check=False)


@pytest.fixture(scope="module")
def study(tmp_path_factory) -> Study:
    study = nnunet_study(tmp_path_factory.mktemp("study"))
    ran = segcal("calibrate", "fit", *study.both, "-o", study.root / "t.npz")
    assert ran.code == 0, ran.err
    return study


def _done(study: Study, out: Path) -> list[object]:
    return ["calibrate", "apply", study.root / "t.npz", study.predictions, "-o", out]


def _usage(study: Study, out: Path) -> list[object]:
    return ["calibrate", "apply", study.root / "t.npz", out / "nowhere", "-o", out]


def _no_case(study: Study, out: Path) -> list[object]:
    (out / "none").mkdir(parents=True)
    return ["convert", out / "none", "-o", out / "out"]


def _bad_input(study: Study, out: Path) -> list[object]:
    broken = nnunet_study(out / "broken", ("a", "b"))
    for case in broken.cases:
        (broken.predictions / f"{case}.npz").write_bytes(b"")
    return ["calibrate", "fit", *broken.both, "-o", out / "x.npz"]


def _bad_artifact(study: Study, out: Path) -> list[object]:
    return ["inspect", study.predictions / "case-1.npz"]


def _partial(study: Study, out: Path) -> list[object]:
    broken = nnunet_study(out / "broken", ("a", "b"))
    (broken.predictions / "a.npz").write_bytes(b"")
    return ["convert", broken.predictions, "-o", out / "out"]


CODES = pytest.mark.parametrize(
    ("build", "code"),
    [(_done, 0), (_usage, 2), (_no_case, 3), (_bad_input, 4), (_bad_artifact, 5), (_partial, 8)],
)


@CODES
def test_the_closing_line_names_the_code_and_stdout_is_empty(build, code, study, tmp_path):
    ran = segcal(*build(study, tmp_path))
    assert ran.code == code
    assert ran.closing.startswith("segcal: ")
    assert ran.closing.endswith(f"(exit {code})")
    assert ran.out == ""


@CODES
def test_json_is_one_document_for_every_code(build, code, study, tmp_path):
    ran = segcal(*build(study, tmp_path), "--json")
    document = ran.document
    assert set(document) == ENVELOPE
    assert (ran.code, document["exit_code"]) == (code, code)
    assert document["status"] == {0: "ok", 8: "partial"}.get(code, "failed")
    assert document["schema"] == f"segcal/{document['command'].replace(' ', '-')}/1"
    assert bool(document["failures"]) == (code != 0)
    for failure in document["failures"]:
        assert set(failure) == {"case", "file", "error", "message"}
    assert ran.out == json.dumps(document, indent=2, ensure_ascii=False, allow_nan=False) + "\n"


@CODES
def test_quiet_says_errors_only(build, code, study, tmp_path):
    ran = segcal(*build(study, tmp_path), "-q")
    assert ran.code == code
    if code == 0:
        assert ran.err == ""
    else:
        assert ran.closing.endswith(f"(exit {code})")
        assert "warning" not in ran.err


@CODES
def test_real_processes_leave_with_the_code_and_no_traceback(build, code, study, tmp_path):
    ran = process(*build(study, tmp_path))
    assert (ran.returncode, ran.stdout) == (code, "")
    assert "Traceback" not in ran.stderr
    assert "\x1b" not in ran.stderr
    assert "\r" not in ran.stderr


def test_failures_of_a_document_name_case_and_file(tmp_path, study):
    ran = segcal(*_bad_input(study, tmp_path), "--json")
    assert [(f["case"], f["file"], f["error"]) for f in ran.document["failures"]] == [
        ("a", "a.npz", "EmptyFile"),
        ("b", "b.npz", "EmptyFile"),
    ]


def test_a_closed_stdout_is_no_error(study):
    """As in ``segcal pairs .. | head -1``: the reader is gone before the first byte."""
    read_end, write_end = os.pipe()
    os.close(read_end)
    command = [*SEGCAL, "pairs", str(study.predictions), str(study.labels)]
    try:
        ran = subprocess.run(command, stdout=write_end, stderr=subprocess.PIPE, text=True, check=False)
    finally:
        os.close(write_end)
    assert ran.returncode == 0
    assert "Traceback" not in ran.stderr
    assert "Broken" not in ran.stderr


def test_verbose_says_how_far_it_is(study, tmp_path):
    ran = segcal(*_done(study, tmp_path / "out"), "-v")
    assert "calibrating: 4 of 4" in ran.err.splitlines()


def test_the_log_keeps_everything_whatever_is_quiet(study, tmp_path):
    log = tmp_path / "log.txt"
    log.write_text("before\n")
    ran = segcal(*_partial(study, tmp_path), "-q", "--log-file", log)
    assert ran.code == 8
    lines = log.read_text().splitlines()
    assert lines[0] == "before"
    assert any(" ERROR " in line and "is empty (0 bytes)" in line for line in lines)
    assert all(line[10] == "T" and line[19] == "Z" for line in lines[1:])


def test_a_log_that_cannot_be_written_is_a_usage_error(study, tmp_path):
    ran = process(*_done(study, tmp_path / "out"), "--log-file", tmp_path / "none" / "log.txt")
    assert (ran.returncode, ran.stdout) == (2, "")
    assert "no such file or directory" in " ".join(ran.stderr.replace("│", " ").split())
    assert not (tmp_path / "out").exists()


def test_color_is_never_written_to_a_file(study, tmp_path):
    ran = process(*_done(study, tmp_path / "out"), FORCE_COLOR="", NO_COLOR="1", TERM="xterm-256color")
    assert ran.returncode == 0
    assert "\x1b" not in ran.stderr


def test_the_parser_refuses_what_it_does_not_know():
    ran = process("calibrate", "fit", "--nonsense")
    assert (ran.returncode, ran.stdout) == (2, "")


def _interrupted(arguments: list[object], number: int, ready: Path) -> Ran:
    """Start a process, send a signal once ``ready`` is there, and wait for it."""
    command = [*SEGCAL, *map(str, arguments)]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as child:
        deadline = time.monotonic() + 60
        while not ready.exists() and child.poll() is None and time.monotonic() < deadline:
            time.sleep(0.005)
        child.send_signal(number)
        out, err = child.communicate(timeout=60)
    return Ran(child.returncode, out, err)


@pytest.mark.parametrize(("number", "jobs"), [(signal.SIGINT, 1), (signal.SIGTERM, 1), (signal.SIGINT, 2)])
def test_an_interrupted_run_keeps_finished_cases_and_no_temps(number, jobs, tmp_path):
    study = nnunet_study(tmp_path, tuple(f"c{i:03d}" for i in range(150)))
    out = tmp_path / "out"
    command = ["convert", study.predictions, "-o", out, "-j", jobs]
    ran = _interrupted(command, number, out / "c001_probseg.nii.gz")
    assert ran.code == 130
    assert "Traceback" not in ran.err
    done = int(ran.closing.split()[3])
    assert ran.closing == f"segcal: interrupted after {done} of 150 cases (exit 130)"
    names = sorted(tree(out))
    assert not [name for name in names if name.startswith(".")]
    volumes = [name for name in names if name.endswith(".nii.gz")]
    assert done <= len(volumes) <= done + 1 + jobs
