"""The benchmark suite: one command, tables of segcal next to its peers on the same generated work.

    python benchmarks/run.py [--full] [--only NAME] [--runs N] [--folder DIR] [--write]

Without ``--full`` every command runs once on two smaller scans, and ``evaluate`` on a whole one, in some minutes; with
it everything runs five times, and the long studies too. ``--write`` puts the tables into RESULTS.md, in place of those
of the last time. Figures are medians of whole processes run in turn; quote ratios from one run, never single times.
"""

from __future__ import annotations

import argparse
import os
import platform
import re
import tempfile
from functools import partial
from pathlib import Path

import clusters
import commands
import evaluating
import losses
import ratios
import scaling
import sets
import startup

QUICK = {
    "evaluate-1": partial(evaluating.run, cases=1),
    "commands": partial(commands.run, shape=(100, 160, 160)),
    "scaling": partial(scaling.run, numbers=(2, 8)),
}
"""What runs where nothing else is asked for."""

FULL = {
    "startup": startup.run,
    "commands": partial(commands.run, cases=4),
    "scaling": scaling.run,
    "evaluate-1": partial(evaluating.run, cases=1),
    "evaluate-8": partial(evaluating.run, cases=8),
    "evaluate-16": partial(evaluating.run, cases=16),
    "evaluate-8-beside-decoding": partial(evaluating.run, cases=8, peers=False),
    "evaluate-16-beside-decoding": partial(evaluating.run, cases=16, peers=False),
    "cluster-table-1": clusters.table_1,
    "cluster-searches": clusters.speed,
    "cluster-gpu": clusters.devices,
    "cluster-memory": clusters.memory,
    "losses": losses.run,
    "ratio": ratios.run,
    "sets": sets.run,
}

RESULTS = Path(__file__).with_name("RESULTS.md")

BEGIN, END = "<!-- tables of run.py -->", "<!-- end of the tables of run.py -->"
"""Between these lines of RESULTS.md stands what ``--write`` writes."""


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--full", action="store_true", help="everything, five times")
    parser.add_argument("--only", choices=FULL, action="append", help="repeatable")
    parser.add_argument("--runs", type=int, help="of each process; default 1, with --full 5")
    parser.add_argument("--folder", type=Path, help="keeps the generated work for the next time")
    parser.add_argument("--write", action="store_true", help="put the tables into RESULTS.md")
    options = parser.parse_args()
    suite = FULL if options.full or options.only else QUICK
    runs = options.runs or (5 if options.full else 1)
    parts = [machine(runs)]
    print(parts[0], flush=True)
    with tempfile.TemporaryDirectory() as temporary:
        folder = options.folder or Path(temporary)
        folder.mkdir(parents=True, exist_ok=True)
        for name in options.only or suite:
            parts.append({**FULL, **suite}[name](folder.resolve(), runs=runs))
            print(parts[-1], flush=True)
    if options.write:
        RESULTS.write_text(written(RESULTS.read_text(encoding="utf-8"), "\n".join(parts)), encoding="utf-8")


def machine(runs: int) -> str:
    """What the figures were taken on, and how often."""
    cores, word = len(os.sched_getaffinity(0)), "run" if runs == 1 else "runs"
    system = f"{platform.processor() or platform.machine()}, {cores} cores, Python {platform.python_version()}"
    return f"{system}; load {os.getloadavg()[0]:.1f} at the start; median of {runs} {word}\n"


def written(document: str, tables: str) -> str:
    """The document with these tables between its two lines, or at its end. The lines are kept."""
    block = f"{BEGIN}\n\n{tables.rstrip()}\n\n{END}"
    if BEGIN not in document:
        return f"{document.rstrip()}\n\n{block}\n"
    return re.sub(f"{re.escape(BEGIN)}.*{re.escape(END)}", lambda _: block, document, flags=re.DOTALL)


if __name__ == "__main__":
    main()
