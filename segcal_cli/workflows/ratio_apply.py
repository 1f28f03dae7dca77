"""``ntr-interval apply``: new predictions in, one table out: ratio, volumes, intervals, alarms. Needs no labels.

Each case is read once and becomes a row of numbers; thresholds are found once per run, and every interval follows from
these two. So the table is the same in whatever order cases are read.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from segcal_cli.core.case import Case
from segcal_cli.core.errors import count_text
from segcal_cli.core.frozen import dataclass
from segcal_cli.core.observer import Observer
from segcal_cli.io.atomic import write_text
from segcal_cli.io.outputs import refuse_existing, refuse_inside, require_file_place
from segcal_cli.io.run_files import RunFiles
from segcal_cli.ratio.alarms import alarm_threshold, triage_order
from segcal_cli.ratio.guarantees import guaranteed, percent
from segcal_cli.ratio.intervals import intervals
from segcal_cli.ratio.regions import Ratio
from segcal_cli.ratio.settings import BadSetting
from segcal_cli.ratio.shift import DRIFT_P, LEAST_EFFECTIVE, Weights, drift, out_of_range, weights
from segcal_cli.ratio.sums import Wanted, case_row
from segcal_cli.ratio.table import RatioTable, same_scans, table_of
from segcal_cli.ratio.thresholds import Calibration, with_ratio
from segcal_cli.reporting.tables import Table, csv_text, short
from segcal_cli.workflows.calibrators import CalibratorTransform, load_calibrator, refuse_misfit
from segcal_cli.workflows.case_keeping import Made
from segcal_cli.workflows.folder_runs import FolderRun, running_on
from segcal_cli.workflows.folder_shards import EVERY_CASE, concluded, refuse_of_shards, share_of
from segcal_cli.workflows.inputs import Inputs, open_inputs, reading_spec
from segcal_cli.workflows.outcome import Outcome
from segcal_cli.workflows.ratio_artifacts import (
    LoadedRatio,
    load_ratio,
    refuse_other_unit,
    refuse_unused,
    settings_of,
    volume_unit,
)
from segcal_cli.workflows.ratio_fit import too_few
from segcal_cli.workflows.ratio_rows import (
    COLUMNS,
    FAILED,
    OK,
    TRIAGE_COLUMNS,
    Judged,
    case_rows,
    csv_rows,
    failed_row,
)
from segcal_cli.workflows.regions_of_interest import refuse_other_region
from segcal_cli.workflows.requests import (
    FolderOptions,
    PredictionOptions,
    RatioApplyOptions,
    RatioOptions,
    RunOptions,
    ShardOptions,
)
from segcal_cli.workflows.run_settings import settings_for
from segcal_cli.workflows.running import refuse_contradictions, require_workers
from segcal_cli.workflows.sharding import parse_shard
from segcal_cli.workflows.tracing import Fitted, hint_at_groups

SHOWN_ALARMS = 20
"""Alarmed cases in the table for people; all stand in the CSV."""

DRIFT_WARNING = (
    "the new cases differ from the calibration cases in {0}: the guarantee is for cases like those. Over-confidence at "
    "equal size and softness would not show here"
)


@dataclass(frozen=True, slots=True)
class RowMaker:
    """Turns one case into its row of numbers. fitted: cases of the fit, or of the calibrator before it."""

    ratio: Ratio
    wanted: Wanted
    fitted: Fitted

    def __call__(self, case: Case) -> Made:
        row = case_row(case, self.ratio, self.wanted)
        return Made(result={"group": case.group, "seen": self.fitted.holds(case), "row": row})


def run(
    artifact: Path,
    predictions: Path,
    output: Path,
    statistics: RatioOptions,
    applying: RatioApplyOptions,
    reading: PredictionOptions,
    running: RunOptions,
    writing: FolderOptions,
    observer: Observer,
    sharding: ShardOptions = EVERY_CASE,
) -> Outcome:
    """Judge every case that can be read, and write the table. A case that fails has a row that says so."""
    shard = parse_shard(sharding.shard)
    require_workers(running)
    refuse_contradictions(running, writing)
    loaded = load_ratio(artifact, "ntr-interval apply")
    if shard is not None:
        refuse_of_shards("--triage", applying.triage, "the list is made of all cases, when they are merged")
    settings = settings_of(statistics, loaded.settings)
    settings.check(contained=loaded.ratio.contained)
    refuse_unused(statistics, settings)
    calibration = loaded.calibration(settings)
    triage = [] if applying.triage is None else [applying.triage]
    for path in (output, *triage):
        refuse_inside(path, (predictions,))
    if output in triage:
        raise BadSetting(f"{output} is asked for twice: as the table and as --triage")
    if shard is None:
        refuse_existing([output, *triage], overwrite=writing.replace)
    for path in (output, *triage):
        require_file_place(path)
    inputs = _open(loaded, predictions, applying, reading, writing, observer)
    before = None if reading.calibrator is None else load_calibrator(reading.calibrator, "--calibrator")
    wanted = Wanted(blocks=settings.estimation == "block", debiased=settings.debias != "none")
    fitted = Fitted.by(
        [loaded.artifact, *([] if before is None else [before.artifact])],
        [(source.id, source.group) for source in inputs.sources],
    )
    reader = inputs.reader(
        # Sums tell copies of calibration cases at no cost, where they were taken of the same voxels.
        with_digest=before is not None or loaded.counts_some,
        transform=None if before is None else CalibratorTransform(before.calibrator),
    )
    run_settings = settings_for(
        "ntr-interval apply",
        (artifact, loaded.artifact),
        None if before is None else before.artifact,
        inputs.reading,
        inputs.values,
        # Intervals are found anew for the whole table in every run; a case's own numbers depend on nothing else.
        dataclasses.asdict(wanted),
        (statistics, applying, running, writing),
        writing.origins,
    )
    own = share_of(inputs, shard)
    tables = RatioTables(
        loaded,
        calibration,
        output.name,
        applying.triage,
        {case.id: case.group for case in inputs.files},
        inputs.reading.groups is not None,
    )
    files = RunFiles(output.parent, output.name, shard)
    with running_on(files, run_settings, own, writing, running, observer) as run:
        run.refuse_existing([output, *triage] if shard is None else [])
        run.map(reader, RowMaker(loaded.ratio, wanted, fitted), "measuring")
        outcome = concluded(run, tables, inputs)
    return outcome


@dataclass(frozen=True, slots=True)
class RatioTables:
    """The table of all cases, and the list for triage. groups: case -> patient; grouped: by a rule."""

    loaded: LoadedRatio
    calibration: Calibration
    table: str
    triage: Path | None
    groups: Mapping[str, str]
    grouped: bool

    @property
    def names(self) -> tuple[str, ...]:
        return (self.table,)

    def conclude(self, run: FolderRun) -> Outcome:
        """Raises TooFewNewCases, WriteError."""
        loaded, calibration = self.loaded, self.calibration
        new = table_of({case: (found["group"], _numbers(found["row"])) for case, found in run.results.items()})
        found = run.results
        seen = np.array([bool(found[case]["seen"]) for case in new.ids], dtype=np.bool_)
        judged, shift = judge(loaded, calibration, new, seen | same_scans(loaded.table, new))
        rows = case_rows(judged, run.first_inputs)
        rows += self._failed_rows(run.failures)
        rows.sort(key=lambda row: str(row["case"]).encode())
        alarmed = [{"rank": rank, **row} for rank, row in enumerate(triage_order(rows), start=1)]
        if self.triage is not None:
            write_text(self.triage, csv_text(TRIAGE_COLUMNS, csv_rows(alarmed, TRIAGE_COLUMNS)))
        run.write(self.table, csv_text(COLUMNS, csv_rows(rows, COLUMNS)))
        promise = loaded.promise(calibration)
        _warn(calibration, judged, shift, loaded, run.observer)
        return Outcome(
            result=_document(loaded, calibration, judged, shift, rows, promise),
            counts=run.counts,
            lines=(promise, *([] if alarmed else [f"No alarm in {count_text(len(rows), 'case')}"])),
            tables=(_people(rows, alarmed, judged),) if alarmed else (),
            failures=run.failures,
            exit_code=run.exit_code,
        )

    def _failed_rows(self, failures: Sequence[Mapping[str, str]]) -> list[dict[str, Any]]:
        # A case that could not be paired is its own patient like the others, unless a rule would have named another.
        return [
            failed_row(
                failure["case"],
                self.groups.get(failure["case"], "" if self.grouped else failure["case"]),
                failure["file"],
                failure["message"],
                self.calibration.settings,
            )
            for failure in failures
            if failure["case"]
        ]


def _numbers(row: Mapping[str, Any]) -> dict[str, float]:
    """A row as it came back from a record, where what is undefined is null."""
    return {name: np.nan if value is None else float(value) for name, value in row.items()}


@dataclass(frozen=True, slots=True)
class Shift:
    """How the new cases differ from the calibration cases. drift: the document's entry, None for too few new cases."""

    drift: dict[str, Any] | None
    weights: Weights | None
    n_infinite: int


def judge(loaded: LoadedRatio, calibration: Calibration, new: RatioTable, seen: np.ndarray) -> tuple[Judged, Shift]:
    """Intervals and flags of new cases. seen: bool "case", those that are not new. Raises TooFewNewCases."""
    settings, limit = calibration.settings, loaded.ratio.limit
    has_ratio = with_ratio(new, settings.minimum_volume(loaded.unit), "prediction")
    present = new.chosen(has_ratio)
    outside = np.zeros(len(new), dtype=bool)
    if len(present) and len(calibration.scored):
        outside[has_ratio] = out_of_range(calibration.scored, present)
    found_weights, thresholds, own, case_weights = None, None, None, None
    n_infinite = 0
    if settings.weighted and len(calibration.scored):
        found_weights = weights(calibration.scored, present)
        thresholds = np.full(len(new), np.nan)
        thresholds[has_ratio] = calibration.weighted_thresholds(found_weights.calibration, found_weights.new)
        own = calibration.weighted_thresholds(found_weights.calibration, found_weights.calibration)
        case_weights = np.full(len(new), np.nan)
        case_weights[has_ratio] = found_weights.new
        n_infinite = int(np.isinf(thresholds[has_ratio]).sum())
    judged = Judged(
        table=new,
        found=intervals(calibration, new, limit, thresholds),
        settings=settings,
        unit=loaded.unit,
        has_ratio=has_ratio,
        threshold=alarm_threshold(calibration, limit, own),
        weights=case_weights,
        out_of_range=outside,
        seen=seen,
        few=found_weights is not None and found_weights.effective < LEAST_EFFECTIVE,
    )
    moved = drift(calibration.scored, present) if len(calibration.scored) else None
    return judged, Shift(moved, found_weights, n_infinite)


def _open(
    loaded: LoadedRatio,
    predictions: Path,
    applying: RatioApplyOptions,
    reading: PredictionOptions,
    writing: FolderOptions,
    observer: Observer,
) -> Inputs:
    """Opened cases that the artifact fits. Raises DoesNotFit, OtherUnit, OtherRegion and what reading raises."""
    before = None if reading.calibrator is None else load_calibrator(reading.calibrator, "--calibrator")
    inputs = open_inputs(
        predictions,
        None,
        reading,
        None,
        observer,
        volumes=True,
        masks=True,
        roi=applying.roi,
        min_age=writing.min_age,
        artifact=loaded,
    )
    reading = inputs.reading
    spec = reading_spec(reading, None, None if before is None else before.artifact)
    refuse_misfit(loaded, predictions, inputs.space, inputs.values, spec)
    if before is not None:
        refuse_misfit(before, predictions, inputs.space, inputs.values, reading_spec(reading, None, None))
    refuse_other_unit(loaded, predictions, volume_unit(inputs.sources))
    refuse_other_region(loaded.path, loaded.artifact, inputs.sources)
    who = [(source.id, source.group) for source in inputs.sources]
    hint_at_groups(loaded.artifact, loaded.path, who, reading.groups, observer)
    return inputs


def _document(
    loaded: LoadedRatio,
    calibration: Calibration,
    judged: Judged,
    shift: Shift,
    rows: list[dict[str, Any]],
    promise: str,
) -> dict[str, Any]:
    settings = calibration.settings
    graded = settings.care or settings.weighted
    threshold = None if graded else calibration.score_threshold()
    status = [row["status"] for row in rows]
    return {
        "artifact": {"file": loaded.path.name, "sha256": loaded.artifact.digest},
        "method": settings.method,
        "level": settings.level,
        "guaranteed": guaranteed(calibration, loaded.circumstances()),
        "guarantee": promise,
        "rank": calibration.rank,
        "threshold": threshold,
        "infinite": calibration.infinite,
        "n_needed": calibration.n_needed,
        "n_patients": calibration.n,
        "n_ratio_scores": len(calibration.scored),
        "min_denominator_ml": settings.minimum_volume("ml") / 1000.0 if loaded.unit == "ml" else None,
        "min_denominator_voxels": settings.minimum_volume("voxel") if loaded.unit == "voxel" else None,
        "alarm_threshold": judged.threshold,
        "n_ok": status.count(OK),
        "n_no_ratio": len(status) - status.count(OK) - status.count(FAILED),
        "n_failed": status.count(FAILED),
        "n_alarms": sum(row["alarm"] for row in rows),
        "drift": shift.drift,
        "weights": None
        if shift.weights is None
        else {"effective_n": shift.weights.effective, "n_infinite": shift.n_infinite},
        "settings": settings.to_json(),
        "cases": rows,
    }


def _warn(calibration: Calibration, judged: Judged, shift: Shift, loaded: LoadedRatio, observer: Observer) -> None:
    few = too_few(calibration, loaded.ratio, loaded.unit)
    if few:
        observer.warn(few)
    if judged.few and shift.weights is not None:
        observer.warn(
            f"the weights leave {shift.weights.effective:.1f} effective calibration cases: weighted thresholds rest on "
            "too few"
        )
    if shift.drift is not None and shift.drift["shifted"]:
        tests = shift.drift["features"]
        moved = ", ".join(
            f"{name} (p = {test['p']:.2g})" for name, test in tests.items() if test["p"] < DRIFT_P / len(tests)
        )
        observer.warn(DRIFT_WARNING.format(moved))
    for case in (judged.table.ids[i] for i in np.flatnonzero(judged.seen)):
        observer.warn("was used to fit the artifact or its calibrator; the guarantee is for new patients", case)


def _people(rows: list[dict[str, Any]], alarmed: list[dict[str, Any]], judged: Judged) -> Table:
    """The cases to look at first."""
    column = "denominator_ml" if judged.unit == "ml" else "denominator_voxels"
    shown = tuple(
        (
            str(row["case"]),
            short(row["ratio"]),
            f"{short(row['ratio_low'])} to {short(row['ratio_high'])}" if row["status"] == OK else "-",
            short(row[column], 2),
            str(row["reasons"]).replace(";", ", "),
        )
        for row in alarmed[:SHOWN_ALARMS]
    )
    more = f"; the first {SHOWN_ALARMS} are shown" if len(alarmed) > SHOWN_ALARMS else ""
    return Table(
        f"Look at these: {len(alarmed)} of {count_text(len(rows), 'case')}{more}",
        ("case", "ratio", f"{percent(judged.settings.level)} interval", column.replace("_", " "), "why"),
        shown,
        f"wide: an interval of more than {short(judged.threshold)}" if np.isfinite(judged.threshold) else "",
    )
