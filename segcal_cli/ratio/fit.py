"""The estimator: a table of cases, filled one case at a time.

A fit keeps no more than the rows, so that method and level stay open; the same estimator fills the table of labelled
cases that ``evaluate`` compares methods on.
"""

from __future__ import annotations

from collections.abc import Mapping
from collections.abc import Set as AbstractSet
from dataclasses import field

from segcal_cli.core.annotations import OtherType, Text
from segcal_cli.core.case import Case
from segcal_cli.core.errors import ArtifactError, FitError
from segcal_cli.core.frozen import dataclass
from segcal_cli.ratio.regions import Ratio
from segcal_cli.ratio.sums import Wanted, case_row, row_names
from segcal_cli.ratio.table import RatioTable, table_of


class TwiceTheSameCase(ArtifactError):
    """One case in two states that are joined."""

    template = "{0}: this case is in both parts"


class NothingLabelled(FitError):
    """No case that a ratio can be calibrated on."""

    template = "no labelled case holds {0}: a ratio cannot be calibrated"


class NothingPredicted(FitError):
    """Labels hold the denominator, the predictions too little of it."""

    template = "{0}: a ratio cannot be calibrated; look at --min-denominator-ml"


@dataclass(frozen=True, slots=True)
class Rows:
    """Case id -> (group, numbers). Merging is a union, exact in any order."""

    rows: Mapping[str, tuple[Text, Mapping[str, float]]] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class RatioSums:
    """The estimator; its result is a RatioTable."""

    ratio: Ratio
    wanted: Wanted

    def empty(self) -> Rows:
        return Rows()

    def update(self, state: Rows, case: Case) -> Rows:
        """Raises NothingCounts, TwiceTheSameCase."""
        return self.merge(state, Rows({case.id: (case.group, case_row(case, self.ratio, self.wanted))}))

    def merge(self, a: Rows, b: Rows) -> Rows:
        """Raises TwiceTheSameCase."""
        for case in sorted(set(a.rows) & set(b.rows)):
            raise TwiceTheSameCase(case)
        return Rows({**a.rows, **b.rows})

    def require_state(self, state: Rows, cases: AbstractSet[str]) -> None:
        """See ``core/estimator.py``."""
        if any(row.keys() != row_names(self.wanted) for _, row in state.rows.values()):
            raise OtherType("state.rows", "of the numbers of a case")

    def finish(self, state: Rows) -> RatioTable:
        return table_of(state.rows)
