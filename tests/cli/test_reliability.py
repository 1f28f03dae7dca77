"""``segcal reliability``: pictures, their numbers against those of ``evaluate``, the report, and every refusal."""

from __future__ import annotations

import re
from dataclasses import replace

import numpy as np
import pytest

from segcal_cli.core.observer import Recorder, Silent
from segcal_cli.workflows import reliability
from segcal_cli.workflows.pictures import PLOTS, draw
from segcal_cli.workflows.requests import IntervalOptions, MeasureOptions, SourceOptions
from segcal_cli.workflows.saved_studies import load_study
from segcal_cli.workflows.scene import Scene
from tests.cli.builders import make_folders, make_scans, read_rows, segcal, write_predictions

GIVEN = ("--values", "probabilities")

SMALL = (*GIVEN, "--min-voxels", "5", "--show-cases", "worst:1,best:1", "--bootstrap", "200")

NAME = re.compile(r"[a-z]+(-[a-z]+)?__[^_]+__[^_]+(__case_\d\d)?\.(csv|svg|png|pdf)")


@pytest.fixture(scope="module")
def data(tmp_path_factory):
    """Eight scans of one lesion."""
    return make_folders(tmp_path_factory.mktemp("data"), make_scans(classes=1))


@pytest.fixture(scope="module")
def honest(data):
    return write_predictions(data.root / "honest", data.scans, sharpness=1.0)


@pytest.fixture(scope="module")
def drawn(data, honest, tmp_path_factory):
    """The folder of a run of two sources, and what it said."""
    folder = tmp_path_factory.mktemp("out") / "pictures"
    sources = ("--also", f"honest={honest}")
    said = segcal(
        "reliability", *data.arguments, *SMALL, *sources, "--dpi", "60", "--json",
        "-o", folder,
    )  # fmt: skip
    assert said.code == 0, said.stderr
    return folder, said


@pytest.fixture(scope="module")
def measured(data, honest, tmp_path_factory):
    """The tables of ``evaluate`` on the same sources."""
    folder = tmp_path_factory.mktemp("tables")
    said = segcal(
        "evaluate", *data.arguments, *GIVEN, "--also", f"honest={honest}", "--bootstrap", "200",
        "-o", folder / "m.csv", "--bin-table", folder / "bins.csv", "--summary", folder / "summary.csv",
        "--histograms", folder / "counts.npz", "-q",
    )  # fmt: skip
    assert said.code == 0, said.stderr
    return folder


def rows_of(drawn, stem):
    return read_rows(drawn[0] / f"{stem}.csv")


def bin_rows(measured, source, case):
    return [row for row in read_rows(measured / "bins.csv") if (row["source"], row["case"]) == (source, case)]


def shown_cases(drawn):
    return sorted({path.stem.split("__")[3] for path in drawn[0].glob("case-diagram__*.csv")})


# What is written.


def test_every_plot_is_there_in_every_format_with_its_numbers(drawn):
    folder, said = drawn
    names = {path.name for path in folder.iterdir()} - {"report.html"}
    assert all(NAME.fullmatch(name) for name in names), names
    stems = {name.rpartition(".")[0] for name in names}
    assert {f"{stem}.{ending}" for stem in stems for ending in ("csv", "svg", "png")} == names
    assert {stem.split("__")[0] for stem in stems} == set(PLOTS)
    listed = [file for picture in said.document["result"]["pictures"] for file in picture["files"]]
    assert sorted(listed) == sorted(names)


def test_a_second_run_in_two_processes_writes_the_same_bytes(data, honest, drawn, tmp_path):
    again = tmp_path / "again"
    said = segcal(
        "reliability", *data.arguments, *SMALL, "--also", f"honest={honest}", "--dpi", "60",
        "-o", again, "-q", "-j", "2",
    )  # fmt: skip
    assert said.code == 0, said.stderr
    assert {path.name: path.read_bytes() for path in again.iterdir()} == {
        path.name: path.read_bytes() for path in drawn[0].iterdir()
    }


def test_saved_histograms_give_the_same_pictures(measured, drawn, tmp_path):
    folder = tmp_path / "saved"
    said = segcal(
        "reliability", "--from", measured / "counts.npz", "--min-voxels", "5", "--show-cases", "worst:1,best:1",
        "--format", "svg", "--dpi", "60", "-o", folder, "-q",
    )  # fmt: skip
    assert said.code == 0, said.stderr
    for path in folder.iterdir():
        if path.name != "report.html":
            assert path.read_bytes() == (drawn[0] / path.name).read_bytes(), path.name


def test_stdout_is_silent_and_the_report_is_named_without_json(data, tmp_path):
    said = segcal("reliability", *data.arguments, *GIVEN, "--plots", "mass", "-o", tmp_path / "out")
    assert said.stdout == ""
    assert "1 pictures" not in said.stderr
    assert f"1 picture in {tmp_path / 'out'}; start with {tmp_path / 'out' / 'report.html'}" in said.stderr


def test_only_the_plots_and_formats_that_are_asked_for_are_written(data, tmp_path):
    said = segcal(
        "reliability", *data.arguments, *GIVEN, "--plots", "mass,corp", "--format", "pdf", "-o", tmp_path / "o", "-q"
    )
    assert said.code == 0
    assert sorted(path.name for path in (tmp_path / "o").iterdir()) == [
        "corp__lesion__raw.csv", "corp__lesion__raw.pdf", "mass__all__raw.csv", "mass__all__raw.pdf", "report.html",
    ]  # fmt: skip
    assert (tmp_path / "o" / "report.html").read_text().count("<svg") == 2


# Numbers, against evaluate.


@pytest.mark.parametrize("source", ["raw", "honest"])
def test_case_diagrams_show_the_bins_of_the_case(drawn, measured, source):
    for case in shown_cases(drawn):
        shown = rows_of(drawn, f"case-diagram__lesion__{source}__{case}")
        expected = bin_rows(measured, source, case)
        keys = ("n", "lower", "upper", "mean_probability", "frequency", "gap")
        assert [[row[key] for key in keys] for row in shown] == [[row[key] for key in keys] for row in expected]


def test_the_cases_shown_are_the_worst_and_the_best_by_ace_of_the_first_source(drawn, measured):
    ace = {
        row["case"]: float(row["ace"])
        for row in read_rows(measured / "m.csv")
        if row["source"] == "raw" and row["class"] == "(all)"
    }
    ranked = sorted(ace, key=ace.get)
    assert shown_cases(drawn) == sorted([ranked[0], ranked[-1]])


def test_the_data_set_diagram_shows_pooled_bins_within_their_band(drawn, measured):
    shown, expected = rows_of(drawn, "dataset-diagram__lesion__raw"), bin_rows(measured, "raw", "(micro)")
    assert [row["frequency"] for row in shown] == [row["frequency"] for row in expected]
    assert [row["n"] for row in shown] == [row["n"] for row in expected]
    for row in shown:
        assert float(row["confidence_low"]) <= float(row["frequency"]) <= float(row["confidence_high"])
        assert float(row["consistency_low"]) <= float(row["mean_probability"]) <= float(row["consistency_high"])


def test_the_histogram_counts_cases_with_enough_voxels(drawn, measured):
    shown = rows_of(drawn, "dataset-histogram__lesion__raw")
    for m in range(20):
        values = [row for row in read_rows(measured / "bins.csv") if row["source"] == "raw" and row["bin"] == str(m)]
        enough = [row for row in values if row["case"] != "(micro)" and int(row["n"]) >= 5]
        column = [row for row in shown if row["bin"] == str(m)]
        assert {row["cases_in_column"] for row in column} == {str(len(enough))}
        assert sum(int(row["cases"]) for row in column) == len(enough)


def test_violins_and_mean_curves_show_the_frequencies_of_cases(drawn, measured):
    frequency = {
        (row["source"], row["case"], row["bin"]): row["frequency"]
        for row in read_rows(measured / "bins.csv")
        if row["case"] != "(micro)" and int(row["n"]) >= 5
    }
    shown = rows_of(drawn, "case-violin__lesion__all")
    assert {(row["source"], row["case"], row["bin"]): row["frequency"] for row in shown} == frequency
    for row in rows_of(drawn, "mean-curve__lesion__all"):
        values = [float(v) for (source, _, m), v in frequency.items() if (source, m) == (row["source"], row["bin"])]
        assert int(row["cases"]) == len(values)
        if values:
            assert float(row["mean"]) == pytest.approx(np.mean(values))
            assert float(row["q75"]) == pytest.approx(np.quantile(values, 0.75))


def test_box_plots_and_scatters_show_the_table(drawn, measured):
    table = [row for row in read_rows(measured / "m.csv") if row["class"] == "lesion"]
    for plot in ("boxplot", "case-scatter"):
        shown = rows_of(drawn, f"{plot}__lesion__all")
        for key in ("source", "case", "ece", "ace", "mce", "dice"):
            assert [row[key] for row in shown] == [row[key] for row in table]


def test_the_pareto_picture_shows_macro_means_and_intervals(drawn, measured):
    summary = {
        (row["source"], row["metric"]): row
        for row in read_rows(measured / "summary.csv")
        if row["class"] == "lesion" and row["average"] == "macro"
    }
    shown = rows_of(drawn, "pareto__lesion__all")
    assert [row["source"] for row in shown] == ["raw", "honest"]
    for row in shown:
        dice, ece = summary[row["source"], "dice"], summary[row["source"], "ece"]
        assert [row["dice"], row["dice_low"], row["dice_high"]] == [dice["mean"], dice["low"], dice["high"]]
        assert float(row["ece_percent"]) == pytest.approx(100 * float(ece["mean"]))
        assert float(row["ece_percent_low"]) == pytest.approx(100 * float(ece["low"]))
    # Sharpening leaves every decision as it is, so the source with the lower error alone is on the front.
    assert [row["on_front"] for row in shown] == ["false", "true"]


def test_the_corp_curve_rises_within_its_band_and_is_flat_where_it_must(drawn):
    rows = rows_of(drawn, "corp__lesion__honest")
    curve = np.array([[float(row["p"]), float(row["frequency"])] for row in rows if row["curve"] == "corp"])
    band = np.array([[float(row[key]) for key in ("p", "low", "high")] for row in rows if row["curve"] == "band"])
    assert (np.diff(curve, axis=0) >= 0).all()
    at = np.interp(band[:, 0], *curve.T)
    assert ((band[:, 1] - 0.05 <= at) & (at <= band[:, 2] + 0.05)).mean() > 0.95


def test_the_mass_picture_counts_pooled_voxels(drawn, measured):
    shown = rows_of(drawn, "mass__all__raw")
    assert [row["n"] for row in shown] == [row["n"] for row in bin_rows(measured, "raw", "(micro)")]


# Conventions.


def test_pictures_have_the_classes_that_are_averaged_and_their_mean(tmp_path):
    three = make_folders(tmp_path / "three", make_scans(3))
    for flags, classes in (
        ((), ["class1", "class2"]),
        (("--background", "include"), ["background", "class1", "class2"]),
    ):
        folder = tmp_path / f"out{len(classes)}"
        said = segcal(
            "reliability", *three.arguments, *GIVEN, *flags, "--plots", "boxplot", "--format", "svg", "-o", folder, "-q"
        )
        assert said.code == 0, said.stderr
        expected = sorted(f"boxplot__{name}__all.csv" for name in ("all", *classes))
        assert sorted(path.name for path in folder.glob("*.csv")) == expected


def test_a_caption_names_bins_closure_rules_unit_and_numbers(data, tmp_path):
    said = segcal(
        "reliability", *data.arguments, *GIVEN, "--bins", "10", "--closed", "left", "--plots", "mean-curve", "--json",
        "--groups", r"case_0(\d)", "--format", "svg", "-o", tmp_path / "out",
    )  # fmt: skip
    assert said.code == 0, said.stderr
    options = said.document["result"]["options"]
    assert (options["bins"], options["closed"], options["min-voxels"]) == ("10", "left", "20")
    text = (tmp_path / "out" / "report.html").read_text()
    assert "10 bins, left-closed; empty bins: skip; absent classes: include" in text


def test_few_patients_have_no_bands_and_one_case_is_drawn_too(tmp_path):
    few = make_folders(tmp_path / "few", make_scans(1, classes=1))
    folder = tmp_path / "out"
    said = segcal("reliability", *few.arguments, *GIVEN, "--format", "svg", "-o", folder, "-q")
    assert said.code == 0, said.stderr
    rows = read_rows(folder / "dataset-diagram__lesion__raw.csv")
    assert {row["consistency_low"] for row in rows} == {row["confidence_low"] for row in rows} == {""}
    assert {row["curve"] for row in read_rows(folder / "corp__lesion__raw.csv")} <= {"corp", "smooth"}


def test_without_resamples_there_is_no_confidence_band(data, tmp_path):
    said = segcal(
        "reliability", *data.arguments, *GIVEN, "--bootstrap", "0", "--plots", "dataset-diagram,corp,pareto",
        "--format", "svg", "-o", tmp_path / "o", "-q",
    )  # fmt: skip
    assert said.code == 0, said.stderr
    rows = read_rows(tmp_path / "o" / "dataset-diagram__lesion__raw.csv")
    assert {row["confidence_low"] for row in rows} == {""}
    assert any(row["consistency_low"] for row in rows)
    assert read_rows(tmp_path / "o" / "pareto__lesion__all.csv")[0]["dice_low"] == ""


def test_a_source_fitted_on_these_cases_bears_a_dagger(data, tmp_path):
    path = tmp_path / "t.npz"
    assert segcal("calibrate", "fit", *data.arguments, *GIVEN, "--no-summary", "-o", path, "-q").code == 0
    common = (
        "reliability",
        *data.arguments,
        *GIVEN,
        "--artifact",
        path,
        "--plots",
        "boxplot",
        "-o",
        tmp_path / "o",
        "--format",
        "svg",
    )
    assert segcal(*common).code == 4
    said = segcal(*common, "--allow-overlap", "--json")
    assert said.code == 0
    assert [source["in_sample"] for source in said.document["result"]["sources"]] == [False, True]
    page = (tmp_path / "o" / "report.html").read_text()
    assert "t†" in page
    assert "fitted on some of these cases" in page
    assert {row["source"] for row in read_rows(tmp_path / "o" / "boxplot__lesion__all.csv")} == {"raw", "t†"}


def test_mostly_exact_voxels_are_said_in_the_report(tmp_path):
    sure = make_folders(tmp_path / "sure", make_scans(2, classes=1), sharpness=60.0)
    said = segcal(
        "reliability", *sure.arguments, *GIVEN, "--plots", "mass", "--format", "svg", "-o", tmp_path / "o", "-q"
    )
    assert said.code == 0, said.stderr
    assert "of the voxels are exactly 0 or 1" in (tmp_path / "o" / "report.html").read_text()


# Absent classes.


@pytest.fixture(scope="module")
def partly(tmp_path_factory):
    """Seven scans; no label holds class3, and case_02 does not hold class2."""
    scans = make_scans(7, classes=4)
    made = []
    for number, scan in enumerate(scans):
        gone = (2, 3) if number == 2 else (3,)
        made.append(replace(scan, labels=np.where(np.isin(scan.labels, gone), 0, scan.labels).astype(np.uint8)))
    return make_folders(tmp_path_factory.mktemp("partly"), made)


@pytest.fixture(scope="module")
def skipped(partly, tmp_path_factory):
    folder = tmp_path_factory.mktemp("skipped")
    said = segcal(
        "reliability", *partly.arguments, *GIVEN, "--absent", "skip", "--show-cases", "case_01,case_02", "--format",
        "svg", "--bootstrap", "50", "--min-voxels", "1", "-o", folder / "o", "-v",
    )  # fmt: skip
    assert said.code == 0, said.stderr
    return folder / "o", said


def test_a_case_that_is_skipped_for_lack_of_a_class_has_no_diagram_of_it(skipped):
    folder, said = skipped
    drawn = sorted(path.stem for path in folder.glob("case-diagram__*.svg"))
    assert drawn == [
        f"case-diagram__{name}__raw__case_0{i}" for name, i in (("class1", 1), ("class1", 2), ("class2", 1))
    ]
    line = "case-diagram of case_01 (class3), case_02 (class2), case_02 (class3) is not drawn: the case does not hold"
    assert line in said.stderr
    assert line in (folder / "report.html").read_text()


def test_of_a_class_that_no_label_holds_only_what_is_defined_is_drawn(skipped):
    folder, said = skipped
    assert sorted(path.stem for path in folder.glob("*__class3__*.svg")) == ["boxplot__class3__all"]
    assert list(read_rows(folder / "boxplot__class3__all.csv")[0]) == ["source", "case", "dice"]
    for plot in ("dataset-diagram", "corp", "dataset-histogram", "case-violin", "mean-curve"):
        assert f"{plot} of class3 is not drawn: no label holds the class, and --absent skip" in said.stderr
    assert "boxplot of class3 (ECE), class3 (ACE), class3 (MCE) is not drawn: no case has a value" in said.stderr
    assert "case-scatter of class3 is not drawn: no case has both Dice and ECE" in said.stderr
    assert "pareto of class3 is not drawn: no source has both Dice and ECE" in said.stderr


def test_pooled_pictures_hold_every_case_and_say_so_where_single_cases_are_skipped(skipped, partly, tmp_path):
    folder, _ = skipped
    said = segcal(
        "reliability", *partly.arguments, *GIVEN, "--format", "svg", "--bootstrap", "50", "--min-voxels", "1",
        "--plots", "dataset-diagram,corp,mass", "-o", tmp_path / "o", "-q",
    )  # fmt: skip
    assert said.code == 0, said.stderr
    for plot in ("dataset-diagram__class2__raw", "corp__class2__raw", "mass__all__raw"):
        assert (folder / f"{plot}.csv").read_bytes() == (tmp_path / "o" / f"{plot}.csv").read_bytes()
    kept = {row["case"] for row in read_rows(folder / "case-violin__class2__raw.csv")}
    assert kept == {f"case_0{i}" for i in (0, 1, 3, 4, 5, 6)}


def captions(scene, plots):
    heard = Recorder(Silent())
    return {picture.stem: picture.caption for picture in draw(scene, plots, heard)}


@pytest.mark.parametrize("absent", ["include", "skip"])
def test_captions_name_the_rules_that_a_picture_rests_on(partly, tmp_path, absent):
    counts = tmp_path / "counts.npz"
    said = segcal(
        "evaluate", *partly.arguments, *GIVEN, "--absent", absent, "--histograms", counts, "-o", tmp_path / "m.csv",
        "--bootstrap", "50", "-q",
    )  # fmt: skip
    assert said.code == 0, said.stderr
    evaluation = load_study(counts, SourceOptions(saved=counts), MeasureOptions(), IntervalOptions()).evaluation
    found = captions(Scene(evaluation, (), 1), ("dataset-diagram", "corp", "mean-curve", "pareto"))
    pooled = "pooled like all others (skip concerns single cases)" if absent == "skip" else "include"
    bins = "20 bins, right-closed; empty bins: skip; absent classes: "
    assert f"{bins}{pooled}; all voxels." in found["dataset-diagram__class2__raw"]
    assert f" Absent classes: {pooled}; all voxels." in found["corp__class2__raw"]
    assert "20 bins" not in found["corp__class2__raw"]
    assert f"{bins}{absent}; all voxels." in found["mean-curve__class2__raw"]
    assert "A deviation without a cap goes on beyond 0 or 1." in found["mean-curve__class2__raw"]
    cases = "6" if absent == "skip" else "7"
    assert f"Unit: case, n = {cases}, of 7 patients." in found["mean-curve__class2__raw"]
    n = "6 to 7" if absent == "skip" else "7"
    assert f"with a value, n = {n}, of 7 cases of 7 patients." in found["pareto__class2__all"]
    heard = Recorder(Silent())
    many = replace(evaluation, sources=[replace(evaluation.sources[0], name=f"s{i}") for i in range(13)])
    assert list(draw(Scene(many, (), 1), (), heard)) == []
    assert heard.warnings[0].startswith("13 sources, and 12 combinations of colour and marker")


def test_a_measure_that_few_cases_have_is_shown_with_their_number(skipped):
    page = (skipped[0] / "report.html").read_text()
    assert "Medians of raw: ECE (n = 6)" in page


# Interrupted.


def test_an_interrupt_while_drawing_counts_pictures_and_leaves_no_half_report(data, tmp_path, monkeypatch):
    common = (
        "reliability",
        *data.arguments,
        *GIVEN,
        "--plots",
        "mass,boxplot",
        "--format",
        "svg",
        "-o",
        tmp_path / "o",
    )
    real, done = reliability.write_files, []

    def write(folder, files):
        if done:
            raise KeyboardInterrupt
        done.append(real(folder, files))
        return done[0]

    with monkeypatch.context() as patched:
        patched.setattr(reliability, "write_files", write)
        said = segcal(*common)
    assert (said.code, said.closing) == (130, "segcal: interrupted after 1 of 2 pictures (exit 130)")
    assert done
    assert list((tmp_path / "o").iterdir()) == []
    assert segcal(*common, "-q").code == 0


def test_what_a_killed_run_left_is_no_output(data, tmp_path):
    left = tmp_path / "o" / ".filling.tmp-file-0123456789ab"
    left.mkdir(parents=True)
    (left / "mass__all__raw.csv").write_text("half")
    said = segcal(
        "reliability", *data.arguments, *GIVEN, "--plots", "mass", "--format", "svg", "-o", tmp_path / "o", "-q"
    )
    assert said.code == 0, said.stderr
    assert (tmp_path / "o" / "report.html").exists()


# Refusals.


@pytest.mark.parametrize(
    ("flags", "text"),
    [
        (("--plots", "violin"), "--plots violin: not known; known are dataset-diagram, mass"),
        (("--plots", ","), "--plots ',': not known"),
        (("--format", "svg,gif"), "--format gif: not known; known are svg, png, pdf"),
        (("--dpi", "5"), "--dpi 5 is not allowed; it must be from 50 to 1200"),
        (("--min-voxels", "-1"), "--min-voxels -1 is not allowed"),
        (("--show-cases", "worst:1,case_9"), "--show-cases: case_9 is no case; give worst:N, median:N, best:N, all"),
        (("--metrics", "ece,dice"), "--metrics leaves out ace (in report.html, dataset-diagram, boxplot"),
        (("--metrics", "-at_one", "--plots", "mass,corp"), "--metrics leaves out at_one (in mass) (exit 2)"),
        (("--level", "2"), "level = 2.0 is not allowed"),
    ],
)
def test_what_makes_no_sense_is_refused_before_anything_is_written(data, tmp_path, flags, text):
    said = segcal("reliability", *data.arguments, *GIVEN, *flags, "-o", tmp_path / "out")
    assert said.code == 2
    assert text in said.stderr
    assert not (tmp_path / "out").exists()


def test_a_folder_that_holds_something_is_left_alone_unless_told_otherwise(data, tmp_path):
    (tmp_path / "old.txt").write_text("mine")
    common = ("reliability", *data.arguments, *GIVEN, "--plots", "mass", "--format", "svg", "-o", tmp_path, "-q")
    said = segcal(*common)
    assert (said.code, said.closing) == (2, f"segcal: {tmp_path} exists; give --overwrite (exit 2)")
    assert segcal(*common, "--overwrite").code == 0
    assert (tmp_path / "old.txt").read_text() == "mine"


def test_pictures_do_not_go_where_predictions_lie(data):
    said = segcal("reliability", *data.arguments, *GIVEN, "-o", data.predictions / "pictures")
    assert said.code == 2
    assert "the next run would read its own outputs" in said.stderr


def test_evaluate_writes_the_same_report_without_the_other_pictures(tmp_path):
    scans = make_scans(4, 2)
    folders = make_folders(tmp_path, scans)
    common = ("--values", "probabilities", "--classes", folders.classes, "--bootstrap", 50)
    said = segcal(
        "evaluate",
        folders.predictions,
        folders.labels,
        "-o",
        tmp_path / "m.csv",
        "--html",
        tmp_path / "m.html",
        *common,
    )
    assert said.code == 0
    page = (tmp_path / "m.html").read_text(encoding="utf-8")
    assert page.count("<svg") > 10
    assert "http://" not in page.replace("http://www.w3.org", "")
    assert {path.name for path in tmp_path.iterdir() if path.is_file()} >= {"m.csv", "m.html"}


def test_evaluate_refuses_a_report_whose_measures_are_left_out(tmp_path):
    folders = make_folders(tmp_path, make_scans(3))
    said = segcal(
        "evaluate", folders.predictions, folders.labels, "-o", tmp_path / "m.csv", "--html", tmp_path / "m.html",
        "--values", "probabilities", "--classes", folders.classes, "--metrics", "ece,dice",
    )  # fmt: skip
    assert said.code == 2
    assert "--metrics leaves out ace" in said.closing
    assert not (tmp_path / "m.csv").exists()
