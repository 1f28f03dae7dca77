"""What labelled cases say of an artifact: coverage with exact laws, an alpha sweep, resplits, groups, other methods.

Rows are plain dicts with the keys of the tables they become; undefined numbers are None.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from functools import cached_property
from typing import Any

import numpy as np

from segcal_cli.confidence.evaluation import CaseOutcome, NewUnits, new_units
from segcal_cli.confidence.table import CaseTable, table_of
from segcal_cli.confidence.thresholds import Calibration, ThresholdRow, combined_scores, raised
from segcal_cli.confidence.validation import (
    SUSPICIOUS,
    Coverage,
    coverage_of,
)
from segcal_cli.core.frozen import dataclass

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

    def voxel_scores(self, target: int, side: str) -> tuple[np.ndarray, np.ndarray]:
        """float32: finite scores of some voxels inside and outside the truth, over all cases."""
        index = 0 if side == "inner" else 1
        found = [outcome.targets[target].voxels[index] for outcome in self.outcomes.values()]
        inside, outside = (np.concatenate([one[part] for one in found]) for part in (0, 1))
        return inside[np.isfinite(inside)], outside[np.isfinite(outside)]

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
        present = ~(units.gamma_present > raised(threshold.outer.value))
        lawful = spec.joint != "max"
        sides = {"inner": threshold.inner, "outer": threshold.outer}
        made = []
        for name, covered, side, law in (
            ("inner", inner, "inner", lawful),
            ("outer", outer, "outer", lawful and not spec.ranks_present),
            ("outer_present", present, "outer", lawful and spec.ranks_present),
        ):
            found = sides[side]
            tied = found.ties > 0
            one = coverage_of(name, covered, found.alpha, found.n, found.rank if law else None, tied=tied)
            # Ranked among all cases, the threshold promises nothing for those with the target alone.
            unsaid = name == "outer_present" and not spec.ranks_present
            made.append(replace(one, nominal=None) if unsaid else one)
        alpha = self.alpha if spec.across != "split" else self.alpha / len(spec.targets)
        rank = threshold.inner.rank if spec.joint == "max" and spec.across != "max" else None
        joint = coverage_of("joint", both, alpha, threshold.inner.n, rank, tied=threshold.inner.ties > 0)
        nominal = None if spec.joint == "none" else joint.nominal
        return [*made, replace(joint, nominal=nominal)]

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

    def size_summary(self) -> list[dict[str, Any]]:
        """Sizes at the judged alpha by target: quartiles, empty and complete sets, false alarms."""
        made = []
        everything = self.case_rows()
        for entry in self.calibration.spec.targets:
            rows = [row for row in everything if row["target"] == entry.target.name]
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
                "outer_voxels_without_target": median([row["outer_voxels"] for row in absent]),
            }
            made.append(data)
        return made


def _with_message(found: Coverage) -> dict[str, Any]:
    low = found.p_low is not None and found.p_low < SUSPICIOUS
    return {**found.to_json(), "message": LOWER if low else None}


def median(values: Sequence[Any]) -> float | None:
    return float(np.median(values)) if len(values) else None
