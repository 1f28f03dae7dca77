"""What each command makes of a case, as records of runs keep it: for tables of a whole folder, and for documents.

A record is read again by the next run, and by the one that joins shards. Its entries are relied on only where the
result is what the command makes.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, TypedDict

from segcal_cli.core.annotations import Count, OtherType, require_type

Cell = str | float | bool | None
"""What a table may hold in a cell. Infinite thresholds are texts."""


class Proved(TypedDict):
    proof: str | None


class Calibrated(Proved):
    in_calibration: bool
    decisions_repaired: Count
    regions_projected: Count
    left_raw: Count


class Converted(Proved):
    values: str
    saturation: dict[str, dict[str, float]]


class FlaggedRow(TypedDict):
    case: str
    flags: str


class Clustered(Proved):
    flags: list[str]
    rows: list[FlaggedRow]


class SetsMade(Proved):
    rows: list[FlaggedRow]
    boxes: list[dict[str, Cell]]
    digest: str
    features: list[list[float]] | None


class RatioMade(TypedDict):
    group: str
    seen: bool
    row: dict[str, float | None]


MADE: Mapping[str, Any] = {
    "calibrate apply": Calibrated,
    "convert": Converted,
    "cluster apply": Clustered,
    "conformal-sets apply": SetsMade,
    "ntr-interval apply": RatioMade,
}


def is_made_by(command: str, result: Any) -> bool:
    """Whether the result on record is what a command makes."""
    try:
        require_type(result, MADE[command])
    except OtherType:
        return False
    return True
