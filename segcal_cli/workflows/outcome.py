"""What a command came to, before anybody prints it."""

from __future__ import annotations

from dataclasses import field
from typing import Any

from segcal_cli.core.frozen import dataclass
from segcal_cli.reporting.tables import Table

DONE, NOTHING_PRODUCED, PARTIAL = 0, 4, 8
"""Exit codes that a finished workflow can have; errors that end it early have theirs in ``cli/exits.py``."""


@dataclass(frozen=True, slots=True)
class Counts:
    """Cases by what became of them."""

    cases: int
    done: int
    failed: int = 0

    @property
    def standing(self) -> int:
        """Cases of this run whose outputs are there."""
        return self.done

    @property
    def further(self) -> dict[str, int]:
        """What may have become of cases besides: word -> number."""
        return {}

    @property
    def exit_code(self) -> int:
        if not self.failed:
            return DONE
        return PARTIAL if self.standing else NOTHING_PRODUCED

    def to_json(self) -> dict[str, int]:
        return {"cases": self.cases, "done": self.done, "failed": self.failed}


@dataclass(frozen=True, slots=True)
class FolderCounts(Counts):
    """The same for outputs that are kept. skipped: up to date; waiting: still arriving; not_run: the run ended before;
    kept: of earlier runs, without inputs by now, and not among ``cases``.
    """

    skipped: int = 0
    waiting: int = 0
    not_run: int = 0
    kept: int = 0

    @property
    def standing(self) -> int:
        return self.done + self.skipped

    @property
    def further(self) -> dict[str, int]:
        return {"skipped": self.skipped, "waiting": self.waiting, "not run": self.not_run}

    def to_json(self) -> dict[str, int]:
        return {
            "cases": self.cases,
            "done": self.done,
            "skipped": self.skipped,
            "failed": self.failed,
            "waiting": self.waiting,
            "not_run": self.not_run,
            "kept": self.kept,
        }


@dataclass(frozen=True, slots=True)
class Outcome:
    """The result of a command.

    result: the value of ``result`` in the ``--json`` document. lines, tables: for people, on stderr. data: what the
    command prints on stdout where no ``--json`` is asked for (a CSV, a description). failures: records of failed
    cases. closing: the closing line, where "N cases, M done" would say nothing.
    """

    result: dict[str, Any]
    counts: Counts
    lines: tuple[str, ...] = ()
    tables: tuple[Table, ...] = ()
    data: str = ""
    failures: tuple[dict[str, str], ...] = ()
    exit_code: int = field(default=-1)
    closing: str = ""

    @property
    def code(self) -> int:
        """The exit code: from the counts, unless the command sets its own."""
        return self.counts.exit_code if self.exit_code < 0 else self.exit_code
