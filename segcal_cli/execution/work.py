"""What is done to one case, and what came of it.

Work has two halves, so that the decoding of the next case can overlap with computing on this one: ``load`` brings a
case into memory, ``compute`` turns it into a small value. Where loading can stop between decoding and checking
(``InSteps``), whoever has time does the checking. Nothing raises out of the engine: what a case comes to is a
``Result`` with a value or with the error that stopped it.
"""

from __future__ import annotations

import traceback
from collections.abc import Callable
from typing import Any, Protocol, runtime_checkable

from segcal_cli.core.errors import InputError, SegcalError
from segcal_cli.core.frozen import dataclass


class Item(Protocol):
    """Anything with a case id; it travels to worker processes by pickle."""

    @property
    def id(self) -> str: ...


@runtime_checkable
class InSteps(Protocol):
    """A ``load`` in two steps: ``load(item)`` is ``load.complete(load.decode(item))``, and each may have its thread."""

    def decode(self, item: Any) -> Any: ...

    def complete(self, decoded: Any) -> Any: ...


@dataclass(frozen=True, slots=True)
class Work:
    """Both halves; picklable functions. ``compute`` gets what ``load`` returned."""

    load: Callable[[Any], Any]
    compute: Callable[[Any], Any]


@dataclass(frozen=True, slots=True)
class Result:
    """What a case came to: a value, or an error."""

    id: str
    value: Any = None
    error: Exception | None = None


class UnforeseenError(Exception):
    """An exception that nobody foresaw, while working on a case: a bug in segcal (exit 1). args: case, type, text,
    trace.
    """

    def __str__(self) -> str:
        case, kind, text, _ = self.args
        return f"{kind} in {case}: {text}"


class SystemRefused(InputError):
    """The operating system refused: a file that is gone, a permission, a full disk."""

    template = "{0}: {1}"


class OutOfMemory(InputError):
    """A case does not fit into memory."""

    template = "{0}: not enough memory for this case ({1})"


class WorkerDied(InputError):
    """The process that worked on the case was killed, twice."""

    template = "{0}: worker died twice (out of memory?)"


def attempt(id: str, function: Callable[[Any], Any], argument: Any) -> Result:
    """Run one half of the work. Expected errors become records; anything else is wrapped as UnforeseenError."""
    try:
        return Result(id, function(argument))
    except SegcalError as error:
        error.case = error.case or id
        return Result(id, error=_alone(error))
    except OSError as error:
        return Result(id, error=SystemRefused(str(error.filename or id), (error.strerror or str(error)).lower()))
    except MemoryError as error:
        return Result(id, error=OutOfMemory(id, str(error)))
    except Exception as error:
        return Result(id, error=UnforeseenError(id, type(error).__name__, str(error), traceback.format_exc()))


def _alone(error: SegcalError) -> SegcalError:
    """The error without what it came from, which may be anything, and need not survive a journey between processes."""
    error.__cause__ = error.__context__ = None
    return error.with_traceback(None)


def attempt_both(work: Work, item: Item) -> Result:
    """Load and compute one case."""
    loaded = attempt(item.id, work.load, item)
    return loaded if loaded.error is not None else attempt(item.id, work.compute, loaded.value)
