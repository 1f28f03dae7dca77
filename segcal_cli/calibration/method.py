"""What a calibration method is to the rest of the package: one record per method.

A module per method makes its record; ``registry.py`` lists them. The record says which kinds of problem the method
fits, from which statistics (its family), and whether it keeps decisions, and holds the method's two functions: how
parameters are found from a sketch, and how they map log-odds.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Literal, Protocol

import numpy as np

from segcal_cli.calibration.canonical import Kind
from segcal_cli.calibration.sketch import Moments

Family = Literal["sketch", "nodes"]
"""Which per-case statistics a fit needs: binned log-odds, or sums at nodes of the temperature."""

SLOPE_LIMIT = 20.0
"""Inverse temperatures are sought in [1/20, 20], slopes of Platt scaling up to 20: beyond, something else is wrong."""


class Solver(Protocol):
    """Rows "problem parameter" that minimise a loss on moments; near: a row to start from."""

    def __call__(self, moments: Moments, loss: str, near: np.ndarray | None = None) -> np.ndarray: ...


@dataclass(frozen=True, slots=True)
class Method:
    """A calibration method for log-odds.

    parameters: their names, one row of numbers per problem. identity: the row that changes nothing. slope: how many
    times log-odds are stretched by a row. solve: rows "problem parameter" that minimise a loss on moments. log_odds:
    calibrated log-odds float64 of a row and log-odds of any shape. loss, gradient: mean loss "problem", and its
    derivatives, of rows on moments. cut: the raw log-odds whose calibrated probability is 0.5.
    """

    name: str
    families: Mapping[Kind, Family]
    parameters: tuple[str, ...]
    identity: tuple[float, ...]
    keeps_decisions: bool
    scopes: tuple[str, ...]
    losses: tuple[str, ...]
    solve: Solver
    log_odds: Callable[[np.ndarray, np.ndarray], np.ndarray]
    loss: Callable[[Moments, np.ndarray, str], np.ndarray]
    gradient: Callable[[Moments, np.ndarray, str], np.ndarray]
    slope: Callable[[np.ndarray], float]
    cut: Callable[[np.ndarray], float | None]
