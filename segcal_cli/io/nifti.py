"""NIfTI volumes, read and written without a transposing copy.

A NIfTI file counts x fastest, then y, z and the channel. Seen in C order the very same bytes are ``"class z y x"``, the
order in which segcal keeps volumes, so reading is decoding into place and writing is the reverse. Whatever is stored as
something else than float32 is converted a megabyte at a time while it is decoded; no float64 copy of a volume ever
exists.

A header does not say which axis holds the channels. By convention it is the last (MONAI's 4-D files) or the fifth
(ITK's vector images, whose fourth axis is time); ``check_channels`` compares that with the class table before a voxel
is read.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from pathlib import Path
from typing import BinaryIO, Literal

import numpy as np

from segcal_cli.core.errors import FormatError
from segcal_cli.core.labels import LabelSpace
from segcal_cli.core.volume import Stored
from segcal_cli.io import atomic, gzipped
from segcal_cli.io.geometry import sheared, voxel_edges
from segcal_cli.io.inputs import unreadable
from segcal_cli.io.nifti_header import DATATYPES, LAYOUTS, MIN_OFFSET, NiftiHeader, is_compressed, probe

__all__ = [
    "INTENT_ESTIMATE",
    "INTENT_LABEL",
    "NiftiHeader",
    "as_channels",
    "check_channels",
    "probe",
    "read",
    "read_raw",
    "stored",
    "write",
]

ChannelAxis = Literal["first", "last"]

INTENT_ESTIMATE = 1001
"""NIFTI_INTENT_ESTIMATE, for probabilities. Intent codes are written for other programs, and never believed."""

INTENT_LABEL = 1002
"""NIFTI_INTENT_LABEL, for label volumes and masks."""

NIFTI1_MAX_LENGTH = 32767
"""Axes of NIfTI-1 are counted in 16 bits; longer ones make the file NIfTI-2."""

UNITS_MM_CODE = 2
"""xyzt_units for mm, without a unit of time."""

_CODES = {np.dtype(kind): code for code, kind in DATATYPES.items()}


class WrongChannelCount(FormatError):
    """The channel axis and the class table differ in length."""

    template = "{0}: {1} axis has {2} entries, the class table {3}{4}"


class TimeSeries(FormatError):
    """Several volumes in one file."""

    template = "{0}: 5-D with {1} time points; one volume per case is expected"


class OneChannel(FormatError):
    """One soft map for several classes."""

    template = "{0}: one channel, but the class table has {1}"


class TooManyAxes(FormatError):
    """More axes than space, time and channels."""

    template = "{0}: {1}-D ({2}); one volume per case is expected"


def stored(header: NiftiHeader) -> Stored:
    """How finely the voxels were stored, which fixes how close to 0 and 1 they can come."""
    return header.stored


def read(header: NiftiHeader) -> np.ndarray:
    """All voxels as float32 with slope and intercept applied, axes reversed: "z y x", "class z y x", "class 1 z y x".

    Raises gzipped's errors (truncated, damaged, another size than the header declares, ..).
    """
    array = np.empty(header.array_shape, np.float32)
    _fill(header, array)
    return array


def read_raw(header: NiftiHeader) -> np.ndarray:
    """All voxels as stored (native byte order, neither scaled nor rounded), axes reversed. For labels, whose reader
    applies ``header.slope`` and ``header.inter`` and rounds. Raises what ``read`` raises."""
    array = np.empty(header.array_shape, dtype=header.dtype.newbyteorder("="))
    _fill(header, array, scaled=False)
    return array


def _fill(header: NiftiHeader, array: np.ndarray, *, scaled: bool = True) -> None:
    flat = array.reshape(-1)
    scaled = scaled and header.scaled
    filled = 0
    for items in _items(header):
        part = flat[filled : filled + items.size]
        # What leaves float32 becomes infinite, and the value checks name it.
        with np.errstate(over="ignore", invalid="ignore"):
            if scaled:
                # Through float64, so that a float32 slope such as 1/65535 rounds once.
                np.add(np.multiply(items, header.slope, dtype=np.float64), header.inter, out=part, casting="same_kind")
            else:
                part[:] = items
        filled += items.size


def _items(header: NiftiHeader) -> Iterator[np.ndarray]:
    """The voxels as stored, in pieces of at most a megabyte and an element, in file order."""
    pieces = gzipped.chunks(header.path) if header.compressed else _plain(header)
    width = header.dtype.itemsize
    rest = b""
    for piece in gzipped.payload(header.path, pieces, skip=header.vox_offset, size=header.voxel_bytes):
        # The first piece begins behind the header, so its end, and those of all others, may split an element.
        if rest:
            piece = b"".join((rest, piece))
        whole = len(piece) // width
        rest = bytes(piece[whole * width :])
        if whole:
            yield np.frombuffer(piece, dtype=header.dtype, count=whole)


def _plain(header: NiftiHeader) -> Iterator[memoryview]:
    """The bytes of an uncompressed file; each piece is valid until the next is asked for."""
    buffer = memoryview(bytearray(gzipped.CHUNK_BYTES))
    try:
        with header.path.open("rb", buffering=0) as file:
            while count := file.readinto(buffer):
                yield buffer[:count]
    except OSError as error:
        raise unreadable(header.path, error) from error


def check_channels(header: NiftiHeader, space: LabelSpace, channel_axis: ChannelAxis = "last") -> None:
    """Raise unless the file's axes can hold one volume of the classes in ``space``.

    2-D and 3-D files hold one channel: the only class, or the foreground of two exclusive ones. 4-D files hold their
    channels on the last axis (``channel_axis`` "first": on the first), 5-D files on the fifth behind one time point.
    Raises WrongChannelCount, TimeSeries, OneChannel, TooManyAxes.
    """
    classes = len(space.channels)
    shape = _without_trailing_ones(header.shape, 4 if channel_axis == "first" else 5)
    if channel_axis == "first" and len(shape) >= 4:
        if len(shape) > 4:
            raise TooManyAxes(header.path, len(shape), " x ".join(map(str, header.shape)))
        if shape[0] != classes:
            hint = "; the last would fit: --channel-axis last" if shape[-1] == classes else ""
            raise WrongChannelCount(header.path, "first", shape[0], classes, hint)
        return
    if len(shape) > 5:
        raise TooManyAxes(header.path, len(shape), " x ".join(map(str, header.shape)))
    if len(shape) == 5 and shape[3] != 1:
        raise TimeSeries(header.path, shape[3])
    found = shape[-1] if len(shape) >= 4 else 1
    if found == classes:
        return
    if found == 1 and not (shape[0] == classes and len(shape) >= 4):
        if not (space.binary and classes == 2):
            raise OneChannel(header.path, classes)
        return
    hint = "; the first would fit: --channel-axis first" if shape[0] == classes and len(shape) == 4 else ""
    raise WrongChannelCount(header.path, "last", found, classes, hint)


def as_channels(
    header: NiftiHeader, array: np.ndarray, space: LabelSpace, channel_axis: ChannelAxis = "last"
) -> np.ndarray:
    """What ``read`` gave, as float32 "class z y x", C-contiguous; a view unless the channels came first.

    A file of one channel gives one channel, also where two exclusive classes are expected: it is then the foreground,
    and the caller, who knows whether it holds logits or probabilities, adds the background. Raises what check_channels
    raises.
    """
    check_channels(header, space, channel_axis)
    if channel_axis == "first" and len(header.shape) >= 4:
        # On disk (class, x, y, z): the channels are the fastest axis, and the only one that has to be moved.
        return np.ascontiguousarray(np.moveaxis(array.reshape(array.shape[-4:]), -1, 0))
    spatial = (1, 1, *array.shape)[-3:]
    return array.reshape(-1, *spatial)


def _without_trailing_ones(shape: tuple[int, ...], rank: int) -> tuple[int, ...]:
    """``shape`` without axes of length 1 at its end, as long as it has more than ``rank`` axes."""
    while len(shape) > rank and shape[-1] == 1:
        shape = shape[:-1]
    return shape


def write(
    target: Path | BinaryIO,
    array: np.ndarray,
    affine: np.ndarray,
    *,
    sform_code: int = 1,
    qform_code: int = 1,
    intent_code: int = 0,
    dtype: np.dtype | type | str | None = None,
    slope: float | None = None,
    stored: bool = False,
    compressed: bool | None = None,
    description: str = "",
) -> None:
    """Write "z y x" or "class z y x" so that x is fastest and the class slowest, in mm; the same input, the same bytes.

    target: a path (written whole or not at all; raises WriteError) or an open binary file. affine: (x, y, z, 1) -> mm;
    it becomes the sform, and the qform too unless its axes are sheared, which a quaternion cannot say. dtype: on disk,
    by default that of ``array``. slope: stored = round(value / slope), clipped to the dtype; it stands in the header.
    stored: the array holds stored numbers already. compressed: by default whether the path ends in .gz. Raises
    ValueError for a type that NIfTI does not have, such as float16. description: at most 79 ASCII characters about what
    the numbers mean, never about the patient. Nothing else is written: no name, no extension.
    """
    kind = np.dtype(dtype if dtype is not None else (np.uint8 if array.dtype == bool else array.dtype))
    if kind.newbyteorder("=") not in _CODES:
        raise ValueError(f"NIfTI has no type {kind}")
    header = _header_bytes(array.shape, kind, affine, sform_code, qform_code, intent_code, slope, description)
    rescaled = None if stored else slope
    if isinstance(target, Path):
        packed = is_compressed(target) if compressed is None else compressed
        with atomic.writing(target) as file:
            _write_parts(file, header, array, kind, rescaled, packed)
    else:
        _write_parts(target, header, array, kind, rescaled, bool(compressed))


def _write_parts(
    file: BinaryIO, header: bytes, array: np.ndarray, kind: np.dtype, slope: float | None, packed: bool
) -> None:
    parts = _parts(header, array, kind.newbyteorder("<"), slope)
    if packed:
        gzipped.compress_into(file, parts)
    else:
        for part in parts:
            file.write(part)


def _parts(header: bytes, array: np.ndarray, kind: np.dtype, slope: float | None) -> Iterator[bytes | memoryview]:
    """The header, then the voxels plane by plane: only a plane is ever held twice."""
    yield header
    for index in np.ndindex(array.shape[:-2]):
        plane = array[index]
        if slope is not None:
            limits = np.iinfo(kind)
            plane = np.clip(np.rint(plane / np.float64(slope)), limits.min, limits.max)
        yield np.ascontiguousarray(plane, dtype=kind).reshape(-1).view(np.uint8).data


def _header_bytes(
    shape: tuple[int, ...],
    kind: np.dtype,
    affine: np.ndarray,
    sform_code: int,
    qform_code: int,
    intent_code: int,
    slope: float | None,
    description: str,
) -> bytes:
    if len(shape) not in (3, 4):
        raise ValueError(f'"z y x" or "class z y x" is needed, not {len(shape)} axes')
    version = 2 if max(shape) > NIFTI1_MAX_LENGTH else 1
    fields = np.zeros((), dtype=LAYOUTS[version])
    fields["sizeof_hdr"] = 348 if version == 1 else 540
    fields["magic"] = b"n+1\0" if version == 1 else b"n+2\0\r\n\x1a\n"
    fields["dim"] = [len(shape), *reversed(shape), *[1] * (7 - len(shape))]
    fields["datatype"] = _CODES[kind.newbyteorder("=")]
    fields["bitpix"] = 8 * kind.itemsize
    fields["vox_offset"] = MIN_OFFSET[version]
    fields["scl_slope"] = 1.0 if slope is None else slope
    fields["xyzt_units"] = UNITS_MM_CODE
    fields["intent_code"] = intent_code
    fields["descrip"] = description.encode("ascii")[:79]
    fields["srow"] = affine[:3]
    fields["qoffset"] = affine[:3, 3]
    qfac = 1.0
    if sheared(affine):
        # Only an sform can hold this affine; a file without one would say nothing of its place.
        sform_code, qform_code = max(sform_code, 1), 0
    else:
        qfac, fields["quatern"] = quaternion(affine)
    fields["sform_code"] = sform_code
    fields["qform_code"] = qform_code
    fields["pixdim"] = [qfac, *voxel_edges(affine), *[1.0] * 4]
    return fields.tobytes() + bytes(MIN_OFFSET[version] - fields.itemsize)


def quaternion(affine: np.ndarray) -> tuple[float, tuple[float, float, float]]:
    """(qfac, (b, c, d)): the unit quaternion, real part >= 0, of the rotation nearest to the affine's axes.

    qfac is -1 if the axes are left-handed; the third is then reversed first. The quaternion is the eigenvector of the
    largest eigenvalue of a symmetric 4 x 4 matrix, which is accurate for every rotation, half turns included.
    Bar-Itzhack 2000, "New method for extracting the quaternion from a rotation matrix", equation 5.
    """
    m = affine[:3, :3] / voxel_edges(affine)
    qfac = 1.0
    if np.linalg.det(m) < 0:
        qfac = -1.0
        m = m * (1.0, 1.0, -1.0)
    k = np.array(
        [
            [m[0, 0] + m[1, 1] + m[2, 2], 0, 0, 0],
            [m[2, 1] - m[1, 2], m[0, 0] - m[1, 1] - m[2, 2], 0, 0],
            [m[0, 2] - m[2, 0], m[0, 1] + m[1, 0], m[1, 1] - m[0, 0] - m[2, 2], 0],
            [m[1, 0] - m[0, 1], m[0, 2] + m[2, 0], m[1, 2] + m[2, 1], m[2, 2] - m[0, 0] - m[1, 1]],
        ]
    )
    a, b, c, d = np.linalg.eigh(k, UPLO="L")[1][:, -1]
    # A half turn has a = 0 up to rounding, and either sign is right.
    sign = math.copysign(1.0, a)
    return qfac, (float(sign * b), float(sign * c), float(sign * d))
