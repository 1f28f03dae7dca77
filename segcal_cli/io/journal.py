"""The journal of a run: a line of JSON per finished case, so that a killed run is known by what it finished.

A line is appended by one write, by whichever process finished the case, and begins with a line end of its own: a
process that is killed in the middle leaves a torn line, and nobody writes behind it. A line that is not as it was
written is passed over, so its case is done again.
"""

from __future__ import annotations

import json
import os
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from segcal_cli.core.errors import WriteError
from segcal_cli.io.atomic import utf8
from segcal_cli.io.seals import SEAL, is_sealed, sealed


def append(path: Path, entry: Mapping[str, Any]) -> None:
    """Append one entry. Raises WriteError."""
    line = json.dumps(sealed(entry), ensure_ascii=False, allow_nan=False, separators=(",", ":"))
    try:
        descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_APPEND | getattr(os, "O_NOFOLLOW", 0), 0o666)
        try:
            data = utf8(f"\n{line}\n")
            if os.write(descriptor, data) != len(data):
                raise OSError(None, "no space left")
        finally:
            os.close(descriptor)
    except OSError as error:
        raise WriteError(path, (error.strerror or str(error)).lower()) from error


def entries(path: Path) -> Iterator[dict[str, Any]]:
    """The entries, in the order in which cases were finished; none where there is no journal."""
    try:
        with path.open("rb") as file:
            for line in file:
                try:
                    entry = json.loads(line)
                except (ValueError, RecursionError):
                    continue
                if isinstance(entry, dict) and is_sealed(entry):
                    del entry[SEAL]
                    yield entry
    except FileNotFoundError:
        return
