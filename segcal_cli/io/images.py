"""Images: PNG and TIFF, as 2-D models and nnU-Net's TIFF reader write them.

A gray image holds one class, as a share of its largest value; a label image holds indices. Colour can be neither. Which
of them an image is stands in its header, so PNG headers are read here byte by byte: the image library widens 2-bit and
4-bit gray to 8 bits, which is right for probabilities and turns label 1 into 85 or 17.
"""

from __future__ import annotations

import struct
from collections.abc import Sequence
from pathlib import Path
from typing import BinaryIO, Literal

import numpy as np

from segcal_cli.core.errors import FormatError
from segcal_cli.core.frozen import dataclass
from segcal_cli.core.volume import Grid, Stored, Values
from segcal_cli.io.arrays import HardMask
from segcal_cli.io.documents import read_json
from segcal_cli.io.geometry import LARGEST_MM
from segcal_cli.io.inputs import check_case_size, check_expansion, input_size, open_input
from segcal_cli.io.suffixes import split_suffix, unread
from segcal_cli.io.tiffs import probe_tiff, read_tiff

PNG_HEADER = struct.Struct(">16sIIBB")
"""Signature, length and name of the first chunk, width, height, bits per sample, colour type."""

PNG_START = b"\x89PNG\r\n\x1a\n\x00\x00\x00\rIHDR"
"""The signature, and the first chunk's length and name, which the standard fixes."""

PNG_COLOURS = {0: ("L", 1), 2: ("RGB", 3), 3: ("P", 1), 4: ("LA", 2), 6: ("RGBA", 4)}
"""PNG colour types: name of the 8-bit mode, samples per pixel."""

TIFF_SUFFIXES = (".tif", ".tiff")

PNG_BITS = (1, 2, 4, 8, 16)

SMALLEST_MM = 1e-9
"""A voxel edge of less than an atom is damage, and its square would vanish."""

PNG_LEVEL = 6
"""zlib's level for the PNG that segcal writes; fixed, so that bytes do not hang on a default."""


class ColourProbabilities(FormatError):
    """A colour image where probabilities are needed."""

    template = "{0}: a colour image cannot hold probabilities; one gray image per class"


class ColourLabels(FormatError):
    """A colour image where labels are needed."""

    template = "{0}: RGB label image; save palette indices or one mask per class"


class ColourTiff(FormatError):
    """A scan in colours that nothing here mixes to gray."""

    template = "{0}: a colour TIFF cannot be drawn or looked at; save the scan as a gray TIFF, or as PNG"


class BrokenImage(FormatError):
    """A PNG that cannot be decoded to its end."""

    template = "{0}: broken PNG: {1}"


class UnusableNumbers(FormatError):
    """Samples that are no share of anything."""

    template = "{0}: {1} samples cannot be probabilities; expected 8 or 16 bits without sign, or floats"


class BadSpacing(FormatError):
    """The JSON beside a TIFF does not hold three voxel edges."""

    template = "{0}: spacing must be three positive numbers (z, y, x)"


@dataclass(frozen=True, slots=True)
class ImageHeader:
    """What an image says about itself. mode: ``1 L I;16 P LA RGB RGBA`` for PNG; ``gray P RGB`` for TIFF.

    shape: (z, y, x), z = 1 for PNG. bits: per sample, as stored. dtype: numpy name of what decoding gives.
    """

    path: Path
    format: Literal["png", "tiff"]
    mode: str
    shape: tuple[int, int, int]
    bits: int
    dtype: str

    @property
    def colour(self) -> bool:
        return self.mode in ("RGB", "RGBA", "LA")


def probe(path: Path) -> ImageHeader:
    """The header of a PNG or TIFF; decodes no pixel.

    Raises BrokenImage, BrokenTiff, UnusableTiff, AbsurdSize, OversizedCase, UnreadableFile, EmptyFile, and the
    refusals by suffix.
    """
    suffix = split_suffix(path.name)[1]
    if suffix == ".png":
        return _probe_png(path)
    if suffix not in TIFF_SUFFIXES:
        raise unread(path)
    tiff = probe_tiff(path)
    return ImageHeader(path, "tiff", tiff.mode, tiff.shape, tiff.bits, tiff.dtype)


def _probe_png(path: Path) -> ImageHeader:
    size = input_size(path)
    with open_input(path) as file:
        start = file.read(PNG_HEADER.size)
    if len(start) < PNG_HEADER.size or not start.startswith(PNG_START):
        raise BrokenImage(path, "it does not begin as a PNG")
    _, x, y, bits, colour = PNG_HEADER.unpack(start)
    if colour not in PNG_COLOURS or bits not in PNG_BITS or not x or not y:
        raise BrokenImage(path, f"{x} x {y} pixels, {bits} bits, colour type {colour}")
    mode, samples = PNG_COLOURS[colour]
    check_expansion(path, y * (1 + (x * bits * samples + 7) // 8), size)
    check_case_size(path, y * x * 4)
    if mode == "L":
        mode = {1: "1", 16: "I;16"}.get(bits, "L")
    return ImageHeader(path, "png", mode, (1, y, x), bits, "uint16" if bits == 16 else "uint8")


def read_probabilities(header: ImageHeader) -> np.ndarray:
    """The one class of a gray image, float32 "1 z y x": v / 255 for 8 bits, v / 65535 for 16, floats as they are.

    Raises ColourProbabilities (palettes too), HardMask (1 bit), UnusableNumbers, BrokenImage, BrokenTiff.
    """
    if header.colour or header.mode == "P":
        raise ColourProbabilities(header.path)
    if header.bits == 1:
        raise HardMask(header.path)
    if header.dtype not in ("uint8", "uint16", "float16", "float32", "float64"):
        raise UnusableNumbers(header.path, header.dtype)
    samples = _samples(header)
    if samples.dtype.kind == "f":
        with np.errstate(over="ignore"):
            return samples.astype(np.float32, copy=False)[None]
    # Divided, not multiplied by a rounded 1/255: the nearest float32 of v/255, and exactly 1 at the top.
    return np.divide(samples, np.float32(np.iinfo(samples.dtype).max), dtype=np.float32)[None]


def read_indices(header: ImageHeader) -> np.ndarray:
    """A label image as stored, "z y x": gray values, palette indices, or 0 and 1; TIFF of floats stay floats.

    Raises ColourLabels, BrokenImage, BrokenTiff.
    """
    if header.colour:
        raise ColourLabels(header.path)
    samples = _samples(header)
    if header.mode == "L" and header.bits < 8:
        samples //= 255 // (2**header.bits - 1)
    return samples


def read_shades(header: ImageHeader) -> np.ndarray:
    """A scan in shades of gray, "z y x": gray samples as stored, of a PNG in colours its luminance (ITU-R BT.601).

    Raises ColourTiff, BrokenImage, BrokenTiff.
    """
    if header.format == "tiff":
        if header.colour:
            raise ColourTiff(header.path)
        return read_tiff(header.path)
    return _png_samples(header, "L" if header.colour or header.mode == "P" else None)


def values_of(header: ImageHeader) -> Values | None:
    """Scaled integers are probabilities; floats do not say what they are."""
    return None if header.dtype.startswith("float") else "probabilities"


def stored(header: ImageHeader) -> Stored:
    """The type on disk and, for integers, the value of one unit."""
    if header.dtype.startswith("float"):
        return Stored(header.dtype)
    return Stored(header.dtype, 1.0 / (2**header.bits - 1))


def grid(header: ImageHeader) -> Grid:
    """Where the voxels lie: a TIFF has the voxel edges that ``CASE.json`` beside it gives, a PNG has none.

    Raises BadSpacing and what reading JSON raises.
    """
    beside = header.path.with_name(split_suffix(header.path.name)[0] + ".json")
    if header.format == "png" or not beside.is_file():
        return Grid(header.shape)
    document = read_json(beside)
    spacing = document.get("spacing") if isinstance(document, dict) else None
    if not isinstance(spacing, list) or len(spacing) != 3:
        raise BadSpacing(beside)
    if any(type(edge) not in (int, float) or not SMALLEST_MM <= edge <= LARGEST_MM for edge in spacing):
        raise BadSpacing(beside)
    z, y, x = spacing
    return Grid(header.shape, np.diag([float(x), float(y), float(z), 1.0]))


def _samples(header: ImageHeader) -> np.ndarray:
    return read_tiff(header.path) if header.format == "tiff" else _png_samples(header)


def _png_samples(header: ImageHeader, mode: str | None = None) -> np.ndarray:
    """Decoded pixels, "1 y x": uint8 or uint16, palettes as indices, 1 bit as 0 and 1. mode: turned into this first."""
    from PIL.PngImagePlugin import PngImageFile

    with open_input(header.path) as file:
        try:
            # Decoding alone stops at the last row and checks no CRC; verifying alone decodes nothing.
            PngImageFile(file).verify()
            file.seek(0)
            with PngImageFile(file) as image:
                samples = np.asarray(image if mode is None else image.convert(mode))
        except (OSError, SyntaxError, ValueError, EOFError, struct.error, IndexError, TypeError) as error:
            raise BrokenImage(header.path, str(error) or type(error).__name__) from error
    if samples.shape != header.shape[1:]:
        raise BrokenImage(header.path, f"decoded to {samples.shape}, its header says {header.shape[1:]}")
    return samples.astype(header.dtype)[None]


def write_mask_png(file: BinaryIO, mask: np.ndarray) -> None:
    """Writes a mask, bool "y x" or "1 y x", as gray 0 and 255. The same mask gives the same bytes."""
    _write_png(file, np.where(_plane(mask), np.uint8(255), np.uint8(0)))


def write_label_png(file: BinaryIO, codes: np.ndarray) -> None:
    """Writes label values, uint8 or uint16 "y x" or "1 y x", as gray. The same codes give the same bytes."""
    _write_png(file, _plane(codes))


def write_palette_png(file: BinaryIO, codes: np.ndarray, colours: Sequence[tuple[int, int, int]]) -> None:
    """Writes codes, uint8 "y x" or "1 y x", with a colour for each. The same codes give the same bytes."""
    from PIL import Image

    image = Image.fromarray(_plane(codes).astype(np.uint8))
    image.putpalette([level for colour in colours for level in colour])
    image.save(file, format="PNG", compress_level=PNG_LEVEL)


def _plane(array: np.ndarray) -> np.ndarray:
    if array.ndim == 3 and array.shape[0] == 1:
        array = array[0]
    if array.ndim != 2:
        raise ValueError(f"a PNG holds one plane, not an array of shape {array.shape}")
    return np.ascontiguousarray(array)


def _write_png(file: BinaryIO, plane: np.ndarray) -> None:
    from PIL import Image

    if plane.dtype not in (np.uint8, np.uint16):
        raise ValueError(f"a PNG holds uint8 or uint16, not {plane.dtype}")
    Image.fromarray(plane).save(file, format="PNG", compress_level=PNG_LEVEL)
