"""Conformal sets as an artifact: the table of cases and the resolved spec; no threshold is stored that follows."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np

from segcal_cli.confidence.features import LABEL_FEATURES, SOFT_FEATURES
from segcal_cli.confidence.learning import Learned
from segcal_cli.confidence.spec import spec_from_json
from segcal_cli.confidence.table import ARRAYS, CaseTable
from segcal_cli.confidence.thresholds import Calibration
from segcal_cli.core.artifact import Artifact, Header

KIND = "conformal-sets"


KINDS = {
    "present": "b",
    **dict.fromkeys(("missed_outside", "predicted_voxels", "truth_voxels", "grid_voxels", "stratum"), "i"),
}
"""What arrays of the table hold, as numpy's letters, where it is not floats."""

LARGEST = 1e30
"""No length, volume or feature of a scan is larger; squares of what is smaller are numbers still."""


def arrays_of(calibration: Calibration, curve: np.ndarray | None, learned: Learned | None) -> dict[str, np.ndarray]:
    """Arrays of the artifact: the table's own, ``unit`` (index of the case's patient), ``missed_curve`` (int64 "target
    edge"), ``standard`` ("target side location-scale"), and of learning cases ``learn_tau``, ``learn_gamma`` ("case
    target") and ``choice`` ("row": target, inner and outer candidate, share, margin, cases)."""
    table = calibration.table
    arrays = {name: getattr(table, name) for name in ARRAYS}
    groups = sorted(set(table.groups), key=str.encode)
    arrays["unit"] = np.array([groups.index(group) for group in table.groups], np.int64)
    arrays["standard"] = np.array([entry.standard for entry in calibration.spec.targets], np.float64)
    if curve is not None:
        arrays["missed_curve"] = curve
    if learned is not None:
        arrays["learn_tau"], arrays["learn_gamma"] = learned.tau, learned.gamma
        arrays["choice"] = np.array(
            [
                (target, place, row.share, row.margin, row.cases)
                for target, rows in enumerate(learned.tables)
                for place, row in enumerate(rows)
            ],
            np.float64,
        ).reshape(-1, 5)
    return arrays


def choices_json(learned: Learned) -> list[dict[str, Any]]:
    """Per target the whole table of the choice."""
    return [
        {"target": entry.target.name, "rows": [row.to_json() for row in rows]}
        for entry, rows in zip(learned.targets, learned.tables, strict=True)
    ]


def calibration_from(artifact: Artifact) -> Calibration:
    """The calibration of an artifact. Raises KeyError, TypeError, ValueError or UsageError for a damaged one."""
    return calibration_of(artifact.header, artifact.arrays)


def calibration_of(header: Header, arrays: Mapping[str, np.ndarray]) -> Calibration:
    spec = spec_from_json(header.spec)
    n, targets = header.n_cases, len(spec.targets)
    found = {name: np.asarray(arrays[name]) for name in ARRAYS}
    width = len(LABEL_FEATURES if spec.labels_only else SOFT_FEATURES)
    shapes = {"features": (n, targets, width), "spacing": (n, 3), "voxel_volume": (n,), "grid_voxels": (n,)}
    for name, array in found.items():
        if array.shape != shapes.get(name, (n, targets)):
            raise ValueError(f"{name} has the shape {array.shape} for {n} cases and {targets} targets")
    for name, array in found.items():
        if array.dtype.kind != KINDS.get(name, "f") or (array.dtype.kind == "f" and array.dtype != np.float64):
            raise ValueError(f"{name} is {array.dtype}")
    for name in ("tau", "gamma"):  # infinite where nothing of a target is there
        if np.isnan(found[name]).any():
            raise ValueError(f"{name} holds NaN")
    for name in ("features", "spacing", "voxel_volume"):
        if (np.abs(found[name]) > LARGEST).any() or not np.isfinite(found[name]).all():
            raise ValueError(f"{name} holds what was never measured")
    spec.check()
    return Calibration(spec, CaseTable(header.case_ids, header.group_ids, **found))
