"""Score maps: f_I and f_O of a case, "large = inside", on as much of the grid as the question needs.

Davenport 2024, section 2: any map of the image may be thresholded, as long as it is fixed before calibration. Log-odds
stay as they are; smoothed log-odds ignore specks; signed distances speak of millimetres; boxes and hybrids are built
from these. A map that starts from a predicted mask needs a rule for an empty one: nothing is certain (f_I = -inf), and
f_O is -inf (the outer set is empty), +inf (it is everything), or minus the distance to the peak of the log-odds.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal

import numpy as np

from segcal_cli.confidence.boxes import inner_boxes, outer_boxes
from segcal_cli.confidence.distances import (
    Slices,
    bounding_box,
    joined,
    reach_in_voxels,
    signed_distance,
    whole,
    widened,
)
from segcal_cli.confidence.scores import EmptyRule, Metric, Score
from segcal_cli.confidence.transforms import exact_distances, fast_distances
from segcal_cli.confidence.views import TargetView
from segcal_cli.core.frozen import dataclass

Side = Literal["inner", "outer"]
SIDES: tuple[Side, Side] = ("inner", "outer")

ONE_FOR_BOTH = ("identity", "smooth", "distance", "hybrid")
"""Scores whose map is the same on both sides, as long as there is a predicted mask."""

TRUNCATE = 4.0
"""A Gaussian is cut off at this many sigmas; its radius in voxels is int(4 sigma + 0.5)."""

FWHM_PER_SIGMA = 2.3548
"""Full width at half maximum of a Gaussian, for people."""


@dataclass(frozen=True, slots=True)
class MapRules:
    """How distances are measured, and what an empty predicted mask means for the outer set."""

    metric: Metric = "euclidean"
    empty: EmptyRule = "empty"


@dataclass(frozen=True, slots=True)
class ScoreMap:
    """values: float64 of the voxels in ``box``. Beyond the box f is lower than whatever the map was asked for."""

    values: np.ndarray
    box: Slices

    def spread(self, found: np.ndarray, shape: Sequence[int]) -> np.ndarray:
        """bool "z y x" of the whole grid from bool of the box; False beyond it."""
        if found.shape == tuple(shape):
            return found
        made = np.zeros(shape, dtype=bool)
        made[self.box] = found
        return made


def score_map(
    view: TargetView,
    score: Score,
    side: Side,
    rules: MapRules,
    *,
    around: Slices | None = None,
    reach: float | None = None,
) -> ScoreMap:
    """One side's map. around: the truth's box, for calibration: the map then ends one voxel beyond mask and truth.

    reach: for sets: the map then ends where f is below -reach. Neither: the whole grid. Distances for calibration are
    exact whatever is installed, for sets within the slack of thresholds. Raises InnerBoxesIn3D.
    """
    if not score.of_mask:
        return ScoreMap(_values(view, score), whole(view.shape))
    mask = base_mask(view, score, side)
    box = bounding_box(mask)
    if box is None:
        return _of_empty(view, score, side, rules, around, reach)
    metric = metric_of(score, rules)
    crop = whole(view.shape) if score.kind == "hybrid" else _crop(view, box, around, reach, metric)
    distance = _signed(view, mask, crop, metric, exact=around is not None)
    return ScoreMap(_with_hybrid(view, score, distance), crop)


def base_mask(view: TargetView, score: Score, side: Side) -> np.ndarray:
    """bool "z y x": the mask that a distance starts from."""
    if score.kind == "smooth-distance":
        found = smoothed(view, score) > 0.0
        return found if view.domain is None else found & view.domain
    if score.kind == "boxes":
        if view.mask_box is None:
            return view.mask
        boxed = outer_boxes(view.mask) if side == "outer" else inner_boxes(view.mask, view.case.id)
        return boxed if view.domain is None else boxed & view.domain
    return view.mask


def smoothed(view: TargetView, score: Score) -> np.ndarray:
    """float64 "z y x": log-odds smoothed by a Gaussian of ``score.number`` mm, edges repeated.

    With a region R of voxels that exist: G(s 1_R) / G(1_R), so that nothing leaks in from outside.
    """
    assert score.number is not None, "smoothing has a width"
    if view.domain is None:
        return _gaussian(view.log_odds, score.number, view.spacing)
    weight = _gaussian(view.domain.astype(np.float64), score.number, view.spacing)
    total = _gaussian(np.where(view.domain, view.log_odds, 0.0), score.number, view.spacing)
    return np.divide(total, weight, out=np.full(total.shape, -np.inf), where=view.domain & (weight > 0))


def metric_of(score: Score, rules: MapRules) -> Metric:
    """Boxes are measured in chessboard steps, everything else as the rules say."""
    return "chessboard" if score.kind == "boxes" else rules.metric


def _values(view: TargetView, score: Score) -> np.ndarray:
    if score.kind == "smooth":
        return smoothed(view, score)
    if score.kind == "identity":
        return view.stored.astype(np.float64)
    return view.log_odds


def _gaussian(values: np.ndarray, sigma: float, spacing: Sequence[float]) -> np.ndarray:
    from scipy import ndimage

    made = values
    for axis, edge in enumerate(spacing):
        if values.shape[axis] > 1:
            made = ndimage.gaussian_filter1d(made, sigma / edge, axis=axis, mode="nearest", truncate=TRUNCATE)
    return made


def _crop(view: TargetView, box: Slices, around: Slices | None, reach: float | None, metric: Metric) -> Slices:
    if view.domain is not None:
        # The ring around a box need not exist, so only the box of everything that exists is sure to be exact.
        return view.domain_box
    if around is not None:
        found = joined(box, around)
        assert found is not None, "both boxes have voxels"
        return widened(found, view.shape, (1, 1, 1))
    if reach is not None:
        return widened(box, view.shape, reach_in_voxels(reach, view.spacing, metric))
    return whole(view.shape)


def _signed(view: TargetView, mask: np.ndarray, crop: Slices, metric: Metric, *, exact: bool) -> np.ndarray:
    domain = None if view.domain is None else view.domain[crop]
    return signed_distance(mask[crop], view.spacing, metric, domain, exact_distances if exact else fast_distances)


def _with_hybrid(view: TargetView, score: Score, distance: np.ndarray) -> np.ndarray:
    if score.kind != "hybrid":
        return distance
    assert score.number is not None, "a hybrid has a weight"
    distance *= score.number
    distance += view.log_odds
    return distance


def _of_empty(
    view: TargetView, score: Score, side: Side, rules: MapRules, around: Slices | None, reach: float | None
) -> ScoreMap:
    if side == "inner" or rules.empty != "peak":
        value = np.inf if side == "outer" and rules.empty == "full" else -np.inf
        return ScoreMap(np.broadcast_to(value, view.shape), whole(view.shape))
    height = smoothed(view, score) if score.kind == "smooth-distance" else view.log_odds
    if view.domain is not None:
        height = np.where(view.domain, height, -np.inf)
    peak = height == height.max()
    box = bounding_box(peak)
    assert box is not None, "a maximum is somewhere"
    crop = whole(view.shape)
    if score.kind != "hybrid":
        crop = _crop(view, box, around, reach, metric_of(score, rules))
    # Minus the distance to the peak: 0 on it, never positive, since a peak is no predicted mask.
    distance = np.minimum(_signed(view, peak, crop, metric_of(score, rules), exact=around is not None), 0.0)
    return ScoreMap(_with_hybrid(view, score, distance), crop)
