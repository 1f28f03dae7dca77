"""Reports of saved counts: they say all that those of the images say, byte for byte, and what they were made from."""

from __future__ import annotations

import json
import shutil
from dataclasses import replace

import numpy as np
import pytest

from segcal_cli.io.artifacts import read_artifact, write_artifact
from tests.cli.builders import make_folders, make_scans, segcal, write_predictions, write_volume

GIVEN = ("--values", "probabilities")

LEFT_OUT = "After leaving out 1 of 8 cases; it holds only if they did not fail for a reason related to their scores."

PROMISE = "Intervals: bootstrap over 7 patients, valid if patients are independent. " + LEFT_OUT


def scans_of(cases=8, seed=0):
    """Scans of one lesion, called p0_t0, p0_t1, p1_t0, .."""
    scans = make_scans(cases, classes=1, seed=seed)
    return [replace(scan, name=f"p{n // 2}_t{n % 2}") for n, scan in enumerate(scans)]


@pytest.fixture(scope="module")
def data(tmp_path_factory):
    """Eight scans, one of them unreadable, and a label too many."""
    data = make_folders(tmp_path_factory.mktemp("data"), scans_of())
    broken = data.predictions / "p2_t1.nii.gz"
    broken.write_bytes(broken.read_bytes()[:300])
    shutil.copy(data.labels / "p0_t0.nii.gz", data.labels / "spare.nii.gz")
    write_predictions(data.root / "honest", data.scans, sharpness=1.0)
    return data


@pytest.fixture(scope="module")
def artifact(tmp_path_factory):
    """A temperature, fitted with patients as units, which here are not told apart."""
    scans = [replace(scan, name=f"fit{scan.name}") for scan in scans_of(6, seed=9)]
    fitted = make_folders(tmp_path_factory.mktemp("fit"), scans)
    path = fitted.root / "temperature.npz"
    how = ("--groups", r"(fitp\d)", "--no-summary", "-q")
    assert segcal("calibrate", "fit", *fitted.arguments, *GIVEN, *how, "-o", path).code == 0
    return path


@pytest.fixture(scope="module")
def asked(data, artifact):
    """What is asked of the images: three sources, one of them through an artifact with a warning."""
    sources = ("--also", f"honest={data.root / 'honest'}", "--artifact", f"T={artifact}")
    return (*data.arguments, *GIVEN, *sources, "--on-failure", "continue", "--bootstrap", "100")


def outputs(folder):
    folder.mkdir(exist_ok=True)
    return (
        *("-o", folder / "m.csv", "--summary", folder / "s.csv", "--comparison", folder / "c.csv"),
        *("--bin-table", folder / "b.csv", "--html", folder / "m.html", "--histograms", folder / "h.npz"),
    )


@pytest.fixture(scope="module")
def whole(asked, tmp_path_factory):
    """The folder of a run that read the images, and what was said."""
    folder = tmp_path_factory.mktemp("whole")
    said = segcal("evaluate", *asked, *outputs(folder), "--json")
    assert said.code == 8, said.stderr
    return folder, said


@pytest.fixture(scope="module")
def page(whole):
    return (whole[0] / "m.html").read_text()


def files_of(folder):
    return {path.name: path.read_bytes() for path in folder.iterdir()}


# Cases left out


def test_the_guarantee_says_which_share_of_the_cases_was_left_out_wherever_it_stands(whole, page):
    folder, said = whole
    assert said.document["result"]["guarantee"].endswith(PROMISE)
    assert PROMISE in " ".join(said.stderr.split())
    assert read_artifact(folder / "h.npz").header.guarantee.endswith(PROMISE)
    head, summary = page.split("<nav")[0], page.split("<caption>")[1]
    assert PROMISE in head
    assert PROMISE in summary


def test_the_report_names_each_failed_case_with_its_error(whole, page):
    failure = whole[1].document["failures"][0]
    assert failure["case"] == "p2_t1"
    listed = page.split('<h2 id="left-out"')[1].split("</section>")[0]
    message = failure["message"].rpartition("/")[2]
    assert f"<li>{message} ({failure['error']})</li>" in listed


def test_a_report_of_whole_cases_has_no_list_of_failures(tmp_path):
    data = make_folders(tmp_path / "data", scans_of(2))
    said = segcal(
        "reliability",
        *data.arguments,
        *GIVEN,
        "--plots",
        "mass",
        "--format",
        "svg",
        "-o",
        tmp_path / "o",
        "--json",
        "-q",
    )
    assert "leaving out" not in said.document["result"]["guarantee"]
    assert "left-out" not in (tmp_path / "o" / "report.html").read_text()


def test_reliability_says_it_too(asked, tmp_path):
    said = segcal("reliability", *asked, "--plots", "mass", "--format", "svg", "-o", tmp_path / "o", "--json")
    assert said.document["result"]["guarantee"].endswith(PROMISE)
    assert PROMISE in " ".join(said.stderr.split())


# The same from saved counts


def test_saved_counts_give_the_bytes_of_every_file_and_the_same_result(whole, tmp_path):
    folder, said = whole
    again = segcal("evaluate", "--from", folder / "h.npz", *outputs(tmp_path / "again"), "--json")
    assert again.code == said.code
    assert files_of(tmp_path / "again") == files_of(folder)
    for key in ("result", "warnings", "counts"):
        assert again.document[key] == said.document[key]
    for mine, theirs in zip(again.document["failures"], said.document["failures"], strict=True):
        assert mine | {"message": ""} == theirs | {"message": ""}
        assert theirs["message"].endswith(mine["message"])


def test_reliability_of_saved_counts_writes_the_same_files(whole, asked, tmp_path):
    how = ("--plots", "mass,boxplot", "--format", "svg", "--json")
    direct = segcal("reliability", *asked, *how, "-o", tmp_path / "direct")
    saved = segcal("reliability", "--from", whole[0] / "h.npz", *how, "-o", tmp_path / "saved")
    assert saved.document["result"] == direct.document["result"]
    assert files_of(tmp_path / "saved") == files_of(tmp_path / "direct")


def test_merged_shards_give_the_report_of_one_run(whole, asked, tmp_path):
    for number in (1, 2):
        segcal("evaluate", *asked, "--shard", f"{number}/2", "-o", tmp_path / f"{number}.npz", "-q")
    merged = segcal(
        "merge", tmp_path / "2.npz", tmp_path / "1.npz", "-o", tmp_path / "m.csv", "--histograms", tmp_path / "h.npz",
        "--json",
    )  # fmt: skip
    assert merged.document["result"]["guarantee"].endswith(PROMISE)
    assert (tmp_path / "h.npz").read_bytes() == (whole[0] / "h.npz").read_bytes()


def test_warnings_and_notes_are_said_and_written_again_without_the_folders_of_anybody(whole, data, page, tmp_path):
    folder, said = whole
    again = segcal("evaluate", "--from", folder / "h.npz", "-o", tmp_path / "m.csv", "--json")
    assert any("temperature.npz was fitted with patients as units" in text for text in again.document["warnings"])
    assert any("p0_t0 and p0_t1 look like scans of one" in text for text in again.document["warnings"])
    assert again.document["warnings"] == said.document["warnings"]
    assert "labels: 1 label has no prediction: spare" in again.stderr
    for text in ("labels: 1 label has no prediction: spare", "was fitted with patients as units"):
        assert text in page
    assert str(data.root) not in page
    assert str(data.root).encode() not in (folder / "h.npz").read_bytes().replace(b"\0", b"")


def test_a_warning_of_another_folder_names_its_source_and_not_its_place(tmp_path):
    data = make_folders(tmp_path / "data", scans_of(3))
    other = write_predictions(tmp_path / "other", data.scans)
    write_volume(other / "p0_t1.nii.gz", np.full(data.scans[1].labels.shape, 0.25, np.float32))
    more = ("--also", f"ours={other}", "--groups", r"(.*)", "-o", tmp_path / "m.csv", "--json")
    said = segcal("evaluate", *data.arguments, *GIVEN, *more)
    assert "ours: every voxel holds the same values (p0_t1)" in said.document["warnings"]


def changed(source, target, change):
    """The artifact with other results."""
    saved = read_artifact(source)
    results = json.loads(json.dumps(saved.header.results))
    change(results)
    write_artifact(target, replace(saved, header=replace(saved.header, results=results)))
    return target


def test_counts_of_a_segcal_that_kept_less_are_refused_with_the_reason(whole, tmp_path):
    old = changed(whole[0] / "h.npz", tmp_path / "old.npz", lambda results: results.pop("provenance"))
    said = segcal("evaluate", "--from", old, "-o", tmp_path / "m.csv")
    assert said.code == 5
    assert f"{old} was saved by an older segcal and does not tell what was said of its cases" in said.closing


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (lambda results: results["provenance"]["said"][0].pop("warning"), "results.provenance.said.0.warning"),
        (lambda results: results["provenance"]["inputs"][0].update(what="else"), "results.provenance.inputs.0.what"),
        (lambda results: results["provenance"]["options"].update(classes=1), "results.provenance.options.classes"),
        (lambda results: results["sources"][0].update(name="=1+1"), "results.sources.0.name is not harmless"),
        (lambda results: results["sources"][1].update(artifact="\udc80"), "results.sources.1.artifact is not text"),
    ],
)
def test_what_is_kept_is_held_against_its_type(whole, tmp_path, change, words):
    bad = changed(whole[0] / "h.npz", tmp_path / "bad.npz", change)
    said = segcal("evaluate", "--from", bad, "-o", tmp_path / "m.csv")
    assert (said.code, words in said.closing) == (5, True)


# What it was made from


def inputs_of(data, folder, *more, labels=None):
    """(what, sources) -> (number of cases, sha256), as the saved counts tell."""
    labels = data.labels if labels is None else labels
    run = ("evaluate", data.predictions, labels, "--classes", data.classes, *GIVEN, "--metrics", "ece", *more)
    said = segcal(*run, "-o", folder / "m.csv", "--histograms", folder / "h.npz", "--overwrite", "-q")
    assert said.code == 0, said.stderr
    kept = read_artifact(folder / "h.npz").header
    found = {
        (one["what"], *one["sources"]): (one["cases"], one["sha256"]) for one in kept.results["provenance"]["inputs"]
    }
    return found, kept.fit_input_digest


def test_inputs_tell_every_folder_the_labels_and_the_regions(tmp_path):
    data = make_folders(tmp_path / "data", scans_of(3))
    other = write_predictions(tmp_path / "other", data.scans, sharpness=1.0)
    also = ("--also", f"ours={other}")
    first, digest = inputs_of(data, tmp_path, *also)
    assert [(*key, cases) for key, (cases, _) in first.items()] == [
        ("predictions", "raw", 3), ("predictions", "ours", 3), ("labels", 3),
    ]  # fmt: skip
    assert inputs_of(data, tmp_path, *also) == (first, digest)

    write_predictions(other, data.scans[1:2], sharpness=1.1)
    second, other_digest = inputs_of(data, tmp_path, *also)
    assert [key for key in first if first[key] != second[key]] == [("predictions", "ours")]
    assert digest != other_digest

    shutil.copytree(data.labels, tmp_path / "labels")
    write_volume(tmp_path / "labels" / "p1_t0.nii.gz", 1 - data.scans[2].labels)
    third, third_digest = inputs_of(data, tmp_path, *also, labels=tmp_path / "labels")
    assert [key for key in second if second[key] != third[key]] == [("labels",)]
    assert other_digest != third_digest

    for scan in data.scans:
        write_volume(tmp_path / "roi" / f"{scan.name}.nii.gz", np.ones_like(scan.labels))
    fourth, _ = inputs_of(data, tmp_path, *also, "--roi", tmp_path / "roi", labels=tmp_path / "labels")
    assert {key: fourth[key] for key in third} == third
    assert fourth[("regions",)][0] == 3


def test_blank_predictions_that_differ_have_other_digests(tmp_path):
    data = make_folders(tmp_path / "data", scans_of(2))
    found = []
    for value in (0.125, 0.25):
        write_volume(data.predictions / "p0_t0.nii.gz", np.full(data.scans[0].labels.shape, value, np.float32))
        found.append(inputs_of(data, tmp_path)[0][("predictions", "raw")])
    assert found[0] != found[1]


def test_the_report_lists_what_the_saved_counts_keep(whole, page):
    listed = page.split("<h3>Inputs</h3>")[1]
    kept = read_artifact(whole[0] / "h.npz").header.results["provenance"]["inputs"]
    assert [(one["what"], one["sources"]) for one in kept] == [
        ("predictions", ["raw", "T"]), ("predictions", ["honest"]), ("labels", []),
    ]  # fmt: skip
    for one in kept:
        row = next(row for row in listed.split("<tr>") if one["sha256"] in row)
        assert f"<td>{', '.join(one['sources']) or 'of all sources'}</td>" in row
        assert '<td class="number" data-value="7">7</td>' in row


# Options


def told(page):
    """Option -> value of the report's list."""
    rows = page.split("<caption>Options, defaults included.</caption>")[1].split("</tbody>")[0].split("<tr>")[1:]
    return {row.split("<code>")[1].split("<")[0]: row.split("<td>")[1].split("</td>")[0] for row in rows}


def test_options_are_told_in_words_and_only_where_they_have_a_bearing(page):
    options = told(page)
    assert options["convention"] == "none"
    assert options["classes"] == "lesion"
    assert options["bins"] == "20"
    assert "-" not in options.values()
    idle = ("cells", "features", "images", "alphas", "max-cases", "show-scores", "kde-sample", "kde-bandwidth")
    assert not {*idle, "background", "format"} & options.keys()


def test_options_of_the_kernel_are_told_where_it_is_asked_for(tmp_path):
    data = make_folders(tmp_path / "data", make_scans(2))
    how = ("--metrics", "+kde_ece", "--kde-sample", "50", "--plots", "boxplot", "--format", "svg")
    said = segcal("reliability", *data.arguments, *GIVEN, *how, "-o", tmp_path / "o", "--json", "-q")
    options = said.document["result"]["options"]
    assert (options["kde-bandwidth"], options["kde-sample"], options["background"]) == ("auto", "50", "exclude")
    assert options["format"] == "svg"
    assert not {"show-cases", "min-voxels"} & options.keys()


# Names of sources


@pytest.mark.parametrize(
    ("option", "name"),
    [("--name", "=x"), ("--name", "@x"), ("--name", "\tx"), ("--name", ""), ("--also", "+x"), ("--artifact", "-x")],
)
def test_a_source_cannot_be_called_like_a_formula(data, artifact, tmp_path, option, name):
    value = {"--name": name, "--also": f"{name}={data.root / 'honest'}", "--artifact": f"{name}={artifact}"}[option]
    said = segcal("evaluate", *data.arguments, *GIVEN, option, value, "-o", tmp_path / "m.csv")
    assert said.code == 2
    assert f"a source cannot be called {name!r}; name it with --name" in said.stderr.replace("\n", " ")
    assert not (tmp_path / "m.csv").exists()
