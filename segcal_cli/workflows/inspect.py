"""``inspect``: what an artifact is, what it was fitted on, and what it guarantees."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from segcal_cli.calibration.text import calibration_map, map_lines
from segcal_cli.core.artifact import Artifact
from segcal_cli.core.observer import Observer
from segcal_cli.io.artifacts import read_artifact
from segcal_cli.workflows.calibrators import load_calibrator
from segcal_cli.workflows.outcome import Counts, Outcome


def run(path: Path, observer: Observer) -> Outcome:
    """Describe an artifact, as text and as a document. Raises the errors of reading one."""
    artifact = read_artifact(path)
    lines = [path.name, *description(artifact)]
    result = document(artifact)
    if artifact.header.kind == "calibrate":
        calibrator = load_calibrator(path, "inspect").calibrator
        lines += ["", *map_lines(calibrator)]
        result["map"] = calibration_map(calibrator)
    n = artifact.header.n_cases
    return Outcome(result, Counts(n, n), data="\n".join(lines) + "\n")


def document(artifact: Artifact) -> dict[str, Any]:
    """Everything in the header, with the file's digest and the shapes of its arrays."""
    header = artifact.header
    return {
        "sha256": artifact.digest,
        "kind": header.kind,
        "method": header.method,
        "format_version": header.format_version,
        "fitted_with": header.segcal_version,
        "space": header.space.to_json(),
        "values": header.values,
        "spec": header.spec,
        "n_cases": header.n_cases,
        "n_groups": header.n_groups,
        "case_ids": header.case_ids,
        "group_ids": header.group_ids,
        "fit_input_digest": header.fit_input_digest,
        "seed": header.seed,
        "guarantee": header.guarantee,
        "dropped": header.dropped,
        "results": header.results,
        "arrays": {name: list(array.shape) for name, array in artifact.arrays.items()},
    }


def description(artifact: Artifact) -> list[str]:
    """The header in words, one fact a line."""
    header, results = artifact.header, artifact.header.results
    classes = ", ".join(f"{c.name} ({'/'.join(map(str, sorted(c.values)))})" for c in header.space.channels)
    kind = "exclusive" if header.space.exclusive else "independent"
    lines = [
        f"kind        {header.kind}, method {header.method}",
        f"fitted on   {header.n_cases} cases of {header.n_groups} patients, {header.values}",
        f"fitted by   segcal {header.segcal_version}",
        f"classes     {classes}; {kind}",
        f"guarantee   {header.guarantee}",
    ]
    if "split_kind" in results:
        lines.append(f"split       {_split_words(str(results['split_kind']))}")
    if header.spec.get("source") == "cross-validation":
        lines.append("source      models of single folds, which are not the deployed ensemble")
    if header.spec.get("prove") is False:
        lines.append("proof       predictions were not checked against the segmentations beside them (--no-prove)")
    if header.spec.get("calibrator"):
        lines.append(f"on top of   the calibrator {str(header.spec['calibrator'])[:12]}")
    if header.spec.get("overlap_allowed"):
        lines.append("overlap     some cases had been used to fit that calibrator (--allow-overlap)")
    if header.dropped:
        lines.append(f"left out    {', '.join(entry['case'] for entry in header.dropped)}")
    for name, value in results.get("parameters", {}).items():
        entries = value.items() if isinstance(value, dict) else [("", value)]
        lines += [f"parameter   {name}{f' ({key})' if key else ''} = {number:.6g}" for key, number in entries]
    summary = results.get("summary")
    if summary:
        before, after = (summary[phase]["micro"]["all"] for phase in ("before", "after"))
        where = "in-sample" if summary["in_sample"] else "out of fold"
        shown = ", ".join(
            f"{key} {before[key]:.4g} -> {after[key]:.4g}"
            for key in ("nll", "ece", "ace", "brier", "dice")
            if before.get(key) is not None and after.get(key) is not None
        )
        lines.append(f"gain        {shown} ({where})")
    lines += [f"warning     {warning}" for warning in results.get("warnings", [])]
    lines.append(f"sha256      {artifact.digest}")
    return lines


def _split_words(kind: str) -> str:
    return {
        "out-of-fold": "out of fold: each case was predicted by a model that had not seen it",
        "held-out": "held out of the network's training",
        "in-sample": "IN-SAMPLE: the network was trained on these cases; expect too much confidence",
        "unknown": "unknown whether these cases were held out of the network's training",
    }.get(kind, kind)
