"""Studies: every source of a run measured on the same cases. What ``evaluate`` tabulates and ``reliability`` draws.

A source is PREDICTIONS as they are, PREDICTIONS through an artifact, or another folder with predictions of the same
cases. A study comes from images, or from the counts that an earlier run saved.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from segcal_cli.core.errors import UsageError, count_text
from segcal_cli.core.estimator import Estimator
from segcal_cli.core.frozen import dataclass
from segcal_cli.core.labels import LabelSpace
from segcal_cli.core.observer import Observer
from segcal_cli.core.volume import Values
from segcal_cli.execution.engine import Plan, failure_records, run_estimator
from segcal_cli.execution.work import Result
from segcal_cli.io.artifacts import read_artifact
from segcal_cli.io.checks import OnlyHardMasks
from segcal_cli.metrics.counting import WHOLE
from segcal_cli.metrics.measures import Settings
from segcal_cli.metrics.selection import needs_soft
from segcal_cli.workflows.beside import companions_of, needs_of, on, require_companions
from segcal_cli.workflows.calibrators import (
    CalibratorTransform,
    Loaded,
    LoadedCalibrator,
    load_calibrator,
    loaded_calibrator,
    refuse_misfit,
)
from segcal_cli.workflows.conventions import (
    NEEDS_ROI,
    Intervals,
    RegionNeeded,
    intervals_of,
    refuse_meaningless,
    settings_of,
)
from segcal_cli.workflows.devices import device_of
from segcal_cli.workflows.idle_options import refuse_idle_measuring, refuse_overlap_alone
from segcal_cli.workflows.inputs import Inputs, open_inputs, reading_spec
from segcal_cli.workflows.joint_cases import Folder, JointReader, JointSource, join, parse_folder
from segcal_cli.workflows.judged import Judged, Verdict, judged_artifact
from segcal_cli.workflows.measure_tables import Evaluation, SourceResult
from segcal_cli.workflows.measurement import Measured, Measurement
from segcal_cli.workflows.requests import PredictionOptions, StudyRequest
from segcal_cli.workflows.running import plan_of, threads_of
from segcal_cli.workflows.together import Together
from segcal_cli.workflows.tracing import (
    Traced,
    WithFacts,
    duplicates,
    hint_at_groups,
    refuse_hard,
    refuse_seen,
    report_facts,
)

SOURCES = "(sources)"
"""What the measurement of the sources is called among the estimators of a pass; no artifact may be called so."""

MEASURING = "measuring"
"""What a progress bar calls the pass."""

if TYPE_CHECKING:
    from segcal_cli.calibration.calibrator import Calibrator

FIRST = "raw"
"""The name of the first source where none is given."""


class ImagesNeeded(UsageError):
    """Neither images nor saved measures, or both."""

    template = "give either PREDICTIONS and LABELS, or --from FILE.npz"


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


@dataclass(frozen=True, slots=True)
class StudyRest:
    """What remains of a study once all cases have been measured.

    soft: probabilities were asked for. others: names of the other folders. calibrated: names of the first folder's
    sources, in order. who: id and group of every case. before: the calibrator in front of everything. v1_files: see
    ``refuse_hard``.
    """

    space: LabelSpace
    values: Values
    settings: Settings
    intervals: Intervals
    roi: bool
    convention: str | None
    soft: bool
    calibrated: tuple[str, ...]
    others: tuple[str, ...]
    who: tuple[tuple[str, str], ...]
    named: tuple[NamedArtifact, ...]
    judged: tuple[Judged, ...]
    before: LoadedCalibrator | None
    allow_overlap: bool
    v1_files: Mapping[str, Path]

    def study(self, traced: Traced, failures: Sequence[Result], observer: Observer) -> Study:
        """Raises OnlyHardMasks, RoundedSoftmax, SeenCases."""
        report_facts(traced.facts, observer)
        measured: Measured = traced.result[SOURCES]
        if self.soft:
            refuse_hard(traced.facts, self.v1_files)
            _refuse_hard_sources(measured, self.others)
        for copy in duplicates(traced.facts):
            observer.warn(str(copy))
        digests = {case: fact.digest for case, fact in traced.facts.items()}
        seen = [refuse_seen(one.artifact, one.path, self.who, digests, allow=self.allow_overlap) for one in self.loaded]
        fitted = dict(zip((entry.name for entry in self.named), seen, strict=False))
        under = self.before is not None and seen[len(self.named)]
        files = {entry.name: entry.loaded.path.name for entry in self.named}
        sources = [
            SourceResult(
                name=name,
                artifact=files.get(name),
                in_sample=under or fitted.get(name, False),
                cases=measured.of(name),
                pooled=measured.pooled[name],
            )
            for name in (*self.calibrated, *self.others)
        ]
        promised = zip(self.judged, seen[len(seen) - len(self.judged) :], strict=True)
        # What was fitted through a calibrator knows no more of new cases than this one does.
        through = {entry.loaded.artifact.digest for entry in self.named if fitted[entry.name]}
        return Study(
            Evaluation(self.space, self.settings, sources, self.roi, self.intervals, self.convention),
            self.values,
            digests,
            tuple(failure_records(failures)),
            {one.path.name: one.artifact.digest for one in self.loaded},
            tuple(
                Verdict(
                    one,
                    traced.result[one.name],
                    under or known or one.artifact.header.spec.get("calibrator") in through,
                )
                for one, known in promised
            ),
        )

    @property
    def loaded(self) -> list[Loaded]:
        """Every artifact: sources, the calibrator in front of them, the judged ones."""
        before = [] if self.before is None else [self.before]
        return [*(entry.loaded for entry in self.named), *before, *self.judged]


@dataclass(frozen=True, slots=True)
class Preparation:
    """A study before its cases are measured."""

    estimator: Estimator
    reader: JointReader
    joint: tuple[JointSource, ...]
    failures: tuple[Result, ...]
    inputs: Inputs
    plan: Plan
    rest: StudyRest


def measure(request: StudyRequest, observer: Observer, *, with_digests: bool = False) -> Study:
    """Measure every source of a study. Raises what preparing, reading and measuring raise."""
    ready = prepare(request, observer, with_digests=with_digests)
    traced, failures = run_estimator(ready.estimator, ready.reader, ready.joint, ready.plan, observer, MEASURING)
    return ready.rest.study(traced, [*ready.failures, *failures], observer)


def prepare(request: StudyRequest, observer: Observer, *, with_digests: bool = False) -> Preparation:
    """Open every case and artifact of a study. with_digests: hash what is read even if nothing is compared with it.

    Raises ImagesNeeded, and what finding and opening raise.
    """
    predictions, labels = request.predictions, request.labels
    if predictions is None or labels is None:
        raise ImagesNeeded
    sourcing, reading, truth = request.sourcing, request.reading, request.truth
    measuring, drawing = request.measuring, request.drawing
    plan = plan_of(request.running)
    settings, intervals = settings_of(measuring, drawing.seed), intervals_of(drawing)
    refuse_idle_measuring(measuring, drawing, settings, intervals)
    seen_by = bool(sourcing.artifact) or reading.calibrator is not None
    refuse_overlap_alone(sourcing.allow_overlap, seen_by, "--artifact or --calibrator")
    if measuring.convention in NEEDS_ROI and truth.roi is None and reading.cases is None:
        raise RegionNeeded(measuring.convention)
    soft = needs_soft(settings.metrics)
    folders = [parse_folder(text) for text in sourcing.also]
    named, judged = named_artifacts(sourcing.artifact)
    first = FIRST if sourcing.name is None else sourcing.name
    _check_names([*([first] if sourcing.raw else []), *(e.name for e in named), *(f.name for f in folders)])
    before = None if reading.calibrator is None else load_calibrator(reading.calibrator, "--calibrator")
    fitted = [entry.loaded for entry in named]
    heavy = [one.calibrator.record.on_gpu for one in [*fitted, *([] if before is None else [before])]]
    where = device_of(request.device, cpu_only=None if any(heavy) else "measuring without such a calibrator")
    named = [replace(entry, loaded=on(entry.loaded, where)) for entry in named]
    before = None if before is None else on(before, where)
    fitted = [entry.loaded for entry in named]
    companions = companions_of(request.along, reading, **needs_of([*fitted, *([] if before is None else [before])]))

    inputs = open_inputs(
        predictions, labels, reading, truth, observer, volumes=True, hard=not soft, regions=True,
        also=bool(folders),
    )  # fmt: skip
    refuse_meaningless(measuring, inputs.space)
    require_companions(companions, inputs.sources)
    joint, opening_failures = join(inputs, first, folders, reading, truth, observer, hard=not soft)
    if plan.on_failure == "stop" or not joint:
        replace(inputs, failures=tuple(opening_failures)).require_all()
    roi = any(source.first.truth is not None and source.first.truth.roi is not None for source in joint)
    if measuring.convention in NEEDS_ROI and not roi:
        raise RegionNeeded(measuring.convention)
    calibrators: dict[str, Calibrator | None] = {first: None} if sourcing.raw else {}
    calibrators |= {entry.name: entry.loaded.calibrator for entry in named}
    rest = StudyRest(
        space=inputs.space,
        values=inputs.values,
        settings=settings,
        intervals=intervals,
        roi=roi,
        convention=measuring.convention,
        soft=soft,
        calibrated=tuple(calibrators),
        others=tuple(folder.name for folder in folders),
        who=tuple((source.id, source.group) for source in joint),
        named=tuple(named),
        judged=tuple(judged),
        before=before,
        allow_overlap=sourcing.allow_overlap,
        v1_files=inputs.v1_files,
    )
    _check_artifacts(named, before, predictions, folders, inputs.space, inputs.values, inputs.reading)
    for one in rest.loaded:
        hint_at_groups(one.artifact, one.path, rest.who, reading.groups, observer)
        refuse_seen(one.artifact, one.path, rest.who, {}, allow=sourcing.allow_overlap)

    promises = {
        one.name: one.estimator(predictions, inputs, inputs.reading, before, fitted, request.judging) for one in judged
    }
    # Measuring one source takes about as long as decoding, which is to have a core of its own while cases follow.
    decoding = int(len(joint) > 1 and len(calibrators) + len(rest.others) == 1)
    threads, alone = threads_of(plan, spare=decoding), threads_of(plan)
    measurement = Measurement(calibrators, settings, threads, rest.others, alone)
    transform = None if before is None else CalibratorTransform(before.calibrator)
    # One case cannot be a copy of another, nor have been fitted on if there is nothing fitted.
    hashed = with_digests or bool(rest.loaded)
    summed = not hashed and len(rest.who) > 1
    return Preparation(
        WithFacts(Together({SOURCES: measurement, **promises})),
        JointReader(
            inputs.reader(with_digest=hashed, transform=transform, with_checksum=summed, companions=companions),
            transform,
        ),
        joint,
        tuple(opening_failures),
        inputs,
        plan,
        rest,
    )


def say(evaluation: Evaluation, values: Values, observer: Observer) -> None:
    """What a reader of the numbers has to know: classes that no label holds, log losses that the stored type decides,
    patients too few for a test. values: what the predictions hold."""
    first = evaluation.sources[0].cases
    for name in first[0].classes if first else ():
        if all(case.classes[name]["n_label"] == 0 for case in first):
            observer.warn(f"class {name} occurs in no label")
    for source in evaluation.sources:
        at_floor = floor_warning(source, evaluation, values)
        if at_floor:
            observer.warn(at_floor)
    if evaluation.n_groups == 1:
        observer.note("one patient: no standard deviation, no interval and no comparison")


def floor_warning(source: SourceResult, evaluation: Evaluation, values: Values) -> str | None:
    """What to say of voxels whose stored probability excludes what is true; None if there is none, or no log loss.

    The log loss takes them at the smallest probability that the stored type tells from 0, so it says as much
    of the type as of the model. Logits as they are have no such floor.
    """
    if "nll" not in evaluation.settings.wanted or (values == "logits" and source.artifact is None):
        return None
    pooled = source.pooled
    excluded = {"of a class have probability 0 of it": pooled.whole[:, WHOLE.index("wrong_at_zero")]}
    if evaluation.space.binary or not evaluation.space.exclusive:
        excluded["outside a class have probability 1 of it"] = pooled.whole[:, WHOLE.index("wrong_at_one")]
    said = []
    for what, found in excluded.items():
        classes = [f"{name} {n}" for name, n in zip(pooled.classes, found.tolist(), strict=True) if n]
        if classes:
            where = f" ({', '.join(classes)})" if len(pooled.classes) > 1 else ""
            said.append(f"{count_text(int(found.sum()), 'voxel')} {what}{where}")
    if not said:
        return None
    several = "; a coarser type has a higher floor, so its nll looks better" if len(evaluation.sources) > 1 else ""
    return f"{source.name}: {' and '.join(said)}; nll takes them at the smallest step of the stored type{several}"


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
