"""Regions, settings, alarms, thresholds and sentences, one rule at a time."""

from __future__ import annotations

from types import SimpleNamespace

import numpy as np
import pytest

from segcal_cli.core.labels import Channel, LabelSpace
from segcal_cli.ratio.alarms import alarm_threshold, case_flags, triage_order, wide
from segcal_cli.ratio.blocks import levels_of
from segcal_cli.ratio.comparison import comparisons, method_entry
from segcal_cli.ratio.guarantees import (
    UNDISTURBED,
    Circumstances,
    average_coverage,
    guarantee,
    guaranteed,
    percent,
    rounded_down,
)
from segcal_cli.ratio.intervals import intervals
from segcal_cli.ratio.regions import IgnoredRegion, InexpressibleRegion, SameRegion, UnknownRegion, ratio_of, region_of
from segcal_cli.ratio.settings import BadSetting, Settings, alarm_of
from segcal_cli.ratio.shift import out_of_range
from segcal_cli.ratio.sums import Wanted, case_row
from segcal_cli.ratio.table import RatioTable
from segcal_cli.ratio.thresholds import Calibration, splits_of
from tests.ratio.builders_ratio import REGIONS, TUMOUR, ratio, reference_table, region_case, softmax_case

DISJOINT = LabelSpace((Channel("left", frozenset({1, 2})), Channel("right", frozenset({3}))), "sigmoid")
MERGED = LabelSpace((Channel("rest", frozenset({0, 1})), Channel("core", frozenset({2, 3}))), "softmax", ignore=4)


def constant_width_table(n=30):
    """Cases in the middle of [0, 1] with errors that differ, so that cp has one width in every one."""
    random = np.random.default_rng(0)
    b = random.uniform(900, 1100, n)
    a = b * random.uniform(0.4, 0.6, n)
    columns = {name: np.full(n, 1.0) for name in ("voxel_mm3", "voxels", "A_hard", "B_hard")}
    columns |= {"A": a, "B": b, "A_label": a * random.uniform(0.95, 1.05, n), "B_label": b}
    columns |= dict.fromkeys(("U_A", "U_B", "ece_A", "ece_B", "ece_A_hard", "ece_B_hard"), b / 20)
    columns |= {f"squared_error_{kind}": np.full(n, 1e-4) for kind in ("iid", "block", "hard")}
    ids = tuple(f"c{i:02}" for i in range(n))
    return RatioTable(ids, ids, columns)


# Regions


def test_exclusive_classes_are_summed_and_named_by_name_or_value():
    region = region_of("necrosis, 3", TUMOUR, "--numerator")
    assert (region.values, region.names, region.expression) == (
        (2, 3),
        ("necrosis", "enhancing"),
        "p(necrosis) + p(enhancing)",
    )


def test_a_name_for_several_exclusive_classes_stands_for_their_sum():
    named = LabelSpace(TUMOUR.channels, "softmax", regions=(Channel("WT", frozenset({1, 2, 3})),))
    assert region_of("WT", named, "--denominator").values == (1, 2, 3)


def test_a_region_channel_goes_before_a_difference_and_a_difference_before_a_sum():
    assert region_of("core", REGIONS, "x").expression == "p(core)"
    assert region_of("2", REGIONS, "x").expression == "max(p(core) - p(enhancing), 0)"
    assert region_of("1", REGIONS, "x").expression == "max(p(whole) - p(core), 0)"
    assert region_of("1,2,3", DISJOINT, "x").expression == "p(left) + p(right)"


@pytest.mark.parametrize(
    ("text", "space", "error", "words"),
    [
        ("tumour", TUMOUR, UnknownRegion, "background \\(0\\), edema \\(1\\)"),
        ("9", TUMOUR, UnknownRegion, "possible are any of"),
        ("2", MERGED, InexpressibleRegion, "label values 2 cannot be made"),
        ("4", MERGED, IgnoredRegion, "marks voxels without annotation"),
        ("1", DISJOINT, InexpressibleRegion, "left \\(1,2\\), right \\(3\\)"),
    ],
)
def test_a_set_that_cannot_be_made_is_refused_with_those_that_can(text, space, error, words):
    with pytest.raises(error, match=words):
        region_of(text, space, "--numerator")


@pytest.mark.parametrize("text", ["", "2,", "²", "--2", "2 3", "+2"])
def test_what_looks_like_a_number_and_is_none_is_an_unknown_name(text):
    with pytest.raises(UnknownRegion, match="not a class or label value of this table"):
        region_of(text, TUMOUR, "--numerator")


def test_a_ratio_of_one_set_to_itself_is_refused():
    with pytest.raises(SameRegion, match="the same label values 2,3"):
        ratio_of("core", "2,3", REGIONS)


def test_a_contained_numerator_never_exceeds_its_denominator_and_the_violation_is_kept():
    p = np.full((3, 2, 3, 4), 0.5, np.float32)
    p[1, 0] = 0.7
    inside = ratio_of("core", "whole", REGIONS)
    row = case_row(region_case(p, np.zeros((2, 3, 4), int)), inside, Wanted())
    assert row["A"] == row["B"] == 12.0
    assert row["nesting_violation"] == pytest.approx(12 * 0.2 / 12, rel=1e-6)


def test_hard_regions_are_painted_in_order_and_hard_classes_are_the_first_largest():
    p = np.zeros((3, 1, 2, 2), np.float32)
    p[0] = 0.9
    p[1, 0, 0] = 0.6
    p[2, 0, 0, 0] = 0.6
    row = case_row(region_case(p, np.zeros((1, 2, 2), int)), ratio_of("2", "whole", REGIONS), Wanted())
    assert (row["A_hard"], row["B_hard"]) == (1, 4)
    tie = softmax_case(np.full((4, 1, 1, 2), 0.25, np.float32), None, spacing=None)
    assert case_row(tie, ratio(), Wanted())["B_hard"] == 0


def test_excluded_voxels_are_in_no_sum():
    random = np.random.default_rng(0)
    odds = random.gamma(1.0, size=(4, 4, 5, 6)).astype(np.float32)
    p, label = odds / odds.sum(axis=0), random.integers(0, 4, (4, 5, 6))
    keep = random.random((4, 5, 6)) < 0.6
    whole = softmax_case(p, label, roi=keep)
    alone = softmax_case(p[:, keep][:, None, None], label[keep][None, None])
    a, b = (case_row(case, ratio(), Wanted(labels=True, debiased=True)) for case in (whole, alone))
    for name in ("A", "B", "U_A", "ece_A", "squared_error_iid", "ratio_exact", "ratio_jackknife", "voxels"):
        assert a[name] == pytest.approx(b[name], rel=1e-9)
    ignored = softmax_case(p, np.where(keep, label, 0), ignored=~keep)
    assert case_row(ignored, ratio(), Wanted(labels=True))["A_label"] == a["A_label"]


# Blocks


def test_boxes_follow_the_finest_axis_and_are_made_of_finer_ones_where_these_fill_them():
    levels = levels_of((9, 8, 10), (1.5, 1.0, 2.0))
    assert [level.edges for level in levels[:3]] == [(1, 2, 1), (3, 4, 2), (5, 8, 4)]
    assert [level.parent for level in levels[:3]] == [None, 0, 0]


# Settings


def test_settings_that_mean_nothing_are_refused_and_settings_as_published_are_not():
    Settings("care", 0.68, quantile="plain", ce_unit="mean").check(contained=True)
    for bad in (
        Settings("nested", quantile="mean"),
        Settings("care", estimation="none", tail="fieller"),
        Settings("care", quantile="plain", unit="hcp"),
        Settings(weighted=True, method="cp", quantile="plain"),
        Settings(minimum=-1.0),
    ):
        with pytest.raises(BadSetting):
            bad.check(contained=True)
    Settings(cutoff=1.5).check(contained=False)


def test_the_grid_has_twenty_splits_from_all_calibration_to_all_estimation():
    splits = splits_of(Settings("care", 0.68))
    assert len(splits) == 20
    assert splits[0].delta1 == pytest.approx(1e-7)
    assert splits[-1].delta2 == 0.0
    assert all(split.delta1 + split.delta2 == pytest.approx(0.32) for split in splits)


@pytest.mark.parametrize(
    ("settings", "needed"),
    [
        (Settings("nested"), (3, 4, 9, 19)),
        (Settings("cp"), (3, 4, 9, 19)),
        (Settings("care-guaranteed"), (6, 9, 19, 39)),
        (Settings("care", split="fixed"), (12, 19, 39, 79)),
    ],
)
def test_the_least_number_of_patients_is_the_known_one(settings, needed):
    table = reference_table("NTR", "cal")
    for level, n in zip((0.68, 0.80, 0.90, 0.95), needed, strict=True):
        assert Calibration.of(table, settings.changed({"level": level}), "ml").n_needed == n


# Alarms


def test_one_width_raises_no_alarm_from_rounding_and_has_no_correlation():
    table = constant_width_table()
    known = Calibration.of(table, Settings("cp", 0.8), "voxel")
    found = intervals(known, table, 1.0)
    assert np.unique(found.width).size > 1, "the last bits differ"
    assert not wide(found, alarm_threshold(known, 1.0)).any()
    one = next(c for c in comparisons(table, table, Settings(), "voxel", 1.0) if c.settings.method == "cp")
    entry = method_entry(one, 0.1)
    assert entry["spearman_width_error"] is None
    assert entry["spearman_width_error_reason"] == "constant width"
    assert entry["alarm"]["precision"] is None


def test_an_alarm_percentile_is_a_nearest_rank():
    table = reference_table("NTR", "cal")
    calibration = Calibration.of(table, Settings(alarm_width="80%"), "ml")
    widths = np.sort(np.round(intervals(calibration, table, 1.0).width, 12))
    assert alarm_threshold(calibration, 1.0) == widths[15]
    for text in ("120%", "0%", "-1", "wide", "nan", "inf"):
        with pytest.raises(BadSetting):
            alarm_of(text)


def test_a_hard_region_of_ten_voxels_is_saturated_and_an_empty_one_is_not():
    columns = {"U_A": [0.0, 0.0, 5.0], "U_B": [0.0, 9.0, 9.0], "A": [5.0, 0.0, 5.0], "B": [30.0, 30.0, 30.0]}
    columns |= {"voxel_mm3": [3.0] * 3, "border_share": [0.0, 0.021, np.nan], "nesting_violation": [0.02, 0.0, np.nan]}
    table = RatioTable(tuple("abc"), tuple("abc"), {name: np.array(column) for name, column in columns.items()})
    flags = case_flags(table)
    assert flags["saturated"].tolist() == [True, False, False]
    assert flags["touches_border"].tolist() == [False, True, False]
    assert flags["nesting_violation"].tolist() == [True, False, False]


def test_triage_puts_cases_without_a_ratio_first_then_the_widest():
    rows = [
        {"case": "b", "status": "ok", "width": 0.2, "alarm": True},
        {"case": "a", "status": "ok", "width": None, "alarm": True},
        {"case": "d", "status": "no_ratio", "width": None, "alarm": True},
        {"case": "c", "status": "failed", "width": None, "alarm": True},
        {"case": "e", "status": "ok", "width": 0.9, "alarm": False},
    ]
    assert [row["case"] for row in triage_order(rows)] == ["c", "d", "a", "b"]


def test_a_case_far_from_the_calibration_cases_is_out_of_range():
    known = reference_table("NTR", "cal")
    columns = {name: np.repeat(column[:1], 2) for name, column in known.columns.items()}
    columns["B"] = columns["B"] * np.array([1.0, 30.0])
    assert out_of_range(known, RatioTable(("a", "b"), ("a", "b"), columns)).tolist() == [False, True]


# Sentences


@pytest.mark.parametrize(
    ("settings", "words"),
    [
        (Settings(), "is present and predicted to be at least 0.01 ml holds the labelled ratio (rank 19 of 20: 0.9048 "
                     "on average over calibration sets). Each volume interval alone holds in at least 90 % of new"),
        (Settings("joint"), "holds the labelled ratio and both labelled volumes at once (rank 19 of 20"),
        (Settings("care"), "holds the labelled ratio. Each volume"),
        (Settings("cp", unit="hcp"), "of new scans, one per patient, from the population"),
        (Settings(weighted=True), "Approximate: In at least 90 % of new patients"),
        (Settings("care", quantile="plain"), "No guarantee: a linearly interpolated quantile"),
        (Settings("care", quantile="mean"), "No guarantee: a mean calibration error is no quantile."),
        (Settings("care", calibration_error="kde"), "No guarantee: the kernel calibration error"),
        (Settings(level=0.975), "(no finite interval: 39 patients would do)"),
    ],
)  # fmt: skip
def test_a_guarantee_says_how_much_of_what_for_whom(settings, words):
    assert words in guarantee(Calibration.of(reference_table("NTR", "cal"), settings, "ml"), ratio(), "ml")


def test_nothing_is_promised_where_the_calibrator_had_seen_cases():
    words = guarantee(SimpleNamespace(settings=None), None, "mm3", Circumstances(overlapped=True))
    assert words == "No guarantee: some calibration cases had been used to fit the calibrator (--allow-overlap)."


def test_a_share_keeps_its_digits_and_is_never_rounded_to_all():
    assert [percent(level) for level in (0.9, 0.68, 0.975, 0.9999999)] == ["90 %", "68 %", "97.5 %", "99.99999 %"]
    assert rounded_down(0.99996) == 0.9999
    assert average_coverage(22, 23) == "0.9167"
    assert average_coverage(99999, 99999) == "0.99999"


def test_a_promise_is_of_the_method_and_of_what_happened_to_the_cases():
    table = reference_table("NTR", "cal")
    known = Calibration.of(table, Settings(), "ml")
    assert guaranteed(known, UNDISTURBED)
    for broken in (Circumstances(unannotated=0.1), Circumstances(overlapped=True), Circumstances(in_sample=True)):
        assert not guaranteed(known, broken)
    assert not guaranteed(Calibration.of(table, Settings("cp", quantile="plain"), "ml"), UNDISTURBED)
    assert not guaranteed(Calibration.of(table, Settings(minimum=1e6), "ml"), UNDISTURBED)


def test_the_grid_splits_the_error_at_any_level():
    splits = splits_of(Settings("care", level=1 - 1e-8))
    assert all(split.delta1 > 0 and split.delta2 >= 0 for split in splits)


def test_sums_and_residuals_give_one_squared_error():
    logits = np.random.default_rng(4).normal(0, 3, (4, 9, 8, 7))
    powers = np.exp(logits)
    case = softmax_case((powers / powers.sum(axis=0)).astype(np.float32), None)
    sums = case_row(case, ratio(), Wanted())["squared_error_iid"]
    residuals = case_row(case, ratio(), Wanted(blocks=True))["squared_error_iid"]
    assert sums == pytest.approx(residuals, rel=1e-11)
