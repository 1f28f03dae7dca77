"""Studies of an artifact on labelled cases: an alpha sweep, random resplits, leave-one-group-out, other methods.

Rows are plain dicts with the keys of the tables they become; undefined numbers are None.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from segcal_cli.confidence.evaluation import CaseOutcome
from segcal_cli.confidence.maps import SIDES, Side
from segcal_cli.confidence.risk_control import bonferroni_images
from segcal_cli.confidence.spec import SetSpec
from segcal_cli.confidence.table import CaseTable
from segcal_cli.confidence.text import outer_promise, percent
from segcal_cli.confidence.thresholds import SideThreshold, combined_scores, raised, unit_scores
from segcal_cli.confidence.validation import SUSPICIOUS, band_of, ranks_of, resplit_coverages, summarised
from segcal_cli.confidence.verdict import LOWER, Verdict, median
from segcal_cli.metrics.coverage import clopper_pearson, probability_of_at_most

NO_PROMISE = "none: the calibrator had seen the calibration cases"
"""The guarantee of every method after ``--allow-overlap``."""


def sweep_rows(verdict: Verdict) -> list[dict[str, Any]]:
    """False coverage, its band and median sizes over the alpha grid."""
    rows = []
    spec = verdict.calibration.spec
    for target, stratum in verdict.strata():
        units = verdict.units(target, stratum)
        members = [o for o in verdict.outcomes.values() if o.targets[target].stratum == stratum]
        for place, alpha in enumerate(verdict.alphas):
            threshold = verdict.calibration.threshold(target, stratum, alpha)
            inner = units.tau > raised(threshold.inner.value)
            outer = units.gamma > raised(threshold.outer.value)
            judged = units.gamma_present > raised(threshold.outer.value) if spec.ranks_present else outer
            law = spec.joint != "max"
            low_i, high_i = band_of(inner.size, threshold.inner.n, threshold.inner.rank if law else None)
            low_o, high_o = band_of(judged.size, threshold.outer.n, threshold.outer.rank if law else None)
            rank = threshold.inner.rank if spec.joint == "max" and spec.across != "max" else None
            low_j, high_j = band_of(inner.size, threshold.inner.n, rank)
            rows.append({
                "target": threshold.target,
                "stratum": threshold.stratum,
                "alpha": alpha,
                "alpha_inner": threshold.inner.alpha,
                "alpha_outer": threshold.outer.alpha,
                "false_inner": _mean(inner),
                "false_outer": _mean(judged),
                "false_joint": _mean(inner | outer),
                "expected_inner": _expected(threshold.inner) if law else None,
                "expected_outer": _expected(threshold.outer) if law else None,
                "expected_joint": _expected(threshold.inner) if rank is not None else None,
                "low_inner": low_i, "high_inner": high_i,
                "low_outer": low_o, "high_outer": high_o,
                "low_joint": low_j, "high_joint": high_j,
                "lambda_inner": threshold.inner.value,
                "lambda_outer": threshold.outer.value,
                "median_inner_voxels": median([o.targets[target].inner_sizes[place] for o in members]),
                "median_outer_voxels": median([o.targets[target].outer_sizes[place] for o in members]),
                "median_inner_diameter_ratio": median(_diameters(members, target, "inner", place)),
                "median_outer_diameter_ratio": median(_diameters(members, target, "outer", place)),
            })  # fmt: skip
    return rows


def resplit_rows(verdict: Verdict, resplits: int) -> tuple[list[dict[str, Any]], list[dict[str, Any]]]:
    """(rows, coverages of the resplits at the level of the grid nearest to the judged alpha). Units only."""
    rows, drawn = [], []
    spec = verdict.calibration.spec
    if spec.unit == "hcp" or not resplits:
        return [], []
    nearest = int(np.argmin(np.abs(np.array(verdict.alphas) - verdict.alpha)))
    for target, stratum in verdict.strata():
        levels = [spec.levels(target, alpha) for alpha in verdict.alphas]
        for index, side in enumerate(SIDES):
            stored, new = _pooled(verdict, target, stratum, side)
            if not new.size or not stored.size:
                continue
            n, alphas = stored.size, [level[index] for level in levels]
            pooled = np.concatenate([stored, new])
            confidence = spec.side_confidence()
            coverages = resplit_coverages(pooled, n, alphas, resplits, verdict.seed, confidence)
            found = summarised(coverages, alphas, n, new.size, confidence)
            name = spec.targets[target].target.name
            where = None if not spec.strata else spec.strata[stratum]
            for place, alpha in enumerate(verdict.alphas):
                rows.append({
                    "target": name, "stratum": where, "side": side, "alpha": alpha, "alpha_side": alphas[place],
                    "n": n, "m": int(new.size),
                    "mean": float(found.mean[place]), "sd": float(found.sd[place]),
                    "low": float(found.low[place]), "high": float(found.high[place]),
                    "law_mean": float(found.law_mean[place]), "law_sd": float(found.law_sd[place]),
                })  # fmt: skip
            rank = int(ranks_of(n, [alphas[nearest]], confidence)[0])
            drawn.append({
                "target": name, "stratum": where, "side": side, "alpha": verdict.alphas[nearest],
                "n": n, "m": int(new.size), "rank": rank, "coverage": coverages[:, nearest],
            })  # fmt: skip
            if spec.joint == "max":
                break
    return rows, drawn


def _pooled(verdict: Verdict, target: int, stratum: int, side: Side) -> tuple[np.ndarray, np.ndarray]:
    """Scores of stored and of new units on one scale."""
    spec = verdict.calibration.spec
    stored = verdict.calibration.ranked(target, side, stratum).scores
    units = verdict.units(target, stratum)
    if units.combined is not None:
        location, scale = spec.targets[target].standard[SIDES.index(side)]
        return stored, location + scale * units.combined
    if side == "inner":
        return stored, units.tau
    return stored, units.gamma_present if spec.ranks_present else units.gamma


def group_rows(verdict: Verdict, group_of: Mapping[str, str]) -> list[dict[str, Any]]:
    """For each group, coverage when all others calibrate, within each stratum. group_of: of every stored and new case.

    Under ``max`` one score stands for both sides.
    """
    spec, rows = verdict.calibration.spec, []
    tables = (verdict.calibration.table, verdict.table)
    groups = np.array([group_of[id] for table in tables for id in table.ids], dtype=object)
    patients = np.array([group for table in tables for group in table.groups])
    for target, entry in enumerate(spec.targets):
        strata = np.concatenate([table.stratum[:, target] for table in tables])
        present = np.concatenate([table.present[:, target] for table in tables])
        levels: dict[str, float] = dict(zip(SIDES, spec.levels(target, verdict.alpha), strict=True))
        for side, scores in _sides(spec, tables, target):
            counted = present if side == "outer" and spec.ranks_present else np.ones(len(scores), dtype=bool)
            for stratum, name in enumerate(verdict.calibration.strata):
                for group in sorted(set(groups), key=str.encode):
                    inside = counted & (strata == stratum)
                    mine = inside & (groups == group)
                    # A patient who was seen in both does not calibrate for itself.
                    others = inside & (groups != group) & ~np.isin(patients, patients[mine])
                    if spec.strata and not mine.any():
                        continue
                    level = levels.get(side, verdict.alpha)
                    rows.append({
                        "target": entry.target.name, "stratum": name, "side": side, "group": group,
                        "alpha_side": level,
                        **_left_out(spec, level, scores, patients, mine, others),
                    })  # fmt: skip
    return rows


def _sides(spec: SetSpec, tables: Sequence[CaseTable], target: int) -> list[tuple[str, np.ndarray]]:
    """(side, score of every stored and new case) of one target: inner and outer, or joint under ``max``."""
    if spec.joint == "max":
        which = range(len(spec.targets)) if spec.across == "max" else [target]
        return [("joint", np.concatenate([combined_scores(spec, table, which) for table in tables]))]
    return [
        (side, np.concatenate([(table.tau if side == "inner" else table.gamma)[:, target] for table in tables]))
        for side in SIDES
    ]


def _left_out(
    spec: SetSpec, level: float, scores: np.ndarray, patients: np.ndarray, mine: np.ndarray, others: np.ndarray
) -> dict[str, Any]:
    """How many units of the group (mine) are covered by a threshold of the others. bool "case" each."""
    found = unit_scores(scores[others], patients[others], None, spec.unit).threshold(level, spec.side_confidence())
    own = unit_scores(scores[mine], patients[mine], None, "max" if spec.unit == "max" else "case")
    m = own.scores.size
    covered = int(np.count_nonzero(~(own.scores > raised(found.value))))
    low, high = clopper_pearson(covered, m)
    p_low = None
    if found.rank is not None and m:
        p_low = probability_of_at_most(covered, m, found.n, found.rank)
    return {
        "n": found.n, "m": m, "covered": covered, "coverage": covered / m if m else None, "low": low, "high": high,
        "p_low": p_low, "message": LOWER if p_low is not None and p_low < SUSPICIOUS else None,
    }  # fmt: skip


def method_rows(
    verdict: Verdict,
    name: str,
    controls: Sequence[tuple[str, Sequence[float]]],
    *,
    bonferroni: bool,
    overlapped: bool = False,
) -> list[dict[str, Any]]:
    """The outer set beside other methods. controls: (crc or rcps, thresholds by target). overlapped: whether a
    calibrator had seen the calibration cases, so that none of them promises anything."""
    rows = []
    spec, table = verdict.calibration.spec, verdict.calibration.table
    repeated = len(set(table.groups)) < table.n
    for target, entry in enumerate(spec.targets):
        found = [outcome.targets[target] for outcome in verdict.outcomes.values()]
        truth = [int(outcome.row.truth_voxels[target]) for outcome in verdict.outcomes.values()]
        threshold = verdict.calibration.threshold(target, 0, verdict.alpha)
        rows.append(_method(
            entry.target.name, name, str(entry.outer), threshold.outer.value if not spec.strata else None,
            [f.outer_missed for f in found], truth, [f.outer_voxels for f in found],
            NO_PROMISE if overlapped else outer_promise(spec, target, verdict.alpha),
        ))  # fmt: skip
        for place, (method, thresholds) in enumerate(controls):
            words = f"on average at most {percent(verdict.alpha)} of the target is missed"
            if method == "rcps":
                words += ", with confidence 90 % in the calibration set"
            if repeated:
                words = "none: it counts cases, and patients repeat"
            if overlapped:
                words = NO_PROMISE
            rows.append(_method(
                entry.target.name, method, "log-odds", thresholds[target],
                [f.controlled[place][0] for f in found], truth, [f.controlled[place][1] for f in found], words,
            ))  # fmt: skip
        if bonferroni:
            voxels = [outcome.row.grid_voxels for outcome in verdict.outcomes.values()]
            needed = bonferroni_images(max(voxels), verdict.alpha)
            rows.append(_method(
                entry.target.name, "bonferroni", "log-odds", math.inf, [0] * len(truth), truth, voxels,
                f"every voxel at once; finite only from {needed} calibration images on",
            ))  # fmt: skip
    return rows


def _method(
    target: str,
    method: str,
    score: str,
    threshold: float | None,
    missed: Sequence[int],
    truth: Sequence[int],
    sizes: Sequence[int],
    words: str,
) -> dict[str, Any]:
    fractions = [m / t if t else 0.0 for m, t in zip(missed, truth, strict=True)]
    return {
        "target": target,
        "method": method,
        "score": score,
        "threshold": threshold,
        "mean_missed_fraction": math.fsum(fractions) / len(fractions),
        "cases": len(fractions),
        "fully_held": sum(m == 0 for m in missed),
        "mean_voxels": math.fsum(sizes) / len(sizes),
        "guarantee": words,
    }


def _expected(found: SideThreshold) -> float | None:
    """The mean share of wrong sets: 1 - k/(n + 1)."""
    return None if found.rank is None else max(0.0, 1.0 - found.rank / (found.n + 1))


def _mean(values: np.ndarray) -> float | None:
    return float(values.mean()) if values.size else None


def _diameters(members: Sequence[CaseOutcome], target: int, side: Side, place: int) -> list[float]:
    found = []
    for outcome in members:
        truth = int(outcome.row.truth_voxels[target])
        if truth:
            sizes = outcome.targets[target].inner_sizes if side == "inner" else outcome.targets[target].outer_sizes
            found.append((sizes[place] / truth) ** (1.0 / outcome.dimensions))
    return found
