"""`calibrate compare`: the table of all methods, each measured on patients that it was not fitted on."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest

from segcal_cli.calibration.rivals import rivals_for
from segcal_cli.core.labels import Channel, LabelSpace
from tests.cli.builders import Folders, make_folders, make_scans, read_rows, segcal, write_volume

MEASURES = ("dice", "ece", "ace", "mce", "brier", "nll")


@pytest.fixture(scope="module")
def folders(tmp_path_factory: pytest.TempPathFactory) -> Folders:
    return make_folders(tmp_path_factory.mktemp("compare"), make_scans(7, 3))


def reading(folders: Folders) -> list[str]:
    return [*folders.arguments, "--values", "probabilities"]


def test_each_case_is_measured_as_a_fit_on_the_other_folds_measures_it(folders: Folders, tmp_path: Path):
    words = ["calibrate", "compare", *reading(folders), "--methods", "temperature,platt,vector", "--folds", "3"]
    result = segcal(*words, "-o", tmp_path / "table.csv", "--json").document["result"]
    assert [source["name"] for source in result["sources"]] == ["raw", "temperature", "platt", "vector"]
    names = [scan.name for scan in folders.scans]
    own, others = names[1::3], [name for i, name in enumerate(names) if i % 3 != 1]
    for part, held in (("own", own), ("others", others)):
        for kind in ("predictions", "labels"):
            (tmp_path / part / kind).mkdir(parents=True)
            for name in held:
                shutil.copy(folders.root / kind / f"{name}.nii.gz", tmp_path / part / kind)
    for source in result["sources"][1:]:
        fitted, read = tmp_path / f"{source['name']}.npz", ["--classes", folders.classes, "--values", "probabilities"]
        fit = [tmp_path / "others/predictions", tmp_path / "others/labels", *read, "--method", source["name"]]
        exact = [] if source["name"] != "vector" else ["--refine", "0"]
        assert segcal("calibrate", "fit", *fit, *exact, "--no-summary", "-o", fitted).code == 0
        measure = [tmp_path / "own/predictions", tmp_path / "own/labels", *read, "--no-raw"]
        table = tmp_path / f"{source['name']}.csv"
        assert segcal("evaluate", *measure, "--artifact", f"it={fitted}", "-o", table).code == 0
        expected = {(row["case"], row["class"]): row for row in read_rows(table)}
        for case in source["cases"]:
            if case["case"] in own:
                for key in MEASURES:
                    alone = float(expected[case["case"], "class1"][key])
                    assert case["classes"]["class1"][key] == pytest.approx(alone, rel=1e-6, abs=1e-9)


def test_the_table_has_a_row_per_method_and_class_and_marks_the_best(folders: Folders, tmp_path: Path):
    table = tmp_path / "table.csv"
    said = segcal("calibrate", "compare", *reading(folders), "-o", table)
    assert said.code == 0
    space = LabelSpace(tuple(Channel(f"c{i}", frozenset({i})) for i in range(3)), "softmax")
    methods = ["raw", *rivals_for(space, "probabilities")]
    rows = read_rows(table)
    classes = ["background", "class1", "class2", "(all)"]
    assert [(row["method"], row["class"]) for row in rows] == [(m, c) for m in methods for c in classes]
    whole = [row for row in rows if row["class"] == "(all)"]
    for key in MEASURES:
        values = [float(row[key]) for row in whole]
        best = whole[values.index(max(values) if key == "dice" else min(values))]
        assert best[f"{key}_bold"] == "true"
        assert best[f"{key}_p_wilcoxon"] == ""
        for row in whole:
            if row[f"{key}_p_wilcoxon"]:
                assert (row[f"{key}_bold"] == "true") == (float(row[f"{key}_p_wilcoxon"]) >= 0.05)
    assert whole[methods.index("temperature")]["dice"] == whole[0]["dice"]
    assert "5 folds over patients" in said.stderr
    for method in methods:
        assert any(line.split()[:1] == [method] for line in said.stderr.splitlines())


def test_the_jobs_cannot_be_seen_in_the_table(folders: Folders, tmp_path: Path):
    words = ["calibrate", "compare", *reading(folders), "--methods", "temperature,isotonic,dirichlet"]
    for jobs in ("1", "2"):
        assert segcal(*words, "-j", jobs, "-o", tmp_path / f"{jobs}.csv").code == 0
    assert (tmp_path / "1.csv").read_bytes() == (tmp_path / "2.csv").read_bytes()


def test_without_folds_every_method_is_marked_as_in_sample(folders: Folders, tmp_path: Path):
    words = ["calibrate", "compare", *reading(folders), "--methods", "platt", "--folds", "0", "--json"]
    said = segcal(*words, "-o", tmp_path / "table.csv")
    result = said.document["result"]
    assert result["evaluated_on"] == "in-sample"
    assert [source["in_sample"] for source in result["sources"]] == [False, True]
    assert "platt†" in said.stderr


@pytest.mark.parametrize(
    ("words", "text"),
    [
        (["--methods", "temperature,temperature"], "--methods temperature,temperature: temperature stands there twice"),
        (["--methods", "magic"], "--methods magic: magic is none of temperature, platt"),
        (["--methods", "matrix"], "--method matrix does not fit probabilities"),
        (["--methods", "platt", "--odir", "1"], "--odir 1.0: it is for dirichlet, which is not compared"),
        (["--folds", "1"], "--folds 1"),
    ],
)
def test_what_cannot_be_compared_is_a_usage_error(folders: Folders, tmp_path: Path, words: list[str], text: str):
    said = segcal("calibrate", "compare", *reading(folders), *words, "-o", tmp_path / "table.csv")
    assert said.code == 2
    assert text in said.stderr
    assert not (tmp_path / "table.csv").exists()


def test_a_method_that_cannot_be_fitted_is_left_out_with_its_reason(tmp_path: Path):
    scans = make_scans(6, 1)
    folders = make_folders(tmp_path, scans)
    for scan in scans:  # logits of the opposite
        write_volume(tmp_path / "upside_down" / f"{scan.name}.nii.gz", -scan.logits[0])
    words = [tmp_path / "upside_down", folders.labels, "--classes", folders.classes, "--values", "logits"]
    compare = ["calibrate", "compare", *words, "--methods", "temperature,platt", "-o", tmp_path / "table.csv", "--json"]
    said = segcal(*compare)
    assert said.code == 0
    result = said.document["result"]
    assert result["methods"] == ["temperature"]
    assert "the fitted slope is -" in result["left_out"]["platt"]
    assert "warning: platt is left out: lesion: the fitted slope is -" in said.stderr


def test_cases_that_the_calibrator_in_front_has_seen_are_refused(folders: Folders, tmp_path: Path):
    first = tmp_path / "first.npz"
    assert segcal("calibrate", "fit", *reading(folders), "-o", first).code == 0
    words = ["calibrate", "compare", *reading(folders), "--methods", "platt", "--calibrator", first]
    said = segcal(*words, "-o", tmp_path / "table.csv")
    assert said.code == 4
    assert "7 cases were used to fit" in said.stderr
    said = segcal(*words, "--allow-overlap", "-o", tmp_path / "table.csv", "--json")
    assert said.code == 0
    assert all(source["in_sample"] for source in said.document["result"]["sources"])


@pytest.mark.parametrize("name", ["local", "fine-tune", "ensemble"])
def test_methods_that_are_not_fitted_fold_by_fold_are_refused(folders: Folders, tmp_path: Path, name: str):
    said = segcal("calibrate", "compare", *reading(folders), "--methods", f"platt,{name}", "-o", tmp_path / "table.csv")
    assert said.code == 2
    assert f"--methods platt,{name}: {name} is not compared: " in said.closing


def test_the_table_does_not_replace_the_calibrator_that_was_read(folders: Folders, tmp_path: Path):
    before = tmp_path / "before.npz"
    before.write_bytes(b"as it was")
    said = segcal("calibrate", "compare", *reading(folders), "--calibrator", before, "-o", before, "--overwrite")
    assert (said.code, before.read_bytes()) == (2, b"as it was")
    assert "is read by this run (--calibrator) and would be overwritten" in said.closing
