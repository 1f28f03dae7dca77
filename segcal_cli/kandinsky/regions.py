"""Regions: which cluster each voxel of a scan belongs to, for each class.

A cluster map is a function of geometry, an atlas, other patients, or the prediction of the scan itself, never of the
calibration patients' scores; that, and that it is the same function for every scan, is what the promise rests on.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import field
from typing import Literal

import numpy as np

from segcal_cli.core.errors import LabelError
from segcal_cli.core.frozen import dataclass
from segcal_cli.kandinsky.boundary import shells, signed_distance
from segcal_cli.kandinsky.frames import Frame
from segcal_cli.kandinsky.places import Placing, grid_blocks
from segcal_cli.kandinsky.views import View

Method = Literal["image", "pixel", "kmeans", "annuli", "star", "grid", "atlas", "boundary"]

LEARNED: frozenset[str] = frozenset({"kmeans", "annuli", "star", "boundary"})
"""Methods that learn their map from patients; boundary does not where its edges are given."""


class AtlasNotWhole(LabelError):
    """An atlas of fractions."""

    template = "{0}: an atlas holds region numbers, and this one {1}"


@dataclass(frozen=True, slots=True)
class Clusters:
    """Clusters of one class in one scan. index: uint8/16/32 "voxel", or None where all are cluster 0.

    unseen: bool "voxel", voxels beyond what the map saw; None for none.
    """

    index: np.ndarray | None
    unseen: np.ndarray | None = None

    def at(self, where: np.ndarray) -> np.ndarray:
        """int64 clusters at flat indices."""
        return np.zeros(where.size, np.int64) if self.index is None else self.index[where].astype(np.int64)


@dataclass(frozen=True)
class Regions:
    """The cluster maps of all classes. sizes: clusters per class; 1 is the whole image.

    placing: of methods by place. cells: channel -> cluster of each cell (canonical "z y x"). edges: channel -> edges of
    boundary shells. values: of the atlas, sorted. blocks: of the grid, along x, y, z.
    """

    method: Method
    sizes: tuple[int, ...]
    placing: Placing | None = None
    cells: Mapping[int, np.ndarray] = field(default_factory=dict)
    edges: Mapping[int, tuple[float, ...]] = field(default_factory=dict)
    values: tuple[int, ...] = ()
    blocks: tuple[int, ...] = ()

    @property
    def offsets(self) -> np.ndarray:
        """int64 "channel + 1": the first slot of each class."""
        return np.concatenate(([0], np.cumsum(self.sizes))).astype(np.int64)

    @property
    def n_slots(self) -> int:
        return int(sum(self.sizes))

    def clusters(self, view: View, channel: int) -> Clusters:
        """The cluster of every voxel for a class. Raises AtlasNotWhole."""
        if self.sizes[channel] == 1 and self.method not in ("atlas", "boundary"):
            return Clusters(None)
        if self.method == "boundary":
            return self._boundary(view, channel)
        if self.method == "grid":
            return Clusters(grid_index(view.frame, self.blocks))
        if self.method == "atlas":
            return self._atlas(view)
        return self._by_place(view, channel)

    def _boundary(self, view: View, channel: int) -> Clusters:
        if channel not in self.edges:
            return Clusters(None)
        edges = self.edges[channel]
        x, y, z = view.case.volume.grid.spacing_mm or (1.0, 1.0, 1.0)
        distance = signed_distance(view.predicted(channel), [round(edge, 5) for edge in (z, y, x)])
        if distance is None:
            return Clusters(np.full(int(np.prod(view.shape)), len(edges) + 1, np.uint8))
        return Clusters(shells(distance, edges).ravel())

    def _atlas(self, view: View) -> Clusters:
        atlas = view.atlas
        assert atlas is not None, "the reader has put it there"
        values = np.array(self.values)
        flat = atlas.reshape(-1)
        at = np.minimum(np.searchsorted(values, flat), len(values) - 1)
        known = values[at] == flat
        # A value that no fit has seen has no scores: one more cluster, the last, which stays empty.
        index: np.ndarray = np.where(known, at, len(values)).astype(_kind(len(values) + 1))
        return Clusters(index, None if known.all() else ~known)

    def _by_place(self, view: View, channel: int) -> Clusters:
        assert self.placing is not None, "methods by place have a field"
        middle = None
        if self.placing.coords == "object":
            middle = view.middle_of(channel)
            if middle is None:
                return Clusters(np.full(int(np.prod(view.shape)), self.sizes[channel] - 1, np.uint16))
        at, beyond = self.placing.cells_of(view.frame, view.roi_box, middle)
        cells = self.cells.get(channel)
        if cells is None:
            cells = np.arange(self.placing.n_cells, dtype=np.uint32).reshape(self.placing.cells)
        index = view.frame.to_scan(cells[np.ix_(*at)])
        return Clusters(np.ascontiguousarray(index).reshape(-1), _unseen(view.frame, beyond))


def place_cells(view: View, placing: Placing, channel: int) -> np.ndarray | None:
    """int64 "voxel": the cell of every voxel; None where the object that places it is predicted nowhere."""
    middle = None
    if placing.coords == "object":
        middle = view.middle_of(channel)
        if middle is None:
            return None
    at, _ = placing.cells_of(view.frame, view.roi_box, middle)
    _, ny, nx = placing.cells
    cell = (at[0][:, None, None] * ny + at[1][None, :, None]) * nx + at[2][None, None, :]
    return np.ascontiguousarray(view.frame.to_scan(cell)).reshape(-1)


def grid_index(frame: Frame, blocks: tuple[int, ...]) -> np.ndarray:
    """uint16 "voxel": ix + bx (iy + by iz)."""
    iz, iy, ix = grid_blocks(frame, blocks)
    bx, by = blocks[0], blocks[1]
    canonical = ix[None, None, :] + bx * (iy[None, :, None] + by * iz[:, None, None])
    return np.ascontiguousarray(frame.to_scan(canonical.astype(np.uint16))).reshape(-1)


def _unseen(frame: Frame, beyond: list[np.ndarray]) -> np.ndarray | None:
    if not any(axis.any() for axis in beyond):
        return None
    z, y, x = beyond
    outside = z[:, None, None] | y[None, :, None] | x[None, None, :]
    return np.ascontiguousarray(frame.to_scan(outside)).reshape(-1)


def _kind(n: int) -> type:
    return np.uint8 if n <= 255 else np.uint16 if n <= 65535 else np.uint32
