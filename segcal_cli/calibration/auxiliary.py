"""The auxiliary network of one convolution: a voxel's calibration leans on its neighbours' predictions.

    u_c(x) = (w_c * z_c)(x) + b_c          p = sigmoid(u), or softmax over the classes

z is the log-odds of a binary problem or region, or the log-softmax of a class; each class sees its own channel only.
Rousseau, Becker, Bertels, Blaschko, Valkenborg 2021, "Post training uncertainty calibration of deep networks for
medical image segmentation", section 3.2. With the kernel as the only free thing the fit is convex: logistic
regression on the neighbourhood, with a small ridge towards the calibrator that looks at the voxel alone. In two
dimensions a voxel sees its own slice. The kernel is a correlation, as in torch; its taps run in the order of the axes
z y x.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from itertools import product
from typing import Literal, NamedTuple

import numpy as np

from segcal_cli.calibration import on_device
from segcal_cli.calibration.canonical import kind_of, log_odds, log_probabilities
from segcal_cli.calibration.equipment import Device
from segcal_cli.calibration.likelihood import softplus
from segcal_cli.calibration.linear import Shape, Sums, Voxels, added, best_weights
from segcal_cli.calibration.method import Method
from segcal_cli.core.case import Case
from segcal_cli.core.errors import UsageError
from segcal_cli.core.frozen import dataclass
from segcal_cli.core.labels import LabelSpace
from segcal_cli.core.volume import Grid, Volume

RIDGE = 1e-6
"""Times |w - w0|^2, added to the mean loss: settles what the data leave open."""

SLAB_NUMBERS = 1 << 21
"""Classes times voxels worked on at a time."""

KERNELS = (5, 7, 9, 11)
"""Edge lengths that the paper tried; it found little beyond 5."""

AXES = {"z": 0, "y": 1, "x": 2}

METHOD = Method(
    name="auxiliary",
    families={"binary": "sample", "sigmoid": "sample", "softmax": "sample"},
    options=("voxels", "refine", "kernel", "dim", "pad", "slice_axis"),
    on_gpu=True,
)


class FlatImages(UsageError):
    """A kernel in three dimensions for images of two."""

    template = "{0}: --dim 3 needs volumes, and this is a 2-D image"


@dataclass(frozen=True, slots=True)
class Surroundings:
    """What a voxel sees. kernel: edge length in voxels. slice_axis: what a 2-D kernel does not run along; auto: the
    axis with the largest spacing, z if several."""

    kernel: int = 5
    dim: int = 2
    pad: Literal["replicate", "zero"] = "replicate"
    slice_axis: Literal["auto", "x", "y", "z"] = "auto"

    @property
    def taps(self) -> int:
        return int(self.kernel**self.dim)

    @property
    def centre(self) -> int:
        """The tap at the voxel itself."""
        return self.taps // 2

    def front(self, grid: Grid) -> int:
        """Index in z y x of the axis that slabs, and in 2-D slices, are taken along."""
        if self.dim == 3 or grid.shape[0] == 1:
            return 0
        if self.slice_axis != "auto":
            return AXES[self.slice_axis]
        if grid.spacing_mm is None:
            return 0
        x, y, z = grid.spacing_mm
        return int(np.argmax(np.round([z, y, x], 6)))

    def offsets(self) -> list[tuple[int, int, int]]:
        """Of the taps, along the front axis and the two others."""
        reach = range(-(self.kernel // 2), self.kernel // 2 + 1)
        return list(product(reach if self.dim == 3 else (0,), reach, reach))


class Slab(NamedTuple):
    """start, stop: planes along the front axis. z: float64 "class plane row column", padded on all sides that the
    kernel reaches beyond."""

    start: int
    stop: int
    z: np.ndarray

    def at(self, offset: tuple[int, int, int], hood: Surroundings) -> np.ndarray:
        """The neighbours at one offset, "class plane row column" without padding."""
        half = hood.kernel // 2
        reach = (half if hood.dim == 3 else 0, half, half)
        sizes = (self.stop - self.start, self.z.shape[2] - 2 * half, self.z.shape[3] - 2 * half)
        where = tuple(slice(r + o, r + o + size) for r, o, size in zip(reach, offset, sizes, strict=True))
        planes, rows, columns = where
        return self.z[:, planes, rows, columns]


def channel_inputs(slab: np.ndarray, volume: Volume, space: LabelSpace) -> np.ndarray:
    """float64 "problem voxel": log-odds, or log-softmax of three or more exclusive classes."""
    if kind_of(space) == "softmax":
        return log_probabilities(slab, volume.values, volume.stored)
    return log_odds(slab, volume.values, volume.stored, space)


def slabs(volume: Volume, space: LabelSpace, hood: Surroundings) -> Iterator[Slab]:
    """The volume in slabs along the front axis, with what the kernel sees beyond each."""
    array = np.moveaxis(volume.array, 1 + hood.front(volume.grid), 1)
    classes, planes, rows, columns = array.shape
    half = hood.kernel // 2
    beyond = half if hood.dim == 3 else 0
    step = max(1, SLAB_NUMBERS // (classes * rows * columns))
    for start in range(0, planes, step):
        stop = min(start + step, planes)
        wanted = np.arange(start - beyond, stop + beyond)
        inside = np.clip(wanted, 0, planes - 1)
        z = channel_inputs(array[:, inside].reshape(classes, -1), volume, space)
        z = z.reshape(len(z), len(wanted), rows, columns)
        sides = ((0, 0), (0, 0), (half, half), (half, half))
        if hood.pad == "zero":
            z[:, inside != wanted] = 0.0
            yield Slab(start, stop, np.pad(z, sides))
        else:
            yield Slab(start, stop, np.pad(z, sides, mode="edge"))


def convolved(slab: Slab, weights: np.ndarray, hood: Surroundings) -> np.ndarray:
    """float64 u "class plane row column". weights: "class tap+1", the offset last."""
    u: np.ndarray | None = None
    for tap, offset in enumerate(hood.offsets()):
        part = slab.at(offset, hood) * weights[:, tap, np.newaxis, np.newaxis, np.newaxis]
        u = part if u is None else np.add(u, part, out=u)
    assert u is not None, "a kernel has taps"
    u += weights[:, -1, np.newaxis, np.newaxis, np.newaxis]
    return u


def calibrated(
    volume: Volume, space: LabelSpace, weights: np.ndarray, hood: Surroundings, device: Device = "cpu"
) -> Volume:
    """The volume as calibrated logits, float32. weights: "problem tap+1"."""
    out = np.zeros_like(volume.array)
    turned = np.moveaxis(out, 1 + hood.front(volume.grid), 1)
    channels = list(space.measured) if kind_of(space) != "softmax" else list(range(len(out)))
    for slab in slabs(volume, space, hood):
        if device == "cpu":
            turned[channels, slab.start : slab.stop] = convolved(slab, weights, hood)
        else:
            turned[channels, slab.start : slab.stop] = on_device.convolved(slab, weights, hood, device)
    return replace(volume, array=out, values="logits")


@dataclass(frozen=True, slots=True)
class AuxiliaryModel:
    """What the shared machinery of samples and exact passes needs to know of this method.

    alone: weights "class 2" of the calibrator that looks at the voxel alone, None before it is known.
    """

    space: LabelSpace
    hood: Surroundings
    alone: np.ndarray | None = None
    device: Device = "cpu"

    @property
    def exclusive(self) -> bool:
        return kind_of(self.space) == "softmax"

    @property
    def problems(self) -> int:
        return len(self.space.measured)

    @property
    def numbers(self) -> int:
        """Kept per sampled voxel."""
        return self.hood.taps * self.problems

    def prepared(self, voxels: Voxels, present: np.ndarray) -> AuxiliaryModel:
        """The model with the calibrator that looks at the voxel alone, fitted on a sample."""
        start = np.tile([1.0, 0.0], (self.problems, 1))
        free = np.tile(present[:, np.newaxis], (1, 2))
        if self.exclusive:  # the softmax leaves one offset open
            free[int(present.argmax()), 1] = False
        nothing = np.zeros(start.shape)
        middle = voxels.x[:, self.hood.centre : self.hood.centre + 1]
        small = Voxels(middle, voxels.truth, voxels.weights)
        alone = best_weights(small, Shape(start, free, nothing, nothing), exclusive=self.exclusive)
        return replace(self, alone=alone)

    def shape(self, present: np.ndarray) -> Shape:
        start = np.zeros((self.problems, self.hood.taps + 1))
        start[:, self.hood.centre] = 1.0
        centre = start.copy()
        if self.alone is not None:
            centre[:, self.hood.centre], centre[:, -1] = self.alone.T
        free = np.tile(present[:, np.newaxis], (1, start.shape[1]))
        return Shape(start, free, np.where(free, RIDGE, 0.0), centre)

    def sample(self, case: Case, places: np.ndarray) -> np.ndarray:
        """float32 features "class tap voxel" at flat voxel indices. Raises FlatImages."""
        volume, hood = case.volume, self.hood
        if hood.dim == 3 and volume.grid.shape[0] == 1:
            raise FlatImages(case.id)
        front = hood.front(volume.grid)
        array = np.moveaxis(volume.array, 1 + front, 1)
        at = list(np.unravel_index(places, volume.grid.shape))
        at.insert(0, at.pop(front))
        found = np.empty((self.problems, hood.taps, len(places)), dtype=np.float32)
        for tap, offset in enumerate(hood.offsets()):
            wanted = [axis + o for axis, o in zip(at, offset, strict=True)]
            inside = [np.clip(axis, 0, size - 1) for axis, size in zip(wanted, array.shape[1:], strict=True)]
            found[:, tap] = channel_inputs(array[:, inside[0], inside[1], inside[2]], volume, self.space)
            if hood.pad == "zero":
                outside = np.any([a != b for a, b in zip(wanted, inside, strict=True)], axis=0)
                found[:, tap, outside] = 0.0
        return found

    def sums(self, case: Case, weights: np.ndarray, threads: int) -> Sums:
        """Value and gradient over all counted voxels: two correlations per slab, no matrix of features."""
        assert case.labels is not None, "fits need labels"
        front = self.hood.front(case.volume.grid)
        codes = np.moveaxis(case.labels.codes, front, 0)
        counted = case.counted(padding=False)
        keep = None if counted is None else np.moveaxis(counted, front, 0)
        members = case.labels.members if self.exclusive else case.labels.members[list(self.space.measured)]
        parts = []
        for slab in slabs(case.volume, self.space, self.hood):
            inside = None if keep is None else keep[slab.start : slab.stop]
            if inside is None or inside.any():
                truth = members[:, codes[slab.start : slab.stop]]
                if self.device == "cpu":
                    parts.append(self._slab_sums(slab, truth, inside, weights))
                else:
                    parts.append(
                        on_device.slab_sums(
                            slab, truth, inside, weights, self.hood, exclusive=self.exclusive, device=self.device
                        )
                    )
        return added(parts)

    def _slab_sums(self, slab: Slab, truth: np.ndarray, inside: np.ndarray | None, weights: np.ndarray) -> Sums:
        u = convolved(slab, weights, self.hood)
        if self.exclusive:
            u -= u.max(axis=0)
            p = np.exp(u)
            total = p.sum(axis=0)
            p /= total
            losses = np.log(total) - np.where(truth, u, 0.0).sum(axis=0)
        else:
            losses = (softplus(u) - truth * u).sum(axis=0)
            p = np.exp(np.minimum(u, 0.0) - np.log1p(np.exp(-np.abs(u))))
        left = p - truth
        if inside is not None:
            left *= inside
            losses = losses[inside]
        gradient = np.empty(weights.shape)
        for tap, offset in enumerate(self.hood.offsets()):
            near = slab.at(offset, self.hood)
            gradient[:, tap] = [np.einsum("abc,abc->", near[c], left[c]) for c in range(len(left))]
        gradient[:, -1] = left.sum(axis=(1, 2, 3))
        return Sums(float(losses.sum()), gradient, None, float(losses.size))
