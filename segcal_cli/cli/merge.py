"""``segcal merge``."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from segcal_cli.cli import exits, options
from segcal_cli.workflows import requests


@options.expanded
def merge(
    parts: Annotated[list[Path], typer.Argument(metavar="PART...", help="What each shard wrote.", show_default=False)],
    output: Annotated[
        Path,
        typer.Option(
            "-o", "--output", help="What one run over all cases would have written there.", show_default=False
        ),
    ],
    tables: requests.MergeOptions,
    writing: requests.OutputOptions,
    talking: options.Talking,
) -> None:
    """Join the parts that --shard wrote: all of them, in any order. The result has the bytes of one run over all cases.

    A method that reads the cases more than once goes in rounds: the result is then a state, with which each shard runs
    again (--resume).
    """
    from segcal_cli.workflows import merge as workflow

    exits.guarded(
        "merge",
        talking.console(),
        talking.json,
        lambda observer: workflow.run(parts, output, tables, writing, observer),
    )
