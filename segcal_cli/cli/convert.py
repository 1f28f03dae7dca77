"""``segcal convert``."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from segcal_cli.cli import exits, options
from segcal_cli.cli.words import spelling
from segcal_cli.workflows import requests


@options.expanded
def convert(
    predictions: options.Predictions,
    output: Annotated[Path, typer.Option("-o", "--output", help="The folder to write to.", show_default=False)],
    split_classes: Annotated[
        bool, typer.Option("--split-classes", help="One file per class.", rich_help_panel=spelling.OUTPUT)
    ] = False,
    *,
    reading: requests.PredictionOptions,
    running: requests.RunOptions,
    sharding: requests.ShardOptions,
    writing: requests.FolderOptions,
    talking: options.Talking,
) -> None:
    """Write any readable prediction as NIfTI in the geometry of its scan; the numbers pass bit for bit."""
    from segcal_cli.workflows import convert as workflow

    exits.guarded(
        "convert",
        talking.console(),
        talking.json,
        lambda observer: workflow.run(
            predictions, output, split_classes, reading, running, writing, observer, sharding
        ),
    )
