"""Cases in spawned processes, submitted a few ahead of the consumer, so that the number of jobs bounds the memory."""

from __future__ import annotations

import contextlib
import multiprocessing
import multiprocessing.connection
import os
import signal
import threading
from collections.abc import Generator, Iterator, Sequence
from concurrent.futures import FIRST_COMPLETED, Executor, Future, ProcessPoolExecutor, wait
from concurrent.futures.process import BrokenProcessPool

from segcal_cli.execution.environment import one_thread_each
from segcal_cli.execution.memory import keep_freed_memory
from segcal_cli.execution.work import Item, Result, UnforeseenError, Work, WorkerDied, attempt_both

AHEAD = 1
"""Cases submitted beyond those being worked on: enough that no worker waits, little enough to bound memory."""

HELD_BACK = (signal.SIGINT, signal.SIGTERM)
"""Signals that end a run, held back while a worker is being started."""


def results_in_processes(work: Work, items: Sequence[Item], jobs: int) -> Generator[Result, None, None]:
    """Cases in spawned processes. If a worker dies, the cases in flight run once more, each alone."""
    with one_thread_each():
        yield from _in_processes(work, list(items), jobs)


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
    return ProcessPoolExecutor(workers, mp_context=spawn, initializer=_begin_worker)


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


def _begin_worker() -> None:
    keep_freed_memory()
    _quiet_interrupts()


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
