"""`calibrate compare`: the table of all methods, each measured on patients that it was not fitted on."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest

from segcal_cli.calibration.registry import METHODS
from segcal_cli.calibration.rivals import usual_rivals
from segcal_cli.core.labels import Channel, LabelSpace
from tests.cli.builders import Folders, make_folders, make_scans, read_rows, segcal, write_volume
from tests.cli.test_nets import Study, make_study

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
    methods = ["raw", *usual_rivals(space, "probabilities")]
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


@pytest.mark.slow
def test_the_jobs_cannot_be_seen_in_the_table_of_all_methods(tmp_path: Path):
    study = make_study(tmp_path, 3)
    words = [study.predictions, study.folders.labels, *study.reading, "--folds", "2", "--images", tmp_path / "images"]
    tuning = ["--features", tmp_path / "features", "--last-layer", tmp_path / "layer.npz", "--epochs", "2"]
    for jobs in ("1", "2"):
        said = segcal("calibrate", "compare", *words, *tuning, "-j", jobs, "-o", tmp_path / f"{jobs}.csv")
        assert said.code == 0, said.stderr
    table = (tmp_path / "1.csv").read_bytes()
    assert table == (tmp_path / "2.csv").read_bytes()
    assert {row["method"] for row in read_rows(tmp_path / "1.csv")} == {"raw", *METHODS} - {"ensemble"}


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
        (["--methods", ","], "--methods ,: an empty name is none of temperature, platt"),
        (["--methods", "platt", "--seed", "-1"], "seed = -1 is not allowed; it must be 0 or more"),
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


def test_an_ensemble_by_itself_is_refused(folders: Folders, tmp_path: Path):
    said = segcal(
        "calibrate", "compare", *reading(folders), "--methods", "platt,ensemble", "-o", tmp_path / "table.csv"
    )
    assert said.code == 2
    assert "--methods platt,ensemble: ensemble is not compared: the members as they are joined are the row raw" in (
        said.closing
    )


def subset(study: Study, root: Path, chosen: list[str]) -> Path:
    """The study's folders with some of its cases."""
    for kind in ("made", "labels", "images", "features"):
        (root / kind).mkdir(parents=True)
        for name in chosen:
            for file in (study.root / kind).glob(f"{name}.*"):
                shutil.copy(file, root / kind)
    return root


@pytest.mark.parametrize("seen", ["predictions", "scans too"])
@pytest.mark.parametrize(("classes", "values"), [(3, "logits"), (1, "probabilities")])
def test_trained_and_tuned_methods_are_measured_as_fits_on_the_other_folds_are(
    tmp_path: Path, classes: int, values: str, seen: str
):
    """Fold 1 of 3: cases 1 and 4. The networks of both see the same tiles, and so does what ends their training."""
    study = make_study(tmp_path, classes, values)
    beside = {"fine-tune": ["--features", "features"], "local": ["--images", "images"] if seen == "scans too" else []}
    training = ["--epochs", "6", "--learning-rate", "0.03"]

    def extra(method: str, root: Path) -> list[object]:
        return [root / one if one in ("features", "images") else one for one in beside[method]]

    words = [study.predictions, study.folders.labels, *study.reading, "--methods", "local,fine-tune", "--folds", "3"]
    more = [*extra("local", tmp_path), *extra("fine-tune", tmp_path), "--last-layer", tmp_path / "layer.npz"]
    said = segcal("calibrate", "compare", *words, *more, *training, "-o", tmp_path / "t.csv", "--json")
    assert said.code == 0, said.stderr
    assert [one["name"] for one in said.document["result"]["sources"]] == ["raw", "local", "fine-tune"]
    names = [scan.name for scan in study.folders.scans]
    own = subset(study, tmp_path / "own", names[1::3])
    others = subset(study, tmp_path / "others", [name for name in names if name not in names[1::3]])
    for source in said.document["result"]["sources"][1:]:
        method = source["name"]
        fitted, table = tmp_path / f"{method}.npz", tmp_path / f"{method}.csv"
        fit = [others / "made", others / "labels", *study.reading, "--method", method, *extra(method, others)]
        fit += training if method == "local" else ["--last-layer", tmp_path / "layer.npz", "--refine", "0"]
        said_of_fit = segcal("calibrate", "fit", *fit, "-o", fitted, "--json")
        assert said_of_fit.code == 0, said_of_fit.stderr
        kept = method == "fine-tune" or said_of_fit.document["result"]["facts"]["training"]["kept"]
        assert kept == (method == "fine-tune" or seen == "scans too")  # both ways that a training can end
        measure = [own / "made", own / "labels", *study.reading, "--no-raw", "--artifact", f"it={fitted}"]
        done = segcal("evaluate", *measure, *(extra(method, own) if kept else []), "-o", table)
        assert done.code == 0, done.stderr
        expected = {(row["case"], row["class"]): row for row in read_rows(table)}
        found = [case for case in source["cases"] if case["case"] in names[1::3]]
        assert len(found) == 2
        for case in found:
            for name, values_of in case["classes"].items():
                for key in MEASURES:
                    alone = float(expected[case["case"], name][key])
                    assert values_of[key] == pytest.approx(alone, rel=1e-6, abs=1e-9)


@pytest.mark.slow
def test_what_is_given_decides_whether_tuned_and_trained_methods_take_part(tmp_path: Path):
    study = make_study(tmp_path, 3)
    compare = ["calibrate", "compare", study.predictions, study.folders.labels, *study.reading, "--folds", "2"]
    table = ["-o", tmp_path / "t.csv", "--overwrite", "--json"]
    plain = segcal(*compare, *table)
    assert {"fine-tune", "local"}.isdisjoint(plain.document["result"]["methods"])
    for text in (
        "fine-tune is not compared: it needs --features and --last-layer",
        "local is not compared: a network is trained for every fold; give --images, or name it in --methods",
    ):
        assert text in plain.stderr
    everything = ["--features", tmp_path / "features", "--last-layer", tmp_path / "layer.npz"]
    everything += ["--images", tmp_path / "images", "--epochs", "1"]
    full = segcal(*compare, *everything, *table)
    assert full.code == 0, full.stderr
    assert full.document["result"]["methods"] == [*plain.document["result"]["methods"], "fine-tune", "local"]
    assert "is not compared" not in full.stderr
    assert "local: a network is trained for every fold once all cases have been read" in full.stderr
    assert full.document["result"]["left_out"] == {}


@pytest.mark.parametrize(("words", "text"), [
    (["--methods", "fine-tune"], "--features FOLDER is needed: fine-tune is fitted on"),
    (["--features", "features"], "--last-layer FILE is needed"),
    (["--last-layer", "layer.npz"], "--features FOLDER is needed"),
    (["--methods", "platt", "--features", "features"], "--features is for --method fine-tune"),
    (["--methods", "platt", "--images", "images"], "--images is for --method local"),
    (["--methods", "platt", "--last-layer", "layer.npz"], "it is for fine-tune, which is not compared"),
    (["--methods", "platt", "--epochs", "3"], "--epochs 3: it is for local, which is not compared"),
    (["--batch", "3"], "--batch 3: it is for local, which is not compared"),
    (["--methods", "platt,beta", "--device", "cuda"], "--device cuda: comparing platt,beta runs on the CPU only"),
])  # fmt: skip
def test_what_no_compared_method_looks_at_is_a_usage_error(tmp_path: Path, words: list[str], text: str):
    study = make_study(tmp_path, 3)
    places = {name: tmp_path / name for name in ("features", "images", "layer.npz")}
    compare = ["calibrate", "compare", study.predictions, study.folders.labels, *study.reading]
    said = segcal(*compare, *(places.get(word, word) for word in words), "-o", tmp_path / "t.csv")
    assert said.code == 2
    assert text in said.stderr
    assert not (tmp_path / "t.csv").exists()


def test_the_table_does_not_replace_the_calibrator_that_was_read(folders: Folders, tmp_path: Path):
    before = tmp_path / "before.npz"
    before.write_bytes(b"as it was")
    said = segcal("calibrate", "compare", *reading(folders), "--calibrator", before, "-o", before, "--overwrite")
    assert (said.code, before.read_bytes()) == (2, b"as it was")
    assert "is read by this run (--calibrator) and would be overwritten" in said.closing


def test_one_patient_and_one_source_are_named_in_the_singular(tmp_path: Path):
    folders = make_folders(tmp_path, make_scans(1, 3))
    said = segcal("calibrate", "compare", *reading(folders), "--methods", "platt", "-o", tmp_path / "table.csv")
    assert said.code == 0
    text = " ".join(said.stderr.split())
    assert (
        "Means over classes, then over 1 patient (1 case), each measured with parameters that it had a part in." in text
    )
    assert "† fitted on some of these cases: in-sample, biased low." in text
    assert "No intervals: one patient." in text


def test_what_a_dagger_means_is_said_beside_folds_too(folders: Folders, tmp_path: Path):
    first = tmp_path / "first.npz"
    assert segcal("calibrate", "fit", *reading(folders), "-o", first).code == 0
    words = ["calibrate", "compare", *reading(folders), "--methods", "platt", "--calibrator", first, "--allow-overlap"]
    said = segcal(*words, "-o", tmp_path / "table.csv")
    assert "raw†" in said.stderr
    assert "† fitted on some of these cases: in-sample, biased low." in " ".join(said.stderr.split())
