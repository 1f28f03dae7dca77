"""``segcal ntr-interval fit|apply``."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from segcal_cli.cli import exits, options
from segcal_cli.workflows import requests

app = typer.Typer(
    help="Ratio biomarkers (necrosis to tumour, core to tumour, tumour to organ) with intervals that hold.",
    no_args_is_help=True,
    rich_markup_mode="rich",
)


@app.command("fit")
@options.expanded
def fit(
    predictions: options.Predictions,
    labels: options.Labels,
    output: Annotated[Path, typer.Option("-o", "--output", help="The artifact to write (.npz).", show_default=False)],
    regions: requests.RatioRegionOptions,
    statistics: requests.RatioOptions,
    fitting: requests.RatioFitOptions,
    reading: requests.PredictionOptions,
    truth: requests.LabelOptions,
    running: requests.RunOptions,
    sharding: requests.RoundOptions,
    writing: requests.OutputOptions,
    talking: options.Talking,
) -> None:
    """Measure volumes and ratio of labelled cases that the network was not trained on; write one artifact.

    Level and method may be chosen again at apply; what is given here is the default there.
    """
    from segcal_cli.workflows import ratio_fit

    exits.guarded(
        "ntr-interval fit",
        talking.console(),
        talking.json,
        lambda observer: ratio_fit.run(
            predictions,
            labels,
            output,
            regions,
            statistics,
            fitting,
            reading,
            truth,
            running,
            writing,
            observer,
            sharding,
        ),
        allow_partial=running.allow_partial,
    )


@app.command("apply")
@options.expanded
def apply(
    artifact: options.ArtifactFile,
    predictions: options.Predictions,
    output: Annotated[
        Path, typer.Option("-o", "--output", help="The table to write (.csv): a row per case.", show_default=False)
    ],
    statistics: requests.RatioOptions,
    applying: requests.RatioApplyOptions,
    reading: requests.PredictionOptions,
    running: requests.RunOptions,
    sharding: requests.ShardOptions,
    writing: requests.FolderOptions,
    talking: options.Talking,
) -> None:
    """Write ratio, volumes, their intervals and alarms of new predictions. Needs no labels.

    Alarms are data: they do not change the exit code.
    """
    from segcal_cli.workflows import ratio_apply

    exits.guarded(
        "ntr-interval apply",
        talking.console(),
        talking.json,
        lambda observer: ratio_apply.run(
            artifact, predictions, output, statistics, applying, reading, running, writing, observer, sharding
        ),
    )
