"""Annotations held against values: what was read is what its declared type says, or it is damaged.

A file that segcal wrote may have been changed since, with a seal that fits. So each kind of document declares its type
once, as a ``TypedDict`` or a record, and what was read is held against it where it is loaded; whoever reads a key later
finds there what the annotation promises. Keys that no declaration names may hold anything, since nobody reads them.
"""

from __future__ import annotations

import builtins
import sys
import types
import typing
from collections.abc import Callable, Iterable, Mapping, Sequence
from collections.abc import Set as AbstractSet
from functools import cache
from typing import Annotated, Any, Literal, Union

import numpy as np

from segcal_cli.core.names import escaped

NUMBERS: Mapping[Any, tuple[type, ...]] = {
    bool: (bool, np.bool_),
    int: (int, np.integer),
    float: (int, float, np.integer, np.floating),
}
"""What may stand where a number is declared; a whole number is a number too, a truth value is none."""


WORDS = {bool: "true or false", int: "a whole number", float: "a number", str: "text", list: "a list", dict: "a table"}
"""What people call types."""


class OtherType(ValueError):
    """A value that is not what is declared. args: where it stands, and what it should be."""

    def __str__(self) -> str:
        where, expected = self.args
        return f"{where or 'it'} is not {expected}"


def not_negative(value: float) -> bool:
    return value >= 0


def positive(value: float) -> bool:
    return value > 0


def filled(value: Sequence[Any]) -> bool:
    return len(value) > 0


def text_of_files(value: str) -> bool:
    """Whether files and tables can hold it: no zero byte, no half of a character."""
    return "\0" not in value and value.encode("utf-8", "ignore").decode() == value


Text = Annotated[str, text_of_files]
"""Text that stands in tables and names files."""


def counted(value: int) -> bool:
    return 0 <= value <= sys.maxsize


Count = Annotated[int, counted]
"""A whole number from 0, that something in memory can have."""

Positive = Annotated[float, positive]

Entry = typing.TypeVar("Entry")

NotEmpty = Annotated[list[Entry], filled]
"""A list of at least one entry."""


def require_type(value: Any, hint: Any, where: str = "") -> None:
    """Raise OtherType unless the value is what the annotation says. where: names the value in the error.

    Known are the annotations of records and documents. A number behind ``Annotated`` is a length, a function a test. A
    record is looked at no further: it was held against its own annotations by ``require_fields``.
    """
    origin, inner = typing.get_origin(hint), typing.get_args(hint)
    if hint is Any or isinstance(hint, typing.TypeVar):
        return
    if origin in (Union, types.UnionType):
        _require_one(value, inner, where)
    elif origin is Literal:
        _demand(any(type(value) is type(one) and value == one for one in inner), where, f"one of {list(inner)}")
    elif origin is Annotated:
        require_type(value, inner[0], where)
        for bound in inner[1:]:
            fits = bound(value) if callable(bound) else len(value) == bound
            _demand(fits, where, getattr(bound, "__name__", f"{bound} long").replace("_", " "))
    elif typing.is_typeddict(hint):
        _require_keys(value, hint, where)
    elif origin is not None:
        _require_entries(value, origin, inner, where)
    else:
        _demand(_is_a(value, hint), where, _words(hint))


def require_fields(record: Any) -> None:
    """Raise OtherType unless a dataclass or a named tuple holds what its annotations say."""
    for name, hint in _hints(record.__class__).items():
        require_type(getattr(record, name), hint, f"{type(record).__name__}.{name}")


def _demand(fits: bool, where: str, expected: str) -> None:
    if not fits:
        raise OtherType(where, expected)


def _require_one(value: Any, hints: Sequence[Any], where: str) -> None:
    errors = []
    for hint in hints:
        try:
            return require_type(value, hint, where)
        except OtherType as error:
            errors.append(error)
    # That of the alternative which it came nearest to says most.
    raise max(errors, key=lambda error: len(error.args[0]))


def _require_keys(value: Any, hint: Any, where: str) -> None:
    _demand(isinstance(value, dict), where, _words(dict))
    for key, own in _hints(hint).items():
        place = f"{where}.{key}" if where else key
        optional = typing.get_origin(own) is typing.NotRequired
        if key in value:
            require_type(value[key], typing.get_args(own)[0] if optional else own, place)
        elif not optional and key not in hint.__optional_keys__:
            raise OtherType(place, "there")


def _require_entries(value: Any, origin: Any, hints: Sequence[Any], where: str) -> None:
    """Of lists, tuples, sets and mappings; other generic types stand for their own class alone."""
    _demand(_is_a(value, origin), where, _words(origin))
    if not isinstance(origin, type):
        return
    if issubclass(origin, Mapping):
        for key, one in value.items():
            require_type(key, hints[0], f"{where}: key {key!r}")
            require_type(one, hints[1], f"{where}.{escaped(str(key))}")
    elif issubclass(origin, tuple) and Ellipsis not in hints:
        _demand(len(value) == len(hints), where, f"{len(hints)} long")
        for number, (one, hint) in enumerate(zip(value, hints, strict=True)):
            require_type(one, hint, f"{where}.{number}")
    elif issubclass(origin, (Sequence, AbstractSet)):
        for number, one in enumerate(value):
            require_type(one, hints[0], f"{where}.{number}")


def _words(cls: Any) -> str:
    return WORDS.get(cls) or f"a {getattr(cls, '__name__', cls)}"


def _is_a(value: Any, cls: Any) -> bool:
    if cls is None or cls is type(None):
        return value is None
    if cls in NUMBERS:
        whole = isinstance(value, NUMBERS[cls]) and (cls is bool or not isinstance(value, (bool, np.bool_)))
        return whole and (cls is not float or not isinstance(value, int) or abs(value) <= sys.float_info.max)
    if cls is Callable:
        return callable(value)
    if cls is Sequence or cls is Iterable:
        return isinstance(value, cls) and not isinstance(value, str)
    if getattr(cls, "_is_protocol", False):
        return all(hasattr(value, name) for name in _members(cls))
    return isinstance(value, cls)


@cache
def _members(protocol: type) -> frozenset[str]:
    """What a protocol asks for."""
    classes = [cls for cls in protocol.__mro__ if getattr(cls, "_is_protocol", False) and cls is not typing.Protocol]
    found = {name for cls in classes for name in (*vars(cls), *getattr(cls, "__annotations__", {}))}
    return frozenset(name for name in found if not name.startswith("_"))


@cache
def _hints(cls: type) -> dict[str, Any]:
    try:
        return typing.get_type_hints(cls, include_extras=True)
    except NameError:  # names that only type checkers import
        return typing.get_type_hints(cls, localns=_Known(vars(sys.modules[cls.__module__])), include_extras=True)


class _Known(dict[str, Any]):
    """Names of a module; any other may be anything."""

    def __missing__(self, name: str) -> Any:
        return getattr(builtins, name, Any)
