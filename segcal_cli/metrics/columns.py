"""Columns: every measure of a row, from the counts of one source.

The keys are the column names of every table. What cannot be defined is None: overlap of two empty masks, volumes
without spacing, measures of the most probable class where classes do not exclude each other.
"""

from __future__ import annotations

import math
from collections.abc import Iterable
from dataclasses import replace
from typing import TYPE_CHECKING

import numpy as np

from segcal_cli.metrics import calibration_errors
from segcal_cli.metrics.calibration_errors import BinTable, ratio
from segcal_cli.metrics.corp import decompose
from segcal_cli.metrics.counting import SUMS, WHOLE, Counts
from segcal_cli.metrics.smooth_error import smooth_ece

if TYPE_CHECKING:
    from segcal_cli.metrics.measures import Settings
    from segcal_cli.metrics.pooling import Pooled

Measure = float | int | None

Row = dict[str, Measure]

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

ALWAYS = (*COUNT_COLUMNS, "n_classes")
"""Columns that are there whatever was asked for."""

WHOLE_COLUMNS = (*COUNT_COLUMNS, "mce_bin", "n_bins", "wrong_at_zero", "wrong_at_one")
"""Columns of whole numbers."""

MOST_VOXELS = 2**40
"""More voxels than any study has, and few enough for their sums in units of 2^-24 to be counted in 64 bits."""

LARGEST = 1e100
"""Beyond what any measure of any scan is, and its square is still a float."""

UNAVERAGED = ("mce_bin",)
"""Columns whose mean means nothing."""

CELL_COLUMNS = (
    "adaptive_ece",
    "smooth_ece",
    "brier_mcb",
    "brier_dsc",
    "brier_unc",
    "nll_mcb",
    "nll_dsc",
    "nll_unc",
)
"""Columns that are computed from cells; the rest needs reported bins and sums."""


def binned_columns(counts: Counts, bias_ml: np.ndarray | None, settings: Settings) -> dict[str, np.ndarray]:
    """Columns that need no more than reported bins, float64 "... class", NaN where undefined.

    counts: by reported bin, each array with the same leading axes. bias_ml: sum (p - y) in ml, "... class".
    """
    table = BinTable(counts.n, counts.hits, counts.p)
    n = counts.n.sum(axis=-1)
    whole = {name: counts.whole[..., i] for i, name in enumerate(WHOLE)}
    sums = {name: counts.sums[..., i] for i, name in enumerate(SUMS)}
    largest, where = calibration_errors.mce(table)
    columns = {
        "ece": calibration_errors.ece(table),
        "ace": calibration_errors.ace(table, settings.empty_bins),
        "mce": largest,
        "mce_bin": where,
        "n_bins": (counts.n > 0).sum(axis=-1),
        "brier": ratio(sums["brier"], n),
        "nll": ratio(sums["nll"], n),
        "volume_bias": calibration_errors.volume_bias(table),
        "volume_bias_ml": np.full(n.shape, np.nan) if bias_ml is None else bias_ml,
    }
    if settings.absent == "skip":
        columns = {key: np.where(whole["n_label"] > 0, value, np.nan) for key, value in columns.items()}
    columns |= {"n_voxels": n, "n_label": whole["n_label"], "n_predicted": whole["n_predicted"]}
    columns["dice"], columns["iou"] = overlap(
        whole["n_both"], whole["n_label"], whole["n_predicted"], 1.0 if settings.empty_dice == "one" else np.nan
    )
    columns |= {key: ratio(whole[key], n) for key in ("at_zero", "at_one", "near_zero", "near_one")}
    columns |= {key: whole[key] for key in ("wrong_at_zero", "wrong_at_one")}
    return columns


def cell_columns(cells: BinTable, brier: float, nll: float, bins: int) -> dict[str, Measure]:
    """Columns that need the cells of one class. brier, nll: its exact mean scores."""
    of_brier, of_nll = decompose(cells, brier, nll)
    return {
        "adaptive_ece": calibration_errors.adaptive_ece(cells, bins),
        "smooth_ece": smooth_ece(cells),
        "brier_mcb": of_brier.miscalibration,
        "brier_dsc": of_brier.discrimination,
        "brier_unc": of_brier.uncertainty,
        "nll_mcb": of_nll.miscalibration,
        "nll_dsc": of_nll.discrimination,
        "nll_unc": of_nll.uncertainty,
    }


def top_columns(counts: Counts, settings: Settings) -> dict[str, np.ndarray]:
    """Columns of the most probable class, float64 "...", all NaN where classes do not exclude each other."""
    table = BinTable(counts.top_n, counts.top_hits, counts.top_p)
    n = counts.top_n.sum(axis=-1)
    return {
        "top_ece": calibration_errors.ece(table),
        "top_ace": calibration_errors.ace(table, settings.empty_bins),
        "top_mce": calibration_errors.mce(table)[0],
        "accuracy": ratio(counts.top_hits.sum(axis=-1), n),
        "joint_nll": ratio(counts.joint[..., 0], n),
        "joint_brier": ratio(counts.joint[..., 1], n),
    }


def overlap(both: np.ndarray, label: np.ndarray, predicted: np.ndarray, empty: float) -> tuple[np.ndarray, np.ndarray]:
    """Dice and intersection over union of two masks, without smoothing. empty: their value if both are empty."""
    either = label + predicted - both
    dice, iou = ratio(2 * both, label + predicted), ratio(both, either)
    return np.where(either > 0, dice, empty), np.where(either > 0, iou, empty)


def class_rows(pooled: Pooled, counts: Counts, bias_ml: np.ndarray | None, settings: Settings) -> dict[str, Row]:
    """The row of each class, measures that were not asked for left undefined. counts: by cell, as ``pooled`` says."""
    grid = pooled.grid
    needs_cells = not settings.wanted.isdisjoint(CELL_COLUMNS)
    bins = replace(counts, **{name: grid.binned(getattr(counts, name)) for name in ("n", "hits", "p")})
    binned = binned_columns(bins, bias_ml, settings)
    rows = {}
    for row, name in enumerate(pooled.classes):
        columns: Row = dict.fromkeys(CLASS_COLUMNS)
        columns |= {key: defined(values[row], whole=key in WHOLE_COLUMNS) for key, values in binned.items()}
        brier, nll = columns["brier"], columns["nll"]
        if needs_cells and brier is not None and nll is not None:
            cells = BinTable(counts.n[row], counts.hits[row], counts.p[row])
            columns |= cell_columns(cells, brier, nll, grid.bins)
        rows[name] = only_wanted(columns, settings)
    return rows


def all_row(averaged: tuple[str, ...], rows: dict[str, Row], counts: Counts, settings: Settings) -> Row:
    """The row ``(all)``: means over the averaged classes, undefined values left out, beside the most probable class.

    ``n_classes`` is the number of classes whose calibration went in.
    """
    chosen = [rows[name] for name in averaged]
    columns: Row = {key: mean(row[key] for row in chosen) for key in CLASS_COLUMNS}
    columns |= dict.fromkeys(UNAVERAGED)
    columns["n_voxels"] = chosen[0]["n_voxels"]
    columns["n_classes"] = sum(settings.absent == "include" or bool(row["n_label"]) for row in chosen)
    columns |= {key: defined(value) for key, value in top_columns(counts, settings).items()}
    return only_wanted(columns, settings)


def only_wanted(columns: Row, settings: Settings) -> Row:
    """The same columns, measures that were not asked for undefined. Counts stay."""
    return {key: value if key in ALWAYS or key in settings.wanted else None for key, value in columns.items()}


def mean(values: Iterable[Measure]) -> float | None:
    """Mean of what is defined; None if nothing is. ``math.fsum``, so that the order does not matter."""
    known = [value for value in values if value is not None]
    return math.fsum(known) / len(known) if known else None


def defined(value: float | np.ndarray, *, whole: bool = False) -> Measure:
    """A Python number, None for NaN."""
    return None if math.isnan(value) else int(value) if whole else float(value)
