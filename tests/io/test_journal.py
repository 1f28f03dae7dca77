"""A line per finished case, whoever is killed in the middle of writing one."""

from __future__ import annotations

import os

import pytest

from segcal_cli.core.errors import WriteError
from segcal_cli.io import journal
from segcal_cli.io.seals import seal_of


def test_entries_come_back_in_the_order_in_which_they_were_written(tmp_path):
    path = tmp_path / "j.jsonl"
    written = [{"case": case, "result": {"ü": 0.1, "none": None}} for case in "bac"]
    for entry in written:
        journal.append(path, entry)
    assert list(journal.entries(path)) == written


def test_there_may_be_no_journal(tmp_path):
    assert list(journal.entries(tmp_path / "none")) == []


LINE = b'\n{"case":"b","seal":"' + seal_of({"case": "b"}).encode() + b'"}'


@pytest.mark.parametrize("kept", [*range(14), len(LINE) - 1, len(LINE), len(LINE) + 1])
def test_a_torn_line_costs_itself_only(tmp_path, kept):
    path = tmp_path / "j.jsonl"
    journal.append(path, {"case": "a"})
    whole = path.stat().st_size
    journal.append(path, {"case": "b"})
    os.truncate(path, whole + kept)
    journal.append(path, {"case": "c"})
    found = [entry["case"] for entry in journal.entries(path)]
    assert found == (["a", "b", "c"] if kept >= len(LINE) else ["a", "c"])


def test_what_is_no_entry_is_passed_over(tmp_path):
    path = tmp_path / "j.jsonl"
    path.write_bytes(b'[1]\n"text"\n\xff\xfe\n{"case":"x"}' + LINE + b"\nnull\n" + b"[" * 100_000)
    assert list(journal.entries(path)) == [{"case": "b"}]


def test_an_entry_that_was_changed_since_is_passed_over(tmp_path):
    path = tmp_path / "j.jsonl"
    path.write_bytes(LINE.replace(b"b", b"c", 1))
    assert list(journal.entries(path)) == []


def test_an_entry_is_one_write_at_the_end(tmp_path, monkeypatch):
    """So that lines of two processes do not run into each other."""
    writes = []
    real = os.write
    monkeypatch.setattr(os, "write", lambda descriptor, data: writes.append(data) or real(descriptor, data))
    journal.append(tmp_path / "j.jsonl", {"case": "b"})
    assert writes == [LINE + b"\n"]


def test_a_journal_that_cannot_be_written_is_a_write_error(tmp_path):
    with pytest.raises(WriteError, match="no such file or directory"):
        journal.append(tmp_path / "none" / "j.jsonl", {"case": "a"})
    (tmp_path / "link").symlink_to(tmp_path / "elsewhere")
    with pytest.raises(WriteError, match="symbolic links"):
        journal.append(tmp_path / "link", {"case": "a"})


@pytest.mark.skipif(not os.path.exists("/dev/full"), reason="no /dev/full")  # noqa: PTH110
def test_a_full_disk_is_a_write_error():
    from pathlib import Path

    with pytest.raises(WriteError, match="cannot write /dev/full: no space left on device"):
        journal.append(Path("/dev/full"), {"case": "a"})
