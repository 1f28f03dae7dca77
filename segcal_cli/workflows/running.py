"""How much of the machine a run uses."""

from __future__ import annotations

import contextlib
import importlib
import threading

from segcal_cli.core.errors import UsageError
from segcal_cli.execution.engine import usable_cores
from segcal_cli.workflows.requests import RunOptions

MAX_THREADS = 4
"""Threads that count one case: beyond these the memory bus, not the cores, sets the pace."""


class BadJobs(UsageError):
    """A number of jobs that cannot be."""

    template = "--jobs {0} is not allowed; give 1 or more, or 0 for all usable cores"


def jobs_of(running: RunOptions) -> int:
    """Worker processes. Raises BadJobs."""
    if running.jobs < 0:
        raise BadJobs(running.jobs)
    return running.jobs or usable_cores()


def threads_of(jobs: int) -> int:
    """Threads per case: all cores when cases go one after the other, else one per process."""
    return min(MAX_THREADS, usable_cores()) if jobs == 1 else 1


def import_ahead(module: str) -> None:
    """Import a module that the first case will need while that case is being decoded, which leaves a core idle.

    Whoever imports it meanwhile waits for this import, and meets its errors anew.
    """
    threading.Thread(target=_imported, args=(module,), daemon=True).start()


def _imported(module: str) -> None:
    with contextlib.suppress(ImportError):
        importlib.import_module(module)
