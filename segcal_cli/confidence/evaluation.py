"""Labelled cases held against an artifact: the scores of each, and the sizes of its sets at every level of a grid."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence

import numpy as np

from segcal_cli.confidence.maps import SIDES, ScoreMap, Side
from segcal_cli.confidence.sets import set_sizes, sets_of, side_maps
from segcal_cli.confidence.spec import SetSpec
from segcal_cli.confidence.table import CaseRow, row_of_views
from segcal_cli.confidence.thresholds import Calibration
from segcal_cli.confidence.views import TargetView, views
from segcal_cli.core.case import Case
from segcal_cli.core.frozen import dataclass

StratumOf = Callable[[str, float], int]
"""(case id, predicted volume in ml) -> index of the stratum, -1 for an unknown one."""

MM3_PER_ML = 1000.0

SHOWN_VOXELS = 200
"""Voxels per case, side and truth whose scores are kept for a picture: enough for a histogram over cases."""


@dataclass(frozen=True, slots=True)
class TargetOutcome:
    """One target of one case. inner_sizes, outer_sizes: int64 "alpha"; the rest is at the level that is judged.

    inner_false: voxels of I outside the truth; outer_missed: of the truth outside O. controlled: per risk-control
    threshold (missed voxels, size). voxels: per side, scores of some voxels inside and outside the truth, float32, on
    the scale of its threshold; beyond the reach of a map there are none.
    """

    stratum: int
    inner_sizes: np.ndarray
    outer_sizes: np.ndarray
    inner_voxels: int
    outer_voxels: int
    inner_false: int
    outer_missed: int
    contradiction: int
    voxels: tuple[tuple[np.ndarray, np.ndarray], tuple[np.ndarray, np.ndarray]]
    controlled: tuple[tuple[int, int], ...] = ()


@dataclass(frozen=True, slots=True)
class CaseOutcome:
    """One case: its scores, and its sets by target. dimensions: number of axes longer than one voxel."""

    row: CaseRow
    targets: tuple[TargetOutcome, ...]
    dimensions: int


@dataclass(frozen=True, slots=True)
class SetEvaluation:
    """The estimator; its result is a dict of CaseOutcome by case id.

    alpha: the level that is judged. alphas: the grid. stratum_of: None where there are no strata. controls: thresholds
    of risk control on the log-odds, "target" lists.
    """

    calibration: Calibration
    alpha: float
    alphas: tuple[float, ...]
    stratum_of: StratumOf | None = None
    controls: tuple[tuple[float, ...], ...] = ()

    def empty(self) -> dict[str, CaseOutcome]:
        return {}

    def update(self, state: Mapping[str, CaseOutcome], case: Case) -> dict[str, CaseOutcome]:
        """Raises NoTruth."""
        spec = self.calibration.spec
        made = views(case, [entry.target for entry in spec.targets])
        row, _ = row_of_views(made, spec)
        outcomes = tuple(self._target(spec, target, view, row) for target, view in enumerate(made))
        return {**state, case.id: CaseOutcome(row, outcomes, made[0].dimensions)}

    def merge(self, a: Mapping[str, CaseOutcome], b: Mapping[str, CaseOutcome]) -> dict[str, CaseOutcome]:
        return {**a, **b}

    def finish(self, state: Mapping[str, CaseOutcome]) -> dict[str, CaseOutcome]:
        return {id: state[id] for id in sorted(state, key=str.encode)}

    def _target(self, spec: SetSpec, target: int, view: TargetView, row: CaseRow) -> TargetOutcome:
        stratum = 0
        if self.stratum_of is not None:
            stratum = self.stratum_of(row.id, float(row.predicted_voxels[target] * row.voxel_volume / MM3_PER_ML))
        rows = [self.calibration.threshold(target, stratum, alpha) for alpha in (*self.alphas, self.alpha)]
        lambdas = {"inner": [row.inner.value for row in rows], "outer": [row.outer.value for row in rows]}
        maps = side_maps(view, spec, target, lambdas["inner"], lambdas["outer"])
        sizes = [set_sizes(view, found, side, lambdas[side])[:-1] for side, found in zip(SIDES, maps, strict=True)]
        sets = sets_of(view, maps, lambdas["inner"][-1], lambdas["outer"][-1])
        controlled = []
        for threshold in self.controls[target] if self.controls else ():
            kept = view.log_odds >= threshold
            if view.domain is not None and threshold > -np.inf:
                kept &= view.domain
            controlled.append((int(np.count_nonzero(view.all_truth & ~kept)), int(np.count_nonzero(kept))))
        return TargetOutcome(
            stratum,
            sizes[0],
            sizes[1],
            int(np.count_nonzero(sets.inner)),
            int(np.count_nonzero(sets.outer)),
            int(np.count_nonzero(sets.inner & ~view.all_truth)),
            int(np.count_nonzero(view.all_truth & ~sets.outer)),
            sets.contradiction,
            tuple(_some(view, found, side) for side, found in zip(SIDES, maps, strict=True)),  # type: ignore[arg-type]
            tuple(controlled),
        )


def _some(view: TargetView, found: ScoreMap, side: Side) -> tuple[np.ndarray, np.ndarray]:
    """Scores of at most SHOWN_VOXELS voxels inside and as many outside the truth, evenly spread over the map."""
    truth = view.truth[found.box].reshape(-1)
    values = found.values.reshape(-1) if side == "inner" else -found.values.reshape(-1)
    picked = []
    for wanted in (truth, ~truth):
        at = np.flatnonzero(wanted)
        step = max(1, -(-at.size // SHOWN_VOXELS))
        picked.append(values[at[::step]].astype(np.float32))
    return picked[0], picked[1]


@dataclass(frozen=True, slots=True)
class NewUnits:
    """Units of evaluated cases of one target and stratum. Arrays are "unit"; combined: the score of ``max``, or None.

    gamma_present: gamma of the units that hold the target; under ``hcp`` of a case drawn among those that do.
    """

    tau: np.ndarray
    gamma: np.ndarray
    gamma_present: np.ndarray
    combined: np.ndarray | None


def new_units(
    spec: SetSpec,
    scores: Sequence[np.ndarray],
    groups: Sequence[str],
    chosen: np.ndarray,
    seed: int,
) -> NewUnits:
    """Units among the chosen cases: each case, each patient by its maximum, or one case of each patient by lot (hcp).

    scores: tau, gamma, present and the combined score or None, each "case".
    """
    tau, gamma, present, combined = scores
    members = _members(spec, groups, chosen, seed)
    holding = _members(spec, groups, chosen[present[chosen]], seed)
    return NewUnits(
        _largest(tau, members),
        _largest(gamma, members),
        _largest(gamma, holding),
        None if combined is None else _largest(combined, members),
    )


def _members(spec: SetSpec, groups: Sequence[str], chosen: np.ndarray, seed: int) -> list[np.ndarray]:
    """Indices of the cases of each unit."""
    if spec.unit == "case":
        return [np.array([index]) for index in chosen]
    names = np.array(groups, dtype=object)[chosen].astype(str)
    members = [chosen[names == name] for name in sorted(set(names.tolist()), key=str.encode)]
    if spec.unit == "hcp":
        generator = np.random.default_rng(seed)
        members = [generator.choice(one, 1) for one in members]
    return members


def _largest(scores: np.ndarray, members: Sequence[np.ndarray]) -> np.ndarray:
    return np.array([scores[one].max() for one in members], dtype=np.float64)
