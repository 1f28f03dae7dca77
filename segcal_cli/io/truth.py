"""Truth: the label of a case on the grid of its prediction, and the region in which voxels count.

Opening compares grids by headers alone and settles how a label is turned; reading turns it, looks every value up in the
class table and keeps ignored voxels apart. Masks of single classes are joined. Nothing is resampled, and no value that
the table does not know is let through.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import numpy as np

from segcal_cli.core.frozen import dataclass
from segcal_cli.core.labels import LabelMap, LabelSpace
from segcal_cli.io import files
from segcal_cli.io.case_files import CaseFiles
from segcal_cli.io.files import FileHeader
from segcal_cli.io.geometry import Alignment, Space, align, check_voxel_size
from segcal_cli.io.labelmaps import foreground, label_map
from segcal_cli.io.masks import join_masks, roi_mask
from segcal_cli.io.nnunet import REORIENTING_READERS
from segcal_cli.io.predictions import PredictionSource


@dataclass(frozen=True, slots=True)
class TruthRules:
    """What the command line says about labels. volumes: whether the command gives volumes in mm3. labelled: False
    where only the region of interest is read.
    """

    ignore_label: int | None = None
    mask_value: int | None = None
    volumes: bool = False
    labelled: bool = True


@dataclass(frozen=True, slots=True)
class Aligned:
    """A file, and how it is turned onto the prediction's grid. channel: for a mask of one class."""

    header: FileHeader
    alignment: Alignment
    channel: int | None = None


@dataclass(frozen=True, slots=True)
class TruthSource:
    """The labels of one case before they are read. place: the grid of prediction and label alike.

    table: the class table of the label values, which may hold a background that the prediction leaves out.
    """

    case: str
    labels: tuple[Aligned, ...]
    roi: Aligned | None
    place: Space
    table: LabelSpace
    space: LabelSpace
    rules: TruthRules

    @property
    def warnings(self) -> tuple[str, ...]:
        both = (*self.labels, *(() if self.roi is None else (self.roi,)))
        return tuple(dict.fromkeys(text for aligned in both for text in aligned.alignment.warnings))

    @property
    def turned(self) -> str:
        """How the label is turned, or ""."""
        return next((note for aligned in self.labels if (note := aligned.alignment.note)), "")

    @property
    def distance_mm(self) -> float | None:
        found = [a.alignment.distance_mm for a in self.labels if a.alignment.distance_mm is not None]
        return max(found) if found else None


def open_truth(case: CaseFiles, prediction: PredictionSource, table: LabelSpace, rules: TruthRules) -> TruthSource:
    """Look at the headers of a case's labels and compare grids. Raises the refusals of formats and of geometry."""
    headers = [(files.probe(file.path), file.class_name) for file in case.labels]
    roi = files.probe(case.roi) if case.roi is not None else None
    place = prediction.place
    if not prediction.placed and headers:
        # A bare array lies where its label says; shapes are compared below like any others.
        own = files.place(headers[0][0], files.label_shape(headers[0][0]))
        turns = prediction.parts[0].reader in REORIENTING_READERS
        same = sorted(own.grid.shape) == sorted(place.grid.shape) if turns else own.grid.shape == place.grid.shape
        if own.grid.affine is not None and same:
            place = own
    aligned = tuple(
        Aligned(header, _align(place, header), None if name is None else table.names.index(name))
        for header, name in headers
    )
    if rules.volumes:
        check_voxel_size(place)
    return TruthSource(
        case.id,
        aligned,
        None if roi is None else Aligned(roi, _align(place, roi)),
        place,
        table,
        prediction.space,
        rules,
    )


def read_truth(source: TruthSource) -> tuple[LabelMap | None, np.ndarray | None]:
    """The label map in terms of the prediction's channels, and the region of interest (bool "z y x"); None for what
    there is none of.
    """
    labels = None
    if source.labels:
        labels = _joined(source) if source.labels[0].channel is not None else _single(source)
        if len(source.space.channels) < len(source.table.channels):
            labels = foreground(labels, source.table)
    roi = None
    if source.roi is not None:
        roi = roi_mask(_values(source.roi), source.roi.header.path)
    return labels, roi


def _align(place: Space, header: FileHeader) -> Alignment:
    return align(place, files.place(header, files.label_shape(header)))


def _single(source: TruthSource) -> LabelMap:
    aligned = source.labels[0]
    numbers = files.read_labels(aligned.header)
    return label_map(
        aligned.alignment.apply(numbers.raw.reshape(files.label_shape(aligned.header))),
        source.table,
        path=aligned.header.path,
        slope=numbers.slope,
        inter=numbers.inter,
        ignore_label=source.rules.ignore_label,
        mask_value=source.rules.mask_value,
        image_mask=numbers.image,
    )


def _joined(source: TruthSource) -> LabelMap:
    def masks() -> Iterator[tuple[int, np.ndarray, Path]]:
        for aligned in source.labels:
            assert aligned.channel is not None, "every mask of a joined label names its class"
            yield aligned.channel, _values(aligned), aligned.header.path

    return join_masks(masks(), source.table, case=source.case)


def _values(aligned: Aligned) -> np.ndarray:
    """The values "z y x" of a mask on the prediction's grid, scaling applied."""
    numbers = files.read_labels(aligned.header)
    raw = aligned.alignment.apply(numbers.raw.reshape(files.label_shape(aligned.header)))
    if (numbers.slope, numbers.inter) == (1.0, 0.0):
        return raw
    return raw * numbers.slope + numbers.inter
