"""Models: what the sample family needs to know of a method, behind one face.

A model says which features a voxel has, which weights are allowed, and how a whole case is summed; drawing samples,
Newton steps and exact passes over all voxels are the same for every one.
"""

from __future__ import annotations

from typing import Protocol

import numpy as np

from segcal_cli.calibration import auxiliary, fine_tuning
from segcal_cli.calibration.affine import LINEAR_METHODS, AffineModel
from segcal_cli.calibration.auxiliary import AuxiliaryModel
from segcal_cli.calibration.average_error import ACE_LOSSES
from segcal_cli.calibration.equipment import NOTHING, Equipment
from segcal_cli.calibration.linear import Shape, Sums, Voxels
from segcal_cli.calibration.spec import FitSpec
from segcal_cli.calibration.statistics import Sampled
from segcal_cli.core.case import Case
from segcal_cli.core.labels import LabelSpace
from segcal_cli.core.volume import Values


class Model(Protocol):
    """exclusive: the classes share one softmax. numbers: kept per sampled voxel.

    prepared: the model once it has seen the sample of everybody. shape: which weights "class feature" are free, given
    bool "class", classes that occur often enough. sample: features "set feature voxel" at flat voxel indices. sums:
    value and gradient over all counted voxels of a case.
    """

    @property
    def exclusive(self) -> bool: ...

    @property
    def numbers(self) -> int: ...

    def prepared(self, voxels: Voxels, present: np.ndarray) -> Model: ...

    def shape(self, present: np.ndarray) -> Shape: ...

    def sample(self, case: Case, places: np.ndarray) -> np.ndarray: ...

    def sums(self, case: Case, weights: np.ndarray, threads: int) -> Sums: ...


def model_of(spec: FitSpec, space: LabelSpace, values: Values, equipment: Equipment = NOTHING) -> Model | None:
    """The model of a method of the sample family, None for the others. Raises LayerNeeded."""
    if spec.method in LINEAR_METHODS:
        return AffineModel(spec.method, spec.odir, len(space.channels))
    if spec.method == auxiliary.METHOD.name:
        return AuxiliaryModel(space, spec.surroundings, device=equipment.device)
    if spec.method == fine_tuning.METHOD.name:
        if equipment.layer is None:
            raise fine_tuning.LayerNeeded
        return fine_tuning.FineTuneModel(space, equipment.layer, equipment.device)
    return None


def sampled_by(spec: FitSpec, space: LabelSpace, values: Values, equipment: Equipment = NOTHING) -> Sampled | None:
    """How cases are sampled, None for methods that need no sample. Methods with the same features have equal ones.

    Raises LayerNeeded.
    """
    model = model_of(spec, space, values, equipment)
    if model is None and spec.loss in ACE_LOSSES and spec.family(space) == "nodes":
        model = AffineModel("vector", 0.0, len(space.channels))  # sums at nodes do not tell the error of a class
    if isinstance(model, AffineModel) and model.method != "matrix":
        model = AffineModel("vector", 0.0, model.classes)  # what is sampled is the log-softmax for all but matrix
    return None if model is None else Sampled(spec.voxels, spec.seed, model)
