"""``calibrate compare``: every method on the same patients, each measured where it was not fitted.

The table of Rousseau, Becker, Bertels, Blaschko, Valkenborg 2021, "Post training uncertainty calibration of deep
networks for medical image segmentation": overlap and calibration error of each method, means over patients, and which
of them chance cannot tell from the best. The cases are read twice: once for the statistics of all methods, from which
each is fitted without every fold in turn, and once to measure all of them, each patient through the calibrators that
have not seen it. ``fine-tune`` and ``local`` take part where what they look at is given, or where they are named.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from segcal_cli.calibration import fine_tuning, local
from segcal_cli.calibration.equipment import Equipment, LastLayer
from segcal_cli.calibration.registry import METHODS
from segcal_cli.calibration.rivals import APART, ON_REQUEST, RivalFits, Rivals, RivalState, rivals_for, usual_rivals
from segcal_cli.calibration.spec import OWN_OPTIONS, BadOption, FitSpec
from segcal_cli.core.case import Case
from segcal_cli.core.frozen import dataclass
from segcal_cli.core.labels import LabelSpace
from segcal_cli.core.observer import Observer
from segcal_cli.core.volume import Values
from segcal_cli.execution.engine import failure_records, run_estimator
from segcal_cli.io.atomic import write_text
from segcal_cli.io.case_files import same_predictions
from segcal_cli.io.companions import read_layer
from segcal_cli.io.outputs import refuse_existing, refuse_inside, refuse_read, require_file_place
from segcal_cli.io.problems import raise_all
from segcal_cli.metrics.measures import Settings
from segcal_cli.reporting.tables import csv_text
from segcal_cli.workflows.beside import (
    ALONE,
    ANYWHERE,
    OneModelOnly,
    companions_of,
    folders_of,
    needs_of,
    on,
    require_companions,
)
from segcal_cli.workflows.calibrate_fit import FeaturesToFit, Judge
from segcal_cli.workflows.calibrators import CalibratorTransform, LoadedCalibrator, load_calibrator, refuse_misfit
from segcal_cli.workflows.conventions import NEEDS_ROI, RegionNeeded, intervals_of, refuse_meaningless, settings_of
from segcal_cli.workflows.devices import device_of
from segcal_cli.workflows.idle_options import refuse_idle_measuring, refuse_overlap_alone
from segcal_cli.workflows.inputs import files_of, open_inputs, reading_spec
from segcal_cli.workflows.measure_document import evaluation_json
from segcal_cli.workflows.measure_tables import Evaluation, SourceResult
from segcal_cli.workflows.measurement import Measured, Measurement
from segcal_cli.workflows.method_table import columns_of, method_rows, people_table, shown_measures
from segcal_cli.workflows.outcome import Counts, Outcome
from segcal_cli.workflows.regions_of_interest import has_region
from segcal_cli.workflows.requests import (
    CalibrateCompareOptions,
    CompanionOptions,
    DeviceOptions,
    IntervalOptions,
    LabelOptions,
    MeasureOptions,
    OutputOptions,
    PredictionOptions,
    RunOptions,
)
from segcal_cli.workflows.running import plan_of, threads_of
from segcal_cli.workflows.tracing import WithFacts, refuse_seen, report_facts

RAW = "raw"
"""The predictions as they are: the first row of every table."""


@dataclass(frozen=True, slots=True)
class Compared:
    """What a comparison came to: the methods with their folds, and what was measured of each."""

    rivals: Rivals
    measured: Measured


@dataclass(frozen=True, slots=True)
class Fitting:
    """The first pass: the statistics of all methods."""

    fits: RivalFits
    settings: Settings
    threads: int

    def empty(self) -> RivalState:
        return self.fits.empty()

    def update(self, state: RivalState, case: Case) -> RivalState:
        return self.fits.update(state, case)

    def merge(self, a: RivalState, b: RivalState) -> RivalState:
        return self.fits.merge(a, b)

    def finish(self, state: RivalState) -> Measuring:
        return Measuring(self.fits.finish(state), self.settings, self.threads)


@dataclass(frozen=True, slots=True)
class Measuring:
    """The second pass: every method on every case, through calibrators that have not seen its patient."""

    rivals: Rivals
    settings: Settings
    threads: int

    def empty(self) -> Measured:
        return Measured()

    def update(self, state: Measured, case: Case) -> Measured:
        calibrators = {name: of.without(case.id) for name, of in self.rivals.methods.items()}
        return Measurement({RAW: None, **calibrators}, self.settings, self.threads).update(state, case)

    def merge(self, a: Measured, b: Measured) -> Measured:
        return Measurement({}, self.settings).merge(a, b)

    def finish(self, state: Measured) -> Compared:
        return Compared(self.rivals, state)


def run(
    predictions: Path,
    labels: Path,
    output: Path,
    comparing: CalibrateCompareOptions,
    measuring: MeasureOptions,
    drawing: IntervalOptions,
    reading: PredictionOptions,
    truth: LabelOptions,
    running: RunOptions,
    writing: OutputOptions,
    observer: Observer,
    beside: CompanionOptions = ALONE,
    device: DeviceOptions = ANYWHERE,
) -> Outcome:
    """Fit and measure every method, write the table. Raises what reading and fitting raise; then nothing is written."""
    refuse_inside(output, (predictions, labels, *map(Path, reading.member), *folders_of(beside)))
    refuse_read(output, {**files_of(reading), "--last-layer": comparing.last_layer})
    refuse_existing([output], overwrite=writing.overwrite)
    require_file_place(output)
    refuse_overlap_alone(comparing.allow_overlap, reading.calibrator is not None, "--calibrator")
    settings, intervals = settings_of(measuring, drawing.seed), intervals_of(drawing)
    refuse_idle_measuring(measuring, replace(drawing, seed=None), settings, intervals)  # samples have a seed too
    if measuring.convention in NEEDS_ROI and truth.roi is None and reading.cases is None:
        raise RegionNeeded(measuring.convention)
    before = None if reading.calibrator is None else load_calibrator(reading.calibrator, "--calibrator")
    extra = _on_request(comparing, reading, beside)
    equipment = _equipment(comparing, reading, beside, device, extra, before)
    before = None if before is None else on(before, equipment.device)
    needs = needs_of([] if before is None else [before])
    companions = companions_of(
        beside,
        reading,
        features=fine_tuning.METHOD.name in extra or needs["features"],
        images=local.METHOD.name in extra or needs["images"],
    )
    inputs = open_inputs(predictions, labels, reading, truth, observer)
    refuse_meaningless(measuring, inputs.space)
    plan = plan_of(running)
    if plan.on_failure == "stop":
        inputs.require_all()
    raise_all(same_predictions(inputs.files))
    require_companions(companions, inputs.sources)
    values = inputs.values
    who = [(source.id, source.group) for source in inputs.sources]
    if before is not None:
        refuse_misfit(before, predictions, inputs.space, values, reading_spec(inputs.reading, None, None))
        refuse_seen(before.artifact, before.path, who, {}, allow=comparing.allow_overlap)
        values = before.values_after
    roi = has_region(inputs.sources)
    threads = threads_of(plan)
    specs = specs_of(comparing, inputs.space, values, settings.seed, extra)
    for name in ON_REQUEST if comparing.methods is None else ():
        if name not in specs and name in rivals_for(inputs.space, values):
            observer.note(f"{name} is not compared: {ON_REQUEST[name]}")
    if local.METHOD.name in specs:
        observer.note("local: a network is trained for every fold once all cases have been read; it can take minutes")
    fits = RivalFits(specs, inputs.space, values, threads, equipment)
    estimator = WithFacts(Fitting(fits, settings, threads), judge=Judge(inputs.v1_files))
    transform = None if before is None else CalibratorTransform(before.calibrator)
    reader = inputs.reader(with_digest=True, transform=transform, companions=companions)
    traced, failures = run_estimator(estimator, reader, inputs.sources, plan, observer, "comparing")
    report_facts(traced.facts, observer)
    overlap = False
    if before is not None:
        digests = {case: fact.digest for case, fact in traced.facts.items()}
        overlap = refuse_seen(before.artifact, before.path, who, digests, allow=comparing.allow_overlap)
    compared: Compared = traced.result
    for name, reason in compared.rivals.left_out.items():
        observer.warn(f"{name} is left out: {reason}")
    evaluation = _evaluation(compared, inputs.space, settings, roi=roi, overlap=overlap)
    failed = [*inputs.failures, *failures]
    evaluation = replace(evaluation, intervals=intervals, convention=measuring.convention, left_out=len(failed))
    shown = shown_measures(settings, asked=measuring.metrics is not None)
    write_text(output, csv_text(columns_of(shown), method_rows(evaluation, shown)))
    done = len(traced.facts)
    return Outcome(
        result={
            "methods": list(compared.rivals.methods),
            "left_out": dict(compared.rivals.left_out),
            "folds": compared.rivals.folds,
            "evaluated_on": "cross-validation" if compared.rivals.folds else "in-sample",
            "table": list(method_rows(evaluation, shown)),
            **_document(evaluation),
        },
        counts=Counts(done + len(failed), done, len(failed)),
        tables=(people_table(evaluation, shown, compared.rivals.folds),),
        failures=tuple(failure_records(failed)),
    )


def _named(comparing: CalibrateCompareOptions) -> list[str] | None:
    """The methods that were asked for by name."""
    return None if comparing.methods is None else [name.strip() for name in comparing.methods.split(",")]


def _on_request(
    comparing: CalibrateCompareOptions, reading: PredictionOptions, beside: CompanionOptions
) -> tuple[str, ...]:
    """Which of the methods that need more than predictions take part: those named, else those whose needs are given."""
    named = _named(comparing)
    if named is not None:
        return tuple(name for name in ON_REQUEST if name in named)
    # Features alone may be those of the calibrator in front.
    tuned = comparing.last_layer is not None or (beside.features is not None and reading.calibrator is None)
    given = {fine_tuning.METHOD.name: tuned, local.METHOD.name: beside.images is not None}
    return tuple(name for name in ON_REQUEST if given[name])


def _equipment(
    comparing: CalibrateCompareOptions,
    reading: PredictionOptions,
    beside: CompanionOptions,
    device: DeviceOptions,
    extra: Sequence[str],
    before: LoadedCalibrator | None,
) -> Equipment:
    """What the fits have at hand. Raises BadOption, OneModelOnly, FeaturesToFit, LayerNeeded, NoCuda, DeviceUnused."""
    layer = None
    if fine_tuning.METHOD.name in extra:
        if reading.calibrator is not None:
            raise OneModelOnly("--calibrator")
        if beside.features is None:
            raise FeaturesToFit
        if comparing.last_layer is None:
            raise fine_tuning.LayerNeeded
        layer = LastLayer(*read_layer(comparing.last_layer))
    elif comparing.last_layer is not None:
        raise BadOption(
            "last-layer", comparing.last_layer, f"it is for {fine_tuning.METHOD.name}, which is not compared"
        )
    named = _named(comparing)
    heavy = named is None or any(name in METHODS and METHODS[name].on_gpu for name in named)
    heavy = heavy or (before is not None and before.calibrator.record.on_gpu)
    where = device_of(device, cpu_only=None if heavy else f"comparing {comparing.methods}")
    return Equipment(where, layer, beside.images is not None and local.METHOD.name in extra)


def specs_of(
    comparing: CalibrateCompareOptions,
    space: LabelSpace,
    values: Values,
    seed: int = 0,
    extra: Sequence[str] = (),
) -> dict[str, FitSpec]:
    """Method -> what is fitted; each with those of the methods' own options that it has. extra: methods that take part
    beside the usual ones, where none are named.

    Raises BadOption for methods named twice or not compared, and options that no compared method has; UnknownMethod
    comes with the fit.
    """
    names: Sequence[str] = (*usual_rivals(space, values), *extra)
    named = _named(comparing)
    if named is not None:
        names = named
        for name in names:
            if name not in METHODS:
                known = ", ".join(rivals_for(space, values))
                raise BadOption("methods", comparing.methods, f"{name or 'an empty name'} is none of {known}")
            if names.count(name) > 1:
                raise BadOption("methods", comparing.methods, f"{name} stands there twice")
            if name in APART:
                raise BadOption("methods", comparing.methods, f"{name} is not compared: {APART[name]}")
    given: Mapping[str, Any] = {
        name: getattr(comparing, name)
        for name in OWN_OPTIONS
        if hasattr(comparing, name) and getattr(comparing, name) != FitSpec.__dataclass_fields__[name].default
    }
    for option, value in given.items():
        owners = [name for name, record in METHODS.items() if option in record.options]
        if not set(owners) & set(names):
            raise BadOption(option.replace("_", "-"), value, f"it is for {', '.join(owners)}, which is not compared")
    return {
        name: FitSpec(
            method=name,
            weight=comparing.weight,
            nesting=comparing.nesting,
            folds=comparing.folds,
            seed=seed,
            **{option: value for option, value in given.items() if option in METHODS[name].options},
        )
        for name in names
    }


def _evaluation(compared: Compared, space: LabelSpace, settings: Settings, *, roi: bool, overlap: bool) -> Evaluation:
    """Every method as a source of one evaluation; in-sample ones are marked."""
    measured = compared.measured
    sources = [
        SourceResult(
            name=name,
            artifact=None,
            in_sample=overlap or (name != RAW and not compared.rivals.folds),
            cases=measured.of(name),
            pooled=measured.pooled[name],
        )
        for name in (RAW, *compared.rivals.methods)
    ]
    return Evaluation(space, settings, sources, roi)


def _document(evaluation: Evaluation) -> dict[str, Any]:
    """What ``evaluate`` says of sources, without the artifacts that there are none of."""
    document = evaluation_json(evaluation)
    for source in document["sources"]:
        del source["artifact"], source["artifact_reason"]
    return document
