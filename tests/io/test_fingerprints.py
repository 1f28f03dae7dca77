"""A digest on record is used again only while nobody can have written to the file."""

from __future__ import annotations

import hashlib
import os
import time

import pytest

from segcal_cli.io import fingerprints
from segcal_cli.io.fingerprints import (
    ChangedWhileRead,
    InputFile,
    fingerprint,
    output_entry,
    output_unchanged,
    require_unchanged,
    younger_than,
)
from segcal_cli.io.inputs import UnreadableFile


@pytest.fixture
def file(tmp_path) -> InputFile:
    (tmp_path / "a.npz").write_bytes(b"what it holds")
    return InputFile("prediction", tmp_path / "a.npz", "a.npz")


def never(path):
    pytest.fail(f"{path} was hashed")


def test_a_fingerprint_is_the_digest_and_the_status(file):
    taken = fingerprint(file)
    status = file.path.stat()
    assert taken.to_json() == {
        "role": "prediction",
        "file": "a.npz",
        "sha256": hashlib.sha256(b"what it holds").hexdigest(),
        "size": 13,
        "mtime_ns": status.st_mtime_ns,
        "ctime_ns": status.st_ctime_ns,
        "inode": status.st_ino,
    }


def test_a_known_digest_is_used_where_size_times_and_inode_are_the_same(file, monkeypatch):
    known = fingerprint(file).to_json()
    monkeypatch.setattr(fingerprints, "sha256", never)
    assert fingerprint(file, known).to_json() == known


@pytest.mark.parametrize("name", ["size", "mtime_ns", "ctime_ns", "inode"])
def test_a_known_digest_is_not_trusted_if_one_of_them_differs(file, name):
    known = fingerprint(file).to_json()
    assert fingerprint(file, {**known, name: known[name] + 1, "sha256": "f" * 64}).sha256 != "f" * 64


@pytest.mark.parametrize("damage", [{"sha256": 3}, {"sha256": None}, {"size": None}])
def test_a_known_entry_that_is_damaged_is_not_trusted(file, damage):
    known = fingerprint(file).to_json()
    assert fingerprint(file, {**known, **damage}).to_json() == known


def test_without_a_ctime_everything_is_hashed(file, monkeypatch):
    """As on Windows, where st_ctime is the time of creation."""
    known = fingerprint(file).to_json()
    monkeypatch.setattr(fingerprints, "HAS_CTIME", False)
    assert fingerprint(file, {**known, "sha256": "f" * 64}).sha256 == known["sha256"]


def test_a_file_that_changes_while_it_is_hashed_is_refused(file, monkeypatch):
    real = fingerprints.sha256

    def meddling(path):
        digest = real(path)
        path.write_bytes(b"something else")
        return digest

    monkeypatch.setattr(fingerprints, "sha256", meddling)
    with pytest.raises(ChangedWhileRead, match=r"a\.npz: changed while it was read"):
        fingerprint(file)


def test_a_change_after_the_fingerprint_is_noticed_by_size_or_time(file):
    taken = fingerprint(file)
    require_unchanged(file, taken)
    os.utime(file.path, ns=(1, 1))
    with pytest.raises(ChangedWhileRead):
        require_unchanged(file, taken)
    file.path.unlink()
    with pytest.raises(UnreadableFile, match="no such file or directory"):
        require_unchanged(file, taken)


def test_an_output_is_unchanged_by_size_and_time_or_by_its_bytes(tmp_path, monkeypatch):
    path = tmp_path / "out.nii.gz"
    path.write_bytes(b"output")
    entry = output_entry(path)
    assert output_unchanged(tmp_path, entry)
    os.utime(path, ns=(1, 1))
    assert output_unchanged(tmp_path, entry)
    path.write_bytes(b"0utput")
    assert not output_unchanged(tmp_path, entry)
    path.write_bytes(b"longer output")
    assert not output_unchanged(tmp_path, entry)
    path.unlink()
    assert not output_unchanged(tmp_path, entry)


def test_age_is_counted_from_the_later_of_both_times_that_are_not_in_the_future(tmp_path):
    path = tmp_path / "a"
    path.write_bytes(b"")
    os.utime(path, ns=(1, 1))
    assert younger_than(path, 60)
    hour = 3_600 * 10**9
    os.utime(path, ns=(time.time_ns() + hour, time.time_ns() + hour))
    assert younger_than(path, 60)
    assert not younger_than(path, 1e-9)
    assert not younger_than(tmp_path / "none", 60)
