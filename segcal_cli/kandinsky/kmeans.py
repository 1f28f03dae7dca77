"""k-means: cells whose scores are distributed alike, wherever they lie (Brunekreef et al. 2023, section 3.1.1).

Lloyd's algorithm from k-means++ seeds, weighted by the square root of the voxels behind each cell. Cells with too few
voxels take the cluster of the nearest cell that has enough, in mm.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, Protocol

import numpy as np

from segcal_cli.core.frozen import dataclass

STARTS = 10
MAX_ROUNDS = 300


@dataclass(frozen=True, slots=True)
class Clustering:
    """labels: int64 "point", numbered by the mean of their centre; inertia: weighted sum of squares."""

    labels: np.ndarray
    centres: np.ndarray
    inertia: float


class Steps(Protocol):
    """The work of a round on some device, for fixed points and weights. Labels stay there, as it likes them."""

    def assign(self, centres: np.ndarray) -> tuple[Any, np.ndarray, np.ndarray]:
        """(labels of the nearest centres, weighted sums per cluster, weights per cluster)."""

    def sums(self, labels: Any, k: int) -> tuple[np.ndarray, np.ndarray]:
        """(weighted sums, weights) per cluster."""

    def same(self, labels: Any, others: Any) -> bool: ...

    def host(self, labels: Any) -> np.ndarray: ...

    def native(self, labels: np.ndarray) -> Any: ...


def kmeans(
    points: np.ndarray,
    weights: np.ndarray,
    k: int,
    seed: int,
    steps_of: Callable[[np.ndarray, np.ndarray], Steps] | None = None,
) -> Clustering:
    """The best of 10 starts. points: float64 "point feature"; k is reduced where there are fewer different points.

    steps_of: what makes the rounds, if not numpy. Seeds are always drawn on the CPU, so that every device finds the
    same labels but for ties.
    """
    mean = weights @ points / weights.sum()
    centred = points - mean
    k = min(k, _different(centred, k))
    rng = np.random.default_rng(seed)
    steps = (HostSteps if steps_of is None else steps_of)(centred, weights)
    best: tuple[float, np.ndarray, np.ndarray] | None = None
    for _ in range(STARTS):
        centres = _seeds(centred, weights, k, rng)
        found = _lloyd(centred, weights, centres, steps)
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


def _lloyd(
    points: np.ndarray, weights: np.ndarray, centres: np.ndarray, steps: Steps
) -> tuple[float, np.ndarray, np.ndarray]:
    labels: Any = None
    for _ in range(MAX_ROUNDS):
        new, sums, mass = steps.assign(centres)
        if labels is not None and steps.same(new, labels):
            break
        labels = new
        if (mass == 0).any():
            labels = steps.native(_filled(points, weights, centres, steps.host(labels), mass))
            sums, mass = steps.sums(labels, len(centres))
        centres = sums / mass[:, None]
    assert labels is not None, "there is at least one round"
    own = steps.host(labels)
    inertia = float((weights * ((points - centres[own]) ** 2).sum(axis=1)).sum())
    return inertia, own, centres


def _filled(
    points: np.ndarray, weights: np.ndarray, centres: np.ndarray, labels: np.ndarray, mass: np.ndarray
) -> np.ndarray:
    """Labels in which each empty cluster has taken the point that is farthest from its own centre."""
    distance = ((points - centres[labels]) ** 2).sum(axis=1) * (weights > 0)
    for empty in np.flatnonzero(mass == 0):
        far = int(np.argmax(distance))
        labels[far], distance[far] = empty, 0.0
    return labels


class HostSteps:
    """One round of Lloyd's algorithm in numpy."""

    def __init__(self, points: np.ndarray, weights: np.ndarray) -> None:
        self.points = points
        self.weighted = np.column_stack((points * weights[:, None], weights))

    def assign(self, centres: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        labels = ((centres**2).sum(axis=1) - 2 * (self.points @ centres.T)).argmin(axis=1)
        return labels, *self.sums(labels, len(centres))

    def sums(self, labels: np.ndarray, k: int) -> tuple[np.ndarray, np.ndarray]:
        sums = np.stack([self.weighted[labels == cluster].sum(axis=0) for cluster in range(k)])
        return sums[:, :-1], sums[:, -1]

    def same(self, labels: np.ndarray, others: np.ndarray) -> bool:
        return bool((labels == others).all())

    def host(self, labels: np.ndarray) -> np.ndarray:
        return labels

    def native(self, labels: np.ndarray) -> np.ndarray:
        return labels
