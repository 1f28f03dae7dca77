"""One run at a time on an output place; shards of one run side by side; a lock left by a killed run hinders nobody."""

from __future__ import annotations

import contextlib
import errno
import os
import signal
import threading
import time
from pathlib import Path

import pytest

from segcal_cli.core.errors import WriteError
from segcal_cli.io.atomic import temp_path
from segcal_cli.io.locks import InUse, LeftToAnother, held
from segcal_cli.io.run_files import RunFiles, Shard
from tests.cli.builders_reading import Study, nnunet_study, segcal, tree
from tests.cli.builders_runs import Forks, forks, states


@pytest.fixture(scope="module")
def study(tmp_path_factory) -> Study:
    study = nnunet_study(tmp_path_factory.mktemp("study"), ("a", "b"))
    assert segcal("calibrate", "fit", *study.both, "-o", study.root / "t.npz", "--no-summary").code == 0
    return study


def command(study: Study, out: Path, *options: object) -> list[object]:
    return ["calibrate", "apply", study.root / "t.npz", study.predictions, "-o", out, *options]


def test_names_of_the_files_of_a_run():
    whole, shard = RunFiles(Path("out")), RunFiles(Path("out"), shard=Shard(3, 40))
    table = RunFiles(Path("out"), "ratios.csv")
    assert [path.name for path in (whole.record, whole.journal, whole.lock)] == [
        "segcal-run.json", ".segcal-journal.jsonl", ".segcal.lock",
    ]  # fmt: skip
    assert [path.name for path in (shard.record, shard.journal, shard.lock)] == [
        "segcal-run.shard-003-of-040.json",
        ".segcal-journal.shard-003-of-040.jsonl",
        ".segcal.shard-003-of-040.lock",
    ]
    assert [path.name for path in (table.record, table.journal, table.lock)] == [
        "ratios.csv.segcal-run.json", ".ratios.csv.segcal-journal.jsonl", ".ratios.csv.segcal.lock",
    ]  # fmt: skip
    assert (whole.tag, shard.tag, table.tag) == ("segcal", "segcal.shard-003-of-040", "ratios.csv.segcal")
    assert (whole.target, table.target) == (Path("out"), Path("out/ratios.csv"))


def test_a_second_run_is_turned_away_and_changes_nothing(study, tmp_path):
    assert segcal(*command(study, tmp_path)).code == 0
    before = tree(tmp_path)
    with held(RunFiles(tmp_path)):
        ran = segcal(*command(study, tmp_path, "--overwrite"))
        assert (ran.code, ran.closing) == (4, f"segcal: {tmp_path} is in use by another segcal (exit 4)")
        ran = segcal(*command(study, tmp_path, "--overwrite", "--if-locked", "skip"))
        assert (ran.code, ran.closing) == (
            0, f"segcal: {tmp_path} is in use by another segcal, left to it (exit 0)",
        )  # fmt: skip
        assert segcal(*command(study, tmp_path, "--overwrite", "--if-locked", "skip", "-q")).err == ""
    assert tree(tmp_path) == before


def test_a_run_may_wait_for_the_other(study, tmp_path):
    taken = threading.Event()

    def other() -> None:
        with held(RunFiles(tmp_path)):
            taken.set()
            time.sleep(0.3)

    threading.Thread(target=other).start()
    taken.wait()
    ran = segcal(*command(study, tmp_path, "--if-locked", "wait"))
    assert ran.closing == "segcal: 2 cases, 2 done (exit 0)"


def test_a_table_and_a_folder_beside_it_have_locks_of_their_own(tmp_path):
    table = RunFiles(tmp_path, "ratios.csv")
    with held(RunFiles(tmp_path)), held(table), held(RunFiles(tmp_path, "others.csv")):
        pass
    with held(table), pytest.raises(InUse, match=r"ratios\.csv is in use by another segcal"), held(table):
        pass


def test_shards_hold_their_locks_together_and_each_once(tmp_path):
    first, second = (RunFiles(tmp_path, shard=Shard(number, 2)) for number in (1, 2))
    with held(first), held(second), pytest.raises(InUse), held(first):
        pass


@pytest.mark.parametrize(("if_locked", "error"), [("fail", InUse), ("skip", LeftToAnother)])
def test_a_whole_run_works_alone(tmp_path, if_locked, error):
    whole, shard = RunFiles(tmp_path), RunFiles(tmp_path, shard=Shard(1, 2))
    with held(shard), pytest.raises(error), held(whole, if_locked):
        pass
    with held(whole):
        pass


def test_a_shard_waits_for_the_whole_runs_lock_only_so_long(tmp_path, monkeypatch):
    monkeypatch.setattr("segcal_cli.io.locks.ENTRY_SECONDS", 0.1)
    with held(RunFiles(tmp_path)), pytest.raises(InUse), held(RunFiles(tmp_path, shard=Shard(1, 2))):
        pass


def test_a_lock_that_cannot_be_made_is_a_write_error():
    with pytest.raises(WriteError, match=r"cannot write /proc/\.segcal\.lock"), held(RunFiles(Path("/proc"))):
        pass


def test_a_lock_left_by_kill_9_hinders_nobody_and_its_temps_are_removed(study, tmp_path):
    out = tmp_path / "out"
    with forks(tmp_path, cold=True) as forked:
        forked.run(*command(study, out))
        left = temp_path(out / "a_desc-calibrated_probseg.nii.gz", "segcal")
        left.write_bytes(b"half")
        others = temp_path(out / "cal.npz", "file")
        others.write_bytes(b"somebody else writes this")
        descriptor = os.open(out / ".segcal.lock", os.O_RDWR)
        os.close(descriptor)
        ran, _ = forked.run(*command(study, out, "--skip-existing"))
    assert ran.closing == "segcal: 2 cases, 0 done, 2 skipped (exit 0)"
    assert not left.exists()
    assert others.exists()


def test_two_processes_at_once_one_works_and_one_is_turned_away(study, tmp_path):
    """The second starts while the first holds the lock: the first is stopped in the middle."""
    many = nnunet_study(tmp_path / "many", tuple(f"c{number:03d}" for number in range(60)))
    out = tmp_path / "out"
    arguments = ["calibrate", "apply", study.root / "t.npz", many.predictions, "-o", out]
    with forks(tmp_path, cold=True) as first, forks(tmp_path / "many", cold=True) as second:
        ended: list[int] = []
        worker = threading.Thread(target=lambda: ended.append(first.run(*arguments)[0].code))
        worker.start()
        deadline = time.monotonic() + 60
        while not (out / ".segcal-journal.jsonl").exists() and time.monotonic() < deadline:
            time.sleep(0.002)
        child = children(first.process.pid)[0]
        os.kill(child, signal.SIGSTOP)
        turned_away, _ = second.run(*arguments, "--overwrite")
        os.kill(child, signal.SIGCONT)
        worker.join()
    assert turned_away.closing == f"segcal: {out} is in use by another segcal (exit 4)"
    assert ended == [0]
    assert set(states(out).values()) == {"done"}


def children(pid: int) -> list[int]:
    return [int(child) for child in Path(f"/proc/{pid}/task/{pid}/children").read_text().split()]


def test_three_shards_at_once_on_one_folder_merge_into_the_files_of_one_run(study, tmp_path):
    """They overlap: the first is stopped in the middle until the others have ended. A whole run is turned away."""
    many = nnunet_study(tmp_path / "many", tuple(f"c{number:03d}" for number in range(60)))
    out, alone = tmp_path / "out", tmp_path / "alone"
    arguments = ["calibrate", "apply", study.root / "t.npz", many.predictions, "-o"]
    assert segcal(*arguments, alone).code == 0
    closing: dict[int, str] = {}
    folders = [tmp_path / f"machine{number}" for number in range(4)]

    def run(number: int, forked: Forks) -> None:
        closing[number] = forked.run(*arguments, out, "--shard", f"{number}/3")[0].closing

    with contextlib.ExitStack() as stack:
        for folder in folders:
            folder.mkdir()
        machines = [stack.enter_context(forks(folder, cold=True)) for folder in folders]
        first, *others = [threading.Thread(target=run, args=(n, machines[n - 1])) for n in (1, 2, 3)]
        first.start()
        deadline = time.monotonic() + 60
        while not (out / ".segcal-journal.shard-001-of-003.jsonl").exists() and time.monotonic() < deadline:
            time.sleep(0.002)
        child = children(machines[0].process.pid)[0]
        os.kill(child, signal.SIGSTOP)
        for other in others:
            other.start()
        for other in others:
            other.join()
        assert set(closing) == {2, 3}
        turned_away, _ = machines[3].run(*arguments, out, "--overwrite")
        os.kill(child, signal.SIGCONT)
        first.join()
    assert turned_away.closing == f"segcal: {out} is in use by another segcal (exit 4)"
    assert set(closing.values()) == {"segcal: 20 cases, 20 done (exit 0)"}
    joined = segcal("merge", *sorted(out.glob("segcal-run.shard-*.json")), "-o", out)
    assert joined.closing == "segcal: 60 cases, 60 done (exit 0)"
    outputs = {name: content for name, content in tree(alone).items() if "segcal" not in name}
    assert len(outputs) >= 60
    assert {name: content for name, content in tree(out).items() if "segcal" not in name} == outputs
    assert segcal(*arguments, out, "--skip-existing").closing == "segcal: 60 cases, 0 done, 60 skipped (exit 0)"


@pytest.mark.parametrize("code", [errno.ENOSYS, errno.ENOLCK, errno.EOPNOTSUPP])
def test_where_there_are_no_locks_a_run_goes_on_and_says_so(code, study, tmp_path, monkeypatch):
    def flock(*_: object) -> None:
        raise OSError(code, "no locks")

    monkeypatch.setattr("fcntl.flock", flock)
    ran = segcal(*command(study, tmp_path / "out"))
    assert ran.code == 0
    warning = (
        f"warning: {tmp_path / 'out'}: this file system has no locks; let no other run work there at the same time"
    )
    assert warning in ran.err.splitlines()
    assert set(states(tmp_path / "out").values()) == {"done"}


def test_a_lock_that_fails_is_a_write_error(study, tmp_path, monkeypatch):
    def flock(*_: object) -> None:
        raise OSError(errno.EIO, "Input/output error")

    monkeypatch.setattr("fcntl.flock", flock)
    ran = segcal(*command(study, tmp_path / "out"))
    assert ran.closing == f"segcal: cannot write {tmp_path / 'out' / '.segcal.lock'}: input/output error (exit 4)"
