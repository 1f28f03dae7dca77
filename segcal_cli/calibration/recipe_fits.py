"""Fits by published recipes: the rows of everybody and of all but each fold, from what each case kept."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import partial

import numpy as np

from segcal_cli.calibration import recipes
from segcal_cli.calibration.likelihood import LOSSES
from segcal_cli.calibration.linear import Shape
from segcal_cli.calibration.nodes import LOG_LIMIT, Curves, slope_at
from segcal_cli.calibration.patients import Patients, curves_of
from segcal_cli.calibration.sketch import Moments, moments_of
from segcal_cli.calibration.spec import FitSpec

Slope = Callable[[float], tuple[float, float]]


def convolved_weights(
    patients: Patients, spec: FitSpec, chosen: Sequence[np.ndarray], *, exclusive: bool
) -> tuple[list[np.ndarray], int]:
    """float64 weights "problem tap+1" of each set of groups, and the steps of all runs."""
    found, steps = [], 0
    kernel = 1 if spec.method == "platt" else spec.kernel
    for groups in chosen:
        cases = [case.slices for case, group in zip(patients.cases, patients.member, strict=True) if groups[group]]
        kept = [one for one in cases if one is not None]
        weights, taken = recipes.convolution(kept, kernel, spec.recipe, spec.seed, exclusive=exclusive, pad=spec.pad)
        found.append(weights)
        steps += taken
    return found, steps


def tuned_weights(
    patients: Patients, spec: FitSpec, chosen: Sequence[np.ndarray], shapes: Sequence[Shape], *, exclusive: bool
) -> tuple[list[np.ndarray], int]:
    """float64 weights "problem feature+1" of each set of groups, and the steps of all runs."""
    found, steps = [], 0
    for groups, shape in zip(chosen, shapes, strict=True):
        cases = [case.whole for case, group in zip(patients.cases, patients.member, strict=True) if groups[group]]
        kept = [one for one in cases if one is not None]
        weights, taken = recipes.layer(kept, shape, spec.recipe, spec.seed, exclusive=exclusive)
        found.append(weights)
        steps += taken
    return found, steps


def sketched_temperatures(
    patients: Patients, problem: int, spec: FitSpec, chosen: Sequence[np.ndarray]
) -> tuple[np.ndarray, int]:
    """float64 "set 1", and the steps of all runs."""
    slopes = [partial(_sketch_slope, moments_of(case.sketches[problem].dense()[np.newaxis])) for case in patients.cases]
    return _temperatures(slopes, patients, spec, chosen)


def node_temperatures(patients: Patients, spec: FitSpec, chosen: Sequence[np.ndarray]) -> tuple[np.ndarray, int]:
    """float64 "set 1", and the steps of all runs."""
    slopes: list[Slope] = []
    for case in patients.cases:
        assert case.nodes is not None, "the nodes family keeps node sums"
        row = np.concatenate([case.nodes.d, [case.nodes.label_gap, float(case.nodes.voxels)]])
        slopes.append(partial(_node_slope, curves_of(row[np.newaxis])))
    return _temperatures(slopes, patients, spec, chosen)


def _temperatures(
    slopes: Sequence[Slope], patients: Patients, spec: FitSpec, chosen: Sequence[np.ndarray]
) -> tuple[np.ndarray, int]:
    rows, steps = np.empty((len(chosen), 1)), 0
    for i, groups in enumerate(chosen):
        own = [slope for slope, group in zip(slopes, patients.member, strict=True) if groups[group]]
        rows[i, 0], taken = recipes.temperature(own, spec.recipe, spec.seed)
        steps += taken
    return rows, steps


def _sketch_slope(moments: Moments, t: float) -> tuple[float, float]:
    along = LOSSES["nll"](moments, np.array([[1.0 / t, 0.0]])).gradient[0, 0]
    voxels = float(moments.total[0])
    return -float(along) * voxels / t**2, voxels


def _node_slope(curves: Curves, t: float) -> tuple[float, float]:
    coefficients, linear = curves.slopes("nll")
    along = slope_at(-np.log(t) / LOG_LIMIT, coefficients[0], linear[0]) * t / LOG_LIMIT
    voxels = float(curves.total[0])
    return -along * voxels / t**2, voxels
