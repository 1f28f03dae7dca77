"""Entry point: what has to be in place before the command line itself is imported.

Importing takes a while, and Ctrl-C does not wait for it; a reader such as ``head`` may be gone before the first byte.
Both are said or swallowed here, so that nobody sees a traceback. This module imports nothing of segcal at its top.
"""

from __future__ import annotations

import io
import os
import signal
import sys
from types import FrameType
from typing import TextIO, cast

THREAD_VARIABLES = ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS")
"""One BLAS thread: more would change last digits with the number of cores."""

INTERRUPTED, UNWRITABLE = 130, 4


class Interrupted(BaseException):
    """Ctrl-C or SIGTERM before a command has begun, or after it has ended; typer would make a silent exit of
    KeyboardInterrupt."""


class Lost(BaseException):
    """Data that standard output did not take: a full disk behind it. What was said went to standard error."""


class _ForgivingOutput(io.FileIO):
    """A stream whose reader may go away (``| head -1``): what is written after that is dropped. forgiven: so is what
    cannot be written for any other reason; else Lost is raised, once.
    """

    forgiven = False

    def write(self, data: bytes, /) -> int:  # type: ignore[override]
        try:
            return super().write(data)
        except OSError as error:
            if not self.forgiven and not isinstance(error, BrokenPipeError):
                self.forgiven = True
                raise Lost((error.strerror or str(error)).lower()) from None
            return len(data)


def main() -> None:
    """The command ``segcal``."""
    for number in (signal.SIGINT, signal.SIGTERM):
        # A shell that starts a job in the background tells it to ignore Ctrl-C.
        if signal.getsignal(number) is not signal.SIG_IGN:
            signal.signal(number, _interrupt)
    _occupy_standard_descriptors()
    try:
        for variable in THREAD_VARIABLES:
            os.environ.setdefault(variable, "1")
        # Messages that nobody can read any more are no reason to stop; data that is lost is.
        sys.stdout, sys.stderr = _forgiving(sys.stdout, 1), _forgiving(sys.stderr, 2)
        from segcal_cli.cli.app import app

        app()
    except Interrupted:
        sys.stderr.write("segcal: interrupted before the first case (exit 130)\n")
        sys.exit(INTERRUPTED)
    except Lost as error:
        sys.stderr.write(f"segcal: cannot write to standard output: {error} (exit 4)\n")
        sys.exit(UNWRITABLE)
    finally:
        # What was said stands: a second Ctrl-C while Python closes down would change the code.
        for number in (signal.SIGINT, signal.SIGTERM):
            if signal.getsignal(number) is _interrupt:
                signal.signal(number, signal.SIG_IGN)


def _occupy_standard_descriptors() -> None:
    """A descriptor that was closed (``2>&-``) would become that of the next file, and messages its content."""
    for descriptor in range(3):
        try:
            os.fstat(descriptor)
        except OSError:
            os.open(os.devnull, os.O_RDWR)


def _forgiving(stream: TextIO | None, number: int) -> TextIO:
    try:
        raw = _ForgivingOutput(number if stream is None else stream.fileno(), "w", closefd=False)
    except OSError:
        raw = _ForgivingOutput(os.devnull, "w")
    raw.forgiven = number == 2
    # Data is UTF-8 whatever the locale; a terminal shows what it can.
    encoding = (getattr(stream, "encoding", None) or "utf-8") if raw.isatty() or number == 2 else "utf-8"
    buffered = io.BufferedWriter(cast(io.RawIOBase, raw))
    return io.TextIOWrapper(buffered, encoding, "backslashreplace", line_buffering=raw.isatty() or number == 2)


def _interrupt(number: int, frame: FrameType | None) -> None:
    raise Interrupted


if __name__ == "__main__":
    main()
