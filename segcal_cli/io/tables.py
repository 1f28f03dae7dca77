"""CSV tables that users write by hand or with a spreadsheet, read strictly.

UTF-8 with or without a byte order mark, commas, one header. A column that nobody knows, a row that is too short, an
empty cell: each is more likely a slip than a wish, and would move a case silently. All problems are found before any
is reported.
"""

from __future__ import annotations

import csv
import io
from collections.abc import Collection, Sequence
from pathlib import Path

from segcal_cli.core.errors import PairingError
from segcal_cli.core.frozen import dataclass
from segcal_cli.io.inputs import MAX_TEXT_BYTES
from segcal_cli.io.problems import raise_all


class TableError(PairingError):
    """A line of a table that cannot be used. Arguments: path, line (from 1), what."""

    template = "{0}:{1}: {2}"


@dataclass(frozen=True, slots=True)
class Row:
    """A row: the line that it begins on, and its cells by column. An absent column has the cell ""."""

    line: int
    cells: dict[str, str]


def read_table(
    path: Path, *, known: Sequence[str], required: Collection[str], filled: Collection[str]
) -> tuple[Row, ...]:
    """The rows of a CSV. filled: columns that hold no empty cell, if they are there.

    Raises TableError, or CaseErrors if there are several problems.
    """
    lines = _lines(path)
    if not lines:
        raise TableError(path, 1, "empty; a header is expected")
    (line, first), *body = lines
    header = [name.strip() for name in first]
    problems = [TableError(path, line, what) for what in _header_problems(header, known, required)]
    raise_all(problems)
    rows = []
    for line, values in body:
        if len(values) != len(header):
            problems.append(TableError(path, line, f"{len(values)} cells, but the header has {len(header)}"))
            continue
        cells = dict(zip(header, values, strict=True))
        empty = [name for name in header if name in filled and not cells[name].strip()]
        problems += [TableError(path, line, f"the cell {name} is empty") for name in empty]
        rows.append(Row(line, dict.fromkeys(known, "") | cells))
    raise_all(problems)
    return tuple(rows)


def _header_problems(header: Sequence[str], known: Sequence[str], required: Collection[str]) -> list[str]:
    problems = [f"unknown column {name}; known are {', '.join(known)}" for name in header if name not in known]
    problems += [f"column {name} stands twice" for name in dict.fromkeys(header) if header.count(name) > 1]
    problems += [f"no column {name}" for name in known if name in required and name not in header]
    return problems


def _lines(path: Path) -> list[tuple[int, list[str]]]:
    """(line, cells) of every row that is not blank. A quoted cell may span lines, so a row counts from its first."""
    try:
        with path.open("rb") as file:
            raw = file.read(MAX_TEXT_BYTES + 1)
    except OSError as error:
        raise TableError(path, 1, f"cannot be read ({(error.strerror or str(error)).lower()})") from error
    if len(raw) > MAX_TEXT_BYTES:
        raise TableError(path, 1, f"more than {MAX_TEXT_BYTES} bytes; no table of cases is that long")
    try:
        text = raw.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        raise TableError(path, raw.count(b"\n", 0, error.start) + 1, "not UTF-8") from error
    reader = csv.reader(io.StringIO(text, newline=""), strict=True)
    rows, line = [], 1
    try:
        for cells in reader:
            if cells:
                rows.append((line, cells))
            line = reader.line_num + 1
    except csv.Error as error:
        raise TableError(path, line, str(error)) from error
    return rows
