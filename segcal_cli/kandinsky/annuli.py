"""Annuli: concentric shells about one centre, circles or ellipses, spheres or ellipsoids.

The paper searches centre and radii together by differential evolution (Brunekreef et al. 2023, section 3.1.2). For
given centre and axes the best radii are found exactly by dynamic programming, so only centre and axes are searched:
coarsely by differential evolution on blocks of cells, then by Nelder-Mead on all of them.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from segcal_cli.core.frozen import dataclass
from segcal_cli.kandinsky.ellipsoids import Ellipsoid, Family
from segcal_cli.kandinsky.features import Features
from segcal_cli.kandinsky.objectives import (
    ObjectiveName,
    PairDistance,
    SquaredError,
    blocked,
    labels_cost,
    pair_distance,
    squared_error,
)
from segcal_cli.kandinsky.shells import best_runs, binned, least_cost

COARSE_CELLS, COARSE_PAIRS = 5000, 600
"""Cells of the coarse search: blocks for sums of squares, a sample for pairs."""

COARSE_BINS, SEARCH_BINS, FINAL_BINS = 64, 384, 1024
"""Bins of distance: few while differential evolution looks for the valley, many for the radii that are kept."""

REACH = 1.25
"""Distances up to this times the farthest cell's from the middle are told apart. A fixed width, whatever the centre,
keeps objectives of different centres comparable."""

AT_BOUND = 0.01
"""An optimum closer to a search bound than this share of the range is said to lie at it."""

POPULATION, GENERATIONS = 8, 40
"""Of the coarse search. A fixed number of generations: the usual stop, spread relative to the mean, ends it at once."""


@dataclass(frozen=True, slots=True)
class ShellFit:
    """Nested shells about an ellipsoid. radii: outer radius of all but the last; labels: int64 "cell", of every cell.

    objective, objective_one_cluster: with these shells, and with one. at_bound: the search stopped at a bound.
    """

    ellipsoid: Ellipsoid
    radii: tuple[float, ...]
    labels: np.ndarray
    objective: float
    objective_one_cluster: float
    at_bound: bool

    @property
    def k(self) -> int:
        return len(self.radii) + 1


@dataclass(frozen=True, slots=True)
class Field:
    """Where the cells are. shape: cells per axis (2 or 3 axes); spacing: mm between their centres, per axis."""

    shape: tuple[int, ...]
    spacing: tuple[float, ...]

    @property
    def dimension(self) -> int:
        return len(self.shape)

    @property
    def places(self) -> np.ndarray:
        """float64 "cell axis", mm from the centre of the first cell."""
        axes = [np.arange(n) * d for n, d in zip(self.shape, self.spacing, strict=True)]
        return np.stack([axis.ravel() for axis in np.meshgrid(*axes, indexing="ij")], axis=1)

    @property
    def middle(self) -> tuple[float, ...]:
        return tuple((n - 1) / 2 * d for n, d in zip(self.shape, self.spacing, strict=True))

    @property
    def sides(self) -> tuple[float, ...]:
        return tuple(n * d for n, d in zip(self.shape, self.spacing, strict=True))


def fit_annuli(
    given: Features, field: Field, family: Family, k: int, objective: ObjectiveName = "sse", seed: int = 0
) -> ShellFit:
    """The best at most k shells. given: features of the cells of ``field``, C order."""
    places = field.places
    fine, coarse = _objectives(places, given, objective, np.array(field.spacing), seed)
    bounds = family.bounds(field.middle, field.sides)
    reach = _reach(family.ellipsoid(np.array([np.mean(bound) for bound in bounds])), fine.places)

    def cost(parameters: np.ndarray, on: SquaredError | PairDistance, n_bins: int) -> float:
        distance = family.ellipsoid(parameters).distance(on.places)
        return on.constant + least_cost(on.costs(binned(distance, n_bins, reach)), k)

    start = _evolved(lambda x: cost(x, coarse, COARSE_BINS), bounds, seed)
    best = _polished(lambda x: cost(x, fine, SEARCH_BINS), start, bounds, np.array(field.spacing))
    ellipsoid = family.ellipsoid(best)
    bins = binned(ellipsoid.distance(fine.places), FINAL_BINS, reach)
    value, cuts = best_runs(fine.costs(bins), k)
    radii = tuple(cut * bins.width for cut in dict.fromkeys(cuts) if 0 < cut < FINAL_BINS)
    at_bound = any(
        min(x - low, high - x) < AT_BOUND * (high - low) for x, (low, high) in zip(best, bounds, strict=True)
    )
    one = fine.constant + float(fine.costs(binned(np.zeros(len(fine.places)), 1, 1.0))[0, 1])
    return shells_about(ellipsoid, radii, places, given.known, fine.constant + value, one, at_bound)


def fit_annuli_by_evolution(
    given: Features, field: Field, family: Family, k: int, objective: ObjectiveName = "paper", seed: int = 0
) -> ShellFit:
    """Centre, axes and radii together by differential evolution, as in the paper's appendix B, with a seed and with
    shells that are closed outside."""
    from segcal_cli.kandinsky.evolution import evolve

    places = field.places
    fine, _ = _objectives(places, given, objective, np.array(field.spacing), seed)
    bounds = family.bounds(field.middle, field.sides)
    farthest = _reach(family.ellipsoid(np.array([np.mean(bound) for bound in bounds])), fine.places) / REACH
    shape = len(bounds)

    def cost(parameters: np.ndarray) -> float:
        distance = family.ellipsoid(parameters[:shape]).distance(fine.places)
        return labels_cost(fine, np.searchsorted(parameters[shape:], distance), k)

    best, value = evolve(cost, [*bounds, *[(0.0, farthest)] * (k - 1)], range(shape, shape + k - 1), seed)
    radii = tuple(float(radius) for radius in dict.fromkeys(best[shape:]) if radius > 0)
    at_bound = any(
        min(x - low, high - x) < AT_BOUND * (high - low) for x, (low, high) in zip(best, bounds, strict=False)
    )
    one = labels_cost(fine, np.zeros(len(fine.places), np.int64), 1)
    return shells_about(family.ellipsoid(best[:shape]), radii, places, given.known, value, one, at_bound)


def shells_about(
    ellipsoid: Ellipsoid,
    radii: Sequence[float],
    places: np.ndarray,
    known: np.ndarray,
    objective: float,
    one: float,
    at_bound: bool,
) -> ShellFit:
    """Shells as labels of cells; those without any cell that is known are dropped."""
    labels = shell_labels(ellipsoid.distance(places), radii)
    used = np.unique(labels[known])
    kept = tuple(float(radii[shell]) for shell in used[:-1])
    labels = shell_labels(ellipsoid.distance(places), kept)
    return ShellFit(ellipsoid, kept, labels, objective, one, at_bound)


def shell_labels(distance: np.ndarray, radii: Sequence[float]) -> np.ndarray:
    """int64: the shell i with r_{i-1} < d <= r_i; 0 is the core. Equal up to rounding counts as equal."""
    edges = np.asarray(radii, np.float64)
    return np.searchsorted(edges * (1 + 1e-12) + 1e-12, distance)


def _objectives(
    places: np.ndarray, given: Features, name: ObjectiveName, spacing: np.ndarray, seed: int
) -> tuple[SquaredError | PairDistance, SquaredError | PairDistance]:
    """For the last digits, and for the coarse search."""
    if name == "sse":
        fine = squared_error(places, given)
        return fine, blocked(fine, COARSE_CELLS, spacing)
    pairs = pair_distance(places, given, paper=name == "paper", seed=seed)
    return pairs, pair_distance(places, given, paper=name == "paper", seed=seed, most=COARSE_PAIRS)


def _reach(ellipsoid: Ellipsoid, places: np.ndarray) -> float:
    return REACH * max(float(ellipsoid.distance(places).max()), 1e-6)


def _evolved(cost, bounds, seed):  # type: ignore[no-untyped-def]
    from scipy.optimize import differential_evolution

    found = differential_evolution(
        cost, bounds, popsize=POPULATION, maxiter=GENERATIONS, tol=0, atol=0, polish=False, rng=seed, init="sobol"
    )
    return found.x


def _polished(cost, start, bounds, spacing):  # type: ignore[no-untyped-def]
    from scipy.optimize import minimize

    d = len(spacing)
    steps = np.array([*(1.5 * spacing), *[0.05] * (len(start) - d)])
    simplex = np.vstack([start, *(start + step * row for step, row in zip(steps, np.eye(len(start)), strict=True))])
    low, high = np.array(bounds).T
    found = minimize(
        cost,
        start,
        method="Nelder-Mead",
        bounds=bounds,
        options={"initial_simplex": np.clip(simplex, low, high), "xatol": 1e-3, "fatol": 1e-9, "maxiter": 400},
    )
    return found.x
