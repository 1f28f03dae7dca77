"""Every calibration method on one folder of predictions: a table of what each gains on patients it has not seen.

    python benchmarks/methods.py PREDICTIONS LABELS --values logits --classes dataset.json

The figures are those of ``segcal calibrate compare``, as a table in Markdown: means over the patients (macro), and of
all voxels pooled (micro). ``*`` marks the best method of a column, and those that Wilcoxon's test over patients does
not tell from it. Options after the folders go to the command.
"""

from __future__ import annotations

import json
import subprocess
import sys
import tempfile
import time
from pathlib import Path

KEYS = ("dice", "ece", "ace", "mce", "brier", "nll", "joint_nll")


def compared(arguments: list[str]) -> tuple[dict, float]:
    """The result of a comparison, and its seconds."""
    with tempfile.TemporaryDirectory() as folder:
        words = ["calibrate", "compare", *arguments, "-o", str(Path(folder) / "table.csv"), "--json", "--quiet"]
        start = time.perf_counter()
        run = subprocess.run(
            [sys.executable, "-m", "segcal_cli.cli.app", *words], stdout=subprocess.PIPE, text=True, check=True
        )
        return json.loads(run.stdout)["result"], time.perf_counter() - start


def cells(row: dict) -> list[str]:
    """Macro values, marked, then micro ones."""

    def shown(value: float | None) -> str:
        return "" if value is None else f"{value:.5f}"

    macro = [shown(row[key]) + ("*" if row[f"{key}_bold"] else "") for key in KEYS]
    return [*macro, *(shown(row[f"{key}_micro"]) for key in KEYS)]


def main(arguments: list[str]) -> None:
    result, seconds = compared(arguments)
    heads = [*KEYS, *(f"{key} micro" for key in KEYS)]
    print(f"| method | {' | '.join(heads)} |\n|{'---|' * (len(heads) + 1)}")
    for row in result["table"]:
        if row["class"] == "(all)":
            print(f"| {row['method']} | {' | '.join(cells(row))} |")
    print(f"\n{result['n_cases']} cases of {result['n_groups']} patients, {seconds:.0f} s")


if __name__ == "__main__":
    main(sys.argv[1:])
