"""Tiles: pieces of a volume that a small network is trained on, with what it sees beyond their edges.

A volume is cut into slices of at most 128 x 128 voxels, or into cubes of 64^3. If that is more than a case may keep,
tiles are drawn: those where the model is unsure more often, each with the weight that makes up for it, as single voxels
are in ``sampling.py``. Beyond the volume its outermost voxels go on.
"""

from __future__ import annotations

from collections.abc import Sequence
from itertools import product

import numpy as np

from segcal_cli.calibration.auxiliary import FlatImages, Surroundings, channel_inputs
from segcal_cli.calibration.canonical import kind_of
from segcal_cli.calibration.likelihood import sigmoid
from segcal_cli.calibration.sampling import draw, generator, unsure
from segcal_cli.core.case import Case
from segcal_cli.core.frozen import dataclass
from segcal_cli.core.labels import LabelSpace
from segcal_cli.core.volume import Volume

EDGES = {2: (1, 128, 128), 3: (64, 64, 64)}
"""Voxels of a tile along the front axis and the two others, by dimension."""

MOST_NUMBERS = 1 << 20
"""Inputs times voxels that are kept of a case, without what lies around tiles; one tile at least."""


@dataclass(frozen=True, slots=True)
class Tile:
    """A piece of a case. x: float32 "input plane row column" with what is seen around it: log-odds or log-softmax, then
    the scan if there is one. truth: bool "problem plane row column", inside: bool "plane row column", voxels that
    count; both without what lies around. weight: how many tiles it stands for."""

    x: np.ndarray
    truth: np.ndarray
    inside: np.ndarray
    weight: float

    @property
    def voxels(self) -> float:
        """Weighted number of voxels that count."""
        return self.weight * int(np.count_nonzero(self.inside))


@dataclass(frozen=True, slots=True)
class Scene:
    """A volume with its planes first. array: "class plane row column"; image: standardised "plane row column"."""

    array: np.ndarray
    image: np.ndarray | None
    volume: Volume
    space: LabelSpace
    hood: Surroundings

    @classmethod
    def of(cls, volume: Volume, space: LabelSpace, hood: Surroundings) -> Scene:
        front = hood.front(volume.grid)
        image = None if volume.image is None else np.moveaxis(standardised(volume.image), front, 0)
        return cls(np.moveaxis(volume.array, 1 + front, 1), image, volume, space, hood)

    def block(self, box: Sequence[slice]) -> np.ndarray:
        """float64 "input plane row column" of a box of planes, rows and columns, and of what is seen around it."""
        half = self.hood.kernel // 2
        reach = (half if self.hood.dim == 3 else 0, half, half)
        seen = [
            np.clip(np.arange(run.start - r, run.stop + r), 0, size - 1)
            for run, r, size in zip(box, reach, self.array.shape[1:], strict=True)
        ]
        part = self.array[np.ix_(np.arange(len(self.array)), *seen)]
        x = channel_inputs(part.reshape(len(part), -1), self.volume, self.space)
        x = x.reshape(len(x), *part.shape[1:])
        return x if self.image is None else np.concatenate([x, self.image[np.ix_(*seen)][np.newaxis]])


def standardised(image: np.ndarray) -> np.ndarray:
    """float64: mean 0 and standard deviation 1; zeros where all voxels are alike."""
    wide = image.astype(np.float64)
    wide -= wide.mean()
    spread = wide.std()
    return wide / spread if spread > 0.0 else wide


def boxes_of(shape: Sequence[int], edges: Sequence[int]) -> list[tuple[slice, ...]]:
    """Boxes that fill a grid, in order; those at the ends are smaller."""
    runs = [
        [slice(s, min(s + edge, size)) for s in range(0, size, edge)] for size, edge in zip(shape, edges, strict=True)
    ]
    return list(product(*runs))


def tiles_of(case: Case, hood: Surroundings, seed: int) -> tuple[Tile, ...]:
    """The tiles of a labelled case. Raises FlatImages."""
    assert case.labels is not None, "fits need labels"
    if hood.dim == 3 and case.volume.grid.shape[0] == 1:
        raise FlatImages(case.id)
    scene = Scene.of(case.volume, case.space, hood)
    front = hood.front(case.volume.grid)
    codes = np.moveaxis(case.labels.codes, front, 0)
    counted = case.counted(padding=False)
    keep = np.ones(codes.shape, dtype=bool) if counted is None else np.moveaxis(counted, front, 0)
    boxes = [box for box in boxes_of(codes.shape, EDGES[hood.dim]) if keep[box].any()]
    numbers = (len(case.space.measured) + (scene.image is not None)) * max(keep[box].size for box in boxes)
    most = max(1, MOST_NUMBERS // numbers)
    if len(boxes) <= most:
        chosen, weights = np.arange(len(boxes)), np.ones(len(boxes))
    else:
        worth = np.array([_worth(scene, box)[keep[box]].sum() for box in boxes])
        chosen, weights = draw(worth, most, generator(seed, case.id))
    members = case.labels.members
    if case.space.binary:
        members = members[list(case.space.measured)]
    return tuple(
        Tile(
            scene.block(boxes[at]).astype(np.float32),
            members[:, codes[boxes[at]]],
            np.ascontiguousarray(keep[boxes[at]]),
            float(weight),
        )
        for at, weight in zip(chosen, weights, strict=True)
    )


def _worth(scene: Scene, box: Sequence[slice]) -> np.ndarray:
    """float64 "plane row column": how unsure the model is of each voxel."""
    part = scene.array[(slice(None), *box)]
    x = channel_inputs(part.reshape(len(part), -1), scene.volume, scene.space)
    exclusive = kind_of(scene.space) == "softmax"
    return unsure(np.exp(x) if exclusive else sigmoid(x), exclusive=exclusive).reshape(part.shape[1:])
