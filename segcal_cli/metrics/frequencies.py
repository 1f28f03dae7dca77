"""Frequencies of single cases, bin by bin: what a pooled curve hides.

A model can be calibrated over a data set and in no single case: where it is too sure in half of the patients and not
sure enough in the others, the pooled curve lies on the diagonal. So pictures also show how the frequency o_m of bin m
spreads over cases. The joint histogram of Barfoot et al. 2024 (Fig. 2) counts cases in a square of prediction bins and
frequency bins; each case counts at most once in a column.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from segcal_cli.metrics.calibration_errors import BinTable


def case_frequencies(tables: Sequence[BinTable], min_voxels: int = 1) -> np.ndarray:
    """float64 "case bin": o_m of each case, NaN where it has fewer than ``min_voxels`` voxels in the bin.

    tables: reported bins of one class, one table a case.
    """
    n, hits = (np.stack([getattr(table, name) for table in tables]) for name in ("n", "hits"))
    return np.where(n >= max(min_voxels, 1), hits / np.maximum(n, 1), np.nan)


def joint_histogram(tables: Sequence[BinTable], min_voxels: int = 1) -> np.ndarray:
    """int64 "row bin": cases with o_m in the row's bin. Row 0 is o near 1, the last row is o near 0.

    Rows are right-closed on either closure of the prediction bins, so o = 0 is in the last row. Computed in whole
    numbers: ceil(M hits / n) - 1, which no rounding can move over an edge.
    """
    n, hits = (np.stack([getattr(table, name) for table in tables]) for name in ("n", "hits"))
    bins = n.shape[1]
    of_case, column = np.nonzero(n >= max(min_voxels, 1))
    here, whole = hits[of_case, column], n[of_case, column]
    level = np.maximum(-(-here * bins // whole) - 1, 0)
    counts = np.zeros((bins, bins), np.int64)
    np.add.at(counts, (bins - 1 - level, column), 1)
    return counts
