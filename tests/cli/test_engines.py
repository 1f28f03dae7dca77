"""The same bytes whoever does the work: one process, several, Dask workers, seven shards; under any locale.

Each kind of artifact and table once. What takes long (a process per job and pass) is ``slow`` but for one of a kind.
"""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path

import pytest

from segcal_cli.calibration import patients
from segcal_cli.execution import distributed
from tests.cli.builders import Folders, make_folders, make_scans, segcal
from tests.cli.builders_shards import different, merged, run

PROBABILITIES = ("--values", "probabilities")
RATIO = ("--numerator", "class1", "--denominator", "class1,class2")
THREADS = {"OMP_NUM_THREADS": "2", "OPENBLAS_NUM_THREADS": "2", "MKL_NUM_THREADS": "2"}
ELSEWHERE = {
    "PYTHONHASHSEED": "4321", "TZ": "Pacific/Kiritimati", "LANG": "tr_TR.UTF-8", "LC_ALL": "tr_TR.UTF-8", **THREADS,
}  # fmt: skip
"""Another hash seed, another day, a language whose small i is no i, and threads of BLAS, of which tests have one."""


@pytest.fixture(scope="module", autouse=True)
def _no_cluster_is_left() -> Iterator[None]:
    yield
    distributed.close_clients()


@pytest.fixture(scope="module", autouse=True)
def _few_resamples() -> Iterator[None]:
    """Merging solves in this process; workers only read."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(patients, "RESAMPLES", 20)
        yield


@dataclass(frozen=True)
class Work:
    """Folders, the command of each kind, and what one run of it writes."""

    scans: Folders
    commands: dict[str, list[object]]
    expected: dict[str, Path]


@pytest.fixture(scope="module")
def work(tmp_path_factory: pytest.TempPathFactory) -> Work:
    """Eight scans; sets and ratios of five others are judged by evaluate."""
    root = tmp_path_factory.mktemp("engines")
    scans = make_folders(root / "scans", make_scans(8, 3))
    others = make_folders(
        root / "others", [replace(scan, name=f"other_{scan.name}") for scan in make_scans(5, 3, seed=9)]
    )
    judged: list[object] = []
    for name, more in (("calibrate", ()), ("conformal-sets", ()), ("ntr-interval", RATIO)):
        run([name, "fit", *others.arguments, *PROBABILITIES, *more], root / f"{name}.npz")
        judged += ["--artifact", root / f"{name}.npz"]
    data = [*scans.arguments, *PROBABILITIES]
    commands: dict[str, list[object]] = {
        "calibrate": ["calibrate", "fit", *data],
        "refined": ["calibrate", "fit", *data, "--method", "vector", "--refine", "2"],
        "sets": ["conformal-sets", "fit", *data, "--alpha", "0.3"],
        "ratio": ["ntr-interval", "fit", *data, *RATIO],
        "clusters": ["cluster", "fit", *data, "--method", "kmeans", "--k", "2", "--min-count", "1"],
        "tables": ["evaluate", *data, *judged],
    }
    expected = {}
    for kind, command in commands.items():
        place = root / "serial" / kind
        place.mkdir(parents=True)
        expected[kind] = place / ("t.csv" if kind == "tables" else "a.npz")
        run(command, expected[kind], *tables(kind, place))
    return Work(scans, commands, expected)


def tables(kind: str, folder: Path) -> list[object]:
    """Every further file that evaluate can write."""
    if kind != "tables":
        return []
    names = {"--summary": "s.csv", "--comparison": "c.csv", "--bin-table": "b.csv", "--histograms": "h.npz"}
    return [word for flag, name in names.items() for word in (flag, folder / name)]


def assert_same(work: Work, kind: str, folder: Path) -> None:
    """Every file of the serial run is in the folder, with the same bytes."""
    for path in sorted(work.expected[kind].parent.iterdir()):
        other = folder / path.name
        if path.suffix == ".npz":
            assert different(path, other) == []
        assert path.read_bytes() == other.read_bytes(), path.name


def kinds(*quick: str) -> list:
    """Parameters: all kinds, slow but for these."""
    every = ("calibrate", "refined", "sets", "ratio", "clusters", "tables")
    return [kind if kind in quick else pytest.param(kind, marks=pytest.mark.slow) for kind in every]


@pytest.mark.parametrize("kind", kinds("calibrate", "sets", "ratio", "tables"))
def test_two_dask_workers_write_the_bytes_of_one_run(kind: str, work: Work, tmp_path: Path):
    dask = ("--engine", "dask", "--jobs", "2")
    run(work.commands[kind], tmp_path / work.expected[kind].name, *tables(kind, tmp_path), *dask)
    assert_same(work, kind, tmp_path)


@pytest.mark.parametrize("kind", kinds("sets"))
def test_four_jobs_write_the_bytes_of_one_run(kind: str, work: Work, tmp_path: Path):
    run(work.commands[kind], tmp_path / work.expected[kind].name, *tables(kind, tmp_path), "--jobs", "4")
    assert_same(work, kind, tmp_path)


@pytest.mark.parametrize("kind", kinds())
def test_seven_shards_in_any_order_write_the_bytes_of_one_run(kind: str, work: Work, tmp_path: Path):
    for seed in (1, 2):
        folder = tmp_path / str(seed)
        folder.mkdir()
        place = folder / work.expected[kind].name
        merged(work.commands[kind], 7, folder / "parts", place, *tables(kind, folder), seed=seed)
        assert_same(work, kind, folder)


def alone(environment: dict[str, str], *words: object) -> subprocess.CompletedProcess[str]:
    """The program in a process of its own, which ends well."""
    done = subprocess.run(
        [sys.executable, "-m", "segcal_cli.cli.app", *map(str, words)],
        env={**os.environ, **environment},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    return done


@pytest.mark.parametrize("kind", kinds("tables"))
def test_another_hash_seed_time_zone_language_and_number_of_threads_write_the_same_bytes(
    kind: str, work: Work, tmp_path: Path
):
    for name, environment in (("here", {}), ("elsewhere", ELSEWHERE)):
        folder = tmp_path / name
        folder.mkdir()
        words = [*work.commands[kind], "-o", folder / work.expected[kind].name, *tables(kind, folder)]
        # The tables are those of the serial run; a fit draws fewer resamples in this process.
        if name == "elsewhere" or kind != "tables":
            alone(environment, *words)
    if kind == "tables":
        assert_same(work, kind, tmp_path / "elsewhere")
    for path in (tmp_path / "here").iterdir():
        assert path.read_bytes() == (tmp_path / "elsewhere" / path.name).read_bytes()


def test_a_shard_may_use_dask_workers(work: Work, tmp_path: Path):
    dask = ["--engine", "dask", "--jobs", "2"]
    merged([*work.commands["sets"], *dask], 2, tmp_path / "parts", tmp_path / "a.npz")
    assert_same(work, "sets", tmp_path)


def test_apply_on_dask_workers_writes_the_same_files(work: Work, tmp_path: Path):
    artifact, reading = work.expected["calibrate"], ["--classes", work.scans.classes, *PROBABILITIES]
    for name, more in (("serial", ()), ("dask", ("--engine", "dask", "--jobs", "2"))):
        said = segcal("calibrate", "apply", artifact, work.scans.predictions, *reading, "-o", tmp_path / name, *more)
        assert said.code == 0, said.stderr
    names = sorted(path.name for path in (tmp_path / "serial").glob("*.nii.gz"))
    assert len(names) == 8
    for name in names:
        assert (tmp_path / "serial" / name).read_bytes() == (tmp_path / "dask" / name).read_bytes()


def test_a_failing_case_on_dask_workers_is_left_out_as_in_one_run(tmp_path: Path):
    folders = make_folders(tmp_path / "scans", make_scans(8, 1))
    path = folders.predictions / "case_05.nii.gz"
    path.write_bytes(path.read_bytes()[:-40])
    command = ["calibrate", "fit", *folders.arguments, *PROBABILITIES, "--on-failure", "continue"]
    for name, more in (("serial", ()), ("dask", ("--engine", "dask", "--jobs", "2"))):
        said = segcal(*command, *more, "-o", tmp_path / f"{name}.npz")
        assert (said.code, said.closing) == (8, "segcal: 8 cases, 7 done, 1 failed: case_05 (exit 8)")
    assert (tmp_path / "serial.npz").read_bytes() == (tmp_path / "dask.npz").read_bytes()


@pytest.mark.slow
def test_dask_says_nothing_of_its_own(work: Work, tmp_path: Path):
    """``-q`` and exit 0: nothing, whatever Dask thinks of ports, memory and workers that leave."""
    words = [*work.commands["sets"], "-o", tmp_path / "a.npz", "--engine", "dask", "--jobs", "2", "-q"]
    done = alone({}, *words)
    assert (done.stdout, done.stderr) == ("", "")
    assert_same(work, "sets", tmp_path)


@pytest.mark.slow
def test_ctrl_c_ends_dask_workers_without_a_word_of_theirs(work: Work, tmp_path: Path):
    """A terminal sends it to all processes of the run."""
    command = [*work.commands["sets"], "-o", tmp_path / "a.npz", "--engine", "dask", "--jobs", "2", "-v"]
    running = subprocess.Popen(
        [sys.executable, "-m", "segcal_cli.cli.app", *map(str, command)],
        stderr=subprocess.PIPE,
        text=True,
        start_new_session=True,
    )
    assert running.stderr is not None
    for line in running.stderr:
        if line.startswith("fitting"):
            break
    os.killpg(running.pid, signal.SIGINT)
    said = running.stderr.read()
    running.stderr.close()
    # Eight small cases may be through before the signal has come.
    assert running.wait(60) in (0, 130)
    assert "Traceback" not in said
    assert not list(tmp_path.glob(".*tmp*"))


@pytest.mark.slow
def test_a_dask_worker_that_is_killed_and_a_case_that_fails_leave_the_bytes_of_one_run(tmp_path: Path):
    """kill -9 of one of two workers in the middle of forty cases, one of which is damaged."""
    folders = make_folders(tmp_path / "scans", make_scans(40, 1))
    path = folders.predictions / "case_05.nii.gz"
    path.write_bytes(path.read_bytes()[:-40])
    command = ["conformal-sets", "fit", *folders.arguments, *PROBABILITIES, "--on-failure", "continue"]
    closing = "segcal: 40 cases, 39 done, 1 failed: case_05 (exit 8)"
    assert segcal(*command, "-o", tmp_path / "serial.npz").closing == closing
    words = [*command, "-o", tmp_path / "dask.npz", "--engine", "dask", "--jobs", "2", "-v"]
    running = subprocess.Popen(
        [sys.executable, "-m", "segcal_cli.cli.app", *map(str, words)], stderr=subprocess.PIPE, text=True
    )
    assert running.stderr is not None
    killed, said = 0, []
    for line in running.stderr:
        said.append(line)
        if line.startswith("fitting: 1 of") and not killed:
            killed = workers_of(running.pid)[0]
            os.kill(killed, signal.SIGKILL)
    running.stderr.close()
    assert killed
    assert running.wait(120) == 8, "".join(said)
    assert said[-1].strip() == closing
    assert not any("Traceback" in line for line in said)
    assert (tmp_path / "dask.npz").read_bytes() == (tmp_path / "serial.npz").read_bytes()


def workers_of(pid: int) -> list[int]:
    """Processes of a local cluster: children that spawn made to work, not the resource tracker."""
    children = Path(f"/proc/{pid}/task/{pid}/children").read_text().split()
    threads = [Path(f"/proc/{pid}/task/{task.name}/children") for task in Path(f"/proc/{pid}/task").iterdir()]
    children = [*children, *(child for one in threads for child in one.read_text().split())]
    return sorted({int(child) for child in children if "spawn_main" in Path(f"/proc/{child}/cmdline").read_text()})
