"""Commands in processes of their own, hundreds of them a minute: a small server forks one for each.

The server imports the command line and what most commands need, and forks a child for every line of JSON on its stdin:
``{"words": [..], "folder": ..}``. The child runs the command with stdout and stderr in files, and the server answers
with its exit code and its peak memory, as the operating system counts it. What was imported before the fork counts as
the child's, so the peak is no smaller than that of a process that started from nothing. The first answer is that of a
plain ``--help``, forked before anything else was imported.
"""

from __future__ import annotations

import contextlib
import json
import os
import subprocess
import sys
import traceback
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

NEEDED = ("convert", "evaluate", "pairs", "inspect", "calibrate_fit", "calibrate_apply", "conformal_apply")
"""Workflows that are imported before children are forked."""

TIMEOUT = 120
"""Seconds after which a child hangs; a loaded machine needs a few."""


@dataclass(frozen=True, slots=True)
class Ended:
    """What a command came to. peak_mib: of its process."""

    code: int
    out: str
    err: str
    peak_mib: float

    @property
    def closing(self) -> str:
        """The last line on stderr."""
        return self.err.rstrip("\n").rsplit("\n", 1)[-1]


class Server:
    """Runs commands in forked processes. plain_mib: the peak of ``segcal --help``."""

    def __init__(self, process: subprocess.Popen[str], folder: Path) -> None:
        self.process, self.folder = process, folder
        self.plain_mib = self._answer()[1]

    def run(self, *words: object) -> Ended:
        assert self.process.stdin is not None
        request = {"words": [str(word) for word in words], "folder": str(self.folder)}
        self.process.stdin.write(json.dumps(request) + "\n")
        self.process.stdin.flush()
        code, peak = self._answer()
        out, err = ((self.folder / name).read_text(encoding="utf-8") for name in ("out", "err"))
        return Ended(code, out, err, peak)

    def _answer(self) -> tuple[int, float]:
        assert self.process.stdout is not None
        answer = json.loads(self.process.stdout.readline())
        return answer["code"], answer["peak_mib"]


@contextlib.contextmanager
def server(folder: Path) -> Iterator[Server]:
    """A server whose commands write their streams into ``folder``."""
    environment = os.environ | {"OMP_NUM_THREADS": "1", "PYTHONPATH": str(Path(__file__).parents[2])}
    command = [sys.executable, "-m", "tests.cli.forked"]
    with subprocess.Popen(
        command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, env=environment, cwd=folder
    ) as process:
        yield Server(process, folder)
        assert process.stdin is not None
        process.stdin.close()


def _child(words: list[str], folder: Path) -> None:
    """Become the command. Does not return."""
    from segcal_cli.cli import entry

    for number, name in ((1, "out"), (2, "err")):
        file = os.open(folder / name, os.O_WRONLY | os.O_CREAT | os.O_TRUNC)
        os.dup2(file, number)
    sys.argv = ["segcal", *words]
    try:
        entry.main()
        code = 0
    except SystemExit as leaving:
        code = leaving.code if isinstance(leaving.code, int) else int(leaving.code is not None)
    finally:
        sys.stdout.flush()
        sys.stderr.flush()
    os._exit(code)


def _forked(words: list[str], folder: Path) -> dict[str, float]:
    child = os.fork()
    if child == 0:
        import signal

        signal.alarm(TIMEOUT)
        try:
            _child(words, folder)
        except BaseException:
            traceback.print_exc()
        finally:
            os._exit(1)
    _, status, usage = os.wait4(child, 0)
    return {"code": os.waitstatus_to_exitcode(status), "peak_mib": usage.ru_maxrss / 1024}


def main() -> None:
    from importlib import import_module

    import segcal_cli.cli.app
    import segcal_cli.cli.entry  # noqa: F401 - what a plain start imports too

    print(json.dumps(_forked(["--help"], Path.cwd())), flush=True)
    for name in NEEDED:
        import_module(f"segcal_cli.workflows.{name}")
    for line in sys.stdin:
        request = json.loads(line)
        print(json.dumps(_forked(request["words"], Path(request["folder"]))), flush=True)


if __name__ == "__main__":
    main()
