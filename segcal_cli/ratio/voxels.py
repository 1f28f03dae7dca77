"""Voxels: the probabilities of numerator and denominator, a few planes at a time.

Nothing is thresholded: soft tails are part of a volume. Sums are taken in float64 (float32 ones miss the sixth digit),
but a whole volume is never converted: a slab of planes passes through memory at a time. Voxels outside the region of
interest or without annotation are zeros in every sum; padding outside a model's crop is certain background, and stays.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np

from segcal_cli.core.case import Case
from segcal_cli.core.errors import VoxelError
from segcal_cli.core.labels import LabelSpace
from segcal_cli.core.volume import Values
from segcal_cli.ratio.regions import Ratio

SLAB_VOXELS = 1 << 16
"""Voxels of a slab, in whole planes: float64 temporaries of this size stay in a processor's cache."""


class NothingCounts(VoxelError):
    """A case whose voxels are all left out."""

    template = "{0}: {1} voxels count; a ratio needs 2. Look at --roi and the ignore label"


@dataclass(frozen=True, slots=True)
class Pair:
    """a, b "z y x" of the planes from first_plane on, 0 where not counted; kept as in Slab."""

    first_plane: int
    a: np.ndarray
    b: np.ndarray
    kept: np.ndarray | None


@dataclass(frozen=True, slots=True)
class Slab:
    """Some planes of a case. a, b: float64 "z y x", probabilities of numerator and denominator, 0 where not counted.

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
        """What the second pass needs of it, in that type."""
        return Pair(self.planes.start, self.a.astype(dtype, copy=False), self.b.astype(dtype, copy=False), self.kept)


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
        step = max(1, SLAB_VOXELS // (height * width))
        counted = self.case.counted(padding=True)
        for start in range(0, depth, step):
            planes = slice(start, min(start + step, depth))
            raw = volume.array[:, planes]
            a, b, excess = self.pair(probabilities(raw, volume.values, space))
            kept = None if counted is None else counted[planes]
            if kept is not None:
                a *= kept
                b *= kept
            yield Slab(planes, a, b, raw, kept, excess)

    def pair(self, channels: np.ndarray) -> tuple[np.ndarray, np.ndarray, float]:
        """a, b float64 "..." from float32 "class ..." probabilities, and the sum of a - b where a exceeds b.

        Of a contained ratio a is then at most b; exclusive classes cannot break that, since sums of more terms in the
        same order are never smaller.
        """
        a = self.ratio.numerator.probability(channels)
        b = self.ratio.denominator.probability(channels)
        if not self.ratio.contained or self.case.space.exclusive:
            return a, b, 0.0
        over = np.maximum(a - b, 0.0)
        excess = float(over.sum())
        if excess:
            a -= over
            np.minimum(a, b, out=a)
        return a, b, excess

    def at(self, flat: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """a, b float64 "voxel" at flat indices of the grid."""
        volume = self.case.volume
        raw = volume.array.reshape(len(volume.array), -1)[:, flat]
        a, b, _ = self.pair(probabilities(raw, volume.values, self.case.space))
        return a, b


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
