"""Shells: the best cut of a line of bins into K runs, found exactly.

Annuli, ellipsoids and shells around a boundary are all of one kind: every cell has a number (a distance), and a cluster
is a run of that number. For given distances the cells are put into bins, and the best runs of bins follow from

    f_k(j) = min over i <= j of f_{k-1}(i) + cost(i, j)

in O(K B^2): no radius has to be searched. Empty runs are allowed, so K is an upper bound.
"""

from __future__ import annotations

import numpy as np

from segcal_cli.core.frozen import dataclass

TIE = 1e-9
"""Distances that differ by less than this many bins are equal: equal distances fall into one bin."""


@dataclass(frozen=True, slots=True)
class Binned:
    """Cells by distance. bins: int64 "cell"; width: of a bin, so that bin b holds b width < d <= (b + 1) width."""

    bins: np.ndarray
    width: float
    n_bins: int


def binned(distance: np.ndarray, n_bins: int, reach: float) -> Binned:
    """Right-closed bins of distances in [0, reach]; 0 falls into the first."""
    width = reach / n_bins if reach > 0 else 1.0
    bins = np.ceil(distance / width - TIE).astype(np.int64) - 1
    return Binned(np.clip(bins, 0, n_bins - 1, out=bins), width, n_bins)


def sums_of(bins: Binned, weighted: np.ndarray) -> np.ndarray:
    """float64 "bin column": sums over the cells of each bin. weighted: "cell column"."""
    from scipy.sparse import csr_matrix

    n = len(bins.bins)
    put = csr_matrix((np.ones(n), bins.bins, np.arange(n + 1)), shape=(n, bins.n_bins))
    return np.asarray(put.T @ weighted)


def sse_costs(sums: np.ndarray) -> np.ndarray:
    """float64 "i j": of the run of bins i..j-1, minus |sum of n F|^2 / sum of n; infinite where j < i.

    sums: "bin feature + 1", sums of n F (F with the overall mean taken off) and, last, of n. The sum over runs plus the
    constant sum of n |F|^2 is the sum of squares within the clusters.
    """
    prefix = np.zeros((len(sums) + 1, sums.shape[1]))
    np.cumsum(sums, axis=0, out=prefix[1:])
    flow, mass = prefix[:, :-1], prefix[:, -1]
    square = (flow**2).sum(axis=1)
    gain = square[None, :] + square[:, None] - 2 * (flow @ flow.T)
    weight = mass[None, :] - mass[:, None]
    costs = np.where(weight > 0, -gain / np.where(weight > 0, weight, 1.0), 0.0)
    costs[np.tril_indices(len(costs), -1)] = np.inf
    return costs


def pair_costs(pairs: np.ndarray, mass: np.ndarray | None) -> np.ndarray:
    """float64 "i j": of a run, the sum of pairwise distances within it, divided by its mass (energy) or not (paper).

    pairs: float64 "bin bin", summed distances between the cells of two bins.
    """
    prefix = np.zeros((len(pairs) + 1, len(pairs) + 1))
    prefix[1:, 1:] = pairs.cumsum(axis=0).cumsum(axis=1)
    corner = np.diag(prefix)
    costs = corner[None, :] + corner[:, None] - prefix - prefix.T
    if mass is not None:
        running = np.concatenate(([0.0], np.cumsum(mass)))
        weight = running[None, :] - running[:, None]
        costs = np.where(weight > 0, costs / np.where(weight > 0, weight, 1.0), 0.0)
    costs[np.tril_indices(len(costs), -1)] = np.inf
    return costs


def best_runs(costs: np.ndarray, k: int) -> tuple[float, tuple[int, ...]]:
    """The least total cost of at most k runs, and the k - 1 inner cuts (bins before each, ascending).

    Among equally good cuts the first one, so that the result does not depend on the machine.
    """
    best = costs[0].copy()
    choices = []
    for _ in range(k - 1):
        total = best[:, None] + costs
        choice = total.argmin(axis=0)
        best = total[choice, np.arange(len(choice))]
        choices.append(choice)
    end = len(costs) - 1
    cuts = []
    at = end
    for choice in reversed(choices):
        at = int(choice[at])
        cuts.append(at)
    return float(best[end]), tuple(reversed(cuts))


def least_cost(costs: np.ndarray, k: int) -> float:
    """The cost of best_runs alone."""
    best = costs[0]
    for _ in range(k - 1):
        best = (best[:, None] + costs).min(axis=0)
    return float(best[-1])
