"""The fit as an estimator: one pass over the cases for the parameters, a second where a summary needs it.

``update`` reduces a case to the statistics of its family, ``merge`` joins cases, ``finish`` solves: on all patients
for the calibrator, on all but one fold for the summary, on resamples of patients for the intervals.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import field, replace

from segcal_cli.calibration import fine_tuning, platt, temperature
from segcal_cli.calibration.canonical import kind_of, problem_names
from segcal_cli.calibration.equipment import NOTHING, Equipment
from segcal_cli.calibration.fitting import fit
from segcal_cli.calibration.local_pass import LocalPass, trained
from segcal_cli.calibration.measured import SummaryPass, measured
from segcal_cli.calibration.models import model_of, sampled_by
from segcal_cli.calibration.patients import Patients
from segcal_cli.calibration.recipes import slices_of
from segcal_cli.calibration.refining import RefinePass, first_refinement
from segcal_cli.calibration.result import FitResult, Unmeasured
from segcal_cli.calibration.sampled import fit_sample, prepared
from segcal_cli.calibration.spec import FitSpec
from segcal_cli.calibration.statistics import CaseStatistics, TwiceTheSameCase, statistics_of, whole_of
from segcal_cli.calibration.tiles import tiles_of
from segcal_cli.core.case import Case
from segcal_cli.core.errors import FitError, NoCaseError, VoxelError
from segcal_cli.core.frozen import dataclass
from segcal_cli.core.labels import LabelSpace
from segcal_cli.core.volume import Values


class NothingGiven(NoCaseError):
    """Not one case came."""

    template = "there is no case to fit"


class AllConstant(FitError):
    """No prediction varies."""

    template = "every prediction is constant; nothing can be fitted"


class AllHard(VoxelError):
    """No prediction has a value between 0 and 1."""

    template = "{0} of {0:prediction holds|predictions hold} only 0 and 1: hard masks, or a writer that rounded"


class OtherValues(FitError):
    """A case holds logits where others hold probabilities, or the reverse."""

    template = "{0}: holds {1}, and the fit is on {2}"


def refuse_unfittable(cases: Sequence[CaseStatistics]) -> None:
    """Raises NothingGiven, AllConstant, AllHard."""
    if not cases:
        raise NothingGiven
    if all(case.constant for case in cases):
        raise AllConstant
    if all(case.hard for case in cases):
        raise AllHard(len(cases))


@dataclass(frozen=True, slots=True)
class FitState:
    """Case id -> statistics. Grows by at most about 100 kB per case and class."""

    cases: Mapping[str, CaseStatistics] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class CalibrationFit:
    """The estimator of a fit. threads: do not change a digit. Raises UnknownMethod, BadOption, TooManyBranches."""

    spec: FitSpec
    space: LabelSpace
    values: Values
    threads: int = 1
    equipment: Equipment = NOTHING

    def __post_init__(self) -> None:
        self.spec.check(self.space, self.values)

    def empty(self) -> FitState:
        return FitState()

    def update(self, state: FitState, case: Case) -> FitState:
        """Raises NoTruthToFit, NothingToFit, OtherValues, TwiceTheSameCase."""
        if case.id in state.cases:
            raise TwiceTheSameCase(case.id)
        if case.volume.values != self.values:
            raise OtherValues(case.id, case.volume.values, self.values)
        family = self.spec.family(self.space)
        read = statistics_of(
            case,
            temperature.METHOD.families[kind_of(self.space)] if family == "network" else family,
            squares=self.spec.loss == "brier",
            threads=self.threads,
            sampled=sampled_by(self.spec, self.space, self.values, self.equipment),
        )
        if self.spec.optimiser == "adam":
            read = self._for_recipe(read, case)
        if family == "network":
            read = replace(read, tiles=tiles_of(case, self.spec.surroundings, self.spec.seed))
        return FitState({**state.cases, case.id: read})

    def _for_recipe(self, read: CaseStatistics, case: Case) -> CaseStatistics:
        """With what a published recipe steps on; a temperature has all that it needs."""
        spec = self.spec
        if spec.method == fine_tuning.METHOD.name:
            sampled = sampled_by(spec, self.space, self.values, self.equipment)
            assert sampled is not None, "features are sampled"
            return replace(read, whole=whole_of(case, spec.seed, sampled.features))
        if spec.method == temperature.METHOD.name:
            return read
        against_rest = spec.method == platt.METHOD.name
        return replace(read, slices=slices_of(case, spec.surroundings, spec.seed, against_rest=against_rest))

    def merge(self, a: FitState, b: FitState) -> FitState:
        """Raises TwiceTheSameCase."""
        for case in sorted(set(a.cases) & set(b.cases)):
            raise TwiceTheSameCase(case)
        return FitState({**a.cases, **b.cases})

    def finish(self, state: FitState) -> FitResult | SummaryPass | RefinePass | LocalPass:
        """The result, or the pass that completes it. Raises NothingGiven, AllConstant, AllHard, InvertedConfidence."""
        cases = list(state.cases.values())
        refuse_unfittable(cases)
        patients = Patients.of(cases, self.spec.weight)
        if self.spec.family(self.space) == "network":
            return trained(patients, self.spec, self.space, self.values, self.equipment, self.threads)
        model = model_of(self.spec, self.space, self.values, self.equipment)
        if model is None:
            pending = Unmeasured(self.spec, self.space, self.values, patients, fit(patients, self.spec, self.space))
        else:
            model = prepared(model, patients)
            fitted = fit_sample(patients, self.spec, model, problem_names(self.space))
            pending = Unmeasured(self.spec, self.space, self.values, patients, fitted, equipment=self.equipment)
            if self.spec.exact_passes:
                return first_refinement(pending, model, self.threads)
        return measured(pending, self.threads)
