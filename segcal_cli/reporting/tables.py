"""Tables: CSV for programs, aligned columns for people.

CSV is RFC 4180 with ``\\n``, always a header, an empty field for what is undefined, ``inf`` and ``-inf`` spelled out,
and floats in their shortest form that reads back to the same number.
"""

from __future__ import annotations

import csv
import io
import math
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from segcal_cli.core.frozen import dataclass


@dataclass(frozen=True, slots=True)
class Table:
    """A table for people. rows: cells as text; caption: what was measured, on what, in which unit."""

    title: str
    columns: tuple[str, ...]
    rows: tuple[tuple[str, ...], ...]
    caption: str = ""


def csv_text(columns: Sequence[str], rows: Iterable[Mapping[str, Any]]) -> str:
    """One line per row, columns in the given order. Keys that are not columns are an error of the caller
    (ValueError)."""
    buffer = io.StringIO()
    writer = csv.DictWriter(buffer, columns, restval="", lineterminator="\n")
    writer.writeheader()
    writer.writerows({key: csv_cell(value) for key, value in row.items()} for row in rows)
    return buffer.getvalue()


def csv_cell(value: Any) -> str:
    """One cell: empty for None and NaN, ``inf`` for infinities, shortest round-trip floats."""
    if value is None:
        return ""
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, float):
        return "" if math.isnan(value) else repr(float(value))
    return str(value)


def short(value: float | int | None, digits: int = 4) -> str:
    """A number for people: a dash for what is undefined."""
    if value is None or (isinstance(value, float) and math.isnan(value)):
        return "-"
    if isinstance(value, int):
        return str(value)
    return f"{value:.{digits}f}" if abs(value) < 1e4 else f"{value:.{digits}g}"
