"""Macro and micro averages, and pooled counts that add up exactly."""

from __future__ import annotations

import math
import random
from functools import reduce
from operator import add

import numpy as np
import pytest

from segcal_cli.core.labels import ALL_CLASSES
from segcal_cli.metrics.columns import ALL_COLUMNS, CLASS_COLUMNS
from segcal_cli.metrics.measures import Settings
from segcal_cli.metrics.pooling import PoolMismatch
from segcal_cli.metrics.summaries import NoCells, group_values, pool, summarise
from tests.metrics.builders_measures import REFERENCE, binary_case, measured, random_softmax, softmax_case


def mc_cases(settings=None):
    return [
        measured(softmax_case(REFERENCE["mc_prob"][k], REFERENCE["mc_label"][k], name=f"k{k}"), settings)
        for k in range(3)
    ]


def random_cases(n, groups):
    rng = np.random.default_rng(21)
    return [
        measured(
            softmax_case(
                random_softmax(rng, 3, 300), rng.integers(0, 3, 300), name=f"k{k:02}", group=f"g{k % groups:02}"
            )
        )
        for k in range(n)
    ]


def test_micro_averages_of_pooled_cases_equal_the_float64_reference():
    cases = mc_cases()
    summary = summarise(cases, pool(cases), Settings(), resamples=0)
    for c in range(4):
        row = summary.micro.classes[f"c{c}"]
        ece, ace, _, mce, filled = REFERENCE["own.mc.micro_pooled_per_class.M20"][c]
        assert [row[k] for k in ("ece", "ace", "mce", "n_bins")] == pytest.approx([ece, ace, mce, filled], abs=1e-9)
    top = REFERENCE["own.mc.toplabel_pooled.M20.rightclosed"]
    found = [summary.micro.all[k] for k in ("top_ece", "top_ace", "top_mce")]
    assert found == pytest.approx(top[[0, 1, 3]], abs=1e-9)


def test_micro_averages_are_the_measures_of_all_voxels_in_one_case():
    cases = [measured(binary_case(REFERENCE["bin_prob"][k], REFERENCE["bin_label"][k], name=f"k{k}")) for k in range(3)]
    together = measured(binary_case(REFERENCE["bin_prob"].reshape(3, 1, -1), REFERENCE["bin_label"].reshape(3, 1, -1)))
    micro = summarise(cases, pool(cases), Settings(), resamples=0).micro
    for key in CLASS_COLUMNS:
        expected = together.classes["lesion"][key]
        assert micro.classes["lesion"][key] == (None if expected is None else pytest.approx(expected, abs=1e-7)), key
    assert micro.all["ece"] == pytest.approx(REFERENCE["own.bin_pooled.rightclosed.M20"][0], abs=1e-9)


def test_absent_classes_change_the_macro_mean_as_the_definition_says():
    counted, skip = Settings(), Settings(absent="skip")
    for settings, expected in ((counted, 0.1693592668), (skip, 0.1266633)):
        cases = mc_cases(settings)
        macro = summarise(cases, pool(cases), settings, resamples=0).macro
        assert macro.all["ace"].mean == pytest.approx(expected, abs=1e-6)
        assert macro.all["ace"].n == 3
    assert macro.classes["c3"]["ace"].n == 2


def test_patients_count_once_however_many_cases_they_have():
    cases = random_cases(7, 3)
    values = group_values(cases, "c1", "ece")
    by_hand = [np.mean([c.classes["c1"]["ece"] for c in cases if c.group == g]) for g in ("g00", "g01", "g02")]
    assert list(values.values()) == pytest.approx(by_hand, abs=1e-15)
    spread = summarise(cases, pool(cases), Settings(), resamples=100).macro.classes["c1"]["ece"]
    assert spread.n == 3
    assert [spread.mean, spread.std, spread.median] == pytest.approx(
        [np.mean(by_hand), np.std(by_hand, ddof=1), np.median(by_hand)], abs=1e-15
    )


def test_signed_measures_have_the_mean_of_their_size_too():
    cases = random_cases(6, 6)
    summary = summarise(cases, pool(cases), Settings(), resamples=0).macro.classes["c2"]
    values = list(group_values(cases, "c2", "volume_bias").values())
    assert summary["volume_bias"].mean_abs == pytest.approx(np.abs(values).mean(), abs=1e-15)
    assert "mean_abs" not in summary["ece"].to_json()
    assert summary["volume_bias"].to_json()["mean_abs"] == summary["volume_bias"].mean_abs


def test_pooling_is_exact_in_any_order():
    cases = [case.pooled for case in random_cases(9, 9)]
    first = reduce(add, cases)
    for seed in range(5):
        random.Random(seed).shuffle(cases)
        other = reduce(add, (cases[0] + cases[1], *cases[2:]))
        for name in ("n", "hits", "p", "whole", "sums", "top_n", "top_hits", "top_p", "joint", "bias_ml"):
            np.testing.assert_array_equal(getattr(first, name), getattr(other, name))


def test_a_case_without_spacing_leaves_pooled_millilitres_undefined():
    cases = [
        measured(binary_case(np.array([0.2, 0.7]), np.array([0, 1]), name=name, spacing=spacing))
        for name, spacing in (("a", 1.0), ("b", None))
    ]
    summary = summarise(cases, pool(cases), Settings(), resamples=10)
    assert summary.micro.classes["lesion"]["volume_bias_ml"] is None
    assert summary.macro.classes["lesion"]["volume_bias_ml"].n == 1


def test_counts_of_other_classes_or_bins_do_not_add():
    a, b = random_cases(1, 1)[0].pooled, mc_cases()[0].pooled
    with pytest.raises(PoolMismatch, match="do not add"):
        a + b
    with pytest.raises(PoolMismatch, match="do not add"):
        a + a.binned()


def test_slim_cases_give_the_same_summary_but_cannot_give_the_cells():
    cases = random_cases(8, 4)
    slim = [case.slim() for case in cases]
    assert summarise(slim, pool(cases), Settings(), resamples=50) == summarise(
        cases, pool(cases), Settings(), resamples=50
    )
    with pytest.raises(NoCells):
        summarise(slim, pool(slim), Settings())


def test_a_single_case_has_no_spread_and_no_interval():
    cases = random_cases(1, 1)
    summary = summarise(cases, pool(cases), Settings())
    spread = summary.macro.all["ece"]
    assert (spread.std, spread.low, spread.high, spread.n) == (None, None, None, 1)
    assert summary.micro_interval.all == {}


def test_every_column_of_the_table_is_summarised_and_intervals_surround_their_values():
    cases = random_cases(12, 12)
    summary = summarise(cases, pool(cases), Settings(), resamples=400)
    assert set(summary.macro.all) == set(ALL_COLUMNS) - {"mce_bin"}
    for key in ("ece", "brier", "nll", "volume_bias", "dice", "top_ece", "joint_nll"):
        spread, (low, high) = summary.macro.all[key], summary.micro_interval.all[key]
        assert spread.low < spread.mean < spread.high
        assert low <= summary.micro.all[key] <= high
    assert all(math.isfinite(v) for v in summary.micro_interval.classes["c1"]["ece"])


def test_the_order_of_cases_changes_no_digit():
    cases = random_cases(10, 5)
    forward = summarise(cases, pool(cases), Settings(), resamples=50)
    assert forward == summarise(cases[::-1], pool(cases[::-1]), Settings(), resamples=50)
    assert set(group_values(cases, ALL_CLASSES, "ece")) == {f"g{k:02}" for k in range(5)}
