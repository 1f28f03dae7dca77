"""The words of a fit: its report, and the map from raw to calibrated probability, as lines of text."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

import numpy as np

from segcal_cli.calibration import fine_tuning
from segcal_cli.calibration.calibrator import Calibrator
from segcal_cli.calibration.canonical import kind_of
from segcal_cli.calibration.cautions import number
from segcal_cli.calibration.registry import METHODS
from segcal_cli.calibration.result import FitResult
from segcal_cli.core.errors import count_text

MAP_POINTS = 11
"""Raw probabilities 0, 0.1 ... 1 of the printed map."""

BAR_WIDTH = 40
"""Characters of a bar that stands for 1."""

TITLES = {"nll": "NLL", "ece": "ECE", "ace": "ACE", "brier": "Brier", "dice": "Dice"}
"""Measures of the report, in its order."""


def gain(before: Mapping[str, float | None], after: Mapping[str, float | None]) -> str:
    """Measures before and after, of the row over all classes.

    NLL of exclusive classes is the joint one: it was minimised, and warnings and guarantees speak of it. The other
    measures are means over classes.
    """
    shown = []
    for key, title in TITLES.items():
        joint = f"joint_{key}" if key == "nll" else key
        used = joint if before.get(joint) is not None else key
        start, end = before.get(used), after.get(used)
        if start is not None and end is not None:
            shown.append(f"{title} {number(start)} -> {number(end)}")
    return ", ".join(shown)


def calibration_map(calibrator: Calibrator) -> dict[str, list[tuple[float, float]]]:
    """Class -> (raw p, calibrated p) at 11 points.

    Exclusive classes: the other classes share the rest of the probability equally, since the map depends on them too.
    Nested regions: each by itself, before the projection, for the others' probabilities need not be its own. {} for a
    method that looks at features, which no probability tells.
    """
    if calibrator.method == fine_tuning.METHOD.name:
        return {}
    space, alone = calibrator.space, replace(calibrator, project=False)
    raw = np.linspace(0.0, 1.0, MAP_POINTS).astype(np.float32)
    result = {}
    for channel in space.measured:
        slab = np.tile(raw, (len(space.channels), 1))
        if space.exclusive:
            slab[:] = (1.0 - raw) / (len(space.channels) - 1)
            slab[channel] = raw
        p = alone.amid_equals(slab)[channel]
        result[space.names[channel]] = [
            (float(round(a, 1)), float(b)) for a, b in zip(raw.astype(float), p, strict=True)
        ]
    return result


def map_lines(calibrator: Calibrator) -> list[str]:
    """The map as text: one line per point, with a bar; classes with one map share it."""
    lines = []
    if calibrator.method == fine_tuning.METHOD.name:
        return ["(no map of probabilities: the calibrated ones are made of features)"]
    if calibrator.hood is not None:
        lines.append("(amid neighbours that are predicted alike)")
    if kind_of(calibrator.space) == "softmax":
        lines.append("(the other classes share the rest equally)")
    alike: dict[tuple[str, ...], list[str]] = {}
    for name, points in calibration_map(calibrator).items():
        drawn = tuple(f"  {raw:.1f} -> {p:.4f} {'#' * round(p * BAR_WIDTH)}".rstrip() for raw, p in points)
        alike.setdefault(drawn, []).append(name)
    for drawn, names in alike.items():
        lines += [f"{', '.join(names)}: raw p -> calibrated p", *drawn]
    return lines


def report(result: FitResult) -> list[str]:
    """What a fit found, in words: method, parameters, before and after, the cut, notes and warnings."""
    cases, groups = len(result.case_ids), len(set(result.group_ids))
    on = f"{count_text(cases, 'case')} of {count_text(groups, 'patient')}"
    lines = [f"{result.spec.method} on {on}, {count_text(result.n_voxels, 'voxel')}"]
    for name, value in result.parameters.items():
        for title, found, interval in entries(name, value, result.interval.get(name)):
            ends = (
                ""
                if interval is None
                else f" (95 % of patient resamples: {number(interval[0])} to {number(interval[1])})"
            )
            lines.append(f"{title} = {found}{ends}")
    lines.append(optimum(result.results()))
    if result.summary is not None:
        where = {
            "in-sample": "in-sample",
            "held-out": "on the patients held out of training",
            "cross-validation": f"out of fold, {result.summary['folds']} folds over patients",
        }[result.summary["evaluated_on"]]
        before, after = (result.summary[phase]["micro"]["all"] for phase in ("before", "after"))
        lines.append(f"{gain(before, after)} ({where}, all voxels pooled)")
    lines += moved_decisions(result.results())
    return [*lines, *(f"note: {note}" for note in result.notes), *(f"warning: {text}" for text in result.warnings)]


def optimum(results: Mapping[str, Any]) -> str:
    """How the parameters were found, on the voxels that were fitted."""
    found = results["objective"]
    line = f"NLL {number(found['nll_before'])} -> {number(found['nll_after'])} on the fitted voxels"
    if found["loss"] != "nll":
        line += f", {found['loss']} {number(found['before'])} -> {number(found['after'])}"
    passes = results["passes"]
    return (
        f"{line}; largest gradient {found['gradient']:.1e} after {count_text(found['iterations'], 'step')} and "
        f"{count_text(passes, 'reading')}"
    )


def moved_decisions(results: Mapping[str, Any]) -> list[str]:
    """What calibrated decisions cost or gain, by class; nothing for methods that keep decisions."""
    if METHODS[results["method"]].keeps_decisions:
        return []
    lines = []
    for name, change in results["dice"].items():
        cut = results["threshold"].get(name)
        told = [] if cut is None else [f"0.5 after calibration is {cut:.3g} before"]
        if change["before"] is not None and change["after"] is not None:
            told.append(
                f"Dice {number(change['before'])} -> {number(change['after'])} where the decision is taken anew"
            )
        lines += [f"{name}: {', '.join(told)}"] if told else []
    return lines


def entries(name: str, value: Any, interval: Any = None) -> list[tuple[str, str, list[float] | None]]:
    """A parameter as (title, numbers, interval): one entry, or one per class, or one per row of a matrix."""
    if isinstance(value, dict):
        return [(f"{name} ({key})", number(one), (interval or {}).get(key)) for key, one in value.items()]
    if isinstance(value, list) and isinstance(value[0], list):
        return [(f"{name} [{i}]", _numbers(row), None) for i, row in enumerate(value)]
    return [(name, _numbers(value) if isinstance(value, list) else number(value), interval)]


def _numbers(row: list[float]) -> str:
    return ", ".join(map(number, row))
