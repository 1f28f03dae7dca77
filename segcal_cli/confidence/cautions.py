"""What a fit has to say beyond its thresholds: nothing is wrong with the arithmetic, but the user should know."""

from __future__ import annotations

import math
from collections.abc import Mapping

import numpy as np

from segcal_cli.confidence.log_odds import LOG_ODDS_CLIP
from segcal_cli.confidence.maps import SIDES
from segcal_cli.confidence.table import CaseRow
from segcal_cli.confidence.text import vacuous_text
from segcal_cli.confidence.thresholds import Calibration
from segcal_cli.core.errors import FitError, count_text

SPACING_DIFFERENCE = 0.01
"""Steps of voxels are not comparable between cases whose spacings differ by more than this share."""


class NoTargetPresent(FitError):
    """Nothing to rank gamma on."""

    template = "target {0} is in none of the {1} calibration cases; --all-cases would rank cases without it"


def refuse_absent(calibration: Calibration) -> None:
    """Raise NoTargetPresent where gamma is ranked over cases with the target and there is none."""
    if not calibration.spec.ranks_present:
        return
    for target, entry in enumerate(calibration.spec.targets):
        if not calibration.table.present[:, target].any():
            raise NoTargetPresent(entry.target.name, calibration.table.n)


def cautions(calibration: Calibration, alpha: float, *, channels: int, precise: bool) -> list[str]:
    """Sentences for stderr. channels: of the prediction. precise: logits, so that nothing saturates."""
    spec, said = calibration.spec, []
    rows = calibration.thresholds(alpha)
    for row in rows:
        for side, found in (("inner", row.inner), ("outer", row.outer)):
            if found.vacuous:
                said.append(vacuous_text(calibration, row, side, found))
        if row.outer.value == -math.inf:
            said.append(f"{row.target}: most calibration cases have no target: outer threshold -inf, the set is empty")
    for target, entry in enumerate(spec.targets):
        said += _saturated(calibration, target, alpha, precise=precise)
        if channels > 1 and "identity" in (entry.inner.kind, entry.outer.kind):
            said.append(
                f"{entry.target.name}: identity compares stored values across voxels; raw logits of {channels} "
                "channels have an arbitrary offset in each voxel, log-odds have not"
            )
        edges = np.median(calibration.table.spacing, axis=0)
        slices = float(edges.max())
        for row in rows:
            if row.target != entry.target.name or spec.unit_of(target, "outer") != "mm" or slices == edges.min():
                continue
            if 0 <= row.outer.value < slices:
                said.append(
                    f"{row.target}: the outer set does not grow across slices: its margin of {row.outer.value:.4g} mm "
                    f"is below the slice spacing of {slices:.4g} mm"
                )
    outside = int((calibration.table.missed_outside > 0).any(axis=1).sum())
    if outside:
        many = count_text(outside, "case has", "cases have")
        said.append(f"{many} truth outside the region of interest, which counts as missed")
    said += _steps(calibration)
    return list(dict.fromkeys(said))


def same_pairs(rows: Mapping[str, CaseRow], digests: Mapping[str, str]) -> list[tuple[str, str]]:
    """Pairs of cases with identical prediction and label, by case id."""
    owner: dict[tuple[str, str], str] = {}
    pairs = []
    for id in sorted(rows, key=str.encode):
        key = (digests.get(id, ""), rows[id].label_digest)
        first = owner.setdefault(key, id) if key[0] else id
        if first != id:
            pairs.append((first, id))
    return pairs


def _saturated(calibration: Calibration, target: int, alpha: float, *, precise: bool) -> list[str]:
    """A score at the end of its scale that decides a threshold, or that more than alpha of the cases have."""
    spec, said = calibration.spec, []
    entry = spec.targets[target]
    levels = spec.levels(target, alpha)
    for side, scores, level in zip(SIDES, (calibration.table.tau, calibration.table.gamma), levels, strict=True):
        if not entry.score(side).of_log_odds:
            continue
        share = float((scores[:, target] >= LOG_ODDS_CLIP).mean())
        found = [
            row.inner if side == "inner" else row.outer
            for row in calibration.thresholds(alpha)
            if row.target == entry.target.name
        ]
        at_end = any(LOG_ODDS_CLIP <= one.value < math.inf for one in found)
        if share > level or at_end:
            what = (
                f"lies beyond the log-odds of {LOG_ODDS_CLIP:g} at which it is cut off"
                if precise
                else f"is a probability of exactly {'1' if side == 'inner' else '0'} as stored"
            )
            enough = "more than alpha" if share > level else "and the threshold is one of them"
            advice = "the score distance" if precise else "logits, or the score distance"
            said.append(
                f"{entry.target.name}: the {side} score of {100 * share:.3g} % of the cases {what}, {enough}; the "
                f"set says little. Use {advice}"
            )
    return said


def _steps(calibration: Calibration) -> list[str]:
    spec, spacing = calibration.spec, calibration.table.spacing
    counted = [
        str(entry.score(side))
        for entry in spec.targets
        for side in SIDES
        if entry.score(side).in_steps(spec.rules.maps.metric)
    ]
    spread = float((spacing.max(axis=0) / spacing.min(axis=0)).max()) - 1.0
    if not counted or spread <= SPACING_DIFFERENCE:
        return []
    return [
        f"{counted[0]} counts voxel steps, and the spacings of the cases differ by {100 * spread:.3g} %: steps are not "
        "comparable between them"
    ]
