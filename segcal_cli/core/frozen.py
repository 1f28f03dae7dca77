"""Frozen dataclasses with slots that are made quickly.

``dataclasses.dataclass`` compiles six methods for each class. A command needs some 150 classes before it reads its
first file, which was a fifth of its start-up. Of the six only ``__init__`` differs in more than the names of the
fields; the others are written here once. Everything else is left to ``dataclasses``, whose functions (``fields``,
``replace``, ``asdict``) take these classes as any other.
"""

from __future__ import annotations

import dataclasses
import functools
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from dataclasses import dataclass as dataclass
else:

    def dataclass(cls: type | None = None, /, **options: Any) -> Any:
        """``dataclasses.dataclass``; quick for ``frozen=True, slots=True``, with or without ``eq=False``.

        A quick class does not know itself as frozen: one that ``dataclasses.dataclass`` makes cannot inherit from it.
        """
        if cls is not None or options not in QUICK:
            return dataclasses.dataclass(cls, **options)
        return functools.partial(_quickly, compared=options.get("eq", True))


QUICK: tuple[dict[str, bool], ...] = ({"frozen": True, "slots": True}, {"frozen": True, "slots": True, "eq": False})


def _quickly(cls: type, compared: bool) -> type:
    for name, method in (_ALWAYS | _OF_VALUES if compared else _ALWAYS).items():
        # A class that says what is equal is unhashable to Python, not to dataclasses.
        if vars(cls).get(name) is None:
            setattr(cls, name, method)
    return dataclasses.dataclass(cls, repr=False, eq=False, slots=True)


def _assign_once(record: Any, name: str, value: Any) -> None:
    """``__init__`` fills every slot, after which there is nothing left to assign."""
    if hasattr(record, name):
        raise dataclasses.FrozenInstanceError(f"cannot assign to field {name!r}")
    object.__setattr__(record, name, value)


def _refuse_to_delete(record: Any, name: str) -> None:
    raise dataclasses.FrozenInstanceError(f"cannot delete field {name!r}")


def _representation(record: Any) -> str:
    shown = (f"{one.name}={getattr(record, one.name)!r}" for one in dataclasses.fields(record) if one.repr)
    return f"{type(record).__qualname__}({', '.join(shown)})"


def _values(record: Any) -> tuple[Any, ...]:
    return tuple(getattr(record, one.name) for one in dataclasses.fields(record) if one.compare)


def _equal(record: Any, other: Any) -> Any:
    return _values(record) == _values(other) if type(record) is type(other) else NotImplemented


def _hash(record: Any) -> int:
    return hash(_values(record))


def _state(record: Any) -> list[Any]:
    return [getattr(record, one.name) for one in dataclasses.fields(record)]


def _restore(record: Any, state: list[Any]) -> None:
    for one, value in zip(dataclasses.fields(record), state, strict=True):
        object.__setattr__(record, one.name, value)


_ALWAYS = {
    "__repr__": _representation,
    "__setattr__": _assign_once,
    "__delattr__": _refuse_to_delete,
    "__getstate__": _state,
    "__setstate__": _restore,
}
_OF_VALUES = {"__eq__": _equal, "__hash__": _hash}
