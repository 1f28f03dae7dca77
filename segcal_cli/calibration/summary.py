"""Before and after: calibration errors, scores and overlap of a fit, every patient with parameters fitted without it.

Binary problems and sigmoid regions are measured from the sketches, without another reading: calibrated probabilities
are taken at bin means, and a bin of z that straddles an edge of p goes to one side. Losses and the cut at z = 0 are
those of all voxels; ECE is within 3e-4 of it, ACE and Dice at another cut within 1e-3. Regions are measured each on
its own, before nested ones are projected.

*micro* pools all voxels; *macro* is the mean over the cases of a patient, then over patients. ``all`` is the mean over
classes, undefined values left out.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Sequence
from typing import Any

import numpy as np

from segcal_cli.calibration.fitting import Fitted
from segcal_cli.calibration.likelihood import sigmoid
from segcal_cli.calibration.method import BRIER, NLL, Sketched
from segcal_cli.calibration.patients import Patients
from segcal_cli.calibration.sketch import Sketch, moments_of
from segcal_cli.core.labels import LabelSpace

KEYS = ("nll", "brier", "ece", "ace", "mce", "dice")
"""Measures of a class in a summary."""

JOINT_KEYS = ("joint_nll", "joint_brier", "accuracy")
"""Measures of all exclusive classes together."""

SUMMARY_BINS = 20
"""Bins of calibration errors, each closed on the right."""

Measures = dict[str, float | None]
Rows = dict[str, Any]
"""{"classes": {CLASS: Measures}, "all": Measures}."""

_SCALARS = 7  # voxels, nll, brier, label, predicted, both, right


def sketch_summary(
    patients: Patients, fitted: Fitted, record: Sketched, space: LabelSpace, *, improved: bool
) -> dict[str, Any]:
    """The summary from sketches, of a binary problem or of sigmoid regions."""
    names = tuple(space.names[c] for c in space.measured)
    identity = np.tile(np.array(record.identity), (len(names), 1))

    def counts(case: int, *, after: bool) -> np.ndarray:
        fold = int(fitted.fold_of[patients.member[case]]) if fitted.folds else None
        rows = fitted.rows(len(names), fold) if after else identity
        sketches = patients.cases[case].sketches
        return np.stack([_counts(sketch, record, row) for sketch, row in zip(sketches, rows, strict=True)])

    def phase(*, after: bool) -> dict[str, Rows]:
        tables = [counts(case, after=after) for case in range(len(patients.cases))]
        return averages(tables, patients, lambda table: _rows(table, names, joint=space.binary), sum_of)

    return assemble(fitted, phase(after=False), phase(after=True), improved=improved)


def assemble(fitted: Fitted, before: dict[str, Rows], after: dict[str, Rows], *, improved: bool) -> dict[str, Any]:
    """The summary, with how it was made."""
    return {
        "evaluated_on": ("held-out" if fitted.apart else "cross-validation") if fitted.folds else "in-sample",
        "folds": fitted.folds,
        "in_sample": not fitted.folds,
        "before": before,
        "after": after,
        "improved": improved,
    }


def averages(
    cases: Sequence[Any], patients: Patients, rows_of: Callable[[Any], Rows], pool: Callable[[Sequence[Any]], Any]
) -> dict[str, Rows]:
    """{"micro", "macro"} of countings by case, in the order of the patients' cases."""
    by_case = [rows_of(case) for case in cases]
    by_group = [
        _mean_rows([row for row, member in zip(by_case, patients.member, strict=True) if member == group])
        for group in range(len(patients.groups))
    ]
    return {"micro": rows_of(pool(cases)), "macro": _mean_rows(by_group)}


def sum_of(tables: Sequence[np.ndarray]) -> np.ndarray:
    """Countings of all cases together; they add."""
    return np.sum(np.stack(tables), axis=0)


def mean(values: Iterable[float | None]) -> float | None:
    """Mean of what is defined; None if nothing is."""
    defined = [value for value in values if value is not None]
    return math.fsum(defined) / len(defined) if defined else None


def _mean_rows(rows: Sequence[Rows]) -> Rows:
    classes = {
        name: {key: mean(row["classes"][name][key] for row in rows) for key in measures}
        for name, measures in rows[0]["classes"].items()
    }
    return {"classes": classes, "all": {key: mean(row["all"][key] for row in rows) for key in rows[0]["all"]}}


def _counts(sketch: Sketch, record: Sketched, row: np.ndarray) -> np.ndarray:
    """float64 counting of one case and class: scalars, then n, sum p and sum y by reported bin."""
    moments = moments_of(sketch.sums[np.newaxis], sketch.bins)
    rows = row[np.newaxis]
    n, y = moments.n[0], moments.positives[0]
    u = record.log_odds(row, moments.c[0])
    p = sigmoid(u)
    predicted = u > 0.0
    total, label = n.sum(), y.sum()
    both = y[predicted].sum()
    scalars = [
        total,
        total * record.loss(moments, rows, NLL)[0],
        total * record.loss(moments, rows, BRIER)[0],
        label,
        n[predicted].sum(),
        both,
        both + (n - y)[~predicted].sum(),
    ]
    reported = np.clip(np.ceil(p * SUMMARY_BINS) - 1.0, 0, SUMMARY_BINS - 1).astype(np.int64)
    bins = [np.bincount(reported, weights=w, minlength=SUMMARY_BINS) for w in (n, n * p, y)]
    return np.concatenate([scalars, *bins])


def _rows(table: np.ndarray, names: Sequence[str], *, joint: bool) -> Rows:
    classes = {name: _columns(row) for name, row in zip(names, table, strict=True)}
    everything: Measures = {key: mean(row[key] for row in classes.values()) for key in KEYS}
    if joint:  # one problem: its complement has the same squared error, and the likelihood is that of both
        voxels, nll, brier, *_, right = table[0, :_SCALARS]
        joint_values = (nll / voxels, 2.0 * brier / voxels, right / voxels)
        everything |= {key: float(value) for key, value in zip(JOINT_KEYS, joint_values, strict=True)}
    return {"classes": classes, "all": everything}


def _columns(row: np.ndarray) -> Measures:
    voxels, nll, brier, label, predicted, both, _ = row[:_SCALARS]
    n, sum_p, sum_y = row[_SCALARS:].reshape(3, SUMMARY_BINS)
    filled = n > 0
    gaps = np.abs(sum_y - sum_p)[filled] / n[filled]
    return {
        "nll": float(nll / voxels),
        "brier": float(brier / voxels),
        "ece": float((n[filled] * gaps).sum() / voxels),
        "ace": float(gaps.mean()),
        "mce": float(gaps.max()),
        "dice": float(2.0 * both / (label + predicted)) if label + predicted > 0 else None,
    }
