"""Measures of one case: the numbers behind a row of the table.

A *source* is one set of probabilities of the same scans: predictions as they are, or passed through one calibrator. All
sources of a case are counted on exactly the same voxels (``counting.py``), and every column is then computed from the
counts. Padding that the model never predicted is left out of calibration, and kept in the overlap of hard decisions and
in volumes. The row ``(all)`` is the mean over classes; next to it stand the measures of the most probable class, which
answer another question and never share a column with class-wise ones.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from concurrent.futures import ThreadPoolExecutor
from contextlib import nullcontext
from dataclasses import replace
from typing import Literal

import numpy as np

from segcal_cli.core.annotations import OtherType, Text
from segcal_cli.core.case import Case
from segcal_cli.core.errors import LabelError, UsageError
from segcal_cli.core.frozen import dataclass
from segcal_cli.core.labels import LabelSpace
from segcal_cli.core.scores import Scores
from segcal_cli.metrics.calibration_errors import EmptyBins
from segcal_cli.metrics.cells import CellGrid, Closed
from segcal_cli.metrics.columns import (
    ALL_COLUMNS,
    CLASS_COLUMNS,
    LARGEST,
    MOST_VOXELS,
    WHOLE_COLUMNS,
    Row,
    all_row,
    class_rows,
)
from segcal_cli.metrics.counting import SUMS, BlockCounter, Counts
from segcal_cli.metrics.curves import BAND_CELLS, band_counts
from segcal_cli.metrics.pooling import Pooled
from segcal_cli.metrics.selection import DEFAULT_METRICS, check_metrics

BLOCK_VOXELS = 1 << 18
"""Voxels counted at a time: few enough for the cache of a core, and fixed, so that the order of sums is."""

MM3_PER_ML = 1000.0

Source = Callable[[np.ndarray], Scores]
"""Scores of a run of voxels, from raw float32 "class voxel" numbers of ``Case.volume.array``. Threads share it."""


class UnknownSetting(UsageError):
    """A setting has a value that does not exist."""

    template = "{0} = {1!r} is not known; it is one of {2}"


class BadKernel(UsageError):
    """Sample or bandwidth of the kernel estimate out of range."""

    template = "{0} = {1} is not allowed; {2}"


class NoTruth(LabelError):
    """A case without labels cannot be measured."""

    template = "{0}: no label volume, so nothing can be measured"


class NothingToMeasure(LabelError):
    """The region of interest and the ignore label leave no voxel."""

    template = "{0}: the region of interest and the ignore label leave no voxel to measure"


@dataclass(frozen=True, slots=True)
class Settings:
    """The conventions that change numbers; every table and picture names them. Raises UnknownSetting, BadBins.

    bins, closed: M equal bins, each closed on that side. empty_bins: ACE skips empty bins, or counts them as 0.
    background: whether the background class enters ``(all)``. absent: "skip" leaves calibration undefined in a case
    that has no voxel of the class. decision: exclusive classes are decided by argmax, or one by one by p > 0.5, as
    independent channels always are. empty_dice: overlap of two empty masks is undefined, or 1. metrics: the measures
    that are computed. kde_sample, kde_bandwidth (None: the likeliest), seed: of the kernel estimate.
    """

    bins: int = 20
    closed: Closed = "right"
    empty_bins: EmptyBins = "skip"
    background: Literal["exclude", "include"] = "exclude"
    absent: Literal["include", "skip"] = "include"
    decision: Literal["argmax", "threshold"] = "argmax"
    empty_dice: Literal["null", "one"] = "null"
    metrics: tuple[str, ...] = DEFAULT_METRICS
    kde_sample: int = 2000
    kde_bandwidth: float | None = None
    seed: int = 0

    def __post_init__(self) -> None:
        for name, known in _KNOWN.items():
            if getattr(self, name) not in known:
                raise UnknownSetting(name, getattr(self, name), ", ".join(known))
        CellGrid(self.bins, self.closed)
        check_metrics(self.metrics)
        if self.kde_sample < 2:
            raise BadKernel("kde-sample", self.kde_sample, "it must be 2 or more")
        if self.kde_bandwidth is not None and not 0.0 < self.kde_bandwidth < math.inf:
            raise BadKernel("kde-bandwidth", self.kde_bandwidth, "it must be a positive number, or auto")

    @property
    def wanted(self) -> frozenset[str]:
        """The measures that are computed."""
        return frozenset(self.metrics)

    @property
    def grid(self) -> CellGrid:
        return CellGrid(self.bins, self.closed)

    def averaged(self, space: LabelSpace) -> tuple[str, ...]:
        """Names of the classes that the row ``(all)`` averages over."""
        background = {space.names[c] for c in space.measured if space.exclusive and 0 in space.channels[c].values}
        left_out = background if self.background == "exclude" and not space.binary else set()
        return tuple(name for name in space.measured_names if name not in left_out)


_KNOWN = {
    "closed": ("right", "left"),
    "empty_bins": ("skip", "zero"),
    "background": ("exclude", "include"),
    "absent": ("include", "skip"),
    "decision": ("argmax", "threshold"),
    "empty_dice": ("null", "one"),
}


@dataclass(frozen=True, slots=True)
class CaseMeasures:
    """What was measured of one source on one case. Picklable and small (about 40 kB a class, 4 kB after ``slim``).

    classes: for each measured class, every column by its key; None where undefined. all: the row ``(all)``. pooled: the
    integer counts that micro averages, bin tables and bands add up; with all cells, or after ``slim`` with reported
    bins. curves: what bands of curves add up, int64 "2 class band_cell" (``curves.band_counts``); after ``slim``.
    """

    case: Text
    group: Text
    classes: dict[str, Row]
    all: Row
    pooled: Pooled
    curves: np.ndarray | None = None

    def require_slim(self, case: str, pooled: Pooled, settings: Settings) -> None:
        """Raise OtherType unless this is, after ``slim``, what ``measure_case`` finds of the case, of the classes of
        ``pooled``: as many numbers, and every measure defined by a number or None."""
        self.pooled.require_shapes(settings.grid, cells=False)
        names, curves = pooled.classes, (2, len(pooled.classes), BAND_CELLS)
        of_both = (self.pooled.classes, self.pooled.averaged) == (names, pooled.averaged)
        if self.case != case or not of_both or tuple(self.classes) != names:
            raise OtherType(f"the measures of {case}", f"of {', '.join(names)}")
        if self.curves is None or self.curves.shape != curves or self.curves.dtype.kind != "i":
            raise OtherType(f"curves of {case}", f"whole numbers of the shape {curves}")
        for columns, row in ((ALL_COLUMNS, self.all), *((CLASS_COLUMNS, row) for row in self.classes.values())):
            if set(row) != set(columns):
                raise OtherType(f"a row of {case}", "of all measures")
            for key, value in row.items():
                if value is not None and not abs(value) <= (MOST_VOXELS if key in WHOLE_COLUMNS else LARGEST):
                    raise OtherType(f"{key} of {case}", "a number of its size")

    def slim(self) -> CaseMeasures:
        """The same with reported bins and band cells in place of all cells, for keeping many cases."""
        if not self.pooled.cells:
            return self
        curves = band_counts(self.pooled.n, self.pooled.hits, self.pooled.grid)
        return replace(self, pooled=self.pooled.binned(), curves=curves)


def measure_case(
    case: Case, sources: Mapping[str, Source], settings: Settings, threads: int = 1
) -> dict[str, CaseMeasures]:
    """Every source of a case, measured on the same voxels. The number of threads does not change a digit.

    Raises NoTruth, NothingToMeasure.
    """
    if case.labels is None:
        raise NoTruth(case.id)
    space, grid = case.space, settings.grid
    counter = BlockCounter(
        grid,
        case.labels.members,
        space.measured,
        exclusive=space.exclusive,
        argmax=settings.decision == "argmax",
        regions=[space.parts(region) for region in space.regions],
    )
    totals = _count(case, case.labels.codes.reshape(-1), sources, counter, threads)
    if not next(iter(totals.values())).n.any():
        raise NothingToMeasure(case.id)
    mm3 = case.volume.grid.voxel_mm3
    voxel_ml = None if mm3 is None else mm3 / MM3_PER_ML
    names, averaged = space.measured_names, settings.averaged(space)
    measured = {}
    for source, counts in totals.items():
        bias_ml = None if voxel_ml is None else counts.sums[:, SUMS.index("bias")] * voxel_ml
        pooled = Pooled.of(counts, names, averaged, grid, bias_ml)
        rows = class_rows(pooled, counts, bias_ml, settings)
        measured[source] = CaseMeasures(case.id, case.group, rows, all_row(averaged, rows, counts, settings), pooled)
    return measured


def _count(
    case: Case, codes: np.ndarray, sources: Mapping[str, Source], counter: BlockCounter, threads: int
) -> dict[str, Counts]:
    """Counts of every source, block by block. codes: "voxel"."""
    array = case.volume.array.reshape(len(case.volume.array), -1)
    kept, inside = (
        None if m is None else m.reshape(-1) for m in (case.counted(padding=True), case.counted(padding=False))
    )
    padded = case.volume.predicted is not None

    def block(start: int) -> list[Counts]:
        at = slice(start, start + BLOCK_VOXELS)
        raw, truth = array[:, at], codes[at]
        within = inside[at] if padded and inside is not None else None
        if kept is not None and not kept[at].all():
            keep = kept[at]
            if not keep.any():
                return [Counts.zero(counter.size, counter.grid) for _ in sources]
            raw, truth = np.compress(keep, raw, axis=1), truth[keep]
            within = None if within is None else within[keep]
        if within is not None and within.all():
            within = None
        return [counter.count(source(raw), truth, within) for source in sources.values()]

    totals = [Counts.zero(counter.size, counter.grid) for _ in sources]
    with ThreadPoolExecutor(threads) if threads > 1 else nullcontext() as pool:
        for parts in (pool.map if pool else map)(block, range(0, codes.size, BLOCK_VOXELS)):
            for total, part in zip(totals, parts, strict=True):
                total.add(part)
    return dict(zip(sources, totals, strict=True))
