"""Intervals: one method at one level, for every case of a table.

``nested``, ``joint`` and ``cp`` have one threshold. ``care`` divides its error between the calibration bound and the
estimation bound, at the split that is narrowest for the case: every split contains the interval of
``care-guaranteed``, so trying twenty of them costs no coverage of the labelled ratio.
"""

from __future__ import annotations

import numpy as np

from segcal_cli.core.frozen import dataclass
from segcal_cli.ratio.bounds import (
    Ends,
    calibration_ends,
    fieller_ends,
    markov_ends,
    nested_ends,
    symmetric_ends,
    volume_ends,
)
from segcal_cli.ratio.table import RatioTable, quotient
from segcal_cli.ratio.thresholds import Calibration, field_of_view

WIDTH_TIE = 1e-15
"""Splits whose widths differ by no more are alike; the first of them counts."""


@dataclass(frozen=True, slots=True)
class Intervals:
    """All float64 "case", NaN where a method has no such number.

    unclipped, clipped: ends of the ratio. vacuous: bool, no finite threshold; separated: bool, the denominator's lower
    end is above 0 (and Fieller's set bounded). delta1, delta2: the split; radius_a, radius_b: of the care methods, mm3;
    calibration_width, estimation_width: the parts of its interval; threshold: of the others. numerator, denominator:
    ends of the volumes, mm3.
    """

    unclipped: Ends
    clipped: Ends
    vacuous: np.ndarray
    separated: np.ndarray
    delta1: np.ndarray
    delta2: np.ndarray
    radius_a: np.ndarray
    radius_b: np.ndarray
    calibration_width: np.ndarray
    estimation_width: np.ndarray
    threshold: np.ndarray
    numerator: Ends
    denominator: Ends

    @property
    def width(self) -> np.ndarray:
        return self.clipped.width


def intervals(
    calibration: Calibration, table: RatioTable, limit: float, thresholds: np.ndarray | None = None
) -> Intervals:
    """Of every case of the table; those without a ratio get what arithmetic gives, the caller leaves them out.

    limit: the largest ratio there can be. thresholds: float64 "case", in place of the one threshold of nested, joint
    or cp, where cases are weighted.
    """
    if calibration.settings.care:
        return _care(calibration, table, limit)
    method = calibration.settings.method
    q = np.full(len(table), calibration.score_threshold()) if thresholds is None else thresholds
    nothing = np.full(len(table), np.nan)
    if method == "cp":
        ends, separated = symmetric_ends(table.ratio, q), np.ones(len(table), dtype=bool)
    else:
        radius = q * table.softness("B")
        separated = table["B"] > radius
        if method == "nested":
            ends = nested_ends(table, q)
        else:
            ends = calibration_ends(table["A"], table["B"], q * table.softness("A"), radius)
    volumes = [
        volume_ends(table, name, q if method == "joint" else calibration.volume_threshold(name)) for name in "AB"
    ]
    return Intervals(
        ends, ends.clipped(limit), np.isinf(q), separated,
        nothing, nothing, nothing, nothing, nothing, nothing, q, *volumes,
    )  # fmt: skip


def squared_error(table: RatioTable, estimation: str) -> np.ndarray:
    """float64 "case": of the kind that was asked for; that of independent voxels where none was."""
    return table["squared_error_block" if estimation == "block" else "squared_error_iid"]


def effective_voxels(table: RatioTable) -> np.ndarray:
    """float64 "case": (sum b)^2 / sum b^2, less where neighbouring voxels vary together."""
    spread = quotient((table["B"] / table["voxel_mm3"]) ** 2, table["sum_b2"])
    dependence = quotient(table["squared_error_iid"], table["squared_error_block"])
    return spread * np.where(table["squared_error_block"] > 0, dependence, 1.0)


def _care(calibration: Calibration, table: RatioTable, limit: float) -> Intervals:
    settings = calibration.settings
    view = field_of_view(table) if settings.ce_unit == "mean" else np.ones(len(table))
    splits = calibration.splits()
    radii = [[q * view for q in calibration.radii(name)] for name in "AB"]
    candidates = [
        _split(calibration, table, split.delta1, q_a, q_b) for split, q_a, q_b in zip(splits, *radii, strict=True)
    ]
    widths = np.stack([overall.clipped(limit).width for overall, *_ in candidates])
    # Unbounded widths are all alike; a difference of infinities would be no number.
    least = widths.min(axis=0)
    best = np.argmax(widths <= least + WIDTH_TIE, axis=0)

    def chosen(values: list[np.ndarray]) -> np.ndarray:
        return np.stack([np.broadcast_to(value, len(table)) for value in values])[best, np.arange(len(table))]

    overall = Ends(chosen([c[0].low for c in candidates]), chosen([c[0].high for c in candidates]))
    bound = Ends(chosen([c[1].low for c in candidates]), chosen([c[1].high for c in candidates]))
    estimate = Ends(chosen([c[2].low for c in candidates]), chosen([c[2].high for c in candidates]))
    radius_a, radius_b = (chosen(radius) for radius in radii)
    vacuous = np.isinf(radius_a) | np.isinf(radius_b)
    volumes = [volume_ends(table, name, calibration.volume_threshold(name)) for name in "AB"]
    return Intervals(
        unclipped=overall,
        clipped=overall.clipped(limit),
        vacuous=vacuous,
        separated=(table["B"] > radius_b) & np.isfinite(estimate.high),
        delta1=chosen([np.array(split.delta1) for split in splits]),
        delta2=chosen([np.array(split.delta2) for split in splits]),
        radius_a=radius_a,
        radius_b=radius_b,
        calibration_width=bound.width,
        estimation_width=estimate.width,
        threshold=np.full(len(table), np.nan),
        numerator=volumes[0],
        denominator=volumes[1],
    )


def _split(
    calibration: Calibration, table: RatioTable, delta1: float, radius_a: np.ndarray, radius_b: np.ndarray
) -> tuple[Ends, Ends, Ends]:
    """Overall ends, calibration ends and estimation ends at one split; radii in mm3. Proposition 3.8."""
    settings, ratio = calibration.settings, table.ratio
    bound = calibration_ends(table["A"], table["B"], radius_a, radius_b)
    if not settings.markov:
        return bound, bound, Ends(ratio, ratio)
    if settings.tail == "fieller":
        block = settings.estimation == "block"
        inflation = quotient(table["squared_error_block"], table["squared_error_iid"]) if block else np.ones(len(table))
        estimate = fieller_ends(table, delta1, np.where(np.isnan(inflation), 1.0, inflation))
    else:
        estimate = markov_ends(ratio, squared_error(table, settings.estimation), delta1)
    overall = Ends(bound.low - (ratio - estimate.low), bound.high + (estimate.high - ratio))
    return overall, bound, estimate
