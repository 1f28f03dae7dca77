"""What commands ask of a ``conformal-sets`` artifact: its thresholds at any level, and what they promise."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from segcal_cli.confidence.evaluation import CaseOutcome, SetEvaluation
from segcal_cli.confidence.spec import SetSpec
from segcal_cli.confidence.text import percent
from segcal_cli.confidence.verdict import Verdict
from segcal_cli.core.artifact import Artifact
from segcal_cli.core.errors import count_text
from segcal_cli.reporting.pictures import Picture
from segcal_cli.workflows.conformal_pictures import READING, draw
from segcal_cli.workflows.conformal_sources import loaded_sets, refuse_other_place
from segcal_cli.workflows.conformal_text import sets_document, threshold_lines
from segcal_cli.workflows.conformal_verdicts import FILE_ENDS, controls_of, judged_levels, presented
from segcal_cli.workflows.inputs import Inputs
from segcal_cli.workflows.kinds import Description, Presented
from segcal_cli.workflows.requests import JudgeOptions
from segcal_cli.workflows.strata import Strata, strata_rule

FILES = FILE_ENDS
"""Ends of the names of the files that ``present`` makes."""

__all__ = ["FILES", "READING", "describe", "describe_at", "measurement", "pictures", "present"]


def describe(path: Path, artifact: Artifact) -> Description:
    """Targets, and the thresholds at the stored alpha. Raises DamagedSets."""
    return describe_at(path, artifact, ())


def describe_at(path: Path, artifact: Artifact, alphas: Sequence[float], *, verbose: bool = False) -> Description:
    """Targets, thresholds and the guarantee at each alpha (the stored one without any). Raises DamagedSets, BadLevel.

    verbose: with the whole table of the choice of scores.
    """
    loaded = loaded_sets(path, artifact)
    calibration = loaded.calibration
    levels = tuple(alphas) or (calibration.spec.alpha,)
    header = artifact.header
    lines = _spec_lines(calibration.spec)
    for alpha in levels:
        lines += threshold_lines(calibration, alpha)
        if alpha != calibration.spec.alpha:
            lines.append(f"guarantee   at alpha {alpha:g}: {loaded.promise(calibration, alpha)}")
    learning = header.results.get("learning")
    if learning:
        lines.append(f"learned on  {count_text(learning['n_cases'], 'case')} ({learning['from']})")
        if verbose:
            lines += _choice_lines(learning["choices"])
    lines += [f"warning     {warning}" for warning in header.results.get("warnings", [])]
    return Description(tuple(lines), sets_document(calibration, header.space, levels))


def measurement(
    path: Path, artifact: Artifact, predictions: Path, inputs: Inputs, options: JudgeOptions
) -> SetEvaluation:
    """Scores and set sizes of labelled cases. Raises OtherLength, OtherRegion, TableNeeded, BadOption."""
    loaded = loaded_sets(path, artifact)
    refuse_other_place(loaded, predictions, inputs)
    alpha, alphas = judged_levels(loaded, options)
    rule = strata_rule(loaded.path, loaded.spec.mondrian, options.mondrian)
    return SetEvaluation(
        loaded.calibration,
        alpha,
        alphas,
        None if rule is None else Strata(rule, loaded.spec.strata),
        tuple(zip(*(thresholds for _, thresholds in controls_of(loaded, options, alpha)), strict=True)),
    )


def present(
    name: str,
    path: Path,
    artifact: Artifact,
    result: Mapping[str, CaseOutcome],
    options: JudgeOptions,
    *,
    in_sample: bool,
) -> Presented:
    """Coverage with exact laws, sizes, the sweep, resplits, groups and other methods. Raises what the options raise."""
    loaded = loaded_sets(path, artifact)
    alpha, alphas = judged_levels(loaded, options)
    verdict = Verdict(loaded.calibration, result, alpha, alphas, artifact.header.seed)
    controls = controls_of(loaded, options, alpha)
    return presented(name, loaded, verdict, options, controls, in_sample=in_sample)


def pictures(
    name: str,
    path: Path,
    artifact: Artifact,
    result: Mapping[str, CaseOutcome],
    plots: Sequence[str],
    options: JudgeOptions,
    *,
    in_sample: bool,
) -> Iterator[Picture]:
    """Those that the numbers alone give; ``conformal_overlays`` has the ones on scans."""
    loaded = loaded_sets(path, artifact)
    alpha, alphas = judged_levels(loaded, options)
    verdict = Verdict(loaded.calibration, result, alpha, alphas, artifact.header.seed)
    yield from draw(name, verdict, plots, in_sample=in_sample)


def _spec_lines(spec: SetSpec) -> list[str]:
    lines = [
        f"sets        joint {spec.joint}, across targets {spec.across}, unit {spec.unit}, alpha {spec.alpha:g}"
        + (f", confidence {percent(spec.confidence)}" if spec.confidence is not None else "")
    ]
    same = [
        f"{entry.target.name} {entry.score(side)}"
        for entry in spec.targets
        for side in ("inner", "outer")
        if entry.score(side).kind in ("softmax", "sigmoid")
    ]
    if same:
        lines.append(f"score       {', '.join(same)}: same sets as log-odds")
    return lines


def _choice_lines(choices: Sequence[dict[str, Any]]) -> list[str]:
    lines = []
    for choice in choices:
        lines.append(
            f"choice      {choice['target']}: median margin by inner score, outer score, share of alpha inside"
        )
        lines += [
            f"  {row['median_margin']:.6f}  {row['inner_score']:<20} {row['outer_score']:<20} {row['share_inner']:.1f}"
            for row in choice["rows"]
        ]
    return lines
