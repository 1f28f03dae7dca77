"""Thresholds: what the calibration cases allow an interval to promise.

The unit is the patient. With ``max`` his score is the largest of his scans', with ``hcp`` each of his m scans weighs
1/m; pooling scans is not offered, because it covers 83 % where 90 % is said. For the ratio only cases count whose
label holds the denominator and whose predicted denominator reaches the minimum; for the volumes all do.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np

from segcal_cli.core.conformal import conformal_quantile, conformal_rank, smallest_sufficient_n
from segcal_cli.core.frozen import dataclass
from segcal_cli.core.patients import largest_of_each, mean_of_each
from segcal_cli.metrics.coverage import group_weights, hierarchical_quantile, weighted_quantile
from segcal_cli.ratio.settings import Settings
from segcal_cli.ratio.table import RatioTable

GRID = 20
"""Splits of the error that the paper tries per case."""
GRID_MARGIN = 1e-7
"""Keeps the first split's estimation part above 0."""


@dataclass(frozen=True, slots=True)
class Calibration:
    """The calibration cases under some settings. table: all of them; scored: those with a ratio."""

    table: RatioTable
    scored: RatioTable
    settings: Settings

    @classmethod
    def of(cls, table: RatioTable, settings: Settings, volume_unit: str) -> Calibration:
        return cls(table, table.chosen(with_ratio(table, settings.minimum_volume(volume_unit), "label")), settings)

    @property
    def n(self) -> int:
        """Patients with a ratio score."""
        return len(set(self.scored.groups))

    @property
    def n_volumes(self) -> int:
        """Patients with a volume score: all."""
        return len(set(self.table.groups))

    @property
    def alpha(self) -> float:
        """The share that one quantile may miss; of a grid, that of its first split, the most lenient one."""
        return self.splits()[0].delta2 / 2.0 if self.settings.care else self.settings.delta

    @property
    def rank(self) -> int | None:
        """The rank of the threshold, n + 1 if n is too small; None where no single rank decides."""
        settings = self.settings
        graded = settings.markov and settings.split == "grid"
        if settings.quantile != "conformal" or settings.unit == "hcp" or settings.weighted or graded:
            return None
        return conformal_rank(self.n, self.alpha)

    @property
    def infinite(self) -> bool:
        """Whether n patients are too few for any finite threshold."""
        if self.n == 0:
            return True
        return self.settings.quantile == "conformal" and conformal_rank(self.n, self.alpha) > self.n

    @property
    def n_needed(self) -> int:
        """The smallest number of patients with a finite threshold."""
        return smallest_sufficient_n(self.alpha)

    def splits(self) -> tuple[Split, ...]:
        """How the error may be divided between the two bounds of care."""
        return splits_of(self.settings)

    def score_threshold(self) -> float:
        """The threshold of nested, joint or cp, unweighted."""
        return self.thresholds(method_scores(self.scored, self.settings.method), [self.settings.delta])[0]

    def weighted_thresholds(self, weights: np.ndarray, new_weights: np.ndarray) -> np.ndarray:
        """float64 "new": the threshold of each new case. weights: float64 "scored case"."""
        scores, groups = method_scores(self.scored, self.settings.method), self.scored.groups
        if self.settings.unit == "hcp":
            weights = weights * group_weights(np.array(groups))
        else:
            scores, weights = largest_of_each(scores, groups), mean_of_each(weights, groups)
        return np.array([weighted_quantile(scores, weights, float(w), self.settings.delta) for w in new_weights])

    def volume_threshold(self, name: str) -> float:
        """The threshold of |A - A_label| / U_A over all calibration cases, or of B. Always conformal."""
        scores = np.abs(self.table[name] - self.table[f"{name}_label"]) / self.table.softness(name)
        return _conformal(scores, self.table.groups, [self.settings.delta], self.settings.unit)[0]

    def radii(self, name: str) -> list[float]:
        """q of the calibration error of region "A" or "B" at 1 - delta2/2 of each split, in the settings' unit."""
        scores = calibration_scores(self.scored, name, self.settings)
        return self.thresholds(scores, [split.delta2 / 2.0 for split in self.splits()])

    def thresholds(self, scores: np.ndarray, alphas: Sequence[float]) -> list[float]:
        """The quantiles of the settings at 1 - alpha, over patients. +inf where no finite one holds."""
        if self.settings.quantile == "conformal":
            return _conformal(scores, self.scored.groups, alphas, self.settings.unit)
        if not scores.size:
            return [math.inf] * len(alphas)
        own = largest_of_each(scores, self.scored.groups)
        if self.settings.quantile == "mean":
            return [float(own.mean())] * len(alphas)
        return [float(q) for q in np.quantile(own, [1.0 - alpha for alpha in alphas])]


@dataclass(frozen=True, slots=True)
class Split:
    """delta1: of the estimation bound; delta2: of the calibration bound."""

    delta1: float
    delta2: float


def splits_of(settings: Settings) -> tuple[Split, ...]:
    """The paper's grid of 20, or the one fixed split; all to the calibration bound where there is no other.

    Li et al. 2025, section 3.4: Q_j = Q_0 + (1 - Q_0) j / 19, delta1 = 2 Q_j - T - 1, delta2 = 2 (1 - Q_j).
    """
    if not settings.markov:
        return (Split(0.0, settings.delta),)
    fixed = settings.estimation_share
    if fixed is not None:
        return (Split(fixed, settings.delta - fixed),)
    # At levels so high that the margin is all of the error, both bounds get half of it.
    first = (settings.level + 1.0 + min(GRID_MARGIN, settings.delta / 2.0)) / 2.0
    quantiles = [first + (1.0 - first) * j / (GRID - 1) for j in range(GRID)]
    return tuple(Split(2.0 * q - settings.level - 1.0, 2.0 * (1.0 - q)) for q in quantiles)


def with_ratio(table: RatioTable, minimum: float, needs: str) -> np.ndarray:
    """bool "case": whether a case has a ratio. needs: "label", the label holds the denominator too; "prediction"."""
    found = (table["B"] > 0) & (table["B"] >= minimum)
    return found & (table["B_label"] > 0) if needs == "label" else found


def method_scores(table: RatioTable, method: str) -> np.ndarray:
    """float64 "case": the score of nested, joint or cp.

    nested: |A - R B| / (U_A + R U_B), the smallest t whose interval holds R (Gupta, Kuchibhotla, Ramdas 2022, "Nested
    conformal prediction and quantile out-of-bag ensemble methods").
    """
    ratio = table.ratio_label
    if method == "cp":
        return np.abs(ratio - table.ratio)
    if method == "joint":
        parts = [np.abs(table[name] - table[f"{name}_label"]) / table.softness(name) for name in "AB"]
        return np.maximum(*parts)
    return np.abs(table["A"] - ratio * table["B"]) / (table.softness("A") + ratio * table.softness("B"))


def calibration_scores(table: RatioTable, name: str, settings: Settings) -> np.ndarray:
    """float64 "case": the calibration error of region "A" or "B", in mm3 or, as the paper has it, per voxel."""
    if settings.score == "vbias":
        scores = np.abs(table[name] - table[f"{name}_label"])
    else:
        scores = table[f"{settings.score}_{name}"]
    return scores if settings.ce_unit == "volume" else scores / field_of_view(table)


def field_of_view(table: RatioTable) -> np.ndarray:
    """float64 "case": the volume of all counted voxels."""
    return table["voxels"] * table["voxel_mm3"]


def _conformal(scores: np.ndarray, groups: tuple[str, ...], alphas: Sequence[float], unit: str) -> list[float]:
    """A quantile per alpha; that of alpha = 0 is +inf, whatever n."""
    if not scores.size:
        return [math.inf] * len(alphas)
    if unit == "hcp":
        names = np.array(groups)
        return [hierarchical_quantile(scores, names, alpha) if alpha > 0 else math.inf for alpha in alphas]
    own = largest_of_each(scores, groups)
    return [conformal_quantile(own, alpha) if alpha > 0 else math.inf for alpha in alphas]
