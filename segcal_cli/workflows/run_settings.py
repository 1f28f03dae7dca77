"""What decides the outputs of a case: segcal, command, artifact, options, and the bytes of its inputs.

All of it together is the case's key. Two runs with one key make the same files, so a case whose key is on record need
not be done again. What changes no output (jobs, what is said, where the work is done) is no part of the key.
"""

from __future__ import annotations

import dataclasses
import hashlib
import json
import os
from collections.abc import Iterable, Mapping
from dataclasses import field
from pathlib import Path, PurePath
from typing import Any

from segcal_cli import __version__
from segcal_cli.core.artifact import Artifact
from segcal_cli.core.frozen import dataclass
from segcal_cli.core.volume import Values
from segcal_cli.reporting.documents import plain
from segcal_cli.workflows.requests import PredictionOptions

FILES_OF_READING = ("cases", "classes", "groups", "pattern", "member", "geometry", "calibrator")
"""Options that say where inputs lie: what lies there is in the key, by its digest."""


@dataclass(frozen=True, slots=True)
class Settings:
    """What is the same for every case of a run.

    artifact, calibrator: None where there is none. changing: options that change an output. recorded: all options for
    the record, name -> {"value", "from"}.
    """

    command: str
    artifact: dict[str, str] | None
    calibrator: str | None
    changing: Mapping[str, Any]
    recorded: Mapping[str, Mapping[str, Any]] = field(default_factory=dict)

    def key(self, given: Mapping[str, Any], inputs: Iterable[Mapping[str, Any]]) -> str:
        """The key of a case. given: what options say of this case (group, weight); inputs: entries of the record."""
        document = {
            "segcal_version": __version__,
            "command": self.command,
            "artifact": None if self.artifact is None else self.artifact["sha256"],
            "calibrator": self.calibrator,
            "options": plain(self.changing),
            "given": plain(given),
            "inputs": [[entry["role"], entry["sha256"]] for entry in inputs],
        }
        text = json.dumps(document, sort_keys=True, separators=(",", ":"), allow_nan=False)
        return hashlib.sha256(text.encode()).hexdigest()


def settings_for(
    command: str,
    artifact: tuple[Path, Artifact] | None,
    calibrator: Artifact | None,
    reading: PredictionOptions,
    values: Values,
    changing: Mapping[str, Any],
    records: Iterable[Any],
    origins: Mapping[str, str],
) -> Settings:
    """The settings of an ``apply``. changing: the command's own options that change outputs; records: all its options.

    values: what the predictions hold, whoever said so.
    """
    read = {f.name: getattr(reading, f.name) for f in dataclasses.fields(reading) if f.name not in FILES_OF_READING}
    recorded = recorded_options([reading, *records], origins)
    if reading.values is None:
        recorded["values"] = {"value": values, "from": "format"}
    return Settings(
        command,
        None if artifact is None else {"file": artifact[0].name, "sha256": artifact[1].digest},
        None if calibrator is None else calibrator.digest,
        {**read, "values": values, "members": len(reading.member), "placed": reading.geometry is not None, **changing},
        recorded,
    )


def recorded_options(records: Iterable[Any], origins: Mapping[str, str]) -> dict[str, dict[str, Any]]:
    """Option -> its value and who said it, by name; files without their folders."""
    options = {}
    for record in records:
        for entry in dataclasses.fields(record):
            if entry.name == "origins":
                continue
            value = getattr(record, entry.name)
            default = entry.default if entry.default is not dataclasses.MISSING else ()
            said = origins.get(entry.name, "default" if value == default else "call")
            options[entry.name.replace("_", "-")] = {"value": plain(_without_folders(value)), "from": said}
    return dict(sorted(options.items()))


def _without_folders(value: Any) -> Any:
    if isinstance(value, tuple):
        return [_without_folders(part) for part in value]
    if isinstance(value, PurePath):
        return value.name
    if isinstance(value, str) and os.sep in value and Path(value).exists():
        return Path(value).name
    return value
