"""``segcal evaluate``: what is written and said, for whole inputs and for every kind of trouble."""

from __future__ import annotations

import json
import math
import shutil
from dataclasses import replace
from pathlib import Path

import jsonschema
import numpy as np
import pytest
from scipy import stats

from segcal_cli.io import nifti
from tests.cli.builders import (
    AFFINE,
    SHAPE,
    make_folders,
    make_scans,
    read_rows,
    segcal,
    sigmoid,
    softmax,
    write_classes,
    write_npz,
    write_predictions,
    write_volume,
)

SCHEMA = json.loads((Path(__file__).parent / "schemas" / "evaluate.json").read_text())

TABLE = (
    "source, case, group, class, n_voxels, n_label, n_predicted, ece, ace, mce, mce_bin, n_bins, adaptive_ece, "
    "smooth_ece, kde_ece, brier, nll, brier_mcb, brier_dsc, brier_unc, nll_mcb, nll_dsc, nll_unc, volume_bias, "
    "volume_bias_ml, dice, iou, at_zero, at_one, near_zero, near_one, wrong_at_zero, wrong_at_one, n_classes, top_ece, "
    "top_ace, top_mce, accuracy, joint_nll, joint_brier"
)

COLUMNS = {
    "m": TABLE,
    "summary": "source, class, average, metric, mean, std, median, q25, q75, low, high, n",
    "comparison": "metric, class, source, best, mean, n, n_zero, median_difference, p_wilcoxon, p_holm, p_ttest, "
    "better_in, bold, pareto",
    "bins": "source, case, class, bin, lower, upper, n, mean_probability, frequency, gap",
}

GIVEN = ("--values", "probabilities")


def outputs(folder):
    """The options of every output, each in ``folder``."""
    folder.mkdir(exist_ok=True)
    return (
        *("-o", folder / "m.csv", "--summary", folder / "summary.csv", "--comparison", folder / "comparison.csv"),
        *("--bin-table", folder / "bins.csv", "--histograms", folder / "counts.npz"),
    )


@pytest.fixture(scope="module")
def data(tmp_path_factory):
    return make_folders(tmp_path_factory.mktemp("data"))


@pytest.fixture(scope="module")
def other(data):
    """The same scans by a model that knows how sure it may be."""
    return write_predictions(data.root / "honest", data.scans, sharpness=1.0)


@pytest.fixture(scope="module")
def artifact(data, tmp_path_factory):
    """A temperature, fitted on other scans."""
    fitted = make_folders(tmp_path_factory.mktemp("fit"), make_scans(4, seed=9))
    for part in (fitted.predictions, fitted.labels):
        for path in part.iterdir():
            path.rename(path.with_name(f"fit_{path.name}"))
    path = fitted.root / "temperature.npz"
    assert segcal("calibrate", "fit", *fitted.arguments, *GIVEN, "--no-summary", "-o", path, "-q").code == 0
    return path


@pytest.fixture(scope="module")
def whole(data, other, artifact, tmp_path_factory):
    """A run with three sources and every output: (folder, what was said)."""
    folder = tmp_path_factory.mktemp("whole")
    run = ("evaluate", *data.arguments, *GIVEN, "--artifact", f"T={artifact}", "--also", f"honest={other}", "--json")
    return folder, segcal(*run, *outputs(folder))


def evaluate(data, folder, *more):
    return segcal("evaluate", *data.arguments, *GIVEN, "-o", folder / "m.csv", *more)


# What comes out


@pytest.mark.parametrize("name", COLUMNS)
def test_tables_have_their_columns_in_order(whole, name):
    header = (whole[0] / f"{name}.csv").read_text().splitlines()[0]
    assert header == COLUMNS[name].replace(" ", "")


def test_the_table_is_sorted_by_source_case_and_class(whole):
    rows = [(row["source"], row["case"], row["class"]) for row in read_rows(whole[0] / "m.csv")]
    classes = ["background", "class1", "class2", "(all)"]
    assert rows == [(s, f"case_{i:02d}", c) for s in ("raw", "T", "honest") for i in range(8) for c in classes]


def test_scans_of_one_patient_without_groups_are_warned_of_and_other_ids_are_not(whole, tmp_path):
    assert "no --groups" not in whole[1].stderr
    scans = [replace(scan, name=f"p{n // 2}_t{n % 2}") for n, scan in enumerate(make_scans(4))]
    data = make_folders(tmp_path / "visits", scans)
    said = evaluate(data, tmp_path)
    assert "warning: no --groups: each case is taken as a patient of its own, and p0_t0 and p0_t1 look" in said.stderr
    assert "no --groups" not in evaluate(data, tmp_path, "--groups", r"^p\d", "--overwrite").stderr


def test_the_document_of_success_fits_the_schema(whole):
    assert whole[1].code == 0
    jsonschema.validate(whole[1].document, SCHEMA)


def test_a_copy_of_a_prediction_is_warned_about_with_and_without_artifacts(tmp_path, artifact):
    data = make_folders(tmp_path / "data", make_scans(3, seed=4))
    for part in (data.predictions, data.labels):
        first = min(part.iterdir())
        shutil.copy(first, first.with_name(first.name.replace("case_00", "copy")))
    for more in ((), ("--artifact", artifact)):
        ran = evaluate(data, tmp_path, *more, "--overwrite")
        assert "case_00 and copy hold the same prediction" in ran.stderr


def test_every_undefined_number_of_the_document_has_a_reason(whole):
    def walk(value):
        if isinstance(value, dict):
            for key, item in value.items():
                assert item is not None or value.get(f"{key}_reason"), key
                walk(item)
        elif isinstance(value, list):
            for item in value:
                walk(item)

    walk(whole[1].document["result"])


def test_the_table_and_the_document_hold_the_same_numbers(whole):
    table = {(r["source"], r["case"], r["class"]): r for r in read_rows(whole[0] / "m.csv")}
    for source in whole[1].document["result"]["sources"]:
        for case in source["cases"]:
            for name, row in [*case["classes"].items(), ("(all)", case["all"])]:
                written = table[source["name"], case["case"], name]
                for key, value in row.items():
                    if not key.endswith("_reason"):
                        assert written[key] == ("" if value is None else repr(value)), key


def test_every_source_is_measured_on_the_same_voxels(whole):
    rows = read_rows(whole[0] / "m.csv")
    assert {row["n_voxels"] for row in rows} == {str(math.prod(SHAPE))}
    per_source = [[row["n_label"] for row in rows if row["source"] == name] for name in ("raw", "T", "honest")]
    assert per_source[0] == per_source[1] == per_source[2]


def test_numbers_are_those_of_plain_numpy(data, whole):
    p = nifti.read(nifti.probe(data.predictions / "case_00.nii.gz"))[1].astype(np.float64)
    y = data.scans[0].labels == 1
    k = np.ceil(p * 20).astype(int).clip(1) - 1
    gaps = [abs(p[k == m].mean() - y[k == m].mean()) for m in range(20) if (k == m).any()]
    row = next(r for r in read_rows(whole[0] / "m.csv") if (r["source"], r["class"]) == ("raw", "class1"))
    assert float(row["ace"]) == pytest.approx(np.mean(gaps), abs=1e-12)
    assert float(row["brier"]) == pytest.approx(((p - y) ** 2).mean(), abs=1e-12)
    assert float(row["volume_bias_ml"]) == pytest.approx(
        (p - y).sum() * 0.8 * 1.1 * 2.5 / 1000, rel=1e-6
    )  # affines are float32


def test_the_comparison_is_a_paired_wilcoxon_test_against_the_best(whole):
    cases = {s: [] for s in ("raw", "T", "honest")}
    for row in read_rows(whole[0] / "m.csv"):
        if row["class"] == "(all)":
            cases[row["source"]].append(float(row["ece"]))
    rows = {
        r["source"]: r for r in read_rows(whole[0] / "comparison.csv") if (r["metric"], r["class"]) == ("ece", "(all)")
    }
    best = min(cases, key=lambda name: np.mean(cases[name]))
    assert rows["raw"]["best"] == best != "raw"
    expected = stats.wilcoxon(np.subtract(cases["raw"], cases[best])).pvalue
    assert float(rows["raw"]["p_wilcoxon"]) == pytest.approx(expected, rel=1e-12)
    assert rows[best]["p_wilcoxon"] == ""
    assert (rows["raw"]["n"], rows["raw"]["bold"]) == ("8", "false")
    assert float(rows["raw"]["p_holm"]) == pytest.approx(2 * expected, rel=1e-12)


def test_the_pareto_front_is_in_document_and_table(whole):
    fronts = {entry["class"]: entry["front"] for entry in whole[1].document["result"]["pareto"]}
    assert set(fronts) == {"background", "class1", "class2", "(all)"}
    on = {
        r["source"] for r in read_rows(whole[0] / "comparison.csv") if r["class"] == "(all)" and r["pareto"] == "true"
    }
    assert on == set(fronts["(all)"])
    assert "raw" not in on


def test_bins_add_up_to_the_voxels_and_to_the_error(whole):
    bins = [r for r in read_rows(whole[0] / "bins.csv") if (r["source"], r["class"]) == ("raw", "class2")]
    one = [r for r in bins if r["case"] == "case_03"]
    assert [r["bin"] for r in one] == [str(m) for m in range(20)]
    assert sum(int(r["n"]) for r in one) == math.prod(SHAPE)
    error = sum(int(r["n"]) * float(r["gap"]) for r in one if r["gap"]) / math.prod(SHAPE)
    table = read_rows(whole[0] / "m.csv")
    row = next(r for r in table if (r["source"], r["case"], r["class"]) == ("raw", "case_03", "class2"))
    assert error == pytest.approx(float(row["ece"]), abs=1e-8)
    pooled = [r for r in bins if r["case"] == "(micro)"]
    assert sum(int(r["n"]) for r in pooled) == 8 * math.prod(SHAPE)


def test_tables_for_people_name_the_conventions_the_unit_and_n(whole):
    said = whole[1].stderr
    for words in ("20 bins, right-closed", "empty bins: skip", "absent classes: include", "8 patients (8 cases)"):
        assert words in said
    assert "0 absent (case, class) pairs" in said
    assert "Descriptive measures; no coverage guarantee. Intervals: bootstrap over 8 patients" in said
    assert "Sources compared, (all)" in said


# The same bytes


def files_of(folder):
    return {path.name: path.read_bytes() for path in folder.iterdir()}


def test_saved_histograms_give_every_file_and_document_again(whole, tmp_path):
    folder, said = whole
    again = segcal("evaluate", "--from", folder / "counts.npz", "--json", *outputs(tmp_path / "again"))
    assert again.stdout == said.stdout
    assert files_of(tmp_path / "again") == files_of(folder)


def test_jobs_and_the_order_of_files_change_no_byte(data, other, artifact, whole, tmp_path):
    """Files are copied in reverse order, so that the file system lists them another way."""
    for part in ("predictions", "labels", "honest"):
        (tmp_path / part).mkdir()
        for path in sorted((data.root / part).iterdir(), reverse=True):
            shutil.copy(path, tmp_path / part / path.name)
    run = ("evaluate", tmp_path / "predictions", tmp_path / "labels", "--classes", data.classes, *GIVEN, "--json")
    run = (*run, "--artifact", f"T={artifact}", "--also", f"honest={tmp_path / 'honest'}", "-j", "2")
    said = segcal(*run, *outputs(tmp_path / "out"))
    assert said.stdout == whole[1].stdout
    assert files_of(tmp_path / "out") == files_of(whole[0])


def test_intervals_of_saved_histograms_are_drawn_anew(whole, tmp_path):
    said = segcal("evaluate", "--from", whole[0] / "counts.npz", "-o", tmp_path / "m.csv", "--level", 0.5, "--json")
    wide = whole[1].document["result"]["sources"][0]["macro"]["all"]["ece"]
    narrow = said.document["result"]["sources"][0]["macro"]["all"]["ece"]
    assert wide["mean"] == narrow["mean"]
    assert wide["low"] < narrow["low"] < narrow["high"] < wide["high"]


@pytest.mark.parametrize(
    ("option", "words"),
    [
        (("--bins", "10"), "was measured with --bins = 20, not 10"),
        (("--closed", "left"), "was measured with --closed = right, not left"),
        (("--convention", "rousseau"), "was measured with --closed = right, not left"),
        (("--metrics", "+kde_ece"), "not kde_ece; measure again from the images"),
        (("--artifact", "x.npz"), "--from brings its own sources; --artifact cannot be given beside it"),
        (("--also", "a=b"), "--from brings its own sources; --also cannot be given beside it"),
    ],
)
def test_what_saved_histograms_cannot_give_is_a_usage_error(whole, tmp_path, option, words):
    said = segcal("evaluate", "--from", whole[0] / "counts.npz", "-o", tmp_path / "m.csv", *option)
    assert said.code == 2
    assert words in said.closing
    assert not (tmp_path / "m.csv").exists()


def test_fewer_measures_of_saved_histograms_will_do(whole, tmp_path):
    said = segcal(
        "evaluate", "--from", whole[0] / "counts.npz", "-o", tmp_path / "m.csv", "--metrics", "ece,dice", "-q"
    )
    assert said.code == 0
    row = read_rows(tmp_path / "m.csv")[0]
    full = read_rows(whole[0] / "m.csv")[0]
    assert (row["ece"], row["dice"], row["ace"]) == (full["ece"], full["dice"], "")


def test_images_beside_saved_histograms_are_a_usage_error(data, whole, tmp_path):
    said = evaluate(data, tmp_path, "--from", whole[0] / "counts.npz")
    assert (said.code, said.closing[:20]) == (2, "segcal: give either ")
    assert segcal("evaluate", "-o", tmp_path / "m.csv").code == 2


def test_an_artifact_of_another_kind_is_no_saved_histogram(artifact, tmp_path):
    said = segcal("evaluate", "--from", artifact, "-o", tmp_path / "m.csv", "--json")
    assert said.code == 5
    assert "is a calibrate artifact; --from needs a evaluation artifact" in said.closing.replace(" an ", " a ")
    jsonschema.validate(said.document, SCHEMA)


# Conventions and measures


def first(folder, **where):
    return next(row for row in read_rows(folder / "m.csv") if all(row[k] == v for k, v in where.items()))


def test_a_convention_sets_what_no_flag_says(data, tmp_path):
    said = evaluate(data, tmp_path, "--convention", "barfoot", "--bins", "10", "--json", "-q")
    options = said.document["result"]["options"]
    assert (options["bins"], options["closed"], options["decision"], options["convention"]) == (
        10,
        "right",
        "threshold",
        "barfoot",
    )


def test_conventions_that_a_class_table_has_no_use_for_are_refused(tmp_path):
    scans = [
        replace(scan, logits=scan.logits[1:2], labels=(scan.labels == 1).astype(np.uint8)) for scan in make_scans(3)
    ]
    data = make_folders(tmp_path / "one", scans)
    for option, value, why in (
        ("--decision", "argmax", "each class is decided by itself, by p > 0.5"),
        ("--background", "include", "no background is measured by itself"),
    ):
        run = evaluate(data, tmp_path, option, value)
        assert (run.code, f"{option} {value} means nothing here: {why}" in run.closing) == (2, True)


def test_the_conventions_of_the_kernel_estimate_and_of_no_intervals_are_said(data, tmp_path):
    kernel = ("--metrics", "ece,kde_ece", "--kde-sample", "50", "--kde-bandwidth", "0.1")
    said = evaluate(data, tmp_path, *kernel, "--bootstrap", "0", "--bins", "1").stderr
    assert "all voxels; kde_ece: 50 voxels of a case, bandwidth 0.1." in said
    assert " 1 bin, right-closed" in said
    assert "Descriptive measures; no coverage guarantee. No intervals." in said
    said = evaluate(data, tmp_path, "--metrics", "ece,kde_ece", "--kde-sample", "50", "--overwrite").stderr
    assert "kde_ece: 50 voxels of a case, the likeliest bandwidth." in said


def test_the_convention_of_rousseau_needs_a_region(data, tmp_path):
    said = evaluate(data, tmp_path, "--convention", "rousseau")
    assert (said.code, said.closing) == (
        2,
        "segcal: --convention rousseau measures inside a region of interest: give --roi FOLDER (exit 2)",
    )
    for scan in data.scans:
        write_volume(
            tmp_path / "roi" / f"{scan.name}.nii.gz",
            (np.arange(math.prod(SHAPE)) % 3 > 0).reshape(SHAPE).astype(np.uint8),
        )
    said = evaluate(data, tmp_path, "--convention", "rousseau", "--roi", tmp_path / "roi", "--json")
    options = said.document["result"]["options"]
    assert (options["bins"], options["closed"], options["empty_dice"], options["roi"]) == (20, "left", "one", True)
    assert "ece [%]" in said.stderr
    assert "voxels of the region of interest" in said.stderr
    assert first(tmp_path, source="raw")["n_voxels"] == str(264)


def test_classification_shows_the_most_probable_class_first_over_all_voxels(data, tmp_path):
    said = evaluate(data, tmp_path, "--convention", "classification")
    headings = [line.split() for line in said.stderr.splitlines() if line.startswith("source")]
    assert headings[0][1:4] == ["top_ece", "top_ace", "top_mce"]
    assert headings[1][1:4] == ["class", "ece", "ace"]
    assert "All voxels pooled (micro)" in said.stderr
    assert "15 bins, right-closed" in said.stderr


@pytest.mark.parametrize(
    ("text", "there", "empty"),
    [
        ("dice,iou", ("dice", "iou"), ("ece", "nll", "top_ece", "at_zero")),
        ("-nll_mcb", ("nll", "nll_dsc", "ece"), ("nll_mcb", "kde_ece")),
        ("+kde_ece", ("kde_ece", "ece", "nll_mcb"), ()),
    ],
)
def test_measures_are_chosen(data, tmp_path, text, there, empty):
    sample = ("--kde-sample", "60") if "kde_ece" in text else ()
    assert evaluate(data, tmp_path, "--metrics", text, *sample, "-q").code == 0
    row = first(tmp_path, source="raw", **{"class": "(all)"})
    assert all(row[key] for key in there)
    assert not any(row[key] for key in empty)
    assert row["n_voxels"]


@pytest.mark.parametrize("text", ["dise", "dice,+ece", "", "+nothing"])
def test_measures_that_do_not_exist_are_usage_errors(data, tmp_path, text):
    said = evaluate(data, tmp_path, "--metrics", text)
    assert said.code == 2
    assert "--metrics" in said.closing


def test_an_unknown_measure_lists_the_known(data, tmp_path):
    said = evaluate(data, tmp_path, "--metrics", "dise")
    assert "--metrics dise: no such measure; known are ece, ace, mce, " in said.closing


def test_the_kernel_estimate_depends_on_the_seed_and_on_the_bandwidth_alone(data, tmp_path):
    values = {}
    for name, more in {
        "a": (),
        "again": ("-j", "2"),
        "seed": ("--seed", "1"),
        "wide": ("--kde-bandwidth", "0.5"),
    }.items():
        evaluate(data, tmp_path, "--overwrite", "--metrics", "kde_ece", "--kde-sample", "50", "-q", *more)
        values[name] = [row["kde_ece"] for row in read_rows(tmp_path / "m.csv")]
    assert values["a"] == values["again"]
    assert values["a"] != values["seed"]
    assert values["a"] != values["wide"]


@pytest.mark.parametrize(
    "option",
    [
        ("--bins", "0"),
        ("--bins", "1201"),
        ("--level", "1"),
        ("--bootstrap", "-1"),
        ("--kde-sample", "1"),
        ("--kde-bandwidth", "wide"),
        ("--kde-bandwidth", "-1"),
        ("--also", "no-name"),
        ("--also", "raw=elsewhere"),
        ("--no-raw",),
        ("--summary", "m.csv"),
    ],
)
def test_impossible_options_are_usage_errors_before_anything_is_read(data, tmp_path, monkeypatch, option):
    monkeypatch.chdir(tmp_path)
    said = segcal("evaluate", *data.arguments, *GIVEN, "-o", "m.csv", *option, "--json")
    assert said.code == 2
    jsonschema.validate(said.document, SCHEMA)
    assert list(tmp_path.iterdir()) == []


def test_another_folder_without_a_name_is_told_so(data, tmp_path):
    said = evaluate(data, tmp_path, "--also", "elsewhere")
    assert (said.code, said.closing) == (2, "segcal: --also elsewhere: give it a name, NAME=FOLDER (exit 2)")


def test_with_one_bin_the_error_is_the_size_of_the_bias(data, tmp_path):
    assert evaluate(data, tmp_path, "--bins", "1", "-q").code == 0
    for row in read_rows(tmp_path / "m.csv"):
        if row["class"] != "(all)":
            assert float(row["ece"]) == pytest.approx(abs(float(row["volume_bias"])), abs=1e-12)


def test_no_bootstrap_means_no_intervals_and_says_why(data, tmp_path):
    said = evaluate(data, tmp_path, "--bootstrap", "0", "--json", "-q")
    spread = said.document["result"]["sources"][0]["macro"]["all"]["ece"]
    assert (spread["low"], spread["low_reason"]) == (None, "no resamples (--bootstrap 0)")
    assert said.document["result"]["sources"][0]["micro_interval"]["all"]["ece"] is None


# Several folders


def test_folders_of_different_cases_list_what_each_lacks(data, other, tmp_path):
    shutil.copytree(other, tmp_path / "few")
    (tmp_path / "few" / "case_02.nii.gz").unlink()
    (tmp_path / "few" / "case_05.nii.gz").rename(tmp_path / "few" / "case_99.nii.gz")
    said = evaluate(data, tmp_path, "--also", f"few={tmp_path / 'few'}", "--json")
    assert said.code == 4
    assert "few lacks case_02, case_05, which raw has" in said.stderr
    assert "raw lacks case_99, which few has" in said.stderr
    assert not (tmp_path / "m.csv").exists()
    jsonschema.validate(said.document, SCHEMA)


def test_a_folder_of_other_classes_is_refused(data, tmp_path):
    two = write_predictions(tmp_path / "two", make_scans(8, 2))
    (tmp_path / "two" / "dataset.json").write_text(json.dumps({"labels": {"background": 0, "tumour": 1}}))
    (data.root / "dataset.json").unlink(missing_ok=True)
    shutil.copytree(data.predictions, tmp_path / "three")
    table = {"labels": {"background": 0, "class1": 1, "class2": 2}}
    (tmp_path / "three" / "dataset.json").write_text(json.dumps(table))
    said = segcal("evaluate", tmp_path / "three", data.labels, *GIVEN, "--also", f"two={two}", "-o", tmp_path / "m.csv")
    assert said.code == 4
    assert "has the classes background=0; tumour=1 (exclusive); the first folder has" in said.closing


def test_a_folder_on_turned_axes_is_turned_back(data, other, tmp_path):
    """The same numbers with x counted from the other side: every column is the same but for the last digit."""
    turned = AFFINE.copy()
    turned[0, 0] *= -1
    turned[0, 3] = AFFINE[0, 0] * (SHAPE[2] - 1)
    for scan in data.scans:
        p = np.ascontiguousarray(softmax(scan.logits * 2.0)[..., ::-1])
        write_volume(tmp_path / "turned" / f"{scan.name}.nii.gz", p, turned)
    said = evaluate(data, tmp_path, "--also", f"turned={tmp_path / 'turned'}", "-q")
    assert said.code == 0
    rows = read_rows(tmp_path / "m.csv")
    half = len(rows) // 2
    for raw, other_row in zip(rows[:half], rows[half:], strict=True):
        assert raw | {"source": "turned"} == other_row


def test_a_folder_on_another_grid_is_refused(data, tmp_path):
    shifted = AFFINE.copy()
    shifted[0, 3] = 5.0
    for scan in data.scans:
        write_volume(tmp_path / "moved" / f"{scan.name}.nii.gz", softmax(scan.logits), shifted)
    said = evaluate(data, tmp_path, "--also", f"moved={tmp_path / 'moved'}")
    assert said.code == 4
    assert len([line for line in said.stderr.splitlines() if "mm" in line]) == 8


def test_what_one_model_did_not_predict_is_left_out_of_the_calibration_of_all(tmp_path):
    """nnU-Net writes certain background outside its crop; the other model predicted the whole grid."""
    scans = make_scans(6, shape=(6, 12, 12))
    data = make_folders(tmp_path / "data", scans)
    for scan in scans:
        p = softmax(scan.logits)
        full = np.zeros_like(p)
        full[0] = 1.0
        full[:, 1:5, 2:10, 2:10] = p[:, 1:5, 2:10, 2:10]
        write_npz(tmp_path / "cropped" / f"{scan.name}.npz", probabilities=full)
    said = evaluate(data, tmp_path, "--also", f"cropped={tmp_path / 'cropped'}")
    assert said.code == 0, said.stderr
    rows = read_rows(tmp_path / "m.csv")
    assert {row["n_voxels"] for row in rows} == {str(4 * 8 * 8)}
    assert "padding outside the model's crop: 70.4 % of the voxels" in said.stderr


def test_a_broken_file_of_one_folder_stops_the_run_or_takes_the_case_from_all(data, other, tmp_path):
    shutil.copytree(other, tmp_path / "torn")
    torn = tmp_path / "torn" / "case_04.nii.gz"
    torn.write_bytes(torn.read_bytes()[:200])
    more = ("--also", f"torn={tmp_path / 'torn'}", "--json")
    assert evaluate(data, tmp_path, *more).code == 4
    said = evaluate(data, tmp_path, *more, "--on-failure", "continue")
    assert said.code == 8
    jsonschema.validate(said.document, SCHEMA)
    assert said.document["failures"][0]["case"] == "case_04"
    assert said.document["counts"] == {"cases": 8, "done": 7, "failed": 1}
    for source in said.document["result"]["sources"]:
        assert [case["case"] for case in source["cases"]] == [f"case_{i:02d}" for i in range(8) if i != 4]


def test_other_folders_alone_can_be_measured(data, other, tmp_path):
    assert evaluate(data, tmp_path, "--no-raw", "--also", f"honest={other}", "-q").code == 0
    assert {row["source"] for row in read_rows(tmp_path / "m.csv")} == {"honest"}


def test_two_folders_of_one_model_differ_in_nothing(data, tmp_path):
    said = evaluate(data, tmp_path, "--also", f"same={data.predictions}", "--json", "-q")
    rows = [row for row in said.document["result"]["comparison"] if row["source"] != row["best"]]
    assert {row["p_wilcoxon"] for row in rows} == {row["p_ttest"] for row in rows} == {1.0}
    assert all(row["bold"] and row["n_zero"] == row["n"] for row in rows)


def test_labels_of_a_case_table_serve_every_folder(data, other, tmp_path):
    lines = [
        f"{s.name},{data.predictions / s.name}.nii.gz,{data.labels / s.name}.nii.gz,p{i // 2}"
        for i, s in enumerate(data.scans)
    ]
    (tmp_path / "cases.csv").write_text("\n".join(["case,prediction,label,group", *lines]) + "\n")
    said = evaluate(data, tmp_path, "--cases", tmp_path / "cases.csv", "--also", f"honest={other}", "--json", "-q")
    assert (said.document["result"]["n_cases"], said.document["result"]["n_groups"]) == (8, 4)
    assert "with fewer than 6" in said.document["result"]["comparison_note"]


# Few patients


def test_with_fewer_than_six_patients_only_the_best_is_marked_and_words_say_so(tmp_path):
    data = make_folders(tmp_path / "data", make_scans(5))
    other = write_predictions(tmp_path / "other", data.scans, sharpness=1.9)
    said = evaluate(data, tmp_path, "--also", f"other={other}", "--json")
    rows = said.document["result"]["comparison"]
    assert all(row["bold"] == (row["source"] == row["best"]) for row in rows)
    assert "5 patients: with fewer than 6 no two-sided signed-rank test can reach p < 0.05" in said.stderr


def test_a_single_case_has_no_spread_no_interval_and_no_comparison(tmp_path):
    data = make_folders(tmp_path / "data", make_scans(1))
    other = write_predictions(tmp_path / "other", data.scans, sharpness=1.0)
    said = evaluate(data, tmp_path, "--also", f"other={other}", "--json")
    assert said.code == 0
    assert "one patient: no standard deviation, no interval and no comparison" in said.stderr
    result = said.document["result"]
    spread = result["sources"][0]["macro"]["all"]["ece"]
    assert (spread["std"], spread["low"], spread["high"], spread["n"]) == (None, None, None, 1)
    assert (result["comparison"], result["comparison_note"]) == ([], "One patient: no comparison.")
    jsonschema.validate(said.document, SCHEMA)


def test_patients_not_cases_are_counted(data, tmp_path):
    """Two cases of a patient: their mean is one value of the summary."""
    pairs = "".join(f"{scan.name},p{i // 2}\n" for i, scan in enumerate(data.scans))
    (tmp_path / "groups.csv").write_text(f"case,group\n{pairs}")
    said = evaluate(data, tmp_path, "--groups", tmp_path / "groups.csv", "--json")
    result = said.document["result"]
    assert (result["n_cases"], result["n_groups"]) == (8, 4)
    assert "4 patients (8 cases)" in said.stderr
    errors = [case["all"]["ece"] for case in result["sources"][0]["cases"]]
    spread = result["sources"][0]["macro"]["all"]["ece"]
    patients = np.reshape(errors, (4, 2)).mean(axis=1)
    assert (spread["mean"], spread["std"]) == pytest.approx((patients.mean(), patients.std(ddof=1)), rel=1e-12)


# In-sample


def test_cases_that_an_artifact_was_fitted_on_are_refused_by_name(data, tmp_path):
    own = tmp_path / "own.npz"
    segcal("calibrate", "fit", *data.arguments, *GIVEN, "--no-summary", "-o", own, "-q")
    said = evaluate(data, tmp_path, "--artifact", f"T={own}", "--json")
    assert said.code == 4
    assert f"8 cases were used to fit {own}: case_00, case_01" in said.closing
    jsonschema.validate(said.document, SCHEMA)

    said = evaluate(data, tmp_path, "--artifact", f"T={own}", "--allow-overlap", "--json")
    assert said.code == 0
    assert [s["in_sample"] for s in said.document["result"]["sources"]] == [False, True]
    assert {r["in_sample"] for r in said.document["result"]["comparison"] if r["source"] == "T"} == {True}
    assert "T†" in said.stderr
    assert "† fitted on some of these cases: in-sample" in said.stderr


def test_an_in_sample_source_bears_its_dagger_in_every_table_and_none_in_the_document(data, tmp_path):
    own = tmp_path / "own.npz"
    segcal("calibrate", "fit", *data.arguments, *GIVEN, "--no-summary", "-o", own, "-q")
    into = tmp_path / "o"
    given = (*data.arguments, *GIVEN, "--artifact", f"T={own}", "--allow-overlap")
    said = segcal("evaluate", *given, *outputs(into), "--json")
    assert said.code == 0, said.stderr
    for table in COLUMNS:
        assert {row["source"] for row in read_rows(into / f"{table}.csv")} == {"raw", "T†"}
    assert {row["best"] for row in read_rows(into / "comparison.csv")} <= {"raw", "T†"}
    assert {row["source"] for row in said.document["result"]["comparison"]} == {"raw", "T"}


# What a stored type cannot say


def test_voxels_of_their_class_at_probability_0_are_counted_in_a_warning(tmp_path):
    scans = make_scans(6, 3)
    data = make_folders(tmp_path / "data", scans)
    coarse = tmp_path / "coarse"
    lost = np.zeros(3, int)
    for scan in scans:
        p = softmax(scan.logits)
        sure = p.max(axis=0) > 0.6
        p[:, sure] = np.eye(3, dtype=np.float32)[p.argmax(axis=0)[sure]].T
        write_volume(coarse / f"{scan.name}.nii.gz", p)
        lost += [np.count_nonzero((scan.labels == k) & (p[k] == 0)) for k in range(3)]
    assert lost.all()
    words = (
        f"{lost.sum()} voxels of a class have probability 0 of it (background {lost[0]}, class1 {lost[1]}, class2 "
        f"{lost[2]}); nll takes them at the smallest step of the stored type"
    )
    given = ("--classes", data.classes, *GIVEN, "-o", tmp_path / "a.csv", "--json")
    assert segcal("evaluate", coarse, data.labels, *given).document["warnings"] == [f"raw: {words}"]
    beside = ("--also", f"coarse={coarse}", "--json")
    several = f"coarse: {words}; a coarser type has a higher floor, so its nll looks better"
    assert evaluate(data, tmp_path, *beside).document["warnings"] == [several]
    assert evaluate(data, tmp_path, *beside, "--metrics", "ece,dice", "--overwrite").document["warnings"] == []


def test_voxels_outside_the_only_class_at_probability_1_are_counted_too(tmp_path):
    scans = make_scans(6, 1)
    data = make_folders(tmp_path / "data", scans)
    coarse = tmp_path / "coarse"
    zeros = ones = 0
    for scan in scans:
        p = np.rint(sigmoid(scan.logits[0]))
        p.flat[0] = 0.5  # or it would be a hard mask
        write_volume(coarse / f"{scan.name}.nii.gz", p)
        zeros += np.count_nonzero((p == 0) & (scan.labels == 1))
        ones += np.count_nonzero((p == 1) & (scan.labels == 0))
    given = ("--classes", data.classes, *GIVEN, "-o", tmp_path / "a.csv", "--json")
    assert segcal("evaluate", coarse, data.labels, *given).document["warnings"] == [
        f"raw: {zeros} voxels of a class have probability 0 of it and {ones} voxels outside a class have probability 1 "
        "of it; nll takes them at the smallest step of the stored type"
    ]


def test_models_that_are_stored_differently_go_side_by_side(tmp_path):
    scans = make_scans(6, 3)
    data = make_folders(tmp_path / "data", scans)
    logits, told = tmp_path / "logits", tmp_path / "told"
    for scan in scans:
        write_volume(logits / f"{scan.name}.nii.gz", scan.logits)
        write_npz(told / f"{scan.name}.npz", probabilities=softmax(scan.logits))
        write_volume(told / f"{scan.name}.nii.gz", scan.logits.argmax(axis=0).astype(np.uint8))
    given = (data.labels, "--classes", data.classes, "--values", "logits", "--json")
    for name, first, other in (("a", logits, told), ("b", told, logits)):
        said = segcal("evaluate", first, *given, "--also", f"other={other}", "-o", tmp_path / f"{name}.csv")
        assert said.code == 0, said.stderr
        (raw, beside) = said.document["result"]["sources"]
        for measure in ("ece", "nll", "dice"):
            found = [source["macro"]["all"][measure]["mean"] for source in (raw, beside)]
            assert found[0] == pytest.approx(found[1], rel=1e-5)


@pytest.mark.parametrize("command", ["evaluate", "merge"])
def test_a_table_is_not_written_under_the_name_of_an_archive(command, data, tmp_path):
    output = tmp_path / "all.npz"
    if command == "merge":
        parts = [tmp_path / f"part{number}.npz" for number in (1, 2)]
        for number, part in enumerate(parts, 1):
            segcal("evaluate", *data.arguments, *GIVEN, "--shard", f"{number}/2", "-o", part)
        said = segcal("merge", *parts, "-o", output)
    else:
        said = segcal("evaluate", *data.arguments, *GIVEN, "-o", output)
    assert said.code == 2
    assert f"-o {output} is the table of cases, as CSV; counts to go on from are written by --histograms {output}" in (
        said.closing
    )
    assert not output.exists()


# Voxels and classes


def test_a_class_absent_from_all_cases_is_measured_and_named(tmp_path):
    scans = make_scans(6)
    data = make_folders(tmp_path / "data", scans)
    for scan in scans:
        write_volume(data.labels / f"{scan.name}.nii.gz", np.minimum(scan.labels, 1))
    said = evaluate(data, tmp_path, "--json")
    assert said.document["warnings"] == ["class class2 occurs in no label"]
    assert len(said.document["result"]["absent"]) == 6
    assert "6 absent (case, class) pairs" in said.stderr
    row = first(tmp_path, **{"class": "class2"})
    assert float(row["ece"]) > 0
    assert row["dice"] == "0.0"
    said = evaluate(data, tmp_path, "--json", "--overwrite", "--absent", "skip", "-q")
    row = said.document["result"]["sources"][0]["cases"][0]["classes"]["class2"]
    assert (row["ece"], row["ece_reason"]) == (None, "no label holds the class (--absent skip)")
    assert said.document["result"]["sources"][0]["cases"][0]["all"]["n_classes"] == 1
    jsonschema.validate(said.document, SCHEMA)


def test_two_empty_masks_have_no_dice_or_one_by_convention(tmp_path):
    scans = make_scans(6, 1)
    data = make_folders(tmp_path / "data", scans)
    for scan in scans:
        write_volume(data.predictions / f"{scan.name}.nii.gz", sigmoid(scan.logits)[0] / 3)
        write_volume(data.labels / f"{scan.name}.nii.gz", np.zeros_like(scan.labels))
    said = evaluate(data, tmp_path, "--json", "-q")
    row = said.document["result"]["sources"][0]["cases"][0]["classes"]["lesion"]
    assert (row["dice"], row["dice_reason"]) == (None, "neither label nor prediction holds the class")
    assert said.document["result"]["sources"][0]["macro"]["classes"]["lesion"]["dice"]["n"] == 0
    evaluate(data, tmp_path, "--overwrite", "--empty-dice", "one", "-q")
    assert first(tmp_path, **{"class": "lesion"})["dice"] == "1.0"


def test_truth_everywhere_leaves_no_uncertainty(tmp_path):
    scans = make_scans(6, 1)
    data = make_folders(tmp_path / "data", scans)
    for scan in scans:
        write_volume(data.labels / f"{scan.name}.nii.gz", np.ones_like(scan.labels))
    assert evaluate(data, tmp_path, "-q").code == 0
    row = first(tmp_path, **{"class": "lesion"})
    assert [float(row[key]) for key in ("brier_unc", "brier_dsc", "nll_unc", "nll_dsc")] == [0, 0, 0, 0]
    assert float(row["ece"]) > 0


def test_a_group_without_a_value_in_one_source_is_dropped_from_the_pairs(tmp_path):
    """Nothing is there in case_00, and only one of the models says so: Dice is undefined for it alone."""
    scans = make_scans(7, 1)
    data = make_folders(tmp_path / "data", scans)
    other = write_predictions(tmp_path / "other", scans, sharpness=1.0)
    write_volume(data.labels / "case_00.nii.gz", np.zeros(SHAPE, np.uint8))
    write_volume(other / "case_00.nii.gz", sigmoid(scans[0].logits)[0] / 3)
    said = evaluate(data, tmp_path, "--also", f"other={other}", "--json", "-q")
    rows = said.document["result"]["comparison"]
    assert {row["metric"]: row["n"] for row in rows if row["source"] != row["best"]}["dice"] == 6
    assert {row["metric"]: row["n"] for row in rows if row["source"] != row["best"]}["ece"] == 7


def test_a_region_without_voxels_is_an_error_of_the_case(data, tmp_path):
    for scan in data.scans:
        keep = np.full(SHAPE, int(scan.name != "case_03"), np.uint8)
        write_volume(tmp_path / "roi" / f"{scan.name}.nii.gz", keep)
    said = evaluate(data, tmp_path, "--roi", tmp_path / "roi")
    assert said.code == 4
    assert "case_03" in said.stderr
    said = evaluate(data, tmp_path, "--roi", tmp_path / "roi", "--on-failure", "continue", "--json", "-q")
    assert (said.code, said.document["failures"][0]["case"]) == (8, "case_03")
    more = ("--roi", tmp_path / "roi", "--on-failure", "continue", "--histograms", tmp_path / "h.npz")
    again = evaluate(data, tmp_path, *more, "--overwrite", "--json", "-q")
    saved = segcal("evaluate", "--from", tmp_path / "h.npz", "-o", tmp_path / "s.csv", "--json", "-q")
    assert (saved.code, saved.document["result"]) == (8, again.document["result"])
    assert (tmp_path / "s.csv").read_bytes() == (tmp_path / "m.csv").read_bytes()
    assert saved.document["failures"][0]["case"] == "case_03"
    assert str(tmp_path).encode() not in (tmp_path / "h.npz").read_bytes().replace(b"\0", b"")


def test_an_ignore_label_that_leaves_no_voxel_is_an_error_of_the_case(data, tmp_path):
    shutil.copytree(data.labels, tmp_path / "labels")
    write_volume(tmp_path / "labels" / "case_02.nii.gz", np.full(SHAPE, 9, np.uint8))
    run = (
        "evaluate",
        data.predictions,
        tmp_path / "labels",
        "--classes",
        data.classes,
        *GIVEN,
        "-o",
        tmp_path / "m.csv",
    )
    said = segcal(*run, "--ignore-label", "9")
    assert said.code == 4
    assert "case_02: the region of interest and the ignore label leave no voxel to measure" in said.stderr


@pytest.mark.parametrize(
    ("spoil", "words"),
    [
        (lambda p: np.where(p == p.max(), np.nan, p), "NaN and 0 infinite values, first at"),
        (lambda p: p * 3.0, "are not probabilities; logits? --values logits"),
        (lambda p: p * 0.9, "channels sum to 0.9"),
        (lambda p: np.log(p + 1e-3) + 9, "are not probabilities; logits? --values logits"),
    ],
)
def test_numbers_that_are_no_probabilities_are_refused(data, tmp_path, spoil, words):
    shutil.copytree(data.predictions, tmp_path / "bad")
    write_volume(tmp_path / "bad" / "case_01.nii.gz", spoil(softmax(data.scans[1].logits)).astype(np.float32))
    said = segcal(
        "evaluate", tmp_path / "bad", data.labels, "--classes", data.classes, *GIVEN, "-o", tmp_path / "m.csv"
    )
    assert said.code == 4
    assert "case_01.nii.gz" in said.stderr
    assert words in said.stderr
    assert not (tmp_path / "m.csv").exists()


def test_a_label_that_the_table_does_not_know_is_refused(data, tmp_path):
    shutil.copytree(data.labels, tmp_path / "labels")
    write_volume(tmp_path / "labels" / "case_06.nii.gz", data.scans[6].labels + np.uint8(1))
    said = segcal(
        "evaluate", data.predictions, tmp_path / "labels", "--classes", data.classes, *GIVEN, "-o", tmp_path / "m.csv"
    )
    assert said.code == 4
    assert "label 3" in said.stderr


def test_a_missing_label_is_refused_and_no_case_is_exit_3(data, tmp_path):
    shutil.copytree(data.labels, tmp_path / "labels")
    (tmp_path / "labels" / "case_06.nii.gz").unlink()
    run = (
        "evaluate",
        data.predictions,
        tmp_path / "labels",
        "--classes",
        data.classes,
        *GIVEN,
        "-o",
        tmp_path / "m.csv",
    )
    said = segcal(*run, "--json")
    assert (said.code, "1 prediction has no label: case_06" in said.closing) == (4, True)
    for path in (tmp_path / "labels").iterdir():
        path.rename(path.with_name(f"x{path.name}"))
    said = segcal(*run, "--json")
    assert said.code == 3
    jsonschema.validate(said.document, SCHEMA)


def test_a_class_called_all_is_refused(data, tmp_path):
    table = write_classes(tmp_path / "classes.json", **{"background": 0, "(all)": 1, "class2": 2})
    said = segcal("evaluate", data.predictions, data.labels, "--classes", table, *GIVEN, "-o", tmp_path / "m.csv")
    assert said.code == 2
    assert f"{table}: class table: a class cannot be called (all)" in said.closing


def test_a_name_for_several_exclusive_classes_is_measured_as_their_union(data, artifact, tmp_path):
    table = write_classes(tmp_path / "classes.json", background=0, class1=1, class2=2, lesion=[1, 2])
    run = ("evaluate", data.predictions, data.labels, "--classes", table, *GIVEN, "--metrics", "+kde_ece")
    more = ("--kde-sample", "40", "--artifact", f"T={artifact}", "--histograms", tmp_path / "h.npz")
    said = segcal(*run, *more, "-o", tmp_path / "m.csv", "--json")
    assert said.code == 0, said.stderr
    jsonschema.validate(said.document, SCHEMA)
    assert said.document["result"]["classes"] == ["background", "class1", "class2", "lesion"]
    union, background = (first(tmp_path, source="raw", **{"class": name}) for name in ("lesion", "background"))
    assert float(union["ece"]) == pytest.approx(float(background["ece"]), abs=0.02)
    assert float(union["volume_bias"]) == pytest.approx(-float(background["volume_bias"]), abs=1e-7)
    assert float(union["brier"]) == pytest.approx(float(background["brier"]), abs=1e-6)
    saved = segcal("evaluate", "--from", tmp_path / "h.npz", "-o", tmp_path / "again.csv", "--json")
    assert saved.stdout == said.stdout


# Hard masks


def hard_masks(data, folder):
    for scan in data.scans:
        write_volume(folder / f"{scan.name}.nii.gz", scan.logits.argmax(axis=0).astype(np.uint8))
    return folder


def test_label_maps_are_refused_for_calibration_and_taken_for_overlap(data, tmp_path):
    masks = hard_masks(data, tmp_path / "masks")
    run = ("evaluate", masks, data.labels, "--classes", data.classes, "-o", tmp_path / "m.csv")
    assert segcal(*run, *GIVEN).code == 4
    said = segcal(*run, "--metrics", "dice,iou")
    assert said.code == 0, said.stderr
    scan = data.scans[0]
    hard = scan.logits.argmax(axis=0) == 1
    expected = 2 * (hard & (scan.labels == 1)).sum() / (hard.sum() + (scan.labels == 1).sum())
    assert float(first(tmp_path, **{"class": "class1"})["dice"]) == pytest.approx(expected, rel=1e-12)


def test_soft_and_hard_predictions_of_one_model_have_one_dice(data, tmp_path):
    masks = hard_masks(data, tmp_path / "masks")
    said = evaluate(data, tmp_path, "--also", f"hard={masks}", "--metrics", "dice,iou", "-q")
    assert said.code == 0, said.stderr
    rows = read_rows(tmp_path / "m.csv")
    half = len(rows) // 2
    assert [row["dice"] for row in rows[:half]] == [row["dice"] for row in rows[half:]]


def test_a_folder_of_zeros_and_ones_is_refused_beside_a_soft_one(data, tmp_path):
    for scan in data.scans:
        one_hot = np.eye(3, dtype=np.float32)[scan.logits.argmax(axis=0)].transpose(3, 0, 1, 2)
        write_volume(tmp_path / "hard" / f"{scan.name}.nii.gz", np.ascontiguousarray(one_hot))
    said = evaluate(data, tmp_path, "--also", f"hard={tmp_path / 'hard'}")
    assert said.code == 4
    assert "8 of 8 predictions hold only 0 and 1" in said.closing


# Outputs


def test_outputs_that_exist_are_not_replaced_unasked(data, tmp_path):
    (tmp_path / "s.csv").write_text("mine")
    said = evaluate(data, tmp_path, "--summary", tmp_path / "s.csv")
    assert (said.code, (tmp_path / "s.csv").read_text()) == (2, "mine")
    assert evaluate(data, tmp_path, "--summary", tmp_path / "s.csv", "--overwrite", "-q").code == 0


def test_outputs_among_the_inputs_are_refused(data, other, tmp_path):
    for folder in (data.predictions, data.labels, other):
        said = evaluate(data, tmp_path, "--also", f"honest={other}", "--histograms", folder / "h.npz")
        assert said.code == 2
        assert "the next run would read its own outputs" in said.closing
        assert not (folder / "h.npz").exists()


def test_quiet_success_says_nothing(data, tmp_path):
    said = evaluate(data, tmp_path, "-q")
    assert (said.code, said.stdout, said.stderr) == (0, "", "")
