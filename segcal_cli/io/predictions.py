"""Predictions: from the files of one case to one volume on its scan's grid, checked.

Opening looks at headers alone and settles everything that can be settled without voxels: which channels stand where,
what the numbers mean, where they lie. Reading then does, in this order: decode; turn an nnU-Net array onto its scan and
prove it against the segmentation beside it; find the padding; check the values; join samples. What is read is never
rescaled, shifted or renormalised.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import numpy as np

from segcal_cli.core.errors import FormatError, UsageError
from segcal_cli.core.labels import LabelSpace
from segcal_cli.core.scores import log_softmax
from segcal_cli.core.volume import Box, Stored, Values, Volume
from segcal_cli.io import checks, files, nnunet, padding
from segcal_cli.io.arrays import ArrayHeader, ChannelAxis, require_soft
from segcal_cli.io.case_files import CaseFiles, PredictionFile
from segcal_cli.io.classes import reduce_to_foreground
from segcal_cli.io.files import FileHeader
from segcal_cli.io.folders import ImageFolder
from segcal_cli.io.geometry import Space, align
from segcal_cli.io.hard_predictions import is_label_map, label_map_shape, read_label_map
from segcal_cli.io.nnunet import ModelFiles
from segcal_cli.io.proof import Painting

Reduce = Literal["mean-probabilities", "mean-logits"]


class ValuesNeeded(UsageError):
    """Nothing says whether the numbers are logits or probabilities."""

    template = "{0} does not say what it holds; give --values logits or probabilities"


class NoBackgroundLogits(FormatError):
    """Exclusive classes in one file each, as logits, without the background, whose logit nobody knows."""

    template = "{0}: logits of one file per class need a file for {1} too"


@dataclass(frozen=True, slots=True)
class ReadingRules:
    """What the command line says about reading predictions.

    hard: masks and label maps are predictions too, with probabilities of 0 and 1; for measures of hard decisions.
    """

    values: Values | None = None
    channel_axis: ChannelAxis | None = None
    reader: str | None = None
    prove: bool = True
    reduce: Reduce | None = None
    geometry: ImageFolder | None = None
    hard: bool = False


@dataclass(frozen=True, slots=True)
class Part:
    """One sample of a prediction: one file, or one per channel (None: the background, what the others leave)."""

    headers: tuple[FileHeader | None, ...]
    proof: FileHeader | None
    model: ModelFiles
    reader: str | None

    @property
    def first(self) -> FileHeader:
        return next(header for header in self.headers if header is not None)

    @property
    def saved_by_nnunet(self) -> bool:
        """Whether padding and the reader's order of axes have to be thought of."""
        header = self.first
        return isinstance(header, ArrayHeader) and header.key in ("probabilities", "softmax")


@dataclass(frozen=True, slots=True)
class PredictionSource:
    """A prediction before it is read. space: the class table of the volume (one channel: the foreground alone).

    place: where the voxels lie, as far as the prediction itself tells; a grid without affine where it does not.
    shape: (class, z, y, x). notes: sentences that hold for every case of this kind, to be said once. label_table: the
    class table of a prediction that is a label map, None where it is soft.
    """

    case: str
    parts: tuple[Part, ...]
    space: LabelSpace
    place: Space
    shape: tuple[int, int, int, int]
    values: Values
    stored: Stored
    rules: ReadingRules
    notes: tuple[str, ...] = ()
    label_table: LabelSpace | None = None

    @property
    def placed(self) -> bool:
        """Whether the prediction says itself where it lies."""
        return self.place.grid.affine is not None


@dataclass(frozen=True, slots=True)
class ReadPrediction:
    """A volume and what reading it showed."""

    volume: Volume
    reports: tuple[checks.ValueReport, ...]
    proof: str


def open_prediction(
    case: CaseFiles, table: LabelSpace, rules: ReadingRules, model: ModelFiles, *, placed_by_label: bool
) -> PredictionSource:
    """Look at the headers of one case.

    placed_by_label: whether a label will say where a bare array lies. Raises the refusals of formats, ValuesNeeded,
    NoSegmentation (an nnU-Net array that nothing places).
    """
    samples: dict[str | None, list[PredictionFile]] = {}
    for file in case.predictions:
        samples.setdefault(file.sample, []).append(file)
    parts = tuple(_open_part(group, table, model, rules) for group in samples.values())
    first = parts[0]
    if rules.hard and len(case.predictions) == 1 and is_label_map(first.first, table):
        shape = label_map_shape(first.first, table)
        place = _place(case, first, shape, rules)
        space = reduce_to_foreground(table) if shape[0] == 1 else table
        hard = Stored("float32")
        return PredictionSource(case.id, parts, space, place, shape, "probabilities", hard, rules, label_table=table)
    per_class = len(first.headers) > 1
    shape = files.soft_shape(first.first, _one_class(table) if per_class else table, rules.channel_axis)
    if per_class:
        shape = (len(table.channels), *shape[1:])
    space = reduce_to_foreground(table) if shape[0] == 1 else table
    values = files.checked_values(first.first, rules.values)
    if values is None:
        raise ValuesNeeded(first.first.path)
    notes = []
    for part in parts:
        for header in part.headers:
            if header is not None:
                files.checked_values(header, values)
                if isinstance(header, ArrayHeader):
                    require_soft(header, values)
    if None in first.headers:
        if values == "logits":
            raise NoBackgroundLogits(first.first.path, table.names[first.headers.index(None)])
        notes.append(f"background ({table.names[first.headers.index(None)]}) = 1 - the sum of the other classes' files")
    place = _place(case, first, shape, rules)
    if place.grid.affine is None and first.saved_by_nnunet and model.found and not placed_by_label and shape[1] > 1:
        raise nnunet.NoSegmentation(first.first.path, f"{case.id}.nii.gz")
    stored = _coarsest([files.stored(header) for part in parts for header in part.headers if header is not None])
    if len(parts) > 1:
        stored = Stored("float32")
    return PredictionSource(case.id, parts, space, place, shape, values, stored, rules, tuple(notes))


def read_prediction(source: PredictionSource, place: Space | None = None) -> ReadPrediction:
    """Read, prove and check. place: where a bare array lies (its label's grid), if the source does not say.

    Raises the refusals of formats, of proofs and of values.
    """
    place = place or source.place
    if source.label_table is not None:
        array, report = read_label_map(source.parts[0].first, source.label_table)
        return ReadPrediction(Volume(array, place.grid, source.values, source.stored), (report,), "")
    reports, proofs, boxes = [], [], []
    total: np.ndarray | None = None
    for part in source.parts:
        array, stored, box, proof, report = _read_part(part, source, place)
        reports.append(report)
        proofs.append(proof)
        boxes.append(box)
        if len(source.parts) == 1:
            volume = Volume(array, place.grid, source.values, stored, box)
            break
        member = _for_mean(array, stored, source)
        total = member if total is None else np.add(total, member, out=total)
    else:
        assert total is not None, "a prediction has at least one part"
        volume = _mean(total, source, place, boxes)
    return ReadPrediction(volume, tuple(reports), proofs[0] if len(set(proofs)) == 1 else "")


def _open_part(group: Sequence[PredictionFile], table: LabelSpace, model: ModelFiles, rules: ReadingRules) -> Part:
    by_class = {file.class_name: files.probe(file.path) for file in group}
    headers: tuple[FileHeader | None, ...] = tuple(by_class.values())
    if len(group) > 1:
        headers = tuple(by_class.get(name) for name in table.names)
    proof = files.probe(group[0].proof) if group[0].proof is not None else None
    return Part(headers, proof, model, rules.reader or model.reader())


def _place(case: CaseFiles, part: Part, shape: tuple[int, int, int, int], rules: ReadingRules) -> Space:
    """The prediction's own place, else that of the segmentation beside it, else that of the geometry folder."""
    header = part.first
    own = files.place(header, (shape[1], shape[2], shape[3]), rules.channel_axis)
    if own.grid.affine is not None:
        return own
    if part.proof is not None:
        return files.place(part.proof, files.label_shape(part.proof))
    if rules.geometry is not None:
        image = files.probe(rules.geometry.find(case.id))
        return files.place(image, files.label_shape(image))
    return own


def _read_part(
    part: Part, source: PredictionSource, place: Space
) -> tuple[np.ndarray, Stored, Box | None, str, checks.ValueReport]:
    """One sample: array, precision, box of real predictions, proof, value report."""
    array = _decode(part, source)
    stored, header = source.stored if len(source.parts) == 1 else files.stored(part.first), part.first
    box: Box | None = None
    proof = ""
    if isinstance(header, ArrayHeader):
        array, box, proof = _onto_scan(part, array, source, place)
        if part.saved_by_nnunet and source.values == "probabilities" and box is None:
            box = padding.predicted_box(array, source.space, stored)
    checker = checks.ValueChecker(
        header.path, source.space.names, source.space.exclusive, source.values, stored, _class_axis(header, source)
    )
    report = checks.check_values(checker, array, padding.empty_padding(array, box))
    padding.fill_background(array, box, source.space)
    return array, stored, box, proof, report


def _onto_scan(
    part: Part, array: np.ndarray, source: PredictionSource, place: Space
) -> tuple[np.ndarray, Box | None, str]:
    """An array in the order of its scan's axes, the box where a cropped one lies, and the status of the proof."""
    path = part.first.path
    painting = Painting.of(source.space, source.values)
    if part.proof is None or painting is None:
        return _unproved(part, array, place), None, ""
    shape = files.label_shape(part.proof)
    cropped = sorted(array.shape[1:]) != sorted(shape)
    if not source.rules.prove and not cropped:
        return _unproved(part, array, place), None, ""
    segmentation = _segmentation(files.read_labels(part.proof), shape)
    if cropped:
        header = part.first
        if isinstance(header, ArrayHeader) and header.key == "softmax":
            placed, box = padding.place_crop(path, array, segmentation, painting)
            return placed, box, "proved"
        nnunet.refuse_shape(path, array.shape[1:], part.proof.path, shape, part.model)
    affine = files.place(part.proof, shape).grid.affine
    found = nnunet.settle(path, array, segmentation, part.proof.path, affine, painting, source.values, part.reader)
    return found.array, None, found.status


def _unproved(part: Part, array: np.ndarray, place: Space) -> np.ndarray:
    """Onto the scan by the reader's name alone."""
    turned = nnunet.orient(array, part.reader, place.grid.affine) if part.reader else array
    if turned.shape[1:] != place.grid.shape:
        nnunet.refuse_shape(part.first.path, turned.shape[1:], Path(place.name), place.grid.shape, part.model)
    return turned


def _segmentation(numbers: files.LabelNumbers, shape: tuple[int, int, int]) -> np.ndarray:
    raw = numbers.raw.reshape(shape)
    if (numbers.slope, numbers.inter) == (1.0, 0.0):
        return raw
    return np.rint(raw * numbers.slope + numbers.inter).astype(np.int32)


def _decode(part: Part, source: PredictionSource) -> np.ndarray:
    """float32 "class z y x" in the file's own order of spatial axes."""
    table = source.space
    axis = source.rules.channel_axis
    if len(part.headers) == 1:
        return files.read_soft(part.first, table, axis)
    array = np.zeros(source.shape, np.float32)
    one = _one_class(table)
    absent = None
    for channel, header in enumerate(part.headers):
        if header is None:
            absent = channel
            continue
        own = files.place(header, source.place.grid.shape)
        array[channel] = align(source.place, own).apply(files.read_soft(header, one, axis)[0])
    if absent is not None:
        # In float64, so that thin classes are not rounded away before they are subtracted.
        array[absent] = np.clip(1.0 - array.sum(axis=0, dtype=np.float64), 0.0, None)
    return array


def _one_class(table: LabelSpace) -> LabelSpace:
    return LabelSpace((table.channels[-1],), "sigmoid")


def _class_axis(header: FileHeader, source: PredictionSource) -> int:
    if isinstance(header, ArrayHeader):
        return len(header.shape) - 1 if source.rules.channel_axis == "last" else 0
    return 0 if source.rules.channel_axis == "first" else len(header.shape) - 1


def _coarsest(kinds: Sequence[Stored]) -> Stored:
    return max(kinds, key=lambda kind: kind.floor)


def _for_mean(array: np.ndarray, stored: Stored, source: PredictionSource) -> np.ndarray:
    """What is averaged over samples, float64: probabilities, or logits (log p where only p is known)."""
    if source.rules.reduce == "mean-logits":
        if source.values == "logits":
            return array.astype(np.float64)
        p = np.maximum(array.astype(np.float64), stored.floor)
        if source.space.exclusive:
            return np.log(p)
        return np.log(p) - np.log(np.maximum(1.0 - p, stored.complement_floor))
    if source.values == "probabilities":
        return array.astype(np.float64)
    if source.space.exclusive:
        flat = log_softmax(array.reshape(len(array), -1))
        return np.exp(flat).reshape(array.shape)
    return 1.0 / (1.0 + np.exp(-array.astype(np.float64)))


def _mean(total: np.ndarray, source: PredictionSource, place: Space, boxes: Sequence[Box | None]) -> Volume:
    total /= len(source.parts)
    box = boxes[0] if all(other == boxes[0] for other in boxes) else None
    return Volume(total.astype(np.float32), place.grid, reduced_values(source), Stored("float32"), box)


def reduced_values(source: PredictionSource) -> Values:
    """What the volume holds once samples are joined."""
    if len(source.parts) == 1:
        return source.values
    return "logits" if source.rules.reduce == "mean-logits" else "probabilities"
