"""The table behind an artifact: one row per case, two scores per target. Everything else follows from it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import field

import numpy as np

from segcal_cli.confidence.features import label_features, soft_features
from segcal_cli.confidence.risk_control import missed_units
from segcal_cli.confidence.scan import Scan, scan
from segcal_cli.confidence.scoring import case_scores
from segcal_cli.confidence.spec import SetSpec
from segcal_cli.confidence.views import TargetView, spacing_of, views, voxel_volume
from segcal_cli.core.case import Case
from segcal_cli.core.frozen import dataclass


@dataclass(frozen=True, slots=True)
class CaseRow:
    """One case. Arrays are "target", features "target feature", spacing along z, y, x (mm or px).

    missed_outside: true voxels outside the region of interest. label_digest: identity of the label volume.
    """

    id: str
    group: str
    tau: np.ndarray
    gamma: np.ndarray
    present: np.ndarray
    missed_outside: np.ndarray
    features: np.ndarray
    predicted_voxels: np.ndarray
    truth_voxels: np.ndarray
    spacing: np.ndarray
    voxel_volume: float
    grid_voxels: int
    label_digest: str = ""


@dataclass(frozen=True, slots=True)
class CaseTable:
    """All rows, by case id. Arrays are "case target", features "case target feature", spacing "case 3".

    stratum: int64 "case target", index into the spec's strata (0 without), -1 for a stratum that calibration lacks.
    """

    ids: tuple[str, ...]
    groups: tuple[str, ...]
    tau: np.ndarray
    gamma: np.ndarray
    present: np.ndarray
    missed_outside: np.ndarray
    features: np.ndarray
    predicted_voxels: np.ndarray
    truth_voxels: np.ndarray
    spacing: np.ndarray
    voxel_volume: np.ndarray
    grid_voxels: np.ndarray
    stratum: np.ndarray

    @property
    def n(self) -> int:
        return len(self.ids)

    def take(self, rows: np.ndarray) -> CaseTable:
        """The rows of these indices."""
        chosen = [int(row) for row in rows]
        arrays = {name: getattr(self, name)[rows] for name in ARRAYS}
        return CaseTable(tuple(self.ids[row] for row in chosen), tuple(self.groups[row] for row in chosen), **arrays)


ARRAYS = (
    "tau",
    "gamma",
    "present",
    "missed_outside",
    "features",
    "predicted_voxels",
    "truth_voxels",
    "spacing",
    "voxel_volume",
    "grid_voxels",
    "stratum",
)
"""Array fields of a CaseTable; in an artifact they have these names."""


@dataclass(frozen=True, slots=True)
class Rows:
    """State of a fit: rows by case id, and the summed curve of missed fractions, int64 "target edge"."""

    rows: Mapping[str, CaseRow] = field(default_factory=dict)
    curve: np.ndarray | None = None


def row_of(case: Case, spec: SetSpec, threads: int = 1) -> tuple[CaseRow, np.ndarray | None]:
    """A case's row, and its missed fractions in units, int64 "target edge" (None for label maps). Raises NoTruth."""
    return row_of_views(views(case, [entry.target for entry in spec.targets]), spec, threads)


def row_of_views(made: Sequence[TargetView], spec: SetSpec, threads: int = 1) -> tuple[CaseRow, np.ndarray | None]:
    """The same where the targets have been looked at already. made: by target."""
    case = made[0].case
    scans = None if spec.labels_only else scan(made, threads)

    def scored(index: int) -> tuple[float, float]:
        entry = spec.targets[index]
        found = None if scans is None else scans[index]
        return case_scores(made[index], entry.inner, entry.outer, spec.rules, found)

    if threads > 1 and len(made) > 1:
        with ThreadPoolExecutor(threads) as pool:
            pairs = list(pool.map(scored, range(len(made))))
    else:
        pairs = [scored(index) for index in range(len(made))]
    tau, gamma = np.array(pairs).T
    truth = np.array([view.all_truth_voxels for view in made])
    row = CaseRow(
        id=case.id,
        group=case.group,
        tau=tau,
        gamma=gamma,
        present=truth > 0,
        missed_outside=np.array([view.missed_outside for view in made]),
        features=features_of(made, scans),
        predicted_voxels=np.array([view.mask_voxels for view in made]),
        truth_voxels=truth,
        spacing=np.array(spacing_of(case)),
        voxel_volume=voxel_volume(case),
        grid_voxels=int(np.prod(case.volume.grid.shape)),
        label_digest=_digest(made),
    )
    if scans is None:
        return row, None
    curve = np.stack([
        missed_units(part.missed + view.missed_outside, int(count))
        for part, view, count in zip(scans, made, truth, strict=True)
        if part.missed is not None
    ])  # fmt: skip
    return row, curve


def features_of(made: Sequence[TargetView], scans: Sequence[Scan] | None) -> np.ndarray:
    """float64 "target feature", of SOFT_FEATURES, or of LABEL_FEATURES where there is no scan."""
    if scans is None:
        return np.stack([label_features(view) for view in made])
    return np.stack([soft_features(view, part.bands) for view, part in zip(made, scans, strict=True)])


def table_of(rows: Mapping[str, CaseRow], strata: np.ndarray | None = None) -> CaseTable:
    """The table of all rows, by case id. strata: int64 "case target", None for one stratum."""
    ordered = [rows[id] for id in sorted(rows, key=str.encode)]
    targets = len(ordered[0].tau)
    return CaseTable(
        ids=tuple(row.id for row in ordered),
        groups=tuple(row.group for row in ordered),
        tau=np.stack([row.tau for row in ordered]),
        gamma=np.stack([row.gamma for row in ordered]),
        present=np.stack([row.present for row in ordered]),
        missed_outside=np.stack([row.missed_outside for row in ordered]),
        features=np.stack([row.features for row in ordered]),
        predicted_voxels=np.stack([row.predicted_voxels for row in ordered]),
        truth_voxels=np.stack([row.truth_voxels for row in ordered]),
        spacing=np.stack([row.spacing for row in ordered]),
        voxel_volume=np.array([row.voxel_volume for row in ordered]),
        grid_voxels=np.array([row.grid_voxels for row in ordered]),
        stratum=np.zeros((len(ordered), targets), np.int64) if strata is None else strata,
    )


def _digest(made: Sequence[TargetView]) -> str:
    import hashlib

    labels = made[0].case.labels
    assert labels is not None, "a row has a truth"
    return hashlib.sha256(np.ascontiguousarray(labels.codes).reshape(-1).view(np.uint8).data).hexdigest()
