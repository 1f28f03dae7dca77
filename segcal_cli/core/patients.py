"""Patients: conformal thresholds where several scores belong to one unit, or where scores weigh differently.

Scans of one patient are not exchangeable with scans of others, so the patient is the unit. Two rules keep the promise:
``largest_of_each`` ranks each patient's largest score, and holds for all scans of a new patient together;
``hierarchical_quantile`` lets each of a patient's m scores weigh 1/m, and holds for one scan of a new patient (Lee,
Barber, Willett 2023, "Distribution-free inference with hierarchical data"). ``weighted_quantile`` lets scores weigh by
how likely they are among new cases (Tibshirani, Barber, Candès, Ramdas 2019, "Conformal prediction under covariate
shift"). With equal weights and one score each, all of these are the rank of ``core.conformal``.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np

from segcal_cli.core.conformal import LEVEL_ROUNDING


def members(groups: Sequence[str]) -> tuple[tuple[str, ...], np.ndarray]:
    """The groups in order of their bytes, and int64 "score": which group each score belongs to."""
    names = tuple(sorted(set(groups), key=str.encode))
    place = {name: index for index, name in enumerate(names)}
    return names, np.array([place[group] for group in groups], dtype=np.int64)


def largest_of_each(scores: np.ndarray, groups: Sequence[str]) -> np.ndarray:
    """float64 "group": each group's largest score, groups in order of their bytes. scores: float64 "score"."""
    names, member = members(groups)
    largest = np.full(len(names), -np.inf)
    np.maximum.at(largest, member, scores)
    return largest


def mean_of_each(values: np.ndarray, groups: Sequence[str]) -> np.ndarray:
    """float64 "group": each group's mean, groups in order of their bytes."""
    names, member = members(groups)
    sums = np.bincount(member, weights=values, minlength=len(names))
    return sums / np.bincount(member, minlength=len(names))


def shares(groups: Sequence[str]) -> np.ndarray:
    """float64 "score": 1/m for each of the m scores of a group."""
    names, member = members(groups)
    return 1.0 / np.bincount(member, minlength=len(names))[member]


def hierarchical_quantile(scores: np.ndarray, groups: Sequence[str], alpha: float) -> float:
    """The smallest score that holds a mass of (1 - alpha)(G + 1), each of a group's m scores weighing 1/m; else +inf.

    scores: float64 "score"; G: number of groups. A new group's score, one drawn from it, exceeds the result with
    probability at most alpha.
    """
    needed = (1.0 - alpha) * (len(set(groups)) + 1)
    return float(_mass_quantiles(scores, shares(groups), np.array([needed]))[0])


def weighted_quantile(
    scores: np.ndarray, weights: np.ndarray, new_weights: np.ndarray, alpha: float, units: int | None = None
) -> np.ndarray:
    """float64 "new": for each new weight w the smallest score below which a share of 1 - alpha of all weight lies,
    that of the new case counted above every score; +inf where there is none.

    scores, weights: float64 "score"; units: how many exchangeable units these are, where they are not one each.
    """
    n = scores.size if units is None else units
    # Scaled so that equal weights of 1 give whole ranks, and the rounding of ranks means the same here as there.
    needed = ((1.0 - alpha) * (n + 1) - LEVEL_ROUNDING) * (weights.sum() + new_weights) / (n + 1) + LEVEL_ROUNDING
    return _mass_quantiles(scores, weights, needed)


def _mass_quantiles(scores: np.ndarray, masses: np.ndarray, needed: np.ndarray) -> np.ndarray:
    order = np.argsort(scores, kind="stable")
    ranked = scores[order]
    mass = np.cumsum(masses[order])
    # Equal scores count together: the mass of the last of them is the mass of the value.
    first = np.searchsorted(mass, needed - LEVEL_ROUNDING, side="left")
    padded = np.append(ranked, math.inf)
    return padded[first]
