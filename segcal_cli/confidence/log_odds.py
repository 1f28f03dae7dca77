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
                stored = array[target.channels[0]].astype(np.float32, copy=False)
                if values == "probabilities":
                    odds = np.float32(1.0) - stored
                    np.divide(stored, odds, out=odds)
                    stored = np.log(odds, out=odds)
                yield _clipped(stored)
            return
        weights = array.astype(np.float32, copy=False)
        if values == "logits":
            weights = weights - weights.max(axis=0)
            np.exp(weights, out=weights)
        for target in targets:
            odds = _sum(weights, [c for c in range(len(array)) if c not in target.channels])
            odds = np.divide(_sum(weights, target.channels), odds)
            yield _clipped(np.log(odds, out=odds))


def _clipped(s: np.ndarray) -> np.ndarray:
    """Float32 log-odds within +-LOG_ODDS_CLIP; most have none beyond, which two maxima tell faster than clipping."""
    if s.max(initial=-np.inf) <= LOG_ODDS_CLIP and s.min(initial=np.inf) >= -LOG_ODDS_CLIP:
        return s
    made = np.clip(s, -LOG_ODDS_CLIP, LOG_ODDS_CLIP)
    # Where nothing at all was stored (0 / 0) the odds are 0.
    made[np.isnan(made)] = -LOG_ODDS_CLIP
    return made


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
        masks = np.empty((len(targets), *array.shape[1:]), dtype=bool)
        for mask, target in zip(masks, targets, strict=True):
            np.greater(array[target.channels[0]], threshold, out=mask)
        return masks
    masks = np.zeros((len(targets), *array.shape[1:]), dtype=bool)
    rivals = np.array([_rivals(target, len(array)) for target in targets])
    asked = np.flatnonzero(rivals.any(axis=0))
    for at in slabs(array):
        # Where no channel that is asked for beats the first one, which most voxels belong to, the rest need no look.
        high = array[asked[0], at]
        for channel in asked[1:]:
            high = np.maximum(high, array[channel, at])
        places = np.flatnonzero(high > array[0, at])
        winner = _winner(array[:, at], places)
        for mask, rival in zip(masks, rivals, strict=True):
            mask[at].reshape(-1)[places] = rival[winner]
    for mask, target in zip(masks, targets, strict=True):
        if 0 in target.channels:
            np.logical_not(mask, out=mask)
    return masks


def _rivals(target: Target, channels: int) -> list[bool]:
    """Which channels are target, or which are not if the first one is: those that have to beat it."""
    return [(channel in target.channels) != (0 in target.channels) for channel in range(channels)]


def _winner(array: np.ndarray, places: np.ndarray) -> np.ndarray:
    """int "place": the first of the largest channels. array: "class z y x"; places: indices into "z y x"."""
    best = array[0].reshape(-1)[places]
    winner = np.zeros(places.size, np.uint8 if len(array) <= 256 else np.uint16)
    for channel in range(1, len(array)):
        one = array[channel].reshape(-1)[places]
        winner[one > best] = channel
        np.maximum(best, one, out=best)
    return winner


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
