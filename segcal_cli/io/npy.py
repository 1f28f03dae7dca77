"""The ``.npy`` layout: a short header, a Python literal, and then exactly the bytes of one array.

``numpy.load`` trusts that header: it allocates what it asks for and stops reading where it ends. Here the header is
compared with the bytes that are there first, and arrays of Python objects, which only unpickling can read, are refused.
"""

from __future__ import annotations

import ast
import math
from collections.abc import Iterator
from threading import Lock

import numpy as np

from segcal_cli.core.errors import FormatError
from segcal_cli.core.frozen import dataclass
from segcal_cli.io.inputs import check_case_size, check_expansion
from segcal_cli.io.members import BrokenMember, Member, stream

MAX_HEADER_BYTES = 10_000
"""As numpy.lib.format: a longer header is not that of a plain array, and parsing it would be slow."""

MAX_DIMENSIONS = 64
"""More axes than numpy itself supports."""

MAGIC = b"\x93NUMPY"

_LITERALS = Lock()
"""Python 3.11 counts the depth of a literal in one place for all threads: two at once can end in a SystemError, when a
collection of garbage falls between.
"""


class BrokenHeader(FormatError):
    """The text in front of the array is not a .npy header."""

    template = "{0}: array {1} has no valid .npy header ({2})"


class ObjectArray(FormatError):
    """An array of Python objects, that is, a pickle."""

    template = "{0}: array {1} holds Python objects, that is a pickle; never opened, it can run code"


class UnusableType(FormatError):
    """An array of something that is not a plain number."""

    template = "{0}: array {1} holds {2}; expected whole numbers or floats"


class SizeMismatch(FormatError):
    """Header and member disagree."""

    template = "{0}: array {1}: its header asks for {2} bytes of numbers, {3} are there"


@dataclass(frozen=True, slots=True)
class NpyHeader:
    """What a .npy header says. shape: in the order of the file's axes. start: bytes in front of the numbers."""

    shape: tuple[int, ...]
    dtype: np.dtype
    fortran: bool
    start: int

    @property
    def count(self) -> int:
        return math.prod(self.shape)


def read_header(member: Member) -> NpyHeader:
    """The header of a .npy member, compared with the member's size; reads some kB.

    Raises BrokenHeader, ObjectArray, UnusableType (anything but numbers and text), SizeMismatch, AbsurdSize,
    OversizedCase, BrokenMember, UnreadableFile.
    """
    header = _parsed(member)
    if header.dtype.hasobject:
        raise ObjectArray(member.path, member.name or "(bare)")
    if header.dtype.kind not in "biufU" or (header.dtype.kind != "U" and header.dtype.itemsize > 8):
        raise UnusableType(member.path, member.name or "(bare)", header.dtype)
    wanted, held = header.count * header.dtype.itemsize, member.size - header.start
    if wanted > held:
        check_expansion(member.path, wanted, member.packed)
    if wanted != held:
        raise SizeMismatch(member.path, member.name or "(bare)", wanted, held)
    # Axes of length 0 hide absurd ones beside them, which numpy cannot even describe.
    check_case_size(member.path, math.prod(n for n in header.shape if n) * max(header.dtype.itemsize, 4))
    return header


def _parsed(member: Member) -> NpyHeader:
    def broken(why: str) -> BrokenHeader:
        return BrokenHeader(member.path, member.name or "(bare)", why)

    pieces = stream(member)
    head = bytearray()
    while len(head) < MAX_HEADER_BYTES + 12 and (piece := _next(pieces, member, head)):
        head += piece
    pieces.close()  # type: ignore[attr-defined]
    if not head.startswith(MAGIC) or len(head) < 12:
        raise broken("it does not begin with \\x93NUMPY")
    major, width = head[6], 2 if head[6] == 1 else 4
    if major not in (1, 2):
        raise broken(f"version {major}")
    start = 8 + width + int.from_bytes(head[8 : 8 + width], "little")
    if start > min(len(head), MAX_HEADER_BYTES):
        raise broken(f"{start} bytes long")
    try:
        with _LITERALS:
            fields = ast.literal_eval(head[8 + width : start].decode("latin1"))
        descr, fortran, shape = fields["descr"], fields["fortran_order"], fields["shape"]
        dtype = np.lib.format.descr_to_dtype(descr)
    except (ValueError, SyntaxError, TypeError, KeyError, AttributeError, RecursionError, MemoryError) as error:
        raise broken(f"{type(error).__name__}") from error
    if not isinstance(shape, tuple) or len(shape) > MAX_DIMENSIONS or type(fortran) is not bool:
        raise broken("shape or order")
    if any(type(n) is not int or n < 0 for n in shape):
        raise broken(f"shape {shape}")
    return NpyHeader(shape, dtype, fortran, start)


def _next(pieces: Iterator[bytes], member: Member, head: bytearray) -> bytes:
    """The next piece; a member that ends, or breaks, behind its header is for whoever reads its numbers to refuse."""
    try:
        return next(pieces, b"")
    except BrokenMember:
        if head.startswith(MAGIC):
            return b""
        raise


def numbers(member: Member, header: NpyHeader) -> Iterator[np.ndarray]:
    """The entries in the order of the file, as flat arrays of the stored type. Raises BrokenMember, UnreadableFile."""
    skip, rest, size = header.start, b"", header.dtype.itemsize
    for piece in stream(member):
        if skip >= len(piece):
            skip -= len(piece)
            continue
        piece = rest + piece[skip:] if rest or skip else piece
        skip = 0
        whole = len(piece) // size * size
        rest = piece[whole:]
        yield np.frombuffer(piece, header.dtype, whole // size)


def fill(view: np.ndarray, member: Member, header: NpyHeader) -> None:
    """Streams the numbers into ``view``, whose axes are the file's, casting to its dtype; the only copy is one piece.

    view may be a transposed view of a C-contiguous array: that is how other orders of axes are undone without a second
    copy. Numbers beyond the range of float32 become infinite, and the value checks find them.
    """
    stored = view.T if header.fortran else view
    flat = stored.reshape(-1) if stored.flags.c_contiguous else stored.flat
    at = 0
    with np.errstate(over="ignore", invalid="ignore"):
        for piece in numbers(member, header):
            flat[at : at + piece.size] = piece
            at += piece.size
