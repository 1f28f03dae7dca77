"""Tau and gamma in corners: empty and full masks and truths, regions of interest, ignored voxels, ratios."""

import math

import numpy as np
import pytest

from segcal_cli.confidence.scan import scan
from segcal_cli.confidence.scores import BadParameter, BadScore, parse_score
from segcal_cli.confidence.scoring import (
    allowed_false_voxels,
    case_scores,
    distances_apart,
    inner_score,
    needed_truth_voxels,
    outer_score,
)
from segcal_cli.confidence.views import NoTruth, views
from tests.confidence.builders_synth2d import TARGETS, affine_of, binary_case, image, rules

EMPTY, FULL = np.full((5, 6), -2.0), np.full((5, 6), 2.0)
NAMES = ["log-odds", "smooth:1", "distance", "smooth-distance:1", "boxes", "hybrid:0.5"]


def scores(case, name, scoring=None):
    made = views(case, TARGETS)
    score = parse_score(name)
    return case_scores(made[0], score, score, scoring or rules(), scan(made)[0])


@pytest.mark.parametrize("name", NAMES)
def test_without_truth_nothing_can_be_missed_and_with_truth_everywhere_nothing_can_be_wrong(name):
    for logits in (EMPTY, FULL):
        assert scores(binary_case("c", logits, np.zeros((5, 6))), name)[1] == -math.inf
        assert scores(binary_case("c", logits, np.ones((5, 6))), name)[0] == -math.inf


@pytest.mark.parametrize("name", ["distance", "smooth-distance:1", "boxes", "hybrid:0.5"])
def test_an_empty_prediction_claims_nothing_and_misses_all_under_the_rule_empty(name):
    case = binary_case("c", EMPTY, np.eye(5, 6))
    assert scores(case, name) == (-math.inf, math.inf)
    assert scores(case, name, rules(empty="full")) == (-math.inf, -math.inf)


@pytest.mark.parametrize("name", ["distance", "boxes"])
def test_a_full_prediction_claims_everything(name):
    assert scores(binary_case("c", FULL, np.eye(5, 6)), name) == (math.inf, -math.inf)


def test_the_peak_of_an_empty_prediction_is_where_its_log_odds_are_largest():
    logits = np.full((1, 9), -3.0)
    logits[0, 2] = -1.0
    case = binary_case("c", logits, [[0, 0, 0, 0, 0, 0, 1, 0, 0]])
    assert scores(case, "distance", rules(empty="peak")) == (-math.inf, 4.0)
    assert scores(case, "hybrid:0.5", rules(empty="peak"))[1] == 3.0 + 0.5 * 4.0


def test_truth_outside_the_region_of_interest_is_missed_by_any_set():
    logits = np.full((1, 4, 8), -3.0)
    logits[0, 1:3, 1:4] = 3.0
    roi = np.zeros(logits.shape, bool)
    roi[..., :6] = True
    inside = np.zeros(logits.shape)
    inside[0, 1, 1:5] = 1
    outside = inside.copy()
    outside[0, 1, 7] = 1
    assert scores(binary_case("c", logits, inside, roi=roi), "distance")[1] == 1.0
    assert scores(binary_case("c", logits, outside, roi=roi), "distance")[1] == math.inf
    assert scores(binary_case("c", logits, outside, roi=roi), "log-odds", rules(coverage_ratio=0.8))[1] == 3.0


def test_ignored_voxels_enter_neither_score():
    logits = np.array([[5.0, 1.0, -1.0, -6.0]])
    truth = np.array([[0, 1, 0, 1]])
    ignored = np.array([[[True, False, False, True]]])
    assert scores(binary_case("c", logits, truth), "log-odds") == (5.0, 6.0)
    assert scores(binary_case("c", logits, truth, ignored=ignored), "log-odds") == (-1.0, -1.0)


def test_smoothing_does_not_reach_across_the_region_of_interest():
    logits = np.full((1, 1, 9), -50.0)
    roi = np.zeros(logits.shape, bool)
    roi[..., 2:7] = True
    logits[roi] = 4.0
    view = views(binary_case("c", logits, roi, roi=roi), TARGETS)[0]
    assert outer_score(view, parse_score("smooth:2"), rules()) == pytest.approx(-4.0)


def test_counts_of_ratios_are_whole_where_they_are_on_paper():
    assert allowed_false_voxels(0.9, 50) == 5
    assert [needed_truth_voxels(0.9, n) for n in (10, 50, 51)] == [9, 45, 46]


def test_the_outer_threshold_is_bounded_by_the_directed_hausdorff_distance():
    """The distance theorem of Davenport: with k cases of distance <= r, the k-th smallest gamma is at most r."""
    gamma, apart = [], []
    for index in range(60, 120):
        made = views(image(index), TARGETS)
        gamma.append(outer_score(made[0], parse_score("distance"), rules()))
        apart += distances_apart(made)
    for k in (20, 40, 55):
        assert np.sort(gamma)[k - 1] <= np.sort(apart)[k - 1]


def test_taxicab_gamma_is_the_number_of_dilations():
    from scipy.ndimage import binary_dilation

    for index in range(70, 80):
        view = views(image(index), TARGETS)[0]
        gamma = outer_score(view, parse_score("distance"), rules("taxicab"))
        grown, steps = view.mask[0].copy(), 0
        while view.mask.any() and (view.truth[0] & ~grown).any():
            grown, steps = binary_dilation(grown), steps + 1
        if math.isfinite(gamma):
            assert max(0, gamma) == steps


def test_spacing_and_sigma_scale_distances_together():
    logits, truth = np.random.default_rng(3).normal(size=(1, 12, 12)), np.eye(12)
    for name in ("distance", "smooth-distance:{}"):
        found = [
            outer_score(
                views(binary_case("c", logits, truth, affine=affine_of(s, s, s)), TARGETS)[0],
                parse_score(name.format(s)),
                rules(),
            )
            for s in (1, 2)
        ]
        assert found[1] == pytest.approx(2 * found[0], rel=1e-12)


def test_spacing_is_rounded_before_use():
    """0.8 comes out of a NIfTI header as 0.800000012; a kernel radius of int(4 * 1.5 / 0.8 + 0.5) must stay 8."""
    stored = float(np.float32(0.8))
    case = binary_case("c", np.eye(4), np.eye(4), affine=affine_of(1.0, stored, stored))
    assert views(case, TARGETS)[0].spacing == (1.0, 0.8, 0.8)


def test_identity_of_one_logit_is_log_odds():
    assert scores(image(70), "identity") == pytest.approx(scores(image(70), "log-odds"))


def test_a_case_without_labels_has_no_scores():
    view = views(binary_case("c", FULL, None), TARGETS)[0]
    with pytest.raises(NoTruth, match="c: no label volume"):
        inner_score(view, parse_score("distance"), rules())


@pytest.mark.parametrize(
    ("text", "error"),
    [("dist", BadScore), ("smooth", BadParameter), ("smooth:-1", BadParameter), ("boxes:2", BadScore)],
)
def test_scores_that_do_not_exist(text, error):
    with pytest.raises(error):
        parse_score(text)
