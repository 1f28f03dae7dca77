"""The table of cases: all that thresholds and intervals need, one row of numbers per case.

Artifacts hold such a table of the calibration cases, so method and level can be chosen long after the fit; ``apply``
makes one of the new cases, without the labelled columns. Rows stand in the order of the case ids' bytes, whatever
order the cases were read in.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np

from segcal_cli.core.artifact import Artifact
from segcal_cli.core.frozen import dataclass

VOLUMES = ("A", "B", "U_A", "U_B", "A_hard", "B_hard")
LABELLED = ("A_label", "B_label", "ece_A", "ece_B", "ece_A_hard", "ece_B_hard")
STORED = (
    *VOLUMES,
    *LABELLED,
    "squared_error_iid",
    "squared_error_block",
    "squared_error_hard",
    "sum_b2",
    "voxels",
    "voxel_mm3",
    "border_share",
    "nesting_violation",
)
"""Columns of an artifact. A, B: soft volumes in mm3 (voxels without a grid), U their softness v sum p(1 - p) without
its floor, *_label labelled, *_hard of the hard masks, ece_* calibration errors in mm3; sum_b2: sum of b^2 over voxels;
border_share: share of B in the outermost layer; nesting_violation: share of B where a exceeds b."""

KERNEL = ("kde_A", "kde_B")
"""Kernel calibration errors in mm3, stored where they were asked for."""

IDENTITY = ("A", "B", "U_A", "U_B", "sum_b2", "border_share", "voxels", "voxel_mm3")
"""Columns that are taken of a prediction alone, in the fit as later."""

LARGEST = 1e100
"""Beyond what any number of any scan is, and its square is still a float."""

VARIANCES = ("mean_variance_aa", "mean_variance_ab", "mean_variance_bb")
"""Sample variances of the voxel means a' and b', and their covariance; one array of three columns on disk."""

DEBIASED = ("ratio_first", "ratio_paper", "ratio_exact", "ratio_jackknife")

MEASURED = ("brier_A", "brier_B", "unannotated", *DEBIASED)
"""Columns that no artifact keeps: Brier scores, the number of voxels without annotation, debiased ratios."""

OF_LABELS = (*LABELLED, "brier_A", "brier_B", "unannotated")
"""Columns that a case without labels has not."""

COLUMNS = (*STORED, *KERNEL, *VARIANCES, *MEASURED)


@dataclass(frozen=True, slots=True)
class RatioTable:
    """ids, groups: of each case, in order of the ids. columns: name -> float64 "case", NaN where undefined."""

    ids: tuple[str, ...]
    groups: tuple[str, ...]
    columns: Mapping[str, np.ndarray]

    def __getitem__(self, name: str) -> np.ndarray:
        return self.columns[name]

    def __len__(self) -> int:
        return len(self.ids)

    def __contains__(self, name: str) -> bool:
        return name in self.columns

    @property
    def ratio(self) -> np.ndarray:
        """float64 "case": A/B, NaN without a denominator."""
        return quotient(self["A"], self["B"])

    @property
    def ratio_label(self) -> np.ndarray:
        """float64 "case": the target, what the label says."""
        return quotient(self["A_label"], self["B_label"])

    @property
    def ratio_hard(self) -> np.ndarray:
        return quotient(self["A_hard"], self["B_hard"])

    def softness(self, name: str) -> np.ndarray:
        """float64 "case": U of "A" or "B", at least one voxel."""
        return np.maximum(self[f"U_{name}"], self["voxel_mm3"])

    def chosen(self, which: np.ndarray) -> RatioTable:
        """The cases of a bool "case"."""
        places = np.flatnonzero(which)
        return RatioTable(
            tuple(self.ids[i] for i in places),
            tuple(self.groups[i] for i in places),
            {name: column[places] for name, column in self.columns.items()},
        )

    def hard(self) -> RatioTable:
        """The same cases, their hard masks in place of soft volumes."""
        columns = dict(self.columns)
        for name in ("A", "B", "ece_A", "ece_B"):
            columns[name] = self[f"{name}_hard"]
        columns["squared_error_iid"] = columns["squared_error_block"] = self["squared_error_hard"]
        return RatioTable(self.ids, self.groups, columns)


def table_of(rows: Mapping[str, tuple[str, Mapping[str, float]]]) -> RatioTable:
    """The table of case id -> (group, numbers). Every row holds the same names."""
    ids = tuple(sorted(rows, key=str.encode))
    names = rows[ids[0]][1].keys() if ids else COLUMNS
    columns = {name: np.array([rows[case][1][name] for case in ids], dtype=np.float64) for name in names}
    return RatioTable(ids, tuple(rows[case][0] for case in ids), columns)


def to_arrays(table: RatioTable) -> dict[str, np.ndarray]:
    """The arrays of an artifact."""
    arrays = {name: table[name] for name in (*STORED, *KERNEL) if name in table}
    return {**arrays, "mean_variances": np.stack([table[name] for name in VARIANCES], axis=1)}


def from_artifact(artifact: Artifact) -> RatioTable:
    """The table of the calibration cases. Raises KeyError or ValueError for arrays that are not one."""
    arrays, n = artifact.arrays, artifact.header.n_cases
    columns = {name: np.asarray(arrays[name], dtype=np.float64) for name in STORED}
    columns |= {name: np.asarray(arrays[name], dtype=np.float64) for name in KERNEL if name in arrays}
    variances = np.asarray(arrays["mean_variances"], dtype=np.float64)
    if variances.shape != (n, len(VARIANCES)) or any(column.shape != (n,) for column in columns.values()):
        raise ValueError("columns of unequal length")
    _check_numbers(columns)
    columns |= {name: variances[:, index] for index, name in enumerate(VARIANCES)}
    return RatioTable(artifact.header.case_ids, artifact.header.group_ids, columns)


def _check_numbers(columns: Mapping[str, np.ndarray]) -> None:
    """Raises ValueError for volumes that none has."""
    for name, column in columns.items():
        known = column[~np.isnan(column)]
        if known.size < column.size and name in (*VOLUMES, *LABELLED, "voxels", "voxel_mm3"):
            raise ValueError(f"{name} holds NaN")
        if known.size and not (known.min() >= 0 and known.max() <= LARGEST):
            raise ValueError(f"{name} holds {known.min():g} to {known.max():g}")
    if any((columns[name] <= 0).any() for name in ("voxels", "voxel_mm3")):
        raise ValueError("a case without voxels")


def same_scans(known: RatioTable, new: RatioTable) -> np.ndarray:
    """bool "case": whether a new case is a copy of a known one, whatever its name: all sums agree to the last bit.

    Sums of whole voxels may agree by chance, so hard predictions are never taken for copies.
    """
    rows = {tuple(row) for row in np.stack([known[name] for name in IDENTITY], axis=1).tolist()}
    found = np.stack([new[name] for name in IDENTITY], axis=1).tolist()
    same: np.ndarray = np.array([tuple(row) in rows for row in found], dtype=np.bool_)
    return same & (new["U_A"] + new["U_B"] > 0)


def joined(tables: Sequence[RatioTable]) -> RatioTable:
    """One table of several with the same columns, in order of the ids."""
    rows = {
        case: (table.groups[i], {name: float(column[i]) for name, column in table.columns.items()})
        for table in tables
        for i, case in enumerate(table.ids)
    }
    return table_of(rows)


def quotient(above: np.ndarray, below: np.ndarray) -> np.ndarray:
    """float64: above/below, NaN where below is 0."""
    with np.errstate(divide="ignore", invalid="ignore"):
        return np.where(below > 0, above / below, np.nan)
