"""``apply --shard`` and ``segcal merge`` of records: the files of one run, and a record to go on from."""

from __future__ import annotations

import json
from dataclasses import dataclass, replace
from pathlib import Path

import pytest

from segcal_cli.io.seals import sealed
from tests.cli.builders import Folders, Said, make_folders, make_scans, segcal
from tests.cli.builders_shards import run

PROBABILITIES = ("--values", "probabilities")
FITS = {
    "calibrate": (),
    "conformal-sets": (),
    "ntr-interval": ("--numerator", "class1", "--denominator", "class1,class2"),
    "cluster": ("--method", "image"),
}


@dataclass(frozen=True)
class Study:
    """An artifact of each kind, and seven new scans."""

    artifacts: dict[str, Path]
    new: Folders

    def command(self, kind: str) -> list[object]:
        return [
            kind,
            "apply",
            self.artifacts[kind],
            self.new.predictions,
            "--classes",
            self.new.classes,
            *PROBABILITIES,
        ]


@pytest.fixture(scope="module")
def study(tmp_path_factory: pytest.TempPathFactory) -> Study:
    root = tmp_path_factory.mktemp("study")
    old = make_folders(root / "old", make_scans(5, 3))
    new = make_folders(root / "new", [replace(scan, name=f"new_{scan.name}") for scan in make_scans(7, 3, seed=9)])
    for kind, more in FITS.items():
        run([kind, "fit", *old.arguments, *PROBABILITIES, *more], root / f"{kind}.npz")
    return Study({kind: root / f"{kind}.npz" for kind in FITS}, new)


def place(kind: str, folder: Path) -> Path:
    """What -o is, of a folder for the outputs."""
    folder.mkdir(exist_ok=True)
    return folder / "t.csv" if kind == "ntr-interval" else folder


def shards(command: list[object], output: Path, *more: object) -> list[Said]:
    """Three shards, not in their order."""
    return [segcal(*command, "--shard", f"{number}/3", "-o", output, *more) for number in (3, 1, 2)]


def records(folder: Path) -> list[Path]:
    return sorted(folder.glob("*segcal-run.shard-*-of-003.json"))


def outputs(folder: Path) -> dict[str, bytes]:
    """Every visible file but records, which hold times."""
    return {path.name: path.read_bytes() for path in folder.iterdir() if "segcal" not in path.name}


@pytest.mark.parametrize("kind", FITS)
def test_shards_and_their_merge_write_the_files_of_one_run(kind: str, study: Study, tmp_path: Path):
    command = study.command(kind)
    one, split = tmp_path / "one", tmp_path / "split"
    run(command, place(kind, one))
    assert [said.code for said in shards(command, place(kind, split))] == [0, 0, 0]
    said = segcal("merge", *reversed(records(split)), "-o", place(kind, split))
    assert said.code == 0, said.stderr
    assert said.closing == "segcal: 7 cases, 7 done (exit 0)"
    assert outputs(split) == outputs(one)
    # The joined record is one that a whole run goes on from.
    said = segcal(*command, "-o", place(kind, split), "--skip-existing")
    assert said.closing == "segcal: 7 cases, 0 done, 7 skipped (exit 0)"


def test_a_shard_keeps_a_record_of_its_own_and_writes_no_table(study: Study, tmp_path: Path):
    said = segcal(*study.command("conformal-sets"), "--shard", "2/3", "-o", tmp_path, "--json")
    assert said.code == 0
    assert said.document["result"]["shard"] == {
        "number": 2,
        "count": 3,
        "record": "segcal-run.shard-002-of-003.json",
    }
    record = json.loads((tmp_path / "segcal-run.shard-002-of-003.json").read_text())
    assert record["shard"] == "2/3"
    assert [entry["case"] for entry in record["cases"]] == ["new_case_01", "new_case_04"]
    assert not (tmp_path / "cases.csv").exists()
    assert not (tmp_path / "segcal-run.json").exists()


def test_a_shard_skips_what_it_did(study: Study, tmp_path: Path):
    shards(study.command("calibrate"), tmp_path)
    again = shards(study.command("calibrate"), tmp_path, "--skip-existing")
    assert [said.closing for said in again] == [
        "segcal: 2 cases, 0 done, 2 skipped (exit 0)",
        "segcal: 3 cases, 0 done, 3 skipped (exit 0)",
        "segcal: 2 cases, 0 done, 2 skipped (exit 0)",
    ]
    assert segcal("merge", *records(tmp_path), "-o", tmp_path).closing == (
        "segcal: 7 cases, 0 done, 7 skipped (exit 0)"
    )


def test_a_failed_case_of_a_shard_is_on_the_joined_record(study: Study, tmp_path: Path):
    scans = make_folders(tmp_path / "scans", list(study.new.scans))
    path = scans.predictions / "new_case_04.nii.gz"
    path.write_bytes(path.read_bytes()[:-40])
    command = replace(study, new=scans).command("conformal-sets")
    assert segcal(*command, "-o", tmp_path / "one").code == 8
    assert [said.code for said in shards(command, tmp_path / "split")] == [0, 0, 8]
    said = segcal("merge", *records(tmp_path / "split"), "-o", tmp_path / "split")
    assert (said.code, said.closing) == (8, "segcal: 7 cases, 6 done, 1 failed: new_case_04 (exit 8)")
    assert outputs(tmp_path / "split") == outputs(tmp_path / "one")
    entry = json.loads((tmp_path / "split" / "segcal-run.json").read_text())["cases"][4]
    assert (entry["case"], entry["status"]) == ("new_case_04", "failed")


def test_a_shard_without_cases_is_done(study: Study, tmp_path: Path):
    for number in range(1, 10):
        assert segcal(*study.command("calibrate"), "--shard", f"{number}/9", "-o", tmp_path).code == 0
    said = segcal("merge", *tmp_path.glob("segcal-run.shard-*.json"), "-o", tmp_path)
    assert said.closing == "segcal: 7 cases, 7 done (exit 0)"


def test_missing_shards_are_named(study: Study, tmp_path: Path):
    shards(study.command("calibrate"), tmp_path)
    said = segcal("merge", *records(tmp_path)[:1], "-o", tmp_path)
    assert (said.code, said.closing) == (5, "segcal: parts 2, 3 of 3 are missing (exit 5)")
    assert not (tmp_path / "segcal-run.json").exists()


def test_shards_of_other_options_are_refused(study: Study, tmp_path: Path):
    command = study.command("calibrate")
    shards(command, tmp_path)
    assert segcal(*command, "--dtype", "uint16", "--shard", "2/3", "-o", tmp_path, "--overwrite").code == 0
    said = segcal("merge", *records(tmp_path), "-o", tmp_path)
    assert (said.code, said.closing) == (5, "segcal: part 2 was made with other options (exit 5)")


def test_jobs_are_no_other_options(study: Study, tmp_path: Path):
    command = study.command("calibrate")
    shards(command, tmp_path)
    assert segcal(*command, "--jobs", "2", "--shard", "2/3", "-o", tmp_path, "--overwrite").code == 0
    assert segcal("merge", *records(tmp_path), "-o", tmp_path).code == 0


def test_records_are_merged_where_their_outputs_lie(study: Study, tmp_path: Path):
    shards(study.command("calibrate"), tmp_path / "out")
    said = segcal("merge", *records(tmp_path / "out"), "-o", tmp_path / "elsewhere")
    assert said.code == 2
    assert "the outputs of these shards belong to" in said.closing


def test_a_joined_place_is_not_joined_again_unasked(study: Study, tmp_path: Path):
    shards(study.command("conformal-sets"), tmp_path)
    assert segcal("merge", *records(tmp_path), "-o", tmp_path).code == 0
    assert segcal("merge", *records(tmp_path), "-o", tmp_path).code == 2
    assert segcal("merge", *records(tmp_path), "-o", tmp_path, "--overwrite").code == 0


def test_a_damaged_record_is_no_part(study: Study, tmp_path: Path):
    shards(study.command("calibrate"), tmp_path)
    path = records(tmp_path)[1]
    path.write_text(path.read_text()[:100])
    said = segcal("merge", *records(tmp_path), "-o", tmp_path)
    assert said.code == 5
    assert "segcal-run.shard-002-of-003.json is not a part of a sharded run" in said.closing


@pytest.mark.parametrize(
    ("kind", "more", "wrong"),
    [
        ("conformal-sets", ("--weights", "estimate"), "--weights estimate does not go with --shard"),
        ("conformal-sets", ("--history", "h.json"), "--history does not go with --shard"),
        ("ntr-interval", ("--triage", "triage.csv"), "--triage does not go with --shard"),
        ("cluster", ("--shard", "4/3"), "--shard 4/3 is not allowed"),
    ],
)
def test_what_needs_all_cases_is_refused(kind: str, more: tuple, wrong: str, study: Study, tmp_path: Path):
    said = segcal(*study.command(kind), "--shard", "1/3", "-o", place(kind, tmp_path), *more)
    assert said.code == 2
    assert wrong in said.closing


def test_a_record_of_a_shard_that_was_changed_is_not_merged(study: Study, tmp_path: Path):
    shards(study.command("calibrate"), tmp_path)
    path = records(tmp_path)[1]
    document = json.loads(path.read_text())
    del document["cases"][0]["result"]
    path.write_text(json.dumps(document))
    said = segcal("merge", *records(tmp_path), "-o", tmp_path)
    assert said.code == 5
    assert f"{path.name} is not a part of a sharded run: it was changed since it was written" in said.stderr


def test_shards_of_convert_write_the_files_of_one_run(study: Study, tmp_path: Path):
    command = ["convert", study.new.predictions, "--classes", study.new.classes, *PROBABILITIES, "--split-classes"]
    one, split = tmp_path / "one", tmp_path / "split"
    run(command, one)
    assert [said.code for said in shards(command, split)] == [0, 0, 0]
    said = segcal("merge", *records(split), "-o", split)
    assert said.closing == "segcal: 7 cases, 7 done (exit 0)"
    assert outputs(split) == outputs(one)
    assert len(outputs(one)) == 21
    said = segcal(*command, "-o", split, "--skip-existing")
    assert said.closing == "segcal: 7 cases, 0 done, 7 skipped (exit 0)"


def test_pictures_of_a_shard_are_refused_with_what_to_do_instead(tmp_path: Path):
    said = segcal("reliability", tmp_path, tmp_path, "-o", tmp_path / "out", "--shard", "1/2")
    assert said.code == 2
    words = " ".join(said.stderr.replace("│", " ").split())
    assert (
        "join the parts with segcal merge --histograms counts.npz, and draw with reliability --from counts.npz" in words
    )


def test_records_of_outputs_that_are_gone_are_not_merged(study: Study, tmp_path: Path):
    shards(study.command("calibrate"), tmp_path)
    name = "new_case_04_desc-calibrated_probseg.nii.gz"
    (tmp_path / name).unlink()
    said = segcal("merge", *records(tmp_path), "-o", tmp_path)
    assert said.code == 5
    assert f"{name} of new_case_04 is gone; run this shard again with --skip-existing" in said.stderr
    shards(study.command("calibrate"), tmp_path, "--skip-existing")
    assert segcal("merge", *records(tmp_path), "-o", tmp_path).closing.endswith("(exit 0)")


def test_the_parts_beside_records_are_not_merged_in_their_place(study: Study, tmp_path: Path):
    shards(study.command("calibrate"), tmp_path / "out")
    parts = sorted((tmp_path / "out").glob(".segcal-run.shard-*.npz"))
    said = segcal("merge", *parts, "-o", tmp_path / "x.npz")
    assert said.code == 5
    assert "it belongs to the record beside it; merge the records of the shards" in said.stderr


def test_the_record_of_a_case_that_a_shard_did_otherwise_is_damage(study: Study, tmp_path: Path):
    shards(study.command("calibrate"), tmp_path / "out")
    first = records(tmp_path / "out")[0]
    document = json.loads(first.read_text())
    document["cases"][0]["result"] = {}
    first.write_text(json.dumps(sealed(document)))
    said = segcal("merge", *records(tmp_path / "out"), "-o", tmp_path / "out")
    assert said.code == 5
    assert f"its record of {document['cases'][0]['case']} is damaged" in said.stderr
