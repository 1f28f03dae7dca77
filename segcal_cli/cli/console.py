"""What people see: everything on stderr, data alone on stdout.

Names from files are data: control characters are escaped and rich gets no markup, so that a case called ``[/red]``
stays itself. A progress bar appears only where stderr is a terminal; elsewhere no escape byte is written.
"""

from __future__ import annotations

import contextlib
import os
import sys
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

from segcal_cli.core.names import escaped
from segcal_cli.core.observer import CASE

if TYPE_CHECKING:
    from rich.progress import Progress, TaskID

    from segcal_cli.reporting.tables import Table

QUIET, NORMAL, VERBOSE, DEBUG = -1, 0, 1, 2


class Console:
    """Prints for people and remembers warnings. verbosity: QUIET (errors only), NORMAL, VERBOSE, DEBUG."""

    def __init__(self, verbosity: int = NORMAL, log_file: Path | None = None) -> None:
        self.verbosity = verbosity
        self.done = self.total = 0
        self.unit = CASE
        self._warnings: dict[str, list[str | None]] = {}
        self._bar: Progress | None = None
        self._task: TaskID | None = None
        self._log = log_file.open("a", encoding="utf-8", errors="backslashreplace") if log_file else None

    # An Observer: what workflows say while they run.

    def note(self, text: str) -> None:
        self._write_log("INFO", text)
        if self.verbosity >= NORMAL:
            self._say(text)

    def warn(self, text: str, case: str | None = None) -> None:
        first = text not in self._warnings
        self._warnings.setdefault(text, []).append(case)
        self._write_log("WARNING", text if case is None else f"{case} {text}")
        if first and case is None and self.verbosity >= NORMAL:
            self._say(f"warning: {text}")

    def progress(self, done: int, total: int, what: str, unit: str = CASE) -> None:
        self.done, self.total, self.unit = done, total, unit
        self._write_log("DEBUG", f"{what}: {done} of {total}")
        if self._bar is None and self._wants_bar():
            self._bar = _progress_bar()
            self._bar.start()
        if self._bar is not None:
            if self._task is None or done == 0:
                if self._task is not None:
                    self._bar.remove_task(self._task)
                self._task = self._bar.add_task(printable(what), total=total)
            self._bar.update(self._task, completed=done)
        elif self.verbosity >= VERBOSE and done:
            self._say(f"{what}: {done} of {total}")

    # What a command prints when it is through.

    @property
    def warnings(self) -> list[str]:
        """Every warning once, with the number of cases where several share it."""
        return [_with_count(text, cases) for text, cases in self._warnings.items()]

    def finish_progress(self) -> None:
        if self._bar is not None:
            self._bar.stop()
            self._bar = None

    def case_warnings(self) -> None:
        """Warnings that belong to cases, said once each, after the run."""
        if self.verbosity < NORMAL:
            return
        for text, cases in self._warnings.items():
            if any(case is not None for case in cases):
                self._say(f"warning: {_with_count(text, cases)}")

    def line(self, text: str) -> None:
        self._write_log("INFO", text)
        if self.verbosity >= NORMAL:
            self._say(text)

    def error(self, text: str) -> None:
        self._write_log("ERROR", text)
        self._say(text)

    def trace(self, text: str) -> None:
        self._write_log("DEBUG", text)
        if self.verbosity >= DEBUG:
            sys.stderr.write(text)

    def table(self, table: Table) -> None:
        if self.verbosity < NORMAL:
            return
        from rich.console import Console as RichConsole
        from rich.table import Table as RichTable
        from rich.text import Text

        rich_table = RichTable(title=Text(table.title), title_justify="left", box=None, pad_edge=False)
        for index, column in enumerate(table.columns):
            rich_table.add_column(Text(column), justify="left" if index == 0 else "right", no_wrap=True)
        for row in table.rows:
            rich_table.add_row(*(Text(printable(cell)) for cell in row))
        RichConsole(stderr=True, width=None if sys.stderr.isatty() else 200).print(rich_table)
        if table.caption:
            self._say(table.caption)

    def close(self) -> None:
        self.finish_progress()
        if self._log is not None:
            self._log.close()

    def _wants_bar(self) -> bool:
        terminal = sys.stderr.isatty() and os.environ.get("TERM") != "dumb"
        return terminal and self.verbosity >= NORMAL

    def _say(self, text: str) -> None:
        if self._bar is not None:
            self._bar.console.print(printable(text), markup=False, highlight=False, soft_wrap=True)
        else:
            sys.stderr.write(printable(text) + "\n")

    def _write_log(self, level: str, text: str) -> None:
        if self._log is None:
            return
        stamp = time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime())
        try:
            self._log.write("".join(f"{stamp} {level} {printable(line)}\n" for line in text.splitlines()))
            self._log.flush()
        except OSError as error:
            # A log on a full disk is no reason to lose the run.
            with contextlib.suppress(OSError):
                self._log.close()
            self._log = None
            self._say(f"warning: the log cannot be written: {(error.strerror or str(error)).lower()}")


def printable(text: str) -> str:
    """The text with control characters escaped, line breaks kept."""
    return escaped(text, kept="\n")


def _with_count(text: str, cases: list[str | None]) -> str:
    named = [case for case in cases if case is not None]
    if not named:
        return text
    return f"{text} ({named[0]})" if len(named) == 1 else f"{text} ({len(named)} cases)"


def _progress_bar() -> Any:
    from rich.console import Console as RichConsole
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

    columns = (TextColumn("{task.description}", markup=False), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn())
    return Progress(*columns, console=RichConsole(stderr=True), transient=True)
