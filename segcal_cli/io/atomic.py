"""Files that appear whole or not at all.

What is written goes to a temp beside its target, is forced to the disk, and takes the target's name in one step.
Whoever looks sees the old file or the new one, and a killed run leaves at most a temp, which begins with a dot and is
no output. The temp lies in the target's folder because only there is a rename one step; a symbolic link at the target
is replaced, not followed.

The files of one case belong together: all temps are complete before the first rename, and the renames come in the order
that the caller gives, so that the file which stands for the case (the volume) can come last.
"""

from __future__ import annotations

import contextlib
import io
import os
import shutil
import stat
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, BinaryIO

from segcal_cli.core.errors import WriteError
from segcal_cli.core.frozen import dataclass

if TYPE_CHECKING:
    from _typeshed import ReadableBuffer as Buffer

DEFAULT_TAG = "file"
"""The tag of temps whose writer holds no lock."""

FILLING = "filling"
"""What the folder is called in which files wait for each other."""

ABANDONED_SECONDS = 86400.0
"""A temp without a lock that nobody has written to for a day is what a killed run left."""

MAX_NAME_BYTES = 255
"""The longest file name that common file systems take; the target's name is cut in its temp's name to stay below."""

_CREATE = (
    os.O_WRONLY
    | os.O_CREAT
    | os.O_EXCL
    | getattr(os, "O_NOFOLLOW", 0)
    | getattr(os, "O_CLOEXEC", 0)
    | getattr(os, "O_BINARY", 0)
)


class _Temp(io.FileIO):
    """An open temp whose failed writes name its target: an OSError of the disk would say nothing about the file."""

    def __init__(self, descriptor: int, target: Path) -> None:
        super().__init__(descriptor, "wb")
        self._target = target

    def write(self, data: Buffer, /) -> int:
        try:
            return super().write(data)
        except OSError as error:
            raise WriteError(self._target, _reason(error)) from error


@dataclass(frozen=True, slots=True)
class _Pending:
    """A target and the open temp that will take its name."""

    target: Path
    temp: Path
    file: BinaryIO


def temp_path(target: Path, tag: str) -> Path:
    """A fresh ``.NAME.tmp-TAG-RANDOM.ext`` beside ``target``. The suffix stays last: some writers go by it."""
    name = target.name
    suffix = target.suffix
    if suffix == ".gz":
        suffix = Path(name[: -len(suffix)]).suffix + suffix
    stem = name[: len(name) - len(suffix)]
    tail = f".tmp-{tag}-{os.urandom(6).hex()}{suffix}"
    room = MAX_NAME_BYTES - len(os.fsencode(tail)) - 1
    if len(os.fsencode(stem)) > room:  # cut between characters
        stem = os.fsencode(stem)[:room].decode(errors="ignore")
    return target.with_name(f".{stem}{tail}")


def refuse_special(target: Path) -> None:
    """Raise WriteError for a device, a pipe or a socket, or a link to one: a file would take its place."""
    try:
        mode = target.stat().st_mode
    except OSError:
        return
    if not stat.S_ISREG(mode) and not stat.S_ISDIR(mode):
        raise WriteError(target, "it is a device, a pipe or a socket")


@contextlib.contextmanager
def writing_together(targets: Sequence[Path], *, tag: str = DEFAULT_TAG) -> Iterator[tuple[BinaryIO, ...]]:
    """Open a temp for each target; when the block ends well, rename them all, in the order of ``targets``.

    Any exception in the block (KeyboardInterrupt too) removes the temps and leaves every target as it was. Raises
    WriteError naming the target and the reason where a file cannot be opened, written, synced or renamed, or would take
    the place of something that is no file.
    """
    for target in targets:
        refuse_special(target)
    # Named before they are made: an interrupt may come between the making of a file and the next line.
    temps = [temp_path(target, tag) for target in targets]
    pending: list[_Pending] = []
    try:
        for target, temp in zip(targets, temps, strict=True):
            pending.append(_open(target, temp))
        yield tuple(entry.file for entry in pending)
        for entry in pending:
            _finish(entry)
        while pending:
            _rename(pending[0].target, pending[0].temp)
            del pending[0]
        for folder in dict.fromkeys(target.parent for target in targets):
            _sync_folder(folder)
    finally:
        for entry in pending:
            with contextlib.suppress(OSError, WriteError):
                entry.file.close()
        for temp in temps:
            with contextlib.suppress(OSError):
                temp.unlink()


@contextlib.contextmanager
def writing(target: Path, *, tag: str = DEFAULT_TAG) -> Iterator[BinaryIO]:
    """Open a temp that becomes ``target`` when the block ends well. Raises WriteError; see ``writing_together``.

    Without a lock nobody knows whose a temp is, so only those that were abandoned a day ago are removed.
    """
    if tag == DEFAULT_TAG:
        with contextlib.suppress(OSError):
            remove_temps(target.parent, tag, older_than_s=ABANDONED_SECONDS)
    with writing_together([target], tag=tag) as (file,):
        yield file


@contextlib.contextmanager
def filling(folder: Path, last: str) -> Iterator[Path]:
    """A folder inside ``folder``, to write into; when the block ends well, its files move to ``folder``, ``last`` last.

    For files that mean nothing without each other. Any exception in the block (KeyboardInterrupt too) removes them and
    leaves ``folder`` as it was. Raises WriteError.
    """
    for left in folder.glob(f".{FILLING}.tmp-{DEFAULT_TAG}-*"):
        with contextlib.suppress(OSError):
            if left.is_dir() and left.stat().st_mtime <= time.time() - ABANDONED_SECONDS:
                shutil.rmtree(left)
    inner = temp_path(folder / FILLING, DEFAULT_TAG)
    try:
        try:
            inner.mkdir()
        except OSError as error:
            raise WriteError(folder, _reason(error)) from error
        yield inner
        made = sorted(inner.iterdir(), key=lambda path: (path.name == last, os.fsencode(path.name)))
        for path in made:
            refuse_special(folder / path.name)
        for path in made:
            _rename(folder / path.name, path)
        _sync_folder(folder)
    except WriteError as error:
        path, reason = error.args
        # Nobody knows of the inner folder: what cannot be written is the file that was to come of it.
        raise WriteError(folder / path.name if path.parent == inner else path, reason) from error
    finally:
        shutil.rmtree(inner, ignore_errors=True)


def is_temp(path: Path) -> bool:
    """Whether a killed run left it: it is no output."""
    return path.name.startswith(".") and ".tmp-" in path.name


def write_bytes(target: Path, data: bytes, *, tag: str = DEFAULT_TAG) -> None:
    """Make ``target`` hold exactly ``data``, or leave it as it was. Raises WriteError."""
    with writing(target, tag=tag) as file:
        file.write(data)


def write_text(target: Path, text: str, *, tag: str = DEFAULT_TAG) -> None:
    """The same for text: UTF-8, line ends as given. Raises WriteError."""
    write_bytes(target, utf8(text), tag=tag)


def utf8(text: str) -> bytes:
    """Text as it is written. Bytes of a file name that are no UTF-8 stand there as JSON and Python escape them."""
    return text.encode("utf-8", "backslashreplace")


def remove_temps(folder: Path, tag: str, *, older_than_s: float = 0.0) -> tuple[Path, ...]:
    """Remove the temps in ``folder`` that bear ``tag`` and were last written that long ago; returns them.

    For the holder of the lock that the tag names: nobody else writes temps of that tag, so they are a killed run's.
    """
    removed = []
    latest = time.time() - older_than_s
    for path in sorted(folder.iterdir()):
        if path.name.startswith(".") and f".tmp-{tag}-" in path.name:
            with contextlib.suppress(FileNotFoundError):
                if not path.is_dir() and path.lstat().st_mtime <= latest:
                    path.unlink()
                    removed.append(path)
    return tuple(removed)


def _open(target: Path, temp: Path) -> _Pending:
    try:
        # Mode 0o666 is what plain open() asks for: the umask decides.
        return _Pending(target, temp, io.BufferedWriter(_Temp(os.open(temp, _CREATE, 0o666), target)))
    except FileNotFoundError as error:
        raise WriteError(target, f"the folder {target.parent} does not exist") from error
    except OSError as error:
        raise WriteError(target, _reason(error)) from error


def _finish(entry: _Pending) -> None:
    """All bytes on the disk, and the file closed."""
    try:
        entry.file.flush()
        os.fsync(entry.file.fileno())
        entry.file.close()
    except OSError as error:
        raise WriteError(entry.target, _reason(error)) from error


def _rename(target: Path, temp: Path) -> None:
    try:
        temp.replace(target)
    except OSError as error:
        raise WriteError(target, _reason(error)) from error


def _sync_folder(folder: Path) -> None:
    """Make the renames last through a power cut; where folders cannot be synced (Windows) that is left out."""
    with contextlib.suppress(OSError):
        descriptor = os.open(folder, os.O_RDONLY)
        try:
            os.fsync(descriptor)
        finally:
            os.close(descriptor)


def _reason(error: OSError) -> str:
    reason = error.strerror or str(error)
    return reason[:1].lower() + reason[1:]
