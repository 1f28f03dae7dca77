"""Every calibration method on one folder of predictions: a table of what each gains on patients it has not seen.

    python benchmarks/methods.py PREDICTIONS LABELS --values logits --classes dataset.json

Each method is fitted through the command line; NLL, ECE, ACE, Brier score and Dice are those of its summary, each
patient measured with parameters fitted without its fold, mean over the patients (macro) and all voxels pooled (micro).
Options after the folders go to ``segcal calibrate fit``.
"""

from __future__ import annotations

import json
import subprocess
import sys
import tempfile
import time
from pathlib import Path

METHODS = ("temperature", "platt", "beta", "isotonic", "histogram", "vector", "matrix", "dirichlet", "auxiliary")

KEYS = ("nll", "ece", "ace", "brier", "dice")


def fitted(method: str, arguments: list[str], folder: Path) -> tuple[dict, float]:
    """The result of a fit, and its seconds."""
    words = ["calibrate", "fit", *arguments, "--method", method, "-o", str(folder / f"{method}.npz"), "--json"]
    start = time.perf_counter()
    run = subprocess.run([sys.executable, "-m", "segcal_cli.cli.app", *words], capture_output=True, text=True)
    seconds = time.perf_counter() - start
    document = json.loads(run.stdout)
    return document["result"] if run.returncode == 0 else {}, seconds


def row(name: str, phase: dict, seconds: float | None, joint: float | None) -> str:
    cells = []
    for average in ("macro", "micro"):
        cells += [f"{phase[average]['all'][key]:.5f}" for key in KEYS]
    joined = "" if joint is None else f"{joint:.5f}"
    return f"| {name} | {joined} | {' | '.join(cells)} | {'' if seconds is None else f'{seconds:.1f}'} |"


def main(arguments: list[str]) -> None:
    heads = [f"{key} {average}" for average in ("macro", "micro") for key in KEYS]
    print(f"| method | joint nll micro | {' | '.join(heads)} | s |\n|{'---|' * (len(heads) + 3)}")
    shown = False
    with tempfile.TemporaryDirectory() as folder:
        for method in METHODS:
            result, seconds = fitted(method, arguments, Path(folder))
            if not result:
                print(f"| {method} | does not fit these predictions |", flush=True)
                continue
            before, after = result["summary"]["before"], result["summary"]["after"]
            if not shown:
                print(row("raw", before, None, before["micro"]["all"].get("joint_nll")))
                shown = True
            print(row(method, after, seconds, after["micro"]["all"].get("joint_nll")), flush=True)


if __name__ == "__main__":
    main(sys.argv[1:])
