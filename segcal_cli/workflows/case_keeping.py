"""Both halves of the work on a case whose outputs are kept: looked up before it is read, on record once it is written.

A case is up to date exactly if its key is the one on record and each recorded output is there unchanged. Deciding that
may mean hashing its inputs, so it is done where the case would be read: in a decoding thread, or in a worker.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import field
from typing import Any

from segcal_cli.core.case import Case
from segcal_cli.core.frozen import dataclass
from segcal_cli.io import journal
from segcal_cli.io.case_sources import CaseReader, CaseSource
from segcal_cli.io.fingerprints import (
    ChangedWhileRead,
    Fingerprint,
    InputFile,
    fingerprint,
    output_entry,
    output_unchanged,
    require_unchanged,
)
from segcal_cli.io.outputs import File, write_files
from segcal_cli.io.run_files import RunFiles
from segcal_cli.reporting.documents import plain
from segcal_cli.workflows.made_cases import is_made_by
from segcal_cli.workflows.run_settings import Settings

UNUSABLE = ("failed",)
"""States of a recorded case whose outputs, if there are any, are not those of its inputs."""


@dataclass(frozen=True, slots=True)
class Made:
    """What a command makes of a case. files: to be written, the one that stands for the case last. result: what the
    document says of it, and what tables of the whole run need; kept in the record, so numbers and texts only.
    """

    files: Sequence[File] = ()
    result: Mapping[str, Any] = field(default_factory=dict)


Maker = Callable[[Case], Made]


@dataclass(frozen=True, slots=True)
class Task:
    """A case to be done. given: what options say of this case; known: its entry on record, or None; seen: size and
    mtime of its files when their headers were read.
    """

    source: CaseSource
    files: tuple[InputFile, ...]
    given: Mapping[str, Any]
    known: Mapping[str, Any] | None
    seen: tuple[tuple[int, int] | None, ...]

    @property
    def id(self) -> str:
        return self.source.id


@dataclass(frozen=True, slots=True)
class Fetched:
    """A task with its inputs. case: None where nothing has to be done. seconds: so far."""

    task: Task
    inputs: tuple[Fingerprint, ...]
    key: str
    case: Case | None
    seconds: float

    @property
    def id(self) -> str:
        return self.task.id


@dataclass(frozen=True, slots=True)
class KeepingReader:
    """The ``load`` half: fingerprints, the decision, and the case itself. verify: trust no recorded digest."""

    inner: CaseReader
    settings: Settings
    files: RunFiles
    skip: bool
    verify: bool

    def __call__(self, task: Task) -> Fetched:
        """Raises ChangedWhileRead, UnreadableFile, and what reading the case raises."""
        start = time.monotonic()
        known = {} if self.verify or task.known is None else known_inputs(task.known)
        inputs = tuple(fingerprint(file, known.get((file.role, file.name))) for file in task.files)
        key = self.settings.key(task.given, [taken.to_json() for taken in inputs])
        if self.skip and task.known is not None and up_to_date(task.known, key, self.settings, self.files):
            return Fetched(task, inputs, key, None, time.monotonic() - start)
        for file, taken, seen in zip(task.files, inputs, task.seen, strict=True):
            if seen is not None and seen != (taken.size, taken.mtime_ns):
                raise ChangedWhileRead(file.path)
        case = self.inner(task.source)
        for file, taken in zip(task.files, inputs, strict=True):
            require_unchanged(file, taken)
        return Fetched(task, inputs, key, case, time.monotonic() - start)


@dataclass(frozen=True, slots=True)
class KeepingWriter:
    """The ``compute`` half: writes a case and enters it in the journal. Returns its entry."""

    inner: Maker
    files: RunFiles

    def __call__(self, fetched: Fetched) -> dict[str, Any]:
        """Raises WriteError, and what the maker raises."""
        inputs = [taken.to_json() for taken in fetched.inputs]
        if fetched.case is None:
            assert fetched.task.known is not None, "only a case on record is skipped"
            return {**fetched.task.known, "status": "skipped", "inputs": inputs}
        start = time.monotonic()
        facts = fetched.case.facts
        made = self.inner(fetched.case)
        names = write_files(self.files.folder, made.files, tag=self.files.tag)
        entry = {
            "case": fetched.id,
            "status": "done",
            "key": fetched.key,
            "seconds": round(fetched.seconds + time.monotonic() - start, 3),
            "grid_distance_mm": facts.grid_distance_mm,
            # What does not reproduce its segmentation fails, so the agreement of a proved case is 1.
            "proof": 1.0 if facts.proof else None,
            "padding_share": facts.padding_share,
            "inputs": inputs,
            "outputs": [output_entry(self.files.folder / name) for name in names],
            "warnings": list(facts.warnings),
            "error": None,
            "given": plain(fetched.task.given),
            "result": plain(made.result),
        }
        journal.append(self.files.journal, entry)
        return entry


def known_inputs(entry: Mapping[str, Any]) -> dict[tuple[str, str], Mapping[str, Any]]:
    """(role, file) -> what the record says of an input."""
    return {(taken["role"], taken["file"]): taken for taken in entry["inputs"]}


def up_to_date(entry: Mapping[str, Any], key: str, settings: Settings, files: RunFiles) -> bool:
    """Whether a recorded case has this key and all its outputs are there unchanged."""
    if not _usable(entry, key, settings):
        return False
    return all(output_unchanged(files.folder, output) for output in entry["outputs"])


def made_alike(entry: Mapping[str, Any], settings: Settings) -> bool:
    """Whether a recorded case was made with these settings, from the inputs that it had."""
    return _usable(entry, settings.key(entry["given"], entry["inputs"]), settings)


def _usable(entry: Mapping[str, Any], key: str, settings: Settings) -> bool:
    made = entry["status"] not in UNUSABLE and entry["key"] == key
    return made and is_made_by(settings.command, entry["result"])


def document_of(entry: Mapping[str, Any]) -> dict[str, Any]:
    """What ``--json`` says of a case: the facts of its entry without digests, and its result."""
    return {
        "case": entry["case"],
        "status": entry["status"],
        "outputs": [output["file"] for output in entry["outputs"]],
        "padding_share": entry["padding_share"],
        **entry["result"],
        "warnings": entry["warnings"],
    }
