"""What a calibration method is to the rest of the package: one record per method.

A module per method makes its record; ``registry.py`` lists them. The record says which kinds of problem the method
fits, from which statistics (its family), and whether it keeps decisions, and holds the method's two functions: how
parameters are found from a sketch, and how they map log-odds.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Literal, Protocol

import numpy as np

from segcal_cli.calibration.canonical import Kind
from segcal_cli.calibration.sketch import Moments
from segcal_cli.calibration.solvers import Tally
from segcal_cli.core.frozen import dataclass
from segcal_cli.core.volume import Values

Family = Literal["sketch", "nodes", "sample", "network"]
"""Which per-case statistics a fit needs: binned log-odds, sums at nodes of the temperature, a sample of voxels, or
tiles beside what a temperature needs."""

SLOPE_LIMIT = 20.0
"""Inverse temperatures are sought in [1/20, 20], slopes of Platt scaling up to 20: beyond, something else is wrong."""


@dataclass(frozen=True, slots=True)
class Aim:
    """What a solver is after. loss: what is minimised. ace_weight: of the error beside the likelihood. bins, binning:
    of a histogram, and whether they hold equal mass or have equal width. tally: counts the solver's steps."""

    loss: str = "nll"
    ace_weight: float = 1.0
    bins: int = 20
    binning: Literal["mass", "width"] = "mass"
    tally: Tally | None = None


NLL, BRIER = Aim("nll"), Aim("brier")
"""The two scores of every summary."""


class Solver(Protocol):
    """Rows "problem parameter" that reach the aim on moments, shorter ones filled up with NaN; near: a row to start
    from."""

    def __call__(self, moments: Moments, aim: Aim, near: np.ndarray | None = None) -> np.ndarray: ...


def no_slope(row: np.ndarray) -> float:
    """NaN: what is more than a line in log-odds has no one slope."""
    return float("nan")


def no_cut(row: np.ndarray) -> float | None:
    """None: where the decision changes depends on more than the class's own probability."""
    return None


@dataclass(frozen=True, slots=True, kw_only=True)
class Method:
    """A calibration method. losses: those that it can be fitted to. options: those that only some methods have.

    slope: how many times log-odds are stretched by a row of parameters, NaN where there is no such number. cut: the raw
    log-odds whose calibrated probability is 0.5. only: what predictions must hold, None if that does not matter.
    beside: what it needs beside predictions, "" for nothing. on_gpu: whether it has a part that runs there.
    """

    name: str
    families: Mapping[Kind, Family]
    keeps_decisions: bool = False
    scopes: tuple[str, ...] = ("per-class",)
    losses: tuple[str, ...] = ("nll",)
    options: tuple[str, ...] = ()
    only: Values | None = None
    beside: str = ""
    on_gpu: bool = False
    slope: Callable[[np.ndarray], float] = no_slope
    cut: Callable[[np.ndarray], float | None] = no_cut


@dataclass(frozen=True, slots=True, kw_only=True)
class Sketched(Method):
    """A method for log-odds, fitted on sketches.

    parameters: their names, one row of numbers per problem; none for a curve, whose rows have any length. pieces: what
    a curve is made of; require_curve: raises ValueError for a row that is none. identity: the row that changes nothing.
    solve: rows "problem parameter" that minimise a loss on moments. log_odds: calibrated log-odds float64 of a row and
    log-odds of any shape. loss, gradient: mean loss "problem", and its derivatives, of rows on moments.
    """

    parameters: tuple[str, ...]
    identity: tuple[float, ...]
    solve: Solver
    log_odds: Callable[[np.ndarray, np.ndarray], np.ndarray]
    loss: Callable[[Moments, np.ndarray, Aim], np.ndarray]
    gradient: Callable[[Moments, np.ndarray, Aim], np.ndarray]
    pieces: str = ""
    require_curve: Callable[[np.ndarray], None] | None = None

    def require_row(self, row: np.ndarray) -> None:
        """Raise ValueError for numbers that this method cannot have found, whoever wrote them down."""
        if self.require_curve is not None:
            self.require_curve(row)
        elif len(row) != len(self.parameters) or not np.isfinite(row).all():
            raise ValueError(f"{self.name} with the parameters {row.tolist()}")


def stacked(rows: Sequence[np.ndarray]) -> np.ndarray:
    """float64 "row parameter": rows of any length, filled up with NaN to the longest."""
    table = np.full((len(rows), max(map(len, rows), default=0)), np.nan)
    for place, row in zip(table, rows, strict=True):
        place[: len(row)] = row
    return table


def filled(row: np.ndarray) -> np.ndarray:
    """A row without what ``stacked`` added."""
    return row[~np.isnan(row)]
