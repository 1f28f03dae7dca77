"""Comparison of sources, intervals and bands."""

from __future__ import annotations

import numpy as np
import pytest
from scipy import stats

from segcal_cli.metrics.bands import confidence_band, consistency_band
from segcal_cli.metrics.calibration_errors import BinTable
from segcal_cli.metrics.comparison import (
    DifferentCases,
    compare,
    holm,
    paired_t,
    pareto_front,
    wilcoxon,
)
from segcal_cli.metrics.intervals import BadInterval, bootstrap_t, percentile, quantiles, resample
from tests.metrics.builders_measures import binary_case, measured

BR18 = {
    "CE/base": (0.848, 1.765),
    "CE/Platt": (0.851, 1.246),
    "CE/auxiliary": (0.851, 1.224),
    "CE/fine-tune": (0.851, 1.269),
    "CE/MC-Decoder": (0.854, 1.231),
    "CE/MC-Center": (0.855, 1.18),
    "CE-SD/base": (0.87, 1.429),
    "CE-SD/Platt": (0.869, 1.186),
    "CE-SD/auxiliary": (0.869, 1.158),
    "CE-SD/fine-tune": (0.869, 1.141),
    "CE-SD/MC-Decoder": (0.863, 1.323),
    "CE-SD/MC-Center": (0.867, 1.408),
    "SD/base": (0.878, 1.367),
    "SD/Platt": (0.877, 1.087),
    "SD/auxiliary": (0.877, 1.067),
    "SD/fine-tune": (0.876, 1.028),
    "SD/MC-Decoder": (0.873, 1.247),
    "SD/MC-Center": (0.875, 1.308),
}
"""Dice and ECE in per cent, BraTS 2018, Rousseau et al. 2021, Table 1."""

IS18 = {
    "CE/base": (0.462, 1.902),
    "CE/Platt": (0.2, 4.173),
    "CE/auxiliary": (0.451, 1.8),
    "CE/fine-tune": (0.467, 1.808),
    "CE/MC-Decoder": (0.463, 1.711),
    "CE/MC-Center": (0.455, 1.694),
    "CE-SD/base": (0.538, 2.765),
    "CE-SD/Platt": (0.499, 1.917),
    "CE-SD/auxiliary": (0.509, 2.076),
    "CE-SD/fine-tune": (0.523, 1.822),
    "CE-SD/MC-Decoder": (0.515, 2.352),
    "CE-SD/MC-Center": (0.519, 1.985),
    "SD/base": (0.527, 2.981),
    "SD/Platt": (0.407, 2.248),
    "SD/auxiliary": (0.466, 2.116),
    "SD/fine-tune": (0.491, 2.191),
    "SD/MC-Decoder": (0.498, 2.312),
    "SD/MC-Center": (0.497, 2.305),
}
"""The same, ISLES 2018, Table 2."""


def sources(n, shift, seed=31):
    """Two sources of n binary cases; the second one's log-odds are ``shift`` too high."""
    rng = np.random.default_rng(seed)
    good, bad = [], []
    for k in range(n):
        z = rng.normal(scale=2, size=400)
        y = rng.random(400) < 1 / (1 + np.exp(-z))
        for cases, offset in ((good, 0.0), (bad, shift)):
            p = (1 / (1 + np.exp(-z - offset))).astype(np.float32)
            cases.append(measured(binary_case(p, y, name=f"k{k:02}")))
    return {"good": good, "bad": bad}


def test_fronts_of_published_tables():
    assert pareto_front(BR18) == ["SD/base", "SD/auxiliary", "SD/fine-tune"]
    assert pareto_front(IS18) == ["CE-SD/base", "CE-SD/fine-tune", "CE/fine-tune", "CE/MC-Decoder", "CE/MC-Center"]


def test_equal_points_stay_on_the_front_together():
    assert pareto_front({"a": (0.8, 1.0), "b": (0.8, 1.0), "c": (0.8, 1.1)}) == ["a", "b"]


def test_the_worse_source_is_found_and_not_marked():
    rows = {(row.metric, row.source): row for row in compare(sources(12, 1.5), "lesion")}
    good, bad = rows["ece", "good"], rows["ece", "bad"]
    assert (good.best, good.bold, good.p_wilcoxon) == ("good", True, None)
    assert (bad.best, bad.bold, bad.n, bad.n_zero) == ("good", False, 12, 0)
    assert bad.p_wilcoxon == bad.p_holm == pytest.approx(2 / 2**12)
    assert bad.median_difference > 0
    assert bad.better_in == 0.0
    assert good.pareto


def test_a_source_that_cannot_be_told_apart_is_marked_too():
    rows = compare(sources(12, 0.02), "lesion", ["ece"])
    assert [row.bold for row in rows] == [True, True]


def test_below_six_patients_nothing_but_the_best_is_marked():
    rows = compare(sources(5, 0.02), "lesion", ["ece"])
    assert sum(row.bold for row in rows) == 1


def test_differences_of_overlap_keep_their_sign():
    rows = {row.source: row for row in compare(sources(8, 2.5), "lesion", ["dice"])}
    loser = next(row for row in rows.values() if row.source != row.best)
    assert loser.median_difference < 0


def test_equal_sources_differ_with_p_one():
    one = sources(7, 0.0)["good"]
    row = next(row for row in compare({"a": one, "b": one}, "lesion", ["ece"]) if row.source == "b")
    assert (row.p_wilcoxon, row.p_ttest, row.n_zero, row.median_difference) == (1.0, 1.0, 7, 0.0)
    assert row.bold


def test_a_signed_measure_is_compared_and_averaged_by_its_size():
    both = sources(10, -1.5)
    for row in compare(both, "lesion", ["volume_bias"]):
        sizes = [abs(case.classes["lesion"]["volume_bias"]) for case in both[row.source]]
        assert row.mean == pytest.approx(np.mean(sizes), rel=1e-12)


def test_the_sign_of_a_volume_bias_does_not_make_it_better():
    both = sources(10, -1.5)
    rows = {row.source: row for row in compare(both, "lesion", ["volume_bias"])}
    assert all(case.classes["lesion"]["volume_bias"] < -0.1 for case in both["bad"])
    assert rows["bad"].best == "good"


def test_one_patient_is_no_comparison():
    assert compare(sources(1, 1.0), "lesion") == []


def test_sources_of_other_cases_are_refused_with_the_cases_named():
    both = sources(4, 1.0)
    with pytest.raises(DifferentCases, match="bad lacks k02, k03, which good has"):
        compare({"good": both["good"], "bad": both["bad"][:2]}, "lesion")


def test_a_group_without_a_value_in_one_source_is_dropped_from_the_pairs():
    rng = np.random.default_rng(32)
    cases = {"a": [], "b": []}
    for k in range(7):
        for source, p in (("a", rng.random(50)), ("b", rng.random(50) * (0.4 if k == 0 else 1.0))):
            y = np.zeros(50) if k == 0 else rng.integers(0, 2, 50)
            cases[source].append(measured(binary_case(p, y, name=f"k{k}")))
    rows = compare(cases, "lesion", ["dice"])
    assert next(row for row in rows if row.source != row.best).n == 6


def test_holm_multiplies_and_stays_monotone():
    adjusted = holm({"a": 0.01, "b": 0.04, "c": 0.03, "d": None})
    assert adjusted == pytest.approx({"a": 0.03, "c": 0.06, "b": 0.06})


def test_paired_tests_equal_scipy():
    d = np.random.default_rng(33).normal(0.3, 1, 15)
    assert paired_t(d) == pytest.approx(stats.ttest_1samp(d, 0).pvalue, rel=1e-12)
    assert wilcoxon(d) == stats.wilcoxon(d).pvalue
    assert (wilcoxon(np.zeros(9)), paired_t(np.zeros(9)), wilcoxon(np.ones(1)), paired_t(np.ones(3))) == (1, 1, None, 0)


def test_an_interval_of_equal_values_is_that_value():
    low, high = bootstrap_t(np.full((8, 1), 0.3), resample(8, 200))
    assert low == high == pytest.approx(0.3)


def test_a_measure_does_not_depend_on_the_others_beside_it():
    values = np.random.default_rng(34).exponential(size=(9, 3))
    values[2, 1] = np.nan
    drawn = resample(9, 500)
    together = bootstrap_t(values, drawn)
    for k in range(3):
        np.testing.assert_allclose(bootstrap_t(values[:, [k]], drawn)[:, 0], together[:, k], rtol=1e-12)


def test_too_few_groups_have_no_interval():
    assert np.isnan(bootstrap_t(np.array([[1.0], [2.0], [4.0]]), resample(3, 100))).all()
    assert np.isnan(bootstrap_t(np.ones((8, 1)), resample(8, 0))).all()
    assert np.isnan(percentile(np.full((4, 1), np.nan))).all()


@pytest.mark.parametrize("level", [0.0, 1.0, 95])
def test_impossible_levels_are_usage_errors(level):
    with pytest.raises(BadInterval, match="level"):
        percentile(np.ones((3, 1)), level)
    with pytest.raises(BadInterval, match="bootstrap = -1"):
        resample(3, -1)


def tables(groups):
    return [BinTable(np.array([10, 0, 5]), np.array([h, 0, 2]), np.array([2.0, 0.0, 2.0])) for h in groups]


def test_bands_have_no_value_in_bins_without_voxels_and_no_width_where_groups_agree():
    band = consistency_band(tables([1, 3, 1, 3, 1, 3]))
    assert band.low.tolist() == [pytest.approx(-4 / 60), pytest.approx(np.nan, nan_ok=True), 0.0]
    curve = confidence_band(tables([1, 3, 1, 3, 1, 3]))
    assert curve.low[0] < 0.2 < curve.high[0]
    assert np.isnan(curve.low[1])
    assert curve.low[2] == curve.high[2] == 0.4


def test_fewer_than_six_patients_get_no_band():
    assert consistency_band(tables([1] * 5)) is None
    assert confidence_band(tables([1] * 5)) is None


@pytest.mark.filterwarnings("ignore:All-NaN slice")
@pytest.mark.parametrize("seed", range(20))
def test_quantiles_are_those_of_numpy_to_the_last_digit(seed):
    rng = np.random.default_rng(seed)
    values = rng.normal(size=(rng.integers(1, 40), 5)) ** 3
    values[rng.random(values.shape) < 0.2] = np.nan
    values[:, 4] = np.nan
    levels = (0.0, 0.025, 0.25, 0.5, rng.random(), 0.975, 1.0)
    np.testing.assert_array_equal(quantiles(values, levels), np.nanquantile(values, levels, axis=0))
    np.testing.assert_array_equal(quantiles(values[0], levels), np.nanquantile(values[0], levels))
