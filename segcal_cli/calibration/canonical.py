"""The canonical input of a calibrator: log-odds for binary problems, log-softmax for exclusive classes.

A calibrator must not depend on whether a model saved logits or probabilities, so both are brought to one form first.
Binary problems (one channel, two exclusive classes, each sigmoid channel, each class against the rest) have log-odds
z = log p - log(1 - p). Three or more exclusive classes have l = log-softmax. Stored probabilities of 0 and 1 stand for
whatever their type cannot tell from 0 and 1, so its own smallest steps are the floors (``Stored``), never a fixed clip.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from itertools import islice
from typing import Literal, TypeVar

import numpy as np

from segcal_cli.core.case import Case
from segcal_cli.core.frozen import dataclass
from segcal_cli.core.labels import LabelSpace
from segcal_cli.core.scores import log_softmax
from segcal_cli.core.volume import Stored, Values

Kind = Literal["binary", "sigmoid", "softmax"]
"""One binary problem; several independent channels; three or more exclusive classes."""

CHUNK_VOXELS = 1 << 15
"""Voxels worked on at a time: a few float64 arrays of this length stay in a core's cache. Fixed, because the order of
floating-point sums depends on it."""

FAINTEST_REST = 2.0**-1000
"""Sums of powers below this lose digits on their way to underflow."""

Partial = TypeVar("Partial")


def kind_of(space: LabelSpace) -> Kind:
    """Which of the three kinds of problem a class table poses."""
    if space.binary:
        return "binary"
    return "softmax" if space.exclusive else "sigmoid"


@dataclass(frozen=True, slots=True)
class Chunk:
    """A run of counted voxels. array: float32 "class voxel"; codes: label codes "voxel"."""

    array: np.ndarray
    codes: np.ndarray


def chunks(case: Case) -> Iterator[Callable[[], Chunk]]:
    """The counted voxels of a labelled case in runs of fixed extent, each read when it is called.

    Left out are padding, ignored voxels and what lies outside the ROI. Runs without a counted voxel are skipped.
    """
    assert case.labels is not None, "fits need labels"
    array = case.volume.array.reshape(len(case.space.channels), -1)
    codes = case.labels.codes.reshape(-1)
    counted = case.counted(padding=False)
    keep = None if counted is None else counted.reshape(-1)
    for start in range(0, codes.size, CHUNK_VOXELS):
        where = slice(start, start + CHUNK_VOXELS)
        if keep is None or keep[where].all():
            yield partial(Chunk, array[:, where], codes[where])
        elif keep[where].any():
            yield partial(_selected, array[:, where], codes[where], keep[where])


def _selected(array: np.ndarray, codes: np.ndarray, keep: np.ndarray) -> Chunk:
    return Chunk(array[:, keep], codes[keep])


def ordered_map(
    work: Callable[[Chunk], Partial], reads: Iterable[Callable[[], Chunk]], threads: int
) -> Iterator[Partial]:
    """work over the chunks, results in the order of the chunks whatever the number of threads."""
    if threads <= 1:
        yield from (work(read()) for read in reads)
        return
    waiting = iter(reads)
    with ThreadPoolExecutor(threads) as pool:
        # A short queue: results are dense tables, and a whole volume of them would not stay small.
        running = deque(pool.submit(_read_and_work, work, read) for read in islice(waiting, 2 * threads))
        while running:
            yield running.popleft().result()
            running.extend(pool.submit(_read_and_work, work, read) for read in islice(waiting, 1))


def _read_and_work(work: Callable[[Chunk], Partial], read: Callable[[], Chunk]) -> Partial:
    return work(read())


def log_odds(array: np.ndarray, values: Values, stored: Stored, space: LabelSpace) -> np.ndarray:
    """float64 z "problem voxel" of raw stored numbers, float32 "class voxel".

    Problems: the foreground of a binary table, each sigmoid channel, each of three or more exclusive classes against
    the rest. From logits z is exact; from probabilities both logarithms have the floors of the stored type.
    """
    kind = kind_of(space)
    if kind == "softmax":
        return _log_odds_against_rest(array, values, stored)
    if space.exclusive:
        wide = array.astype(np.float64)
        foreground, background = wide[space.foreground][None], wide[1 - space.foreground][None]
        if values == "logits":
            return foreground - background
        np.maximum(wide, stored.floor, out=wide)
        return np.log(foreground / background)
    wide = array.astype(np.float64)
    if values == "logits":
        return wide
    # One logarithm of the ratio, not a difference of two: p = 0.5 then gives exactly 0, the cut of the decision.
    complement = np.maximum(1.0 - wide, stored.complement_floor)
    return np.log(np.maximum(wide, stored.floor) / complement)


def _log_odds_against_rest(array: np.ndarray, values: Values, stored: Stored) -> np.ndarray:
    """z_c = log p_c - log of the sum of the others, without cancellation in the winning channel."""
    if values == "probabilities":
        p = array.astype(np.float64)
        rest = _sums_of_others(p)
        np.maximum(p, stored.floor, out=p)
        p /= np.maximum(rest, stored.floor, out=rest)
        return np.log(p, out=p)
    gap = array.astype(np.float64)
    gap -= array.max(axis=0)
    rest = _sums_of_others(np.exp(gap))
    faint = rest.min(axis=0) < FAINTEST_REST
    np.maximum(rest, FAINTEST_REST, out=rest)
    gap -= np.log(rest, out=rest)
    if faint.any():
        gap[:, faint] = _log_odds_of_certain(array[:, faint])
    return gap


def _sums_of_others(p: np.ndarray) -> np.ndarray:
    """For each channel the sum of all the others: of those before it and of those after it, so nothing cancels."""
    sums = np.empty_like(p)
    running = np.zeros(p.shape[1])
    for channel in range(len(p)):
        sums[channel] = running
        running += p[channel]
    running[:] = 0.0
    for channel in reversed(range(len(p))):
        sums[channel] += running
        running += p[channel]
    return sums


def _log_odds_of_certain(logits: np.ndarray) -> np.ndarray:
    """z of voxels whose winner is so far ahead that the powers of the others underflow."""
    winner = logits.argmax(axis=0)[np.newaxis]
    gap = logits.astype(np.float64) - np.take_along_axis(logits, winner, axis=0)
    power = np.exp(gap)
    rest = power.sum(axis=0) - power
    np.put_along_axis(rest, winner, 1.0, axis=0)
    z = gap - np.log(rest)
    # The winner against the rest, shifted by the runner-up.
    np.put_along_axis(gap, winner, -np.inf, axis=0)
    runner_up = gap.max(axis=0)
    np.put_along_axis(z, winner, -(runner_up + np.log(np.exp(gap - runner_up).sum(axis=0)))[np.newaxis], axis=0)
    return z


def log_probabilities(array: np.ndarray, values: Values, stored: Stored) -> np.ndarray:
    """float64 log-softmax "class voxel" of exclusive channels; stored zeros become the floor, then minus logsumexp."""
    if values == "logits":
        return log_softmax(array)
    wide = np.log(np.maximum(array.astype(np.float64), stored.floor))
    # Rows nearly sum to 1 already, so the plain logsumexp cannot overflow.
    wide -= np.log(np.exp(wide).sum(axis=0))
    return wide


def problem_names(space: LabelSpace) -> tuple[str, ...]:
    """The classes that ``log_odds`` has rows for, in its order."""
    return tuple(space.names[channel] for channel in space.measured)


def zero_where_true(chunk: Chunk, members: np.ndarray, space: LabelSpace) -> np.ndarray:
    """int64 "problem": voxels of the true class whose stored probability is exactly 0.

    Under softmax the background of a binary table counts for its one problem too: its zeros cost as much.
    """
    zero = chunk.array == 0.0
    if not zero.any():
        return np.zeros(len(space.measured), dtype=np.int64)
    counts = np.array([np.count_nonzero(zero[c] & members[c][chunk.codes]) for c in range(len(zero))], dtype=np.int64)
    return counts.sum(keepdims=True) if space.binary else counts
