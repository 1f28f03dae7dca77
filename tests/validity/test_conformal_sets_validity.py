"""What conformal sets promise, simulated; and what must fail, so that the simulation could have found it.

Each bound has a false-alarm rate of about .001 over seeds: with 600 draws and a probability of .9 fewer than 516 are
covered that rarely, with 300 draws fewer than 254, with 2000 draws fewer than 1757. What takes 600 draws of images is
``slow`` where 300 say the same.
"""

from __future__ import annotations

import math
from dataclasses import replace

import numpy as np
import pytest
from scipy.stats import betabinom, binom, kstest

from segcal_cli.confidence.drift import batch_p_values, outlier, stream_p_values, stream_test
from segcal_cli.confidence.maps import MapRules
from segcal_cli.confidence.risk_control import UNITS, crc_budget, grid_threshold, missed_below, missed_units
from segcal_cli.confidence.scan import scan
from segcal_cli.confidence.scores import parse_score
from segcal_cli.confidence.scoring import (
    ScoringRules,
    case_scores,
    covers,
    inner_truth,
    outer_score,
    outer_truth,
)
from segcal_cli.confidence.sets import case_sets
from segcal_cli.confidence.targets import Target
from segcal_cli.confidence.thresholds import Calibration, raised, unit_scores
from segcal_cli.confidence.validation import resplit_coverages
from segcal_cli.confidence.views import views
from segcal_cli.core.conformal import conformal_quantile, conformal_rank
from segcal_cli.metrics.coverage import confident_rank, hierarchical_quantile, weighted_quantile
from tests.confidence.builders_synth2d import PER_TARGET, TARGETS, binary_case, plain_table, spec_of

DRAWS, N, ALPHA = 600, 19, 0.1
AT_LEAST, AT_MOST = 516, 561
FEW_DRAWS = 300
BOUNDS = {FEW_DRAWS: (254, 285), DRAWS: (AT_LEAST, AT_MOST)}
HOW_MANY = [FEW_DRAWS, pytest.param(DRAWS, marks=pytest.mark.slow)]
MANY, MANY_AT_LEAST, MANY_AT_MOST = 2000, 1757, 1840

SCORES = ("log-odds", "smooth:1", "distance", "smooth-distance:1", "boxes", "hybrid:0.5")
ATYPICAL = 0.05
"""At a p up to this a case is flagged."""

CONTINUOUS = {"log-odds", "smooth:1"}


def smooth_fields(rng, count, size, sigma):
    """Smooth Gaussian fields of unit variance, "field y x"."""
    k = np.fft.fftfreq(size) * 2 * np.pi
    filter = np.exp(-(k[:, None] ** 2 + k**2) * sigma**2 / 2)
    fields = np.fft.ifft2(np.fft.fft2(rng.standard_normal((count, size, size))) * filter).real
    return fields / fields.std(axis=(1, 2), keepdims=True)


def draw_images(rng, count, size=16):
    """(logits, truth): a disc, and a model that sees it displaced, of another size, through noise."""
    y, x = np.mgrid[:size, :size]
    centre, radius = rng.uniform(5, size - 5, (count, 2)), rng.uniform(2, 5, count)
    moved, seen = centre + rng.normal(0, 0.8, (count, 2)), radius * np.exp(rng.normal(0, 0.15, count))

    def discs(c, r):
        away = np.hypot(y - c[:, 0, None, None], x - c[:, 1, None, None])
        return away / r[:, None, None]

    truth = discs(centre, radius) + 0.15 * smooth_fields(rng, count, size, 1.5) < 1
    logits = 5.0 * (1.0 - np.minimum(discs(moved, seen), 2.2)) + 1.5 * smooth_fields(rng, count, size, 1.5)
    return logits.astype(np.float32), truth


def scores_of(case, names, rules=None):
    """(tau, gamma) of each score."""
    made = views(case, TARGETS)
    scanned = scan(made)[0]
    rules = rules or ScoringRules()
    return [case_scores(made[0], parse_score(name), parse_score(name), rules, scanned) for name in names]


@pytest.fixture(scope="module", params=HOW_MANY)
def disc_scores(request):
    """float64 "draw image score side" of log-odds and distance, from independent draws of 20 images."""
    logits, truth = draw_images(np.random.default_rng(20260201), request.param * (N + 1))
    found = [scores_of(binary_case("c", z, y), ("log-odds", "distance")) for z, y in zip(logits, truth, strict=True)]
    return np.array(found).reshape(request.param, N + 1, 2, 2)


def covered_by(scores):
    """How many of the last scores lie under the raised threshold of the others, "draw score"."""
    return sum(row[-1] <= raised(conformal_quantile(row[:-1], ALPHA)) for row in scores)


@pytest.mark.validity
@pytest.mark.parametrize("index", [0, 1], ids=["log-odds", "distance"])
def test_inner_and_outer_sets_of_images_cover_with_one_minus_alpha(disc_scores, index):
    for side in (0, 1):
        covered = covered_by(disc_scores[:, :, index, side])
        at_least, at_most = BOUNDS[len(disc_scores)]
        assert covered >= at_least
        assert index == 1 or covered <= at_most


@pytest.mark.validity
@pytest.mark.slow
@pytest.mark.parametrize("empty", ["empty", "full", "peak"])
def test_every_score_and_every_rule_for_empty_predictions_covers(empty):
    rules = ScoringRules(MapRules(empty=empty))
    logits, truth = draw_images(np.random.default_rng(20260202), DRAWS * (N + 1))
    found = np.array([scores_of(binary_case("c", z, y), SCORES, rules) for z, y in zip(logits, truth, strict=True)])
    found = found.reshape(DRAWS, N + 1, len(SCORES), 2)
    for index, name in enumerate(SCORES):
        for side in (0, 1):
            covered = covered_by(found[:, :, index, side])
            assert covered >= AT_LEAST, name
            assert name not in CONTINUOUS or covered <= AT_MOST, name


@pytest.mark.validity
def test_whole_sets_are_right_as_often_as_scores_say(disc_scores):
    """The masks themselves, for one draw in ten: I lies in Y and Y in O exactly when tau and gamma say so."""
    logits, truth = draw_images(np.random.default_rng(20260201), len(disc_scores) * (N + 1))
    spec = spec_of("distance")
    for draw in range(0, len(disc_scores), 10):
        scores = disc_scores[draw, :, 1]
        row = Calibration(spec, plain_table(*scores[:-1].T)).threshold(0, 0, ALPHA)
        view = views(binary_case("c", logits[draw * 20 + 19], truth[draw * 20 + 19]), TARGETS)[0]
        sets = case_sets(view, spec, 0, row.inner.value, row.outer.value)
        right = not (sets.inner & ~view.truth).any(), not (view.truth & ~sets.outer).any()
        assert right == covers(*scores[-1], raised(row.inner.value), raised(row.outer.value))


@pytest.mark.validity
def test_joint_sets_cover_jointly_and_two_marginal_ones_do_not(disc_scores):
    """With 19 cases .05 a side has k = n. Control: both sides at .1 called joint, on scores that fail apart."""
    held = {"split": 0, "max": 0}
    for draw in disc_scores[:, :, 0]:
        for joint in held:
            row = Calibration(spec_of(joint=joint), plain_table(*draw[:-1].T)).threshold(0, 0, ALPHA)
            held[joint] += all(covers(*draw[-1], raised(row.inner.value), raised(row.outer.value)))
    at_least, _ = BOUNDS[len(disc_scores)]
    assert held["split"] >= at_least
    assert held["max"] >= at_least
    rng = np.random.default_rng(20260203)
    wrong = 0
    for _ in range(DRAWS):
        tau = rng.normal(size=N + 1)
        wrong += all(row[-1] <= conformal_quantile(row[:-1], ALPHA) for row in (tau, -tau))
    assert wrong < AT_LEAST


@pytest.mark.validity
@pytest.mark.parametrize(("n", "controls"), [(5, (0.767, 0.833)), (9, (0.82, 0.86)), (19, (0.86, 0.88))])
def test_plain_scores_and_the_levels_that_are_wrong(n, controls):
    """Controls: numpy's quantile, and a percentile of a scale without the (n + 1); both cover too little."""
    draws = np.random.default_rng(20260204).normal(size=(MANY, n + 1))
    covered = sum(row[-1] <= conformal_quantile(row[:-1], ALPHA) for row in draws)
    assert covered >= MANY_AT_LEAST
    assert n != 9 or covered <= MANY_AT_MOST
    interpolated = (draws[:, -1] <= np.quantile(draws[:, :-1], 0.9, axis=1)).mean()
    hazen = (draws[:, -1] <= np.quantile(draws[:, :-1], 0.9, axis=1, method="hazen")).mean()
    assert interpolated == pytest.approx(controls[0], abs=0.03)
    assert hazen == pytest.approx(controls[1], abs=0.03)
    assert interpolated * MANY < MANY_AT_LEAST


@pytest.mark.validity
@pytest.mark.parametrize(
    ("outside", "draws"),
    [
        pytest.param(0.04, DRAWS, marks=pytest.mark.slow, id="rarely"),
        pytest.param(0.3, FEW_DRAWS, id="often"),
        pytest.param(0.3, DRAWS, marks=pytest.mark.slow, id="often-in-full"),
    ],
)
def test_all_of_the_target_is_held_although_some_lies_outside_the_region_of_interest(outside, draws):
    """Half of the image is no region; in some images the disc crosses its border. The masks themselves, 19 + 1 images.

    Control: outer sets cut to the region whatever the threshold, where discs cross the border often.
    """
    rng = np.random.default_rng(20260217)
    logits, truth = draw_images(rng, draws * (N + 1))
    crosses = rng.random(len(truth)) < outside
    spec, score, rules = spec_of("distance"), parse_score("distance"), ScoringRules()
    made = []
    for z, y, far in zip(logits, truth, crosses, strict=True):
        columns = np.flatnonzero(y.any(axis=0))
        edge = 16 if not columns.size else columns[-1] if far else columns[-1] + 1
        roi = np.zeros((1, 16, 16), bool)
        roi[..., :edge] = True
        made.append(views(binary_case("c", z, y, roi=roi), TARGETS)[0])
    held = cut = 0
    for draw in range(draws):
        *old, new = made[draw * (N + 1) : (draw + 1) * (N + 1)]
        gamma = np.array([outer_score(view, score, rules) for view in old])
        row = Calibration(spec, plain_table(gamma, gamma)).threshold(0, 0, ALPHA)
        outer = case_sets(new, spec, 0, math.inf, row.outer.value).outer
        held += not (new.all_truth & ~outer).any()
        cut += not (new.all_truth & ~(outer & new.domain)).any()
    at_least, _ = BOUNDS[draws]
    assert held >= at_least
    assert outside < ALPHA or cut < at_least


@pytest.mark.validity
@pytest.mark.slow
@pytest.mark.parametrize("name", ["ratios", "boxes"])
def test_ratios_and_boxes_are_held_by_the_masks_themselves(name):
    """19 + 1 images. Ratios: O holds 90 % of the truth, of I at most a tenth of the prediction lies outside it. Boxes:
    O holds the boxes around the parts of the truth, I lies in the largest boxes inside them. Control for the ratios:
    the same sets asked to hold all of the truth."""
    rules = ScoringRules(box_truth=True) if name == "boxes" else ScoringRules(coverage_ratio=0.9, inner_ratio=0.9)
    logits, truth = draw_images(np.random.default_rng(20260218), DRAWS * (N + 1))
    made = [views(binary_case("c", z, y), TARGETS)[0] for z, y in zip(logits, truth, strict=True)]
    spec, score = spec_of("distance", scoring=rules), parse_score("distance")
    held, whole = np.zeros(2, int), 0
    for draw in range(DRAWS):
        *old, new = made[draw * (N + 1) : (draw + 1) * (N + 1)]
        tau, gamma = np.array([case_scores(view, score, score, rules) for view in old]).T
        row = Calibration(spec, plain_table(tau, gamma)).threshold(0, 0, ALPHA)
        sets = case_sets(new, spec, 0, row.inner.value, row.outer.value)
        if name == "boxes":
            held[0] += not (sets.inner & ~inner_truth(new, rules)).any()
            held[1] += not (outer_truth(new, rules) & ~sets.outer).any()
        else:
            held[0] += 10 * (sets.inner & ~new.truth).sum() <= new.mask.sum()
            held[1] += 10 * (new.truth & ~sets.outer).sum() <= new.truth.sum()
            whole += not (new.truth & ~sets.outer).any()
    assert (held >= AT_LEAST).all()
    assert name == "boxes" or whole < AT_LEAST


def several_targets(spec, scores):
    """A calibration of as many targets as there are. scores: "target side case"."""
    entries = tuple(replace(spec.targets[0], target=Target(str(t), (t,))) for t in range(len(scores)))
    tables = [plain_table(*one) for one in scores]
    joined = {name: np.concatenate([getattr(table, name) for table in tables], axis=1) for name in PER_TARGET}
    return Calibration(replace(spec, targets=entries), replace(tables[0], **joined))


@pytest.mark.validity
@pytest.mark.parametrize("how", ["split", "max"])
def test_all_sets_of_all_targets_hold_at_once_if_that_is_promised(how):
    """Three targets, two sides, 79 + 1 cases. Control: each target with its own statement, called one for all."""
    rng = np.random.default_rng(20260219)
    spec = spec_of("log-odds", joint=how, across=how)
    each = spec_of("log-odds", joint="split")
    held = wrong = 0
    for _ in range(MANY // 4):
        scores = rng.normal(size=(3, 2, 80)) + 0.3 * rng.normal(size=80)
        for asked in (spec, each):
            rows = several_targets(asked, scores[..., :-1]).thresholds(ALPHA)
            lambdas = np.array([(row.inner.value, row.outer.value) for row in rows])
            right = bool((scores[..., -1] <= raised(lambdas)).all())
            held += right and asked is spec
            wrong += right and asked is each
    # Of 500 draws with a probability of .9 fewer than 428 are right with a probability of .001.
    assert held >= 428
    assert wrong < 428


@pytest.mark.validity
def test_confidence_holds_for_both_sides_of_a_split_at_once():
    """200 uniform scores a side, whose threshold is its own coverage. Control: confidence .9 a side, about .81."""
    spec = spec_of("log-odds", joint="split", confidence=0.9)
    level, sure = ALPHA / 2, spec.side_confidence()
    draws = np.sort(np.random.default_rng(20260220).uniform(size=(MANY, 2, 200)), axis=2)

    def both(confidence):
        return (draws[:, :, confident_rank(200, level, confidence) - 1] >= 1 - level).all(axis=1).sum()

    assert both(sure) >= MANY_AT_LEAST
    assert both(0.7) < MANY_AT_LEAST
    row = Calibration(spec, plain_table(*draws[0])).threshold(0, 0, ALPHA)
    assert row.inner.rank == row.outer.rank == confident_rank(200, level, sure)


@pytest.mark.validity
def test_scores_chosen_on_other_cases_keep_the_promise():
    """Of 20 scores the one with the lowest threshold on 19 learning cases. Control: chosen on the 19 that calibrate."""
    rng = np.random.default_rng(20260221)
    good = poor = 0
    for _ in range(MANY):
        scores = rng.normal(size=(20, 39))
        learn, calibrate, new = scores[:, :19], scores[:, 19:38], scores[:, 38]
        thresholds = np.array([conformal_quantile(row, ALPHA) for row in calibrate])
        chosen = int(np.argmin([conformal_quantile(row, ALPHA) for row in learn]))
        good += new[chosen] <= thresholds[chosen]
        poor += new[int(thresholds.argmin())] <= thresholds.min()
    assert good >= MANY_AT_LEAST
    assert poor < MANY_AT_LEAST


@pytest.mark.validity
def test_all_cases_of_a_patient_in_a_stratum_are_covered_by_its_threshold():
    """Patients with small and large lesions, large ones harder. Control: thresholds of cases within the stratum."""
    rng = np.random.default_rng(20260222)
    spec = spec_of(unit="max", strata=("small", "large"), mondrian="volume:1")
    held = asked = naive = 0
    for _ in range(MANY):
        which, scores = patients(rng, 41)
        large = (rng.random(which.size) < 0.5).astype(int)
        scores = scores * (1 + large)
        old = which < 40
        new = scores[~old & (large == 1)]
        if not new.size:
            continue
        table = plain_table(scores[old], scores[old], groups=which[old], stratum=large[old])
        asked += 1
        held += new.max() <= Calibration(spec, table).threshold(0, 1, ALPHA).inner.value
        naive += new.max() <= conformal_quantile(scores[old & (large == 1)], ALPHA)
    allowed = binom.ppf(0.001, asked, 0.9)
    assert held >= allowed
    assert naive < allowed


@pytest.mark.validity
def test_a_case_like_the_others_is_called_atypical_at_most_one_time_in_twenty():
    """39 + 1 cases of five correlated features. Control: p without the + 1 calls more of them so."""
    rng = np.random.default_rng(20260223)
    mixing = rng.normal(size=(5, 5)) * 0.5 + np.eye(5)
    rung = loose = 0
    for _ in range(MANY):
        cases = streams(rng, mixing, 40)
        p, _ = outlier(cases[:-1], cases[-1])
        rung += p <= ATYPICAL
        loose += p - 1 / 40 <= ATYPICAL
    most = binom.ppf(0.999, MANY, ATYPICAL)
    assert rung <= most
    assert loose > most


@pytest.mark.validity
def test_a_batch_like_calibration_seldom_has_a_small_p_in_any_feature():
    """80 and 40 cases, five correlated features, at .05. Control: the smallest p without the correction."""
    rng = np.random.default_rng(20260224)
    mixing = rng.normal(size=(5, 5)) * 0.5 + np.eye(5)
    rung = loose = 0
    for _ in range(500):
        smallest = batch_p_values(streams(rng, mixing, 80), streams(rng, mixing, 40)).min()
        rung += smallest <= 0.05
        loose += smallest / 5 <= 0.05
    most = binom.ppf(0.999, 500, 0.05)
    assert rung <= most
    assert loose > most


def patients(rng, count=31):
    """(patient of each case, score of each case), 1 to 6 correlated cases each."""
    which = np.repeat(np.arange(count), rng.integers(1, 7, count))
    return which, rng.normal(size=count)[which] + 0.5 * rng.standard_normal(which.size)


@pytest.mark.validity
def test_patients_are_covered_whole_by_the_maximum_and_case_by_case_by_hcp():
    """Control: ranking cases as if they were units, asked about all cases of a new patient, covers about .81."""
    rng = np.random.default_rng(20260205)
    whole = random = naive = 0
    for _ in range(MANY):
        which, scores = patients(rng)
        old, new = which < 30, scores[which == 30]
        groups = which[old].astype(str).astype(object)
        by_max = unit_scores(scores[old], groups, None, "max").threshold(ALPHA).value
        whole += new.max() <= by_max
        random += rng.choice(new) <= hierarchical_quantile(scores[old], which[old], ALPHA)
        naive += new.max() <= conformal_quantile(scores[old], ALPHA)
    assert whole >= MANY_AT_LEAST
    assert random >= MANY_AT_LEAST
    assert naive < MANY_AT_LEAST


@pytest.mark.validity
def test_present_units_are_covered_if_they_are_ranked_among_themselves():
    """40 % of the cases have no target. Control: with all cases ranked, those with a target are covered too rarely."""
    rng = np.random.default_rng(20260206)
    good = poor = 0
    for _ in range(MANY):
        present = rng.random(50) > 0.4
        gamma = np.where(present, rng.normal(size=50), -math.inf)
        new = rng.normal()
        groups = np.arange(50).astype(str).astype(object)
        good += new <= unit_scores(gamma, groups, present, "case").threshold(ALPHA).value
        poor += new <= unit_scores(gamma, groups, None, "case").threshold(ALPHA).value
    assert good >= MANY_AT_LEAST
    assert poor < MANY_AT_LEAST


@pytest.mark.validity
def test_under_hcp_a_random_one_of_the_cases_with_the_target_is_covered():
    """Of five scans a hard patient has the target in all, an easy one in one. Control: a random scan that happens to
    show the target is a hard patient's most of the time; that is covered too rarely, and is not what is promised."""
    rng = np.random.default_rng(20260216)
    promised = given_present = asked = 0
    for _ in range(MANY):
        hard = rng.random(41) < 0.3
        present = np.where(hard[:, None], True, np.arange(5) == 0)
        gamma = rng.normal(size=(41, 1)) + 2.0 * hard[:, None] + 0.5 * rng.standard_normal((41, 5))
        groups = np.repeat(np.arange(40), 5).astype(str).astype(object)
        limit = unit_scores(gamma[:40].reshape(-1), groups, present[:40].reshape(-1), "hcp").threshold(ALPHA).value
        promised += gamma[40, rng.choice(np.flatnonzero(present[40]))] <= limit
        case = rng.integers(5)
        if present[40, case]:
            asked += 1
            given_present += gamma[40, case] <= limit
    assert promised >= MANY_AT_LEAST
    assert given_present / asked < MANY_AT_LEAST / MANY


@pytest.mark.validity
def test_each_stratum_is_covered_by_its_own_threshold():
    """A third of the cases is hard. Control: the pooled threshold covers about .76 of them."""
    rng = np.random.default_rng(20260207)
    own = pooled = 0
    spec = spec_of(strata=("easy", "hard"), mondrian="site")
    for _ in range(MANY):
        hard = (rng.random(90) < 0.3).astype(int)
        tau = np.abs(rng.normal(size=90)) * (1 + 0.8 * hard)
        table = plain_table(tau, tau, stratum=hard)
        new = abs(rng.normal()) * 1.8
        own += new <= Calibration(spec, table).threshold(0, 1, ALPHA).inner.value
        pooled += new <= conformal_quantile(tau, ALPHA)
    assert own >= MANY_AT_LEAST
    assert pooled < MANY_AT_LEAST


@pytest.mark.validity
def test_true_density_ratios_keep_coverage_under_a_shift():
    """N(0, 1) to N(.7, 1); harder where x is large. Control: without weights about .857."""
    rng = np.random.default_rng(20260208)
    good = poor = 0
    for _ in range(MANY):
        x, new = rng.normal(size=200), rng.normal() + 0.7
        scores = np.abs(rng.normal(size=200)) * (1 + 0.8 * (x > 0))
        score = abs(rng.normal()) * (1 + 0.8 * (new > 0))
        good += score <= weighted_quantile(scores, np.exp(0.7 * x), math.exp(0.7 * new), ALPHA)
        poor += score <= conformal_quantile(scores, ALPHA)
    assert good >= MANY_AT_LEAST
    assert poor < MANY_AT_LEAST


@pytest.mark.validity
def test_confidence_holds_over_calibration_sets():
    """n = 100 uniform scores: a threshold's own coverage is itself. Exact .942. Control: the plain rank, about .549."""
    draws = np.sort(np.random.default_rng(20260209).uniform(size=(MANY, 100)), axis=1)
    share = (draws[:, confident_rank(100, ALPHA, 0.9) - 1] >= 0.9).sum()
    assert share >= MANY_AT_LEAST
    plain = (draws[:, conformal_rank(100, ALPHA) - 1] >= 0.9).sum()
    assert plain < MANY_AT_LEAST


@pytest.mark.validity
def test_resplits_follow_the_beta_binomial_law():
    """1000 resplits of 349 untied scores; randomised PIT, Kolmogorov-Smirnov, false alarm .001. Control: rank k - 2."""
    rng = np.random.default_rng(20260210)
    k = conformal_rank(149, ALPHA)

    def p_value(coverages, rank):
        law, counts = betabinom(200, rank, 150 - rank), np.rint(coverages * 200)
        pit = law.cdf(counts - 1) + rng.random(counts.size) * law.pmf(counts)
        return kstest(pit, "uniform").pvalue

    coverages = resplit_coverages(rng.normal(size=349), 149, (ALPHA,), 1000, seed=1)[:, 0]
    assert p_value(coverages, k) > 0.001
    assert coverages.mean() == pytest.approx(0.9, abs=3.1 * 0.0323 / math.sqrt(1000))
    assert p_value(coverages, k - 2) < 0.001


def streams(rng, mixing, count):
    return rng.standard_normal((count, 5)) @ mixing


@pytest.mark.validity
@pytest.mark.parametrize(("count", "most", "least"), [(200, 21, 20), pytest.param(500, 41, 60, marks=pytest.mark.slow)])
def test_exchangeable_streams_ring_rarely(count, most, least):
    """Streams of 80 + 300 scans, five correlated features: one in twenty rings, so 500 at most 41 times and 200 at most
    21 (false alarms: .001). Control: p-values against the fixed calibration set, one feature at the level 20, ring in
    about a quarter of the streams."""
    rng = np.random.default_rng(20260211)
    mixing = rng.normal(size=(5, 5)) * 0.5 + np.eye(5)
    alarms = fixed = 0
    for _ in range(count):
        calibration, new = streams(rng, mixing, 80), streams(rng, mixing, 300)
        alarms += stream_test(stream_p_values(calibration, new, rng.random(new.shape))).alarm
        one = calibration[:, :1]
        p = ((one[None, :, 0] > new[:, :1]).sum(axis=1) + rng.random(300)) / 81
        fixed += stream_test(p[:, None]).alarm
    assert alarms <= most
    assert fixed > least


@pytest.mark.validity
def test_a_shift_is_noticed():
    rng = np.random.default_rng(20260212)
    calibration, new = rng.normal(size=(80, 5)), rng.normal(loc=(0, 0, 1.2, 0, 0), size=(120, 5))
    found = stream_test(stream_p_values(calibration, new, rng.random(new.shape)))
    assert found.first_alarm.nonzero()[0].tolist() == [2]


@pytest.mark.validity
def test_risk_control_bounds_the_mean_and_holds_few_whole_masks():
    """crc at alpha .1 on images, 60 draws of 59 + 10: mean missed fraction within 3.1 standard errors of alpha."""
    logits, truth = draw_images(np.random.default_rng(20260213), 60 * 69)
    curves, fractions, whole = [], [], 0
    for z, y in zip(logits, truth, strict=True):
        curves.append(missed_units(missed_below(z[y].astype(np.float64)), int(y.sum())))
    for draw in range(60):
        mine = range(draw * 69, draw * 69 + 59)
        threshold = grid_threshold(np.sum([curves[i] for i in mine], axis=0), 59, crc_budget(59, ALPHA))
        for index in range(draw * 69 + 59, draw * 69 + 69):
            inside = logits[index][truth[index]]
            fractions.append(float((inside < threshold).mean()) if inside.size else 0.0)
            whole += fractions[-1] == 0.0
    fractions = np.array(fractions)
    by_draw = fractions.reshape(60, 10).mean(axis=1)
    assert fractions.mean() <= ALPHA + 3.1 * by_draw.std(ddof=1) / math.sqrt(60)
    assert whole / fractions.size < 0.75
    assert UNITS == 2**40
