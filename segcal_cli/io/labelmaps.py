"""Label volumes: from numbers in a file to channels of a class table, without changing what anybody drew.

A label volume holds few different numbers, so everything is decided on the numbers that occur and their counts: whether
they are whole, whether the class table knows them, which code each becomes. Then one look-up turns voxels into codes.
Values are never remapped by rank or rounded across more than a rounding error; what the table does not know is refused.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import numpy as np

from segcal_cli.core.errors import FitError, LabelError, count_text
from segcal_cli.core.frozen import dataclass
from segcal_cli.core.labels import LabelMap, LabelSpace

LABEL_ROUNDING = 1e-3
"""How far a stored label may lie from a whole number: a slope of 4.58e-05 on int16 costs 2e-5, a soft map far more."""

CHUNK_VOXELS = 2**18
"""Voxels looked up at a time, so that the 64-bit indices numpy makes of them stay in the processor's cache."""

MAX_SPAN = 2**20
"""Widest range of stored integers that is counted in a table; beyond it a volume holds no labels."""

MAX_STORED = 2**62
"""Beyond this, differences of stored 64-bit integers are no 64-bit integers."""

IMAGE_MASK = frozenset({0, 255})
"""What image programs write for a mask of one structure."""


class NotWhole(LabelError):
    """Numbers that are no labels."""

    template = "{0}: {1:voxel is not a whole number|voxels are not whole numbers} (e.g. {2}); a probability map?"


class TooManyValues(LabelError):
    """Integers over a range that no class table covers."""

    template = "{0}: label values from {1:.6g} to {2:.6g}; a scan instead of its label?"


class ForeignLabel(LabelError):
    """A label value that the class table does not know."""

    template = "{0}: label {1} ({2:voxel|voxels}) is not in the class table ({3}); add it, or --ignore-label {1}{4}"


class OneHotLabel(LabelError):
    """A label with a class axis."""

    template = "{0}: {1} channels in a label; expected one volume of label values"


class WrongLabelRank(LabelError):
    """Not a volume, not an image."""

    template = "{0}: a label of shape {1}; expected a volume or an image"


class MaskValueUnclear(LabelError):
    """--mask-value with a class table that has several foreground classes."""

    template = "{0}: --mask-value {1} names the one foreground class, but the class table has {2}"


class RareClass(FitError):
    """A class that too few cases hold."""

    template = "class {0}: {1:case holds|cases hold} it, {2} are needed"


@dataclass(frozen=True, slots=True)
class Counted:
    """Stored integers "z y x", and a table over their range. values: float64 "bin", what the integer lo + bin means."""

    raw: np.ndarray
    lo: int
    counts: np.ndarray
    values: np.ndarray


def label_map(
    raw: np.ndarray,
    space: LabelSpace,
    *,
    path: Path,
    slope: float = 1.0,
    inter: float = 0.0,
    ignore_label: int | None = None,
    mask_value: int | None = None,
    image_mask: bool = False,
) -> LabelMap:
    """A label volume in terms of the channels of ``space``.

    raw: the stored numbers, any integer or float type, "z y x" or "y x", axes of length 1 around them allowed; a label
    value is ``raw * slope + inter``. ignore_label: a value that is left out like the table's own ignore value.
    mask_value: the value that means foreground in a mask of one class, with 0 for the rest; image_mask: take {0, 255}
    as such a mask if the table has one foreground class and does not know 255. Codes may share memory with ``raw``.

    Raises NotWhole, TooManyValues, ForeignLabel, OneHotLabel, WrongLabelRank, MaskValueUnclear.
    """
    raw = as_volume(raw, path, len(space.channels))
    counted = count_values(raw, slope, inter, path)
    present = np.flatnonzero(counted.counts)
    whole = _rounded(counted, present, path)
    ignored_values = {value for value in (space.ignore, ignore_label) if value is not None}
    code_of = _codes(space)
    if mask_value is None and image_mask and space.binary and set(whole.tolist()) - ignored_values <= IMAGE_MASK:
        mask_value = None if 255 in space.known_values else 255
    if mask_value is not None:
        code_of = _mask_codes(space, code_of, mask_value, path)
    _refuse_foreign(whole, counted.counts[present], set(code_of) | ignored_values, space, path)

    members = _members(space, code_of)
    table = np.zeros(counted.counts.size, np.min_scalar_type(members.shape[1] - 1))
    is_ignored = np.zeros(counted.counts.size, bool)
    for index, value in zip(present.tolist(), whole.tolist(), strict=True):
        is_ignored[index] = value in ignored_values
        table[index] = 0 if is_ignored[index] else code_of[value]
    ignored = _looked_up(counted, is_ignored) if is_ignored.any() else None
    return LabelMap(_looked_up(counted, table), members, ignored)


def as_volume(raw: np.ndarray, path: Path, classes: int = 0) -> np.ndarray:
    """The label as "z y x": axes of length 1 beyond the third are dropped, images get z = 1.

    classes: how long a class axis would be, to name it in the refusal. Raises OneHotLabel, WrongLabelRank.
    """
    shape = raw.shape
    while raw.ndim > 3:
        # The trailing axes of a NIfTI file come first in C order; in an array file they are last.
        if raw.shape[0] == 1:
            raw = raw[0]
        elif raw.shape[-1] == 1:
            raw = raw[..., 0]
        else:
            raise OneHotLabel(path, raw.shape[-1] if raw.shape[-1] == classes != raw.shape[0] else raw.shape[0])
    if raw.ndim == 2:
        raw = raw[None]
    if raw.ndim != 3 or raw.size == 0:
        raise WrongLabelRank(path, shape)
    return raw


def foreground(labels: LabelMap, space: LabelSpace) -> LabelMap:
    """The label map of two exclusive classes (``space``) in terms of the foreground channel alone."""
    index = space.foreground
    return LabelMap(labels.codes, labels.members[index : index + 1], labels.ignored)


def class_voxels(labels: LabelMap) -> np.ndarray:
    """int64 "channel": voxels of each channel, ignored ones left out. A class is present where this is not 0."""
    counts = np.zeros(labels.members.shape[1], np.int64)
    for piece in pieces(labels.codes):
        counts += np.bincount(piece, minlength=counts.size)
    if labels.ignored is not None:
        counts[0] -= np.count_nonzero(labels.ignored)
    return labels.members.astype(np.int64) @ counts


def count_values(raw: np.ndarray, slope: float, inter: float, path: Path) -> Counted:
    """How often each stored integer occurs; floats become label values first. Raises NotWhole, TooManyValues."""
    if raw.dtype.kind == "f" or (raw.dtype.itemsize > 2 and (slope, inter) != (1.0, 0.0)):
        raw, slope, inter = _whole_from_floats(raw, slope, inter, path), 1.0, 0.0
    elif raw.dtype.kind == "b":
        raw = raw.view(np.uint8)
    if raw.dtype.itemsize == 1:
        lo, hi = int(np.iinfo(raw.dtype).min), int(np.iinfo(raw.dtype).max)
    else:
        lo, hi = int(raw.min()), int(raw.max())
    if hi - lo >= MAX_SPAN or max(hi, -lo) > MAX_STORED:
        raise TooManyValues(path, lo * slope + inter, hi * slope + inter)
    counts = np.zeros(hi - lo + 1, np.int64)
    for piece in pieces(raw):
        counts += np.bincount(_bins(piece, lo), minlength=counts.size)
    return Counted(raw, lo, counts, np.arange(lo, hi + 1, dtype=np.float64) * slope + inter)


def _whole_from_floats(raw: np.ndarray, slope: float, inter: float, path: Path) -> np.ndarray:
    """int32 label values of a volume of floats, or of integers too wide to count. Raises NotWhole, TooManyValues."""
    whole = np.empty(raw.shape, np.int32)
    flat = whole.reshape(-1)
    wrong, example, at, limit = 0, 0.0, 0, np.iinfo(np.int32).max
    for piece in pieces(raw):
        # In float64: float32 holds a scaled label no better than to 1e-7 of its size.
        value = piece.astype(np.float64) * slope + inter
        nearest = np.rint(value)
        with np.errstate(invalid="ignore"):
            bad = ~(np.abs(value - nearest) < LABEL_ROUNDING)
        if bad.any():
            example = example if wrong else float(value[bad][0])
            wrong += int(np.count_nonzero(bad))
        elif np.abs(nearest).max() > limit:
            raise TooManyValues(path, float(nearest.min()), float(nearest.max()))
        elif not wrong:
            flat[at : at + value.size] = nearest
        at += value.size
    if wrong:
        raise NotWhole(path, wrong, f"{example:.6g}")
    return whole


def _rounded(counted: Counted, present: np.ndarray, path: Path) -> np.ndarray:
    """int64: the label values of the bins that occur. Raises NotWhole, TooManyValues."""
    values = counted.values[present]
    nearest = np.rint(values)
    if np.abs(nearest).max(initial=0.0) > MAX_STORED:
        raise TooManyValues(path, float(nearest.min()), float(nearest.max()))
    bad = ~(np.abs(values - nearest) < LABEL_ROUNDING)
    if bad.any():
        raise NotWhole(path, int(counted.counts[present][bad].sum()), f"{values[bad][0]:.6g}")
    return nearest.astype(np.int64)


def _codes(space: LabelSpace) -> dict[int, int]:
    """The code of each label value: the channel for exclusive classes, else the rank among the known values."""
    if space.exclusive:
        return {value: index for index, channel in enumerate(space.channels) for value in channel.values}
    return {value: code for code, value in enumerate(sorted(space.known_values))}


def _mask_codes(space: LabelSpace, code_of: dict[int, int], mask_value: int, path: Path) -> dict[int, int]:
    """As _codes, for a mask: ``mask_value`` is the foreground, 0 the rest, anything else unknown."""
    if not space.binary:
        raise MaskValueUnclear(path, mask_value, len(space.channels) - any(0 in c.values for c in space.channels))
    inside = space.channels[space.foreground].values
    outside = {code for value, code in code_of.items() if value not in inside}
    return {0: min(outside, default=0), mask_value: code_of[min(inside)]}


def _members(space: LabelSpace, code_of: dict[int, int]) -> np.ndarray:
    """bool "channel code"."""
    if space.exclusive:
        return np.eye(len(space.channels), dtype=bool)
    known = sorted(space.known_values)
    return np.array([[value in channel.values for value in known] for channel in space.channels])


def _refuse_foreign(whole: np.ndarray, counts: np.ndarray, known: set[int], space: LabelSpace, path: Path) -> None:
    foreign: dict[int, int] = {}
    for value, count in zip(whole.tolist(), counts.tolist(), strict=True):
        if value not in known:
            foreign[value] = foreign.get(value, 0) + count
    if foreign:
        (first, voxels), *more = foreign.items()
        table = ", ".join(f"{c.name} {'+'.join(map(str, sorted(c.values)))}" for c in space.channels)
        others = ", ".join(f"{value} ({count_text(count, 'voxel')})" for value, count in more[:5])
        raise ForeignLabel(path, first, voxels, table, f"; also {others}" + ", .." * (len(more) > 5) if more else "")


def _looked_up(counted: Counted, table: np.ndarray) -> np.ndarray:
    """table at each voxel's bin, "z y x"; the stored array itself where that already is the answer."""
    used = np.flatnonzero(counted.counts)
    if counted.raw.dtype == table.dtype and counted.lo == 0 and np.array_equal(table[used], used):
        return np.ascontiguousarray(counted.raw)
    result = np.empty(counted.raw.shape, table.dtype)
    flat, at = result.reshape(-1), 0
    for piece in pieces(counted.raw):
        np.take(table, _bins(piece, counted.lo), out=flat[at : at + piece.size], mode="clip")
        at += piece.size
    return result


def _bins(piece: np.ndarray, lo: int) -> np.ndarray:
    """Stored integers as indices from ``lo``; widened first, since a difference of int16 may not be one."""
    return piece.astype(np.intp) - lo if lo else piece.astype(np.intp)


def pieces(array: np.ndarray) -> Iterator[np.ndarray]:
    """Flat runs of an array in C order, without copying the whole of it."""
    if array.flags.c_contiguous:
        flat = array.reshape(-1)
        for start in range(0, flat.size, CHUNK_VOXELS):
            yield flat[start : start + CHUNK_VOXELS]
    else:
        for plane in array:
            yield plane.reshape(-1)
