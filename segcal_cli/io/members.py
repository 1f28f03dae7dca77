"""Stored bytes: the members of a zip archive, or one bare file, as a stream that is checked to its end.

Nothing is extracted, and no size is believed: a member is a place in the file, how its bytes are packed, how many come
out and what their CRC is. The stream ends exactly there or raises. Inflating is done by ISA-L, two to three times as
fast as zlib, in pieces that stay in the processor's cache.
"""

from __future__ import annotations

import struct
from collections.abc import Iterator
from itertools import pairwise
from pathlib import Path
from typing import BinaryIO

from segcal_cli.core.errors import FormatError
from segcal_cli.core.frozen import dataclass
from segcal_cli.io.inputs import check_expansion, input_size, open_input

CHUNK_BYTES = 2**18
"""Bytes read, and bytes inflated, at a time: enough to hide call overhead, few enough for a second-level cache."""

MAX_MEMBERS = 65_536
"""More members than this in one archive is no array file."""

LOCAL_HEADER = struct.Struct("<4s5H3L2H")
"""A zip member's own header, in front of its bytes (APPNOTE.TXT, 4.3.7)."""

ENCRYPTED = 0x1 | 0x40
"""Flag bits of a zip member: encrypted, strongly encrypted."""

STORED, DEFLATED = 0, 8
"""The zip compression methods that numpy writes."""


class BrokenArchive(FormatError):
    """The zip archive cannot be taken apart."""

    template = "{0}: broken .npz archive: {1}"


class UnreadableMember(FormatError):
    """A member in a form that no array writer uses."""

    template = "{0}: array {1} is {2}; save it with numpy.savez or numpy.savez_compressed"


class BrokenMember(FormatError):
    """A member's bytes are not what the archive says."""

    template = "{0}: array {1} is broken: {2}"


@dataclass(frozen=True, slots=True)
class Member:
    """Where ``size`` bytes lie in a file. name: without ``.npy``, "" for a bare file. crc: None for bare files."""

    path: Path
    name: str
    offset: int
    packed: int
    size: int
    deflated: bool = False
    crc: int | None = None


def bare_file(path: Path) -> Member:
    """A whole file as one member. Raises UnreadableFile, EmptyFile."""
    size = input_size(path)
    return Member(path, "", 0, size, size)


def array_members(path: Path) -> dict[str, Member]:
    """The ``.npy`` members of a zip archive by name, in the archive's order; others are passed over.

    Reads the archive's directory and each member's own header, no array. Raises UnreadableFile, EmptyFile,
    BrokenArchive, UnreadableMember, BrokenMember, AbsurdSize.
    """
    import zipfile

    size = input_size(path)
    members: dict[str, Member] = {}
    places: list[tuple[int, int, str]] = []
    with open_input(path) as file:
        if file.read(4) not in (b"PK\x03\x04", b"PK\x05\x06"):
            raise BrokenArchive(path, "it does not begin as a zip file")
        try:
            with zipfile.ZipFile(file) as archive:
                infos = archive.infolist()
        except (zipfile.BadZipFile, NotImplementedError, ValueError, OverflowError, struct.error, OSError) as error:
            raise BrokenArchive(path, f"{error}; truncated?") from error
        if len(infos) > MAX_MEMBERS:
            raise BrokenArchive(path, f"{len(infos)} members")
        for info in infos:
            if not info.filename.endswith(".npy"):
                continue
            name = info.filename.removesuffix(".npy")
            if name in members:
                raise BrokenArchive(path, f"it holds array {name!r} twice")
            if info.flag_bits & ENCRYPTED:
                raise UnreadableMember(path, name, "encrypted")
            if info.compress_type not in (STORED, DEFLATED):
                raise UnreadableMember(path, name, f"compressed by zip method {info.compress_type}")
            offset = _first_byte(path, file, name, info.header_offset)
            if offset + info.compress_size > size:
                raise BrokenMember(path, name, f"it should end at byte {offset + info.compress_size} of {size}")
            deflated = info.compress_type == DEFLATED
            if deflated:
                check_expansion(path, info.file_size, info.compress_size)
            elif info.file_size != info.compress_size:
                raise BrokenMember(path, name, f"{info.compress_size} bytes stored, {info.file_size} declared")
            members[name] = Member(path, name, offset, info.compress_size, info.file_size, deflated, info.CRC)
            places.append((info.header_offset, offset + info.compress_size, name))
    _refuse_overlap(path, places)
    check_expansion(path, sum(member.size for member in members.values()), size)
    return members


def _refuse_overlap(path: Path, places: list[tuple[int, int, str]]) -> None:
    """Members that share bytes make a small file into many large arrays. places: first byte, end, name of each."""
    for (_, end, name), (start, _, other) in pairwise(sorted(places)):
        if start < end:
            raise BrokenArchive(path, f"arrays {name!r} and {other!r} share bytes")


def _first_byte(path: Path, file: BinaryIO, name: str, header_offset: int) -> int:
    """Where a member's bytes begin: behind its own header, whose length the directory does not tell."""
    file.seek(max(header_offset, 0))
    header = file.read(LOCAL_HEADER.size)
    if header_offset < 0 or len(header) < LOCAL_HEADER.size or not header.startswith(b"PK\x03\x04"):
        raise BrokenMember(path, name, "no member begins where the archive says")
    *_, name_length, extra_length = LOCAL_HEADER.unpack(header)
    return header_offset + LOCAL_HEADER.size + name_length + extra_length


def stream(member: Member) -> Iterator[bytes]:
    """The member's bytes in pieces, ``member.size`` of them in all; the CRC is checked before the iterator ends.

    Raises UnreadableFile, BrokenMember.
    """
    from isal.isal_zlib import crc32

    seen = crc = 0
    with open_input(member.path) as file:
        file.seek(member.offset)
        for piece in _inflated(file, member) if member.deflated else _plain(file, member):
            seen += len(piece)
            if seen > member.size:
                raise BrokenMember(member.path, member.name, f"more than the {member.size} bytes declared")
            if member.crc is not None:
                crc = crc32(piece, crc)
            yield piece
    if seen < member.size:
        raise BrokenMember(member.path, member.name, f"it ends after {seen} of {member.size} bytes")
    if member.crc is not None and crc != member.crc:
        raise BrokenMember(member.path, member.name, "its checksum is wrong (damaged copy?)")


def _plain(file: BinaryIO, member: Member) -> Iterator[bytes]:
    left = member.packed
    while left and (piece := file.read(min(CHUNK_BYTES, left))):
        left -= len(piece)
        yield piece


def _inflated(file: BinaryIO, member: Member) -> Iterator[bytes]:
    from isal import igzip_lib

    inflater = igzip_lib.IgzipDecompressor(flag=igzip_lib.DECOMP_DEFLATE)
    left = member.packed
    while not inflater.eof:
        data = b""
        if inflater.needs_input:
            data = file.read(min(CHUNK_BYTES, left))
            left -= len(data)
            if not data:
                return
        try:
            piece = inflater.decompress(data, CHUNK_BYTES)
        except igzip_lib.error as error:  # type: ignore[misc]  # its stub declares an instance
            raise BrokenMember(member.path, member.name, f"it cannot be decompressed ({error})") from error
        if piece:
            yield piece
    if left or inflater.unused_data:
        raise BrokenMember(member.path, member.name, "bytes follow its end")
