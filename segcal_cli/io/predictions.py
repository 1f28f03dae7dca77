"""Predictions before they are read: the files of one case, opened.

Opening looks at headers alone and settles everything that can be settled without voxels: which channels stand where,
what the numbers mean, where they lie, and whether files that will be joined (one per class, samples, an array and its
segmentation) fit. What it returns is small; ``voxels.py`` reads it.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Literal

from segcal_cli.core.errors import FormatError, GeometryError, UsageError
from segcal_cli.core.frozen import dataclass
from segcal_cli.core.labels import LabelSpace
from segcal_cli.core.volume import Stored, Values
from segcal_cli.io import files, nnunet
from segcal_cli.io.arrays import ArrayHeader, ChannelAxis, require_soft
from segcal_cli.io.axes import shape_text
from segcal_cli.io.case_files import CaseFiles, PredictionFile
from segcal_cli.io.classes import reduce_to_foreground
from segcal_cli.io.documents import read_json
from segcal_cli.io.files import FileHeader
from segcal_cli.io.folders import ImageFolder
from segcal_cli.io.geometry import Space, align
from segcal_cli.io.hard_predictions import is_label_map, label_map_shape
from segcal_cli.io.nifti_header import NiftiHeader
from segcal_cli.io.nnunet import ModelFiles
from segcal_cli.io.suffixes import split_suffix

Reduce = Literal["mean-probabilities", "mean-logits"]

DISPLAY_MARK = "Display"
"""Key of the side file of probabilities that were written in steps of 1/65535, for viewers."""

NNUNET_KEYS = ("probabilities", nnunet.V1_KEY)
"""Names of the array in files of nnU-Net v2 and v1."""

FOR_DISPLAY = "written for display, in steps of 1/65535: smaller probabilities are lost"


class ValuesNeeded(UsageError):
    """Nothing says whether the numbers are logits or probabilities."""

    template = "{0} does not say what it holds; give --values logits or probabilities"


class NoBackgroundLogits(FormatError):
    """Exclusive classes in one file each, as logits, without the background, whose logit nobody knows."""

    template = "{0}: logits of one file per class need a file for {1} too"


class SampleElsewhere(GeometryError):
    """Samples of one case are averaged voxel by voxel, so they must lie on one grid."""

    template = "{0} and {1} are samples of one case, but do not count its voxels in one order"


class SampleOtherwise(FormatError):
    """Samples of one case that hold different channels."""

    template = "{0} has {1} channels, {2} has {3}; samples of one case hold the same"


@dataclass(frozen=True, slots=True)
class ReadingRules:
    """What the command line says about reading predictions.

    hard: masks and label maps are predictions too, with probabilities of 0 and 1; for measures of hard decisions.
    several: it says it of folders of different models, so ``values`` are of those files whose format does not tell.
    """

    values: Values | None = None
    channel_axis: ChannelAxis | None = None
    reader: str | None = None
    prove: bool = True
    reduce: Reduce | None = None
    geometry: ImageFolder | None = None
    hard: bool = False
    several: bool = False


@dataclass(frozen=True, slots=True)
class Part:
    """One sample of a prediction: one file, or one per channel (None: the background, what the others leave).

    proof: the segmentation beside an array. reader: nnU-Net's reader class, None where nothing tells. axis: where the
    channels of a file stand; None where that follows from its shape.
    """

    headers: tuple[FileHeader | None, ...]
    proof: FileHeader | None
    model: ModelFiles
    reader: str | None
    axis: ChannelAxis | None

    @property
    def first(self) -> FileHeader:
        return next(header for header in self.headers if header is not None)

    @property
    def saved_by_nnunet(self) -> bool:
        """Whether padding and the reader's order of axes have to be thought of."""
        header = self.first
        return isinstance(header, ArrayHeader) and header.key in NNUNET_KEYS


@dataclass(frozen=True, slots=True)
class PredictionSource:
    """A prediction before it is read. space: the class table of the volume (one channel: the foreground alone).

    place: where the voxels lie, as far as the prediction itself tells; a grid without affine where it does not.
    shape: (class, z, y, x). notes: sentences that hold for every case of this kind, to be said once. warnings:
    sentences about this case. label_table: the class table of a prediction that is a label map, None where it is soft.
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
    warnings: tuple[str, ...] = ()
    label_table: LabelSpace | None = None

    @property
    def placed(self) -> bool:
        """Whether the prediction says itself where it lies."""
        return self.place.grid.affine is not None


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
    shape = _part_shape(first, table)
    space = reduce_to_foreground(table) if shape[0] == 1 else table
    told = files.values_of(first.first) if rules.several else None
    values = told or files.checked_values(first.first, rules.values)
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
    for part in parts:
        _check_part(part, first, table, shape, place)
    if place.grid.affine is None and first.saved_by_nnunet and model.found and not placed_by_label and shape[1] > 1:
        raise nnunet.NoSegmentation(first.first.path, f"{case.id}.nii.gz")
    stored = _coarsest([files.stored(header) for part in parts for header in part.headers if header is not None])
    if len(parts) > 1:
        stored = Stored("float32")
    if shape[0] == 1 and values == "probabilities":
        notes.append("one channel of probabilities: close to 1, log(1 - p) is lost; logits would keep it")
    warnings = (FOR_DISPLAY,) if any(_for_display(header) for part in parts for header in part.headers) else ()
    return PredictionSource(case.id, parts, space, place, shape, values, stored, rules, tuple(notes), warnings)


def _open_part(group: Sequence[PredictionFile], table: LabelSpace, model: ModelFiles, rules: ReadingRules) -> Part:
    by_class = {file.class_name: files.probe(file.path) for file in group}
    headers: tuple[FileHeader | None, ...] = tuple(by_class.values())
    if len(group) > 1:
        headers = tuple(by_class.get(name) for name in table.names)
    proof = files.probe(group[0].proof) if group[0].proof is not None else None
    first = next(iter(by_class.values()))
    axis = rules.channel_axis or ("first" if _by_nnunet(first, proof, model) else None)
    return Part(headers, proof, model, rules.reader or _reader_of(first, model), axis)


def _by_nnunet(header: FileHeader, proof: FileHeader | None, model: ModelFiles) -> bool:
    """Whether a file is nnU-Net's own, which is always "class z y x": by its key, and by what stands beside it."""
    named = isinstance(header, ArrayHeader) and header.key in NNUNET_KEYS and len(header.shape) == 4
    return named and (proof is not None or model.found)


def _reader_of(header: FileHeader, model: ModelFiles) -> str | None:
    """nnU-Net's reader of an array; None where nothing tells, or where the file itself says how its axes run."""
    if not isinstance(header, ArrayHeader):
        return None
    return nnunet.reader_of(header.key or "", model)


def _part_shape(part: Part, table: LabelSpace) -> tuple[int, int, int, int]:
    """(class, z, y, x) of one sample. Raises the refusals of channel counts, ranks and hard files."""
    if len(part.headers) == 1:
        return files.soft_shape(part.first, table, part.axis)
    return len(table.channels), *files.soft_shape(part.first, one_class(table), part.axis)[1:]


def _check_part(
    part: Part,
    first: Part,
    table: LabelSpace,
    shape: tuple[int, int, int, int],
    place: Space,
) -> None:
    """Compare by headers what will be joined: files of classes, samples, an array and its segmentation.

    Raises the refusals of shapes and grids, SampleElsewhere, SampleOtherwise.
    """
    here = _part_shape(part, table)
    if here[0] != shape[0]:
        raise SampleOtherwise(part.first.path, here[0], first.first.path, shape[0])
    header = part.first
    if len(part.headers) > 1:
        for one in part.headers:
            if one is not None:
                own = files.soft_shape(one, one_class(table), part.axis)
                align(place, files.place(one, own[1:], part.axis))
    elif isinstance(header, ArrayHeader):
        scan = place.grid.shape
        if sorted(here[1:]) != sorted(scan) and not (part.proof is not None and header.key == nnunet.V1_KEY):
            _refuse_shape(header, here[1:], place.name, scan, part.model)
    if part is not first:
        scan_of = header if part.proof is None else part.proof
        own_shape = here[1:] if part.proof is None else files.label_shape(part.proof)
        if not align(place, files.place(scan_of, own_shape, part.axis)).identity:
            raise SampleElsewhere(header.path, first.first.path)


def _place(case: CaseFiles, part: Part, shape: tuple[int, int, int, int], rules: ReadingRules) -> Space:
    """The prediction's own place, else that of the segmentation beside it, else that of the geometry folder."""
    header = part.first
    own = files.place(header, (shape[1], shape[2], shape[3]), part.axis)
    if own.grid.affine is not None:
        return own
    if part.proof is not None:
        return files.place(part.proof, files.label_shape(part.proof))
    if rules.geometry is not None:
        image = files.probe(rules.geometry.find(case.id))
        return files.place(image, files.label_shape(image))
    return own


def _for_display(header: FileHeader | None) -> bool:
    """Whether a scaled NIfTI file has a side file that says so. Raises what reading JSON raises."""
    if not isinstance(header, NiftiHeader) or header.dtype.kind != "u" or not header.scaled:
        return False
    beside = header.path.with_name(f"{split_suffix(header.path.name)[0]}.json")
    if not beside.is_file():
        return False
    document = read_json(beside)
    return isinstance(document, dict) and DISPLAY_MARK in document


def _coarsest(kinds: Sequence[Stored]) -> Stored:
    return max(kinds, key=lambda kind: kind.floor)


def one_class(table: LabelSpace) -> LabelSpace:
    """A table of one channel, whichever: how one file per class is read."""
    return LabelSpace((table.channels[-1],), "sigmoid")


def _refuse_shape(
    header: ArrayHeader, shape: tuple[int, ...], beside: str, scan: tuple[int, ...], model: ModelFiles
) -> None:
    """Raise TotalSegmentatorGrid for what looks like TotalSegmentator's array, OtherShape for every other."""
    if header.key == "probabilities":
        nnunet.refuse_shape(header.path, shape, Path(beside), scan, model)
    raise other_shape(header, shape, beside, scan)


def other_shape(header: FileHeader, shape: tuple[int, ...], beside: str, scan: tuple[int, ...]) -> GeometryError:
    return nnunet.OtherShape(header.path, shape_text(shape), beside, shape_text(scan))


def reduced_values(source: PredictionSource) -> Values:
    """What the volume holds once samples are joined."""
    if len(source.parts) == 1:
        return source.values
    return "logits" if source.rules.reduce == "mean-logits" else "probabilities"
