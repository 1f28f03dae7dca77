"""Damped Newton steps on several small smooth problems at once.

Calibrators have a handful of parameters, and a bootstrap solves the same problem a thousand times with other weights.
So the solver works on a stack of problems: one call of the objective gives values, gradients and curvatures of all.
Every step is checked against the objective and halved until it descends, because undamped steps overshoot to the flat
side on saturated logits and diverge.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

import numpy as np

from segcal_cli.core.frozen import dataclass

GRADIENT_TOLERANCE = 1e-11
"""Steps end when every gradient, per voxel, is below this; rounding of their sums is a tenth of it."""

SMALL_GRADIENT = 1e-8
"""Largest gradient of the mean loss at which a fit by exact passes over all voxels has arrived."""

MOST_STEPS = 200
"""A convex problem takes 5 to 15; this only ends one that rounding keeps from settling."""

VALUE_ROUNDING = 1e-13
"""Differences of the objective below this, relatively, are rounding."""

SMALLEST_STEP = 1e-13
"""A step below this, relatively, no longer changes the parameters; halving ends there."""

RIDGE = 1e-12
"""Added to the curvature, relative to its trace, so that a flat direction gives a long step and not a division by
zero."""


@dataclass(slots=True)
class Tally:
    """How many steps solvers took, for reports."""

    steps: int = 0


class Evaluation(NamedTuple):
    """Of each problem: value "problem", gradient "problem parameter", curvature "problem parameter parameter" (>=
    0)."""

    value: np.ndarray
    gradient: np.ndarray
    curvature: np.ndarray


Objective = Callable[[np.ndarray], Evaluation]
"""Of parameters float64 "problem parameter"."""


def newton(
    objective: Objective, start: np.ndarray, lower: np.ndarray, upper: np.ndarray, tally: Tally | None = None
) -> np.ndarray:
    """float64 "problem parameter": the minimum within the bounds, from start. tally: counts the steps.

    lower, upper: float64 "parameter", infinite where free. A parameter at its bound whose gradient points outward is
    held there; with lower = upper a parameter is fixed.
    """
    theta = np.clip(start, lower, upper)
    now = objective(theta)
    settled = np.zeros(len(theta), dtype=bool)
    for _ in range(MOST_STEPS):
        held = _held(theta, now.gradient, lower, upper)
        slope = np.where(held, 0.0, now.gradient)
        settled |= np.abs(slope).max(axis=1) <= GRADIENT_TOLERANCE
        if settled.all():
            break
        if tally is not None:
            tally.steps += 1
        step = np.where(settled[:, np.newaxis], 0.0, _newton_step(slope, now.curvature, held))
        theta, now, descended = _descend(objective, theta, now, step, lower, upper)
        settled |= ~descended
    return theta


def _held(theta: np.ndarray, gradient: np.ndarray, lower: np.ndarray, upper: np.ndarray) -> np.ndarray:
    """bool "problem parameter": at a bound, with the descent pointing beyond it."""
    return ((theta <= lower) & (gradient >= 0.0)) | ((theta >= upper) & (gradient <= 0.0))


def _newton_step(slope: np.ndarray, curvature: np.ndarray, held: np.ndarray) -> np.ndarray:
    size = slope.shape[1]
    free = ~held[:, :, np.newaxis] & ~held[:, np.newaxis, :]
    matrix = np.where(free, curvature, 0.0)
    trace = np.trace(matrix, axis1=1, axis2=2)
    ridge = np.maximum(RIDGE * trace, np.finfo(np.float64).tiny * 1e20)
    matrix = matrix + np.eye(size) * np.where(held, 1.0, ridge[:, np.newaxis])[:, np.newaxis, :]
    return -np.linalg.solve(matrix, slope[:, :, np.newaxis])[:, :, 0]


def _descend(
    objective: Objective, theta: np.ndarray, now: Evaluation, step: np.ndarray, lower: np.ndarray, upper: np.ndarray
) -> tuple[np.ndarray, Evaluation, np.ndarray]:
    """The step, halved in each problem until the objective does not rise, and whether it found such a step."""
    length = np.ones((len(theta), 1))
    # At the optimum the value no longer resolves a descent, but the gradient still does: it decides there.
    rounding = VALUE_ROUNDING * np.abs(now.value)

    def steepness(at: np.ndarray, gradient: np.ndarray) -> np.ndarray:
        # The slope along a held parameter does not vanish at the optimum, and would hide that the others do.
        return np.abs(np.where(_held(at, gradient, lower, upper), 0.0, gradient)).max(axis=1)

    steepest = steepness(theta, now.gradient)
    while True:
        candidate = np.clip(theta + length * step, lower, upper)
        then = objective(candidate)
        flat = np.abs(then.value - now.value) <= rounding
        descended = (then.value < now.value - rounding) | (flat & (steepness(candidate, then.gradient) < steepest))
        still = np.abs(candidate - theta).max(axis=1) <= SMALLEST_STEP * np.abs(theta).max(axis=1)
        if (descended | still).all():
            break
        length[~descended] *= 0.5
    if descended.all():
        return candidate, then, descended
    theta = np.where(descended[:, np.newaxis], candidate, theta)
    return theta, objective(theta), descended
