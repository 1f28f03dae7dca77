"""Pooled counts: what cases leave behind for everything that is computed over a whole data set.

Sums of probabilities are kept as whole multiples of 2^-24, so that adding up cases is exact and the order in which
cases, processes and shards are merged cannot be seen. Rounding a case's sum to 2^-24 changes no mean over voxels by
more than 1e-13. With all cells, micro averages of every measure can be computed; with reported bins (``binned``) those
of binned errors and running sums, which is what the resampling of groups needs.
"""

from __future__ import annotations

from dataclasses import replace

import numpy as np

from segcal_cli.core.annotations import OtherType
from segcal_cli.core.errors import UsageError
from segcal_cli.core.frozen import dataclass
from segcal_cli.metrics.calibration_errors import BinTable
from segcal_cli.metrics.cells import CellGrid
from segcal_cli.metrics.counting import JOINT, SUMS, WHOLE, Counts

UNITS = 2.0**24
"""Units of a pooled sum in one whole: int64 holds the probabilities of 5e11 voxels."""


class PoolMismatch(UsageError):
    """Counts of different classes or bins cannot be added."""

    template = "counts over {0} with {1} bins do not add to counts over {2} with {3} bins"


@dataclass(frozen=True, slots=True)
class Pooled:
    """Counts of one source over one or more cases. Adding is exact, commutative and associative.

    classes: the measured ones, in order; averaged: those that ``(all)`` averages. Arrays as in ``Counts``, but every
    sum in int64 multiples of 2^-24, and "cell" being reported bins if ``cells`` is False. bias_ml: sum of p - y times
    the voxel volume in ml, "class"; None if a case has no spacing.
    """

    classes: tuple[str, ...]
    averaged: tuple[str, ...]
    grid: CellGrid
    cells: bool
    n: np.ndarray
    hits: np.ndarray
    p: np.ndarray
    whole: np.ndarray
    sums: np.ndarray
    bias_ml: np.ndarray | None
    top_n: np.ndarray
    top_hits: np.ndarray
    top_p: np.ndarray
    joint: np.ndarray

    @classmethod
    def of(
        cls,
        counts: Counts,
        classes: tuple[str, ...],
        averaged: tuple[str, ...],
        grid: CellGrid,
        bias_ml: np.ndarray | None,
    ) -> Pooled:
        return cls(
            classes,
            averaged,
            grid,
            True,
            counts.n,
            counts.hits,
            to_units(counts.p),
            counts.whole,
            to_units(counts.sums),
            None if bias_ml is None else to_units(bias_ml),
            counts.top_n,
            counts.top_hits,
            to_units(counts.top_p),
            to_units(counts.joint),
        )

    def __add__(self, other: Pooled) -> Pooled:
        """Counts of both. Raises PoolMismatch."""
        if (self.classes, self.grid, self.cells) != (other.classes, other.grid, other.cells):
            raise PoolMismatch(self.classes, self.n.shape[-1], other.classes, other.n.shape[-1])
        bias_ml = None if self.bias_ml is None or other.bias_ml is None else self.bias_ml + other.bias_ml
        return replace(
            self,
            n=self.n + other.n,
            hits=self.hits + other.hits,
            p=self.p + other.p,
            whole=self.whole + other.whole,
            sums=self.sums + other.sums,
            bias_ml=bias_ml,
            top_n=self.top_n + other.top_n,
            top_hits=self.top_hits + other.top_hits,
            top_p=self.top_p + other.top_p,
            joint=self.joint + other.joint,
        )

    def require_shapes(self, grid: CellGrid, *, cells: bool) -> None:
        """Raise OtherType unless these are counts on this grid, by cell or by reported bin, and as long as they say."""
        if (self.grid, self.cells) != (grid, cells):
            raise OtherType("counts", f"of {grid.bins} bins, {'all cells' if cells else 'binned'}")
        if not self.averaged or not set(self.averaged) <= set(self.classes):
            raise OtherType("averaged", f"among {', '.join(self.classes)}")
        classes, top = len(self.classes), (grid.bins,)
        of_bins = (classes, grid.size if cells else grid.bins)
        shapes: dict[str, tuple[int, ...]] = {"n": of_bins, "hits": of_bins, "p": of_bins}
        shapes |= {"whole": (classes, len(WHOLE)), "sums": (classes, len(SUMS)), "joint": (len(JOINT),)}
        shapes |= {"top_n": top, "top_hits": top, "top_p": top}
        if self.bias_ml is not None:
            shapes["bias_ml"] = (classes,)
        for name, shape in shapes.items():
            array = getattr(self, name)
            if array.shape != shape or array.dtype != np.int64:
                raise OtherType(name, f"int64 of the shape {shape}")

    def binned(self) -> Pooled:
        """The same with reported bins in place of cells."""
        if not self.cells:
            return self
        n, hits, p = (self.grid.binned(a) for a in (self.n, self.hits, self.p))
        return replace(self, n=n, hits=hits, p=p, cells=False)

    def counts(self) -> Counts:
        """Counts with float sums."""
        return Counts(
            self.n,
            self.hits,
            self.p / UNITS,
            self.whole,
            self.sums / UNITS,
            self.top_n,
            self.top_hits,
            self.top_p / UNITS,
            self.joint / UNITS,
        )

    def table(self, name: str) -> BinTable:
        """Reported bins of one class."""
        row, bins = self.classes.index(name), self.binned()
        return BinTable(bins.n[row], bins.hits[row], bins.p[row] / UNITS)


def to_units(sums: np.ndarray) -> np.ndarray:
    """int64 multiples of 2^-24, rounded to the nearest."""
    return np.rint(sums * UNITS).astype(np.int64)
