"""Options of `conformal-sets fit` and `conformal-sets apply`."""

from __future__ import annotations

from segcal_cli.cli.words.spelling import SETS, Words, plain
from segcal_cli.workflows import requests

WORDS: dict[type, dict[str, Words]] = {
    requests.ConformalFitOptions: {
        "target": plain(
            "--target",
            "A class, a region, or a union of exclusive classes as NAME=LABEL+LABEL. Repeatable. Default: every "
            "foreground class or region.",
            SETS,
            "NAME[=LABEL+LABEL]",
        ),
        "alpha": plain("--alpha", "Share of new cases that may be wrong; any other can be chosen at apply.", SETS, "A"),
        "joint": plain(
            "--joint",
            "Both sets at once: split divides alpha between them, max ranks the larger standardised score; none "
            "promises each alone.",
            SETS,
        ),
        "alpha_split": plain(
            "--alpha-split",
            "alpha of the inner and of the outer set. Default: halves, auto with --learn.",
            SETS,
            "I,O|auto",
        ),
        "across_targets": plain(
            "--across-targets",
            "Several targets: each on its own, alpha split among them, or the maximum over all.",
            SETS,
        ),
        "inner_score": plain(
            "--inner-score",
            "log-odds, softmax, sigmoid, identity, smooth:MM, distance, smooth-distance:MM, boxes, hybrid:W or "
            "auto[:LIST]. Default: distance, auto with --learn.",
            SETS,
            "NAME",
        ),
        "outer_score": plain("--outer-score", "The same for the outer set.", SETS, "NAME"),
        "metric": plain("--metric", "Distances in mm, or in voxel steps.", SETS),
        "empty_prediction": plain(
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
        "learn": plain(
            "--learn",
            "Choose scores and split on this share of the units, or on FOLDER/predictions and FOLDER/labels.",
            SETS,
            "FRACTION|FOLDER",
        ),
        "unit": plain(
            "--unit",
            "With --groups: all cases of a new patient (max, default), or a random one (hcp).",
            SETS,
        ),
        "mondrian": plain(
            "--mondrian",
            "Thresholds per stratum: a CSV with the columns case,group, a regular expression on the case id, or the "
            "predicted volume in ml (volume:1,10).",
            SETS,
            "RULE",
        ),
        "confidence": plain(
            "--confidence", "Make this artifact's own coverage reach 1 - alpha with this probability.", SETS, "D"
        ),
        "coverage_ratio": plain("--coverage-ratio", "Share of the target that the outer set has to hold.", SETS, "R"),
        "inner_ratio": plain(
            "--inner-ratio", "The inner set may be wrong by a share 1 - R of the predicted mask.", SETS, "R"
        ),
        "labels_only": Words(("--labels-only",), "PREDICTIONS are label maps: distance and boxes only.", SETS),
        "allow_overlap": Words(
            ("--allow-overlap",), "Fit on cases that the --calibrator was fitted on; recorded.", SETS
        ),
        "seed": plain("--seed", "Seed of the learning share and of tie-breaking numbers.", SETS, "N"),
    },
    requests.ConformalApplyOptions: {
        "alpha": plain("--alpha", "Another level than the stored one.", SETS, "A"),
        "alpha_split": plain("--alpha-split", "Another split of alpha.", SETS, "I,O"),
        "p_values": plain(
            "--p-values", "Also write maps of p-values. Choosing alpha after looking at them voids the statement.", SETS
        ),
        "weights": plain(
            "--weights",
            "Covariate shift: density ratios of all cases (CSV with the columns case,weight), or estimate.",
            SETS,
            "CSV|estimate",
        ),
        "mondrian": plain(
            "--mondrian", "Strata of the new cases, where those of the fit came from a CSV.", SETS, "CSV"
        ),
        "roi": plain(
            "--roi", "Masks of the region of interest, if the artifact was fitted inside one.", SETS, "FOLDER"
        ),
        "drift": Words(
            (" /--no-drift",), "No report on drift, and no search for atypical cases.", SETS, show_default=False
        ),
        "history": plain(
            "--history", "Where the scans seen so far are kept. Default: drift.npz in the output folder.", SETS, "FILE"
        ),
    },
}
