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

Slices = tuple[slice, slice, slice]

SPACING_DIGITS = 5
"""NIfTI stores spacing as float32: 0.8 comes back as 0.800000012. Rounded to 1e-5 mm before use."""


TREE_POINTS = 5_000
"""With more points those are sorted out first that cannot be the farthest one."""


def bounding_box(mask: np.ndarray) -> Slices | None:
    """The box of the True voxels of "z y x", or None where there are none."""
    edges = (mask.any(axis=(1, 2)), mask.any(axis=(0, 2)), mask.any(axis=(0, 1)))
    if not edges[0].any():
        return None
    found = [np.flatnonzero(edge) for edge in edges]
    z, y, x = (slice(int(f[0]), int(f[-1]) + 1) for f in found)
    return z, y, x


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
    mask: np.ndarray, spacing: Sequence[float], metric: Metric, domain: np.ndarray | None = None
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
    made = _to_nearest(mask, spacing, metric)
    np.negative(made, out=made)
    # Both transforms are 0 on their own sites, so each is taken where the other one ends.
    inside = bounding_box(mask)
    assert inside is not None, "the mask has voxels"
    near = inside if domain is None else whole(mask.shape)
    near = widened(near, mask.shape, (1, 1, 1))
    depth = _to_nearest(outside[near], spacing, metric)
    part = made[near]
    part[mask[near]] = depth[mask[near]]
    return made


def farthest(points: np.ndarray, sites: np.ndarray, spacing: Sequence[float]) -> float:
    """The largest distance (mm) of a True voxel of ``points`` to the nearest one of ``sites``; both are not empty and
    have no voxel in common.

    A step from the nearest site towards the point leaves the sites, so only sites with a face on the outside count: few
    enough for a tree, which is faster than a Euclidean transform of all voxels in between.
    """
    from scipy.spatial import cKDTree

    edges = np.asarray(spacing, dtype=np.float64)
    found = np.argwhere(points)
    if len(found) > TREE_POINTS:
        # c steps of the full box are at least c times the shortest edge and at most c times the diagonal of a voxel.
        steps = _to_nearest(sites, spacing, "chessboard")[points]
        found = found[steps * np.linalg.norm(edges) >= steps.max() * edges.min()]
    tree = cKDTree(np.argwhere(sites & ~_eroded(sites)) * edges)
    return float(tree.query(found * edges)[0].max())


def _eroded(mask: np.ndarray) -> np.ndarray:
    """bool: True voxels whose face neighbours, as far as there are any, are True."""
    made = mask.copy()
    for axis in range(mask.ndim):
        low, high = (
            tuple(slice(None) if other != axis else side for other in range(mask.ndim))
            for side in (slice(None, -1), slice(1, None))
        )
        made[low] &= mask[high]
        made[high] &= mask[low]
    return made


def _to_nearest(sites: np.ndarray, spacing: Sequence[float], metric: Metric) -> np.ndarray:
    """float64: distance to the nearest True voxel."""
    from scipy import ndimage

    if metric == "euclidean":
        return ndimage.distance_transform_edt(~sites, sampling=tuple(spacing))
    return ndimage.distance_transform_cdt(~sites, metric=metric).astype(np.float64)
