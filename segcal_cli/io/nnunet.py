"""nnU-Net's probability arrays: which reader's order their axes are in, and the turn that brings them on to the scan.

``CASE.npz`` holds the bare array, "class z y x"; all it says about space stands in the segmentation beside it and in
two files of the model, ``dataset.json`` and ``plans.json``. nnU-Net reads scans with one of several classes. Two of
them turn every scan to RAS+ order first; the segmentation is turned back when it is written, the array is not. So
with these readers the array lies in another orientation than the segmentation, mostly of the same shape.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np

from segcal_cli.core.errors import FormatError, GeometryError, ProofError
from segcal_cli.core.frozen import dataclass
from segcal_cli.core.paths import real_path
from segcal_cli.core.volume import Values
from segcal_cli.io.axes import Orientation, fitting, from_ras, shape_text
from segcal_cli.io.proof import Agreement, Painting, Status
from segcal_cli.io.reasons import FailedProof, explain

PLAIN_READERS = frozenset({"SimpleITKIO", "NibabelIO", "NaturalImage2DIO", "Tiff3DIO"})
REORIENTING_READERS = frozenset({"NibabelIOWithReorient", "SimpleITKIOWithReorient"})
V1_KEY = "softmax"
"""The name of the array in a file of nnU-Net v1; v2 calls it ``probabilities``."""
V1_READER = "SimpleITKIO"
"""nnU-Net v1 reads by SimpleITK, never reorients, and has no ``plans.json``."""
FOLDERS_UP = 2
"""``fold_K/validation/`` has the files of its model two folders up."""


class NoSegmentation(FormatError):
    """An nnU-Net array without the segmentation that places it in space."""

    template = "{0}: no segmentation {1} beside it, so its place in space is unknown; give --geometry FOLDER"


class BadModelFile(FormatError):
    """``dataset.json`` or ``plans.json`` cannot be used."""

    template = "{0}: not a file of an nnU-Net model ({1})"


class UnknownReader(ProofError):
    """Neither the model's files nor the data tell in which orientation the array is."""

    template = "{0}: cannot tell which nnU-Net reader wrote this (plain {1}, RAS {2} agreement); give --reader"


class TotalSegmentatorGrid(GeometryError):
    """TotalSegmentator saves the array of its network, before that is resampled and pasted into the scan."""

    template = (
        "{0}: lies on TotalSegmentator's cropped, resampled grid {1}, not on the scan's {2}. "
        "With several part models each is saved to this one path, so only the last is left"
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
    folder = real_path(predictions)
    folder = folder if folder.is_dir() else folder.parent
    folders = [folder, *folder.parents][: FOLDERS_UP + 1]

    def nearest(name: str) -> Path | None:
        return next((place / name for place in folders if (place / name).is_file()), None)

    return ModelFiles(nearest("dataset.json"), nearest("plans.json"))


def reader_of(key: str, files: ModelFiles) -> str | None:
    """The reader class behind an array of this name, None if nothing tells. Raises BadModelFile."""
    return V1_READER if key == V1_KEY else files.reader()


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

    affine: of the segmentation, or None where it has none (PNG), which cannot be reoriented. Unknown readers count as
    plain.
    """
    return from_ras(affine) if reader in REORIENTING_READERS and affine is not None else Orientation()


def orient(array: np.ndarray, reader: str, affine: np.ndarray | None) -> np.ndarray:
    """The array "class z y x", C-contiguous, on its segmentation's grid, bit exact, in the memory of the one given."""
    return orientation(reader, affine).turn(array)


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

    A known reader fixes the turn. Without one, plain and RAS order are tried, and exactly one must prove itself
    (equal arrays count as one); an unknown class is tried plain and must prove itself. beside, affine: the
    segmentation's file and affine. Raises NotReproduced, UnknownReader.
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
        return Placed(turn.turn(array), turn, agreement.status)
    as_plain = tried(plain)
    as_ras = as_plain if ras.identity else tried(ras)
    if reader is None and (ras.identity or _turns_into_itself(array, ras)) and as_plain.status is not None:
        return Placed(array, plain, as_plain.status)
    candidates = [(plain, as_plain)] if reader is not None else [(plain, as_plain), (ras, as_ras)]
    proved = [turn for turn, agreement in candidates if agreement.status == "proved"]
    if len(proved) != 1:
        raise UnknownReader(path, str(as_plain), str(as_ras))
    return Placed(proved[0].turn(array), proved[0], "proved")


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
