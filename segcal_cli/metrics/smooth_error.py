"""Smooth ECE: a calibration error without bins.

Błasiok, Nakkiran 2023, "Smooth ECE: Principled Reliability Diagrams via Kernel Smoothing". The differences p - y are
smoothed with a normal kernel of width s, reflected at 0 and 1, and their size is integrated: E(s), which falls as s
grows. The error is where E(s) = s, so the width is chosen by the data. Reflection at both ends is periodicity of the
even extension, in which smoothing damps the m-th cosine by exp(-(pi m s)^2 / 2).
"""

from __future__ import annotations

import math

import numpy as np

from segcal_cli.core.frozen import dataclass
from segcal_cli.metrics.calibration_errors import BinTable, ratio

NARROWEST = 1e-3
"""Smallest kernel width that is tried."""

NODES_PER_WIDTH = 20
"""Nodes of the integral in a kernel width, at the least."""

FINEST_NODES = 1 << 15
"""Intervals on which the cells are placed: 33 to the narrowest kernel, where linear placing errs by 1e-4 of E."""

SHOWN_NODES = 256
"""Intervals of a smoothed curve that is drawn."""

NARROWEST_SHOWN = 0.02
"""Smallest kernel width of a curve that is drawn. Where smooth ECE is 0.002, so is its kernel, and a mean over a few
hundredths of a line's length shows the noise of single voxels."""

ROOT_TOLERANCE = 1e-8
"""Accuracy of the root of E(s) = s."""


def smooth_ece(cells: BinTable) -> float:
    """Smooth ECE from the cells of one class, which differ from single voxels by less than 1e-5."""
    waves = _difference_waves(cells)
    return _smoothed_size(waves, _width(cells, waves))


@dataclass(frozen=True, slots=True)
class Smoothed:
    """A frequency smoothed over the probability, float64 "node". width: of the kernel.

    t: in [0, 1]. frequency: kernel-weighted, NaN where no voxel is near. reach: sum of kernel weights (1 for a voxel at
    t itself); where it is small the frequency says little. shift: distance from t to the mean probability of what is
    averaged there, in widths. Where most voxels of a scan lie at one end, a kernel beside that end averages hardly
    anything but its outermost flank, and its mean says nothing of t: then the shift is large.
    """

    width: float
    t: np.ndarray
    frequency: np.ndarray
    reach: np.ndarray
    shift: np.ndarray


def smoothed_frequency(cells: BinTable) -> Smoothed:
    """The frequency around each t, smoothed with the kernel that smooth ECE chooses, or NARROWEST_SHOWN."""
    width = max(NARROWEST_SHOWN, _width(cells, _difference_waves(cells)))
    waves = _waves(cells, cells.n)
    voxels, hits = _smoothed(waves, width), _smoothed(_waves(cells, cells.hits), width)
    slope = _smoothed_slope(waves, width)
    step = max(1, (voxels.size - 1) // SHOWN_NODES)
    voxels, hits, slope = np.maximum(voxels[::step], 0.0), np.maximum(hits[::step], 0.0), slope[::step]
    return Smoothed(
        width,
        np.linspace(0.0, 1.0, voxels.size),
        np.clip(ratio(hits, voxels), 0.0, 1.0),
        voxels * width * math.sqrt(2.0 * math.pi),
        # The derivative of a normal density of u is -u / s^2 times it.
        width * ratio(np.abs(slope), voxels),
    )


def _width(cells: BinTable, waves: np.ndarray) -> float:
    """s with E(s) = s, or the narrowest kernel if even that finds no more than its own width.

    E falls from E(0), the sum of what the cells err by, so the root lies between any s and E(s). The next s is where
    the line through the last two points meets it, or the middle if that lies outside.
    """
    low, high = NARROWEST, float(np.abs(_differences(cells)).sum())
    before, excess_before = 0.0, high
    width = high
    while high - low > ROOT_TOLERANCE:
        size = _smoothed_size(waves, width)
        low, high = max(low, min(width, size)), min(high, max(width, size))
        excess = size - width
        slope = (excess - excess_before) / (width - before)
        before, excess_before = width, excess
        width -= excess / slope
        if not low < width < high:
            width = (low + high) / 2.0
    return max(low, width)


def _differences(cells: BinTable) -> np.ndarray:
    """float64 "cell": the sum of p - y over a cell, per voxel of all cells."""
    return (cells.p - cells.hits) / cells.n.sum()


def _difference_waves(cells: BinTable) -> np.ndarray:
    """Cosine coefficients of the mean differences p - y."""
    return _waves(cells, _differences(cells))


def _waves(cells: BinTable, weights: np.ndarray) -> np.ndarray:
    """Cosine coefficients sum_k w_k cos(pi m c_k) of weights "cell", each cell placed on its two nearest nodes."""
    filled = cells.n > 0
    at = np.clip(cells.p[filled] / cells.n[filled], 0.0, 1.0) * FINEST_NODES
    weight = weights[filled]
    left = np.minimum(at.astype(np.intp), FINEST_NODES - 1)
    share = at - left
    placed = np.bincount(left, weight * (1.0 - share), FINEST_NODES + 1)
    placed += np.bincount(left + 1, weight * share, FINEST_NODES + 1)
    even = np.concatenate([placed, placed[-2:0:-1]])
    even[1:FINEST_NODES] /= 2.0
    even[FINEST_NODES + 1 :] /= 2.0
    return np.fft.rfft(even).real


def _smoothed(waves: np.ndarray, width: float) -> np.ndarray:
    """g on equally spaced nodes from 0 to 1: 1 + 2 sum_m exp(-(pi m s)^2 / 2) a_m cos(pi m t)."""
    return _on_nodes(_damped(waves, width))


def _smoothed_slope(waves: np.ndarray, width: float) -> np.ndarray:
    """The derivative of g on the same nodes."""
    damped = _damped(waves, width)
    return _on_nodes(1j * math.pi * np.arange(damped.size) * damped)


def _damped(waves: np.ndarray, width: float) -> np.ndarray:
    nodes = min(FINEST_NODES, 1 << math.ceil(math.log2(NODES_PER_WIDTH / width)))
    return waves[: nodes + 1] * np.exp(-0.5 * (math.pi * width * np.arange(nodes + 1)) ** 2)


def _on_nodes(damped: np.ndarray) -> np.ndarray:
    nodes = damped.size - 1
    return np.fft.irfft(damped, 2 * nodes)[: nodes + 1] * (2 * nodes)


def _smoothed_size(waves: np.ndarray, width: float) -> float:
    """E(s): the integral of |g| by trapezoids."""
    size = np.abs(_smoothed(waves, width))
    return float((size.sum() - 0.5 * (size[0] + size[-1])) / (size.size - 1))
