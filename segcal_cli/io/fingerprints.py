"""Fingerprints of files: what they held (sha256), and what the file system says of them.

Hashing a folder of scans takes as long as reading it, so a digest that is on record is used again while size, times and
inode are the same. The time of the last change of an inode (ctime) cannot be set back, so a file that was replaced by
one of equal size and date is noticed; Windows has no such time, so there everything is hashed.
"""

from __future__ import annotations

import hashlib
import os
import time
from collections.abc import Mapping
from dataclasses import asdict
from pathlib import Path
from typing import Any

from segcal_cli.core.errors import FormatError
from segcal_cli.core.frozen import dataclass
from segcal_cli.io.inputs import unreadable

HAS_CTIME = os.name == "posix"
"""Whether st_ctime is the time of the last change of the inode."""


class ChangedWhileRead(FormatError):
    """A file that somebody wrote to while it was read."""

    template = "{0}: changed while it was read"


@dataclass(frozen=True, slots=True)
class InputFile:
    """A file of a case. role: what it is to the case; name: as the record calls it, below its folder."""

    role: str
    path: Path
    name: str


@dataclass(frozen=True, slots=True)
class Fingerprint:
    """What a record says of an input."""

    role: str
    file: str
    sha256: str
    size: int
    mtime_ns: int
    ctime_ns: int
    inode: int

    def to_json(self) -> dict[str, Any]:
        return asdict(self)


def fingerprint(file: InputFile, known: Mapping[str, Any] | None = None) -> Fingerprint:
    """The fingerprint of an input. known: the entry on record, whose digest is used where nothing has changed.

    Raises UnreadableFile, ChangedWhileRead.
    """
    try:
        before = file.path.stat()
        digest = _known_digest(before, known)
        if digest is None:
            digest = sha256(file.path)
            require_same(file.path, before)
    except OSError as error:
        raise unreadable(file.path, error) from error
    size, mtime, ctime = before.st_size, before.st_mtime_ns, before.st_ctime_ns
    return Fingerprint(file.role, file.name, digest, size, mtime, ctime, before.st_ino)


def require_unchanged(file: InputFile, taken: Fingerprint) -> None:
    """Raise ChangedWhileRead if a file is no longer the one that the fingerprint was taken of."""
    try:
        status = file.path.stat()
    except OSError as error:
        raise unreadable(file.path, error) from error
    if (status.st_size, status.st_mtime_ns) != (taken.size, taken.mtime_ns):
        raise ChangedWhileRead(file.path)


def require_same(path: Path, before: os.stat_result) -> None:
    """Raise ChangedWhileRead if size or time differ from those before."""
    after = path.stat()
    if (after.st_size, after.st_mtime_ns) != (before.st_size, before.st_mtime_ns):
        raise ChangedWhileRead(path)


def sha256(path: Path) -> str:
    """sha256 of a file's bytes, in hexadecimal."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def output_entry(path: Path) -> dict[str, Any]:
    """What a record says of an output."""
    status = path.stat()
    return {"file": path.name, "sha256": sha256(path), "size": status.st_size, "mtime_ns": status.st_mtime_ns}


def output_unchanged(folder: Path, entry: Mapping[str, Any]) -> bool:
    """Whether a recorded output is there as it was written: by size and time, else by its bytes."""
    path = folder / str(entry["file"])
    try:
        status = path.lstat()
        if path.is_symlink() or status.st_size != entry["size"]:
            return False
        return status.st_mtime_ns == entry["mtime_ns"] or sha256(path) == entry["sha256"]
    except OSError:
        return False


def size_and_time(path: Path) -> tuple[int, int] | None:
    """(size, mtime_ns) of a file, None where it is not there."""
    try:
        status = path.stat()
    except OSError:
        return None
    return status.st_size, status.st_mtime_ns


def younger_than(path: Path, seconds: float) -> bool:
    """Whether a file may still be on its way: copying keeps an old mtime, but not an old ctime."""
    try:
        status = path.stat()
    except OSError:
        return False
    now = time.time()
    # A time in the future (another machine's clock) says nothing of the age.
    stamps = [stamp for stamp in (status.st_mtime, status.st_ctime) if stamp <= now]
    return bool(stamps) and now - max(stamps) < seconds


def _known_digest(status: os.stat_result, known: Mapping[str, Any] | None) -> str | None:
    if known is None or not HAS_CTIME:
        return None
    stat = {"size": status.st_size, "mtime_ns": status.st_mtime_ns}
    stat |= {"ctime_ns": status.st_ctime_ns, "inode": status.st_ino}
    digest = known.get("sha256")
    return digest if isinstance(digest, str) and all(known.get(name) == value for name, value in stat.items()) else None
