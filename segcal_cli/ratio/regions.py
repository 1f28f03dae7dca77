"""Regions: what the numerator and the denominator of a ratio are made of.

A region is a set S of label values. Its probability in a voxel follows from the channels: where classes exclude each
other it is the sum of the channels in S; where channels are nested or disjoint regions it is the channel that is S, a
difference of two nested ones (necrosis = tumour core minus enhancing tumour), or a sum of disjoint ones. A set that
the channels cannot express is refused, with the list of those that they can.
"""

from __future__ import annotations

import re
from typing import Any

import numpy as np

from segcal_cli.core.errors import UsageError
from segcal_cli.core.frozen import dataclass
from segcal_cli.core.labels import LabelMap, LabelSpace


class UnknownRegion(UsageError):
    """A name or value that the class table does not know."""

    template = "{0} {1!r}: not a class or label value of this table; possible are {2}"


class IgnoredRegion(UsageError):
    """The value of voxels without annotation."""

    template = "{0} {1!r}: label {1} marks voxels without annotation; possible are {2}"


class InexpressibleRegion(UsageError):
    """A set of label values that no combination of channels makes."""

    template = "{0}: label values {1} cannot be made of these channels; possible are {2}"


class SameRegion(UsageError):
    """Numerator and denominator are one set."""

    template = "numerator and denominator are the same label values {0}; possible are {1}"


@dataclass(frozen=True, slots=True)
class Region:
    """A set of label values and how channels make it. names: as the table calls them. plus, minus: channel indices;
    the probability is sum(plus) - p(minus), within [0, 1].
    """

    names: tuple[str, ...]
    values: tuple[int, ...]
    plus: tuple[int, ...]
    minus: int | None
    expression: str

    def probability(self, channels: np.ndarray, out: np.ndarray | None = None) -> np.ndarray:
        """float64 "...": the region's probability from float32 "class ..." probabilities. out: where to put it."""
        total = np.empty(channels.shape[1:]) if out is None else out
        np.copyto(total, channels[self.plus[0]])
        for index in self.plus[1:]:
            total += channels[index]
        if self.minus is not None:
            total -= channels[self.minus]
            np.maximum(total, 0.0, out=total)
        if len(self.plus) > 1:
            np.minimum(total, 1.0, out=total)
        return total

    def holds(self, members: np.ndarray) -> np.ndarray:
        """bool "...": whether something belongs to the region, from bool "class ...", whether it does to a channel."""
        found = np.asarray(members[list(self.plus)].any(axis=0))
        return found if self.minus is None else found & ~members[self.minus]

    def of_labels(self, labels: LabelMap, planes: slice) -> np.ndarray:
        """bool "z y x": the labelled voxels of the region in some planes."""
        return self.holds(labels.members)[labels.codes[planes]]

    def to_json(self) -> dict[str, Any]:
        return {"names": list(self.names), "values": list(self.values), "expression": self.expression}


@dataclass(frozen=True, slots=True)
class Ratio:
    """Numerator over denominator. contained: the numerator lies inside the denominator, so the ratio in [0, 1]."""

    numerator: Region
    denominator: Region

    @property
    def contained(self) -> bool:
        return set(self.numerator.values) < set(self.denominator.values)

    @property
    def limit(self) -> float:
        """The largest ratio that can be."""
        return 1.0 if self.contained else np.inf

    @property
    def bounds(self) -> str:
        return "[0, 1]" if self.contained else "[0, inf)"

    def to_json(self) -> dict[str, Any]:
        return {
            "numerator": self.numerator.to_json(),
            "denominator": self.denominator.to_json(),
            "contained": self.contained,
        }


def ratio_of(numerator: str, denominator: str, space: LabelSpace) -> Ratio:
    """The ratio of two comma-separated lists of class names or label values.

    Raises UnknownRegion, IgnoredRegion, InexpressibleRegion, SameRegion.
    """
    above = region_of(numerator, space, "--numerator")
    below = region_of(denominator, space, "--denominator")
    if above.values == below.values:
        raise SameRegion(_listed(above.values), possible_regions(space))
    return Ratio(above, below)


def region_of(text: str, space: LabelSpace, option: str) -> Region:
    """The region of a list such as ``necrosis`` or ``2,3``. A name, of a class or of a union of exclusive ones, goes
    before a label value of that spelling.

    Raises UnknownRegion, IgnoredRegion, InexpressibleRegion.
    """
    values: set[int] = set()
    by_name = {channel.name: channel.values for channel in (*space.channels, *space.regions)}
    for word in (part.strip() for part in text.split(",")):
        if word in by_name:
            values |= by_name[word]
        elif re.fullmatch(r"-?[0-9]+", word):
            value = int(word)
            if value == space.ignore:
                raise IgnoredRegion(option, value, possible_regions(space))
            if not any(value in channel.values for channel in space.channels):
                raise UnknownRegion(option, word, possible_regions(space))
            values.add(value)
        else:
            raise UnknownRegion(option, word, possible_regions(space))
    return region_of_values(frozenset(values), space, option)


def region_of_values(values: frozenset[int], space: LabelSpace, option: str) -> Region:
    """How channels make a set of label values. Raises InexpressibleRegion."""
    channels = space.channels
    for index, channel in enumerate(channels):
        if channel.values == values:
            return Region((channel.name,), tuple(sorted(values)), (index,), None, f"p({channel.name})")
    if space.activation == "sigmoid":
        difference = _difference(values, space)
        if difference is not None:
            return difference
    cover = _disjoint_cover(values, space)
    if cover is None:
        raise InexpressibleRegion(option, _listed(values), possible_regions(space))
    names = tuple(channels[index].name for index in cover)
    return Region(names, tuple(sorted(values)), cover, None, " + ".join(f"p({name})" for name in names))


def possible_regions(space: LabelSpace) -> str:
    """The sets that can be made, in words."""
    channels = ", ".join(f"{c.name} ({_listed(c.values)})" for c in space.channels)
    if len(space.channels) == 1:
        return f"{channels} alone, and a ratio needs two regions"
    if space.activation == "softmax":
        return f"any of, and any sum of, {channels}"
    found = [
        f"{outer.name} - {inner.name} ({_listed(outer.values - inner.values)})"
        for outer in space.channels
        for inner in space.channels
        if inner.values < outer.values
    ]
    return ", ".join([channels, *found]) + ", and sums of disjoint ones"


def _difference(values: frozenset[int], space: LabelSpace) -> Region | None:
    """P minus Q, Q inside P, with the smallest P; of equal ones the first in the table."""
    candidates = [
        (len(outer.values), place, inside)
        for place, outer in enumerate(space.channels)
        for inside, inner in enumerate(space.channels)
        if inner.values < outer.values and outer.values - inner.values == values
    ]
    if not candidates:
        return None
    _, place, inside = min(candidates)
    outer, inner = space.channels[place].name, space.channels[inside].name
    expression = f"max(p({outer}) - p({inner}), 0)"
    return Region((f"{outer} - {inner}",), tuple(sorted(values)), (place,), inside, expression)


def _disjoint_cover(values: frozenset[int], space: LabelSpace) -> tuple[int, ...] | None:
    """Channels without a common value whose union is the set, or None."""
    if not values:
        return ()
    first = min(values)
    for index, channel in enumerate(space.channels):
        if first in channel.values and channel.values <= values:
            rest = _disjoint_cover(values - channel.values, space)
            if rest is not None:
                return tuple(sorted((index, *rest)))
    return None


def _listed(values: frozenset[int] | tuple[int, ...]) -> str:
    return ",".join(map(str, sorted(values)))
