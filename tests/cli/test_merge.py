"""``--shard`` and ``segcal merge``: the bytes of one run, in any order and in rounds; what does not belong together."""

from __future__ import annotations

import json
import shutil
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from segcal_cli.calibration import patients
from segcal_cli.calibration.registry import METHODS
from segcal_cli.io.bundles import read_bundle
from tests.cli.builders import (
    Folders,
    make_folders,
    make_scans,
    segcal,
    sigmoid,
    write_predictions,
    write_volume,
)
from tests.cli.builders_sets import write_images, write_label_maps
from tests.cli.builders_shards import different, merged, parts_of, run
from tests.cli.test_nets import make_study
from tests.cli.test_ntr_interval import NTR, arguments, write_study

PROBABILITIES = ("--values", "probabilities")
SMALL = {
    "auxiliary": ("--refine", "1", "--voxels", "500"),
    "vector": ("--refine", "3"),
    "dirichlet": ("--refine", "0"),
}
"""What keeps the methods of many passes quick."""

ELSEWHERE = ("matrix", "fine-tune", "local")
"""Methods that do not fit probabilities alone: matrix takes logits, and is fitted as vector is; fine-tune needs
features, and is tested below; local, which trains on all cases at once, is refused."""

QUICK = ("temperature", "isotonic", "vector", "auxiliary")
"""One method of each family, which stand for the others in the default run."""


@pytest.fixture(autouse=True)
def _few_resamples(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(patients, "RESAMPLES", 20)


@pytest.fixture(scope="module")
def three(tmp_path_factory: pytest.TempPathFactory) -> Folders:
    """Eight scans of three classes."""
    return make_folders(tmp_path_factory.mktemp("three"), make_scans(8, 3))


@pytest.fixture(scope="module")
def one(tmp_path_factory: pytest.TempPathFactory) -> Folders:
    """Eight scans of a foreground."""
    return make_folders(tmp_path_factory.mktemp("one"), make_scans(8, 1))


def fit(folders: Folders, *more: object) -> list[object]:
    return ["calibrate", "fit", *folders.arguments, *PROBABILITIES, *more]


def assert_same(command: list[object], tmp_path: Path, shards: int = 3) -> int:
    """The merged parts have the bytes of one run; returns the number of rounds."""
    run(command, tmp_path / "one.npz")
    rounds = merged(command, shards, tmp_path / "parts", tmp_path / "merged.npz")
    assert different(tmp_path / "one.npz", tmp_path / "merged.npz") == []
    assert (tmp_path / "one.npz").read_bytes() == (tmp_path / "merged.npz").read_bytes()
    return rounds


@pytest.mark.parametrize(
    "method",
    [
        name if name in QUICK else pytest.param(name, marks=pytest.mark.slow)
        for name in METHODS
        if name not in ELSEWHERE
    ],
)
def test_every_calibrator_of_three_classes_merges_to_the_bytes_of_one_run(method: str, three: Folders, tmp_path: Path):
    members = ()
    if method == "ensemble":
        members = ("--member", shutil.copytree(three.predictions, tmp_path / "member"))
    rounds = assert_same(fit(three, "--method", method, *SMALL.get(method, ()), *members), tmp_path)
    # The parameters, what refines them, and the summary of a softmax.
    assert rounds == {"auxiliary": 3, "vector": 3}.get(method, 2)


@pytest.mark.slow
def test_a_fine_tuned_layer_merges_to_the_bytes_of_one_run(tmp_path: Path):
    study = make_study(tmp_path / "study", 3)
    assert assert_same([*study.fit, *study.tuning, "--refine", "1"], tmp_path) == 3


@pytest.mark.parametrize("method", ["temperature", "isotonic"])
def test_a_binary_calibrator_needs_one_round(method: str, one: Folders, tmp_path: Path):
    assert assert_same(fit(one, "--method", method), tmp_path) == 1


@pytest.mark.parametrize("options", [(), ("--groups", r"image_\d(\d)"), ("--learn", "0.6", "--alpha", "0.4")])
def test_sets_merge_to_the_bytes_of_one_run(options: tuple[str, ...], tmp_path: Path):
    root = write_images(tmp_path / "images", range(16))
    reading = ("--values", "logits", "--classes", root / "classes.json", "--alpha", "0.3")
    assert_same(["conformal-sets", "fit", root / "predictions", root / "labels", *reading, *options], tmp_path)


def test_sets_of_label_maps_with_strata_of_a_table_merge_to_the_bytes_of_one_run(tmp_path: Path):
    root = write_label_maps(tmp_path / "maps", range(8))
    table = tmp_path / "strata.csv"
    table.write_text("case,group\n" + "".join(f"image_{i:03d},{'ab'[i % 2]}\n" for i in range(8)))
    reading = ("--labels-only", "--classes", root / "classes.json", "--alpha", "0.3", "--mondrian", table)
    assert_same(["conformal-sets", "fit", root / "predictions", root / "labels", *reading], tmp_path)


@pytest.mark.parametrize("options", [(), ("--method", "care", "--calibration-error", "kde")])
def test_a_ratio_merges_to_the_bytes_of_one_run(options: tuple[str, ...], tmp_path: Path):
    assert_same(["ntr-interval", "fit", *arguments(write_study(tmp_path, range(6))), *NTR, *options], tmp_path)


@pytest.mark.parametrize(
    ("options", "rounds"),
    [
        (("--method", "image"), 1),
        (("--method", "kmeans", "--k", "2", "--min-count", "1"), 2),
        pytest.param(("--method", "kmeans", "--k", "2", "--min-count", "1", "--reuse"), 2, marks=pytest.mark.slow),
        pytest.param(("--method", "boundary"), 2, marks=pytest.mark.slow),
        pytest.param(("--method", "star", "--coords", "index"), 2, marks=pytest.mark.slow),
    ],
)
def test_clusters_merge_to_the_bytes_of_one_run(options, rounds: int, three: Folders, tmp_path: Path):
    """A map is made in the first round, and calibrated in the second."""
    groups = ("--groups", r"case_0(\d)")
    assert assert_same(["cluster", "fit", *three.arguments, *PROBABILITIES, *groups, *options], tmp_path) == rounds


def test_a_shard_does_not_count_on_a_gpu(three: Folders, tmp_path: Path):
    command = ["cluster", "fit", *three.arguments, *PROBABILITIES, "--method", "image", "--device", "cuda"]
    said = segcal(*command, "--shard", "1/2", "-o", tmp_path / "1.npz")
    assert said.code == 2
    assert "a shard" in said.closing


@pytest.fixture(scope="module")
def artifacts(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """One artifact of each kind, of other scans than the tests measure."""
    root = tmp_path_factory.mktemp("artifacts")
    scans = [replace(scan, name=f"other_{scan.name}") for scan in make_scans(5, 3, seed=9)]
    folders = make_folders(root / "scans", scans)
    ratio = ("--numerator", "class1", "--denominator", "class1,class2")
    more = {"calibrate": (), "conformal-sets": (), "ntr-interval": ratio, "cluster": ("--method", "image")}
    made = {name: root / f"{name}.npz" for name in more}
    for name, path in made.items():
        run([name, "fit", *folders.arguments, *PROBABILITIES, *more[name]], path)
    return made


def test_a_fit_on_a_calibrator_merges_to_the_bytes_of_one_run(
    three: Folders, artifacts: dict[str, Path], tmp_path: Path
):
    assert_same(fit(three, "--calibrator", artifacts["calibrate"]), tmp_path)


def test_every_table_of_evaluate_merges_to_the_bytes_of_one_run(
    three: Folders, artifacts: dict[str, Path], tmp_path: Path
):
    """Sources: raw, through a calibrator, another model; promises: sets, ratios and clusters."""
    write_predictions(tmp_path / "other", three.scans, sharpness=1.2)
    measured = [part for path in artifacts.values() for part in ("--artifact", path)]
    command = ["evaluate", *three.arguments, *PROBABILITIES, *measured, "--also", f"other={tmp_path / 'other'}"]
    folders = [tmp_path / "one", tmp_path / "merged"]
    tables = []
    for folder in folders:
        folder.mkdir()
        names = {"--summary": "s.csv", "--comparison": "c.csv", "--bin-table": "b.csv", "--histograms": "h.npz"}
        tables.append([word for flag, name in names.items() for word in (flag, folder / name)])
    run(command, folders[0] / "t.csv", *tables[0])
    assert merged(command, 3, tmp_path / "parts", folders[1] / "t.csv", *tables[1]) == 1
    files = sorted(path.name for path in folders[0].iterdir())
    assert files == sorted(path.name for path in folders[1].iterdir())
    # Also the files of an artifact that is called as its kind.
    assert len(files) == 16
    for name in files:
        assert (folders[0] / name).read_bytes() == (folders[1] / name).read_bytes(), name


def test_a_patient_is_never_split_between_shards(three: Folders, tmp_path: Path):
    parts = parts_of(fit(three, "--groups", r"case_0(\d)"), 3, tmp_path)
    held = [segcal("inspect", part, "--json").document["result"]["cases"] for part in parts]
    assert held == [["case_00", "case_03", "case_06"], ["case_01", "case_04", "case_07"], ["case_02", "case_05"]]
    paired = tmp_path / "paired"
    paired.mkdir()
    table = tmp_path / "patients.csv"
    table.write_text("case,group\n" + "".join(f"case_{i:02d},patient{i // 3}\n" for i in range(8)))
    held = [
        segcal("inspect", part, "--json").document["result"]["cases"]
        for part in parts_of(fit(three, "--groups", table), 2, paired)
    ]
    assert held == [["case_00", "case_01", "case_02", "case_06", "case_07"], ["case_03", "case_04", "case_05"]]


def test_a_shard_without_cases_writes_an_empty_part(one: Folders, tmp_path: Path):
    run(fit(one), tmp_path / "one.npz")
    assert merged(fit(one), 10, tmp_path / "parts", tmp_path / "merged.npz") == 1
    assert (tmp_path / "one.npz").read_bytes() == (tmp_path / "merged.npz").read_bytes()
    assert segcal("inspect", tmp_path / "parts" / "round1" / "10.npz", "--json").document["result"]["cases"] == []


def test_inspect_says_which_shard_and_which_round(three: Folders, tmp_path: Path):
    merged(fit(three), 2, tmp_path, tmp_path / "cal.npz")
    said = segcal("inspect", tmp_path / "round1" / "2.npz")
    assert "part of     calibrate fit: part 2 of 2, round 1" in said.stdout
    assert "cases       4: case_01, case_03, case_05, case_07" in said.stdout
    assert (
        "the state that round 2 begins with, in 2 shards" in segcal("inspect", tmp_path / "round1" / "state.npz").stdout
    )
    assert "part 1 of 2, round 2" in segcal("inspect", tmp_path / "round2" / "1.npz").stdout


def test_a_merge_that_needs_another_round_says_what_to_do(three: Folders, tmp_path: Path):
    parts = parts_of(fit(three), 2, tmp_path)
    said = segcal("merge", *parts, "-o", tmp_path / "state.npz")
    assert said.code == 0
    assert (
        "round 1 of calibrate fit is joined, and the method reads the cases once more: run each of the 2 shards again "
        "with --resume state.npz, and merge their parts"
    ) in said.stderr


def test_one_run_can_take_the_rounds_that_are_left(three: Folders, tmp_path: Path):
    run(fit(three), tmp_path / "one.npz")
    assert segcal("merge", *parts_of(fit(three), 2, tmp_path), "-o", tmp_path / "state.npz").code == 0
    run(fit(three), tmp_path / "rest.npz", "--resume", tmp_path / "state.npz")
    assert (tmp_path / "one.npz").read_bytes() == (tmp_path / "rest.npz").read_bytes()


def test_a_copy_in_another_shard_is_found_when_the_parts_are_merged(tmp_path: Path):
    folders = make_folders(tmp_path / "scans", make_scans(4, 1))
    # Another file type, so that only reading shows that the numbers are the same.
    (folders.predictions / "case_01.nii.gz").unlink()
    array = sigmoid(folders.scans[0].logits * 2.0)[0]
    write_volume(folders.predictions / "case_01.nii", array)
    wanted = "case_00 and case_01 hold the same prediction"
    said = segcal(*fit(folders), "-o", tmp_path / "one.npz")
    assert said.code == 4
    assert wanted in said.stderr
    said = segcal("merge", *parts_of(fit(folders), 2, tmp_path), "-o", tmp_path / "merged.npz")
    assert said.code == 4
    assert wanted in said.stderr
    assert not (tmp_path / "merged.npz").exists()


@pytest.mark.parametrize("method", ["temperature", pytest.param("vector", marks=pytest.mark.slow)])
def test_a_failing_case_is_left_out_of_all_rounds_and_recorded(method: str, tmp_path: Path):
    folders = make_folders(tmp_path / "scans", make_scans(8, 3))
    path = folders.predictions / "case_05.nii.gz"
    path.write_bytes(path.read_bytes()[:-40])
    command = fit(folders, "--method", method, "--on-failure", "continue", *SMALL.get(method, ()))
    assert segcal(*command, "-o", tmp_path / "one.npz").code == 8
    resume: list[object] = []
    for number in range(1, 9):
        codes, parts = [], []
        for shard in (1, 2, 3):
            parts.append(tmp_path / f"{number}-{shard}.npz")
            codes.append(segcal(*command, "--shard", f"{shard}/3", *resume, "-o", parts[-1]).code)
        # Case 5 is in the third share; in later rounds nobody reads it.
        assert codes == ([0, 0, 8] if number == 1 else [0, 0, 0])
        output = tmp_path / f"merged{number}.npz"
        said = segcal("merge", *reversed(parts), "-o", output)
        assert said.code == 8
        assert "1 failed: case_05" in said.closing
        if "is joined" not in said.stderr:
            break
        resume = ["--resume", output]
    assert (tmp_path / "one.npz").read_bytes() == output.read_bytes()


def test_a_shard_whose_every_case_fails_still_writes_its_part(tmp_path: Path):
    folders = make_folders(tmp_path / "scans", make_scans(4, 1))
    path = folders.predictions / "case_01.nii.gz"
    path.write_bytes(path.read_bytes()[:-40])
    command = fit(folders, "--on-failure", "continue")
    assert segcal(*command, "-o", tmp_path / "one.npz").code == 8
    parts = [tmp_path / f"{shard}.npz" for shard in range(1, 5)]
    assert [segcal(*command, "--shard", f"{i}/4", "-o", part).code for i, part in enumerate(parts, 1)] == [0, 8, 0, 0]
    assert segcal("merge", *parts, "-o", tmp_path / "merged.npz").code == 8
    assert (tmp_path / "one.npz").read_bytes() == (tmp_path / "merged.npz").read_bytes()


@pytest.mark.parametrize("kind", ["calibrate", "conformal-sets", "cluster"])
def test_parts_hold_no_folder_of_anybody(kind: str, three: Folders, tmp_path: Path):
    folder = tmp_path / "somebody"
    folder.mkdir()
    table = folder / "list.csv"
    table.write_text("case,group\n" + "".join(f"case_{i:02d},{'ab'[i % 2]}\n" for i in range(8)))
    (folder / "makers.csv").write_text("case\ncase_00\ncase_01\n")
    options = {
        "calibrate": ("--groups", table),
        "conformal-sets": ("--mondrian", table, "--alpha", "0.3"),
        "cluster": ("--method", "kmeans", "--k", "2", "--min-count", "1", "--split", folder / "makers.csv"),
    }
    path = parts_of([kind, "fit", *three.arguments, *PROBABILITIES, *options[kind]], 1, tmp_path)[0]
    held = path.read_bytes() + b"".join(array.tobytes() for array in read_bundle(path).values())
    for private in (three.root, folder):
        assert str(private).encode() not in held


# What does not belong together.


@pytest.fixture(scope="module")
def parts(one: Folders, tmp_path_factory: pytest.TempPathFactory) -> list[Path]:
    """The four parts of a fit."""
    return parts_of(fit(one), 4, tmp_path_factory.mktemp("four"))


def refusal(said) -> str:
    """What a merge that wrote nothing says, without the folder of the test."""
    assert said.code == 5
    return said.stderr.strip()


def test_missing_parts_are_named(parts: list[Path], tmp_path: Path):
    assert refusal(segcal("merge", parts[0], "-o", tmp_path / "a.npz")) == (
        "segcal: parts 2, 3, 4 of 4 are missing (exit 5)"
    )
    assert refusal(segcal("merge", *parts[1:], "-o", tmp_path / "a.npz")) == ("segcal: part 1 of 4 is missing (exit 5)")
    assert not (tmp_path / "a.npz").exists()


def test_a_part_that_is_given_twice_is_named(parts: list[Path], tmp_path: Path):
    said = segcal("merge", *parts, parts[2], "-o", tmp_path / "a.npz")
    assert refusal(said) == f"segcal: part 3 is given twice: {parts[2]} and {parts[2]} (exit 5)"


def test_a_part_of_another_case_list_is_named_with_the_case_that_two_parts_hold(
    parts: list[Path], one: Folders, tmp_path: Path
):
    """The list lacks case_00, so every later case moves to the share before."""
    folders = make_folders(tmp_path / "fewer", list(one.scans[1:]))
    path = tmp_path / "4.npz"
    assert segcal(*fit(folders), "--shard", "4/4", "-o", path).code == 0
    said = segcal("merge", *parts[:3], path, "-o", tmp_path / "a.npz")
    assert refusal(said).splitlines() == [
        "part 4 was made from another case list",
        "parts 1 and 4 both hold case_04",
        "segcal: 2 problems, nothing written (exit 5)",
    ]


def test_a_part_of_other_options_is_named(parts: list[Path], one: Folders, tmp_path: Path):
    path = tmp_path / "2.npz"
    assert segcal(*fit(one, "--seed", "1"), "--shard", "2/4", "-o", path).code == 0
    said = segcal("merge", parts[0], path, *parts[2:], "-o", tmp_path / "a.npz")
    assert refusal(said) == "segcal: part 2 was made with other options (exit 5)"


@pytest.mark.parametrize(("command", "shard"), [(("calibrate",), "2/3"), (("conformal-sets", "--alpha", "0.3"), "2/4")])
def test_parts_of_different_runs_are_refused(command, shard: str, parts: list[Path], one: Folders, tmp_path: Path):
    path = tmp_path / "2.npz"
    assert (
        segcal(command[0], "fit", *one.arguments, *PROBABILITIES, *command[1:], "--shard", shard, "-o", path).code == 0
    )
    said = segcal("merge", parts[0], path, "-o", tmp_path / "a.npz")
    assert refusal(said) == (
        f"segcal: {parts[0]} is part 1 of 4 of calibrate fit, round 1, {path} is part {shard.replace('/', ' of ')} of "
        f"{command[0]} fit, round 1: they are not of one run (exit 5)"
    )


def test_an_artifact_is_no_part_and_a_part_is_no_artifact(parts: list[Path], one: Folders, tmp_path: Path):
    run(fit(one), tmp_path / "cal.npz")
    said = segcal("merge", parts[0], tmp_path / "cal.npz", "-o", tmp_path / "a.npz")
    assert "cal.npz is not a part of a sharded run: it is a calibrate artifact" in refusal(said)
    said = segcal(*["evaluate", *one.arguments, *PROBABILITIES, "--artifact", parts[0]], "-o", tmp_path / "t.csv")
    assert "1.npz is not an artifact but what --shard wrote; segcal merge joins all parts" in refusal(said)


def test_a_state_is_no_part_and_a_part_is_no_state(three: Folders, tmp_path: Path):
    given = parts_of(fit(three), 1, tmp_path)
    assert segcal("merge", *given, "-o", tmp_path / "state.npz").code == 0
    assert "shards go on from it with --resume" in refusal(
        segcal("merge", tmp_path / "state.npz", "-o", tmp_path / "a")
    )
    said = segcal(*fit(three), "--shard", "1/1", "--resume", given[0], "-o", tmp_path / "a.npz")
    assert "it is a part; --resume takes the state that segcal merge made" in refusal(said)


@pytest.mark.parametrize(
    ("more", "shard", "wrong"),
    [
        (("--seed", "1"), "1/2", "was made with other options"),
        ((), "1/3", "is of a run in 2 shards"),
    ],
)
def test_a_state_of_another_run_is_refused(more, shard: str, wrong: str, three: Folders, tmp_path: Path):
    state = tmp_path / "state.npz"
    assert segcal("merge", *parts_of(fit(three), 2, tmp_path), "-o", state).code == 0
    said = segcal(*fit(three, *more), "--shard", shard, "--resume", state, "-o", tmp_path / "a.npz")
    assert refusal(said).endswith(f"{state} {wrong} (exit 5)")


def test_a_damaged_part_is_refused(parts: list[Path], tmp_path: Path):
    """Half of a file, and every byte of its tree in turn that a bit flip could reach, in steps."""
    whole = parts[1].read_bytes()
    broken = tmp_path / "2.npz"
    for at in (len(whole) // 2, *range(100, len(whole), len(whole) // 12)):
        broken.write_bytes(whole[:at] + bytes([whole[at] ^ 0x41]) + whole[at + 1 :])
        said = segcal("merge", parts[0], broken, *parts[2:], "-o", tmp_path / f"{at}.npz")
        assert said.code in (0, 5), said.stderr
    broken.write_bytes(whole[: len(whole) // 2])
    assert "2.npz is not a part" in refusal(segcal("merge", parts[0], broken, *parts[2:], "-o", tmp_path / "a.npz"))


@pytest.mark.parametrize("shard", ["0/4", "5/4", "1", "1/0", "a/b", "-1/4", "1/4/2", "", "1/٤"])
def test_a_shard_that_cannot_be_is_refused(shard: str, one: Folders, tmp_path: Path):
    said = segcal(*fit(one), "--shard", shard, "-o", tmp_path / "a.npz")
    assert said.code == 2
    assert said.closing == f"segcal: --shard {shard} is not allowed; give I/N with I from 1 to N (exit 2)"


def test_tables_are_asked_of_the_merge(one: Folders, parts: list[Path], tmp_path: Path):
    command = ["evaluate", *one.arguments, *PROBABILITIES, "--shard", "1/2", "-o", tmp_path / "1.npz"]
    said = segcal(*command, "--bin-table", tmp_path / "b.csv")
    assert said.code == 2
    assert "--bin-table does not go with --shard: give --bin-table to segcal merge" in said.closing
    assert "give these to segcal evaluate --from with --html" in segcal(*command, "--html", tmp_path / "h.html").closing
    said = segcal("merge", *parts, "-o", tmp_path / "a.npz", "--summary", tmp_path / "s.csv")
    assert said.code == 2
    assert "--summary goes with parts of evaluate; these are of calibrate fit" in said.closing


def test_what_exists_is_not_replaced_unasked(parts: list[Path], one: Folders, tmp_path: Path):
    (tmp_path / "a.npz").write_bytes(b"mine")
    assert segcal("merge", *parts, "-o", tmp_path / "a.npz").code == 2
    assert segcal(*fit(one), "--shard", "1/4", "-o", tmp_path / "a.npz").code == 2
    assert (tmp_path / "a.npz").read_bytes() == b"mine"
    assert segcal("merge", *parts, "-o", tmp_path / "a.npz", "--overwrite").code == 0


def test_the_document_of_a_merge_is_that_of_the_run(parts: list[Path], one: Folders, tmp_path: Path):
    serial = segcal(*fit(one), "-o", tmp_path / "a.npz", "--json").document
    joined = segcal("merge", *parts, "-o", tmp_path / "a.npz", "--overwrite", "--json").document
    assert joined["result"] == serial["result"]
    assert joined["counts"] == serial["counts"]
    share = segcal(*fit(one), "--shard", "2/4", "-o", tmp_path / "2.npz", "--json").document["result"]["part"]
    assert (share["shard"], share["shards"], share["round"], share["cases"]) == (2, 4, 1, ["case_01", "case_05"])


def test_numbers_of_a_part_are_plain(parts: list[Path]):
    with np.load(parts[0], allow_pickle=False) as arrays:
        about = json.loads(str(arrays["header"]))
    assert about["kind"] == "part"
    assert about["cases"] == ["case_00", "case_04"]
