"""NIfTI files and grids to test with: honest ones by nibabel, the oracle, and broken ones by editing their bytes."""

from __future__ import annotations

import gzip
import itertools
import struct
from pathlib import Path

import nibabel as nib
import numpy as np
from nibabel import orientations

ORIENTATIONS = ("RAS", "LPS", "LPI", "ASL", "PLS")
ALL_ORIENTATIONS = tuple(
    "".join(pair[flip] for pair, flip in zip(axes, flips, strict=True))
    for axes in itertools.permutations(("LR", "PA", "IS"))
    for flips in itertools.product((0, 1), repeat=3)
)
SPACING = (0.9, 1.1, 2.5)
ORIGIN = (-31.0, 12.5, 7.25)


def field(shape: tuple[int, ...], seed: int = 0) -> np.ndarray:
    """float32 in (0, 1), "class z y x" or "z y x"."""
    return np.random.default_rng(seed).random(shape, dtype=np.float32)


def softmax_field(shape: tuple[int, ...], seed: int = 0) -> np.ndarray:
    """float32 "class z y x" that sums to 1 over the classes."""
    logits = np.random.default_rng(seed).normal(size=shape) * 3
    values = np.exp(logits - logits.max(axis=0))
    return (values / values.sum(axis=0)).astype(np.float32)


def rotation(degrees: float, axis: tuple[float, float, float] = (1.0, 2.0, 3.0)) -> np.ndarray:
    """Rodrigues' 3 x 3 matrix about ``axis``."""
    x, y, z = np.array(axis) / np.linalg.norm(axis)
    cross = np.array([[0, -z, y], [z, 0, -x], [-y, x, 0]])
    angle = np.deg2rad(degrees)
    return np.eye(3) + np.sin(angle) * cross + (1 - np.cos(angle)) * cross @ cross


def affine_of(
    codes: str = "RAS", *, oblique: float = 0.0, spacing: tuple = SPACING, origin: tuple = ORIGIN
) -> np.ndarray:
    """Index (x, y, z, 1) -> mm of a grid whose axes run towards ``codes``, turned by ``oblique`` degrees."""
    matrix = np.zeros((3, 3))
    for column, code in enumerate(codes):
        row = next(i for i, pair in enumerate(("LR", "PA", "IS")) if code in pair)
        matrix[row, column] = spacing[column] * (1 if code in "RAS" else -1)
    affine = np.eye(4)
    affine[:3, :3] = rotation(oblique) @ matrix
    affine[:3, 3] = origin
    return affine


def turned(labels: np.ndarray, affine: np.ndarray, codes: str) -> tuple[np.ndarray, np.ndarray]:
    """The same voxels ("z y x") counted along axes towards ``codes``, and the affine that says so (nibabel's way)."""
    start = orientations.io_orientation(affine)
    transform = orientations.ornt_transform(start, orientations.axcodes2ornt(codes))
    data = orientations.apply_orientation(labels.transpose(2, 1, 0), transform)
    xyz = labels.shape[::-1]
    return data.transpose(2, 1, 0), affine @ orientations.inv_ornt_aff(transform, xyz)


def save(
    path: Path,
    array: np.ndarray,
    affine: np.ndarray | None = None,
    *,
    sform: int = 1,
    qform: int = 1,
    qform_affine: np.ndarray | None = None,
    units: int | None = None,
    slope: tuple[float, float] | None = None,
    big_endian: bool = False,
    version: int = 1,
    extension: tuple[int, bytes] | None = None,
    axes: str = "reversed",
) -> Path:
    """Write by nibabel. array: as segcal holds it, the last axis is x; axes "disk": as on disk, x first."""
    data = array.transpose() if axes == "reversed" else array
    affine = affine_of() if affine is None else affine
    image_class, header_class = {
        1: (nib.Nifti1Image, nib.Nifti1Header),
        2: (nib.Nifti2Image, nib.Nifti2Header),
    }[version]
    header = header_class(endianness=">" if big_endian else "<")
    image = image_class(np.asfortranarray(data), affine, header, dtype=data.dtype)
    image.set_sform(affine, code=sform)
    image.set_qform(affine if qform_affine is None else qform_affine, code=qform, strip_shears=True)
    image.header.set_slope_inter(1, 0)
    if units is not None:
        image.header["xyzt_units"] = units
    if extension is not None:
        image.header.extensions.append(nib.nifti1.Nifti1Extension(*extension))
    nib.save(image, path)
    if slope is not None:
        edit(path, 112, struct.pack(">ff" if big_endian else "<ff", *slope))
    return path


def edit(path: Path, offset: int, data: bytes) -> Path:
    """Overwrite bytes of the (uncompressed) content."""
    packed = path.name.endswith(".gz")
    content = bytearray(gzip.decompress(path.read_bytes()) if packed else path.read_bytes())
    content[offset : offset + len(data)] = data
    path.write_bytes(gzip.compress(bytes(content), 1, mtime=0) if packed else bytes(content))
    return path


def with_dims(path: Path, *dims: int) -> Path:
    """Set the header's dim field: rank first."""
    return edit(path, 40, struct.pack(f"<{len(dims)}h", *dims))


def in_members(content: bytes, count: int) -> bytes:
    """gzip of ``content`` as ``count`` members."""
    step = -(-len(content) // count)
    return b"".join(gzip.compress(content[i : i + step], mtime=0) for i in range(0, len(content), step))


def flipped(data: bytes, position: int) -> bytes:
    """``data`` with one byte inverted."""
    broken = bytearray(data)
    broken[position] ^= 0xFF
    return bytes(broken)
