"""Words of ``inspect`` about a ratio artifact: what is stored as default, and what thresholds follow from it.

The method that is stored has the thresholds of its own settings; the others those that they would have if nothing but
their name were given at ``apply``.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping

from segcal_cli.ratio.guarantees import minimum_text, percent
from segcal_cli.ratio.settings import MM3_PER_ML, Method, Settings
from segcal_cli.ratio.thresholds import Calibration
from segcal_cli.workflows.ratio_artifacts import LoadedRatio

SHOWN_LEVELS = (0.68, 0.80, 0.90, 0.95)
"""Levels at which ``inspect`` gives the threshold of each method."""


def settings_text(settings: Settings, unit: str) -> str:
    """What ``apply`` does unless it is told otherwise. unit: "ml" or "voxel"."""
    words = [f"method {settings.method}", f"level {percent(settings.level)}", f"unit {settings.unit}"]
    if settings.method in ("care", "cp"):
        words.append(f"quantile {settings.quantile}")
    if settings.care:
        words.append(f"calibration error {settings.score}{' per voxel' if settings.ce_unit == 'mean' else ''}")
    if settings.markov:
        words.append(f"split {split_text(settings)}")
        words.append(f"squared error {settings.estimation}, tail {settings.tail}")
    elif settings.method == "care":
        words.append("no estimation bound")
    if settings.weighted:
        words.append("weighted")
    if settings.debias != "none":
        words.append(f"debiased ratio {settings.debias}")
    words += [f"least denominator {minimum_text(settings, unit)}", f"alarm above {settings.alarm_width}"]
    if settings.cutoff is not None:
        words.append(f"cut-off {settings.cutoff:g}")
    return ", ".join(words)


def split_text(settings: Settings) -> str:
    """How care divides the error."""
    if settings.split == "grid":
        return "grid (the narrowest of 20 per case)"
    return f"fixed, delta1 {'half' if settings.delta1 is None else format(settings.delta1, 'g')}"


def thresholds_table(stored: Settings, thresholds: Mapping[Method, Mapping[str, str]]) -> list[str]:
    """Aligned lines: a method per line, a level per column."""
    wide = max(24, 2 + max(len(text) for row in thresholds.values() for text in row.values()))
    lines = [f"{'threshold at level':20}" + "".join(f"{level:>{wide}.2f}" for level in SHOWN_LEVELS)]
    lines += [
        f"{method + (' *' if method == stored.method else ''):20}" + "".join(f"{text:>{wide}}" for text in row.values())
        for method, row in thresholds.items()
    ]
    lines.append("* the stored method, with its stored settings; the others with theirs unless told otherwise")
    lines.append(
        "care, care-guaranteed: radii of numerator / denominator; of a grid those of its most lenient split, the "
        "narrowest calibration bound"
    )
    return lines


def threshold_text(loaded: LoadedRatio, method: Method, level: float) -> str:
    """The threshold, or how many patients it needs."""
    settings = dataclasses.replace(loaded.settings, method=method, level=level, weighted=False)
    if method != loaded.settings.method:
        settings = dataclasses.replace(
            settings, quantile="conformal", delta1=None, split="grid", calibration_error=None, estimation="iid",
            tail="markov",
        )  # fmt: skip
    if settings.delta1 is not None and settings.delta1 >= settings.delta:
        return f"delta1 {settings.delta1:g} too large"
    calibration = Calibration.of(loaded.table, settings, loaded.unit)
    if calibration.infinite:
        return f"needs {calibration.n_needed}"
    if not settings.care:
        return f"{calibration.score_threshold():.6g}"
    radii = [calibration.radii(name)[0] for name in "AB"]
    if settings.ce_unit == "mean":
        return " / ".join(f"{radius:.3g}" for radius in radii) + " per voxel"
    scale, unit = (MM3_PER_ML, "ml") if loaded.unit == "ml" else (1.0, "voxels")
    return " / ".join(f"{radius / scale:.4g}" for radius in radii) + f" {unit}"
