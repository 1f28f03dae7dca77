"""Distances to the nearest site, by scipy or, where it is installed, by the package ``edt``, several times faster.

``edt`` works in float32. Squared distances in voxels of one size are whole numbers, exact there too; otherwise they are
a few parts in 1e7 off, which the slack of thresholds outweighs, so that sets come out alike. Scores of calibration are
kept and printed, and must not hang on what is installed: those are scipy's.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np

from segcal_cli.confidence.scores import Metric

Transform = Callable[[np.ndarray, Sequence[float], Metric], np.ndarray]
"""(sites bool "z y x", voxel edges, metric) -> float64 "z y x", the distance to the nearest True voxel."""


def exact_distances(sites: np.ndarray, spacing: Sequence[float], metric: Metric) -> np.ndarray:
    """float64 "z y x": by scipy. There must be a site."""
    from scipy import ndimage

    if metric == "euclidean":
        return ndimage.distance_transform_edt(~sites, sampling=tuple(spacing))
    return ndimage.distance_transform_cdt(~sites, metric=metric).astype(np.float64)


def fast_distances(sites: np.ndarray, spacing: Sequence[float], metric: Metric) -> np.ndarray:
    """The same by ``edt`` where it is installed and the metric is Euclidean, within 1e-6 of it."""
    if metric != "euclidean":
        return exact_distances(sites, spacing, metric)
    try:
        import edt
    except ImportError:
        return exact_distances(sites, spacing, metric)
    squared = edt.edtsq(np.ascontiguousarray(~sites), anisotropy=tuple(spacing), black_border=False, parallel=1)
    made = squared.astype(np.float64)
    return np.sqrt(made, out=made)
