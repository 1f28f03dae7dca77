"""Whole processes timed from outside: wall and processor seconds, and peak memory, by the operating system's
account."""

from __future__ import annotations

import json
import math
import os
import statistics
import subprocess
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass


@dataclass(frozen=True)
class Figures:
    """Medians over the runs of one command. memory_mib: the largest single process. start_s: of the same command on
    next to nothing, nan where that was not asked.
    """

    wall_s: float
    cpu_s: float
    memory_mib: float
    start_s: float = math.nan


@dataclass(frozen=True)
class Contender:
    """A command, and the name that the table gives it. idle: the same command on next to nothing, or None."""

    name: str
    command: tuple[str, ...]
    idle: tuple[str, ...] | None = None


def python(script: str, *arguments: str) -> tuple[str, ...]:
    """A command that runs a few lines of Python in this interpreter."""
    return (sys.executable, "-c", script, *arguments)


def segcal(*arguments: str) -> tuple[str, ...]:
    return (sys.executable, "-m", "segcal_cli.cli.app", *arguments)


LAUNCHER = """
import json, os, sys, time
start = time.perf_counter()
child = os.fork()
if child == 0:
    os.dup2(os.open(os.devnull, os.O_WRONLY), 1)
    os.execv(sys.argv[1], sys.argv[1:])
_, status, usage = os.wait4(child, 0)
seconds = time.perf_counter() - start
print(json.dumps([os.waitstatus_to_exitcode(status), seconds, usage.ru_utime + usage.ru_stime, usage.ru_maxrss / 1024]))
"""
"""Starts a command and says what it took. To the operating system a process has at least the peak memory of the one
that started it, so this one imports nothing."""


def once(command: Sequence[str]) -> Figures:
    """Run a command, its program by its full path, to its end. Raises CalledProcessError if it fails."""
    environment = os.environ | {"OMP_NUM_THREADS": "1", "OPENBLAS_NUM_THREADS": "1"}
    # An installed package has its bytecode; compiling it each time would be charged to every command.
    environment.pop("PYTHONDONTWRITEBYTECODE", None)
    launched = [sys.executable, "-I", "-S", "-c", LAUNCHER, *command]
    ran = subprocess.run(launched, capture_output=True, text=True, env=environment, check=True)
    code, wall, cpu, memory = json.loads(ran.stdout)
    if code:
        raise subprocess.CalledProcessError(code, command, stderr=ran.stderr)
    return Figures(wall, cpu, memory)


def race(contenders: Sequence[Contender], runs: int = 5) -> dict[str, Figures]:
    """Every contender in turn, ``runs`` times after one warm-up, so that drifts of the machine hit all alike.

    A single run has none but that of its first contender: what follows finds the files in memory.
    """
    seen: dict[str, list[Figures]] = {contender.name: [] for contender in contenders}
    started: dict[str, list[float]] = {contender.name: [] for contender in contenders if contender.idle}
    if runs == 1:
        once(contenders[0].command)
    for number in range(1 if runs == 1 else 0, runs + 1):
        for contender in contenders:
            if contender.idle:
                idle = once(contender.idle).wall_s
            figures = once(contender.command)
            if number:
                seen[contender.name].append(figures)
                if contender.idle:
                    started[contender.name].append(idle)
    return {
        name: Figures(
            statistics.median(f.wall_s for f in figures),
            statistics.median(f.cpu_s for f in figures),
            statistics.median(f.memory_mib for f in figures),
            statistics.median(started[name]) if name in started else math.nan,
        )
        for name, figures in seen.items()
    }


def table(title: str, figures: dict[str, Figures], base: str, bounds: Mapping[str, str] | None = None) -> str:
    """A Markdown table with ratios to one of the contenders. bounds: what a ratio is to stay below, by contender.

    Where start-up was measured, a second ratio leaves it out, of the command and of what it is compared with.
    """
    apart = not math.isnan(figures[base].start_s)
    head = ["", "wall s", f"ratio to {base}", *(["start-up s", "ratio beyond start-up"] if apart else [])]
    head += ["bound", "cpu s", "peak MiB"]
    lines = [f"### {title}", "", "| " + " | ".join(head) + " |", "|---" * len(head) + "|"]
    for name, one in figures.items():
        cells = [name, f"{one.wall_s:.2f}", f"{one.wall_s / figures[base].wall_s:.2f}"]
        if apart:
            beyond = (one.wall_s - one.start_s) / (figures[base].wall_s - figures[base].start_s)
            cells += [f"{one.start_s:.2f}", f"{beyond:.2f}"] if not math.isnan(one.start_s) else ["", ""]
        cells += [(bounds or {}).get(name, ""), f"{one.cpu_s:.2f}", f"{one.memory_mib:.0f}"]
        lines.append("| " + " | ".join(cells) + " |")
    return "\n".join(lines) + "\n"
