"""Measurement: every source of every case, in one pass, as an estimator.

A source is one set of probabilities of the same scans: predictions as they are, through a calibrator, or those of
another model. The state keeps each case's finished columns and, per source, one pooled table in integers, so that
merging is exact in any order.
"""

from __future__ import annotations

from collections.abc import Mapping
from collections.abc import Set as AbstractSet
from dataclasses import field, replace
from functools import partial
from typing import TYPE_CHECKING

from segcal_cli.core.annotations import OtherType
from segcal_cli.core.case import Case
from segcal_cli.core.frozen import dataclass
from segcal_cli.execution.engine import ALONE
from segcal_cli.metrics.kde import with_kde
from segcal_cli.metrics.likelihood import counted_scores
from segcal_cli.metrics.measures import CaseMeasures, Settings, Source, measure_case
from segcal_cli.metrics.pooling import Pooled
from segcal_cli.workflows.calibrators import CalibratedScores
from segcal_cli.workflows.joint_cases import JointCase

if TYPE_CHECKING:
    from segcal_cli.calibration.calibrator import Calibrator


@dataclass(frozen=True, slots=True)
class Measured:
    """Case id -> source -> measures, slim; source -> counts of all cases."""

    cases: Mapping[str, Mapping[str, CaseMeasures]] = field(default_factory=dict)
    pooled: Mapping[str, Pooled] = field(default_factory=dict)

    def of(self, source: str) -> list[CaseMeasures]:
        """Measures of one source, by case id."""
        return [self.cases[case][source] for case in sorted(self.cases, key=str.encode)]


@dataclass(frozen=True, slots=True)
class Measurement:
    """The estimator. calibrators: source name -> calibrator, None for predictions as they are, in order of the table.

    others: names of the sources that joint cases hold besides. threads_alone: instead of ``threads`` while no other
    case is decoded.
    """

    calibrators: Mapping[str, Calibrator | None]
    settings: Settings
    threads: int = 1
    others: tuple[str, ...] = ()
    threads_alone: int = 1

    def empty(self) -> Measured:
        return Measured()

    def update(self, state: Measured, case: Case | JointCase) -> Measured:
        """Raises NoTruth, NothingToMeasure."""
        first, *rest = case.cases if isinstance(case, JointCase) else (case,)
        found = self._measured(first)
        for name, other in zip(self.others, rest, strict=True):
            found |= self._measure(other, {name: _raw(other)})
        one = Measured(
            {case.id: {name: measures.slim() for name, measures in found.items()}},
            {name: measures.pooled for name, measures in found.items()},
        )
        return self.merge(state, one)

    def merge(self, a: Measured, b: Measured) -> Measured:
        pooled = {
            name: a.pooled[name] + b.pooled[name] if name in a.pooled and name in b.pooled else table
            for name, table in {**a.pooled, **b.pooled}.items()
        }
        return Measured({**a.cases, **b.cases}, pooled)

    def require_state(self, state: Measured, cases: AbstractSet[str]) -> None:
        """See ``core/estimator.py``."""
        sources = [*self.calibrators, *self.others]
        if cases and set(state.pooled) != set(sources):
            raise OtherType("state", f"of {', '.join(sources)}")
        for table in state.pooled.values():
            table.require_shapes(self.settings.grid, cells=True)
        for case, found in state.cases.items():
            if set(found) != set(sources):
                raise OtherType(f"the measures of {case}", f"of {', '.join(sources)}")
            for name, measures in found.items():
                measures.require_slim(case, state.pooled[name], self.settings)

    def finish(self, state: Measured) -> Measured:
        return state

    def _measure(self, case: Case, sources: Mapping[str, Source]) -> dict[str, CaseMeasures]:
        threads = max(self.threads, self.threads_alone) if ALONE.get() else self.threads
        return with_kde(measure_case(case, sources, self.settings, threads), case, sources, self.settings)

    def _measured(self, case: Case) -> dict[str, CaseMeasures]:
        """Every calibrator's measures: in one go, but for those that look at neighbours, which change the volume."""
        volume = case.volume
        sources: dict[str, Source] = {}
        apart: dict[str, CaseMeasures] = {}
        for name, calibrator in self.calibrators.items():
            if calibrator is None:
                sources[name] = _raw(case)
                continue
            single, given = calibrator.pointwise(volume)
            source = CalibratedScores(single, given.values, given.stored)
            if given is volume:
                sources[name] = source
            else:
                apart |= self._measure(replace(case, volume=given), {name: source})
        found = apart | (self._measure(case, sources) if sources else {})
        return {name: found[name] for name in self.calibrators}


def _raw(case: Case) -> Source:
    volume = case.volume
    return partial(counted_scores, values=volume.values, stored=volume.stored, exclusive=case.space.exclusive)
