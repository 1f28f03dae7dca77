"""``conformal-sets apply``: new predictions in; inner and outer masks, volumes, flags, drift report out. No labels."""

from __future__ import annotations

import dataclasses
import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np

from segcal_cli.confidence.drift import ATYPICAL, outlier
from segcal_cli.confidence.maps import SIDES, Side
from segcal_cli.confidence.sets import p_value_counts, sets_of, side_maps
from segcal_cli.confidence.spec import BadOption
from segcal_cli.confidence.targets import Target
from segcal_cli.confidence.thresholds import Calibration, Ranked, ThresholdRow
from segcal_cli.confidence.views import TargetView, views, voxel_volume
from segcal_cli.core.case import Case
from segcal_cli.core.errors import CaseErrors
from segcal_cli.core.frozen import dataclass
from segcal_cli.core.observer import Observer
from segcal_cli.execution.work import Work
from segcal_cli.io.case_sources import CaseSource
from segcal_cli.io.geometry import Space
from segcal_cli.io.outputs import refuse_existing, refuse_inside
from segcal_cli.io.run_files import RunFiles
from segcal_cli.reporting.documents import json_text
from segcal_cli.reporting.tables import csv_text
from segcal_cli.workflows.calibrators import load_calibrator, refuse_misfit
from segcal_cli.workflows.case_keeping import Made
from segcal_cli.workflows.conformal_drift import HISTORY, REPORT, watch
from segcal_cli.workflows.conformal_files import (
    file_names,
    p_value_file,
    set_files,
    target_tail,
)
from segcal_cli.workflows.conformal_rows import BOX_COLUMNS, COLUMNS, case_flags, case_row, enlarged_boxes, said, warned
from segcal_cli.workflows.conformal_sources import (
    LoadedSets,
    load_sets,
    open_set_inputs,
    place_of,
    refuse_other_place,
    set_reader,
    with_levels,
)
from segcal_cli.workflows.conformal_weights import (
    ESTIMATE,
    CaseWeights,
    FeatureReader,
    case_features,
    estimated,
    feature_names,
    given_weights,
    refuse_weights,
)
from segcal_cli.workflows.folder_runs import FolderRun, running_on
from segcal_cli.workflows.folder_shards import EVERY_CASE, concluded, refuse_of_shards, share_of
from segcal_cli.workflows.inputs import Inputs, reading_spec
from segcal_cli.workflows.mapping import map_cases
from segcal_cli.workflows.outcome import Outcome
from segcal_cli.workflows.requests import (
    ConformalApplyOptions,
    FolderOptions,
    PredictionOptions,
    RunOptions,
    ShardOptions,
)
from segcal_cli.workflows.run_settings import settings_for
from segcal_cli.workflows.running import refuse_contradictions, require_workers
from segcal_cli.workflows.sharding import parse_shard
from segcal_cli.workflows.strata import MM3_PER_ML, Strata, StrataRule, strata_rule
from segcal_cli.workflows.tracing import Fitted

CASES, BOXES = "cases.csv", "boxes.csv"

OF_CASES = ("roi", "weights", "mondrian", "history")
"""Options that name files: what these say of a case is in its key, not the name."""


@dataclass(frozen=True, slots=True)
class SetWriter:
    """Makes the sets of one case: its files, its rows of the tables, and what the watch on drift needs."""

    calibration: Calibration
    options: ConformalApplyOptions
    places: Mapping[str, Space]
    fitted: Fitted
    rule: StrataRule | None
    weights: CaseWeights | None

    def __call__(self, case: Case) -> Made:
        spec = self.calibration.spec
        targets = [entry.target for entry in spec.targets]
        made = views(case, targets)
        place = self.places[case.id]
        weight = None if self.weights is None else self.weights.new[case.id]
        features = case_features(made, labels_only=spec.labels_only) if self.options.drift else None
        away = self._outlier(features)
        seen = self.fitted.holds(case)
        rows, boxes, sets, files = [], [], [], []
        for target, view in enumerate(made):
            stratum = self._stratum(view)
            thresholds = self._thresholds(target, stratum, weight)
            ranked = {side: self._ranked(target, side, stratum, weight) for side in wanted_sides(self.options)}
            lambdas = (thresholds.inner.value, thresholds.outer.value)
            maps = side_maps(view, spec, target, *_asked(lambdas, ranked))
            found = sets_of(view, maps, *lambdas)
            sets.append(found)
            flags = case_flags(view, found, thresholds, stratum, seen=seen, features=features, target=target)
            if away is not None and away[0] <= ATYPICAL:
                flags.append("atypical")
            rows.append(case_row(view, found, thresholds, spec, weight, away, flags))
            if spec.targets[target].outer.kind == "boxes":
                boxes += enlarged_boxes(view, thresholds.outer.value)
            for side, among in ranked.items():
                counts = p_value_counts(view, maps[SIDES.index(side)], side, among)
                tail = target_tail(targets, target)
                weighted = among.weights is not None
                files.append(p_value_file(case.id, side, tail, counts, among.total, place, weighted=weighted))
        result = {
            "proof": case.facts.proof or None,
            "rows": rows,
            "boxes": boxes,
            "digest": self._identity(case, made),
            "features": features,
        }
        return Made([*files, *set_files(case.id, targets, sets, case.space, place)], result)

    def _identity(self, case: Case, made: Sequence[TargetView]) -> str:
        """What the history knows a scan by: its content, but two empty ones are not one scan."""
        empty = self.calibration.spec.labels_only and all(view.mask_box is None for view in made)
        return f"empty {case.id}" if empty or not case.facts.digest else case.facts.digest

    def _thresholds(self, target: int, stratum: int, weight: float | None) -> ThresholdRow:
        if self.weights is None or weight is None:
            return self.calibration.threshold(target, stratum, self.calibration.spec.alpha)
        return self.calibration.weighted_threshold(
            target, stratum, self.calibration.spec.alpha, self.weights.calibration, weight
        )

    def _ranked(self, target: int, side: Side, stratum: int, weight: float | None) -> Ranked:
        if self.weights is None or weight is None:
            return self.calibration.ranked(target, side, stratum)
        return self.calibration.weighted_ranked(target, side, stratum, self.weights.calibration, weight)

    def _stratum(self, view: TargetView) -> int:
        if self.rule is None:
            return 0
        ml = float(view.mask_voxels) * voxel_volume(view.case) / MM3_PER_ML
        return Strata(self.rule, self.calibration.spec.strata)(view.case.id, ml)

    def _outlier(self, features: np.ndarray | None) -> tuple[float, str] | None:
        if features is None:
            return None
        table = self.calibration.table
        p, which = outlier(table.features.reshape(table.n, -1), features.reshape(-1))
        return p, feature_names(self.calibration.spec)[which]


def run(
    artifact: Path,
    predictions: Path,
    output: Path,
    applying: ConformalApplyOptions,
    reading: PredictionOptions,
    running: RunOptions,
    writing: FolderOptions,
    observer: Observer,
    sharding: ShardOptions = EVERY_CASE,
) -> Outcome:
    """Make the sets of every case that can be read. A case that fails fails alone."""
    shard = parse_shard(sharding.shard)
    require_workers(running)
    refuse_contradictions(running, writing)
    loaded = load_sets(artifact, "conformal-sets apply")
    spec = with_levels(loaded.spec, applying.alpha, applying.alpha_split)
    if applying.weights is not None:
        refuse_weights(spec)
    if applying.p_values != "none" and spec.confidence is not None:
        raise BadOption("p-values belong to plain ranks; this artifact was fitted with --confidence")
    if shard is not None:
        refuse_of_shards("--history", applying.history, "the drift of all cases is told when they are merged")
        estimate = applying.weights if applying.weights == ESTIMATE else None
        refuse_of_shards(f"--weights {ESTIMATE}", estimate, "it reads every case before the first set is made")
    if applying.history is not None and not applying.drift:
        raise BadOption("--history is of no use with --no-drift")
    rule = strata_rule(loaded.path, loaded.spec.mondrian, applying.mondrian)
    refuse_inside(output, [predictions])
    before = None if reading.calibrator is None else load_calibrator(reading.calibrator, "--calibrator")
    inputs = open_set_inputs(
        predictions,
        None,
        reading,
        None,
        observer,
        labels_only=spec.labels_only,
        roi=applying.roi,
        min_age=writing.min_age,
        artifact=loaded,
    )
    now = reading_spec(reading, None, None if before is None else before.artifact)
    refuse_misfit(loaded, predictions, inputs.space, inputs.values, now)
    refuse_other_place(loaded, predictions, inputs)
    if before is not None:
        refuse_misfit(before, predictions, inputs.space, inputs.values, reading_spec(reading, None, None))
    targets = [entry.target for entry in spec.targets]
    reports = [CASES, *([BOXES] if any(entry.outer.kind == "boxes" for entry in spec.targets) else [])]
    reports += [REPORT] if applying.drift else []
    if shard is None:
        outputs = [output / name for name in (*_all_names(inputs, targets, applying), *reports)]
        refuse_existing(outputs, overwrite=writing.replace)
    reader = set_reader(inputs, before)
    calibration = replace(loaded.calibration, spec=spec)
    weights = _weights(applying, calibration, inputs, reader, running, observer)
    fitted = Fitted.by(
        [loaded.artifact, *([] if before is None else [before.artifact])],
        [(source.id, source.group) for source in inputs.sources],
    )
    writer = SetWriter(
        calibration,
        applying,
        {source.id: place_of(source) for source in inputs.sources},
        fitted,
        rule,
        weights,
    )
    settings = settings_for(
        "conformal-sets apply",
        (artifact, loaded.artifact),
        None if before is None else before.artifact,
        inputs.reading,
        inputs.values,
        {name: value for name, value in dataclasses.asdict(applying).items() if name not in OF_CASES},
        (applying, running, writing),
        writing.origins,
    )
    own = share_of(inputs, shard)
    names = _all_names(own, targets, applying)
    tables = SetTables(loaded, calibration, applying, weights, BOXES in reports)
    with running_on(RunFiles(output, shard=shard), settings, own, writing, running, observer) as run:
        run.refuse_existing([output / name for name in (*names, *(reports if shard is None else ()))])
        run.map(reader, writer, "making sets", lambda source: _given(source, rule, weights))
        outcome = concluded(run, tables, inputs)
    return outcome


@dataclass(frozen=True, slots=True)
class SetTables:
    """What stands for all cases: their rows, boxes, and the watch on drift. calibration: at the levels of this run."""

    loaded: LoadedSets
    calibration: Calibration
    applying: ConformalApplyOptions
    weights: CaseWeights | None
    boxes: bool

    @property
    def names(self) -> tuple[str, ...]:
        return (CASES, *([BOXES] if self.boxes else ()), *([REPORT] if self.applying.drift else ()))

    def conclude(self, run: FolderRun) -> Outcome:
        """Raises WriteError."""
        spec, table, weights = self.calibration.spec, self.calibration.table, self.weights
        results = run.results
        rows = [row for result in results.values() for row in result["rows"]]
        run.write(CASES, csv_text(COLUMNS, rows))
        if self.boxes:
            run.write(BOXES, csv_text(BOX_COLUMNS, [box for result in results.values() for box in result["boxes"]]))
        drift = None
        if self.applying.drift:
            drift = watch(
                self.applying.history or run.files.folder / HISTORY,
                self.loaded.artifact,
                table.features.reshape(table.n, -1),
                feature_names(spec),
                {case: (found["digest"], np.array(found["features"], np.float64)) for case, found in results.items()},
            )
            run.write(REPORT, json_text(drift))
        promise = self.loaded.promise(self.calibration, spec.alpha, "" if weights is None else weights.how)
        lines = [promise, *said(rows, drift, weights, self.applying)]
        for text in warned(rows, drift, weights):
            run.observer.warn(text)
        result = {
            **run.result,
            "cases": [
                {key: value for key, value in record.items() if key not in ("features", "boxes")}
                for record in run.documents
            ],
            "artifact": run.settings.artifact,
            "guarantee": promise,
            "drift": drift,
            "effective_n": None if weights is None else weights.effective_n,
        }
        return Outcome(result, run.counts, tuple(lines), failures=run.failures, exit_code=run.exit_code)


def _asked(lambdas: tuple[float, float], ranked: Mapping[Side, Ranked]) -> list[list[float]]:
    """For each side the thresholds that its map must be exact for: its own, and for p-values every finite score."""
    return [
        [value, *(ranked[side].scores[np.isfinite(ranked[side].scores)] if side in ranked else ())]
        for side, value in zip(SIDES, lambdas, strict=True)
    ]


def wanted_sides(options: ConformalApplyOptions) -> tuple[Side, ...]:
    """Sides whose p-values are written."""
    return tuple(side for side in SIDES if options.p_values in (side, "both"))


def _all_names(inputs: Inputs, targets: Sequence[Target], options: ConformalApplyOptions) -> list[str]:
    sides = wanted_sides(options)
    return [
        name
        for source in inputs.sources
        for name in file_names(
            source.id,
            targets,
            sides,
            placed=place_of(source).grid.affine is not None,
            exclusive=inputs.space.exclusive,
        )
    ]


def _weights(
    applying: ConformalApplyOptions,
    calibration: Calibration,
    inputs: Inputs,
    reader: Any,
    running: RunOptions,
    observer: Observer,
) -> CaseWeights | None:
    if applying.weights is None:
        return None
    if applying.weights != ESTIMATE:
        return given_weights(Path(applying.weights), calibration.table.ids, [source.id for source in inputs.sources])
    work = Work(reader, FeatureReader(calibration.spec))
    first = map_cases(work, inputs.sources, inputs.failures, running, observer, "weighting")
    if not first.values:
        raise CaseErrors(*(failure.error for failure in first.failures))
    return estimated(calibration, {case: found["features"] for case, found in first.values.items()})


def _given(source: CaseSource, rule: StrataRule | None, weights: CaseWeights | None) -> dict[str, Any]:
    """What options say of one case, so that a table which grows leaves the cases that it had up to date."""
    given: dict[str, Any] = {}
    if rule is not None and rule.groups is not None:
        given["stratum"] = rule.of(source.id, 0.0)
    if weights is not None:
        given["weight"] = weights.new.get(source.id)
        given["calibration_weights"] = hashlib.sha256(weights.calibration.tobytes()).hexdigest()
    return given
