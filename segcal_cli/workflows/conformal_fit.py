"""``conformal-sets fit``: labelled cases in, one artifact of inner and outer sets out, with what it promises."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

from segcal_cli.confidence.fit import SetFit
from segcal_cli.confidence.learning import (
    SHARES,
    Candidates,
    Learning,
    check_candidates,
    default_candidates,
)
from segcal_cli.confidence.maps import MapRules
from segcal_cli.confidence.scores import Score, parse_score
from segcal_cli.confidence.scoring import ScoringRules
from segcal_cli.confidence.spec import BadOption, SetSpec, TargetSpec
from segcal_cli.confidence.targets import parse_targets
from segcal_cli.core.errors import OverlapError
from segcal_cli.core.frozen import dataclass
from segcal_cli.core.observer import Observer
from segcal_cli.execution.engine import run_estimator
from segcal_cli.io.case_sources import CaseSource
from segcal_cli.io.outputs import refuse_existing, refuse_inside
from segcal_cli.workflows.calibrators import load_calibrator, refuse_misfit
from segcal_cli.workflows.conformal_conclusion import SetConclusion, without_empty
from segcal_cli.workflows.conformal_sources import (
    length_of,
    open_set_inputs,
    parse_split,
    planar,
    refuse_sheared,
    set_reader,
    smallest_edge,
)
from segcal_cli.workflows.inputs import Inputs, reading_spec
from segcal_cli.workflows.outcome import Outcome
from segcal_cli.workflows.regions_of_interest import has_region
from segcal_cli.workflows.requests import (
    ConformalFitOptions,
    LabelOptions,
    OutputOptions,
    PredictionOptions,
    RoundOptions,
    RunOptions,
)
from segcal_cli.workflows.running import plan_of, threads_of
from segcal_cli.workflows.sharding import WHOLE, Job, carried_out, parse_shard
from segcal_cli.workflows.strata import NoVoxelSize, parse_strata
from segcal_cli.workflows.tracing import (
    WithFacts,
    names_alone,
    refuse_seen,
)

DEFAULT_SCORE = "distance"
"""Needs no unsaturated probabilities, and reads in mm."""

AUTO = "auto"


class LearnedPatient(OverlapError):
    """A patient with cases in both roles."""

    template = "{0}: patients of --learn also calibrate ({1}); a patient that chose the scores cannot calibrate"


@dataclass(frozen=True, slots=True)
class LearningCases:
    """Cases that choose. origin: "fraction" or "folder"."""

    inputs: Inputs
    sources: tuple[CaseSource, ...]
    origin: str


def run(
    predictions: Path,
    labels: Path,
    output: Path,
    fitting: ConformalFitOptions,
    reading: PredictionOptions,
    truth: LabelOptions,
    running: RunOptions,
    writing: OutputOptions,
    observer: Observer,
    sharding: RoundOptions = WHOLE,
) -> Outcome:
    """Fit and write the artifact. Raises what reading and fitting raise; then nothing is written."""
    _check(fitting)
    parse_shard(sharding.shard)
    plan = plan_of(running)
    rule = None if fitting.mondrian is None else parse_strata(fitting.mondrian)
    refuse_inside(output, (predictions, labels))
    refuse_existing([output], overwrite=writing.overwrite)
    before = None if reading.calibrator is None else load_calibrator(reading.calibrator, "--calibrator")
    inputs = open_set_inputs(predictions, labels, reading, truth, observer, labels_only=fitting.labels_only)
    if plan.on_failure == "stop":
        inputs.require_all()
    learning = _learning_cases(fitting, inputs, reading, truth, observer)
    if learning is not None and learning.origin == "folder" and plan.on_failure == "stop":
        learning.inputs.require_all()
    if learning is not None and learning.origin == "folder" and reading.groups is not None:
        _refuse_shared_patients(Path(str(fitting.learn)), learning.sources, inputs.sources)
    taken = set() if learning is None or learning.origin == "folder" else {source.id for source in learning.sources}
    sources = tuple(source for source in inputs.sources if source.id not in taken)
    who = tuple((source.id, source.group) for source in sources)
    if before is not None:
        refuse_misfit(before, predictions, inputs.space, inputs.values, reading_spec(reading, None, None))
        refuse_seen(before.artifact, before.path, who, {}, allow=fitting.allow_overlap)
    spec, candidates = _spec(fitting, inputs, sources, learning)
    if rule is not None and rule.groups is None and spec.length != "mm":
        raise NoVoxelSize(rule.text)
    refuse_sheared(sources, spec)

    learned = None
    learned_digests: dict[str, str] = {}
    if learning is not None and candidates is not None:
        traced, _ = run_estimator(
            WithFacts(Learning(spec, candidates)),
            set_reader(learning.inputs, before),
            learning.sources,
            plan,
            observer,
            "learning",
        )
        learned = traced.result
        learned_digests = {case: fact.digest for case, fact in traced.facts.items()}
        if fitting.labels_only:
            learned_digests = without_empty(learned_digests, {one.id: one.predicted_voxels for one in learned.cases})
        spec = replace(spec, targets=learned.targets)
    spec.check()

    job = Job(
        "conformal-sets fit",
        WithFacts(SetFit(spec, threads_of(plan))),
        set_reader(inputs, before),
        sources,
        inputs.failures,
        inputs,
        SetConclusion(
            spec=spec,
            space=inputs.space,
            values=inputs.values,
            fitting=names_alone(fitting),
            strata=None if rule is None else rule.portable,
            read_as=reading_spec(reading, truth, None if before is None else before.artifact),
            roi=has_region(inputs.sources),
            ignored=inputs.table.ignore is not None or truth.ignore_label is not None,
            who=who,
            before=before,
            learned=learned,
            learned_from="" if learning is None else learning.origin,
            learned_digests=learned_digests,
        ),
        "fitting",
    )
    return carried_out(job, plan, sharding, output, observer)


def _check(fitting: ConformalFitOptions) -> None:
    """Raise BadOption for options that contradict each other whatever the data."""
    if not 0.0 < fitting.alpha < 1.0:
        raise BadOption(f"--alpha {fitting.alpha:g} is not allowed; it must lie strictly between 0 and 1")
    if fitting.seed < 0:
        raise BadOption(f"--seed {fitting.seed} is not allowed; it must be 0 or more")
    if fitting.joint == "max" and fitting.present_only:
        raise BadOption("--joint max ranks all cases, so it does not go with --present-only")
    if fitting.alpha_split is not None and fitting.joint != "split":
        raise BadOption(f"--alpha-split goes with --joint split, not with --joint {fitting.joint}")
    learns = fitting.learn is not None
    auto = [text for text in (fitting.inner_score, fitting.outer_score) if (text or "").partition(":")[0] == AUTO]
    if (auto or fitting.alpha_split == AUTO) and not learns:
        raise BadOption("auto is chosen on learning cases; give --learn FRACTION or FOLDER")


def _spec(
    fitting: ConformalFitOptions,
    inputs: Inputs,
    sources: Sequence[CaseSource],
    learning: LearningCases | None,
) -> tuple[SetSpec, Candidates | None]:
    """The spec before anything is learned, and what is to be chosen from. Raises BadOption and score errors."""
    grouped = any(source.group != source.id for source in inputs.sources)
    if fitting.unit in ("max", "hcp") and not grouped:
        raise BadOption(f"--unit {fitting.unit} needs --groups: without it every case is its own patient")
    groups = [source.group for source in sources]
    if fitting.unit == "case" and len(set(groups)) < len(groups):
        raise BadOption("--unit case is not offered where patients repeat; --unit max or hcp counts a patient once")
    edge = smallest_edge(sources if learning is None else learning.sources)
    lists = default_candidates(edge, labels_only=fitting.labels_only)
    default = AUTO if learning is not None else DEFAULT_SCORE
    inner = _scores(fitting.inner_score or default, lists.inner)
    outer = _scores(fitting.outer_score or default, lists.outer)
    split = fitting.alpha_split or (AUTO if learning is not None and fitting.joint == "split" else None)
    shares = (0.5, 0.5)
    if split not in (None, AUTO):
        shares = parse_split(split, fitting.alpha)
    flat = planar(sources)
    for score in (*inner, *outer):
        _check_score(score, inputs)
    check_candidates(Candidates(inner, outer), planar=flat)
    if fitting.box_truth and not flat:
        raise BadOption("--box-truth needs the largest inner boxes of the truth, which are for 2-D images only")
    targets = parse_targets(fitting.target, inputs.space)
    for target in targets:
        if len(target.channels) > 1 and "identity" in {score.kind for score in (*inner, *outer)}:
            raise BadOption(f"score identity is one stored channel; target {target.name} is a union of several")
    spec = SetSpec(
        targets=tuple(TargetSpec(target, inner[0], outer[0], *shares) for target in targets),
        alpha=fitting.alpha,
        joint=fitting.joint,
        across=fitting.across_targets,
        rules=ScoringRules(
            MapRules(fitting.metric, fitting.empty_prediction),
            fitting.coverage_ratio,
            fitting.inner_ratio,
            fitting.box_truth,
        ),
        present_only=fitting.present_only is not False,
        unit=fitting.unit or ("max" if grouped else "case"),
        confidence=fitting.confidence,
        labels_only=fitting.labels_only,
        length=length_of(sources),
        mondrian=None if fitting.mondrian is None else parse_strata(fitting.mondrian).stored,
    )
    if learning is None:
        spec.check()
        return spec, None
    if spec.joint != "max":
        spec.check()
    return spec, Candidates(inner, outer, SHARES if split == AUTO else shares[:1])


def _scores(text: str, defaults: Sequence[Score]) -> tuple[Score, ...]:
    """The candidates of ``auto[:LIST]``, or the one score that is named."""
    kind, _, listed = text.partition(":")
    if kind != AUTO:
        return (parse_score(text),)
    return tuple(parse_score(part) for part in listed.split(",")) if listed else tuple(defaults)


def _check_score(score: Score, inputs: Inputs) -> None:
    if score.kind == "softmax" and not inputs.space.exclusive:
        raise BadOption("score softmax is for exclusive classes; these are independent regions: sigmoid or log-odds")
    if score.kind == "sigmoid" and inputs.space.exclusive:
        raise BadOption("score sigmoid is for independent regions; these are exclusive classes: softmax or log-odds")


def _learning_cases(
    fitting: ConformalFitOptions,
    inputs: Inputs,
    reading: PredictionOptions,
    truth: LabelOptions,
    observer: Observer,
) -> LearningCases | None:
    if fitting.learn is None:
        return None
    try:
        fraction = float(fitting.learn)
    except ValueError:
        folder = Path(fitting.learn)
        found = open_set_inputs(
            folder / "predictions",
            folder / "labels",
            replace(reading, cases=None),
            truth,
            observer,
            labels_only=fitting.labels_only,
        )
        return LearningCases(found, found.sources, "folder")
    if not 0.0 < fraction < 1.0:
        raise BadOption(f"--learn {fitting.learn}: a fraction must lie strictly between 0 and 1")
    units = sorted(
        {source.group for source in inputs.sources},
        key=lambda unit: hashlib.sha256(f"{fitting.seed}:{unit}".encode()).digest(),
    )
    chosen = set(units[: round(fraction * len(units))])
    if not 0 < len(chosen) < len(units):
        raise BadOption(f"--learn {fitting.learn} takes {len(chosen)} of {len(units)} units; both roles need some")
    return LearningCases(inputs, tuple(s for s in inputs.sources if s.group in chosen), "fraction")


def _refuse_shared_patients(folder: Path, learning: Sequence[CaseSource], sources: Sequence[CaseSource]) -> None:
    shared = sorted({one.group for one in learning} & {one.group for one in sources}, key=str.encode)
    if shared:
        raise LearnedPatient(folder, ", ".join(shared[:5]) + (", ..." if len(shared) > 5 else ""))
