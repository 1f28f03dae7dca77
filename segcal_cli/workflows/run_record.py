"""The record of a run, ``segcal-run.json``: with what, by what and when each output was made, and what failed.

It is for people who ask later, for programs that watch a folder, and for the next run, which skips what has not
changed. So it is read without trust: it is sealed, and where it was changed every case is done again. Only here stand
times; no host, no user and no absolute path do.
"""

from __future__ import annotations

import contextlib
import importlib.metadata
import os
import platform
import time
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any, Literal, TypedDict

from segcal_cli import __version__
from segcal_cli.core.annotations import OtherType, require_type
from segcal_cli.core.errors import FormatError
from segcal_cli.core.names import escaped
from segcal_cli.core.observer import Observer
from segcal_cli.io import journal
from segcal_cli.io.documents import read_json
from segcal_cli.io.run_files import RunFiles
from segcal_cli.io.seals import is_sealed, sealed
from segcal_cli.reporting.documents import status_of
from segcal_cli.workflows.outcome import FolderCounts
from segcal_cli.workflows.run_settings import Settings

VERSION = 1
SCHEMA = f"segcal/run/{VERSION}"

LIBRARIES = ("numpy", "scipy", "nibabel", "isal")
"""Libraries that outputs may depend on."""


class Input(TypedDict):
    role: str
    file: str
    sha256: str


class Output(TypedDict):
    file: str
    sha256: str
    size: int
    mtime_ns: int


class Failure(TypedDict):
    file: str
    error: str
    message: str


class Entry(TypedDict):
    """What the next run takes from a record. key: None where the case was never made."""

    case: str
    status: Literal["done", "failed", "skipped", "waiting", "not_run", "kept"]
    error: Failure | None
    key: str | None
    padding_share: float | None
    inputs: list[Input]
    outputs: list[Output]
    warnings: list[str]
    given: dict[str, Any]
    result: dict[str, Any]


def known_entries(files: RunFiles, observer: Observer) -> dict[str, dict[str, Any]]:
    """Case -> its last entry, of the record and of a journal that a killed run left.

    A record that cannot be read is warned about: every case is done again.
    """
    found = [*_recorded(files.record, observer), *journal.entries(files.journal)]
    return {entry["case"]: entry for entry in found if _sound(entry)}


def sound_entries(document: Mapping[str, Any]) -> list[dict[str, Any]]:
    """The entries of a record. Raises OtherType unless each of them, and each output of all cases, is sound."""
    require_type(document.get("cases"), list[Entry], "cases")
    require_type(document.get("outputs"), list[Output], "outputs")
    entries: list[dict[str, Any]] = document["cases"]
    for entry in entries:
        if not _sound(entry):
            raise OtherType(f"the record of {escaped(entry['case'])}", "whole")
    return entries


def _recorded(path: Path, observer: Observer) -> list[Any]:
    if not path.exists():
        return []
    try:
        document = read_json(path)
        name, _, version = str(document["schema"]).rpartition("/")
        if name != "segcal/run":
            raise ValueError
        if int(version) > VERSION:
            observer.warn(f"{path.name} is of a newer segcal ({document['schema']}): every case is done again")
            return []
        if not is_sealed(document):
            raise ValueError
        return list(document["cases"])
    except (FormatError, AttributeError, KeyError, TypeError, ValueError):
        observer.warn(f"{path.name} is damaged: every case is done again")
        return []


def _sound(entry: Any) -> bool:
    """Whether an entry can be relied on, whoever has edited the file."""
    try:
        require_type(entry, Entry)
        names = [entry["case"].encode(), *(os.fsencode(output["file"]) for output in entry["outputs"])]
    except (OtherType, UnicodeEncodeError):
        return False
    if entry["status"] == "failed" and entry["error"] is None:
        return False
    plain = all(Path(output["file"]).name == output["file"] for output in entry["outputs"])
    return plain and not any(b"\0" in name for name in names)


def failed_entry(failure: Mapping[str, str]) -> dict[str, Any]:
    """The entry of a case that failed. What an earlier run wrote for it is no longer what its inputs say."""
    return {
        **_empty(failure["case"], "failed"),
        "error": {name: failure[name] for name in ("file", "error", "message")},
    }


def undone_entry(case: str, status: str, known: Mapping[str, Any] | None) -> dict[str, Any]:
    """The entry of a case that was left alone: what is on record of an earlier run still holds."""
    return {**_empty(case, status), **({} if known is None else known), "status": status}


def kept_entry(known: Mapping[str, Any], folder: Path) -> dict[str, Any] | None:
    """The entry of a case whose input is gone since; None where its outputs are gone too, or were never made."""
    there = all((folder / output["file"]).is_file() for output in known["outputs"])
    return {**known, "status": "kept"} if there and known["key"] is not None else None


def _empty(case: str, status: str) -> dict[str, Any]:
    return {
        "case": case,
        "status": status,
        "key": None,
        "seconds": 0.0,
        "grid_distance_mm": None,
        "proof": None,
        "padding_share": None,
        "inputs": [],
        "outputs": [],
        "warnings": [],
        "error": None,
        "given": {},
        "result": {},
    }


def counts_of(entries: Iterable[Mapping[str, Any]]) -> FolderCounts:
    """How many cases came to what. Cases that were kept are none of this run's."""
    states = [entry["status"] for entry in entries]
    return FolderCounts(
        cases=len(states) - states.count("kept"),
        **{name: states.count(name) for name in ("done", "failed", "skipped", "waiting", "not_run", "kept")},
    )


def run_document(
    files: RunFiles,
    settings: Settings,
    started: float,
    exit_code: int,
    counts: FolderCounts,
    entries: Mapping[str, Mapping[str, Any]],
    outputs: list[dict[str, Any]],
) -> dict[str, Any]:
    """The document of a record. started: seconds since 1970; outputs: of files that belong to no single case."""
    document = {
        "schema": SCHEMA,
        "segcal_version": __version__,
        "python": platform.python_version(),
        "libraries": _libraries(),
        "command": settings.command,
        "options": settings.recorded,
        "artifact": settings.artifact,
        "calibrator": settings.calibrator,
        "shard": None if files.shard is None else f"{files.shard.number}/{files.shard.count}",
        "started": time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime(started)),
        "seconds": round(time.time() - started, 1),
        "status": status_of(exit_code, partial=bool(counts.failed and counts.standing)),
        "exit_code": exit_code,
        "counts": counts.to_json(),
        "outputs": outputs,
        "cases": [entries[case] for case in sorted(entries, key=str.encode)],
    }
    return sealed(document)


def _libraries() -> dict[str, str]:
    versions = {}
    for name in LIBRARIES:
        with contextlib.suppress(importlib.metadata.PackageNotFoundError):
            versions[name] = importlib.metadata.version(name)
    return versions
