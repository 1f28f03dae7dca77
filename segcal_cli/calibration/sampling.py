"""Samples: a few thousand voxels of each case that say nearly as much as all of them.

A voxel that the model is sure of pulls little on any parameter, so voxels are drawn with a probability that grows with
how unsure it is, sqrt(1 - sum p^2), plus a small share for every voxel; each then weighs 1/probability, which keeps
all sums unbiased. The draw is systematic: it has a fixed size, and depends on the seed and the case's name only.
"""

from __future__ import annotations

import hashlib

import numpy as np

EVERYWHERE_EXCLUSIVE, EVERYWHERE_BINARY = 0.01, 0.001
"""Added to how unsure a voxel is, so that sure voxels are drawn too: a sure mistake weighs much."""

MOST_NUMBERS = 4_000_000
"""Voxels times features that are kept of a case."""


def unsure(p: np.ndarray, *, exclusive: bool) -> np.ndarray:
    """float64 "voxel": how much a voxel is worth. p: "class voxel", or one row per independent problem."""
    if exclusive:
        return np.sqrt(np.maximum(1.0 - (p * p).sum(axis=0), 0.0)) + EVERYWHERE_EXCLUSIVE
    return np.sqrt(p * (1.0 - p)).sum(axis=0) + EVERYWHERE_BINARY


def generator(seed: int, case: str) -> np.random.Generator:
    """The random numbers of one case, whatever other cases there are."""
    words = np.frombuffer(hashlib.sha256(case.encode()).digest(), dtype=np.uint32)
    return np.random.default_rng([seed, *map(int, words)])


def draw(worth: np.ndarray, most: int, random: np.random.Generator) -> tuple[np.ndarray, np.ndarray]:
    """int64 indices and float64 weights of at most so many voxels; all of them, weight 1, if there are no more.

    worth: float "voxel". Inclusion probabilities are proportional to it, capped at 1.
    """
    if len(worth) <= most:
        return np.arange(len(worth)), np.ones(len(worth))
    probability = np.zeros(len(worth))
    certain = np.zeros(len(worth), dtype=bool)
    while True:
        left = most - np.count_nonzero(certain)
        probability = np.where(certain, 1.0, worth * (left / worth[~certain].sum()))
        over = (probability >= 1.0) & ~certain
        if not over.any():
            break
        certain |= over
    steps = np.floor(np.cumsum(np.where(certain, 0.0, probability)) + random.random())
    chosen = certain | (np.diff(steps, prepend=0.0) >= 1.0)
    indices = np.flatnonzero(chosen)[:most]
    return indices, 1.0 / probability[indices]
