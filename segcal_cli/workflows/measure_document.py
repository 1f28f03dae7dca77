"""The JSON document of ``evaluate``: every number, and a reason beside each one that is undefined."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import asdict
from functools import partial
from typing import Any

from segcal_cli.core.labels import ALL_CLASSES
from segcal_cli.metrics.columns import CALIBRATION_COLUMNS, OVERLAP_COLUMNS, TOP_COLUMNS, UNAVERAGED, Row
from segcal_cli.metrics.intervals import MIN_GROUPS
from segcal_cli.metrics.measures import CaseMeasures
from segcal_cli.metrics.summaries import Spread, Summary
from segcal_cli.workflows.measure_tables import Evaluation, SourceResult, comparison_rows
from segcal_cli.workflows.measure_text import comparison_note

Reason = Callable[[str], str]


def evaluation_json(evaluation: Evaluation) -> dict[str, Any]:
    """The ``result`` of ``evaluate --json``."""
    first = evaluation.sources[0]
    in_sample = {source.name: source.in_sample for source in evaluation.sources}
    return {
        "options": _options(evaluation),
        "conventions": evaluation.conventions,
        "guarantee": evaluation.guarantee,
        "activation": evaluation.space.activation,
        "classes": [*evaluation.space.names, *(region.name for region in evaluation.space.regions)],
        "n_cases": len(first.cases),
        "n_groups": evaluation.n_groups,
        "sources": [_source(source, evaluation) for source in evaluation.sources],
        "comparison": [
            explained(row, partial(_comparison_reason, row)) | {"in_sample": in_sample[row["source"]]}
            for row in comparison_rows(evaluation)
        ],
        "comparison_note": comparison_note(evaluation),
        "pareto": [{"class": name, "front": front} for name, front in evaluation.fronts.items()],
        "absent": [{"case": case, "class": name} for case, name in evaluation.absent],
    }


def explained(values: Mapping[str, Any], reason: Reason) -> dict[str, Any]:
    """The same with a ``KEY_reason`` after each undefined KEY."""
    out: dict[str, Any] = {}
    for key, value in values.items():
        out[key] = value
        if value is None:
            out[f"{key}_reason"] = reason(key)
    return out


def _options(evaluation: Evaluation) -> dict[str, Any]:
    settings, intervals = asdict(evaluation.settings), evaluation.intervals
    return settings | {
        "kde_bandwidth": settings["kde_bandwidth"] or "auto",
        "convention": evaluation.convention or "none",
        "roi": evaluation.roi,
        "level": intervals.level,
        "bootstrap": intervals.resamples,
        "seed": intervals.seed,
    }


def _source(source: SourceResult, evaluation: Evaluation) -> dict[str, Any]:
    summary = evaluation.summaries[source.name]
    artifact = explained({"artifact": source.artifact}, lambda _: "predictions as they are")
    return {
        "name": source.name,
        **artifact,
        "in_sample": source.in_sample,
        "cases": [_case(case, evaluation) for case in source.cases],
        "macro": {
            "classes": {name: _spreads(of, evaluation) for name, of in summary.macro.classes.items()},
            "all": _spreads(summary.macro.all, evaluation),
        },
        "micro": {
            "classes": {
                name: explained(row, partial(_micro_reason, row, evaluation, name))
                for name, row in summary.micro.classes.items()
            },
            "all": explained(summary.micro.all, partial(_micro_reason, summary.micro.all, evaluation, ALL_CLASSES)),
        },
        "micro_interval": _micro_intervals(summary, evaluation),
    }


def _case(case: CaseMeasures, evaluation: Evaluation) -> dict[str, Any]:
    return {
        "case": case.case,
        "group": case.group,
        "classes": {
            name: explained(row, partial(_row_reason, row, evaluation, name)) for name, row in case.classes.items()
        },
        "all": explained(case.all, partial(_row_reason, case.all, evaluation, ALL_CLASSES)),
    }


def _row_reason(row: Row, evaluation: Evaluation, name: str, key: str) -> str:
    """Why a measure of a case (or of all pooled) is undefined."""
    settings = evaluation.settings
    if key not in settings.wanted:
        return "not asked for (--metrics)"
    if key in TOP_COLUMNS:
        return "classes do not exclude each other"
    if name == ALL_CLASSES and key in UNAVERAGED:
        return "the mean of bin numbers means nothing"
    if key in OVERLAP_COLUMNS:
        return "no class has a value" if name == ALL_CLASSES else "neither label nor prediction holds the class"
    if key in CALIBRATION_COLUMNS and settings.absent == "skip" and not row["n_label"]:
        return "no label holds the class (--absent skip)"
    return {"volume_bias_ml": "no voxel spacing", "kde_ece": "fewer than two voxels"}.get(key, "no voxel")


def _micro_reason(row: Row, evaluation: Evaluation, name: str, key: str) -> str:
    if key == "kde_ece" and key in evaluation.settings.wanted:
        return "samples of single cases are not pooled"
    return _row_reason(row, evaluation, name, key)


def _spreads(spreads: Mapping[str, Spread], evaluation: Evaluation) -> dict[str, Any]:
    return {
        key: explained(spread.to_json(), partial(_spread_reason, spread, key, evaluation))
        for key, spread in spreads.items()
    }


def _spread_reason(spread: Spread, metric: str, evaluation: Evaluation, key: str) -> str:
    if not spread.n:
        asked = metric in evaluation.settings.wanted
        return "no patient has a value" if asked else "not asked for (--metrics)"
    if key == "std":
        return "one patient"
    if not evaluation.intervals.resamples:
        return "no resamples (--bootstrap 0)"
    return f"fewer than {MIN_GROUPS} patients" if spread.n < MIN_GROUPS else "resamples have no spread"


def _micro_intervals(summary: Summary, evaluation: Evaluation) -> dict[str, Any]:
    """[low, high] of every micro measure; null with a reason where there is no interval."""
    of = summary.micro_interval

    def ends(row: Row, found: Mapping[str, tuple[float | None, float | None]]) -> dict[str, Any]:
        pairs = {key: None if None in found.get(key, (None,)) else list(found[key]) for key in row}
        return explained(pairs, partial(_end_reason, row, evaluation))

    return {
        "classes": {name: ends(row, of.classes.get(name, {})) for name, row in summary.micro.classes.items()},
        "all": ends(summary.micro.all, of.all),
    }


def _end_reason(row: Row, evaluation: Evaluation, key: str) -> str:
    if row[key] is None:
        return "the value itself is undefined"
    if not evaluation.intervals.resamples:
        return "no resamples (--bootstrap 0)"
    if evaluation.n_groups == 1:
        return "one patient"
    return "not resampled"


def _comparison_reason(row: Mapping[str, Any], key: str) -> str:
    if key.startswith("p_") and row["source"] == row["best"]:
        return "it is the best source itself"
    return "fewer than two patients have both values" if key != "mean" else "no patient has a value"
