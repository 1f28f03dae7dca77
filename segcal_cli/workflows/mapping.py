"""Mapping: one output per case, every case on its own. What ``apply`` and ``convert`` share.

A case that fails fails alone: the good ones are finished, and the exit code says that some are missing.
"""

from __future__ import annotations

import contextlib
from typing import Any

from segcal_cli.core.errors import CaseErrors
from segcal_cli.core.observer import Observer
from segcal_cli.execution.engine import failure_records, results
from segcal_cli.execution.work import Work
from segcal_cli.workflows.inputs import Inputs
from segcal_cli.workflows.outcome import Counts, Outcome
from segcal_cli.workflows.requests import RunOptions
from segcal_cli.workflows.running import cluster_of, jobs_of


def map_cases(work: Work, inputs: Inputs, running: RunOptions, observer: Observer, what: str) -> Outcome:
    """Do the work on every opened case. ``compute`` returns a record (a dict with "case" and "warnings").

    ``--on-failure stop`` ends the run at the first failure; finished cases stay. Raises the failures where nothing was
    done.
    """
    stop = running.on_failure == "stop"
    failures = list(inputs.failures)
    records: list[dict[str, Any]] = []
    total = len(inputs.sources)
    if not (stop and failures):
        observer.progress(0, total, what)
        with contextlib.closing(results(work, inputs.sources, jobs_of(running), cluster_of(running))) as stream:
            for number, result in enumerate(stream, start=1):
                observer.progress(number, total, what)
                if result.error is None:
                    records.append(result.value)
                    for warning in result.value["warnings"]:
                        observer.warn(warning, result.id)
                else:
                    failures.append(result)
                    if stop:
                        break
    failures.sort(key=lambda failure: failure.id.encode())
    if not records:
        raise CaseErrors(*(failure.error for failure in failures))
    records.sort(key=lambda record: str(record["case"]).encode())
    failed = len(failures)
    skipped = len(inputs.sources) + len(inputs.failures) - len(records) - failed
    return Outcome(
        result={"cases": records, "not_run": skipped},
        counts=Counts(len(records) + failed + skipped, len(records), failed),
        failures=tuple(failure_records(failures)),
    )
