"""The fit of a local temperature: T0 and a network from tiles, then a pass over whole volumes that judges them.

A fifth of the patients (every fifth in byte order of their ids; every K-th with ``--folds K``) is left out of T0 and of
training; they end the training, and measure what was gained. If the network does not beat T0 on them, T0 of all
patients is what the artifact holds.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import field, replace
from functools import partial
from typing import Any

import numpy as np

from segcal_cli.calibration import temperature
from segcal_cli.calibration.calibrator import Calibrator
from segcal_cli.calibration.canonical import kind_of
from segcal_cli.calibration.cautions import number
from segcal_cli.calibration.equipment import Equipment
from segcal_cli.calibration.fitting import Block, Fitted, fit, partition
from segcal_cli.calibration.local import METHOD, LocalNetwork
from segcal_cli.calibration.local_training import BATCH, EPOCHS, LEARNING_RATE, Trained, Training, train
from segcal_cli.calibration.measured import SETTINGS, MeasuredCases, joint_nll, pooled_measures, shown_rows
from segcal_cli.calibration.patients import Patients
from segcal_cli.calibration.result import FitResult, FoldCalibrators, Unmeasured
from segcal_cli.calibration.spec import FitSpec
from segcal_cli.calibration.statistics import TwiceTheSameCase
from segcal_cli.calibration.summary import assemble, averages
from segcal_cli.core.case import Case
from segcal_cli.core.frozen import dataclass
from segcal_cli.core.labels import LabelSpace
from segcal_cli.core.scores import scores_of
from segcal_cli.core.volume import Values
from segcal_cli.metrics.measures import measure_case

HELD_OUT = 5
"""Every so many-th patient is left out of training, unless ``--folds`` says otherwise."""

LEAST_GAIN = 1e-4
"""By which the network has to beat T0 on the patients left out, in NLL, to be kept."""

PHASES = ("before", "alone", "after")
"""Predictions as they are, through T0, through the network."""


def trained(
    patients: Patients, spec: FitSpec, space: LabelSpace, values: Values, equipment: Equipment, threads: int
) -> LocalPass:
    """T0 and the network, and the pass that judges them."""
    everybody, row, found, apart = _near(patients, spec, space, equipment, spec.folds or HELD_OUT)
    folds = 1 if spec.folds and apart.any() else 0
    problems = tuple(range(_problems(space)))
    block = replace(everybody, problems=problems, fold_rows=row[np.newaxis])
    fitted = Fitted((block,), folds, np.zeros(len(patients.groups), dtype=np.int64), apart=folds == 1)
    bare = _without_tiles(patients)
    pending = Unmeasured(spec, space, values, bare, fitted, equipment=equipment)
    near = _calibrator(row, found.network, spec, space, equipment)
    return LocalPass(pending, replace(near, network=None), near, found, apart, threads)


def fold_networks(patients: Patients, spec: FitSpec, space: LabelSpace, equipment: Equipment) -> FoldCalibrators:
    """A network for every fold, trained without it; for all cases one where there are no folds.

    As in a fit, a fifth of the patients that are left ends the training, and T0 stands alone where the network does not
    beat it on them; here on their tiles, which is all of them unless a scan is large.
    """
    _, fold_of, chosen = partition(patients, spec)
    found = []
    for groups in chosen[1:] or chosen:
        inside = _of_groups(patients, groups, spec)
        everybody, row, network, _ = _near(inside, spec, space, equipment, HELD_OUT)
        kept = network.best > 0 and network.losses[network.best] < network.losses[0] - LEAST_GAIN
        if not kept:
            row = everybody.row
        found.append(_calibrator(row, network.network if kept else None, spec, space, equipment))
    places = {case.case: int(fold_of[m]) for case, m in zip(patients.cases, patients.member, strict=True)}
    return FoldCalibrators(tuple(found), places)


def _near(
    patients: Patients, spec: FitSpec, space: LabelSpace, equipment: Equipment, every: int
) -> tuple[Block, np.ndarray, Trained, np.ndarray]:
    """T0 of everybody; the row of T0 of those that the network is trained on; the network; and bool "group", those that
    are left out of training, every so many-th."""
    apart = left_out(len(patients.groups), every)
    everybody = _temperature(patients, spec, space)
    inside = _of_groups(patients, ~apart, spec)
    block = _temperature(inside, spec, space)
    # Where a class is not there to be fitted, there is nothing to train on either: T stays 1.
    epochs = 0 if everybody.left or block.left else spec.epochs or EPOCHS
    found = train(
        _weighted(inside),
        _weighted(_of_groups(patients, apart, spec)) if apart.any() else [],
        float(block.row[0]),
        spec.surroundings,
        Training(epochs, spec.batch or BATCH, spec.learning_rate or LEARNING_RATE, spec.seed),
        exclusive=kind_of(space) == "softmax",
        image=equipment.image,
        device=equipment.device,
    )
    return everybody, block.row, found, apart


def _calibrator(
    row: np.ndarray, network: LocalNetwork | None, spec: FitSpec, space: LabelSpace, equipment: Equipment
) -> Calibrator:
    rows = np.tile(row, (_problems(space), 1))
    return Calibrator(
        METHOD.name, space, rows, spec.nesting == "project", spec.surroundings,
        network=network, device=equipment.device,
    )  # fmt: skip


def _problems(space: LabelSpace) -> int:
    """How many rows of parameters there are."""
    return 1 if kind_of(space) == "softmax" else len(space.measured)


def left_out(groups: int, every: int) -> np.ndarray:
    """bool "group": those that training does not see; none where there is only one."""
    apart = np.arange(groups) % every == every - 1
    if groups > 1 and not apart.any():
        apart[-1] = True
    return apart


def _weighted(patients: Patients) -> list[tuple[Any, float]]:
    """All tiles, with the weights of their cases."""
    weighted = zip(patients.cases, patients.weights, strict=True)
    return [(tile, float(weight)) for case, weight in weighted for tile in case.tiles]


def _of_groups(patients: Patients, chosen: np.ndarray, spec: FitSpec) -> Patients:
    cases = [case for case, group in zip(patients.cases, patients.member, strict=True) if chosen[group]]
    return Patients.of(cases, spec.weight)


def _without_tiles(patients: Patients) -> Patients:
    """What the pass that follows has no use for stays behind."""
    return replace(patients, cases=tuple(replace(case, tiles=()) for case in patients.cases))


def _temperature(patients: Patients, spec: FitSpec, space: LabelSpace) -> Block:
    """The one temperature of all classes."""
    alone = replace(spec, method=temperature.METHOD.name, folds=0, epochs=None, batch=None, learning_rate=None)
    if kind_of(space) != "softmax":
        alone = replace(alone, scope="shared")
    return fit(patients, alone, space, intervals=False).blocks[0]


@dataclass(frozen=True, slots=True)
class LocalPass:
    """One pass over whole volumes, as an estimator. pending: None in copies that only update. alone, near:
    calibrators of T0 and of the network. apart: bool "group", patients left out."""

    pending: Unmeasured | None
    alone: Calibrator
    near: Calibrator
    found: Trained | None
    apart: np.ndarray = field(default_factory=lambda: np.zeros(0, dtype=bool))
    threads: int = 1

    def for_update(self) -> LocalPass:
        """What workers need."""
        return replace(self, pending=None, found=None)

    def empty(self) -> MeasuredCases:
        return MeasuredCases()

    def update(self, state: MeasuredCases, case: Case) -> MeasuredCases:
        """Raises TwiceTheSameCase, ImageNeeded."""
        if case.id in state.cases:
            raise TwiceTheSameCase(case.id)
        volume = case.volume
        single, same = self.alone.pointwise(volume)
        sources = {
            "before": partial(scores_of, values=volume.values, stored=volume.stored, exclusive=case.space.exclusive),
            "alone": partial(single.scores, values=same.values, stored=same.stored),
        }
        measured = measure_case(case, sources, SETTINGS, self.threads)
        single, given = self.near.pointwise(volume)
        after = partial(single.scores, values=given.values, stored=given.stored)
        measured |= measure_case(replace(case, volume=given), {"after": after}, SETTINGS, self.threads)
        return MeasuredCases({**state.cases, case.id: {name: one.slim() for name, one in measured.items()}})

    def merge(self, a: MeasuredCases, b: MeasuredCases) -> MeasuredCases:
        """Raises TwiceTheSameCase."""
        for case in sorted(set(a.cases) & set(b.cases)):
            raise TwiceTheSameCase(case)
        return MeasuredCases({**a.cases, **b.cases})

    def finish(self, state: MeasuredCases) -> FitResult:
        assert self.pending is not None, "only copies for workers lack it"
        assert self.found is not None, "only copies for workers lack it"
        pending, fitted, patients = self.pending, self.pending.fitted, self.pending.patients
        judged = _of_groups(patients, self.apart, pending.spec) if self.apart.any() else patients
        losses = self._losses(state, judged)
        kept = self.found.best > 0 and losses["after"] < losses["alone"] - LEAST_GAIN
        last = "after" if kept else "alone"
        block = fitted.blocks[0]
        notes: tuple[str, ...] = ()
        if kept:
            everybody = self._losses(state, patients)
            row = block.fold_rows[0]
            block = replace(
                block,
                row=row,
                after=everybody["after"],
                gradient=self.found.gradient,
                nll=(block.nll[0], everybody["after"]),
                steps=self.found.steps,
            )
        else:
            notes = (
                f"the network does not beat T = {number(float(block.row[0]))} by {LEAST_GAIN:g} on the patients left "
                f"out of training (NLL {number(losses['alone'])} -> {number(losses['after'])}); T stands alone",
            )
        shown = judged if fitted.folds else patients
        phases = {
            phase: averages([state.cases[case.case][phase] for case in shown.cases], shown, shown_rows, pooled_measures)
            for phase in ("before", last)
        }
        held_out = self._losses(state, shown)
        pending = replace(
            pending,
            fitted=replace(fitted, blocks=(block,)),
            network=self.found.network if kept else None,
            notes=notes,
            facts={"training": self._told(kept=kept, losses=losses)},
        )
        summary = partial(assemble, pending.fitted, phases["before"], phases[last])
        return pending.with_summary(
            (lambda improved: summary(improved=improved)) if pending.spec.summary else None,
            (held_out["before"], held_out[last]),
            passes=pending.passes + 1,
        )

    def _losses(self, state: MeasuredCases, patients: Patients) -> dict[str, float]:
        """Mean negative log-likelihood of each phase."""
        voxels = np.array([case.voxels for case in patients.cases]) * patients.weights
        return {
            phase: float(
                np.average([joint_nll(state.cases[case.case][phase]) for case in patients.cases], weights=voxels)
            )
            for phase in PHASES
        }

    def _told(self, *, kept: bool, losses: Mapping[str, float]) -> dict[str, Any]:
        """How training went, for the result."""
        assert self.found is not None, "only copies for workers lack it"
        return {
            "epochs": self.found.epochs,
            "best": self.found.best,
            "losses": list(self.found.losses),
            "kept": kept,
            "left_out": int(np.count_nonzero(self.apart)),
            "nll": dict(losses),
        }
