"""Artifacts on disk: the same bytes for the same fit, and nothing taken on trust."""

from __future__ import annotations

import contextlib
import json
from dataclasses import replace

import numpy as np
import pytest

from segcal_cli.core.artifact import Artifact, Header
from segcal_cli.io.artifacts import NewerArtifact, NotAnArtifact, OtherKind, file_digest, read_artifact, write_artifact
from segcal_cli.io.seals import sealed
from tests.io.builders_arrays import npy_bytes, pickled_npy, write_npz
from tests.io.builders_nnunet import region_space, softmax_space

HEADER = Header(
    kind="calibrate",
    method="temperature",
    space=softmax_space(3),
    values="logits",
    spec={"loss": "nll", "roi": False},
    case_ids=("a", "b"),
    group_ids=("p", "p"),
    case_digests={"a": "00", "b": "01"},
    fit_input_digest="ff",
    guarantee="None whatever.",
    dropped=({"case": "c", "error": "c.npz: is empty (0 bytes)"},),
    results={"parameters": {"temperature": 1.5}},
    segcal_version="9.9",
)
ARTIFACT = Artifact(HEADER, {"z": np.arange(3), "a": np.ones((2, 2), np.float32)})


def edited(path, **changes):
    """The artifact with other entries in its header; ``...`` removes one."""
    with np.load(path) as archive:
        arrays = dict(archive)
    header = {**json.loads(str(arrays.pop("header"))), **changes}
    header = {key: value for key, value in header.items() if value is not ...}
    header = sealed(header, arrays)
    members = {f"{name}.npy": npy_bytes(array) for name, array in arrays.items()}
    write_npz(path, {"header.npy": npy_bytes(np.array(json.dumps(header))), **members})
    return path


def refused(path, error, text):
    with pytest.raises(error) as caught:
        read_artifact(path, "calibrate", "calibrate apply")
    assert str(caught.value) == text.format(path)


@pytest.mark.parametrize("space", [softmax_space(3), region_space()])
def test_what_is_written_is_read(space, tmp_path):
    header = replace(HEADER, space=space)
    digest = write_artifact(tmp_path / "t.npz", Artifact(header, ARTIFACT.arrays))
    read = read_artifact(tmp_path / "t.npz", "calibrate", "calibrate apply")
    assert read.header == header
    assert read.digest == digest == file_digest(tmp_path / "t.npz")
    for name, array in ARTIFACT.arrays.items():
        np.testing.assert_array_equal(read.arrays[name], array)
        assert read.arrays[name].dtype == array.dtype


def test_the_order_of_arrays_and_the_time_leave_no_trace(tmp_path, monkeypatch):
    write_artifact(tmp_path / "1.npz", ARTIFACT)
    monkeypatch.setattr("time.time", lambda: 1e9)
    write_artifact(tmp_path / "2.npz", Artifact(HEADER, dict(reversed(ARTIFACT.arrays.items()))))
    assert (tmp_path / "1.npz").read_bytes() == (tmp_path / "2.npz").read_bytes()


def test_a_missing_file_and_a_folder_are_no_artifacts(tmp_path):
    refused(tmp_path / "t.npz", NotAnArtifact, "{} is not a segcal artifact: no such file")
    refused(tmp_path, NotAnArtifact, "{} is not a segcal artifact: not a file")


def test_a_newer_format_is_named(tmp_path):
    write_artifact(tmp_path / "t.npz", ARTIFACT)
    edited(tmp_path / "t.npz", format_version=2, spec=...)
    refused(
        tmp_path / "t.npz", NewerArtifact,
        "{} has artifact format 2; this segcal reads up to 1. Install a newer segcal",
    )  # fmt: skip


def test_another_kind_is_named(tmp_path):
    write_artifact(tmp_path / "t.npz", Artifact(replace(HEADER, kind="cluster"), {}))
    text = "{} is a cluster artifact; calibrate apply needs a calibrate artifact"
    refused(tmp_path / "t.npz", OtherKind, text)


@pytest.mark.parametrize("key", ["kind", "classes", "values", "spec", "case_ids", "case_digests", "seed", "results"])
@pytest.mark.parametrize("value", [..., None, 7, "x", [1], {"a": [2]}])
def test_no_damaged_header_raises_anything_else(key, value, tmp_path):
    write_artifact(tmp_path / "t.npz", ARTIFACT)
    edited(tmp_path / "t.npz", **{key: value})
    # Some of these are legal in their place; whatever is not must be refused as damaged and nothing else.
    with contextlib.suppress(NotAnArtifact):
        read_artifact(tmp_path / "t.npz")


@pytest.mark.parametrize("text", ["", "[]", "{", "{}", '{"format_version": "1"}', "null"])
def test_a_header_that_is_none(text, tmp_path):
    write_npz(tmp_path / "t.npz", {"header.npy": npy_bytes(np.array(text))})
    with pytest.raises(NotAnArtifact, match=r"its header is damaged|it has no header"):
        read_artifact(tmp_path / "t.npz")


def test_a_pickle_inside_is_never_loaded(tmp_path):
    write_npz(tmp_path / "t.npz", {"header.npy": pickled_npy(tmp_path / "victim")})
    with pytest.raises(NotAnArtifact, match="never opened, it can run code"):
        read_artifact(tmp_path / "t.npz")
    assert not (tmp_path / "victim").exists()


def test_no_truncation_raises_anything_else(tmp_path):
    path = tmp_path / "t.npz"
    write_artifact(path, ARTIFACT)
    whole = path.read_bytes()
    for size in range(0, len(whole), 37):
        path.write_bytes(whole[:size])
        with pytest.raises(NotAnArtifact):
            read_artifact(path)


def test_no_damaged_byte_raises_anything_else_or_passes_unseen(tmp_path):
    """Zip members carry a CRC, so what still reads is what was written."""
    path = tmp_path / "t.npz"
    write_artifact(path, ARTIFACT)
    whole = path.read_bytes()
    for position in range(0, len(whole), 13):
        path.write_bytes(whole[:position] + bytes([whole[position] ^ 0xFF]) + whole[position + 1 :])
        try:
            read = read_artifact(path)
        except NotAnArtifact:
            continue
        assert read.header == HEADER
