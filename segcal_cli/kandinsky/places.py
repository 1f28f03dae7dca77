"""Places: which cell of a map a voxel of a scan stands in.

A map of places covers a field of cells in the canonical frame. Scans differ in size, so there are several ways to lay
the field over one: by index, by share of the extent, by mm from the image's centre, by share of the region of
interest's box, or by mm from the middle of the predicted object. All of them work axis by axis, so that a scan needs
three short lists and no array of coordinates.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Literal

import numpy as np

from segcal_cli.core.errors import FitError, UsageError
from segcal_cli.core.frozen import dataclass
from segcal_cli.kandinsky.annuli import Field
from segcal_cli.kandinsky.frames import Frame, Three

Coordinates = Literal["index", "unit", "mm", "roi", "object"]

MAX_CELLS = 1 << 20
"""Above this many voxels the cells of a field are blocks of voxels."""

SPACING_SLACK = 0.01
"""Spacings that differ by less than this share are the same."""


class ShapesDiffer(FitError):
    """Coordinates by index need scans of one shape."""

    template = "--coords index needs scans of one shape; there are {0}. Use --coords unit, mm or object"


class DimensionsDiffer(FitError):
    """Images and volumes in one fit."""

    template = "{0} of {1:case is|cases are} 2-D and the others 3-D; one map takes one kind"


class NoRoi(UsageError):
    """Coordinates in the box of a region of interest that nobody gave."""

    template = "--coords roi needs --roi"


class NoMillimetres(FitError):
    """Coordinates in mm for images without spacing."""

    template = "--coords {0} needs spacings in mm; {1} of {2} cases have none"


@dataclass(frozen=True, slots=True)
class Placing:
    """A field and how it is laid over a scan. shape: voxels of the field, canonical "z y x"; spacing: mm (or voxels);
    block: edge of a cell in voxels."""

    coords: Coordinates
    shape: Three
    spacing: tuple[float, float, float]
    block: int = 1

    @property
    def cells(self) -> Three:
        """Cells per axis. An axis of one voxel has one."""
        return tuple(-(-n // self.block) for n in self.shape)  # type: ignore[return-value]

    @property
    def sound(self) -> bool:
        """Whether there is a field at all: an artifact may be damaged."""
        return self.block >= 1 and min(self.shape) >= 1 and all(0 < edge < math.inf for edge in self.spacing)

    @property
    def n_cells(self) -> int:
        return int(np.prod(self.cells))

    @property
    def field(self) -> Field:
        """The axes with more than one cell; at least one axis."""
        axes = self.long_axes
        spacing = [self.spacing[axis] * self.block for axis in axes]
        return Field(tuple(self.cells[axis] for axis in axes), tuple(spacing))

    @property
    def long_axes(self) -> tuple[int, ...]:
        return tuple(axis for axis in range(3) if self.cells[axis] > 1) or (2,)

    @property
    def dimension(self) -> int:
        return 2 if 1 in self.shape else 3

    def cells_of(
        self, frame: Frame, roi_box: Sequence[tuple[int, int]] | None, middle: Sequence[float] | None
    ) -> tuple[list[np.ndarray], list[np.ndarray]]:
        """Per canonical axis the cell of each index, and whether it lies beyond the field (then the nearest cell).

        roi_box: half-open index ranges, canonical; middle: of the predicted object, canonical index.
        """
        cells, beyond = [], []
        for axis in range(3):
            n, size = frame.shape[axis], self.shape[axis]
            index = np.arange(n)
            if self.coords == "index":
                at = index
            elif self.coords == "unit":
                at = ((2 * index + 1) * size) // (2 * n)
            elif self.coords == "roi":
                assert roi_box is not None, "checked when the case was read"
                low, high = roi_box[axis]
                at = ((2 * (index - low) + 1) * size) // (2 * (high - low))
            else:
                origin = (n - 1) / 2 if self.coords == "mm" or middle is None else middle[axis]
                offset = (index - origin) * (frame.spacing[axis] / self.spacing[axis])
                # A hair below the half, so that a tie does not depend on the last digit of a spacing.
                at = np.floor(offset + (size - 1) / 2 + 0.5 - 1e-7).astype(np.int64)
            beyond.append((at < 0) | (at >= size))
            cells.append(np.clip(at, 0, size - 1) // self.block)
        return cells, beyond


def choose_placing(
    frames: Sequence[Frame], coords: Coordinates | None, block: int | None, *, has_roi: bool
) -> tuple[Placing, str | None]:
    """The field of all scans, and a sentence if the default gave way.

    Raises ShapesDiffer, DimensionsDiffer, NoRoi, NoMillimetres.
    """
    flat = sum(frame.dimension == 2 for frame in frames)
    if 0 < flat < len(frames):
        raise DimensionsDiffer(flat, len(frames))
    shapes = sorted({frame.shape for frame in frames})
    spacing = np.median([frame.spacing for frame in frames], axis=0)
    alike = len(shapes) == 1 and all(
        (np.abs(np.array(frame.spacing) / spacing - 1) <= SPACING_SLACK).all() for frame in frames
    )
    note = None
    if coords is None:
        coords = "index" if alike else "unit"
        if not alike:
            note = f"scans differ in shape or spacing ({len(shapes)} shapes): places are shares of the extent"
    if coords == "index" and len(shapes) > 1:
        raise ShapesDiffer(", ".join(" x ".join(map(str, reversed(shape))) for shape in shapes[:8]))
    if coords == "roi" and not has_roi:
        raise NoRoi
    without = sum(not frame.has_mm for frame in frames)
    if coords in ("mm", "object") and 0 < without < len(frames):
        raise NoMillimetres(coords, without, len(frames))
    extents = np.array(shapes)
    if coords == "index":
        shape = shapes[0]
    elif coords in ("unit", "roi"):
        lengths = np.median([np.array(frame.shape) * frame.spacing for frame in frames], axis=0)
        shape = tuple(max(1, round(n)) for n in lengths / spacing)
    else:
        lengths = np.max([np.array(frame.shape) * frame.spacing for frame in frames], axis=0)
        sides = np.ceil(lengths / spacing - 1e-6).astype(int)
        # An object can be anywhere in the image, so the image can be anywhere around the object.
        shape = tuple(int(n if coords == "mm" or n == 1 else 2 * n - 1) for n in sides)  # type: ignore[assignment]
    if (extents == 1).all(axis=0).any():
        shape = tuple(1 if (extents[:, axis] == 1).all() else shape[axis] for axis in range(3))  # type: ignore[assignment]
    return Placing(coords, shape, tuple(map(float, spacing)), block or _block(shape)), note  # type: ignore[arg-type]


def _block(shape: Three) -> int:
    """The smallest block that keeps the number of cells below the limit."""
    block = 1
    while np.prod([-(-n // block) for n in shape]) > MAX_CELLS:
        block += 1
    return block


def grid_blocks(frame: Frame, blocks: Sequence[int]) -> list[np.ndarray]:
    """Per canonical axis (z, y, x) the block of each index. blocks: along x, y, z."""
    numbers = [*blocks, 1][:3] if len(blocks) == 2 else list(blocks)
    return [((2 * np.arange(n) + 1) * b) // (2 * n) for n, b in zip(frame.shape, reversed(numbers), strict=True)]
