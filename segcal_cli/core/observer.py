"""How a long run talks to whoever watches it, without knowing who that is.

Workflows report sentences and progress to an Observer; the command line shows them, a library user may ignore them.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import field
from typing import Protocol

from segcal_cli.core.frozen import dataclass
from segcal_cli.core.names import escaped

CASE = "case"
"""What most passes count."""


class Observer(Protocol):
    """What a run may say while it goes on. Sentences are plain text, no markup."""

    def note(self, text: str) -> None:
        """Worth knowing; nothing is wrong."""

    def warn(self, text: str, case: str | None = None) -> None:
        """Something may be wrong. The same text for many cases is one warning with a count."""

    def progress(self, done: int, total: int, what: str, unit: str = CASE) -> None:
        """``done`` of ``total`` units are through; ``what`` names the pass."""


class Silent:
    """An Observer that listens to nothing."""

    def note(self, text: str) -> None:
        """Ignored."""

    def warn(self, text: str, case: str | None = None) -> None:
        """Ignored."""

    def progress(self, done: int, total: int, what: str, unit: str = CASE) -> None:
        """Ignored."""


@dataclass(frozen=True, slots=True)
class Saying:
    """A sentence that was said: a note, or a warning, which may be of one case. text: without control characters."""

    text: str
    warning: bool = False
    case: str | None = None


def say_again(said: Iterable[Saying], observer: Observer) -> None:
    """Say what was said before, in its order."""
    for one in said:
        if one.warning:
            observer.warn(one.text, one.case)
        else:
            observer.note(one.text)


@dataclass
class Recorder:
    """An Observer that passes everything on, and remembers what a report must say. said: may begin with what was heard
    before."""

    inner: Observer
    said: list[Saying] = field(default_factory=list)

    def note(self, text: str) -> None:
        self.said.append(Saying(escaped(text)))
        self.inner.note(text)

    def warn(self, text: str, case: str | None = None) -> None:
        self.said.append(Saying(escaped(text), warning=True, case=case))
        self.inner.warn(text, case)

    def progress(self, done: int, total: int, what: str, unit: str = CASE) -> None:
        self.inner.progress(done, total, what, unit)

    @property
    def notes(self) -> list[str]:
        return [one.text for one in self.said if not one.warning]

    @property
    def warnings(self) -> list[str]:
        """Each once, with the case, or the number of cases, that it is about."""
        cases: dict[str, list[str | None]] = {}
        for one in self.said:
            if one.warning:
                cases.setdefault(one.text, []).append(one.case)
        return [_with_cases(text, of) for text, of in cases.items()]


def _with_cases(text: str, cases: Sequence[str | None]) -> str:
    named = [case for case in cases if case is not None]
    if not named:
        return text
    return f"{named[0]}: {text}" if len(named) == 1 else f"{text} ({len(named)} cases)"
