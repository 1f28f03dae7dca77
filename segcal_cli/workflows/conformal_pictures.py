"""Pictures of conformal sets on labelled cases: false coverage, sizes, resplits, scores."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import numpy as np

from segcal_cli.confidence.maps import SIDES
from segcal_cli.confidence.studies import resplit_rows, sweep_rows
from segcal_cli.confidence.validation import beta_binomial
from segcal_cli.confidence.verdict import Verdict
from segcal_cli.reporting import sets
from segcal_cli.reporting.pictures import Drawing, Picture
from segcal_cli.reporting.style import Words
from segcal_cli.workflows.conformal_verdicts import RESPLITS_SAY
from segcal_cli.workflows.kinds import IN_SAMPLE, Reading

PLOTS = ("false-coverage", "set-sizes", "resplits", "set-scores")
"""Pictures that the numbers alone give."""

ON_SCANS = ("overlay", "score-maps")
"""Pictures that need the scans again."""

RESPLITS = 1000

READING: Mapping[str, Reading] = {
    "false-coverage": Reading(
        "How often the sets are wrong",
        "At each level the black line says which share of the cases had a wrong set; it should lie on or below the "
        "dashed diagonal, up to chance (hatched). The stairs are what n calibration cases can give.",
    ),
    "set-sizes": Reading(
        "How large the sets are",
        "Diameters of the sets relative to the truth, the middle of the cases: the closer both lines are to 1, the "
        "tighter the sets. A larger alpha buys tighter sets with more wrong ones.",
    ),
    "resplits": Reading(
        "Coverage over random resplits",
        "Stored and new cases, mixed and dealt out anew: bars and line agree whatever the data, unless scores are "
        "tied. The picture shows how much coverage may move by chance, and nothing about whether new cases are like "
        "the old ones.",
    ),
    "set-scores": Reading(
        "Scores behind the thresholds",
        "Each case has one score per side; the threshold cuts off the largest ones. Where the evaluated cases lie to "
        "the right of the calibration cases, they are harder. Bars at the edge are infinite scores: complete misses.",
    ),
    "overlay": Reading(
        "Sets on the scans",
        "Yellow is the annotator, red the inner set, blue the outer one; in 3-D three planes through the most of the "
        "target. Cases whose sets are wrong come first and say so; the others follow from tight to wide.",
    ),
    "score-maps": Reading(
        "Score maps",
        "What each score makes of the same slice, bright where it claims the target, with its thresholds as lines.",
    ),
}
"""Plot -> how to read it."""


def draw(name: str, verdict: Verdict, plots: Sequence[str], *, in_sample: bool) -> Iterator[Picture]:
    """Those of PLOTS that are asked for, one per target and stratum. in_sample: some cases were used in the fit."""
    sweep = sweep_rows(verdict)
    drawn = resplit_rows(verdict, RESPLITS)[1] if "resplits" in plots else []
    for target, stratum in verdict.strata():
        spec = verdict.calibration.spec
        subject = spec.targets[target].target.name
        where = verdict.calibration.strata[stratum]
        title = f"{subject}{f', stratum {where}' if where is not None else ''}, {name}"
        rows = [row for row in sweep if (row["target"], row["stratum"]) == (subject, where)]
        label = subject if where is None else f"{subject}-{where}"
        for plot in (plot for plot in PLOTS if plot in plots):
            caption = _caption(verdict, target, stratum, plot) + (IN_SAMPLE if in_sample else "")
            words = Words(f"{READING[plot].title}: {title}", caption)
            drawing: Drawing | None
            if plot == "false-coverage":
                drawing = sets.false_coverage(_curves(verdict, rows), words)
            elif plot == "set-sizes":
                drawing = _sizes(rows, words)
            elif plot == "resplits":
                mine = [one for one in drawn if (one["target"], one["stratum"]) == (subject, where)]
                drawing = _resplits(mine, words)
            else:
                drawing = sets.set_scores(_scores(verdict, target, stratum), words)
            if drawing is not None:
                yield Picture(plot, label, name, None, words.title, words.caption, drawing)


def _caption(verdict: Verdict, target: int, stratum: int, plot: str) -> str:
    spec, new = verdict.calibration.spec, verdict.units(target, stratum)
    unit = "patients" if spec.unit != "case" else "cases"
    row = verdict.calibration.threshold(target, stratum, verdict.alpha)
    text = (
        f"{spec.targets[target].inner} inside, {spec.targets[target].outer} outside, joint {spec.joint}. Calibration: "
        f"{row.inner.n} {unit} (inner), {row.outer.n} (outer); evaluated: {new.tau.size} {unit}."
    )
    if plot == "resplits":
        text += f" {RESPLITS_SAY}"
    if spec.ranks_present and plot == "false-coverage":
        text += f" Outer: of the {unit} that hold the target."
    return text


def _curves(verdict: Verdict, rows: Sequence[Mapping[str, Any]]) -> list[sets.ErrorCurve]:
    def column(key: str) -> np.ndarray:
        return np.array([np.nan if row[key] is None else row[key] for row in rows], dtype=np.float64)

    levels = {"inner": "alpha_inner", "outer": "alpha_outer", "joint": "alpha"}
    kept = [side for side in levels if side != "joint" or verdict.calibration.spec.joint != "none"]
    return [
        sets.ErrorCurve(
            side,
            column(levels[side]),
            column(f"false_{side}"),
            column(f"expected_{side}"),
            column(f"low_{side}"),
            column(f"high_{side}"),
        )
        for side in kept
    ]


def _sizes(rows: Sequence[Mapping[str, Any]], words: Words) -> Drawing | None:
    known = [row for row in rows if row["median_inner_diameter_ratio"] is not None]
    if not known:
        return None
    return sets.set_sizes(
        sets.SizeCurve(
            np.array([row["alpha"] for row in known]),
            np.array([row["median_inner_diameter_ratio"] for row in known]),
            np.array([row["median_outer_diameter_ratio"] for row in known]),
        ),
        words,
    )


def _resplits(drawn: Sequence[Mapping[str, Any]], words: Words) -> Drawing | None:
    finite = [one for one in drawn if one["rank"] <= one["n"]]
    if not finite:
        return None
    splits = [
        sets.Splits(one["side"], one["coverage"], beta_binomial(one["m"], one["n"], one["rank"])) for one in finite
    ]
    return sets.resplits(splits, words)


def _scores(verdict: Verdict, target: int, stratum: int) -> list[sets.ScoreSet]:
    spec, units = verdict.calibration.spec, verdict.units(target, stratum)
    row = verdict.calibration.threshold(target, stratum, verdict.alpha)
    made = []
    for index, side in enumerate(SIDES):
        location, scale = spec.targets[target].standard[index]
        if units.combined is not None:
            evaluated = location + scale * units.combined
        else:
            evaluated = units.tau if side == "inner" else units.gamma
            if side == "outer" and spec.ranks_present:
                evaluated = units.gamma_present
        inside, outside = verdict.voxel_scores(target, side)
        made.append(
            sets.ScoreSet(
                side,
                spec.unit_of(target, side),
                verdict.calibration.ranked(target, side, stratum).scores,
                evaluated,
                (row.inner if side == "inner" else row.outer).value,
                inside,
                outside,
            )
        )
    return made
