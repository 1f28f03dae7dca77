"""Signed permutations of the axes of a volume: the 48 ways in which one box of voxels can be turned into another.

An affine tells which anatomical direction each array axis runs in, up to obliqueness. Programs that "reorient" turn a
volume to right-anterior-superior (RAS+) order, whose array axes x, y, z run to the right, to the front and upwards.
Such turns only permute and flip axes; no voxel is interpolated, so they can be undone bit for bit.
"""

from __future__ import annotations

import itertools
from collections.abc import Iterator

import numpy as np

from segcal_cli.core.frozen import dataclass

AXIS_NAMES = ("z", "y", "x")


@dataclass(frozen=True, slots=True)
class Orientation:
    """How the axes (z, y, x) of a result are taken from those of a source.

    axes: axis i of the result is axis ``axes[i]`` of the source. flips: whether it runs backwards.
    """

    axes: tuple[int, int, int] = (0, 1, 2)
    flips: tuple[bool, bool, bool] = (False, False, False)

    @property
    def identity(self) -> bool:
        return self == Orientation()

    def apply(self, array: np.ndarray) -> np.ndarray:
        """The array "... z y x" turned: a view, leading axes untouched."""
        lead = array.ndim - 3
        turned = array.transpose(*range(lead), *(lead + axis for axis in self.axes))
        return turned[(..., *(slice(None, None, -1 if flip else None) for flip in self.flips))]

    def turn(self, array: np.ndarray) -> np.ndarray:
        """The array "class z y x", C-contiguous, turned within its own memory, which no longer holds what was there.

        A channel takes the same bytes before and after, so one channel is copied at a time, and never the whole volume.
        """
        if self.identity:
            return array
        turned = array.reshape(len(array), *self.shape(array.shape[1:]))
        for source, target in zip(array, turned, strict=True):
            target[...] = self.apply(source).copy()
        return turned

    def undo(self, array: np.ndarray) -> np.ndarray:
        """The view that ``apply`` would turn into this array "... z y x"."""
        return self.inverse.apply(array)

    @property
    def inverse(self) -> Orientation:
        z, y, x = (self.axes.index(axis) for axis in range(3))
        return Orientation((z, y, x), (self.flips[z], self.flips[y], self.flips[x]))

    def then(self, other: Orientation) -> Orientation:
        """The turn that does this one first and the other on its result."""
        (z, y, x), (z_flip, y_flip, x_flip) = other.axes, other.flips
        flips = (self.flips[z] != z_flip, self.flips[y] != y_flip, self.flips[x] != x_flip)
        return Orientation((self.axes[z], self.axes[y], self.axes[x]), flips)

    def shape(self, source: tuple[int, ...]) -> tuple[int, int, int]:
        """Shape (z, y, x) of what a source of this shape (z, y, x) becomes."""
        z, y, x = self.axes
        return source[z], source[y], source[x]

    def __str__(self) -> str:
        """The source axes that x, y and z of the result are taken from, as in ``(-x, -y, z)``."""
        names = [("-" if flip else "") + AXIS_NAMES[axis] for axis, flip in zip(self.axes, self.flips, strict=True)]
        return f"({', '.join(reversed(names))})"


def from_ras(affine: np.ndarray) -> Orientation:
    """The turn from RAS+ order to the order of a volume with this affine.

    affine: float 4 x 4, index (x, y, z, 1) -> mm in RAS+, invertible.

    Each array axis goes to the anatomical axis that it is closest to, after shear is taken off by a polar
    decomposition; the axes that are most clearly aligned choose first. This is the rule of nibabel's
    ``io_orientation``, which both reorienting readers of nnU-Net agree with.
    """
    matrix = np.asarray(affine, dtype=np.float64)[:3, :3]
    left, _, right = np.linalg.svd(matrix / np.linalg.norm(matrix, axis=0))
    rotation = left @ right
    anatomical, backwards = [0, 0, 0], [False, False, False]
    for axis in np.argsort(np.min(-(rotation**2), axis=0), kind="stable"):
        column = rotation[:, axis]
        nearest = int(np.argmax(np.abs(column)))
        anatomical[axis], backwards[axis] = nearest, bool(column[nearest] < 0)
        rotation[nearest] = 0
    x, y, z = anatomical
    return Orientation((2 - z, 2 - y, 2 - x), (backwards[2], backwards[1], backwards[0]))


def fitting(source: tuple[int, ...], result: tuple[int, ...]) -> Iterator[Orientation]:
    """Every orientation that turns the shape ``source`` into the shape ``result``, both (z, y, x); flips of an axis of
    length 1 are left out, since they change nothing."""
    for z, y, x in itertools.permutations(range(3)):
        candidate = Orientation((z, y, x))
        if candidate.shape(source) == tuple(result):
            along_z, along_y, along_x = ((False, True) if length > 1 else (False,) for length in result)
            for flips in itertools.product(along_z, along_y, along_x):
                yield Orientation((z, y, x), flips)


def shape_text(shape: tuple[int, ...]) -> str:
    """A shape (z, y, x) in the order x, y, z, as messages have it."""
    return " x ".join(str(n) for n in reversed(shape))
