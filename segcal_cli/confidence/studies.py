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
from segcal_cli.confidence.text import percent
from segcal_cli.confidence.thresholds import SideThreshold, raised, unit_scores
from segcal_cli.confidence.validation import SUSPICIOUS, band_of, ranks_of, resplit_coverages, summarised
from segcal_cli.confidence.verdict import LOWER, Verdict, median
from segcal_cli.metrics.coverage import clopper_pearson, probability_of_at_most


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
            judged = outer[units.present] if spec.ranks_present else outer
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
    return stored, units.gamma[units.present] if spec.ranks_present else units.gamma


def group_rows(verdict: Verdict, group_of: Mapping[str, str]) -> list[dict[str, Any]]:
    """For each group, coverage when all others calibrate. group_of: of every stored and new case."""
    spec, rows = verdict.calibration.spec, []
    old, new = verdict.calibration.table, verdict.table
    groups = np.array([group_of[id] for id in (*old.ids, *new.ids)], dtype=object)
    patients = np.array([*old.groups, *new.groups], dtype=object)
    for target, entry in enumerate(spec.targets):
        for index, side in enumerate(SIDES):
            scores = np.concatenate([(t.tau if side == "inner" else t.gamma)[:, target] for t in (old, new)])
            present = np.concatenate([t.present[:, target] for t in (old, new)])
            for group in sorted(set(groups), key=str.encode):
                mine = groups == group
                holds = present if side == "outer" and spec.ranks_present else None
                others = unit_scores(scores[~mine], patients[~mine], None if holds is None else holds[~mine],
                                     spec.unit)  # fmt: skip
                level = spec.levels(target, verdict.alpha)[index]
                found = others.threshold(level, spec.side_confidence())
                own = unit_scores(
                    scores[mine], patients[mine], None if holds is None else holds[mine],
                    "max" if spec.unit == "max" else "case",
                )  # fmt: skip
                covered = int(np.count_nonzero(~(own.scores > raised(found.value))))
                low, high = clopper_pearson(covered, own.scores.size)
                p_low = None
                if found.rank is not None and own.scores.size:
                    p_low = probability_of_at_most(covered, own.scores.size, found.n, found.rank)
                rows.append({
                    "target": entry.target.name, "side": side, "group": group, "alpha_side": level,
                    "n": found.n, "m": int(own.scores.size), "covered": covered,
                    "coverage": covered / own.scores.size if own.scores.size else None,
                    "low": low, "high": high, "p_low": p_low,
                    "message": LOWER if p_low is not None and p_low < SUSPICIOUS else None,
                })  # fmt: skip
    return rows


def method_rows(
    verdict: Verdict, name: str, controls: Sequence[tuple[str, Sequence[float]]], *, bonferroni: bool
) -> list[dict[str, Any]]:
    """The outer set beside other methods. controls: (crc or rcps, thresholds by target)."""
    rows = []
    spec = verdict.calibration.spec
    for target, entry in enumerate(spec.targets):
        found = [outcome.targets[target] for outcome in verdict.outcomes.values()]
        truth = [int(outcome.row.truth_voxels[target]) for outcome in verdict.outcomes.values()]
        threshold = verdict.calibration.threshold(target, 0, verdict.alpha)
        promised = percent(1 - threshold.outer.alpha)
        rows.append(_method(
            entry.target.name, name, str(entry.outer), threshold.outer.value if not spec.strata else None,
            [f.outer_missed for f in found], truth, [f.outer_voxels for f in found],
            f"the whole target is held in at least {promised} of new units",
        ))  # fmt: skip
        for place, (method, thresholds) in enumerate(controls):
            words = f"on average at most {percent(verdict.alpha)} of the target is missed"
            if method == "rcps":
                words += ", with confidence 90 % in the calibration set"
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
