"""Rows of what ``conformal-sets apply`` found in a case, and what it says of all of them."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from segcal_cli.confidence.boxes import components
from segcal_cli.confidence.features import SOFT_FEATURES
from segcal_cli.confidence.log_odds import LOG_ODDS_CLIP
from segcal_cli.confidence.sets import CaseSets
from segcal_cli.confidence.spec import SetSpec
from segcal_cli.confidence.thresholds import ThresholdRow, raised
from segcal_cli.confidence.views import TargetView, length_unit, voxel_volume
from segcal_cli.core.errors import count_text
from segcal_cli.workflows.conformal_files import CHOOSING
from segcal_cli.workflows.conformal_weights import CaseWeights
from segcal_cli.workflows.requests import ConformalApplyOptions
from segcal_cli.workflows.strata import MM3_PER_ML

COLUMNS = (
    "case", "unit", "target", "stratum", "alpha", "alpha_inner", "alpha_outer", "lambda_inner", "lambda_outer",
    "predicted_voxels", "inner_voxels", "outer_voxels", "predicted_ml", "inner_ml", "outer_ml", "weight", "outlier_p",
    "outlier_feature", "flags",
)  # fmt: skip
"""Columns of ``cases.csv``, a row per case and target."""

BOX_COLUMNS = ("case", "target", "component", "x_first", "x_last", "y_first", "y_last", "z_first", "z_last")
"""Columns of ``boxes.csv``: enlarged boxes in voxel indices, first and last voxel of each axis."""


def case_flags(
    view: TargetView,
    found: CaseSets,
    thresholds: ThresholdRow,
    stratum: int,
    *,
    seen: bool,
    features: np.ndarray | None,
    target: int,
) -> list[str]:
    """What should be looked at."""
    domain = view.mask.size if view.domain is None else int(np.count_nonzero(view.domain))
    flags = {
        "empty_prediction": view.mask_box is None,
        "inner_empty": not found.inner.any(),
        "outer_everything": int(np.count_nonzero(found.outer)) >= domain,
        "contradiction": found.contradiction > 0,
        "unknown_stratum": stratum < 0,
        "saturated": features is not None
        and features.shape[1] == len(SOFT_FEATURES)
        and features[target, -1] >= LOG_ODDS_CLIP,
        "in_calibration": seen,
    }
    return [name for name, holds in flags.items() if holds]


def enlarged_boxes(view: TargetView, threshold: float) -> list[dict[str, Any]]:
    """One row per component of the prediction: its bounding box, lambda_O steps larger, cut off at the image."""
    if view.mask_box is None:
        return []
    rows = []
    steps = math.floor(raised(threshold)) if math.isfinite(threshold) else max(view.shape)
    for number, component in enumerate(components(view.mask), start=1):
        row: dict[str, Any] = {"case": view.case.id, "target": view.target.name, "component": number}
        for axis, (start, stop), size in zip("zyx", component.bounds, view.shape, strict=True):
            row[f"{axis}_first"] = max(0, start - steps)
            row[f"{axis}_last"] = min(size, stop + steps) - 1
        rows.append(row)
    return rows


def case_row(
    view: TargetView,
    found: CaseSets,
    thresholds: ThresholdRow,
    spec: SetSpec,
    weight: float | None,
    away: tuple[float, str] | None,
    flags: Sequence[str],
) -> dict[str, Any]:
    """A row of ``cases.csv``, by COLUMNS."""
    voxels = {
        "predicted": view.mask_voxels,
        "inner": int(np.count_nonzero(found.inner)),
        "outer": int(np.count_nonzero(found.outer)),
    }
    ml = voxel_volume(view.case) / MM3_PER_ML if length_unit(view.case) == "mm" else None
    return {
        "case": view.case.id,
        "unit": view.case.group,
        "target": view.target.name,
        "stratum": thresholds.stratum,
        "alpha": spec.alpha,
        "alpha_inner": thresholds.inner.alpha,
        "alpha_outer": thresholds.outer.alpha,
        "lambda_inner": thresholds.inner.value,
        "lambda_outer": thresholds.outer.value,
        **{f"{name}_voxels": count for name, count in voxels.items()},
        **{f"{name}_ml": None if ml is None else count * ml for name, count in voxels.items()},
        "weight": weight,
        "outlier_p": None if away is None else away[0],
        "outlier_feature": None if away is None else away[1],
        "flags": ";".join(flags),
    }


def said(
    rows: Sequence[Mapping[str, Any]],
    drift: Mapping[str, Any] | None,
    weights: CaseWeights | None,
    applying: ConformalApplyOptions,
) -> list[str]:
    """Lines for people: how often each flag was set, weights, drift."""
    lines = []
    counts: dict[str, int] = {}
    for row in rows:
        for flag in filter(None, row["flags"].split(";")):
            counts[flag] = counts.get(flag, 0) + 1
    if counts:
        lines.append("flags       " + ", ".join(f"{flag} {count}" for flag, count in sorted(counts.items())))
    if weights is not None:
        lines.append(f"weights     {weights.how}; effective number of calibration cases {weights.effective_n:.4g}")
    if drift is not None:
        largest = max(drift["features"], key=lambda entry: entry["capital"])
        lines.append(
            f"drift       {count_text(drift['scans'], 'scan')} so far; largest capital {largest['capital']:.3g} "
            f"({largest['feature']}), alarm at {drift['threshold']:g}. Absence of an alarm is no proof of validity."
        )
    if applying.p_values != "none":
        lines.append(f"p-values    {CHOOSING}.")
    return lines


def warned(
    rows: Sequence[Mapping[str, Any]], drift: Mapping[str, Any] | None, weights: CaseWeights | None
) -> list[str]:
    """Warnings over all rows."""
    warnings = []
    wrong = [row["case"] for row in rows if "contradiction" in row["flags"]]
    if wrong:
        shown = ", ".join(wrong[:5])
        many = count_text(len(wrong), "case has", "cases have")
        warnings.append(f"{many} a voxel in I but not in O, so that one set is wrong: {shown}")
    unknown = [row["case"] for row in rows if "unknown_stratum" in row["flags"]]
    if unknown:
        many = count_text(len(unknown), "case is", "cases are")
        warnings.append(f"{many} of a stratum without calibration: nothing is said of them")
    seen = [row["case"] for row in rows if "in_calibration" in row["flags"]]
    if seen:
        many = count_text(len(seen), "row is", "rows are")
        warnings.append(
            f"{many} of cases that these sets, or the calibrator before them, were fitted on; the statement is about "
            "new ones"
        )
    if weights is not None and weights.few:
        warnings.append(f"the weights are worth {weights.effective_n:.1f} equally weighted cases only")
    if drift is not None and drift["alarm"]:
        names = [entry["feature"] for entry in drift["features"] if entry["first_alarm"]]
        warnings.append(f"drift: what comes in has changed since calibration ({', '.join(names)})")
    return warnings
