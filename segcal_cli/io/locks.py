"""Locks on an output place: one run works there, or several shards of one run.

The lock is the kernel's (flock), so it is gone with its process, however that ends; the file stays and means nothing.
A shard takes the whole run's lock only while it takes its own: shards work side by side, a whole run works alone.
"""

from __future__ import annotations

import contextlib
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


class InUse(WriteError):
    """Another run works on this output place."""

    template = "{0} is in use by another segcal"


class LeftToAnother(NothingToDo):
    """The same, where that was asked to be no failure."""

    template = "{0} is in use by another segcal, left to it"


@contextlib.contextmanager
def held(files: RunFiles, if_locked: IfLocked = "fail") -> Iterator[None]:
    """Hold the lock of a run. The folder exists. Raises InUse (``fail``), LeftToAnother (``skip``), WriteError."""
    import filelock

    patience = FOR_EVER if if_locked == "wait" else 0.0
    try:
        with contextlib.ExitStack() as stack:
            if files.shard is None:
                stack.enter_context(_lock(files.whole_lock, patience))
                for path in files.shard_locks:
                    with _lock(path, patience):
                        pass
            else:
                with _lock(files.whole_lock, max(patience, ENTRY_SECONDS) if patience >= 0 else patience):
                    stack.enter_context(_lock(files.lock, patience))
            yield
    except filelock.Timeout:
        raise (LeftToAnother if if_locked == "skip" else InUse)(files.target) from None


@contextlib.contextmanager
def _lock(path: Path, patience: float) -> Iterator[None]:
    import filelock

    lock = filelock.FileLock(path, timeout=patience)
    try:
        # A file that cannot be made is no lock that somebody holds; filelock may take the one for the other.
        os.close(os.open(path, os.O_RDWR | os.O_CREAT, 0o666))
        lock.acquire()
    except OSError as error:
        if isinstance(error, filelock.Timeout):
            raise
        raise WriteError(path, (error.strerror or str(error)).lower()) from error
    try:
        yield
    finally:
        lock.release()
