"""Splits: which patients make the map, and which calibrate on it.

Never slices of one patient on both sides. The order of the patients comes from a hash of their names, so that it does
not depend on the order of files, and adding a patient moves no other.
"""

from __future__ import annotations

import hashlib
import math
from collections.abc import Iterable

from segcal_cli.core.errors import FitError


class NotDivisible(FitError):
    """Too few patients for a map of their own."""

    template = "{0} patient cannot be split into map and calibration; use --map, or a method without a learned map"


def ordered_units(units: Iterable[str], seed: int) -> list[str]:
    """Units by sha256 of "seed:unit"."""
    return sorted(set(units), key=lambda unit: hashlib.sha256(f"{seed}:{unit}".encode()).digest())


def map_makers(units: Iterable[str], fraction: float, seed: int) -> frozenset[str]:
    """The units that make the map: floor(fraction n + 1/2) of them, at least 1, at most n - 1. Raises NotDivisible."""
    order = ordered_units(units, seed)
    if len(order) < 2:
        raise NotDivisible(len(order))
    return frozenset(order[: min(max(1, math.floor(fraction * len(order) + 0.5)), len(order) - 1)])


def folds(units: Iterable[str], n: int, seed: int) -> list[frozenset[str]]:
    """At most n parts of the units, as equal as can be, none empty."""
    order = ordered_units(units, seed)
    n = min(n, len(order))
    return [frozenset(order[part::n]) for part in range(n)]
