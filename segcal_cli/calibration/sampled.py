"""Fits from samples: weights that are best for the sampled voxels of all patients, and of all but each fold.

The summary stands on the fold weights of the samples; those of all patients go on to exact passes (``refining.py``).
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from segcal_cli.calibration import fine_tuning
from segcal_cli.calibration.fitting import (
    PATIENTS_WITH_CLASS,
    Block,
    Fitted,
    averaged,
    held_out_parts,
    partition,
)
from segcal_cli.calibration.linear import Shape, Voxels, best_weights, sums_of
from segcal_cli.calibration.models import Model
from segcal_cli.calibration.patients import Patients, joined
from segcal_cli.calibration.recipe_fits import convolved_weights, tuned_weights
from segcal_cli.calibration.solvers import Tally
from segcal_cli.calibration.spec import FitSpec


def fit_sample(patients: Patients, spec: FitSpec, model: Model, names: Sequence[str]) -> Fitted:
    """Weights, fold weights and losses on the samples. names: of the problems."""
    folds, fold_of, chosen = partition(patients, spec)
    found: list[np.ndarray] = []
    tally = Tally()
    by_recipe: list[np.ndarray] = []
    shapes = [model.shape(present(patients, groups)) for groups in chosen]
    if spec.optimiser == "adam" and spec.method == fine_tuning.METHOD.name:
        by_recipe, tally.steps = tuned_weights(patients, spec, chosen, shapes, exclusive=model.exclusive)
    elif spec.optimiser == "adam":
        by_recipe, tally.steps = convolved_weights(patients, spec, chosen, exclusive=model.exclusive)
    for i, (groups, shape) in enumerate(zip(chosen, shapes, strict=True)):
        if by_recipe:
            found.append(np.where(shape.free, by_recipe[i], shape.start))
            continue
        near = found[0] if found else None
        sample = joined(patients, groups)
        found.append(best_weights(sample, shape, exclusive=model.exclusive, near=near, tally=tally))
    start = shapes[0].start
    parts = held_out_parts(chosen)
    outside = [joined(patients, groups) for groups in parts]
    losses = [
        np.array([_mean(weights, voxels, model) for weights, voxels in zip(pair, outside, strict=True)])
        for pair in ([start] * len(parts), found[-len(parts) :])
    ]
    held_out = averaged((losses[0], losses[1]), np.array([voxels.weights.sum() for voxels in outside]))
    everybody = joined(patients, chosen[0])
    shape = shapes[0]
    before, _ = shape.objective(start, sums_of(start, everybody, exclusive=model.exclusive, curvature=False))
    after, gradient = shape.objective(
        found[0], sums_of(found[0], everybody, exclusive=model.exclusive, curvature=False)
    )
    size = float(np.abs(gradient).max(initial=0.0))
    nll = (before - shape.penalty(start), after - shape.penalty(found[0]))
    blocks = blocks_of(found, model, before, after, size, held_out, nll, tally.steps)
    return Fitted(blocks, folds, fold_of, left(patients, names))


def blocks_of(
    found: Sequence[np.ndarray],
    model: Model,
    before: float,
    after: float,
    gradient: float,
    held_out: tuple[float, float],
    nll: tuple[float, float],
    steps: int,
) -> tuple[Block, ...]:
    """Blocks of weights "class feature" of everybody and of the folds: one for a softmax, else one per problem.

    before, after, nll: of all problems together; gradient: of their sum.
    """
    share = 1 if model.exclusive else len(found[0])
    rows = [weights.reshape(1, -1) if model.exclusive else weights for weights in found]
    return tuple(
        Block(
            problems=(i,),
            row=rows[0][i],
            fold_rows=np.array([row[i] for row in rows[1:]]).reshape(len(rows) - 1, len(rows[0][i])),
            before=before / share,
            after=after / share,
            gradient=gradient / share,
            left="",
            interval=np.full((2, 0), np.nan),
            held_out=held_out,
            nll=(nll[0] / share, nll[1] / share),
            steps=steps if i == 0 else 0,  # all blocks were found together
        )
        for i in range(len(rows[0]))
    )


def present(patients: Patients, groups: np.ndarray) -> np.ndarray:
    """bool "problem": classes that enough of the chosen groups hold, and that do not fill all voxels."""
    counts, voxels = _counts(patients)
    with_class = (counts[groups] > 0).sum(axis=0)
    enough = with_class >= min(PATIENTS_WITH_CLASS, int(np.count_nonzero(groups)))
    return enough & (with_class > 0) & (counts[groups].sum(axis=0) < voxels[groups].sum())


def left(patients: Patients, names: Sequence[str]) -> tuple[tuple[str, str], ...]:
    """Classes that are left as they are, and why."""
    everybody = np.ones(len(patients.groups), dtype=bool)
    counts, _ = _counts(patients)
    reasons = []
    for i, fine in enumerate(present(patients, everybody)):
        if not fine:
            holders = int(np.count_nonzero(counts[:, i]))
            why = "every voxel belongs to it" if holders > 1 else "it occurs in one patient only"
            reasons.append((names[i], "no voxel of it in any case" if holders == 0 else why))
    return tuple(reasons)


def _counts(patients: Patients) -> tuple[np.ndarray, np.ndarray]:
    """int64 voxels of each class "group problem", and of all "group"."""
    first = patients.cases[0].positives
    assert first is not None, "the sample family counts classes"
    counts = np.zeros((len(patients.groups), len(first)), dtype=np.int64)
    voxels = np.zeros(len(patients.groups), dtype=np.int64)
    for case, group in zip(patients.cases, patients.member, strict=True):
        counts[group] += case.positives
        voxels[group] += case.voxels
    return counts, voxels


def prepared(model: Model, patients: Patients) -> Model:
    """The model once it has seen the sample of everybody."""
    everybody = np.ones(len(patients.groups), dtype=bool)
    return model.prepared(joined(patients, everybody), present(patients, everybody))


def shape_for(patients: Patients, model: Model) -> Shape:
    """The shape of a fit on everybody."""
    return model.shape(present(patients, np.ones(len(patients.groups), dtype=bool)))


def _mean(weights: np.ndarray, voxels: Voxels, model: Model) -> float:
    """Mean negative log-likelihood, per voxel and problem."""
    sums = sums_of(weights, voxels, exclusive=model.exclusive, curvature=False)
    return sums.value / sums.weight / (1 if model.exclusive else len(weights))
