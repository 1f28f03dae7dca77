"""Thresholds: ranks, reasons, ties, joint rules over targets, p-values, weights."""

import math
from dataclasses import replace
from fractions import Fraction

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from segcal_cli.confidence.maps import score_map
from segcal_cli.confidence.sets import case_sets, p_value_counts
from segcal_cli.confidence.spec import BadOption, TargetSpec
from segcal_cli.confidence.targets import Target
from segcal_cli.confidence.thresholds import MISSES, TOO_FEW, Calibration, raised
from segcal_cli.confidence.views import views
from segcal_cli.core.conformal import conformal_rank
from segcal_cli.metrics.coverage import coverage_range, sufficient_n
from tests.confidence.builders_synth2d import TARGETS, image, of_two_targets, plain_table, rules, spec_of

ALPHAS = [0.01, 0.05, 0.1, 0.18, 0.3, 0.5, 0.9]


def calibration(tau, gamma=None, **spec):
    table = {key: spec.pop(key) for key in ("present", "groups", "stratum") if key in spec}
    return Calibration(spec_of(**spec), plain_table(tau, tau if gamma is None else gamma, **table))


def test_too_few_cases_give_infinity_and_the_number_that_would_do():
    found = calibration(np.arange(8.0)).threshold(0, 0, 0.1)
    assert (found.inner.value, found.inner.rank, found.inner.reason, found.inner.n_needed) == (math.inf, 9, TOO_FEW, 9)


def test_complete_misses_are_told_from_too_few_cases():
    found = calibration(np.zeros(20), np.r_[np.zeros(15), [math.inf] * 5]).threshold(0, 0, 0.1)
    assert (found.outer.value, found.outer.reason, found.inner.reason) == (math.inf, MISSES, "")


def test_naive_levels_are_all_rejected():
    """Interpolated quantiles, a rank without the (n + 1), and a clamped rank would be finite or smaller here."""
    for n in (5, 9, 19):
        scores = np.random.default_rng(n).exponential(size=n)
        exact = calibration(scores).threshold(0, 0, 0.1).inner.value
        assert exact > np.quantile(scores, 0.9)
        assert exact >= np.sort(scores)[math.ceil(0.9 * n) - 1]
        assert (exact == math.inf) == (n < 9)


def test_ranks_are_those_of_exact_fractions():
    for n in range(1, 400):
        for percent in (1, 2, 5, 7, 10, 18, 29, 50, 57):
            exact = n + 1 - math.floor(Fraction(percent, 100) * (n + 1))
            assert conformal_rank(n, percent / 100) == exact


def test_smallest_numbers_for_confidence():
    assert [sufficient_n(0.1, 0.9), sufficient_n(0.1, 0.95), sufficient_n(0.05, 0.95)] == [22, 29, 59]
    assert sufficient_n(0.1) == 9


def test_the_range_of_this_artifacts_own_coverage():
    low, high = coverage_range(100, conformal_rank(100, 0.1))
    assert (round(low, 3), round(high, 3)) == (0.848, 0.945)


def test_ties_are_counted_up_to_the_slack():
    tied = calibration([1.0, 2.0, 3.0, 3.0 + 1e-9, 3.0, 7.0, 8.0, 9.0, 9.0]).threshold(0, 0, 0.5)
    assert (tied.inner.value, tied.inner.ties) == (3.0 + 1e-9, 2)


def test_without_any_score_the_threshold_is_minus_infinity_where_most_cases_have_no_target():
    found = calibration(np.zeros(20), np.r_[[-math.inf] * 19, 1.0]).threshold(0, 0, 0.1)
    assert found.outer.value == -math.inf
    sets = case_sets(views(image(60), TARGETS)[0], spec_of(), 0, -math.inf, -math.inf)
    assert sets.inner.all()
    assert not sets.outer.any()


def test_a_split_keeps_its_shares_at_every_alpha_and_divides_among_targets():
    spec = spec_of(joint="split", share=0.2)
    assert spec.levels(0, 0.1) == pytest.approx((0.02, 0.08))
    assert spec.levels(0, 0.2) == pytest.approx((0.04, 0.16))
    two = replace(spec, targets=(spec.targets[0],) * 2, across="split")
    assert two.levels(1, 0.1) == pytest.approx((0.01, 0.04))
    assert replace(spec, joint="none").levels(0, 0.1) == (0.1, 0.1)


def test_confidence_of_a_side_is_such_that_all_statements_hold_together():
    assert spec_of(joint="split", confidence=0.9).side_confidence() == pytest.approx(0.95)
    assert spec_of(joint="none", confidence=0.9).side_confidence() == pytest.approx(0.9)


def test_the_maximum_over_targets_has_one_threshold_for_all():
    rng = np.random.default_rng(0)
    one = plain_table(rng.normal(size=30), rng.normal(size=30))
    two = of_two_targets(one)
    two.tau[:, 1] = rng.normal(size=30)
    entry = spec_of().targets[0]
    targets = (replace(entry, standard=((1.0, 2.0), (0.0, 1.0))), replace(entry, target=Target("b", (0,))))
    found = Calibration(replace(spec_of(joint="max"), targets=targets, across="max"), two)
    combined = np.sort(np.max([(two.tau[:, 0] - 1) / 2, two.gamma[:, 0], two.tau[:, 1], two.gamma[:, 1]], axis=0))
    k = conformal_rank(30, 0.1) - 1
    rows = found.thresholds(0.1)
    assert rows[0].inner.value == pytest.approx(1 + 2 * combined[k])
    assert rows[0].outer.value == rows[1].inner.value == combined[k]


@pytest.mark.parametrize("unit", ["case", "max"])
def test_the_order_of_cases_does_not_matter(unit):
    rng = np.random.default_rng(1)
    tau, groups = rng.normal(size=40), rng.integers(0, 15, 40)
    order = rng.permutation(40)
    found = [
        calibration(tau[o], groups=groups[o], unit=unit).threshold(0, 0, 0.1).inner for o in (np.arange(40), order)
    ]
    assert found[0] == found[1]


def test_a_patient_is_present_if_one_of_its_cases_is():
    gamma = np.array([5.0, -math.inf, 2.0, -math.inf, 3.0])
    found = calibration(
        gamma, present=[True, False, True, False, True], groups=list("aabbc"), unit="max", present_only=True
    ).ranked(0, "outer")
    assert found.scores.tolist() == [2.0, 3.0, 5.0]


scores = st.lists(
    st.sampled_from([-math.inf, -2.0, -0.5, 0.0, 0.5, 1.0, 1.0 + 1e-12, 3.0, math.inf]), min_size=1, max_size=40
)


@given(scores, st.sampled_from(ALPHAS), st.sampled_from(["case", "hcp"]))
@settings(max_examples=150, deadline=None)
def test_a_voxel_is_in_the_set_exactly_when_its_p_value_says_so(tau, alpha, unit):
    groups = [index // 2 for index in range(len(tau))]
    ranked = calibration(tau, groups=groups, unit=unit).ranked(0, "inner")
    up = raised(ranked.threshold(alpha).value)
    f = np.array([-math.inf, -2.0, -0.1, 0.5, 1.0, 1.0 + 2e-6, 2.0, 3.1, math.inf])
    p = ranked.counts(f) / ranked.total
    assert np.array_equal(f > up, p <= alpha + 1e-12)


@given(scores, scores, st.sampled_from(ALPHAS))
@settings(max_examples=60, deadline=None)
def test_p_values_of_the_maximum_are_those_of_its_sets(tau, gamma, alpha):
    n = min(len(tau), len(gamma))
    standard = ((0.5, 2.0), (-1.0, 0.7))
    table = plain_table(tau[:n], gamma[:n])
    found = Calibration(spec_of("log-odds", joint="max", standard=standard), table)
    row = found.threshold(0, 0, alpha)
    view = views(image(61), TARGETS)[0]
    sets = case_sets(view, found.spec, 0, row.inner.value, row.outer.value)
    for side, inside in (("inner", sets.inner), ("outer", sets.outer)):
        ranked = found.ranked(0, side)
        whole = score_map(view, found.spec.targets[0].score(side), side, found.spec.rules.maps)
        p = p_value_counts(view, whole, side, ranked) / ranked.total
        assert np.array_equal(inside, p <= alpha + 1e-12 if side == "inner" else p > alpha + 1e-12)


def test_sets_are_monotone_in_alpha_and_hold_the_prediction_between_them():
    found = calibration(np.linspace(0.0, 6.0, 60))
    view = views(image(62), TARGETS)[0]
    before = None
    for alpha in sorted(ALPHAS):
        row = found.threshold(0, 0, alpha)
        sets = case_sets(view, found.spec, 0, row.inner.value, row.outer.value)
        assert not (sets.inner & ~view.mask).any()
        assert not (view.mask & ~sets.outer).any()
        assert sets.contradiction == 0
        if before is not None:
            assert not (before.inner & ~sets.inner).any()
            assert not (sets.outer & ~before.outer).any()
        before = sets


def test_weights_of_one_give_the_unweighted_threshold():
    found = calibration(np.random.default_rng(4).normal(size=50), joint="split")
    plain, weighted = found.threshold(0, 0, 0.2), found.weighted_threshold(0, 0, 0.2, np.ones(50), 1.0)
    assert (plain.inner.value, plain.outer.value) == (weighted.inner.value, weighted.outer.value)
    assert found.weighted_threshold(0, 0, 0.2, np.ones(50), 50.0).inner.value == math.inf


@pytest.mark.parametrize(
    ("changes", "text"),
    [
        ({"alpha": 0.0}, "alpha 0 is not allowed"),
        ({"confidence": 1.0}, "confidence 1 is not allowed"),
        ({"confidence": 0.9, "unit": "hcp"}, "does not go with --unit hcp"),
        ({"across": "max", "joint": "split"}, "needs --joint max"),
        ({"labels_only": True, "inner": "log-odds"}, "knows the scores distance and boxes"),
        ({"labels_only": True, "scoring": rules(empty="peak")}, "peak needs soft values"),
        ({"joint": "max", "inner": "distance", "outer": "log-odds"}, "both must have one scale"),
        ({"scoring": rules(coverage_ratio=1.5)}, "coverage-ratio 1.5 is not allowed"),
    ],
)
def test_options_that_contradict_each_other(changes, text):
    with pytest.raises(BadOption, match=text):
        spec_of(**changes).check()


def test_the_maximum_of_two_distances_in_one_unit_needs_no_learning():
    spec_of("distance", "smooth-distance:1", joint="max").check()
    assert isinstance(spec_of().targets[0], TargetSpec)
