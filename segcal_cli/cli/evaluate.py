"""``segcal evaluate``."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from segcal_cli.cli import exits, options
from segcal_cli.workflows import requests


@options.expanded
def evaluate(
    predictions: options.OptionalPredictions = None,
    labels: options.OptionalLabels = None,
    *,
    output: Annotated[
        Path,
        typer.Option("-o", "--output", help="The table to write (.csv): a row per case and class.", show_default=False),
    ],
    outputs: requests.EvaluateOptions,
    sourcing: requests.SourceOptions,
    measuring: requests.MeasureOptions,
    drawing: requests.IntervalOptions,
    reading: requests.PredictionOptions,
    truth: requests.LabelOptions,
    running: requests.RunOptions,
    sharding: requests.ShardOptions,
    beside: requests.CompanionOptions,
    device: requests.DeviceOptions,
    writing: requests.OutputOptions,
    judging: requests.JudgeOptions,
    talking: options.Talking,
) -> None:
    """Measure the calibration and the overlap of PREDICTIONS against LABELS, raw, through each artifact and beside
    other models, in one pass."""
    from segcal_cli.workflows import evaluate as workflow

    request = requests.StudyRequest(
        predictions, labels, sourcing, measuring, drawing, reading, truth, running, judging, beside, device
    )
    exits.guarded(
        "evaluate",
        talking.console(),
        talking.json,
        lambda observer: workflow.run(request, output, observer, outputs, writing, sharding),
        allow_partial=running.allow_partial,
    )
