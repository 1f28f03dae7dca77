"""Objectives: how well shells separate cells whose scores are distributed differently.

    sse       sum_k sum_{v in k} n_v |F_v - mean_k|^2 / sum n
    energy    sum_k (1 / N_k) sum_{u, v in k} n_u n_v |F_u - F_v| / sum n
    paper     sum_k sum_{u, v in k} |F_u - F_v| / number of cells, unweighted (Brunekreef et al. 2023, eq. 9 and 10)

The paper's grows with the square of a shell's size, so it mostly seeks shells of equal area; it is there for
reproduction only. An objective turns cells, put into bins of distance, into costs of runs of bins.
"""

from __future__ import annotations

from typing import Literal, Protocol

import numpy as np

from segcal_cli.core.frozen import dataclass
from segcal_cli.kandinsky.features import Features
from segcal_cli.kandinsky.shells import Binned, pair_costs, sse_costs, sums_of

ObjectiveName = Literal["sse", "energy", "paper"]

SAMPLED_CELLS = 3000
"""Pairwise objectives take a seeded sample of this many cells where there are more."""


class Objective(Protocol):
    """Costs of runs of bins, for places of the cells that it stands on."""

    places: np.ndarray
    constant: float

    def costs(self, bins: Binned) -> np.ndarray: ...


@dataclass(frozen=True)
class SquaredError:
    """Sum of squares within shells. weighted: "cell feature + 1", n F and n, F centred; constant: sum n |F|^2 / sum
    n."""

    places: np.ndarray
    weighted: np.ndarray
    total: float
    constant: float

    def costs(self, bins: Binned) -> np.ndarray:
        return sse_costs(sums_of(bins, self.weighted)) / self.total


@dataclass(frozen=True)
class PairDistance:
    """Distances between all pairs within shells. pairs: float64 "cell cell", already weighted and divided."""

    places: np.ndarray
    pairs: np.ndarray
    mass: np.ndarray | None
    constant: float = 0.0

    def costs(self, bins: Binned) -> np.ndarray:
        by_bin = sums_of(bins, sums_of(bins, self.pairs).T)
        mass = None if self.mass is None else np.bincount(bins.bins, weights=self.mass, minlength=bins.n_bins)
        return pair_costs(by_bin, mass)


def squared_error(places: np.ndarray, given: Features) -> SquaredError:
    """Of the cells with weight. places: "cell axis"."""
    known = given.known
    values, weights = given.centred[known], given.weights[known]
    weighted = np.column_stack((values * weights[:, None], weights))
    total = float(weights.sum())
    return SquaredError(places[known], weighted, total, float((weights * (values**2).sum(axis=1)).sum()) / total)


def blocked(objective: SquaredError, n_blocks: int, spacing: np.ndarray) -> SquaredError:
    """The same objective on about n_blocks blocks of cells, for the coarse search."""
    if len(objective.places) <= n_blocks:
        return objective
    d = objective.places.shape[1]
    low, high = objective.places.min(axis=0), objective.places.max(axis=0)
    edge = max(float(spacing.min()), float(np.prod(high - low + spacing) / n_blocks) ** (1 / d))
    at = np.floor((objective.places - low) / edge).astype(np.int64)
    _, block = np.unique(np.ravel_multi_index(tuple(at.T), tuple(at.max(axis=0) + 1)), return_inverse=True)
    n = np.bincount(block)
    places = np.column_stack([np.bincount(block, weights=axis) / n for axis in objective.places.T])
    weighted = np.column_stack([np.bincount(block, weights=column) for column in objective.weighted.T])
    return SquaredError(places, weighted, objective.total, objective.constant)


def pair_distance(
    places: np.ndarray, given: Features, *, paper: bool, seed: int, most: int = SAMPLED_CELLS
) -> PairDistance:
    """Energy, or the paper's objective, on the cells with weight or a seeded sample of them."""
    known = np.flatnonzero(given.known)
    n_cells = known.size
    if n_cells > most:
        known = np.sort(np.random.default_rng(seed).choice(known, most, replace=False))
    gaps = distances(given.values[known])
    if paper:
        # A sample of m of n cells holds (m/n)^2 of the pairs.
        return PairDistance(places[known], gaps * (n_cells / known.size) ** 2 / n_cells, None)
    weights = given.weights[known]
    return PairDistance(places[known], gaps * (weights[:, None] * weights / weights.sum()), weights)


def distances(points: np.ndarray) -> np.ndarray:
    """float64 "point point": exact Euclidean distances (a matrix product would lose digits near 0)."""
    from scipy.spatial.distance import cdist

    return cdist(points, points)


def labels_cost(objective: SquaredError | PairDistance, labels: np.ndarray, k: int) -> float:
    """The objective of any partition of its cells into k clusters."""
    member = np.eye(k)[labels]
    if isinstance(objective, SquaredError):
        return objective.constant + float(np.diag(sse_costs(member.T @ objective.weighted), 1).sum()) / objective.total
    within = np.einsum("ck,ck->k", member, objective.pairs @ member)
    if objective.mass is not None:
        mass = member.T @ objective.mass
        within = within / np.where(mass > 0, mass, 1.0)
    return objective.constant + float(within.sum())
