"""Work on Dask workers: those of a scheduler that somebody runs, or of a cluster on this machine.

Cases go out all at once and come back as they finish; each is let go as soon as it has been taken. Work returns a
result or an error record and never raises, so the only exceptions here are Dask's own. A worker that dies takes the
cases that it held down with it: each of them runs once more, alone, and the one that kills its worker again fails.

Dask talks pickle between processes that all belong to the user; who can reach a scheduler can run code on its
workers. So the cluster on this machine listens to this machine only.
"""

from __future__ import annotations

import atexit
import contextlib
import logging
import os
import signal
from collections.abc import Generator, Iterable, Iterator, Sequence
from functools import partial
from importlib.util import find_spec
from typing import Any

from segcal_cli import __version__
from segcal_cli.core.errors import InputError, UsageError
from segcal_cli.core.frozen import dataclass
from segcal_cli.execution.work import Item, Result, SystemRefused, Work, WorkerDied, attempt_both

CONNECT_SECONDS = 15
"""How long a scheduler may take to answer before it is said to be absent."""


class DaskMissing(UsageError):
    """The extra is not installed."""

    template = '--engine dask needs: pip install "segcal[dask]"'


class NoScheduler(InputError):
    """Nobody answers at the address, or nobody does any more."""

    template = "{0}: no Dask scheduler answers there ({1})"


class UnseenFile(InputError):
    """A worker without the files. Arguments: path, address of the worker."""

    template = "{0}: the Dask worker {1} cannot see it; every worker needs the same files at the same place"


class OtherSegcal(InputError):
    """A worker with another program. Arguments: address of the worker, what it has, what this is."""

    template = "the Dask worker {0} has segcal {1}, this is segcal {2}: results could differ; install one version"


@dataclass(frozen=True, slots=True)
class Cluster:
    """Where Dask workers are. scheduler: its address; None: workers on this machine, as many as jobs."""

    scheduler: str | None = None


def require_dask() -> None:
    """Raise DaskMissing unless the extra is installed."""
    if find_spec("distributed") is None:
        raise DaskMissing


def results_of(work: Work, items: Sequence[Item], jobs: int, cluster: Cluster) -> Generator[Result, None, None]:
    """Do the work on every item; yields as cases finish. Raises DaskMissing, NoScheduler, UnseenFile, OtherSegcal."""
    require_dask()
    from distributed import as_completed
    from distributed.client import FutureCancelledError
    from distributed.comm import CommClosedError

    client = _client(cluster, jobs)
    _require_same(client, items)
    task = partial(_attempt_at, os.getcwd(), work)  # noqa: PTH109
    futures = dict(zip(client.map(task, items, pure=False, retries=1), items, strict=True))
    suspects: list[Item] = []
    try:
        finished = as_completed(list(futures), loop=client.loop)
        for future in finished:
            item = futures.pop(future)
            result = _result_of(future, item)
            future.release()
            if isinstance(result.error, WorkerDied):
                suspects.append(item)
            else:
                yield result
        for item in suspects:
            # Alone, so that it is known which case it was.
            future = client.submit(task, item, pure=False)
            futures[future] = item
            yield _result_of(future, item)
            del futures[future]
    except (CommClosedError, FutureCancelledError) as error:
        raise NoScheduler(cluster.scheduler or "the local cluster", str(error) or type(error).__name__) from error
    finally:
        if futures:
            client.cancel(list(futures), force=True)


def _attempt_at(folder: str, work: Work, item: Item) -> Result:
    """Both halves of the work, in the folder that relative paths are relative to."""
    try:
        os.chdir(folder)
    except OSError as error:
        return Result(item.id, error=SystemRefused(folder, (error.strerror or str(error)).lower()))
    return attempt_both(work, item)


def _result_of(future: Any, item: Item) -> Result:
    """A result; WorkerDied where Dask gave the case up."""
    from distributed import KilledWorker

    try:
        return future.result()
    except KilledWorker:
        return Result(item.id, error=WorkerDied(item.id))


_clients: dict[tuple[str | None, int], Any] = {}
"""One per scheduler and number of jobs: a cluster takes seconds to start, and a method of several passes needs one
for each pass."""


def _client(cluster: Cluster, jobs: int) -> Any:
    key = (cluster.scheduler, 0 if cluster.scheduler else jobs)
    if key not in _clients or _clients[key].status != "running":
        _clients[key] = _local_client(jobs) if cluster.scheduler is None else _remote_client(cluster.scheduler)
    return _clients[key]


def _remote_client(address: str) -> Any:
    from distributed import Client

    try:
        client = Client(address, timeout=CONNECT_SECONDS, set_as_default=False)
    except (OSError, TimeoutError, ValueError) as error:
        raise NoScheduler(address, str(error) or type(error).__name__) from error
    return client


def _local_client(jobs: int) -> Any:
    import dask
    from distributed import Client, LocalCluster

    # A case that was on a worker that died is given back at once: it runs again alone.
    dask.config.set({"distributed.scheduler.allowed-failures": 0})
    with _interrupts_held_back():
        cluster = LocalCluster(
            n_workers=jobs,
            threads_per_worker=1,
            dashboard_address=None,
            host="127.0.0.1",
            # Without a dashboard Dask still serves HTTP, on a fixed port that another run may have.
            scheduler_kwargs={"dashboard_address": "127.0.0.1:0"},
            silence_logs=logging.CRITICAL,
        )
    return Client(cluster, set_as_default=False)


@contextlib.contextmanager
def _interrupts_held_back() -> Iterator[None]:
    """Threads that begin here, and the workers that these start, never get the Ctrl-C that a terminal sends to all
    processes of a run: this process ends them.
    """
    if not hasattr(signal, "pthread_sigmask"):
        yield
        return
    # With Dask alone: multiprocessing takes longer to import than a small scan to measure.
    from multiprocessing import resource_tracker

    # It is started with the first process, and lets the signal through again.
    resource_tracker.ensure_running()
    before = signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT})
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)


@atexit.register
def close_clients() -> None:
    """Let go of every scheduler, and end the workers of this machine."""
    while _clients:
        _, client = _clients.popitem()
        cluster = client.cluster
        client.close()
        if cluster is not None:
            cluster.close()


def _require_same(client: Any, items: Sequence[Item]) -> None:
    """Raise OtherSegcal or UnseenFile for a worker of another version, or one that has not the files of a case."""
    paths = [os.path.abspath(path) for path in getattr(items[0], "paths", ())] if items else []  # noqa: PTH100
    for address, found in client.run(_what_it_has, paths).items():
        version, missing = found
        if version != __version__:
            raise OtherSegcal(address, version, __version__)
        if missing is not None:
            raise UnseenFile(missing, address)


def _what_it_has(paths: Iterable[str]) -> tuple[str, str | None]:
    """The worker's version of segcal, and the first of the paths that it cannot see."""
    from segcal_cli import __version__ as version

    return version, next((path for path in paths if not os.access(path, os.R_OK)), None)
