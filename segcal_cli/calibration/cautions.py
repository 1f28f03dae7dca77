"""Cautions: what a fit has to say about its own numbers, in sentences.

Each function looks at one danger. Whose predictions these are comes first: a calibrator fitted on predictions for the
network's own training cases learns the wrong confidence, and nothing in the numbers proves that it did not.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np

from segcal_cli.calibration import ensemble
from segcal_cli.calibration.average_error import ACE_LOSSES
from segcal_cli.calibration.fitting import Fitted, at_bound
from segcal_cli.calibration.likelihood import sigmoid
from segcal_cli.calibration.method import Method, Sketched
from segcal_cli.calibration.patients import Patients
from segcal_cli.calibration.registry import joint
from segcal_cli.calibration.solvers import SMALL_GRADIENT
from segcal_cli.calibration.spec import FitSpec
from segcal_cli.core.errors import count_text
from segcal_cli.core.labels import LabelSpace
from segcal_cli.core.volume import Values

LEAST_GAIN = 1e-6
"""A loss out of fold that falls by less, relatively, has not improved."""

DICE_LOSS = 0.005
"""A fall of Dice that is worth a warning."""

SUSPICIOUS_TEMPERATURE, SUSPICIOUS_DICE = 0.9, 0.97
"""Predictions that want to be sharper although their overlap is this good look like those of training cases."""

FAR = 0.2
"""Temperatures of two losses that differ by more, relatively, tell different stories."""

IDENTICAL = 1e-6
"""T this close to 1 changes nothing."""

LOST_BEYOND = {"float16": 7.6, "uint8": 5.5}
"""Logits that a stored probability of the type cannot tell from larger ones."""


def number(value: float) -> str:
    """Four significant digits."""
    return f"{value:.4g}"


def improved(before: float, after: float) -> bool:
    """Whether a loss has fallen by more than rounding and luck of the last digit."""
    return after < before * (1.0 - LEAST_GAIN)


def threshold_of(record: Method, row: np.ndarray) -> float | None:
    """The raw probability whose calibrated one is 0.5."""
    cut = record.cut(row)
    return None if cut is None else float(sigmoid(np.array(cut)))


def of_fit(
    patients: Patients, fitted: Fitted, spec: FitSpec, space: LabelSpace, values: Values
) -> tuple[list[str], list[str]]:
    """Warnings and notes that need no summary."""
    record = spec.record(space)
    warnings = [*_split(spec), *_few(patients, fitted), *_classes(fitted, record, space, spec)]
    warnings += [
        *_zeros(patients, space),
        *_coarse(patients, values),
        *_unfinished(fitted, spec, space),
        *_far_from_likeliest(fitted, record, space, spec),
    ]
    notes = []
    slopes = [record.slope(block.row) for block in fitted.blocks if not block.left]
    if record.keeps_decisions and slopes and all(abs(1.0 / slope - 1.0) <= IDENTICAL for slope in slopes):
        notes.append("already calibrated in the sense of NLL")
    if spec.optimiser == "adam":
        notes.append(
            "reproduction of a published recipe (Adam): it ends above the optimum, which --optimiser exact finds"
        )
    if spec.method == ensemble.METHOD.name:
        notes.append("nothing is fitted: the members are joined, and stay as they are")
    if isinstance(record, Sketched) and record.pieces:
        notes.append("voxels on one step become equally probable; do not put this before scores that need their order")
    return warnings, notes


def of_summary(
    summary: dict[str, Any] | None,
    held_out: tuple[float, float],
    fitted: Fitted,
    spec: FitSpec,
    space: LabelSpace,
) -> list[str]:
    """Warnings about what the fit gained. held_out: NLL before and after."""
    before, after = held_out
    where = fitted.where
    warnings = []
    if not improved(before, after) and spec.method != ensemble.METHOD.name:
        warnings.append(f"no gain: NLL {number(before)} -> {number(after)} {where}")
    if summary is None:
        return warnings
    old, new = summary["before"]["micro"], summary["after"]["micro"]
    if improved(before, after):
        for key in ("ece", "ace"):
            if new["all"][key] > old["all"][key]:
                warnings.append(
                    f"{key.upper()} is worse although NLL is better: {number(old['all'][key])} -> "
                    f"{number(new['all'][key])}; it weighs the rare middle probabilities more than NLL does"
                )
    record = spec.record(space)
    rows = None if joint(record, space) else fitted.rows(len(new["classes"]))
    for i, (name, row) in enumerate(new["classes"].items()):
        dice = old["classes"][name]["dice"]
        if dice is None or row["dice"] is None or dice - row["dice"] <= DICE_LOSS:
            continue
        cut = None if rows is None else threshold_of(record, rows[i])
        advice = "" if cut is None else f"0.5 after calibration is {cut:.3g} before; "
        warnings.append(
            f"{name}: Dice {number(dice)} -> {number(row['dice'])} where the decision is taken anew: "
            f"{advice}--segmentation keep leaves the mask"
        )
    dice = old["all"]["dice"]
    for block in fitted.blocks:
        sharper = record.keeps_decisions and 1.0 / record.slope(block.row) < SUSPICIOUS_TEMPERATURE
        if sharper and dice is not None and dice > SUSPICIOUS_DICE:
            warnings.append(
                f"T = {number(1.0 / record.slope(block.row))} with a Dice of {number(dice)}: these look like "
                "predictions for the network's own training cases"
            )
            break
    return warnings


def _split(spec: FitSpec) -> Iterator[str]:
    if spec.split_kind == "unknown":
        yield (
            "Were these cases held out of training? For nnU-Net use fold_*/validation (out of fold). "
            "Recorded as unknown."
        )
    if spec.split_kind == "in-sample":
        yield (
            "in-sample: these are predictions for the network's own training cases, so the calibrator learns a "
            "confidence that new cases do not have"
        )


def _few(patients: Patients, fitted: Fitted) -> Iterator[str]:
    if len(patients.groups) == 1:
        yield "only one patient: the summary is in-sample, and nothing says how the next patient differs"
    elif not fitted.folds:
        yield "the summary is in-sample: measured on the cases that were fitted, it is biased low"


def _classes(fitted: Fitted, record: Method, space: LabelSpace, spec: FitSpec) -> Iterator[str]:
    names = [space.names[c] for c in space.measured]
    for name, reason in fitted.left:
        yield f"{name}: {reason}; left as it is"
    for block in fitted.blocks:
        who = "all classes" if joint(record, space) or len(block.problems) > 1 else names[block.problems[0]]
        if block.left:
            yield f"{who}: {block.left}; left as it is"
            continue
        slope = record.slope(block.row)
        if slope <= 0.0:
            yield f"{who}: the fitted slope is {number(slope)}: higher confidence does not go with the class"
            continue
        end = at_bound(slope)
        if end == "low" and record.keeps_decisions:
            yield (
                f"{who}: T reached its bound, {number(1.0 / slope)}: higher confidence does not go with the class; "
                "a wrong class order, or a flipped volume?"
            )
        if end == "high":
            what = (
                f"T reached its bound, {number(1.0 / slope)}"
                if record.keeps_decisions
                else "the slope reached its bound"
            )
            yield (
                f"{who}: {what}: the labels are separable by the prediction; in-sample predictions, or "
                "labels made from them?"
            )


def _unfinished(fitted: Fitted, spec: FitSpec, space: LabelSpace) -> Iterator[str]:
    if (
        spec.family(space) == "sample"
        and spec.refine
        and spec.optimiser == "exact"
        and fitted.gradient >= SMALL_GRADIENT
    ):
        yield (
            f"the exact passes ended before the optimum: the largest gradient is {number(fitted.gradient)}, not below "
            f"{SMALL_GRADIENT:g}; give --refine more than {spec.refine}, or more --voxels"
        )


def _far_from_likeliest(fitted: Fitted, record: Method, space: LabelSpace, spec: FitSpec) -> Iterator[str]:
    if spec.loss not in ACE_LOSSES:
        return
    names = [space.names[c] for c in space.measured]
    for block in fitted.blocks:
        if block.likeliest is None:
            continue
        slope, likeliest = record.slope(block.row), record.slope(block.likeliest)
        if abs(likeliest / slope - 1.0) > FAR:
            who = "all classes" if joint(record, space) or len(block.problems) > 1 else names[block.problems[0]]
            what = (
                f"T is {number(1.0 / slope)}, that of least NLL {number(1.0 / likeliest)}"
                if record.keeps_decisions
                else f"the slope is {number(slope)}, that of least NLL {number(likeliest)}"
            )
            yield f"{who}: {what}: the average calibration error goes by rare middle probabilities"


def _zeros(patients: Patients, space: LabelSpace) -> Iterator[str]:
    counts = np.sum([case.zeros for case in patients.cases], axis=0)
    floor = max(-np.log(case.stored.floor) for case in patients.cases)
    for channel, count in zip(space.measured, counts, strict=True):
        if count:
            where = count_text(int(count), "voxel of the true class has", "voxels of the true class have")
            yield (
                f"{space.names[channel]}: {where} a stored probability of exactly 0; each adds its floor, up to "
                f"{floor:.0f} nats, and drags the fit"
            )


def _coarse(patients: Patients, values: Values) -> Iterator[str]:
    if values != "probabilities":
        return
    for dtype in sorted({case.stored.dtype for case in patients.cases} & set(LOST_BEYOND)):
        yield (f"{dtype} probabilities: logits beyond {LOST_BEYOND[dtype]} are lost; T and slope are lower bounds")
