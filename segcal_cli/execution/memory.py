"""What becomes of memory that was freed: it stays with the process, since fresh memory is slow."""

from __future__ import annotations

import contextlib
import ctypes
import sys

M_TRIM_THRESHOLD, M_MMAP_THRESHOLD = -1, -3
"""Numbers of glibc's malloc.h."""

KEPT_BYTES = 512 << 20
"""So much freed memory may stay at the end of the heap."""

MAPPED_BYTES = 32 << 20
"""Whatever is larger, as volumes are, goes back to the system once it is freed: a heap would be torn by it."""


def keep_freed_memory() -> None:
    """Let C's allocator keep what was freed. Does nothing where that is not glibc.

    Else it gives back what numpy frees after every step, a megabyte or so, and the system maps and clears it again page
    by page for the next one: a sixth of the time of counting a scan.
    """
    if sys.platform == "linux":
        # musl has no mallopt.
        with contextlib.suppress(AttributeError, OSError):
            mallopt = ctypes.CDLL(None).mallopt
            mallopt(M_MMAP_THRESHOLD, MAPPED_BYTES)
            mallopt(M_TRIM_THRESHOLD, KEPT_BYTES)
