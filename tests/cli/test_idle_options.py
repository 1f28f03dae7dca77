"""Options that could change nothing, or that make no sense, are refused before a voxel is read."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.cli.builders import Folders, make_folders, make_scans, segcal
from tests.cli.builders_reading import nnunet_study


@pytest.fixture(scope="module")
def folders(tmp_path_factory: pytest.TempPathFactory) -> Folders:
    return make_folders(tmp_path_factory.mktemp("idle"), make_scans(4, 3))


COMMANDS = {
    "fit": ("calibrate", "fit"),
    "compare": ("calibrate", "compare"),
    "evaluate": ("evaluate",),
    "reliability": ("reliability",),
}

FOLDS = "--folds 3 has no meaning with --no-summary: folds are of the summary"

EVERYWHERE = [
    (["--reduce", "mean-logits"], "--reduce has no meaning where every case has one prediction"),
    (["--reader", "SimpleITKIO"], "--reader has no meaning where no prediction is an array of nnU-Net"),
    (["--no-prove"], "--no-prove has no meaning where no segmentation lies beside a prediction"),
    (["--geometry", "LABELS"], "--geometry has no meaning where every prediction says itself where it lies"),
]

MEASURED = [
    (["--level", "0.9", "--bootstrap", "0"], "--level has no meaning without resamples (--bootstrap)"),
    (["--kde-sample", "9"], "--kde-sample has no meaning without kde_ece among the measures (--metrics +kde_ece)"),
    (["--kde-bandwidth", "0.1"], "--kde-bandwidth has no meaning without kde_ece among the measures"),
]

BINS = "has no meaning without a measure of bins, such as ece"

OWN = {
    "fit": [
        (["--allow-overlap"], "--allow-overlap has no meaning without --calibrator"),
        (["--no-summary", "--folds", "3"], FOLDS),
        (["--method", "auxiliary", "--dim", "3", "--slice-axis", "x"], "--slice-axis x: it is for --dim 2"),
        (["--method", "local", "--dim", "3", "--slice-axis", "x"], "--slice-axis x: it is for --dim 2"),
        (["--method", "platt", "--optimiser", "adam", "--allow-inverted"], "--allow-inverted: a published recipe"),
        (["--method", "auxiliary", "--optimiser", "adam", "--voxels", "9"], "--voxels 9: the published recipe"),
    ],
    "compare": [
        (["--allow-overlap"], "--allow-overlap has no meaning without --calibrator"),
        (["--methods", "auxiliary", "--dim", "3", "--slice-axis", "x"], "--slice-axis x: it is for --dim 2"),
        *MEASURED,
    ],
    "evaluate": [
        (["--allow-overlap"], "--allow-overlap has no meaning without --artifact or --calibrator"),
        (["--seed", "4", "--bootstrap", "0"], "--seed has no meaning without resamples (--bootstrap)"),
        (["--metrics", "dice", "--bins", "9"], f"--bins {BINS}"),
        (["--metrics", "nll", "--closed", "left"], f"--closed {BINS}"),
        (["--metrics", "nll,brier", "--empty-bins", "zero"], f"--empty-bins {BINS}"),
        (["--metrics", "ece", "--empty-dice", "one"], "--empty-dice has no meaning without dice or iou"),
        (["--comparison", "c.csv"], "--comparison has no meaning with one source; give --artifact or --also"),
        *MEASURED,
    ],
    "reliability": [
        (["--allow-overlap"], "--allow-overlap has no meaning without --artifact or --calibrator"),
        (["--plots", "pareto", "--show-cases", "all"], "--show-cases has no meaning without --plots case-diagram"),
        (["--plots", "pareto", "--min-voxels", "3"], "--min-voxels has no meaning without --plots corp or"),
        *MEASURED,
    ],
}


@pytest.mark.parametrize(
    ("command", "options", "text"),
    [
        pytest.param(command, options, text, id=f"{command} {' '.join(options)}")
        for command, own in OWN.items()
        for options, text in (*EVERYWHERE, *own)
    ],
)
def test_an_option_that_could_change_nothing_is_refused(
    folders: Folders, tmp_path: Path, command: str, options: list[str], text: str
):
    given = [folders.labels if one == "LABELS" else tmp_path / one if one == "c.csv" else one for one in options]
    words = [*COMMANDS[command], *folders.arguments, "--values", "probabilities", *given]
    said = segcal(*words, "-o", tmp_path / "out")
    assert said.code == 2, said.stderr
    assert text in said.closing
    assert list(tmp_path.iterdir()) == []


def test_a_name_of_the_source_that_is_left_out(folders: Folders, tmp_path: Path):
    words = ["evaluate", *folders.arguments, "--values", "probabilities", "--no-raw", "--name", "mine"]
    said = segcal(*words, "--also", f"other={folders.predictions}", "-o", tmp_path / "m.csv")
    assert said.code == 2
    assert "--name has no meaning with --no-raw: that source is left out" in said.closing


def test_bins_have_a_meaning_where_a_file_tells_them(folders: Folders, tmp_path: Path):
    words = ["evaluate", *folders.arguments, "--values", "probabilities", "--metrics", "dice", "--bins", "9"]
    assert segcal(*words, "-o", tmp_path / "m.csv", "--bin-table", tmp_path / "bins.csv").code == 0


def test_every_fifth_patient_is_an_option_of_local_without_a_summary_too(folders: Folders, tmp_path: Path):
    words = ["calibrate", "fit", *folders.arguments, "--values", "probabilities", "--method", "local", "--epochs", "1"]
    assert segcal(*words, "--no-summary", "--folds", "2", "-o", tmp_path / "a.npz").code == 0


def test_options_of_reading_have_a_meaning_where_one_prediction_asks_for_them(tmp_path: Path):
    study = nnunet_study(tmp_path)
    fit = ["calibrate", "fit", *study.both, "--no-prove", "--reader", "SimpleITKIO"]
    assert segcal(*fit, "-o", tmp_path / "a.npz").code == 0


def test_another_folder_may_be_what_an_option_of_reading_is_for(tmp_path: Path):
    study = nnunet_study(tmp_path)
    plain = tmp_path / "plain"
    assert segcal("convert", study.predictions, "-o", plain).code == 0
    words = [
        "evaluate",
        plain,
        study.labels,
        "--values",
        "probabilities",
        "--classes",
        study.predictions / "dataset.json",
    ]
    assert segcal(*words, "--no-prove", "-o", tmp_path / "a.csv").code == 2
    said = segcal(*words, "--no-prove", "--also", f"npz={study.predictions}", "-o", tmp_path / "a.csv")
    assert said.code == 0, said.stderr


@pytest.mark.parametrize("command", [
    ("calibrate", "fit"), ("calibrate", "compare"), ("evaluate",), ("reliability",), ("cluster", "fit")
])  # fmt: skip
def test_a_seed_below_0_is_refused(folders: Folders, tmp_path: Path, command: tuple[str, ...]):
    more = ["--method", "kmeans"] if command[0] == "cluster" else []
    words = [*command, *folders.arguments, "--values", "probabilities", *more, "--seed", "-1"]
    said = segcal(*words, "-o", tmp_path / "out")
    assert said.code == 2
    assert "seed" in said.closing
    assert list(tmp_path.iterdir()) == []
