"""What commands ask of a ``calibrate`` artifact: its map from raw to calibrated probability."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from segcal_cli.calibration.text import calibration_map, map_lines
from segcal_cli.core.artifact import Artifact
from segcal_cli.workflows.calibrators import loaded_calibrator
from segcal_cli.workflows.kinds import Description, NoLevels

SPLITS = {
    "out-of-fold": "out of fold: each case was predicted by a model that had not seen it",
    "held-out": "held out of the network's training",
    "in-sample": "IN-SAMPLE: the network was trained on these cases; expect too much confidence",
    "unknown": "unknown whether these cases were held out of the network's training",
}
"""What the user declared about the predictions, in words."""


def describe(path: Path, artifact: Artifact, alphas: Sequence[float] = ()) -> Description:
    """Parameters, the gain out of fold, warnings, and the map at 11 points. Raises NoLevels, DamagedCalibrator."""
    if alphas:
        raise NoLevels(path, artifact.header.kind)
    results = artifact.header.results
    split = str(results.get("split_kind", "unknown"))
    lines = [f"split       {SPLITS.get(split, split)}"]
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
        lines.append(f"gain        {shown} (mean over classes, all voxels pooled, {where})")
    lines += [f"warning     {warning}" for warning in results.get("warnings", [])]
    calibrator = loaded_calibrator(path, artifact).calibrator
    return Description((*lines, "", *map_lines(calibrator)), {"map": calibration_map(calibrator)})
