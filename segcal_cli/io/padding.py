"""nnU-Net's crop box: where the network predicted, and what was filled in around it.

nnU-Net predicts the non-zero box of a scan only. v2 fills the rest with certain background, late v1 with zeros. What
was filled in is no prediction, and calibration must not learn from it, so the predicted box is found. v1 up to 1.7.1
saved the box alone; its place in the scan is found again by fitting its content to the segmentation.
"""

from __future__ import annotations

import itertools
from pathlib import Path

import numpy as np

from segcal_cli.core.errors import GeometryError
from segcal_cli.core.labels import LabelSpace
from segcal_cli.core.volume import Box, Stored
from segcal_cli.io.axes import shape_text
from segcal_cli.io.proof import Painting

CROP_REACH = 2
"""Ties of float16 can move the foreground box of an array by a voxel or two against that of the segmentation."""
CROP_SAMPLE = 4096
"""So many foreground voxels turn down most wrong places of a crop, before whole arrays are compared."""


class CropNotPlaced(GeometryError):
    """The place of a cropped array within its scan cannot be found."""

    template = "{0}: array {1}, scan {2}: nnU-Net v1 saved the cropped box and its place cannot be found ({3})"


def place_crop(path: Path, array: np.ndarray, segmentation: np.ndarray, painting: Painting) -> tuple[np.ndarray, Box]:
    """Place a cropped array "class z y x" of nnU-Net v1 in the scan of its segmentation "z y x" (label values).

    The lowest corners of the two foreground boxes give the place; since ties can move a box, places up to two voxels
    away are tried too, and exactly one must reproduce the whole segmentation. Returns the full-size array, certain
    background outside the crop, and the box of the crop. Raises CropNotPlaced.
    """
    codes = painting.encode(segmentation)
    crop, scan = array.shape[1:], codes.shape

    def refused(why: str) -> CropNotPlaced:
        return CropNotPlaced(path, shape_text(crop), shape_text(scan), why)

    if any(small > large for small, large in zip(crop, scan, strict=True)):
        raise refused("the array is larger than the scan")
    there = bounding_box(codes != painting.background)
    painted = bounding_box(np.stack([painting.paint(plane) for plane in array.swapaxes(0, 1)]) != painting.background)
    if there is None or painted is None:
        raise refused("no foreground")
    corner = tuple(a.start - b.start for a, b in zip(there.slices, painted.slices, strict=True))
    ranges = (
        range(max(0, start - CROP_REACH), min(large - small, start + CROP_REACH) + 1)
        for start, small, large in zip(corner, crop, scan, strict=True)
    )
    boxes = (_box(offset, crop) for offset in itertools.product(*ranges))
    sample = np.flatnonzero(codes != painting.background)
    sample = sample[:: max(1, sample.size // CROP_SAMPLE)]
    proved = [box for box in boxes if _holds(box, there) and _reproduces(array, codes, painting, box, sample)]
    if len(proved) != 1:
        raise refused(
            f"{len(proved)} places reproduce the segmentation" if proved else "no place reproduces the segmentation"
        )
    full = np.zeros((len(array), *scan), dtype=array.dtype)
    full[(slice(None), *proved[0].slices)] = array
    fill_background(full, proved[0], painting.space)
    return full, proved[0]


def _box(offset: tuple[int, ...], shape: tuple[int, ...]) -> Box:
    z, y, x = ((start, start + length) for start, length in zip(offset, shape, strict=True))
    return Box(z, y, x)


def _holds(box: Box, inner: Box) -> bool:
    return all(a.start <= b.start and b.stop <= a.stop for a, b in zip(box.slices, inner.slices, strict=True))


def _reproduces(array: np.ndarray, codes: np.ndarray, painting: Painting, box: Box, sample: np.ndarray) -> bool:
    """Whether the array, placed in this box, gives the codes there; first at some voxels of the scan, then at all."""
    corner = [[part.start] for part in box.slices]
    voxels = np.ravel_multi_index(tuple(np.array(np.unravel_index(sample, codes.shape)) - corner), array.shape[1:])
    if not painting.agreement(array.reshape(len(array), -1)[:, voxels], codes.reshape(-1)[sample]).holds:
        return False
    return painting.compare(array, np.ascontiguousarray(codes[box.slices])).holds


def predicted_box(array: np.ndarray, space: LabelSpace, stored: Stored) -> Box | None:
    """The box of the real predictions in an array "class z y x" of probabilities, or None if that is all of it.

    Padding is what lies outside the bounding box of the voxels that are not exactly nnU-Net's constant: (1, 0, .., 0)
    under softmax, zeros for regions. In float16 a saturated softmax looks like (1, 0, .., 0), so there only zeros
    (v1's constant) count. An array of nothing but the constant has an empty box. Reads little more than the padding
    itself.
    """
    constant = np.zeros((len(array), 1, 1, 1), dtype=array.dtype)
    if space.exclusive and stored.dtype != "float16":
        constant[0] = 1

    def profile(part: np.ndarray, axis: int) -> np.ndarray:
        """bool: where along the axis (of z, y, x) of this part there is a voxel that is not the constant."""
        others = tuple(other for other in range(3) if other != axis)
        found = np.zeros(part.shape[1 + axis], dtype=bool)
        for channel, value in zip(part, constant, strict=True):
            found |= (channel != value).any(axis=others)
        return found

    depth = array.shape[1]
    first = next((z for z in range(depth) if profile(array[:, z : z + 1], 0)[0]), None)
    if first is None:
        return Box((0, 0), (0, 0), (0, 0))
    last = next(z for z in range(depth - 1, -1, -1) if profile(array[:, z : z + 1], 0)[0])
    part = array[:, first : last + 1]
    limits = [(first, last + 1)]
    # Three planes give a box that the full one cannot be smaller than; only the strips outside it are left to read.
    seed = part[:, [0, (last - first) // 2, last - first]]
    for axis in (1, 2):
        seen = np.flatnonzero(profile(seed, axis))
        low, high = int(seen[0]), int(seen[-1]) + 1
        before = np.flatnonzero(profile(_along(part, axis, slice(0, low)), axis))
        after = np.flatnonzero(profile(_along(part, axis, slice(high, None)), axis))
        limits.append((int(before[0]) if before.size else low, high + int(after[-1]) + 1 if after.size else high))
        part = _along(part, axis, slice(*limits[-1]))
        seed = _along(seed, axis, slice(*limits[-1]))
    box = Box(*limits)
    return None if box == _box((0, 0, 0), array.shape[1:]) else box


def _along(array: np.ndarray, axis: int, part: slice) -> np.ndarray:
    return array[(slice(None),) * (1 + axis) + (part,)]


def bounding_box(mask: np.ndarray) -> Box | None:
    """The box of the True voxels of a mask "z y x", or None."""
    ranges = []
    for axis in range(3):
        seen = np.flatnonzero(mask.any(axis=tuple(other for other in range(3) if other != axis)))
        if not seen.size:
            return None
        ranges.append((int(seen[0]), int(seen[-1]) + 1))
    return Box(*ranges)


def outside(box: Box, shape: tuple[int, ...]) -> list[tuple[slice, slice, slice]]:
    """Up to six disjoint parts of a grid (z, y, x) that together are all that lies outside the box."""
    z, y, x = box.slices
    everything = slice(None)
    parts = [
        (slice(0, z.start), everything, everything),
        (slice(z.stop, shape[0]), everything, everything),
        (z, slice(0, y.start), everything),
        (z, slice(y.stop, shape[1]), everything),
        (z, y, slice(0, x.start)),
        (z, y, slice(x.stop, shape[2])),
    ]
    return [part for part in parts if all(s.start is None or s.start < s.stop for s in part)]


def empty_padding(array: np.ndarray, box: Box | None) -> int:
    """How many voxels outside the box have all channels exactly 0: those that the check of channel sums has to
    allow."""
    if box is None:
        return 0
    parts = (array[(slice(None), *part)] for part in outside(box, array.shape[1:]))
    return sum(int(np.count_nonzero(~part.any(axis=0))) for part in parts)


def fill_background(array: np.ndarray, box: Box | None, space: LabelSpace) -> None:
    """Make the padding of exclusive classes certain background, in place: v1 wrote zeros there, which sum to 0."""
    if box is not None and space.exclusive:
        background = next((i for i, channel in enumerate(space.channels) if 0 in channel.values), 0)
        for part in outside(box, array.shape[1:]):
            array[(slice(None), *part)] = 0
            array[(background, *part)] = 1
