"""Whether the numbers in a volume can be what they are said to be.

Softmax mixed up with sigmoid, logits declared as probabilities, an activation applied twice, a soft map that was cut
off or rounded: each of these reads without an error, and every later number is wrong. Most of them leave a trace in a
handful of statistics (``tallies.py``). Only when something is wrong is the whole array looked at again, to say where.
"""

from __future__ import annotations

import functools
import math
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from segcal_cli.core.errors import CaseErrors, FitError, SegcalError, VoxelError
from segcal_cli.core.frozen import dataclass
from segcal_cli.core.volume import Stored, Values
from segcal_cli.io.tallies import PROBABILITY_SLACK, TRUNCATION_LOW, Tally, count, merge, slabs

SUM_SLACK = 1e-4
"""How far the channels of a softmax may sum from 1, beside the rounding of the stored type (float32 alone: 5e-8)."""
SUM_SLACK_8_BIT = 1e-3
"""The same for 8-bit storage, where writers differ in how they round halves."""
SUM_TOLERANCE_FLOAT16 = 2e-3
"""The same for float16, its rounding (4e-4) included."""
TRUNCATION_VOXELS = 1000
"""So many values above a threshold and none between it and 0: that is no soft map any more, but a cut-off one."""


class NotFinite(VoxelError):
    """NaN or infinite values."""

    template = "{0}: {1} NaN and {2} infinite values, first at (x,y,z) = {3}, class {4}"


class NotProbabilities(VoxelError):
    """Declared probabilities outside [0, 1]."""

    template = "{0}: values from {1} to {2} are not probabilities; logits? --values logits"


class BadChannelSum(VoxelError):
    """The channels of exclusive classes do not sum to 1. They are never renormalised."""

    template = "{0}: channels sum to {1} ({2} to {3}) along axis {4}: sigmoid? wrong --channel-axis? cubic resampling?"


class NotLogits(VoxelError):
    """Declared logits that can only be probabilities."""

    template = "{0}: these are probabilities; say --values probabilities"


class TwiceActivated(VoxelError):
    """Values that never leave the range of an activation applied to probabilities."""

    template = "{0}: all values within {1}..{2}, as when the activation is applied twice"


class TruncatedMap(VoxelError):
    """A soft map that was kept only where the class wins, or clipped."""

    template = "{0}: a truncated soft map: no value between 0 and {1}; export the full map"


class HardMask(VoxelError):
    """A label map or binary mask where soft values are needed."""

    template = "{0}: a hard mask; calibration needs logits or probabilities"


class OnlyHardMasks(VoxelError):
    """Not one prediction holds a value strictly between 0 and 1."""

    template = "{0} of {0:prediction holds|predictions hold} only 0 and 1: hard masks, or a writer that rounded"


class RoundedSoftmax(VoxelError):
    """The softmax that nnU-Net v1 of spring 2023 saved, rounded to whole numbers."""

    template = "{0}: holds only 0 and 1 (nnU-Net v1 of spring 2023 rounded its softmax); predict again"


class OnlyConstants(FitError):
    """Not one prediction varies within its volume."""

    template = "every prediction is constant; nothing can be fitted"


@dataclass(frozen=True, slots=True)
class Saturation:
    """Per class (int64 "class"): values p = 0, p = 1, p < 1e-6, p > 1 - 1e-6, of so many voxels."""

    voxels: int
    zeros: np.ndarray
    ones: np.ndarray
    near_zero: np.ndarray
    near_one: np.ndarray

    @property
    def shares(self) -> list[tuple[float, float, float, float]]:
        """One entry per class: the same as shares of the voxels."""
        table = np.stack((self.zeros, self.ones, self.near_zero, self.near_one)) / self.voxels
        return [(float(a), float(b), float(c), float(d)) for a, b, c, d in table.T]


@dataclass(frozen=True, slots=True)
class ValueReport:
    """The values of one volume, found usable. lo, hi: extremes over all classes. hard: no value strictly inside (0, 1).

    constant: every voxel holds the same values. saturation: None for logits. warnings: whole sentences.
    """

    path: Path
    lo: float
    hi: float
    hard: bool
    constant: bool
    saturation: Saturation | None
    warnings: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class ValueChecker:
    """The checks of one volume: ``tally`` its slabs (from any thread), merge the tallies, then ``finish``.

    names: the class of each channel. exclusive: whether the channels of a voxel sum to 1. stored: the type on disk,
    which fixes the tolerances. axis: where the channels stand in the file, for messages.
    """

    path: Path
    names: tuple[str, ...]
    exclusive: bool
    values: Values
    stored: Stored
    axis: int = 0

    @property
    def sum_tolerance(self) -> float:
        """How far from 1 the channels of exclusive classes may sum."""
        if self.stored.step is not None:
            slack = SUM_SLACK_8_BIT if self.stored.step > 1 / 1024 else SUM_SLACK
            return len(self.names) * self.stored.step / 2 + slack
        return SUM_TOLERANCE_FLOAT16 if self.stored.dtype == "float16" else SUM_SLACK

    def tally(self, slab: np.ndarray) -> Tally:
        """Count over a slab, float32 "class voxel". Probabilities that miss [0, 1] by rounding are clipped in place."""
        return count(slab, self.exclusive, self.values)

    def finish(self, tally: Tally, array: np.ndarray, padding: int = 0) -> ValueReport:
        """Judge the whole volume. array: what the slabs were cut from, "class z y x"; read again only to say what is
        wrong.

        padding: voxels known to be padding of all zeros, whose channels may sum to 0.
        Raises NotFinite, HardMask, NotProbabilities, BadChannelSum, NotLogits, TwiceActivated, TruncatedMap.
        """
        if not (np.isfinite(tally.lo).all() and np.isfinite(tally.hi).all()):
            raise self._not_finite(array)
        lo, hi = float(tally.lo.min()), float(tally.hi.max())
        sums_to_one = tally.sum_lo >= 1 - self.sum_tolerance and tally.sum_hi <= 1 + self.sum_tolerance
        self._refuse_hard_mask(array, lo, hi)
        constant = bool((tally.lo == tally.hi).all())
        warnings = [f"{self.path}: every voxel holds the same values"] if constant else []
        if self.values == "logits":
            if lo >= 0 and hi <= 1 and (sums_to_one or not self.exclusive):
                raise NotLogits(self.path)
            return ValueReport(self.path, lo, hi, False, constant, None, tuple(warnings))
        if lo < -PROBABILITY_SLACK or hi > 1 + PROBABILITY_SLACK:
            raise NotProbabilities(self.path, f"{lo:.4g}", f"{hi:.4g}")
        if self.exclusive and (tally.empty > padding or not sums_to_one):
            raise self._bad_sum(array)
        if self._within_twice(lo, hi):
            error = TwiceActivated(self.path, f"{lo:.4g}", f"{hi:.4g}")
            if not self.exclusive:
                raise error
            warnings.append(str(error))
        self._refuse_truncation(tally)
        if not self.exclusive and len(self.names) > 1 and sums_to_one:
            warnings.append(f"{self.path}: the channels of every voxel sum to 1, which looks like softmax, not sigmoid")
        hard = bool((tally.zeros + tally.ones == tally.voxels).all())
        if hard:
            warnings.append(f"{self.path}: holds only 0 and 1: a hard mask, or a writer that rounded")
        saturation = Saturation(tally.voxels, tally.zeros, tally.ones, tally.near_zero, tally.near_one)
        return ValueReport(self.path, lo, hi, hard, constant, saturation, tuple(warnings))

    def refuse_not_finite(self, array: np.ndarray) -> None:
        """Raise NotFinite for an array "class z y x" that holds NaN or infinite values."""
        if not all(np.isfinite(plane).all() for plane in np.moveaxis(array, 1, 0)):
            raise self._not_finite(array)

    def _not_finite(self, array: np.ndarray) -> NotFinite:
        nan, infinite, first = 0, 0, None
        for z in range(array.shape[1]):
            plane = array[:, z]
            broken = ~np.isfinite(plane)
            if broken.any():
                n = int(np.count_nonzero(np.isnan(plane)))
                nan, infinite = nan + n, infinite + int(np.count_nonzero(broken)) - n
                if first is None:
                    y, x, channel = (int(i) for i in np.argwhere(broken.transpose(1, 2, 0))[0])
                    first = ((x, y, z), self.names[channel])
        assert first is not None, "a tally with NaN or infinite extremes comes from an array that holds such values"
        return NotFinite(self.path, nan, infinite, *first)

    def _bad_sum(self, array: np.ndarray) -> BadChannelSum:
        sums = array.sum(axis=0)
        return BadChannelSum(
            self.path,
            f"{float(np.median(sums)):.4g}",
            f"{float(sums.min()):.4g}",
            f"{float(sums.max()):.4g}",
            self.axis,
        )

    def _refuse_hard_mask(self, array: np.ndarray, lo: float, hi: float) -> None:
        """A label map: whole numbers, none negative, above 1 or in a type that holds no others."""
        scaled = self.stored.step is not None and self.stored.step < 1
        whole_type = np.dtype(self.stored.dtype).kind in "iub" and not scaled
        suspicious = lo >= 0 and (whole_type or (hi > 1 and hi == round(hi)))
        if suspicious and all(np.array_equal(plane, np.rint(plane)) for plane in np.moveaxis(array, 1, 0)):
            raise HardMask(self.path)

    def _within_twice(self, lo: float, hi: float) -> bool:
        """Whether no value leaves what the activation of numbers in [0, 1] gives, up to the rounding of the stored
        type."""
        n = len(self.names)
        lowest, highest = (
            (1 / (math.e + n - 1), math.e / (math.e + n - 1)) if self.exclusive else (0.5, math.e / (math.e + 1))
        )
        rounding = self.stored.complement_floor + SUM_SLACK
        return lowest - rounding <= lo and hi <= highest + rounding

    def _refuse_truncation(self, tally: Tally) -> None:
        if self.exclusive:
            return
        for faint, weak, strong in zip(tally.faint, tally.weak, tally.strong, strict=True):
            if faint:
                continue
            if not weak and strong >= TRUNCATION_VOXELS:
                raise TruncatedMap(self.path, 0.5)
            if weak >= TRUNCATION_VOXELS:
                raise TruncatedMap(self.path, TRUNCATION_LOW)


def check_values(checker: ValueChecker, array: np.ndarray, padding: int = 0) -> ValueReport:
    """All checks of one volume, float32 "class z y x", C-contiguous, in one thread. Clips and raises as ValueChecker
    does."""
    flat = array.reshape(len(array), -1)
    tallies = (checker.tally(flat[:, part]) for part in slabs(*flat.shape))
    return checker.finish(functools.reduce(merge, tallies), array, padding)


def check_all(reports: Sequence[ValueReport], *, rounding_writer: bool = False) -> None:
    """Refuse a set of predictions of which none holds a value strictly inside (0, 1); one such case is only warned
    about.

    rounding_writer: the files are nnU-Net v1's (key ``softmax``), one release of which rounded.
    Raises OnlyHardMasks, RoundedSoftmax (one per file).
    """
    if not reports or not all(report.hard for report in reports):
        return
    if not rounding_writer:
        raise OnlyHardMasks(len(reports))
    errors: list[SegcalError] = [RoundedSoftmax(report.path) for report in reports]
    raise errors[0] if len(errors) == 1 else CaseErrors(*errors)


def check_fit(reports: Sequence[ValueReport], *, rounding_writer: bool = False) -> None:
    """``check_all``, and refuse to fit on predictions that are all constant. Raises OnlyConstants besides."""
    check_all(reports, rounding_writer=rounding_writer)
    if reports and all(report.constant for report in reports):
        raise OnlyConstants
