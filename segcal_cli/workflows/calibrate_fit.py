"""``calibrate fit``: labelled cases in, one calibrator out, with an honest word on what it gains."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import fields, replace
from pathlib import Path

from segcal_cli.calibration import ensemble, fine_tuning, local
from segcal_cli.calibration.equipment import Equipment, LastLayer
from segcal_cli.calibration.fit import CalibrationFit
from segcal_cli.calibration.registry import METHODS
from segcal_cli.calibration.result import FitResult, layer_from, to_artifact_parts
from segcal_cli.calibration.spec import BadOption, FitSpec
from segcal_cli.calibration.text import report
from segcal_cli.core.artifact import Artifact, Header
from segcal_cli.core.case import CaseFacts
from segcal_cli.core.errors import UsageError
from segcal_cli.core.frozen import dataclass
from segcal_cli.core.labels import LabelSpace
from segcal_cli.core.observer import Observer
from segcal_cli.core.volume import Values
from segcal_cli.execution.engine import failure_records
from segcal_cli.execution.work import Result
from segcal_cli.io.artifacts import read_artifact, write_artifact
from segcal_cli.io.atomic import writing as writing_file
from segcal_cli.io.bundles import write_bundle
from segcal_cli.io.case_files import CROSS_VALIDATION, same_predictions
from segcal_cli.io.companions import Companions, read_layer
from segcal_cli.io.outputs import refuse_existing, refuse_inside, refuse_read, refuse_twice, require_file_place
from segcal_cli.io.problems import raise_all
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
from segcal_cli.workflows.calibrators import CalibratorTransform, LoadedCalibrator, load_calibrator, refuse_misfit
from segcal_cli.workflows.devices import device_of
from segcal_cli.workflows.idle_options import IdleOption, refuse_overlap_alone
from segcal_cli.workflows.inputs import Inputs, files_of, open_inputs, reading_spec
from segcal_cli.workflows.outcome import Counts, Outcome
from segcal_cli.workflows.regions_of_interest import has_region
from segcal_cli.workflows.requests import (
    CalibrateFitOptions,
    CompanionOptions,
    DeviceOptions,
    LabelOptions,
    OutputOptions,
    PredictionOptions,
    RoundOptions,
    RunOptions,
)
from segcal_cli.workflows.running import plan_of, threads_of
from segcal_cli.workflows.sharding import WHOLE, Job, carried_out, parse_shard
from segcal_cli.workflows.tracing import (
    Traced,
    WithFacts,
    after_dropping,
    refuse_copies,
    refuse_hard,
    refuse_seen,
    report_facts,
    without_folders,
)

OVERLAP = "Some of these cases had been used to fit the calibrator in front: figures are in-sample in part."
"""What --allow-overlap has let pass; no fold of this fit was kept from that one."""


class OneWhole(UsageError):
    """Shards of what cannot be split."""

    template = "{0} does not go with --shard: {1}"


class FeaturesToFit(UsageError):
    """A fit of features without any."""

    template = "--features FOLDER is needed: fine-tune is fitted on what the network's last layer was given"


class NotFineTuned(UsageError):
    """Layers of a method that has none."""

    template = "--{0} is for --method fine-tune"


@dataclass(frozen=True, slots=True)
class Judge:
    """What no set of cases may be that is fitted on. v1_files: see ``refuse_hard``."""

    v1_files: Mapping[str, Path]

    def __call__(self, facts: Mapping[str, CaseFacts]) -> None:
        """Raises OnlyHardMasks, RoundedSoftmax, SamePrediction."""
        refuse_hard(facts, self.v1_files)
        refuse_copies(facts)


@dataclass(frozen=True, slots=True)
class CalibrateConclusion:
    """What remains of a fit once all cases have been read. who: id and group of every case. roi: some have a region.

    before: the calibrator that predictions were read through. read_as: see ``reading_spec``.
    """

    spec: FitSpec
    space: LabelSpace
    values: Values
    read_as: Mapping[str, object]
    roi: bool
    who: tuple[tuple[str, str], ...]
    before: LoadedCalibrator | None
    allow_overlap: bool

    def conclude(self, traced: Traced, failures: Sequence[Result], output: Path, observer: Observer) -> Outcome:
        """Write the artifact. Raises SeenCases, WriteError."""
        report_facts(traced.facts, observer)
        digests = {case: fact.digest for case, fact in traced.facts.items()}
        overlaps = False
        if self.before is not None:
            overlaps = refuse_seen(self.before.artifact, self.before.path, self.who, digests, allow=self.allow_overlap)
        result: FitResult = traced.result
        results, arrays = to_artifact_parts(result)
        header = Header(
            kind="calibrate",
            method=self.spec.method,
            space=self.space,
            values=self.values,
            spec={
                **self.spec.to_json(),
                **self.read_as,
                "source": _source(traced.facts),
                "roi": self.roi,
                "overlap_allowed": overlaps,
            },
            case_ids=result.case_ids,
            group_ids=result.group_ids,
            case_digests=digests,
            fit_input_digest=_input_digest(digests, result),
            guarantee=result.guarantee
            + (f" {OVERLAP}" if overlaps else "")
            + after_dropping(failures, len(traced.facts)),
            seed=self.spec.seed,
            dropped=tuple({"case": failure.id, "error": without_folders(failure.error)} for failure in failures),
            results=results,
        )
        digest = write_artifact(output, Artifact(header, arrays))
        for warning in (*result.warnings, *([OVERLAP] if overlaps else [])):
            observer.warn(warning)
        done = len(traced.facts)
        return Outcome(
            result={**results, "artifact": {"file": output.name, "sha256": digest}, "guarantee": header.guarantee},
            counts=Counts(done + len(failures), done, len(failures)),
            lines=tuple(line for line in report(result) if not line.startswith("warning: ")),
            failures=tuple(failure_records(failures)),
        )


def run(
    predictions: Path,
    labels: Path,
    output: Path,
    fitting: CalibrateFitOptions,
    reading: PredictionOptions,
    truth: LabelOptions,
    running: RunOptions,
    writing: OutputOptions,
    observer: Observer,
    sharding: RoundOptions = WHOLE,
    beside: CompanionOptions = ALONE,
    device: DeviceOptions = ANYWHERE,
) -> Outcome:
    """Fit and write the artifact. Raises what reading and fitting raise; then nothing is written."""
    sharded = parse_shard(sharding.shard) is not None or sharding.resume is not None
    plan = plan_of(running)
    refuse_overlap_alone(fitting.allow_overlap, reading.calibrator is not None, "--calibrator")
    outputs = [output, *([] if fitting.export_weights is None else [fitting.export_weights])]
    refuse_twice(outputs)
    for path in outputs:
        refuse_inside(path, (predictions, labels, *map(Path, reading.member), *folders_of(beside)))
        refuse_read(path, {**files_of(reading), "--last-layer": fitting.last_layer})
    refuse_existing(outputs, overwrite=writing.overwrite)
    for path in outputs:
        require_file_place(path)
    equipment = equipment_of(fitting, reading, beside, device, sharded=sharded)
    before = None if reading.calibrator is None else load_calibrator(reading.calibrator, "--calibrator")
    inputs = open_inputs(predictions, labels, reading, truth, observer)
    if plan.on_failure == "stop":
        inputs.require_all()
    raise_all(same_predictions(inputs.files))
    before = None if before is None else on(before, equipment.device)
    companions = _companions(fitting, reading, beside, before)
    require_companions(companions, inputs.sources)
    reading = inputs.reading
    values = inputs.values
    who = tuple((source.id, source.group) for source in inputs.sources)
    if before is not None:
        refuse_misfit(before, predictions, inputs.space, values, reading_spec(reading, None, None))
        refuse_seen(before.artifact, before.path, who, {}, allow=fitting.allow_overlap)
        values = before.values_after
    spec = _fit_spec(fitting, inputs)
    fit = CalibrationFit(spec, inputs.space, values, threads_of(plan), equipment)
    job = Job(
        "calibrate fit",
        WithFacts(fit, judge=Judge(inputs.v1_files)),
        inputs.reader(
            with_digest=True,
            transform=None if before is None else CalibratorTransform(before.calibrator),
            companions=companions,
        ),
        inputs.sources,
        inputs.failures,
        inputs,
        CalibrateConclusion(
            spec=spec,
            space=inputs.space,
            values=inputs.values,
            read_as=reading_spec(reading, truth, None if before is None else before.artifact),
            roi=has_region(inputs.sources),
            who=who,
            before=before,
            allow_overlap=fitting.allow_overlap,
        ),
        "fitting",
    )
    outcome = carried_out(job, plan, sharding, output, observer)
    if fitting.export_weights is None:
        return outcome
    layer = layer_from(read_artifact(output))
    with writing_file(fitting.export_weights) as file:
        write_bundle(file, {"weight": layer.weight, "bias": layer.bias})
    line = f"weights of the new last layer: {fitting.export_weights.name}"
    return replace(outcome, lines=(*outcome.lines, line))


def equipment_of(
    fitting: CalibrateFitOptions,
    reading: PredictionOptions,
    beside: CompanionOptions,
    device: DeviceOptions,
    *,
    sharded: bool,
) -> Equipment:
    """What the fit has at hand. Raises OneWhole, NotFineTuned, FeaturesToFit, LayerNeeded, OneModelOnly, NoCuda,
    DeviceUnused."""
    method = METHODS.get(fitting.method)
    tuning = fitting.method == fine_tuning.METHOD.name
    if sharded and fitting.method == local.METHOD.name:
        raise OneWhole("--method local", "its training needs all cases")
    if sharded and fitting.export_weights is not None:
        raise OneWhole("--export-weights", "it is written once all cases have been read")
    for name in ("last_layer", "export_weights"):
        if getattr(fitting, name) is not None and not tuning:
            raise NotFineTuned(name.replace("_", "-"))
    layer = None
    if tuning:
        if reading.calibrator is not None:
            raise OneModelOnly("--calibrator")
        if beside.features is None:
            raise FeaturesToFit
        if fitting.last_layer is None:
            raise fine_tuning.LayerNeeded
        layer = LastLayer(*read_layer(fitting.last_layer))
    on_cpu = method is None or not method.on_gpu
    where = device_of(device, cpu_only=f"method {fitting.method}" if on_cpu else None)
    return Equipment(where, layer, beside.images is not None and fitting.method == local.METHOD.name)


def _companions(
    fitting: CalibrateFitOptions, reading: PredictionOptions, beside: CompanionOptions, before: LoadedCalibrator | None
) -> Companions | None:
    """Features and scans of the cases: those of the method, or of the calibrator in front of it."""
    tuning = fitting.method == fine_tuning.METHOD.name
    needs = needs_of([] if before is None else [before])
    return companions_of(
        beside,
        reading,
        features=tuning or needs["features"],
        images=fitting.method == local.METHOD.name or needs["images"],
        some=tuning,
    )


def _fit_spec(fitting: CalibrateFitOptions, inputs: Inputs) -> FitSpec:
    """The spec; predictions of folds on their own validation cases are out of fold without being told."""
    unfolded = not fitting.summary and fitting.method != local.METHOD.name
    if unfolded and fitting.folds != CalibrateFitOptions().folds:
        raise IdleOption(f"--folds {fitting.folds}", "with --no-summary: folds are of the summary")
    split_kind = fitting.split_kind
    if split_kind == "unknown" and all(source.found == CROSS_VALIDATION for source in inputs.sources):
        split_kind = "out-of-fold"
    spec = FitSpec(**{field.name: getattr(fitting, field.name) for field in fields(FitSpec)})
    spec = replace(spec, split_kind=split_kind)
    spec.check(inputs.space)
    if spec.method == ensemble.METHOD.name and inputs.reading.reduce is None:
        raise BadOption("method", spec.method, "it needs several predictions of each case: --member, or samples")
    return spec


def _source(facts: Mapping[str, CaseFacts]) -> str:
    sources = {fact.source for fact in facts.values()}
    return sources.pop() if len(sources) == 1 else ""


def _input_digest(digests: dict[str, str], result: FitResult) -> str:
    """sha256 over ids, patients and digests of all cases."""
    lines = [
        f"{case}\t{group}\t{digests[case]}\n" for case, group in zip(result.case_ids, result.group_ids, strict=True)
    ]
    return hashlib.sha256("".join(lines).encode()).hexdigest()
