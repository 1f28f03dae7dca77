"""What labelled cases say of an artifact: coverage with exact laws, an alpha sweep, resplits, groups, other methods.

Rows are plain dicts with the keys of the tables they become; undefined numbers are None.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np

from segcal_cli.confidence.evaluation import CaseOutcome, NewUnits, new_units
from segcal_cli.confidence.maps import SIDES, Side
from segcal_cli.confidence.risk_control import bonferroni_images
from segcal_cli.confidence.table import CaseTable, table_of
from segcal_cli.confidence.text import percent
from segcal_cli.confidence.thresholds import Calibration, ThresholdRow, combined_scores, raised, unit_scores
from segcal_cli.confidence.validation import (
    SUSPICIOUS,
    Coverage,
    band_of,
    coverage_of,
    ranks_of,
    resplit_coverages,
    summarised,
)
from segcal_cli.metrics.coverage import clopper_pearson, probability_of_at_most

LOWER = "lower than exchangeability allows"
"""Said where p_low is below SUSPICIOUS."""

ALL_TARGETS = "(all targets)"


@dataclass(frozen=True)
class Verdict:
    """An artifact and the cases it is held against. outcomes: by case id, in order."""

    calibration: Calibration
    outcomes: Mapping[str, CaseOutcome]
    alpha: float
    alphas: tuple[float, ...]
    seed: int

    @cached_property
    def table(self) -> CaseTable:
        """The new cases, with their strata."""
        strata = np.array([[t.stratum for t in outcome.targets] for outcome in self.outcomes.values()])
        return table_of({id: outcome.row for id, outcome in self.outcomes.items()}, strata)

    def units(self, target: int, stratum: int) -> NewUnits:
        """The new units of one target and stratum."""
        table, spec = self.table, self.calibration.spec
        combined = None
        if spec.joint == "max":
            which = range(len(spec.targets)) if spec.across == "max" else [target]
            combined = combined_scores(spec, table, which)
        chosen = np.flatnonzero(table.stratum[:, target] == stratum)
        scores = [table.tau[:, target], table.gamma[:, target], table.present[:, target], combined]
        return new_units(spec, scores, table.groups, chosen, self.seed)  # type: ignore[arg-type]

    def strata(self) -> list[tuple[int, int]]:
        """(target, stratum) pairs that have new cases."""
        return [
            (target, stratum)
            for target in range(len(self.calibration.spec.targets))
            for stratum in range(len(self.calibration.strata))
            if (self.table.stratum[:, target] == stratum).any()
        ]

    # Cases

    def case_rows(self) -> list[dict[str, Any]]:
        """One row per case and target, at the judged alpha."""
        rows = []
        for id, outcome in self.outcomes.items():
            for target, found in enumerate(outcome.targets):
                rows.append(self._case_row(id, outcome, target, found.stratum))
        return rows

    def _case_row(self, id: str, outcome: CaseOutcome, target: int, stratum: int) -> dict[str, Any]:
        row, found = outcome.row, outcome.targets[target]
        threshold = self.calibration.threshold(target, stratum, self.alpha)
        tau, gamma, truth = float(row.tau[target]), float(row.gamma[target]), int(row.truth_voxels[target])
        ratios = [None if not truth else size / truth for size in (found.inner_voxels, found.outer_voxels)]
        roots = [None if ratio is None else ratio ** (1.0 / outcome.dimensions) for ratio in ratios]
        flags = {
            "empty_prediction": row.predicted_voxels[target] == 0,
            "inner_empty": found.inner_voxels == 0,
            "outer_everything": found.outer_voxels == row.grid_voxels,
            "unknown_stratum": stratum < 0,
        }
        held = truth - found.outer_missed
        return {
            "case": id,
            "unit": row.group,
            "target": self.calibration.spec.targets[target].target.name,
            "stratum": threshold.stratum,
            "alpha": self.alpha,
            "tau": tau,
            "gamma": gamma,
            "covered_inner": not tau > raised(threshold.inner.value),
            "covered_outer": not gamma > raised(threshold.outer.value),
            "truth_voxels": truth,
            "predicted_voxels": int(row.predicted_voxels[target]),
            "inner_voxels": found.inner_voxels,
            "outer_voxels": found.outer_voxels,
            "inner_ratio": ratios[0],
            "outer_ratio": ratios[1],
            "inner_diameter_ratio": roots[0],
            "outer_diameter_ratio": roots[1],
            "inner_false_share": found.inner_false / row.grid_voxels,
            "outer_excess_share": (found.outer_voxels - held) / row.grid_voxels,
            "contradiction": found.contradiction > 0,
            "flags": ";".join(name for name, holds in flags.items() if holds),
        }

    # Coverage

    def coverage_rows(self) -> list[dict[str, Any]]:
        """Sides inner, outer, outer_present, joint of each target and stratum."""
        rows = []
        for target, stratum in self.strata():
            threshold = self.calibration.threshold(target, stratum, self.alpha)
            for found in self.coverages(target, threshold, self.units(target, stratum)):
                rows.append({"target": threshold.target, "stratum": threshold.stratum, **_with_message(found)})
        return rows + self._over_targets()

    def coverages(self, target: int, threshold: ThresholdRow, units: NewUnits) -> list[Coverage]:
        """The four sides at one threshold."""
        spec = self.calibration.spec
        inner = ~(units.tau > raised(threshold.inner.value))
        outer = ~(units.gamma > raised(threshold.outer.value))
        both = inner & outer
        lawful = spec.joint != "max"
        sides = {"inner": threshold.inner, "outer": threshold.outer}
        made = []
        for name, covered, side, law in (
            ("inner", inner, "inner", lawful),
            ("outer", outer, "outer", lawful and not spec.ranks_present),
            ("outer_present", outer[units.present], "outer", lawful and spec.ranks_present),
        ):
            found = sides[side]
            tied = found.ties > 0
            made.append(coverage_of(name, covered, found.alpha, found.n, found.rank if law else None, tied=tied))
        alpha = self.alpha if spec.across != "split" else self.alpha / len(spec.targets)
        rank = threshold.inner.rank if spec.joint == "max" and spec.across != "max" else None
        joint = coverage_of("joint", both, alpha, threshold.inner.n, rank, tied=threshold.inner.ties > 0)
        nominal = None if spec.joint == "none" else joint.nominal
        return [*made, Coverage("joint", joint.covered, joint.m, nominal, joint.expected, joint.p_low, joint.p_two)]

    def _over_targets(self) -> list[dict[str, Any]]:
        """The statement over all targets, where there is one."""
        spec = self.calibration.spec
        if spec.across == "each" or len(spec.targets) < 2 or spec.joint == "none":
            return []
        held = np.array([
            [
                row["covered_inner"] and row["covered_outer"]
                for row in self.case_rows() if row["target"] == entry.target.name
            ]
            for entry in spec.targets
        ]).all(axis=0)  # fmt: skip
        chosen = np.arange(self.table.n)
        scores = [(~held).astype(float), (~held).astype(float), held, None]
        units = new_units(spec, scores, self.table.groups, chosen, self.seed)  # type: ignore[arg-type]
        threshold = self.calibration.threshold(0, 0, self.alpha).inner
        rank = threshold.rank if spec.across == "max" and not spec.strata else None
        found = coverage_of("joint", units.tau == 0, self.alpha, threshold.n, rank, tied=threshold.ties > 0)
        return [{"target": ALL_TARGETS, "stratum": None, **_with_message(found)}]

    # Sweep and resplits

    def sweep_rows(self) -> list[dict[str, Any]]:
        """False coverage, its band and median sizes over the alpha grid."""
        rows = []
        spec = self.calibration.spec
        for target, stratum in self.strata():
            units = self.units(target, stratum)
            members = [o for o in self.outcomes.values() if o.targets[target].stratum == stratum]
            for place, alpha in enumerate(self.alphas):
                threshold = self.calibration.threshold(target, stratum, alpha)
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
                    "low_inner": low_i, "high_inner": high_i,
                    "low_outer": low_o, "high_outer": high_o,
                    "low_joint": low_j, "high_joint": high_j,
                    "lambda_inner": threshold.inner.value,
                    "lambda_outer": threshold.outer.value,
                    "median_inner_voxels": _median([o.targets[target].inner_sizes[place] for o in members]),
                    "median_outer_voxels": _median([o.targets[target].outer_sizes[place] for o in members]),
                    "median_inner_diameter_ratio": _median(_diameters(members, target, "inner", place)),
                    "median_outer_diameter_ratio": _median(_diameters(members, target, "outer", place)),
                })  # fmt: skip
        return rows

    def resplit_rows(self, resplits: int) -> tuple[list[dict[str, Any]], list[dict[str, Any]]]:
        """(rows, coverages of the resplits at the level of the grid nearest to the judged alpha). Units only."""
        rows, drawn = [], []
        spec = self.calibration.spec
        if spec.unit == "hcp" or not resplits:
            return [], []
        nearest = int(np.argmin(np.abs(np.array(self.alphas) - self.alpha)))
        for target, stratum in self.strata():
            levels = [spec.levels(target, alpha) for alpha in self.alphas]
            for index, side in enumerate(SIDES):
                stored, new = self._pooled(target, stratum, side)
                if not new.size or not stored.size:
                    continue
                n, alphas = stored.size, [level[index] for level in levels]
                pooled = np.concatenate([stored, new])
                confidence = spec.side_confidence()
                coverages = resplit_coverages(pooled, n, alphas, resplits, self.seed, confidence)
                found = summarised(coverages, alphas, n, new.size, confidence)
                name = spec.targets[target].target.name
                where = None if not spec.strata else spec.strata[stratum]
                for place, alpha in enumerate(self.alphas):
                    rows.append({
                        "target": name, "stratum": where, "side": side, "alpha": alpha, "alpha_side": alphas[place],
                        "n": n, "m": int(new.size),
                        "mean": float(found.mean[place]), "sd": float(found.sd[place]),
                        "low": float(found.low[place]), "high": float(found.high[place]),
                        "law_mean": float(found.law_mean[place]), "law_sd": float(found.law_sd[place]),
                    })  # fmt: skip
                rank = int(ranks_of(n, [alphas[nearest]], confidence)[0])
                drawn.append({
                    "target": name, "stratum": where, "side": side, "alpha": self.alphas[nearest],
                    "n": n, "m": int(new.size), "rank": rank, "coverage": coverages[:, nearest],
                })  # fmt: skip
                if spec.joint == "max":
                    break
        return rows, drawn

    def _pooled(self, target: int, stratum: int, side: Side) -> tuple[np.ndarray, np.ndarray]:
        """Scores of stored and of new units on one scale."""
        spec = self.calibration.spec
        stored = self.calibration.ranked(target, side, stratum).scores
        units = self.units(target, stratum)
        if units.combined is not None:
            location, scale = spec.targets[target].standard[SIDES.index(side)]
            return stored, location + scale * units.combined
        if side == "inner":
            return stored, units.tau
        return stored, units.gamma[units.present] if spec.ranks_present else units.gamma

    # Groups and methods

    def group_rows(self, group_of: Mapping[str, str]) -> list[dict[str, Any]]:
        """For each group, coverage when all others calibrate. group_of: of every stored and new case."""
        spec, rows = self.calibration.spec, []
        old, new = self.calibration.table, self.table
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
                    level = spec.levels(target, self.alpha)[index]
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
        self, name: str, controls: Sequence[tuple[str, Sequence[float]]], *, bonferroni: bool
    ) -> list[dict[str, Any]]:
        """The outer set beside other methods. controls: (crc or rcps, thresholds by target)."""
        rows = []
        spec = self.calibration.spec
        for target, entry in enumerate(spec.targets):
            found = [outcome.targets[target] for outcome in self.outcomes.values()]
            truth = [int(outcome.row.truth_voxels[target]) for outcome in self.outcomes.values()]
            threshold = self.calibration.threshold(target, 0, self.alpha)
            promised = percent(1 - threshold.outer.alpha)
            rows.append(_method(
                entry.target.name, name, str(entry.outer), threshold.outer.value if not spec.strata else None,
                [f.outer_missed for f in found], truth, [f.outer_voxels for f in found],
                f"the whole target is held in at least {promised} of new units",
            ))  # fmt: skip
            for place, (method, thresholds) in enumerate(controls):
                words = f"on average at most {percent(self.alpha)} of the target is missed"
                if method == "rcps":
                    words += ", with confidence 90 % in the calibration set"
                rows.append(_method(
                    entry.target.name, method, "log-odds", thresholds[target],
                    [f.controlled[place][0] for f in found], truth, [f.controlled[place][1] for f in found], words,
                ))  # fmt: skip
            if bonferroni:
                voxels = [outcome.row.grid_voxels for outcome in self.outcomes.values()]
                needed = bonferroni_images(max(voxels), self.alpha)
                rows.append(_method(
                    entry.target.name, "bonferroni", "log-odds", math.inf, [0] * len(truth), truth, voxels,
                    f"every voxel at once; finite only from {needed} calibration images on",
                ))  # fmt: skip
        return rows

    def size_summary(self) -> list[dict[str, Any]]:
        """Sizes at the judged alpha by target: quartiles, empty and complete sets, false alarms."""
        made = []
        for target, entry in enumerate(self.calibration.spec.targets):
            rows = [row for row in self.case_rows() if row["target"] == entry.target.name]
            absent = [row for row in rows if not row["truth_voxels"]]
            alarms = [row for row in absent if row["inner_voxels"]]
            data: dict[str, Any] = {"target": entry.target.name, "cases": len(rows)}
            for key in ("inner_voxels", "outer_voxels", "inner_diameter_ratio", "outer_diameter_ratio"):
                values = [row[key] for row in rows if row[key] is not None]
                q = np.quantile(values, (0.25, 0.5, 0.75)) if values else (None, None, None)
                shown = [None if value is None else float(value) for value in q]
                data[key] = dict(zip(("q25", "median", "q75"), shown, strict=True))
            data |= {
                "inner_empty": sum(not row["inner_voxels"] for row in rows),
                "outer_everything": sum("outer_everything" in row["flags"] for row in rows),
                "contradictions": sum(row["contradiction"] for row in rows),
                "without_target": len(absent),
                "false_alarms": len(alarms),
                "outer_voxels_without_target": _median([row["outer_voxels"] for row in absent]),
            }
            made.append(data)
        return made


def _with_message(found: Coverage) -> dict[str, Any]:
    low = found.p_low is not None and found.p_low < SUSPICIOUS
    return {**found.to_json(), "message": LOWER if low else None}


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


def _mean(values: np.ndarray) -> float | None:
    return float(values.mean()) if values.size else None


def _median(values: Sequence[Any]) -> float | None:
    return float(np.median(values)) if len(values) else None


def _diameters(members: Sequence[CaseOutcome], target: int, side: Side, place: int) -> list[float]:
    found = []
    for outcome in members:
        truth = int(outcome.row.truth_voxels[target])
        if truth:
            sizes = outcome.targets[target].inner_sizes if side == "inner" else outcome.targets[target].outer_sizes
            found.append((sizes[place] / truth) ** (1.0 / outcome.dimensions))
    return found
