"""Targets: the thing whose inner and outer masks are wanted: a class, a region, or a union of exclusive classes."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from segcal_cli.core.errors import UsageError
from segcal_cli.core.frozen import dataclass
from segcal_cli.core.labels import LabelMap, LabelSpace


class UnknownTarget(UsageError):
    """A target that the class table does not know."""

    template = "--target {0}: {1} is neither a class name nor a label value of the class table ({2})"


class UnionOfRegions(UsageError):
    """A union under sigmoid, where the channels are no exclusive events."""

    template = "--target {0}: a union needs exclusive classes (softmax); regions are taken one by one"


class PartOfClass(UsageError):
    """A union that splits a class whose channel joins several label values."""

    template = "--target {0}: label {1} shares its channel ({2}) with {3}; name the whole class"


class TargetTwice(UsageError):
    """Two targets of one name."""

    template = "--target {0} is given twice"


class WholeImage(UsageError):
    """A union of all classes is the whole image."""

    template = "--target {0} holds every class, so it is the whole image"


@dataclass(frozen=True, slots=True)
class Target:
    """A name, and the channels whose union it is, ascending."""

    name: str
    channels: tuple[int, ...]

    def values(self, space: LabelSpace) -> tuple[int, ...]:
        """The label values of its voxels."""
        return tuple(sorted(set().union(*(space.channels[c].values for c in self.channels))))


def default_targets(space: LabelSpace) -> tuple[Target, ...]:
    """Every foreground class of exclusive classes, or every region."""
    if space.binary:
        return (Target(space.names[space.foreground], (space.foreground,)),)
    return tuple(
        Target(channel.name, (index,))
        for index, channel in enumerate(space.channels)
        if not (space.exclusive and 0 in channel.values)
    )


def parse_targets(texts: Sequence[str], space: LabelSpace) -> tuple[Target, ...]:
    """Targets of ``NAME`` or ``NAME=LABEL+LABEL`` (names or label values); without any, the default ones.

    Raises UnknownTarget, UnionOfRegions, PartOfClass, TargetTwice, WholeImage.
    """
    if not texts:
        return default_targets(space)
    targets = tuple(_parse(text, space) for text in texts)
    names = [target.name for target in targets]
    for name in names:
        if names.count(name) > 1:
            raise TargetTwice(name)
    return targets


def truth_of(labels: LabelMap, target: Target) -> np.ndarray:
    """bool "z y x": voxels of the target in the label volume; ignored voxels are False."""
    # One comparison per code is several times faster than a look-up per voxel, and targets have few codes.
    # Python's numbers: NumPy's own would make every code as wide as they are.
    wanted = np.flatnonzero(labels.members[list(target.channels)].any(axis=0)).tolist()
    inside = labels.codes == wanted[0] if wanted else np.zeros(labels.codes.shape, dtype=bool)
    for code in wanted[1:]:
        inside |= labels.codes == code
    return inside if labels.ignored is None else inside & ~labels.ignored


def _parse(text: str, space: LabelSpace) -> Target:
    if text in space.names:
        return Target(text, (space.names.index(text),))
    for region in space.regions:
        if region.name == text:
            return Target(text, space.parts(region))
    name, mark, right = text.partition("=")
    channels: set[int] = set()
    given: set[int] = set()
    for part in (right if mark else text).split("+"):
        part = part.strip()
        if part in space.names:
            channel = space.names.index(part)
            given |= space.channels[channel].values
        else:
            channel = _channel_of_value(text, part, space)
            given.add(int(part))
        channels.add(channel)
    if len(channels) > 1 and not space.exclusive:
        raise UnionOfRegions(text)
    for channel in sorted(channels):
        missing = space.channels[channel].values - given
        if missing and space.exclusive:
            there = min(space.channels[channel].values & given)
            raise PartOfClass(text, there, space.names[channel], ", ".join(map(str, sorted(missing))))
    if space.exclusive and len(channels) == len(space.channels):
        raise WholeImage(text)
    return Target(name.strip() if mark else text, tuple(sorted(channels)))


def _channel_of_value(text: str, part: str, space: LabelSpace) -> int:
    holders = [
        index for index, channel in enumerate(space.channels) if part.isdecimal() and int(part) in channel.values
    ]
    if not holders or (len(holders) > 1 and not space.exclusive):
        table = ", ".join(f"{c.name}={'/'.join(map(str, sorted(c.values)))}" for c in space.channels)
        raise UnknownTarget(text, part, table)
    return holders[0]
