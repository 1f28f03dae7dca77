"""Files of one case of conformal sets: the sets, several targets at once, and maps of p-values."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import BinaryIO

import numpy as np

from segcal_cli.confidence.maps import Side
from segcal_cli.confidence.sets import CaseSets
from segcal_cli.confidence.targets import Target
from segcal_cli.core.labels import LabelSpace
from segcal_cli.io import nifti
from segcal_cli.io.bundles import write_bundle
from segcal_cli.io.geometry import Space
from segcal_cli.io.images import write_palette_png
from segcal_cli.io.naming import entity_values
from segcal_cli.io.outputs import File

SET_COLOURS = ((0, 0, 0), (70, 130, 230), (220, 50, 47))
"""Outside, possible (outer set), certain (inner set): black, blue, red."""

P_VALUE_WORDS = "(n+1)p counts; in I when p<=alpha, in O when p>alpha; compare p<=alpha+.5/(n+1)"
"""A slope is a float32: 15 * (1/150) read back is above .1, so counts are compared, or half a step is added."""

CHOOSING = "Choosing alpha after looking at a map of p-values voids the statement"


def file_names(
    case: str, targets: Sequence[Target], p_values: Sequence[Side], *, placed: bool, exclusive: bool
) -> list[str]:
    """Every file of a case. placed: NIfTI, else PNG (and ``.npz`` for p-values)."""
    end, soft = (".nii.gz", ".nii.gz") if placed else (".png", ".npz")
    tails = _tails(targets)
    names = [f"{case}_pvalue_{side}{tail}{soft}" for tail in tails for side in p_values]
    if len(targets) > 1 and exclusive:
        names += [f"{case}_certain{end}", f"{case}_possible{end}"]
    return [*names, *(f"{case}_sets{tail}{end}" for tail in tails)]


def set_files(
    case: str, targets: Sequence[Target], sets: Sequence[CaseSets], space: LabelSpace, place: Space
) -> list[File]:
    """The sets of a case: 0 outside, 1 possible, 2 certain; for several exclusive classes also both joined."""
    end = ".nii.gz" if place.grid.affine is not None else ".png"
    made = []
    if len(targets) > 1 and space.exclusive:
        made.append(_label(f"{case}_certain{end}", certain_labels(targets, sets, space), place))
        made.append(_label(f"{case}_possible{end}", possible_bits(sets), place))
    for tail, found in zip(_tails(targets), sets, strict=True):
        made.append(_label(f"{case}_sets{tail}{end}", found.codes, place, SET_COLOURS))
    return made


def certain_labels(targets: Sequence[Target], sets: Sequence[CaseSets], space: LabelSpace) -> np.ndarray:
    """uint8 or uint16 "z y x": the smallest label value of the target whose inner set holds the voxel; 0 for none or
    for two."""
    values = [min(target.values(space)) for target in targets]
    made = np.zeros(sets[0].inner.shape, np.uint8 if max(values) < 256 else np.uint16)
    claims = np.zeros(made.shape, np.uint8)
    for value, found in zip(values, sets, strict=True):
        made[found.inner] = value
        claims += found.inner
    made[claims > 1] = 0
    return made


def possible_bits(sets: Sequence[CaseSets]) -> np.ndarray:
    """Unsigned "z y x": bit t - 1 says that the voxel is in the outer set of target t."""
    kind = next(
        kind for kind in (np.uint8, np.uint16, np.uint32, np.uint64) if len(sets) <= 8 * np.dtype(kind).itemsize
    )
    made = np.zeros(sets[0].outer.shape, kind)
    for bit, found in enumerate(sets):
        made |= found.outer * kind(1 << bit)
    return made


def p_value_file(
    case: str, side: Side, tail: str, counts: np.ndarray, total: float, place: Space, *, weighted: bool
) -> File:
    """(n + 1) p as counts with a slope of 1/(n + 1); float32 p for weighted units. counts: as they are stored."""
    if place.grid.affine is None:
        arrays = {"counts": counts, "total": np.array(total)}
        return File(f"{case}_pvalue_{side}{tail}.npz", lambda file: write_bundle(file, arrays))
    if weighted:
        return _nifti(f"{case}_pvalue_{side}{tail}.nii.gz", (counts / total).astype(np.float32), place)
    return _nifti(f"{case}_pvalue_{side}{tail}.nii.gz", counts, place, slope=1.0 / total, description=P_VALUE_WORDS)


def target_tail(targets: Sequence[Target], target: int) -> str:
    """What a file name says of its target: nothing where there is one."""
    return _tails(targets)[target]


def _tails(targets: Sequence[Target]) -> list[str]:
    if len(targets) == 1:
        return [""]
    values: Mapping[str, str] = entity_values([target.name for target in targets])
    return [f"_{values[target.name]}" for target in targets]


def _label(name: str, codes: np.ndarray, place: Space, colours: Sequence[tuple[int, int, int]] | None = None) -> File:
    if place.grid.affine is not None:
        return _nifti(name, codes, place, intent=nifti.INTENT_LABEL)
    if codes.dtype != np.uint8:
        return File(f"{Path(name).stem}.npz", lambda file: write_bundle(file, {"codes": codes}))
    palette = colours or _distinct(int(codes.max()) + 1)
    return File(name, lambda file: write_palette_png(file, codes, palette))


def _distinct(count: int) -> list[tuple[int, int, int]]:
    """Colours that differ, black first."""
    return [(0, 0, 0), *((47 * i % 206 + 50, 97 * i % 206 + 50, 151 * i % 206 + 50) for i in range(1, max(2, count)))]


def _nifti(
    name: str,
    array: np.ndarray,
    place: Space,
    *,
    intent: int = nifti.INTENT_ESTIMATE,
    slope: float | None = None,
    description: str = "",
) -> File:
    affine = place.grid.affine
    assert affine is not None, "only placed volumes are written as NIfTI"

    def write(file: BinaryIO) -> None:
        nifti.write(
            file,
            array,
            affine,
            sform_code=place.sform_code,
            qform_code=place.qform_code,
            intent_code=intent,
            slope=slope,
            stored=slope is not None,
            compressed=True,
            description=description,
        )

    return File(name, write)
