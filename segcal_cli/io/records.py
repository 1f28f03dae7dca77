"""Records as plain data: any state of an estimator as a tree of JSON beside flat arrays of numbers, and back.

States, specs and results are records (frozen dataclasses, named tuples) of numbers, text, arrays and each other. The
tree names each record by its class and holds its fields; numbers of arrays stand together, one array for each type.
Nothing is pickled: reading can only call the constructors of segcal's own records with the data that stand there.
"""

from __future__ import annotations

import dataclasses
import importlib
import math
import re
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, Literal

import numpy as np

from segcal_cli.core.annotations import require_fields
from segcal_cli.core.errors import SegcalError

PACKAGE = "segcal_cli"

CLASS_NAME = re.compile(r"[a-z_0-9]+(\.[a-z_0-9]+)*:[A-Za-z_0-9]+")
"""How the tree names a class: its module inside the package, and its name at the top of that module."""

PLAIN = (bool, int, str)

UNREADABLE = (
    AttributeError,
    ArithmeticError,
    LookupError,
    RecursionError,
    SegcalError,
    TypeError,
    ValueError,
    re.error,
)
"""What a tree that ``flattened`` did not make runs into."""

POOLED = "biuf"
"""Kinds of numpy types that are kept as arrays of their type: truth values, integers, floats."""


class NotARecord(ValueError):
    """A value that is no plain data, or a tree that is none."""


def flattened(value: Any) -> tuple[Any, dict[str, np.ndarray]]:
    """A tree for JSON without NaN, and one flat array per type of numbers. Raises NotARecord.

    A path is kept by its last name alone: what is written down holds no folder of anybody. An array keeps its order of
    axes in memory (C or Fortran), because sums in another order would differ in their last digits.
    """
    pool = _Pool()
    tree = pool.tree(value)
    return tree, {name: np.concatenate(parts) for name, parts in sorted(pool.parts.items())}


def restored(tree: Any, arrays: Mapping[str, np.ndarray]) -> Any:
    """What ``flattened`` took apart. Raises NotARecord for anything that it cannot have made."""
    try:
        return _Restorer(arrays).value(tree)
    except UNREADABLE as error:
        raise NotARecord(f"{type(error).__name__}: {error}") from error


class _Pool:
    """Numbers gathered by type while a tree is made. An array that occurs twice is kept once."""

    def __init__(self) -> None:
        self.parts: dict[str, list[np.ndarray]] = {}
        self._sizes: dict[str, int] = {}
        self._known: dict[int, tuple[np.ndarray, list[Any]]] = {}

    def tree(self, value: Any) -> Any:
        if value is None or type(value) in PLAIN:
            return value
        if type(value) is float:
            return value if math.isfinite(value) else {"float": repr(value)}
        if type(value) is list:
            return [self.tree(one) for one in value]
        if isinstance(value, np.ndarray):
            return {"array": self._array(value)}
        if isinstance(value, np.generic):
            return {"number": [_name_of_type(value.dtype), self.tree(value.item())]}
        if isinstance(value, Path):
            return {"path": value.name}
        if isinstance(value, re.Pattern) and value.flags == re.UNICODE:
            return {"pattern": value.pattern}
        if isinstance(value, frozenset):
            return {"frozenset": [self.tree(one) for one in sorted(value)]}
        if isinstance(value, Mapping):
            return {"dict": [[self.tree(key), self.tree(one)] for key, one in value.items()]}
        return self._record(value)

    def _record(self, value: Any) -> Any:
        if isinstance(value, SegcalError):
            return {"error": _class_name(type(value)), "args": [self.tree(one) for one in value.args], "of": value.case}
        if dataclasses.is_dataclass(value) and not isinstance(value, type):
            fields = {field.name: self.tree(getattr(value, field.name)) for field in dataclasses.fields(value)}
            return {"record": _class_name(type(value)), "fields": fields}
        if type(value) is tuple:
            return {"tuple": [self.tree(one) for one in value]}
        if isinstance(value, tuple) and hasattr(value, "_fields"):
            return {"named": _class_name(type(value)), "items": [self.tree(one) for one in value]}
        raise NotARecord(f"a {type(value).__module__}.{type(value).__qualname__} is no plain data")

    def _array(self, array: np.ndarray) -> list[Any]:
        """Type, shape, first number in the pool, order."""
        known = self._known.get(id(array))
        if known is not None:
            return known[1]
        kind = _name_of_type(array.dtype)
        order: Literal["C", "F"] = "F" if array.flags.f_contiguous and not array.flags.c_contiguous else "C"
        start = self._sizes.get(kind, 0)
        self._sizes[kind] = start + array.size
        self.parts.setdefault(kind, []).append(array.astype(array.dtype.newbyteorder("=")).ravel(order=order))
        place = [kind, list(array.shape), start, order]
        # The array is kept with its place, so that no other can take its identity meanwhile.
        self._known[id(array)] = (array, place)
        return place


class _Restorer:
    def __init__(self, arrays: Mapping[str, np.ndarray]) -> None:
        self._arrays = arrays
        self._known: dict[tuple[str, int, int], np.ndarray] = {}
        self._readers: dict[str, Callable[[dict[str, Any]], Any]] = {
            "float": lambda tree: float(tree["float"]),
            "array": lambda tree: self._array(*tree["array"]),
            "number": lambda tree: np.dtype(tree["number"][0]).type(self.value(tree["number"][1])),
            "path": lambda tree: Path(tree["path"]),
            "pattern": lambda tree: re.compile(tree["pattern"]),
            "frozenset": lambda tree: frozenset(self.value(one) for one in tree["frozenset"]),
            "dict": lambda tree: {self.value(key): self.value(one) for key, one in tree["dict"]},
            "tuple": lambda tree: tuple(self.value(one) for one in tree["tuple"]),
            "named": self._named,
            "record": self._record,
            "error": self._error,
        }

    def value(self, tree: Any) -> Any:
        if isinstance(tree, list):
            return [self.value(one) for one in tree]
        if not isinstance(tree, dict):
            return tree
        reader = self._readers.get(next(iter(tree), ""))
        if reader is None:
            raise NotARecord(f"{sorted(tree)} is no record")
        return reader(tree)

    def _record(self, tree: dict[str, Any]) -> Any:
        cls = _class_of(tree["record"], dataclasses.is_dataclass)
        return _checked(cls(**{name: self.value(one) for name, one in tree["fields"].items()}))

    def _named(self, tree: dict[str, Any]) -> Any:
        return _checked(_class_of(tree["named"], _is_named)(*(self.value(one) for one in tree["items"])))

    def _error(self, tree: dict[str, Any]) -> SegcalError:
        error = _class_of(tree["error"], _is_error)(*(self.value(one) for one in tree["args"]))
        error.case = str(tree["of"])
        return error

    def _array(self, kind: str, shape: list[int], start: int, order: str) -> np.ndarray:
        count = math.prod(shape)
        pool = self._arrays[kind]
        if not all(type(n) is int and n >= 0 for n in [*shape, start]) or start + count > pool.size:
            raise NotARecord(f"an array of {shape} does not lie in its {pool.size} numbers")
        # The same numbers come back as the same array, as they were before.
        place = (kind, start, count)
        if place not in self._known or self._known[place].shape != tuple(shape) or not count:
            self._known[place] = pool[start : start + count].reshape(shape, order="F" if order == "F" else "C")
        return self._known[place]


def _checked(record: Any) -> Any:
    """The record, which holds what its annotations say. Raises OtherType."""
    require_fields(record)
    return record


def _name_of_type(dtype: np.dtype) -> str:
    if dtype.kind not in POOLED:
        raise NotARecord(f"an array of {dtype} is no plain data")
    return dtype.name


def _class_name(cls: type) -> str:
    module = cls.__module__.removeprefix(f"{PACKAGE}.")
    name = f"{module}:{cls.__qualname__}"
    if module == cls.__module__ or not CLASS_NAME.fullmatch(name):
        raise NotARecord(f"{cls.__module__}.{cls.__qualname__} is no record of this package")
    return name


def _class_of(name: str, allowed: Callable[[type], bool]) -> Any:
    """A class of this package's own modules. Raises NotARecord for any other, or one that is not allowed here."""
    if not isinstance(name, str) or not CLASS_NAME.fullmatch(name):
        raise NotARecord(f"{name!r} names no record")
    module, _, own = name.partition(":")
    try:
        cls = getattr(importlib.import_module(f"{PACKAGE}.{module}"), own, None)
    except ImportError as error:
        raise NotARecord(f"{name} is not known to this version") from error
    # A class that a module merely imports goes by the name of its own module.
    if not isinstance(cls, type) or cls.__module__ != f"{PACKAGE}.{module}" or not allowed(cls):
        raise NotARecord(f"{name} is no record of this version")
    return cls


def _is_named(cls: type) -> bool:
    return issubclass(cls, tuple) and hasattr(cls, "_fields")


def _is_error(cls: type) -> bool:
    return issubclass(cls, SegcalError)
