"""The Makefile and the crontab line of the documents, run by make and by a shell."""

from __future__ import annotations

import os
import re
import shlex
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from tests.cli.builders_reading import nnunet_study
from tests.cli.builders_runs import record_of, states

ROOT = Path(__file__).parents[2]
PAGE = (ROOT / "docs" / "pipelines.md").read_text(encoding="utf-8")


def block(language: str, holding: str) -> str:
    return next(text for text in re.findall(rf"```{language}\n(.*?)```", PAGE, re.DOTALL) if holding in text)


@pytest.fixture
def path(tmp_path, monkeypatch) -> Path:
    """A PATH on which ``segcal`` is this one."""
    bin = tmp_path / "bin"
    bin.mkdir()
    (bin / "segcal").write_text(f'#!/bin/sh\nexec {shlex.quote(sys.executable)} -m segcal_cli "$@"\n')
    (bin / "segcal").chmod(0o755)
    monkeypatch.setenv("PATH", f"{bin}{os.pathsep}{os.environ['PATH']}")
    monkeypatch.setenv("PYTHONPATH", str(ROOT))
    return bin


class Project:
    """A folder with the Makefile of the documents and small scans."""

    def __init__(self, root: Path) -> None:
        self.root = root
        root.mkdir()
        (root / "Makefile").write_text(block("make", "DELETE_ON_ERROR"))
        self.study = nnunet_study(root / "made", ("a", "b", "n1", "n2", "n3", "t1", "t2"))
        for name in ("calib", "labels", "new", "test", "test-labels"):
            (root / name).mkdir()
        for case, predictions, labels in (
            ("a", "calib", "labels"), ("b", "calib", "labels"), ("n1", "new", None), ("n2", "new", None),
            ("t1", "test", "test-labels"), ("t2", "test", "test-labels"),
        ):  # fmt: skip
            self.put(case, predictions)
            if labels is not None:
                shutil.copy(self.study.labels / f"{case}.nii.gz", root / labels)
        for folder in ("calib", "new", "test"):
            for name in ("dataset.json", "plans.json"):
                shutil.copy(self.study.predictions / name, root / folder)
        rows = "".join(f"{case},calib/{case}.npz,labels/{case}.nii.gz\n" for case in "ab")
        (root / "cases.csv").write_text(f"case,prediction,label\n{rows}")

    def put(self, case: str, folder: str) -> None:
        """A prediction arrives."""
        for end in (".npz", ".nii.gz"):
            shutil.copy(self.study.predictions / f"{case}{end}", self.root / folder)

    def make(self, *words: str) -> tuple[int, list[str], str]:
        """(exit code, commands of segcal that ran, all that was said)."""
        run = subprocess.run(["make", *words], cwd=self.root, capture_output=True, text=True, check=False)
        ran = [" ".join(line.split()[1:3]) for line in run.stdout.splitlines() if line.startswith("segcal ")]
        return run.returncode, ran, run.stdout + run.stderr

    def stamp(self) -> int:
        return (self.root / "out" / ".done").stat().st_mtime_ns


@pytest.mark.skipif(shutil.which("make") is None, reason="make is not installed")
def test_the_makefile_redoes_what_changed_and_nothing_else(path, tmp_path):
    project = Project(tmp_path / "project")
    root = project.root
    three = ["calibrate fit", "calibrate apply", "evaluate test"]

    code, ran, said = project.make()
    assert (code, sorted(ran)) == (0, sorted(three)), said
    assert project.make()[:2] == (0, [])

    os.utime(root / "calib" / "a.npz")
    code, ran, said = project.make()
    assert (code, sorted(ran)) == (0, sorted(three)), said
    # The artifact has the same bytes as before, so no scan had to be done again.
    assert set(states(root / "out").values()) == {"skipped"}
    assert project.make()[:2] == (0, [])

    good = (root / "new" / "n2.npz").read_bytes()
    stamp = project.stamp()
    (root / "new" / "n2.npz").write_bytes(good[:-50])
    code, ran, said = project.make()
    assert (code, ran) == (2, ["calibrate apply"])
    assert "Error 8" in said
    assert (project.stamp(), states(root / "out")) == (stamp, {"n1": "skipped", "n2": "failed"})

    (root / "new" / "n2.npz").write_bytes(good)
    code, ran, said = project.make()
    assert (code, ran) == (0, ["calibrate apply"]), said
    assert states(root / "out") == {"n1": "skipped", "n2": "done"}

    # A scan that arrives while a run is at work is newer than the stamp, which bears the time of its start.
    project.put("n3", "new")
    for end in (".npz", ".nii.gz"):
        os.utime(root / "new" / f"n3{end}", ns=(project.stamp() + 1, project.stamp() + 1))
    code, ran, said = project.make()
    assert (code, ran) == (0, ["calibrate apply"]), said
    assert states(root / "out") == {"n1": "skipped", "n2": "skipped", "n3": "done"}

    before = (root / "cal.npz").read_bytes()
    (root / "labels" / "b.nii.gz").write_bytes(b"")
    code, ran, said = project.make()
    assert (code, ran) == (2, ["calibrate fit"])
    assert "Error 4" in said
    assert (root / "cal.npz").read_bytes() == before


@pytest.mark.slow
@pytest.mark.skipif(shutil.which("make") is None, reason="make is not installed")
def test_the_makefile_of_a_study_makes_every_part_and_redoes_what_a_new_scan_changes(path, tmp_path):
    project = Project(tmp_path / "project")
    root = project.root
    (root / "Makefile").write_text(block("make", "study"))
    ratio = "--numerator necrosis --denominator edema,necrosis --method joint --level 0.7"
    options = ("-j2", "study", "TARGET=edema", f"RATIO={ratio}")
    fits = ["calibrate fit", "conformal-sets fit", "ntr-interval fit"]
    applies = ["calibrate apply", "conformal-sets apply", "ntr-interval apply"]
    code, ran, said = project.make(*options)
    assert (code, sorted(ran)) == (0, sorted([*fits, *applies, "evaluate test", "reliability test"])), said
    made = ("calibrated/.done", "sets/n2_sets.nii.gz", "ratios.csv", "metrics.csv", "report/report.html")
    assert [name for name in made if not (root / "out" / name).is_file()] == []
    assert project.make(*options)[:2] == (0, [])
    project.put("n3", "new")
    code, ran, said = project.make(*options)
    assert (code, sorted(ran)) == (0, sorted(applies)), said
    assert states(root / "out" / "sets") == {"n1": "skipped", "n2": "skipped", "n3": "done"}
    assert project.make(*options)[:2] == (0, [])


def test_the_crontab_line_is_silent_unless_something_is_wrong(path, tmp_path):
    line = block("bash", "* * * *").strip()
    command = line.split(maxsplit=5)[5].replace("/data/seg", str(tmp_path)).replace("--min-age 120", "--min-age 0")
    assert command != line.split(maxsplit=5)[5]

    def tick() -> subprocess.CompletedProcess[str]:
        return subprocess.run(["sh", "-c", command], capture_output=True, text=True, check=False)

    study = nnunet_study(tmp_path / "study")
    segcal = ["segcal", "conformal-sets", "fit", *map(str, study.both), "-o", str(tmp_path / "sets.npz")]
    subprocess.run([*segcal, "--target", "edema", "--alpha", "0.4", "-q"], check=True)

    (tmp_path / "in").mkdir()
    first = tick()
    assert (first.returncode, first.stdout) == (0, "")
    for name in ("dataset.json", "plans.json", "case-1.npz", "case-1.nii.gz"):
        shutil.copy(study.predictions / name, tmp_path / "in" / name)
    assert tick().stdout == ""
    assert states(tmp_path / "out") == {"case-1": "done"}
    (tmp_path / "in" / "case-2.npz").write_bytes(b"")
    wrong = tick()
    assert "case-2.npz: is empty (0 bytes)" in wrong.stdout
    assert wrong.stdout.splitlines()[-1].endswith("(exit 8)")
    assert record_of(tmp_path / "out")["counts"]["skipped"] == 1
