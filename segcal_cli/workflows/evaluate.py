"""``evaluate``: predictions against labels, raw and through each artifact, on the same voxels, in one pass."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from segcal_cli.calibration.calibrator import Calibrator
from segcal_cli.core.errors import UsageError
from segcal_cli.core.labels import LabelSpace
from segcal_cli.core.observer import Observer
from segcal_cli.core.volume import Values
from segcal_cli.execution.engine import Plan, failure_records, run_estimator
from segcal_cli.io.atomic import write_text
from segcal_cli.io.outputs import refuse_existing
from segcal_cli.metrics.measures import Settings
from segcal_cli.reporting.tables import csv_text
from segcal_cli.workflows.calibrators import CalibratorTransform, LoadedCalibrator, load_calibrator, refuse_misfit
from segcal_cli.workflows.inputs import open_inputs, reading_spec
from segcal_cli.workflows.measure_tables import (
    SUMMARY_COLUMNS,
    TABLE_COLUMNS,
    Evaluation,
    SourceResult,
    evaluation_json,
    people_tables,
    summary_rows,
    table_rows,
)
from segcal_cli.workflows.measurement import Measurement
from segcal_cli.workflows.outcome import Counts, Outcome
from segcal_cli.workflows.requests import (
    EvaluateOptions,
    LabelOptions,
    MeasureOptions,
    OutputOptions,
    PredictionOptions,
    RunOptions,
)
from segcal_cli.workflows.running import jobs_of, threads_of
from segcal_cli.workflows.tracing import WithFacts, duplicates, refuse_hard, refuse_seen, report_facts


class NothingToMeasure(UsageError):
    """No source is left."""

    template = "--no-raw leaves nothing to measure; give --artifact"


class SourceNamedTwice(UsageError):
    """Two sources of one name."""

    template = "two sources are called {0}; name them with --name or --artifact NAME=FILE"


@dataclass(frozen=True, slots=True)
class NamedArtifact:
    """An artifact of the command line: the source's name, and the calibrator."""

    name: str
    loaded: LoadedCalibrator


def run(
    predictions: Path,
    labels: Path,
    output: Path,
    comparing: EvaluateOptions,
    measuring: MeasureOptions,
    reading: PredictionOptions,
    truth: LabelOptions,
    running: RunOptions,
    writing: OutputOptions,
    observer: Observer,
) -> Outcome:
    """Measure every source, write the tables. Raises what reading and measuring raise; then nothing is written."""
    settings = Settings(**asdict(measuring))
    outputs = [output, *([] if comparing.summary is None else [comparing.summary])]
    refuse_existing(outputs, overwrite=writing.overwrite)
    named = _named_artifacts(comparing)
    before = None if reading.calibrator is None else load_calibrator(reading.calibrator, "--calibrator")
    inputs = open_inputs(predictions, labels, reading, truth, observer, volumes=True)
    plan = Plan(jobs_of(running), running.on_failure or "stop")
    if plan.on_failure == "stop":
        inputs.require_all()
    who = [(source.id, source.group) for source in inputs.sources]
    loaded = [*(entry.loaded for entry in named), *([] if before is None else [before])]
    _check_artifacts(named, before, predictions, inputs.space, inputs.values, reading)
    for one in loaded:
        refuse_seen(one.artifact, one.path, who, {}, allow=comparing.allow_overlap)

    calibrators: dict[str, Calibrator | None] = {comparing.name: None} if comparing.raw else {}
    calibrators |= {entry.name: entry.loaded.calibrator for entry in named}
    estimator = WithFacts(Measurement(calibrators, settings, threads_of(plan.jobs)))
    reader = inputs.reader(
        # One case cannot be a copy of another, nor have been fitted on if there is nothing fitted.
        with_digest=len(who) > 1 or bool(loaded),
        transform=None if before is None else CalibratorTransform(before.calibrator),
    )
    traced, failures = run_estimator(estimator, reader, inputs.sources, plan, observer, "measuring")
    report_facts(traced.facts, observer)
    refuse_hard(traced.facts)
    for copy in duplicates(traced.facts):
        observer.warn(str(copy))
    digests = {case: fact.digest for case, fact in traced.facts.items()}
    in_sample = {
        str(one.path): refuse_seen(one.artifact, one.path, who, digests, allow=comparing.allow_overlap)
        for one in loaded
    }
    under = before is not None and in_sample[str(before.path)]
    failures = [*inputs.failures, *failures]

    measured = traced.result
    sources = [
        SourceResult(
            name=name,
            artifact=next((e.loaded.path.name for e in named if e.name == name), None),
            in_sample=under or next((in_sample[str(e.loaded.path)] for e in named if e.name == name), False),
            cases=measured.of(name),
            pooled=measured.pooled[name],
        )
        for name in calibrators
    ]
    evaluation = Evaluation(inputs.space, settings, sources, roi=truth.roi is not None)
    _warn_of_absent(evaluation, observer)
    write_text(output, csv_text(TABLE_COLUMNS, table_rows(evaluation)))
    if comparing.summary is not None:
        write_text(comparing.summary, csv_text(SUMMARY_COLUMNS, summary_rows(evaluation)))
    done = len(traced.facts)
    return Outcome(
        result=evaluation_json(evaluation),
        counts=Counts(done + len(failures), done, len(failures)),
        tables=tuple(people_tables(evaluation)),
        failures=tuple(failure_records(failures)),
    )


def _named_artifacts(comparing: EvaluateOptions) -> list[NamedArtifact]:
    """The artifacts of ``[NAME=]FILE``; without a name, the file's own."""
    named = []
    for text in comparing.artifact:
        name, mark, file = text.partition("=")
        if not mark or Path(text).exists():
            name, file = Path(text).name.removesuffix(".npz"), text
        named.append(NamedArtifact(name, load_calibrator(Path(file), "evaluate")))
    names = [*([comparing.name] if comparing.raw else []), *(entry.name for entry in named)]
    if not names:
        raise NothingToMeasure
    for name in names:
        if names.count(name) > 1:
            raise SourceNamedTwice(name)
    return named


def _check_artifacts(
    named: Sequence[NamedArtifact],
    before: LoadedCalibrator | None,
    predictions: Path,
    space: LabelSpace,
    values: Values,
    reading: PredictionOptions,
) -> None:
    """Raise DoesNotFit for an artifact that was fitted on something else than it is applied to here."""
    if before is not None:
        refuse_misfit(before, predictions, space, values, reading_spec(reading, None, None))
    spec: dict[str, Any] = reading_spec(reading, None, None if before is None else before.artifact)
    for entry in named:
        refuse_misfit(entry.loaded, predictions, space, values, spec)


def _warn_of_absent(evaluation: Evaluation, observer: Observer) -> None:
    """Say which classes no label holds: their Dice is undefined, their calibration error is that of an absent class."""
    first = evaluation.sources[0].cases
    for name in first[0].classes if first else ():
        if all(case.classes[name]["n_label"] == 0 for case in first):
            observer.warn(f"class {name} occurs in no label")
