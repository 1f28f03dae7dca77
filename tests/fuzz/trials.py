"""One trial: damage a file, run a command on it, and judge what came of it.

A trial is known by the scene, the seed and its number, so that any of them can be run again alone. What is demanded of
each: a documented exit code that is not 1, a closing line that names it, no traceback and no control characters on
stderr, no half-written file, an end in time, and no memory beyond what small files can ask for.
"""

from __future__ import annotations

import contextlib
import itertools
import resource
import shutil
import signal
import sys
import threading
import traceback
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from random import Random

from click.testing import CliRunner
from typer.main import get_command

from segcal_cli.cli.app import app
from tests.fuzz.scenes import OUT, Scene

ALLOWED = (0, 2, 3, 4, 5, 8)
"""Exit codes that bad input may have: all that are documented but 1 (a bug) and 130 (interrupted)."""

SECONDS = 20
"""A trial that takes longer hangs: the files are of some kB, and a loaded machine needs well under a second."""

ALARMS = 2
"""Alarms in that time, of which the last ends the trial: a process that was stopped meanwhile gets one when it goes on.
They ring on, in case that something swallows the end of the trial."""

MEMORY_BYTES = 2**30
"""Address space that a trial may take on top of what the process has: room for threads and libraries, far less than
what a damaged header asks for."""


COMMAND = get_command(app)
"""The command line, put together once; typer's own runner does it for every call."""


class Hang(BaseException):
    """A trial that does not end. Not an Exception, so that nothing in between takes it for its own."""


@dataclass(frozen=True, slots=True)
class Finding:
    """A trial that went wrong. content: of the damaged file."""

    scene: str
    seed: int
    number: int
    file: str
    damage: str
    command: tuple[str, ...]
    what: str
    said: str
    content: bytes = field(repr=False)

    def __str__(self) -> str:
        return (
            f"{self.scene} {self.seed} {self.number}: {self.what}\n  segcal {' '.join(self.command)}\n"
            f"  {self.file} damaged by {self.damage}\n{self.said[-3000:]}"
        )


class Stage:
    """A scene that is built, with its files in memory, to be damaged again and again."""

    def __init__(self, scene: Scene, root: Path) -> None:
        self.scene, self.root = scene, root
        root.mkdir(parents=True, exist_ok=True)
        scene.build(root)
        self.contents = {victim.file: (root / victim.file).read_bytes() for victim in scene.victims}
        for number in range(len(scene.commands)):
            # Imports and caches of a first run are not what a trial is charged with; and the undamaged scene must do.
            victim = scene.victims[0].file
            code, said = self._run(self._command(number, victim))
            # Partly done is sound: a scene may hold a case that fails.
            assert code in (0, 8), said
            self._clear()

    def trial(self, seed: int, number: int) -> Finding | None:
        """The trial of this number. The same seed and number damage the same bytes, whatever ran before."""
        rng = Random(f"{self.scene.name} {seed} {number}")
        victim = rng.choice(self.scene.victims)
        damage = rng.choice(victim.damages)
        command = self._command(rng.randrange(len(self.scene.commands)), victim.file)
        content = damage(rng, self.contents[victim.file])
        what, said = self.judged(victim.file, content, command)
        if not what:
            return None
        return Finding(self.scene.name, seed, number, victim.file, damage.__name__, command, what, said, content)

    def judged(self, file: str, content: bytes, command: tuple[str, ...]) -> tuple[str, str]:
        """What is wrong when a command meets this content of a file, and what was said; "" if nothing is wrong."""
        path = self.root / file
        path.write_bytes(content)
        try:
            with limited():
                code, said = self._run(command)
            return self._verdict(code, said), said
        except Hang:
            return f"no end after {SECONDS} s", traceback.format_exc() + _other_threads()
        finally:
            path.write_bytes(self.contents[file])
            self._clear()

    def commands(self, file: str) -> Iterator[tuple[str, ...]]:
        """Every command of the scene, on this victim."""
        return (self._command(number, file) for number in range(len(self.scene.commands)))

    def _command(self, number: int, victim: str) -> tuple[str, ...]:
        words = self.scene.commands[number]
        return tuple(w.replace("{victim}", str(self.root / victim)).replace("{}", str(self.root)) for w in words)

    def _run(self, command: tuple[str, ...]) -> tuple[int, str]:
        (self.root / OUT).mkdir(exist_ok=True)
        ran = CliRunner().invoke(COMMAND, [*command, "-vv"])
        said = ran.stderr
        if ran.exception is not None and not isinstance(ran.exception, SystemExit):
            if isinstance(ran.exception, Hang):
                raise ran.exception
            said += "".join(traceback.format_exception(ran.exception))
        return ran.exit_code, said

    def _verdict(self, code: int, said: str) -> str:
        """What is wrong; "" if nothing is."""
        if code not in ALLOWED:
            return f"exit code {code}"
        if "Traceback" in said:
            return "a traceback"
        strange = {c for c in said if not c.isprintable() and c != "\n"}
        if strange:
            return f"control characters {sorted(strange)}"
        if code not in (0, 2) and f"(exit {code})" not in said.rstrip("\n").rsplit("\n", 1)[-1]:
            return f"the closing line does not name exit code {code}"
        temps = [path.name for path in (self.root / OUT).rglob(".*") if ".tmp-" in path.name]
        return f"left behind: {temps}" if temps else ""

    def _clear(self) -> None:
        shutil.rmtree(self.root / OUT, ignore_errors=True)


def _other_threads() -> str:
    """Where the other threads stand: the main one may wait for one of them."""
    frames = sys._current_frames().items()
    own = threading.get_ident()
    return "".join(
        f"thread {number}\n{''.join(traceback.format_stack(frame))}" for number, frame in frames if number != own
    )


@contextlib.contextmanager
def limited() -> Iterator[None]:
    """Bounds time and address space of what runs inside, in the main thread. Raises Hang."""
    soft, hard = resource.getrlimit(resource.RLIMIT_AS)
    pages = int(Path("/proc/self/statm").read_text().split()[0]) if Path("/proc/self/statm").exists() else 0
    alarms = itertools.count(1)

    def ring(*_: object) -> None:
        if next(alarms) >= ALARMS:
            raise Hang

    before = signal.signal(signal.SIGALRM, ring)
    if pages:
        resource.setrlimit(resource.RLIMIT_AS, (pages * resource.getpagesize() + MEMORY_BYTES, hard))
    signal.setitimer(signal.ITIMER_REAL, SECONDS / ALARMS, SECONDS / ALARMS)
    try:
        yield
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, before)
        resource.setrlimit(resource.RLIMIT_AS, (soft, hard))
