"""Nodes: all that a softmax temperature needs to know of a case, in 41 numbers.

With beta = 1/T, log-softmax l, and g = l - max l, the negative log-likelihood of softmax(beta l) is

    nll(beta) = [D(beta) + beta sum_i (max l_i - l_iy)] / N,     D(beta) = sum_i log sum_c exp(beta g_ic)

The label term is exact. D is smooth in log beta, so its values at Chebyshev nodes of log beta between 1/20 and 20
give it everywhere in between: with 41 nodes T is exact to 4e-9. The sum of squares of the Brier score is kept at the
same nodes where a fit asks for it. A histogram of the gap between the two best classes would not do: it misses T by 7
%.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.polynomial import chebyshev

from segcal_cli.calibration.solvers import Tally
from segcal_cli.core.frozen import dataclass

LOG_LIMIT = float(np.log(20.0))
"""Temperatures are sought in [1/20, 20]."""

NODES = 41
"""Fewer nodes cost digits of T: 25 give 1e-5."""


def _inverse_temperatures() -> np.ndarray:
    positions = np.cos(np.pi * (np.arange(NODES) + 0.5) / NODES)
    # Rounded to float32, in which the exponents are formed; the interpolation uses what was really evaluated.
    return np.exp(LOG_LIMIT * positions).astype(np.float32)


BETAS = _inverse_temperatures()
"""float32 "node": the inverse temperatures at which sums are taken."""

_POSITIONS = np.log(BETAS.astype(np.float64)) / LOG_LIMIT
_TO_COEFFICIENTS = np.linalg.inv(chebyshev.chebvander(_POSITIONS, NODES - 1))

GROUP = 16
"""Voxels whose sums are multiplied before one logarithm is taken of the product: 16 times fewer logarithms, no loss."""

ROUNDING_MATTERS = 1 << 20
"""Up to this many voxels exponentials are float64; beyond, float32 errors average out below 1e-8 of the sum."""


SCAN = 81
"""Places of log T where the loss is looked at before the root is sought between neighbours; Brier has several
valleys."""


@dataclass(frozen=True, slots=True)
class NodeSums:
    """Sums over the voxels of one case.

    d: float64 "node"; label_gap: sum of max l - l_y; squares: sum over voxels and classes of (p - y)^2, float64 "node",
    or None where the loss does not ask for it.
    """

    d: np.ndarray
    label_gap: float
    voxels: int
    squares: np.ndarray | None = None


def node_sums(l: np.ndarray, codes: np.ndarray, *, squares: bool, single: bool) -> NodeSums:  # noqa: E741
    """Sums over a chunk. l: float64 log-softmax "class voxel"; codes: integer "voxel"; single: exp in float32."""
    winner = l.argmax(axis=0)[np.newaxis]
    best = np.take_along_axis(l, winner, axis=0)
    gap = l - best
    of_label = np.take_along_axis(gap, codes[np.newaxis].astype(np.intp), axis=0)[0]
    kind = np.float32 if single else np.float64
    # Every voxel's winner has gap 0 and power 1: the first channel moves to its place, and one exponential is saved.
    np.put_along_axis(gap, winner, gap[:1].copy(), axis=0)
    losers = gap[1:].astype(kind)
    label_losers = of_label.astype(kind)
    whole = losers.shape[1] // GROUP * GROUP
    power = np.empty_like(losers)
    d = np.empty(NODES)
    sums = np.empty(NODES) if squares else None
    for node, beta in enumerate(BETAS):
        np.multiply(losers, kind(beta), out=power)
        np.exp(power, out=power)
        total = power.sum(axis=0).astype(np.float64)
        total += 1.0
        products = np.multiply.reduce(total[:whole].reshape(GROUP, -1), axis=0)
        d[node] = np.log(products).sum() + np.log(total[whole:]).sum()
        if sums is not None:
            p_label = np.exp(label_losers * kind(beta)) / total
            power *= power
            sums[node] = ((power.sum(axis=0) + 1.0) / (total * total) - 2.0 * p_label + 1.0).sum()
    return NodeSums(d, float(-of_label.sum()), losers.shape[1], sums)


def added(parts: list[NodeSums]) -> NodeSums:
    """The sum of parts, in their order."""
    kept = [part.squares for part in parts if part.squares is not None]
    squares = np.sum(kept, axis=0) if kept else None
    return NodeSums(
        np.sum([part.d for part in parts], axis=0),
        float(np.sum([part.label_gap for part in parts])),
        sum(part.voxels for part in parts),
        squares,
    )


@dataclass(frozen=True, slots=True)
class Curves:
    """Losses as functions of the temperature, several at once (bootstrap resamples, folds).

    d, squares: float64 "problem node"; label_gap, total: float64 "problem". squares is None where it was not kept.
    """

    d: np.ndarray
    label_gap: np.ndarray
    total: np.ndarray
    squares: np.ndarray | None = None

    def table(self, name: str) -> np.ndarray:
        """Sums float64 "problem node" that a loss stands on."""
        table = self.d if name == "nll" else self.squares
        assert table is not None, "squares are kept where the loss is brier"
        return table

    def nll(self, temperature: np.ndarray) -> np.ndarray:
        """Mean negative log-likelihood, nats per voxel, of each problem at its temperature."""
        return (self._at(self.d, temperature) + self.label_gap / temperature) / self.total

    def brier(self, temperature: np.ndarray) -> np.ndarray:
        """Mean over voxels of the sum over classes of (p - y)^2."""
        return self._at(self.table("brier"), temperature) / self.total

    def loss(self, name: str, temperature: np.ndarray) -> np.ndarray:
        return self.nll(temperature) if name == "nll" else self.brier(temperature)

    def slopes(self, name: str) -> tuple[np.ndarray, np.ndarray]:
        """Of the loss in x = log(beta)/log 20: Chebyshev coefficients "problem node - 1", and the factor of e^(x log
        20)."""
        coefficients = chebyshev.chebder(self.table(name) @ _TO_COEFFICIENTS.T, axis=1) / self.total[:, np.newaxis]
        linear = self.label_gap * LOG_LIMIT / self.total if name == "nll" else np.zeros_like(self.total)
        return coefficients, linear

    def _at(self, table: np.ndarray, temperature: np.ndarray) -> np.ndarray:
        x = -np.log(temperature) / LOG_LIMIT
        basis = chebyshev.chebvander(x, NODES - 1)
        return ((table @ _TO_COEFFICIENTS.T) * basis).sum(axis=1)


def best_temperatures(curves: Curves, loss: str, tally: Tally | None = None) -> np.ndarray:
    """float64 "problem": the temperature in [1/20, 20] with the least loss, the root of its derivative by Brent's
    method. tally: counts the steps."""
    from scipy.optimize import brentq

    coefficients, linear = curves.slopes(loss)
    scan = np.linspace(-1.0, 1.0, SCAN)
    basis = chebyshev.chebvander(scan, NODES - 2)
    betas = np.exp(LOG_LIMIT * scan)
    slopes = coefficients @ basis.T + linear[:, np.newaxis] * betas
    # The loss itself, per voxel: the label term is linear in beta, so its slope and its value in x differ by log 20.
    table = curves.table(loss) @ _TO_COEFFICIENTS.T / curves.total[:, np.newaxis]
    losses = table @ chebyshev.chebvander(scan, NODES - 1).T + linear[:, np.newaxis] / LOG_LIMIT * betas
    best = np.empty(len(linear))
    for i, at in enumerate(losses.argmin(axis=1)):
        low, high = max(at - 1, 0), min(at + 1, SCAN - 1)
        if slopes[i, low] >= 0.0:
            best[i] = scan[low]
        elif slopes[i, high] <= 0.0:
            best[i] = scan[high]
        else:
            ends, given = (float(scan[low]), float(scan[high])), (coefficients[i].tolist(), float(linear[i]))
            best[i], told = brentq(slope_at, *ends, args=given, xtol=1e-14, full_output=True)
            if tally is not None:
                tally.steps += told.iterations
    return np.exp(-LOG_LIMIT * best)


def slope_at(x: float, coefficients: Sequence[float], linear: float) -> float:
    """Derivative of the mean loss in x = log(beta)/log 20, from a row of ``Curves.slopes``.

    Clenshaw's recurrence, step by step as numpy's ``chebval`` takes it: on single numbers Python is three times faster,
    and a bootstrap asks thousands of times.
    """
    here, after = coefficients[-2], coefficients[-1]
    for coefficient in coefficients[-3::-1]:
        here, after = coefficient - after, here + after * (2.0 * x)
    return float(here + after * x + linear * np.exp(LOG_LIMIT * x))
