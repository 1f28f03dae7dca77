"""The self-proving read: what was read must reproduce the segmentation that the same model wrote beside it.

An array that was flipped, transposed, shifted or whose channels were mixed up looks like any other, and gives numbers
like any other. But the program that saved the probabilities also saved the segmentation made from them. If the most
probable class (or the painted regions) gives that segmentation in every voxel, then axes, orientation, place and
order of channels are right. It cannot see what leaves the order of the numbers alone, such as a softmax applied
twice.

For exclusive classes a voxel agrees if the class that the segmentation names has a value at least as large as every
other. This holds exactly under any monotone rounding: in float16 classes tie, and which of them the writer chose does
not matter. Regions are painted in channel order where they exceed a half, later ones over earlier ones; a voxel with
a value of exactly a half may have been rounded from either side, so it counts as agreeing.

Counting is done slab by slab, in any order and thread. Why a proof failed is looked for only when it did
(``reasons.py``).
"""

from __future__ import annotations

import functools
import math
from collections.abc import Mapping
from typing import Literal

import numpy as np

from segcal_cli.core.errors import ProofError
from segcal_cli.core.frozen import dataclass
from segcal_cli.core.labels import LabelSpace
from segcal_cli.core.volume import Values
from segcal_cli.io.tallies import slabs

Status = Literal["proved", "background"]

MAX_LABEL = 2**31 - 1
"""The largest label value that a class table may hold."""

LARGEST_TABLE = 2**16
"""Label values below this are looked up in a table; for larger ones it would take the memory that they ask for."""


class NotReproduced(ProofError):
    """The segmentation beside an array does not follow from it."""

    template = "{0}: read as {1} it reproduces {2} on {3} of the voxels. {4}"


@dataclass(frozen=True, slots=True)
class Agreement:
    """Voxels compared, those that disagree, and those of the segmentation's foreground. ``+`` joins disjoint voxels."""

    voxels: int
    disagreeing: int
    foreground: int

    def __add__(self, other: Agreement) -> Agreement:
        return Agreement(
            self.voxels + other.voxels, self.disagreeing + other.disagreeing, self.foreground + other.foreground
        )

    @property
    def holds(self) -> bool:
        return self.disagreeing == 0

    @property
    def status(self) -> Status | None:
        """``background`` proves the shape but not the place, for the segmentation has no foreground; None: no proof."""
        if not self.holds:
            return None
        return "proved" if self.foreground else "background"

    def __str__(self) -> str:
        """The share of agreeing voxels, rounded down, so that only a full agreement reads as 1."""
        return "1" if self.holds else f"{math.floor((1 - self.disagreeing / self.voxels) * 10_000) / 10_000:g}"


@dataclass(frozen=True, slots=True)
class Painting:
    """How a segmentation follows from the channels of its model.

    exclusive: the largest channel wins; else regions are painted. values: the label value that each region paints
    (empty if exclusive). threshold: above it a region is painted, 0.5 for probabilities and 0 for logits.
    """

    space: LabelSpace
    exclusive: bool
    values: tuple[int, ...]
    threshold: float

    @classmethod
    def of(cls, space: LabelSpace, values: Values) -> Painting | None:
        """None where the class table does not say what the segmentation holds: several regions without a paint
        order."""
        if space.exclusive:
            return cls(space, True, (), 0.0)
        paint = space.paint
        if paint is None and len(space.channels) == 1 and space.channels[0].values:
            paint = (min(space.channels[0].values),)
        return None if paint is None else cls(space, False, paint, 0.5 if values == "probabilities" else 0.0)

    def encode(self, segmentation: np.ndarray) -> np.ndarray:
        """uint8 or uint16, same shape: what ``agreement`` compares with. segmentation: whole numbers, label values.

        Exclusive: the channel, or the number of channels for a value that no channel has. Regions: 0 for background,
        i + 1 for what the (first) region i with this value paints, and one more than all for other values. The
        segmentations that nnU-Net writes are in this form already and are not copied.
        """
        if self.exclusive:
            owners = [(channel.values, i) for i, channel in enumerate(self.space.channels)]
        else:
            owners = [(frozenset({value}), code) for value, code in self._region_codes.items()]
        unknown = max(code for _, code in owners) + 1
        dtype = np.uint8 if unknown < 2**8 else np.uint16
        if segmentation.dtype == np.uint8 and all(set(values) == {code} for values, code in owners):
            return segmentation
        code_of = {value: code for values, code in owners for value in values if value >= 0}
        codes = np.empty(segmentation.shape, dtype=dtype)
        for plane, target in zip(segmentation, codes, strict=True):
            target[...] = _looked_up(_whole(plane), code_of, unknown, dtype)
        return codes

    @property
    def _region_codes(self) -> dict[int, int]:
        """The code of each label value that is painted."""
        return {value: code for code, value in reversed(list(enumerate(self.values, 1)))} | {0: 0}

    @property
    def background(self) -> int:
        """The code of background."""
        if not self.exclusive:
            return 0
        return next((i for i, channel in enumerate(self.space.channels) if 0 in channel.values), 0)

    def paint(self, slab: np.ndarray) -> np.ndarray:
        """The codes "..." that the channels give, "class ..."; of exclusive classes that tie, the first."""
        if self.exclusive:
            return slab.argmax(axis=0).astype(np.uint16)
        ranks = np.zeros(slab.shape[1:], dtype=np.uint8 if len(slab) < 2**8 else np.uint16)
        for i, row in enumerate(slab):
            # Later regions have higher ranks, so the largest rank is the one painted last; a maximum is faster than a
            # masked assignment.
            np.maximum(ranks, np.multiply(row > self.threshold, i + 1, dtype=ranks.dtype), out=ranks)
        codes = [0, *(self._region_codes[value] for value in self.values)]
        return ranks if codes == list(range(len(codes))) else np.array(codes, dtype=ranks.dtype)[ranks]

    def disagreement(self, slab: np.ndarray, codes: np.ndarray) -> np.ndarray:
        """bool "voxel": True where the codes "voxel" do not follow from the channels, "class voxel"."""
        if self.exclusive:
            named = np.minimum(codes, len(slab) - 1).astype(np.intp)
            values = np.take_along_axis(slab, named[None], axis=0)[0]
            return (codes >= len(slab)) | (values != slab.max(axis=0))
        wrong = self.paint(slab) != codes
        if wrong.any():
            wrong &= ~(slab == self.threshold).any(axis=0)
        return wrong

    def agreement(self, slab: np.ndarray, codes: np.ndarray) -> Agreement:
        """Compare a slab "class voxel" with the encoded segmentation "voxel" of the same voxels."""
        background = self.background
        foreground = np.count_nonzero(codes) if background == 0 else np.count_nonzero(codes != background)
        if self.exclusive:
            disagreeing = codes.size - self._agreeing(slab, codes)
        else:
            disagreeing = int(np.count_nonzero(self.disagreement(slab, codes)))
        return Agreement(codes.size, disagreeing, int(foreground))

    @staticmethod
    def _agreeing(slab: np.ndarray, codes: np.ndarray) -> int:
        """How many voxels of exclusive classes agree: what ``disagreement`` tells, at a third of the cost.

        One comparison per class that is there beats gathering the named channel: it stays in vector instructions.
        """
        largest = slab.max(axis=0)
        lowest, highest = int(codes.min()), int(codes.max())
        if lowest == highest < len(slab):
            return int(np.count_nonzero(slab[lowest] == largest))
        agreeing = 0
        for channel in range(lowest, min(highest + 1, len(slab))):
            agrees = slab[channel] == largest
            agrees &= codes == channel
            agreeing += int(np.count_nonzero(agrees))
        return agreeing

    def compare(self, array: np.ndarray, codes: np.ndarray, order: np.ndarray | None = None) -> Agreement:
        """``agreement`` over a volume, "class z y x" and "z y x", one slab after the other. order: channels to take,
        in turn."""
        flat, flat_codes = array.reshape(len(array), -1), codes.reshape(-1)
        parts = (
            self.agreement(flat[:, part] if order is None else flat[order, part], flat_codes[part])
            for part in slabs(*flat.shape)
        )
        return functools.reduce(Agreement.__add__, parts)


def _whole(plane: np.ndarray) -> np.ndarray:
    """int64: the nearest whole numbers; what is none, or beyond every label, becomes negative."""
    if plane.dtype.kind == "f":
        nearest = np.rint(plane)
        plane = np.where(np.abs(nearest) <= MAX_LABEL, nearest, -1.0)
    return plane.astype(np.int64)


def _looked_up(
    whole: np.ndarray, code_of: Mapping[int, int], unknown: int, dtype: type[np.unsignedinteger]
) -> np.ndarray:
    """The code of each label value, int64 "voxel"; unknown for a value that has none."""
    top = max(code_of)
    if top < LARGEST_TABLE:
        table = np.full(top + 3, unknown, dtype=dtype)  # with one entry below 0 and one above all for foreign values
        for value, code in code_of.items():
            table[value + 1] = code
        return table[np.clip(whole, -1, top + 1) + 1]
    codes = np.full(whole.shape, unknown, dtype=dtype)
    for value, code in code_of.items():
        codes[whole == value] = code
    return codes
