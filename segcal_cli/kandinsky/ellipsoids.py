"""Ellipsoids: the distance of a place from a centre, by axes of product 1.

A sphere, an ellipse and an ellipsoid are one family: d(v) = | A^-1 R^T (v - centre) |, with rotation R and axes whose
product is 1, so that a radius is that of the sphere of equal volume. Lengths are mm, or cells where there are none.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal

import numpy as np

from segcal_cli.core.frozen import dataclass

Shape = Literal["circle", "ellipse", "ellipsoid"]

CENTRE_REACH = 0.2
"""The centre is searched this far from the middle, as a share of each side."""

LOG_ASPECT = 0.7
"""Bound of the logarithm of an aspect ratio: axes differ by at most a factor of two."""

MAX_ANGLE = np.pi / 4
"""Bound of a rotation; with axes free to be longer or shorter, a quarter turn covers all."""


@dataclass(frozen=True, slots=True)
class Ellipsoid:
    """centre: mm along the axes of the field, from the centre of its first cell. axes: of product 1. angles: rad."""

    centre: tuple[float, ...]
    axes: tuple[float, ...]
    angles: tuple[float, ...]

    @property
    def rotation(self) -> np.ndarray:
        """float64 "axis axis"."""
        d = len(self.centre)
        turn = np.eye(d)
        for angle, (a, b) in zip(self.angles, [(0, 1), (0, 2), (1, 2)], strict=False):
            one = np.eye(d)
            one[a, a] = one[b, b] = np.cos(angle)
            one[a, b], one[b, a] = -np.sin(angle), np.sin(angle)
            turn = turn @ one
        return turn

    def distance(self, places: np.ndarray) -> np.ndarray:
        """float64 "cell" of places "cell axis"."""
        if not any(self.angles) and len(set(self.axes)) == 1:
            return np.sqrt(((places - self.centre) ** 2).sum(axis=1))
        local = (places - self.centre) @ (self.rotation / np.array(self.axes))
        return np.sqrt(np.einsum("ij,ij->i", local, local))

    def radius(self, directions: np.ndarray) -> np.ndarray:
        """float64 "direction": how far the surface of radius 1 lies along unit vectors "direction axis"."""
        return 1.0 / np.sqrt(((directions @ (self.rotation / np.array(self.axes))) ** 2).sum(axis=1))


@dataclass(frozen=True, slots=True)
class Family:
    """Which ellipsoids are searched: 2-D or 3-D places, their shape, and in 3-D whether they may be rotated."""

    dimension: int
    shape: Shape
    free_axes: bool = False

    @property
    def n_logs(self) -> int:
        return 0 if self.shape == "circle" else self.dimension - 1

    @property
    def n_angles(self) -> int:
        if self.shape == "circle":
            return 0
        if self.dimension == 2:
            return 1
        return 3 if self.free_axes else 0

    def bounds(self, middle: Sequence[float], sides: Sequence[float]) -> list[tuple[float, float]]:
        """Of every parameter: centre, log axes, angles."""
        centre = [(m - CENTRE_REACH * s, m + CENTRE_REACH * s) for m, s in zip(middle, sides, strict=True)]
        return [*centre, *[(-LOG_ASPECT, LOG_ASPECT)] * self.n_logs, *[(-MAX_ANGLE, MAX_ANGLE)] * self.n_angles]

    def ellipsoid(self, parameters: np.ndarray) -> Ellipsoid:
        d = self.dimension
        logs = parameters[d : d + self.n_logs]
        if self.n_logs == 0:
            axes = np.ones(d)
        elif d == 2:
            # One number: the logarithm of the ratio of the axes.
            axes = np.exp([-logs[0] / 2, logs[0] / 2])
        else:
            axes = np.exp([*logs, -logs.sum()])
        angles = parameters[d + self.n_logs :]
        return Ellipsoid(tuple(map(float, parameters[:d])), tuple(map(float, axes)), tuple(map(float, angles)))
