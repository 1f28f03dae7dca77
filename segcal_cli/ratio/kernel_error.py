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

    p: float64 "voxel"; y: bool "voxel"; at least two voxels.
    """
    from scipy.special import betaln

    z = np.clip(p, CLIP, 1.0 - CLIP)
    alpha, beta = z / BANDWIDTH, (1.0 - z) / BANDWIDTH
    norm = betaln(alpha + 1.0, beta + 1.0)
    log_z, log_rest = np.log(z), np.log1p(-z)
    truth = y.astype(np.float64)
    total = 0.0
    for start in range(0, z.size, ROWS):
        rows = slice(start, min(start + ROWS, z.size))
        log_kernel = log_z[rows, None] * alpha + log_rest[rows, None] * beta - norm
        log_kernel[np.arange(rows.stop - start), np.arange(start, rows.stop)] = -np.inf
        log_kernel -= log_kernel.max(axis=1, keepdims=True)
        kernel = np.exp(log_kernel, out=log_kernel)
        frequency = np.einsum("ij,j->i", kernel, truth) / kernel.sum(axis=1)
        total += float(np.abs(frequency - z[rows]).sum())
    return total / z.size
