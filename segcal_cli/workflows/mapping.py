"""Mapping: every case on its own, in whatever order cases finish, and what came of each.

A case that fails fails alone: the good ones are finished. ``--on-failure stop`` ends the run at the first failure, and
what was finished stays.
"""

from __future__ import annotations

import contextlib
from collections.abc import Sequence
from typing import Any

from segcal_cli.core.frozen import dataclass
from segcal_cli.core.observer import Observer
from segcal_cli.execution.engine import results
from segcal_cli.execution.work import Item, Result, Work
from segcal_cli.workflows.requests import RunOptions
from segcal_cli.workflows.running import cluster_of, jobs_of, on_failure_of


@dataclass(frozen=True, slots=True)
class Mapped:
    """values: what ``compute`` returned, by case id. failures: in the order of ids."""

    values: dict[str, Any]
    failures: tuple[Result, ...]


def map_cases(
    work: Work, items: Sequence[Item], failures: Sequence[Result], running: RunOptions, observer: Observer, what: str
) -> Mapped:
    """Do the work on every item. ``compute`` returns a dict with "warnings". failures: of cases that would not open."""
    stop = on_failure_of(running, "continue") == "stop"
    failed = list(failures)
    values: dict[str, Any] = {}
    total = len(items)
    if not (stop and failed) and items:
        observer.progress(0, total, what)
        with contextlib.closing(results(work, items, jobs_of(running), cluster_of(running))) as stream:
            for number, result in enumerate(stream, start=1):
                observer.progress(number, total, what)
                if result.error is None:
                    values[result.id] = result.value
                    for warning in result.value["warnings"]:
                        observer.warn(warning, result.id)
                else:
                    failed.append(result)
                    if stop:
                        break
    failed.sort(key=lambda failure: failure.id.encode())
    return Mapped({case: values[case] for case in sorted(values, key=str.encode)}, tuple(failed))
