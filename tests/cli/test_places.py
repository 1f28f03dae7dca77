"""What people's disks and shells hold besides files: pipes, links that lead nowhere, names that are no text, streams
that are closed or full."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from tests.cli.builders_reading import Study, nnunet_study, segcal
from tests.cli.builders_runs import record_of, states

pytestmark = pytest.mark.skipif(not sys.platform.startswith("linux"), reason="names of files are bytes on Linux")


@pytest.fixture
def study(tmp_path) -> Study:
    study = nnunet_study(tmp_path / "study")
    assert segcal("calibrate", "fit", *study.both, "-o", study.root / "t.npz", "--no-summary").code == 0
    return study


def applied(study: Study, *options: object, out: str = "out"):
    return segcal("calibrate", "apply", study.root / "t.npz", study.predictions, "-o", study.root / out, *options)


def alone(program: str, *arguments: object) -> subprocess.CompletedProcess[str]:
    """A shell line in which ``$0`` is segcal."""
    words = [sys.executable, "-m", "segcal_cli.cli.entry"]
    return subprocess.run(
        ["sh", "-c", program.replace("segcal", '"$0" "$1" "$2"', 1), *words, *map(str, arguments)],
        capture_output=True,
        text=True,
        check=False,
        timeout=120,
    )


def test_a_name_that_is_no_text_costs_its_case_alone(study):
    bad = os.fsencode(study.predictions) + b"/B\xe4ume"
    for end in (b".npz", b".nii.gz"):
        os.rename(os.fsencode(study.predictions / "case-2") + end, bad + end)  # noqa: PTH104
    log = study.root / "log.txt"
    for options in ((), ("--skip-existing", "--log-file", log), ("--overwrite", "--json")):
        ran = applied(study, *options)
        assert ran.code == 8
        assert ran.closing.endswith("1 failed: B\\udce4ume (exit 8)")
    assert ran.document["failures"][0]["case"] == "B\\udce4ume"
    assert ran.document["failures"][0]["file"] == "B\\udce4ume.npz"
    assert states(study.root / "out")["B\\udce4ume"] == "failed"
    assert "Traceback" not in log.read_text(encoding="utf-8")
    assert segcal("evaluate", *study.both, "-o", study.root / "m.csv").code == 4
    assert segcal("evaluate", *study.both, "-o", study.root / "m.csv", "--on-failure", "continue").code == 8


def test_an_output_may_have_a_name_that_is_no_text(study, tmp_path):
    names = {end: Path(os.fsdecode(os.fsencode(tmp_path) + b"/\xe4" + end)) for end in (b".npz", b"", b".log", b".csv")}
    fit = ["calibrate", "fit", *study.both, "--no-summary", "-o", names[b".npz"], "--log-file", names[b".log"]]
    assert segcal(*fit).code == 0
    assert segcal("calibrate", "apply", names[b".npz"], study.predictions, "-o", names[b""]).code == 0
    assert record_of(names[b""])["artifact"]["file"] == "\udce4.npz"
    assert segcal("evaluate", *study.both, "-o", names[b".csv"]).code == 0


@pytest.mark.parametrize("name", ["case-2.npz", "case-2.nii.gz"])
def test_a_pipe_among_the_inputs_fails_alone_and_nobody_waits_for_it(name, study):
    (study.predictions / name).unlink()
    os.mkfifo(study.predictions / name)
    ran = applied(study)
    assert ran.closing == "segcal: 4 cases, 3 done, 1 failed: case-2 (exit 8)"


@pytest.mark.parametrize("suffix", [".nii", ".nii.gz", ".npy", ".png", ".tif"])
def test_a_pipe_of_any_format_is_refused(suffix, study, tmp_path):
    (tmp_path / "pipes").mkdir()
    os.mkfifo(tmp_path / "pipes" / f"a{suffix}")
    table = study.predictions / "dataset.json"
    ran = segcal("pairs", tmp_path / "pipes", "--values", "probabilities", "--classes", table)
    assert ran.code == 4


def test_a_class_table_may_come_through_a_pipe(study):
    """As ``<(command)`` in a shell makes it."""
    table = study.predictions / "dataset.json"
    pipe = study.root / "pipe"
    os.mkfifo(pipe)
    with subprocess.Popen(["sh", "-c", f"cat {table} > {pipe}"]):
        assert segcal("pairs", *study.both, "--classes", pipe).code == 0


@pytest.mark.parametrize(
    ("target", "what"), [("case-2.npz", "too many levels of symbolic links"), ("nowhere", "no such file or directory")]
)
def test_a_link_that_leads_to_no_file_fails_alone(target, what, study):
    (study.predictions / "case-2.npz").unlink()
    (study.predictions / "case-2.npz").symlink_to(target)
    ran = applied(study)
    assert ran.closing == "segcal: 4 cases, 3 done, 1 failed: case-2 (exit 8)"
    assert f"case-2.npz: {what}" in ran.err


def test_data_for_a_full_disk_behind_stdout_are_not_lost_in_silence(study):
    for line in ("segcal pairs", "segcal evaluate --json -o {}/m.csv"):
        words = line.format(study.root)
        ran = alone(f'{words} "$3" "$4" > /dev/full', *study.both)
        assert ran.returncode == 4
        assert ran.stderr.endswith("segcal: cannot write to standard output: no space left on device (exit 4)\n")
        assert "Traceback" not in ran.stderr


@pytest.mark.parametrize("streams", ["2>&-", "2>/dev/full", "<&- >&- 2>&-", ">&-"])
def test_messages_that_nobody_can_read_are_no_reason_to_stop(streams, study):
    out = study.root / "out"
    ran = alone(f'segcal calibrate apply "$3" "$4" -o "$5" -v {streams}', study.root / "t.npz", study.predictions, out)
    assert ran.returncode == 0
    assert set(states(out).values()) == {"done"}
    # A message in a file that took the place of a closed stream would be there.
    assert json.loads((out / "segcal-run.json").read_text())["counts"]["done"] == 4


def test_data_are_utf_8_whatever_the_locale(tmp_path):
    study = nnunet_study(tmp_path / "study", ("Bäume", "b"))
    ran = alone('LC_ALL=C.UTF-8 PYTHONIOENCODING=ascii segcal pairs "$3" "$4"', *study.both)
    assert ran.returncode == 0
    assert "Bäume," in ran.stdout
