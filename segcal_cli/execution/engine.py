"""The engine: runs work over cases, and estimators over passes.

Serial runs decode the next cases in a thread while one is computed. With more jobs, cases go to spawned
processes, a few ahead of the consumer, so that memory is bounded by the number of jobs. Dask workers may stand in
for processes (``distributed.py``). Estimator states merge
exactly and in any order, so neither way, nor the order in which cases finish, can be seen in what comes out.
"""

from __future__ import annotations

import contextlib
import multiprocessing
import multiprocessing.connection
import os
import signal
import threading
from collections.abc import Generator, Iterator, Sequence
from concurrent.futures import FIRST_COMPLETED, Executor, Future, ProcessPoolExecutor, ThreadPoolExecutor, wait
from concurrent.futures.process import BrokenProcessPool
from itertools import islice
from typing import Any, Literal

from segcal_cli.core.errors import CaseErrors, InputError, SegcalError
from segcal_cli.core.estimator import Estimator
from segcal_cli.core.frozen import dataclass
from segcal_cli.core.names import escaped
from segcal_cli.core.observer import Observer
from segcal_cli.execution.distributed import Cluster, results_of
from segcal_cli.execution.work import Item, Result, UnforeseenError, Work, WorkerDied, attempt, attempt_both

OnFailure = Literal["stop", "continue"]

AHEAD = 1
"""Cases submitted beyond those being worked on: enough that no worker waits, little enough to bound memory."""

HELD_BACK = (signal.SIGINT, signal.SIGTERM)
"""Signals that end a run, held back while a worker is being started."""

DECODED_AHEAD = 2
"""Cases decoded, or about to be, while one is computed; so three are in memory."""

THREAD_VARIABLES = ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS")
"""One BLAS thread per worker: more would oversubscribe the cores, and change last digits."""


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
    if cluster is not None:
        source = _on_dask(work, items, jobs, cluster)
    elif jobs == 1 or len(items) == 1:
        source = _serial(work, items)
    else:
        source = _parallel(work, items, jobs)
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
    """Cases in their order; a thread decodes the next ones.

    While there is nothing to compute, this thread decodes too. So two cores are busy whichever half takes longer, and
    no second decoder takes its core from what is computed.
    """
    waiting = iter(items)
    with ThreadPoolExecutor(1, thread_name_prefix="decode") as decoder:

        def ahead(count: int) -> list[_Decoding]:
            return [_Decoding.begun(decoder, work, item) for item in islice(waiting, count)]

        pending = ahead(DECODED_AHEAD)
        try:
            while pending:
                first, *others = pending
                if not first.future.done() and others:
                    others[0].take_over()
                loaded = first.future.result()
                pending = others + ahead(1)
                del first, others
                if loaded.error is None:
                    yield attempt(loaded.id, work.compute, loaded.value)
                else:
                    yield loaded
                del loaded
        finally:
            for decoding in pending:
                decoding.future.cancel()


class _Decoding:
    """The decoding of one case, by the decoder or by whoever takes it over."""

    def __init__(self, work: Work, item: Item, future: Future[Result]) -> None:
        self.work, self.item, self.future = work, item, future

    @classmethod
    def begun(cls, decoder: Executor, work: Work, item: Item) -> _Decoding:
        return cls(work, item, decoder.submit(attempt, item.id, work.load, item))

    def take_over(self) -> None:
        """Decode in this thread what the decoder has not begun with."""
        if self.future.cancel():
            self.future = Future()
            self.future.set_result(attempt(self.item.id, self.work.load, self.item))


def _parallel(work: Work, items: Sequence[Item], jobs: int) -> Generator[Result, None, None]:
    """Cases in spawned processes. If a worker dies, the cases in flight run once more, each alone."""
    with _one_thread_each():
        yield from _in_processes(work, list(items), jobs)


def _on_dask(work: Work, items: Sequence[Item], jobs: int, cluster: Cluster) -> Generator[Result, None, None]:
    with _one_thread_each():
        yield from results_of(work, items, jobs, cluster)


def _in_processes(work: Work, waiting: list[Item], jobs: int) -> Generator[Result, None, None]:
    while waiting:
        in_flight: dict[Future[Result], Item] = {}
        broken = False
        pool = _pool(min(jobs, len(waiting)))
        try:
            while (waiting or in_flight) and not broken:
                while waiting and len(in_flight) < jobs + AHEAD:
                    item = waiting.pop(0)
                    in_flight[_submitted(pool, work, item)] = item
                finished, _ = wait(in_flight, return_when=FIRST_COMPLETED)
                for future in finished:
                    if isinstance(future.exception(), BrokenProcessPool):
                        broken = True
                        continue
                    item = in_flight.pop(future)
                    yield _result_of(future, item)
        except BrokenProcessPool:
            # submit itself refuses once the pool has broken; the case it was to take has not started.
            waiting.insert(0, item)
            broken = True
        finally:
            _ended(pool)
        for suspect in in_flight.values() if broken else ():
            yield _alone(work, suspect)


def _ended(pool: Executor) -> None:
    """Wait for the cases in flight. Asked to stop a second time, kill the workers instead: one that outlived this
    process would complain of it."""
    try:
        pool.shutdown(wait=True, cancel_futures=True)
    except KeyboardInterrupt:
        for worker in multiprocessing.active_children():
            worker.kill()
        raise


def _alone(work: Work, item: Item) -> Result:
    with _pool(1) as pool:
        future = _submitted(pool, work, item)
        try:
            return _result_of(future, item)
        except BrokenProcessPool:
            return Result(item.id, error=WorkerDied(item.id))


def _result_of(future: Future[Result], item: Item) -> Result:
    """A result, or the reason why it could not travel between processes."""
    error = future.exception()
    if error is None:
        return future.result()
    if isinstance(error, BrokenProcessPool):
        raise error
    return Result(item.id, error=UnforeseenError(item.id, type(error).__name__, str(error), ""))


def _pool(workers: int) -> Executor:
    spawn = multiprocessing.get_context("spawn")
    return ProcessPoolExecutor(workers, mp_context=spawn, initializer=_quiet_interrupts)


@contextlib.contextmanager
def _one_thread_each() -> Iterator[None]:
    before = {name: os.environ.get(name) for name in THREAD_VARIABLES}
    os.environ.update(dict.fromkeys(THREAD_VARIABLES, "1"))
    try:
        yield
    finally:
        for name, value in before.items():
            if value is None:
                os.environ.pop(name, None)
            else:
                os.environ[name] = value


def _submitted(pool: Executor, work: Work, item: Item) -> Future[Result]:
    """Hand a case to the pool, which may start a worker for it."""
    with _signals_held_back():
        return pool.submit(attempt_both, work, item)


@contextlib.contextmanager
def _signals_held_back() -> Iterator[None]:
    """Signals that end the run wait until a worker is started, then take effect.

    An interrupt in the middle of starting one leaves a worker that waits for ever, and the pool waits for the worker.
    The mask is for the worker, which inherits it: Ctrl-C, which a terminal sends to all processes of a run, never
    reaches it, even while it is still importing; the parent shuts it down. The handlers are for this process, where
    another thread may take the signal.
    """
    caught: list[int] = []
    in_main = threading.current_thread() is threading.main_thread()
    handlers = {one: signal.signal(one, lambda number, _: caught.append(number)) for one in HELD_BACK if in_main}
    masks = hasattr(signal, "pthread_sigmask")
    before = signal.pthread_sigmask(signal.SIG_BLOCK, HELD_BACK) if masks else set()
    try:
        yield
    finally:
        if masks:
            signal.pthread_sigmask(signal.SIG_SETMASK, before)
        for one, handler in handlers.items():
            signal.signal(one, handler)
        for number in caught:
            signal.raise_signal(number)


def _quiet_interrupts() -> None:
    """Workers leave Ctrl-C to the parent, which shuts them down; they can be terminated once they have started.

    A parent that is killed shuts nobody down, so a worker leaves when its parent has gone: it would wait for ever, and
    might write beside the run that comes next.
    """
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    threading.Thread(target=_leave_with_parent, daemon=True).start()
    if hasattr(signal, "pthread_sigmask"):
        signal.pthread_sigmask(signal.SIG_UNBLOCK, {signal.SIGTERM})


def _leave_with_parent() -> None:
    parent = multiprocessing.parent_process()
    if parent is not None:
        multiprocessing.connection.wait([parent.sentinel])
        os._exit(1)


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
