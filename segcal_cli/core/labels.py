"""Classes: what the channels of a prediction mean, and where a label volume says that they are.

A class table (``LabelSpace``) is an ordered list of channels, each a name and the set of label values that it stands
for. Under softmax the channels exclude each other, and every voxel belongs to exactly one. Under sigmoid each channel
is a region of its own; regions may overlap or nest. A label volume is kept as small codes plus a table of which
channel holds which code (``LabelMap``), so that "is this voxel in channel c" is one look-up for both kinds.
"""

from __future__ import annotations

from typing import Literal

import numpy as np

from segcal_cli.core.errors import UsageError
from segcal_cli.core.frozen import dataclass
from segcal_cli.core.names import harmless

Activation = Literal["softmax", "sigmoid"]

ALL_CLASSES = "(all)"
"""The name of the row that averages over classes; no class may be called so."""


class OverlappingClasses(UsageError):
    """Row L2: one label value in two exclusive classes."""

    template = "label {0} belongs to {1} and {2}; overlapping classes need --activation sigmoid"


class BadClassTable(UsageError):
    """The class table contradicts itself."""

    template = "class table: {0}"


class ReservedName(BadClassTable):
    """A class of the name that tables use for all of them."""

    template = f"class table: a class cannot be called {ALL_CLASSES}"


@dataclass(frozen=True, slots=True)
class Channel:
    """One channel of a prediction: its class name and the label values that it stands for."""

    name: str
    values: frozenset[int]


@dataclass(frozen=True, slots=True)
class LabelSpace:
    """An ordered class table. Two are equal when channels, activation, ignore value and paint order are.

    paint: for sigmoid regions, the label value that each channel paints, in channel order (nnU-Net's
    ``regions_class_order``); None where there is none. regions: names for unions of exclusive channels, which have no
    channel of their own; measuring takes their probability as the sum. Raises OverlappingClasses, BadClassTable.
    """

    channels: tuple[Channel, ...]
    activation: Activation
    ignore: int | None = None
    paint: tuple[int, ...] | None = None
    regions: tuple[Channel, ...] = ()

    def __post_init__(self) -> None:
        names = (*self.names, *(region.name for region in self.regions))
        if not self.channels:
            raise BadClassTable("it holds no class")
        if len(set(names)) < len(names):
            raise BadClassTable(f"a name stands twice: {', '.join(names)}")
        if ALL_CLASSES in names:
            raise ReservedName
        strange = [name for name in names if not harmless(name)]
        if strange:
            raise BadClassTable(f"a class cannot be called {strange[0]!r}")
        if self.activation == "softmax":
            owner: dict[int, str] = {}
            for channel in self.channels:
                for value in sorted(channel.values):
                    if value in owner:
                        raise OverlappingClasses(value, owner[value], channel.name)
                    owner[value] = channel.name
        for region in self.regions:
            if not self.exclusive or not 1 < len(self.parts(region)) < len(self.channels):
                raise BadClassTable(f"{region.name} must join some, but not all, of the exclusive classes")
        if self.ignore is not None and any(self.ignore in channel.values for channel in self.channels):
            raise BadClassTable(f"the ignore label {self.ignore} belongs to a class")

    @property
    def names(self) -> tuple[str, ...]:
        return tuple(channel.name for channel in self.channels)

    @property
    def exclusive(self) -> bool:
        """Whether the channels of a voxel sum to 1. One channel is its foreground alone, so never exclusive."""
        return self.activation == "softmax" and len(self.channels) > 1

    @property
    def binary(self) -> bool:
        """One binary problem: a single channel, or two exclusive classes (background and foreground)."""
        return len(self.channels) == 1 or (self.exclusive and len(self.channels) == 2)

    @property
    def foreground(self) -> int:
        """Of a binary problem the channel that is not the background: the one without label value 0, else the last."""
        without = [index for index, channel in enumerate(self.channels) if 0 not in channel.values]
        return without[0] if without else len(self.channels) - 1

    @property
    def measured(self) -> tuple[int, ...]:
        """Channels that are problems of their own: of two exclusive classes only the foreground, else all."""
        return (self.foreground,) if self.binary else tuple(range(len(self.channels)))

    @property
    def measured_names(self) -> tuple[str, ...]:
        """Names of the measured channels, then of the regions."""
        return (*(self.names[channel] for channel in self.measured), *(region.name for region in self.regions))

    def parts(self, region: Channel) -> tuple[int, ...]:
        """Channels that a region joins. Raises BadClassTable if its values are not those of whole channels."""
        parts = tuple(index for index, channel in enumerate(self.channels) if channel.values <= region.values)
        if frozenset().union(*(self.channels[index].values for index in parts)) != region.values:
            raise BadClassTable(f"{region.name} must join whole classes")
        return parts

    @property
    def known_values(self) -> frozenset[int]:
        """Label values that a label volume may hold, the ignore value left out. Sigmoid: 0 is always allowed."""
        values = frozenset().union(*(channel.values for channel in self.channels))
        return values if self.exclusive else values | {0}

    def to_json(self) -> dict[str, object]:
        return {
            "channels": [_to_json(channel) for channel in self.channels],
            "activation": self.activation,
            "ignore": self.ignore,
            "paint": None if self.paint is None else list(self.paint),
            # Left out where there are none, so that tables without them look as they always did.
            **({"regions": [_to_json(region) for region in self.regions]} if self.regions else {}),
        }

    @classmethod
    def from_json(cls, data: dict) -> LabelSpace:
        channels, regions = (
            tuple(Channel(str(c["name"]), frozenset(int(v) for v in c["values"])) for c in data.get(key, ()))
            for key in ("channels", "regions")
        )
        paint = data.get("paint")
        return cls(channels, data["activation"], data.get("ignore"), None if paint is None else tuple(paint), regions)


def _to_json(channel: Channel) -> dict[str, object]:
    return {"name": channel.name, "values": sorted(channel.values)}


@dataclass(frozen=True, slots=True)
class LabelMap:
    """A label volume in terms of channels.

    codes: uint8 or uint16 "z y x". Softmax: the channel index. Sigmoid: an index into the sorted known label values.
    members: bool "channel code": whether the channel holds voxels of that code. Ignored voxels have code 0 and stand in
    ``ignored`` (bool "z y x", None where there are none).
    """

    codes: np.ndarray
    members: np.ndarray
    ignored: np.ndarray | None = None

    def holds(self, channel: int, where: slice | tuple | np.ndarray = ...) -> np.ndarray:  # type: ignore[assignment]
        """bool, True where the voxel belongs to the channel."""
        return self.members[channel][self.codes[where]]
