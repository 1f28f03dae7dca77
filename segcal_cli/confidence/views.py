"""A case as conformal sets see it: for each target the predicted mask, the truth, the log-odds, the voxels that exist.

Voxels outside a region of interest do not exist: no set, no distance and no smoothing reaches across them. Ignored
voxels exist (a new scan does not know them), but enter neither tau nor gamma. Padding around a model's crop counts: it
is certain background, and a true voxel there is a miss.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import cached_property

import numpy as np

from segcal_cli.confidence.distances import SPACING_DIGITS, Slices, bounding_box, whole
from segcal_cli.confidence.log_odds import full_log_odds, predicted_masks
from segcal_cli.confidence.targets import Target, truth_of
from segcal_cli.core.case import Case
from segcal_cli.core.errors import LabelError
from segcal_cli.core.frozen import dataclass


class NoTruth(LabelError):
    """Tau and gamma need labels."""

    template = "{0}: no label volume, so it cannot calibrate or be evaluated"


def spacing_of(case: Case) -> tuple[float, float, float]:
    """Voxel edges along z, y, x in mm, rounded; 1 (pixels) without a place in space."""
    edges = case.volume.grid.spacing_mm
    if edges is None:
        return 1.0, 1.0, 1.0
    x, y, z = (round(edge, SPACING_DIGITS) for edge in edges)
    return z, y, x


def length_unit(case: Case) -> str:
    """ "mm", or "px" without a place in space."""
    return "px" if case.volume.grid.affine is None else "mm"


def voxel_volume(case: Case) -> float:
    """mm3 of a voxel, or 1 (px) without a place in space."""
    return case.volume.grid.voxel_mm3 or 1.0


@dataclass(frozen=True)
class TargetView:
    """One target of one case. mask: bool "z y x", the predicted mask inside the domain; domain: bool or None (all)."""

    case: Case
    target: Target
    mask: np.ndarray
    domain: np.ndarray | None
    spacing: tuple[float, float, float]

    @property
    def shape(self) -> tuple[int, int, int]:
        return self.case.volume.grid.shape

    @property
    def dimensions(self) -> int:
        """Number of axes longer than one voxel."""
        return sum(size > 1 for size in self.shape)

    @cached_property
    def log_odds(self) -> np.ndarray:
        """float64 "z y x"."""
        volume = self.case.volume
        return full_log_odds(volume.array, volume.values, self.target, exclusive=self.case.space.exclusive)

    @cached_property
    def stored(self) -> np.ndarray:
        """float32 "z y x": the stored channel itself."""
        return self.case.volume.array[self.target.channels[0]]

    @cached_property
    def mask_box(self) -> Slices | None:
        return bounding_box(self.mask)

    @cached_property
    def mask_voxels(self) -> int:
        return int(np.count_nonzero(self.mask))

    @cached_property
    def domain_box(self) -> Slices:
        """The box of the voxels that exist."""
        return whole(self.shape) if self.domain is None else bounding_box(self.domain) or whole(self.shape)

    @cached_property
    def all_truth(self) -> np.ndarray:
        """bool "z y x": the target in the label volume, wherever it lies. Raises NoTruth."""
        if self.case.labels is None:
            raise NoTruth(self.case.id)
        return truth_of(self.case.labels, self.target)

    @cached_property
    def truth(self) -> np.ndarray:
        """bool "z y x": the part of the truth that exists."""
        return self.all_truth if self.domain is None else self.all_truth & self.domain

    @cached_property
    def truth_box(self) -> Slices | None:
        return bounding_box(self.truth)

    @cached_property
    def truth_voxels(self) -> int:
        """Voxels of the part of the truth that exists."""
        return int(np.count_nonzero(self.truth))

    @cached_property
    def missed_outside(self) -> int:
        """True voxels outside the region of interest: no outer set can hold them."""
        return 0 if self.domain is None else int(np.count_nonzero(self.all_truth)) - self.truth_voxels

    @property
    def all_truth_voxels(self) -> int:
        """Voxels of the whole truth."""
        return self.truth_voxels + self.missed_outside

    @cached_property
    def counted(self) -> np.ndarray | None:
        """bool "z y x": voxels that enter tau; None means all."""
        return self.case.counted(padding=True)


def views(case: Case, targets: Sequence[Target]) -> tuple[TargetView, ...]:
    """The view of every target. Label maps come as probabilities of 0 and 1."""
    volume = case.volume
    masks = predicted_masks(volume.array, volume.values, targets, exclusive=case.space.exclusive)
    if case.roi is not None:
        masks &= case.roi
    spacing = spacing_of(case)
    return tuple(TargetView(case, target, mask, case.roi, spacing) for target, mask in zip(targets, masks, strict=True))
