"""What commands ask of a ``calibrate`` artifact: its map from raw to calibrated probability."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from segcal_cli.calibration.cautions import number
from segcal_cli.calibration.text import calibration_map, entries, gain, map_lines, moved_decisions, optimum
from segcal_cli.core.artifact import Artifact
from segcal_cli.core.errors import count_text
from segcal_cli.workflows.calibrators import loaded_calibrator
from segcal_cli.workflows.kinds import Description

SPLITS = {
    "out-of-fold": "out of fold: each case was predicted by a model that had not seen it",
    "held-out": "held out of the network's training",
    "in-sample": "IN-SAMPLE: the network was trained on these cases; expect too much confidence",
    "unknown": "unknown whether these cases were held out of the network's training",
}
"""What the user declared about the predictions, in words."""


MEASURED = {"cross-validation": "out of fold", "held-out": "on patients left out of training"}
"""What the gain stands on, in words; else the word itself."""


def describe(path: Path, artifact: Artifact) -> Description:
    """Parameters, the gain out of fold, notes, warnings, and the map at 11 points. Raises DamagedCalibrator."""
    calibrator = loaded_calibrator(path, artifact).calibrator
    results = artifact.header.results
    split = results["split_kind"]
    lines = [f"split       {SPLITS.get(split, split)}"]
    for name, value in results["parameters"].items():
        lines += [f"parameter   {title} = {numbers}" for title, numbers, _ in entries(name, value)]
    lines.append(f"optimum     {optimum(results)}")
    lines += [f"decision    {text}" for text in moved_decisions(results)]
    training = results["facts"].get("training")
    if training:
        lines.append(f"training    {training_words(training)}")
    summary = results["summary"]
    if summary:
        before, after = (summary[phase]["micro"]["all"] for phase in ("before", "after"))
        where = MEASURED.get(summary["evaluated_on"], summary["evaluated_on"])
        lines.append(f"gain        {gain(before, after)} (all voxels pooled, {where})")
    lines += [f"note        {note}" for note in results["notes"]]
    lines += [f"warning     {warning}" for warning in results["warnings"]]
    return Description((*lines, "", *map_lines(calibrator)), {"map": calibration_map(calibrator)})


def training_words(training: Mapping[str, Any]) -> str:
    """How the training of a network went, in one line."""
    nll = training["nll"]
    losses = f"NLL {number(nll['alone'])} with one temperature, {number(nll['after'])} with the network"
    kept = "" if training["kept"] else "; the network was not kept"
    return f"{count_text(training['epochs'], 'epoch')}, the best was {training['best']}; {losses}{kept}"
