"""``segcal calibrate fit|apply|compare``."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from segcal_cli.cli import exits, options
from segcal_cli.workflows import requests

app = typer.Typer(
    help="Repair the probabilities of a trained network: fit on labelled cases, apply to new ones.",
    no_args_is_help=True,
    rich_markup_mode="rich",
)


@app.command("fit")
@options.expanded
def fit(
    predictions: options.Predictions,
    labels: options.Labels,
    output: Annotated[Path, typer.Option("-o", "--output", help="The artifact to write (.npz).", show_default=False)],
    fitting: requests.CalibrateFitOptions,
    reading: requests.PredictionOptions,
    truth: requests.LabelOptions,
    running: requests.RunOptions,
    sharding: requests.RoundOptions,
    beside: requests.CompanionOptions,
    device: requests.DeviceOptions,
    writing: requests.OutputOptions,
    talking: options.Talking,
) -> None:
    """Fit a calibrator on labelled cases that the network was not trained on; write one artifact.

    Prints the negative log-likelihood, calibration errors and Dice before and after, out of fold over patients.
    """
    from segcal_cli.workflows import calibrate_fit

    exits.guarded(
        "calibrate fit",
        talking.console(),
        talking.json,
        lambda observer: calibrate_fit.run(
            predictions, labels, output, fitting, reading, truth, running, writing, observer, sharding, beside, device
        ),
        allow_partial=running.allow_partial,
    )


@app.command("apply")
@options.expanded
def apply(
    artifact: options.ArtifactFile,
    predictions: options.Predictions,
    output: Annotated[Path, typer.Option("-o", "--output", help="The folder to write to.", show_default=False)],
    applying: requests.CalibrateApplyOptions,
    reading: requests.PredictionOptions,
    beside: requests.CompanionOptions,
    running: requests.RunOptions,
    sharding: requests.ShardOptions,
    device: requests.DeviceOptions,
    writing: requests.FolderOptions,
    talking: options.Talking,
) -> None:
    """Write calibrated probabilities of new predictions. Needs no labels."""
    from segcal_cli.workflows import calibrate_apply

    exits.guarded(
        "calibrate apply",
        talking.console(),
        talking.json,
        lambda observer: calibrate_apply.run(
            artifact, predictions, output, applying, reading, running, writing, observer, beside, device, sharding
        ),
    )


@app.command("compare")
@options.expanded
def compare(
    predictions: options.Predictions,
    labels: options.Labels,
    output: Annotated[
        Path,
        typer.Option(
            "-o", "--output", help="The table to write (.csv): a row per method and class.", show_default=False
        ),
    ],
    comparing: requests.CalibrateCompareOptions,
    measuring: requests.MeasureOptions,
    drawing: requests.IntervalOptions,
    reading: requests.PredictionOptions,
    truth: requests.LabelOptions,
    running: requests.RunOptions,
    beside: requests.CompanionOptions,
    device: requests.DeviceOptions,
    writing: requests.OutputOptions,
    talking: options.Talking,
) -> None:
    """Compare calibration methods: Dice, ECE and more of each, on patients that it was not fitted on.

    Reads the cases twice; marks the best method and those that no test over patients tells from it. Writes no
    artifact: `calibrate fit` makes one of the method you choose.
    """
    from segcal_cli.workflows import calibrate_compare

    exits.guarded(
        "calibrate compare",
        talking.console(),
        talking.json,
        lambda observer: calibrate_compare.run(
            predictions,
            labels,
            output,
            comparing,
            measuring,
            drawing,
            reading,
            truth,
            running,
            writing,
            observer,
            beside,
            device,
        ),
    )
