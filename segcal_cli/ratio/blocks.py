"""Blocks: how much less a scan tells than its number of voxels.

The squared error of a ratio of means, taken voxel by voxel, believes that voxels are independent. Neighbours are not,
so the sum over a box of them varies more than its voxels on their own. Boxes of growing size, about L voxels of the
finest axis along each axis, show how much: the largest of all estimates counts, up to the size at which too few boxes
hold the denominator to estimate a variance at all.
"""

from __future__ import annotations

import math
from dataclasses import field

import numpy as np

from segcal_cli.core.frozen import dataclass

MIN_EFFECTIVE_BOXES = 8.0
"""With fewer boxes, counted by how evenly they share the denominator, a variance is not estimated."""


@dataclass(frozen=True, slots=True)
class Level:
    """Boxes of one size. length: L; edges: voxels along (z, y, x); parent: the level whose boxes these are made of, or
    None where they are made of voxels.
    """

    length: int
    edges: tuple[int, int, int]
    parent: int | None


@dataclass(frozen=True, slots=True)
class Tried:
    """One size that was tried: boxes that hold some of the denominator, their effective number, the squared error."""

    length: int
    edges: tuple[int, int, int]
    boxes: int
    effective: float
    squared_error: float


def levels_of(shape: tuple[int, int, int], spacing: tuple[float, float, float]) -> tuple[Level, ...]:
    """Every size up to one box for the whole array. shape, spacing: along (z, y, x)."""
    finest = min(spacing)
    made: list[Level] = []
    length = 1
    while not made or any(edge < size for edge, size in zip(made[-1].edges, shape, strict=True)):
        length *= 2
        edges = tuple(max(1, math.floor(length * finest / edge + 0.5)) for edge in spacing)
        z, y, x = edges
        # The coarsest earlier boxes that fill these exactly: adding their sums is far cheaper than adding voxels.
        fitting = [
            index
            for index, level in enumerate(made)
            if all(edge % inner == 0 for edge, inner in zip(edges, level.edges, strict=True))
        ]
        made.append(Level(length, (z, y, x), fitting[-1] if fitting else None))
    return tuple(made)


@dataclass(slots=True)
class BoxSums:
    """Sums of b and of the residual e = a - R b over boxes, filled slab by slab.

    shape: (z, y, x) of the grid. sums: by index of a level made of voxels, one float64 "quantity y x" per plane of
    boxes, from the moment that the first of its voxels comes: what the slabs are made of is freed meanwhile.
    """

    levels: tuple[Level, ...]
    shape: tuple[int, int, int]
    sums: dict[int, list[np.ndarray]] = field(default_factory=dict)

    @classmethod
    def over(cls, shape: tuple[int, int, int], spacing: tuple[float, float, float]) -> BoxSums:
        made = cls(levels_of(shape, spacing), shape)
        made.sums = {index: [] for index, level in enumerate(made.levels) if level.parent is None}
        return made

    def add(self, first_plane: int, b: np.ndarray, e: np.ndarray) -> None:
        """b, e: float64 "z y x" of the planes from first_plane on, in order."""
        for index, total in self.sums.items():
            deep, high, wide = self.levels[index].edges
            for quantity, values in enumerate((b, e)):
                flat = coarsened(coarsened(values, 1, high), 2, wide)
                for offset, plane in enumerate(flat):
                    place = (first_plane + offset) // deep
                    if place == len(total):
                        total.append(np.zeros((2, *plane.shape)))
                    total[place][quantity] += plane

    def tried(self) -> tuple[Tried, ...]:
        """Sizes in order, up to the one at which too few boxes are left."""
        made: dict[int, np.ndarray] = {}
        tried = []
        for index, level in enumerate(self.levels):
            if level.parent is None:
                made[index] = np.stack(self.sums[index], axis=1)
            else:
                inner = self.levels[level.parent].edges
                sums = made[level.parent]
                for axis in range(3):
                    sums = coarsened(sums, axis + 1, level.edges[axis] // inner[axis])
                made[index] = sums
            b, e = made[index]
            total = float(b.sum())
            squares = float(np.square(b).sum())
            effective = total**2 / squares if squares else 0.0
            if effective < MIN_EFFECTIVE_BOXES:
                break
            boxes = int(np.count_nonzero(b > 0))
            error = boxes / (boxes - 1) * float(np.square(e).sum()) / total**2
            tried.append(Tried(level.length, level.edges, boxes, effective, error))
        return tuple(tried)


def coarsened(values: np.ndarray, axis: int, edge: int) -> np.ndarray:
    """Sums over runs of ``edge`` entries along an axis, from index 0 on; the last run may be shorter."""
    if edge == 1:
        return values
    index: list[slice] = [slice(None)] * values.ndim
    index[axis] = slice(0, None, edge)
    sums = values[tuple(index)].copy()
    for offset in range(1, min(edge, values.shape[axis])):
        index[axis] = slice(offset, None, edge)
        part = values[tuple(index)]
        head = [slice(None)] * values.ndim
        head[axis] = slice(0, part.shape[axis])
        sums[tuple(head)] += part
    return sums
