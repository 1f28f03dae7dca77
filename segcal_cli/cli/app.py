"""The command line: one sub-command per module, gathered here."""

from __future__ import annotations

from typing import Annotated

import typer

from segcal_cli import __version__
from segcal_cli.cli.on_demand import group_of

SUMMARIES = {
    "calibrate": "Repair the probabilities of a trained network: fit on labelled cases, apply to new ones.",
    "cluster": "Prediction sets that hold region by region: calibrated where similar voxels are pooled.",
    "conformal-sets": "Inner and outer masks that hold with a stated probability: fit on labelled cases, apply to new "
    "ones.",
    "ntr-interval": "Ratio biomarkers (necrosis to tumour, core to tumour, tumour to organ) with intervals that hold.",
    "evaluate": "Measure the calibration and the overlap of PREDICTIONS against LABELS, raw, through each artifact and "
    "beside other models, in one pass.",
    "reliability": "Draw how far the probabilities of PREDICTIONS can be trusted: pictures, their numbers as CSV, and "
    "one HTML report.",
    "pairs": "Show what would be read and how the files pair up, as the CSV that --cases takes.",
    "merge": "Join the parts that --shard wrote: all of them, in any order. The result has the bytes of one run over "
    "all cases.",
    "convert": "Write any readable prediction as NIfTI in the geometry of its scan; the numbers pass bit for bit.",
    "inspect": "Say what an artifact is, what it was fitted on, and what it guarantees.",
}
"""Every command, in the order of the list, and what it does: how its own help begins."""

app = typer.Typer(
    name="segcal",
    cls=group_of({name: f"{__package__}.{name.replace('-', '_')}" for name in SUMMARIES}, SUMMARIES),
    help="Makes the confidence of a segmentation model trustworthy after training. Reads prediction folders (NIfTI, "
    "nnU-Net .npz, PNG), fits calibration artifacts on labelled cases, and applies them to new scans.",
    no_args_is_help=True,
    add_completion=True,
    context_settings={"help_option_names": ["-h", "--help"]},
    pretty_exceptions_enable=False,
)


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
