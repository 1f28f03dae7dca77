"""Boundary shells: voxels by their signed distance to the predicted mask of a class.

Organs move, and the border of a prediction moves with them; where networks err is a matter of the distance to it. The
cluster is a function of the prediction of the scan itself, the same function for all, so the promise stands. Outside
the mask the distance is that to the nearest voxel centre inside and positive; inside it is minus that to the nearest
voxel centre outside. It is never 0, so an edge at 0 is safe.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

EDGE_SLACK = 1e-6
"""Added to every edge, in mm: distances that equal an edge but for rounding lie within it."""

SIDE_BINS = 128
"""Bins on each side of the boundary from which edges are learned."""


def signed_distance(mask: np.ndarray, spacing: Sequence[float]) -> np.ndarray | None:
    """float64 "z y x" in mm (or voxels); None for an empty mask, -inf everywhere for a full one."""
    from scipy.ndimage import distance_transform_edt

    if not mask.any():
        return None
    if mask.all():
        return np.full(mask.shape, -np.inf)
    distance = distance_transform_edt(~mask, sampling=spacing)
    distance -= distance_transform_edt(mask, sampling=spacing)
    return distance


def shells(distance: np.ndarray, edges: Sequence[float]) -> np.ndarray:
    """uint8: the shell i with e_{i-1} < d <= e_i, from 0 (deepest inside) to the number of edges."""
    return np.searchsorted(np.asarray(edges, np.float64) + EDGE_SLACK, distance).astype(np.uint8)


def distance_bins(distance: np.ndarray, width: float) -> np.ndarray:
    """int64: right-closed bins of ``width`` from -128 to 128 widths; the end bins catch the rest."""
    bins = np.ceil((np.clip(distance, -1e6 * width, 1e6 * width) - EDGE_SLACK) / width).astype(np.int64)
    return np.clip(bins + (SIDE_BINS - 1), 0, 2 * SIDE_BINS - 1)


def edge_of(cut: int, width: float) -> float:
    """The distance at which a cut before bin ``cut`` lies, in mm."""
    return (cut - SIDE_BINS) * width
