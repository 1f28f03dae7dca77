"""The second pass: before and after of a softmax of three or more classes, out of fold.

Neither nodes nor one-vs-rest sketches can tell a class's calibration error: it needs the probabilities of all classes
together. So the cases are read once more and measured, each with the parameters that were fitted without its patient.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import field, replace
from functools import partial, reduce
from operator import add

import numpy as np

from segcal_cli.calibration.canonical import kind_of
from segcal_cli.calibration.method import Sketched
from segcal_cli.calibration.result import FitResult, FoldCalibrators, Unmeasured
from segcal_cli.calibration.statistics import TwiceTheSameCase
from segcal_cli.calibration.summary import JOINT_KEYS, KEYS, Measures, Rows, assemble, averages, sketch_summary
from segcal_cli.core.case import Case
from segcal_cli.core.frozen import dataclass
from segcal_cli.core.scores import scores_of
from segcal_cli.metrics.columns import CLASS_COLUMNS, Measure, Row, all_row, binned_columns, defined
from segcal_cli.metrics.measures import CaseMeasures, Settings, measure_case
from segcal_cli.metrics.pooling import Pooled

SETTINGS = Settings()
"""20 bins closed on the right, background left out of ``all``: the conventions of every summary."""


@dataclass(frozen=True, slots=True)
class MeasuredCases:
    """Case id -> what was measured before and after."""

    cases: Mapping[str, dict[str, CaseMeasures]] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class SummaryPass:
    """An estimator that completes a fit: its result is the fit's result with a summary.

    pending: the fit without summary, None in copies that only update. folds: what each case is measured with. threads:
    do not change a digit.
    """

    pending: Unmeasured | None
    folds: FoldCalibrators
    threads: int = 1

    def for_update(self) -> SummaryPass:
        """What workers need: no statistics travel to them."""
        return replace(self, pending=None)

    def empty(self) -> MeasuredCases:
        return MeasuredCases()

    def update(self, state: MeasuredCases, case: Case) -> MeasuredCases:
        """Raises TwiceTheSameCase."""
        if case.id in state.cases:
            raise TwiceTheSameCase(case.id)
        volume = case.volume
        calibrator = self.folds.without(case.id)
        calibrator, given = calibrator.pointwise(volume)
        before = partial(scores_of, values=volume.values, stored=volume.stored, exclusive=case.space.exclusive)
        after = partial(calibrator.scores, values=given.values, stored=given.stored)
        if given is volume:
            measured = measure_case(case, {"before": before, "after": after}, SETTINGS, self.threads)
        else:
            measured = measure_case(case, {"before": before}, SETTINGS, self.threads)
            measured |= measure_case(replace(case, volume=given), {"after": after}, SETTINGS, self.threads)
        return MeasuredCases({**state.cases, case.id: {name: one.slim() for name, one in measured.items()}})

    def merge(self, a: MeasuredCases, b: MeasuredCases) -> MeasuredCases:
        """Raises TwiceTheSameCase."""
        for case in sorted(set(a.cases) & set(b.cases)):
            raise TwiceTheSameCase(case)
        return MeasuredCases({**a.cases, **b.cases})

    def finish(self, state: MeasuredCases) -> FitResult:
        assert self.pending is not None, "only copies for workers lack it"
        patients, fitted = self.pending.patients, self.pending.fitted
        phases = {
            phase: averages(
                [state.cases[case.case][phase] for case in patients.cases], patients, shown_rows, pooled_measures
            )
            for phase in ("before", "after")
        }
        voxels = np.array([case.voxels for case in patients.cases]) * patients.weights
        held_out = tuple(
            float(np.average([joint_nll(state.cases[case.case][phase]) for case in patients.cases], weights=voxels))
            for phase in ("before", "after")
        )
        return self.pending.with_summary(
            lambda improved: assemble(fitted, phases["before"], phases["after"], improved=improved),
            (held_out[0], held_out[1]),
            passes=self.pending.passes + 1,
        )


def measured(pending: Unmeasured, threads: int) -> FitResult | SummaryPass:
    """The result of a fit, or the pass that measures it: sketches alone tell the gain on independent log-odds."""
    spec, space, fitted = pending.spec, pending.space, pending.fitted
    if not spec.summary:
        return pending.with_summary(None, fitted.held_out, passes=pending.passes)
    record = spec.record(space)
    if kind_of(space) == "softmax" or not isinstance(record, Sketched):
        return SummaryPass(pending, pending.fold_calibrators(), threads)
    return pending.with_summary(
        lambda improved: sketch_summary(pending.patients, fitted, record, space, improved=improved),
        fitted.held_out,
        passes=pending.passes,
    )


def joint_nll(measures: CaseMeasures) -> float:
    """Negative log-likelihood per voxel: of exclusive classes together, of independent ones their mean."""
    value = measures.all["joint_nll"]
    if value is None:
        value = measures.all["nll"]
    assert value is not None, "a measured case has a likelihood"
    return float(value)


def pooled_measures(cases: Sequence[CaseMeasures]) -> CaseMeasures:
    pooled: Pooled = reduce(add, (case.pooled for case in cases))
    counts = pooled.counts()
    columns = binned_columns(counts, None, SETTINGS)
    classes: dict[str, Row] = {
        name: dict.fromkeys(CLASS_COLUMNS) | {key: defined(values[row]) for key, values in columns.items()}
        for row, name in enumerate(pooled.classes)
    }
    return replace(cases[0], classes=classes, all=all_row(pooled.averaged, classes, counts, SETTINGS), pooled=pooled)


def shown_rows(measures: CaseMeasures) -> Rows:
    return {
        "classes": {name: _chosen(row, KEYS) for name, row in measures.classes.items()},
        "all": _chosen(measures.all, (*KEYS, *JOINT_KEYS)),
    }


def _chosen(row: Mapping[str, Measure], keys: Sequence[str]) -> Measures:
    return {key: None if row[key] is None else float(row[key] or 0.0) for key in keys}
