"""Log-odds of a target, from whatever a model stored.

Raw multi-class logits have an arbitrary common offset per voxel, so they are never compared across voxels: the log-odds
of a union R of exclusive classes are logsumexp over R minus logsumexp over the rest, which no offset changes. From
probabilities both sums run over stored channels, never 1 - p: near 1 a float32 has no digits left for the difference.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import numpy as np

from segcal_cli.confidence.targets import Target
from segcal_cli.core.volume import Values

LOG_ODDS_CLIP = 100.0
"""Log-odds are clipped to this; probabilities of exactly 0 and 1 land there."""

QUICK_ERROR = 1e-3
"""More than float32 loses in any log-odds up to QUICK_RANGE."""

QUICK_RANGE = 86.0
"""Beyond it float32 runs out of exponents: exp(87.3) is the reciprocal of its smallest normal number."""

SLAB_VOXELS = 1 << 17
"""Voxels computed at a time, so that float64 intermediates stay in the cache. Elementwise: no digit hangs on it."""


def log_odds(array: np.ndarray, values: Values, targets: Sequence[Target], *, exclusive: bool) -> np.ndarray:
    """float64 "target voxel ...", clipped. array: float32 "class voxel ...", what ``values`` says it holds."""
    if not exclusive:
        made = np.stack([array[target.channels[0]] for target in targets]).astype(np.float64)
        if values == "probabilities":
            with np.errstate(divide="ignore"):
                made = np.log(made) - np.log1p(-made)
        return np.clip(made, -LOG_ODDS_CLIP, LOG_ODDS_CLIP, out=made)
    weights = array.astype(np.float64)
    if values == "logits":
        weights -= array.max(axis=0)
        np.exp(weights, out=weights)
    made = np.empty((len(targets), *array.shape[1:]))
    with np.errstate(divide="ignore", over="ignore", invalid="ignore"):
        for out, target in zip(made, targets, strict=True):
            rest = [c for c in range(len(array)) if c not in target.channels]
            # One logarithm of the odds in place of two; where nothing at all was stored (0 / 0) the odds are 0.
            np.divide(_sum(weights, target.channels), _sum(weights, rest), out=out)
            np.fmax(out, 0.0, out=out)
            np.log(out, out=out)
    return np.clip(made, -LOG_ODDS_CLIP, LOG_ODDS_CLIP, out=made)


def quick_log_odds(
    array: np.ndarray, values: Values, targets: Sequence[Target], *, exclusive: bool
) -> Iterator[np.ndarray]:
    """As ``log_odds``, one target after the other, in float32: within QUICK_ERROR of it, and beyond +-QUICK_RANGE only
    known to lie there. For sums over voxels, and to find where a maximum can be."""
    with np.errstate(divide="ignore", over="ignore", under="ignore", invalid="ignore"):
        if not exclusive:
            for target in targets:
                made = array[target.channels[0]].astype(np.float32)
                if values == "probabilities":
                    np.divide(made, 1.0 - made, out=made)
                    np.log(made, out=made)
                yield np.clip(made, -LOG_ODDS_CLIP, LOG_ODDS_CLIP, out=made)
            return
        weights = array.astype(np.float32, copy=False)
        if values == "logits":
            weights = weights - weights.max(axis=0)
            np.exp(weights, out=weights)
        for target in targets:
            rest = [c for c in range(len(array)) if c not in target.channels]
            total = _sum(weights, rest)
            made = _sum(weights, target.channels) / total
            if not total.min() > 0.0:
                # Where nothing at all was stored (0 / 0) the odds are 0.
                np.fmax(made, np.float32(0.0), out=made)
            np.log(made, out=made)
            yield np.clip(made, -LOG_ODDS_CLIP, LOG_ODDS_CLIP, out=made)


def slabs(array: np.ndarray) -> Iterator[slice]:
    """Runs of z planes, together the whole grid. array: "class z y x"."""
    planes = max(1, SLAB_VOXELS // max(1, array.shape[2] * array.shape[3]))
    for start in range(0, array.shape[1], planes):
        yield slice(start, start + planes)


def full_log_odds(array: np.ndarray, values: Values, target: Target, *, exclusive: bool) -> np.ndarray:
    """float64 "z y x" of one target over the whole grid."""
    made = np.empty(array.shape[1:])
    for at in slabs(array):
        made[at] = log_odds(array[:, at], values, [target], exclusive=exclusive)[0]
    return made


def predicted_masks(array: np.ndarray, values: Values, targets: Sequence[Target], *, exclusive: bool) -> np.ndarray:
    """bool "target z y x": the model's own masks. Exclusive classes: the first maximum wins; else log-odds above 0."""
    if not exclusive:
        threshold = 0.0 if values == "logits" else 0.5
        return np.stack([array[target.channels[0]] > threshold for target in targets])
    masks = np.zeros((len(targets), *array.shape[1:]), dtype=bool)
    kind = np.uint8 if len(array) <= 256 else np.uint16
    for at in slabs(array):
        best, winner = array[0, at].copy(), np.zeros(array[0, at].shape, kind)
        for channel in range(1, len(array)):
            better = array[channel, at] > best
            np.copyto(winner, kind(channel), where=better)
            np.maximum(best, array[channel, at], out=best)
        for mask, target in zip(masks, targets, strict=True):
            for channel in target.channels:
                mask[at] |= winner == channel
    return masks


def probability(log_odds: float) -> float:
    """The probability of log-odds, for people: 1 / (1 + exp(-s))."""
    if log_odds >= 0:
        return float(1.0 / (1.0 + np.exp(-log_odds)))
    return float(np.exp(log_odds) / (1.0 + np.exp(log_odds)))


def _sum(weights: np.ndarray, channels: Sequence[int]) -> np.ndarray:
    total = weights[channels[0]]
    for channel in channels[1:]:
        total = total + weights[channel]
    return total
