"""The kernel estimate of a region's calibration error in one case.

Popordanoska, Sayer, Blaschko 2022, "A consistent and differentiable Lp canonical calibration error estimator", with a
beta kernel of fixed bandwidth, on random voxels of a large case. It lies below the volume bias in about half of the
images (voxels are drawn, and the kernel moves the mean), so it bounds nothing: an interval made of it has no
guarantee. The published code returns twice the binary value; this is the value once.
"""

from __future__ import annotations

import hashlib

import numpy as np

BANDWIDTH = 0.02
DRAWN = 10_000
"""Voxels of a draw; a case with no more is taken whole, once."""
DRAWS = 5
CLIP = 1e-7
"""Probabilities are moved this far from 0 and 1, where the kernel has no logarithm."""
ROWS = 256
"""Rows of the kernel matrix held at a time: 20 MB of float64 at 10,000 voxels."""


def drawn_voxels(counted: np.ndarray, seed: int, case: str) -> list[np.ndarray]:
    """Flat indices of the voxels of each draw, of those in ``counted``; seed and case id alone decide them."""
    if counted.size <= DRAWN:
        return [counted]
    digest = np.frombuffer(hashlib.sha256(case.encode()).digest(), dtype="<u4")
    random = np.random.default_rng([seed, *digest.tolist()])
    return [np.sort(random.choice(counted, DRAWN, replace=False)) for _ in range(DRAWS)]


def kernel_error(p: np.ndarray, y: np.ndarray) -> float:
    """mean_i |sum_(j != i) K_ij y_j / sum_(j != i) K_ij - p_i|, K_ij the density of Beta(p_j/h + 1, (1-p_j)/h + 1) at
    p_i.

    p: float64 "voxel"; y: bool "voxel"; at least two voxels. Most voxels of a scan are certain and share their p, so a
    row is taken once for each value that occurs, with numbers of voxels as weights; factors that are the same all
    along a row are left out, since they cancel.
    """
    from scipy.special import betaln

    z, place = np.unique(np.clip(p, CLIP, 1.0 - CLIP), return_inverse=True)
    number = np.bincount(place, minlength=z.size).astype(np.float64)
    hits = np.bincount(place, weights=y, minlength=z.size)
    norm = betaln(z / BANDWIDTH + 1.0, (1.0 - z) / BANDWIDTH + 1.0)
    slope = (np.log(z) - np.log1p(-z)) / BANDWIDTH
    total = 0.0
    for start in range(0, z.size, ROWS):
        rows = slice(start, min(start + ROWS, z.size))
        log_kernel = slope[rows, None] * z
        log_kernel -= norm
        own = (np.arange(rows.stop - start), np.arange(start, rows.stop))
        # A voxel is not its own neighbour: where no other shares its value, nothing is left there.
        log_own = np.where(number[rows] > 1, log_kernel[own], -np.inf)
        log_kernel[own] = -np.inf
        largest = np.maximum(log_kernel.max(axis=1), log_own)
        log_kernel -= largest[:, None]
        kernel = np.exp(log_kernel, out=log_kernel)
        own_kernel = np.exp(log_own - largest)
        weight = np.einsum("ij,j->i", kernel, number) + own_kernel * (number[rows] - 1.0)
        others = np.einsum("ij,j->i", kernel, hits)
        for voxels, hit in ((number[rows] - hits[rows], 0.0), (hits[rows], 1.0)):
            frequency = (others + own_kernel * (hits[rows] - hit)) / weight
            total += float((voxels * np.abs(frequency - z[rows])).sum())
    return total / p.size
