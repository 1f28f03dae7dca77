"""k-means: cells whose scores are distributed alike, wherever they lie (Brunekreef et al. 2023, section 3.1.1).

Lloyd's algorithm from k-means++ seeds, weighted by the square root of the voxels behind each cell. Cells with too few
voxels take the cluster of the nearest cell that has enough, in mm.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from segcal_cli.core.errors import UsageError

STARTS = 10
MAX_ROUNDS = 300


class NoSuchDevice(UsageError):
    """A device that this machine does not have."""

    template = "--device {0} is not available on this machine; use --device cpu"


@dataclass(frozen=True, slots=True)
class Clustering:
    """labels: int64 "point", numbered by the mean of their centre; inertia: weighted sum of squares."""

    labels: np.ndarray
    centres: np.ndarray
    inertia: float


def kmeans(points: np.ndarray, weights: np.ndarray, k: int, seed: int, device: str = "cpu") -> Clustering:
    """The best of 10 starts. points: float64 "point feature"; k is reduced where there are fewer different points.

    device: "cpu" or "cuda"; seeds are always drawn on the CPU, so that both find the same labels but for ties. Raises
    NoSuchDevice.
    """
    mean = weights @ points / weights.sum()
    centred = points - mean
    k = min(k, _different(centred, k))
    rng = np.random.default_rng(seed)
    step = _step_on(device, centred, weights)
    best: tuple[float, np.ndarray, np.ndarray] | None = None
    for _ in range(STARTS):
        centres = _seeds(centred, weights, k, rng)
        found = _lloyd(centred, weights, centres, step)
        if best is None or found[0] < best[0] * (1 - 1e-12):
            best = found
    assert best is not None, "there is at least one start"
    inertia, labels, centres = best
    order = np.argsort(centres.mean(axis=1), kind="stable")
    rank = np.empty(k, np.int64)
    rank[order] = np.arange(k)
    return Clustering(rank[labels], centres[order] + mean, inertia)


def spread_to_rest(labels: np.ndarray, valid: np.ndarray, spacing: Sequence[float]) -> np.ndarray:
    """Every cell's label: its own where ``valid``, else that of the nearest valid cell. spacing: mm per axis."""
    from scipy.ndimage import distance_transform_edt

    nearest = distance_transform_edt(~valid, sampling=spacing, return_distances=False, return_indices=True)
    return labels[tuple(nearest)]


def _different(points: np.ndarray, enough: int) -> int:
    """How many different points there are, counted up to ``enough``."""
    found = 1
    rest = points
    while found < enough:
        rest = rest[(np.abs(rest - rest[0]) > 1e-12).any(axis=1)]
        if not len(rest):
            return found
        found += 1
    return found


def _seeds(points: np.ndarray, weights: np.ndarray, k: int, rng: np.random.Generator) -> np.ndarray:
    """k-means++: each seed is drawn with probability proportional to its weighted squared distance to the others."""
    chosen = np.empty((k, points.shape[1]))
    nearest = np.full(len(points), np.inf)
    chance = weights
    for number in range(k):
        running = np.cumsum(chance)
        at = int(np.searchsorted(running, rng.random() * running[-1], side="right"))
        chosen[number] = points[min(at, len(points) - 1)]
        nearest = np.minimum(nearest, ((points - chosen[number]) ** 2).sum(axis=1))
        chance = nearest * weights
    return chosen


def _lloyd(points, weights, centres, step):  # type: ignore[no-untyped-def]
    labels = None
    for _ in range(MAX_ROUNDS):
        new, sums, mass, distance = step(centres)
        if labels is not None and (new == labels).all():
            break
        labels = new
        for empty in np.flatnonzero(mass == 0):
            # An empty cluster takes the point that is farthest from its own.
            far = int(np.argmax(distance * (weights > 0)))
            labels[far], distance[far] = empty, 0.0
            sums[empty], mass[empty] = points[far] * weights[far], weights[far]
        centres = sums / mass[:, None]
    assert labels is not None, "there is at least one round"
    inertia = float((weights * ((points - centres[labels]) ** 2).sum(axis=1)).sum())
    return inertia, labels, centres


def _step_on(device: str, points: np.ndarray, weights: np.ndarray):  # type: ignore[no-untyped-def]
    """A function centres -> (labels, weighted sums, weights per cluster, squared distances), all numpy."""
    return _cuda_step(points, weights) if device == "cuda" else _numpy_step(points, weights)


def _numpy_step(points: np.ndarray, weights: np.ndarray):  # type: ignore[no-untyped-def]
    weighted = np.column_stack((points * weights[:, None], weights))
    square = (points**2).sum(axis=1)

    def step(centres: np.ndarray):  # type: ignore[no-untyped-def]
        gap = (centres**2).sum(axis=1) - 2 * (points @ centres.T)
        labels = gap.argmin(axis=1)
        sums = np.stack([weighted[labels == cluster].sum(axis=0) for cluster in range(len(centres))])
        return labels, sums[:, :-1], sums[:, -1], square + gap[np.arange(len(gap)), labels]

    return step


def _cuda_step(points: np.ndarray, weights: np.ndarray):  # type: ignore[no-untyped-def]
    import torch

    if not torch.cuda.is_available():
        raise NoSuchDevice("cuda")
    on = torch.as_tensor(points, dtype=torch.float64, device="cuda")
    weight = torch.as_tensor(weights, dtype=torch.float64, device="cuda")
    weighted = torch.column_stack((on * weight[:, None], weight))
    square = (on**2).sum(dim=1)

    def step(centres: np.ndarray):  # type: ignore[no-untyped-def]
        centre = torch.as_tensor(centres, device="cuda")
        gap = (centre**2).sum(dim=1) - 2 * (on @ centre.T)
        least, labels = gap.min(dim=1)
        one_hot = torch.nn.functional.one_hot(labels, len(centres)).to(torch.float64)
        sums = (one_hot.T @ weighted).cpu().numpy()
        return labels.cpu().numpy(), sums[:, :-1], sums[:, -1], (square + least).cpu().numpy()

    return step
