"""The Dask engine: same results, failures as records, dead workers survived, and workers that cannot do the work."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest
from distributed import LocalCluster

from segcal_cli.core.errors import UsageError
from segcal_cli.core.observer import Silent
from segcal_cli.execution import distributed
from segcal_cli.execution.distributed import Cluster, DaskMissing, NoScheduler, OtherSegcal, UnseenFile
from segcal_cli.execution.engine import Plan, results, run_estimator
from segcal_cli.execution.work import UnforeseenError, Work, WorkerDied
from segcal_cli.workflows.requests import RunOptions
from segcal_cli.workflows.running import ForeignWorkers, NoEngine, cluster_of
from tests.execution.test_engine import Number, SumThenCentre, die_always, die_once, load, square, type_error

HERE = Cluster()
"""Two workers on this machine, which all tests of this module share."""


@pytest.fixture(scope="module", autouse=True)
def _no_cluster_is_left() -> Iterator[None]:
    yield
    distributed.close_clients()


def numbers(folder: Path | str = "") -> list[Number]:
    return [Number(f"case_{i}", i, str(folder)) for i in range(8)]


def by_id(work: Work, items: list) -> dict:
    return {result.id: result for result in results(work, items, 2, HERE)}


def test_every_case_comes_back():
    found = by_id(Work(load, square), numbers())
    assert {id: result.value for id, result in found.items()} == {f"case_{i}": i**2 for i in range(8)}


def test_an_estimator_of_two_passes_comes_to_the_same_result():
    serial, _ = run_estimator(SumThenCentre(), load, numbers(), Plan(), Silent(), "x")
    dask, _ = run_estimator(SumThenCentre(), load, numbers(), Plan(2, cluster=HERE), Silent(), "x")
    assert dask == serial


def test_one_failing_case_of_eight_is_one_record():
    items = numbers()
    items[5] = Number("case_5", -1)
    found = by_id(Work(load, square), items)
    assert len(found) == 8
    assert [id for id, result in found.items() if result.error is not None] == ["case_5"]
    assert str(found["case_5"].error) == "/somewhere/case_5.nii.gz: broken"


def test_a_worker_that_dies_once_costs_nothing(tmp_path: Path):
    found = by_id(Work(load, die_once), numbers(tmp_path))
    assert {id: result.value for id, result in found.items()} == {f"case_{i}": i for i in range(8)}


def test_a_case_that_kills_its_worker_twice_fails_alone():
    found = by_id(Work(load, die_always), numbers())
    assert sorted(found) == [f"case_{i}" for i in range(8)]
    assert [id for id, result in found.items() if result.error is not None] == ["case_3"]
    assert type(found["case_3"].error) is WorkerDied


def test_a_bug_is_not_a_failed_case():
    with pytest.raises(UnforeseenError, match=r"TypeError in case_\d"):
        by_id(Work(load, type_error), numbers())


def test_results_can_be_closed_early_and_the_workers_go_on_to_other_work():
    stream = results(Work(load, square), numbers(), 2, HERE)
    next(stream)
    stream.close()
    assert len(by_id(Work(load, square), numbers())) == 8


@dataclass(frozen=True)
class OnDisk:
    """A case with a file, as ``CaseSource`` has them."""

    id: str
    path: str

    @property
    def paths(self) -> tuple[str, ...]:
        return (self.path,)


def text_of(item: OnDisk) -> str:
    return Path(item.path).read_text()


def same(value: str) -> str:
    return value


def test_a_worker_that_cannot_see_the_files_ends_the_run_with_the_path(tmp_path: Path):
    with pytest.raises(UnseenFile, match=r"a\.nii: the Dask worker tcp://127\.0\.0\.1:\d+ cannot see it"):
        by_id(Work(text_of, same), [OnDisk("a", str(tmp_path / "a.nii"))])


def test_relative_paths_are_relative_to_the_folder_of_the_run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    (tmp_path / "a.txt").write_text("here")
    monkeypatch.chdir(tmp_path)
    assert by_id(Work(text_of, same), [OnDisk("a", "a.txt")])["a"].value == "here"


def test_workers_of_another_version_are_refused(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(distributed, "__version__", "9.9.9")
    with pytest.raises(OtherSegcal, match=r"has segcal .*, this is segcal 9\.9\.9"):
        by_id(Work(load, square), numbers())


def test_the_workers_of_a_running_scheduler_do_the_work():
    place = {"host": "127.0.0.1", "dashboard_address": "127.0.0.1:0"}
    with LocalCluster(n_workers=1, threads_per_worker=1, **place) as running:
        found = list(results(Work(load, square), numbers(), 1, Cluster(running.scheduler_address)))
        distributed.close_clients()
    assert sorted(result.value for result in found) == [i**2 for i in range(8)]


def test_no_scheduler_is_an_error_that_names_the_address(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(distributed, "CONNECT_SECONDS", 1)
    with pytest.raises(NoScheduler, match=r"tcp://127\.0\.0\.1:9: no Dask scheduler answers there"):
        list(results(Work(load, square), numbers(), 1, Cluster("tcp://127.0.0.1:9")))


def test_without_the_extra_the_pip_line_is_named(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(distributed, "find_spec", lambda name: None)
    with pytest.raises(DaskMissing) as raised:
        cluster_of(RunOptions(engine="dask"))
    assert str(raised.value) == '--engine dask needs: pip install "segcal[dask]"'
    assert isinstance(raised.value, UsageError)


def test_options_that_contradict_each_other_are_refused():
    assert cluster_of(RunOptions()) is None
    assert cluster_of(RunOptions(engine="dask")) == Cluster()
    with pytest.raises(NoEngine, match="--scheduler tcp://a:1 goes with --engine dask"):
        cluster_of(RunOptions(scheduler="tcp://a:1"))
    with pytest.raises(ForeignWorkers, match="--jobs 3 does not go with --scheduler"):
        cluster_of(RunOptions(jobs=3, engine="dask", scheduler="tcp://a:1"))
