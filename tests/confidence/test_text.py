"""The guarantee: every wording."""

import math
from dataclasses import replace

import numpy as np
import pytest

from segcal_cli.confidence.cautions import NoTargetPresent, cautions, refuse_absent
from segcal_cli.confidence.scores import parse_score
from segcal_cli.confidence.text import guarantee, threshold_text
from segcal_cli.confidence.thresholds import Calibration
from tests.confidence.builders_synth2d import of_two_targets, plain_table, rules, spec_of

N = 149


def sentence(spec=None, table=None, alpha=0.1, **more):
    made = Calibration(spec or spec_of(joint="split", present_only=True), table or plain_table(*scores()))
    return guarantee(made, alpha, **{"roi": False, "ignored": False, **more})


def scores(n=N):
    rng = np.random.default_rng(0)
    return rng.normal(size=n), rng.normal(size=n)


def test_the_joint_statement_of_a_split():
    spec = spec_of(joint="split", share=0.2, present_only=True)
    assert sentence(spec) == (
        "For a new case exchangeable with the 149 calibration cases, with probability at least 90 %: no voxel of the "
        "inner set is outside the lesion (98 %), and, if there is any lesion, all of it is in the outer set (92 %). "
        "This holds on average over cases, not for each kind of case. This artifact's own coverage lies in 95.8–99.4 % "
        "(inner) and 88.1–95.3 % (outer) with probability 90 % each."
    )


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"unit": "max"}, "For a new patient (all its cases at once) exchangeable with the 149 calibration patients"),
        ({"unit": "hcp"}, "For a random case of a new patient exchangeable with the 149 calibration patients"),
        ({"joint": "none"}, "each of these holds with the probability beside it, none of them jointly"),
        (
            {"joint": "max"},
            "no voxel of the inner set is outside the lesion, and all of the lesion is in the outer set",
        ),
        ({"present_only": False}, "all of the lesion is in the outer set (95 %)"),
        ({"scoring": rules(coverage_ratio=0.9)}, "at least 90 % of it is in the outer set"),
        ({"scoring": rules(inner_ratio=0.9)}, "number at most 10 % of the predicted mask"),
        ({"scoring": rules(box_truth=True)}, "outside the largest boxes inside the lesion"),
        ({"scoring": rules(box_truth=True)}, "all bounding boxes of its parts are in the outer set"),
        ({"confidence": 0.9}, "given these calibration cases (with confidence 90 % in having drawn typical ones)"),
        (
            {"confidence": 0.9, "joint": "none"},
            "(with confidence 90 % for each of the statements in having drawn typical ones), each of these holds with "
            "the probability beside it, none of them jointly",
        ),
        (
            {"confidence": 0.9, "strata": ("a", "b")},
            "within each of the strata a, b, and given these calibration cases (with confidence 90 % for each of the "
            "statements in having drawn typical ones), with probability at least 90 %",
        ),
        ({"unit": "max", "strata": ("a", "b")}, "For a new patient (all its cases of one stratum at once)"),
        ({"unit": "hcp", "strata": ("a", "b")}, "For a random case of one stratum of a new patient"),
        (
            {"unit": "hcp"},
            "if there is any lesion, then for a random one of the patient's cases with lesion all of it is in the "
            "outer set (95 %)",
        ),
        ({"unit": "hcp", "present_only": False}, "all of the lesion is in the outer set (95 %)"),
        ({"strata": ("a", "b")}, "within each of the strata a, b, with probability at least 90 %"),
    ],
)
def test_each_option_changes_the_wording(changes, said):
    table = plain_table(*scores(), stratum=np.arange(N) % 2 if "strata" in changes else None)
    assert said in sentence(spec_of(**{"joint": "split", "present_only": True, **changes}), table)


def test_weights_are_named_as_given_or_estimated():
    assert "at least 90 % if the given weights are the true density ratios" in sentence(weights="given")
    assert "at least 90 % approximately, since the weights are estimated" in sentence(weights="estimated")


def test_weights_leave_no_range_and_no_reason_of_the_unweighted_thresholds():
    """Each case has thresholds of its own, so the law of the rank among equal units holds for none of them."""
    said = sentence(table=plain_table(*scores(15)), weights="given")
    assert said.endswith("the inner set is empty or the outer set everything.")
    assert "own coverage" not in said
    assert "would do" not in said


def test_nothing_is_promised_after_an_overlap_with_the_calibrator():
    assert sentence(overlapped=True).startswith("No guarantee: some calibration cases had been used to fit")


def test_regions_and_ignored_voxels_limit_the_statement():
    assert sentence(roi=True, ignored=True).endswith(
        " The sets lie in the region of interest, and what is target outside of it counts as missed; only the outer "
        "set of a threshold of +inf is the whole scan. All of this outside the ignored voxels."
    )


def test_one_case_is_no_plural():
    said = sentence(table=plain_table(*scores(1)))
    assert said.startswith("For a new case exchangeable with the 1 calibration case, ")
    assert "lesion: 1 case cannot give alpha_inner" in said
    assert "lesion: 1 case with lesion cannot give alpha_outer" in said


def test_a_vacuous_side_says_what_its_set_is_and_what_would_do():
    said = sentence(table=plain_table(*scores(15)), alpha=0.1)
    assert (
        "lesion: 15 cases cannot give alpha_inner = 0.05: threshold +inf, the inner set is empty; 19 would do." in said
    )
    assert "15 cases with lesion cannot give alpha_outer = 0.05: threshold +inf, the outer set is everything" in said


def test_complete_misses_come_with_advice():
    gamma = np.r_[np.zeros(30), [math.inf] * 10]
    said = sentence(table=plain_table(np.zeros(40), gamma))
    assert "too many complete misses among 40 cases with lesion" in said
    assert "--empty-prediction peak or full would help" in said


def test_truth_outside_the_region_of_interest_is_a_miss_that_no_rule_for_empty_predictions_helps():
    gamma = np.r_[np.zeros(30), [math.inf] * 10]
    table = replace(
        plain_table(np.zeros(40), gamma),
        missed_outside=np.r_[np.zeros(30, int), np.ones(10, int)][:, None],
        predicted_voxels=np.ones((40, 1), int),
    )
    said = sentence(table=table)
    assert "truth outside the region of interest is missed by any set in it" in said
    assert "--empty-prediction" not in said


def test_targets_are_promised_each_on_its_own():
    spec = spec_of(joint="split", present_only=True)
    table = plain_table(*scores())
    doubled = of_two_targets(table)
    each = sentence(replace(spec, targets=spec.targets * 2), doubled)
    assert "for each target on its own, with probability at least 90 %" in each
    split = sentence(replace(spec, targets=spec.targets * 2, across="split"), doubled)
    assert "with probability at least 90 %: no voxel of the inner set is outside the lesion (97.5 %)" in split


def test_probabilities_stand_beside_thresholds_of_the_sigmoid():
    spec = spec_of("sigmoid")
    assert threshold_text(spec, 0, "inner", 2.0) == "2 log-odds (probability 0.880797)"
    assert threshold_text(spec, 0, "outer", math.inf) == "inf"
    assert str(parse_score("smooth:1.50")) == "smooth:1.5"


def said_of(spec, table, **more):
    return " | ".join(cautions(Calibration(spec, table), 0.1, **{"channels": 1, "precise": True, **more}))


def test_saturated_scores_are_told_with_their_share():
    table = plain_table(np.r_[np.zeros(20), [100.0] * 10], np.zeros(30))
    assert "the inner score of 33.3 % of the cases is a probability of exactly 1" in said_of(
        spec_of("log-odds"), table, precise=False
    )
    assert "lies beyond the log-odds of 100 at which it is cut off, more than alpha" in said_of(
        spec_of("log-odds"), table
    )
    assert said_of(spec_of("distance"), table) == ""


def test_one_saturated_score_that_is_the_threshold_is_told_though_few_cases_have_it():
    """n = 48 at alpha .1: k = 45, so four scores of 100 (8.3 % of the cases) make the threshold."""
    table = plain_table(np.r_[np.zeros(44), [100.0] * 4], np.zeros(48))
    assert "the inner score of 8.33 % of the cases" in said_of(spec_of("log-odds"), table)
    assert "and the threshold is one of them" in said_of(spec_of("log-odds"), table)
    few = plain_table(np.r_[np.zeros(45), [100.0] * 3], np.zeros(48))
    assert said_of(spec_of("log-odds"), few) == ""


def test_steps_are_not_comparable_between_spacings():
    table = replace(plain_table(*scores()), spacing=np.ones((N, 3)) * np.linspace(1, 1.5, N)[:, None])
    assert "steps are not comparable" in said_of(spec_of("boxes"), table)
    assert said_of(spec_of("distance", length="mm"), table) == ""


def test_an_outer_margin_below_the_slice_spacing_does_not_grow_across_slices():
    table = replace(plain_table(np.zeros(N), np.full(N, 2.0)), spacing=np.tile([3.0, 1.0, 1.0], (N, 1)))
    assert "does not grow across slices: its margin of 2 mm is below the slice spacing of 3 mm" in said_of(
        spec_of(length="mm"), table
    )


def test_minus_infinity_means_that_most_cases_have_no_target():
    assert "most calibration cases have no target" in said_of(
        spec_of(), plain_table(np.zeros(N), np.full(N, -math.inf))
    )


def test_identity_of_several_logits_is_warned_about():
    assert "arbitrary offset" in said_of(spec_of("identity"), plain_table(*scores()), channels=3)


def test_a_target_that_no_case_holds_cannot_be_ranked():
    table = plain_table(*scores(), present=np.zeros(N, bool))
    with pytest.raises(NoTargetPresent, match="target lesion is in none of the 149 calibration cases"):
        refuse_absent(Calibration(spec_of(present_only=True), table))
    refuse_absent(Calibration(spec_of(), table))
