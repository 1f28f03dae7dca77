"""Score codes: the non-conformity score 1 - p as a 16-bit integer, the same on every machine.

Histograms, thresholds and comparisons work on the code, never on a float again. Any fixed non-decreasing function of a
score is a score too, so nothing is lost in validity; only ties appear. The code is the logarithm of the odds (1 - p) /
p, read off the bits of a float32: 1024 codes per factor of two, from 2^-32 to 2^32, hence no saturation near p = 1,
where half precision gives up at p = 0.99976. Brunekreef et al. 2023, "Kandinsky Conformal Prediction", eq. 3, with the
score taken at the true class alone: one problem per class.
"""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np

from segcal_cli.core.volume import Values

N_CODES = 65536
"""Codes 0 (p = 1) to 65535 (p = 0); 32768 is p = 1/2."""

INFINITE = N_CODES
"""The code of a threshold of +inf: every code lies at or below it."""

MANTISSA_SHIFT = 13
"""Of the 23 bits of a float32's mantissa 10 are kept: 1024 codes per factor of two."""

LOWEST = (127 - 32) << 10
"""The shifted bits of odds 2^-32, which get code 0."""

SLAB_VOXELS = 1 << 18
"""Voxels that are worked on at a time: temporaries stay in cache."""


def codes_of_odds(odds: np.ndarray) -> np.ndarray:
    """uint16 codes of float32 odds (1 - p) / p >= 0, infinity allowed."""
    bits = np.ascontiguousarray(odds, np.float32).view(np.int32) >> MANTISSA_SHIFT
    bits -= LOWEST
    return np.clip(bits, 0, N_CODES - 1, out=bits).astype(np.uint16)


def score_codes(array: np.ndarray, values: Values, channel: int, *, exclusive: bool) -> np.ndarray:
    """uint16 "voxel": codes of one channel at every voxel. array: float32 "class voxel".

    From probabilities exact arithmetic; from logits up to the last bits of exp.
    """
    codes = np.empty(array.shape[1], np.uint16)
    for where in _slabs(array.shape[1]):
        codes[where] = codes_of_odds(_odds(array[:, where], values, channel, exclusive=exclusive))
    return codes


def true_codes(array: np.ndarray, values: Values, channel: int, where: np.ndarray, *, exclusive: bool) -> np.ndarray:
    """uint16 "n": codes of one channel at the voxels ``where`` (flat indices). array: float32 "class voxel"."""
    codes = np.empty(where.size, np.uint16)
    for run in _slabs(where.size):
        if values == "probabilities" or not exclusive:
            part = array[channel, where[run]][None]
            codes[run] = codes_of_odds(_odds(part, values, 0, exclusive=False))
        else:
            codes[run] = codes_of_odds(_odds(array[:, where[run]], values, channel, exclusive=True))
    return codes


def _slabs(n: int) -> Iterator[slice]:
    for start in range(0, n, SLAB_VOXELS):
        yield slice(start, start + SLAB_VOXELS)


def _odds(part: np.ndarray, values: Values, channel: int, *, exclusive: bool) -> np.ndarray:
    with np.errstate(divide="ignore", over="ignore"):
        if values == "probabilities":
            return (np.float32(1) - part[channel]) / part[channel]
        if not exclusive:
            return np.exp(-part[channel])
        others = np.delete(part, channel, axis=0)
        top = others.max(axis=0)
        rest = np.exp(others - top).sum(axis=0) if len(others) > 1 else np.float32(1)
        return rest * np.exp(top - part[channel])


def score_interval(code: int, shift: int = 0) -> tuple[float, float]:
    """The scores 1 - p that share a code: [low, high). Code 65536 (+inf) gives (inf, inf).

    shift: how many low bits of the code were dropped before it was stored.
    """
    if code >= N_CODES >> shift:
        return float("inf"), float("inf")
    low, high = code << shift, (code + 1) << shift
    return _score(low) if low > 0 else 0.0, _score(high) if high < N_CODES else 1.0


def smallest_probability(code: int, shift: int = 0) -> float:
    """The smallest probability that a threshold admits; 0 for +inf."""
    high = score_interval(code, shift)[1]
    return 0.0 if high == float("inf") else 1.0 - high


def _score(code: int) -> float:
    odds = float(np.array((code + LOWEST) << MANTISSA_SHIFT, np.int32).view(np.float32))
    return odds / (1.0 + odds)
