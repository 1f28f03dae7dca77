"""Affine maps of a softmax's inputs: vector, matrix and Dirichlet scaling. Every class may lean on every other.

    vector     softmax(a * l + b)    Guo, Pleiss, Sun, Weinberger 2017, section 4.2
    matrix     softmax(A z + b)      the same, on raw logits: probabilities do not tell them
    dirichlet  softmax(A l + b)      Kull, Perello Nieto, Kaengsepp et al. 2019, "Beyond temperature scaling:
                                     obtaining well-calibrated multi-class probabilities with Dirichlet calibration"

l is the log-softmax, so that the result does not depend on a shift of a voxel's logits. The softmax leaves one row of
[A | b] free; row 0 of matrix, and of dirichlet without a penalty, is 0, and the others are relative to it. With the
penalty of Dirichlet's paper (ODIR: off-diagonal and intercept regularisation) all rows are determined.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from segcal_cli.calibration.canonical import Chunk, chunks, log_probabilities, ordered_map
from segcal_cli.calibration.linear import Shape, Sums, Voxels, added, sums_of
from segcal_cli.calibration.method import Method
from segcal_cli.core.case import Case
from segcal_cli.core.frozen import dataclass
from segcal_cli.core.volume import Stored, Values

METHODS = (
    Method(name="vector", families={"softmax": "sample"}, options=("voxels", "refine")),
    Method(name="matrix", families={"softmax": "sample"}, options=("voxels", "refine"), only="logits"),
    Method(name="dirichlet", families={"softmax": "sample"}, options=("voxels", "refine", "odir")),
)

LINEAR_METHODS = tuple(record.name for record in METHODS)


def identity(method: str, classes: int, odir: float) -> np.ndarray:
    """float64 [A | b] "class class+1" that changes nothing."""
    weights = np.concatenate([np.eye(classes), np.zeros((classes, 1))], axis=1)
    return weights if method == "vector" or (method == "dirichlet" and odir > 0.0) else weights - weights[:1]


def shape_of(method: str, odir: float, present: np.ndarray) -> Shape:
    """What is fitted. present: bool "class", classes that occur often enough; the rows of the others stay.

    Without the penalty one row is the reference: class 0, and where that is missing also the first that is not.
    """
    classes = len(present)
    start = identity(method, classes, odir)
    free = np.zeros(start.shape, dtype=bool)
    ridge = np.zeros(start.shape)
    reference = int(present.argmax())
    if method == "vector":
        free[np.arange(classes), np.arange(classes)] = True
        free[1:, -1] = True
        free[reference, -1] = False
    else:
        free[:] = True
        if method == "matrix" or odir == 0.0:
            free[[0, reference]] = False
        else:
            ridge[:, :-1] = odir / (classes * (classes - 1))
            np.fill_diagonal(ridge[:, :-1], 0.0)
            ridge[:, -1] = odir / classes
    free[~present] = False
    # The penalty is on the distance from 0, not from the start.
    return Shape(start, free, ridge, np.zeros(start.shape))


def named(method: str, weights: np.ndarray, odir: float) -> dict[str, Any]:
    """Parameters as results show them: a and b in class order, or the rows of [A | b] that are not fixed at 0."""
    if method == "vector":
        return {"a": np.diagonal(weights).tolist(), "b": weights[:, -1].tolist()}
    return {"weights": (weights if method == "dirichlet" and odir > 0.0 else weights[1:]).tolist()}


def features(method: str, slab: np.ndarray, values: Values, stored: Stored) -> np.ndarray:
    """float64 "class voxel" that the map is applied to, of raw stored numbers float32 "class voxel"."""
    return slab.astype(np.float64) if method == "matrix" else log_probabilities(slab, values, stored)


@dataclass(frozen=True, slots=True)
class AffineModel:
    """What the shared machinery of samples and exact passes needs to know of these methods."""

    method: str
    odir: float
    classes: int
    exclusive: bool = True

    @property
    def numbers(self) -> int:
        """Kept per sampled voxel."""
        return self.classes

    def prepared(self, voxels: Voxels, present: np.ndarray) -> AffineModel:
        return self

    def shape(self, present: np.ndarray) -> Shape:
        return shape_of(self.method, self.odir, present)

    def sample(self, case: Case, places: np.ndarray) -> np.ndarray:
        """float64 features "1 feature voxel" at flat voxel indices."""
        slab = case.volume.array.reshape(self.classes, -1)[:, places]
        return features(self.method, slab, case.volume.values, case.volume.stored)[np.newaxis]

    def sums(self, case: Case, weights: np.ndarray, threads: int) -> Sums:
        """Value and gradient over all counted voxels; the number of threads does not change a digit."""
        assert case.labels is not None, "fits need labels"
        members, volume = case.labels.members, case.volume

        def part(chunk: Chunk) -> Sums:
            x = features(self.method, chunk.array, volume.values, volume.stored)[np.newaxis]
            voxels = Voxels(x, members[:, chunk.codes], np.ones(chunk.codes.size))
            return sums_of(weights, voxels, exclusive=True, curvature=False)

        return added(list(ordered_map(part, chunks(case), threads)))
