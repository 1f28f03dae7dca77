"""``segcal conformal-sets fit|apply``."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from segcal_cli.cli import exits, options
from segcal_cli.workflows import requests

app = typer.Typer(
    help="Inner and outer masks that hold with a stated probability: fit on labelled cases, apply to new ones.",
    no_args_is_help=True,
    rich_markup_mode="rich",
)


@app.command("fit")
@options.expanded
def fit(
    predictions: options.Predictions,
    labels: options.Labels,
    output: Annotated[Path, typer.Option("-o", "--output", help="The artifact to write (.npz).", show_default=False)],
    fitting: requests.ConformalFitOptions,
    reading: requests.PredictionOptions,
    truth: requests.LabelOptions,
    running: requests.RunOptions,
    sharding: requests.RoundOptions,
    writing: requests.OutputOptions,
    talking: options.Talking,
) -> None:
    """Fit the thresholds of inner and outer sets on labelled cases; write one artifact.

    Prints for each target both thresholds, in mm where a distance is thresholded, and what they promise for a new case.
    Cases must be exchangeable with the ones to come: slices or patches of one patient are not cases of their own, give
    --groups.
    """
    from segcal_cli.workflows import conformal_fit

    exits.guarded(
        "conformal-sets fit",
        talking.console(),
        talking.json,
        lambda observer: conformal_fit.run(
            predictions, labels, output, fitting, reading, truth, running, writing, observer, sharding
        ),
        allow_partial=running.allow_partial,
    )


@app.command("apply")
@options.expanded
def apply(
    artifact: options.ArtifactFile,
    predictions: options.Predictions,
    output: Annotated[Path, typer.Option("-o", "--output", help="The folder to write to.", show_default=False)],
    applying: requests.ConformalApplyOptions,
    reading: requests.PredictionOptions,
    running: requests.RunOptions,
    sharding: requests.ShardOptions,
    writing: requests.FolderOptions,
    talking: options.Talking,
) -> None:
    """Write the inner and outer set of new predictions: 0 outside, 1 possible, 2 certain. Needs no labels.

    Also writes cases.csv (volumes, thresholds, flags) and a report on drift.
    """
    from segcal_cli.workflows import conformal_apply

    exits.guarded(
        "conformal-sets apply",
        talking.console(),
        talking.json,
        lambda observer: conformal_apply.run(
            artifact, predictions, output, applying, reading, running, writing, observer, sharding
        ),
    )
