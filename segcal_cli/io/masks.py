"""Masks: one file per class, or one for the region of interest.

Some tools write a folder of masks per case instead of one label volume, because their structures overlap or because
there are a hundred of them. Masks of exclusive classes are joined only if they exclude each other; a region of interest
keeps what is not zero.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from pathlib import Path

import numpy as np

from segcal_cli.core.errors import LabelError
from segcal_cli.core.labels import LabelMap, LabelSpace
from segcal_cli.io.labelmaps import NotWhole, as_volume, count_values, pieces


class OverlappingMasks(LabelError):
    """Two masks of exclusive classes share voxels."""

    template = "{0}: {1} and {2} overlap in {3:voxel|voxels}; exclusive classes cannot"


class MissingMask(LabelError):
    """A class without its mask, which is not the background."""

    template = "{0}: no mask for class {1}; every class but the background needs one"


class UncoveredVoxels(LabelError):
    """Exclusive classes, each with a mask, that leave voxels to none of them."""

    template = "{0}: {1:voxel belongs|voxels belong} to no class"


class SoftMask(LabelError):
    """A mask of more than two values."""

    template = "{0}: {1} different values in a mask of one class; expected 0 and one other"


class EmptyRoi(LabelError):
    """A region of interest without a voxel."""

    template = "{0}: the region of interest is empty"


def join_masks(masks: Iterable[tuple[int, np.ndarray, Path]], space: LabelSpace, *, case: str) -> LabelMap:
    """One label map from one mask per class.

    masks: channel index, values ("z y x", 0 and one other), file; taken one at a time. Exclusive classes may not
    overlap, and voxels in no mask belong to the background (label value 0) if that has no mask. Codes of regions are
    the combinations that occur. Raises OverlappingMasks, MissingMask, UncoveredVoxels, SoftMask, NotWhole,
    TooManyValues, OneHotLabel, WrongLabelRank; masks of different shapes are for the caller to refuse.
    """
    binary = ((channel, _binary_mask(raw, path)) for channel, raw, path in masks)
    return _join_exclusive(binary, space, case) if space.exclusive else _join_regions(binary, space, case)


def roi_mask(array: np.ndarray, path: Path) -> np.ndarray:
    """bool "z y x": where a region of interest is not 0. Raises EmptyRoi, NotWhole, OneHotLabel, WrongLabelRank."""
    array = as_volume(array, path)
    if array.dtype.kind == "f" and (undefined := int(np.isnan(array).sum())):
        raise NotWhole(path, undefined, "nan")
    keep = np.ascontiguousarray(array != 0)
    if not keep.any():
        raise EmptyRoi(path)
    return keep


def _binary_mask(raw: np.ndarray, path: Path) -> np.ndarray:
    """bool "z y x" of a mask that holds 0 and at most one other value."""
    counted = count_values(as_volume(raw, path), 1.0, 0.0, path)
    values = set(counted.values[counted.counts > 0].tolist())
    if len(values | {0.0}) > 2:
        raise SoftMask(path, len(values))
    return np.ascontiguousarray(counted.raw != 0)


def _join_exclusive(masks: Iterator[tuple[int, np.ndarray]], space: LabelSpace, case: str) -> LabelMap:
    names, owner, seen = space.names, None, set()
    for channel, mask in masks:
        seen.add(channel)
        if owner is None:
            # 0: no class yet; else the channel plus 1.
            owner = np.zeros(mask.shape, np.min_scalar_type(len(names)))
        taken = owner[mask]
        if taken.any():
            other = int(taken[taken > 0][0])
            raise OverlappingMasks(case, names[other - 1], names[channel], int(np.count_nonzero(taken == other)))
        owner[mask] = channel + 1
    missing = [channel for channel in range(len(names)) if channel not in seen]
    rest = next((channel for channel in missing if 0 in space.channels[channel].values), None)
    for channel in missing:
        if channel != rest:
            raise MissingMask(case, names[channel])
    if owner is None:
        raise MissingMask(case, names[0])
    if rest is not None:
        owner[owner == 0] = rest + 1
    elif uncovered := int(np.count_nonzero(owner == 0)):
        raise UncoveredVoxels(case, uncovered)
    owner -= 1
    return LabelMap(owner, np.eye(len(names), dtype=bool))


def _join_regions(masks: Iterator[tuple[int, np.ndarray]], space: LabelSpace, case: str) -> LabelMap:
    codes, members, seen = None, np.zeros((len(space.names), 1), bool), set()
    for channel, mask in masks:
        seen.add(channel)
        codes, members = _split(np.zeros(mask.shape, np.uint8) if codes is None else codes, members, channel, mask)
    missing = [name for channel, name in enumerate(space.names) if channel not in seen]
    if missing or codes is None:
        raise MissingMask(case, missing[0])
    return LabelMap(codes, members)


def _split(codes: np.ndarray, members: np.ndarray, channel: int, mask: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Splits each code into outside and inside of one more mask; the pairs that occur become the new codes."""
    counts = np.zeros(2 * members.shape[1], np.int64)
    for code, inside in zip(pieces(codes), pieces(mask), strict=True):
        counts += np.bincount(code.astype(np.intp) * 2 + inside, minlength=counts.size)
    used = np.flatnonzero(counts)
    table = np.zeros(counts.size, np.min_scalar_type(used.size - 1))
    table[used] = np.arange(used.size)
    split = np.empty(codes.shape, table.dtype)
    flat, at = split.reshape(-1), 0
    for code, inside in zip(pieces(codes), pieces(mask), strict=True):
        np.take(table, code.astype(np.intp) * 2 + inside, out=flat[at : at + code.size], mode="clip")
        at += code.size
    members = members[:, used // 2]
    members[channel] |= used % 2 == 1
    return split, members
