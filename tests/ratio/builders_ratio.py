"""Cases, tables and reference numbers for the tests of ratios."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np

from segcal_cli.core.case import Case
from segcal_cli.core.labels import Channel, LabelMap, LabelSpace
from segcal_cli.core.volume import Grid, Stored, Volume
from segcal_cli.ratio.regions import Ratio, ratio_of
from segcal_cli.ratio.table import RatioTable, table_of

FIXTURES = Path(__file__).parent / "fixtures"
EXPECTED = json.loads((FIXTURES / "expected.json").read_text())
VOLUMES = np.load(FIXTURES / "volumes.npz")
POOLS = np.load(FIXTURES / "pools.npz")
POOLS_EXPECTED = json.loads((FIXTURES / "pools_expected.json").read_text())

TUMOUR = LabelSpace(
    tuple(Channel(n, frozenset({i})) for i, n in enumerate(("background", "edema", "necrosis", "enhancing"))), "softmax"
)
REGIONS = LabelSpace(
    (
        Channel("whole", frozenset({1, 2, 3})),
        Channel("core", frozenset({2, 3})),
        Channel("enhancing", frozenset({3})),
    ),
    "sigmoid",
    paint=(1, 2, 3),
)
RATIOS = {"NTR": ("2", "1,2,3"), "CTR": ("2,3", "1,2,3")}
SPACING = (2.0, 1.5, 1.0)
"""Of the reference volumes, along (x, y, z)."""


def ratio(name: str = "NTR", space: LabelSpace = TUMOUR) -> Ratio:
    return ratio_of(*RATIOS[name], space)


def softmax_case(
    p: np.ndarray, label: np.ndarray | None, name: str = "case", *, spacing: tuple[float, ...] | None = SPACING, **more
) -> Case:
    """A case of the tumour classes. p: "class z y x"; label: "z y x" or None. spacing along (x, y, z)."""
    affine = None if spacing is None else np.diag([*spacing, 1.0])
    volume = Volume(np.ascontiguousarray(p, np.float32), Grid(p.shape[1:], affine), "probabilities", Stored("float32"))
    ignored = more.pop("ignored", None)
    codes = None if label is None else label.astype(np.uint8)
    labels = None if codes is None else LabelMap(codes, np.eye(len(p), dtype=bool), ignored)
    return Case(name, name, TUMOUR, volume, labels, **more)


def region_case(p: np.ndarray, label: np.ndarray, name: str = "case", space: LabelSpace = REGIONS) -> Case:
    """A case of nested regions. label: raw label values, codes as the table of known values has them."""
    known = sorted(space.known_values)
    codes = np.searchsorted(known, label).astype(np.uint8)
    members = np.array([[value in channel.values for value in known] for channel in space.channels])
    volume = Volume(
        np.ascontiguousarray(p, np.float32), Grid(p.shape[1:], np.eye(4)), "probabilities", Stored("float32")
    )
    return Case(name, name, space, volume, LabelMap(codes, members))


def reference_case(name: str) -> Case:
    return softmax_case(VOLUMES[f"{name}_prob"], VOLUMES[f"{name}_label"], name)


COLUMN_OF = {
    "A": "A",
    "B": "B",
    "A_label": "a_label",
    "B_label": "b_label",
    "U_A": "U_A_unfloored",
    "U_B": "U_B_unfloored",
    "ece_A": "ece_A",
    "ece_B": "ece_B",
    "A_hard": "A_hard",
    "B_hard": "B_hard",
    "ece_A_hard": "ece_A_hard",
    "ece_B_hard": "ece_B_hard",
    "kde_A": "kde_A",
    "kde_B": "kde_B",
    "brier_A": "brier_A",
    "brier_B": "brier_B",
    "squared_error_iid": "squared_error_iid",
    "squared_error_block": "squared_error_block",
    "voxels": "n",
    "voxel_mm3": "voxel_mm3",
    "nesting_violation": "nesting_violation",
}
"""Column -> its name in the reference."""


def reference_row(name: str, case: str) -> dict[str, float]:
    """The numbers of a case as the reference has them."""
    numbers = EXPECTED[name]["per_case"][case]
    row = {column: number(numbers.get(key)) for column, key in COLUMN_OF.items()}
    hard, volume = numbers["A_hard"] / 3, numbers["B_hard"] / 3
    share = hard / volume if volume else np.nan
    row["squared_error_hard"] = 720 / 719 * share * (1 - share) / volume if volume else np.nan
    debiased = numbers.get("debiased") or {}
    row |= {f"ratio_{key}": number(debiased.get(key)) for key in ("first", "paper", "exact", "jackknife")}
    variances = numbers.get("mean_variances") or [np.nan] * 3
    row |= dict(zip(("mean_variance_aa", "mean_variance_ab", "mean_variance_bb"), variances, strict=True))
    return row | {"sum_b2": np.nan, "border_share": 0.0}


def reference_table(name: str, prefix: str, patients: dict[str, str] | None = None, *more: str) -> RatioTable:
    """Cases whose name begins with ``prefix``, and ``more``; patients: case -> patient, else each is his own."""
    rows = {
        case: ((patients or {}).get(case, case), reference_row(name, case))
        for case in EXPECTED[name]["per_case"]
        if case.startswith(prefix) or case in more
    }
    return table_of(rows)


def pool(name: str, rows: np.ndarray) -> RatioTable:
    """Rows of a simulated pool, ids in their order."""
    columns = {key.split("__")[1]: POOLS[key][rows] for key in POOLS.files if key.startswith(f"{name}__")}
    n = len(rows)
    columns |= {"voxel_mm3": np.ones(n), "voxels": np.ones(n), "A_hard": np.zeros(n), "B_hard": np.zeros(n)}
    ids = tuple(f"{name}{i:05}" for i in range(n))
    return RatioTable(ids, ids, columns)


def number(value: float | None) -> float:
    return np.nan if value is None else float(value)
