"""``ntr-interval``: nothing is promised that does not hold, and what is not promised is said with the reason."""

from __future__ import annotations

import numpy as np
import pytest

from tests.cli.builders import read_rows, segcal, write_volume
from tests.cli.test_ntr_interval import NTR, SHAPE, applied, arguments, reading, write_study


@pytest.fixture(scope="module")
def fitted(tmp_path_factory):
    """20 labelled scans, each its own patient, with their artifact."""
    root = write_study(tmp_path_factory.mktemp("fit"), range(20))
    assert segcal("ntr-interval", "fit", *arguments(root), *NTR, "-o", root / "ntr.npz").code == 0
    return root, None


@pytest.fixture(scope="module")
def new(tmp_path_factory):
    return write_study(tmp_path_factory.mktemp("new"), range(100, 106))


def judged(root, artifact, tmp_path, *more):
    said = segcal(
        "evaluate", *arguments(root), "--artifact", artifact, "-o", tmp_path / "e.csv", "--json", "--overwrite", *more,
    )  # fmt: skip
    assert said.code == 0, said.stderr
    (entry,) = said.document["result"]["ntr_interval"]
    return said, entry


# evaluate


def test_evaluate_promises_nothing_of_cases_that_the_artifact_was_fitted_on(fitted, tmp_path):
    root = fitted[0]
    _, entry = judged(root, root / "ntr.npz", tmp_path, "--allow-overlap")
    assert entry["guarantee"].startswith("No guarantee: some of these cases were used to fit the artifact")
    assert not entry["guaranteed"]
    assert not any(one["guaranteed"] for one in entry["methods"])
    assert all(one["undercoverage_p"] is None for one in entry["methods"])
    assert all("--allow-overlap" in one["undercoverage_p_reason"] for one in entry["methods"])
    rows = read_rows(tmp_path / "e.ntr.methods.csv")
    assert {row["guaranteed"] for row in rows} == {"false"}
    assert {row["undercoverage_p"] for row in rows} == {""}
    people = segcal(
        "evaluate", *arguments(root), "--artifact", root / "ntr.npz", "-o", tmp_path / "e.csv", "--overwrite",
        "--allow-overlap",
    )  # fmt: skip
    assert "No guarantee: some of these cases were used" in people.stderr
    assert not any(line.rstrip().endswith("yes") for line in people.stderr.splitlines())


def test_evaluate_promises_nothing_of_an_artifact_fitted_around_missing_annotation(fitted, new, tmp_path):
    root, artifact = fitted[0], tmp_path / "holes.npz"
    segcal("ntr-interval", "fit", *arguments(root), *NTR, "--ignore-label", "0", "-o", artifact)
    entry = judged(new, artifact, tmp_path, "--ignore-label", "0")[1]
    assert entry["guarantee"].startswith("no guarantee: ")
    assert "had no annotation" in entry["guarantee"]
    assert not any(one["guaranteed"] for one in entry["methods"])
    assert all("had no annotation" in one["undercoverage_p_reason"] for one in entry["methods"])


def test_evaluate_says_why_a_coverage_has_no_p(fitted, new, tmp_path):
    entry = judged(new, fitted[0] / "ntr.npz", tmp_path)[1]
    reasons = {one["method"]: one["undercoverage_p_reason"] for one in entry["methods"]}
    assert reasons["nested"] is reasons["joint"] is reasons["cp"] is None
    assert reasons["care"].startswith("two quantiles")
    assert all((one["undercoverage_p"] is None) != (one["undercoverage_p_reason"] is None) for one in entry["methods"])


def test_evaluate_says_why_nothing_can_be_scored(fitted, new, tmp_path):
    root, artifact = fitted[0], tmp_path / "large.npz"
    segcal("ntr-interval", "fit", *arguments(root), *NTR, "--min-denominator-ml", "0.001", "-o", artifact)
    small = write_study(tmp_path / "small", [7], size=0.01)
    entry = judged(small, artifact, tmp_path, "--allow-overlap")[1]
    if entry["n_ratio"] == 0:
        assert entry["methods"] == []
    said = segcal(
        "evaluate", *arguments(small), "--artifact", artifact, "-o", tmp_path / "e.csv", "--overwrite",
        "--allow-overlap",
    )  # fmt: skip
    assert "None of 1 case can be scored" in said.stderr


# apply


def test_no_ratio_is_promised_where_no_calibration_case_reaches_the_minimum(fitted, new, tmp_path):
    said, rows = applied(fitted, new, tmp_path, "--min-denominator-ml", "50")
    result = said.document["result"]
    assert not result["guaranteed"]
    assert (result["n_patients"], result["infinite"]) == (0, True)
    assert result["guarantee"].startswith("No guarantee: no calibration case that holds edema + necrosis + enhancing")
    assert "every interval of the ratio is [0, 1]. Each volume interval alone holds" in result["guarantee"]
    assert any("predicted to hold at least 50 ml" in warning for warning in said.document["warnings"])
    assert all(row["reasons"].startswith("small_denominator") and not row["ratio"] for row in rows.values())


@pytest.mark.parametrize("options", [("--method", "care", "--quantile", "plain"), ("--method", "cp"), ("--weighted",)])
def test_without_a_calibration_ratio_every_method_says_so(fitted, new, tmp_path, options):
    result = applied(fitted, new, tmp_path, "--min-denominator-ml", "50", *options)[0].document["result"]
    assert result["guarantee"].startswith("No guarantee: ")
    assert not result["guaranteed"]


def test_fit_fails_where_labels_hold_the_denominator_and_no_prediction_does(fitted, tmp_path):
    said = segcal(
        "ntr-interval", "fit", *arguments(fitted[0]), *NTR, "--min-denominator-ml", "50", "-o", tmp_path / "x.npz"
    )
    assert said.code == 4
    assert "is predicted to hold at least 50 ml of it: a ratio cannot be calibrated" in said.stderr


def test_apply_repeats_what_was_left_out_of_the_fit(fitted, new, tmp_path):
    root = write_study(tmp_path / "dropped", range(12))
    (root / "predictions" / "p003.nii.gz").write_bytes(b"broken")
    artifact = tmp_path / "dropped.npz"
    segcal("ntr-interval", "fit", *arguments(root), *NTR, "--on-failure", "continue", "-o", artifact)
    result = applied(fitted, new, tmp_path, artifact=artifact)[0].document["result"]
    assert result["guarantee"].endswith(
        "After leaving out 1 of 12 cases; it holds only if they did not fail for a reason related to their scores."
    )


@pytest.mark.parametrize("method", ["nested", "care", "care-guaranteed"])
def test_no_level_is_rounded_to_100_percent(fitted, new, tmp_path, method):
    for level, words in (("0.9999999", "99.99999 %"), ("0.99999999999", "99.999999999 %")):
        said = segcal(
            "ntr-interval", "apply", fitted[0] / "ntr.npz", new / "predictions", *reading(new), "--level", level,
            "--method", method, "-o", tmp_path / "t.csv", "--overwrite",
        )  # fmt: skip
        assert said.code == 0, said.stderr
        assert f"In at least {words} of new patients" in said.stderr
        assert f"{words} interval" in said.stderr
        assert f"cannot give level {level}" in said.stderr
        assert "100 %" not in said.stderr


# patients


def test_a_fit_by_patients_asks_for_groups_at_apply_and_evaluate_unless_they_are_given(fitted, new, tmp_path):
    root = write_study(tmp_path / "by", range(10, 20), prefix="pat")
    artifact = tmp_path / "by.npz"
    segcal("ntr-interval", "fit", *arguments(root), *NTR, "--groups", "(pat0[0-9])", "-o", artifact)
    words = "by.npz was fitted with patients as units (1 of 10 cases)"
    said = applied(fitted, new, tmp_path, artifact=artifact)[0]
    assert any(words in warning for warning in said.document["warnings"])
    assert any(words in warning for warning in judged(new, artifact, tmp_path)[0].document["warnings"])
    said = applied(fitted, new, tmp_path, "--groups", "(p[0-9]+)", artifact=artifact)[0]
    assert not any(words in warning for warning in said.document["warnings"])


def test_failed_rows_have_the_patient_that_the_others_have(fitted, tmp_path):
    root = write_study(tmp_path, range(100, 103))
    (root / "predictions" / "p101.nii.gz").write_bytes(b"broken")
    said, rows = applied(fitted, root, tmp_path)
    assert said.code == 8
    assert {case: row["group"] for case, row in rows.items()} == {case: case for case in ("p100", "p101", "p102")}
    assert rows["p101"]["prediction"] == "p101.nii.gz"
    rows = applied(fitted, root, tmp_path, "--groups", "(p10)")[1]
    assert {row["group"] for row in rows.values()} == {"p10"}


# inspect


def test_inspect_shows_the_stored_settings_and_the_thresholds_that_follow_from_them(fitted, tmp_path):
    root, artifact = fitted[0], tmp_path / "care.npz"
    segcal(
        "ntr-interval", "fit", *arguments(root), *NTR, "--method", "care", "--split", "fixed", "--delta1", "0.07",
        "--estimation", "block", "--estimation-tail", "fieller", "--ce-unit", "mean", "-o", artifact,
    )  # fmt: skip
    said = segcal("inspect", artifact)
    assert (
        "method care, level 90 %, unit max, quantile conformal, calibration error ece per voxel, split fixed, delta1 "
        "0.07, squared error block, tail fieller, least denominator 0.01 ml, alarm above 80%"
    ) in said.stdout
    care = next(line for line in said.stdout.splitlines() if line.startswith("care *"))
    # delta2 = 0.03, a region's share 0.015: 66 patients; half of 0.05 is less than the 0.07 that is stored.
    assert care.split()[-6:] == ["needs", "66", "delta1", "0.07", "too", "large"]


def test_inspect_of_a_plain_quantile_needs_no_number_of_patients(fitted, tmp_path):
    artifact = tmp_path / "plain.npz"
    segcal(
        "ntr-interval", "fit", *arguments(fitted[0]), *NTR, "--method", "care", "--quantile", "plain", "-o", artifact
    )
    thresholds = segcal("inspect", artifact, "--json").document["result"]["thresholds"]
    assert thresholds["care"]["0.95"].endswith(" ml")
    assert thresholds["care-guaranteed"]["0.95"] == "needs 39"


# what is stored, and what is given


def test_a_method_given_at_apply_leaves_behind_what_only_the_stored_one_can_have(fitted, new, tmp_path):
    artifact = tmp_path / "paper.npz"
    segcal(
        "ntr-interval", "fit", *arguments(fitted[0]), *NTR, "--method", "care", "--quantile", "plain", "--ce-unit",
        "mean", "-o", artifact,
    )  # fmt: skip
    result = applied(fitted, new, tmp_path, "--method", "nested", artifact=artifact)[0].document["result"]
    assert result["guaranteed"]
    assert result["settings"]["quantile"] == "conformal"
    said = applied(fitted, new, tmp_path, "--method", "nested", "--quantile", "plain", artifact=artifact)[0]
    assert said.code == 2
    assert "--quantile plain is for --method care and cp only, not nested" in said.stderr


def test_drift_is_said_of_the_features_that_moved(fitted, tmp_path):
    small = write_study(tmp_path / "small", range(200, 215), size=2.4)
    warnings = applied(fitted, small, tmp_path)[0].document["warnings"]
    (warning,) = (text for text in warnings if "differ from the calibration cases" in text)
    assert "log_denominator (p = " in warning
    p = applied(fitted, small, tmp_path)[0].document["result"]["drift"]["features"]
    assert {name for name in p if f"{name} (p" in warning} == {name for name in p if p[name]["p"] < 0.01 / 3}


@pytest.mark.parametrize(
    ("options", "words"),
    [
        (("--split", "grid"), "--split is for --method care only, not nested"),
        (("--method", "care-guaranteed", "--estimation-tail", "fieller"), "is for --method care only, not care-guar"),
        (("--method", "cp", "--ce-unit", "mean"), "--ce-unit is for --method care and care-guaranteed only, not cp"),
    ],
)
def test_apply_refuses_an_option_that_its_method_does_not_look_at(fitted, new, tmp_path, options, words):
    said = applied(fitted, new, tmp_path, *options)[0]
    assert said.code == 2
    assert words in said.stderr


def test_a_promise_of_a_region_of_interest_says_so(fitted, tmp_path):
    root = fitted[0]
    for seed in range(20):
        write_volume(tmp_path / "roi" / f"p{seed:03}.nii.gz", np.ones(SHAPE, np.uint8))
    said = segcal(
        "ntr-interval", "fit", *arguments(root), *NTR, "--roi", tmp_path / "roi", "-o", tmp_path / "r.npz", "--json"
    )
    assert said.document["result"]["guarantee"].endswith(" All of this inside the region of interest.")


def test_an_artifact_behind_a_calibrator_promises_nothing_of_cases_that_this_one_saw(fitted, tmp_path):
    root, calibrator, artifact = fitted[0], tmp_path / "t.npz", tmp_path / "behind.npz"
    seen = write_study(tmp_path / "seen", range(300, 306))
    assert segcal("calibrate", "fit", *arguments(seen), "-o", calibrator).code == 0
    segcal("ntr-interval", "fit", *arguments(root), *NTR, "--calibrator", calibrator, "-o", artifact)
    entry = judged(seen, artifact, tmp_path, "--artifact", calibrator, "--allow-overlap")[1]
    assert entry["in_sample"]
    assert not any(one["guaranteed"] for one in entry["methods"])


def test_a_run_without_an_alarm_says_so(fitted, new, tmp_path):
    said = segcal(
        "ntr-interval", "apply", fitted[0] / "ntr.npz", new / "predictions", *reading(new), "--alarm-width", "1",
        "-o", tmp_path / "t.csv",
    )  # fmt: skip
    alarmed = [row for row in read_rows(tmp_path / "t.csv") if row["alarm"] == "true"]
    assert ("No alarm in 6 cases" in said.stderr) == (not alarmed)
    assert ("Look at these" in said.stderr) == bool(alarmed)


def test_a_seed_below_zero_is_refused(fitted, tmp_path):
    said = segcal("ntr-interval", "fit", *arguments(fitted[0]), *NTR, "--seed", "-1", "-o", tmp_path / "x.npz")
    assert said.code == 2
    assert "--seed -1 is not allowed" in said.stderr


# Cases that are not new


@pytest.fixture
def renamed(fitted, tmp_path):
    """The first six scans of the fit under other names, and masks for both."""
    root = tmp_path / "renamed"
    for part in ("predictions", "labels"):
        (root / part).mkdir(parents=True)
        for seed in range(6):
            (root / part / f"other{seed}.nii.gz").write_bytes((fitted[0] / part / f"p{seed:03}.nii.gz").read_bytes())
    (root / "classes.json").write_bytes((fitted[0] / "classes.json").read_bytes())
    mask = np.ones(SHAPE, np.uint8)
    mask[:, :, :3] = 0
    for name in (*(f"p{seed:03}" for seed in range(20)), *(f"other{seed}" for seed in range(6))):
        write_volume(root / "roi" / f"{name}.nii.gz", mask)
    return root


def reasons(rows):
    return [row["reasons"].split(";")[-1] for row in rows.values()]


@pytest.mark.parametrize("options", [(), ("--estimation", "block", "--debias", "exact")])
def test_copies_of_calibration_cases_are_flagged_under_other_names(fitted, new, renamed, tmp_path, options):
    said, rows = applied(None, renamed, tmp_path, *options, artifact=fitted[0] / "ntr.npz")
    assert reasons(rows) == ["in_calibration"] * 6
    assert any("was used to fit the artifact" in warning for warning in said.document["warnings"])
    assert "in_calibration" not in reasons(applied(None, new, tmp_path, artifact=fitted[0] / "ntr.npz")[1])


@pytest.mark.parametrize("fit", [("--roi",), ("--ignore-label", "0")])
def test_copies_are_noticed_where_only_some_voxels_counted_in_the_fit(fitted, renamed, tmp_path, fit):
    root, path = fitted[0], tmp_path / "some.npz"
    region = ("--roi", renamed / "roi") if fit == ("--roi",) else ()
    assert segcal("ntr-interval", "fit", *arguments(root), *NTR, *(region or fit), "-o", path).code == 0
    assert reasons(applied(None, renamed, tmp_path, *region, artifact=path)[1]) == ["in_calibration"] * 6


def test_cases_of_the_calibrator_and_their_copies_are_no_new_ones(fitted, renamed, tmp_path):
    seen = write_study(tmp_path / "seen", range(300, 306), prefix="s")
    through = ("--calibrator", tmp_path / "t.npz")
    assert segcal("calibrate", "fit", *arguments(seen), "--no-summary", "-o", tmp_path / "t.npz").code == 0
    artifact = tmp_path / "behind.npz"
    assert segcal("ntr-interval", "fit", *arguments(fitted[0]), *NTR, *through, "-o", artifact).code == 0
    assert reasons(applied(None, seen, tmp_path, *through, artifact=artifact)[1]) == ["in_calibration"] * 6
    (seen / "predictions" / "s300.nii.gz").rename(seen / "predictions" / "fresh.nii.gz")
    assert reasons(applied(None, seen, tmp_path, *through, artifact=artifact)[1]) == ["in_calibration"] * 6
    assert reasons(applied(None, renamed, tmp_path, *through, artifact=artifact)[1]) == ["in_calibration"] * 6


def test_pictures_of_cases_that_the_calibrator_saw_say_so(fitted, new, tmp_path):
    seen = write_study(tmp_path / "seen", range(300, 306), prefix="s")
    assert segcal("calibrate", "fit", *arguments(seen), "--no-summary", "-o", tmp_path / "t.npz").code == 0
    artifact, through = tmp_path / "n.npz", ("--calibrator", tmp_path / "t.npz")
    assert segcal("ntr-interval", "fit", *arguments(fitted[0]), *NTR, *through, "-o", artifact).code == 0
    words = "In-sample: some of these cases were used in the fit, or by its calibrator, so coverage is flattered."
    for root, expected in ((seen, True), (new, False)):
        said = segcal(
            "reliability", *arguments(root), *through, "--artifact", artifact, "--plots", "ntr-widths", "--format",
            "svg", "--allow-overlap", "--overwrite", "-o", tmp_path / "pictures",
        )  # fmt: skip
        assert said.code == 0, said.stderr
        page = " ".join((tmp_path / "pictures" / "report.html").read_text().split())
        assert (words in page) == expected


# A split of the fit at other levels


def test_a_delta1_that_is_too_large_for_a_level_is_replaced_and_that_is_said(fitted, new, tmp_path):
    artifact = tmp_path / "ntr.npz"
    split = ("--method", "care", "--level", "0.8", "--split", "fixed", "--delta1", "0.15")
    assert segcal("ntr-interval", "fit", *arguments(fitted[0]), *NTR, *split, "-o", artifact).code == 0
    entry = judged(new, artifact, tmp_path)[1]
    words = (
        "The --delta1 0.15 of the fit is too large for other levels: care takes half of the error, 0.05 at level 90 %"
    )
    assert entry["other_splits"] == words
    found = {(one["method"], one["level"]): one["delta1"] for one in entry["methods"] if one["source"] == "soft"}
    assert [found["care", level] for level in (0.68, 0.8, 0.9)] == pytest.approx([0.15, 0.15, 0.05])
    assert found["nested", 0.9] is None
    rows = read_rows(tmp_path / "e.ntr.methods.csv")
    taken = {row["level"]: float(row["delta1"]) for row in rows if (row["method"], row["source"]) == ("care", "soft")}
    assert taken == {"0.68": 0.15, "0.8": 0.15, "0.9": pytest.approx(0.05)}
    people = segcal("evaluate", *arguments(new), "--artifact", artifact, "-o", tmp_path / "e.csv", "--overwrite")
    assert words in " ".join(people.stderr.split())
    assert judged(new, fitted[0] / "ntr.npz", tmp_path)[1]["other_splits"] is None
