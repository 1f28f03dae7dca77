"""The engine: runs work over cases, and estimators over passes.

Serial runs decode the next cases in a thread while one is computed. With more jobs, cases go to spawned processes
(``processes.py``); Dask workers may stand in for these (``distributed.py``). Estimator states merge exactly and in any
order, so neither way, nor the order in which cases finish, can be seen in what comes out.
"""

from __future__ import annotations

import contextlib
import os
import time
from collections.abc import Callable, Generator, Iterator, Sequence
from concurrent.futures import Executor, Future, ThreadPoolExecutor
from contextvars import ContextVar
from itertools import islice
from typing import Any, Literal

from segcal_cli.core.errors import CaseErrors, InputError, SegcalError
from segcal_cli.core.estimator import Estimator
from segcal_cli.core.frozen import dataclass
from segcal_cli.core.names import escaped
from segcal_cli.core.observer import Observer
from segcal_cli.execution.distributed import Cluster, results_of
from segcal_cli.execution.environment import one_thread_each
from segcal_cli.execution.memory import keep_freed_memory
from segcal_cli.execution.work import InSteps, Item, Result, UnforeseenError, Work, attempt

OnFailure = Literal["stop", "continue"]

ALONE: ContextVar[bool] = ContextVar("ALONE", default=False)
"""Whether nothing is left to decode beside the case that is computed: the decoder's core is free."""


@dataclass(frozen=True, slots=True)
class Plan:
    """How to run. jobs: worker processes; 1 = in this process. on_failure: see ``run_estimator``. cluster: where Dask
    workers are, None without Dask.
    """

    jobs: int = 1
    on_failure: OnFailure = "stop"
    cluster: Cluster | None = None


def usable_cores() -> int:
    """Cores that this process may use (CPU affinity), at least 1."""
    if hasattr(os, "sched_getaffinity"):
        return max(1, len(os.sched_getaffinity(0)))
    return os.cpu_count() or 1


def results(
    work: Work, items: Sequence[Item], jobs: int = 1, cluster: Cluster | None = None
) -> Generator[Result, None, None]:
    """Do the work on every item; yields as cases finish, in no promised order. Raises UnforeseenError for a bug, and
    what ``execution/distributed.py`` raises.

    Closing the iterator early cancels what has not started.
    """
    keep_freed_memory()
    if cluster is not None:
        source = _on_dask(work, items, jobs, cluster)
    elif jobs == 1 or len(items) == 1:
        source = _serial(work, items)
    else:
        # multiprocessing takes longer to import than a small scan to measure.
        from segcal_cli.execution.processes import results_in_processes

        source = results_in_processes(work, items, jobs)
    with contextlib.closing(source):
        for result in source:
            if isinstance(result.error, UnforeseenError):
                raise result.error
            yield result


def run_estimator(
    estimator: Estimator, load: Any, items: Sequence[Item], plan: Plan, observer: Observer, what: str
) -> tuple[Any, list[Result]]:
    """Run every pass of an estimator. Returns what it came to, and the failed cases (``continue`` only).

    on_failure ``stop``: the first failure cancels what has not started, and CaseErrors lists all failures seen.
    ``continue``: failed cases are left out of this and all later passes; if none is left, CaseErrors too. Each pass
    reads the cases again.
    """
    failures: list[Result] = []
    current: Any = estimator
    number = 0
    while isinstance(current, Estimator):
        number += 1
        failed = {failure.id for failure in failures}
        remaining = [item for item in items if item.id not in failed and reads(current, item.id)]
        label = what if number == 1 else f"{what}, pass {number}"
        state, new_failures = one_pass(current, load, remaining, plan, observer, label)
        if new_failures and len(new_failures) == len(remaining):
            raise CaseErrors(*(failure.error for failure in new_failures))
        failures += new_failures
        current = current.finish(state)
    return current, sorted(failures, key=lambda failure: failure.id.encode())


def one_pass(
    estimator: Estimator, load: Any, items: Sequence[Item], plan: Plan, observer: Observer, label: str
) -> tuple[Any, list[Result]]:
    """One pass over the cases: the merged state, and the failed cases (``continue``, which may be all of them).

    Raises CaseErrors at the first failure under ``stop``.
    """
    state = estimator.empty()
    failures: list[Result] = []
    done = 0
    observer.progress(0, len(items), label)
    stream = results(Work(load, _Update(for_update(estimator))), items, plan.jobs, plan.cluster)
    with contextlib.closing(stream):
        for result in stream:
            done += 1
            observer.progress(done, len(items), label)
            if result.error is None:
                state = estimator.merge(state, result.value)
                continue
            failures.append(result)
            if plan.on_failure == "stop":
                break
    if failures and plan.on_failure == "stop":
        raise CaseErrors(*(failure.error for failure in failures))
    return state, failures


def reads(estimator: Estimator, case: str) -> bool:
    """Whether this pass needs the case."""
    wanted = getattr(estimator, "reads", None)
    return True if wanted is None else bool(wanted(case))


def for_update(estimator: Estimator) -> Estimator:
    """The estimator without what only ``finish`` needs, where it says how: it travels with every case."""
    light = getattr(estimator, "for_update", None)
    return estimator if light is None else light()


@dataclass(frozen=True, slots=True)
class _Update:
    """One case's own state: merging these equals updating one state case after case."""

    estimator: Estimator

    def __call__(self, case: Any) -> Any:
        return self.estimator.update(self.estimator.empty(), case)


def _serial(work: Work, items: Sequence[Item]) -> Generator[Result, None, None]:
    """Cases in their order; a thread decodes the next one while this one computes.

    Two cases are in memory then, and two cores are busy, as long as computing does not take much less than decoding.
    Where it does, and before there is anything to compute, this thread decodes too; so a third case may be in memory.
    """
    waiting = iter(items)
    with ThreadPoolExecutor(1, thread_name_prefix="decode") as decoder:
        pace = _Pace()

        def begin(count: int) -> list[_Loading]:
            return [_Loading(decoder, work, item, pace) for item in islice(waiting, count)]

        pending = begin(2)
        light, starting = False, True
        try:
            while pending:
                first, *pending = pending
                if (light or starting) and pending and not first.done():
                    pending[0].take_over()
                waited = first.wait()
                start = time.perf_counter()
                loaded = first.result()
                del first
                if light:
                    pending += begin(1)
                if loaded.error is None:
                    before = ALONE.set(all(other.done() for other in pending))
                    try:
                        with pace.computing():
                            loaded = attempt(loaded.id, work.compute, loaded.value)
                    finally:
                        ALONE.reset(before)
                    light = light or waited > (time.perf_counter() - start) / 2
                yield loaded
                del loaded
                starting = False
                pending += begin(2 - len(pending))
        finally:
            for other in pending:
                other.cancel()


class _Pace:
    """When the thread that computes will have time, judged by the case before: seconds on ``time.perf_counter``."""

    def __init__(self) -> None:
        self.free_at = self.computed = self.completed = 0.0

    @contextlib.contextmanager
    def computing(self) -> Iterator[None]:
        start = time.perf_counter()
        self.free_at = start + self.computed
        yield
        self.free_at = time.perf_counter()
        self.computed = self.free_at - start

    @contextlib.contextmanager
    def completing(self) -> Iterator[None]:
        start = time.perf_counter()
        yield
        self.completed = time.perf_counter() - start

    @property
    def time_to_complete(self) -> bool:
        """Whether a case that is completed now will be ready before anybody waits for it."""
        return time.perf_counter() + self.completed < self.free_at


class _Loading:
    """The loading of one case: begun by the decoder, or by whoever takes it over; completed by whoever has time."""

    def __init__(self, decoder: Executor, work: Work, item: Item, pace: _Pace) -> None:
        load = work.load
        self.item, self.pace = item, pace
        self.begin = load.decode if isinstance(load, InSteps) else load
        self.rest: Callable[[Any], Any] | None = load.complete if isinstance(load, InSteps) else None
        self.future: Future[tuple[Result, bool]] = decoder.submit(self._load)

    def done(self) -> bool:
        return self.future.done()

    def cancel(self) -> bool:
        return self.future.cancel()

    def take_over(self) -> None:
        """Load in this thread what the decoder has not begun with."""
        if self.future.cancel():
            self.future = Future()
            self.future.set_result(self._load())

    def wait(self) -> float:
        """Wait for the decoding; seconds."""
        start = time.perf_counter()
        self.future.exception()
        return time.perf_counter() - start

    def result(self) -> Result:
        """The case; what the decoder left is done here, while it goes on with the next."""
        result, complete = self.future.result()
        return result if complete else self._completed(result)

    def _load(self) -> tuple[Result, bool]:
        """What the case has come to, and whether that is all of it."""
        decoded = attempt(self.item.id, self.begin, self.item)
        if self.rest is None or decoded.error is not None:
            return decoded, True
        return (self._completed(decoded), True) if self.pace.time_to_complete else (decoded, False)

    def _completed(self, decoded: Result) -> Result:
        assert self.rest is not None, "only what is loaded in steps is completed"
        with self.pace.completing():
            return attempt(self.item.id, self.rest, decoded.value)


def _on_dask(work: Work, items: Sequence[Item], jobs: int, cluster: Cluster) -> Generator[Result, None, None]:
    with one_thread_each():
        yield from results_of(work, items, jobs, cluster)


def failure_records(failures: Sequence[Result]) -> list[dict[str, str]]:
    """Failures as the machine-readable records of ``--json``: case, file, error, message."""
    return [
        {
            "case": failure.id,
            "file": file_of(failure.error),
            "error": type(failure.error).__name__,
            "message": " ".join(str(failure.error).split()),
        }
        for failure in failures
    ]


def file_of(error: Exception | None) -> str:
    """The file name that an error starts with, without its folder; empty where it names none."""
    if isinstance(error, SegcalError) and isinstance(error, InputError) and error.args:
        first = error.args[0]
        return escaped(os.path.basename(os.fspath(first))) if isinstance(first, str | os.PathLike) else ""  # noqa: PTH119
    return ""
