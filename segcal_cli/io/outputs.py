"""What is written for a case: soft volumes and label volumes, named after BIDS derivatives, whole or not at all.

A prediction with a place in space is written as NIfTI in that place; one without (PNG, bare arrays) as ``.npz`` in
nnU-Net's layout, since 8 bits are not enough for a probability. All files of a case are complete before the first gets
its name, side files before the volume, so that a volume with its name is a finished case.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path
from typing import BinaryIO

import numpy as np

from segcal_cli.core.errors import UsageError, WriteError
from segcal_cli.core.frozen import dataclass
from segcal_cli.core.labels import LabelSpace
from segcal_cli.core.paths import real_path
from segcal_cli.io import nifti
from segcal_cli.io.atomic import DEFAULT_TAG, refuse_special, utf8, writing_together
from segcal_cli.io.bundles import write_bundle
from segcal_cli.io.folders import expand_folders
from segcal_cli.io.geometry import Space
from segcal_cli.io.images import write_label_png
from segcal_cli.io.naming import (
    FLAT_EXTENSION,
    Kind,
    label_map_sidecar,
    output_name,
    output_path,
    sidecar_name,
)

NO_INTENT = 0
"""NIFTI_INTENT_NONE: bit flags and p-values are neither estimates nor labels."""

UINT16_SLOPE = 1.0 / 65535
"""The step of probabilities stored as uint16; for display."""


class OutputExists(UsageError):
    """Outputs are there already."""

    template = "{0} exists{1}; give --overwrite"


class OutputInInput(UsageError):
    """The output place is an input, or inside one."""

    template = "{0} lies in {1}: the next run would read its own outputs"


class OutputTwice(UsageError):
    """One file for two outputs."""

    template = "{0} is asked for twice as an output"


class OutputIsInput(UsageError):
    """An output would take the place of a file that the run reads."""

    template = "{0} is read by this run ({1}) and would be overwritten; name another output"


class NoGrid(UsageError):
    """A NIfTI file needs a place in space."""

    template = "{0}: has no place in space, so it cannot be written as NIfTI; give --geometry FOLDER"


class NotPaintable(UsageError):
    """Regions without an order cannot be painted into one label volume."""

    template = "overlapping regions ({0}) have no paint order (regions_class_order), so no label volume can be written"


@dataclass(frozen=True, slots=True)
class File:
    """One file to be written: its name, and the function that writes it."""

    name: str
    write: Callable[[BinaryIO], None]


def refuse_inside(output: Path, inputs: Iterable[Path | None]) -> None:
    """Raise OutputInInput if an output is an input folder or lies in one. None: an input that was not given.

    Raises NoSuchInput for an input that is not there.
    """
    resolved = real_path(output)
    for given in inputs:
        for folder in () if given is None else expand_folders(given):
            if resolved == real_path(folder) or (folder.is_dir() and real_path(folder) in resolved.parents):
                raise OutputInInput(output, folder)


def refuse_twice(targets: Sequence[Path]) -> None:
    """Raise OutputTwice for a file that two outputs would be."""
    seen: set[Path] = set()
    for path in targets:
        if real_path(path) in seen:
            raise OutputTwice(path)
        seen.add(real_path(path))


def refuse_read(output: Path, files: Mapping[str, Path | None]) -> None:
    """Raise OutputIsInput if an output is one of the files, by option, that are read; whether or not outputs that exist
    may be replaced. None: an option that was not given."""
    for option, given in files.items():
        if given is not None and real_path(given) == real_path(output):
            raise OutputIsInput(output, option)


def require_file_place(path: Path) -> None:
    """Raise WriteError, before any work, where a file could not be written in the end."""
    if path.is_dir() and not path.is_symlink():
        raise WriteError(path, "it is a folder")
    refuse_special(path)
    _require_writable(path, path.parent)


def make_folder(folder: Path) -> None:
    """Make a folder for outputs, with those above it. Raises WriteError."""
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise WriteError(folder, (error.strerror or str(error)).lower()) from error
    _require_writable(folder, folder)


def _require_writable(path: Path, folder: Path) -> None:
    if not folder.is_dir():
        raise WriteError(
            path, f"{folder} is not a folder" if folder.exists() else f"the folder {folder} does not exist"
        )
    if not os.access(folder, os.W_OK | os.X_OK):
        raise WriteError(path, "permission denied")


def refuse_existing(paths: Sequence[Path], *, overwrite: bool) -> None:
    """Raise OutputExists, naming the first five, unless they may be replaced."""
    there = [path for path in paths if path.exists() or path.is_symlink()]
    if there and not overwrite:
        more = f" (and {', '.join(path.name for path in there[1:5])}{', ...' if len(there) > 5 else ''})"
        raise OutputExists(there[0], more if len(there) > 1 else "")


def refuse_changed(folder: Path, texts: Mapping[str, str], *, overwrite: bool) -> None:
    """Raise OutputExists for a file of the whole folder that is there with another content, unless it may be
    replaced. texts: name -> text."""
    changed = [
        folder / name
        for name, text in texts.items()
        if (folder / name).exists() and (folder / name).read_bytes() != utf8(text)
    ]
    refuse_existing(changed, overwrite=overwrite)


def write_files(folder: Path, files: Sequence[File], *, tag: str = DEFAULT_TAG) -> tuple[str, ...]:
    """Write all files of a case, the last one last. Returns their names. tag: of the lock that is held, in the names of
    the temps. Raises WriteError.
    """
    targets = [output_path(folder, file.name) for file in files]
    with writing_together(targets, tag=tag) as handles:
        for file, handle in zip(files, handles, strict=True):
            file.write(handle)
    return tuple(file.name for file in files)


def soft_names(
    case: str, kind: Kind, space: LabelSpace, *, desc: str | None, placed: bool, split_classes: bool
) -> tuple[str, ...]:
    """Names of the NIfTI or ``.npz`` files of a soft volume, without side files."""
    if not placed:
        return (f"{case}{FLAT_EXTENSION[kind]}",)
    if split_classes or len(space.channels) == 1:
        return tuple(output_name(case, kind, desc=desc, label=name) for name in space.names)
    return (output_name(case, kind, desc=desc),)


def soft_files(
    case: str,
    kind: Kind,
    array: np.ndarray,
    space: LabelSpace,
    place: Space,
    *,
    desc: str | None,
    split_classes: bool,
    marks: dict[str, object],
) -> list[File]:
    """A soft volume as NIfTI (uint16 in steps of 1/65535), or as ``.npz`` where there is no grid, with side files.

    array: "class z y x" of the written type. marks: further keys of the side file of a 4-D volume.
    """
    names = soft_names(case, kind, space, desc=desc, placed=place.grid.affine is not None, split_classes=split_classes)
    if place.grid.affine is None:
        return [npz_file(names[0], array)]
    if len(names) == 1 and len(space.channels) > 1:
        side = label_map_sidecar(space.names, **marks)
        return [text_file(sidecar_name(names[0]), side), _nifti_file(names[0], array, place, nifti.INTENT_ESTIMATE)]
    made = []
    for name, channel, volume in zip(names, space.channels, array, strict=True):
        if marks:
            made.append(text_file(sidecar_name(name), label_map_sidecar((channel.name,), **marks)))
        made.append(_nifti_file(name, volume, place, nifti.INTENT_ESTIMATE))
    return made


def label_file(name: str, codes: np.ndarray, place: Space) -> File:
    """A label volume, "z y x" of uint8 or uint16: NIfTI, or PNG for a 2-D image without a grid."""
    if place.grid.affine is not None:
        return _nifti_file(name, codes, place, nifti.INTENT_LABEL)
    return File(name, lambda file: write_label_png(file, codes))


def voxel_file(name: str, array: np.ndarray, place: Space) -> File:
    """A map of some quantity per voxel, "z y x" of any type that NIfTI has; PNG holds 8 or 16 bits of an image without
    a grid, and an ``.npz`` (key ``map``) everything else, as the name's ending says.
    """
    if name.endswith(".nii.gz"):
        return _nifti_file(name, array, place, NO_INTENT)
    if name.endswith(".png"):
        return File(name, lambda file: write_label_png(file, array))
    return File(name, lambda file: write_bundle(file, {"map": array}))


def label_name(case: str, desc: str, *, placed: bool) -> str:
    """The name of a case's label volume."""
    return output_name(case, "dseg", desc=desc, extension=".nii.gz" if placed else FLAT_EXTENSION["dseg"])


def map_name(case: str, desc: str, *, placed: bool) -> str:
    """The name of a map of some quantity per voxel."""
    return output_name(case, "map", desc=desc, extension=".nii.gz" if placed else FLAT_EXTENSION["map"])


def map_file(case: str, desc: str, array: np.ndarray, place: Space) -> File:
    """A map of some quantity per voxel, float32 "z y x": NIfTI, or ``.npz`` (key ``map``) where there is no grid."""
    placed = place.grid.affine is not None
    name = map_name(case, desc, placed=placed)
    if placed:
        return _nifti_file(name, array, place, nifti.INTENT_ESTIMATE)
    return File(name, lambda file: write_bundle(file, {"map": array}))


def npz_file(name: str, array: np.ndarray) -> File:
    """Probabilities in nnU-Net's layout: key ``probabilities``, "class z y x"."""
    return File(name, lambda file: write_bundle(file, {"probabilities": array}))


def text_file(name: str, text: str) -> File:
    return File(name, lambda file: _write_text(file, text))


def painted(decisions: np.ndarray, space: LabelSpace) -> np.ndarray:
    """A label volume from hard decisions, bool "class z y x" (exclusive: one True per voxel).

    A class that joins several label values is painted with the smallest. Raises NotPaintable.
    """
    values = paint_values(space)
    label = np.zeros(decisions.shape[1:], np.uint8 if max(values) < 256 else np.uint16)
    for value, channel in zip(values, decisions, strict=True):
        label[channel] = value
    return label


def paint_values(space: LabelSpace) -> tuple[int, ...]:
    """The label value that each channel paints, later ones over earlier ones. Raises NotPaintable."""
    if space.paint is not None:
        return space.paint
    if not space.exclusive and len(space.channels) > 1:
        raise NotPaintable(", ".join(space.names))
    return tuple(min(channel.values) for channel in space.channels)


def _nifti_file(name: str, array: np.ndarray, place: Space, intent: int) -> File:
    affine = place.grid.affine
    assert affine is not None, "only placed volumes are written as NIfTI"
    slope = UINT16_SLOPE if array.dtype == np.uint16 and intent == nifti.INTENT_ESTIMATE else None
    values = array * UINT16_SLOPE if slope is not None else array

    def write(file: BinaryIO) -> None:
        nifti.write(
            file,
            values,
            affine,
            sform_code=place.sform_code,
            qform_code=place.qform_code,
            intent_code=intent,
            dtype=array.dtype,
            slope=slope,
            compressed=True,
        )

    return File(name, write)


def _write_text(file: BinaryIO, text: str) -> None:
    file.write(utf8(text))
