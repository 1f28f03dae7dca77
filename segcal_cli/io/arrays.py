"""Arrays on disk: ``.npz`` as nnU-Net writes it, and ``.npy``.

An array file says its shape and type, and its key may say what it holds, but not which axis is the class axis and not
where it lies in space. ``probe`` reads the header alone, ``layout`` decides what the axes are, from the shape and the
number of classes and never from the numbers, and ``read`` streams the numbers straight into a float32 array.
"""

from __future__ import annotations

import math
from pathlib import Path
from typing import Literal

import numpy as np

from segcal_cli.core.errors import FormatError, VoxelError
from segcal_cli.core.frozen import dataclass
from segcal_cli.core.volume import Stored, Values
from segcal_cli.io.inputs import check_case_size
from segcal_cli.io.members import Member, array_members, bare_file
from segcal_cli.io.npy import NpyHeader, UnusableType, fill, read_header
from segcal_cli.io.suffixes import split_suffix, unread

ChannelAxis = Literal["first", "last"]

KEYS: dict[str, Values] = {"probabilities": "probabilities", "softmax": "probabilities", "logits": "logits"}
"""Keys that say what an array holds: nnU-Net v2, nnU-Net v1, and the plain word."""


class SeveralArrays(FormatError):
    """It is not clear which array is meant."""

    template = "{0}: several arrays ({1}); expected one of probabilities, softmax, logits"


class NoArray(FormatError):
    """The archive does not hold the array that is asked for."""

    template = "{0}: no array {1} (it holds: {2})"


class EmptyArray(FormatError):
    """An axis of length 0."""

    template = "{0}: array {1} has no voxel (shape {2})"


class HardMask(VoxelError):
    """A label where soft values are needed."""

    template = "{0}: a hard mask; calibration needs logits or probabilities"


class WrongRank(FormatError):
    """More or fewer axes than a prediction has."""

    template = "{0}: {1}-D array of shape {2}; expected class z y x, class y x, z y x or y x"


class OneChannel(FormatError):
    """A single channel where the class table has more."""

    template = "{0}: one channel, but the class table has {1}"


class WrongChannels(FormatError):
    """The class axis is not as long as the class table."""

    template = "{0}: {1} axis has {2} entries, the class table {3}{4}"


class ClassAxisUnclear(FormatError):
    """Either end of the shape could be the class axis."""

    template = (
        "{0}: first and last axis both have {1} entries, as the class table has; give --channel-axis first or last"
    )


@dataclass(frozen=True, slots=True)
class ArrayHeader:
    """What an array file says about itself. key: None for ``.npy``; keys: all keys of the archive.

    npy: shape, dtype, Fortran order. member: place, sizes in bytes and compression.
    """

    path: Path
    format: Literal["npy", "npz"]
    key: str | None
    keys: tuple[str, ...]
    npy: NpyHeader
    member: Member

    @property
    def shape(self) -> tuple[int, ...]:
        return self.npy.shape

    @property
    def dtype(self) -> np.dtype:
        return self.npy.dtype

    @property
    def compressed(self) -> bool:
        return self.member.deflated


@dataclass(frozen=True, slots=True)
class Layout:
    """How stored axes become "class z y x". axis: the class axis among the stored ones, None where there is none."""

    axis: int | None
    shape: tuple[int, int, int, int]


def probe(path: Path, key: str | None = None) -> ArrayHeader:
    """The header of the array in a file; reads no numbers.

    key: which array of an ``.npz``; by default the one of ``probabilities``, ``softmax`` and ``logits`` that is there,
    or the only array. Raises SeveralArrays, NoArray, EmptyArray, and what the archive and header readers raise.
    """
    suffix = split_suffix(path.name)[1]
    keys: tuple[str, ...] = ()
    if suffix == ".npy":
        key, member = None, bare_file(path)
    elif suffix == ".npz":
        members = array_members(path)
        keys = tuple(members)
        key = _chosen_key(path, keys) if key is None else key
        if key not in members:
            raise NoArray(path, key, ", ".join(keys) or "nothing")
        member = members[key]
    else:
        raise unread(path)
    npy = read_header(member)
    if npy.dtype.kind == "U":
        raise UnusableType(path, member.name or "(bare)", "text")
    if npy.count == 0:
        raise EmptyArray(path, member.name or "(bare)", npy.shape)
    check_case_size(path, npy.count * 4)
    return ArrayHeader(path, "npy" if suffix == ".npy" else "npz", key, keys, npy, member)


def _chosen_key(path: Path, keys: tuple[str, ...]) -> str:
    known = [key for key in keys if key in KEYS]
    candidates = known or list(keys)
    if not candidates:
        raise NoArray(path, "in it", "nothing")
    if len(candidates) > 1:
        raise SeveralArrays(path, ", ".join(keys))
    return candidates[0]


def values_of(header: ArrayHeader) -> Values | None:
    """What the key says that the array holds; None where it says nothing."""
    return None if header.key is None else KEYS.get(header.key)


def stored(header: ArrayHeader) -> Stored:
    """The type on disk, byte order left out."""
    return Stored(header.dtype.name)


def require_soft(header: ArrayHeader, values: Values) -> None:
    """Refuses what can only be a label: truth values, and whole numbers said to be probabilities. Raises HardMask."""
    if header.dtype.kind == "b" or (header.dtype.kind in "iu" and values == "probabilities"):
        raise HardMask(header.path)


def layout(path: Path, shape: tuple[int, ...], classes: int, channel_axis: ChannelAxis | None = None) -> Layout:
    """What the axes of an array are, given the number of channels.

    Four axes: (class, z, y, x). Three: (class, y, x) if there are several classes, else (z, y, x). Two: (y, x). With
    channel_axis "last" the class axis is the last one. Raises WrongRank, OneChannel, WrongChannels, ClassAxisUnclear.
    """
    rank = len(shape)
    if rank not in (2, 3, 4):
        raise WrongRank(path, rank, shape)
    if rank == 2 and classes > 1:
        raise OneChannel(path, classes)
    if rank == 2 or (rank == 3 and classes == 1 and not (channel_axis == "last" and shape[-1] == 1)):
        z, y, x = (1, *shape)[-3:]
        return Layout(None, (1, z, y, x))
    if channel_axis is None and shape[0] == shape[-1] == classes:
        raise ClassAxisUnclear(path, classes)
    axis, other = (rank - 1, 0) if channel_axis == "last" else (0, rank - 1)
    if shape[axis] != classes:
        if shape[axis] == 1:
            raise OneChannel(path, classes)
        here, there = ("last", "first") if channel_axis == "last" else ("first", "last")
        hint = f"; the {there} would fit: --channel-axis {there}" if shape[other] == classes else ""
        raise WrongChannels(path, here, shape[axis], classes, hint)
    z, y, x = (1, *shape[:axis], *shape[axis + 1 :])[-3:]
    return Layout(axis, (classes, z, y, x))


def read(header: ArrayHeader) -> np.ndarray:
    """The array as float32, C-contiguous, axes in the order of the file. Raises BrokenMember, UnreadableFile."""
    array = np.empty(header.shape, np.float32)
    fill(array, header.member, header.npy)
    return array


def read_stored(header: ArrayHeader) -> np.ndarray:
    """As ``read``, in the stored type and native byte order, for labels. Raises BrokenMember, UnreadableFile."""
    array = np.empty(header.shape, header.dtype.newbyteorder("="))
    fill(array, header.member, header.npy)
    return array


def read_channels(header: ArrayHeader, plan: Layout) -> np.ndarray:
    """The array as float32 "class z y x", C-contiguous, in one pass whatever the stored order.

    plan: from ``layout(path, header.shape, ...)``. Raises BrokenMember, UnreadableFile.
    """
    if math.prod(plan.shape) != header.npy.count:
        raise WrongRank(header.path, len(header.shape), header.shape)
    if plan.axis in (None, 0):
        return read(header).reshape(plan.shape)
    array = np.empty((plan.shape[0], *header.shape[:-1]), np.float32)
    fill(np.moveaxis(array, 0, -1), header.member, header.npy)
    return array.reshape(plan.shape)


def arrange(array: np.ndarray, plan: Layout) -> np.ndarray:
    """An array in memory, axes as in the file, as C-contiguous "class z y x"; copies only if the class axis is last."""
    if plan.axis is not None:
        array = np.moveaxis(array, plan.axis, 0)
    return np.ascontiguousarray(array.reshape(plan.shape))
