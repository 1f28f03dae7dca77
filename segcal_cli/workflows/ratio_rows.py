"""Rows of the table of ``ntr-interval apply``: one per case, whatever became of it.

A case without a ratio keeps its volumes; a case that could not be read keeps its name, the error and an alarm.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from segcal_cli.core.frozen import dataclass
from segcal_cli.ratio.alarms import REASONS, case_flags, cutoff_sides, interval_flags
from segcal_cli.ratio.bounds import Ends
from segcal_cli.ratio.intervals import Intervals, effective_voxels, squared_error
from segcal_cli.ratio.settings import MM3_PER_ML, Settings
from segcal_cli.ratio.table import RatioTable

COLUMNS = (
    "case",
    "group",
    "status",
    "method",
    "level",
    "ratio",
    "ratio_low",
    "ratio_high",
    "width",
    "ratio_low_unclipped",
    "ratio_high_unclipped",
    "ratio_debiased",
    "ratio_hard",
    "ratio_reason",
    "numerator_ml",
    "numerator_low_ml",
    "numerator_high_ml",
    "denominator_ml",
    "denominator_low_ml",
    "denominator_high_ml",
    "numerator_voxels",
    "denominator_voxels",
    "numerator_softness_ml",
    "denominator_softness_ml",
    "squared_error",
    "n_eff",
    "delta1",
    "delta2",
    "width_calibration",
    "width_estimation",
    "threshold",
    "numerator_radius_ml",
    "denominator_radius_ml",
    "weight",
    "cutoff_side",
    "alarm",
    "reasons",
    "voxels",
    "voxel_mm3",
    "nesting_violation",
    "border_share",
    "prediction",
    "error",
)

TRIAGE_COLUMNS = (
    "rank",
    "case",
    "group",
    "status",
    "width",
    "ratio",
    "ratio_low",
    "ratio_high",
    "cutoff_side",
    "denominator_ml",
    "reasons",
    "prediction",
)

OK, NO_RATIO, FAILED = "ok", "no_ratio", "failed"


@dataclass(frozen=True, slots=True)
class Judged:
    """All new cases that could be read, with their intervals. has_ratio: bool "case"; threshold: of the width alarm;
    unit: "ml" or "voxel"; weights: float64 "case" or None; out_of_range, seen: bool "case"; few: whether weights rest
    on too few calibration cases.
    """

    table: RatioTable
    found: Intervals
    settings: Settings
    unit: str
    has_ratio: np.ndarray
    threshold: float
    weights: np.ndarray | None
    out_of_range: np.ndarray
    seen: np.ndarray
    few: bool


def case_rows(judged: Judged, predictions: Mapping[str, str]) -> list[dict[str, Any]]:
    """A row per case, in order of the ids; None stands for what is undefined. predictions: case id -> file name."""
    reasons = _reasons(judged)
    columns = _columns(judged)
    cutoff = judged.settings.cutoff
    sides = [] if cutoff is None else cutoff_sides(judged.found, cutoff)
    rows = []
    for i, case in enumerate(judged.table.ids):
        has_ratio = bool(judged.has_ratio[i])
        row: dict[str, Any] = {
            "case": case,
            "group": judged.table.groups[i],
            "status": OK if has_ratio else NO_RATIO,
            "method": judged.settings.method,
            "level": judged.settings.level,
            "ratio_reason": _first(reasons[i], has_ratio),
            "alarm": bool(reasons[i]),
            "reasons": ";".join(reasons[i]),
            "prediction": predictions.get(case, ""),
            "error": None,
            "infinite": bool(has_ratio and np.isposinf(judged.found.clipped.high[i])),
        }
        row |= {name: _value(values[i]) for name, values in columns["case"].items()}
        of_ratio = columns["ratio"].items()
        row |= {name: _value(values[i]) if has_ratio else None for name, values in of_ratio}
        threshold = float(judged.found.threshold[i])
        row["threshold"] = None if not has_ratio or math.isnan(threshold) else threshold
        row["cutoff_side"] = sides[i] if sides and has_ratio else None
        rows.append(row)
    return rows


def failed_row(case: str, group: str, prediction: str, error: str, settings: Settings) -> dict[str, Any]:
    """The row of a case that could not be read."""
    row: dict[str, Any] = dict.fromkeys(COLUMNS)
    row |= {"case": case, "group": group, "status": FAILED, "method": settings.method, "level": settings.level}
    return row | {"alarm": True, "reasons": "failed", "prediction": prediction, "error": error, "infinite": False}


def csv_rows(rows: Sequence[Mapping[str, Any]], columns: Sequence[str]) -> list[dict[str, Any]]:
    """The rows as a CSV has them."""
    return [{name: row.get(name) for name in columns} for row in rows]


def _reasons(judged: Judged) -> list[list[str]]:
    """Of each case, in the order of REASONS."""
    table, has = judged.table, judged.has_ratio
    flags = {
        "no_denominator": table["B"] <= 0,
        "small_denominator": ~has & (table["B"] > 0),
        "out_of_calibration_range": judged.out_of_range,
        "low_effective_sample": np.full(len(table), judged.few) & has,
        "in_calibration": judged.seen,
        **case_flags(table),
    }
    intervals = interval_flags(table, judged.found, judged.settings, judged.threshold)
    flags |= {name: flag & has for name, flag in intervals.items()}
    return [[name for name in REASONS if name in flags and flags[name][i]] for i in range(len(table))]


def _first(reasons: list[str], has_ratio: bool) -> str | None:
    """Why there is no ratio, or why its interval says little."""
    meant = ("vacuous", "denominator_not_separated") if has_ratio else ("no_denominator", "small_denominator")
    return next((reason for reason in reasons if reason in meant), None)


def _columns(judged: Judged) -> dict[str, dict[str, np.ndarray]]:
    """Numbers of every case ("case"), and those of cases with a ratio only ("ratio")."""
    table, found, settings = judged.table, judged.found, judged.settings
    nothing = np.full(len(table), np.nan)
    scale = 1.0 / MM3_PER_ML if judged.unit == "ml" else np.nan

    def volume(name: str, ends: Ends) -> list[np.ndarray]:
        return [table[name] * scale, ends.low * scale, ends.high * scale]

    every: dict[str, np.ndarray] = {}
    for word, name, ends in (("numerator", "A", found.numerator), ("denominator", "B", found.denominator)):
        middle, low, high = volume(name, ends)
        every |= {f"{word}_ml": middle, f"{word}_low_ml": low, f"{word}_high_ml": high}
        every[f"{word}_voxels"] = table[name] / table["voxel_mm3"]
        every[f"{word}_softness_ml"] = table[f"U_{name}"] * scale
    every |= {
        "voxels": table["voxels"],
        "voxel_mm3": table["voxel_mm3"] if judged.unit == "ml" else nothing,
        "nesting_violation": table["nesting_violation"],
        "border_share": table["border_share"],
    }
    debiased = f"ratio_{settings.debias}"
    of_ratio = {
        "ratio": table.ratio,
        "ratio_low": found.clipped.low,
        "ratio_high": found.clipped.high,
        "width": found.width,
        "ratio_low_unclipped": found.unclipped.low,
        "ratio_high_unclipped": found.unclipped.high,
        "ratio_debiased": table.columns.get(debiased, nothing),
        "ratio_hard": table.ratio_hard,
        "squared_error": squared_error(table, settings.estimation),
        "n_eff": effective_voxels(table) if settings.estimation == "block" else nothing,
        "delta1": found.delta1,
        "delta2": found.delta2,
        "width_calibration": found.calibration_width,
        "width_estimation": found.estimation_width,
        "numerator_radius_ml": found.radius_a * scale,
        "denominator_radius_ml": found.radius_b * scale,
        "weight": nothing if judged.weights is None else judged.weights,
    }
    return {"case": every, "ratio": of_ratio}


def _value(value: np.floating) -> float | None:
    """A cell: None for what is undefined or has no end."""
    number = float(value)
    return number if math.isfinite(number) else None
