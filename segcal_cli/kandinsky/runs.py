"""Runs: sparse integer tables that add up exactly in any order.

A run is a sorted list of different keys with integer columns. Histograms over cells and codes are mostly empty, so they
are kept as runs; a case adds a small one, and small ones are joined into the large one when together they weigh enough,
so that the work per case does not grow with the number of cases.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np

from segcal_cli.core.frozen import dataclass

SMALL_PAIRS = 2_000_000
"""Pairs in unjoined runs from which on they are joined, at the least."""

DENSE_KEYS = 1 << 22
"""Up to this many possible keys a dense count is faster than sorting."""


@dataclass(frozen=True, slots=True)
class Run:
    """keys: int64 "pair", sorted, different. columns: int64 "column pair"."""

    keys: np.ndarray
    columns: np.ndarray

    def __len__(self) -> int:
        return len(self.keys)


def empty_run(columns: int) -> Run:
    return Run(np.empty(0, np.int64), np.empty((columns, 0), np.int64))


def counted(keys: np.ndarray, n_keys: int) -> Run:
    """How often each key occurs. keys: integers in [0, n_keys), in any order."""
    if n_keys <= DENSE_KEYS:
        counts = np.bincount(keys, minlength=n_keys)
        used = np.flatnonzero(counts)
        return Run(used, counts[used][None])
    if (keys[1:] > keys[:-1]).all():
        return Run(keys.astype(np.int64), np.ones((1, len(keys)), np.int64))
    used, counts = np.unique(keys, return_counts=True)
    return Run(used.astype(np.int64), counts.astype(np.int64)[None])


def join(runs: Sequence[Run]) -> Run:
    """The sum of several runs."""
    if len(runs) == 1:
        return runs[0]
    keys = np.concatenate([run.keys for run in runs])
    if (keys[1:] > keys[:-1]).all():
        # Pieces that follow one another, such as the slots of a case, are joined as they stand.
        return Run(keys, np.concatenate([run.columns for run in runs], axis=1))
    # Stable: the sorted pieces are merged, not sorted anew.
    order = np.argsort(keys, kind="stable")
    keys = keys[order]
    first = np.flatnonzero(np.concatenate(([True], keys[1:] != keys[:-1])))
    columns = [
        np.add.reduceat(np.concatenate([run.columns[column] for run in runs])[order], first)
        for column in range(len(runs[0].columns))
    ]
    return Run(keys[first], np.stack(columns))


def inserted(large: Run, small: Run) -> Run:
    """The sum of a large run and a small one, without sorting the large one and with one copy of it at a time."""
    at = np.searchsorted(large.keys, small.keys)
    known = np.zeros(len(small), bool)
    inside = at < len(large)
    known[inside] = large.keys[at[inside]] == small.keys[inside]
    new = ~known
    place = at[new] + np.arange(int(new.sum()))
    old = np.ones(len(large) + len(place), bool)
    old[place] = False
    keys = np.empty(len(old), np.int64)
    keys[old], keys[place] = large.keys, small.keys[new]
    columns = np.empty((len(large.columns), len(old)), np.int64)
    for out, mine, theirs in zip(columns, large.columns, small.columns, strict=True):
        out[old], out[place] = mine, theirs[new]
    known_place = np.searchsorted(keys, small.keys[known])
    for out, theirs in zip(columns, small.columns, strict=True):
        out[known_place] += theirs[known]
    return Run(keys, columns)


def compacted(
    runs: Sequence[Run],
    add: Callable[[Sequence[Run]], Run] = join,
    insert: Callable[[Run, Run], Run] = inserted,
) -> tuple[Run, ...]:
    """The same sum as fewer runs: the largest stays alone until the others weigh a quarter of it."""
    if len(runs) < 2:
        return tuple(runs)
    largest, *others = sorted(runs, key=len, reverse=True)
    if sum(map(len, others)) < max(SMALL_PAIRS, len(largest) // 4):
        return (largest, *others)
    return (insert(largest, add(others)),)


def coarsened(run: Run, bits: int, code_bits: int) -> Run:
    """The run with the low ``bits`` of each key's code dropped; the code is the key's lowest ``code_bits`` bits."""
    if not bits:
        return run
    # Order is kept, so equal keys are neighbours.
    keys = (run.keys >> code_bits) << code_bits
    keys |= (run.keys & ((1 << code_bits) - 1)) >> bits
    first = np.flatnonzero(np.concatenate((keys[:1] == keys[:1], keys[1:] != keys[:-1])))
    if not first.size:
        return run
    return Run(keys[first], np.add.reduceat(run.columns, first, axis=1))
