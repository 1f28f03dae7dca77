"""The only map from what happened to an exit code and a closing line.

0 done, 1 a bug in segcal, 2 usage, 3 no case, 4 bad input and nothing produced, 5 artifact, 8 some cases failed, 130
interrupted. ``guarded`` runs one command: it catches what ends a run, prints what a person or a program needs, and
leaves with the code that the closing line names.
"""

from __future__ import annotations

import signal
import sys
import traceback
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any

import typer

from segcal_cli.cli.console import NORMAL, Console
from segcal_cli.core.errors import (
    ArtifactError,
    CaseErrors,
    InputError,
    NoCaseError,
    NothingToDo,
    SegcalError,
    Unfinished,
    UsageError,
    count_text,
    first_line,
    with_case,
)

if TYPE_CHECKING:
    from segcal_cli.core.observer import Observer
    from segcal_cli.workflows.outcome import Counts, Outcome

DONE, BUG, USAGE, NO_CASE, BAD_INPUT, BAD_ARTIFACT, PARTIAL, INTERRUPTED = 0, 1, 2, 3, 4, 5, 8, 130

CODES: tuple[tuple[type[SegcalError], int], ...] = (
    (NothingToDo, DONE),
    (Unfinished, PARTIAL),
    (UsageError, USAGE),
    (NoCaseError, NO_CASE),
    (InputError, BAD_INPUT),
    (ArtifactError, BAD_ARTIFACT),
)


SHOWN = 5
"""So many failed cases stand in the closing line."""


def code_of(error: SegcalError) -> int:
    """The exit code of an expected error; several problems together have the code of the family they share."""
    if isinstance(error, CaseErrors):
        codes = {code_of(inner) if isinstance(inner, SegcalError) else BAD_INPUT for inner in error.args}
        return codes.pop() if len(codes) == 1 else BAD_INPUT
    return next((code for family, code in CODES if isinstance(error, family)), BUG)


def guarded(
    command: str,
    console: Console,
    as_json: bool,
    action: Callable[[Observer], Outcome],
    *,
    allow_partial: bool = False,
) -> None:
    """Run one command and leave by ``typer.Exit``. ``action`` gets the console as its Observer. allow_partial: cases
    that failed are no reason for another code than 0.
    """
    try:
        with _terminable():
            outcome = action(console)
    except KeyboardInterrupt:
        console.finish_progress()
        closing = "interrupted before the first case"
        if console.total:
            closing = f"interrupted after {console.done} of {count_text(console.total, console.unit)}"
        _leave(command, console, as_json, INTERRUPTED, closing)
    except CaseErrors as error:
        console.finish_progress()
        console.case_warnings()
        for inner in error.args:
            console.error(_message(inner))
        closing = f"{_unusable(error.args, console)}, nothing written"
        _leave(command, console, as_json, code_of(error), closing, _records(error.args))
    except SegcalError as error:
        console.finish_progress()
        console.case_warnings()
        code = code_of(error)
        _leave(command, console, as_json, code, _message(error), _records((error,)) if code else [])
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
    code = DONE if outcome.code == PARTIAL and allow_partial else outcome.code
    _finish(command, console, as_json, outcome, code)


def _finish(command: str, console: Console, as_json: bool, outcome: Outcome, code: int) -> None:
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
    closing = outcome.closing or counts_text(counts, [failure["case"] for failure in outcome.failures])
    _leave(command, console, as_json, code, closing, list(outcome.failures), outcome.result, counts.to_json())


def counts_text(counts: Counts, failed: Sequence[str]) -> str:
    """What became of the cases. failed: their ids."""
    parts = [count_text(counts.cases, "case"), f"{counts.done} done"]
    parts += [f"{number} {word}" for word, number in counts.further.items() if number]
    if counts.failed:
        parts.append(f"{counts.failed} failed: {', '.join(failed[:SHOWN])}{', ...' if len(failed) > SHOWN else ''}")
    return ", ".join(parts)


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
    """Data for programs. Halves of characters stand there as JSON and Python escape them."""
    sys.stdout.write(text.encode("utf-8", "backslashreplace").decode())
    sys.stdout.flush()


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


def _unusable(errors: tuple[Exception, ...], console: Console) -> str:
    """How much of the input cannot be used.

    Headers are looked at before anything is counted, all of them. After that a run may have stopped at the first
    failure, and then nothing is known of the inputs that it did not come to.
    """
    cases = {getattr(error, "case", "") for error in errors}
    if "" in cases or len(cases) > console.total:
        return count_text(len(errors), "problem")
    if 0 < console.done < console.total:
        at = ", ".join(sorted(cases)[:SHOWN])
        return f"stopped at {at}, after {console.done} of {count_text(console.total, 'input')}"
    verb = "is" if len(cases) == 1 else "are"
    return f"{len(cases)} of {count_text(console.total, 'input')} {verb} unusable"


def _message(error: Exception) -> str:
    return with_case(getattr(error, "case", ""), str(error))


class _terminable:  # noqa: N801 - a context manager that reads as a word
    """Ctrl-C and SIGTERM, which ends Python without ``finally``, become a KeyboardInterrupt, so temps are removed.

    A signal that the process was told to ignore stays ignored.
    """

    def __enter__(self) -> None:
        numbers = (signal.SIGINT, signal.SIGTERM)
        self.before = {number: handler for number in numbers if (handler := signal.getsignal(number)) != signal.SIG_IGN}
        for number in self.before:
            signal.signal(number, _interrupt)

    def __exit__(self, *_: object) -> None:
        for number, handler in self.before.items():
            signal.signal(number, handler)


class Stopped(KeyboardInterrupt):
    """Ctrl-C or SIGTERM. A class of its own: Python remembers a plain KeyboardInterrupt that passed through exec, as
    dataclasses use it, and at the end of ``python -m`` kills itself, whoever has dealt with it."""


def _interrupt(*_: object) -> None:
    raise Stopped
