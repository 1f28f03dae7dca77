"""Likelihoods of what is true, from scores: which class is likeliest, what 1 - p is, and sums of logarithms.

1 - p of a p near 1 has no digits left, so for exclusive channels it is the sum of the others; for a single channel from
logits it comes from its own logarithm. (Near 0 no such care is needed: 1 - p has all its digits.) Where logits are
known, logarithms are those of the scores; else probabilities are raised to the floor of the stored type.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import numpy as np

from segcal_cli.core.scores import TINY, Scores, scores_of
from segcal_cli.core.volume import Stored, Values

FACTORS = 64
"""Probabilities multiplied before one logarithm is taken."""

SMALLEST_FACTOR = 2.0**-12
"""Smaller probabilities stay out of products, which could underflow. Below the first uniform bin of every grid."""


CACHED_VOXELS = 1 << 12
"""Voxels whose probabilities are computed at a time: their float64 arrays stay in a core's cache."""

SMALLEST_LOGGED = 2.0**-1000
"""Above this a float64 has all its digits, and so has its logarithm."""


def counted_scores(array: np.ndarray, values: Values, stored: Stored, *, exclusive: bool) -> Scores:
    """``scores_of`` for counting: of exclusive logits the probabilities alone, since few logarithms are ever asked for.

    They are left to be taken of p, which is exact unless a p is about to underflow; then all of them are given.
    array: float32 "class voxel".
    """
    if values == "probabilities" or not exclusive:
        return scores_of(array, values, stored, exclusive=exclusive)
    p = np.empty(array.shape)
    for start in range(0, array.shape[1], CACHED_VOXELS):
        part, power = array[:, start : start + CACHED_VOXELS], p[:, start : start + CACHED_VOXELS]
        np.subtract(part, part.max(axis=0), out=power, dtype=np.float64)
        np.exp(power, out=power)
        power /= power.sum(axis=0)
    if p.min(initial=1.0) < SMALLEST_LOGGED:
        return scores_of(array, values, stored, exclusive=True)
    return Scores(p, True, TINY, TINY)


def most_probable(p: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """The largest probability and its channel, the lowest one of equals. p: "class voxel".

    A running maximum: ``np.argmax`` over the first axis takes twice as long, and does not give the probability.
    """
    best = p[0].copy()
    channel_type = np.uint8 if len(p) <= 256 else np.uint16
    decision = np.zeros(best.shape, channel_type)
    for channel in range(1, len(p)):
        better = np.multiply(p[channel] > best, channel_type(channel), dtype=channel_type)
        np.maximum(decision, better, out=decision)
        np.maximum(best, p[channel], out=best)
    return best, decision


def complement(
    scores: Scores, channel: int, where: np.ndarray | slice, sums: np.dtype | type = np.float64
) -> np.ndarray:
    """float64 1 - p of the voxels at ``where``: the sum of the other channels if they exclude each other.

    sums: the dtype of such a sum. That of the scores is enough to see its size, and several times as fast.
    """
    if scores.exclusive:
        others = [c for c in range(len(scores.p)) if c != channel]
        q = scores.p[others[0]][where].astype(sums)
        for other in others[1:]:
            q += scores.p[other][where]
        return q
    if scores.q is not None:
        return scores.q[channel][where]
    if scores.log_q is not None:
        return np.exp(scores.log_q[channel][where])
    return 1.0 - scores.p[channel][where].astype(np.float64)


def nll_of_hits(scores: Scores, channel: int, hits: np.ndarray, p: np.ndarray) -> float:
    """Sum of -log p over voxels of the class. p: their float64 probabilities."""
    if scores.log_p is not None:
        return -float(scores.log_p[channel][hits].sum())
    return -sum_of_logs(np.maximum(p, scores.floor))


def nll_of_misses(scores: Scores, channel: int, misses: np.ndarray) -> float:
    """Sum of -log(1 - p) over voxels of other classes."""
    if scores.log_q is not None:
        return -float(scores.log_q[channel][misses].sum())
    floor = scores.floor if scores.exclusive else scores.complement_floor
    return -sum_of_logs(np.maximum(complement(scores, channel, misses), floor))


def sum_of_logs(likelihood: np.ndarray) -> float:
    """Sum of the natural logarithms of positive float64 numbers up to about 1, as logarithms of products of 64 of them.

    One logarithm for 64 voxels, and nearer to the exact sum than 64 logarithms. A product of 64 numbers above 2^-12 is
    above 2^-768; smaller ones are taken one by one.
    """
    small = np.flatnonzero(likelihood < SMALLEST_FACTOR)
    alone = np.log(likelihood[small]).sum()
    likelihood = likelihood.copy()
    likelihood[small] = 1.0
    columns = likelihood.size // FACTORS
    products = likelihood[: FACTORS * columns].reshape(FACTORS, columns).prod(axis=0)
    return float(alone + np.log(products).sum() + np.log(likelihood[FACTORS * columns :]).sum())


def compressed(scores: Scores, kept: np.ndarray) -> Scores:
    """Scores of the voxels kept, bool "voxel", channels contiguous."""
    return replace(
        scores,
        p=np.compress(kept, scores.p, axis=1),
        log_p=None if scores.log_p is None else np.compress(kept, scores.log_p, axis=1),
        log_q=None if scores.log_q is None else np.compress(kept, scores.log_q, axis=1),
        q=None if scores.q is None else np.compress(kept, scores.q, axis=1),
    )


def joined(scores: Scores, parts: Sequence[tuple[int, ...]]) -> Scores:
    """Scores of unions of exclusive channels: p is the sum of the parts, 1 - p that of all others. parts: channels."""
    p, q = np.zeros((2, len(parts), scores.p.shape[1]))
    logs = None if scores.log_p is None else np.empty((2, *p.shape))
    for row, channels in enumerate(parts):
        others = [channel for channel in range(len(scores.p)) if channel not in channels]
        for number, (total, members) in enumerate(((p[row], channels), (q[row], others))):
            for channel in members:
                total += scores.p[channel]
            if logs is not None and scores.log_p is not None:
                logs[number, row] = np.logaddexp.reduce(scores.log_p[list(members)], axis=0)
    log_p, log_q = (None, None) if logs is None else logs
    return Scores(p, False, scores.floor, scores.floor, log_p, log_q, q)
