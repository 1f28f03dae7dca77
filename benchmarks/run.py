"""The benchmark suite: one command, tables of segcal next to its peers on the same generated work.

    python benchmarks/run.py [--only NAME] [--runs N] [--folder DIR]

Figures are medians of whole processes run in turn; quote ratios from one run, never single times.
"""

from __future__ import annotations

import argparse
import platform
import tempfile
from functools import partial
from pathlib import Path

import clusters
import evaluating
import losses
import ratios
import sets
import startup

SUITE = {
    "startup": startup.run,
    "evaluate-1": partial(evaluating.run, cases=1),
    "evaluate-8": partial(evaluating.run, cases=8),
    "cluster-table-1": clusters.table_1,
    "cluster-searches": clusters.speed,
    "cluster-gpu": clusters.devices,
    "cluster-memory": clusters.memory,
    "losses": losses.run,
    "ratio": ratios.run,
    "sets": sets.run,
}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--only", choices=SUITE, action="append", help="repeatable; default: everything")
    parser.add_argument("--runs", type=int, default=5)
    parser.add_argument("--folder", type=Path, help="keeps the generated work for the next time")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as temporary:
        folder = options.folder or Path(temporary)
        print(f"{platform.processor() or platform.machine()}, Python {platform.python_version()}\n")
        for name in options.only or SUITE:
            print(SUITE[name](folder, runs=options.runs), flush=True)


if __name__ == "__main__":
    main()
