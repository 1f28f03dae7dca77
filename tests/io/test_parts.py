"""Parts on disk: whole, without pickle, and refused when they are anything else."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from segcal_cli.io import parts
from segcal_cli.io.artifacts import UnmergedPart, read_artifact
from segcal_cli.io.bundles import read_bundle, write_bundle
from segcal_cli.io.parts import PART, NotAPart, OtherVersion, PartHeader, digest_of, read_part, write_part
from segcal_cli.io.seals import sealed

HEADER = PartHeader(PART, "calibrate fit", 3, 40, 1, "list", "spec", "", ("a", "ü b"))


def changed(path: Path, **entries: object) -> Path:
    """The same part with other entries in its header."""
    arrays = read_bundle(path)
    about = json.loads(str(arrays.pop("header"))) | entries
    with path.open("wb") as file:
        write_bundle(file, {"header": np.array(json.dumps(sealed(about, arrays))), **arrays})
    return path


@pytest.fixture
def part(tmp_path: Path) -> Path:
    write_part(tmp_path / "3.npz", HEADER, {"numbers": np.arange(5.0), "what": "ü"})
    return tmp_path / "3.npz"


def test_a_part_comes_back(part: Path):
    found = read_part(part)
    assert found.header == HEADER
    assert found.content["what"] == "ü"
    np.testing.assert_array_equal(found.content["numbers"], np.arange(5.0))


def test_the_same_part_has_the_same_bytes(part: Path, tmp_path: Path):
    write_part(tmp_path / "again.npz", HEADER, {"numbers": np.arange(5.0), "what": "ü"})
    assert part.read_bytes() == (tmp_path / "again.npz").read_bytes()


def test_a_part_holds_plain_arrays_only(part: Path):
    with np.load(part, allow_pickle=False) as arrays:
        assert {name: arrays[name].dtype.kind for name in arrays.files} == {"header": "U", "tree": "u", "float64": "f"}


def test_a_part_is_no_artifact(part: Path):
    with pytest.raises(UnmergedPart, match="segcal merge joins all parts"):
        read_artifact(part)


def test_a_part_of_another_version_is_refused(part: Path):
    changed(part, segcal_version="9.9.9")
    with pytest.raises(OtherVersion, match=r"3\.npz was written by segcal 9\.9\.9"):
        read_part(part)


@pytest.mark.parametrize("cut", [0, 1, 40, 200, -1])
def test_a_truncated_part_is_refused(part: Path, cut: int):
    part.write_bytes(part.read_bytes()[:cut])
    with pytest.raises(NotAPart, match=r"3\.npz is not a part of a sharded run"):
        read_part(part)


@pytest.mark.parametrize(
    "entries",
    [
        {"shard": "3"},
        {"shard": 41},
        {"shards": None},
        {"cases": None},
        {"kind": "calibrate"},
        {"list_digest": 1},
        {"more": 1},
    ],
)
def test_a_damaged_header_is_refused(part: Path, entries: dict):
    with pytest.raises(NotAPart):
        read_part(changed(part, **entries))


def test_a_file_that_is_not_there_is_refused(tmp_path: Path):
    with pytest.raises(NotAPart, match="no such file"):
        read_part(tmp_path / "none.npz")


def test_the_digest_tells_numbers_text_and_types_apart():
    values = [
        np.zeros(2),
        np.zeros(3),
        np.zeros(2, np.float32),
        "0",
        0,
        0.0,
        (0,),
        [0],
        HEADER,
        replace(HEADER, shard=4),
    ]
    digests = [digest_of(value) for value in values]
    assert len(set(digests)) == len(values)
    assert digest_of(np.zeros(2)) == digests[0]


def test_kinds_of_file_are_those_that_artifacts_refuse():
    assert {parts.PART, parts.ROUND} == parts.UNMERGED
