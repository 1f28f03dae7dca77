"""Annotations held against values."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Annotated, Any, Literal, NamedTuple, NotRequired, Protocol, TypedDict

import numpy as np
import pytest

from segcal_cli.core.annotations import Count, NotEmpty, OtherType, Positive, require_fields, require_type


class Inner(TypedDict):
    name: str
    share: NotRequired[float]


class Document(TypedDict):
    inner: Inner | None
    pairs: list[Annotated[list[float], 2]]
    table: dict[str, int]
    unit: Literal["mm", "voxels"]


class Speaks(Protocol):
    def speak(self) -> str: ...


SOUND = {"inner": {"name": "a"}, "pairs": [[1, 2.5]], "table": {"x": 3}, "unit": "mm"}


def test_a_document_that_is_what_it_is_declared_to_be_passes_with_further_keys():
    require_type(SOUND, Document)
    require_type({**SOUND, "inner": None, "more": object()}, Document)
    require_type({**SOUND, "inner": {"name": "a", "share": 0.5}}, Document)


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"inner": {"share": 0.5}}, "inner.name is not there"),
        ({"inner": {"name": "a", "share": None}}, "inner.share is not a number"),
        ({"inner": []}, "inner is not a table"),
        ({"pairs": [[1.0]]}, "pairs.0 is not 2 long"),
        ({"pairs": {}}, "pairs is not a list"),
        ({"table": {"x": True}}, "table.x is not a whole number"),
        ({"table": {"x": 1.0}}, "table.x is not a whole number"),
        ({"table": {"a\nb": None}}, r"table.a\nb is not a whole number"),
        ({"unit": []}, "unit is not one of ['mm', 'voxels']"),
    ],
)
def test_what_is_not_as_declared_is_named_with_its_place(change, words):
    with pytest.raises(OtherType) as error:
        require_type({**SOUND, **change}, Document)
    assert str(error.value) == words


@pytest.mark.parametrize(
    ("value", "hint"),
    [
        (1, float),
        (np.float64(1.5), float),
        (np.int64(2), int),
        (np.bool_(True), bool),
        ((1, "a"), tuple[int, str]),
        ((), tuple[int, ...]),
        (frozenset({1}), frozenset[int]),
        ({"a": (1,)}, Mapping[str, tuple[int, ...]]),
        ([1], Sequence[int]),
        (len, Callable[[Any], int]),
        (np.zeros(2), np.ndarray),
        (None, str | None),
        (0, Count),
        ([0.5], NotEmpty[Positive]),
        (object(), Any),
    ],
)
def test_values_are_what_annotations_of_python_say(value, hint):
    require_type(value, hint)


@pytest.mark.parametrize(
    ("value", "hint"),
    [
        (True, int),
        (True, float),
        (1, bool),
        (10**400, float),
        ("ab", Sequence[str]),
        ([1, "a"], tuple[int, str]),
        ((1,), tuple[int, str]),
        ((1, 2), tuple[int, str]),
        ({1: 2}, Mapping[str, int]),
        (None, Callable[[Any], int]),
        ([], np.ndarray),
        (1, Literal[True]),
        (-1, Count),
        (0.0, Positive),
        ([], NotEmpty[float]),
        ("x", str.__class__),
        ([], Speaks),
    ],
)
def test_values_that_are_something_else_are_refused(value, hint):
    with pytest.raises(OtherType):
        require_type(value, hint)


@dataclass(frozen=True)
class Record:
    count: int
    names: tuple[str, ...]


class Pair(NamedTuple):
    low: float
    high: float


def test_records_are_held_against_the_annotations_of_their_fields():
    require_fields(Record(1, ("a",)))
    require_fields(Pair(0, 1.5))
    with pytest.raises(OtherType, match=r"Record.names is not a tuple"):
        require_fields(Record(1, ["a"]))
    with pytest.raises(OtherType, match=r"Pair.high is not a number"):
        require_fields(Pair(0.0, None))
