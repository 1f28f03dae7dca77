"""Voxels: the probabilities of numerator and denominator, a few planes at a time.

Nothing is thresholded: soft tails are part of a volume. Sums are taken in float64 (float32 ones miss the sixth digit),
but a whole volume is never converted: a slab of planes passes through memory at a time. Voxels outside the region of
interest or without annotation are zeros in every sum; padding outside a model's crop is certain background, and stays.
"""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np

from segcal_cli.core.case import Case
from segcal_cli.core.errors import VoxelError
from segcal_cli.core.frozen import dataclass
from segcal_cli.core.labels import LabelSpace
from segcal_cli.core.volume import Values
from segcal_cli.ratio.regions import Ratio

SLAB_VOXELS = 1 << 16
"""Voxels of a slab, in whole planes: float64 temporaries of this size stay in a processor's cache."""


class NothingCounts(VoxelError):
    """A case whose voxels are all left out."""

    template = "{0}: {1:voxel counts|voxels count}; a ratio needs 2. Look at --roi and the ignore label"


@dataclass(frozen=True, slots=True)
class Pair:
    """a, b "z y x" of the planes from first_plane on, 0 where not counted; kept as in Slab."""

    first_plane: int
    a: np.ndarray
    b: np.ndarray
    kept: np.ndarray | None


@dataclass(frozen=True, slots=True)
class Slab:
    """Some planes of a case. a, b: float64 "z y x", probabilities of numerator and denominator, 0 where not counted;
    the next slab is written over them.

    raw: float32 "class z y x", the stored numbers. kept: bool "z y x", or None where all voxels count. excess: sum of
    a - b where the stored channels contradict that a lies inside b.
    """

    planes: slice
    a: np.ndarray
    b: np.ndarray
    raw: np.ndarray
    kept: np.ndarray | None
    excess: float

    def pair(self, dtype: type[np.floating] = np.float64) -> Pair:
        """A copy of what the second pass needs of it, in that type."""
        return Pair(self.planes.start, self.a.astype(dtype), self.b.astype(dtype), self.kept)


@dataclass(frozen=True, slots=True)
class Voxels:
    """A case seen through a ratio. n: counted voxels; voxel_mm3: 1 where there is no grid."""

    case: Case
    ratio: Ratio
    n: int
    voxel_mm3: float

    @classmethod
    def of(cls, case: Case, ratio: Ratio) -> Voxels:
        """Raises NothingCounts."""
        kept = case.counted(padding=True)
        n = int(np.prod(case.volume.grid.shape)) if kept is None else int(np.count_nonzero(kept))
        if n < 2:
            raise NothingCounts(case.id, n)
        voxel = case.volume.grid.voxel_mm3
        return cls(case, ratio, n, 1.0 if voxel is None else voxel)

    def slabs(self) -> Iterator[Slab]:
        """All planes, in order."""
        volume, space = self.case.volume, self.case.space
        depth, height, width = volume.grid.shape
        step = min(depth, max(1, SLAB_VOXELS // (height * width)))
        counted = self.case.counted(padding=True)
        softmax = None
        if volume.values == "logits" and space.exclusive:
            softmax = Softmax.over((step, height, width), self.ratio)
        # Written again by every slab: asking for memory anew costs as much as the sums.
        room = np.empty((2, step, height, width))
        for start in range(0, depth, step):
            planes = slice(start, min(start + step, depth))
            raw = volume.array[:, planes]
            a, b = room[:, : planes.stop - start]
            if softmax is not None:
                softmax.write(raw, a, b)
                excess = 0.0
            else:
                excess = self.write(probabilities(raw, volume.values, space), a, b)
            kept = None if counted is None else counted[planes]
            if kept is not None:
                a *= kept
                b *= kept
            yield Slab(planes, a, b, raw, kept, excess)

    def write(self, channels: np.ndarray, a: np.ndarray, b: np.ndarray) -> float:
        """Write a, b float64 "..." from float32 "class ..." probabilities; returns the sum of a - b where a exceeds b.

        Of a contained ratio a is then at most b; exclusive classes cannot break that, since sums of more terms in the
        same order are never smaller.
        """
        self.ratio.numerator.probability(channels, out=a)
        self.ratio.denominator.probability(channels, out=b)
        if not self.ratio.contained or self.case.space.exclusive:
            return 0.0
        over = np.maximum(a - b, 0.0)
        excess = float(over.sum())
        if excess:
            a -= over
            np.minimum(a, b, out=a)
        return excess

    def at(self, flat: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """a, b float64 "voxel" at flat indices of the grid."""
        volume = self.case.volume
        raw = volume.array.reshape(len(volume.array), -1)[:, flat]
        a, b = np.empty((2, flat.size))
        self.write(probabilities(raw, volume.values, self.case.space), a, b)
        return a, b


@dataclass(frozen=True, slots=True)
class Softmax:
    """Numerator and denominator straight from logits of exclusive classes, one channel at a time.

    Only what is asked for is divided by the total, and everything in between is written into the same few planes. All
    of it in float32, as a file of probabilities would hold them.
    """

    ratio: Ratio
    largest: np.ndarray
    power: np.ndarray
    total: np.ndarray
    numerator: np.ndarray
    denominator: np.ndarray

    @classmethod
    def over(cls, shape: tuple[int, int, int], ratio: Ratio) -> Softmax:
        return cls(ratio, *(np.empty(shape, dtype=np.float32) for _ in range(5)))

    def write(self, raw: np.ndarray, a: np.ndarray, b: np.ndarray) -> None:
        """a, b: float64 "z y x", written; raw: float32 logits "class z y x". No more planes than there is room for."""
        largest, power, total, above, below = (
            part[: raw.shape[1]] for part in (self.largest, self.power, self.total, self.numerator, self.denominator)
        )
        np.copyto(largest, raw[0])
        for channel in raw[1:]:
            np.maximum(largest, channel, out=largest)
        for part in (total, above, below):
            part.fill(0.0)
        for index, channel in enumerate(raw):
            np.subtract(channel, largest, out=power)
            np.exp(power, out=power)
            total += power
            if index in self.ratio.numerator.plus:
                above += power
            if index in self.ratio.denominator.plus:
                below += power
        np.divide(above, total, out=a)
        np.divide(below, total, out=b)


def probabilities(raw: np.ndarray, values: Values, space: LabelSpace) -> np.ndarray:
    """float32 "class ..." probabilities of stored numbers float32 "class ...".

    Of logits: rounded to float32, as a file of probabilities would hold them.
    """
    if values == "probabilities":
        return raw
    if not space.exclusive:
        from scipy.special import expit

        return expit(raw)
    largest = raw[0].copy()
    for channel in raw[1:]:
        np.maximum(largest, channel, out=largest)
    powers = np.exp(raw - largest)
    total = powers[0].copy()
    for channel in powers[1:]:
        total += channel
    powers /= total
    return powers
