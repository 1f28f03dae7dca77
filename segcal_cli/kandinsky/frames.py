"""Frames: one order of axes for all scans, whatever way each of them is stored.

A map of places is learned and kept in the canonical frame: axes permuted and flipped to nearest RAS+ (x to the right, y
to the front, z up), or the order of the array where there is no affine. It is brought to a scan by the reverse
permutation; probabilities and labels are never touched.
"""

from __future__ import annotations

import itertools

import numpy as np

from segcal_cli.core.frozen import dataclass
from segcal_cli.core.volume import Grid

SPACING_DIGITS = 5
"""NIfTI keeps spacings in float32, where 1.2 reads 1.2000000477; lengths are rounded to 1e-5 mm."""

Three = tuple[int, int, int]


@dataclass(frozen=True, slots=True)
class Frame:
    """How a scan's array "z y x" becomes canonical. axes: source axis of each canonical axis; flips: of each canonical
    axis.

    shape, spacing: canonical, "z y x"; spacing in mm, or 1 where there is no affine. has_mm: whether there is one.
    """

    axes: Three
    flips: tuple[bool, bool, bool]
    shape: Three
    spacing: tuple[float, float, float]
    has_mm: bool

    @classmethod
    def of(cls, grid: Grid) -> Frame:
        if grid.affine is None:
            return cls((0, 1, 2), (False, False, False), grid.shape, (1.0, 1.0, 1.0), False)
        edges = np.linalg.norm(grid.affine[:3, :3], axis=0)
        cosines = grid.affine[:3, :3] / edges
        # The voxel axis nearest to each of R, A, S, all three at once.
        best = max(itertools.permutations(range(3)), key=lambda p: sum(abs(cosines[w, v]) for w, v in enumerate(p)))
        voxel_axes = best[::-1]
        axes = tuple(2 - axis for axis in voxel_axes)
        flips = tuple(bool(cosines[world, axis] < 0) for world, axis in zip((2, 1, 0), voxel_axes, strict=True))
        spacing = tuple(round(float(edges[axis]), SPACING_DIGITS) for axis in voxel_axes)
        shape = tuple(grid.shape[axis] for axis in axes)
        return cls(axes, flips, shape, spacing, True)  # type: ignore[arg-type]

    @property
    def flipped(self) -> tuple[int, ...]:
        return tuple(axis for axis in range(3) if self.flips[axis])

    @property
    def dimension(self) -> int:
        """2 where one axis has a single voxel."""
        return 2 if 1 in self.shape else 3

    def canonical(self, array: np.ndarray) -> np.ndarray:
        """A view of a scan's "z y x" array in the canonical frame."""
        return np.flip(array.transpose(self.axes), self.flipped)

    def to_scan(self, array: np.ndarray) -> np.ndarray:
        """A view of a canonical array in the scan's own order."""
        return np.flip(array, self.flipped).transpose(tuple(np.argsort(self.axes)))
