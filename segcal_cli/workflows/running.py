"""How much of the machine a run uses."""

from __future__ import annotations

from segcal_cli.core.errors import UsageError
from segcal_cli.execution.distributed import Cluster, require_dask
from segcal_cli.execution.engine import Plan, usable_cores
from segcal_cli.workflows.requests import RunOptions

MAX_THREADS = 4
"""Threads that count one case: beyond these the memory bus, not the cores, sets the pace."""


class BadJobs(UsageError):
    """A number of jobs that cannot be."""

    template = "--jobs {0} is not allowed; give 1 or more, or 0 for all usable cores"


class NoEngine(UsageError):
    """A scheduler that nobody would talk to."""

    template = "--scheduler {0} goes with --engine dask"


def jobs_of(running: RunOptions) -> int:
    """Worker processes. Raises BadJobs."""
    if running.jobs < 0:
        raise BadJobs(running.jobs)
    return running.jobs or usable_cores()


def cluster_of(running: RunOptions) -> Cluster | None:
    """Where Dask workers are; None without Dask. Raises DaskMissing, NoEngine."""
    if running.engine == "local":
        if running.scheduler is not None:
            raise NoEngine(running.scheduler)
        return None
    require_dask()
    return Cluster(running.scheduler)


def plan_of(running: RunOptions) -> Plan:
    """How a fit or a measurement runs: it stops at a failing case unless told otherwise. Raises BadJobs, DaskMissing,
    NoEngine.
    """
    return Plan(jobs_of(running), running.on_failure or "stop", cluster_of(running))


def threads_of(jobs: int) -> int:
    """Threads per case: all cores when cases go one after the other, else one per process."""
    return min(MAX_THREADS, usable_cores()) if jobs == 1 else 1
