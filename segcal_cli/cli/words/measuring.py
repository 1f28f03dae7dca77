"""Options of `evaluate`, `reliability` and `inspect`."""

from __future__ import annotations

from dataclasses import replace

from segcal_cli.cli.words.spelling import COMPARING, CONVENTIONS, COVERAGE, OUTPUT, PICTURES, READING, Words, plain
from segcal_cli.workflows import requests

COVERAGE_WORDS = {
    "ce_bins": plain("--ce-bins", "With a cluster artifact: levels of the coverage error.", COVERAGE, "M"),
    "block": plain(
        "--block", "With a cluster artifact: edge in voxels of the places of coverage errors.", COVERAGE, "B"
    ),
    "min_positives": plain(
        "--min-positives",
        "With a cluster artifact: places with fewer positives are left out of quantiles and pictures.",
        COVERAGE,
        "N",
    ),
    "atlas": plain(
        "--atlas", "With a cluster artifact: atlases of these cases, where the fit had a folder.", COVERAGE, "FOLDER"
    ),
}
"""What ``evaluate`` and ``reliability`` ask of cluster artifacts alike."""

TABLES = {
    "summary": plain("--summary", "Also write the summary over cases and patients.", OUTPUT, "CSV"),
    "comparison": plain("--comparison", "Also write the comparison of sources, with tests.", OUTPUT, "CSV"),
    "bin_table": plain("--bin-table", "Also write what every bin of every case holds.", OUTPUT, "CSV"),
    "histograms": plain("--histograms", "Also save all counts, for --from.", OUTPUT, "NPZ"),
}

WORDS: dict[type, dict[str, Words]] = {
    requests.MeasureOptions: {
        "convention": plain(
            "--convention",
            "A published set of conventions; flags given beside it win. barfoot: decision by p > 0.5; rousseau: "
            "closed on the left, --roi required, Dice of two empty masks 1; classification: 15 bins, the most probable "
            "class first.",
            CONVENTIONS,
        ),
        "bins": plain("--bins", "Number of equal-width bins of probability. Default: 20.", CONVENTIONS, "M"),
        "closed": plain("--closed", "Which end of a bin belongs to it. Default: right.", CONVENTIONS),
        "empty_bins": plain(
            "--empty-bins",
            "ACE averages over non-empty bins (skip, the default), or counts empty ones as gap 0.",
            CONVENTIONS,
        ),
        "background": plain(
            "--background",
            "Whether the background of a softmax table goes into (all). Default: exclude.",
            CONVENTIONS,
        ),
        "absent": plain(
            "--absent", "Whether a class that a case does not hold is measured there. Default: include.", CONVENTIONS
        ),
        "decision": plain(
            "--decision", "Hard decision of softmax classes: argmax (the default), or p > 0.5.", CONVENTIONS
        ),
        "empty_dice": plain(
            "--empty-dice",
            "Dice where neither label nor prediction holds the class: undefined (null, the default), or 1.",
            CONVENTIONS,
        ),
        "metrics": plain(
            "--metrics",
            "Measures to compute: names (dice,iou: only these, and hard masks will do), or changes to the default, "
            "which is all but kde_ece (+kde_ece,-nll_mcb).",
            CONVENTIONS,
            "LIST",
        ),
        "kde_sample": plain("--kde-sample", "Voxels per case that kde_ece draws. Default: 2000.", CONVENTIONS, "N"),
        "kde_bandwidth": plain(
            "--kde-bandwidth", "Bandwidth of kde_ece; auto, the default, takes the likeliest.", CONVENTIONS, "H|auto"
        ),
    },
    requests.SourceOptions: {
        "name": plain("--name", "Name of the first source, PREDICTIONS as they are. Default: raw.", COMPARING, "NAME"),
        "raw": Words(("--raw/--no-raw",), "Measure PREDICTIONS as they are.", COMPARING),
        "artifact": plain(
            "--artifact",
            "Adds a source: PREDICTIONS through this calibrate artifact. Repeatable.",
            COMPARING,
            "[NAME=]FILE",
        ),
        "also": plain(
            "--also",
            "Adds a source: another folder with predictions of the same cases. --values is then of those files whose "
            "format does not say it. Repeatable.",
            COMPARING,
            "NAME=FOLDER",
        ),
        "saved": plain(
            "--from", "Measures saved by --histograms, in place of PREDICTIONS and LABELS.", COMPARING, "NPZ"
        ),
        "allow_overlap": Words(
            ("--allow-overlap",), "Measure cases that an artifact was fitted on; the numbers say so.", COMPARING
        ),
    },
    requests.IntervalOptions: {
        "level": plain("--level", "Level of intervals over patients. Default: 0.95.", COMPARING, "L"),
        "bootstrap": plain("--bootstrap", "Resamples of patients; 0: no intervals. Default: 2000.", COMPARING, "B"),
        "seed": plain("--seed", "Seed of everything that is drawn. Default: 0.", COMPARING, "N"),
    },
    requests.EvaluateOptions: {
        **TABLES,
        "html": plain("--html", "Also write the report with its pictures, as `reliability` does.", OUTPUT, "HTML"),
    },
    requests.MergeOptions: {
        name: replace(words, help=f"Of parts of evaluate: {words.help[0].lower()}{words.help[1:]}")
        for name, words in TABLES.items()
    },
    requests.ReliabilityOptions: {
        "plots": plain(
            "--plots",
            "Which plots, comma-separated: all, or some of dataset-diagram, mass, corp, dataset-histogram, "
            "case-violin, mean-curve, boxplot, case-scatter, pareto, case-diagram; of ntr-interval artifacts also "
            "ntr-intervals, ntr-widths, ntr-bias, ntr-width-error; of conformal-sets artifacts overlay, score-maps, "
            "false-coverage, set-sizes, resplits, set-scores; of cluster artifacts cluster-map, coverage-diagram, "
            "coverage-violin, difference-map, error-map.",
            PICTURES,
            "LIST",
        ),
        "format": plain("--format", "File formats of the pictures, comma-separated: svg, png, pdf.", PICTURES, "LIST"),
        "dpi": plain("--dpi", "Dots per inch of PNG.", PICTURES, "N"),
        "show_cases": plain(
            "--show-cases",
            "Cases with diagrams of their own, comma-separated: worst:N, median:N, best:N (by ACE of the first "
            "source), all, or ids.",
            PICTURES,
            "SPEC",
        ),
        "features": plain(
            "--features",
            "For fine-tune artifacts: CASE.npz with what the network's last layer was given, features (F, z, y, x).",
            READING,
            "FOLDER",
        ),
        "images": plain(
            "--images",
            "Scans under the overlays of conformal sets (default: the log-odds in grey), and for local artifacts that "
            "look at them.",
            PICTURES,
            "FOLDER",
        ),
        "max_cases": plain(
            "--max-cases",
            "Cases with overlays of conformal sets: failures first, then tight to wide.",
            PICTURES,
            "N",
        ),
        "alphas": plain("--alphas", "Levels of the overlays of conformal sets, comma-separated.", PICTURES, "LIST"),
        "show_scores": Words(("--show-scores",), "Also draw the score maps of a case, with thresholds.", PICTURES),
        "min_voxels": plain(
            "--min-voxels",
            "A case with fewer voxels in a bin is left out there, in pictures of cases; never in measures.",
            PICTURES,
            "N",
        ),
        "cells": plain(
            "--cells",
            "With a cluster artifact: a place with a line of its own in coverage diagrams. Repeatable.",
            PICTURES,
            "X,Y[,Z]",
        ),
    },
    requests.CoverageOptions: {
        "alpha": plain(
            "--alpha", "With a conformal-sets or cluster artifact: another level than the stored one.", COVERAGE, "A"
        ),
        **COVERAGE_WORDS,
    },
    requests.InspectOptions: {
        "alpha": plain(
            "--alpha", "Thresholds of conformal sets or clusters at this level. Repeatable.", COMPARING, "A"
        ),
    },
    requests.JudgeOptions: {
        "alpha": plain(
            "--alpha", "With a conformal-sets or cluster artifact: another level than the stored one.", COMPARING, "A"
        ),
        "alphas": plain(
            "--alphas",
            "With a conformal-sets or cluster artifact: levels of the sweep (cluster: beside the one level).",
            COMPARING,
            "START:STOP:STEP",
        ),
        "resplits": plain(
            "--resplits",
            "With a conformal-sets artifact: random splits of stored and new units; 0: none.",
            COMPARING,
            "R",
        ),
        "by": plain(
            "--by",
            "With a conformal-sets artifact: leave out one group at a time; a CSV with the columns case,group of "
            "stored and new cases, or a regular expression on the case id.",
            COMPARING,
            "CSV|REGEX",
        ),
        "compare": plain(
            "--compare",
            "With a conformal-sets artifact: other methods beside its outer set, of crc, rcps, bonferroni.",
            COMPARING,
            "LIST",
        ),
        "mondrian": plain(
            "--mondrian", "Strata of the cases, where a conformal-sets artifact has them from a CSV.", COMPARING, "CSV"
        ),
        "ratio_tolerance": plain(
            "--ratio-tolerance",
            "With an ntr-interval artifact: an error of a ratio above this is a large one.",
            COMPARING,
            "E",
        ),
        "alarm_width": plain(
            "--alarm-width",
            "With an ntr-interval artifact: alarm above this width, or above this percentile of the "
            "calibration cases' own. Default: as stored.",
            COMPARING,
            "W",
        ),
        "empty": plain("--empty", "With a cluster artifact: empty sets get the top class, or stay empty.", COVERAGE),
        **COVERAGE_WORDS,
    },
}
