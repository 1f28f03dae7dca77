"""``segcal evaluate``."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from segcal_cli.cli import exits, options
from segcal_cli.workflows import requests


@options.expanded
def evaluate(
    predictions: options.Predictions,
    labels: options.Labels,
    output: Annotated[
        Path,
        typer.Option("-o", "--output", help="The table to write (.csv): a row per case and class.", show_default=False),
    ],
    comparing: requests.EvaluateOptions,
    measuring: requests.MeasureOptions,
    reading: requests.PredictionOptions,
    truth: requests.LabelOptions,
    running: requests.RunOptions,
    writing: requests.OutputOptions,
    talking: options.Talking,
) -> None:
    """Measure the calibration and the overlap of PREDICTIONS against LABELS, raw and through each artifact, in one
    pass."""
    from segcal_cli.workflows import evaluate as workflow

    exits.guarded(
        "evaluate",
        talking.console(),
        talking.json,
        lambda observer: workflow.run(
            predictions, labels, output, comparing, measuring, reading, truth, running, writing, observer
        ),
    )
