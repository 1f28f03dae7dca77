"""The grid of cells: one histogram fine enough for every measure.

[0, 1] is cut into U uniform bins, U being the smallest multiple of the M reported bins that is at least 1200, so that a
reported bin is a run of whole uniform bins. In a whole scan nine voxels in ten are more certain than 1/1200, where one
uniform bin says nothing; so the first and the last uniform bin are split into geometric cells, eight to a factor of two
of p (first bin) or of 1 - p (last bin), down to 2^-40. For 20 bins that makes 238 + 1198 + 238 = 1674 cells in order of
p.

Bins are right-closed, (k/M, (k+1)/M] with 0 in bin 0, or left-closed, [k/M, (k+1)/M) with 1 in the last bin. Which bin
a number is in is decided in float64, where it is exact for every float32; the outer edges are kept as the last number
of the stored type on either side, so that a comparison in the stored type gives the same answer.
"""

from __future__ import annotations

import math
from functools import cached_property
from typing import Literal

import numpy as np

from segcal_cli.core.errors import UsageError
from segcal_cli.core.frozen import dataclass

Closed = Literal["right", "left"]

MIN_UNIFORM_BINS = 1200
"""A multiple of 5, 10, 15, 20, 25, 50 and 100, and fine enough for smooth ECE to 1e-5 and isotonic fits to 1e-6."""

CELLS_PER_OCTAVE = 8
"""Three bits of the mantissa, so that the bits of a float above them number its geometric cell."""

SMALLEST_EXPONENT = -40
"""p and 1 - p below 2^-40 share one cell: their logarithms come from running sums, not from cells."""

SMALLEST_CELL = 2.0**SMALLEST_EXPONENT


class BadBins(UsageError):
    """The number of bins is out of range."""

    template = "bins = {0} is not allowed; it must be a whole number from 1 to 1200"


@dataclass(frozen=True)
class CellGrid:
    """The grid for ``bins`` reported bins, closed on the given side. Raises BadBins."""

    bins: int = 20
    closed: Closed = "right"

    def __post_init__(self) -> None:
        if not 1 <= self.bins <= MIN_UNIFORM_BINS:
            raise BadBins(self.bins)

    @cached_property
    def uniform(self) -> int:
        """U: number of uniform bins."""
        return self.bins * math.ceil(MIN_UNIFORM_BINS / self.bins)

    @cached_property
    def tail(self) -> int:
        """Number of geometric cells at either end."""
        return int(geometric_cell(np.array([1.0 / self.uniform]))[0]) + 1

    @cached_property
    def size(self) -> int:
        """Number of cells."""
        return 2 * self.tail + self.uniform - 2

    @cached_property
    def starts(self) -> np.ndarray:
        """int "bin": the first cell of each reported bin."""
        starts = self.tail - 1 + (self.uniform // self.bins) * np.arange(self.bins)
        starts[0] = 0
        return starts

    def uniform_bin(self, p: np.ndarray) -> np.ndarray:
        """int "...": the uniform bin of float64 probabilities."""
        scaled = p * float(self.uniform)
        if self.closed == "right":
            np.ceil(scaled, out=scaled)
            scaled -= 1.0
        index = scaled.astype(np.intp)  # truncation is floor here
        return np.clip(index, 0, self.uniform - 1, out=index)

    def reported_bin(self, p: np.ndarray) -> np.ndarray:
        """int "...": the reported bin of float64 probabilities."""
        return self.uniform_bin(p) // (self.uniform // self.bins)

    def last_before(self, edge: int, bins: int, dtype: np.dtype) -> np.floating:
        """The largest number of the dtype that lies in a bin before ``edge``, of ``bins`` (reported or uniform) bins.

        Comparing with it in the stored type is the same as computing the bin in float64.
        """
        one = dtype.type(1.0)
        value = dtype.type(edge / bins)
        while self._index(value, bins) >= edge:
            value = np.nextafter(value, -one)
        while self._index(np.nextafter(value, 2 * one), bins) < edge:
            value = np.nextafter(value, 2 * one)
        return value

    def _index(self, value: np.floating, bins: int) -> int:
        scaled = float(value) * bins
        return math.ceil(scaled) - 1 if self.closed == "right" else math.floor(scaled)

    def binned(self, counts: np.ndarray) -> np.ndarray:
        """ "... bin": cell counts "... cell" summed into the reported bins."""
        return np.add.reduceat(counts, self.starts, axis=-1)


def geometric_cell(q: np.ndarray) -> np.ndarray:
    """int "...": the geometric cell of float64 q, 0 at and below 2^-40.

    With (f, e) = frexp(q) this is 8 (e + 39) + floor(8 (2 f - 1)), which is what the bits of a float say from the third
    mantissa bit up.
    """
    return (np.maximum(q, SMALLEST_CELL).view(np.int64) >> 49) - FIRST_KEY64


FIRST_KEY32 = (127 + SMALLEST_EXPONENT) * CELLS_PER_OCTAVE
"""``float32(2**-40).view(int32) >> 20``."""

FIRST_KEY64 = (1023 + SMALLEST_EXPONENT) * CELLS_PER_OCTAVE
"""``float64(2**-40).view(int64) >> 49``."""
