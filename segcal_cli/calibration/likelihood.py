"""Losses of u = a z + b on sketches: the negative log-likelihood and the Brier score, with gradient and curvature.

With c and v the mean and variance of z in a bin, s the sigmoid and u = a c + b,

    nll(a, b) = [sum n (softplus(u) + a^2 v s(u)(1 - s(u)) / 2) - a sum yz - b sum y] / sum n

The label term is exact and the second-order term takes the width of the bins out, so that the optimum is that of all
voxels to nine digits. The Brier score is taken at the bin means, of all voxels and of those of the class.
"""

from __future__ import annotations

import numpy as np

from segcal_cli.calibration.sketch import Moments
from segcal_cli.calibration.solvers import Evaluation


def sigmoid(u: np.ndarray) -> np.ndarray:
    """float64 1 / (1 + exp(-u)), without overflow."""
    small = np.exp(-np.abs(u))
    return np.where(u >= 0.0, 1.0, small) / (1.0 + small)


def softplus(u: np.ndarray) -> np.ndarray:
    """float64 log(1 + exp(u)), without overflow."""
    return np.maximum(u, 0.0) + np.log1p(np.exp(-np.abs(u)))


def nll(moments: Moments, theta: np.ndarray) -> Evaluation:
    """Mean negative log-likelihood, nats per voxel. theta: float64 "problem 2", rows (a, b).

    The curvature leaves out the small derivatives of the second-order term: it stays positive where the exact one would
    not, and the optimum is where the gradient, which is exact, vanishes.
    """
    a, b = theta[:, :1], theta[:, 1:]
    n, c, v = moments.n, moments.c, moments.v
    u = a * c + b
    tail = np.exp(-np.abs(u))
    s = np.where(u >= 0.0, 1.0, tail) / (1.0 + tail)
    s1 = tail / (1.0 + tail) ** 2
    s2 = s1 * (1.0 - 2.0 * s)
    half = 0.5 * a * a * v
    value = (n * (np.maximum(u, 0.0) + np.log1p(tail) + half * s1)).sum(axis=1)
    value -= theta[:, 0] * moments.sum_yz + theta[:, 1] * moments.sum_y
    along_u = n * (s + half * s2)
    gradient = np.stack(
        [
            (along_u * c + n * a * v * s1).sum(axis=1) - moments.sum_yz,
            along_u.sum(axis=1) - moments.sum_y,
        ],
        axis=1,
    )
    return _per_voxel(moments, value, gradient, n * s1, c, v)


def brier(moments: Moments, theta: np.ndarray) -> Evaluation:
    """Mean squared difference of p and y. theta: float64 "problem 2", rows (a, b). Gauss-Newton curvature."""
    a, b = theta[:, :1], theta[:, 1:]
    p = sigmoid(a * moments.c + b)
    q = sigmoid(a * moments.label_mean + b)
    value = (moments.n * p * p - 2.0 * moments.positives * q + moments.positives).sum(axis=1)
    all_voxels = 2.0 * moments.n * p * p * (1.0 - p)
    of_class = 2.0 * moments.positives * q * (1.0 - q)
    gradient = np.stack(
        [
            (all_voxels * moments.c - of_class * moments.label_mean).sum(axis=1),
            (all_voxels - of_class).sum(axis=1),
        ],
        axis=1,
    )
    weight = 2.0 * moments.n * (p * (1.0 - p)) ** 2
    return _per_voxel(moments, value, gradient, weight, moments.c, moments.v)


LOSSES = {"nll": nll, "brier": brier}
"""Losses that a sketch can be fitted to."""


def _per_voxel(
    moments: Moments, value: np.ndarray, gradient: np.ndarray, weight: np.ndarray, c: np.ndarray, v: np.ndarray
) -> Evaluation:
    cross = (weight * c).sum(axis=1)
    square = (weight * (c * c + v)).sum(axis=1)
    curvature = np.stack([square, cross, cross, weight.sum(axis=1)], axis=1).reshape(-1, 2, 2)
    total = moments.total
    return Evaluation(value / total, gradient / total[:, np.newaxis], curvature / total[:, np.newaxis, np.newaxis])
