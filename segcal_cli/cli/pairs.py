"""``segcal pairs``."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from segcal_cli.cli import exits, options
from segcal_cli.cli.words import spelling
from segcal_cli.workflows import requests


@options.expanded
def pairs(
    predictions: options.Predictions,
    labels: options.OptionalLabels = None,
    *,
    output: Annotated[
        Path | None, typer.Option("-o", "--output", help="Write the CSV here instead of stdout.", show_default=False)
    ] = None,
    prove: Annotated[
        bool,
        typer.Option(
            "--prove", help="Read the voxels too: value checks, and the proof.", rich_help_panel=spelling.READING
        ),
    ] = False,
    reading: requests.PredictionOptions,
    truth: requests.LabelOptions,
    running: requests.RunOptions,
    writing: requests.OutputOptions,
    talking: options.Talking,
) -> None:
    """Show what would be read and how the files pair up, as the CSV that --cases takes.

    Lists every problem; leaves with 0 if every row is ok, else 4.
    """
    from segcal_cli.workflows import pairs as workflow

    exits.guarded(
        "pairs",
        talking.console(),
        talking.json,
        lambda observer: workflow.run(predictions, labels, output, prove, reading, truth, running, writing, observer),
    )
