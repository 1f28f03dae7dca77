"""``conformal-sets apply``: new predictions in; inner and outer masks, volumes, flags, drift report out. No labels."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
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
from segcal_cli.core.observer import Observer
from segcal_cli.execution.work import Work
from segcal_cli.io.atomic import write_text
from segcal_cli.io.geometry import Space
from segcal_cli.io.outputs import refuse_existing, refuse_inside, write_files
from segcal_cli.reporting.documents import json_text
from segcal_cli.reporting.tables import csv_text
from segcal_cli.workflows.calibrators import load_calibrator, refuse_misfit
from segcal_cli.workflows.conformal_drift import HISTORY, REPORT, watch
from segcal_cli.workflows.conformal_files import (
    file_names,
    p_value_file,
    set_files,
    target_tail,
)
from segcal_cli.workflows.conformal_rows import BOX_COLUMNS, COLUMNS, case_flags, case_row, enlarged_boxes, said, warned
from segcal_cli.workflows.conformal_sources import (
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
from segcal_cli.workflows.inputs import Inputs, reading_spec
from segcal_cli.workflows.mapping import map_cases
from segcal_cli.workflows.outcome import Outcome
from segcal_cli.workflows.requests import (
    ConformalApplyOptions,
    OutputOptions,
    PredictionOptions,
    RunOptions,
)
from segcal_cli.workflows.strata import MM3_PER_ML, Strata, StrataRule, strata_rule
from segcal_cli.workflows.tracing import seen_by

CASES, BOXES = "cases.csv", "boxes.csv"


@dataclass(frozen=True, slots=True)
class SetWriter:
    """Makes the sets of one case and writes its files: the ``compute`` half of the work. Returns the case's record."""

    calibration: Calibration
    folder: Path
    options: ConformalApplyOptions
    places: Mapping[str, Space]
    seen: frozenset[str]
    known: frozenset[str]
    rule: StrataRule | None
    weights: CaseWeights | None

    def __call__(self, case: Case) -> dict[str, Any]:
        spec = self.calibration.spec
        targets = [entry.target for entry in spec.targets]
        made = views(case, targets)
        place = self.places[case.id]
        weight = None if self.weights is None else self.weights.new[case.id]
        features = case_features(made, labels_only=spec.labels_only) if self.options.drift else None
        away = self._outlier(features)
        seen = case.id in self.seen or case.facts.digest in self.known
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
        names = write_files(self.folder, [*files, *set_files(case.id, targets, sets, case.space, place)])
        return {
            "case": case.id,
            "status": "done",
            "outputs": list(names),
            "proof": case.facts.proof or None,
            "padding_share": case.facts.padding_share,
            "rows": rows,
            "boxes": boxes,
            "digest": self._identity(case, made),
            "features": features,
            "warnings": list(case.facts.warnings),
        }

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
        ml = float(np.count_nonzero(view.mask)) * voxel_volume(view.case) / MM3_PER_ML
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
    writing: OutputOptions,
    observer: Observer,
) -> Outcome:
    """Make the sets of every case that can be read. A case that fails fails alone."""
    loaded = load_sets(artifact, "conformal-sets apply")
    spec = with_levels(loaded.spec, applying.alpha, applying.alpha_split)
    if applying.weights is not None:
        refuse_weights(spec)
    if applying.p_values != "none" and spec.confidence is not None:
        raise BadOption("p-values belong to plain ranks; this artifact was fitted with --confidence")
    if applying.history is not None and not applying.drift:
        raise BadOption("--history is of no use with --no-drift")
    rule = strata_rule(loaded.path, loaded.spec.mondrian, applying.mondrian)
    refuse_inside(output, [predictions])
    before = None if reading.calibrator is None else load_calibrator(reading.calibrator, "--calibrator")
    inputs = open_set_inputs(predictions, None, reading, None, observer, labels_only=spec.labels_only, roi=applying.roi)
    now = reading_spec(reading, None, None if before is None else before.artifact)
    refuse_misfit(loaded, predictions, inputs.space, inputs.values, now)
    refuse_other_place(loaded, predictions, inputs)
    if before is not None:
        refuse_misfit(before, predictions, inputs.space, inputs.values, reading_spec(reading, None, None))
    targets = [entry.target for entry in spec.targets]
    reports = [CASES, *([BOXES] if any(entry.outer.kind == "boxes" for entry in spec.targets) else [])]
    reports += [REPORT] if applying.drift else []
    refuse_existing(
        [output / name for name in (*_all_names(inputs, targets, applying), *reports)], overwrite=writing.overwrite
    )
    reader = set_reader(inputs, before)
    calibration = replace(loaded.calibration, spec=spec)
    weights = _weights(applying, calibration, inputs, reader, running, observer)
    header = loaded.artifact.header
    seen = seen_by(loaded.artifact, [(source.id, source.group) for source in inputs.sources], {})

    output.mkdir(parents=True, exist_ok=True)
    writer = SetWriter(
        calibration,
        output,
        applying,
        {source.id: place_of(source) for source in inputs.sources},
        frozenset(seen),
        frozenset(digest for case, digest in header.case_digests.items() if digest and case in set(header.case_ids)),
        rule,
        weights,
    )
    outcome = map_cases(Work(reader, writer), inputs, running, observer, "making sets")
    records = outcome.result["cases"]
    rows = [row for record in records for row in record["rows"]]
    write_text(output / CASES, csv_text(COLUMNS, rows))
    if BOXES in reports:
        write_text(output / BOXES, csv_text(BOX_COLUMNS, [box for record in records for box in record["boxes"]]))
    drift = None
    if applying.drift:
        drift = watch(
            applying.history or output / HISTORY,
            loaded.artifact,
            calibration.table.features.reshape(calibration.table.n, -1),
            feature_names(spec),
            {record["case"]: (record["digest"], record["features"]) for record in records},
        )
        write_text(output / REPORT, json_text(drift))
    promise = loaded.promise(calibration, spec.alpha, "" if weights is None else weights.how)
    lines = [promise, *said(rows, drift, weights, applying)]
    for text in warned(rows, drift, weights):
        observer.warn(text)
    result = {
        "cases": [
            {key: value for key, value in record.items() if key not in ("features", "boxes")} for record in records
        ],
        "not_run": outcome.result["not_run"],
        "artifact": {"file": artifact.name, "sha256": loaded.artifact.digest},
        "guarantee": promise,
        "drift": drift,
        "effective_n": None if weights is None else weights.effective_n,
    }
    return Outcome(result, outcome.counts, tuple(lines), failures=outcome.failures)


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
    first = map_cases(Work(reader, FeatureReader(calibration.spec)), inputs, running, observer, "weighting")
    return estimated(calibration, {record["case"]: record["features"] for record in first.result["cases"]})
