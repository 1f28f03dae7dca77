"""How much of the machine a run uses, and what its failures come to."""

from __future__ import annotations

import math

from segcal_cli.core.errors import UsageError
from segcal_cli.execution.distributed import Cluster, require_dask
from segcal_cli.execution.engine import OnFailure, Plan, usable_cores
from segcal_cli.workflows.outcome import DONE, PARTIAL, Counts
from segcal_cli.workflows.requests import FolderOptions, RunOptions

MAX_THREADS = 4
"""Threads that count one case: beyond these the memory bus, not the cores, sets the pace."""


class BadJobs(UsageError):
    """A number of jobs that cannot be."""

    template = "--jobs {0} is not allowed; give 1 or more, or 0 for all usable cores"


class PartialStop(UsageError):
    """A run that ends at the first failure is never partly done on purpose."""

    template = "--allow-partial has no meaning where the first failure stops the run; give --on-failure continue"


class NoEngine(UsageError):
    """A scheduler that nobody would talk to."""

    template = "--scheduler {0} goes with --engine dask"


class ForeignWorkers(UsageError):
    """A number of workers for a cluster that has its own."""

    template = "--jobs {0} does not go with --scheduler: the cluster has its own workers"


class TwoWishes(UsageError):
    """Every case again, and only those that changed."""

    template = "--overwrite does every case again, --skip-existing only what changed; give one of them"


class BadAge(UsageError):
    """An age that no file has."""

    template = "--min-age {0:g} is not allowed; give seconds, 0 or more"


def refuse_contradictions(running: RunOptions, writing: FolderOptions) -> None:
    """Raise what is wrong with how a run on an output place is asked for, before anything is read."""
    if writing.overwrite and writing.skip_existing:
        raise TwoWishes
    if not 0 <= writing.min_age < math.inf:
        raise BadAge(writing.min_age)
    on_failure_of(running, "continue")
    jobs_of(running)
    cluster_of(running)


def jobs_of(running: RunOptions) -> int:
    """Worker processes. Raises BadJobs."""
    if running.jobs < 0:
        raise BadJobs(running.jobs)
    return running.jobs or usable_cores()


def on_failure_of(running: RunOptions, default: OnFailure) -> OnFailure:
    """What a failing case does. Raises PartialStop."""
    chosen = running.on_failure or default
    if running.allow_partial and chosen == "stop":
        raise PartialStop
    return chosen


def exit_code_of(counts: Counts, running: RunOptions) -> int:
    """The exit code of these counts; a part is enough with ``--allow-partial``."""
    return DONE if counts.exit_code == PARTIAL and running.allow_partial else counts.exit_code


def cluster_of(running: RunOptions) -> Cluster | None:
    """Where Dask workers are; None without Dask. Raises DaskMissing, NoEngine, ForeignWorkers."""
    if running.engine == "local":
        if running.scheduler is not None:
            raise NoEngine(running.scheduler)
        return None
    require_dask()
    if running.scheduler is not None and running.jobs != 1:
        raise ForeignWorkers(running.jobs)
    return Cluster(running.scheduler)


def require_workers(running: RunOptions) -> None:
    """Raise BadJobs, DaskMissing, NoEngine or ForeignWorkers before anything is read."""
    jobs_of(running)
    cluster_of(running)


def plan_of(running: RunOptions) -> Plan:
    """How a fit or a measurement runs: it stops at a failing case unless told otherwise. Raises BadJobs, DaskMissing,
    NoEngine, ForeignWorkers, PartialStop.
    """
    return Plan(jobs_of(running), on_failure_of(running, "stop"), cluster_of(running))


def threads_of(plan: Plan, *, spare: int = 0) -> int:
    """Threads per case: all cores when cases go one after the other, else one per process. spare: cores left to the
    decoding of the next cases.
    """
    alone = plan.jobs == 1 and plan.cluster is None
    return max(1, min(MAX_THREADS, usable_cores() - spare)) if alone else 1
