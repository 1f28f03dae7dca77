"""The CORP reliability curve: the best monotone recalibration, drawn.

Dimitriadis, Gneiting, Jordan 2021, "Stable reliability diagrams for probabilistic classifiers". The curve needs no
bins: isotonic regression joins neighbouring cells into blocks of one frequency, as few as the data allow. Its band
resamples patients (groups), because voxels of one patient are not independent. For that, counts of each group are kept
on ``BAND_CELLS`` even cells, which is as fine as a picture shows and small enough to keep for every patient.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from segcal_cli.core.frozen import dataclass
from segcal_cli.metrics.bands import MIN_GROUPS, Band
from segcal_cli.metrics.calibration_errors import BinTable
from segcal_cli.metrics.cells import CellGrid
from segcal_cli.metrics.corp import recalibrated
from segcal_cli.metrics.intervals import percentile, resample

BAND_CELLS = 100
"""Cells of the band: a hundredth of the axis is less than the width of the line."""


@dataclass(frozen=True, slots=True)
class CorpCurve:
    """The ends of each block, in order of p. p: mean probability of the block's first or last cell; r: its frequency;
    n: voxels of the whole block. float64, float64, int64 "end"; a block of one cell has one end.
    """

    p: np.ndarray
    r: np.ndarray
    n: np.ndarray


def corp_curve(cells: BinTable) -> CorpCurve:
    """The curve of one class, from its cells; empty without voxels."""
    filled = cells.n > 0
    if not filled.any():
        return CorpCurve(np.zeros(0), np.zeros(0), np.zeros(0, np.int64))
    r = recalibrated(cells)
    p = np.clip(cells.p[filled] / cells.n[filled], 0.0, 1.0)
    starts = np.flatnonzero(np.concatenate([[True], np.diff(r) > 0.0]))
    stops = np.append(starts[1:], r.size) - 1
    voxels = np.add.reduceat(cells.n[filled], starts)
    ends = np.unique(np.concatenate([starts, stops]))
    block = np.searchsorted(starts, ends, side="right") - 1
    return CorpCurve(p[ends], r[ends], voxels[block])


def band_counts(n: np.ndarray, hits: np.ndarray, grid: CellGrid) -> np.ndarray:
    """int64 "2 class band_cell": voxels and hits on even cells. n, hits: int64 "class cell", all cells of the grid."""
    edges = np.arange(BAND_CELLS) * grid.uniform // BAND_CELLS
    starts = grid.tail - 1 + edges
    starts[0] = 0
    return np.stack([np.add.reduceat(counts, starts, axis=-1) for counts in (n, hits)])


def corp_band(
    groups: Sequence[np.ndarray], level: float = 0.95, resamples: int = 2000, seed: int = 0
) -> tuple[np.ndarray, Band] | None:
    """Where the curve lies when groups are drawn again: centres of the band cells that hold voxels, and the band there.

    groups: int64 "2 band_cell" of one class, one array a group. Pointwise percentile bootstrap; None with fewer than
    six groups or without resamples. Raises BadInterval.
    """
    drawn = resample(len(groups), resamples, seed)
    if len(groups) < MIN_GROUPS or not len(drawn):
        return None
    counts = np.stack(groups)
    shown = counts[:, 0].sum(axis=0) > 0
    centers = ((np.arange(BAND_CELLS) + 0.5) / BAND_CELLS)[shown]
    n, hits = drawn @ counts[:, 0][:, shown], drawn @ counts[:, 1][:, shown]
    curves = np.full(n.shape, np.nan)
    for curve, voxels, positive in zip(curves, n, hits, strict=True):
        filled = voxels > 0
        if filled.any():
            table = BinTable(voxels, positive, voxels * centers)
            curve[:] = np.interp(centers, centers[filled], recalibrated(table))
    low, high = percentile(curves, level)
    return centers, Band(low, high)
