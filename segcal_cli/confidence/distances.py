"""Signed distance of a mask: positive inside (to the nearest voxel centre outside), negative outside.

Distances are measured where they are needed: on the box around what matters, plus one voxel. That is exact. A nearest
voxel outside the box can be moved onto the ring of background around it without getting farther away, because clamping
to a box never lengthens a distance to a point in it.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np

from segcal_cli.confidence.scores import Metric
from segcal_cli.confidence.transforms import Transform, exact_distances

Slices = tuple[slice, slice, slice]

SPACING_DIGITS = 5
"""NIfTI stores spacing as float32: 0.8 comes back as 0.800000012. Rounded to 1e-5 mm before use."""

TREE_POINTS = 2_000
"""With more points those are sorted out first that cannot be the farthest one."""

LEAF_POINTS = 64
"""A tree is asked little more often than it has leaves, so that building it has to be fast as well."""

SAMPLED_POINTS = 256
"""Points that are asked first: the farthest of them says which others cannot be farther."""

BLOCKS = 3
"""Half a wide box is this many blocks of voxels: coarser would miss more points, finer would take longer."""

BOX_ROUNDING = 1e-9
"""What is sorted out is sorted out with this much room for rounding."""


def bounding_box(mask: np.ndarray) -> Slices | None:
    """The box of the True voxels of "z y x", or None where there are none."""
    planes = np.flatnonzero(np.logical_or.reduce(mask, axis=(1, 2)))
    if not planes.size:
        return None
    z = slice(int(planes[0]), int(planes[-1]) + 1)
    # Planes over one another first: whole planes are combined several times faster than rows are.
    seen = np.logical_or.reduce(mask[z], axis=0)
    y, x = (np.flatnonzero(np.logical_or.reduce(seen, axis=axis)) for axis in (1, 0))
    return z, slice(int(y[0]), int(y[-1]) + 1), slice(int(x[0]), int(x[-1]) + 1)


def joined(a: Slices | None, b: Slices | None) -> Slices | None:
    """The smallest box around both."""
    if a is None or b is None:
        return a or b
    z, y, x = (slice(min(p.start, q.start), max(p.stop, q.stop)) for p, q in zip(a, b, strict=True))
    return z, y, x


def widened(box: Slices, shape: Sequence[int], by: Sequence[int]) -> Slices:
    """The box with ``by`` more voxels at both ends of each axis, cut off at the grid."""
    z, y, x = (
        slice(max(0, side.start - more), min(size, side.stop + more))
        for side, size, more in zip(box, shape, by, strict=True)
    )
    return z, y, x


def within(box: Slices, around: Slices) -> Slices:
    """The box as its place in a wider one."""
    z, y, x = (slice(p.start - q.start, p.stop - q.start) for p, q in zip(box, around, strict=True))
    return z, y, x


def whole(shape: Sequence[int]) -> Slices:
    """The box that is the whole grid."""
    z, y, x = (slice(0, size) for size in shape)
    return z, y, x


def reach_in_voxels(reach: float, spacing: Sequence[float], metric: Metric) -> tuple[int, int, int]:
    """Voxels per axis beyond which every voxel is farther than ``reach`` from the mask; at least the ring of one."""
    edges = spacing if metric == "euclidean" else (1.0, 1.0, 1.0)
    z, y, x = (max(1, math.ceil(max(0.0, reach) / edge)) for edge in edges)
    return z, y, x


def signed_distance(
    mask: np.ndarray,
    spacing: Sequence[float],
    metric: Metric,
    domain: np.ndarray | None = None,
    transform: Transform = exact_distances,
) -> np.ndarray:
    """float64 "z y x": mm (euclidean) or voxel steps, +inf everywhere if the mask is full, -inf if it is empty.

    spacing: mm along z, y, x. domain: bool, the voxels that exist; neither inside nor outside is looked for beyond it.
    Steps are repeated erosions and dilations with the cross (taxicab) or the full box (chessboard).
    """
    outside = ~mask if domain is None else domain & ~mask
    if not mask.any():
        return np.full(mask.shape, -np.inf)
    if not outside.any():
        return np.full(mask.shape, np.inf)
    made = transform(mask, spacing, metric)
    np.negative(made, out=made)
    # Both transforms are 0 on their own sites, so each is taken where the other one ends.
    inside = bounding_box(mask)
    assert inside is not None, "the mask has voxels"
    near = inside if domain is None else whole(mask.shape)
    near = widened(near, mask.shape, (1, 1, 1))
    depth = transform(outside[near], spacing, metric)
    part = made[near]
    part[mask[near]] = depth[mask[near]]
    return made


def farthest(points: np.ndarray, sites: np.ndarray, spacing: Sequence[float], box: Slices | None = None) -> float:
    """The largest distance (mm) of a True voxel of ``points`` to the nearest one of ``sites``; both are not empty and
    have no voxel in common. box: the bounding box of the sites, if it is known.

    A step from the nearest site towards the point leaves the sites, so only sites with a face on the outside count: few
    enough for a tree, which is faster than a Euclidean transform of all voxels in between. Of many points a few are
    asked first; the others are not asked if a box around some site holds them that reaches no farther than the farthest
    so far.
    """
    from scipy.spatial import cKDTree

    edges = np.asarray(spacing, dtype=np.float64)
    surface = _surface(sites, box or bounding_box(sites))
    tree = cKDTree(surface * edges, LEAF_POINTS, compact_nodes=False, balanced_tree=False)
    corner = math.sqrt(max(1, sum(size > 1 for size in points.shape)))

    def largest(places: np.ndarray) -> float:
        return float(tree.query(places * edges)[0].max())

    left, best = _places(points), 0.0
    while len(left) > TREE_POINTS:
        best = max(best, largest(left[:: -(-len(left) // SAMPLED_POINTS)]))
        # A box of this half-width has corners at most ``best`` away from its middle.
        half = best / corner * (1.0 - BOX_ROUNDING)
        kept = left[~_held(left, surface, points.shape, [math.floor(half / edge) for edge in edges])]
        if not len(kept):
            return best
        stuck, left = len(kept) == len(left), kept
        if stuck:
            break
    return max(best, largest(left))


def _places(mask: np.ndarray) -> np.ndarray:
    """int64 "voxel axis": where the mask is True. Faster than ``argwhere``, which counts along three axes."""
    return np.stack(np.unravel_index(np.flatnonzero(mask), mask.shape), axis=1)


def _surface(sites: np.ndarray, box: Slices | None) -> np.ndarray:
    """int64 "voxel axis": sites with a face on the outside. box: their bounding box."""
    assert box is not None, "there is a site"
    near = widened(box, sites.shape, (1, 1, 1))
    found = sites[near]
    return _places(found & ~_eroded(found)) + [side.start for side in near]


def _held(places: np.ndarray, surface: np.ndarray, shape: Sequence[int], reach: Sequence[int]) -> np.ndarray:
    """bool "place": whether a site lies within this many voxels along every axis; some that do may not be noticed.

    A way from a site to a place outside leaves the sites at one that is no farther along any axis, so the surface is
    enough. Wide boxes are looked for in blocks: r blocks of b voxels away is at most (r + 1) b - 1 voxels.
    """
    blocks = [max(1, (steps + 1) // BLOCKS) for steps in reach]
    coarse = np.zeros([-(-size // block) for size, block in zip(shape, blocks, strict=True)], dtype=bool)
    coarse[tuple(surface[:, axis] // block for axis, block in enumerate(blocks))] = True
    for axis, (steps, block) in enumerate(zip(reach, blocks, strict=True)):
        coarse = _dilated(coarse, axis, (steps + 1) // block - 1)
    return coarse[tuple(places[:, axis] // block for axis, block in enumerate(blocks))]


def _dilated(mask: np.ndarray, axis: int, steps: int) -> np.ndarray:
    """bool: also True within this many voxels along the axis; the mask itself for no step.

    A run of True is at least 2 r + 1 long after r steps, so the next shift can be that long without leaving gaps.
    """
    made, done = mask, 0
    while done < steps:
        shift = min(2 * done + 1, steps - done)
        low, high = _neighbours(mask.ndim, axis, shift)
        before, made = made, made.copy()
        made[high] |= before[low]
        made[low] |= before[high]
        done += shift
    return made


def _neighbours(dimensions: int, axis: int, shift: int = 1) -> tuple[tuple[slice, ...], tuple[slice, ...]]:
    """Index of all but the last, and of all but the first planes of an axis."""
    low, high = (
        tuple(slice(None) if other != axis else side for other in range(dimensions))
        for side in (slice(None, -shift), slice(shift, None))
    )
    return low, high


def _eroded(mask: np.ndarray) -> np.ndarray:
    """bool: True voxels whose face neighbours, as far as there are any, are True."""
    made = mask.copy()
    for axis in range(mask.ndim):
        low, high = _neighbours(mask.ndim, axis)
        made[low] &= mask[high]
        made[high] &= mask[low]
    return made
