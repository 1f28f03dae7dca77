"""Tau and gamma: how strongly the model claims a voxel that is not target, and denies one that is.

tau = max of f_I over voxels outside the truth, gamma = max of -f_O over the truth, maxima over nothing being -inf
(Davenport 2024, Theorems 2.1 and 2.2, with tau for the inner and gamma for the outer set). With a coverage ratio R,
gamma is the ceil(R|Y|)-th smallest value (Mossina, Friedrich 2025); with an inner ratio, tau is the (floor((1-R)|M|) +
1)-th largest, which lets at most that share of the predicted mask be wrong.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import field

import numpy as np

from segcal_cli.confidence.boxes import inner_boxes, outer_boxes
from segcal_cli.confidence.distances import Slices, bounding_box, farthest, joined, widened, within
from segcal_cli.confidence.maps import MapRules, ScoreMap, Side, score_map
from segcal_cli.confidence.scan import Scan
from segcal_cli.confidence.scores import Score
from segcal_cli.confidence.views import TargetView
from segcal_cli.core.frozen import dataclass

COUNT_ROUNDING = 1e-9
"""R times a count can miss a whole number by a few ulp: (1 - 0.9) * 50 is 4.999... in floating point."""


@dataclass(frozen=True, slots=True)
class ScoringRules:
    """What tau and gamma are taken of."""

    maps: MapRules = field(default_factory=MapRules)
    coverage_ratio: float = 1.0
    inner_ratio: float = 1.0
    box_truth: bool = False


def needed_truth_voxels(ratio: float, truth_voxels: int) -> int:
    """ceil(R |Y|): how many true voxels the outer set has to hold."""
    return math.ceil(ratio * truth_voxels - COUNT_ROUNDING)


def allowed_false_voxels(ratio: float, predicted_voxels: int) -> int:
    """floor((1 - R) |M|): how many voxels of the inner set may lie outside the truth."""
    return math.floor((1.0 - ratio) * predicted_voxels + COUNT_ROUNDING)


def inner_truth(view: TargetView, rules: ScoringRules) -> np.ndarray:
    """bool "z y x": what the inner set has to lie in: the truth, or its largest inner boxes."""
    return inner_boxes(view.truth, view.case.id) if rules.box_truth else view.truth


def outer_truth(view: TargetView, rules: ScoringRules) -> np.ndarray:
    """bool "z y x": what the outer set has to hold: the truth, or its bounding boxes."""
    if not rules.box_truth:
        return view.truth
    boxed = outer_boxes(view.truth)
    return boxed if view.counted is None else boxed & view.counted


def case_scores(
    view: TargetView, inner: Score, outer: Score, rules: ScoringRules, scanned: Scan | None = None
) -> tuple[float, float]:
    """(tau, gamma) of one target. scanned: what a pass over the log-odds already knows. Raises InnerBoxesIn3D."""
    return inner_score(view, inner, rules, scanned), outer_score(view, outer, rules, scanned)


def inner_score(view: TargetView, score: Score, rules: ScoringRules, scanned: Scan | None = None) -> float:
    """tau."""
    plain = rules.inner_ratio == 1.0 and not rules.box_truth
    if score.of_log_odds and plain and scanned is not None:
        return scanned.tau
    allowed = allowed_false_voxels(rules.inner_ratio, view.mask_voxels)
    truth = inner_truth(view, rules)
    if not score.of_mask:
        return _largest_outside(view, score_map(view, score, "inner", rules.maps), truth, allowed)
    if _in_mm(score, rules) and not allowed and view.domain is None:
        quick = _quick_tau(view, truth)
        if quick is not None:
            return quick
    around = _box_of(view, truth)
    found = _largest_outside(view, _near(view, score, "inner", rules, around), truth, allowed)
    # Inside the mask nothing was cut off. Beyond it the box is exact for a maximum over all voxels only.
    if found < 0.0 and (allowed or (view.case.labels is not None and view.case.labels.ignored is not None)):
        found = _largest_outside(view, score_map(view, score, "inner", rules.maps), truth, allowed)
    return found


def outer_score(view: TargetView, score: Score, rules: ScoringRules, scanned: Scan | None = None) -> float:
    """gamma. Truth outside the region of interest is missed by any set: +inf, unless the ratio forgives it."""
    truth = outer_truth(view, rules)
    count = view.truth_voxels if truth is view.truth else int(np.count_nonzero(truth))
    if not count + view.missed_outside:
        return -math.inf
    place = needed_truth_voxels(rules.coverage_ratio, count + view.missed_outside)
    if place > count:
        return math.inf
    if place < 1:
        return -math.inf
    if score.of_log_odds and scanned is not None and place == count and not rules.box_truth:
        return scanned.gamma
    around = _box_of(view, truth)
    if _in_mm(score, rules) and place == count:
        quick = _quick_gamma(view, truth, around)
        if quick is not None:
            return quick
    found = _near(view, score, "outer", rules, around)
    values = -found.values[truth[found.box]]
    return float(values.max()) if place == values.size else float(np.partition(values, place - 1)[place - 1])


def covers(tau: float, gamma: float, lambda_inner: float, lambda_outer: float) -> tuple[bool, bool]:
    """Whether the inner set holds nothing but the truth and the outer set holds all of it, by raised thresholds."""
    return not tau > lambda_inner, not gamma > lambda_outer


def _box_of(view: TargetView, truth: np.ndarray) -> Slices | None:
    return view.truth_box if truth is view.truth else bounding_box(truth)


def _in_mm(score: Score, rules: ScoringRules) -> bool:
    return score.kind == "distance" and rules.maps.metric == "euclidean"


def _near(view: TargetView, score: Score, side: Side, rules: ScoringRules, around: Slices | None) -> ScoreMap:
    if around is None and score.of_mask:
        # An empty truth: the ring around the mask is all that is asked for.
        return score_map(view, score, side, rules.maps, reach=0.0)
    return score_map(view, score, side, rules.maps, around=around)


def _largest_outside(view: TargetView, found: ScoreMap, truth: np.ndarray, allowed: int) -> float:
    free = ~truth[found.box]
    if view.counted is not None:
        free &= view.counted[found.box]
    values = found.values[free]
    if values.size <= allowed:
        return -math.inf
    if allowed == 0:
        return float(values.max())
    place = values.size - 1 - allowed
    return float(np.partition(values, place)[place])


def _quick_tau(view: TargetView, truth: np.ndarray) -> float | None:
    """Tau of ``distance`` in mm where the mask sticks out of the truth: the depth of what sticks out, nothing else."""
    box = view.mask_box
    if box is None:
        return -math.inf
    near = widened(box, view.shape, (1, 1, 1))
    mask = view.mask[near]
    wrong = mask & ~truth[near]
    if view.counted is not None:
        wrong &= view.counted[near]
    if not wrong.any() or mask.all():
        return None
    return farthest(wrong, ~mask, view.spacing)


def _quick_gamma(view: TargetView, truth: np.ndarray, around: Slices | None) -> float | None:
    """Gamma of ``distance`` in mm where the truth sticks out of the mask: how far it does."""
    box = joined(view.mask_box, around)
    if box is None or view.mask_box is None:
        return None
    missed = truth[box] & ~view.mask[box]
    if not missed.any():
        return None
    return farthest(missed, view.mask[box], view.spacing, within(view.mask_box, box))


def distances_apart(views: Sequence[TargetView]) -> list[float]:
    """Directed Hausdorff distance max over true voxels of the distance to the predicted mask, in mm, per target.

    The outer threshold of ``distance`` is at most r once k calibration cases have this distance <= r: better segmenters
    give tighter sets (Davenport 2024, the distance theorem).
    """
    made = []
    for view in views:
        gamma = outer_score(view, Score("distance"), ScoringRules())
        made.append(max(gamma, 0.0) if math.isfinite(gamma) else gamma)
    return made
