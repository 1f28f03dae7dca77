"""Boxes of a mask: the bounding boxes of its components, and the largest box inside each (2-D).

The outer set of "a union of boxes" and the inner one: Davenport 2024, the corollaries on bounding boxes. Components
are face-connected.
"""

from __future__ import annotations

import numpy as np

from segcal_cli.core.errors import UsageError
from segcal_cli.core.frozen import dataclass

Bounds = tuple[tuple[int, int], tuple[int, int], tuple[int, int]]
"""Half-open index ranges along z, y, x."""


class InnerBoxesIn3D(UsageError):
    """The largest inner box is searched for in the plane only."""

    template = "{0}: inner boxes are for 2-D images; this case has {1} axes longer than one voxel"


@dataclass(frozen=True, slots=True)
class Component:
    """One face-connected component: its bounding box and number of voxels."""

    bounds: Bounds
    voxels: int


def components(mask: np.ndarray) -> list[Component]:
    """Face-connected components of "z y x", in the order of their first voxel."""
    from scipy import ndimage

    labels, count = ndimage.label(mask)
    sizes = np.bincount(labels.reshape(-1), minlength=count + 1)
    found = []
    for number, slices in enumerate(ndimage.find_objects(labels), start=1):
        z, y, x = ((side.start, side.stop) for side in slices)
        found.append(Component((z, y, x), int(sizes[number])))
    return found


def outer_boxes(mask: np.ndarray) -> np.ndarray:
    """bool "z y x": the union of the bounding boxes of the components."""
    made = np.zeros(mask.shape, dtype=bool)
    for component in components(mask):
        made[tuple(slice(*side) for side in component.bounds)] = True
    return made


def inner_boxes(mask: np.ndarray, case: str) -> np.ndarray:
    """bool "z y x": the union of the largest box inside each component. Raises InnerBoxesIn3D."""
    from scipy import ndimage

    long = [axis for axis, size in enumerate(mask.shape) if size > 1]
    if len(long) > 2:
        raise InnerBoxesIn3D(case, len(long))
    made = np.zeros(mask.shape, dtype=bool)
    labels, _ = ndimage.label(mask)
    for number, slices in enumerate(ndimage.find_objects(labels), start=1):
        piece = labels[slices] == number
        axes = long if len(long) == 2 else [1, 2]
        flat = np.moveaxis(piece, axes, (0, 1)).reshape(piece.shape[axes[0]], piece.shape[axes[1]])
        top, left, bottom, right = largest_rectangle(flat)
        view = np.moveaxis(made[slices], axes, (0, 1))
        view[top : bottom + 1, left : right + 1] = True
    return made


def largest_rectangle(mask: np.ndarray) -> tuple[int, int, int, int]:
    """(first row, first column, last row, last column) of the largest box of True in "row column".

    Of several the lexicographically smallest. Row by row, each column knows the height of True above it and how far a
    box of that height reaches to both sides; every maximal box is met at its bottom row. The mask must not be empty.
    """
    rows, columns = mask.shape
    index = np.arange(columns)
    height = np.zeros(columns, np.int64)
    left = np.zeros(columns, np.int64)
    right = np.full(columns, columns, np.int64)
    best_area, best = 0, (0, 0, 0, 0)
    for row in range(rows):
        filled = mask[row]
        start = np.maximum.accumulate(np.where(filled, 0, index + 1))
        stop = np.minimum.accumulate(np.where(filled, columns, index)[::-1])[::-1]
        height = np.where(filled, height + 1, 0)
        left = np.where(filled, np.maximum(left, start), 0)
        right = np.where(filled, np.minimum(right, stop), columns)
        area = np.where(filled, height * (right - left), 0)
        largest = int(area.max(initial=0))
        if largest < max(1, best_area):
            continue
        here = min(
            (row - int(height[c]) + 1, int(left[c]), row, int(right[c]) - 1) for c in np.flatnonzero(area == largest)
        )
        best = here if largest > best_area else min(best, here)
        best_area = largest
    return best
