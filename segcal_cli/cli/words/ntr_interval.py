"""Options of `ntr-interval fit` and `ntr-interval apply`."""

from __future__ import annotations

from segcal_cli.cli.words.spelling import ALARMS, INTERVAL, PAPER, RATIO, READING, Words, plain
from segcal_cli.workflows import requests

WORDS: dict[type, dict[str, Words]] = {
    requests.RatioRegionOptions: {
        "numerator": plain(
            "--numerator", "Class names or label values, comma-separated: necrosis, or 2,3.", RATIO, "LIST"
        ),
        "denominator": plain("--denominator", "The same for what it is divided by.", RATIO, "LIST"),
        "preset": plain(
            "--preset",
            "In place of both: ntr- or ctr- with brats2023 (1 necrosis, 2 oedema, 3 enhancing), brats2021 (enhancing "
            "is 4) or brats-nnunet (1 oedema, 2 necrosis, 3 enhancing; the Decathlon too), or tumour-kidney-kits "
            "(1 kidney, 2 tumour, 3 cyst).",
            RATIO,
            "NAME",
        ),
    },
    requests.RatioOptions: {
        "level": plain(
            "--level",
            "Share of new patients whose intervals are to hold. Default: 0.9 at fit, as stored at apply.",
            INTERVAL,
            "T",
        ),
        "method": plain(
            "--method",
            "nested (default): as wide as the network is unsure of the case. joint: ratio and both volumes at once. "
            "care: calibration and estimation error, as published; the paper's own setting is --method care "
            "--quantile plain --ce-unit mean --level 0.68. care-guaranteed: its calibration part alone. cp: one width.",
            INTERVAL,
        ),
        "quantile": plain(
            "--quantile",
            "conformal (default) holds at any number of patients; plain and mean are for care and cp, "
            "and without a guarantee.",
            INTERVAL,
        ),
        "unit": plain(
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
        "min_denominator_ml": plain(
            "--min-denominator-ml",
            "Below this predicted denominator there is no ratio. Default 0.01 ml; without a "
            "grid the number is of voxels, default 10.",
            INTERVAL,
            "M",
        ),
        "debias": plain("--debias", "Estimator of the column ratio_debiased. Intervals stay as they are.", INTERVAL),
        "calibration_error": plain(
            "--calibration-error",
            "ece (default of care), vbias (of care-guaranteed; smaller, equally valid), or kde: "
            "asked for at fit, bounds nothing and costs seconds per case.",
            PAPER,
        ),
        "split": plain(
            "--split", "The error between both bounds: the best of 20 splits per case (grid, default), or one.", PAPER
        ),
        "delta1": plain("--delta1", "The share of the estimation bound with --split fixed. Default: half.", PAPER, "D"),
        "estimation": plain(
            "--estimation",
            "Squared error of independent voxels (iid, default), of neighbours that vary together "
            "(block), or no estimation bound (none).",
            PAPER,
        ),
        "estimation_tail": plain("--estimation-tail", "Markov's inequality (default), or Fieller's interval.", PAPER),
        "ce_unit": plain(
            "--ce-unit", "Calibration errors in mm3 (volume, default), or per voxel of the field of view (mean).", PAPER
        ),
        "alarm_width": plain(
            "--alarm-width",
            "Alarm above this width, or above this percentile of the calibration cases' own widths. Default 80%.",
            ALARMS,
            "W",
        ),
        "cutoff": plain(
            "--cutoff",
            "Clinical cut-off: says on which side an interval lies, alarm if it crosses.",
            ALARMS,
            "C",
        ),
    },
    requests.RatioFitOptions: {
        "bins": plain("--bins", "Bins of the ECE.", PAPER, "N"),
        "allow_overlap": Words(
            ("--allow-overlap",), "Fit on cases that the --calibrator was fitted on; recorded.", INTERVAL
        ),
        "seed": plain("--seed", "Seed of the voxels drawn for --calibration-error kde.", PAPER, "N"),
    },
    requests.RatioApplyOptions: {
        "triage": plain("--triage", "Also write the alarmed cases, those to look at first on top.", ALARMS, "CSV"),
        "roi": plain(
            "--roi", "Masks of the voxels that count, if the fit had them (non-zero = keep).", READING, "FOLDER"
        ),
    },
}
