"""Coverage of ratio intervals over many splits of one set of labelled cases.

    python benchmarks/ratio_coverage.py ARTIFACT --calibration N [--splits 1000]

The artifact of ``ntr-interval fit`` on all cases keeps what every split needs, so nothing is read again: in each split
N random patients calibrate, and the others are covered or not. Beside the coverage stands what the rank promises on
average, k / (N + 1).
"""

from __future__ import annotations

import argparse
from pathlib import Path

import numpy as np

from segcal_cli.ratio.comparison import COVERED_SLACK
from segcal_cli.ratio.intervals import intervals
from segcal_cli.ratio.settings import METHODS, Settings
from segcal_cli.ratio.thresholds import Calibration
from segcal_cli.workflows.ratio_artifacts import LoadedRatio, load_ratio

LEVELS = (0.68, 0.80, 0.90)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("artifact", type=Path)
    parser.add_argument("--calibration", type=int, required=True, help="patients of a split that calibrate")
    parser.add_argument("--splits", type=int, default=1000)
    options = parser.parse_args()
    loaded = load_ratio(options.artifact, "ratio_coverage")
    print("| method | level | k / (n + 1) | coverage | mean width |\n|---|---|---|---|---|")
    for method in METHODS:
        for level in LEVELS:
            settings = Settings(method, level)
            rank, coverage, width = over_splits(loaded, settings, options.calibration, options.splits)
            promised = "-" if rank is None else f"{rank / (options.calibration + 1):.3f}"
            print(f"| {method} | {level:.2f} | {promised} | {coverage:.3f} | {width:.3f} |")


def over_splits(loaded: LoadedRatio, settings: Settings, n: int, splits: int) -> tuple[int | None, float, float]:
    """The rank (None for the care methods, which have two), and the mean coverage and width of the other cases."""
    table, random = loaded.table, np.random.default_rng(0)
    patients = np.array(sorted(set(table.groups)))
    rank, found = None, []
    for _ in range(splits):
        known = np.isin(table.groups, random.choice(patients, n, replace=False))
        calibration = Calibration.of(table.chosen(known), settings, loaded.unit)
        new = table.chosen(~known & (table["B_label"] > 0))
        ends, target = intervals(calibration, new, loaded.ratio.limit).clipped, new.ratio_label
        inside = (ends.low - COVERED_SLACK <= target) & (target <= ends.high + COVERED_SLACK)
        found.append((inside.mean(), ends.width.mean()))
        rank = None if settings.care else calibration.rank
    coverage, width = np.mean(found, axis=0)
    return rank, float(coverage), float(width)


if __name__ == "__main__":
    main()
