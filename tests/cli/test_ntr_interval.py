"""``segcal ntr-interval``: fit, apply, inspect and evaluate on small tumours, and everything that is refused."""

from __future__ import annotations

import dataclasses
import json

import numpy as np
import pytest

from segcal_cli.core.artifact import Artifact
from segcal_cli.io.artifacts import read_artifact, write_artifact
from segcal_cli.ratio.table import to_arrays
from segcal_cli.workflows.ratio_rows import COLUMNS, TRIAGE_COLUMNS
from tests.cli.builders import read_rows, segcal, write_classes, write_npz, write_volume
from tests.ratio.builders_ratio import EXPECTED, VOLUMES, reference_table

SHAPE = (8, 10, 12)
NAMES = ("background", "edema", "necrosis", "enhancing")
NTR = ("--numerator", "necrosis", "--denominator", "edema,necrosis,enhancing")


def tumour(seed, *, sharpness=3.0, size=3.6):
    """float32 probabilities "class z y x" and the label drawn from softer ones."""
    random = np.random.default_rng(seed)
    edges = np.array([1.5, 1.0, 1.0])
    center = np.array(SHAPE) / 2 + random.normal(0, 0.5, 3)
    offsets = (np.indices(SHAPE) - center.reshape(3, 1, 1, 1)) * edges.reshape(3, 1, 1, 1)
    distance = np.sqrt((offsets**2).sum(axis=0))
    radius = size * random.uniform(0.8, 1.3)
    inside = radius - distance + random.normal(0, 0.3, SHAPE)
    odds = np.stack([np.zeros(SHAPE), inside, inside * 2.8 - radius * 0.9, inside * 1.8 - radius * 0.3])
    label = np.argmax(odds + random.gumbel(size=(4, *SHAPE)) / 2, axis=0).astype(np.uint8)
    powers = np.exp(sharpness * odds - (sharpness * odds).max(axis=0))
    return (powers / powers.sum(axis=0)).astype(np.float32), label


def write_study(root, seeds, *, prefix="p", label=True, **options):
    """Predictions and labels of one scan per seed; class table beside them."""
    for seed in seeds:
        p, drawn = tumour(seed, **options)
        write_volume(root / "predictions" / f"{prefix}{seed:03}.nii.gz", p)
        if label:
            write_volume(root / "labels" / f"{prefix}{seed:03}.nii.gz", drawn)
    write_classes(root / "classes.json", **{name: value for value, name in enumerate(NAMES)})
    return root


def arguments(root):
    return root / "predictions", root / "labels", *reading(root)


def reading(root):
    return "--values", "probabilities", "--classes", root / "classes.json"


@pytest.fixture(scope="module")
def fitted(tmp_path_factory):
    """20 labelled scans of 20 patients, and the artifact of their necrosis-to-tumour ratio."""
    root = write_study(tmp_path_factory.mktemp("fit"), range(20))
    said = segcal("ntr-interval", "fit", *arguments(root), *NTR, "-o", root / "ntr.npz", "--json")
    assert said.code == 0, said.stderr
    return root, said.document


@pytest.fixture(scope="module")
def new(tmp_path_factory):
    """12 new scans."""
    return write_study(tmp_path_factory.mktemp("new"), range(100, 112))


def applied(fitted, new, tmp_path, *more, artifact=None):
    """Apply, with the document and the rows of the table by case."""
    said = segcal(
        "ntr-interval", "apply", artifact or fitted[0] / "ntr.npz", new / "predictions", *reading(new),
        "-o", tmp_path / "t.csv", "--json", "--overwrite", *more,
    )  # fmt: skip
    rows = {row["case"]: row for row in read_rows(tmp_path / "t.csv")} if said.code in (0, 8) else {}
    return said, rows


def numbers(row, *names):
    return [float(row[name]) for name in names]


# fit


def test_fit_says_what_it_resolved_and_what_it_promises(fitted):
    result = fitted[1]["result"]
    assert result["numerator"] == {"names": ["necrosis"], "values": [2], "expression": "p(necrosis)"}
    assert result["denominator"]["values"] == [1, 2, 3]
    assert result["contained"]
    assert result["n_patients"] == result["n_ratio_scores"] == 20
    assert result["highest_level"] == {
        "nested": 20 / 21,
        "joint": 20 / 21,
        "cp": 20 / 21,
        "care_guaranteed": 1 - 2 / 21,
    }
    assert result["guarantee"].startswith("In at least 90 % of new patients from the population of the 20 calibration")
    assert "(rank 19 of 20: 0.9048 on average over calibration sets)" in result["guarantee"]


def test_two_fits_give_the_same_bytes_in_processes_too(fitted, tmp_path):
    root = fitted[0]
    for name, jobs in (("a.npz", 1), ("b.npz", 2)):
        assert segcal("ntr-interval", "fit", *arguments(root), *NTR, "-o", tmp_path / name, "-j", jobs).code == 0
    assert (tmp_path / "a.npz").read_bytes() == (tmp_path / "b.npz").read_bytes() == (root / "ntr.npz").read_bytes()


def test_a_preset_names_its_convention_and_is_refused_where_names_contradict_it(fitted, tmp_path):
    root = fitted[0]
    said = segcal("ntr-interval", "fit", *arguments(root), "--preset", "ntr-brats-nnunet", "-o", tmp_path / "a.npz")
    assert said.code == 0
    assert "necrosis-to-tumour ratio under the labels of nnU-Net's conversion of BraTS 2021" in said.stderr
    said = segcal("ntr-interval", "fit", *arguments(root), "--preset", "ntr-brats2023", "-o", tmp_path / "b.npz")
    assert said.code == 2
    assert "takes label 1 for necrosis (BraTS 2023), but the class table calls it edema" in said.stderr


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ((), "give --numerator and --denominator, or --preset; possible regions are any of, and any sum of"),
        (("--numerator", "1", "--denominator", "edema"), "numerator and denominator are the same label values 1"),
        (("--numerator", "tumor", "--denominator", "1"), "--numerator 'tumor': not a class or label value"),
        ((*NTR, "--quantile", "plain"), "--quantile plain is for --method care and cp only, not nested"),
        ((*NTR, "--method", "care-guaranteed", "--calibration-error", "kde"), "kde bounds nothing"),
        ((*NTR, "--method", "care", "--split", "fixed", "--delta1", "0.2"), "--delta1 0.2 is not allowed"),
        ((*NTR, "--method", "care", "--delta1", "0.05"), "--delta1 needs --split fixed"),
        ((*NTR, "--level", "1"), "--level 1 is not allowed"),
        ((*NTR, "--cutoff", "1.5"), "--cutoff 1.5 is not a value that this ratio can take"),
        ((*NTR, "--alarm-width", "120%"), "--alarm-width 120% is not allowed"),
        ((*NTR, "--bins", "0"), "--bins 0 is not allowed"),
        ((*NTR, "--method", "care", "--weighted"), "--weighted is for --method nested, joint and cp, not care"),
        ((*NTR, "--preset", "ntr-brats-nnunet"), "--preset stands for --numerator and --denominator"),
        (("--preset", "ntr"), "--preset ntr is not known; possible are ntr-brats2023"),
    ],
)
def test_what_makes_no_sense_is_a_usage_error_with_what_would(fitted, tmp_path, options, words):
    said = segcal("ntr-interval", "fit", *arguments(fitted[0]), *options, "-o", tmp_path / "x.npz")
    assert said.code == 2, said.stderr
    assert words in said.stderr
    assert not (tmp_path / "x.npz").exists()


def test_no_label_with_a_denominator_means_no_ratio_to_calibrate(tmp_path):
    root = write_study(tmp_path, range(3))
    for path in (root / "labels").iterdir():
        write_volume(path, np.zeros(SHAPE, np.uint8))
    said = segcal("ntr-interval", "fit", *arguments(root), *NTR, "-o", tmp_path / "x.npz")
    assert said.code == 4
    assert "no labelled case holds edema + necrosis + enhancing: a ratio cannot be calibrated" in said.stderr


def test_a_label_without_the_denominator_is_counted_and_kept_for_volumes(fitted, tmp_path):
    root = write_study(tmp_path, range(6))
    write_volume(root / "labels" / "p003.nii.gz", np.zeros(SHAPE, np.uint8))
    said = segcal("ntr-interval", "fit", *arguments(root), *NTR, "-o", tmp_path / "x.npz", "--json")
    result = said.document["result"]
    assert (result["n_cases"], result["n_ratio_scores"], result["n_without_denominator"]) == (6, 5, 1)
    assert any("1 label holds no edema + necrosis + enhancing" in warning for warning in said.document["warnings"])


def test_voxels_without_annotation_take_the_guarantee_away(tmp_path):
    root = write_study(tmp_path, range(12))
    for path in (root / "labels").iterdir():
        label = tumour(int(path.name[1:4]))[1]
        label[0] = 7
        write_volume(path, label)
    said = segcal(
        "ntr-interval", "fit", *arguments(root), *NTR, "--ignore-label", 7, "-o", tmp_path / "x.npz", "--json"
    )
    assert said.document["result"]["guarantee"] == "no guarantee: 12.5 % of the voxels had no annotation"


def test_a_numerator_outside_the_denominator_has_no_upper_limit_and_says_so(fitted, new, tmp_path):
    said = segcal(
        "ntr-interval", "fit", *arguments(fitted[0]), "--numerator", "edema", "--denominator", "necrosis",
        "-o", tmp_path / "e.npz", "--json",
    )  # fmt: skip
    document = said.document
    assert not document["result"]["contained"]
    assert any("has no upper limit" in warning for warning in document["warnings"])
    said, rows = applied(fitted, new, tmp_path, "--level", "0.95", artifact=tmp_path / "e.npz")
    cases = {row["case"]: row for row in said.document["result"]["cases"]}
    endless = [case for case, row in cases.items() if row["infinite"]]
    assert any(float(row["ratio"]) > 1 for row in rows.values())
    for case in endless:
        assert rows[case]["ratio_high"] == rows[case]["width"] == ""
        assert cases[case]["ratio_high"] is None


# apply


def test_the_columns_are_those_that_are_documented_and_every_interval_holds_its_ratio(fitted, new, tmp_path):
    said, rows = applied(fitted, new, tmp_path)
    assert said.code == 0
    assert tuple(next(iter(rows.values()))) == COLUMNS
    assert list(rows) == sorted(rows)
    for row in rows.values():
        low, ratio, high = numbers(row, "ratio_low", "ratio", "ratio_high")
        assert 0 <= low <= ratio <= high <= 1
        numerator, denominator = numbers(row, "numerator_ml", "denominator_ml")
        assert ratio == pytest.approx(numerator / denominator, rel=1e-12)
        assert float(row["denominator_voxels"]) * 0.8 * 1.1 * 2.5 / 1000 == pytest.approx(denominator, rel=1e-6)
        assert (row["alarm"] == "true") == bool(row["reasons"])


@pytest.fixture(scope="module")
def reference(tmp_path_factory):
    """The artifact of the 20 reference cases, and three test volumes with `empty` and `zero`."""
    root = tmp_path_factory.mktemp("reference")
    affine = np.diag([2.0, 1.5, 1.0, 1.0])
    for case in ("cal00", "cal07", "cal13"):
        write_volume(root / "fit" / f"{case}.nii.gz", VOLUMES[f"{case}_prob"], affine)
        write_volume(root / "labels" / f"{case}.nii.gz", VOLUMES[f"{case}_label"], affine)
    for case in ("test00", "test05", "test11", "empty", "zero"):
        write_volume(root / "predictions" / f"{case}.nii.gz", VOLUMES[f"{case}_prob"], affine)
    write_classes(root / "classes.json", **{name: value for value, name in enumerate(NAMES)})
    said = segcal("ntr-interval", "fit", root / "fit", root / "labels", *reading(root), *NTR, "-o", root / "few.npz")
    assert said.code == 0, said.stderr
    few, table = read_artifact(root / "few.npz"), reference_table("NTR", "cal")
    header = dataclasses.replace(
        few.header, case_ids=table.ids, group_ids=table.groups, case_digests={case: case for case in table.ids}
    )
    write_artifact(root / "ntr.npz", Artifact(header, to_arrays(table)))
    return root


@pytest.mark.parametrize("level", ["0.68", "0.80", "0.90"])
@pytest.mark.parametrize(
    ("options", "kind"),
    [
        (("--method", "nested"), "nested"),
        (("--method", "joint"), "joint"),
        (("--method", "cp"), "cp"),
        (("--method", "cp", "--quantile", "plain"), "cp_plain"),
        (("--method", "care"), "care_ece_conformal_grid_iid"),
        (("--method", "care", "--estimation", "block"), "care_ece_conformal_grid_block"),
        (("--method", "care", "--split", "fixed"), "care_ece_conformal_fixed_iid"),
        (("--method", "care", "--split", "fixed", "--estimation-tail", "fieller"), "care_ece_conformal_fixed_fieller"),
        (("--method", "care-guaranteed"), "care_vbias_conformal_none"),
        (("--method", "care", "--quantile", "plain", "--ce-unit", "mean"), "care_ece_plain_grid_iid_unit_mean"),
    ],
)
def test_intervals_of_the_command_are_those_of_the_reference(reference, tmp_path, level, options, kind):
    said, rows = applied(None, reference, tmp_path, "--level", level, *options, artifact=reference / "ntr.npz")
    assert said.code == 0, said.stderr
    for case in ("test00", "test05", "test11"):
        expected = EXPECTED["NTR"]["level"][level]["intervals"][case][kind]
        ends = expected["interval"] if isinstance(expected, dict) else expected
        assert numbers(rows[case], "ratio_low", "ratio_high") == pytest.approx(ends, rel=1e-9, abs=1e-15)
        if isinstance(expected, dict):
            found = numbers(rows[case], "delta1", "delta2", "width_estimation")
            assert found == pytest.approx([expected[k] for k in ("delta1", "delta2", "width_estimation")], rel=1e-9)
        if kind == "nested":
            volume = EXPECTED["NTR"]["level"][level]["intervals"][case]["volume_B_mm3"]
            found = numbers(rows[case], "denominator_low_ml", "denominator_high_ml")
            assert found == pytest.approx([end / 1000 for end in volume], rel=1e-9)


@pytest.mark.parametrize("method", ["nested", "joint", "care", "care-guaranteed", "cp"])
def test_a_scan_without_the_denominator_gets_no_ratio_and_an_alarm_whatever_the_method(reference, tmp_path, method):
    """Plain cp would say [0, .057] on the empty scan."""
    _, rows = applied(None, reference, tmp_path, "--method", method, artifact=reference / "ntr.npz")
    for case, reason in (("zero", "no_denominator"), ("empty", "small_denominator")):
        row = rows[case]
        assert (row["status"], row["ratio_reason"], row["alarm"]) == ("no_ratio", reason, "true")
        assert {row[name] for name in COLUMNS if name.startswith("ratio") and name != "ratio_reason"} == {""}
        assert row["width"] == row["threshold"] == ""
        assert row["denominator_ml"] != ""
        assert row["denominator_high_ml"] != ""
        assert row["reasons"].split(";")[0] == reason


def test_debiased_ratios_of_the_command_are_those_of_the_reference(reference, tmp_path):
    for name in ("first", "paper", "exact", "jackknife"):
        _, rows = applied(None, reference, tmp_path, "--debias", name, artifact=reference / "ntr.npz")
        expected = EXPECTED["NTR"]["per_case"]["test05"]["debiased"][name]
        assert float(rows["test05"]["ratio_debiased"]) == pytest.approx(expected, rel=1e-9)


def test_block_estimation_gives_effective_voxels(reference, tmp_path):
    _, rows = applied(None, reference, tmp_path, "--method", "care", "--estimation", "block",
                      artifact=reference / "ntr.npz")  # fmt: skip
    expected = EXPECTED["NTR"]["per_case"]["test00"]
    assert float(rows["test00"]["n_eff"]) == pytest.approx(expected["n_eff"], rel=1e-9)
    assert float(rows["test00"]["squared_error"]) == pytest.approx(expected["squared_error_block"], rel=1e-9)


def test_too_few_patients_give_the_whole_range_a_reason_and_the_number_that_would_do(tmp_path, new):
    root = write_study(tmp_path, range(5))
    assert segcal("ntr-interval", "fit", *arguments(root), *NTR, "-o", root / "ntr.npz").code == 0
    said, rows = applied(None, new, tmp_path, artifact=root / "ntr.npz")
    document = said.document
    assert said.code == 0
    assert "5 patients cannot give level 0.9 with nested: every interval is [0, 1]; 9 would do" in document["warnings"]
    assert document["result"]["infinite"]
    assert document["result"]["threshold"] == "inf"
    for row in rows.values():
        assert (row["ratio_low"], row["ratio_high"], row["ratio_reason"]) == ("0.0", "1.0", "vacuous")
        assert row["reasons"].startswith("vacuous")
    said, rows = applied(None, new, tmp_path, "--level", "0.8", artifact=root / "ntr.npz")
    assert not said.document["result"]["infinite"]


def test_a_cut_off_says_on_which_side_an_interval_lies(fitted, new, tmp_path):
    _, rows = applied(fitted, new, tmp_path, "--cutoff", "0.1")
    for row in rows.values():
        low, high = numbers(row, "ratio_low", "ratio_high")
        side = "below" if high < 0.1 else "above" if low > 0.1 else "crosses"
        assert row["cutoff_side"] == side
        assert ("crosses_cutoff" in row["reasons"]) == (side == "crosses")


def test_alarms_by_width_and_by_percentile(fitted, new, tmp_path):
    said, rows = applied(fitted, new, tmp_path, "--alarm-width", "0.05")
    assert said.document["result"]["alarm_threshold"] == 0.05
    for row in rows.values():
        assert ("wide" in row["reasons"].split(";")) == (round(float(row["width"]), 12) > 0.05)
    said, rows = applied(fitted, new, tmp_path, "--alarm-width", "100%")
    widest = said.document["result"]["alarm_threshold"]
    for row in rows.values():
        assert ("wide" in row["reasons"].split(";")) == (round(float(row["width"]), 12) > widest)


def test_the_triage_list_holds_the_alarmed_cases_worst_first(reference, tmp_path):
    applied(None, reference, tmp_path, "--triage", tmp_path / "triage.csv", artifact=reference / "ntr.npz")
    rows = read_rows(tmp_path / "triage.csv")
    assert tuple(rows[0]) == TRIAGE_COLUMNS
    assert [row["case"] for row in rows[:2]] == ["empty", "zero"]
    assert [row["rank"] for row in rows] == [str(i + 1) for i in range(len(rows))]
    widths = [float(row["width"]) for row in rows[2:]]
    assert widths == sorted(widths, reverse=True)


def test_cases_and_patients_of_the_fit_are_flagged(fitted, tmp_path):
    said, rows = applied(fitted, fitted[0], tmp_path)
    assert all(row["reasons"].split(";")[-1] == "in_calibration" for row in rows.values())
    assert any("the guarantee is for new patients" in warning for warning in said.document["warnings"])


def test_a_broken_file_has_a_row_and_the_others_are_done(fitted, new, tmp_path):
    for path in (new / "predictions").iterdir():
        (tmp_path / "in").mkdir(exist_ok=True)
        (tmp_path / "in" / path.name).write_bytes(path.read_bytes())
    (tmp_path / "in" / "p105.nii.gz").write_bytes(b"not a scan")
    said = segcal(
        "ntr-interval", "apply", fitted[0] / "ntr.npz", tmp_path / "in", *reading(new), "-o", tmp_path / "t.csv"
    )
    assert said.code == 8
    rows = {row["case"]: row for row in read_rows(tmp_path / "t.csv")}
    assert len(rows) == 12
    broken = rows.pop("p105")
    assert (broken["status"], broken["reasons"], broken["alarm"]) == ("failed", "failed", "true")
    assert "p105.nii.gz" in broken["error"]
    assert {row["status"] for row in rows.values()} == {"ok"}


def test_saturated_violated_and_cut_off_structures_are_flagged(fitted, tmp_path):
    root = tmp_path / "odd"
    hard, _ = tumour(200, sharpness=500.0)
    hard = (hard == hard.max(axis=0)).astype(np.float32)
    soft, _ = tumour(201)
    write_volume(root / "predictions" / "hard.nii.gz", hard)
    write_volume(root / "predictions" / "soft.nii.gz", soft)
    shifted = np.roll(soft, SHAPE[0] // 2, axis=1)
    write_volume(root / "predictions" / "edge.nii.gz", shifted)
    write_classes(root / "classes.json", **{name: value for value, name in enumerate(NAMES)})
    _, rows = applied(fitted, root, tmp_path)
    assert "saturated" in rows["hard"]["reasons"].split(";")
    assert "touches_border" in rows["edge"]["reasons"].split(";")


def test_weights_need_twenty_cases_and_change_thresholds_per_case(fitted, new, tmp_path):
    said, _ = applied(fitted, new, tmp_path, "--weighted")
    assert said.code == 2
    assert "--weighted needs 20 new cases, got 12" in said.stderr
    small = write_study(tmp_path / "small", range(300, 324), label=False, size=2.3)
    said, rows = applied(fitted, small, tmp_path, "--weighted", "--level", "0.8")
    result = said.document["result"]
    assert result["guarantee"].startswith("Approximate: In at least 80 %")
    assert not result["guaranteed"]
    assert result["weights"]["effective_n"] < 20
    assert all("low_effective_sample" in row["reasons"] for row in rows.values())
    assert len({row["weight"] for row in rows.values()}) > 1
    assert result["drift"]["n_new"] == 24


def test_drift_of_smaller_tumours_is_said_and_changes_no_interval(fitted, tmp_path):
    small = write_study(tmp_path / "small", range(300, 324), label=False, size=2.0)
    said, _ = applied(fitted, small, tmp_path)
    assert said.document["result"]["drift"]["shifted"]
    assert any("Over-confidence at equal size and softness would not show" in w for w in said.document["warnings"])
    few = write_study(tmp_path / "few", range(400, 409), label=False)
    said, _ = applied(fitted, few, tmp_path)
    assert said.document["result"]["drift"] is None


def test_without_a_grid_volumes_are_voxels_and_ml_cells_are_empty(tmp_path, fitted, new):
    for seed in range(12):
        p, label = tumour(seed)
        write_npz(tmp_path / "predictions" / f"p{seed:03}.npz", probabilities=p)
        write_npz(tmp_path / "labels" / f"p{seed:03}.npz", labels=label)
    write_classes(tmp_path / "classes.json", **{name: value for value, name in enumerate(NAMES)})
    said = segcal("ntr-interval", "fit", *arguments(tmp_path), *NTR, "-o", tmp_path / "v.npz", "--json")
    assert said.code == 0, said.stderr
    assert said.document["result"]["volume_unit"] == "voxel"
    said, rows = applied(None, tmp_path, tmp_path, artifact=tmp_path / "v.npz")
    assert said.code == 0, said.stderr
    row = rows["p000"]
    assert row["denominator_ml"] == row["voxel_mm3"] == ""
    assert float(row["denominator_voxels"]) > 10
    said, _ = applied(None, new, tmp_path, artifact=tmp_path / "v.npz")
    assert said.code == 5
    assert "was fitted on images without one (voxels)" in said.stderr


def test_a_region_of_interest_is_wanted_at_both_or_neither(fitted, new, tmp_path):
    root = write_study(tmp_path, range(12))
    mask = np.ones(SHAPE, np.uint8)
    mask[:, :, :3] = 0
    for seed in (*range(12), *range(100, 112)):
        write_volume(tmp_path / ("roi" if seed < 100 else "new_roi") / f"p{seed:03}.nii.gz", mask)
    said = segcal("ntr-interval", "fit", *arguments(root), *NTR, "--roi", root / "roi", "-o", root / "roi.npz")
    assert said.code == 0, said.stderr
    said, _ = applied(None, new, tmp_path, artifact=root / "roi.npz")
    assert said.code == 2
    assert "was fitted with a region of interest: give --roi FOLDER" in said.stderr
    said, _ = applied(fitted, new, tmp_path, "--roi", tmp_path / "new_roi")
    assert said.code == 2
    said, rows = applied(None, new, tmp_path, "--roi", tmp_path / "new_roi", artifact=root / "roi.npz")
    assert said.code == 0, said.stderr
    assert {row["voxels"] for row in rows.values()} == {str(float(mask.sum()))}
    _, whole = applied(fitted, new, tmp_path)
    assert all(float(rows[case]["denominator_ml"]) <= float(whole[case]["denominator_ml"]) for case in rows)


def test_kernel_errors_are_used_only_where_they_were_kept(fitted, new, tmp_path):
    said, _ = applied(fitted, new, tmp_path, "--method", "care", "--calibration-error", "kde")
    assert said.code == 5
    assert "fit again with --calibration-error kde" in said.stderr
    root = fitted[0]
    said = segcal("ntr-interval", "fit", *arguments(root), *NTR, "--calibration-error", "kde", "--method", "care",
                  "-o", tmp_path / "k.npz")  # fmt: skip
    assert said.code == 0, said.stderr
    said, _ = applied(None, new, tmp_path, artifact=tmp_path / "k.npz")
    result = said.document["result"]
    assert not result["guaranteed"]
    assert result["guarantee"].startswith("No guarantee: the kernel calibration error")


def test_the_calibrator_of_the_fit_is_wanted_at_apply_and_must_have_seen_other_cases(fitted, new, tmp_path):
    root = write_study(tmp_path / "cal", range(50, 62), prefix="c")
    said = segcal("calibrate", "fit", *arguments(root), "-o", tmp_path / "t.npz", "--no-summary")
    assert said.code == 0, said.stderr
    through = ("--calibrator", tmp_path / "t.npz")
    said = segcal("ntr-interval", "fit", *arguments(fitted[0]), *NTR, *through, "-o", tmp_path / "n.npz")
    assert said.code == 0, said.stderr
    assert applied(None, new, tmp_path, artifact=tmp_path / "n.npz")[0].code == 5
    assert applied(fitted, new, tmp_path, *through)[0].code == 5
    assert applied(None, new, tmp_path, *through, artifact=tmp_path / "n.npz")[0].code == 0
    said = segcal("ntr-interval", "fit", *arguments(root), *NTR, *through, "-o", tmp_path / "x.npz")
    assert said.code == 4
    assert "12 cases were used to fit" in said.stderr
    said = segcal("ntr-interval", "fit", *arguments(root), *NTR, *through, "--allow-overlap", "-o", tmp_path / "x.npz")
    assert said.code == 0
    assert read_artifact(tmp_path / "x.npz").header.spec["overlap_allowed"]


def test_patients_are_the_unit_of_every_count(tmp_path, new):
    root = write_study(tmp_path, range(24))
    groups = ("--groups", r"p0(\d)\d")
    said = segcal("ntr-interval", "fit", *arguments(root), *NTR, *groups, "-o", root / "g.npz", "--json")
    result = said.document["result"]
    assert (result["n_cases"], result["n_patients"]) == (24, 3)
    assert any("3 patients cannot give level 0.9" in warning for warning in said.document["warnings"])
    said, _ = applied(None, new, tmp_path, "--unit", "hcp", "--level", "0.6", artifact=root / "g.npz")
    assert "of new scans, one per patient," in said.document["result"]["guarantee"]


def test_a_region_model_gives_necrosis_as_core_minus_enhancing(tmp_path):
    for seed in range(12):
        p, label = tumour(seed)
        regions = np.stack([p[1] + p[2] + p[3], p[2] + p[3], p[3]])
        write_volume(tmp_path / "predictions" / f"p{seed:03}.nii.gz", np.minimum(regions, 1))
        write_volume(tmp_path / "labels" / f"p{seed:03}.nii.gz", label)
    write_classes(tmp_path / "classes.json", whole=[1, 2, 3], core=[2, 3], enhancing=[3])
    said = segcal(
        "ntr-interval", "fit", *arguments(tmp_path), "--activation", "sigmoid", "--numerator", "2", "--denominator",
        "whole", "-o", tmp_path / "r.npz", "--json",
    )  # fmt: skip
    assert said.code == 0, said.stderr
    assert said.document["result"]["numerator"]["expression"] == "max(p(core) - p(enhancing), 0)"
    said, rows = applied(None, tmp_path, tmp_path, "--activation", "sigmoid", artifact=tmp_path / "r.npz")
    p, _ = tumour(0)
    assert float(rows["p000"]["ratio"]) == pytest.approx(p[2].sum() / (1 - p[0]).sum(), rel=1e-4)
    said = segcal("ntr-interval", "fit", *arguments(tmp_path), "--activation", "sigmoid", "--numerator", "1,3",
                  "--denominator", "whole", "-o", tmp_path / "x.npz")  # fmt: skip
    assert said.code == 2
    assert "label values 1,3 cannot be made of these channels; possible are whole (1,2,3)" in said.stderr


# inspect, evaluate


def test_inspect_gives_the_ratio_in_words_and_thresholds_or_what_they_need(fitted):
    said = segcal("inspect", fitted[0] / "ntr.npz")
    assert said.code == 0
    assert "numerator   necrosis (label 2) = p(necrosis)" in said.stdout
    document = segcal("inspect", fitted[0] / "ntr.npz", "--json").document["result"]
    assert document["thresholds"]["care-guaranteed"]["0.95"] == "needs 39"
    assert set(document["thresholds"]) == {"nested", "joint", "care", "care-guaranteed", "cp"}


def test_evaluate_compares_all_methods_soft_and_hard_at_four_levels(fitted, new, tmp_path):
    said = segcal(
        "evaluate", *arguments(new), "--artifact", fitted[0] / "ntr.npz", "-o", tmp_path / "m.csv", "--json",
        "--ratio-tolerance", "0.02",
    )  # fmt: skip
    assert said.code == 0, said.stderr
    (entry,) = said.document["result"]["ntr_interval"]
    assert entry["n_ratio"] == entry["n_cases"] == 12
    soft = {(m["method"], m["level"]) for m in entry["methods"] if m["source"] == "soft"}
    assert soft == {
        (m, level) for m in ("nested", "joint", "care", "care-guaranteed", "cp") for level in (0.68, 0.8, 0.9)
    }
    assert len([m for m in entry["methods"] if m["source"] == "hard"]) == 9
    rows = read_rows(tmp_path / "m.ntr.methods.csv")
    assert len(rows) == len(entry["methods"])
    cases = read_rows(tmp_path / "m.ntr.cases.csv")
    for method, row in zip(entry["methods"], rows, strict=True):
        own = [
            c for c in cases
            if (c["method"], c["source"], float(c["level"])) == (method["method"], method["source"], method["level"])
        ]  # fmt: skip
        assert sum(c["covered"] == "true" for c in own) == method["covered"] == int(row["covered"])
        assert sum(c["alarm"] == "true" for c in own) == method["alarm"]["alarms"]


def test_evaluate_shows_before_and_after_calibration_in_one_run(fitted, new, tmp_path):
    root = write_study(tmp_path / "cal", range(50, 62), prefix="c")
    assert segcal("calibrate", "fit", *arguments(root), "-o", tmp_path / "temp.npz", "--no-summary").code == 0
    through = ("--calibrator", tmp_path / "temp.npz")
    assert segcal("ntr-interval", "fit", *arguments(fitted[0]), *NTR, *through, "-o", tmp_path / "after.npz").code == 0
    artifacts = [part for name in ("temp", "after") for part in ("--artifact", tmp_path / f"{name}.npz")]
    said = segcal(
        "evaluate", *arguments(new), *artifacts, "--artifact", fitted[0] / "ntr.npz", "-o", tmp_path / "m.csv", "--json"
    )
    assert said.code == 0, said.stderr
    before, after = sorted(said.document["result"]["ntr_interval"], key=lambda entry: entry["calibrator"] is not None)
    assert after["calibrator"] is not None
    assert before["r_bias"] != after["r_bias"]
    # The same numbers as where the calibrator stands in front of everything.
    said = segcal("evaluate", *arguments(new), *through, "--artifact", tmp_path / "after.npz", "-o", tmp_path / "n.csv",
                  "--json")  # fmt: skip
    (alone,) = said.document["result"]["ntr_interval"]
    assert alone["methods"] == after["methods"]


def test_evaluate_refuses_the_cases_of_the_fit_unless_told(fitted, tmp_path):
    measured = ("evaluate", *arguments(fitted[0]), "--artifact", fitted[0] / "ntr.npz", "-o", tmp_path / "m.csv")
    said = segcal(*measured)
    assert said.code == 4
    assert "20 cases were used to fit" in said.stderr
    said = segcal(*measured, "--allow-overlap", "--json")
    assert said.code == 0
    assert said.document["result"]["ntr_interval"][0]["in_sample"]


def test_an_artifact_of_another_kind_is_refused(fitted, new, tmp_path):
    said = segcal("calibrate", "apply", fitted[0] / "ntr.npz", new / "predictions", *reading(new), "-o", tmp_path / "o")
    assert said.code == 5
    assert "is an ntr-interval artifact; calibrate apply needs a calibrate artifact" in said.stderr


def test_a_damaged_table_is_refused(fitted, new, tmp_path):
    whole = read_artifact(fitted[0] / "ntr.npz")
    arrays = {name: array for name, array in whole.arrays.items() if name != "U_A"}
    write_artifact(tmp_path / "d.npz", Artifact(whole.header, arrays))
    said, _ = applied(None, new, tmp_path, artifact=tmp_path / "d.npz")
    assert said.code == 5
    assert "its table of cases is damaged" in said.stderr


def test_documents_are_strict_json(fitted, new, tmp_path):
    said, _ = applied(fitted, new, tmp_path)
    json.loads(said.stdout, parse_constant=lambda name: pytest.fail(name))


def test_reliability_draws_a_dot_for_every_scored_case(fitted, new, tmp_path):
    plots = ("ntr-intervals", "ntr-widths", "ntr-bias", "ntr-width-error")
    said = segcal(
        "reliability", *arguments(new), "--artifact", fitted[0] / "ntr.npz", "--plots", ",".join(plots),
        "--format", "svg", "-o", tmp_path / "out", "--json",
    )  # fmt: skip
    assert said.code == 0, said.stderr
    for plot in plots:
        assert (tmp_path / "out" / f"{plot}__ntr.svg").is_file()
    rows = read_rows(tmp_path / "out" / "ntr-intervals__ntr.csv")
    assert [row["method"] for row in rows] == ["nested"] * 12 + ["care"] * 12 + ["cp"] * 12
    measured = segcal("evaluate", *arguments(new), "--artifact", fitted[0] / "ntr.npz", "-o", tmp_path / "m.csv")
    assert measured.code == 0
    cases = {
        (row["method"], row["case"]): row
        for row in read_rows(tmp_path / "m.ntr.cases.csv")
        if row["source"] == "soft" and row["level"] == "0.9"
    }
    for row in rows:
        expected = cases[row["method"], row["case"]]
        assert all(
            row[name] == expected[name] for name in ("ratio", "ratio_low", "ratio_high", "ratio_label", "covered")
        )
    assert "Intervals of the ratio" in (tmp_path / "out" / "report.html").read_text(encoding="utf-8")
