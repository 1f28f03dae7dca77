"""Problems are collected, so that one run lists all of them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from segcal_cli.core.errors import CaseErrors, SegcalError


@dataclass(frozen=True, slots=True)
class Problem:
    """Why a case cannot be used. case: its id, or "" where the problem is that of several cases."""

    case: str
    error: SegcalError


def raise_all(errors: Sequence[SegcalError]) -> None:
    """Raises the error if there is one, CaseErrors if there are several, and nothing if there is none."""
    if len(errors) == 1:
        raise errors[0]
    if errors:
        raise CaseErrors(*errors)
