"""Drift without labels: has what comes in changed since calibration?

The stream test bets, scan after scan, that a feature's conformal p-value leans to one side. Under exchangeability no
bet wins in the long run, so the capital exceeds F/.05 with probability at most .05/F, ever (Ville's inequality; the
simple jumper of Vovk et al. 2021, "Retrain or not retrain: conformal test martingales for change-point detection").
Ranks run over all earlier scans: p-values against a fixed calibration set are dependent and void the test. The mean of
the capitals over features is shown but alarms nobody: the features' martingales live in different filtrations. Absence
of an alarm is no proof of validity.
"""

from __future__ import annotations

import hashlib
import math
from collections.abc import Sequence
from typing import Any

import numpy as np

from segcal_cli.core.frozen import dataclass

JUMP = 0.01
"""Share of the capital that is redistributed among the three bets at each scan."""

BETS = np.array([-1.0, 0.0, 1.0])

FALSE_ALARM = 0.05
"""Probability of any alarm over the whole future, if nothing changes."""

MAD_PER_SIGMA = 1.4826
"""1.4826 times the median absolute deviation estimates a standard deviation."""

MAD_FLOOR = 1e-9
"""Keeps a constant feature from dividing by zero."""

COMPARED = 1 << 21
"""Pairs of numbers compared at a time: fast, and a few megabytes."""

ATYPICAL = 0.05
"""Cases with a smaller outlier p-value are flagged."""


@dataclass(frozen=True, slots=True)
class Stream:
    """The stream test. capital: float64 "scan feature", S after each new scan. threshold: F/.05. first_alarm: per
    feature the number (from 1) of the new scan at which it rang, 0 for never."""

    capital: np.ndarray
    threshold: float
    first_alarm: np.ndarray

    @property
    def alarm(self) -> bool:
        return bool(self.first_alarm.any())


def tie_breaks(seed: int, cases: Sequence[str], features: Sequence[str]) -> np.ndarray:
    """float64 "case feature" in [0, 1), from sha256 of "seed:case:feature": the same on every machine."""
    made = np.empty((len(cases), len(features)))
    for (i, case), (j, feature) in ((c, f) for c in enumerate(cases) for f in enumerate(features)):
        digest = hashlib.sha256(f"{seed}:{case}:{feature}".encode()).digest()
        made[i, j] = int.from_bytes(digest[:7], "big") / 2.0**56
    return made


def stream_p_values(calibration: np.ndarray, new: np.ndarray, ties: np.ndarray) -> np.ndarray:
    """float64 "new feature": p_t = (#{u_j > u_t} + U #{u_j = u_t}) / t over all j <= t, calibration first."""
    everything = np.concatenate([calibration, new])
    made = np.empty(new.shape)
    rows = max(1, COMPARED // max(1, everything.size))
    for start in range(0, len(new), rows):
        t = len(calibration) + 1 + np.arange(start, min(start + rows, len(new)))[:, None, None]
        now, before = everything[t[:, 0, 0] - 1][:, None], np.arange(len(everything))[:, None] < t
        above = np.count_nonzero((everything > now) & before, axis=1)
        equal = np.count_nonzero((everything == now) & before, axis=1)
        made[start : start + rows] = (above + ties[start : start + rows] * equal) / t[:, 0]
    return made


def stream_test(p_values: np.ndarray) -> Stream:
    """Play the simple jumper on "scan feature" p-values: C_e <- ((1-J) C_e + J S/3)(1 + e (p - 1/2))."""
    scans, features = p_values.shape
    capital = np.full((features, BETS.size), 1.0 / BETS.size)
    total = np.empty((scans, features))
    for index in range(scans):
        shared = capital.sum(axis=1, keepdims=True) / BETS.size
        capital = ((1.0 - JUMP) * capital + JUMP * shared) * (1.0 + BETS * (p_values[index][:, None] - 0.5))
        total[index] = capital.sum(axis=1)
    threshold = features / FALSE_ALARM
    rang = total >= threshold
    first = np.where(rang.any(axis=0), rang.argmax(axis=0) + 1, 0) if scans else np.zeros(features, np.int64)
    return Stream(total, threshold, first)


def batch_p_values(calibration: np.ndarray, batch: np.ndarray) -> np.ndarray:
    """float64 "feature": two-sample Kolmogorov-Smirnov p-values times the number of features, at most 1."""
    from scipy.stats import ks_2samp

    features = calibration.shape[1]
    found = [ks_2samp(calibration[:, f], batch[:, f]).pvalue for f in range(features)]
    return np.minimum(1.0, features * np.array(found))


def outlier(calibration: np.ndarray, case: np.ndarray) -> tuple[float, int]:
    """(p, feature): how atypical a case is, and by which feature most.

    A = max over features of |u - median| / (1.4826 MAD + 1e-9), median and MAD over calibration and this case; p = (1 +
    #{A_i >= A}) / (n + 1).
    """
    everything = np.concatenate([calibration, case[None]])
    away = np.abs(everything - np.median(everything, axis=0))
    scaled = away / (MAD_PER_SIGMA * np.median(away, axis=0) + MAD_FLOOR)
    largest = scaled.max(axis=1)
    p = (1 + int(np.count_nonzero(largest[:-1] >= largest[-1]))) / len(everything)
    return p, int(scaled[-1].argmax())


def drift_json(names: Sequence[str], stream: Stream, batch: np.ndarray | None, scans: int) -> dict[str, Any]:
    """The report. names: of the features, over all targets."""
    last = stream.capital[-1] if len(stream.capital) else np.ones(len(names))
    return {
        "scans": scans,
        "threshold": stream.threshold,
        "alarm": stream.alarm,
        "mean_capital": math.fsum(last) / len(names),
        "features": [
            {
                "feature": name,
                "capital": float(last[f]),
                "largest_capital": float(stream.capital[:, f].max()) if len(stream.capital) else 1.0,
                "first_alarm": int(stream.first_alarm[f]) or None,
                "batch_p": None if batch is None else float(batch[f]),
            }
            for f, name in enumerate(names)
        ],
        "note": "absence of an alarm is no proof of validity",
    }
