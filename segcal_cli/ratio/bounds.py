"""Bounds: from thresholds to the ends of an interval, for many cases at once.

Calibration bound (Li, Popordanoska, Tiulpin, Gruber, Maes, Blaschko 2025, "Beyond Segmentation: Confidence-Aware and
Debiased Estimation of Ratio-based Biomarkers", proposition 3.7): the labelled volumes lie within q_A of A and q_B of
B, so their ratio lies between the extremes. Estimation bound (propositions 3.5 and 3.6): Markov's inequality on the
squared error of the ratio, or Fieller's set (Fieller 1954, "Some problems in interval estimation"), which is narrower
and valid for many voxels only. Nested bound: both radii are one multiple t of the case's own softness U.
"""

from __future__ import annotations

import numpy as np

from segcal_cli.core.frozen import dataclass
from segcal_cli.ratio.table import RatioTable


@dataclass(frozen=True, slots=True)
class Ends:
    """low, high: float64 "...", not clipped; -inf or +inf where a bound has no end."""

    low: np.ndarray
    high: np.ndarray

    def clipped(self, limit: float) -> Ends:
        """Within [0, limit]; a ratio cannot lie elsewhere, so nothing true is lost."""
        return Ends(np.clip(self.low, 0.0, limit), np.clip(self.high, 0.0, limit))

    @property
    def width(self) -> np.ndarray:
        """float64 "...": +inf for intervals without an upper end."""
        with np.errstate(invalid="ignore"):
            return np.where(np.isposinf(self.high), np.inf, self.high - self.low)


def calibration_ends(a: np.ndarray, b: np.ndarray, q_a: np.ndarray, q_b: np.ndarray) -> Ends:
    """L = max(A - q_A, 0)/(B + q_B), U = (A + q_A)/(B - q_B), +inf unless B > q_B. Equation 7.

    a, b: mm3, float64 "case"; q_a, q_b: mm3, broadcast against them. Also the ratio of a joint box.
    """
    return Ends(*_extremes(np.maximum(a - q_a, 0.0), a + q_a, b, q_b))


def nested_ends(table: RatioTable, t: np.ndarray | float) -> Ends:
    """(A - t U_A)/(B + t U_B) and (A + t U_A)/(B - t U_B): both ends move outwards with t."""
    t = np.broadcast_to(np.asarray(t, dtype=np.float64), table["A"].shape)
    r_a, r_b = t * table.softness("A"), t * table.softness("B")
    return Ends(*_extremes(table["A"] - r_a, table["A"] + r_a, table["B"], r_b))


def symmetric_ends(ratio: np.ndarray, q: np.ndarray | float) -> Ends:
    """R - q and R + q."""
    return Ends(ratio - q, ratio + q)


def volume_ends(table: RatioTable, name: str, q: np.ndarray | float) -> Ends:
    """A - q U_A, not below 0, and A + q U_A in mm3; or of B."""
    radius = q * table.softness(name)
    return Ends(np.maximum(table[name] - radius, 0.0), table[name] + radius)


def markov_ends(ratio: np.ndarray, squared_error: np.ndarray, delta1: float) -> Ends:
    """R - beta and R + beta, beta = sqrt(SE / delta1): P(|R - r| >= beta) <= delta1. Equations 4 to 6."""
    beta = np.sqrt(squared_error / delta1)
    return Ends(ratio - beta, ratio + beta)


def fieller_ends(table: RatioTable, delta1: float, inflation: np.ndarray) -> Ends:
    """The set of r with (a' - r b')^2 <= z^2 (V_aa - 2 r V_ab + r^2 V_bb); infinite ends where it has none.

    inflation: float64 "case", what dependence between voxels multiplies the variances with.
    """
    from scipy.special import ndtri

    z2 = float(ndtri(1.0 - delta1 / 2.0)) ** 2 * inflation
    volume = table["voxels"] * table["voxel_mm3"]
    a, b = table["A"] / volume, table["B"] / volume
    q1 = b * b - z2 * table["mean_variance_bb"]
    q2 = a * b - z2 * table["mean_variance_ab"]
    q3 = a * a - z2 * table["mean_variance_aa"]
    with np.errstate(divide="ignore", invalid="ignore"):
        root = np.sqrt(np.maximum(q2 * q2 - q1 * q3, 0.0))
        low, high = (q2 - root) / q1, (q2 + root) / q1
    bounded = q1 > 0
    return Ends(np.where(bounded, low, -np.inf), np.where(bounded, high, np.inf))


def _extremes(low: np.ndarray, high: np.ndarray, b: np.ndarray, r_b: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """low/(B + r) and high/(B - r), the latter +inf unless B > r. An infinite r leaves no lower end but 0 or -inf."""
    r_b = np.broadcast_to(r_b, low.shape)
    finite = np.isfinite(r_b) & np.isfinite(low)
    with np.errstate(divide="ignore", invalid="ignore"):
        below = np.where(finite, low / (b + r_b), np.where(np.isfinite(low), 0.0, -np.inf))
        above = np.where(b > r_b, high / (b - r_b), np.inf)
    return below, above
