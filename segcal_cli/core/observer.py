"""How a long run talks to whoever watches it, without knowing who that is.

Workflows report sentences and progress to an Observer; the command line shows them, a library user may ignore them.
"""

from __future__ import annotations

from typing import Protocol


class Observer(Protocol):
    """What a run may say while it goes on. Sentences are plain text, no markup."""

    def note(self, text: str) -> None:
        """Worth knowing; nothing is wrong."""

    def warn(self, text: str, case: str | None = None) -> None:
        """Something may be wrong. The same text for many cases is one warning with a count."""

    def progress(self, done: int, total: int, what: str) -> None:
        """``done`` of ``total`` cases are through; ``what`` names the pass."""


class Silent:
    """An Observer that listens to nothing."""

    def note(self, text: str) -> None:
        """Ignored."""

    def warn(self, text: str, case: str | None = None) -> None:
        """Ignored."""

    def progress(self, done: int, total: int, what: str) -> None:
        """Ignored."""
