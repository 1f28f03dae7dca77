"""Rivals: several methods fitted to the same cases, each only as far as measuring it on new patients asks for.

A comparison needs no calibrator of all patients, no interval and no exact passes: only, for every method and fold, the
parameters found without that fold. Those come from the statistics of one reading of the cases, and methods that stand
on the same statistics share them. A network is trained anew for every fold.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import field, replace

from segcal_cli.calibration import ensemble, fine_tuning, local, temperature
from segcal_cli.calibration.canonical import kind_of, problem_names
from segcal_cli.calibration.equipment import NOTHING, Equipment
from segcal_cli.calibration.fit import FitState, OtherValues, refuse_unfittable
from segcal_cli.calibration.fitting import fit, partition
from segcal_cli.calibration.local_pass import fold_networks
from segcal_cli.calibration.method import Family
from segcal_cli.calibration.models import model_of, sampled_by
from segcal_cli.calibration.patients import Patients
from segcal_cli.calibration.registry import METHODS, methods_for
from segcal_cli.calibration.result import FoldCalibrators, Unmeasured
from segcal_cli.calibration.sampled import fit_sample, prepared
from segcal_cli.calibration.spec import FitSpec
from segcal_cli.calibration.statistics import Sampled, TwiceTheSameCase, statistics_of
from segcal_cli.calibration.tiles import tiles_of
from segcal_cli.core.case import Case
from segcal_cli.core.errors import FitError
from segcal_cli.core.frozen import dataclass
from segcal_cli.core.labels import LabelSpace
from segcal_cli.core.volume import Values

APART = {ensemble.METHOD.name: "the members as they are joined are the row raw"}
"""Methods that are not compared, and what to do instead."""

ON_REQUEST = {
    fine_tuning.METHOD.name: "it needs --features and --last-layer",
    local.METHOD.name: "a network is trained for every fold; give --images, or name it in --methods",
}
"""Methods that are compared where they are named, or where what they need is given."""


def rivals_for(space: LabelSpace, values: Values) -> tuple[str, ...]:
    """Names of the methods that can be compared on such predictions; an ensemble by itself is what they start from."""
    kind = kind_of(space)
    return tuple(name for name in methods_for(kind) if name not in APART and METHODS[name].only in (None, values))


def usual_rivals(space: LabelSpace, values: Values) -> tuple[str, ...]:
    """Those of them that need nothing but predictions and seconds."""
    return tuple(name for name in rivals_for(space, values) if name not in ON_REQUEST)


@dataclass(frozen=True, slots=True)
class Rivals:
    """What all methods came to. methods: name -> its calibrators by fold. left_out: name -> why it could not be fitted.

    folds: 0 where patients were measured with parameters that they had a part in.
    """

    methods: Mapping[str, FoldCalibrators]
    left_out: Mapping[str, str]
    folds: int


@dataclass(frozen=True, slots=True)
class RivalState:
    """Which statistics -> the statistics of every case."""

    kinds: Mapping[int, FitState] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class RivalFits:
    """The estimator. specs: name -> what is fitted. Raises UnknownMethod, BadOption, TooManyBranches, LayerNeeded."""

    specs: Mapping[str, FitSpec]
    space: LabelSpace
    values: Values
    threads: int = 1
    equipment: Equipment = NOTHING

    def __post_init__(self) -> None:
        for spec in self.specs.values():
            spec.check(self.space, self.values)

    def empty(self) -> RivalState:
        return RivalState({i: FitState() for i in range(len(self._kinds()))})

    def update(self, state: RivalState, case: Case) -> RivalState:
        """Raises NoTruthToFit, NothingToFit, OtherValues, TwiceTheSameCase."""
        if case.volume.values != self.values:
            raise OtherValues(case.id, case.volume.values, self.values)
        one = {}
        for i, (family, sampled) in enumerate(self._kinds()):
            read = statistics_of(case, family, squares=False, threads=self.threads, sampled=sampled)
            one[i] = FitState({case.id: read})
        for spec in self.specs.values():
            if spec.family(self.space) == "network":
                i = self._kinds().index(self._kind(spec))
                tiles = tiles_of(case, spec.surroundings, spec.seed)
                one[i] = FitState({case.id: replace(one[i].cases[case.id], tiles=tiles)})
        return self.merge(state, RivalState(one))

    def merge(self, a: RivalState, b: RivalState) -> RivalState:
        """Raises TwiceTheSameCase."""
        merged = {}
        for i, of in a.kinds.items():
            for case in sorted(set(of.cases) & set(b.kinds[i].cases)):
                raise TwiceTheSameCase(case)
            merged[i] = FitState({**of.cases, **b.kinds[i].cases})
        return RivalState(merged)

    def finish(self, state: RivalState) -> Rivals:
        """Raises NothingGiven, AllConstant, AllHard; FitError of the first method if no method can be fitted."""
        kinds = self._kinds()
        methods: dict[str, FoldCalibrators] = {}
        errors: dict[str, FitError] = {}
        folds = 0
        for name, spec in self.specs.items():
            cases = list(state.kinds[kinds.index(self._kind(spec))].cases.values())
            refuse_unfittable(cases)
            patients = Patients.of(cases, spec.weight)
            folds, _, _ = partition(patients, spec)
            try:
                methods[name] = self._calibrators(spec, patients)
            except FitError as error:
                errors[name] = error
        if not methods:
            raise next(iter(errors.values()))
        return Rivals(methods, {name: str(error) for name, error in errors.items()}, folds)

    def _calibrators(self, spec: FitSpec, patients: Patients) -> FoldCalibrators:
        if spec.family(self.space) == "network":
            return fold_networks(patients, spec, self.space, self.equipment)
        model = model_of(spec, self.space, self.values, self.equipment)
        if model is None:
            found = fit(patients, spec, self.space, intervals=False)
        else:
            found = fit_sample(patients, spec, prepared(model, patients), problem_names(self.space))
        fitted = Unmeasured(spec, self.space, self.values, patients, found, equipment=self.equipment)
        return fitted.fold_calibrators()

    def _kinds(self) -> list[tuple[Family, Sampled | None]]:
        """The kinds of statistics that are needed, each once."""
        kinds = []
        for spec in self.specs.values():
            if self._kind(spec) not in kinds:
                kinds.append(self._kind(spec))
        return kinds

    def _kind(self, spec: FitSpec) -> tuple[Family, Sampled | None]:
        family = spec.family(self.space)
        if family == "network":  # beside tiles, what its temperature needs
            return temperature.METHOD.families[kind_of(self.space)], None
        return family, sampled_by(spec, self.space, self.values, self.equipment)
