"""Every shared option once: its spelling and its help.

The records of ``workflows/requests.py`` hold types and defaults; this registry holds the words. A command takes whole
records as parameters, and ``expanded`` turns each field into an option of its own, so that no option is declared twice
and every command spells it the same.

PredictionOptions   every command that reads predictions
LabelOptions        calibrate fit, evaluate, pairs
RunOptions          every command that works on cases
OutputOptions       every command that writes files
Talking             every command
MeasureOptions, SourceOptions, IntervalOptions    every command that measures
EvaluateOptions, ReliabilityOptions, CalibrateFitOptions, CalibrateApplyOptions    the command of that name
"""

from __future__ import annotations

import dataclasses
import functools
import inspect
import typing
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any

import typer

from segcal_cli.cli.console import QUIET, Console
from segcal_cli.workflows import requests

READING, LABELS, RUNNING, OUTPUT, TALKING = "Reading predictions", "Reading labels", "Running", "Output", "Messages"
METHOD, CONVENTIONS, COMPARING, PICTURES = "Method", "Conventions", "Comparing", "Pictures"

Predictions = Annotated[
    Path,
    typer.Argument(
        metavar="PREDICTIONS", help="Folder (or one file) of logit or probability volumes.", show_default=False
    ),
]
Labels = Annotated[
    Path, typer.Argument(metavar="LABELS", help="Folder (or one file) of label volumes.", show_default=False)
]
OptionalPredictions = Annotated[
    Path | None,
    typer.Argument(
        metavar="[PREDICTIONS]", help="Folder (or one file) of logit or probability volumes.", show_default=False
    ),
]
OptionalLabels = Annotated[
    Path | None, typer.Argument(metavar="[LABELS]", help="Folder (or one file) of label volumes.", show_default=False)
]
ArtifactFile = Annotated[
    Path, typer.Argument(metavar="ARTIFACT", help="An artifact that `fit` wrote (.npz).", show_default=False)
]


@dataclass(frozen=True, slots=True)
class Talking:
    """What is said, and where."""

    json: bool = False
    quiet: bool = False
    verbose: int = 0
    log_file: Path | None = None

    def console(self) -> Console:
        try:
            return Console(QUIET if self.quiet else self.verbose, self.log_file)
        except OSError as error:
            what = f"cannot write {self.log_file}: {(error.strerror or str(error)).lower()}"
            raise typer.BadParameter(what, param_hint="--log-file") from error


@dataclass(frozen=True, slots=True)
class Words:
    """How an option is spelled and explained."""

    flags: tuple[str, ...]
    help: str
    panel: str
    metavar: str | None = None
    count: bool = False
    show_default: bool = True


def _plain(flag: str, help: str, panel: str, metavar: str | None = None, **more: Any) -> Words:
    return Words((flag,), help, panel, metavar, **more)


REGISTRY: dict[type, dict[str, Words]] = {
    requests.PredictionOptions: {
        "cases": _plain(
            "--cases",
            "CSV with the columns case,prediction,label[,group][,roi]; replaces folder pairing. "
            "Paths are relative to the CSV.",
            READING,
            "CSV",
        ),
        "values": _plain(
            "--values", "What the volumes hold. Needed unless the format says it (.npz keys); never guessed.", READING
        ),
        "activation": _plain(
            "--activation",
            "softmax: classes exclude each other; sigmoid: independent regions. "
            "Taken from dataset.json if there is one.",
            READING,
        ),
        "classes": _plain(
            "--classes",
            "Class names and label values: an nnU-Net dataset.json, or "
            '{"background": 0, "tumour": [1, 3]}. Default: the dataset.json of PREDICTIONS.',
            READING,
            "FILE",
        ),
        "channel_axis": _plain("--channel-axis", "For arrays whose format does not fix it.", READING),
        "groups": _plain(
            "--groups",
            "The patient (or site) of each case: a CSV with the columns case,group, or a regular "
            "expression (its first group) on the case id.",
            READING,
            "CSV|REGEX",
        ),
        "pattern": _plain(
            "--pattern",
            "How prediction files are named, e.g. '{case}/{case}_soft.nii.gz'; {class} and {sample} for one file each.",
            READING,
            "PATTERN",
        ),
        "reader": _plain(
            "--reader", "nnU-Net reader class that wrote the .npz, where plans.json does not say.", READING, "NAME"
        ),
        "prove": Words(
            (" /--no-prove",),
            "Do not check that each prediction reproduces the segmentation beside it.",
            READING,
            show_default=False,
        ),
        "reduce": _plain("--reduce", "How several samples of one case become one prediction.", READING),
        "geometry": _plain("--geometry", "Images or segmentations that place bare arrays in space.", READING, "FOLDER"),
        "calibrator": _plain(
            "--calibrator", "A calibrate artifact, applied on the fly to every prediction read.", READING, "ARTIFACT"
        ),
    },
    requests.LabelOptions: {
        "label_pattern": _plain(
            "--label-pattern",
            "How label files are named, e.g. '{case}/{class}.nii.gz' for one mask per class.",
            LABELS,
            "PATTERN",
        ),
        "roi": _plain(
            "--roi", "Masks of the voxels that count (non-zero = keep), named as the cases.", LABELS, "FOLDER"
        ),
        "ignore_label": _plain("--ignore-label", "Label value whose voxels are left out.", LABELS, "N"),
        "mask_value": _plain("--mask-value", "Value that means foreground in PNG masks.", LABELS, "N"),
    },
    requests.RunOptions: {
        "jobs": Words(("--jobs", "-j"), "Worker processes; 0 = all usable cores.", RUNNING, "N"),
        "on_failure": _plain(
            "--on-failure",
            "What a failing case does. Default: stop for fit and evaluate (nothing is "
            "written), continue for apply and convert.",
            RUNNING,
        ),
    },
    requests.OutputOptions: {
        "overwrite": Words(("--overwrite",), "Replace outputs that exist.", OUTPUT),
    },
    Talking: {
        "json": Words(("--json",), "Print one JSON document on stdout.", TALKING),
        "quiet": Words(("--quiet", "-q"), "Errors only.", TALKING),
        "verbose": Words(
            ("--verbose", "-v"), "Say more; twice for debugging.", TALKING, count=True, show_default=False
        ),
        "log_file": _plain("--log-file", "Append every message, with its time, to FILE.", TALKING, "FILE"),
    },
    requests.MeasureOptions: {
        "convention": _plain(
            "--convention",
            "A published set of conventions; flags given beside it win. barfoot: decision by p > 0.5; rousseau: "
            "closed on the left, --roi required, Dice of two empty masks 1; classification: 15 bins, the most probable "
            "class first.",
            CONVENTIONS,
        ),
        "bins": _plain("--bins", "Number of equal-width bins of probability. Default: 20.", CONVENTIONS, "M"),
        "closed": _plain("--closed", "Which end of a bin belongs to it. Default: right.", CONVENTIONS),
        "empty_bins": _plain(
            "--empty-bins",
            "ACE averages over non-empty bins (skip, the default), or counts empty ones as gap 0.",
            CONVENTIONS,
        ),
        "background": _plain(
            "--background",
            "Whether the background of a softmax table goes into (all). Default: exclude.",
            CONVENTIONS,
        ),
        "absent": _plain(
            "--absent", "Whether a class that a case does not hold is measured there. Default: include.", CONVENTIONS
        ),
        "decision": _plain(
            "--decision", "Hard decision of softmax classes: argmax (the default), or p > 0.5.", CONVENTIONS
        ),
        "empty_dice": _plain(
            "--empty-dice",
            "Dice where neither label nor prediction holds the class: undefined (null, the default), or 1.",
            CONVENTIONS,
        ),
        "metrics": _plain(
            "--metrics",
            "Measures to compute: names (dice,iou: only these, and hard masks will do), or changes to the default, "
            "which is all but kde_ece (+kde_ece,-nll_mcb).",
            CONVENTIONS,
            "LIST",
        ),
        "kde_sample": _plain("--kde-sample", "Voxels per case that kde_ece draws. Default: 2000.", CONVENTIONS, "N"),
        "kde_bandwidth": _plain(
            "--kde-bandwidth", "Bandwidth of kde_ece; auto, the default, takes the likeliest.", CONVENTIONS, "H|auto"
        ),
    },
    requests.SourceOptions: {
        "name": _plain("--name", "Name of the first source, PREDICTIONS as they are. Default: raw.", COMPARING, "NAME"),
        "raw": Words(("--raw/--no-raw",), "Measure PREDICTIONS as they are.", COMPARING),
        "artifact": _plain(
            "--artifact",
            "Adds a source: PREDICTIONS through this calibrate artifact. Repeatable.",
            COMPARING,
            "[NAME=]FILE",
        ),
        "also": _plain(
            "--also",
            "Adds a source: another folder with predictions of the same cases. Repeatable.",
            COMPARING,
            "NAME=FOLDER",
        ),
        "saved": _plain(
            "--from", "Measures saved by --histograms, in place of PREDICTIONS and LABELS.", COMPARING, "NPZ"
        ),
        "allow_overlap": Words(
            ("--allow-overlap",), "Measure cases that an artifact was fitted on; the numbers say so.", COMPARING
        ),
    },
    requests.IntervalOptions: {
        "level": _plain("--level", "Level of intervals over patients. Default: 0.95.", COMPARING, "L"),
        "bootstrap": _plain("--bootstrap", "Resamples of patients; 0: no intervals. Default: 2000.", COMPARING, "B"),
        "seed": _plain("--seed", "Seed of everything that is drawn. Default: 0.", COMPARING, "N"),
    },
    requests.EvaluateOptions: {
        "summary": _plain("--summary", "Also write the summary over cases and patients.", OUTPUT, "CSV"),
        "comparison": _plain("--comparison", "Also write the comparison of sources, with tests.", OUTPUT, "CSV"),
        "bin_table": _plain("--bin-table", "Also write what every bin of every case holds.", OUTPUT, "CSV"),
        "histograms": _plain("--histograms", "Also save all counts, for --from.", OUTPUT, "NPZ"),
        "html": _plain("--html", "Also write the report with its pictures, as `reliability` does.", OUTPUT, "HTML"),
    },
    requests.ReliabilityOptions: {
        "plots": _plain(
            "--plots",
            "Which plots, comma-separated: all, or some of dataset-diagram, mass, corp, dataset-histogram, "
            "case-violin, mean-curve, boxplot, case-scatter, pareto, case-diagram.",
            PICTURES,
            "LIST",
        ),
        "format": _plain("--format", "File formats of the pictures, comma-separated: svg, png, pdf.", PICTURES, "LIST"),
        "dpi": _plain("--dpi", "Dots per inch of PNG.", PICTURES, "N"),
        "show_cases": _plain(
            "--show-cases",
            "Cases with diagrams of their own, comma-separated: worst:N, median:N, best:N (by ACE of the first "
            "source), all, or ids.",
            PICTURES,
            "SPEC",
        ),
        "min_voxels": _plain(
            "--min-voxels",
            "A case with fewer voxels in a bin is left out there, in pictures of cases; never in measures.",
            PICTURES,
            "N",
        ),
    },
    requests.CalibrateFitOptions: {
        "method": _plain("--method", "temperature, or platt.", METHOD, "NAME"),
        "loss": _plain("--loss", "What the fit minimises.", METHOD),
        "weight": _plain("--weight", "Whether each voxel counts the same, or each case.", METHOD),
        "scope": _plain("--scope", "Sigmoid regions: one calibrator per channel, or one for all.", METHOD),
        "nesting": _plain("--nesting", "Nested regions: keep p(inner) <= p(outer) by projection, or leave it.", METHOD),
        "split_kind": _plain("--split-kind", "Were these cases held out of the network's training? Recorded.", METHOD),
        "folds": _plain(
            "--folds", "Cross-validation of the before/after summary over patients; 0: in-sample.", METHOD, "K"
        ),
        "summary": Words(("--summary/--no-summary",), "Estimate the gain.", METHOD),
        "allow_inverted": Words(("--allow-inverted",), "Accept a Platt slope <= 0.", METHOD),
        "allow_overlap": Words(
            ("--allow-overlap",), "Fit on cases that the --calibrator was fitted on; recorded.", METHOD
        ),
        "seed": _plain("--seed", "Seed of the bootstrap intervals.", METHOD, "N"),
    },
    requests.CalibrateApplyOptions: {
        "format": _plain("--format", "nifti, or npz (nnU-Net's layout). Default: nifti where there is a grid.", OUTPUT),
        "dtype": _plain(
            "--dtype", "Stored type; float16 with npz only, uint16 (steps of 1/65535) for display.", OUTPUT
        ),
        "split_classes": Words(("--split-classes",), "One NIfTI file per class.", OUTPUT),
        "segmentation": _plain(
            "--segmentation", "Also write the label volume: the raw decision, or the calibrated one.", OUTPUT
        ),
    },
}


def expanded(function: Callable[..., None]) -> Callable[..., None]:
    """The command, with each record among its parameters taken apart into one option per field."""
    hints = typing.get_type_hints(function, include_extras=True)
    records = {name: hint for name, hint in hints.items() if hint in REGISTRY}
    signature = inspect.signature(function)
    parameters: list[inspect.Parameter] = []
    for name, parameter in signature.parameters.items():
        if name in records:
            parameters += _options(name, records[name])
        else:
            parameters.append(parameter.replace(annotation=hints[name]))
    parameters.sort(key=lambda parameter: parameter.kind)

    @functools.wraps(function)
    def command(**arguments: Any) -> None:
        rebuilt = {name: _record(name, record, arguments) for name, record in records.items()}
        function(**arguments, **rebuilt)

    command.__signature__ = inspect.Signature(parameters)  # type: ignore[attr-defined]
    command.__annotations__ = {parameter.name: parameter.annotation for parameter in parameters}
    return command


def _options(prefix: str, record: type) -> list[inspect.Parameter]:
    hints = typing.get_type_hints(record)
    made = []
    for field in dataclasses.fields(record):
        words = REGISTRY[record][field.name]
        hint, default = hints[field.name], field.default
        if typing.get_origin(hint) is tuple:
            hint, default = list[str], []
        option = typer.Option(
            *words.flags,
            help=words.help,
            rich_help_panel=words.panel,
            metavar=words.metavar,
            count=words.count,
            show_default=words.show_default and not (default is None or default is False or default == []),
        )
        made.append(
            inspect.Parameter(
                f"{prefix}__{field.name}",
                inspect.Parameter.KEYWORD_ONLY,
                default=default,
                annotation=Annotated[hint, option],
            )
        )
    return made


def _record(prefix: str, record: type, arguments: dict[str, Any]) -> Any:
    values = {field.name: arguments.pop(f"{prefix}__{field.name}") for field in dataclasses.fields(record)}
    return record(**{name: tuple(value) if isinstance(value, list) else value for name, value in values.items()})
