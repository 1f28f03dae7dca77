"""The sets of one case: I = {f_I > lambda_I}, O = not {-f_O > lambda_O}, with raised thresholds.

Strict inside, not strict outside; the outer set is written as a negation so that infinities behave. Outside a region of
interest f is -inf: sets lie in the region, but the outer set of an infinite threshold is everything, for a true voxel
out there is held by nothing less. Afterwards voxels may be taken from I or added to O, and nothing else.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np

from segcal_cli.confidence.maps import ONE_FOR_BOTH, SIDES, ScoreMap, Side, score_map
from segcal_cli.confidence.spec import SetSpec
from segcal_cli.confidence.thresholds import Ranked, raised
from segcal_cli.confidence.views import TargetView
from segcal_cli.core.frozen import dataclass


@dataclass(frozen=True, slots=True)
class CaseSets:
    """bool "z y x" each. contradiction: voxels in I but not in O, which prove that one set is wrong."""

    inner: np.ndarray
    outer: np.ndarray
    contradiction: int

    @property
    def codes(self) -> np.ndarray:
        """uint8 "z y x": 0 outside, 1 possible (outer only), 2 certain (a contradicting voxel too)."""
        made = self.outer.astype(np.uint8)
        made[self.inner] = 2
        return made


def side_reach(side: Side, thresholds: np.ndarray | Sequence[float]) -> float | None:
    """How far beyond its mask a map must be exact for these raised thresholds; None for the whole grid."""
    values = np.asarray(thresholds, dtype=np.float64)
    if side == "inner":
        # Thresholds of +inf and -inf need no distance: nothing is in I, or all that is finite.
        finite = values[values > -np.inf]
        return None if finite.size < values.size else max(0.0, -float(finite.min(initial=0.0)))
    finite = values[values < np.inf]
    return max(0.0, float(finite.max(initial=0.0)))


def in_inner(values: np.ndarray, threshold: float) -> np.ndarray:
    """bool: f_I > the raised threshold."""
    return values > threshold


def in_outer(values: np.ndarray, threshold: float) -> np.ndarray:
    """bool: not -f_O > the raised threshold."""
    return ~(values < -threshold)


def side_maps(
    view: TargetView, spec: SetSpec, target: int, inner: Sequence[float], outer: Sequence[float]
) -> tuple[ScoreMap, ScoreMap]:
    """Both score maps, exact for all of these thresholds (as they are printed)."""
    entry, rules = spec.targets[target], spec.rules.maps
    reaches = [side_reach(side, raised(np.asarray(found))) for side, found in zip(SIDES, (inner, outer), strict=True)]
    if entry.inner == entry.outer and entry.inner.kind in ONE_FOR_BOTH and view.mask_box is not None:
        both = [reach for reach in reaches if reach is not None]
        made = score_map(view, entry.outer, "outer", rules, reach=max(both) if len(both) == len(reaches) else None)
        return made, made
    return (
        score_map(view, entry.inner, "inner", rules, reach=reaches[0]),
        score_map(view, entry.outer, "outer", rules, reach=reaches[1]),
    )


def case_sets(view: TargetView, spec: SetSpec, target: int, lambda_inner: float, lambda_outer: float) -> CaseSets:
    """Both sets of a case. The lambdas are thresholds as they are printed; the slack is added here."""
    return sets_of(view, side_maps(view, spec, target, [lambda_inner], [lambda_outer]), lambda_inner, lambda_outer)


def sets_of(view: TargetView, maps: tuple[ScoreMap, ScoreMap], lambda_inner: float, lambda_outer: float) -> CaseSets:
    """Both sets from maps that are exact for these thresholds."""
    up_inner, up_outer = raised(lambda_inner), raised(lambda_outer)
    inner = maps[0].spread(in_inner(maps[0].values, up_inner), view.shape)
    if view.domain is not None:
        inner &= view.domain
    if up_outer == math.inf:
        outer = np.ones(view.shape, dtype=bool)
    else:
        outer = maps[1].spread(in_outer(maps[1].values, up_outer), view.shape)
        if view.domain is not None:
            outer &= view.domain
    return CaseSets(inner, outer, int(np.count_nonzero(inner & ~outer)))


def set_sizes(view: TargetView, found: ScoreMap, side: Side, thresholds: Sequence[float] | np.ndarray) -> np.ndarray:
    """int64 "threshold": voxels of the set at each (printed) threshold. found: exact for all of them."""
    ups = np.asarray(raised(np.asarray(thresholds, dtype=np.float64)))
    values = found.values if view.domain is None else found.values[view.domain[found.box]]
    values = values.reshape(-1)
    domain_voxels = int(np.prod(view.shape)) if view.domain is None else int(np.count_nonzero(view.domain))
    if side == "inner":
        return _above(values, ups)
    # f beyond the box is below every finite -lambda, so those voxels belong to the infinite sets alone.
    denied = _above(-values, ups) + (domain_voxels - values.size)
    return np.where(ups == np.inf, math.prod(view.shape), domain_voxels - denied)


def p_value_counts(view: TargetView, found: ScoreMap, side: Side, ranked: Ranked) -> np.ndarray:
    """(n + 1) p of every voxel "z y x", in the smallest unsigned type, float64 for weighted units.

    found: exact for every finite score of ``ranked``. Outside the domain f is -inf.
    """
    made = np.empty(view.shape, np.min_scalar_type(ranked.units + 1) if ranked.weights is None else np.float64)
    if found.values.shape != made.shape:
        # Beyond the box f is lower than any finite score asks for, and finite.
        beyond = -np.finfo(np.float64).max if side == "inner" else np.finfo(np.float64).max
        made[...] = ranked.counts(np.array([beyond]))[0]
    part = made[found.box]
    for plane, values in zip(part, found.values, strict=True):
        plane[...] = ranked.counts(values if side == "inner" else -values)
    if view.domain is not None:
        made[~view.domain] = ranked.counts(np.array([-np.inf if side == "inner" else np.inf]))[0]
    return made


def _above(values: np.ndarray, thresholds: np.ndarray) -> np.ndarray:
    """int64 "threshold": how many values are strictly above each."""
    order = np.argsort(thresholds, kind="stable")
    lowest = thresholds[order[0]]
    # Most voxels are in no inner set, or in every outer one; only the rest is ranked.
    kept = values[values > lowest]
    passed = np.searchsorted(thresholds[order], kept, side="left")
    reached = np.bincount(passed, minlength=thresholds.size + 1)
    above = np.cumsum(reached[::-1])[::-1][1:]
    made = np.empty(thresholds.size, np.int64)
    made[order] = above
    return made
