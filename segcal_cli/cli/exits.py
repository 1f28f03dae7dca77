"""The only map from what happened to an exit code and a closing line.

0 done, 1 a bug in segcal, 2 usage, 3 no case, 4 bad input and nothing produced, 5 artifact, 8 some cases failed, 130
interrupted. ``guarded`` runs one command: it catches what ends a run, prints what a person or a program needs, and
leaves with the code that the closing line names.
"""

from __future__ import annotations

import os
import signal
import sys
import traceback
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

import typer

from segcal_cli.cli.console import NORMAL, Console
from segcal_cli.core.errors import (
    ArtifactError,
    CaseErrors,
    InputError,
    NoCaseError,
    SegcalError,
    UsageError,
    first_line,
    with_case,
)

if TYPE_CHECKING:
    from segcal_cli.core.observer import Observer
    from segcal_cli.workflows.outcome import Outcome

BUG, USAGE, NO_CASE, BAD_INPUT, BAD_ARTIFACT, INTERRUPTED = 1, 2, 3, 4, 5, 130

CODES: tuple[tuple[type[SegcalError], int], ...] = (
    (UsageError, USAGE),
    (NoCaseError, NO_CASE),
    (InputError, BAD_INPUT),
    (ArtifactError, BAD_ARTIFACT),
)


def code_of(error: SegcalError) -> int:
    """The exit code of an expected error; several problems together have the code of the family they share."""
    if isinstance(error, CaseErrors):
        codes = {code_of(inner) if isinstance(inner, SegcalError) else BAD_INPUT for inner in error.args}
        return codes.pop() if len(codes) == 1 else BAD_INPUT
    return next((code for family, code in CODES if isinstance(error, family)), BUG)


def guarded(command: str, console: Console, as_json: bool, action: Callable[[Observer], Outcome]) -> None:
    """Run one command and leave by ``typer.Exit``. ``action`` gets the console as its Observer."""
    try:
        with _terminable():
            outcome = action(console)
    except KeyboardInterrupt:
        console.finish_progress()
        closing = f"interrupted after {console.done} of {console.total} cases"
        _leave(command, console, as_json, INTERRUPTED, closing)
    except CaseErrors as error:
        console.finish_progress()
        console.case_warnings()
        for inner in error.args:
            console.error(_message(inner))
        closing = f"{_unusable(error.args, console.total)}, nothing written"
        _leave(command, console, as_json, code_of(error), closing, _records(error.args))
    except SegcalError as error:
        console.finish_progress()
        console.case_warnings()
        _leave(command, console, as_json, code_of(error), _message(error), _records((error,)))
    except OSError as error:
        console.finish_progress()
        text = f"{error.filename}: {(error.strerror or str(error)).lower()}" if error.filename else str(error)
        _leave(command, console, as_json, BAD_INPUT, text, _records((error,)))
    except Exception as error:
        console.finish_progress()
        trace = error.args[3] if type(error).__name__ == "UnforeseenError" else ""
        console.trace(trace or traceback.format_exc())
        named = str(error) if trace else f"{type(error).__name__}: {first_line(error)}"
        closing = f"{named}. A bug in segcal; please report it with --log-file"
        _leave(command, console, as_json, BUG, closing, _records((error,)))
    console.finish_progress()
    _finish(command, console, as_json, outcome)


def _finish(command: str, console: Console, as_json: bool, outcome: Outcome) -> None:
    console.case_warnings()
    for line in outcome.lines:
        console.line(line)
    for table in outcome.tables:
        console.table(table)
    for failure in outcome.failures:
        console.error(with_case(failure["case"], failure["message"]))
    counts = outcome.counts
    if not as_json and outcome.data:
        _write_stdout(outcome.data)
    closing = f"{counts.cases} {_plural('case', 'cases', counts.cases)}, {counts.done} done"
    if counts.failed:
        closing += f", {counts.failed} failed: {', '.join(failure['case'] for failure in outcome.failures[:5])}"
        closing += ", ..." if len(outcome.failures) > 5 else ""
    _leave(command, console, as_json, outcome.code, closing, list(outcome.failures), outcome.result, counts.to_json())


def _leave(
    command: str,
    console: Console,
    as_json: bool,
    code: int,
    closing: str,
    failures: list[dict[str, str]] | None = None,
    result: dict[str, Any] | None = None,
    counts: dict[str, int] | None = None,
) -> None:
    if as_json:
        from segcal_cli.reporting.documents import envelope, json_text

        _write_stdout(json_text(envelope(command, code, counts or {}, console.warnings, failures or [], result or {})))
    if code != 0:
        console.error(f"segcal: {closing} (exit {code})")
    elif console.verbosity >= NORMAL:
        console.line(f"segcal: {closing} (exit {code})")
    console.close()
    raise typer.Exit(code)


def _write_stdout(text: str) -> None:
    """Data for programs. A reader that has gone away (``| head -1``) is no error."""
    try:
        sys.stdout.write(text)
        sys.stdout.flush()
    except BrokenPipeError:
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())


def _records(errors: tuple[Exception, ...]) -> list[dict[str, str]]:
    from segcal_cli.execution.engine import file_of

    return [
        {
            "case": getattr(error, "case", ""),
            "file": file_of(error),
            "error": type(error).__name__,
            "message": first_line(error),
        }
        for error in errors
    ]


def _unusable(errors: tuple[Exception, ...], total: int) -> str:
    """How much of the input cannot be used. total: cases of the run."""
    cases = {getattr(error, "case", "") for error in errors}
    if "" in cases or len(cases) > total:
        return f"{len(errors)} {_plural('problem', 'problems', len(errors))}"
    verb = _plural("is", "are", len(cases))
    return f"{len(cases)} of {total} {_plural('input', 'inputs', total)} {verb} unusable"


def _message(error: Exception) -> str:
    return with_case(getattr(error, "case", ""), str(error))


def _plural(one: str, many: str, n: int) -> str:
    return one if n == 1 else many


class _terminable:  # noqa: N801 - a context manager that reads as a word
    """SIGTERM ends Python without ``finally``; here it becomes a KeyboardInterrupt, so temps are removed."""

    def __enter__(self) -> None:
        self.before = signal.signal(signal.SIGTERM, _interrupt)

    def __exit__(self, *_: object) -> None:
        signal.signal(signal.SIGTERM, self.before)


def _interrupt(*_: object) -> None:
    raise KeyboardInterrupt
