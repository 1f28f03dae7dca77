"""Shift: whether new cases look like the calibration cases, and what can be done if they do not.

Three features can be seen without labels: the logarithm of the denominator, its softness per volume, and the ratio.
Where their distribution has moved (smaller tumours), calibration scores are weighed by how likely their case is among
the new ones (Tibshirani, Barber, Candès, Ramdas 2019, "Conformal prediction under covariate shift"). A network that is
over-confident at the same size and softness cannot be seen, and weights do not mend it.
"""

from __future__ import annotations

import math

import numpy as np

from segcal_cli.core.errors import UsageError
from segcal_cli.core.frozen import dataclass
from segcal_cli.metrics.coverage import effective_sample_size
from segcal_cli.ratio.table import RatioTable

FEATURES = ("log_denominator", "softness", "ratio")
RANGE_MARGIN = 0.1
"""How far outside the calibration cases' range a feature may lie, as a share of that range."""
DRIFT_CASES = 10
"""New cases from which on their distribution is compared."""
DRIFT_P = 0.01
"""Of the three Kolmogorov-Smirnov tests together."""
WEIGHTED_CASES = 20
"""New cases from which on weights can be estimated."""
LEAST_EFFECTIVE = 20.0
"""Effective calibration cases, (sum w)^2 / sum w^2, below which weighted thresholds rest on too few."""
LARGEST_WEIGHT = 20.0
"""Weights are kept within [1/20, 20]: beyond, one case would decide a threshold."""
PER_ML = 1000.0
"""mm3 in a ml; without a grid the same number of voxels."""


class TooFewNewCases(UsageError):
    """Too few cases to estimate weights from."""

    template = "--weighted needs 20 new cases, got {0}"


@dataclass(frozen=True, slots=True)
class Weights:
    """calibration, new: float64 "case". effective: effective number of calibration cases."""

    calibration: np.ndarray
    new: np.ndarray
    coefficients: np.ndarray
    intercept: float

    @property
    def effective(self) -> float:
        return effective_sample_size(self.calibration)


def features(table: RatioTable) -> np.ndarray:
    """float64 "feature case": log B, U_B / B, A / B. Cases with a denominator only."""
    return np.stack([np.log(table["B"] / PER_ML), table.softness("B") / table["B"], table.ratio])


def out_of_range(calibration: RatioTable, new: RatioTable) -> np.ndarray:
    """bool "new case": whether a feature lies outside the calibration cases' range by more than a tenth of it."""
    known, seen = features(calibration), features(new)
    low, high = known.min(axis=1, keepdims=True), known.max(axis=1, keepdims=True)
    margin = RANGE_MARGIN * (high - low)
    return ((seen < low - margin) | (seen > high + margin)).any(axis=0)


def drift(calibration: RatioTable, new: RatioTable) -> dict[str, object] | None:
    """Kolmogorov-Smirnov per feature, new against calibration cases; None for fewer than ten new cases."""
    if len(new) < DRIFT_CASES:
        return None
    from scipy.stats import ks_2samp

    known, seen = features(calibration), features(new)
    tests = {name: ks_2samp(known[i], seen[i]) for i, name in enumerate(FEATURES)}
    shifted = any(test.pvalue < DRIFT_P / len(FEATURES) for test in tests.values())
    return {
        "n_new": len(new),
        "shifted": shifted,
        "features": {name: {"ks": float(test.statistic), "p": float(test.pvalue)} for name, test in tests.items()},
    }


def weights(calibration: RatioTable, new: RatioTable) -> Weights:
    """How likely each case is among the new ones against the calibration ones. Raises TooFewNewCases.

    Logistic regression, new (1) against calibration (0), on log B, its square, softness and ratio, standardised over
    both together; penalty |w|^2/2, free intercept. Rows stand in order of the case ids, so the last digits do not
    depend on the order of reading.
    """
    if len(new) < WEIGHTED_CASES:
        raise TooFewNewCases(len(new))
    from scipy.optimize import minimize

    both = np.concatenate([features(calibration), features(new)], axis=1)
    both = np.stack([both[0], both[0] ** 2, both[1], both[2]], axis=1)
    spread = both.std(axis=0)
    x = (both - both.mean(axis=0)) / np.where(spread > 0, spread, 1.0)
    y = np.repeat([0.0, 1.0], [len(calibration), len(new)])

    def loss(parameters: np.ndarray) -> tuple[float, np.ndarray]:
        w, intercept = parameters[:-1], parameters[-1]
        z = (x * w).sum(axis=1) + intercept
        value = float((np.logaddexp(0.0, z) - y * z).sum() + 0.5 * (w * w).sum())
        slope = 0.5 * (1.0 + np.tanh(0.5 * z)) - y
        return value, np.append((x * slope[:, None]).sum(axis=0) + w, slope.sum())

    found = minimize(loss, np.zeros(x.shape[1] + 1), jac=True, method="BFGS", options={"gtol": 1e-8}).x
    log_weight = (x * found[:-1]).sum(axis=1) + found[-1] + math.log(len(calibration) / len(new))
    weight = np.exp(np.clip(log_weight, -math.log(LARGEST_WEIGHT), math.log(LARGEST_WEIGHT)))
    return Weights(weight[: len(calibration)], weight[len(calibration) :], found[:-1], float(found[-1]))
