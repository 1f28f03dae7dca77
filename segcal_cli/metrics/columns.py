"""Columns: every measure of a row, from the counts of one source.

The keys are the column names of every table. What cannot be defined is None: overlap of two empty masks, volumes
without spacing, measures of the most probable class where classes do not exclude each other.
"""

from __future__ import annotations

import math
from collections.abc import Iterable
from typing import TYPE_CHECKING

import numpy as np

from segcal_cli.metrics import calibration_errors
from segcal_cli.metrics.calibration_errors import BinTable
from segcal_cli.metrics.corp import decompose
from segcal_cli.metrics.counting import SUMS, WHOLE, Counts
from segcal_cli.metrics.smooth_error import smooth_ece

if TYPE_CHECKING:
    from segcal_cli.metrics.measures import Settings

Measure = float | int | None

COUNT_COLUMNS = ("n_voxels", "n_label", "n_predicted")

CALIBRATION_COLUMNS = (
    "ece",
    "ace",
    "mce",
    "mce_bin",
    "n_bins",
    "adaptive_ece",
    "smooth_ece",
    "kde_ece",
    "brier",
    "nll",
    "brier_mcb",
    "brier_dsc",
    "brier_unc",
    "nll_mcb",
    "nll_dsc",
    "nll_unc",
    "volume_bias",
    "volume_bias_ml",
)
"""Columns that ``absent="skip"`` leaves undefined in a case without the class."""

OVERLAP_COLUMNS = ("dice", "iou")

SATURATION_COLUMNS = ("at_zero", "at_one", "near_zero", "near_one", "wrong_at_zero", "wrong_at_one")

CLASS_COLUMNS = COUNT_COLUMNS + CALIBRATION_COLUMNS + OVERLAP_COLUMNS + SATURATION_COLUMNS
"""Columns of a class, in the order of the table."""

TOP_COLUMNS = ("top_ece", "top_ace", "top_mce", "accuracy", "joint_nll", "joint_brier")

ALL_COLUMNS = (*CLASS_COLUMNS, "n_classes", *TOP_COLUMNS)
"""Columns of the row ``(all)``."""

UNAVERAGED = ("mce_bin",)
"""Columns whose mean means nothing."""


def class_columns(
    counts: Counts, names: tuple[str, ...], settings: Settings, bias_ml: np.ndarray | None, *, cells: bool = True
) -> dict[str, dict[str, Measure]]:
    """The columns of each class. bias_ml: sum (p - y) in ml, "class". cells: counts by cell, else by reported bin."""
    return {
        name: _class_row(counts, row, settings, None if bias_ml is None else float(bias_ml[row]), cells=cells)
        for row, name in enumerate(names)
    }


def _class_row(
    counts: Counts, row: int, settings: Settings, bias_ml: float | None, *, cells: bool
) -> dict[str, Measure]:
    fine = BinTable(counts.n[row], counts.hits[row], counts.p[row])
    grid = settings.grid
    table = BinTable(*(grid.binned(a) for a in (fine.n, fine.hits, fine.p))) if cells else fine
    n = int(table.n.sum())
    whole = dict(zip(WHOLE, (int(v) for v in counts.whole[row]), strict=True))
    sums = dict(zip(SUMS, (float(v) for v in counts.sums[row]), strict=True))
    largest, where = calibration_errors.mce(table)
    columns: dict[str, Measure] = dict.fromkeys(CLASS_COLUMNS)
    columns |= {
        "n_voxels": n,
        "n_label": whole["n_label"],
        "n_predicted": whole["n_predicted"],
        "ece": float(calibration_errors.ece(table)),
        "ace": float(calibration_errors.ace(table, settings.empty_bins)),
        "mce": float(largest),
        "mce_bin": int(where),
        "n_bins": int((table.n > 0).sum()),
        "brier": sums["brier"] / n,
        "nll": sums["nll"] / n,
        "volume_bias": float(calibration_errors.volume_bias(table)),
        "volume_bias_ml": bias_ml,
    }
    if cells:
        brier, nll = decompose(fine, columns["brier"], columns["nll"])
        columns |= {
            "adaptive_ece": calibration_errors.adaptive_ece(fine, settings.bins),
            "smooth_ece": smooth_ece(fine),
            "brier_mcb": brier.miscalibration,
            "brier_dsc": brier.discrimination,
            "brier_unc": brier.uncertainty,
            "nll_mcb": nll.miscalibration,
            "nll_dsc": nll.discrimination,
            "nll_unc": nll.uncertainty,
        }
    if settings.absent == "skip" and whole["n_label"] == 0:
        columns |= dict.fromkeys(CALIBRATION_COLUMNS)
    columns["dice"], columns["iou"] = overlap(
        whole["n_both"], whole["n_label"], whole["n_predicted"], 1.0 if settings.empty_dice == "one" else None
    )
    columns |= {key: whole[key] / n for key in ("at_zero", "at_one", "near_zero", "near_one")}
    columns |= {key: whole[key] for key in ("wrong_at_zero", "wrong_at_one")}
    return columns


def overlap(both: int, label: int, predicted: int, empty: float | None) -> tuple[float | None, float | None]:
    """Dice and intersection over union of two masks, without smoothing. empty: their value if both are empty."""
    if label + predicted == 0:
        return empty, empty
    return 2.0 * both / (label + predicted), both / (label + predicted - both)


def all_columns(
    counts: Counts, rows: dict[str, dict[str, Measure]], averaged: Iterable[str], settings: Settings, *, top: bool
) -> dict[str, Measure]:
    """The row ``(all)``: means over the averaged classes, undefined values left out, and the most probable class's
    measures.

    top: whether classes exclude each other. ``n_classes`` is the number of classes whose calibration went in.
    """
    chosen = [rows[name] for name in averaged]
    columns: dict[str, Measure] = {key: mean(row[key] for row in chosen) for key in CLASS_COLUMNS}
    columns |= dict.fromkeys(UNAVERAGED)
    columns["n_voxels"] = chosen[0]["n_voxels"]
    columns["n_classes"] = sum(row["ece"] is not None for row in chosen)
    columns |= dict.fromkeys(TOP_COLUMNS)
    if top:
        table = BinTable(counts.top_n, counts.top_hits, counts.top_p)
        n = int(table.n.sum())
        columns |= {
            "top_ece": float(calibration_errors.ece(table)),
            "top_ace": float(calibration_errors.ace(table, settings.empty_bins)),
            "top_mce": float(calibration_errors.mce(table)[0]),
            "accuracy": int(table.hits.sum()) / n,
            "joint_nll": float(counts.joint[0]) / n,
            "joint_brier": float(counts.joint[1]) / n,
        }
    return columns


def mean(values: Iterable[Measure]) -> float | None:
    """Mean of what is defined; None if nothing is. ``math.fsum``, so that the order does not matter."""
    defined = [value for value in values if value is not None]
    return math.fsum(defined) / len(defined) if defined else None
