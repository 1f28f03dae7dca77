"""Ratio intervals: what they cost beyond reading, on one scan of the size of BraTS.

Plain numpy sums the same probabilities the way one would write it down: five sums over whole float64 volumes. The rows
of segcal do the same, slab by slab, with everything else that a row of the table holds.
"""

from __future__ import annotations

import statistics
import time
import tracemalloc
from collections.abc import Callable
from pathlib import Path

import numpy as np

from segcal_cli.core.case import Case
from segcal_cli.core.labels import Channel, LabelMap, LabelSpace
from segcal_cli.core.volume import Grid, Stored, Volume
from segcal_cli.ratio.intervals import intervals
from segcal_cli.ratio.regions import ratio_of
from segcal_cli.ratio.settings import METHODS, Settings
from segcal_cli.ratio.sums import Wanted, case_row
from segcal_cli.ratio.table import RatioTable, table_of
from segcal_cli.ratio.thresholds import Calibration

SHAPE = (155, 240, 240)
SPACE = LabelSpace(
    tuple(Channel(n, frozenset({i})) for i, n in enumerate(("background", "edema", "necrosis", "enhancing"))), "softmax"
)
RATIO = ratio_of("necrosis", "edema,necrosis,enhancing", SPACE)
ALIKE = ratio_of("edema,necrosis", "edema,necrosis,enhancing", SPACE)
"""Regions so alike over most of the tumour that the squared error needs a second pass."""
CASES = 1000
LEVELS = (0.68, 0.80, 0.90, 0.95)


def run(folder: Path, runs: int) -> str:
    """A table of processor seconds, of these as multiples of plain numpy, and of the memory that is taken beyond the
    decoded case. folder: not used."""
    logits, labels = generated()
    largest = np.exp(logits - logits.max(axis=0))
    probabilities = largest / largest.sum(axis=0)
    soft, raw = case_of(probabilities, "probabilities", labels), case_of(logits, "logits", labels)
    row = case_row(soft, RATIO, Wanted(labels=True, blocks=True))
    table = table_of({f"{i:04}": (f"{i:04}", varied(row, i)) for i in range(CASES)})
    work: dict[str, Callable[[], object]] = {
        "plain numpy, five sums": lambda: plain(probabilities),
        "apply nested": lambda: case_row(soft, RATIO, Wanted()),
        "apply nested, from logits": lambda: case_row(raw, RATIO, Wanted()),
        "apply nested, from logits, alike regions": lambda: case_row(raw, ALIKE, Wanted()),
        "apply care with blocks": lambda: case_row(soft, RATIO, Wanted(blocks=True)),
        "apply care with blocks, from logits": lambda: case_row(raw, RATIO, Wanted(blocks=True)),
        "fit": lambda: case_row(soft, RATIO, Wanted(labels=True, blocks=True)),
        f"intervals of {CASES} cases, {len(METHODS)} methods, {len(LEVELS)} levels": lambda: every_interval(table),
    }
    lines = [f"ratio intervals, 4 x {' x '.join(map(str, SHAPE))}", f"{'':52}{'cpu s':>9}{'x plain':>9}{'MB more':>9}"]
    plain_s = 0.0
    for name, function in work.items():
        tracemalloc.start()
        function()
        more = tracemalloc.get_traced_memory()[1] / 2**20
        tracemalloc.stop()
        times = []
        for _ in range(runs):
            start = time.process_time()
            function()
            times.append(time.process_time() - start)
        median = statistics.median(times)
        plain_s = plain_s or median
        lines.append(f"{name:52}{median:>9.3f}{median / plain_s:>9.2f}{more:>9.0f}")
    return "\n".join(lines) + "\n"


def generated() -> tuple[np.ndarray, np.ndarray]:
    """float32 logits "class z y x" of a tumour in a head, and its labels."""
    z, y, x = np.ogrid[: SHAPE[0], : SHAPE[1], : SHAPE[2]]
    distance = np.sqrt((z - 70) ** 2 + (y - 100) ** 2 + (x - 120) ** 2).astype(np.float32)
    edema, enhancing = np.minimum((35 - distance) / 3, 3), np.minimum((25 - distance) / 2, 6)
    logits = np.stack(((distance - 40) / 3, edema, (15 - distance) / 1.5 + 4, enhancing)).astype(np.float32)
    return logits, logits.argmax(axis=0).astype(np.uint8)


def case_of(array: np.ndarray, values: str, labels: np.ndarray) -> Case:
    volume = Volume(array, Grid(SHAPE, np.eye(4)), values, Stored("float32"))  # type: ignore[arg-type]
    return Case("case", "case", SPACE, volume, LabelMap(labels, np.eye(4, dtype=bool)))


def plain(probabilities: np.ndarray) -> list[float]:
    a = probabilities[2].astype(np.float64)
    b = probabilities[1:].sum(axis=0, dtype=np.float64)
    return [a.sum(), b.sum(), (a * a).sum(), (a * b).sum(), (b * b).sum()]


def varied(row: dict[str, float], seed: int) -> dict[str, float]:
    """The row with every number scaled by a factor of its own, so that no two cases are alike."""
    factors = np.random.default_rng(seed).uniform(0.5, 1.5, len(row))
    return {name: value * factor for (name, value), factor in zip(row.items(), factors, strict=True)}


def every_interval(table: RatioTable) -> None:
    for method in METHODS:
        for level in LEVELS:
            intervals(Calibration.of(table, Settings(method, level), "ml"), table, 1.0)
