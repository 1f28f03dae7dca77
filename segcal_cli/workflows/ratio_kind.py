"""What commands ask of an ``ntr-interval`` artifact: its ratio, its thresholds, and what its intervals are worth."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from segcal_cli.core.artifact import Artifact
from segcal_cli.core.errors import UsageError, count_text
from segcal_cli.core.estimator import Estimator
from segcal_cli.ratio.comparison import Comparison, biases, comparisons, method_entry, width_parts
from segcal_cli.ratio.fit import RatioSums
from segcal_cli.ratio.guarantees import guaranteed
from segcal_cli.ratio.regions import Region
from segcal_cli.ratio.settings import METHODS
from segcal_cli.ratio.sums import Wanted
from segcal_cli.ratio.table import RatioTable
from segcal_cli.ratio.thresholds import with_ratio
from segcal_cli.reporting.pictures import Picture
from segcal_cli.workflows.inputs import Inputs
from segcal_cli.workflows.kinds import Description, Presented
from segcal_cli.workflows.ratio_artifacts import (
    LoadedRatio,
    loaded_ratio,
    refuse_other_unit,
    volume_unit,
)
from segcal_cli.workflows.ratio_pictures import READING, draw
from segcal_cli.workflows.ratio_text import SHOWN_LEVELS, settings_text, threshold_text, thresholds_table
from segcal_cli.workflows.ratio_verdicts import case_csv, method_csv, other_splits, people_tables
from segcal_cli.workflows.regions_of_interest import refuse_other_region
from segcal_cli.workflows.requests import JudgeOptions

__all__ = ["FILES", "READING", "describe", "measurement", "pictures", "present"]

FILES = ("methods.csv", "cases.csv")


class BadTolerance(UsageError):
    """A tolerance that no error can be held against."""

    template = "--ratio-tolerance {0} is not allowed; it must be 0 or more"


def describe(path: Path, artifact: Artifact) -> Description:
    """The ratio in words, the stored settings, and the threshold of each method at some levels, or how many patients
    it needs."""
    loaded = loaded_ratio(path, artifact)
    results = artifact.header.results
    thresholds = {
        method: {f"{level:.2f}": threshold_text(loaded, method, level) for level in SHOWN_LEVELS} for method in METHODS
    }
    unit = "ml" if loaded.unit == "ml" else "voxels"
    lines = [
        f"numerator   {_region(loaded.ratio.numerator)}",
        f"denominator {_region(loaded.ratio.denominator)}",
        f"ratio       in {loaded.ratio.bounds}; volumes in {unit}",
        f"scores      {count_text(results['n_ratio_scores'], 'ratio')} "
        f"of {count_text(results['n_patients'], 'patient')}; "
        f"{count_text(results['n_without_denominator'], 'label')} without a denominator, "
        f"{results['n_small_denominator']} predicted below the minimum",
        f"defaults    {settings_text(loaded.settings, loaded.unit)}",
        "",
        *thresholds_table(loaded.settings, thresholds),
    ]
    return Description(tuple(lines), {"thresholds": thresholds})


def measurement(path: Path, artifact: Artifact, predictions: Path, inputs: Inputs, options: JudgeOptions) -> Estimator:
    """Fills the table of the labelled cases; what is asked follows from it. Raises OtherUnit, OtherRegion."""
    loaded = loaded_ratio(path, artifact)
    refuse_other_unit(loaded, predictions, volume_unit(inputs.sources))
    refuse_other_region(path, artifact, inputs.sources)
    wanted = Wanted(labels=True, blocks=True, debiased=True, bins=artifact.header.spec["bins"])
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
    circumstances = loaded.circumstances(in_sample=in_sample)
    methods = [method_entry(one, options.ratio_tolerance, circumstances) for one in compared]
    calibration = loaded.calibration(loaded.settings)
    entry = {
        **_entry(name, loaded, result, compared),
        "guarantee": loaded.promise(calibration, in_sample=in_sample),
        "guaranteed": guaranteed(calibration, circumstances),
        "in_sample": in_sample,
        "other_splits": other_splits(methods, loaded.settings.delta1) or None,
        "methods": methods,
    }
    tables = tuple(people_tables(name, entry, loaded.settings.level, circumstances.broken))
    files = {
        "methods.csv": method_csv(methods),
        "cases.csv": case_csv(result, compared, loaded.settings.minimum_volume(loaded.unit)),
    }
    return Presented("ntr_interval", entry, tables, files)


def pictures(
    name: str,
    path: Path,
    artifact: Artifact,
    result: RatioTable,
    plots: Sequence[str],
    options: JudgeOptions,
    *,
    in_sample: bool,
) -> Iterator[Picture]:
    """For ``reliability``: intervals, widths, errors, at the level of the fit."""
    loaded = loaded_ratio(path, artifact)
    compared = comparisons(loaded.table, result, loaded.settings, loaded.unit, loaded.ratio.limit)
    yield from draw(name, loaded, result, compared, plots, in_sample=in_sample)


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
        **biases(new, settings, loaded.unit),
        "width_parts": width_parts(compared, settings.level, loaded.ratio.limit),
    }


def _region(region: Region) -> str:
    return f"{' + '.join(region.names)} (label {','.join(map(str, region.values))}) = {region.expression}"
