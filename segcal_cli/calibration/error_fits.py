"""Fits to the soft average calibration error, of methods with few parameters.

Temperature, Platt and beta calibration are linear in their parameters, in log-odds. A softmax temperature is not, nor
do sums at nodes tell its error: it is found on a sample of voxels, mean over the classes.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from functools import partial

import numpy as np

from segcal_cli.calibration.average_error import ACE_LOSSES, SketchedError, each, least, least_along, soft_ace_of_voxels
from segcal_cli.calibration.linear import Voxels
from segcal_cli.calibration.method import NLL, SLOPE_LIMIT, Aim, Sketched
from segcal_cli.calibration.sketch import Moments
from segcal_cli.calibration.solvers import Tally
from segcal_cli.core.frozen import dataclass

LOOKS, LOOKS_NEAR = 61, 15
"""Places of log T that are looked at on a sample of voxels: over the whole range, and near a temperature."""

NEIGHBOURHOOD = 1.5
"""The temperature without a fold is sought within this factor of that of everybody."""


@dataclass(frozen=True, slots=True)
class Linear:
    """How a method's log-odds are linear in parameters.

    features: float64 "parameter ..." of log-odds of any shape. turned: a row of the method as such parameters, and the
    reverse. unchanged: parameters of the identity. lower, upper: bounds.
    """

    features: Callable[[np.ndarray], np.ndarray]
    turned: Callable[[np.ndarray], np.ndarray]
    unchanged: tuple[float, ...]
    lower: tuple[float, ...]
    upper: tuple[float, ...]

    def error(self, moments: Moments) -> SketchedError:
        """Of the only problem of moments."""
        return SketchedError(moments, self.features(moments.c[0]), self.features(moments.label_mean[0]))


def fitted_to_error(record: Sketched, linear: Linear) -> Sketched:
    """The method, which can also be fitted to the losses with the soft error."""
    return replace(
        record,
        losses=(*record.losses, *ACE_LOSSES),
        solve=partial(_solve, record, linear),
        loss=partial(_loss, record, linear),
        gradient=partial(_gradient, record, linear),
    )


def _solve(record: Sketched, linear: Linear, moments: Moments, aim: Aim, near: np.ndarray | None = None) -> np.ndarray:
    if aim.loss not in ACE_LOSSES:
        return record.solve(moments, aim, near)
    unchanged = np.array(linear.unchanged)
    rows = []
    for one, likeliest in zip(each(moments), record.solve(moments, NLL), strict=True):
        objective = _objective(record, linear, one, aim)
        slope = least_along(lambda s, of=objective: of(s * unchanged), 1.0 / SLOPE_LIMIT, SLOPE_LIMIT, aim.tally)  # type: ignore[misc]
        best = slope * unchanged
        if len(unchanged) > 1:
            starts = (linear.turned(likeliest), best)
            best = least(objective, starts, np.array(linear.lower), np.array(linear.upper), aim.tally)
        rows.append(linear.turned(best))
    return np.array(rows)


def _objective(record: Sketched, linear: Linear, moments: Moments, aim: Aim) -> Callable[[np.ndarray], float]:
    error = linear.error(moments)
    if aim.loss == "soft-ace":
        return error

    def both(theta: np.ndarray) -> float:
        likelihood = record.loss(moments, linear.turned(theta)[np.newaxis], NLL)[0]
        return float(likelihood) + aim.ace_weight * error(theta)

    return both


def _loss(record: Sketched, linear: Linear, moments: Moments, rows: np.ndarray, aim: Aim) -> np.ndarray:
    if aim.loss not in ACE_LOSSES:
        return record.loss(moments, rows, aim)
    losses = [
        _objective(record, linear, one, aim)(linear.turned(row)) for one, row in zip(each(moments), rows, strict=True)
    ]
    return np.array(losses)


def _gradient(record: Sketched, linear: Linear, moments: Moments, rows: np.ndarray, aim: Aim) -> np.ndarray:
    if aim.loss not in ACE_LOSSES:
        return record.gradient(moments, rows, aim)
    slopes = np.array(
        [linear.error(one).gradient(linear.turned(row)) for one, row in zip(each(moments), rows, strict=True)]
    )
    if aim.loss == "soft-ace":
        return slopes
    return record.gradient(moments, rows, NLL) + aim.ace_weight * slopes


class SampledError:
    """The soft error of a softmax at a temperature, on a sample of voxels, mean over the classes."""

    def __init__(self, sample: Voxels, voxels: float) -> None:
        self.logs = sample.x[0].astype(np.float64)
        self.truth, self.weights, self.voxels = sample.truth, sample.weights, voxels

    def __call__(self, temperature: float) -> float:
        power = np.exp((self.logs - self.logs.max(axis=0)) / temperature)
        power /= power.sum(axis=0)
        pairs = zip(power, self.truth, strict=True)
        return float(np.mean([soft_ace_of_voxels(p, y, self.weights, self.voxels) for p, y in pairs]))

    def least(self, loss: Callable[[float], float], near: float | None, tally: Tally) -> float:
        """The temperature of least loss, which holds this error; near: that of most of these voxels, if it is known.
        Every look costs a pass over the sample, so there are fewer than on sketches."""
        if near is None:
            return least_along(loss, 1.0 / SLOPE_LIMIT, SLOPE_LIMIT, tally, scanned=LOOKS)
        ends = max(near / NEIGHBOURHOOD, 1.0 / SLOPE_LIMIT), min(near * NEIGHBOURHOOD, SLOPE_LIMIT)
        return least_along(loss, *ends, tally, scanned=LOOKS_NEAR)
