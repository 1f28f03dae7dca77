"""Parts: what one shard of a run came to, in a file, and the state between two rounds.

A part is an ``.npz`` like an artifact: a small JSON header, a tree of plain data as bytes of JSON, and flat arrays of
numbers (``io/records.py``). It belongs to a run that is split in N shards over one list of cases with one set of
options; the digests of both tell whether parts fit each other. Records have no promise beyond one version of segcal,
so a part of another version is refused.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np

from segcal_cli import __version__
from segcal_cli.core.annotations import Text, require_fields
from segcal_cli.core.errors import ArtifactError, FormatError
from segcal_cli.core.frozen import dataclass
from segcal_cli.io.artifacts import HEADER, UNMERGED, file_digest
from segcal_cli.io.atomic import writing
from segcal_cli.io.bundles import read_bundle, write_bundle
from segcal_cli.io.records import NotARecord, flattened, restored
from segcal_cli.io.seals import SEAL, is_sealed, sealed

PART, ROUND = "part", "round"
"""Kinds of file: what a shard wrote, and what the next round begins with."""

TREE = "tree"
"""Name of the array that holds the tree, as bytes of JSON."""

FORMAT_VERSION = 1
"""Raised whenever a part is laid out in another way; within one version of segcal it never is."""


OF_THE_FILE = frozenset({"segcal_version", "format_version", SEAL})
"""What a header says of its file, beside what it says of its run."""


class NotAPart(ArtifactError):
    """A file that is no part, or a damaged one."""

    template = "{0} is not a part of a sharded run: {1}"


class OtherVersion(ArtifactError):
    """A part whose records may mean something else here."""

    template = "{0} was written by segcal {1}, this is segcal {2}; one version must make all parts and merge them"


@dataclass(frozen=True, slots=True)
class PartHeader:
    """What a part belongs to.

    command: as on the command line. shard: from 1; 0 for the state between two rounds. number: the round that a part
    was made in, or that a state begins. list_digest: of the whole case list. spec_digest: of the options that change
    the result. previous: sha256 of the state that the round began with, "" in round 1. cases: ids of this part.
    """

    kind: str
    command: str
    shard: int
    shards: int
    number: int
    list_digest: str
    spec_digest: str
    previous: str
    cases: tuple[Text, ...]


@dataclass(frozen=True, slots=True)
class Part:
    """A part or a state. content: plain records. digest: sha256 of the file it was read from."""

    header: PartHeader
    content: Any
    digest: str = ""


def write_part(path: Path, header: PartHeader, content: Any) -> str:
    """Write a part whole or not at all; returns the sha256 of the file. Raises WriteError, NotARecord for a bug."""
    tree, arrays = flattened(content)
    about = {"format_version": FORMAT_VERSION, "segcal_version": __version__, **asdict(header)}
    arrays = {TREE: np.frombuffer(_json_bytes(tree), np.uint8), **arrays}
    text = json.dumps(sealed(about, arrays), sort_keys=True, separators=(",", ":"), allow_nan=False)
    with writing(path) as file:
        write_bundle(file, {HEADER: np.array(text), **arrays})
    return file_digest(path)


def read_part(path: Path) -> Part:
    """Raises NotAPart, OtherVersion."""
    if not path.is_file():
        raise NotAPart(path, "no such file" if not path.exists() else "not a file")
    try:
        arrays = read_bundle(path)
    except FormatError as error:
        raise NotAPart(path, str(error).removeprefix(f"{path}: ")) from error
    document = _document(path, arrays.pop(HEADER, None))
    if not is_sealed(document, arrays):
        raise NotAPart(path, "it was changed since it was written (its seal does not fit)")
    header = _header(path, document)
    try:
        content = restored(json.loads(arrays.pop(TREE, np.zeros(0)).astype(np.uint8).tobytes()), arrays)
    except (NotARecord, ValueError, RecursionError) as error:
        raise NotAPart(path, f"its records are damaged ({error})") from error
    return Part(header, content, file_digest(path))


def digest_of(content: Any) -> str:
    """sha256 of records: equal for equal numbers, text and classes."""
    tree, arrays = flattened(content)
    found = hashlib.sha256(_json_bytes(tree))
    for name, array in arrays.items():
        found.update(name.encode())
        found.update(array.tobytes())
    return found.hexdigest()


def _json_bytes(tree: Any) -> bytes:
    return json.dumps(tree, separators=(",", ":"), allow_nan=False, ensure_ascii=False).encode("utf-8", "surrogatepass")


def _document(path: Path, array: np.ndarray | None) -> dict[str, Any]:
    """The header, of a part of this version."""
    if array is None or array.dtype.kind != "U" or array.ndim != 0:
        raise NotAPart(path, "it has no header")
    try:
        data = json.loads(str(array))
        if data.get("kind") not in UNMERGED:
            raise NotAPart(path, f"it is a {data['kind']} artifact")
        version = data["segcal_version"]
        if version != __version__ or data["format_version"] != FORMAT_VERSION:
            raise OtherVersion(path, version, __version__)
    except (ValueError, KeyError, TypeError, AttributeError, RecursionError) as error:
        raise NotAPart(path, f"its header is damaged ({type(error).__name__}: {error})") from error
    return dict(data)


def _header(path: Path, document: Mapping[str, Any]) -> PartHeader:
    data = {name: value for name, value in document.items() if name not in OF_THE_FILE}
    try:
        header = PartHeader(**{**data, "cases": tuple(data["cases"])})
        require_fields(header)
    except (KeyError, TypeError, ValueError) as error:
        raise NotAPart(path, f"its header is damaged ({type(error).__name__}: {error})") from error
    if not 0 <= header.shard <= header.shards:
        raise NotAPart(path, f"its header is damaged (shard {header.shard} of {header.shards})")
    return header
