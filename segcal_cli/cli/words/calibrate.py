"""Options of `calibrate fit` and `calibrate apply`."""

from __future__ import annotations

from segcal_cli.cli.words.spelling import METHOD, OUTPUT, Words, plain
from segcal_cli.workflows import requests

FITTING: dict[str, Words] = {
    "method": plain(
        "--method",
        "temperature, platt, beta, isotonic, histogram, auxiliary, local, fine-tune; for 3+ exclusive classes also "
        "vector, matrix, dirichlet; ensemble: the mean of several predictions as it is.",
        METHOD,
        "NAME",
    ),
    "loss": plain(
        "--loss", "What the fit minimises; the soft average calibration error: temperature, platt, beta only.", METHOD
    ),
    "ace_weight": plain("--ace-weight", "Loss nll+ace: weight of the average calibration error.", METHOD, "W"),
    "weight": plain("--weight", "Whether each voxel counts the same, or each case.", METHOD),
    "scope": plain("--scope", "Sigmoid regions: one calibrator per channel, or one for all.", METHOD),
    "nesting": plain("--nesting", "Nested regions: keep p(inner) <= p(outer) by projection, or leave it.", METHOD),
    "split_kind": plain("--split-kind", "Were these cases held out of the network's training? Recorded.", METHOD),
    "folds": plain(
        "--folds",
        "Cross-validation of the before/after summary over patients; 0: in-sample. Method local: every K-th patient is "
        "left out of training, and measured.",
        METHOD,
        "K",
    ),
    "summary": Words(("--summary/--no-summary",), "Estimate the gain.", METHOD),
    "histogram_bins": plain("--histogram-bins", "Method histogram: number of bins.", METHOD, "M"),
    "binning": plain(
        "--binning", "Method histogram: bins of equal numbers of voxels (mass), or equally wide in p.", METHOD
    ),
    "odir": plain("--odir", "Method dirichlet: penalty on all but the diagonal; 0: none.", METHOD, "LAMBDA"),
    "voxels": plain(
        "--voxels",
        "Linear methods, and a softmax temperature with --loss soft-ace, nll+ace: voxels sampled of a case, at most.",
        METHOD,
        "N",
    ),
    "refine": plain(
        "--refine", "Linear methods: exact passes over all voxels that follow, at most; 0: none.", METHOD, "P"
    ),
    "kernel": plain("--kernel", "Method auxiliary: edge of the kernel in voxels: 5, 7, 9 or 11.", METHOD, "K"),
    "dim": plain("--dim", "Methods auxiliary and local: 2 (a voxel sees its slice) or 3.", METHOD, "D"),
    "pad": plain("--pad", "Method auxiliary: what lies beyond the volume; zero only to reproduce.", METHOD),
    "slice_axis": plain(
        "--slice-axis", "Methods auxiliary and local in 2-D: the axis across slices; auto: the largest spacing.", METHOD
    ),
    "optimiser": plain(
        "--optimiser",
        "exact; adam only to reproduce published recipes of temperature, platt, auxiliary (with --pad zero), "
        "fine-tune.",
        METHOD,
    ),
    "last_layer": plain(
        "--last-layer",
        "Method fine-tune: .npz with weight (C, F) and bias (C,) of the network's last layer.",
        METHOD,
        "FILE",
    ),
    "export_weights": plain(
        "--export-weights",
        "Method fine-tune: also write the new weight and bias, to load into the network.",
        METHOD,
        "FILE",
    ),
    "epochs": plain("--epochs", "Method local, or adam: epochs, at most. Default: 30, or as published.", METHOD, "N"),
    "batch": plain(
        "--batch",
        "Method local: tiles per step, default 4; adam: slices or cases, default as published.",
        METHOD,
        "N",
    ),
    "learning_rate": plain(
        "--learning-rate", "Method local, or adam: its rate. Default: 0.001, or as published.", METHOD, "R"
    ),
    "allow_inverted": Words(("--allow-inverted",), "Methods platt and beta: accept a slope <= 0.", METHOD),
    "allow_overlap": Words(("--allow-overlap",), "Fit on cases that the --calibrator was fitted on; recorded.", METHOD),
    "seed": plain("--seed", "Seed of samples, of training and of bootstrap intervals.", METHOD, "N"),
}
"""How a calibrator is fitted."""

WORDS: dict[type, dict[str, Words]] = {
    requests.CalibrateFitOptions: FITTING,
    requests.CalibrateCompareOptions: {
        **FITTING,
        "methods": plain(
            "--methods",
            "Methods to compare, comma-separated. Default: all that fit the predictions; fine-tune with --last-layer, "
            "local with --images.",
            METHOD,
            "LIST",
        ),
        "epochs": plain("--epochs", "Method local: epochs of every fold, at most. Default: 30.", METHOD, "N"),
        "batch": plain("--batch", "Method local: tiles per step, default 4.", METHOD, "N"),
        "learning_rate": plain("--learning-rate", "Method local: its rate. Default: 0.001.", METHOD, "R"),
        "folds": plain("--folds", "Cross-validation over patients; 0: in-sample.", METHOD, "K"),
    },
    requests.CalibrateApplyOptions: {
        "format": plain("--format", "nifti, or npz (nnU-Net's layout). Default: nifti where there is a grid.", OUTPUT),
        "dtype": plain("--dtype", "Stored type; float16 with npz only, uint16 (steps of 1/65535) for display.", OUTPUT),
        "split_classes": Words(("--split-classes",), "One NIfTI file per class.", OUTPUT),
        "write": plain(
            "--write",
            "Also write maps of how members disagree: entropy, mutual-information, variance; with method local "
            "temperature (comma-separated).",
            OUTPUT,
            "LIST",
        ),
        "segmentation": plain(
            "--segmentation", "Also write the label volume: the raw decision, or the calibrated one.", OUTPUT
        ),
    },
}
