"""Problems are collected, so that one run lists all of them."""

from __future__ import annotations

from collections.abc import Sequence

from segcal_cli.core.errors import CaseErrors, SegcalError
from segcal_cli.core.frozen import dataclass
from segcal_cli.core.names import escaped


@dataclass(frozen=True, slots=True)
class Problem:
    """Why a case cannot be used. case: its id, or "" where the problem is that of several cases.

    An id that is no text, because it comes from a file name that is no UTF-8, is kept as it would be shown: problems
    are listed, sorted and written down like cases.
    """

    case: str
    error: SegcalError

    def __post_init__(self) -> None:
        object.__setattr__(self, "case", escaped(self.case))


def raise_all(errors: Sequence[SegcalError]) -> None:
    """Raises the error if there is one, CaseErrors if there are several, and nothing if there is none."""
    if len(errors) == 1:
        raise errors[0]
    if errors:
        raise CaseErrors(*errors)
