"""Locks on an output place: one run works there, or several shards of one run.

The lock is the kernel's (flock), so it is gone with its process, however that ends; the file stays and means nothing.
A shard takes the whole run's lock only while it takes its own: shards work side by side, a whole run works alone.

Some file systems of clusters have no locks at all. There a run goes on without, and says so: shards are safe, since
their files are disjoint, and whole runs must not overlap.
"""

from __future__ import annotations

import contextlib
import errno
import os
from collections.abc import Iterator
from pathlib import Path
from typing import Literal

from segcal_cli.core.errors import NothingToDo, WriteError
from segcal_cli.io.run_files import RunFiles

IfLocked = Literal["fail", "skip", "wait"]

ENTRY_SECONDS = 10.0
"""How long a shard waits for the whole run's lock, which other shards hold for a moment while they begin."""

FOR_EVER = -1.0
"""filelock's word for no limit."""


NO_LOCKS = frozenset({errno.ENOSYS, errno.ENOLCK, errno.EOPNOTSUPP, errno.ENOTSUP})
"""What file systems without locks say."""


class InUse(WriteError):
    """Another run works on this output place."""

    template = "{0} is in use by another segcal"


class LeftToAnother(NothingToDo):
    """The same, where that was asked to be no failure."""

    template = "{0} is in use by another segcal, left to it"


@contextlib.contextmanager
def held(files: RunFiles, if_locked: IfLocked = "fail") -> Iterator[bool]:
    """Hold the lock of a run; False where there are no locks. The folder exists.

    Raises InUse (``fail``), LeftToAnother (``skip``), WriteError.
    """
    import filelock

    patience = FOR_EVER if if_locked == "wait" else 0.0
    try:
        with contextlib.ExitStack() as stack:
            if files.shard is None:
                found = stack.enter_context(locked(files.whole_lock, patience))
                for path in files.shard_locks:
                    with locked(path, patience):
                        pass
            else:
                with locked(files.whole_lock, max(patience, ENTRY_SECONDS) if patience >= 0 else patience):
                    found = stack.enter_context(locked(files.lock, patience))
            yield found
    except filelock.Timeout:
        raise (LeftToAnother if if_locked == "skip" else InUse)(files.target) from None


@contextlib.contextmanager
def locked(path: Path, patience: float) -> Iterator[bool]:
    """Hold the lock on one file, which is made; False where there are no locks. patience: seconds, or FOR_EVER.

    Raises filelock.Timeout, WriteError.
    """
    import filelock

    lock = filelock.FileLock(path, timeout=patience)
    try:
        # A file that cannot be made is no lock that somebody holds; filelock may take the one for the other.
        descriptor = os.open(path, os.O_RDWR | os.O_CREAT, 0o666)
        try:
            _require_locks(descriptor)
        finally:
            os.close(descriptor)
        lock.acquire()
    except OSError as error:
        if isinstance(error, filelock.Timeout):
            raise
        if error.errno not in NO_LOCKS:
            raise WriteError(path, (error.strerror or str(error)).lower()) from error
        yield False
        return
    try:
        yield True
    finally:
        lock.release()


def _require_locks(descriptor: int) -> None:
    """Raise OSError where the file system knows no locks; filelock would put a lock in their place that kill -9 leaves
    behind."""
    try:
        import fcntl
    except ImportError:
        return
    fcntl.flock(descriptor, fcntl.LOCK_UN)


def no_locks(files: RunFiles) -> str:
    """What is said where a run goes on without a lock."""
    return f"{files.target}: this file system has no locks; let no other run work there at the same time"
