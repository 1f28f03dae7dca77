"""Patients: one score for each, where scans of one patient are not exchangeable with scans of others.

The largest of a patient's scores stands for all of his scans, so a threshold ranked on these holds for every scan of a
new patient. (The other rule, in which each of m scans weighs 1/m and one scan of a new patient is promised, is
``metrics.coverage.hierarchical_quantile``.)
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np


def largest_of_each(scores: np.ndarray, groups: Sequence[str]) -> np.ndarray:
    """float64 "group": each group's largest score, groups in order of their bytes. scores: float64 "score"."""
    names, member = _members(groups)
    largest = np.full(names, -np.inf)
    np.maximum.at(largest, member, scores)
    return largest


def mean_of_each(values: np.ndarray, groups: Sequence[str]) -> np.ndarray:
    """float64 "group": each group's mean, groups in order of their bytes. values: float64 "score"."""
    names, member = _members(groups)
    return np.bincount(member, weights=values, minlength=names) / np.bincount(member, minlength=names)


def _members(groups: Sequence[str]) -> tuple[int, np.ndarray]:
    """How many groups there are, and int64 "score": the place of each score's group."""
    place = {name: index for index, name in enumerate(sorted(set(groups), key=str.encode))}
    return len(place), np.array([place[group] for group in groups], dtype=np.int64)
