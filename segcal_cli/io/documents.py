"""JSON files, read strictly: one size limit, UTF-8, no key twice, and every refusal names the file and the line."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from segcal_cli.core.errors import FormatError
from segcal_cli.io.inputs import read_text_bytes


class BrokenJson(FormatError):
    """Text that is not JSON."""

    template = "{0}:{1}: not valid JSON: {2}"


class BrokenDocument(FormatError):
    """JSON that cannot be used as a whole."""

    template = "{0}: {1}"


class _RepeatedKey(ValueError):
    pass


def read_json(path: Path) -> Any:
    """The document in a JSON file, keys in the order of the file. UTF-8, with or without a byte order mark.

    Raises BrokenJson, BrokenDocument (a key twice, not UTF-8, too deep), UnreadableFile, EmptyFile, OversizedText.
    """
    try:
        return json.loads(read_text_bytes(path).decode("utf-8-sig"), object_pairs_hook=_unique)
    except json.JSONDecodeError as error:
        raise BrokenJson(path, error.lineno, error.msg) from error
    except _RepeatedKey as error:
        raise BrokenDocument(path, f"the key {error.args[0]!r} stands twice") from error
    except UnicodeDecodeError as error:
        raise BrokenDocument(path, f"not UTF-8 at byte {error.start}") from error
    except RecursionError as error:
        raise BrokenDocument(path, "nested too deeply") from error
    except ValueError as error:  # a number of more digits than Python converts
        raise BrokenDocument(path, str(error)) from error


def _unique(pairs: Sequence[tuple[str, Any]]) -> dict[str, Any]:
    table = dict(pairs)
    if len(table) < len(pairs):
        seen: set[str] = set()
        raise _RepeatedKey(next(key for key, _ in pairs if key in seen or seen.add(key)))  # type: ignore[func-returns-value]
    return table
