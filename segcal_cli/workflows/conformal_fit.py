"""``conformal-sets fit``: labelled cases in, one artifact of inner and outer sets out, with what it promises."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np

from segcal_cli.confidence.cautions import cautions, refuse_absent, same_pairs
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
from segcal_cli.confidence.store import KIND, arrays_of, choices_json
from segcal_cli.confidence.table import CaseRow, Rows, table_of
from segcal_cli.confidence.targets import parse_targets
from segcal_cli.confidence.text import guarantee
from segcal_cli.confidence.thresholds import Calibration
from segcal_cli.core.artifact import Artifact, Header
from segcal_cli.core.errors import OverlapError
from segcal_cli.core.observer import Observer
from segcal_cli.execution.engine import Plan, failure_records, run_estimator
from segcal_cli.io.artifacts import write_artifact
from segcal_cli.io.case_sources import CaseSource
from segcal_cli.io.outputs import refuse_existing, refuse_inside
from segcal_cli.workflows.calibrators import load_calibrator, refuse_misfit
from segcal_cli.workflows.conformal_kind import sets_document, threshold_lines
from segcal_cli.workflows.conformal_sources import (
    has_region,
    length_of,
    open_set_inputs,
    parse_split,
    planar,
    refuse_sheared,
    set_reader,
    smallest_edge,
)
from segcal_cli.workflows.inputs import Inputs, reading_spec
from segcal_cli.workflows.outcome import Counts, Outcome
from segcal_cli.workflows.requests import (
    ConformalFitOptions,
    LabelOptions,
    OutputOptions,
    PredictionOptions,
    RunOptions,
)
from segcal_cli.workflows.running import jobs_of, threads_of
from segcal_cli.workflows.strata import NoVoxelSize, assigned, parse_strata
from segcal_cli.workflows.tracing import WithFacts, after_dropping, refuse_hard, refuse_seen, report_facts

DEFAULT_SCORE = "distance"
"""Needs no unsaturated probabilities, and reads in mm."""

AUTO = "auto"


class LearnedToo(OverlapError):
    """A case that both chose the scores and calibrates."""

    template = "{0} and the learning case {1} hold the same prediction; a case that chose the scores cannot calibrate"


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
) -> Outcome:
    """Fit and write the artifact. Raises what reading and fitting raise; then nothing is written."""
    _check(fitting)
    rule = None if fitting.mondrian is None else parse_strata(fitting.mondrian)
    refuse_inside(output.parent, ())
    refuse_existing([output], overwrite=writing.overwrite)
    before = None if reading.calibrator is None else load_calibrator(reading.calibrator, "--calibrator")
    inputs = open_set_inputs(predictions, labels, reading, truth, observer, labels_only=fitting.labels_only)
    plan = Plan(jobs_of(running), running.on_failure or "stop")
    if plan.on_failure == "stop":
        inputs.require_all()
    learning = _learning_cases(fitting, inputs, reading, truth, observer)
    if learning is not None and learning.origin == "folder" and plan.on_failure == "stop":
        learning.inputs.require_all()
    if learning is not None and learning.origin == "folder" and reading.groups is not None:
        _refuse_shared_patients(Path(str(fitting.learn)), learning.sources, inputs.sources)
    taken = set() if learning is None or learning.origin == "folder" else {source.id for source in learning.sources}
    sources = tuple(source for source in inputs.sources if source.id not in taken)
    who = [(source.id, source.group) for source in sources]
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
            learned_digests = _without_empty(learned_digests, {one.id: one.predicted_voxels for one in learned.cases})
        spec = replace(spec, targets=learned.targets)
    spec.check()

    estimator = WithFacts(SetFit(spec, threads_of(plan.jobs)))
    reader = set_reader(inputs, before)
    traced, failures = run_estimator(estimator, reader, sources, plan, observer, "fitting")
    report_facts(traced.facts, observer)
    if not fitting.labels_only:
        refuse_hard(traced.facts)
    rows: Rows = traced.result
    digests = {case: fact.digest for case, fact in traced.facts.items()}
    if fitting.labels_only:
        digests = _without_empty(digests, {id: row.predicted_voxels for id, row in rows.rows.items()})
    _refuse_learned(digests, learned_digests)
    overlaps = False
    if before is not None:
        overlaps = refuse_seen(before.artifact, before.path, who, digests, allow=fitting.allow_overlap)
    table = table_of(rows.rows)
    if rule is not None:
        names, strata = assigned(rule, table.ids, table.predicted_voxels, table.voxel_volume)
        spec, table = replace(spec, strata=names), replace(table, stratum=strata)
    calibration = Calibration(spec, table)
    refuse_absent(calibration)

    pairs = same_pairs(rows.rows, digests)
    warnings = cautions(
        calibration,
        spec.alpha,
        channels=len(inputs.space.channels),
        precise=before is None and inputs.values == "logits",
    )
    if pairs:
        shown = "; ".join(f"{a} and {b}" for a, b in pairs[:5]) + ("; ..." if len(pairs) > 5 else "")
        warnings.append(
            f"{len(pairs)} pairs of cases hold the same prediction and label ({shown}): copies are not exchangeable"
        )
    for warning in warnings:
        observer.warn(warning)
    failures = [*inputs.failures, *failures]
    ignored = inputs.table.ignore is not None or truth.ignore_label is not None
    promise = guarantee(calibration, spec.alpha, roi=has_region(inputs), ignored=ignored, overlapped=overlaps)
    header = Header(
        kind=KIND,
        method=spec.joint,
        space=inputs.space,
        values=inputs.values,
        spec={
            **spec.to_json(inputs.space),
            **reading_spec(reading, truth, None if before is None else before.artifact),
            "roi": has_region(inputs),
            "overlap_allowed": overlaps,
        },
        case_ids=table.ids,
        group_ids=table.groups,
        case_digests={**learned_digests, **digests},
        fit_input_digest=_input_digest(rows.rows, digests),
        guarantee=promise + after_dropping(failures, table.n),
        seed=fitting.seed,
        dropped=tuple({"case": failure.id, "error": str(failure.error)} for failure in failures),
        results={
            "warnings": warnings,
            "duplicate_pairs": len(pairs),
            "ignored_voxels": ignored,
            "learning": None if learned is None or learning is None else {
                "from": learning.origin,
                "n_cases": len(learned.cases),
                "choices": choices_json(learned),
            },
        },
    )  # fmt: skip
    digest = write_artifact(output, Artifact(header, arrays_of(calibration, rows.curve, learned)))
    lines = [*threshold_lines(calibration, spec.alpha), header.guarantee]
    return Outcome(
        result={
            **sets_document(calibration, inputs.space, (spec.alpha,)),
            "artifact": {"file": output.name, "sha256": digest},
            "guarantee": header.guarantee,
        },
        counts=Counts(table.n + len(failures), table.n, len(failures)),
        lines=tuple(lines),
        failures=tuple(failure_records(failures)),
    )


def _check(fitting: ConformalFitOptions) -> None:
    """Raise BadOption for options that contradict each other whatever the data."""
    if not 0.0 < fitting.alpha < 1.0:
        raise BadOption(f"--alpha {fitting.alpha:g} is not allowed; it must lie strictly between 0 and 1")
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


def _without_empty(digests: Mapping[str, str], voxels: Mapping[str, np.ndarray]) -> dict[str, str]:
    """Digests of label maps, "" for empty ones: two of these are not one scan. voxels: predicted, by target."""
    return {case: digest if voxels[case].any() else "" for case, digest in digests.items()}


def _refuse_shared_patients(folder: Path, learning: Sequence[CaseSource], sources: Sequence[CaseSource]) -> None:
    shared = sorted({one.group for one in learning} & {one.group for one in sources}, key=str.encode)
    if shared:
        raise LearnedPatient(folder, ", ".join(shared[:5]) + (", ..." if len(shared) > 5 else ""))


def _refuse_learned(digests: Mapping[str, str], learned: Mapping[str, str]) -> None:
    owner = {digest: case for case, digest in learned.items() if digest}
    for case, digest in digests.items():
        if digest in owner:
            raise LearnedToo(case, owner[digest])


def _input_digest(rows: Mapping[str, CaseRow], digests: Mapping[str, str]) -> str:
    """sha256 over ids, patients and contents of all cases."""
    lines = [
        f"{id}\t{rows[id].group}\t{digests.get(id, '')}\t{rows[id].label_digest}\n"
        for id in sorted(rows, key=str.encode)
    ]
    return hashlib.sha256("".join(lines).encode()).hexdigest()
