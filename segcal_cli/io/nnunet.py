"""nnU-Net's probability arrays: in which order their axes run, where they lie in the scan, and which part was predicted.

``CASE.npz`` holds the bare array, "class z y x"; all it says about space stands in the segmentation beside it and in two
files of the model, ``dataset.json`` and ``plans.json``. Three things must be known to place it.

The reader. nnU-Net reads scans with one of several classes. Two of them turn every scan to RAS+ order first; the
segmentation is turned back when it is written, the array is not. So with these readers the array lies in another
orientation than the segmentation, mostly of the same shape.

The crop. nnU-Net predicts the non-zero box of a scan only. v2 fills the rest with certain background; late v1 with zeros;
v1 up to 1.7.1 saved the box alone, so that its place has to be found again by fitting it to the segmentation.

The padding. What was filled in is no prediction. Calibration must not learn from it, so the predicted box is found.
"""

from __future__ import annotations

import itertools
import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from segcal_cli.core.errors import FormatError, GeometryError, ProofError
from segcal_cli.core.labels import LabelSpace
from segcal_cli.core.volume import Box, Stored, Values
from segcal_cli.io.axes import Orientation, fitting, from_ras
from segcal_cli.io.proof import Agreement, Painting, Status
from segcal_cli.io.reasons import FailedProof, explain

PLAIN_READERS = frozenset({"SimpleITKIO", "NibabelIO", "NaturalImage2DIO", "Tiff3DIO"})
REORIENTING_READERS = frozenset({"NibabelIOWithReorient", "SimpleITKIOWithReorient"})
V1_KEY, V2_KEY = "softmax", "probabilities"
V1_READER = "SimpleITKIO"
"""nnU-Net v1 reads by SimpleITK, never reorients, and has no ``plans.json``."""
FOLDERS_UP = 2
"""``fold_K/validation/`` has the files of its model two folders up."""
CROP_REACH = 2
"""Ties of float16 can move the foreground box of an array by a voxel or two against that of the segmentation."""
CROP_SAMPLE = 4096
"""So many foreground voxels turn down most wrong places of a crop, before whole arrays are compared."""


class NoSegmentation(FormatError):
    """An nnU-Net array without the segmentation that places it in space."""

    template = "{0}: no segmentation {1} beside it, so its place in space is unknown; give --geometry FOLDER"


class BadModelFile(FormatError):
    """``dataset.json`` or ``plans.json`` cannot be used."""

    template = "{0}: not a file of an nnU-Net model ({1})"


class UnknownReader(ProofError):
    """Neither the model's files nor the data tell in which orientation the array is."""

    template = "{0}: cannot tell which nnU-Net reader wrote this (plain {1}, RAS {2} agreement); give --reader"


class CropNotPlaced(GeometryError):
    """The place of a cropped array within its scan cannot be found."""

    template = "{0}: array {1}, scan {2}: nnU-Net v1 saved the cropped box and its place cannot be found ({3})"


class TotalSegmentatorGrid(GeometryError):
    """TotalSegmentator saves the array of its network, before that is resampled and pasted into the scan."""

    template = (
        "{0}: lies on TotalSegmentator's cropped, resampled grid {1}, not on the scan's {2}. With several part models each "
        "is saved to this one path, so only the last is left"
    )


class OtherShape(GeometryError):
    """Array and segmentation have different shapes, and no turn of the axes makes them equal."""

    template = "{0} is {1}, {2} is {3} (x y z)"


@dataclass(frozen=True, slots=True)
class ModelFiles:
    """The files of a model that were found by a folder of predictions, each None if there is none."""

    dataset: Path | None
    plans: Path | None

    @property
    def found(self) -> bool:
        return self.dataset is not None or self.plans is not None

    def reader(self) -> str | None:
        """The name of nnU-Net's reader class, or None if no file tells. Raises BadModelFile."""
        for path, key in ((self.plans, "image_reader_writer"), (self.dataset, "overwrite_image_reader_writer")):
            name = read_json(path).get(key) if path is not None else None
            if isinstance(name, str) and name not in ("", "None"):
                return name
        return None


@dataclass(frozen=True, slots=True)
class Placed:
    """An array in the order of the segmentation's axes, C-contiguous, and what proved it."""

    array: np.ndarray
    orientation: Orientation
    status: Status


def find_model_files(predictions: Path) -> ModelFiles:
    """Look for ``dataset.json`` and ``plans.json`` in the folder (or that of the file), then one and two folders up."""
    folder = predictions.resolve()
    folder = folder if folder.is_dir() else folder.parent
    folders = [folder, *folder.parents][: FOLDERS_UP + 1]

    def nearest(name: str) -> Path | None:
        return next((place / name for place in folders if (place / name).is_file()), None)

    return ModelFiles(nearest("dataset.json"), nearest("plans.json"))


def read_json(path: Path) -> dict[str, Any]:
    """The JSON object in a model's file, in the order of its keys. Raises BadModelFile."""
    try:
        data = json.loads(path.read_text(encoding="utf-8-sig"))
    except (OSError, UnicodeDecodeError, RecursionError, json.JSONDecodeError) as error:
        raise BadModelFile(path, " ".join(str(error).split())) from error
    if not isinstance(data, dict):
        raise BadModelFile(path, "no JSON object")
    return data


def orientation(reader: str, affine: np.ndarray | None) -> Orientation:
    """How an array that this reader's run saved is turned on to the grid of its segmentation.

    affine: of the segmentation, or None where it has none (PNG), which cannot be reoriented. Unknown readers count as plain.
    """
    return from_ras(affine) if reader in REORIENTING_READERS and affine is not None else Orientation()


def orient(array: np.ndarray, reader: str, affine: np.ndarray | None) -> np.ndarray:
    """The array "class z y x" on its segmentation's grid, C-contiguous; a copy only if axes are turned. Bit exact."""
    return np.ascontiguousarray(orientation(reader, affine).apply(array))


def settle(
    path: Path,
    array: np.ndarray,
    segmentation: np.ndarray,
    beside: Path,
    affine: np.ndarray | None,
    painting: Painting,
    values: Values,
    reader: str | None,
) -> Placed:
    """Turn an array "class z y x" on to the grid of the segmentation "z y x" (label values), and prove it.

    A known reader fixes the turn. Without one, plain and RAS order are tried, and exactly one must prove itself (equal arrays
    count as one); an unknown class is tried plain and must prove itself. beside, affine: the segmentation's file and affine.
    Raises NotReproduced, UnknownReader.
    """
    plain, ras = Orientation(), Orientation() if affine is None else from_ras(affine)
    codes = painting.encode(segmentation)

    def tried(turn: Orientation) -> Agreement:
        if turn.shape(array.shape[1:]) != codes.shape:
            return Agreement(codes.size, codes.size, 0)
        # The codes are turned back rather than the array on to them: they are a sixteenth of its bytes or less.
        return painting.compare(array, np.ascontiguousarray(turn.undo(codes)))

    if reader in PLAIN_READERS or reader in REORIENTING_READERS:
        turn, other = (ras, plain) if reader in REORIENTING_READERS else (plain, ras)
        agreement = tried(turn)
        if agreement.status is None:
            read = np.ascontiguousarray(turn.apply(array))
            relative = turn.inverse.then(other)
            failed = FailedProof(read, codes, painting, values, agreement, None if relative.identity else relative)
            raise explain(path, str(reader), beside, failed)
        return Placed(np.ascontiguousarray(turn.apply(array)), turn, agreement.status)
    as_plain = tried(plain)
    as_ras = as_plain if ras.identity else tried(ras)
    if reader is None and (ras.identity or _turns_into_itself(array, ras)) and as_plain.status is not None:
        return Placed(array, plain, as_plain.status)
    candidates = [(plain, as_plain)] if reader is not None else [(plain, as_plain), (ras, as_ras)]
    proved = [turn for turn, agreement in candidates if agreement.status == "proved"]
    if len(proved) != 1:
        raise UnknownReader(path, str(as_plain), str(as_ras))
    return Placed(np.ascontiguousarray(proved[0].apply(array)), proved[0], "proved")


def _turns_into_itself(array: np.ndarray, turn: Orientation) -> bool:
    return turn.shape(array.shape[1:]) == array.shape[1:] and all(
        np.array_equal(channel, turn.apply(channel)) for channel in array
    )


def refuse_shape(path: Path, shape: tuple[int, ...], beside: Path, scan: tuple[int, ...], files: ModelFiles) -> None:
    """Refuse a v2 array whose shape (z, y, x) no turn of the axes makes that of the segmentation beside it.

    nnU-Net v2 saves arrays of full size. Without files of a model by its side, such an array is TotalSegmentator's.
    Raises TotalSegmentatorGrid, OtherShape.
    """
    if next(fitting(shape, scan), None) is not None:
        return
    if files.found:
        raise OtherShape(path, shape_text(shape), beside.name, shape_text(scan))
    raise TotalSegmentatorGrid(path, shape_text(shape), shape_text(scan))


def shape_text(shape: tuple[int, ...]) -> str:
    """A shape (z, y, x) in the order x, y, z, as messages have it."""
    return " x ".join(str(n) for n in reversed(shape))


def place_crop(
    path: Path, array: np.ndarray, segmentation: np.ndarray, space: LabelSpace, painting: Painting
) -> tuple[np.ndarray, Box]:
    """Place a cropped array "class z y x" of nnU-Net v1 in the scan of its segmentation "z y x" (label values), by content.

    The lowest corners of the two foreground boxes give the place; since ties can move a box, places up to two voxels away
    are tried too, and exactly one must reproduce the whole segmentation. Returns the full-size array, certain background
    outside the crop, and the box of the crop. Raises CropNotPlaced.
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
    boxes = [_box(offset, crop) for offset in itertools.product(*ranges)]
    proved = [box for box in boxes if _reproduces(array, codes, painting, box)]
    if len(proved) != 1:
        raise refused(
            f"{len(proved)} places reproduce the segmentation" if proved else "no place reproduces the segmentation"
        )
    full = np.zeros((len(array), *scan), dtype=array.dtype)
    full[(slice(None), *proved[0].slices)] = array
    fill_background(full, proved[0], space)
    return full, proved[0]


def _box(offset: tuple[int, ...], shape: tuple[int, ...]) -> Box:
    z, y, x = ((start, start + length) for start, length in zip(offset, shape, strict=True))
    return Box(z, y, x)


def _reproduces(array: np.ndarray, codes: np.ndarray, painting: Painting, box: Box) -> bool:
    inside = codes[box.slices]
    if np.count_nonzero(inside != painting.background) < np.count_nonzero(codes != painting.background):
        return False
    sample = np.flatnonzero(inside != painting.background)
    sample = sample[:: max(1, sample.size // CROP_SAMPLE)]
    if not painting.agreement(array.reshape(len(array), -1)[:, sample], inside.reshape(-1)[sample]).holds:
        return False
    return painting.compare(array, np.ascontiguousarray(inside)).holds


def predicted_box(array: np.ndarray, space: LabelSpace, stored: Stored) -> Box | None:
    """The box of the real predictions in an array "class z y x" of probabilities, or None if that is all of it.

    Padding is what lies outside the bounding box of the voxels that are not exactly nnU-Net's constant: (1, 0, .., 0) under
    softmax, zeros for regions. In float16 a saturated softmax looks like (1, 0, .., 0), so there only zeros (v1's constant)
    count. An array of nothing but the constant has an empty box. Reads little more than the padding itself.
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
    """How many voxels outside the box have all channels exactly 0: those that the check of channel sums has to allow."""
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
