"""Whole processes timed from outside: wall and processor seconds, and peak memory, by the operating system's
account."""

from __future__ import annotations

import os
import statistics
import subprocess
import sys
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass


@dataclass(frozen=True)
class Figures:
    """Medians over the runs of one command. memory_mib: the largest single process."""

    wall_s: float
    cpu_s: float
    memory_mib: float


@dataclass(frozen=True)
class Contender:
    """A command, and the name that the table gives it."""

    name: str
    command: tuple[str, ...]


def python(script: str, *arguments: str) -> tuple[str, ...]:
    """A command that runs a few lines of Python in this interpreter."""
    return (sys.executable, "-c", script, *arguments)


def segcal(*arguments: str) -> tuple[str, ...]:
    return (sys.executable, "-m", "segcal_cli.cli.app", *arguments)


def once(command: Sequence[str]) -> Figures:
    """Run a command to its end. Raises CalledProcessError if it fails."""
    environment = os.environ | {"OMP_NUM_THREADS": "1", "OPENBLAS_NUM_THREADS": "1"}
    start = time.perf_counter()
    with subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, env=environment) as process:
        assert process.stderr is not None
        errors = process.stderr.read()
        _, status, usage = os.wait4(process.pid, 0)
        process.returncode = os.waitstatus_to_exitcode(status)
    wall = time.perf_counter() - start
    if process.returncode:
        raise subprocess.CalledProcessError(process.returncode, command, stderr=errors)
    return Figures(wall, usage.ru_utime + usage.ru_stime, usage.ru_maxrss / 1024)


def race(contenders: Sequence[Contender], runs: int = 5) -> dict[str, Figures]:
    """Every contender in turn, ``runs`` times after one warm-up, so that drifts of the machine hit all alike.

    A single run has none but that of its first contender: what follows finds the files in memory.
    """
    seen: dict[str, list[Figures]] = {contender.name: [] for contender in contenders}
    if runs == 1:
        once(contenders[0].command)
    for number in range(1 if runs == 1 else 0, runs + 1):
        for contender in contenders:
            figures = once(contender.command)
            if number:
                seen[contender.name].append(figures)
    return {
        name: Figures(
            statistics.median(f.wall_s for f in figures),
            statistics.median(f.cpu_s for f in figures),
            statistics.median(f.memory_mib for f in figures),
        )
        for name, figures in seen.items()
    }


def table(title: str, figures: dict[str, Figures], base: str, bounds: Mapping[str, str] | None = None) -> str:
    """A Markdown table with ratios to one of the contenders. bounds: what the ratio is to stay below, by contender."""
    head = f"| | wall s | ratio to {base} | bound | cpu s | peak MiB |"
    lines = [f"### {title}", "", head, "|---|---|---|---|---|---|"]
    for name, one in figures.items():
        ratio, bound = one.wall_s / figures[base].wall_s, (bounds or {}).get(name, "")
        lines.append(f"| {name} | {one.wall_s:.2f} | {ratio:.2f} | {bound} | {one.cpu_s:.2f} | {one.memory_mib:.0f} |")
    return "\n".join(lines) + "\n"
