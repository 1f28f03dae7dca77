"""The NIfTI header: 348 or 540 bytes that say how to read the rest, looked at before anything is believed.

NIfTI-1 and NIfTI-2 hold the same fields in different places and widths; both exist in either byte order. A reader that
trusts them tries to allocate whatever a damaged header asks for, so every field that decides on memory or meaning is
checked here: the size of the header, the magic, the dimensions, the type, the offset of the voxels, and whether the
file can hold so many. What the file says of its place in space is only collected; judging it is geometry's business.
"""

from __future__ import annotations

import math
import struct
from pathlib import Path
from typing import Literal

import numpy as np

from segcal_cli.core.errors import FormatError
from segcal_cli.core.frozen import dataclass
from segcal_cli.core.volume import Grid, Stored
from segcal_cli.io import gzipped
from segcal_cli.io.geometry import Space
from segcal_cli.io.inputs import (
    MAX_CASE_BYTES,
    EmptyFile,
    check_case_size,
    check_expansion,
    input_size,
    refuse_pipe,
    unreadable,
)

ByteOrder = Literal["<", ">"]

MAX_EXTENSION_BYTES = 16 * 2**20
"""No text that rides along with a volume (a label table) is larger than this."""

MIN_OFFSET = {1: 352, 2: 544}
"""Where voxels can begin at the earliest: after the header and the four bytes that announce extensions."""

_MAGIC = {1: b"n+1\0", 2: b"n+2\0\r\n\x1a\n"}
_PAIR_MAGIC = (b"ni1\0", b"ni2\0")
_HEADER_BYTES = {348: 1, 540: 2}

NIFTI1 = np.dtype(
    [
        ("sizeof_hdr", "<i4"), ("unused_a", "V35"), ("dim_info", "u1"), ("dim", "<i2", 8), ("intent_p", "<f4", 3),
        ("intent_code", "<i2"), ("datatype", "<i2"), ("bitpix", "<i2"), ("slice_start", "<i2"), ("pixdim", "<f4", 8),
        ("vox_offset", "<f4"), ("scl_slope", "<f4"), ("scl_inter", "<f4"), ("slice_end", "<i2"), ("slice_code", "u1"),
        ("xyzt_units", "u1"), ("unused_b", "V24"), ("descrip", "S80"), ("aux_file", "S24"), ("qform_code", "<i2"),
        ("sform_code", "<i2"), ("quatern", "<f4", 3), ("qoffset", "<f4", 3), ("srow", "<f4", (3, 4)),
        ("intent_name", "S16"), ("magic", "V4"),
    ]
)  # fmt: skip

NIFTI2 = np.dtype(
    [
        ("sizeof_hdr", "<i4"), ("magic", "V8"), ("datatype", "<i2"), ("bitpix", "<i2"), ("dim", "<i8", 8),
        ("intent_p", "<f8", 3), ("pixdim", "<f8", 8), ("vox_offset", "<i8"), ("scl_slope", "<f8"),
        ("scl_inter", "<f8"), ("unused_a", "V32"), ("slice_start", "<i8"), ("slice_end", "<i8"), ("descrip", "S80"),
        ("aux_file", "S24"), ("qform_code", "<i4"), ("sform_code", "<i4"), ("quatern", "<f8", 3), ("qoffset", "<f8", 3),
        ("srow", "<f8", (3, 4)), ("slice_code", "<i4"), ("xyzt_units", "<i4"), ("intent_code", "<i4"),
        ("intent_name", "S16"), ("dim_info", "u1"), ("unused_b", "V15"),
    ]
)  # fmt: skip

LAYOUTS = {1: NIFTI1, 2: NIFTI2}

DATATYPES = {2: "u1", 4: "i2", 8: "i4", 16: "f4", 64: "f8", 256: "i1", 512: "u2", 768: "u4", 1024: "i8", 1280: "u8"}
"""NIfTI's codes of the types that hold one real number per voxel, as numpy kinds."""

OTHER_DATATYPES = {
    1: "bits",
    32: "complex",
    128: "RGB",
    1536: "float128",
    1792: "complex",
    2048: "complex",
    2304: "RGBA",
}

UNITS_MM = {1: ("metre", 1000.0), 2: ("mm", 1.0), 3: ("micrometre", 0.001)}
"""xyzt_units -> name and length in mm; anything else is read as mm."""


class NotNifti(FormatError):
    """A file that does not begin like a NIfTI file."""

    template = "{0}: is not NIfTI ({1})"


class HeaderPair(FormatError):
    """Voxels in one file, header in another."""

    template = "{0}: is half of a .hdr/.img pair; convert it to one .nii.gz"


class BadDimensions(FormatError):
    """Dimensions that no array has."""

    template = "{0}: its header declares dimensions {1}, which no volume has"


class UnusableType(FormatError):
    """Voxels that are not one real number each."""

    template = "{0}: holds {1} voxels; one real number per voxel is expected"


class BadOffset(FormatError):
    """Voxels that would begin inside the header, or nowhere."""

    template = "{0}: its header lets the voxels begin at byte {1}"


class BadScaling(FormatError):
    """A slope that says that voxels are scaled, and an intercept that cannot be added."""

    template = "{0}: its voxels are scaled by {1:g} and shifted by {2:g}"


@dataclass(frozen=True, slots=True, eq=False)
class NiftiHeader:
    """What a NIfTI file says of itself; no voxel was read for it.

    shape: as on disk, x first, without the trailing axes that the header does not count. dtype: of the voxels on disk,
    with their byte order. slope, inter: value = slope x stored + inter; 1 and 0 if there is no scaling. sform, qform:
    float64 4 x 4 to mm, None where the code is 0. affine: the one that counts: sform, else qform, else pixdim alone.
    pixdim_mm: edges along the spatial axes. extensions: (code, content) of each, only as many as fit the bound.
    """

    path: Path
    version: int
    compressed: bool
    shape: tuple[int, ...]
    dtype: np.dtype
    vox_offset: int
    slope: float
    inter: float
    affine: np.ndarray
    sform: np.ndarray | None
    qform: np.ndarray | None
    sform_code: int
    qform_code: int
    pixdim_mm: tuple[float, ...]
    units: str
    intent_code: int
    extensions: tuple[tuple[int, bytes], ...] = ()

    @property
    def big_endian(self) -> bool:
        return self.dtype.byteorder == ">"

    @property
    def scaled(self) -> bool:
        return (self.slope, self.inter) != (1.0, 0.0)

    @property
    def array_shape(self) -> tuple[int, ...]:
        """The shape of the array in memory: the axes on disk reversed, "z y x" or "class z y x"."""
        return self.shape[::-1]

    @property
    def voxel_bytes(self) -> int:
        """Bytes of all voxels on disk, uncompressed."""
        return math.prod(self.shape) * self.dtype.itemsize

    @property
    def stored(self) -> Stored:
        """How finely the numbers were stored: integers have the step ``slope``, floats none."""
        step = abs(self.slope) if self.dtype.kind in "iu" else None
        return Stored(self.dtype.newbyteorder("=").name, step)

    def space(self, *, channel_axis: str = "last") -> Space:
        """Its place in space; with ``channel_axis`` "first" the first axis on disk is not a spatial one."""
        spatial = self.shape[1:4] if channel_axis == "first" and len(self.shape) > 3 else self.shape[:3]
        x, y, z = (*spatial, 1, 1, 1)[:3]
        return Space(
            name=str(self.path),
            grid=Grid((z, y, x), self.affine),
            sform=self.sform,
            qform=self.qform,
            sform_code=self.sform_code,
            qform_code=self.qform_code,
            pixdim_mm=self.pixdim_mm,
            units=self.units,
        )


def is_compressed(path: Path) -> bool:
    return path.name.lower().endswith(".gz")


def probe(path: Path) -> NiftiHeader:
    """Read and check the header of a ``.nii`` or ``.nii.gz``; no voxel is read.

    Raises gzipped's errors (NotGzip, TruncatedGzip, ..), UnreadableFile, EmptyFile, AbsurdSize, OversizedCase,
    NotNifti, HeaderPair, BadDimensions, UnusableType, BadOffset, BadScaling, and for an uncompressed file of another
    size TooShort or TooLong.
    """
    compressed = is_compressed(path)
    start = _head(path, MIN_OFFSET[2], compressed)
    version, order = _version(path, start)
    layout = LAYOUTS[version].newbyteorder(order)
    if len(start) < MIN_OFFSET[version]:
        raise gzipped.TooShort(path, len(start), MIN_OFFSET[version])
    fields = np.frombuffer(start, dtype=layout, count=1)[0]
    _check_magic(path, version, fields["magic"].tobytes())
    shape = _shape(path, fields["dim"])
    dtype = _dtype(path, int(fields["datatype"])).newbyteorder(order)
    offset = _offset(path, float(fields["vox_offset"]), MIN_OFFSET[version])
    _check_size(path, shape, dtype, offset, compressed)

    announced = start[MIN_OFFSET[version] - 4] != 0 and offset > MIN_OFFSET[version]
    extensions = _extensions(path, offset, MIN_OFFSET[version], order, compressed) if announced else ()
    slope, inter = _scaling(path, float(fields["scl_slope"]), float(fields["scl_inter"]))
    units, scale = UNITS_MM.get(int(fields["xyzt_units"]) & 7, UNITS_MM[2])
    spatial = min(len(shape), 3)
    sform_code, qform_code = int(fields["sform_code"]), int(fields["qform_code"])
    to_mm = np.diag([scale, scale, scale, 1.0])
    # Infinities and NaN are for check_usable to name; here they must not become warnings.
    with np.errstate(invalid="ignore", over="ignore"):
        pixdim = fields["pixdim"].astype(np.float64)
        # A 2-D file need not say how thick it is; one unit is as good as any thickness.
        edges = np.concatenate((pixdim[1 : 1 + spatial], np.ones(3 - spatial)))
        sform = to_mm @ _sform(fields["srow"]) if sform_code > 0 else None
        qform = to_mm @ _qform(fields["quatern"], fields["qoffset"], edges, pixdim[0]) if qform_code > 0 else None
        by_pixdim = to_mm @ np.diag([*np.abs(edges), 1.0])
    affine = sform if sform is not None else qform
    return NiftiHeader(
        path=path,
        version=version,
        compressed=compressed,
        shape=shape,
        dtype=dtype,
        vox_offset=offset,
        slope=slope,
        inter=inter,
        affine=by_pixdim if affine is None else affine,
        sform=sform,
        qform=qform,
        sform_code=sform_code,
        qform_code=qform_code,
        pixdim_mm=tuple(float(edge) * scale for edge in edges[:spatial]),
        units=units,
        intent_code=int(fields["intent_code"]),
        extensions=extensions,
    )


def _head(path: Path, count: int, compressed: bool) -> bytes:
    if compressed:
        return gzipped.head(path, count)
    try:
        refuse_pipe(path)
        with path.open("rb", buffering=0) as file:
            start = file.read(count)
    except OSError as error:
        raise unreadable(path, error) from error
    if not start:
        raise EmptyFile(path)
    return start


def _version(path: Path, start: bytes) -> tuple[int, ByteOrder]:
    """NIfTI-1 or -2, and the byte order ("<" or ">") in which the header's own size makes sense."""
    orders: tuple[ByteOrder, ...] = ("<", ">")
    for order in orders:
        size = struct.unpack(order + "i", start[:4])[0] if len(start) >= 4 else 0
        if size in _HEADER_BYTES:
            return _HEADER_BYTES[size], order
    if start[:2] == b"\x1f\x8b":
        raise NotNifti(path, "it is gzip; is .gz missing from its name?")
    raise NotNifti(path, f"it begins with {start[:4].hex(' ') or 'nothing'}")


def _check_magic(path: Path, version: int, magic: bytes) -> None:
    if magic == _MAGIC[version]:
        return
    if magic[:4] in _PAIR_MAGIC:
        raise HeaderPair(path)
    raise NotNifti(path, f"its magic is {magic!r}; Analyze 7.5 is not read")


def _shape(path: Path, dim: np.ndarray) -> tuple[int, ...]:
    rank, *lengths = (int(n) for n in dim)
    if not 2 <= rank <= 7 or min(lengths[:rank]) < 1:
        raise BadDimensions(
            path, " x ".join(str(n) for n in lengths[: rank if 1 <= rank <= 7 else 7]) + f" (rank {rank})"
        )
    return tuple(lengths[:rank])


def _dtype(path: Path, code: int) -> np.dtype:
    if code not in DATATYPES:
        raise UnusableType(path, OTHER_DATATYPES.get(code, f"unknown (datatype {code})"))
    return np.dtype(DATATYPES[code])


def _offset(path: Path, offset: float, least: int) -> int:
    if not math.isfinite(offset) or offset != int(offset) or not least <= offset <= MAX_CASE_BYTES:
        raise BadOffset(path, f"{offset:g}")
    return int(offset)


def _check_size(path: Path, shape: tuple[int, ...], dtype: np.dtype, offset: int, compressed: bool) -> None:
    voxels = math.prod(shape)
    declared = offset + voxels * dtype.itemsize
    # In memory every voxel takes the four bytes of a float32, however small it is on disk.
    check_case_size(path, max(declared, 4 * voxels))
    size = input_size(path)
    if compressed:
        check_expansion(path, declared, size)
    if not compressed and size != declared:
        raise gzipped.TooShort(path, size, declared) if size < declared else gzipped.TooLong(path, declared)


def _extensions(path: Path, offset: int, start: int, order: str, compressed: bool) -> tuple[tuple[int, bytes], ...]:
    """What lies between header and voxels, each a size, a code and a text. A chain that breaks ends there."""
    data = _head(path, min(offset, start + MAX_EXTENSION_BYTES), compressed)
    found = []
    while start + 8 <= len(data):
        size, code = struct.unpack_from(order + "ii", data, start)
        if size < 8 or start + size > len(data):
            break
        found.append((code, data[start + 8 : start + size]))
        start += size
    return tuple(found)


def _scaling(path: Path, slope: float, inter: float) -> tuple[float, float]:
    """A slope of 0, NaN or infinity means that nothing is scaled."""
    if slope == 0 or not math.isfinite(slope):
        return 1.0, 0.0
    if not math.isfinite(inter):
        raise BadScaling(path, slope, inter)
    return slope, inter


def _sform(rows: np.ndarray) -> np.ndarray:
    return np.vstack((rows.astype(np.float64), (0.0, 0.0, 0.0, 1.0)))


def _qform(quatern: np.ndarray, offset: np.ndarray, edges: np.ndarray, qfac: float) -> np.ndarray:
    """The rotation of the unit quaternion (a, b, c, d), a >= 0, times the voxel edges; ``qfac`` -1 turns z round."""
    b, c, d = (float(q) for q in quatern)
    rest = b * b + c * c + d * d
    if rest > 1.0 - float(np.finfo(quatern.dtype).eps):
        # Not to be told from a half turn, whose real part is 0: that much is the rounding of b, c and d alone.
        a = 0.0
        b, c, d = (q / math.sqrt(rest) for q in (b, c, d))
    else:
        a = math.sqrt(1.0 - rest)
    rotation = np.array(
        [
            [a * a + b * b - c * c - d * d, 2 * (b * c - a * d), 2 * (b * d + a * c)],
            [2 * (b * c + a * d), a * a + c * c - b * b - d * d, 2 * (c * d - a * b)],
            [2 * (b * d - a * c), 2 * (c * d + a * b), a * a + d * d - b * b - c * c],
        ]
    )
    affine = np.eye(4)
    affine[:3, :3] = rotation * (edges * (1.0, 1.0, -1.0 if qfac < 0 else 1.0))
    affine[:3, 3] = offset
    return affine
