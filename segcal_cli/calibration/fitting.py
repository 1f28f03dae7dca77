"""Fitting: parameters from the statistics of patients, for all of them, for folds, and for resamples.

Problems are fitted in blocks: one class each, or all sigmoid regions together where they share a calibrator, or all
classes of a softmax under one temperature. A block without enough of a class is left as it is.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import numpy as np

from segcal_cli.calibration.average_error import ACE_LOSSES
from segcal_cli.calibration.error_fits import SampledError
from segcal_cli.calibration.method import NLL, SLOPE_LIMIT, Aim, Sketched, stacked
from segcal_cli.calibration.nodes import LOG_LIMIT, SCAN, Curves, best_temperatures, slope_at
from segcal_cli.calibration.patients import GroupCurves, GroupTables, Patients, bootstrap, joined
from segcal_cli.calibration.recipe_fits import convolved_weights, node_temperatures, sketched_temperatures
from segcal_cli.calibration.solvers import Tally
from segcal_cli.calibration.spec import FitSpec
from segcal_cli.core.errors import FitError
from segcal_cli.core.frozen import dataclass
from segcal_cli.core.labels import LabelSpace

PATIENTS_WITH_CLASS = 2
"""A class that only one of several patients has is not fitted: nothing says that it would look like that in the
next."""

BOUND_TOLERANCE = 1e-9
"""A slope this close to its bound, relatively, is at it."""


SLOPE_STEP = 1e-4
"""In 1/T: the step of a difference quotient, where a loss has no formula for its slope."""


class InvertedConfidence(FitError):
    """Platt's slope is not positive."""

    template = (
        "{0}: the fitted slope is {1:.4g}, so higher confidence does not go with the class: a wrong class order, or a "
        "flipped volume? --allow-inverted fits it all the same"
    )


@dataclass(frozen=True, slots=True)
class Block:
    """Parameters of the problems that are fitted together.

    problems: their indices. row: float64 "parameter". fold_rows: float64 "fold parameter", fitted without each fold.
    before, after: loss over all voxels; gradient: the largest at the optimum, None where nothing was fitted. left:
    why the block was left as it is, or "". interval: float64 "2 parameter", NaN without one. held_out: NLL of the
    folds before and after, each with the parameters fitted without it. nll: over all voxels before and after, without
    penalties. steps: of the solver. likeliest: the row of least NLL, where something else was minimised.
    """

    problems: tuple[int, ...]
    row: np.ndarray
    fold_rows: np.ndarray
    before: float
    after: float
    gradient: float | None
    left: str
    interval: np.ndarray
    held_out: tuple[float, float]
    nll: tuple[float, float]
    steps: int
    likeliest: np.ndarray | None = None


@dataclass(frozen=True, slots=True)
class Fitted:
    """All blocks. folds: 0 where the summary has to be in-sample. fold_of: int64 "group". left: classes inside a
    block that were left as they are, and why. apart: the one fold holds the patients that were left out of training,
    and only they are measured."""

    blocks: tuple[Block, ...]
    folds: int
    fold_of: np.ndarray
    left: tuple[tuple[str, str], ...] = ()
    apart: bool = False

    @property
    def where(self) -> str:
        """What the measures before and after stand on, in words."""
        return ("held out" if self.apart else "out of fold") if self.folds else "in-sample"

    def rows(self, problems: int, fold: int | None = None) -> np.ndarray:
        """float64 "problem parameter" of all patients, or of those outside a fold. A softmax temperature: one row."""
        chosen = {p: b.row if fold is None else b.fold_rows[fold] for b in self.blocks for p in b.problems}
        return stacked([chosen[p] for p in range(problems)])

    def mean(self, name: str) -> float:
        """Mean over problems of a number of the blocks."""
        weights = [len(block.problems) for block in self.blocks]
        return float(np.average([getattr(block, name) for block in self.blocks], weights=weights))

    @property
    def held_out(self) -> tuple[float, float]:
        """NLL before and after, out of fold, mean over problems."""
        weights = [len(block.problems) for block in self.blocks]
        before, after = np.average([block.held_out for block in self.blocks], weights=weights, axis=0)
        return float(before), float(after)

    @property
    def nll(self) -> tuple[float, float]:
        """NLL over all voxels before and after, mean over problems."""
        weights = [len(block.problems) for block in self.blocks]
        before, after = np.average([block.nll for block in self.blocks], weights=weights, axis=0)
        return float(before), float(after)

    @property
    def steps(self) -> int:
        """Steps of the solver, of all blocks."""
        return sum(block.steps for block in self.blocks)

    @property
    def gradient(self) -> float:
        """The largest gradient of all blocks that were fitted; 0 where none was."""
        return max((block.gradient for block in self.blocks if block.gradient is not None), default=0.0)


def fit(patients: Patients, spec: FitSpec, space: LabelSpace, *, intervals: bool = True) -> Fitted:
    """Parameters, fold parameters and, if wanted, intervals. Raises InvertedConfidence."""
    folds, fold_of, chosen = partition(patients, spec)
    resampled = intervals and len(patients.groups) > 1
    if spec.family(space) == "nodes":
        return Fitted((_fit_nodes(patients, spec, chosen, resampled=resampled),), folds, fold_of)
    record = spec.record(space)
    assert isinstance(record, Sketched), "every other family has been fitted"
    count = len(space.measured)
    together = [tuple(range(count))] if spec.scope == "shared" else [(i,) for i in range(count)]
    names = [space.names[c] for c in space.measured]
    blocks: list[Block] = []
    by_recipe, steps = _rows_by_recipe(patients, spec, chosen, count)
    for problems in together:
        tables = patients.sketch_tables(problems)
        known = by_recipe[problems[0]]
        block = _fit_sketches(tables, problems, record, spec, chosen, resampled=resampled, by_recipe=known)
        if known is not None:
            block = replace(block, steps=steps if not blocks else 0)  # all problems were run together
        # A recipe starts anywhere and may end before its slope has turned; that says nothing of the data.
        if record.slope(block.row) <= 0.0 and not spec.allow_inverted and known is None:
            raise InvertedConfidence(", ".join(names[i] for i in problems), record.slope(block.row))
        blocks.append(block)
    return Fitted(tuple(blocks), folds, fold_of)


def _rows_by_recipe(
    patients: Patients, spec: FitSpec, chosen: Sequence[np.ndarray], problems: int
) -> tuple[list[np.ndarray | None], int]:
    """float64 "set parameter" of each problem by a published recipe, None of exact fits; and the steps of all runs."""
    if spec.optimiser == "exact":
        return [None] * problems, 0
    if spec.method == "platt":
        weights, steps = convolved_weights(patients, spec, chosen, exclusive=False)
        return [np.stack([one[p] for one in weights]) for p in range(problems)], steps
    runs = [sketched_temperatures(patients, p, spec, chosen) for p in range(problems)]
    return [rows for rows, _ in runs], sum(steps for _, steps in runs)


def partition(patients: Patients, spec: FitSpec) -> tuple[int, np.ndarray, list[np.ndarray]]:
    """Number of folds, int64 fold "group", and sets of groups: everybody, then everybody outside each fold."""
    groups = len(patients.groups)
    folds = min(spec.folds, groups) if groups > 1 else 0
    fold_of = patients.fold_of(folds) if folds else np.zeros(groups, dtype=np.int64)
    return folds, fold_of, [np.ones(groups, dtype=bool), *(fold_of != fold for fold in range(folds))]


def at_bound(slope: float) -> str:
    """Whether a slope is at the "low" or the "high" end of its range, or at none, ""."""
    if slope <= (1.0 + BOUND_TOLERANCE) / SLOPE_LIMIT:
        return "low"
    return "high" if slope >= SLOPE_LIMIT * (1.0 - BOUND_TOLERANCE) else ""


def _missing(tables: GroupTables, chosen: np.ndarray) -> str:
    """Why the chosen groups are not enough to fit this block, or ""."""
    with_class = int(np.count_nonzero(tables.positive[chosen] > 0.0))
    if with_class == 0:
        return "no voxel of it in any case"
    if with_class < min(PATIENTS_WITH_CLASS, int(np.count_nonzero(chosen))):
        return "it occurs in one patient only"
    return "" if (tables.negative[chosen] > 0.0).any() else "every voxel belongs to it"


def _fit_sketches(
    tables: GroupTables,
    problems: tuple[int, ...],
    record: Sketched,
    spec: FitSpec,
    chosen: Sequence[np.ndarray],
    *,
    resampled: bool,
    by_recipe: np.ndarray | None = None,
) -> Block:
    identity = np.array(record.identity)
    missing = [_missing(tables, groups) for groups in chosen]
    rows = np.tile(identity, (len(chosen), 1))
    enough = [i for i, reason in enumerate(missing) if not reason]
    tally = Tally()
    if enough:
        if by_recipe is None:
            solved = record.solve(tables.moments([chosen[i] for i in enough]), spec.aim(tally))
        else:
            solved = by_recipe[enough]
        found = dict(zip(enough, solved, strict=True))
        rows = stacked([found.get(i, identity) for i in range(len(chosen))])
    everybody = tables.moments(chosen[:1])
    gradient = None if missing[0] else float(np.abs(record.gradient(everybody, rows[:1], spec.aim())).max())
    interval = np.full((2, len(record.parameters)), np.nan)
    # The soft error is sought by evaluating it, too slowly for a thousand resamples.
    if resampled and not missing[0] and record.parameters and spec.loss not in ACE_LOSSES and by_recipe is None:
        interval = bootstrap(
            len(chosen[0]),
            len(tables.bins),
            spec.seed,
            lambda counts: _resample(tables, counts, record, spec.aim(), rows[0]),
        )
    parts = held_out_parts(chosen)
    outside, outside_rows = tables.moments(parts), rows[-len(parts) :]
    held_out = (
        record.loss(outside, np.tile(identity, (len(parts), 1)), NLL),
        record.loss(outside, outside_rows, NLL),
    )
    ends = (identity[np.newaxis], rows[:1])
    return Block(
        problems=problems,
        row=rows[0],
        fold_rows=rows[1:],
        before=float(record.loss(everybody, ends[0], spec.aim())[0]),
        after=float(record.loss(everybody, ends[1], spec.aim())[0]),
        gradient=gradient,
        left=missing[0],
        interval=interval,
        held_out=averaged(held_out, outside.total),
        nll=(float(record.loss(everybody, ends[0], NLL)[0]), float(record.loss(everybody, ends[1], NLL)[0])),
        steps=tally.steps,
        likeliest=None if (spec.loss == "nll" and by_recipe is None) or missing[0] else record.solve(everybody, NLL)[0],
    )


def _resample(tables: GroupTables, counts: np.ndarray, record: Sketched, aim: Aim, near: np.ndarray) -> np.ndarray:
    """Parameters of resamples; NaN where a resample lacks the class, or anything else."""
    drawn = counts > 0.0
    fine = (drawn & (tables.positive > 0.0)).any(axis=1) & (drawn & (tables.negative > 0.0)).any(axis=1)
    rows = np.full((len(counts), len(record.identity)), np.nan)
    if fine.any():
        rows[fine] = record.solve(tables.resampled(counts[fine]), aim, near)
    return rows


def _fit_nodes(patients: Patients, spec: FitSpec, chosen: Sequence[np.ndarray], *, resampled: bool) -> Block:
    table = patients.curves()
    groups = len(patients.groups)
    tally = Tally()
    if spec.optimiser == "adam":
        found, tally.steps = node_temperatures(patients, spec, chosen)
        everybody = table.curves(chosen[:1])
        ends = [float(everybody.nll(at)[0]) for at in (np.ones(1), found[0])]
        slope = _node_gradient(everybody, float(found[0, 0]), "nll")
        nothing = np.full((2, 1), np.nan)
        return _node_block(table, spec, chosen, found[:, 0], (ends[0], ends[1]), slope, nothing, tally)
    if spec.loss in ACE_LOSSES:
        return _fit_sampled_temperature(patients, table, spec, chosen, tally)
    rows = best_temperatures(table.curves(chosen), spec.loss, tally)
    interval = np.full((2, 1), np.nan)
    if resampled:
        interval = bootstrap(
            groups, SCAN, spec.seed, lambda counts: best_temperatures(table.resampled(counts), spec.loss)[:, np.newaxis]
        )
    everybody = table.curves(chosen[:1])
    losses = [float(everybody.loss(spec.loss, at)[0]) for at in (np.ones(1), rows[:1])]
    gradient = _node_gradient(everybody, rows[0], spec.loss)
    return _node_block(table, spec, chosen, rows, (losses[0], losses[1]), gradient, interval, tally)


def _fit_sampled_temperature(
    patients: Patients, table: GroupCurves, spec: FitSpec, chosen: Sequence[np.ndarray], tally: Tally
) -> Block:
    """A softmax temperature fitted to the soft error of a sample of voxels, with the likelihood of all of them."""
    rows = np.empty(len(chosen))
    losses: tuple[float, float] = (0.0, 0.0)
    gradient = 0.0
    for i, groups in enumerate(chosen):
        voxels = sum(case.voxels for case, group in zip(patients.cases, patients.member, strict=True) if groups[group])
        error = SampledError(joined(patients, groups), float(voxels))
        curves = table.curves([groups])

        def loss(temperature: float, error: SampledError = error, curves: Curves = curves) -> float:
            likelihood = 0.0 if spec.loss == "soft-ace" else float(curves.nll(np.array([temperature]))[0])
            return likelihood + (1.0 if spec.loss == "soft-ace" else spec.ace_weight) * error(temperature)

        rows[i] = error.least(loss, rows[0] if i else None, tally)
        if i == 0:
            losses = (loss(1.0), loss(rows[0]))
            slopes = [loss(1.0 / (1.0 / rows[0] + step)) for step in (SLOPE_STEP, -SLOPE_STEP)]
            gradient = abs(slopes[0] - slopes[1]) / (2.0 * SLOPE_STEP)
    return _node_block(table, spec, chosen, rows, losses, gradient, np.full((2, 1), np.nan), tally)


def _node_block(
    table: GroupCurves,
    spec: FitSpec,
    chosen: Sequence[np.ndarray],
    rows: np.ndarray,
    losses: tuple[float, float],
    gradient: float,
    interval: np.ndarray,
    tally: Tally,
) -> Block:
    """The block of softmax temperatures, of everybody and without each fold."""
    everybody = table.curves(chosen[:1])
    parts = held_out_parts(chosen)
    outside = table.curves(parts)
    ones = np.ones(len(parts))
    return Block(
        problems=(0,),
        row=rows[:1],
        fold_rows=rows[1:, np.newaxis],
        before=losses[0],
        after=losses[1],
        gradient=gradient,
        left="",
        interval=interval,
        held_out=averaged((outside.nll(ones), outside.nll(rows[-len(parts) :])), outside.total),
        nll=(float(everybody.nll(np.ones(1))[0]), float(everybody.nll(rows[:1])[0])),
        steps=tally.steps,
        likeliest=None if spec.loss == "nll" and spec.optimiser == "exact" else best_temperatures(everybody, "nll"),
    )


def _node_gradient(curves: Curves, temperature: float, loss: str) -> float:
    """Size of the derivative of the mean loss in 1/T."""
    coefficients, linear = curves.slopes(loss)
    return abs(slope_at(-np.log(temperature) / LOG_LIMIT, coefficients[0], linear[0])) * temperature / LOG_LIMIT


def held_out_parts(chosen: Sequence[np.ndarray]) -> list[np.ndarray]:
    """The groups that each set of fold parameters has not seen; all groups where there are no folds."""
    return [~groups for groups in chosen[1:]] or [chosen[0]]


def averaged(losses: tuple[np.ndarray, np.ndarray], weights: np.ndarray) -> tuple[float, float]:
    before, after = losses
    return float(np.average(before, weights=weights)), float(np.average(after, weights=weights))
