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

from tests.cli.builders_reading import Ran, Study, nifti_study, nnunet_study, segcal, tree

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


@pytest.mark.parametrize("name", ["t.npz", "predictions/case-1.nii.gz"])
def test_a_log_is_not_written_into_a_scan_or_an_artifact(name, study, tmp_path):
    before = (study.root / name).read_bytes()
    ran = segcal(*_done(study, tmp_path / "out"), "--log-file", study.root / name)
    assert ran.code == 2
    assert "is no text file" in " ".join(ran.err.replace("│", " ").split())
    assert (study.root / name).read_bytes() == before


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


EARLY = """
import os, signal, sys
class Eager:
    def find_spec(self, name, path, target=None):
        if name == {module!r}:
            os.kill(os.getpid(), {number})
        return None
sys.meta_path.insert(0, Eager())
sys.argv = ["segcal", "convert", "nowhere", "-o", "out"]
from segcal_cli.cli.entry import main
main()
"""


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
@pytest.mark.parametrize("module", ["typer", "segcal_cli.cli.convert", "segcal_cli.workflows.convert"])
def test_a_signal_while_modules_are_imported_is_an_interrupt_like_any_other(module, number, tmp_path):
    code = EARLY.format(module=module, number=int(number))
    environment = {**os.environ, "PYTHONPATH": str(Path(__file__).parents[2])}
    ran = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, env=environment, cwd=tmp_path, check=False
    )
    assert (ran.returncode, ran.stdout) == (130, "")
    assert ran.stderr == "segcal: interrupted before the first case (exit 130)\n"


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_second_signal_while_python_closes_down_changes_nothing(number, tmp_path):
    again = f"import atexit; atexit.register(lambda: os.kill(os.getpid(), {int(number)}))\nclass Eager"
    code = EARLY.format(module="segcal_cli.workflows.convert", number=int(number)).replace("class Eager", again)
    environment = {**os.environ, "PYTHONPATH": str(Path(__file__).parents[2])}
    ran = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, env=environment, cwd=tmp_path, check=False
    )
    assert (ran.returncode, ran.stderr) == (130, "segcal: interrupted before the first case (exit 130)\n")


def test_a_signal_in_the_middle_of_exec_is_an_interrupt_like_any_other(tmp_path):
    """Importing makes dataclasses, whose methods are made by exec. As ``python -m``, which looks at what passed by."""
    (tmp_path / "program.py").write_text(
        "import os, sys; from segcal_cli.workflows import convert\n"
        "convert.run = lambda *_: exec('os.kill(os.getpid(), 2)\\nfor _ in range(1000): pass')\n"
        "sys.argv = ['segcal', 'convert', 'nowhere', '-o', 'out']\n"
        "from segcal_cli.cli.entry import main; main()"
    )
    environment = {**os.environ, "PYTHONPATH": str(Path(__file__).parents[2])}
    ran = subprocess.run(
        [sys.executable, "-m", "program"], capture_output=True, text=True, env=environment, cwd=tmp_path, check=False
    )
    assert (ran.returncode, ran.stderr) == (130, "segcal: interrupted before the first case (exit 130)\n")


def test_a_signal_that_is_ignored_stays_ignored(tmp_path):
    """As in a job that a shell has put into the background."""
    code = EARLY.format(module="typer", number=int(signal.SIGINT)).replace(
        "class Eager", "signal.signal(signal.SIGINT, signal.SIG_IGN)\nclass Eager"
    )
    environment = {**os.environ, "PYTHONPATH": str(Path(__file__).parents[2])}
    ran = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, env=environment, cwd=tmp_path, check=False
    )
    assert (ran.returncode, ran.stderr) == (2, "segcal: nowhere does not exist (exit 2)\n")


@pytest.mark.parametrize("arguments", [["--help"], ["inspect", "t.npz", "--json"], ["inspect", "t.npz"]])
def test_a_reader_that_has_gone_away_is_no_error(study, arguments):
    read_end, write_end = os.pipe()
    os.close(read_end)
    try:
        ran = subprocess.run(
            [sys.executable, "-m", "segcal_cli", *arguments],
            stdout=write_end,
            stderr=subprocess.PIPE,
            text=True,
            check=False,
            cwd=study.root,
            env={**os.environ, "PYTHONPATH": str(Path(__file__).parents[2])},
        )
    finally:
        os.close(write_end)
    assert ran.returncode == 0
    assert ran.stderr in ("", "segcal: t.npz is a calibrate artifact (exit 0)\n")


def test_a_bug_is_exit_1_names_the_case_and_the_log_has_the_trace_without_values(study, tmp_path, monkeypatch):
    from segcal_cli.workflows import calibrate_apply

    def broken(*_: object) -> None:
        secret_value = "a marker that stands in no message"
        raise TypeError(f"oh no{secret_value[:0]}")

    monkeypatch.setattr(calibrate_apply, "keep_padding", broken)
    log = tmp_path / "log.txt"
    ran = segcal(*_done(study, tmp_path / "out"), "--log-file", log)
    assert ran.code == 1
    assert ran.closing == (
        "segcal: TypeError in case-1: oh no. A bug in segcal; please report it with --log-file (exit 1)"
    )
    assert "Traceback" not in ran.err
    text = log.read_text()
    assert "DEBUG Traceback (most recent call last):" in text
    assert 'raise TypeError(f"oh no' in text
    assert "a marker" not in text.replace('secret_value = "a marker that stands in no message"', "")
    assert "Traceback" in segcal(*_done(study, tmp_path / "more"), "-vv").err


def test_a_warning_that_cases_share_is_said_once_with_their_number(study, tmp_path):
    assert segcal(*_done(study, tmp_path / "display"), "--dtype", "uint16").code == 0
    log = tmp_path / "log.txt"
    options = ("--classes", study.predictions / "dataset.json", "--values", "probabilities", "--log-file", log)
    ran = segcal("convert", tmp_path / "display", "-o", tmp_path / "out", *options)
    shared = [line for line in ran.err.splitlines() if line.startswith("warning: ")]
    assert len(shared) == 1
    assert shared[0].endswith(" (4 cases)")
    of_cases = [line.split(" ", 2) for line in log.read_text().splitlines() if " WARNING " in line]
    assert [text.split(" ")[0] for _, _, text in of_cases if text.startswith("case-")] == list(study.cases)


def test_a_log_on_a_full_disk_costs_the_log_and_not_the_run(study, tmp_path):
    if not Path("/dev/full").exists():
        pytest.skip("no /dev/full")
    ran = segcal(*_done(study, tmp_path / "out"), "--log-file", "/dev/full")
    assert ran.code == 0
    assert "warning: the log cannot be written: no space left on device" in ran.err.splitlines()
    assert ran.closing == "segcal: 4 cases, 4 done (exit 0)"


@pytest.mark.parametrize(("terminal", "bar"), [("xterm", True), ("dumb", False)])
def test_a_bar_is_drawn_on_a_terminal_only(study, tmp_path, terminal, bar):
    import pty

    main_end, other_end = pty.openpty()
    command = [*SEGCAL, *map(str, _done(study, tmp_path / terminal))]
    process = subprocess.Popen(
        command, stdout=subprocess.DEVNULL, stderr=other_end, env={**os.environ, "TERM": terminal, "COLUMNS": "100"}
    )
    os.close(other_end)
    said = b""
    while True:
        try:
            part = os.read(main_end, 65536)
        except OSError:
            break
        if not part:
            break
        said += part
    os.close(main_end)
    assert process.wait() == 0
    assert (b"\x1b[" in said) == bar
    assert said.endswith(b"segcal: 4 cases, 4 done (exit 0)\r\n")


def test_inspect_closes_with_what_it_looked_at(study):
    ran = segcal("inspect", study.root / "t.npz")
    assert ran.err == "segcal: t.npz is a calibrate artifact (exit 0)\n"


@pytest.mark.parametrize(("cases", "text"), [(("a",), "1 case, 1 done"), (("a", "b"), "2 cases, 2 done")])
def test_one_case_is_no_cases(tmp_path, cases, text):
    study = nnunet_study(tmp_path, cases)
    assert segcal("convert", study.predictions, "-o", tmp_path / "out").closing == f"segcal: {text} (exit 0)"


def test_a_run_that_stopped_early_does_not_say_that_the_rest_is_fine(tmp_path):
    """Logits called probabilities: the first case stops the run, and nothing is known of the others."""
    study = nifti_study(tmp_path)
    options = ("--values", "probabilities", "--classes", study.classes)
    ran = segcal("calibrate", "fit", *study.both, "-o", tmp_path / "x.npz", *options)
    assert ran.code == 4
    assert ran.closing == "segcal: stopped at case-1, after 1 of 4 inputs, nothing written (exit 4)"
