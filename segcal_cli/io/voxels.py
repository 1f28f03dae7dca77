"""From an opened prediction to its volume: decoded, turned onto the scan, proved, checked, samples joined.

In this order: decode; turn an nnU-Net array onto its scan and prove it against the segmentation beside it; find the
padding; check the values; join samples. What is read is never rescaled, shifted or renormalised.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np

from segcal_cli.core.errors import GeometryError, ProofError
from segcal_cli.core.frozen import dataclass
from segcal_cli.core.scores import log_softmax
from segcal_cli.core.volume import Box, Stored, Volume
from segcal_cli.io import checks, files, nnunet, padding
from segcal_cli.io.arrays import ArrayHeader
from segcal_cli.io.files import FileHeader
from segcal_cli.io.geometry import Space, align
from segcal_cli.io.hard_predictions import read_label_map
from segcal_cli.io.labelmaps import TooManyValues
from segcal_cli.io.predictions import Part, PredictionSource, one_class, other_shape, reduced_values
from segcal_cli.io.proof import Painting

MAX_LABEL = 2**31 - 1
"""Label values are kept in int32; a segmentation that is scaled beyond them is no segmentation."""


@dataclass(frozen=True, slots=True)
class ReadPrediction:
    """A volume and what reading it showed."""

    volume: Volume
    reports: tuple[checks.ValueReport, ...]
    proof: str


class FirstPart:
    """The first part of a prediction, decoded and nothing else; of a label map nothing, which is checked on the way."""

    def __init__(self, source: PredictionSource) -> None:
        """Raises the refusals of formats."""
        self._array = None if source.label_table is not None else _decode(source.parts[0], source)

    def take(self) -> np.ndarray | None:
        """float32 "class z y x" in the file's own order of spatial axes; once, so that nobody else keeps it."""
        array, self._array = self._array, None
        return array


def read_prediction(
    source: PredictionSource, place: Space | None = None, first: FirstPart | None = None
) -> ReadPrediction:
    """Read, prove and check. place: where a bare array lies (its label's grid), if the source does not say. first:
    what was decoded before; it is taken.

    Raises the refusals of formats, of proofs and of values.
    """
    place = place or source.place
    if source.label_table is not None:
        array, report = read_label_map(source.parts[0].first, source.label_table)
        return ReadPrediction(Volume(array, place.grid, source.values, source.stored), (report,), "")
    reports, proofs, boxes = [], [], []
    total: np.ndarray | None = None
    for part in source.parts:
        array, stored, box, proof, report = _read_part(part, source, place, first)
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


def member_probabilities(source: PredictionSource, place: Space | None = None) -> Iterator[np.ndarray]:
    """float64 probabilities "class z y x" of each member or sample, one at a time, checked like the joint reading."""
    as_probabilities = replace(source, rules=replace(source.rules, reduce="mean-probabilities"))
    for part in source.parts:
        array, stored, _, _, _ = _read_part(part, source, place or source.place)
        yield _for_mean(array, stored, as_probabilities)


def _read_part(
    part: Part, source: PredictionSource, place: Space, first: FirstPart | None = None
) -> tuple[np.ndarray, Stored, Box | None, str, checks.ValueReport]:
    """One sample: array, precision, box of real predictions, proof, value report."""
    array = None if first is None else first.take()
    if array is None:
        array = _decode(part, source)
    stored, header = source.stored if len(source.parts) == 1 else files.stored(part.first), part.first
    checker = checks.ValueChecker(
        header.path, source.space.names, source.space.exclusive, source.values, stored, _class_axis(header, part)
    )
    box: Box | None = None
    proof = ""
    if isinstance(header, ArrayHeader):
        try:
            array, box, proof = _onto_scan(part, array, source, place)
        except (ProofError, GeometryError):
            # A NaN agrees with nothing, and is what has to be told.
            checker.refuse_not_finite(array)
            raise
        if part.saved_by_nnunet and source.values == "probabilities" and box is None:
            box = padding.predicted_box(array, source.space, stored)
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
    segmentation = _segmentation(files.read_labels(part.proof), shape, part.proof.path)
    if cropped:
        # Opening lets through no other array of another shape than a crop of nnU-Net v1.
        placed, box = padding.place_crop(path, array, segmentation, painting)
        return placed, box, "proved"
    affine = files.place(part.proof, shape).grid.affine
    found = nnunet.settle(path, array, segmentation, part.proof.path, affine, painting, source.values, part.reader)
    return found.array, None, found.status


def _unproved(part: Part, array: np.ndarray, place: Space) -> np.ndarray:
    """Onto the scan by the reader's name alone."""
    turned = nnunet.orient(array, part.reader, place.grid.affine) if part.reader else array
    if turned.shape[1:] != place.grid.shape:
        raise other_shape(part.first, turned.shape[1:], place.name, place.grid.shape)
    return turned


def _segmentation(numbers: files.LabelNumbers, shape: tuple[int, int, int], path: Path) -> np.ndarray:
    """The labels of a segmentation that proves a prediction, "z y x". Raises TooManyValues."""
    raw = numbers.raw.reshape(shape)
    if (numbers.slope, numbers.inter) == (1.0, 0.0):
        return raw
    whole = np.rint(raw * numbers.slope + numbers.inter)
    lo, hi = float(whole.min()), float(whole.max())
    if not -MAX_LABEL <= lo <= hi <= MAX_LABEL:
        raise TooManyValues(path, lo, hi)
    return whole.astype(np.int32)


def _decode(part: Part, source: PredictionSource) -> np.ndarray:
    """float32 "class z y x" in the file's own order of spatial axes."""
    table = source.space
    axis = part.axis
    if len(part.headers) == 1:
        return files.read_soft(part.first, table, axis)
    array = np.zeros(source.shape, np.float32)
    one = one_class(table)
    absent = None
    for channel, header in enumerate(part.headers):
        if header is None:
            absent = channel
            continue
        own = files.place(header, files.soft_shape(header, one, axis)[1:], axis)
        array[channel] = align(source.place, own).apply(files.read_soft(header, one, axis)[0])
    if absent is not None:
        # In float64, so that thin classes are not rounded away before they are subtracted.
        array[absent] = np.clip(1.0 - array.sum(axis=0, dtype=np.float64), 0.0, None)
    return array


def _class_axis(header: FileHeader, part: Part) -> int:
    """Where the channels stand in the file, for messages."""
    if isinstance(header, ArrayHeader):
        return len(header.shape) - 1 if part.axis == "last" else 0
    return 0 if part.axis == "first" else len(header.shape) - 1


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
