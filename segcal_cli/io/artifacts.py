"""Artifacts on disk: one ``.npz`` with a JSON header (a string array named ``header``) and plain numeric arrays.

Written whole or not at all; read without trust: no pickle, every size checked before it is allocated, the seal over
header and arrays held against them, every field of the header looked at. The same artifact has the same bytes, so its
sha256 is its identity.
"""

from __future__ import annotations

import hashlib
import json
from pathlib import Path
from typing import Any

import numpy as np

from segcal_cli import __version__
from segcal_cli.core.artifact import FORMAT_VERSION, Artifact, Header
from segcal_cli.core.errors import ArtifactError, FormatError, SegcalError
from segcal_cli.core.labels import LabelSpace
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

    template = "{0} is a {1} artifact; {2} needs a {3} artifact"


class UnmergedPart(ArtifactError):
    """What a shard wrote, or the state between two rounds: no artifact yet."""

    template = "{0} is not an artifact but what --shard wrote; segcal merge joins all parts"


UNMERGED = frozenset({"part", "round"})
"""Kinds of file that ``io/parts.py`` writes."""


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
        space = LabelSpace.from_json(
            {
                "channels": data["classes"],
                "regions": data.get("regions", ()),
                **{key: data[key] for key in ("activation", "ignore", "paint")},
            }
        )
        header = Header(
            kind=_text(data["kind"]),
            method=_text(data["method"]),
            space=space,
            values=data["values"],
            spec=dict(data["spec"]),
            case_ids=tuple(map(_text, data["case_ids"])),
            group_ids=tuple(map(_text, data["group_ids"])),
            case_digests={_text(case): _text(digest) for case, digest in data["case_digests"].items()},
            fit_input_digest=_text(data["fit_input_digest"]),
            guarantee=_text(data["guarantee"]),
            seed=int(data["seed"]),
            dropped=tuple({key: _text(value) for key, value in entry.items()} for entry in data["dropped"]),
            results=dict(data["results"]),
            segcal_version=_text(data["segcal_version"]),
            format_version=data["format_version"],
        )
    except (KeyError, TypeError, ValueError, AttributeError, OverflowError, SegcalError) as error:
        raise NotAnArtifact(path, f"its header is damaged ({type(error).__name__}: {error})") from error
    if header.values not in ("logits", "probabilities") or len(header.case_ids) != len(header.group_ids):
        raise NotAnArtifact(path, "its header is damaged (values or group ids)")
    if header.seed < 0:
        raise NotAnArtifact(path, "its header is damaged (seed)")
    if not all("case" in entry for entry in header.dropped):
        raise NotAnArtifact(path, "its header is damaged (dropped)")
    return header


def _text(value: Any) -> str:
    if not isinstance(value, str):
        raise TypeError(f"{value!r} is not text")
    return value
