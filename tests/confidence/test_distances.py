"""Signed distances against a loop over voxels; crops against the full transform."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from segcal_cli.confidence import distances
from segcal_cli.confidence.distances import bounding_box, farthest, signed_distance, widened
from segcal_cli.confidence.maps import SIDES, score_map
from segcal_cli.confidence.scores import parse_score
from segcal_cli.confidence.scoring import ScoringRules, inner_score, outer_score
from segcal_cli.confidence.sets import case_sets, p_value_counts, set_sizes, side_maps
from segcal_cli.confidence.thresholds import Calibration
from segcal_cli.confidence.transforms import exact_distances, fast_distances
from segcal_cli.confidence.views import views
from tests.confidence.builders_synth2d import TARGETS, affine_of, binary_case, plain_table, rules, spec_of

SPACINGS = [(1.0, 1.0, 1.0), (3.0, 0.8, 1.25)]


def brute(mask, spacing, metric):
    """Distance of every voxel to every other, one by one."""
    points = np.argwhere(np.ones(mask.shape, bool))
    flat, made = mask.reshape(-1), np.empty(mask.size)
    for index, point in enumerate(points):
        others = points[flat != flat[index]]
        if not len(others):
            made[index] = np.inf if flat[index] else -np.inf
            continue
        away = np.abs(others - point)
        if metric == "euclidean":
            nearest = np.sqrt(((away * np.array(spacing)) ** 2).sum(axis=1)).min()
        else:
            nearest = (away.sum(axis=1) if metric == "taxicab" else away.max(axis=1)).min()
        made[index] = nearest if flat[index] else -nearest
    return made.reshape(mask.shape)


def random_mask(seed, shape=(4, 6, 7), share=0.3):
    return np.random.default_rng(seed).random(shape) < share


@pytest.mark.parametrize("metric", ["euclidean", "taxicab", "chessboard"])
@pytest.mark.parametrize("spacing", SPACINGS)
@pytest.mark.parametrize("seed", range(3))
def test_signed_distance_is_that_of_the_nearest_voxel_on_the_other_side(metric, spacing, seed):
    mask = random_mask(seed)
    assert np.allclose(signed_distance(mask, spacing, metric), brute(mask, spacing, metric), rtol=1e-14)


def test_empty_and_full_masks_have_no_other_side():
    assert (signed_distance(np.zeros((2, 3, 3), bool), (1, 1, 1), "euclidean") == -np.inf).all()
    assert (signed_distance(np.ones((2, 3, 3), bool), (1, 1, 1), "taxicab") == np.inf).all()


@pytest.mark.parametrize("spacing", [*SPACINGS, (0.7, 5.0, 0.7)])
@pytest.mark.parametrize(("most", "sampled"), [(0, 1), (0, 3), (5, 2), (10**6, 1)])
def test_the_farthest_point_is_found_with_and_without_sorting_out(spacing, most, sampled, monkeypatch):
    monkeypatch.setattr(distances, "TREE_POINTS", most)
    monkeypatch.setattr(distances, "SAMPLED_POINTS", sampled)
    for seed in range(20):
        sites = random_mask(seed, share=0.05)
        sites[2, 3, 3] = True
        points = random_mask(seed + 100, share=0.5) & ~sites
        expected = -brute(sites, spacing, "euclidean")[points].min()
        assert farthest(points, sites, spacing) == pytest.approx(expected, rel=1e-14)


def test_voxels_outside_the_domain_are_no_place_to_go_to():
    mask = np.array([[[True, True, True, False, False]]])
    domain = np.array([[[True, True, True, True, False]]])
    assert signed_distance(mask, (1, 1, 1), "euclidean", domain)[0, 0, :4].tolist() == [3, 2, 1, -1]
    assert (signed_distance(mask, (1, 1, 1), "euclidean", mask)[mask] == np.inf).all()


def test_boxes_widen_up_to_the_grid():
    mask = np.zeros((5, 6, 7), bool)
    mask[1, 2:4, 6] = True
    assert bounding_box(mask) == (slice(1, 2), slice(2, 4), slice(6, 7))
    assert widened(bounding_box(mask), mask.shape, (2, 1, 1)) == (slice(0, 4), slice(1, 5), slice(5, 7))
    assert bounding_box(np.zeros((2, 2, 2), bool)) is None


def anisotropic_case(seed):
    rng = np.random.default_rng(seed)
    logits = np.full((5, 16, 18), -1.0)
    logits[1:4, 4:10, 5:11] = rng.normal(0.4, 1.0, (3, 6, 6))
    truth = np.zeros(logits.shape, bool)
    truth[rng.integers(0, 3) : 4, 3:9, 6:13] = rng.random((1, 6, 7)) < 0.8
    return binary_case("c", logits, truth, affine=affine_of(3.0, 0.8, 1.25))


@given(st.integers(0, 2**32 - 1))
@settings(max_examples=60, deadline=None)
def test_scores_from_a_crop_are_those_of_the_full_transform(seed):
    """Tau and gamma of ``distance`` in anisotropic voxels, whatever the ratio, against the whole grid."""
    view = views(anisotropic_case(seed), TARGETS)[0]
    full = signed_distance(view.mask, view.spacing, "euclidean")
    for inner, outer in ((1.0, 1.0), (0.7, 0.8)):
        scoring = rules(inner_ratio=inner, coverage_ratio=outer)
        allowed = int(np.floor((1 - inner) * view.mask.sum() + 1e-9))
        needed = int(np.ceil(outer * view.truth.sum() - 1e-9))
        tau = np.sort(full[~view.truth])[::-1][allowed]
        gamma = np.sort(-full[view.truth])[needed - 1] if view.truth.any() else -np.inf
        assert inner_score(view, parse_score("distance"), scoring) == pytest.approx(tau, rel=1e-14)
        assert outer_score(view, parse_score("distance"), scoring) == pytest.approx(gamma, rel=1e-14)


@given(st.integers(0, 2**32 - 1), st.integers(0, 40), st.booleans())
@settings(max_examples=60, deadline=None)
def test_sets_from_a_crop_are_those_of_the_full_transform_bit_for_bit(seed, pick, negative):
    """Thresholds are distances that occur, so that a whole shell of voxels lies exactly on them."""
    view = views(anisotropic_case(seed), TARGETS)[0]
    full = signed_distance(view.mask, view.spacing, "euclidean")
    steps = np.unique(np.abs(full[np.isfinite(full)]))
    threshold = float(steps[pick % steps.size]) * (-1 if negative else 1)
    found = case_sets(view, spec_of("distance"), 0, threshold, threshold)
    up = threshold + 1e-6 * (1 + abs(threshold))
    assert np.array_equal(found.inner, full > up)
    assert np.array_equal(found.outer, ~(-full > up))


@given(st.integers(0, 2**32 - 1), st.booleans())
@settings(max_examples=60, deadline=None)
def test_p_values_from_a_crop_are_those_of_the_whole_grid(seed, ended):
    """Calibration scores are distances that occur, with and without infinite ones."""
    view = views(anisotropic_case(seed), TARGETS)[0]
    full = signed_distance(view.mask, view.spacing, "euclidean")
    rng = np.random.default_rng(seed)
    tau, gamma = rng.choice(full[np.isfinite(full)], 12), rng.choice(-full[np.isfinite(full)], 12)
    if ended:
        tau[:2], gamma[:2] = (-np.inf, np.inf), (-np.inf, np.inf)
    calibration = Calibration(spec_of("distance"), plain_table(tau, gamma))
    ranked = [calibration.ranked(0, side) for side in SIDES]
    cropped = side_maps(view, calibration.spec, 0, *(r.scores[np.isfinite(r.scores)] for r in ranked))
    for side, found, among in zip(SIDES, cropped, ranked, strict=True):
        whole = score_map(view, parse_score("distance"), side, rules().maps)
        counts = p_value_counts(view, found, side, among)
        assert counts.dtype == np.uint8
        assert np.array_equal(counts, p_value_counts(view, whole, side, among))


@pytest.mark.parametrize("score", ["distance", "log-odds", "smooth:1"])
def test_outside_the_region_of_interest_a_voxel_is_in_the_outer_set_of_an_infinite_threshold_only(score):
    """Masks, their sizes and the maps of p-values say the same of every level, and of a true voxel out there."""
    logits, truth = np.full((1, 6, 9), -2.0), np.zeros((1, 6, 9), bool)
    logits[0, 2:5, 2:5], truth[0, 2:5, 2:8] = 2.0, True
    roi = np.zeros(truth.shape, bool)
    roi[..., 1:6] = True
    view = views(binary_case("c", logits, truth, roi=roi), TARGETS)[0]
    gamma = np.array([-1.0, 0.5, 1.0, 3.0, np.inf, np.inf])
    calibration = Calibration(spec_of(score), plain_table(np.zeros(6), gamma))
    ranked = calibration.ranked(0, "outer")
    found = score_map(view, parse_score(score), "outer", rules().maps)
    counts = p_value_counts(view, found, "outer", ranked)
    for alpha in (0.1, 0.2, 0.3, 0.5, 0.7):
        threshold = ranked.threshold(alpha).value
        outer = case_sets(view, calibration.spec, 0, np.inf, threshold).outer
        assert np.array_equal(outer, counts > alpha * 7 + 1e-9)
        assert set_sizes(view, found, "outer", [threshold]).tolist() == [outer.sum()]
        assert outer[~roi].all() == (threshold == np.inf)
        assert outer[~roi].any() == (threshold == np.inf)
        assert (truth & ~outer).any() == (outer_score(view, parse_score(score), rules()) > threshold)


@pytest.mark.parametrize("spacing", [(1.0, 1.0, 1.0), (3.0, 0.8, 1.25), (0.97656, 0.97656, 5.0)])
def test_the_fast_transform_gives_the_same_sets_at_every_distance_that_occurs(spacing):
    """Exact where all voxels have one size; elsewhere within the slack that every threshold is used with."""
    pytest.importorskip("edt")
    for seed in range(5):
        mask = random_mask(seed, (7, 20, 24), 0.02)
        fast, exact = (made(mask, spacing, "euclidean") for made in (fast_distances, exact_distances))
        if len(set(spacing)) == 1:
            assert np.array_equal(fast, exact)
        for threshold in np.unique(exact):
            up = threshold + 1e-6 * (1 + threshold)
            assert np.array_equal(fast > up, exact > up)


def test_scores_of_calibration_do_not_hang_on_what_is_installed(monkeypatch):
    """Gamma with a ratio needs distances of many voxels: they are scipy's, so that artifacts are the same anywhere."""
    view = views(anisotropic_case(3), TARGETS)[0]

    def refuse(*_):
        raise AssertionError("a score by the fast transform")

    monkeypatch.setattr("segcal_cli.confidence.maps.fast_distances", refuse)
    assert np.isfinite(outer_score(view, parse_score("distance"), rules(coverage_ratio=0.8)))
    with pytest.raises(AssertionError):
        case_sets(view, spec_of("distance"), 0, 1.0, 1.0)


def test_ignored_voxels_around_a_mask_do_not_hide_where_the_truth_ends():
    """The ring that a crop relies on may be ignored; then the whole grid is looked at."""
    logits = np.full((1, 9, 9), -1.0)
    logits[0, 4, 4] = 1.0
    truth = logits > 0
    ignored = np.zeros(truth.shape, bool)
    ignored[0, 3:6, 3:6] = True
    ignored[0, 4, 4] = False
    case = binary_case("c", logits, truth, ignored=ignored)
    assert inner_score(views(case, TARGETS)[0], parse_score("distance"), ScoringRules()) == -2.0
