"""The drift report of ``apply``: every scan ever applied, kept in a file beside the outputs, under a lock."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, TypedDict

import numpy as np

from segcal_cli.confidence.drift import batch_p_values, drift_json, stream_p_values, stream_test, tie_breaks
from segcal_cli.core.annotations import OtherType, require_type
from segcal_cli.core.artifact import Artifact
from segcal_cli.core.errors import ArtifactError, FormatError, WriteError
from segcal_cli.core.frozen import dataclass
from segcal_cli.io.atomic import remove_temps, writing
from segcal_cli.io.bundles import read_bundle, write_bundle
from segcal_cli.io.locks import locked
from segcal_cli.io.seals import is_sealed, sealed

HISTORY = "drift.npz"
REPORT = "drift.json"

LOCK_SECONDS = 60.0
"""How long a run waits for another one to write its scans into the history."""


class OtherHistory(ArtifactError):
    """A history of scans that another artifact was applied to."""

    template = "{0} is the history of another artifact ({1}); give --history FILE, or --no-drift"


class NoHistory(ArtifactError):
    """A file that is no history."""

    template = "{0} is no history of scans: {1}"


class HistoryDocument(TypedDict):
    """The header of a history: sha256 of its artifact, and for each scan its case and its digest."""

    artifact: str
    cases: list[str]
    digests: list[str]


@dataclass(frozen=True, slots=True)
class History:
    """Scans in the order in which they came. features: float64 "scan feature"."""

    artifact: str
    cases: tuple[str, ...]
    digests: tuple[str, ...]
    features: np.ndarray


def read_history(path: Path, artifact: Artifact, width: int) -> History:
    """The history, empty where there is none. Raises OtherHistory, NoHistory."""
    if not path.exists():
        return History(artifact.digest, (), (), np.empty((0, width)))
    try:
        arrays = read_bundle(path)
        head = json.loads(str(arrays.pop("header")))
        if not isinstance(head, dict) or not is_sealed(head, arrays):
            raise TypeError("it was changed since it was written (its seal does not fit)")
        try:
            require_type(head, HistoryDocument)
        except OtherType as error:
            raise TypeError(f"its header is damaged ({error})") from error
        if arrays["features"].dtype.kind != "f":
            raise TypeError("its features are no numbers")
        found = History(head["artifact"], tuple(head["cases"]), tuple(head["digests"]), arrays["features"])
    except (FormatError, KeyError, TypeError, ValueError, RecursionError) as error:
        raise NoHistory(path, str(error).removeprefix(f"{path}: ")) from error
    if found.artifact != artifact.digest:
        raise OtherHistory(path, found.artifact[:12])
    if found.features.shape != (len(found.cases), width) or len(found.digests) != len(found.cases):
        raise NoHistory(path, "its arrays do not fit together")
    if np.isnan(found.features).any():
        raise NoHistory(path, "its features are not all numbers")
    return found


def watch(
    path: Path,
    artifact: Artifact,
    calibration: np.ndarray,
    names: Sequence[str],
    batch: Mapping[str, tuple[str, np.ndarray]],
) -> dict[str, Any]:
    """Add this batch to the history and test it. calibration: "case feature". batch: case -> (digest, features).

    A scan counts once, by its digest, also if calibration held it. Raises OtherHistory, NoHistory, WriteError.
    """
    import filelock

    try:
        with locked(path.parent / f".{path.name}.lock", LOCK_SECONDS):
            remove_temps(path.parent, path.name)
            history = read_history(path, artifact, len(names))
            known = {*history.digests, *artifact.header.case_digests.values()}
            cases, digests, rows = list(history.cases), list(history.digests), list(history.features)
            for case in sorted(batch, key=str.encode):
                digest, features = batch[case]
                if digest not in known:
                    known.add(digest)
                    cases.append(case)
                    digests.append(digest)
                    rows.append(features.reshape(-1))
            features = np.array(rows, np.float64).reshape(-1, len(names))
            _write(path, History(artifact.digest, tuple(cases), tuple(digests), features))
    except filelock.Timeout:
        raise WriteError(path, "another run holds its lock") from None
    ties = tie_breaks(artifact.header.seed, cases, names)
    stream = stream_test(stream_p_values(calibration, features, ties))
    now = np.stack([batch[case][1].reshape(-1) for case in sorted(batch, key=str.encode)])
    return drift_json(names, stream, batch_p_values(calibration, now), len(cases))


def _write(path: Path, history: History) -> None:
    head = {"artifact": history.artifact, "cases": history.cases, "digests": history.digests}
    arrays = {"features": history.features}
    # Temps bear the lock's name, so that its next holder knows what a killed run left.
    with writing(path, tag=path.name) as file:
        write_bundle(file, {"header": np.array(json.dumps(sealed(head, arrays))), **arrays})
