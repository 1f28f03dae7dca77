"""Every number of the independent implementation: sums, thresholds, intervals and the comparison of methods."""

from __future__ import annotations

import numpy as np
import pytest

from segcal_cli.metrics.coverage import weighted_quantile
from segcal_cli.ratio.comparison import biases, comparisons, method_entry
from segcal_cli.ratio.intervals import intervals
from segcal_cli.ratio.settings import Settings
from segcal_cli.ratio.shift import drift, weights
from segcal_cli.ratio.sums import Wanted, case_row
from segcal_cli.ratio.thresholds import Calibration, method_scores
from tests.ratio.builders_ratio import (
    COLUMN_OF,
    EXPECTED,
    POOLS_EXPECTED,
    pool,
    ratio,
    reference_case,
    reference_table,
)

CLOSE = 1e-9
"""Relative agreement that is asked for."""
KERNEL_CLOSE = 1e-7
LEVELS = ("0.68", "0.80", "0.90")
STORED_CASES = ("cal00", "cal07", "cal13", "test00", "test05", "test11", "empty", "zero")
INTERVAL_CASES = ("test00", "test05", "test11", "empty")

EVERYTHING = Wanted(labels=True, blocks=True, debiased=True, kernel_seed=0)


def same(found, expected, tolerance=CLOSE):
    """Relative agreement; None stands for undefined or infinite."""
    if expected is None:
        assert found is None or not np.isfinite(found)
    else:
        assert found == pytest.approx(expected, rel=tolerance, abs=1e-15)


@pytest.mark.parametrize("case", STORED_CASES)
@pytest.mark.parametrize("name", ["NTR", "CTR"])
def test_the_numbers_of_a_case_are_those_of_the_reference(name, case):
    row, expected = case_row(reference_case(case), ratio(name), EVERYTHING), EXPECTED[name]["per_case"][case]
    for column, key in COLUMN_OF.items():
        if key in expected:
            same(row[column], expected[key], KERNEL_CLOSE if key.startswith("kde") else CLOSE)
    for key, value in (expected.get("debiased") or {}).items():
        same(row[f"ratio_{key}"], value)
    for key, value in zip(("aa", "ab", "bb"), expected.get("mean_variances") or (), strict=False):
        same(row[f"mean_variance_{key}"], value)


@pytest.mark.parametrize("case", ["test00", "test05", "cal13"])
def test_the_squared_error_is_not_the_misprinted_one(case):
    """The later print divides Var(y) by the mean instead of its square: negative, or off by a factor."""
    expected = EXPECTED["NTR"]["per_case"][case]
    found = case_row(reference_case(case), ratio(), Wanted())["squared_error_iid"]
    assert found > 0
    assert abs(found - expected["misprint_eq11"]) > 0.1 * found


def test_the_first_test_case_has_the_numbers_that_are_printed_for_it():
    row = case_row(reference_case("test00"), ratio(), EVERYTHING)
    assert row["A"] / row["B"] == pytest.approx(0.0819949289, abs=5e-11)
    assert row["A_label"] / row["B_label"] == pytest.approx(11 / 89)
    assert row["squared_error_iid"] == pytest.approx(2.034411904e-4, rel=1e-9)
    assert row["squared_error_block"] == pytest.approx(4.668282392e-4, rel=1e-9)
    assert row["ratio_exact"] == pytest.approx(0.0821968238, abs=5e-11)


THRESHOLDS = {"nested": "nested", "joint": "joint", "cp": "cp"}


def thresholds(table, level, unit, volume_unit="ml"):
    """As the reference lists them."""
    found = {
        method: Calibration.of(table, Settings(method=method, level=level, unit=unit), volume_unit).score_threshold()
        for method in THRESHOLDS
    }
    calibration = Calibration.of(table, Settings(level=level, unit=unit), volume_unit)
    return found | {f"volume_{name}": calibration.volume_threshold(name) for name in "AB"}


@pytest.mark.parametrize("level", LEVELS)
@pytest.mark.parametrize("name", ["NTR", "CTR"])
@pytest.mark.parametrize("unit", ["max", "hcp"])
def test_thresholds_of_one_scan_per_patient(name, level, unit):
    expected = EXPECTED[name]["level"][level][f"threshold_{unit}"]
    found = thresholds(reference_table(name, "cal"), float(level), unit)
    for key, value in expected.items():
        same(found[key], value)


@pytest.mark.parametrize("level", LEVELS)
@pytest.mark.parametrize("name", ["NTR", "CTR"])
@pytest.mark.parametrize("unit", ["max", "hcp"])
def test_thresholds_of_patients_with_several_scans(name, level, unit):
    together = EXPECTED["with_patients"]
    found = thresholds(reference_table(name, "cal", together["patients"]), float(level), unit)
    for key, value in together[name][level][f"threshold_{unit}"].items():
        same(found[key], value)


@pytest.mark.parametrize("level", LEVELS)
@pytest.mark.parametrize("name", ["NTR", "CTR"])
def test_a_label_without_denominator_counts_for_volumes_and_not_for_the_ratio(name, level):
    expected = EXPECTED["with_empty_case_in_calibration"][name]
    table = reference_table(name, "cal", None, "empty")
    assert len(table) == expected["n_calibration"]
    calibration = Calibration.of(table, Settings(level=float(level)), "ml")
    assert len(calibration.scored) == calibration.n == expected["n_ratio_scores"]
    for key, value in expected[level]["threshold_max"].items():
        same(thresholds(table, float(level), "max")[key], value)


def settings_named(name, level):
    """The settings behind a name of the reference, such as care_ece_conformal_fixed_iid."""
    parts = name.split("_")
    if parts[0] != "care":
        method = parts[0] if parts[0] in THRESHOLDS else "nested"
        return Settings(method=method, level=level, quantile="plain" if parts[-1] == "plain" else "conformal")
    rest = parts[3:]
    options = {"estimation": "none"} if rest[0] == "none" else {"split": rest[0]}
    if "fieller" in rest:
        options["tail"] = "fieller"
    elif rest[0] != "none":
        options["estimation"] = rest[1]
    if "mean" in rest:
        options["ce_unit"] = "mean"
    if "hcp" in rest:
        options["unit"] = "hcp"
    return Settings("care", level, calibration_error=parts[1], quantile=parts[2], **options)


@pytest.mark.parametrize("level", LEVELS)
@pytest.mark.parametrize("name", ["NTR", "CTR"])
def test_intervals_of_every_method_and_option_are_those_of_the_reference(name, level):
    """Nested, joint, cp, volumes, and care with three calibration errors, three quantiles, grid and fixed splits,
    independent voxels and blocks, Fieller, scores per voxel, hcp: 25 kinds of intervals per case."""
    known, new = reference_table(name, "cal"), reference_table(name, "", None)
    for kind in EXPECTED[name]["level"][level]["intervals"]["test00"]:
        found = intervals(Calibration.of(known, settings_named(kind, float(level)), "ml"), new, ratio(name).limit)
        ends = {
            "nested_unclipped": found.unclipped,
            "joint_numerator_mm3": found.numerator,
            "joint_denominator_mm3": found.denominator,
            "volume_A_mm3": found.numerator,
            "volume_B_mm3": found.denominator,
        }.get(kind, found.clipped)
        for case in INTERVAL_CASES:
            i, expected = new.ids.index(case), EXPECTED[name]["level"][level]["intervals"][case][kind]
            care = isinstance(expected, dict)
            low, high = expected["interval"] if care else expected
            same(ends.low[i], low)
            same(ends.high[i], high)
            if care:
                same(found.delta1[i], expected["delta1"])
                same(found.delta2[i], expected["delta2"])
                same(found.radius_a[i], expected["radius_A"])
                same(found.radius_b[i], expected["radius_B"])
                same(found.estimation_width[i], expected["width_estimation"])


@pytest.mark.parametrize("name", ["NTR", "CTR"])
def test_the_comparison_of_methods_is_that_of_the_reference(name):
    compared = comparisons(reference_table(name, "cal"), reference_table(name, "test"), Settings(), "ml", 1.0)
    checked = 0
    for one in compared:
        key = ("hard_" if one.source == "hard" else "") + one.settings.method
        expected = EXPECTED[name]["level"][f"{one.settings.level:.2f}"]["evaluate"].get(key)
        if expected is None:
            continue
        entry = method_entry(one, 0.1)
        found = {**entry, "rank": one.calibration.rank, "alarm_threshold": entry["alarm"]["threshold"]}
        found |= {key: entry["alarm"][key] for key in ("alarms", "large_errors")}
        found |= {f"alarm_{key}": entry["alarm"][key] for key in ("precision", "recall")}
        for tertile in entry["tertiles"]:
            found[f"coverage_{tertile['name']}"] = tertile["coverage"]
            found[f"width_mean_{tertile['name']}"] = tertile["width_mean"]
        low, high = expected.pop("coverage_ci95")
        same(entry["coverage_low"], low)
        same(entry["coverage_high"], high)
        for key, value in expected.items():
            same(found[key], value)
        checked += 1
    assert checked == 18


@pytest.mark.parametrize("name", ["NTR", "CTR"])
def test_biases_are_those_of_the_reference(name):
    expected, found = EXPECTED[name]["evaluate_all_levels"], biases(reference_table(name, "test"), Settings(), "ml")
    same(found["r_bias"]["abs_mean"], expected["r_bias_abs_mean"])
    same(found["r_bias"]["signed_mean"], expected["r_bias_signed_mean"])
    same(found["r_bias_hard"]["abs_mean"], expected["r_bias_hard_abs_mean"])
    for region in ("numerator", "denominator"):
        same(found["v_bias"][region]["abs_mean_ml"], expected[f"v_bias_{region}_abs_mean_ml"])
        same(found["v_bias"][region]["signed_mean_per_voxel"], expected[f"v_bias_{region}_signed_mean_per_voxel"])
        same(found["brier"][region], expected[f"brier_{region}_mean"])
        same(found["calibration_error"][region], expected[f"ece_{region}_mean"])


@pytest.mark.parametrize("name", ["NTR", "CTR"])
def test_weighted_thresholds_are_those_of_the_reference(name):
    expected = EXPECTED[name]["weighted_example"]
    scores = method_scores(reference_table(name, "cal"), "nested")
    for level, wanted in expected["threshold"].items():
        for new_weight, value in zip(expected["w_new"], wanted, strict=True):
            found = weighted_quantile(scores, np.array(expected["weights"]), new_weight, 1 - float(level))
            same(found if np.isfinite(found) else None, value)


def test_weights_of_smaller_tumours_are_those_of_the_reference():
    expected = POOLS_EXPECTED["weights_example"]
    known, new = pool("good", np.arange(100)), pool("small", np.arange(200))
    found = weights(known, new)
    assert found.coefficients == pytest.approx(expected["coefficients"], abs=2e-6)
    assert found.intercept == pytest.approx(expected["intercept"], abs=2e-6)
    assert found.calibration[:8] == pytest.approx(expected["calibration_weights_first8"], abs=2e-6)
    assert found.new[:8] == pytest.approx(expected["new_weights_first8"], abs=2e-6)
    assert found.effective == pytest.approx(expected["effective_n"], abs=1e-3)
    calibration = Calibration.of(known, Settings(level=0.9, weighted=True), "voxel")
    thresholds = calibration.weighted_thresholds(found.calibration, found.new)
    assert thresholds[:8] == pytest.approx(expected["nested_thresholds_level_090_first8"], abs=1e-8)
    assert np.isinf(thresholds).sum() == expected["n_infinite"]


def test_drift_of_smaller_tumours_is_that_of_the_reference():
    found = drift(pool("good", np.arange(100)), pool("small", np.arange(200)))
    assert found["shifted"]
    for feature, expected in POOLS_EXPECTED["drift_example"].items():
        assert found["features"][feature]["ks"] == pytest.approx(expected["ks"], rel=1e-9)
        assert found["features"][feature]["p"] == pytest.approx(expected["p"], rel=1e-5)
