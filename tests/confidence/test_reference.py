"""Reference numbers: scores, maps, thresholds, sets, joint rules, learning, p-values, risk control, drift."""

from __future__ import annotations

import math
from dataclasses import replace

import numpy as np
import pytest

from segcal_cli.confidence.drift import stream_p_values, stream_test
from segcal_cli.confidence.features import soft_features
from segcal_cli.confidence.learning import Candidates, Learning, standard_of
from segcal_cli.confidence.log_odds import probability
from segcal_cli.confidence.maps import SIDES, score_map
from segcal_cli.confidence.risk_control import (
    crc_budget,
    grid_threshold,
    hoeffding_budget,
    missed_below,
    missed_units,
    rcps_budget,
)
from segcal_cli.confidence.scan import scan
from segcal_cli.confidence.scores import parse_score
from segcal_cli.confidence.scoring import case_scores, inner_score, outer_score
from segcal_cli.confidence.sets import case_sets, p_value_counts
from segcal_cli.confidence.thresholds import Calibration, raised
from segcal_cli.confidence.views import views
from segcal_cli.core.conformal import conformal_rank
from segcal_cli.metrics.coverage import (
    clopper_pearson,
    confident_rank,
    effective_sample_size,
    hierarchical_quantile,
    probability_of_at_most,
    weighted_quantile,
)
from tests.confidence.builders_synth2d import (
    CALIBRATION,
    LEARN,
    TARGETS,
    TEST,
    expected,
    fixture,
    image,
    number,
    reference_table,
    rules,
    spec_of,
    synth2d,
)

SCORES = [
    ("log-odds", "euclidean"),
    ("smooth:1.5", "euclidean"),
    ("distance", "euclidean"),
    ("distance", "taxicab"),
    ("distance", "chessboard"),
    ("smooth-distance:1.5", "euclidean"),
    ("boxes", "euclidean"),
    ("hybrid:0.5", "euclidean"),
]


def file_key(name, metric="euclidean"):
    return name.replace(":", "_") + ("" if metric == "euclidean" else f"_{metric}")


def json_key(name, metric="euclidean"):
    return name + ("" if metric == "euclidean" else f":{metric}")


def tolerance(name):
    """Voxels that a count may be off: smoothing rounds differently."""
    return 2 if "smooth" in name else 0


def sets_of(index, spec, row):
    view = views(image(index), TARGETS)[0]
    return case_sets(view, spec, 0, row.inner.value, row.outer.value), view


def counts_of(spec, row, which=TEST):
    found = {"inner": 0, "outer": 0, "covered_inner": 0, "covered_outer": 0, "joint": 0, "present": 0, "wrong": 0}
    for index in which:
        sets, view = sets_of(index, spec, row)
        inner, outer = not (sets.inner & ~view.truth).any(), not (view.truth & ~sets.outer).any()
        found["inner"] += int(sets.inner.sum())
        found["outer"] += int(sets.outer.sum())
        found["covered_inner"] += inner
        found["covered_outer"] += outer
        found["joint"] += inner and outer
        found["present"] += bool(outer and view.truth.any())
        found["wrong"] += sets.contradiction > 0
    return found


def check_counts(found, reference, slack=0):
    for mine, theirs in (
        ("inner", "inner_voxels"),
        ("outer", "outer_voxels"),
        ("covered_inner", "covered_inner"),
        ("covered_outer", "covered_outer"),
        ("joint", "covered_joint"),
        ("present", "covered_outer_present"),
        ("wrong", "contradictions"),
    ):
        assert abs(found[mine] - reference[theirs]) <= slack, mine


def test_the_images_are_those_of_the_reference():
    logits, labels, _ = synth2d()
    counts = expected()["counts"]
    assert (len(logits), int((~labels.reshape(409, -1).any(axis=1)).sum())) == (counts["cases"], counts["empty_truth"])
    assert int((~(logits > 0).reshape(409, -1).any(axis=1)).sum()) == counts["empty_prediction"]
    tau = [float(logits[i][~labels[i]].max(initial=-np.inf)) for i in range(409)]
    assert np.array_equal(tau, fixture("scores2d")["tau_log-odds"])


@pytest.mark.parametrize(("name", "metric"), SCORES)
def test_tau_and_gamma_of_every_score(name, metric):
    score, scores = parse_score(name), fixture("scores2d")
    pairs = []
    for index in range(0, 409, 2):
        made = views(image(index), TARGETS)
        pairs.append(case_scores(made[0], score, score, rules(metric), scan(made)[0]))
    key = file_key(name, metric)
    for found, reference in zip(np.array(pairs).T, (scores[f"tau_{key}"], scores[f"gamma_{key}"]), strict=True):
        finite = np.isfinite(reference[::2])
        assert np.array_equal(found[~finite], reference[::2][~finite])
        assert np.allclose(found[finite], reference[::2][finite], rtol=1e-12, atol=0)


@pytest.mark.parametrize("name", ["distance", "boxes"])
@pytest.mark.parametrize("empty", ["full", "peak"])
def test_gamma_under_other_rules_for_empty_predictions(name, empty):
    score, reference = parse_score(name), fixture("scores2d")[f"gamma_{name}_{empty}"]
    logits, _, _ = synth2d()
    unseen = np.flatnonzero(~(logits > 0).reshape(409, -1).any(axis=1))
    found = [outer_score(views(image(int(i)), TARGETS)[0], score, rules(empty=empty)) for i in unseen]
    assert np.allclose(found, reference[unseen], rtol=1e-12)


@pytest.mark.parametrize(("name", "metric"), SCORES)
def test_score_maps_voxel_by_voxel(name, metric):
    maps, key = fixture("transforms2d"), file_key(name, metric)
    for place, index in enumerate(maps["images"]):
        view = views(image(int(index)), TARGETS)[0]
        for side in SIDES:
            reference = maps.get(f"{side}_{key}", maps[f"inner_{key}"])[place]
            found = score_map(view, parse_score(name), side, rules(metric).maps).values[0]
            assert np.allclose(found, reference, rtol=0, atol=1e-9)


@pytest.mark.parametrize("alpha", ["0.01", "0.02", "0.05", "0.08", "0.1", "0.18", "0.2", "0.3"])
def test_ranks(alpha):
    for n, ranks in expected()["rank"].items():
        assert conformal_rank(int(n), float(alpha)) == ranks[alpha]
    for confidence in ("0.9", "0.95"):
        for n, ranks in expected()[f"rank_confidence_{confidence}"].items():
            assert confident_rank(int(n), float(alpha), float(confidence)) == ranks[alpha]


@pytest.mark.parametrize(("name", "metric"), SCORES)
def test_marginal_thresholds_at_every_alpha(name, metric):
    calibration = Calibration(
        spec_of(name, scoring=rules(metric)), reference_table(file_key(name, metric), CALIBRATION)
    )
    for alpha, row in expected()["marginal_all_cases"][json_key(name, metric)].items():
        found = calibration.threshold(0, 0, float(alpha))
        assert found.inner.value == pytest.approx(number(row["lambda_inner"]), rel=1e-12)
        assert found.outer.value == pytest.approx(number(row["lambda_outer"]), rel=1e-12)


@pytest.mark.parametrize(("name", "metric"), SCORES)
def test_marginal_sets_at_alpha_a_tenth(name, metric):
    spec = spec_of(name, scoring=rules(metric))
    row = Calibration(spec, reference_table(file_key(name, metric), CALIBRATION)).threshold(0, 0, 0.1)
    reference = expected()["marginal_all_cases"][json_key(name, metric)]["0.1"]
    check_counts(counts_of(spec, row), reference, tolerance(name))


def test_probabilities_of_log_odds_thresholds_are_those_of_the_sigmoid_score():
    row = Calibration(spec_of("sigmoid"), reference_table("log-odds", CALIBRATION)).threshold(0, 0, 0.1)
    reference = expected()["marginal_all_cases"]["sigmoid"]["0.1"]
    assert probability(row.inner.value) == pytest.approx(reference["lambda_inner"], rel=1e-12)
    assert -probability(-row.outer.value) == pytest.approx(reference["lambda_outer"], rel=1e-9)


@pytest.mark.parametrize("name", ["log-odds", "distance"])
def test_gamma_is_ranked_over_images_with_truth(name):
    calibration = Calibration(spec_of(name, present_only=True), reference_table(name, CALIBRATION))
    for alpha, row in expected()["marginal_present_only"][name].items():
        found = calibration.threshold(0, 0, float(alpha))
        assert (found.inner.value, found.outer.value) == (number(row["lambda_inner"]), number(row["lambda_outer"]))
        assert found.outer.n == 145


@pytest.mark.parametrize("key", ["distance full", "distance peak", "boxes full", "boxes peak"])
def test_rules_for_empty_predictions(key):
    name, empty = key.split()
    spec = spec_of(name, scoring=rules(empty=empty))
    calibration = Calibration(spec, reference_table(name, CALIBRATION, gamma=f"{name}_{empty}"))
    for alpha, row in expected()["empty_prediction_rules"][key].items():
        assert calibration.threshold(0, 0, float(alpha)).outer.value == number(row["lambda_outer"])
    check_counts(counts_of(spec, calibration.threshold(0, 0, 0.05)), expected()["empty_prediction_rules"][key]["0.05"])


def test_too_many_complete_misses_make_the_outer_threshold_infinite():
    for empty, value in (("empty", math.inf), ("peak", 7.0), ("full", pytest.approx(5.385165, abs=1e-6))):
        gamma = "distance" if empty == "empty" else f"distance_{empty}"
        table = reference_table("distance", CALIBRATION, gamma=gamma)
        found = Calibration(spec_of(present_only=True), table).threshold(0, 0, 0.05).outer
        assert (found.value, found.reason) == (value, "complete misses" if empty == "empty" else "")


@pytest.mark.parametrize("key", list(expected()["joint_alpha_0.1_all_cases"]))
def test_joint_sets(key):
    scores, _, rule = key.partition(", ")
    inner, outer = scores.split(" + ")
    learned = reference_table(inner, LEARN, gamma=outer)
    table = reference_table(inner, CALIBRATION, gamma=outer)
    options = {"joint": "max"}
    if rule.startswith("split"):
        parts = [float(part) for part in rule.split()[1].split(",")]
        options = {"joint": "split", "share": parts[0] / 0.1}
    elif rule == "max standardised":
        options["standard"] = standard_of("lesion", learned.tau[:, 0], learned.gamma[:, 0])
    spec = spec_of(inner, outer, **options)
    row = Calibration(spec, table).threshold(0, 0, 0.1)
    reference = expected()["joint_alpha_0.1_all_cases"][key]
    assert row.inner.value == pytest.approx(number(reference["lambda_inner"]), rel=1e-12)
    assert row.outer.value == pytest.approx(number(reference["lambda_outer"]), rel=1e-12)
    check_counts(counts_of(spec, row), reference)


@pytest.mark.parametrize("name", ["log-odds", "distance"])
def test_confidence(name):
    reference = expected()["confidence_0.9_alpha_0.1"][name]
    row = Calibration(spec_of(name, confidence=0.9), reference_table(name, CALIBRATION)).threshold(0, 0, 0.1)
    assert (row.inner.rank, row.inner.value) == (reference["rank"], number(reference["lambda_inner"]))
    assert row.outer.value == number(reference["lambda_outer"])


def test_box_truth():
    scoring = rules(box_truth=True)
    box = parse_score("boxes")
    pairs = [case_scores(views(image(i), TARGETS)[0], box, box, scoring) for i in CALIBRATION]
    k = conformal_rank(149, 0.1) - 1
    tau, gamma = (np.sort(side)[k] for side in np.array(pairs).T)
    assert (tau, gamma) == (expected()["box_truth_alpha_0.1"]["lambda_inner"], 5.0)


@pytest.mark.parametrize("key", list(expected()["coverage_ratio_alpha_0.1"]))
def test_ratios(key):
    name, side, ratio = key.split()
    name, _, metric = name.partition(":")
    scoring = rules(metric or "euclidean", **{"coverage_ratio" if side == "outer" else "inner_ratio": float(ratio)})
    one = outer_score if side == "outer" else inner_score
    scores = [one(views(image(i), TARGETS)[0], parse_score(name), scoring) for i in CALIBRATION]
    found = np.sort(scores)[conformal_rank(149, 0.1) - 1]
    reference = expected()["coverage_ratio_alpha_0.1"][key]
    assert found == pytest.approx(reference[f"lambda_{side}"], rel=1e-12)
    held = [one(views(image(i), TARGETS)[0], parse_score(name), scoring) <= raised(found) for i in TEST]
    assert sum(held) == reference["covered"]


@pytest.mark.parametrize("name", ["log-odds", "distance"])
def test_strata(name):
    _, _, site = synth2d()
    spec = spec_of(name, strata=("0", "1"), mondrian="site")
    calibration = Calibration(spec, reference_table(name, CALIBRATION, stratum=site[list(CALIBRATION)]))
    for stratum in (0, 1):
        reference = expected()["mondrian_site_alpha_0.1_all_cases"][f"{name} site {stratum}"]
        row = calibration.threshold(0, stratum, 0.1)
        assert (row.inner.n, row.stratum) == (reference["n"], str(stratum))
        assert row.inner.value == number(reference["lambda_inner"])
        assert row.outer.value == number(reference["lambda_outer"])
        check_counts(counts_of(spec, row, [i for i in TEST if site[i] == stratum]), reference)
    assert calibration.threshold(0, -1, 0.1).inner.value == math.inf


@pytest.mark.parametrize("index", [209, 210, 211])
def test_p_value_counts(index):
    reference = expected()["p_value_counts"][str(index)]
    view = views(image(index), TARGETS)[0]
    inner_spec, outer_spec = spec_of("log-odds"), spec_of("distance")
    found = []
    for spec, side, name in ((inner_spec, "inner", "log-odds"), (outer_spec, "outer", "distance")):
        ranked = Calibration(spec, reference_table(name, CALIBRATION)).ranked(0, side)
        mapped = score_map(view, spec.targets[0].score(side), side, spec.rules.maps)
        found.append(p_value_counts(view, mapped, side, ranked))
    inner, outer = found
    assert (inner.sum(), inner.min()) == (reference["inner_log-odds_sum"], reference["inner_log-odds_min"])
    assert (outer.sum(), outer.max()) == (reference["outer_distance_sum"], reference["outer_distance_max"])
    assert (inner <= 15).sum() == reference["inner_voxels_at_alpha_0.1"]
    assert (outer > 15).sum() == reference["outer_voxels_at_alpha_0.1"]


@pytest.mark.parametrize("alpha", ["0.01", "0.05", "0.1"])
def test_risk_control(alpha):
    reference, a = expected()["risk_control_missed_fraction"][alpha], float(alpha)
    logits, labels, _ = synth2d()
    curve = sum(
        missed_units(missed_below(logits[i][labels[i]].astype(float)), int(labels[i].sum())) for i in CALIBRATION
    )
    assert crc_budget(149, a) == pytest.approx(reference["crc_budget"], abs=1e-12)
    found = grid_threshold(curve, 149, crc_budget(149, a))
    exact = number(reference["crc_lambda_log_odds"])
    assert exact - 1 / 128 <= found <= exact
    budget = rcps_budget(149, a)
    assert budget == pytest.approx(reference["rcps_hoeffding_bentkus_budget_delta_0.1"], abs=1e-9)
    bentkus = number(reference["rcps_hoeffding_bentkus_lambda_log_odds"])
    found_bentkus = grid_threshold(curve, 149, budget)
    assert found_bentkus == bentkus or bentkus - 1 / 128 <= found_bentkus <= bentkus
    assert hoeffding_budget(149, a) == pytest.approx(reference["rcps_hoeffding_budget_delta_0.1"], abs=1e-12)


def test_a_step_below_the_exact_risk_threshold_holds_few_whole_masks():
    """At the exact threshold the mean promise holds, and 102 of 200 masks are held whole."""
    reference = expected()["risk_control_missed_fraction"]["0.1"]
    logits, labels, _ = synth2d()
    fractions = [
        float((logits[i][labels[i]] < reference["crc_lambda_log_odds"]).mean()) if labels[i].any() else 0.0
        for i in TEST
    ]
    assert np.mean(fractions) == pytest.approx(reference["test_mean_missed_fraction"], abs=1e-12)
    assert sum(f == 0 for f in fractions) == reference["test_fully_covered"] == 102


@pytest.mark.parametrize("alpha", [0.1, 0.2])
def test_the_choice_of_scores_and_split_on_learning_images(alpha):
    candidates = Candidates(
        tuple(map(parse_score, ("distance", "log-odds", "smooth:1.5", "boxes"))),
        tuple(map(parse_score, ("distance", "smooth-distance:1.5", "boxes", "log-odds", "hybrid:0.5"))),
    )
    first = Learning(replace(spec_of(joint="split"), alpha=alpha, present_only=True), candidates)
    state = first.empty()
    for index in LEARN:
        state = first.merge(state, first.update(first.empty(), image(index)))
    second = first.finish(state)
    sizes = second.empty()
    for index in LEARN:
        sizes = second.merge(sizes, second.update(second.empty(), image(index)))
    learned = second.finish(sizes)
    reference = expected()[f"learning_choice_alpha_{alpha}"]
    assert len(learned.tables[0]) == len(reference["rows"])
    for found, row in zip(learned.tables[0], reference["rows"], strict=True):
        assert (str(found.inner), str(found.outer), found.share, found.cases) == (
            row["inner"], row["outer"], row["share_inner"], row["n"],
        )  # fmt: skip
        assert found.margin == pytest.approx(row["median_margin"], abs=0.02 if "smooth" in str(found) else 1e-9)
    chosen = reference["chosen"]
    entry = learned.targets[0]
    assert (str(entry.inner), str(entry.outer), entry.share_inner) == (
        chosen["inner"], chosen["outer"], chosen["share_inner"],
    )  # fmt: skip


@pytest.mark.parametrize("name", ["log-odds", "distance", "smooth:1.5"])
def test_what_observed_coverage_says(name):
    for reference in expected()["evaluate_alpha_0.1"][name].values():
        low, high = clopper_pearson(reference["covered"], reference["m"])
        assert (low, high) == pytest.approx(reference["clopper_pearson_95"], abs=1e-9)
        p = probability_of_at_most(reference["covered"], reference["m"], reference["n"], reference["rank"])
        assert p == pytest.approx(reference["p_at_most"], abs=1e-9)


def test_features():
    for index, row in enumerate(expected()["features"]["first_8_cases"]):
        made = views(image(index), TARGETS)
        assert np.allclose(soft_features(made[0], scan(made)[0].bands), row, rtol=1e-9)


@pytest.mark.parametrize("alpha", ["0.05", "0.1", "0.2"])
def test_patients(alpha):
    scores, reference = fixture("scores1d"), expected()["patients"][alpha]
    assert hierarchical_quantile(scores["score"], scores["patient"], float(alpha)) == reference["hcp"]
    for unit in ("hcp", "max"):
        table = reference_patients()
        assert Calibration(spec_of(unit=unit), table).threshold(0, 0, float(alpha)).inner.value == reference[unit]


def reference_patients():
    from tests.confidence.builders_synth2d import plain_table

    scores = fixture("scores1d")
    return plain_table(scores["score"], scores["score"], groups=scores["patient"])


def test_weights():
    scores, reference = fixture("scores1d"), expected()["weighted_alpha_0.1"]
    for weight, value in reference["lambda_by_test_weight"].items():
        assert weighted_quantile(scores["w_score"], scores["w"], float(weight), 0.1) == number(value)
    assert effective_sample_size(scores["w"]) == pytest.approx(reference["effective_sample_size"], rel=1e-12)


@pytest.mark.parametrize("which", ["same", "shifted"])
def test_the_stream_test(which):
    data, reference = fixture("drift"), expected()["drift"][which]
    found = stream_test(stream_p_values(data["calibration"], data[which], data[f"u_{which}"]))
    assert np.allclose(found.capital[-1], reference["final_by_feature"], rtol=1e-9)
    assert np.allclose(found.capital.max(axis=0), reference["max_by_feature"], rtol=1e-9)
    assert np.allclose(found.capital[[9, 19, 29], 3], reference["feature_3_after_10_20_30"], rtol=1e-9)
    assert found.threshold == 100
    rang = found.first_alarm[found.first_alarm > 0]
    assert (int(rang.min()) if rang.size else None) == reference["first_alarm_at_100"]
