"""``segcal cluster fit|apply``."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from segcal_cli.cli import exits, options
from segcal_cli.workflows import requests

app = typer.Typer(
    help="Prediction sets that hold region by region: calibrated where similar voxels are pooled.",
    no_args_is_help=True,
    rich_markup_mode="rich",
)


@app.command("fit")
@options.expanded
def fit(
    predictions: options.Predictions,
    labels: options.Labels,
    output: Annotated[Path, typer.Option("-o", "--output", help="The artifact to write (.npz).", show_default=False)],
    fitting: requests.ClusterFitOptions,
    reading: requests.PredictionOptions,
    truth: requests.LabelOptions,
    running: requests.RunOptions,
    sharding: requests.RoundOptions,
    device: requests.DeviceOptions,
    writing: requests.OutputOptions,
    talking: options.Talking,
) -> None:
    """Find regions whose voxels behave alike, and calibrate each on labelled cases; write one artifact.

    Some patients make the map, the others calibrate on it. Prints the map, the threshold of every class in every
    cluster, and what is promised for a new patient. Give --groups if a patient has several files.
    """
    from segcal_cli.workflows import cluster_fit

    exits.guarded(
        "cluster fit",
        talking.console(),
        talking.json,
        lambda observer: cluster_fit.run(
            predictions, labels, output, fitting, reading, truth, running, device, writing, observer, sharding
        ),
        allow_partial=running.allow_partial,
    )


@app.command("apply")
@options.expanded
def apply(
    artifact: options.ArtifactFile,
    predictions: options.Predictions,
    output: Annotated[Path, typer.Option("-o", "--output", help="The folder to write to.", show_default=False)],
    applying: requests.ClusterApplyOptions,
    reading: requests.PredictionOptions,
    running: requests.RunOptions,
    sharding: requests.ShardOptions,
    writing: requests.FolderOptions,
    talking: options.Talking,
) -> None:
    """Write for every voxel the classes that are still possible (bit c = class c), and how many. Needs no labels.

    Also writes cases.csv: volumes, mean set size, and the shares of voxels where nothing is known.
    """
    from segcal_cli.workflows import cluster_apply

    exits.guarded(
        "cluster apply",
        talking.console(),
        talking.json,
        lambda observer: cluster_apply.run(
            artifact, predictions, output, applying, reading, running, writing, observer, sharding
        ),
    )
