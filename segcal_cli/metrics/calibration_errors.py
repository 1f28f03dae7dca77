"""Binned calibration errors: how far mean probability and frequency lie apart.

In bin m there are n_m voxels of mean probability e_m and frequency o_m, and its gap is |o_m - e_m| (Barfoot, Garcia
Peraza Herrera, Glocker, Vercauteren 2024, "Average Calibration Error", eq. 2). ECE weights gaps by voxels (eq. 1), ACE
takes each bin once (eq. 3), MCE the largest (eq. 4). Equation 3 is printed as a mean over all bins; a bin without
voxels has no gap, and the released code leaves it out, as is done here. ``empty_bins="zero"`` gives the printed form.
"""

from __future__ import annotations

from typing import Literal

import numpy as np

from segcal_cli.core.frozen import dataclass

EmptyBins = Literal["skip", "zero"]


@dataclass(frozen=True, slots=True)
class BinTable:
    """Voxels, voxels of the class and sum of p in each bin. Arrays "... bin": one table, or one per leading index."""

    n: np.ndarray
    hits: np.ndarray
    p: np.ndarray

    @property
    def mean_probability(self) -> np.ndarray:
        """e_m, NaN in an empty bin."""
        return ratio(self.p, self.n)

    @property
    def frequency(self) -> np.ndarray:
        """o_m, NaN in an empty bin."""
        return ratio(self.hits, self.n)

    @property
    def gap(self) -> np.ndarray:
        """|o_m - e_m|, NaN in an empty bin."""
        return np.abs(ratio(self.hits - self.p, self.n))


def ece(table: BinTable) -> np.ndarray:
    """Expected calibration error; NaN without voxels."""
    return ratio(np.abs(table.hits - table.p).sum(axis=-1), table.n.sum(axis=-1))


def ace(table: BinTable, empty_bins: EmptyBins = "skip") -> np.ndarray:
    """Average calibration error over the bins that hold voxels ("skip") or over all ("zero"); NaN without voxels."""
    filled = (table.n > 0).sum(axis=-1)
    total = np.where(table.n > 0, table.gap, 0.0).sum(axis=-1)
    return ratio(total, filled) if empty_bins == "skip" else np.where(filled > 0, total / table.n.shape[-1], np.nan)


def mce(table: BinTable) -> tuple[np.ndarray, np.ndarray]:
    """Maximum calibration error and its bin, the first of equals; NaN and bin 0 without voxels."""
    gap = np.where(table.n > 0, table.gap, -1.0)
    where = gap.argmax(axis=-1)
    largest = np.take_along_axis(gap, np.expand_dims(where, -1), axis=-1)[..., 0]
    return np.where(largest >= 0.0, largest, np.nan), where


def volume_bias(table: BinTable) -> np.ndarray:
    """mean(p - y), signed: Popordanoska, Bertels, Vandermeulen, Maes, Blaschko 2021. Never larger than ECE in size."""
    return ratio((table.p - table.hits).sum(axis=-1), table.n.sum(axis=-1))


def adaptive_ece(cells: BinTable, bins: int) -> float:
    """ECE with bins of equal numbers of voxels, from the cells of one class.

    R, the running sum of p - y over voxels in order of p, is taken as linear inside a cell, so that it does not depend
    on how ties are ordered; (1/N) sum_j |R(jN/M) - R((j-1)N/M)|.
    """
    filled = cells.n > 0
    voxels = np.concatenate([[0], np.cumsum(cells.n[filled])]).astype(np.float64)
    running = np.concatenate([[0.0], np.cumsum((cells.p - cells.hits)[filled])])
    at = np.interp(np.arange(bins + 1) * (voxels[-1] / bins), voxels, running)
    return float(np.abs(np.diff(at)).sum() / voxels[-1])


def ratio(part: np.ndarray, whole: np.ndarray) -> np.ndarray:
    """part / whole, NaN where whole is 0."""
    with np.errstate(invalid="ignore", divide="ignore"):
        return np.where(whole > 0, part / whole, np.nan)
