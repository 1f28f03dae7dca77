"""Comparison: what each method's intervals are worth on labelled cases that it has not seen.

An interval is good if it holds the labelled ratio as often as it says, is narrow, is wide where the error is large,
and does not fail for small structures only. All methods see the same cases: those whose label holds the denominator
and whose predicted denominator reaches the minimum. Hard masks are compared with thresholds of their own.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator

import numpy as np

from segcal_cli.core.frozen import dataclass
from segcal_cli.metrics.coverage import clopper_pearson, probability_of_at_most
from segcal_cli.ratio.alarms import alarm_threshold, rounded, wide
from segcal_cli.ratio.guarantees import UNDISTURBED, Circumstances, guaranteed
from segcal_cli.ratio.intervals import Intervals, intervals
from segcal_cli.ratio.settings import METHODS, MM3_PER_ML, Method, Settings
from segcal_cli.ratio.table import RatioTable
from segcal_cli.ratio.thresholds import Calibration, field_of_view, with_ratio

LEVELS = (0.68, 0.80, 0.90)
HARD_METHODS: tuple[Method, ...] = ("care", "care-guaranteed", "cp")
"""Methods that need no softness, of which hard masks have none."""
COVERED_SLACK = 1e-12
"""A ratio at the very end of its interval is inside: it is the calibration case that set the threshold, computed in
another order."""
TERTILES = ("small", "medium", "large")


@dataclass(frozen=True, slots=True)
class Comparison:
    """One method, source (``soft`` or ``hard``) and level on the scored cases. cases: them; all arrays are "case".

    volume_cases, volume_intervals: the cases whose volume intervals are judged (all, but for joint and hard), and
    those intervals. unit: "ml" or "voxel", where volumes in ml are undefined.
    """

    settings: Settings
    source: str
    calibration: Calibration
    cases: RatioTable
    found: Intervals
    alarm_threshold: float
    volume_cases: RatioTable
    volume_intervals: Intervals
    unit: str

    @property
    def error(self) -> np.ndarray:
        """R-Bias: predicted minus labelled ratio."""
        return self.cases.ratio - self.cases.ratio_label

    @property
    def covered(self) -> np.ndarray:
        target, ends = self.cases.ratio_label, self.found.clipped
        return (ends.low - COVERED_SLACK <= target) & (target <= ends.high + COVERED_SLACK)

    @property
    def wide(self) -> np.ndarray:
        return wide(self.found, self.alarm_threshold)

    @property
    def tertile(self) -> np.ndarray:
        """int64 "case": 0 small, 1 medium, 2 large, by labelled denominator, then id."""
        return tertiles(self.cases)


def comparisons(
    calibration: RatioTable, new: RatioTable, stored: Settings, unit: str, limit: float
) -> list[Comparison]:
    """Every method at every level, soft before hard. unit: volume unit of both tables. Empty without scored cases."""
    found = []
    minimum = stored.minimum_volume(unit)
    soft = new.chosen(with_ratio(new, minimum, "label"))
    if not len(soft):
        return []
    hard_known = _hard(calibration.chosen(with_ratio(calibration, minimum, "label")))
    hard_new = _hard(soft)
    for settings in compared_settings(stored, METHODS):
        known = Calibration.of(calibration, settings, unit)
        ends = intervals(known, soft, limit)
        whole = (soft, ends) if settings.method == "joint" else (new, intervals(known, new, limit))
        found.append(Comparison(settings, "soft", known, soft, ends, alarm_threshold(known, limit), *whole, unit))
    for settings in compared_settings(stored, HARD_METHODS):
        if not len(hard_new) or (settings.care and settings.score == "kde"):
            continue
        known = Calibration(hard_known, hard_known, settings)
        ends = intervals(known, hard_new, limit)
        found.append(
            Comparison(settings, "hard", known, hard_new, ends, alarm_threshold(known, limit), hard_new, ends, unit)
        )
    return found


def compared_settings(stored: Settings, methods: tuple[Method, ...]) -> Iterator[Settings]:
    """The stored settings with each method and level in turn; what a method cannot have falls back to its default."""
    for method in methods:
        for level in sorted({*LEVELS, stored.level}):
            settings = dataclasses.replace(stored.of_method(method), level=level, weighted=False, cutoff=None)
            if settings.delta1 is not None and settings.delta1 >= settings.delta:
                settings = dataclasses.replace(settings, delta1=None)
            yield settings


def method_entry(one: Comparison, tolerance: float, circumstances: Circumstances = UNDISTURBED) -> dict[str, object]:
    """The numbers of a comparison, as ``evaluate`` reports them. tolerance: an error above it is a large one."""
    holds = guaranteed(one.calibration, circumstances)
    covered, width = one.covered, rounded(one.found.width)
    n, n_covered = len(one.cases), int(covered.sum())
    low, high = clopper_pearson(n_covered, n)
    patients = sorted(set(one.cases.groups), key=str.encode)
    missed = {group for group, inside in zip(one.cases.groups, covered, strict=True) if not inside}
    undercoverage, reason = _undercoverage(one, len(patients), len(missed), circumstances)
    correlation = spearman(width, np.abs(one.error))
    return {
        "method": one.settings.method,
        "source": one.source,
        "level": one.settings.level,
        "delta1": one.settings.estimation_share,
        "guaranteed": holds,
        "n": n,
        "covered": n_covered,
        "coverage": n_covered / n,
        "coverage_low": low,
        "coverage_high": high,
        "patients": len(patients),
        "patients_covered": len(patients) - len(missed),
        "undercoverage_p": undercoverage,
        "undercoverage_p_reason": reason,
        "width_mean": float(width.mean()),
        "width_median": float(np.median(width)),
        "vacuous_share": float(one.found.vacuous.mean()),
        "tertiles": [_tertile(one, index, covered, width) for index in range(len(TERTILES))],
        "spearman_width_error": correlation,
        "spearman_width_error_reason": None if correlation is not None else _no_correlation(width),
        "alarm": _alarm(one, tolerance),
        "volumes": _volumes(one),
    }


def biases(new: RatioTable, stored: Settings, unit: str) -> dict[str, object]:
    """What the predictions themselves are worth: bias of ratio and volumes, calibration error, Brier score.

    Ratios over scored cases, volumes over all.
    """
    soft = new.chosen(with_ratio(new, stored.minimum_volume(unit), "label"))
    hard = _hard(soft)
    error, hard_error = soft.ratio - soft.ratio_label, hard.ratio - hard.ratio_label
    debiased = {
        name: {"abs_mean": _mean(np.abs(soft[f"ratio_{name}"] - soft.ratio_label))}
        for name in ("first", "paper", "exact", "jackknife")
    }
    bias = {name: new[name] - new[f"{name}_label"] for name in "AB"}
    names = {"numerator": "A", "denominator": "B"}
    return {
        "r_bias": {"abs_mean": _mean(np.abs(error)), "abs_median": _median(np.abs(error)), "signed_mean": _mean(error)},
        "r_bias_debiased": debiased,
        "r_bias_hard": {"abs_mean": _mean(np.abs(hard_error)), "signed_mean": _mean(hard_error), "n": len(hard)},
        "v_bias": {
            key: {
                "abs_mean_ml": _mean(np.abs(bias[name])) * _per_ml(unit),
                "signed_mean_ml": _mean(bias[name]) * _per_ml(unit),
                "signed_mean_per_voxel": _mean(bias[name] / field_of_view(new)),
            }
            for key, name in names.items()
        },
        "calibration_error": {key: _mean(new[f"ece_{name}"] / field_of_view(new)) for key, name in names.items()},
        "brier": {key: _mean(new[f"brier_{name}"]) for key, name in names.items()},
    }


def width_parts(compared: list[Comparison], level: float, limit: float) -> dict[str, float] | None:
    """Mean widths of the calibration and the estimation part of care at a level; within the range of the ratio."""
    for one in compared:
        if (one.settings.method, one.source, one.settings.level) == ("care", "soft", level):
            return {
                "calibration": _mean(np.minimum(one.found.calibration_width, limit)),
                "estimation": _mean(np.minimum(one.found.estimation_width, limit)),
            }
    return None


def tertiles(cases: RatioTable) -> np.ndarray:
    """int64 "case": floor(3 rank / n) of the cases sorted by labelled denominator, then id."""
    order = sorted(range(len(cases)), key=lambda i: (cases["B_label"][i], cases.ids[i].encode()))
    made = np.empty(len(cases), dtype=np.int64)
    made[order] = 3 * np.arange(len(cases)) // max(1, len(cases))
    return made


def spearman(x: np.ndarray, y: np.ndarray) -> float | None:
    """Rank correlation with mean ranks; None where one of them is constant or there are fewer than 2 cases."""
    if x.size < 2 or (x == x[0]).all() or (y == y[0]).all():
        return None
    from scipy.stats import rankdata

    ranks = [rankdata(values) for values in (x, y)]
    return float(np.corrcoef(*ranks)[0, 1])


def _no_correlation(width: np.ndarray) -> str:
    if width.size < 2:
        return "one case"
    return "constant width" if (width == width[0]).all() else "constant error"


def _hard(table: RatioTable) -> RatioTable:
    """Scored cases with a hard denominator, hard masks in place of soft volumes."""
    return table.chosen(table["B_hard"] > 0).hard()


def _undercoverage(
    one: Comparison, patients: int, missed: int, circumstances: Circumstances
) -> tuple[float | None, str | None]:
    """P(C <= covered patients) of the beta-binomial law, or None and why no law is known."""
    if circumstances.broken:
        return None, circumstances.broken
    if one.settings.care:
        return None, "two quantiles: coverage is at least the level, by no known law"
    if one.settings.quantile != "conformal":
        return None, f"no law is known for the {one.settings.quantile} quantile"
    rank = one.calibration.rank
    if rank is None:
        return None, "no law is known for one scan of each patient (hcp)"
    if one.settings.method == "joint":
        # What the rank decides is that both volumes hold; that the ratio then does too is more.
        held = _volume_covered(one, "A") & _volume_covered(one, "B")
        missed = len({group for group, inside in zip(one.cases.groups, held, strict=True) if not inside})
    return probability_of_at_most(patients - missed, patients, one.calibration.n, rank), None


def _tertile(one: Comparison, index: int, covered: np.ndarray, width: np.ndarray) -> dict[str, object]:
    inside = one.tertile == index
    denominators = one.cases["B_label"][inside] * _per_ml(one.unit)
    return {
        "name": TERTILES[index],
        "n": int(inside.sum()),
        "denominator_low_ml": float(denominators.min()) if inside.any() else None,
        "denominator_high_ml": float(denominators.max()) if inside.any() else None,
        "coverage": _mean(covered[inside].astype(np.float64)),
        "width_mean": _mean(width[inside]),
    }


def _alarm(one: Comparison, tolerance: float) -> dict[str, object]:
    alarms, large = one.wide, np.abs(one.error) > tolerance
    both = int((alarms & large).sum())
    return {
        "threshold": one.alarm_threshold,
        "tolerance": tolerance,
        "alarms": int(alarms.sum()),
        "large_errors": int(large.sum()),
        "precision": both / int(alarms.sum()) if alarms.any() else None,
        "recall": both / int(large.sum()) if large.any() else None,
    }


def _volumes(one: Comparison) -> dict[str, object] | None:
    """Of soft volumes only: an interval of a hard volume would need a softness."""
    if one.source == "hard":
        return None
    inside = {name: _volume_covered(one, name) for name in "AB"}
    ends = {"A": one.volume_intervals.numerator, "B": one.volume_intervals.denominator}
    entry: dict[str, object] = {}
    for key, name in (("numerator", "A"), ("denominator", "B")):
        predicted = one.volume_cases[name]
        relative = ends[name].width[predicted > 0] / predicted[predicted > 0]
        entry[key] = {
            "coverage": _mean(inside[name].astype(np.float64)),
            "width_mean_ml": _mean(ends[name].width) * _per_ml(one.unit),
            "width_relative_median": _median(relative),
        }
    return {**entry, "joint_coverage": _mean((inside["A"] & inside["B"]).astype(np.float64))}


def _volume_covered(one: Comparison, name: str) -> np.ndarray:
    ends = one.volume_intervals.numerator if name == "A" else one.volume_intervals.denominator
    target = one.volume_cases[f"{name}_label"]
    slack = COVERED_SLACK * (1.0 + target)
    return (ends.low - slack <= target) & (target <= ends.high + slack)


def _per_ml(unit: str) -> float:
    """ml in a unit of volume; NaN where there is no grid."""
    return 1.0 / MM3_PER_ML if unit == "ml" else float("nan")


def _mean(values: np.ndarray) -> float:
    return float(values.mean()) if values.size else float("nan")


def _median(values: np.ndarray) -> float:
    return float(np.median(values)) if values.size else float("nan")
