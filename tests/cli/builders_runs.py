"""Runs on output folders: their records, and real processes that can be killed."""

from __future__ import annotations

import json
import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from tests.cli.builders_reading import Ran

TIMES = ("started", "seconds", "mtime_ns", "ctime_ns", "inode", "status", "counts", "seal")
"""Keys of a record that differ between two runs which made the same."""


def record_of(folder: Path, name: str = "segcal-run.json") -> dict:
    return json.loads((folder / name).read_text())


def states(folder: Path, name: str = "segcal-run.json") -> dict[str, str]:
    """Case -> what became of it."""
    return {entry["case"]: entry["status"] for entry in record_of(folder, name)["cases"]}


def without_times(value: object) -> object:
    """A record without what differs between two runs that made the same."""
    if isinstance(value, dict):
        return {key: without_times(one) for key, one in value.items() if key not in TIMES}
    return [without_times(one) for one in value] if isinstance(value, list) else value


def temps(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.rglob(".*.tmp-*"))


@dataclass
class Forks:
    """A warmed process that forks one child per run."""

    process: subprocess.Popen[str]
    stderr: Path

    def run(
        self,
        *arguments: object,
        after: float | None = None,
        number: int = signal.SIGKILL,
        limit: int | None = None,
    ) -> tuple[Ran, float]:
        """Run a command; send it a signal after so many seconds. Returns what it came to, and the seconds."""
        asked = {
            "arguments": [str(argument) for argument in arguments],
            "after": after,
            "number": int(number),
            "limit": limit,
            "stderr": str(self.stderr),
        }
        assert self.process.stdin is not None
        assert self.process.stdout is not None
        self.process.stdin.write(json.dumps(asked) + "\n")
        self.process.stdin.flush()
        answer = json.loads(self.process.stdout.readline())
        return Ran(answer["code"], "", self.stderr.read_text()), answer["seconds"]


@contextmanager
def forks(folder: Path, *, cold: bool = False) -> Iterator[Forks]:
    """cold: nothing is imported before children are forked, which is quicker for one or two of them."""
    command = [sys.executable, "-m", "tests.cli.fork_server", *(["cold"] if cold else [])]
    root = Path(__file__).parents[2]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, cwd=root) as process:
        try:
            yield Forks(process, folder / "stderr.txt")
        finally:
            assert process.stdin is not None
            process.stdin.close()
