"""Every key of every document with something else under it: what chance may miss, looked at one by one.

A document is the header of an artifact, of a part or of a history, the tree of a part, a run record, a line of a
journal, or a JSON file of a user. Each node of it is left out once, and replaced by each other kind of value once;
seals and checksums are right, so that what lies behind them is looked at.

    python -m tests.fuzz.every_key [SCENE ...]
"""

from __future__ import annotations

import functools
import io
import json
import math
import sys
import tempfile
import warnings
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from random import Random
from typing import Any

import numpy as np

from segcal_cli.io.seals import SEAL, sealed
from tests.fuzz.every import SCENES, scene_of
from tests.fuzz.mutations import (
    damaged_artifact,
    damaged_bundle,
    damaged_json,
    damaged_lines,
    packed,
    resealed,
    written,
)
from tests.fuzz.scenes import Scene, Victim
from tests.fuzz.trials import Stage

LEFT_OUT = object()
"""Stands for a node that is left out."""

SUBSTITUTES = (LEFT_OUT, None, [], {}, "x", -1, 1e300, [None], {"x": None}, True, 0.5, 10**400, "\0\udc80")
"""One value of each kind, and those that are no number, no length and no name where one is expected: also a number
beyond floats, and text that names no file."""

ALIKE = 2
"""Entries of a list that are replaced: those behind are read as the first ones are."""

HOLDING = {damaged_artifact, damaged_bundle, damaged_json, damaged_lines}
"""Damages of files that hold documents."""

Keys = tuple[str | int, ...]
"""What leads to a node."""


@dataclass(frozen=True, slots=True)
class Document:
    """A document in a file, and the file's content with another one in its place."""

    name: str
    value: Any
    content: Callable[[Any], bytes]


def documents(victim: Victim, content: bytes) -> Iterator[Document]:
    """The documents of a victim that are JSON."""
    kinds = set(victim.damages)
    if kinds & {damaged_artifact, damaged_bundle}:
        yield from _of_bundle(content)
    elif damaged_json in kinds:
        yield Document("", json.loads(content), lambda value: _sealed_text(value, json.loads(content)))
    elif damaged_lines in kinds:
        first, *rest = filter(None, content.splitlines())
        yield Document("", json.loads(first), lambda value: b"\n".join([_sealed_text(value, {SEAL: ""}), *rest, b""]))


def _of_bundle(content: bytes) -> Iterator[Document]:
    with np.load(io.BytesIO(content), allow_pickle=False) as file:
        arrays = {name: file[name] for name in file.files}

    def with_arrays(new: dict[str, np.ndarray]) -> bytes:
        return packed(Random(0), written(arrays | new | resealed(arrays | new)))

    header = json.loads(str(arrays["header"]))
    yield Document("header", header, lambda value: with_arrays({"header": np.array(json.dumps(value))}))
    if "tree" in arrays:
        tree = json.loads(arrays["tree"].tobytes())
        yield Document(
            "tree", tree, lambda value: with_arrays({"tree": np.frombuffer(json.dumps(value).encode(), np.uint8)})
        )


def _sealed_text(value: Any, before: Any) -> bytes:
    """As JSON, sealed where the document was, and can be."""
    if isinstance(value, dict) and isinstance(before, dict) and SEAL in before:
        value = sealed(value)
    return json.dumps(value).encode()


def paths(node: Any, at: Keys = ()) -> Iterator[Keys]:
    """Every node by the keys that lead to it. Of siblings that are built alike only the first is entered."""
    items: Iterable[tuple[Any, Any]] = ()
    if isinstance(node, dict):
        items = ((key, value) for key, value in node.items() if key != SEAL)
    elif isinstance(node, list):
        items = enumerate(node[:ALIKE])
    entered: list[Any] = []
    for key, value in items:
        yield (*at, key)
        built = _skeleton(value)
        if built not in entered:
            entered.append(built)
            yield from paths(value, (*at, key))


def _skeleton(node: Any) -> Any:
    if isinstance(node, dict):
        return {key: _skeleton(value) for key, value in node.items()}
    if isinstance(node, list):
        return [_skeleton(value) for value in node]
    return type(node)


def replaced(node: Any, path: Keys, value: Any) -> Any:
    """The document with another value at a path."""
    key, *rest = path
    if rest:
        new = replaced(node[key], tuple(rest), value)
        return {**node, key: new} if isinstance(node, dict) else [*node[:key], new, *node[key + 1 :]]
    if isinstance(node, dict):
        left = {name: one for name, one in node.items() if name != key}
        return left if value is LEFT_OUT else {**node, key: value}
    return [*node[:key], *([] if value is LEFT_OUT else [value]), *node[key + 1 :]]


@dataclass(frozen=True, slots=True)
class Substitution:
    """One node of a document with something else in its place. made: the whole file, packed when it is asked for."""

    document: str
    path: Keys
    value: Any
    made: Callable[[], bytes] = field(repr=False)

    def __str__(self) -> str:
        value = "left out" if self.value is LEFT_OUT else f"= {self.value!r}"
        return f"{self.document} {'.'.join(map(str, self.path))} {value}"


def substitutions(victim: Victim, content: bytes, values: Sequence[Any] = SUBSTITUTES) -> Iterator[Substitution]:
    """Every node of every document of a victim, with each of the values. content: of the sound file."""
    for document in documents(victim, content):
        for path in paths(document.value):
            for value in (*values, *other_shapes(document.value, path)):
                made = functools.partial(_with, document, path, value)
                yield Substitution(document.name, path, value, made)


def _with(document: Document, path: Keys, value: Any) -> bytes:
    return document.content(replaced(document.value, path, value))


def other_shapes(document: Any, path: Keys) -> Iterator[Any]:
    """Of an array in a tree: the same numbers lying otherwise, as a whole array that nothing else shows to be wrong."""
    if path[-1] != "array":
        return
    node = functools.reduce(lambda at, key: at[key], path, document)
    kind, shape, *place = node
    yield from ([kind, other, *place] for other in ([math.prod(shape)], [*shape, 1], shape[1:], shape[::-1]))


def finding(stage: Stage, victim: Victim, substitution: Substitution, command: tuple[str, ...]) -> str:
    """What is wrong when a command meets it, in words; "" if nothing is."""
    what, said = stage.judged(victim.file, substitution.made(), command)
    return f"{victim.file} {substitution}: {what}\n  segcal {' '.join(command)}\n{said[-1500:]}" if what else ""


def holders(scene: Scene) -> list[Victim]:
    """Victims of a scene that hold documents."""
    return [victim for victim in scene.victims if HOLDING & set(victim.damages)]


def main(names: Sequence[str]) -> int:
    warnings.simplefilter("error")
    total = 0
    for scene in map(scene_of, names) if names else SCENES:
        for victim in holders(scene):
            with tempfile.TemporaryDirectory() as folder:
                stage = Stage(scene, Path(folder) / "scene")
                tried = found = 0
                for one in substitutions(victim, stage.contents[victim.file]):
                    for command in stage.commands(victim.file):
                        tried += 1
                        said = finding(stage, victim, one, command)
                        if said:
                            found += 1
                            print(said, flush=True)
            total += found
            print(f"{scene.name} {victim.file}: {tried} tried, {found} found", flush=True)
    return 1 if total else 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
