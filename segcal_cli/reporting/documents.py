"""JSON documents: strict (no NaN), indented, floats in shortest round-trip form, numpy scalars accepted.

Undefined numbers become ``null``; infinities the strings ``"inf"`` and ``"-inf"``, as in the CSV tables.
"""

from __future__ import annotations

import json
import math
from collections.abc import Mapping, Sequence
from pathlib import PurePath
from typing import Any

import numpy as np

from segcal_cli import __version__

STATUS = {0: "ok", 8: "partial"}
"""Exit code -> status of the document; every other code is ``failed``."""


def json_text(document: Any) -> str:
    """The document as JSON text with a final newline."""
    return json.dumps(plain(document), indent=2, allow_nan=False, ensure_ascii=False) + "\n"


def plain(value: Any) -> Any:
    """The same value in JSON's own types."""
    if isinstance(value, Mapping):
        return {str(key): plain(item) for key, item in value.items()}
    if isinstance(value, np.ndarray):
        return plain(value.tolist())
    if isinstance(value, Sequence | set | frozenset) and not isinstance(value, str):
        return [plain(item) for item in value]
    if isinstance(value, np.generic):
        return plain(value.item())
    if isinstance(value, float):
        if math.isnan(value):
            return None
        return value if math.isfinite(value) else ("inf" if value > 0 else "-inf")
    if isinstance(value, PurePath):
        return value.name
    return value


def status_of(exit_code: int, *, partial: bool = False) -> str:
    """The word for what a run came to. partial: some cases failed, also where that was asked to be no failure."""
    return STATUS[8] if partial and exit_code == 0 else STATUS.get(exit_code, "failed")


def envelope(
    command: str,
    exit_code: int,
    counts: Mapping[str, int],
    warnings: Sequence[str],
    failures: Sequence[Mapping[str, str]],
    result: Mapping[str, Any],
) -> dict[str, Any]:
    """The document of ``--json``: the same keys for every command and every exit code."""
    return {
        "schema": f"segcal/{command.replace(' ', '-')}/1",
        "segcal_version": __version__,
        "command": command,
        "status": status_of(exit_code, partial=bool(failures)),
        "exit_code": exit_code,
        "counts": counts,
        "warnings": list(warnings),
        "failures": list(failures),
        "result": result,
    }
