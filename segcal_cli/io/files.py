"""One file, whatever its format: what its header says, and its numbers.

Each foreign format has a module of its own with ``probe`` and ``read``; this one only asks the right one, so that
nothing above it knows how many formats there are. Probing reads headers alone and is done for every file before any
voxel.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np

from segcal_cli.core.errors import FormatError
from segcal_cli.core.frozen import dataclass
from segcal_cli.core.labels import LabelSpace
from segcal_cli.core.volume import Grid, Stored, Values
from segcal_cli.io import arrays, images, nifti
from segcal_cli.io.arrays import ArrayHeader, ChannelAxis
from segcal_cli.io.geometry import Space, check_usable
from segcal_cli.io.images import ImageHeader
from segcal_cli.io.nifti_header import NiftiHeader
from segcal_cli.io.suffixes import ARRAYS, PICTURES, require_suffix

FileHeader = NiftiHeader | ArrayHeader | ImageHeader


class ValuesContradicted(FormatError):
    """The format says what the numbers are, and the command line says otherwise."""

    template = "{0}: holds {1} by its format ({2}), not {3}; leave --values out"


@dataclass(frozen=True, slots=True)
class LabelNumbers:
    """A label file's numbers as stored; a label value is ``raw * slope + inter``. image: from PNG or TIFF."""

    raw: np.ndarray
    slope: float = 1.0
    inter: float = 0.0
    image: bool = False


def probe(path: Path) -> FileHeader:
    """The header of a file; no voxel is read. Raises what the format's own ``probe`` raises, and refusals by suffix."""
    suffix = require_suffix(path)
    if suffix in ARRAYS:
        return arrays.probe(path)
    if suffix in PICTURES:
        return images.probe(path)
    header = nifti.probe(path)
    check_usable(header.space())
    return header


def format_name(header: FileHeader) -> str:
    """The format in a word."""
    return "nifti" if isinstance(header, NiftiHeader) else header.format


def values_of(header: FileHeader) -> Values | None:
    """What the format says that the numbers are; None where only the user knows."""
    if isinstance(header, ArrayHeader):
        return arrays.values_of(header)
    return images.values_of(header) if isinstance(header, ImageHeader) else None


def checked_values(header: FileHeader, declared: Values | None) -> Values | None:
    """What the numbers are: by format, else as declared. Raises ValuesContradicted."""
    told = values_of(header)
    if told is not None and declared is not None and told != declared:
        why = f"key {header.key}" if isinstance(header, ArrayHeader) else "scaled integers"
        raise ValuesContradicted(header.path, told, why, declared)
    return told or declared


def stored(header: FileHeader) -> Stored:
    """How finely the numbers were stored."""
    if isinstance(header, NiftiHeader):
        return nifti.stored(header)
    return arrays.stored(header) if isinstance(header, ArrayHeader) else images.stored(header)


def place(header: FileHeader, shape: tuple[int, int, int], channel_axis: ChannelAxis | None = None) -> Space:
    """Where the voxels lie. shape: (z, y, x), for arrays, whose files do not say which of their axes are spatial."""
    if isinstance(header, NiftiHeader):
        return header.space(channel_axis=channel_axis or "last")
    if isinstance(header, ImageHeader):
        grid = images.grid(header)
        return Space(str(header.path), grid)
    return Space(str(header.path), Grid(shape))


def channel_count(header: FileHeader, channel_axis: ChannelAxis | None = None) -> int:
    """How many channels the file seems to hold, for messages and for a default class table."""
    shape = header.shape
    if isinstance(header, ImageHeader):
        return 1
    if isinstance(header, NiftiHeader):
        if len(shape) < 4:
            return 1
        return shape[0] if channel_axis == "first" else shape[-1]
    if len(shape) < 3:
        return 1
    return shape[-1] if channel_axis == "last" else shape[0]


def soft_shape(header: FileHeader, space: LabelSpace, channel_axis: ChannelAxis | None) -> tuple[int, int, int, int]:
    """(class, z, y, x) of the soft values in the file; one channel where it holds the foreground of two classes.

    Raises the refusals of channel counts and ranks, and those of files that hold no soft values.
    """
    classes = len(space.channels)
    if isinstance(header, ImageHeader):
        if header.colour or header.mode == "P":
            raise images.ColourProbabilities(header.path)
        if classes > 1 and not space.binary:
            raise nifti.OneChannel(header.path, classes)
        z, y, x = header.shape
        return 1, z, y, x
    if isinstance(header, NiftiHeader):
        nifti.check_channels(header, space, channel_axis or "last")
        x, y, z = header.space(channel_axis=channel_axis or "last").grid.shape[::-1]
        voxels = x * y * z
        return int(np.prod(header.shape)) // voxels, z, y, x
    if space.binary and classes == 2 and _holds_one_channel(header, channel_axis):
        classes = 1
    return arrays.layout(header.path, header.shape, classes, channel_axis).shape


def read_soft(header: FileHeader, space: LabelSpace, channel_axis: ChannelAxis | None) -> np.ndarray:
    """The soft values, float32 "class z y x", C-contiguous, shaped as ``soft_shape`` says."""
    if isinstance(header, ImageHeader):
        return images.read_probabilities(header)
    if isinstance(header, NiftiHeader):
        return nifti.as_channels(header, nifti.read(header), space, channel_axis or "last")
    shape = soft_shape(header, space, channel_axis)
    return arrays.read_channels(header, arrays.layout(header.path, header.shape, shape[0], channel_axis))


def read_labels(header: FileHeader) -> LabelNumbers:
    """The numbers of a label volume, axes in C order ("z y x" but for axes of length 1)."""
    if isinstance(header, NiftiHeader):
        return LabelNumbers(nifti.read_raw(header), header.slope, header.inter)
    if isinstance(header, ImageHeader):
        return LabelNumbers(images.read_indices(header), image=True)
    return LabelNumbers(arrays.read_stored(header))


def read_scan(header: FileHeader) -> np.ndarray:
    """float32: what a scan shows, axes as in ``read_labels``; an image in colours as shades of gray."""
    if isinstance(header, ImageHeader):
        return images.read_shades(header).astype(np.float32)
    numbers = read_labels(header)
    return numbers.raw.astype(np.float32) * np.float32(numbers.slope or 1.0) + np.float32(numbers.inter)


def label_shape(header: FileHeader) -> tuple[int, int, int]:
    """(z, y, x) of a label file, from its header. Axes of length 1 around a volume do not count."""
    if isinstance(header, ImageHeader):
        return header.shape
    shape = header.shape[::-1] if isinstance(header, NiftiHeader) else header.shape
    while len(shape) > 3 and 1 in (shape[0], shape[-1]):
        shape = shape[1:] if shape[0] == 1 else shape[:-1]
    if len(shape) > 3:
        raise _one_hot(header, shape)
    z, y, x = (1, 1, *shape)[-3:]
    return z, y, x


def _one_hot(header: FileHeader, shape: tuple[int, ...]) -> Exception:
    """The refusal of a label with a class axis."""
    from segcal_cli.io.labelmaps import OneHotLabel

    return OneHotLabel(header.path, min(shape[0], shape[-1]))


def _holds_one_channel(header: ArrayHeader, channel_axis: ChannelAxis | None) -> bool:
    shape = header.shape
    if len(shape) == 4:
        return (shape[-1] if channel_axis == "last" else shape[0]) == 1
    return len(shape) == 2 or (len(shape) == 3 and 2 not in (shape[0], shape[-1]))
