"""Differential evolution over centre and radii together: how the paper searches, kept for reproduction.

A mutant is a + 0.8 (b - c) of three individuals that are not the target; each of its numbers is taken with
probability 0.7, and at least one. Radii are sorted and clipped to their bounds. Brunekreef et al. 2023, appendix B; the
acceptance is that of the authors' code, since the text has it the other way round.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np

MUTATION, CROSSOVER = 0.8, 0.7
PER_PARAMETER = 10
"""Individuals per parameter."""

GENERATIONS = 150


def evolve(
    cost: Callable[[np.ndarray], float],
    bounds: Sequence[tuple[float, float]],
    ordered: range,
    seed: int,
) -> tuple[np.ndarray, float]:
    """The best individual and its cost. ordered: indices of parameters that ascend (the radii)."""
    rng = np.random.default_rng(seed)
    low, high = np.array(bounds).T
    d, size = len(bounds), PER_PARAMETER * len(bounds)

    def repaired(x: np.ndarray) -> np.ndarray:
        x = np.clip(x, low, high)
        x[ordered.start : ordered.stop] = np.sort(x[ordered.start : ordered.stop])
        return x

    population = np.stack([repaired(low + (high - low) * rng.random(d)) for _ in range(size)])
    costs = np.array([cost(x) for x in population])
    for _ in range(GENERATIONS):
        for target in range(size):
            others = rng.choice(size - 1, 3, replace=False)
            a, b, c = population[others + (others >= target)]
            take = rng.random(d) < CROSSOVER
            take[rng.integers(d)] = True
            trial = repaired(np.where(take, a + MUTATION * (b - c), population[target]))
            value = cost(trial)
            if value <= costs[target]:
                population[target], costs[target] = trial, value
    best = int(costs.argmin())
    return population[best], float(costs[best])
