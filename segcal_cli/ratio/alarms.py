"""Alarms: which scans somebody must look at, and why.

Reasons stand in a fixed order, worst first. A scan without a ratio is one of them: it never gets a confident interval.
"""

from __future__ import annotations

import math

import numpy as np

from segcal_cli.ratio.intervals import Intervals, effective_voxels, intervals
from segcal_cli.ratio.settings import Settings, alarm_of
from segcal_cli.ratio.table import RatioTable
from segcal_cli.ratio.thresholds import Calibration

REASONS = (
    "failed",
    "no_denominator",
    "small_denominator",
    "vacuous",
    "denominator_not_separated",
    "wide",
    "crosses_cutoff",
    "n_eff_low",
    "saturated",
    "touches_border",
    "nesting_violation",
    "out_of_calibration_range",
    "low_effective_sample",
    "in_calibration",
)

WIDTH_DECIMALS = 12
"""Widths are compared after rounding: (R + q) - (R - q) differs between cases in the last bit."""
MIN_EFFECTIVE_VOXELS = 20.0
MAX_BORDER_SHARE = 0.02
"""Share of the denominator in the outermost layer of voxels; more means that the structure may be cut off."""
MAX_NESTING_VIOLATION = 0.01
SATURATED_VOXELS = 10.0
"""A region of so many voxels whose softness is below one voxel: a hard mask, or a writer that rounded."""
RANK_ROUNDING = 1e-9
"""A percentile of n cases can miss a whole rank by a few ulp."""


def alarm_threshold(
    calibration: Calibration, limit: float, weighted: np.ndarray | None = None, own: Intervals | None = None
) -> float:
    """The width beyond which a case is ``wide``: as given, or the nearest-rank percentile of the scored calibration
    cases' own widths. +inf without scored cases.

    weighted: float64 "scored case", their thresholds where cases are weighted. own: their intervals, if known.
    """
    alarm = alarm_of(calibration.settings.alarm_width)
    if alarm.width is not None:
        return round(alarm.width, WIDTH_DECIMALS)
    assert alarm.percentile is not None, "an alarm is a width or a percentile"
    if not len(calibration.scored):
        return math.inf
    known = intervals(calibration, calibration.scored, limit, weighted) if own is None else own
    widths = np.sort(rounded(known.width))
    rank = max(1, math.ceil(alarm.percentile / 100.0 * widths.size - RANK_ROUNDING))
    return float(widths[rank - 1])


def rounded(widths: np.ndarray) -> np.ndarray:
    """Widths as they are compared."""
    return np.round(widths, WIDTH_DECIMALS)


def wide(found: Intervals, threshold: float) -> np.ndarray:
    """bool "case": wider than the threshold."""
    return rounded(found.width) > threshold


def cutoff_sides(found: Intervals, cutoff: float) -> list[str]:
    """Of each case: "below" if the whole interval is, "above", or "crosses"."""
    sides = np.where(found.clipped.high < cutoff, "below", np.where(found.clipped.low > cutoff, "above", "crosses"))
    return [str(side) for side in sides]


def interval_flags(table: RatioTable, found: Intervals, settings: Settings, threshold: float) -> dict[str, np.ndarray]:
    """Reasons that an interval of a case with a ratio can have: reason -> bool "case"."""
    flags = {
        "vacuous": found.vacuous,
        "denominator_not_separated": ~found.separated & ~found.vacuous,
        "wide": wide(found, threshold),
    }
    if settings.cutoff is not None:
        flags["crosses_cutoff"] = np.array([side == "crosses" for side in cutoff_sides(found, settings.cutoff)], bool)
    if settings.estimation == "block":
        flags["n_eff_low"] = effective_voxels(table) < MIN_EFFECTIVE_VOXELS
    return flags


def case_flags(table: RatioTable) -> dict[str, np.ndarray]:
    """Reasons that lie in the prediction itself: reason -> bool "case". NaN is no reason."""
    voxel = table["voxel_mm3"]
    saturated = np.zeros(len(table), dtype=bool)
    for name in "AB":
        saturated |= (table[f"U_{name}"] < voxel) & (table[name] >= SATURATED_VOXELS * voxel)
    return {
        "saturated": saturated,
        "touches_border": table["border_share"] > MAX_BORDER_SHARE,
        "nesting_violation": table["nesting_violation"] > MAX_NESTING_VIOLATION,
    }


def triage_order(rows: list[dict[str, object]]) -> list[dict[str, object]]:
    """Alarmed rows: failed and without a ratio first, then by width, widest first, then by case id."""

    def key(row: dict[str, object]) -> tuple[int, float, bytes]:
        width = row.get("width")
        without = row["status"] != "ok"
        size = math.inf if width is None else float(str(width))
        return (0 if without else 1, 0.0 if without else -size, str(row["case"]).encode())

    return sorted((row for row in rows if row["alarm"]), key=key)
