"""The command line: one sub-command per module, gathered here."""

from __future__ import annotations

from typing import Annotated

import typer

from segcal_cli import __version__
from segcal_cli.cli import (
    calibrate,
    cluster,
    conformal_sets,
    convert,
    evaluate,
    inspect,
    merge,
    ntr_interval,
    pairs,
    reliability,
)

app = typer.Typer(
    name="segcal",
    help="Makes the confidence of a segmentation model trustworthy after training. Reads prediction folders (NIfTI, "
    "nnU-Net .npz, PNG), fits calibration artifacts on labelled cases, and applies them to new scans.",
    no_args_is_help=True,
    add_completion=True,
    context_settings={"help_option_names": ["-h", "--help"]},
    pretty_exceptions_enable=False,
)
app.add_typer(calibrate.app, name="calibrate")
app.add_typer(cluster.app, name="cluster")
app.add_typer(conformal_sets.app, name="conformal-sets")
app.add_typer(ntr_interval.app, name="ntr-interval")
app.command("evaluate")(evaluate.evaluate)
app.command("reliability")(reliability.reliability)
app.command("pairs")(pairs.pairs)
app.command("merge")(merge.merge)
app.command("convert")(convert.convert)
app.command("inspect")(inspect.inspect)


def _version(wanted: bool) -> None:
    if wanted:
        typer.echo(f"segcal {__version__}")
        raise typer.Exit


@app.callback()
def root(
    version: Annotated[
        bool, typer.Option("--version", callback=_version, is_eager=True, help="Print the version and leave.")
    ] = False,
) -> None:
    """The options of ``segcal`` itself."""


if __name__ == "__main__":
    from segcal_cli.cli.entry import main

    main()
