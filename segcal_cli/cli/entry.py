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

INTERRUPTED = 130


class Interrupted(BaseException):
    """Ctrl-C or SIGTERM before a command has begun, or after it has ended; typer would make a silent exit of
    KeyboardInterrupt."""


class _ForgivingOutput(io.FileIO):
    """A stream whose reader may go away (``| head -1``): what is written after that is dropped."""

    def write(self, data: bytes, /) -> int:  # type: ignore[override]
        try:
            return super().write(data)
        except BrokenPipeError:
            return len(data)


def main() -> None:
    """The command ``segcal``."""
    for number in (signal.SIGINT, signal.SIGTERM):
        # A shell that starts a job in the background tells it to ignore Ctrl-C.
        if signal.getsignal(number) is not signal.SIG_IGN:
            signal.signal(number, _interrupt)
    try:
        for variable in THREAD_VARIABLES:
            os.environ.setdefault(variable, "1")
        sys.stdout = _forgiving(sys.stdout)
        from segcal_cli.cli.app import app

        app()
    except Interrupted:
        sys.stderr.write("segcal: interrupted before the first case (exit 130)\n")
        sys.exit(INTERRUPTED)


def _forgiving(stdout: TextIO | None) -> TextIO:
    try:
        descriptor = 1 if stdout is None else stdout.fileno()
        raw = _ForgivingOutput(descriptor, "w", closefd=False)
    except OSError:
        raw = _ForgivingOutput(os.devnull, "w")
    encoding = getattr(stdout, "encoding", None) or "utf-8"
    buffered = io.BufferedWriter(cast(io.RawIOBase, raw))
    return io.TextIOWrapper(buffered, encoding, getattr(stdout, "errors", None), line_buffering=raw.isatty())


def _interrupt(number: int, frame: FrameType | None) -> None:
    raise Interrupted


if __name__ == "__main__":
    main()
