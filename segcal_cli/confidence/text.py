"""The guarantee in words: for which unit, on which side, at which level, under which assumption."""

from __future__ import annotations

import math
from collections.abc import Sequence

from segcal_cli.confidence.log_odds import probability
from segcal_cli.confidence.scores import Score
from segcal_cli.confidence.spec import SetSpec
from segcal_cli.confidence.thresholds import TOO_FEW, Calibration, SideThreshold, ThresholdRow
from segcal_cli.core.errors import count_text

OVERLAPPED = (
    "No guarantee: some calibration cases had been used to fit the calibrator (--allow-overlap), so that new cases are "
    "not exchangeable with them."
)

WEIGHTED = {
    "": "",
    "given": " if the given weights are the true density ratios of new to calibration cases",
    "estimated": " approximately, since the weights are estimated",
}
"""How weights change the statement."""


OWN_THRESHOLDS = (
    "Each case has thresholds of its own; where one is infinite, the inner set is empty or the outer set everything."
)
"""What is said under weights in place of ranges and reasons."""


WITHIN_REGION = (
    " The sets lie in the region of interest, and what is target outside of it counts as missed; only the outer set of "
    "a threshold of +inf is the whole scan."
)
"""What a region of interest means for the statement, which is about all of the target."""


def percent(share: float) -> str:
    """A share in percent: 0.975 -> "97.5 %"."""
    return f"{round(100.0 * share, 6):.10g} %"


def guarantee(
    calibration: Calibration,
    alpha: float,
    *,
    roi: bool,
    ignored: bool,
    weights: str = "",
    overlapped: bool = False,
) -> str:
    """What the sets at this alpha promise. weights: "", "given" or "estimated". overlapped: whether the calibrator in
    front had seen calibration cases. Raises BadLevel.
    """
    if overlapped:
        return OVERLAPPED
    spec = calibration.spec
    rows = calibration.thresholds(alpha)
    head = f"{_for_whom(calibration)}{_promise(spec, rows, alpha, weights)}"
    # With weights each case has thresholds of its own, of which the unweighted ones say nothing.
    sentences = [head, OWN_THRESHOLDS] if weights else [head, *_exceptions(calibration, rows)]
    text = " ".join(sentences)
    return text + (WITHIN_REGION if roi else "") + (" All of this outside the ignored voxels." if ignored else "")


def _for_whom(calibration: Calibration) -> str:
    spec, n = calibration.spec, calibration.table.n
    calibrating = count_text(len(set(calibration.table.groups)), "calibration patient")
    stratum = " of one stratum" if spec.strata else ""
    if spec.unit == "hcp":
        return f"For a random case{stratum} of a new patient exchangeable with the {calibrating}"
    if spec.unit == "max":
        return f"For a new patient (all its cases{stratum} at once) exchangeable with the {calibrating}"
    return f"For a new case exchangeable with the {count_text(n, 'calibration case')}"


def _promise(spec: SetSpec, rows: Sequence[ThresholdRow], alpha: float, weights: str) -> str:
    within = "" if not spec.strata else f", within each of the strata {', '.join(spec.strata)}"
    parts = []
    joint = spec.joint != "none"
    for target, entry in enumerate(spec.targets):
        own = spec.levels(target, alpha)
        levels = ("", "") if spec.joint == "max" else tuple(f" ({percent(1 - level)})" for level in own)
        inner = f"{_inner(spec, entry.target.name)}{levels[0]}"
        outer = f"{_outer(spec, entry.target.name)}{levels[1]}"
        parts.append(f"{inner}{',' if joint else ';'} and{',' if joint and spec.ranks_present else ''} {outer}")
    each = spec.across == "each" and len(spec.targets) > 1
    if not joint:
        how = f"each of these holds with the probability beside it{WEIGHTED[weights]}, none of them jointly: "
    elif each:
        how = f"for each target on its own, with probability at least {percent(1 - alpha)}{WEIGHTED[weights]}: "
    else:
        how = f"with probability at least {percent(1 - alpha)}{WEIGHTED[weights]}: "
    sure = ""
    if spec.confidence is not None:
        several = " for each of the statements" if each or not joint or spec.strata else ""
        sure = (
            f" and given these calibration cases (with confidence {percent(spec.confidence)}{several} in having drawn "
            "typical ones),"
        )
    head = f"{within},{sure} {how}"
    who = "patients" if spec.unit != "case" else "cases"
    average = f" This holds on average over {who}, not for each kind of {who[:-1]}."
    if spec.strata:
        average = f" Within a stratum this holds on average over {who}."
    return head + "; ".join(parts) + "." + average + ("" if weights else _ranges(spec, rows))


def _inner(spec: SetSpec, name: str) -> str:
    if spec.rules.box_truth:
        return f"no voxel of the inner set lies outside the largest boxes inside the {name}"
    ratio = spec.rules.inner_ratio
    if ratio < 1.0:
        share = percent(1 - ratio)
        return f"voxels of the inner set outside the {name} number at most {share} of the predicted mask"
    return f"no voxel of the inner set is outside the {name}"


def _outer(spec: SetSpec, name: str) -> str:
    whole = "all of it is in the outer set"
    if spec.rules.box_truth:
        whole = "all bounding boxes of its parts are in the outer set"
    elif spec.rules.coverage_ratio < 1.0:
        whole = f"at least {percent(spec.rules.coverage_ratio)} of it is in the outer set"
    if spec.ranks_present and spec.unit == "hcp":
        # A patient counts once however many of its cases hold the target, so the draw is among those.
        return f"if there is any {name}, then for a random one of the patient's cases with {name} {whole}"
    if spec.ranks_present:
        return f"if there is any {name}, {whole}"
    return f"{whole.replace('of it', f'of the {name}')}"


def _ranges(spec: SetSpec, rows: Sequence[ThresholdRow]) -> str:
    """The 5-95 % range of this artifact's own coverage, where units are ranked and the threshold is finite."""
    if spec.joint == "max":
        return _joint_ranges(spec, rows)
    said = []
    for row in rows:
        where = " ".join(part for part in (row.target if len(rows) > 1 else "", row.stratum or "") if part)
        for side, found in (("inner", row.inner), ("outer", row.outer)):
            if found.range is not None and not found.vacuous:
                low, high = (f"{100 * end:.1f}" for end in found.range)
                said.append(f"{low}–{high} % ({' '.join(p for p in (where, side) if p)})")
    if not said:
        return ""
    listed = said[0] if len(said) == 1 else f"{', '.join(said[:-1])} and {said[-1]}"
    return f" This artifact's own coverage lies in {listed} with probability 90 %{' each' if len(said) > 1 else ''}."


def _joint_ranges(spec: SetSpec, rows: Sequence[ThresholdRow]) -> str:
    """The same where one threshold stands for both sides, and perhaps for all targets."""
    said: dict[str, None] = {}
    for row in rows:
        names = (row.target if len(spec.targets) > 1 and spec.across != "max" else "", row.stratum or "")
        where = " ".join(name for name in names if name)
        if row.inner.range is not None and not row.inner.vacuous:
            low, high = (f"{100 * end:.1f}" for end in row.inner.range)
            said[f"{low}–{high} %{f' ({where})' if where else ''}"] = None
    if not said:
        return ""
    each = " each" if len(said) > 1 else ""
    return f" This artifact's own coverage by both sets lies in {', '.join(said)} with probability 90 %{each}."


def _exceptions(calibration: Calibration, rows: Sequence[ThresholdRow]) -> list[str]:
    sentences = []
    for row in rows:
        for side, found in (("inner", row.inner), ("outer", row.outer)):
            if found.vacuous:
                said = vacuous_text(calibration, row, side, found)
                sentences.append(f"{said}.")
    return sentences


def vacuous_text(calibration: Calibration, row: ThresholdRow, side: str, found: SideThreshold) -> str:
    """Why a side says nothing, what its set is then, and what would do."""
    spec, table = calibration.spec, calibration.table
    where = f"{row.target}{f', stratum {row.stratum}' if row.stratum is not None else ''}"
    units = count_text(found.n, "patient" if spec.unit != "case" else "case")
    if side == "outer" and spec.ranks_present:
        units += f" with {row.target}"
    what = "the inner set is empty" if side == "inner" else "the outer set is everything"
    if found.reason == TOO_FEW:
        return (
            f"{where}: {units} cannot give alpha_{side} = {found.alpha:.6g}: threshold +inf, {what}; "
            f"{found.n_needed} would do"
        )
    if side == "inner":
        return f"{where}: too many full predictions: threshold +inf, {what}"
    target = _index(spec, row.target)
    outside = bool((table.missed_outside[:, target] > 0).any())
    blank = spec.rules.maps.empty == "empty" and spec.targets[target].outer.of_mask
    if outside:
        blank = blank and bool(((table.predicted_voxels[:, target] == 0) & table.present[:, target]).any())
    advice = "; --empty-prediction peak or full would help" if blank else ""
    if outside:
        advice += "; truth outside the region of interest is missed by any set in it"
    return f"{where}: too many complete misses among {units}: threshold +inf, {what}{advice}"


def threshold_text(spec: SetSpec, target: int, side: str, value: float) -> str:
    """A threshold with its unit, and the probability it stands for where the score is one."""
    score: Score = spec.targets[target].score(side)
    unit = spec.unit_of(target, side)
    shown = "inf" if value == math.inf else "-inf" if value == -math.inf else f"{value:.6g} {unit}"
    if score.kind in ("softmax", "sigmoid") and math.isfinite(value):
        p = probability(value) if side == "inner" else probability(-value)
        shown += f" (probability {p:.6g})"
    return shown


def outer_promise(spec: SetSpec, target: int, alpha: float) -> str:
    """What the outer set of one target promises at a total alpha, with its probability. Raises BadLevel."""
    units = "patients" if spec.unit != "case" else "cases"
    _, level = spec.levels(target, alpha)
    sure = "" if spec.confidence is None else f", with confidence {percent(spec.confidence)} in the calibration set"
    return f"{_outer(spec, spec.targets[target].target.name)}: in at least {percent(1 - level)} of new {units}{sure}"


def _index(spec: SetSpec, name: str) -> int:
    return [entry.target.name for entry in spec.targets].index(name)
