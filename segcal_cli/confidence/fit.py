"""The fit as an estimator: one row per case; thresholds follow from the table of rows, at any alpha."""

from __future__ import annotations

import numpy as np

from segcal_cli.confidence.spec import SetSpec
from segcal_cli.confidence.table import Rows, row_of
from segcal_cli.core.case import Case
from segcal_cli.core.frozen import dataclass


@dataclass(frozen=True, slots=True)
class SetFit:
    """The estimator. threads: do not change a digit. Its result is Rows."""

    spec: SetSpec
    threads: int = 1

    def empty(self) -> Rows:
        return Rows()

    def update(self, state: Rows, case: Case) -> Rows:
        """Raises NoTruth, InnerBoxesIn3D."""
        row, curve = row_of(case, self.spec, self.threads)
        return self.merge(state, Rows({case.id: row}, curve))

    def merge(self, a: Rows, b: Rows) -> Rows:
        curves = [curve for curve in (a.curve, b.curve) if curve is not None]
        return Rows({**a.rows, **b.rows}, np.sum(curves, axis=0) if curves else None)

    def finish(self, state: Rows) -> Rows:
        return state
