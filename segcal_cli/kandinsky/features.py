"""Features of a place: how the scores of a class are distributed there, over the map-making patients.

The field is divided into cells. Per cell a histogram of score codes is kept, and from it either the empirical
distribution function at nine common points, or quantiles. The distribution function is unbiased for any number of
voxels, defined from one on, and additive: counts of two cells add up, quantiles do not (Brunekreef et al. 2023 use
quantiles).
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Literal

import numpy as np

from segcal_cli.core.frozen import dataclass
from segcal_cli.kandinsky.codes import score_interval
from segcal_cli.kandinsky.runs import Run

FeatureKind = Literal["ecdf", "quantiles"]

Quantiles = Callable[[Run, np.ndarray, FeatureKind, Sequence[float]], np.ndarray]
"""What ``quantiles`` does, here or on another device."""

FIRST_CODE = 16 << 10
"""Code of odds 2^-16, where the bins begin; the end bins catch what lies beyond 2^-16 and 2^16."""

BIN_SHIFT = {"ecdf": 8, "quantiles": 4}
"""Low bits of a code that a bin drops: 4 bins per factor of two of the odds, or 64."""

N_BINS = {kind: (32 << 10) >> shift for kind, shift in BIN_SHIFT.items()}
"""128 or 2048 bins per cell."""

DECILES = tuple(n / 10 for n in range(1, 10))
"""Pooled levels at which the distribution functions of the cells are compared."""


@dataclass(frozen=True, slots=True)
class Features:
    """values: float64 "cell feature", 0 where nothing is known; weights: float64 "cell", voxels scored there."""

    values: np.ndarray
    weights: np.ndarray

    @property
    def known(self) -> np.ndarray:
        """bool "cell"."""
        return self.weights > 0

    @property
    def centred(self) -> np.ndarray:
        """Values minus their weighted mean, 0 where unknown: sums of squares then lose no digits."""
        if not self.known.any():
            return self.values
        mean = self.weights @ self.values / self.weights.sum()
        return np.where(self.known[:, None], self.values - mean, 0.0)


def bins_of(codes: np.ndarray, kind: FeatureKind) -> np.ndarray:
    """int64 bin of each code."""
    shifted = (codes.astype(np.int64) - FIRST_CODE) >> BIN_SHIFT[kind]
    return np.clip(shifted, 0, N_BINS[kind] - 1, out=shifted)


def bin_scores(kind: FeatureKind) -> np.ndarray:
    """float64 "bin": the score in the middle of each bin, by odds."""
    middle = FIRST_CODE + (np.arange(N_BINS[kind]) << BIN_SHIFT[kind]) + (1 << (BIN_SHIFT[kind] - 1))
    return np.array([score_interval(int(code))[0] for code in middle])


def decile_bins(run: Run) -> np.ndarray:
    """int64 "9": the bins at whose upper edge the pooled distribution reaches .1, .2, ... .9. run: keys cell * bins +
    bin of one class."""
    counts = np.bincount(run.keys % N_BINS["ecdf"], weights=run.columns[0], minlength=N_BINS["ecdf"])
    cumulative = np.cumsum(counts)
    return np.searchsorted(cumulative, np.array(DECILES) * cumulative[-1] * (1 - 1e-12))


def features(
    run: Run,
    n_cells: int,
    kind: FeatureKind,
    levels: Sequence[float] = (),
    at: np.ndarray | None = None,
    find: Quantiles | None = None,
) -> Features:
    """Features of one class. run: histogram counts by key cell * bins + bin. levels: of the quantiles.

    at: bins of the ecdf, where they were fixed on more cases than these. find: what finds quantiles, if not
    ``quantiles``.
    """
    cells = run.keys // N_BINS[kind]
    counts = run.columns[0]
    n = np.bincount(cells, weights=counts, minlength=n_cells)
    if not counts.size:
        return Features(np.zeros((n_cells, len(levels) if kind == "quantiles" else len(DECILES))), n)
    if kind == "ecdf":
        points = decile_bins(run) if at is None else at
        bins = run.keys % N_BINS[kind]
        values = np.empty((n_cells, len(points)))
        for column, point in enumerate(points):
            below = bins <= point
            values[:, column] = np.bincount(cells[below], weights=counts[below], minlength=n_cells)
        return Features(values / np.maximum(n, 1)[:, None], n)
    find = quantiles if find is None else find
    return Features(find(run, n, kind, levels), n)


def quantiles(run: Run, n: np.ndarray, kind: FeatureKind, levels: Sequence[float]) -> np.ndarray:
    """Linear quantiles of the scores of each cell, from its histogram."""
    scores = bin_scores(kind)
    running = np.cumsum(run.columns[0])
    base = np.cumsum(n) - n
    known = n > 0
    values = np.zeros((len(n), len(levels)))
    for column, level in enumerate(levels):
        rank = level * (n[known] - 1)
        low = np.floor(rank + 1e-9)
        part = np.clip(rank - low, 0.0, 1.0)
        ends = []
        for position in (low, np.minimum(low + 1, n[known] - 1)):
            pair = np.searchsorted(running, base[known] + position, side="right")
            ends.append(scores[run.keys[pair] % N_BINS[kind]])
        values[known, column] = (1 - part) * ends[0] + part * ends[1]
    return values


def smoothed(given: Features, shape: tuple[int, ...], sigma: Sequence[float]) -> Features:
    """Normalised convolution, G*(n F) / G*(n). sigma: cells per axis of ``shape``. Weights stay what they are."""
    from scipy.ndimage import gaussian_filter

    if not any(sigma):
        return given
    weight = gaussian_filter(given.weights.reshape(shape), sigma, mode="constant", truncate=3.0)
    values = np.zeros_like(given.values)
    near = weight.ravel() > 0
    for column in range(values.shape[1]):
        product = (given.values[:, column] * given.weights).reshape(shape)
        blurred = gaussian_filter(product, sigma, mode="constant", truncate=3.0).ravel()
        values[near, column] = blurred[near] / weight.ravel()[near]
    return Features(np.where(given.known[:, None], values, 0.0), given.weights)


def side_by_side(several: Sequence[Features]) -> Features:
    """Features of all classes for one map of all: known where each class is, weighing as much as all together."""
    weights = np.stack([one.weights for one in several])
    total = np.where((weights > 0).all(axis=0), weights.sum(axis=0), 0.0)
    return Features(np.concatenate([one.values for one in several], axis=1), total)
