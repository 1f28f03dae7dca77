"""gzip, both ways, as fast as isal does it and without a second copy of anything.

A compressed volume is decoded in pieces of two megabytes, so that reading needs the array that takes them and little
else. isal drops the interpreter lock while it decodes.

A gzip file may consist of several members, one after the other; what they decode to is joined. Every member ends with a
checksum that covers it, so a file is read to its very end even when all wanted bytes are there: stopping early would
skip the check. Every way in which such a file can be broken has an error of its own here, and a size is checked against
what the file can possibly hold before anything is allocated for it.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import BinaryIO

from segcal_cli.core.errors import FormatError
from segcal_cli.io.inputs import EmptyFile, refuse_pipe, unreadable

LEVEL = 2
"""isal's own default. Level 3 needs four times as long to save a further 0.3 % of a probability volume."""

CHUNK_BYTES = 2**21
"""Bytes decoded at a time: few enough to stay near the cores until they are copied, and enough that a thread which
decodes seldom waits for one that runs Python."""

INPUT_BYTES = 2**21
"""Bytes of the compressed file read at a time."""

HEAD_INPUT_BYTES = 2**14
"""The same where only the beginning is wanted; isal copies what it does not need yet."""

_GZIP_MAGIC = b"\x1f\x8b"


class NotGzip(FormatError):
    """A name that ends in .gz on something else."""

    template = "{0}: is not gzip, though its name ends in .gz"


class TruncatedGzip(FormatError):
    """The file ends inside a member."""

    template = "{0}: the gzip stream ends too early; the file is truncated"


class DamagedGzip(FormatError):
    """Bits that cannot be decoded, or a checksum that does not fit what was decoded."""

    template = "{0}: the gzip stream is damaged ({1})"


class TrailingBytes(FormatError):
    """Something that is no gzip member follows the last one."""

    template = "{0}: bytes that are not gzip follow the end of the stream"


class TooShort(FormatError):
    """The data end before all that the header declares is there."""

    template = "{0}: holds {1} bytes, but its header declares {2}"


class TooLong(FormatError):
    """The data go on after all that the header declares."""

    template = "{0}: holds more than the {1} bytes that its header declares"


def chunks(path: Path, *, chunk_bytes: int = CHUNK_BYTES, input_bytes: int = INPUT_BYTES) -> Iterator[bytes]:
    """The decoded bytes of all members, in pieces of 1 to ``chunk_bytes`` bytes, with every checksum verified.

    A member's checksum is verified before its last piece is handed out. Zero bytes after the last member are the
    padding that block devices add, and are passed over as gzip itself does. Raises UnreadableFile, EmptyFile, NotGzip,
    TruncatedGzip, DamagedGzip, TrailingBytes.
    """
    from isal import igzip_lib

    damage = ""
    try:
        refuse_pipe(path)
        with path.open("rb", buffering=0) as file:
            pending = file.read(input_bytes)
            if not pending:
                raise EmptyFile(path)
            if not pending.startswith(_GZIP_MAGIC):
                raise NotGzip(path)
            while pending:
                member = igzip_lib.IgzipDecompressor(igzip_lib.DECOMP_GZIP)
                while not member.eof:
                    if member.needs_input and not pending:
                        pending = file.read(input_bytes)
                        if not pending:
                            raise TruncatedGzip(path)
                    piece = member.decompress(pending, chunk_bytes)
                    pending = b""
                    if piece:
                        yield piece
                pending = _next_member(path, file, member.unused_data)
    except igzip_lib.IsalError as error:  # type: ignore[misc]
        damage = _reason(error)
    except OSError as error:
        raise unreadable(path, error) from error
    if damage:
        # Not from isal's error: it cannot be pickled, and where dask is loaded an error takes its chain along.
        raise DamagedGzip(path, damage)


def _next_member(path: Path, file: BinaryIO, pending: bytes) -> bytes:
    """The input from the next member's first byte on; empty at the end of the file."""
    while True:
        pending = pending.lstrip(b"\0")
        if len(pending) < len(_GZIP_MAGIC):
            more = file.read(INPUT_BYTES)
            if more:
                pending += more
                continue
        if pending and not pending.startswith(_GZIP_MAGIC):
            raise TrailingBytes(path)
        return pending


def _reason(error: Exception) -> str:
    """isal's sentence without its number: "incorrect checksum found"."""
    words = str(error).split()
    return " ".join(words[2:] if words[:1] == ["Error"] else words).lower() or "unknown"


def head(path: Path, count: int) -> bytes:
    """The first ``count`` (>= 1) decoded bytes, or all if there are fewer; what follows is not even checked."""
    taken = bytearray()
    for piece in chunks(path, chunk_bytes=count, input_bytes=HEAD_INPUT_BYTES):
        taken += piece
        if len(taken) >= count:
            break
    return bytes(taken[:count])


def payload(path: Path, pieces: Iterable[bytes | memoryview], *, skip: int, size: int) -> Iterator[bytes | memoryview]:
    """``pieces`` without their first ``skip`` bytes, held to exactly ``size`` bytes. Raises TooShort, TooLong."""
    seen = 0
    for piece in pieces:
        start, seen = seen, seen + len(piece)
        if seen > skip + size:
            raise TooLong(path, skip + size)
        if start >= skip:
            yield piece
        elif seen > skip:
            yield memoryview(piece)[skip - start :]
    if seen < skip + size:
        raise TooShort(path, seen, skip + size)


def compress_into(file: BinaryIO, parts: Iterable[bytes | memoryview]) -> None:
    """Write ``parts`` to ``file`` as one gzip member without date or name: same content, same bytes."""
    from isal import isal_zlib

    # 31 = 15 bits of window + 16: a gzip wrapper, whose date and name isal leaves empty.
    stream = isal_zlib.compressobj(LEVEL, isal_zlib.DEFLATED, 31)
    for part in parts:
        view = memoryview(part).cast("B")
        for start in range(0, len(view), CHUNK_BYTES):
            file.write(stream.compress(view[start : start + CHUNK_BYTES]))
    file.write(stream.flush())
