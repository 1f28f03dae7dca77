"""Volumes in memory: one order of axes, one dtype, and where the voxels lie in space.

Arrays are float32 ``"class z y x"``, C-contiguous; 2-D images have z = 1. That order needs no transposing copy: nnU-Net
saves it, and the bytes of a channel-last NIfTI (x fastest, then y, z, class), seen in C order, are in it too.
"""

from __future__ import annotations

from typing import Literal

import numpy as np

from segcal_cli.core.frozen import dataclass

Values = Literal["logits", "probabilities"]


@dataclass(frozen=True, slots=True)
class Grid:
    """Where voxels lie. shape: (z, y, x). affine: float64 4 x 4, index (x, y, z, 1) -> mm in RAS+, or None.

    Without an affine (PNG, bare arrays) lengths are in pixels and volumes in voxels, and every output says so.
    """

    shape: tuple[int, int, int]
    affine: np.ndarray | None = None

    @property
    def spacing_mm(self) -> tuple[float, float, float] | None:
        """Voxel edges along (x, y, z) in mm: the column norms of the affine."""
        if self.affine is None:
            return None
        x, y, z = np.linalg.norm(self.affine[:3, :3], axis=0)
        return float(x), float(y), float(z)

    @property
    def voxel_mm3(self) -> float | None:
        """Volume of a voxel in mm3: |det| of the affine, which is right for sheared axes too."""
        return None if self.affine is None else float(abs(np.linalg.det(self.affine[:3, :3])))


@dataclass(frozen=True, slots=True)
class Stored:
    """How the numbers were stored, which fixes how close to 0 and 1 they can come.

    dtype: numpy name of the type on disk. step: the value of one unit of a scaled integer (1/255, 1/65535, a NIfTI
    slope), None for floats. Probabilities of exactly 0 stand for anything up to ``floor``.
    """

    dtype: str
    step: float | None = None

    @property
    def floor(self) -> float:
        """Smallest positive probability of the stored type; half a step for scaled integers."""
        if self.step is not None:
            return self.step / 2
        return 2.0**-24 if self.dtype == "float16" else 2.0**-149

    @property
    def complement_floor(self) -> float:
        """Smallest 1 - p that a single stored probability can tell from 0: half the step below 1."""
        if self.step is not None:
            return self.step / 2
        return 2.0**-12 if self.dtype == "float16" else 2.0**-25


@dataclass(frozen=True, slots=True)
class Box:
    """A box of voxels: half-open index ranges along z, y and x."""

    z: tuple[int, int]
    y: tuple[int, int]
    x: tuple[int, int]

    @property
    def slices(self) -> tuple[slice, slice, slice]:
        return slice(*self.z), slice(*self.y), slice(*self.x)

    def mask(self, shape: tuple[int, int, int]) -> np.ndarray:
        """bool "z y x", True inside the box."""
        inside = np.zeros(shape, dtype=bool)
        inside[self.slices] = True
        return inside


@dataclass(frozen=True, slots=True)
class Volume:
    """One prediction. array: float32 "class z y x".

    predicted: the box of real predictions, or None if that is the whole grid. What lies outside is padding, which
    nnU-Net writes around its crop box; it reads as certain background. Calibrator fits and calibration metrics leave
    it out; overlap, volumes, conformal scores and coverage keep it. features: float "feature z y x", what the network's
    last layer was given, and image: float32 "z y x", the scan; both only where a calibrator looks at them.
    """

    array: np.ndarray
    grid: Grid
    values: Values
    stored: Stored
    predicted: Box | None = None
    features: np.ndarray | None = None
    image: np.ndarray | None = None
