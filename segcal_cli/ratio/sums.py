"""Sums: what one case contributes, a row of numbers, in two passes over its voxels.

The first pass takes everything that is a plain sum: the two volumes A and B, their softness U = v sum p(1 - p), what
was labelled, calibration errors, hard masks. The second needs the ratio of the first: blocks, debiased ratios, and the
squared error from residuals a - R b wherever a and b are so alike that the same value from five sums loses its digits.

Li, Popordanoska, Tiulpin, Gruber, Maes, Blaschko 2025, "Beyond Segmentation: Confidence-Aware and Debiased Estimation
of Ratio-based Biomarkers", definitions 3.1 to 3.3, proposition 3.6. The later print divides Var(y) by the mean instead
of its square, which turns most squared errors negative.
"""

from __future__ import annotations

import math
from collections.abc import Iterator

import numpy as np

from segcal_cli.core.case import Case
from segcal_cli.core.frozen import dataclass
from segcal_cli.core.labels import LabelMap
from segcal_cli.ratio.blocks import BoxSums
from segcal_cli.ratio.debiasing import MomentSums, debiased
from segcal_cli.ratio.hard import hard_masks
from segcal_cli.ratio.kernel_error import drawn_voxels, kernel_error
from segcal_cli.ratio.regions import Ratio, Region
from segcal_cli.ratio.table import COLUMNS, DEBIASED, KERNEL, OF_LABELS
from segcal_cli.ratio.voxels import Pair, Slab, Voxels

BINS = 15
"""Of the calibration error, left-closed: m = min(floor(15 p), 14)."""


LEAST_DIFFERENCE = 1e-4
"""Share of its parts that a difference of sums must keep to count: then it is exact to eleven digits or so."""


@dataclass(frozen=True, slots=True)
class Wanted:
    """What a row is to hold beyond volumes and squared error. labels: everything that needs a truth. kernel_seed: of
    the kernel calibration error, None where nobody asked."""

    labels: bool = False
    blocks: bool = False
    debiased: bool = False
    bins: int = BINS
    kernel_seed: int | None = None


def row_names(wanted: Wanted) -> frozenset[str]:
    """Names of the numbers of a case."""
    left_out: set[str] = set()
    if wanted.kernel_seed is None or not wanted.labels:
        left_out |= set(KERNEL)
    if not wanted.labels:
        left_out |= set(OF_LABELS)
    if not wanted.blocks:
        left_out.add("squared_error_block")
    if not wanted.debiased:
        left_out |= set(DEBIASED)
    return frozenset(COLUMNS) - left_out


def case_row(case: Case, ratio: Ratio, wanted: Wanted) -> dict[str, float]:
    """The numbers of a case; see ``table.COLUMNS`` for what each is. Raises NothingCounts."""
    voxels = Voxels.of(case, ratio)
    first = _FirstPass(wanted.bins)
    labels = case.labels if wanted.labels else None
    # A softmax costs more than all sums: what comes of it is remembered, in float32, if a second pass is sure to come.
    again = wanted.blocks or wanted.debiased
    remembered: list[Pair] | None = [] if again and case.volume.values == "logits" else None
    for slab in voxels.slabs():
        first.add(slab, voxels, labels)
        if remembered is not None:
            remembered.append(slab.pair(np.float32))
    row = first.row(voxels, labels is not None)
    squares = first.squares()
    if again or squares is None:
        pairs = (slab.pair() for slab in voxels.slabs()) if remembered is None else _forgetting(remembered)
        row |= _second_pass(voxels, pairs, row, wanted)
    else:
        row["squared_error_iid"] = _squared_error(voxels.n, squares, float(first.sums[1]))
    if wanted.kernel_seed is not None and labels is not None:
        row |= _kernel_errors(voxels, labels, wanted.kernel_seed)
    return row


class _FirstPass:
    """Plain sums, slab by slab."""

    def __init__(self, bins: int) -> None:
        self.bins = bins
        self.sums = np.zeros(5)
        self.excess = 0.0
        self.border = 0.0
        self.hard = np.zeros(3, dtype=np.int64)
        self.labelled = np.zeros(2, dtype=np.int64)
        self.gaps = np.zeros((2, bins))
        self.brier = np.zeros(2)
        self.wrong = np.zeros(2, dtype=np.int64)

    def add(self, slab: Slab, voxels: Voxels, labels: LabelMap | None) -> None:
        a, b = slab.a.reshape(-1), slab.b.reshape(-1)
        self.sums += [float(a.sum()), float(b.sum()), _dot(a, a), _dot(a, b), _dot(b, b)]
        self.excess += slab.excess
        self.border += _border(slab, voxels.case.volume.grid.shape)
        masks = hard_masks(slab, voxels.ratio, voxels.case.volume.values, voxels.case.space)
        self.hard += [np.count_nonzero(masks[0]), np.count_nonzero(masks[1]), np.count_nonzero(masks[0] & masks[1])]
        if labels is None:
            return
        for index, (region, p, mask) in enumerate(
            zip((voxels.ratio.numerator, voxels.ratio.denominator), (a, b), masks, strict=True)
        ):
            truth = labelled(region, labels, slab)
            y = truth.reshape(-1)
            self.labelled[index] += np.count_nonzero(y)
            self.wrong[index] += np.count_nonzero(mask != truth)
            gap = p - y
            self.brier[index] += _dot(gap, gap)
            place = np.minimum((p * self.bins).astype(np.intp), self.bins - 1)
            self.gaps[index] += np.bincount(place, weights=gap, minlength=self.bins)

    def squares(self) -> float | None:
        """sum (a - R b)^2 from the sums, or None where these are so alike that their difference loses digits."""
        a, b, aa, ab, bb = (float(value) for value in self.sums)
        if b <= 0:
            return math.nan
        ratio = a / b
        found = aa - 2.0 * ratio * ab + ratio * ratio * bb
        return found if found >= LEAST_DIFFERENCE * (aa + ratio * ratio * bb) else None

    def row(self, voxels: Voxels, with_labels: bool) -> dict[str, float]:
        n, v = voxels.n, voxels.voxel_mm3
        a, b, aa, ab, bb = (float(value) for value in self.sums)
        hard_a, hard_b, hard_ab = (int(value) for value in self.hard)
        row = {
            "A": v * a,
            "B": v * b,
            "U_A": v * max(a - aa, 0.0),
            "U_B": v * max(b - bb, 0.0),
            "sum_b2": bb,
            "voxels": float(n),
            "voxel_mm3": v,
            "A_hard": v * hard_a,
            "B_hard": v * hard_b,
            "squared_error_hard": _hard_squared_error(n, hard_a, hard_b, hard_ab),
            "border_share": self.border / b if b > 0 else math.nan,
            "nesting_violation": self.excess / b if b > 0 and voxels.ratio.contained else math.nan,
            # Variances of the means, for Fieller's interval.
            "mean_variance_aa": max(aa - a * a / n, 0.0) / (n - 1) / n,
            "mean_variance_ab": (ab - a * b / n) / (n - 1) / n,
            "mean_variance_bb": max(bb - b * b / n, 0.0) / (n - 1) / n,
        }
        if with_labels:
            for index, name in enumerate("AB"):
                row[f"{name}_label"] = v * int(self.labelled[index])
                row[f"ece_{name}"] = v * float(np.abs(self.gaps[index]).sum())
                row[f"ece_{name}_hard"] = v * int(self.wrong[index])
                row[f"brier_{name}"] = float(self.brier[index]) / n
            ignored = voxels.case.labels.ignored if voxels.case.labels is not None else None
            row["unannotated"] = 0.0 if ignored is None else float(np.count_nonzero(ignored))
        return row


def _forgetting(remembered: list[Pair]) -> Iterator[Pair]:
    """The pairs in order, each freed once it has been used."""
    remembered.reverse()
    while remembered:
        yield remembered.pop()


def _second_pass(voxels: Voxels, pairs: Iterator[Pair], row: dict[str, float], wanted: Wanted) -> dict[str, float]:
    """Squared errors and debiased ratios, from residuals; NaN without a denominator."""
    n, v = voxels.n, voxels.voxel_mm3
    a, b = row["A"] / v, row["B"] / v
    found = {"squared_error_iid": math.nan}
    if wanted.blocks:
        found["squared_error_block"] = math.nan
    if wanted.debiased:
        found |= {f"ratio_{name}": math.nan for name in debiased(_NO_MOMENTS)}
    if b <= 0:
        return found
    grid = voxels.case.volume.grid
    spacing = grid.spacing_mm
    boxes = BoxSums.over(grid.shape, (1.0, 1.0, 1.0) if spacing is None else spacing[::-1]) if wanted.blocks else None
    moments = MomentSums.around(n, a / n, b / n, b) if wanted.debiased else None
    ratio, squares = a / b, 0.0
    for pair in pairs:
        b_slab = pair.b.astype(np.float64, copy=False)
        e = pair.a - ratio * b_slab
        squares += _dot(e.reshape(-1), e.reshape(-1))
        if boxes is not None:
            boxes.add(pair.first_plane, b_slab, e)
        if moments is not None:
            parts = (pair.a.astype(np.float64, copy=False), b_slab, e)
            moments.add(*(part.reshape(-1) if pair.kept is None else part[pair.kept] for part in parts))
    iid = _squared_error(n, squares, b)
    found["squared_error_iid"] = iid
    if boxes is not None:
        found["squared_error_block"] = max([iid, *(tried.squared_error for tried in boxes.tried())])
    if moments is not None:
        found |= {f"ratio_{name}": value for name, value in debiased(moments.moments()).items()}
    return found


def _squared_error(n: int, squares: float, b: float) -> float:
    return n / (n - 1) * squares / b**2 if b > 0 else math.nan


_NO_MOMENTS = MomentSums.around(2, 0.0, 0.0, 0.0).moments()
"""Of a case without a denominator; only the names of its estimators are used."""


def labelled(region: Region, labels: LabelMap, slab: Slab) -> np.ndarray:
    """bool "z y x": labelled voxels of a region among those that count."""
    truth = region.of_labels(labels, slab.planes)
    return truth if slab.kept is None else truth & slab.kept


def _kernel_errors(voxels: Voxels, labels: LabelMap, seed: int) -> dict[str, float]:
    counted = voxels.case.counted(padding=True)
    flat = np.arange(labels.codes.size) if counted is None else np.flatnonzero(counted)
    codes = labels.codes.reshape(-1)
    errors = np.zeros(2)
    draws = drawn_voxels(flat, seed, voxels.case.id)
    for drawn in draws:
        pair = voxels.at(drawn)
        for index, region in enumerate((voxels.ratio.numerator, voxels.ratio.denominator)):
            errors[index] += kernel_error(pair[index], region.holds(labels.members)[codes[drawn]])
    errors *= voxels.n * voxels.voxel_mm3 / len(draws)
    return {"kde_A": float(errors[0]), "kde_B": float(errors[1])}


def _hard_squared_error(n: int, a: int, b: int, ab: int) -> float:
    """The squared error of masks, R(1 - R)/B n/(n - 1) for nested ones, from counts of voxels."""
    if b == 0:
        return math.nan
    # sum (a - R b)^2 = (a b - 2 ab a + a^2) / b with R = a / b.
    return n / (n - 1) * (a * b - 2 * a * ab + a * a) / b**3


def _border(slab: Slab, shape: tuple[int, int, int]) -> float:
    """Sum of b in the outermost layer of the axes that are longer than 1."""
    depth, height, width = shape
    total = 0.0
    for offset, plane in enumerate(slab.b):
        z = slab.planes.start + offset
        if depth > 1 and z in (0, depth - 1):
            total += float(plane.sum())
            continue
        rows = plane[[0, height - 1]] if height > 1 else plane[:0]
        inner = plane[1:-1] if height > 1 else plane
        columns = inner[:, [0, width - 1]] if width > 1 else inner[:, :0]
        total += float(rows.sum()) + float(columns.sum())
    return total


def _dot(x: np.ndarray, y: np.ndarray) -> float:
    """By numpy's own loop, so that no BLAS decides the last digit."""
    return float(np.einsum("i,i->", x, y))
