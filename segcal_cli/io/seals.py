"""Seals: a digest inside what segcal writes for itself, so that what was changed since is refused as a whole.

Checksums of containers tell a broken disk from a sound one; they do not tell a threshold that somebody edited, or a
record that a program wrote anew in its own way. What is printed from such a file would be promised in vain. A seal is
no signature: who wants to forge one can.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from typing import Any

import numpy as np

SEAL = "seal"
"""The key under which a document holds its seal."""


def seal_of(document: Mapping[str, Any], arrays: Mapping[str, np.ndarray] | None = None) -> str:
    """sha256 over a JSON document, without a seal that it may hold, and arrays by name: their types, shapes, numbers.

    Equal before a document is written and after it is read, however it is laid out. Raises ValueError for NaN.
    """
    # Through JSON once, because keys that are numbers have another order as text.
    rest = {key: value for key, value in json.loads(_text(document)).items() if key != SEAL}
    found = hashlib.sha256(_text(rest).encode())
    for name, array in sorted((arrays or {}).items()):
        found.update(_text([name, array.dtype.newbyteorder("<").str, list(array.shape)]).encode())
        found.update(np.ascontiguousarray(array, array.dtype.newbyteorder("<")).data.cast("B") if array.size else b"")
    return found.hexdigest()


def sealed(document: Mapping[str, Any], arrays: Mapping[str, np.ndarray] | None = None) -> dict[str, Any]:
    """The document with its seal, in place of any that it held."""
    return {**document, SEAL: seal_of(document, arrays)}


def is_sealed(document: Mapping[str, Any], arrays: Mapping[str, np.ndarray] | None = None) -> bool:
    """Whether a document that was read, and the arrays beside it, are those that were sealed."""
    try:
        return document.get(SEAL) == seal_of(document, arrays)
    except (ValueError, RecursionError):
        return False


def _text(document: Any) -> str:
    return json.dumps(document, sort_keys=True, separators=(",", ":"), allow_nan=False)
