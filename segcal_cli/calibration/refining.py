"""Refinement: from the optimum of the samples to that of all voxels, in a few passes over the cases.

Each pass sums the loss and its gradient over every voxel, exactly. The step is taken with the curvature of the sample,
which is right to a few per cent, so that the gradient shrinks by a large factor each time. A step that does not lower
the loss is halved. The fit ends where the largest gradient is below 1e-8, or after ``--refine`` passes.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import field, replace

import numpy as np

from segcal_cli.calibration.linear import Sums, sums_of
from segcal_cli.calibration.measured import SummaryPass, measured
from segcal_cli.calibration.models import Model
from segcal_cli.calibration.patients import joined
from segcal_cli.calibration.result import FitResult, Unmeasured
from segcal_cli.calibration.sampled import blocks_of, shape_for
from segcal_cli.calibration.solvers import SMALL_GRADIENT, VALUE_ROUNDING
from segcal_cli.calibration.statistics import TwiceTheSameCase
from segcal_cli.core.case import Case
from segcal_cli.core.frozen import dataclass


@dataclass(frozen=True, slots=True)
class Summed:
    """Case id -> sums of the loss before, and of loss and gradient at the weights that are tried."""

    cases: Mapping[str, tuple[float, Sums]] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Accepted:
    """The best weights "class feature" so far, with their loss, their gradient in the free entries, and how far the
    step from them reached."""

    weights: np.ndarray
    value: float
    gradient: np.ndarray
    step: np.ndarray


@dataclass(frozen=True, slots=True)
class RefinePass:
    """One pass, as an estimator. tried: weights "class feature". pending: None in copies that only update."""

    pending: Unmeasured | None
    model: Model
    start: np.ndarray
    tried: np.ndarray
    accepted: Accepted | None
    number: int
    threads: int = 1

    def for_update(self) -> RefinePass:
        """What workers need: no samples travel to them."""
        return replace(self, pending=None, accepted=None)

    def empty(self) -> Summed:
        return Summed()

    def update(self, state: Summed, case: Case) -> Summed:
        """Raises TwiceTheSameCase."""
        if case.id in state.cases:
            raise TwiceTheSameCase(case.id)
        # The loss before is needed once, and known from then on.
        before = self.model.sums(case, self.start, self.threads).value if self.number == 1 else 0.0
        return Summed({**state.cases, case.id: (before, self.model.sums(case, self.tried, self.threads))})

    def merge(self, a: Summed, b: Summed) -> Summed:
        """Raises TwiceTheSameCase."""
        for case in sorted(set(a.cases) & set(b.cases)):
            raise TwiceTheSameCase(case)
        return Summed({**a.cases, **b.cases})

    def finish(self, state: Summed) -> RefinePass | SummaryPass | FitResult:
        """The next pass, or what comes after the last."""
        assert self.pending is not None, "only copies for workers lack it"
        patients, spec = self.pending.patients, self.pending.spec
        shape = shape_for(patients, self.model)
        read = [state.cases[case.case] for case in patients.cases]
        weighted = list(zip(patients.weights, read, strict=True))
        sums = Sums(
            math.fsum(w * one.value for w, (_, one) in weighted),
            np.sum([w * one.gradient for w, (_, one) in weighted], axis=0),
            None,
            math.fsum(w * one.weight for w, (_, one) in weighted),
        )
        value, gradient = shape.objective(self.tried, sums)
        pending = self.pending
        if self.number == 1:
            before = math.fsum(w * one for w, (one, _) in weighted) / sums.weight
            pending = self._with_block(pending, self.tried, before + shape.penalty(self.start), value, gradient)
        last = self.accepted
        if last is None or value <= last.value + VALUE_ROUNDING * abs(last.value):
            step = self._step(pending, gradient)
            last = Accepted(self.tried, value, gradient, step)
            before = pending.fitted.blocks[0].before * (1 if self.model.exclusive else len(self.tried))
            pending = self._with_block(pending, self.tried, before, value, gradient)
        else:
            last = replace(last, step=0.5 * last.step)
        pending = replace(pending, passes=pending.passes + 1)
        if self.number >= spec.exact_passes or np.abs(last.gradient).max(initial=0.0) < SMALL_GRADIENT:
            return measured(pending, self.threads)
        tried = shape.full(last.weights[shape.free] + last.step)
        return replace(self, pending=pending, tried=tried, accepted=last, number=self.number + 1)

    def _step(self, pending: Unmeasured, gradient: np.ndarray) -> np.ndarray:
        """Newton's step in the free entries, with the curvature of the sample."""
        patients = pending.patients
        shape = shape_for(patients, self.model)
        everybody = joined(patients, np.ones(len(patients.groups), dtype=bool))
        if not gradient.size:  # no class occurs often enough to be fitted
            return gradient
        sums = sums_of(self.tried, everybody, exclusive=self.model.exclusive, curvature=True)
        return -np.linalg.lstsq(shape.curvature(sums), gradient, rcond=None)[0]

    def _with_block(
        self, pending: Unmeasured, weights: np.ndarray, before: float, after: float, gradient: np.ndarray
    ) -> Unmeasured:
        """The fit with other weights for everybody; those of the folds stay."""
        fitted = pending.fitted
        folds = [fitted.rows(len(fitted.blocks), fold).reshape(weights.shape) for fold in range(fitted.folds)]
        size = float(np.abs(gradient).max(initial=0.0))
        shape = shape_for(pending.patients, self.model)
        nll = (before - shape.penalty(self.start), after - shape.penalty(weights))
        held_out = fitted.blocks[0].held_out
        blocks = blocks_of([weights, *folds], self.model, before, after, size, held_out, nll, fitted.steps)
        return replace(pending, fitted=replace(fitted, blocks=blocks))


def first_refinement(pending: Unmeasured, model: Model, threads: int) -> RefinePass:
    """The first pass, at the optimum of the samples."""
    shape = shape_for(pending.patients, model)
    fitted = pending.fitted
    tried = fitted.rows(len(fitted.blocks)).reshape(shape.start.shape)
    return RefinePass(pending, model, shape.start, tried, None, 1, threads)
