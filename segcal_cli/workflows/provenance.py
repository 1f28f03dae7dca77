"""Provenance: what a study was made from, how it was read, and what was said meanwhile.

Numbers are only worth something together with the data that they are of and the doubts that came up while these were
read. So all of this is kept with the counts of a study, and a report made of them says the same as one of the images.
Names stand in place of paths: where files lie is no part of a result.
"""

from __future__ import annotations

import hashlib
import os
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import field, fields, replace
from pathlib import Path
from typing import Any, Literal, TypedDict

from segcal_cli.core.annotations import Count, Text
from segcal_cli.core.case import CaseFacts
from segcal_cli.core.frozen import dataclass
from segcal_cli.core.names import escaped
from segcal_cli.core.observer import Saying

What = Literal["predictions", "labels", "regions"]
"""What a set of inputs holds."""


class InputsDocument(TypedDict):
    what: What
    sources: list[Text]
    cases: Count
    sha256: Text


class SayingDocument(TypedDict):
    text: Text
    warning: bool
    case: Text | None


class ProvenanceDocument(TypedDict):
    """A provenance as JSON."""

    options: dict[Text, Text]
    inputs: list[InputsDocument]
    said: list[SayingDocument]


@dataclass(frozen=True, slots=True)
class InputSet:
    """Inputs of one kind, of all cases. sources: which are made of them, none for what all share. cases: how many hold
    some. sha256: over a line for each case, by id: the id, a tab, the sha256 of what was read.
    """

    what: What
    sources: tuple[str, ...]
    cases: int
    sha256: str


@dataclass(frozen=True, slots=True)
class Provenance:
    """Of a study. options: those of reading that were given, in words; inputs: empty where nobody asked; said: in
    order, up to the numbers themselves.
    """

    options: Mapping[str, str] = field(default_factory=dict)
    inputs: tuple[InputSet, ...] = ()
    said: tuple[Saying, ...] = ()

    def to_json(self) -> ProvenanceDocument:
        return {
            "options": dict(self.options),
            "inputs": [
                {"what": one.what, "sources": list(one.sources), "cases": one.cases, "sha256": one.sha256}
                for one in self.inputs
            ],
            "said": [{"text": one.text, "warning": one.warning, "case": one.case} for one in self.said],
        }

    @classmethod
    def from_json(cls, data: ProvenanceDocument) -> Provenance:
        return cls(
            data["options"],
            tuple(InputSet(one["what"], tuple(one["sources"]), one["cases"], one["sha256"]) for one in data["inputs"]),
            tuple(Saying(one["text"], one["warning"], one["case"]) for one in data["said"]),
        )


def input_sets(facts: Mapping[str, CaseFacts], first: Sequence[str], others: Sequence[str]) -> tuple[InputSet, ...]:
    """What all cases were read from; nothing where a case does not tell. first: sources of the first folder; others:
    those of the other ones, in the order of Contents.predictions.
    """
    of = {
        case: fact.contents
        for case, fact in facts.items()
        if fact.contents is not None and len(fact.contents.predictions) == 1 + len(others)
    }
    if len(of) < len(facts):
        return ()
    parts: list[tuple[What, tuple[str, ...], dict[str, str]]] = [
        ("predictions", sources, {case: one.predictions[number] for case, one in of.items()})
        for number, sources in enumerate((tuple(first), *((name,) for name in others)))
    ]
    parts += [("labels", (), {case: one.labels for case, one in of.items()})]
    parts += [("regions", (), {case: one.region for case, one in of.items()})]
    found = []
    for what, sources, digests in parts:
        held = {case: digest for case, digest in digests.items() if digest}
        if held:
            lines = [f"{case}\t{held[case]}\n" for case in sorted(held, key=str.encode)]
            found.append(InputSet(what, sources, len(held), hashlib.sha256("".join(lines).encode()).hexdigest()))
    return tuple(found)


def given_options(*records: Any) -> dict[str, str]:
    """Options of records that are not the default, by their names, in words."""
    given = {}
    for record in records:
        default = type(record)()
        for one in fields(record):
            value = getattr(record, one.name)
            if value != getattr(default, one.name):
                given[one.name.replace("_", "-")] = in_words(value)
    return given


def in_words(value: Any) -> str:
    """A value of an option for people. Of a path its name: places are not results."""
    if value is None:
        return "none"
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, tuple | list):
        return ", ".join(map(in_words, value))
    if isinstance(value, Path) or (isinstance(value, str) and os.sep in value and Path(value).exists()):
        value = Path(value).name
    return escaped(str(value))


def without_folders(said: Iterable[Saying], paths: Iterable[Path | None]) -> tuple[Saying, ...]:
    """The same sentences with the names of inputs in place of their paths."""
    names = {str(path): path.name for path in paths if path is not None and os.sep in str(path) and path.name}
    found = []
    for one in said:
        text = one.text
        for place in sorted(names, key=len, reverse=True):
            text = text.replace(place, names[place])
        found.append(replace(one, text=text))
    return tuple(found)
