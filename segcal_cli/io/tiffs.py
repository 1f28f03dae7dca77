"""TIFF: a container of many things, of which segcal reads one, a gray image or a stack of them.

tifffile takes the container apart. What it may be is decided here from the tags, before a pixel is decoded: one series,
gray or palette, without compression or deflated, and with all of its strips inside the file.
"""

from __future__ import annotations

import logging
import threading
import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np

from segcal_cli.core.errors import FormatError
from segcal_cli.core.frozen import dataclass
from segcal_cli.io.inputs import check_case_size, check_expansion, input_size, open_input

GRAY_AXES = ("YX", "ZYX", "IYX", "QYX")
"""What tifffile calls a gray image and a stack of them. Channels (C), samples (S) and time (T) are something else."""

PLAIN, DEFLATE = (1,), (8, 32946)
"""The compression tags that are read: none, and deflate by its two numbers."""

LOSSY = (6, 7, 33003, 33005, 34712, 34892)
"""The compression tags of JPEG and JPEG 2000."""

INFLATED_BYTES = 2**18
"""Bytes inflated at a time."""

MAX_PAGES = 65_536
"""Pages of one stack. tifffile follows a chain of pages that bites its own tail for minutes."""

WHITE_IS_ZERO, BLACK_IS_ZERO, PALETTE = 0, 1, 3
"""Photometric tags: the first stores inverted values."""


class BrokenTiff(FormatError):
    """A TIFF that cannot be taken apart, or ends too early."""

    template = "{0}: broken TIFF: {1}"


class UnusableTiff(FormatError):
    """A whole TIFF, but of another kind."""

    template = "{0}: {1}; one gray stack (z, y, x), uncompressed or deflated, is expected"


@dataclass(frozen=True, slots=True)
class TiffHeader:
    """mode: gray, P (palette) or RGB (any colour). shape: (z, y, x). bits: per sample. dtype: numpy name."""

    mode: str
    shape: tuple[int, int, int]
    bits: int
    dtype: str


def probe_tiff(path: Path) -> TiffHeader:
    """The header. Raises BrokenTiff, UnusableTiff, AbsurdSize, OversizedCase, UnreadableFile, EmptyFile."""
    size = input_size(path)
    with _opened(path) as tiff:
        series = _only_series(path, tiff)
        page = series.keyframe
        shape, axes, dtype = tuple(int(n) for n in series.shape), series.axes, series.dtype
        bits, photometric, compression = int(page.bitspersample), int(page.photometric), int(page.compression)
        codec = getattr(page.compression, "name", compression)
    if compression in LOSSY:
        raise UnusableTiff(path, "JPEG inside a TIFF is lossy")
    if compression not in PLAIN + DEFLATE:
        raise UnusableTiff(path, f"compressed as {codec}")
    if dtype is None or dtype.kind not in "buif" or dtype.itemsize > 8:
        raise UnusableTiff(path, f"it holds {dtype}")
    check_expansion(path, int(np.prod(shape, dtype=object)) * bits // 8, size)
    check_case_size(path, int(np.prod(shape, dtype=object)) * max(dtype.itemsize, 4))
    if "S" in axes and axes.count("Y") == axes.count("X") == 1:
        return TiffHeader("RGB", (1, shape[axes.index("Y")], shape[axes.index("X")]), bits, dtype.name)
    if axes not in GRAY_AXES or 0 in shape:
        raise UnusableTiff(path, f"its axes are {axes} {shape}")
    if photometric not in (BLACK_IS_ZERO, PALETTE):
        raise UnusableTiff(path, "white is stored as 0" if photometric == WHITE_IS_ZERO else "it is not gray")
    z, y, x = (1, *shape)[-3:]
    return TiffHeader("P" if photometric == PALETTE else "gray", (z, y, x), bits, dtype.name)


def read_tiff(path: Path) -> np.ndarray:
    """The samples of a gray or palette TIFF, "z y x", stored type, native byte order. Raises as probe_tiff."""
    size, header = input_size(path), probe_tiff(path)
    with _opened(path) as tiff:
        series = _only_series(path, tiff)
        for page in series.pages:
            ends = [start + length for start, length in zip(page.dataoffsets, page.databytecounts, strict=True)]
            if max(ends, default=0) > size:
                raise BrokenTiff(path, f"its pixels should end at byte {max(ends)} of {size}")
            if int(page.compression) in DEFLATE:
                _check_inflated(path, tiff.filehandle, page)
        array = series.asarray(maxworkers=1)
    if array.size != np.prod(header.shape):
        raise BrokenTiff(path, f"{array.size} pixels decoded, {header.shape} declared")
    array = array.reshape(header.shape)
    return np.ascontiguousarray(array, dtype=array.dtype.newbyteorder("="))


def _check_inflated(path: Path, file: Any, page: Any) -> None:
    """Inflates each part of a page, a little at a time: tifffile would take all of it, however much that is. Raises
    BrokenTiff if there is more than the page declares."""
    declared = int(np.prod(page.chunks, dtype=object)) * max(page.dtype.itemsize, 1)
    for start, length in zip(page.dataoffsets, page.databytecounts, strict=True):
        inflater, inflated = zlib.decompressobj(), 0
        file.seek(start)
        packed = file.read(length)
        while packed and not inflater.eof:
            inflated += len(inflater.decompress(packed, INFLATED_BYTES))
            packed = inflater.unconsumed_tail
            if inflated > declared:
                raise BrokenTiff(path, f"more than the {declared} bytes of pixels declared")


def _only_series(path: Path, tiff: Any) -> Any:
    if len(tiff.series) != 1:
        raise UnusableTiff(path, f"{len(tiff.series)} images of different kinds")
    return tiff.series[0]


def _check_chain(path: Path, file: BinaryIO) -> None:
    """Follows the pages from one to the next: each must begin inside the file, and none twice. Raises BrokenTiff."""
    order = {b"II": "little", b"MM": "big"}.get(file.read(2))
    if order is None:
        raise BrokenTiff(path, "it does not begin as a TIFF")

    def number(width: int) -> int:
        return int.from_bytes(file.read(width), order)  # type: ignore[arg-type]

    big = number(2) == 43
    width, entry, count = (8, 20, 8) if big else (4, 12, 2)
    file.seek(8 if big else 4)
    size, at = input_size(path), number(width)
    seen: set[int] = set()
    while at:
        if at >= size or at in seen or len(seen) == MAX_PAGES:
            raise BrokenTiff(path, f"page {len(seen) + 1} would begin at byte {at} of {size}")
        seen.add(at)
        file.seek(at)
        file.seek(at + count + entry * min(number(count), size))
        at = number(width)
    file.seek(0)


class _Complaints(logging.Handler):
    """What tifffile logs as an error in this thread: a stack that lost its last pages is not an exception to it."""

    def __init__(self) -> None:
        super().__init__(logging.ERROR)
        self.thread = threading.get_ident()
        self.texts: list[str] = []

    def emit(self, record: logging.LogRecord) -> None:
        if record.thread == self.thread:
            self.texts.append(record.getMessage())


@contextmanager
def _opened(path: Path) -> Iterator[Any]:
    """The file as tifffile sees it. Errors, raised or logged, become BrokenTiff: damage surfaces there in any form."""
    import tifffile

    log, complaints = logging.getLogger("tifffile"), _Complaints()
    log.addHandler(complaints)
    try:
        with open_input(path) as file:
            _check_chain(path, file)
            with tifffile.TiffFile(file, name=path.name) as tiff:
                yield tiff
    except FormatError:
        raise
    except Exception as error:
        raise BrokenTiff(path, " ".join(str(error).split()) or type(error).__name__) from error
    finally:
        log.removeHandler(complaints)
    if complaints.texts:
        raise BrokenTiff(path, complaints.texts[0])
