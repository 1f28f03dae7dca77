"""Thresholds: the k-th smallest score of the calibration units, per target, side, stratum and alpha.

``split`` gives each side its share of alpha (Davenport 2024, Corollary 2.3); ``max`` ranks the larger of the two
standardised scores and so has one threshold for both (Theorem 2.4); ``none`` takes both sides at alpha and promises
nothing jointly. A patient counts once: by its largest score, or by a weight shared among its cases.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import replace
from functools import cached_property
from typing import Any

import numpy as np

from segcal_cli.confidence.maps import SIDES, Side
from segcal_cli.confidence.spec import SetSpec
from segcal_cli.confidence.table import CaseTable
from segcal_cli.core.conformal import UndefinedScore, conformal_rank
from segcal_cli.core.frozen import dataclass
from segcal_cli.metrics.coverage import (
    confident_rank,
    coverage_range,
    group_weights,
    sufficient_n,
    weighted_quantile,
)

THRESHOLD_SLACK = 1e-6
"""Finite thresholds are used as lambda + slack (1 + |lambda|). Raising is conservative for both sets; distances that
are equal on paper differ in their last bits, and in anisotropic volumes a shell of voxels hangs on it."""

TOO_FEW, MISSES = "too few cases", "complete misses"
"""Why a threshold is infinite."""


def raised(threshold: np.ndarray | float) -> Any:
    """The threshold as it is used; infinite ones stay."""
    values = np.asarray(threshold, dtype=np.float64)
    with np.errstate(invalid="ignore"):
        made = np.where(np.isfinite(values), values + THRESHOLD_SLACK * (1.0 + np.abs(values)), values)
    return made if made.ndim else float(made)


@dataclass(frozen=True, slots=True)
class SideThreshold:
    """One side's threshold, without the slack. rank: None for weighted units. n: units ranked.

    reason: "" or why it is infinite. ties: other units at the threshold. range: where this artifact's own coverage lies
    with probability 90 %, None for weighted units.
    """

    alpha: float
    n: int
    rank: int | None
    value: float
    ties: int
    reason: str
    n_needed: int
    range: tuple[float, float] | None

    @property
    def vacuous(self) -> bool:
        return self.value == math.inf


@dataclass(frozen=True, slots=True)
class ThresholdRow:
    """Both sides of one target and stratum at one alpha."""

    target: str
    stratum: str | None
    alpha: float
    inner: SideThreshold
    outer: SideThreshold

    def to_json(self) -> dict[str, Any]:
        data: dict[str, Any] = {"target": self.target, "stratum": self.stratum, "alpha": self.alpha}
        for name in ("alpha", "n", "rank", "lambda", "ties", "vacuous", "reason", "n_needed", "coverage_range"):
            for side, entry in (("inner", self.inner), ("outer", self.outer)):
                key = {"lambda": "value", "coverage_range": "range"}.get(name, name)
                value = getattr(entry, key)
                data[f"{name}_{side}"] = (value or None) if name == "reason" else value
        return data


@dataclass(frozen=True)
class Ranked:
    """The calibration scores of one side, in ascending order.

    scores: float64 "n". weights: float64 "n" or None (one unit each). units: how many units there are (patients under
    ``hcp``). new_weight: the weight of the new unit.
    """

    scores: np.ndarray
    units: int
    weights: np.ndarray | None = None
    new_weight: float = 1.0

    @cached_property
    def raised_scores(self) -> np.ndarray:
        return raised(self.scores)

    @property
    def total(self) -> float:
        """All weights with the new unit's: the denominator of p-values."""
        return (self.units if self.weights is None else math.fsum(self.weights)) + self.new_weight

    @cached_property
    def _tail(self) -> np.ndarray:
        """Weight of the scores from each index on."""
        assert self.weights is not None, "only weighted scores have a tail"
        return np.append(np.cumsum(self.weights[::-1])[::-1], 0.0)

    def threshold(self, alpha: float, confidence: float | None = None) -> SideThreshold:
        """The threshold at alpha. Raises BadLevel."""
        if self.weights is not None:
            return self._weighted(alpha)
        n = self.units
        rank = conformal_rank(n, alpha) if confidence is None else confident_rank(n, alpha, confidence)
        value = math.inf if rank > n else float(self.scores[rank - 1])
        reason = TOO_FEW if rank > n else (MISSES if value == math.inf else "")
        return SideThreshold(
            alpha, n, rank, value, self.ties(value), reason, sufficient_n(alpha, confidence), coverage_range(n, rank)
        )

    def _weighted(self, alpha: float) -> SideThreshold:
        assert self.weights is not None, "called for weighted scores"
        value = math.inf
        if self.scores.size:
            value = weighted_quantile(self.scores, self.weights, self.new_weight, alpha)
        reason = ""
        if value == math.inf:
            reason = MISSES if self.scores.size and self.scores[-1] == math.inf else TOO_FEW
        return SideThreshold(alpha, self.units, None, value, self.ties(value), reason, sufficient_n(alpha), None)

    def ties(self, value: float) -> int:
        """How many other units lie at the threshold, up to the slack."""
        if not math.isfinite(value):
            return 0
        near = np.abs(self.scores - value) <= THRESHOLD_SLACK * (1.0 + abs(value))
        return max(0, int(np.count_nonzero(near)) - 1)

    def counts(self, values: np.ndarray) -> np.ndarray:
        """(n + 1) p of each value: 1 + the number of raised scores that reach it, int64; float64 for weights.

        values: f_I for the inner side, -f_O for the outer one. A voxel is in I at level alpha exactly when p <= alpha,
        and in O exactly when p > alpha.
        """
        below = np.searchsorted(self.raised_scores, values.reshape(-1), side="left").reshape(values.shape)
        if self.weights is None:
            return (1 + self.units - below).astype(np.int64)
        return self.new_weight + self._tail[below]


@dataclass(frozen=True)
class Calibration:
    """A spec and the table of its calibration cases: any threshold of any alpha follows."""

    spec: SetSpec
    table: CaseTable

    @property
    def strata(self) -> tuple[str | None, ...]:
        """Names of the strata, or one nameless one."""
        return self.spec.strata or (None,)

    def thresholds(self, alpha: float) -> list[ThresholdRow]:
        """A row per target and stratum."""
        return [
            self.threshold(target, stratum, alpha)
            for target in range(len(self.spec.targets))
            for stratum in range(len(self.strata))
        ]

    def threshold(self, target: int, stratum: int, alpha: float) -> ThresholdRow:
        """Both sides of one target. stratum -1 (unknown): +inf, whatever alpha."""
        key = (target, stratum, alpha)
        if key not in self._found:
            self._found[key] = self._threshold(*key)
        return self._found[key]

    @cached_property
    def _found(self) -> dict[tuple[int, int, float], ThresholdRow]:
        """Thresholds that were asked for before: every case of a run asks for the same ones."""
        return {}

    def _threshold(self, target: int, stratum: int, alpha: float) -> ThresholdRow:
        levels, confidence = self.spec.levels(target, alpha), self.spec.side_confidence()
        sides = [
            self.ranked(target, side, stratum).threshold(level, confidence)
            for side, level in zip(SIDES, levels, strict=True)
        ]
        name = None if stratum < 0 else self.strata[stratum]
        return ThresholdRow(self.spec.targets[target].target.name, name, alpha, *sides)

    def ranked(self, target: int, side: Side, stratum: int = 0) -> Ranked:
        """The scores that one side's threshold is ranked among; under ``max`` those of both sides, on its scale."""
        if self.spec.joint != "max":
            scores = (self.table.tau if side == "inner" else self.table.gamma)[:, target]
            present = self.table.present[:, target] if side == "outer" and self.spec.ranks_present else None
            return self._units(scores, self._rows(target, stratum), present)
        scores, rows, (location, scale) = self._side(target, side, stratum)
        combined = self._units(scores, rows, None)
        return replace(combined, scores=location + scale * combined.scores)

    def _side(self, target: int, side: Side, stratum: int) -> tuple[np.ndarray, np.ndarray, tuple[float, float]]:
        """Scores of all cases, the rows that are ranked one by one, and (location, scale) of the side's own scale."""
        rows = self._rows(target, stratum)
        if self.spec.joint == "max":
            return self._combined(target), rows, self.spec.targets[target].standard[SIDES.index(side)]
        if side == "outer" and self.spec.ranks_present:
            rows = rows[self.table.present[rows, target]]
        return (self.table.tau if side == "inner" else self.table.gamma)[:, target], rows, (0.0, 1.0)

    def weighted_threshold(
        self, target: int, stratum: int, alpha: float, weights: np.ndarray, new_weight: float
    ) -> ThresholdRow:
        """Both sides for a new case of this weight. weights: float64 "case", of the calibration cases (case units)."""
        sides = [
            self.weighted_ranked(target, side, stratum, weights, new_weight).threshold(level)
            for side, level in zip(SIDES, self.spec.levels(target, alpha), strict=True)
        ]
        name = None if stratum < 0 else self.strata[stratum]
        return ThresholdRow(self.spec.targets[target].target.name, name, alpha, *sides)

    def weighted_ranked(self, target: int, side: Side, stratum: int, weights: np.ndarray, new_weight: float) -> Ranked:
        """As ``ranked``, each case with a weight of its own: exact if these are density ratios."""
        scores, rows, scale = self._side(target, side, stratum)
        order = np.argsort(scores[rows], kind="stable")
        location, spread = scale
        return Ranked(location + spread * scores[rows][order], rows.size, weights[rows][order], new_weight)

    def _rows(self, target: int, stratum: int) -> np.ndarray:
        return np.flatnonzero(self.table.stratum[:, target] == stratum)

    def _combined(self, target: int) -> np.ndarray:
        which = range(len(self.spec.targets)) if self.spec.across == "max" else [target]
        return combined_scores(self.spec, self.table, which)

    def _units(self, scores: np.ndarray, rows: np.ndarray, present: np.ndarray | None) -> Ranked:
        undefined = int(np.isnan(scores[rows]).sum())
        if undefined:
            raise UndefinedScore(undefined, rows.size)
        groups = np.array(self.table.groups, dtype=object)[rows]
        return unit_scores(scores[rows], groups, None if present is None else present[rows], self.spec.unit)


def combined_scores(spec: SetSpec, table: CaseTable, targets: Sequence[int]) -> np.ndarray:
    """float64 "case": the largest standardised score over these targets and both sides (Theorem 2.4)."""
    parts = []
    for target in targets:
        for scores, (location, scale) in zip((table.tau, table.gamma), spec.targets[target].standard, strict=True):
            parts.append((scores[:, target] - location) / scale)
    return np.max(parts, axis=0)


def unit_scores(scores: np.ndarray, groups: np.ndarray, present: np.ndarray | None, unit: str) -> Ranked:
    """Scores of units, sorted. groups: the patient of each case; present: which cases hold the target (None: all rank).

    ``case``: each case. ``max``: a patient's largest score, present if any case is. ``hcp``: cases weighted by 1 over
    the number of their patient's (present) cases.
    """
    if unit != "max":
        if present is not None:
            scores, groups = scores[present], groups[present]
        order = np.argsort(scores, kind="stable")
        if unit == "case":
            return Ranked(scores[order], scores.size)
        weights = group_weights(groups.astype(str)) if groups.size else np.empty(0)
        return Ranked(scores[order], len(set(groups)), weights[order])
    names, which = np.unique(groups.astype(str), return_inverse=True) if groups.size else (groups, groups)
    largest = np.full(len(names), -np.inf)
    np.maximum.at(largest, which.astype(np.intp), scores)
    if present is not None:
        holds = np.zeros(len(names), dtype=bool)
        np.logical_or.at(holds, which.astype(np.intp), present)
        largest = largest[holds]
    return Ranked(np.sort(largest), largest.size)
