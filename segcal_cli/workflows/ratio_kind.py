"""What commands ask of an ``ntr-interval`` artifact: its ratio, its thresholds, and what its intervals are worth."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from segcal_cli.core.artifact import Artifact
from segcal_cli.core.errors import UsageError
from segcal_cli.core.estimator import Estimator
from segcal_cli.ratio.comparison import Comparison, biases, comparisons, method_entry, width_parts
from segcal_cli.ratio.fit import RatioSums
from segcal_cli.ratio.regions import Region
from segcal_cli.ratio.settings import METHODS, Method
from segcal_cli.ratio.sums import Wanted
from segcal_cli.ratio.table import RatioTable
from segcal_cli.ratio.thresholds import Calibration, with_ratio
from segcal_cli.reporting.pictures import Picture
from segcal_cli.workflows.inputs import Inputs
from segcal_cli.workflows.kinds import Description, Presented
from segcal_cli.workflows.ratio_artifacts import (
    LoadedRatio,
    has_region,
    loaded_ratio,
    refuse_other_region,
    refuse_other_unit,
    volume_unit,
)
from segcal_cli.workflows.ratio_pictures import READING, draw
from segcal_cli.workflows.ratio_verdicts import case_csv, method_csv, people_tables
from segcal_cli.workflows.requests import JudgeOptions

__all__ = ["FILES", "READING", "describe", "measurement", "pictures", "present"]

FILES = ("methods.csv", "cases.csv")

SHOWN_LEVELS = (0.68, 0.80, 0.90, 0.95)
"""Levels at which ``inspect`` gives the threshold of each method."""


class BadTolerance(UsageError):
    """A tolerance that no error can be held against."""

    template = "--ratio-tolerance {0} is not allowed; it must be 0 or more"


def describe(path: Path, artifact: Artifact) -> Description:
    """The ratio in words, and the threshold of each method at some levels, or how many patients it needs."""
    loaded = loaded_ratio(path, artifact)
    settings, results = loaded.settings, artifact.header.results
    thresholds = {
        method: {f"{level:.2f}": _threshold(loaded, method, level) for level in SHOWN_LEVELS} for method in METHODS
    }
    unit = "ml" if loaded.unit == "ml" else "voxels"
    lines = [
        f"numerator   {_region(loaded.ratio.numerator)}",
        f"denominator {_region(loaded.ratio.denominator)}",
        f"ratio       in {loaded.ratio.bounds}; volumes in {unit}",
        f"scores      {results['n_ratio_scores']} ratios of {results['n_patients']} patients; "
        f"{results['n_without_denominator']} labels without a denominator, "
        f"{results['n_small_denominator']} predicted below the minimum",
        f"defaults    method {settings.method}, level {settings.level:g}, unit {settings.unit}, "
        f"alarm above {settings.alarm_width}",
        "",
        f"{'threshold at level':20}" + "".join(f"{level:>24.2f}" for level in SHOWN_LEVELS),
    ]
    lines += [f"{method:20}" + "".join(f"{text:>24}" for text in row.values()) for method, row in thresholds.items()]
    lines.append("care, care-guaranteed: radii of numerator / denominator; of care at its most lenient split")
    return Description(tuple(lines), {"thresholds": thresholds})


def measurement(path: Path, artifact: Artifact, predictions: Path, inputs: Inputs, options: JudgeOptions) -> Estimator:
    """Fills the table of the labelled cases; what is asked follows from it. Raises OtherUnit, OtherRegion."""
    loaded = loaded_ratio(path, artifact)
    refuse_other_unit(loaded, predictions, volume_unit(inputs.sources))
    refuse_other_region(loaded, has_region(inputs.sources))
    wanted = Wanted(labels=True, blocks=True, debiased=True, bins=int(artifact.header.spec["bins"]))
    return RatioSums(loaded.ratio, wanted)


def present(
    name: str, path: Path, artifact: Artifact, result: RatioTable, options: JudgeOptions, *, in_sample: bool
) -> Presented:
    """All methods at all levels on the labelled cases, soft and hard. Raises BadTolerance, BadSetting."""
    if not options.ratio_tolerance >= 0:
        raise BadTolerance(options.ratio_tolerance)
    loaded = loaded_ratio(path, artifact)
    if options.alarm_width is not None:
        stored = dataclasses.replace(loaded.settings, alarm_width=options.alarm_width)
        stored.check(contained=loaded.ratio.contained)
        loaded = dataclasses.replace(loaded, settings=stored)
    compared = comparisons(loaded.table, result, loaded.settings, loaded.unit, loaded.ratio.limit)
    methods = [method_entry(one, options.ratio_tolerance) for one in compared]
    entry = {**_entry(name, loaded, result, compared), "in_sample": in_sample, "methods": methods}
    files = {
        "methods.csv": method_csv(methods),
        "cases.csv": case_csv(result, compared, loaded.settings.minimum_volume(loaded.unit)),
    }
    return Presented("ntr_interval", entry, tuple(people_tables(name, entry, loaded.settings.level)), files)


def pictures(
    name: str, path: Path, artifact: Artifact, result: RatioTable, plots: Sequence[str], options: JudgeOptions
) -> Iterator[Picture]:
    """For ``reliability``: intervals, widths, errors, at the level of the fit."""
    loaded = loaded_ratio(path, artifact)
    compared = comparisons(loaded.table, result, loaded.settings, loaded.unit, loaded.ratio.limit)
    yield from draw(name, loaded, result, compared, plots)


def _entry(name: str, loaded: LoadedRatio, new: RatioTable, compared: list[Comparison]) -> dict[str, Any]:
    settings, header = loaded.settings, loaded.artifact.header
    scored = new.chosen(with_ratio(new, settings.minimum_volume(loaded.unit), "label"))
    labelled = int((new["B_label"] > 0).sum())
    return {
        "name": name,
        "file": loaded.path.name,
        "numerator": loaded.ratio.numerator.to_json(),
        "denominator": loaded.ratio.denominator.to_json(),
        "calibrator": header.spec.get("calibrator"),
        "volume_unit": loaded.unit,
        "n_cases": len(new),
        "n_ratio": len(scored),
        "n_without_denominator": len(new) - labelled,
        "n_small_denominator": labelled - len(scored),
        "n_patients": len(set(scored.groups)),
        "guarantee": header.guarantee,
        **biases(new, settings, loaded.unit),
        "width_parts": width_parts(compared, settings.level, loaded.ratio.limit),
    }


def _region(region: Region) -> str:
    return f"{' + '.join(region.names)} (label {','.join(map(str, region.values))}) = {region.expression}"


def _threshold(loaded: LoadedRatio, method: Method, level: float) -> str:
    settings = dataclasses.replace(
        loaded.settings, method=method, level=level, weighted=False, quantile="conformal", delta1=None, split="grid",
        calibration_error=None,
    )  # fmt: skip
    calibration = Calibration.of(loaded.table, settings, loaded.unit)
    if calibration.infinite:
        return f"needs {calibration.n_needed}"
    if not settings.care:
        return f"{calibration.score_threshold():.6g}"
    scale, unit = (1000.0, "ml") if loaded.unit == "ml" else (1.0, "voxels")
    radii = [calibration.radii(name)[0] / scale for name in "AB"]
    if settings.ce_unit == "mean":
        return " / ".join(f"{radius * scale:.3g}" for radius in radii)
    return " / ".join(f"{radius:.4g}" for radius in radii) + f" {unit}"
