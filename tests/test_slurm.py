"""The recipes of docs/slurm.md do what they say: the very lines, with a Slurm that runs each job at once."""

from __future__ import annotations

import os
import re
import signal
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import pytest

from tests.cli.builders import make_folders, make_scans, segcal

PAGE = Path(__file__).parent.parent / "docs" / "slurm.md"

SBATCH = """#!/bin/bash
# Runs the job at once, in as many tasks as its array has; prints an id, and fails if a task does.
while [ $# -gt 0 ]; do
  case $1 in
    --array=*) last=${1##*-};;
    --wrap) job=$2; shift;;
    --parsable) ;;
    --dependency=afterok:7) ;;
    --cpus-per-task=*|--mem=*) ;;
    *) echo "sbatch: unrecognized option $1" >&2; exit 1;;
  esac
  shift
done
for task in $(seq 1 ${last:-1}); do
  SLURM_ARRAY_TASK_ID=$task bash -c "$job" >&2 || exit 1
done
echo 7
"""

SHARDS = 3
"""In place of 40: each is a process."""


def blocks(kind: str, marker: str) -> str:
    """The one code block of the page that holds the marker."""
    found = re.findall(rf"```{kind}\n(.*?)```", PAGE.read_text(encoding="utf-8"), re.DOTALL)
    (block,) = [block for block in found if marker in block]
    return block


@pytest.fixture
def study(tmp_path: Path) -> Path:
    """A folder with ``preds`` and ``labels`` that say what they hold, and a PATH with segcal and sbatch."""
    folders = make_folders(tmp_path / "made", make_scans(6, 3))
    folders.predictions.rename(tmp_path / "preds")
    folders.labels.rename(tmp_path / "labels")
    folders.classes.rename(tmp_path / "preds" / "dataset.json")
    binaries = tmp_path / "bin"
    binaries.mkdir()
    for name, text in (
        ("sbatch", SBATCH),
        ("segcal", f'#!/bin/bash\nexec {sys.executable} -m segcal_cli.cli.app "$@"\n'),
    ):
        (binaries / name).write_text(text)
        (binaries / name).chmod(0o755)
    return tmp_path


def in_bash(script: str, study: Path) -> None:
    """Run the lines in the folder of the study, as a shell that stops at the first failure."""
    environment = {
        **os.environ,
        "PATH": f"{study / 'bin'}:{os.environ['PATH']}",
        "PYTHONPATH": str(PAGE.parent.parent),
        "OMP_NUM_THREADS": "1",
    }
    lines = script.replace("1-40", f"1-{SHARDS}").replace("/40", f"/{SHARDS}")
    done = subprocess.run(
        ["bash", "-euc", lines], cwd=study, env=environment, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr


def arguments(study: Path) -> list[object]:
    return [study / "preds", study / "labels"]


def given_values(script: str) -> str:
    """The lines for predictions in a format that does not say what it holds."""
    return script.replace("fit preds labels", "fit preds labels --values probabilities")


@pytest.mark.slow
def test_the_array_recipe_gives_the_bytes_of_one_run(study: Path):
    in_bash(given_values(blocks("bash", "conformal-sets fit")).replace("-j 4", "-j 1"), study)
    serial = study / "serial.npz"
    said = segcal("conformal-sets", "fit", *arguments(study), "--values", "probabilities", "-o", serial)
    assert said.code == 0, said.stderr
    assert (study / "sets.npz").read_bytes() == serial.read_bytes()
    assert sorted(path.name for path in (study / "parts").iterdir()) == ["1.npz", "2.npz", "3.npz"]


@pytest.mark.slow
def test_the_recipe_for_new_scans_gives_the_files_of_one_run(study: Path):
    serial = study / "serial"
    new = make_folders(study / "scans", [replace(scan, name=f"new_{scan.name}") for scan in make_scans(4, 3, seed=9)])
    new.predictions.rename(study / "new")
    new.classes.rename(study / "new" / "dataset.json")
    fit = ["conformal-sets", "fit", *arguments(study), "--values", "probabilities", "-o", study / "sets.npz"]
    assert segcal(*fit).code == 0
    apply = ["conformal-sets", "apply", study / "sets.npz", study / "new", "--values", "probabilities", "-o", serial]
    assert segcal(*apply).code == 0
    lines = blocks("bash", "segcal-run.shard").replace("sets.npz new", "sets.npz new --values probabilities")
    in_bash(lines.replace("of-040", f"of-{SHARDS:03}"), study)
    names = sorted(path.name for path in serial.iterdir() if "segcal" not in path.name)
    assert "cases.csv" in names
    for name in names:
        assert (serial / name).read_bytes() == (study / "out" / name).read_bytes(), name


@pytest.mark.slow
def test_the_recipe_of_two_rounds_gives_the_bytes_of_one_run(study: Path):
    in_bash(given_values(blocks("bash", "round1")), study)
    serial = study / "serial.npz"
    said = segcal("calibrate", "fit", *arguments(study), "--values", "probabilities", "-o", serial)
    assert said.code == 0, said.stderr
    assert (study / "cal.npz").read_bytes() == serial.read_bytes()


def test_the_dask_recipe_asks_slurm_for_what_it_says(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
):
    handler = signal.getsignal(signal.SIGINT)
    import dask_jobqueue

    signal.signal(signal.SIGINT, handler)  # its import takes Ctrl-C for itself

    asked: dict[str, object] = {}

    class Recorded(dask_jobqueue.SLURMCluster):
        """Writes the job script, and starts none."""

        def __init__(self, **options: object) -> None:
            super().__init__(**options, scheduler_options={"host": "127.0.0.1", "dashboard_address": "127.0.0.1:0"})

        def adapt(self, **options: object) -> None:
            asked["adapt"] = options
            asked["script"] = self.job_script()

    monkeypatch.setattr(dask_jobqueue, "SLURMCluster", Recorded)
    monkeypatch.setattr(signal, "pause", lambda: None)
    variables: dict[str, object] = {}
    exec(compile(blocks("py", "SLURMCluster"), "slurm.md", "exec"), variables)
    variables["cluster"].close()
    script = str(asked["script"]).splitlines()
    assert {"#SBATCH -p long", "#SBATCH --cpus-per-task=4", "#SBATCH --mem=15G", "#SBATCH -t 02:00:00"} <= set(script)
    assert "export OMP_NUM_THREADS=1" in script
    assert "--nworkers 4" in script[-1]
    assert asked["adapt"] == {"minimum": 1, "maximum": 20}
    assert re.fullmatch(r"tcp://127\.0\.0\.1:\d+", capsys.readouterr().out.strip())
