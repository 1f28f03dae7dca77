"""Artifacts on disk: one ``.npz`` with a JSON header (a string array named ``header``) and plain numeric arrays.

Written whole or not at all; read without trust: no pickle, every size checked before it is allocated, the seal over
header and arrays held against them, every field of the header looked at. The same artifact has the same bytes, so its
sha256 is its identity.
"""

from __future__ import annotations

import hashlib
import json
from pathlib import Path
from typing import Any, NotRequired, TypedDict

import numpy as np

from segcal_cli import __version__
from segcal_cli.core.annotations import Count, OtherType, require_type
from segcal_cli.core.artifact import FORMAT_VERSION, Artifact, Header
from segcal_cli.core.errors import ArtifactError, FormatError, SegcalError
from segcal_cli.core.labels import Activation, LabelSpace
from segcal_cli.core.volume import Values
from segcal_cli.io.atomic import writing
from segcal_cli.io.bundles import read_bundle, write_bundle
from segcal_cli.io.seals import is_sealed, sealed

HEADER = "header"
"""Name of the array that holds the JSON header."""


class NotAnArtifact(ArtifactError):
    """A file that is no artifact, or a damaged one."""

    template = "{0} is not a segcal artifact: {1}"


class NewerArtifact(ArtifactError):
    """An artifact written by a newer segcal."""

    template = "{0} has artifact format {1}; this segcal reads up to {2}. Install a newer segcal"


class OtherKind(ArtifactError):
    """A good artifact, but of another command."""

    template = "{0} is {1:an} artifact; {2} needs {3:an} artifact"


class UnmergedPart(ArtifactError):
    """What a shard wrote, or the state between two rounds: no artifact yet."""

    template = "{0} is not an artifact but what --shard wrote; segcal merge joins all parts"


UNMERGED = frozenset({"part", "round"})
"""Kinds of file that ``io/parts.py`` writes."""


class ClassEntry(TypedDict):
    name: str
    values: list[int]


class Dropped(TypedDict):
    """A case that was left out."""

    case: str
    file: NotRequired[str]
    error: NotRequired[str]
    message: NotRequired[str]


class ReadAs(TypedDict, total=False):
    """Of a spec: how predictions were read, as every kind says it."""

    calibrator: str | None
    reduce: str | None
    members: int | None
    prove: bool
    source: str
    roi: bool
    ignore_label: int | None
    overlap_allowed: bool


class HeaderDocument(TypedDict):
    """The header of any kind; what its spec and its results hold besides is the kind's own affair."""

    format_version: Count
    kind: str
    method: str
    segcal_version: str
    classes: list[ClassEntry]
    regions: NotRequired[list[ClassEntry]]
    activation: Activation
    ignore: int | None
    paint: list[int] | None
    values: Values
    spec: ReadAs
    case_ids: list[str]
    group_ids: list[str]
    case_digests: dict[str, str]
    fit_input_digest: str
    seed: Count
    guarantee: str
    dropped: list[Dropped]
    results: dict[str, Any]


def write_artifact(path: Path, artifact: Artifact) -> str:
    """Write an artifact whole or not at all; returns the sha256 of the file. Raises WriteError."""
    header = sealed(_header_to_json(artifact.header), artifact.arrays)
    text = json.dumps(header, sort_keys=True, separators=(",", ":"), allow_nan=False)
    arrays = {HEADER: np.array(text), **{name: artifact.arrays[name] for name in sorted(artifact.arrays)}}
    with writing(path) as file:
        write_bundle(file, arrays)
    return file_digest(path)


def read_artifact(path: Path, kind: str | None = None, command: str = "") -> Artifact:
    """Read an artifact. kind: what it must be, for ``command``.

    Raises NotAnArtifact, NewerArtifact, OtherKind, UnmergedPart.
    """
    if not path.is_file():
        raise NotAnArtifact(path, "no such file" if not path.exists() else "not a file")
    try:
        arrays = read_bundle(path)
        document = _json_header(path, arrays.pop(HEADER, None))
        if not is_sealed(document, arrays):
            raise NotAnArtifact(path, "it was changed since it was written (its seal does not fit)")
        header = _header_from_json(path, document)
    except FormatError as error:
        raise NotAnArtifact(path, _without_name(path, str(error))) from error
    if kind is not None and header.kind != kind:
        raise OtherKind(path, header.kind, command, kind)
    return Artifact(header, arrays, file_digest(path))


def require_kept(path: Path, header: Header, spec: Any, results: Any) -> None:
    """Raise NotAnArtifact unless spec and results of a header are what its kind keeps there. spec, results: their
    declared types."""
    try:
        require_type(header.spec, spec, "spec")
        require_type(header.results, results, "results")
    except OtherType as error:
        raise NotAnArtifact(path, f"its header is damaged ({error})") from error


def file_digest(path: Path) -> str:
    """sha256 of a file's bytes, in hexadecimal."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def _without_name(path: Path, text: str) -> str:
    return text.removeprefix(f"{path}: ")


def _json_header(path: Path, array: np.ndarray | None) -> dict[str, Any]:
    if array is None or array.dtype.kind != "U" or array.ndim != 0:
        raise NotAnArtifact(path, "it has no header")
    try:
        data = json.loads(str(array), parse_constant=_refused)
    except (ValueError, RecursionError) as error:
        raise NotAnArtifact(path, f"its header is damaged ({error})") from error
    if not isinstance(data, dict) or not isinstance(data.get("format_version"), int):
        raise NotAnArtifact(path, "its header is damaged (no format version)")
    if data["format_version"] > FORMAT_VERSION:
        raise NewerArtifact(path, data["format_version"], FORMAT_VERSION)
    if not isinstance(data.get("kind"), str):
        raise NotAnArtifact(path, "its header is damaged (no kind)")
    if data["kind"] in UNMERGED:
        raise UnmergedPart(path)
    return data


def _refused(constant: str) -> None:
    raise ValueError(f"{constant} is no JSON")


def _header_to_json(header: Header) -> dict[str, Any]:
    return {
        "format_version": header.format_version,
        "kind": header.kind,
        "method": header.method,
        "segcal_version": header.segcal_version or __version__,
        "classes": header.space.to_json()["channels"],
        "activation": header.space.activation,
        "ignore": header.space.ignore,
        "paint": None if header.space.paint is None else list(header.space.paint),
        **({"regions": header.space.to_json()["regions"]} if header.space.regions else {}),
        "values": header.values,
        "spec": header.spec,
        "n_cases": header.n_cases,
        "n_groups": header.n_groups,
        "case_ids": list(header.case_ids),
        "group_ids": list(header.group_ids),
        "case_digests": header.case_digests,
        "fit_input_digest": header.fit_input_digest,
        "seed": header.seed,
        "guarantee": header.guarantee,
        "dropped": list(header.dropped),
        "results": header.results,
    }


def _header_from_json(path: Path, data: dict[str, Any]) -> Header:
    try:
        require_type(data, HeaderDocument)
        space = LabelSpace.from_json(
            {
                "channels": data["classes"],
                "regions": data.get("regions", ()),
                **{key: data[key] for key in ("activation", "ignore", "paint")},
            }
        )
    except (ValueError, SegcalError) as error:
        raise NotAnArtifact(path, f"its header is damaged ({error})") from error
    if len(data["case_ids"]) != len(data["group_ids"]):
        raise NotAnArtifact(path, "its header is damaged (group_ids are not as many as case_ids)")
    return Header(
        kind=data["kind"],
        method=data["method"],
        space=space,
        values=data["values"],
        spec=data["spec"],
        case_ids=tuple(data["case_ids"]),
        group_ids=tuple(data["group_ids"]),
        case_digests=data["case_digests"],
        fit_input_digest=data["fit_input_digest"],
        guarantee=data["guarantee"],
        seed=data["seed"],
        dropped=tuple(data["dropped"]),
        results=data["results"],
        segcal_version=data["segcal_version"],
        format_version=data["format_version"],
    )
