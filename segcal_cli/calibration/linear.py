"""Linear calibrators: what goes into the softmax, or a sigmoid, is a linear function of features of the voxel.

    u_c = sum_j W_cj x_cj + W_c,last          p = softmax(u), or p_c = sigmoid(u_c)

Vector, matrix and Dirichlet scaling, the auxiliary convolution and fine-tuning of a last layer differ in their
features, and in which entries of W are free. The negative log-likelihood is convex in W, so a damped Newton method
finds the one optimum; its sums over voxels stand here, for samples of voxels and for whole cases alike.
"""

from __future__ import annotations

import math

import numpy as np

from segcal_cli.calibration.likelihood import softplus
from segcal_cli.calibration.solvers import Evaluation, Tally, newton
from segcal_cli.core.frozen import dataclass

BLOCK_NUMBERS = 1 << 18
"""Features times voxels worked on at a time: float64 arrays of this length stay in a core's cache."""


@dataclass(frozen=True, slots=True)
class Voxels:
    """Voxels with their features. x: float "set feature voxel", one set for all classes, or one for each.

    truth: bool "class voxel". weights: float64 "voxel".
    """

    x: np.ndarray
    truth: np.ndarray
    weights: np.ndarray

    @property
    def count(self) -> int:
        return self.x.shape[2]


@dataclass(frozen=True, slots=True)
class Sums:
    """Weighted sums over voxels: value: the negative log-likelihood; gradient: "class feature"; curvature: "class
    feature class feature", or None; weight."""

    value: float
    gradient: np.ndarray
    curvature: np.ndarray | None
    weight: float


def inputs(weights: np.ndarray, x: np.ndarray) -> np.ndarray:
    """float64 u "class voxel". weights: float64 W "class feature", the constant last; x: "set feature voxel"."""
    slopes, offsets = weights[:, :-1], weights[:, -1:]
    if len(x) == 1:
        return slopes @ x[0].astype(np.float64, copy=False) + offsets
    return np.stack([slopes[c] @ x[c].astype(np.float64, copy=False) for c in range(len(x))]) + offsets


def sums_of(weights: np.ndarray, voxels: Voxels, *, exclusive: bool, curvature: bool) -> Sums:
    """Sums at W "class feature". exclusive: softmax; else each class is a problem of its own."""
    classes, features = weights.shape
    gradient = np.zeros(weights.shape)
    bend = np.zeros((classes, features, classes, features)) if curvature else None
    value = 0.0
    step = max(1, BLOCK_NUMBERS // max(features * len(voxels.x), classes))
    for start in range(0, voxels.count, step):
        at = slice(start, start + step)
        x = voxels.x[:, :, at].astype(np.float64, copy=False)
        y, w = voxels.truth[:, at], voxels.weights[at]
        u = inputs(weights, x)
        if exclusive:
            u -= u.max(axis=0)
            p = np.exp(u)
            total = p.sum(axis=0)
            p /= total
            value += float((w * (np.log(total) - u[y.argmax(axis=0), np.arange(u.shape[1])])).sum())
        else:
            value += float((w * (softplus(u) - y * u)).sum())
            p = np.exp(np.minimum(u, 0.0) - np.log1p(np.exp(-np.abs(u))))
        left = w * (p - y)
        for c in range(classes):
            gradient[c, :-1] += x[c % len(x)] @ left[c]
        gradient[:, -1] += left.sum(axis=1)
        if bend is not None:
            _add_curvature(bend, x, w, p, exclusive=exclusive)
    if bend is not None:
        for c in range(classes):
            for d in range(c):
                bend[d, :, c, :] = bend[c, :, d, :].T
    return Sums(value, gradient, bend, float(voxels.weights.sum()))


def added(parts: list[Sums]) -> Sums:
    """The sum of parts without curvature, in their order."""
    return Sums(
        math.fsum(part.value for part in parts),
        np.sum([part.gradient for part in parts], axis=0),
        None,
        math.fsum(part.weight for part in parts),
    )


def _add_curvature(bend: np.ndarray, x: np.ndarray, w: np.ndarray, p: np.ndarray, *, exclusive: bool) -> None:
    """Second derivatives, the pairs with c >= d."""
    whole = [np.concatenate([part, np.ones((1, part.shape[1]))]) for part in x]
    for c in range(len(p)):
        for d in range(c + 1) if exclusive else (c,):
            factor = w * p[c] * ((1.0 - p[c]) if c == d else -p[d])
            bend[c, :, d, :] += (whole[c % len(x)] * factor) @ whole[d % len(x)].T


@dataclass(frozen=True, slots=True)
class Shape:
    """Which W are allowed, and what they cost.

    start: the W that changes nothing, "class feature". free: bool, entries that are fitted; the others stay as in
    start. ridge: float64 "class feature", added to the mean loss is sum ridge (W - centre)^2.
    """

    start: np.ndarray
    free: np.ndarray
    ridge: np.ndarray
    centre: np.ndarray

    def penalty(self, weights: np.ndarray) -> float:
        return float((self.ridge * (weights - self.centre) ** 2).sum())

    def penalty_gradient(self, weights: np.ndarray) -> np.ndarray:
        return 2.0 * self.ridge * (weights - self.centre)

    def full(self, theta: np.ndarray) -> np.ndarray:
        """W "class feature" of free entries."""
        weights = self.start.copy()
        weights[self.free] = theta
        return weights

    def objective(self, weights: np.ndarray, sums: Sums) -> tuple[float, np.ndarray]:
        """Mean loss with the penalty, and its gradient in the free entries."""
        gradient = sums.gradient / sums.weight + self.penalty_gradient(weights)
        return sums.value / sums.weight + self.penalty(weights), gradient[self.free]

    def curvature(self, sums: Sums) -> np.ndarray:
        """Second derivatives of the mean loss with the penalty, in the free entries."""
        assert sums.curvature is not None, "asked for with the sums"
        size = self.start.size
        matrix = sums.curvature.reshape(size, size) / sums.weight + np.diag(2.0 * self.ridge.reshape(-1))
        chosen = np.flatnonzero(self.free.reshape(-1))
        return matrix[np.ix_(chosen, chosen)]


def best_weights(
    voxels: Voxels, shape: Shape, *, exclusive: bool, near: np.ndarray | None = None, tally: Tally | None = None
) -> np.ndarray:
    """float64 W "class feature" of least mean loss on these voxels. near: where to start. tally: counts the steps."""

    def objective(theta: np.ndarray) -> Evaluation:
        weights = shape.full(theta[0])
        sums = sums_of(weights, voxels, exclusive=exclusive, curvature=True)
        value, gradient = shape.objective(weights, sums)
        return Evaluation(np.array([value]), gradient[np.newaxis], shape.curvature(sums)[np.newaxis])

    start = (shape.start if near is None else near)[shape.free]
    if not start.size:
        return shape.start
    endless = np.full(start.size, np.inf)
    return shape.full(newton(objective, start[np.newaxis], -endless, endless, tally)[0])
