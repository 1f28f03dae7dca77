"""Every calibration method on one folder of predictions: a table of what each gains on patients it has not seen.

    python benchmarks/methods.py PREDICTIONS LABELS --values logits --classes dataset.json

The figures are those of ``segcal calibrate compare``, as a table in Markdown: means over the patients (macro), and of
all voxels pooled (micro). ``*`` marks the best method of a column, and those that Wilcoxon's test over patients does
not tell from it. Options after the folders go to the command.

``local`` cannot be cross-validated in one reading, so it has a table of its own: ``calibrate fit --method local``
leaves every fifth patient out of training, and these are measured, raw, through one temperature and through the
network. ``fine-tune`` needs features, which a folder of predictions does not hold.
"""

from __future__ import annotations

import json
import subprocess
import sys
import tempfile
import time
from pathlib import Path

LOCAL_KEYS = ("ece", "ace", "brier", "dice")

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


def local_rows(arguments: list[str], dim: int) -> list[str]:
    """Rows of raw, of one temperature and of the network, on the patients left out of training."""
    with tempfile.TemporaryDirectory() as folder:
        options = ["--method", "local", "--dim", str(dim), "-o", str(Path(folder) / "local.npz"), "--json", "--quiet"]
        start = time.perf_counter()
        run = subprocess.run(
            [sys.executable, "-m", "segcal_cli.cli.app", "calibrate", "fit", *arguments, *options],
            stdout=subprocess.PIPE, text=True, check=True,
        )  # fmt: skip
        seconds = time.perf_counter() - start
    result = json.loads(run.stdout)["result"]
    told, summary = result["facts"]["training"], result["summary"]
    rows = []
    for name, phase, nll in (("raw", "before", "before"), ("temperature", "", "alone"), ("local", "after", "after")):
        measures = [f"{summary[phase]['micro']['all'][key]:.5f}" if phase else "" for key in LOCAL_KEYS]
        last = f"{seconds:.0f}" if name == "local" else ""
        shown = f"local, {dim}-D" if name == "local" else name
        rows.append(f"| {shown} | {told['nll'][nll]:.5f} | {' | '.join(measures)} | {last} |")
    return rows if dim == 2 else rows[-1:]


def main(arguments: list[str]) -> None:
    result, seconds = compared(arguments)
    heads = [*KEYS, *(f"{key} micro" for key in KEYS)]
    print(f"| method | {' | '.join(heads)} |\n|{'---|' * (len(heads) + 1)}")
    for row in result["table"]:
        if row["class"] == "(all)":
            print(f"| {row['method']} | {' | '.join(cells(row))} |")
    print(f"\n{result['n_cases']} cases of {result['n_groups']} patients, {seconds:.0f} s\n")
    print(f"| left out of training | nll per voxel | {' | '.join(LOCAL_KEYS)} | s |\n|{'---|' * (len(LOCAL_KEYS) + 3)}")
    for dim in (2, 3):
        print("\n".join(local_rows(arguments, dim)), flush=True)


if __name__ == "__main__":
    main(sys.argv[1:])
