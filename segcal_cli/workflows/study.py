"""Studies: every source of a run measured on the same cases. What ``evaluate`` tabulates and ``reliability`` draws.

A source is PREDICTIONS as they are, PREDICTIONS through an artifact, or another folder with predictions of the same
cases. A study comes from images, or from the counts that an earlier run saved.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from segcal_cli.core.errors import UsageError
from segcal_cli.core.labels import LabelSpace
from segcal_cli.core.observer import Observer
from segcal_cli.core.volume import Values
from segcal_cli.execution.engine import Plan, failure_records, run_estimator
from segcal_cli.io.artifacts import read_artifact
from segcal_cli.io.checks import OnlyHardMasks
from segcal_cli.metrics.counting import WHOLE
from segcal_cli.metrics.selection import needs_soft
from segcal_cli.workflows.calibrators import (
    CalibratorTransform,
    Loaded,
    LoadedCalibrator,
    load_calibrator,
    loaded_calibrator,
    refuse_misfit,
)
from segcal_cli.workflows.conventions import NEEDS_ROI, RegionNeeded, intervals_of, settings_of
from segcal_cli.workflows.inputs import open_inputs, reading_spec
from segcal_cli.workflows.joint_cases import Folder, JointReader, join, parse_folder
from segcal_cli.workflows.judged import Judged, Verdict, judged_artifact
from segcal_cli.workflows.measure_tables import Evaluation, SourceResult
from segcal_cli.workflows.measurement import Measured, Measurement
from segcal_cli.workflows.requests import (
    IntervalOptions,
    JudgeOptions,
    LabelOptions,
    MeasureOptions,
    PredictionOptions,
    RunOptions,
    SourceOptions,
)
from segcal_cli.workflows.running import import_ahead, jobs_of, threads_of
from segcal_cli.workflows.together import Together
from segcal_cli.workflows.tracing import WithFacts, duplicates, hint_at_groups, refuse_hard, refuse_seen, report_facts

SOURCES = "(sources)"
"""What the measurement of the sources is called among the estimators of a pass; no artifact may be called so."""

if TYPE_CHECKING:
    from segcal_cli.calibration.calibrator import Calibrator

FIRST = "raw"
"""The name of the first source where none is given."""


class NothingToCompare(UsageError):
    """No source is left."""

    template = "--no-raw leaves nothing to measure; give --artifact or --also"


class SourceNamedTwice(UsageError):
    """Two sources of one name."""

    template = "two sources are called {0}; name them with --name, --artifact NAME=FILE or --also NAME=FOLDER"


@dataclass(frozen=True, slots=True)
class NamedArtifact:
    """An artifact of the command line: the source's name, and the calibrator."""

    name: str
    loaded: LoadedCalibrator


@dataclass(frozen=True, slots=True)
class Study:
    """What was measured, of which inputs. digests: case id -> sha256 of the first folder's prediction, or "".

    artifacts: name of each artifact's file -> its sha256. verdicts: of artifacts that are no sources.
    """

    evaluation: Evaluation
    values: Values
    digests: Mapping[str, str]
    failures: tuple[dict[str, str], ...] = ()
    artifacts: Mapping[str, str] = field(default_factory=dict)
    verdicts: tuple[Verdict, ...] = ()


def measure(
    predictions: Path,
    labels: Path,
    sourcing: SourceOptions,
    measuring: MeasureOptions,
    drawing: IntervalOptions,
    reading: PredictionOptions,
    truth: LabelOptions,
    running: RunOptions,
    observer: Observer,
    *,
    with_digests: bool = False,
    judging: JudgeOptions | None = None,
) -> Study:
    """Measure every source of a study. with_digests: hash what is read even if nothing is compared with it. judging:
    how artifacts that are no sources are judged.

    Raises what reading and measuring raise.
    """
    settings, intervals = settings_of(measuring, drawing.seed), intervals_of(drawing)
    if measuring.convention in NEEDS_ROI and truth.roi is None and reading.cases is None:
        raise RegionNeeded(measuring.convention)
    soft = needs_soft(settings.metrics)
    folders = [parse_folder(text) for text in sourcing.also]
    named, judged = named_artifacts(sourcing.artifact)
    first = FIRST if sourcing.name is None else sourcing.name
    _check_names([*([first] if sourcing.raw else []), *(e.name for e in named), *(f.name for f in folders)])
    before = None if reading.calibrator is None else load_calibrator(reading.calibrator, "--calibrator")

    inputs = open_inputs(predictions, labels, reading, truth, observer, volumes=True, hard=not soft, regions=True)
    joint, opening_failures = join(inputs, first, folders, reading, truth, observer, hard=not soft)
    plan = Plan(jobs_of(running), running.on_failure or "stop")
    if plan.on_failure == "stop" or not joint:
        replace(inputs, failures=tuple(opening_failures)).require_all()
    roi = any(source.first.truth is not None and source.first.truth.roi is not None for source in joint)
    if measuring.convention in NEEDS_ROI and not roi:
        raise RegionNeeded(measuring.convention)
    who = [(source.id, source.group) for source in joint]
    loaded: list[Loaded] = [*(entry.loaded for entry in named), *([] if before is None else [before]), *judged]
    _check_artifacts(named, before, predictions, folders, inputs.space, inputs.values, inputs.reading)
    for one in loaded:
        hint_at_groups(one.artifact, one.path, who, reading.groups, observer)
        refuse_seen(one.artifact, one.path, who, {}, allow=sourcing.allow_overlap)

    calibrators: dict[str, Calibrator | None] = {first: None} if sourcing.raw else {}
    calibrators |= {entry.name: entry.loaded.calibrator for entry in named}
    others = tuple(folder.name for folder in folders)
    fitted = [entry.loaded for entry in named]
    promises = {
        one.name: one.estimator(predictions, inputs, inputs.reading, before, fitted, judging or JudgeOptions())
        for one in judged
    }
    measurement = Measurement(calibrators, settings, threads_of(plan.jobs), others)
    estimator = WithFacts(Together({SOURCES: measurement, **promises}))
    transform = None if before is None else CalibratorTransform(before.calibrator)
    # One case cannot be a copy of another, nor have been fitted on if there is nothing fitted.
    hashed = with_digests or bool(loaded)
    summed = not hashed and len(who) > 1
    reader = JointReader(inputs.reader(with_digest=hashed, transform=transform, with_checksum=summed), transform)
    import_ahead("scipy.optimize")
    traced, failures = run_estimator(estimator, reader, joint, plan, observer, "measuring")
    report_facts(traced.facts, observer)
    measured: Measured = traced.result[SOURCES]
    if soft:
        refuse_hard(traced.facts, inputs.v1_files)
        _refuse_hard_sources(measured, others)
    for copy in duplicates(traced.facts):
        observer.warn(str(copy))
    digests = {case: fact.digest for case, fact in traced.facts.items()}
    in_sample = {
        str(one.path): refuse_seen(one.artifact, one.path, who, digests, allow=sourcing.allow_overlap) for one in loaded
    }
    under = before is not None and in_sample[str(before.path)]
    files = {entry.name: entry.loaded.path for entry in named}
    sources = [
        SourceResult(
            name=name,
            artifact=files[name].name if name in files else None,
            in_sample=under or (name in files and in_sample[str(files[name])]),
            cases=measured.of(name),
            pooled=measured.pooled[name],
        )
        for name in (*calibrators, *others)
    ]
    evaluation = Evaluation(inputs.space, settings, sources, roi, intervals, measuring.convention)
    seen = {entry.loaded.artifact.digest for entry in named if in_sample[str(entry.loaded.path)]}
    verdicts = tuple(
        Verdict(
            one,
            traced.result[one.name],
            under or in_sample[str(one.path)] or one.artifact.header.spec.get("calibrator") in seen,
        )
        for one in judged
    )
    return Study(
        evaluation,
        inputs.values,
        digests,
        tuple(failure_records([*opening_failures, *failures])),
        {one.path.name: one.artifact.digest for one in loaded},
        verdicts,
    )


def say(evaluation: Evaluation, observer: Observer) -> None:
    """What a reader of the numbers has to know: classes that no label holds, patients too few for a test."""
    first = evaluation.sources[0].cases
    for name in first[0].classes if first else ():
        if all(case.classes[name]["n_label"] == 0 for case in first):
            observer.warn(f"class {name} occurs in no label")
    if evaluation.n_groups == 1:
        observer.note("one patient: no standard deviation, no interval and no comparison")


def named_artifacts(texts: Iterable[str]) -> tuple[list[NamedArtifact], list[Judged]]:
    """The artifacts of ``[NAME=]FILE``, without a name the file's own: calibrators, which are sources, and others.

    Raises SourceNamedTwice for two others of one name, and what reading artifacts raises.
    """
    named, judged = [], []
    for text in texts:
        name, mark, file = text.partition("=")
        if not mark or Path(text).exists():
            name, file = Path(text).name.removesuffix(".npz"), text
        artifact = read_artifact(Path(file))
        if artifact.header.kind == "calibrate":
            named.append(NamedArtifact(name, loaded_calibrator(Path(file), artifact)))
        else:
            judged.append(judged_artifact(name, Path(file), artifact))
    names = [one.name for one in judged]
    for name in names:
        if names.count(name) > 1 or name == SOURCES:
            raise SourceNamedTwice(name)
    return named, judged


def _check_names(names: Sequence[str]) -> None:
    if not names:
        raise NothingToCompare
    for name in names:
        if names.count(name) > 1:
            raise SourceNamedTwice(name)


def _check_artifacts(
    named: Sequence[NamedArtifact],
    before: LoadedCalibrator | None,
    predictions: Path,
    folders: Sequence[Folder],
    space: LabelSpace,
    values: Values,
    reading: PredictionOptions,
) -> None:
    """Raise DoesNotFit for an artifact that was fitted on something else than it is applied to here."""
    if before is not None:
        for folder in (predictions, *(folder.path for folder in folders)):
            refuse_misfit(before, folder, space, values, reading_spec(reading, None, None))
    spec: dict[str, Any] = reading_spec(reading, None, None if before is None else before.artifact)
    for entry in named:
        refuse_misfit(entry.loaded, predictions, space, values, spec)


def _refuse_hard_sources(measured: Measured, names: Iterable[str]) -> None:
    """Raise OnlyHardMasks for a folder without a value strictly inside (0, 1)."""
    for name in names:
        pooled = measured.pooled[name]
        exact = pooled.whole[:, WHOLE.index("at_zero")] + pooled.whole[:, WHOLE.index("at_one")]
        if np.array_equal(exact, pooled.n.sum(axis=-1)):
            raise OnlyHardMasks(len(measured.cases))
