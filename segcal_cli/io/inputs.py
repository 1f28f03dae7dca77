"""Input files: opened once, with a limit on what they may ask for.

A file is a claim about sizes. A few bytes can claim terabytes, so every reader compares the claim with the bytes that
are there before it allocates anything, and the limits for that stand here.
"""

from __future__ import annotations

import stat
from pathlib import Path
from typing import BinaryIO

from segcal_cli.core.errors import FormatError

MAX_CASE_BYTES = 64 * 2**30
"""No array in memory may be larger than this, whatever a header says."""

MAX_TEXT_BYTES = 16 * 2**20
"""JSON, TOML and XML files are tables written by hand or by a tool; more than this is something else."""

DEFLATE_RATIO = 1032
"""Deflate cannot expand a byte into more than this many (258 bytes per 2 bits of a maximally short code)."""

DEFLATE_SLACK = 2**20
"""Added to the deflate bound, so that tiny files are never refused over block headers."""


class UnreadableFile(FormatError):
    """The operating system does not let the file be read."""

    template = "{0}: {1}"


class EmptyFile(FormatError):
    """A file of zero bytes."""

    template = "{0}: is empty (0 bytes)"


class OversizedText(FormatError):
    """A table that is too large to be one."""

    template = "{0}: {1} bytes of text; at most {2} are read"


class AbsurdSize(FormatError):
    """A header asks for more than its file can hold."""

    template = "{0}: its header asks for {1} bytes, more than its {2} bytes can hold"


class OversizedCase(FormatError):
    """A header asks for more than segcal allocates for one case."""

    template = "{0}: needs {1} bytes in memory; at most {2} are read"


def unreadable(path: Path, error: OSError) -> UnreadableFile:
    """The operating system's refusal as an error of ours: "permission denied"."""
    return UnreadableFile(path, (error.strerror or str(error) or type(error).__name__).lower())


def refuse_pipe(path: Path) -> None:
    """Raise UnreadableFile for a pipe, which a run would open and wait for as long as nobody writes to it."""
    if stat.S_ISFIFO(path.stat().st_mode):
        raise UnreadableFile(path, "is a pipe, not a file")


def open_input(path: Path) -> BinaryIO:
    """The file, opened for reading bytes. Raises UnreadableFile."""
    try:
        refuse_pipe(path)
        return path.open("rb")
    except OSError as error:
        raise unreadable(path, error) from error


def input_size(path: Path) -> int:
    """Bytes in the file. Raises UnreadableFile, EmptyFile."""
    try:
        size = path.stat().st_size
    except OSError as error:
        raise unreadable(path, error) from error
    if size == 0:
        raise EmptyFile(path)
    return size


def read_text_bytes(path: Path) -> bytes:
    """All bytes of a text file, which may be a pipe (``<(command)`` in a shell). Raises UnreadableFile, EmptyFile,
    OversizedText."""
    try:
        with path.open("rb") as file:
            content = file.read(MAX_TEXT_BYTES + 1)
    except OSError as error:
        raise unreadable(path, error) from error
    if not content:
        raise EmptyFile(path)
    if len(content) > MAX_TEXT_BYTES:
        raise OversizedText(path, input_size(path), MAX_TEXT_BYTES)
    return content


def check_expansion(path: Path, wanted: int, held: int) -> None:
    """Refuses a claim of ``wanted`` decoded bytes that ``held`` deflated bytes cannot meet. Raises AbsurdSize."""
    if wanted > DEFLATE_RATIO * held + DEFLATE_SLACK:
        raise AbsurdSize(path, wanted, held)


def check_case_size(path: Path, wanted: int) -> None:
    """Refuses a claim of more bytes than one case may take. Raises OversizedCase."""
    if wanted > MAX_CASE_BYTES:
        raise OversizedCase(path, wanted, MAX_CASE_BYTES)
