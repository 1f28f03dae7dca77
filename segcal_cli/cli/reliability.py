"""``segcal reliability``."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from segcal_cli.cli import exits, options
from segcal_cli.workflows import requests


@options.expanded
def reliability(
    predictions: options.OptionalPredictions = None,
    labels: options.OptionalLabels = None,
    *,
    output: Annotated[
        Path,
        typer.Option("-o", "--output", help="The folder for the pictures and report.html.", show_default=False),
    ],
    picturing: requests.ReliabilityOptions,
    sourcing: requests.SourceOptions,
    shard: options.NoShard = None,
    measuring: requests.MeasureOptions,
    drawing: requests.IntervalOptions,
    reading: requests.PredictionOptions,
    truth: requests.LabelOptions,
    running: requests.RunOptions,
    device: requests.DeviceOptions,
    writing: requests.OutputOptions,
    covering: requests.CoverageOptions,
    talking: options.Talking,
) -> None:
    """Draw how far the probabilities of PREDICTIONS can be trusted: pictures, their numbers as CSV, and one HTML
    report."""
    from segcal_cli.workflows import reliability as workflow

    request = requests.StudyRequest(
        predictions, labels, sourcing, measuring, drawing, reading, truth, running, device=device
    )
    exits.guarded(
        "reliability",
        talking.console(),
        talking.json,
        lambda observer: workflow.run(request, output, observer, picturing, covering, writing),
        allow_partial=running.allow_partial,
    )
