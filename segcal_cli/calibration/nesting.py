"""Nested regions: whole tumour holds the core, the core holds the enhancing part, and probabilities must say the same.

Calibrators of separate channels can leave a child more probable than its parent. Where they do, the probabilities of
the voxel are replaced by the nearest ones, in squares, that are nested: isotonic regression on the order of the
regions. It has a closed form, max over upper sets U of the min over lower sets L of the mean over U and L together
(Robertson, Wright, Dykstra 1988, "Order Restricted Statistical Inference", theorem 1.4.4), which suits a few channels
and many voxels. A projection never flips a decision where the decisions were nested, because 0.5 splits a nested set
into an upper one.
"""

from __future__ import annotations

import numpy as np

from segcal_cli.core.errors import UsageError
from segcal_cli.core.frozen import dataclass
from segcal_cli.core.labels import LabelSpace

MOST_UPPER_SETS = 64
"""Regions that branch into more combinations than this are not projected but refused: the closed form gets slow."""


class TooManyBranches(UsageError):
    """A family of nested regions with too many combinations to project."""

    template = "the nested regions {0} branch too much to be projected; --nesting none leaves them"


@dataclass(frozen=True, slots=True)
class Family:
    """Channels that are ordered among each other. pairs: (parent, child) channels. cells: for each channel of the
    family,
    for each upper set that holds it, the channels over which means are taken, one tuple per lower set."""

    channels: tuple[int, ...]
    pairs: tuple[tuple[int, int], ...]
    cells: dict[int, tuple[tuple[tuple[int, ...], ...], ...]]


def families_of(space: LabelSpace) -> tuple[Family, ...]:
    """Families of nested regions, from the label values of the channels: a parent holds all values of its child.

    Empty for exclusive classes, and where nothing is nested. Raises TooManyBranches.
    """
    if space.exclusive:
        return ()
    sets = [channel.values for channel in space.channels]
    pairs = [(i, j) for i, a in enumerate(sets) for j, b in enumerate(sets) if b and a > b]
    families = []
    for members in _connected(len(sets), pairs):
        inside = tuple(pair for pair in pairs if pair[0] in members)
        if inside:
            families.append(Family(members, inside, _cells(members, inside, space)))
    return tuple(families)


def project(p: np.ndarray, families: tuple[Family, ...]) -> np.ndarray:
    """bool "voxel": where p, float64 "class voxel", was not nested. There it is replaced by its projection, in
    place."""
    changed = np.zeros(p.shape[1], dtype=bool)
    for family in families:
        violated = np.zeros(p.shape[1], dtype=bool)
        for parent, child in family.pairs:
            violated |= p[child] > p[parent]
        if not violated.any():
            continue
        before = p[:, violated]
        means: dict[tuple[int, ...], np.ndarray] = {}
        for channel, uppers in family.cells.items():
            best = None
            for lowers in uppers:
                least = np.min([_mean(before, cell, means) for cell in lowers], axis=0)
                best = least if best is None else np.maximum(best, least)
            p[channel, violated] = best
        changed |= violated
    return changed


def nested(decisions: np.ndarray, families: tuple[Family, ...]) -> np.ndarray:
    """bool "voxel": where no child is decided without its parent. decisions: bool "class voxel"."""
    fine = np.ones(decisions.shape[1], dtype=bool)
    for family in families:
        for parent, child in family.pairs:
            fine &= decisions[parent] | ~decisions[child]
    return fine


def _mean(values: np.ndarray, cell: tuple[int, ...], known: dict[tuple[int, ...], np.ndarray]) -> np.ndarray:
    if cell not in known:
        known[cell] = values[list(cell)].mean(axis=0)
    return known[cell]


def _connected(size: int, pairs: list[tuple[int, int]]) -> list[tuple[int, ...]]:
    label = list(range(size))
    for a, b in pairs:
        low, high = sorted((label[a], label[b]))
        label = [low if x == high else x for x in label]
    return [tuple(i for i in range(size) if label[i] == root) for root in sorted(set(label))]


def _cells(
    members: tuple[int, ...], pairs: tuple[tuple[int, int], ...], space: LabelSpace
) -> dict[int, tuple[tuple[tuple[int, ...], ...], ...]]:
    uppers = _upper_sets(members, pairs)
    if len(uppers) > MOST_UPPER_SETS:
        raise TooManyBranches(", ".join(space.names[i] for i in members))
    lowers = [frozenset(members) - upper for upper in uppers]
    return {
        channel: tuple(
            tuple(sorted({tuple(sorted(upper & lower)) for lower in lowers if channel in lower}))
            for upper in uppers
            if channel in upper
        )
        for channel in members
    }


def _upper_sets(members: tuple[int, ...], pairs: tuple[tuple[int, int], ...]) -> list[frozenset[int]]:
    """Sets of channels that hold the parents of all they hold, parents first, so that few dead ends are looked at."""
    depth = {channel: sum(child == channel for _, child in pairs) for channel in members}
    sets: list[frozenset[int]] = [frozenset()]
    for channel in sorted(members, key=lambda c: (depth[c], c)):
        parents = {parent for parent, child in pairs if child == channel}
        sets += [chosen | {channel} for chosen in sets if parents <= chosen]
        if len(sets) > MOST_UPPER_SETS:
            break
    return sets
