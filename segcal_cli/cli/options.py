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
JudgeOptions        evaluate
InspectOptions      inspect
ConformalFitOptions, ConformalApplyOptions   conformal-sets fit and apply
ClusterFitOptions, ClusterApplyOptions   cluster fit and apply
RatioRegionOptions, RatioFitOptions   ntr-interval fit
RatioOptions        ntr-interval fit and apply
RatioApplyOptions   ntr-interval apply
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
SETS, CLUSTERS, COVERAGE = "Sets", "Clusters", "Coverage of sets"
RATIO, INTERVAL, PAPER, ALARMS = "Ratio", "Interval", "Interval of --method care", "Alarms"

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


COVERAGE_WORDS = {
    "ce_bins": _plain("--ce-bins", "Levels of the coverage error.", COVERAGE, "M"),
    "block": _plain("--block", "Edge in voxels of the places it is given for.", COVERAGE, "B"),
    "min_positives": _plain(
        "--min-positives", "Places with fewer positives are left out of quantiles and pictures.", COVERAGE, "N"
    ),
    "atlas": _plain("--atlas", "Atlases of these cases, where the fit had a folder.", COVERAGE, "FOLDER"),
}
"""What ``evaluate`` and ``reliability`` ask of cluster artifacts alike."""

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
        "member": _plain(
            "--member",
            "Another folder that holds the same cases: a fold, a seed, a dropout sample. Joined with PREDICTIONS as "
            "--reduce says. Repeatable.",
            READING,
            "FOLDER",
        ),
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
            "case-violin, mean-curve, boxplot, case-scatter, pareto, case-diagram; of ntr-interval artifacts also "
            "ntr-intervals, ntr-widths, ntr-bias, ntr-width-error.",
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
        "cells": _plain(
            "--cells", "A place with a line of its own in coverage diagrams. Repeatable.", PICTURES, "X,Y[,Z]"
        ),
    },
    requests.CalibrateFitOptions: {
        "method": _plain(
            "--method",
            "temperature, platt, beta, isotonic, histogram, auxiliary; for 3+ exclusive classes also vector, "
            "matrix, dirichlet.",
            METHOD,
            "NAME",
        ),
        "loss": _plain("--loss", "What the fit minimises.", METHOD),
        "weight": _plain("--weight", "Whether each voxel counts the same, or each case.", METHOD),
        "scope": _plain("--scope", "Sigmoid regions: one calibrator per channel, or one for all.", METHOD),
        "nesting": _plain("--nesting", "Nested regions: keep p(inner) <= p(outer) by projection, or leave it.", METHOD),
        "split_kind": _plain("--split-kind", "Were these cases held out of the network's training? Recorded.", METHOD),
        "folds": _plain(
            "--folds", "Cross-validation of the before/after summary over patients; 0: in-sample.", METHOD, "K"
        ),
        "summary": Words(("--summary/--no-summary",), "Estimate the gain.", METHOD),
        "histogram_bins": _plain("--histogram-bins", "Method histogram: number of bins.", METHOD, "M"),
        "binning": _plain(
            "--binning", "Method histogram: bins of equal numbers of voxels (mass), or equally wide in p.", METHOD
        ),
        "odir": _plain("--odir", "Method dirichlet: penalty on all but the diagonal; 0: none.", METHOD, "LAMBDA"),
        "voxels": _plain("--voxels", "Linear methods: voxels sampled of each case, at most.", METHOD, "N"),
        "refine": _plain(
            "--refine", "Linear methods: exact passes over all voxels that follow, at most; 0: none.", METHOD, "P"
        ),
        "kernel": _plain("--kernel", "Method auxiliary: edge of the kernel in voxels: 5, 7, 9 or 11.", METHOD, "K"),
        "dim": _plain("--dim", "Method auxiliary: 2 (a voxel sees its slice) or 3.", METHOD, "D"),
        "pad": _plain("--pad", "Method auxiliary: what lies beyond the volume; zero only to reproduce.", METHOD),
        "slice_axis": _plain(
            "--slice-axis", "Method auxiliary in 2-D: the axis across slices; auto: the largest spacing.", METHOD
        ),
        "allow_inverted": Words(("--allow-inverted",), "Accept a Platt slope <= 0.", METHOD),
        "allow_overlap": Words(
            ("--allow-overlap",), "Fit on cases that the --calibrator was fitted on; recorded.", METHOD
        ),
        "seed": _plain("--seed", "Seed of the bootstrap intervals.", METHOD, "N"),
    },
    requests.ClusterFitOptions: {
        "method": _plain(
            "--method",
            "annuli (default), image, pixel, kmeans, star, grid, atlas or boundary.",
            CLUSTERS,
            "NAME",
        ),
        "shape": _plain(
            "--shape", "Of annuli and star. Default: ellipse in 2-D, ellipsoid in 3-D; circle is a sphere.", CLUSTERS
        ),
        "free_axes": Words(("--free-axes",), "Ellipsoids may be rotated.", CLUSTERS),
        "k": _plain(
            "--k", "At most this many clusters (default 4), or auto: chosen on held-out patients.", CLUSTERS, "N|auto"
        ),
        "weighting": _plain(
            "--weighting",
            "patient: every patient weighs the same, with a guarantee; voxel: the paper's pooling, without one.",
            CLUSTERS,
        ),
        "alpha": _plain("--alpha", "The level stored as default; any other can be chosen later.", CLUSTERS, "A"),
        "split": _plain(
            "--split",
            "Share of the patients that make a learned map (default 0.3), or a CSV with the column case that lists "
            "their cases. The others calibrate.",
            CLUSTERS,
            "FRACTION|CSV",
        ),
        "reuse": Words(("--reuse",), "Everyone makes the map and calibrates: no guarantee.", CLUSTERS),
        "map": _plain("--map", "Use the map of another cluster artifact; everyone calibrates.", CLUSTERS, "ARTIFACT"),
        "grid": _plain("--grid", "Blocks along x, y (and z) of --method grid, such as 4x4x2.", CLUSTERS, "BXxBY[xBZ]"),
        "atlas": _plain(
            "--atlas",
            "Region numbers of --method atlas: one label volume for all, or a folder with one per case. Not made from "
            "the truth.",
            CLUSTERS,
            "PATH",
        ),
        "edges": _plain(
            "--edges", "Distances in mm from the predicted border (inside negative), such as -5,0,5.", CLUSTERS, "LIST"
        ),
        "features": _plain("--features", "What describes a place: ecdf (default), or the paper's quantiles.", CLUSTERS),
        "levels": _plain("--levels", "Levels of --features quantiles. Default .5,.6,.7,.8,.9.", CLUSTERS, "LIST"),
        "objective": _plain("--objective", "What the search minimises: sse (default), energy, paper.", CLUSTERS),
        "optimizer": _plain(
            "--optimizer", "How annuli are found: dp (default, exact radii), or the paper's de.", CLUSTERS
        ),
        "smooth": _plain(
            "--smooth", "Width of the smoothing before k-means. Default 2.5 % of the longest side.", CLUSTERS, "MM"
        ),
        "min_count": _plain(
            "--min-count", "Voxels that a cell needs for k-means (default 5); others follow the nearest.", CLUSTERS, "N"
        ),
        "order": _plain("--order", "Of the star's curves. Default 4 in 2-D, 2 in 3-D.", CLUSTERS, "L"),
        "roughness": _plain(
            "--roughness",
            "Penalty of the star's curves, or auto (default): chosen on held-out patients.",
            CLUSTERS,
            "X|auto",
        ),
        "coords": _plain(
            "--coords",
            "How a map is laid over scans: index (default where all agree), unit (default otherwise), mm, roi, object.",
            CLUSTERS,
        ),
        "block": _plain("--block", "Edge of a map's cells in voxels. Default: such that 2^20 suffice.", CLUSTERS, "B"),
        "shared_map": Words(("--shared-map",), "One map for all classes, from the features of all.", CLUSTERS),
        "cluster_background": Words(("--cluster-background",), "Learned maps cluster the background too.", CLUSTERS),
        "only": _plain(
            "--only", "Cluster these classes; the others are calibrated over the whole image.", CLUSTERS, "CLASS,.."
        ),
        "memory": _plain("--memory", "What scores may take; beyond it they become coarser.", CLUSTERS, "SIZE"),
        "device": _plain("--device", "Where k-means runs.", CLUSTERS),
        "allow_overlap": Words(
            ("--allow-overlap",), "Patients may make the map and calibrate on it; recorded, no guarantee.", CLUSTERS
        ),
        "seed": _plain("--seed", "Seed of the split and of the searches.", CLUSTERS, "N"),
    },
    requests.ClusterApplyOptions: {
        "alpha": _plain(
            "--alpha", "Another level than the stored one, for all classes or one. Repeatable.", SETS, "A|CLASS=A"
        ),
        "empty": _plain(
            "--empty",
            "An empty set gets the most probable class (top1, default of exclusive classes), or stays empty.",
            SETS,
        ),
        "emit": _plain("--emit", "What is written: sets, size, pvalue, clusters, thresholds.", OUTPUT, "LIST"),
        "atlas": _plain("--atlas", "Atlases of these cases, where the fit had a folder.", SETS, "FOLDER"),
        "roi": _plain("--roi", "Masks of the voxels that count (non-zero = keep), named as the cases.", SETS, "FOLDER"),
    },
    requests.ConformalFitOptions: {
        "target": _plain(
            "--target",
            "A class, a region, or a union of exclusive classes as NAME=LABEL+LABEL. Repeatable. Default: every "
            "foreground class or region.",
            SETS,
            "NAME[=LABEL+LABEL]",
        ),
        "alpha": _plain(
            "--alpha", "Share of new cases that may be wrong; any other can be chosen at apply.", SETS, "A"
        ),
        "joint": _plain(
            "--joint",
            "Both sets at once: split divides alpha between them, max ranks the larger standardised score; none "
            "promises each alone.",
            SETS,
        ),
        "alpha_split": _plain(
            "--alpha-split",
            "alpha of the inner and of the outer set. Default: halves, auto with --learn.",
            SETS,
            "I,O|auto",
        ),
        "across_targets": _plain(
            "--across-targets",
            "Several targets: each on its own, alpha split among them, or the maximum over all.",
            SETS,
        ),
        "inner_score": _plain(
            "--inner-score",
            "log-odds, softmax, sigmoid, identity, smooth:MM, distance, smooth-distance:MM, boxes, hybrid:W or "
            "auto[:LIST]. Default: distance, auto with --learn.",
            SETS,
            "NAME",
        ),
        "outer_score": _plain("--outer-score", "The same for the outer set.", SETS, "NAME"),
        "metric": _plain("--metric", "Distances in mm, or in voxel steps.", SETS),
        "empty_prediction": _plain(
            "--empty-prediction",
            "The outer set of an empty prediction: empty, everything (full), or around the peak of the log-odds.",
            SETS,
        ),
        "box_truth": Words(("--box-truth",), "Hold the boxes around the target in place of the target (2-D).", SETS),
        "present_only": Words(
            ("--present-only/--all-cases",),
            "Outer set: promise for cases that hold the target (default), or over all cases.",
            SETS,
            show_default=False,
        ),
        "learn": _plain(
            "--learn",
            "Choose scores and split on this share of the units, or on FOLDER/predictions and FOLDER/labels.",
            SETS,
            "FRACTION|FOLDER",
        ),
        "unit": _plain(
            "--unit",
            "With --groups: all cases of a new patient (max, default), or a random one (hcp).",
            SETS,
        ),
        "mondrian": _plain(
            "--mondrian",
            "Thresholds per stratum: a CSV with the columns case,group, a regular expression on the case id, or the "
            "predicted volume in ml (volume:1,10).",
            SETS,
            "RULE",
        ),
        "confidence": _plain(
            "--confidence", "Make this artifact's own coverage reach 1 - alpha with this probability.", SETS, "D"
        ),
        "coverage_ratio": _plain("--coverage-ratio", "Share of the target that the outer set has to hold.", SETS, "R"),
        "inner_ratio": _plain(
            "--inner-ratio", "The inner set may be wrong by a share 1 - R of the predicted mask.", SETS, "R"
        ),
        "labels_only": Words(("--labels-only",), "PREDICTIONS are label maps: distance and boxes only.", SETS),
        "allow_overlap": Words(
            ("--allow-overlap",), "Fit on cases that the --calibrator was fitted on; recorded.", SETS
        ),
        "seed": _plain("--seed", "Seed of the learning share and of tie-breaking numbers.", SETS, "N"),
    },
    requests.ConformalApplyOptions: {
        "alpha": _plain("--alpha", "Another level than the stored one.", SETS, "A"),
        "alpha_split": _plain("--alpha-split", "Another split of alpha.", SETS, "I,O"),
        "p_values": _plain(
            "--p-values", "Also write maps of p-values. Choosing alpha after looking at them voids the statement.", SETS
        ),
        "weights": _plain(
            "--weights",
            "Covariate shift: density ratios of all cases (CSV with the columns case,weight), or estimate.",
            SETS,
            "CSV|estimate",
        ),
        "mondrian": _plain(
            "--mondrian", "Strata of the new cases, where those of the fit came from a CSV.", SETS, "CSV"
        ),
        "roi": _plain(
            "--roi", "Masks of the region of interest, if the artifact was fitted inside one.", SETS, "FOLDER"
        ),
        "drift": Words(
            (" /--no-drift",), "No report on drift, and no search for atypical cases.", SETS, show_default=False
        ),
        "history": _plain(
            "--history", "Where the scans seen so far are kept. Default: drift.npz in the output folder.", SETS, "FILE"
        ),
    },
    requests.CalibrateApplyOptions: {
        "format": _plain("--format", "nifti, or npz (nnU-Net's layout). Default: nifti where there is a grid.", OUTPUT),
        "dtype": _plain(
            "--dtype", "Stored type; float16 with npz only, uint16 (steps of 1/65535) for display.", OUTPUT
        ),
        "split_classes": Words(("--split-classes",), "One NIfTI file per class.", OUTPUT),
        "write": _plain(
            "--write",
            "Also write maps of how members disagree: entropy, mutual-information, variance (comma-separated).",
            OUTPUT,
            "LIST",
        ),
        "segmentation": _plain(
            "--segmentation", "Also write the label volume: the raw decision, or the calibrated one.", OUTPUT
        ),
    },
    requests.CoverageOptions: {
        "alpha": _plain("--alpha", "Another level than the stored one.", COVERAGE, "A"),
        **COVERAGE_WORDS,
    },
    requests.InspectOptions: {
        "alpha": _plain(
            "--alpha", "Thresholds of conformal sets or clusters at this level. Repeatable.", COMPARING, "A"
        ),
    },
    requests.JudgeOptions: {
        "alpha": _plain(
            "--alpha", "With a conformal-sets or cluster artifact: another level than the stored one.", COMPARING, "A"
        ),
        "alphas": _plain(
            "--alphas",
            "With a conformal-sets artifact: levels of the sweep; with a cluster artifact: further levels.",
            COMPARING,
            "START:STOP:STEP",
        ),
        "resplits": _plain(
            "--resplits",
            "With a conformal-sets artifact: random splits of stored and new units; 0: none.",
            COMPARING,
            "R",
        ),
        "by": _plain(
            "--by",
            "With a conformal-sets artifact: leave out one group at a time; a CSV with the columns case,group of "
            "stored and new cases, or a regular expression on the case id.",
            COMPARING,
            "CSV|REGEX",
        ),
        "compare": _plain(
            "--compare",
            "With a conformal-sets artifact: other methods beside its outer set, of crc, rcps, bonferroni.",
            COMPARING,
            "LIST",
        ),
        "mondrian": _plain(
            "--mondrian", "Strata of the cases, where a conformal-sets artifact has them from a CSV.", COMPARING, "CSV"
        ),
        "ratio_tolerance": _plain(
            "--ratio-tolerance",
            "With an ntr-interval artifact: an error of a ratio above this is a large one.",
            COMPARING,
            "E",
        ),
        "alarm_width": _plain(
            "--alarm-width",
            "With an ntr-interval artifact: alarm above this width, or above this percentile of the "
            "calibration cases' own. Default: as stored.",
            COMPARING,
            "W",
        ),
        "empty": _plain("--empty", "With a cluster artifact: empty sets get the top class, or stay empty.", COVERAGE),
        **COVERAGE_WORDS,
    },
    requests.RatioRegionOptions: {
        "numerator": _plain(
            "--numerator", "Class names or label values, comma-separated: necrosis, or 2,3.", RATIO, "LIST"
        ),
        "denominator": _plain("--denominator", "The same for what it is divided by.", RATIO, "LIST"),
        "preset": _plain(
            "--preset",
            "In place of both: ntr- or ctr- with brats2023 (1 necrosis, 2 oedema, 3 enhancing), brats2021 (enhancing "
            "is 4) or brats-nnunet (1 oedema, 2 necrosis, 3 enhancing; the Decathlon too), or tumour-kidney-kits "
            "(1 kidney, 2 tumour, 3 cyst).",
            RATIO,
            "NAME",
        ),
    },
    requests.RatioOptions: {
        "level": _plain(
            "--level",
            "Share of new patients whose intervals are to hold. Default: 0.9 at fit, as stored at apply.",
            INTERVAL,
            "T",
        ),
        "method": _plain(
            "--method",
            "nested (default): as wide as the network is unsure of the case. joint: ratio and both volumes at once. "
            "care: calibration and estimation error, as published; the paper's own setting is --method care "
            "--quantile plain --ce-unit mean --level 0.68. care-guaranteed: its calibration part alone. cp: one width.",
            INTERVAL,
        ),
        "quantile": _plain(
            "--quantile",
            "conformal (default) holds at any number of patients; plain and mean are for care and cp, "
            "and without a guarantee.",
            INTERVAL,
        ),
        "unit": _plain(
            "--unit",
            "Several scans of a patient. max (default): holds for all of them; hcp: for one, each weighs 1/m.",
            INTERVAL,
        ),
        "weighted": Words(
            ("--weighted/--no-weighted",),
            "Weigh calibration cases by how much they look like the new ones (20 or more). Approximate.",
            INTERVAL,
            show_default=False,
        ),
        "min_denominator_ml": _plain(
            "--min-denominator-ml",
            "Below this predicted denominator there is no ratio. Default 0.01 ml; without a "
            "grid the number is of voxels, default 10.",
            INTERVAL,
            "M",
        ),
        "debias": _plain("--debias", "Estimator of the column ratio_debiased. Intervals stay as they are.", INTERVAL),
        "calibration_error": _plain(
            "--calibration-error",
            "ece (default of care), vbias (of care-guaranteed; smaller, equally valid), or kde: "
            "asked for at fit, bounds nothing.",
            PAPER,
        ),
        "split": _plain(
            "--split", "The error between both bounds: the best of 20 splits per case (grid, default), or one.", PAPER
        ),
        "delta1": _plain(
            "--delta1", "The share of the estimation bound with --split fixed. Default: half.", PAPER, "D"
        ),
        "estimation": _plain(
            "--estimation",
            "Squared error of independent voxels (iid, default), of neighbours that vary together "
            "(block), or no estimation bound (none).",
            PAPER,
        ),
        "estimation_tail": _plain("--estimation-tail", "Markov's inequality (default), or Fieller's interval.", PAPER),
        "ce_unit": _plain(
            "--ce-unit", "Calibration errors in mm3 (volume, default), or per voxel of the field of view (mean).", PAPER
        ),
        "alarm_width": _plain(
            "--alarm-width",
            "Alarm above this width, or above this percentile of the calibration cases' own widths. Default 80%.",
            ALARMS,
            "W",
        ),
        "cutoff": _plain(
            "--cutoff",
            "Clinical cut-off: says on which side an interval lies, alarm if it crosses.",
            ALARMS,
            "C",
        ),
    },
    requests.RatioFitOptions: {
        "bins": _plain("--bins", "Bins of the ECE.", PAPER, "N"),
        "allow_overlap": Words(
            ("--allow-overlap",), "Fit on cases that the --calibrator was fitted on; recorded.", INTERVAL
        ),
        "seed": _plain("--seed", "Seed of the voxels drawn for --calibration-error kde.", PAPER, "N"),
    },
    requests.RatioApplyOptions: {
        "triage": _plain("--triage", "Also write the alarmed cases, those to look at first on top.", ALARMS, "CSV"),
        "roi": _plain(
            "--roi", "Masks of the voxels that count, if the fit had them (non-zero = keep).", READING, "FOLDER"
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
