"""Names of output files, after BIDS derivatives.

A name is the case id, then entities ``_key-value`` in the order of BIDS, then what the file is:
``CASE_label-Tumour_desc-calibrated_probseg.nii.gz``. A value holds letters and digits only, so names of classes are
squeezed into camel case (``whole tumour`` becomes ``wholeTumour``). A case id may itself end in entities
(``sub-01_space-T1w``): these are kept in their place, and its own ``label`` or ``desc`` gives way to the new one.
"""

from __future__ import annotations

import json
import re
import unicodedata
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Literal

from segcal_cli.core.errors import UsageError, WriteError
from segcal_cli.core.labels import LabelSpace
from segcal_cli.core.paths import real_path

Kind = Literal["probseg", "dseg", "mask", "map", "logits"]
"""What a file is: probabilities, a label volume, masks, a map of some quantity per voxel, logits."""

ENTITY_ORDER = ("space", "seg", "res", "label", "desc")
"""Entities that segcal keeps or writes, in the order that BIDS asks for."""

TRAILING_ENTITY = re.compile(rf"(.+)_({'|'.join(ENTITY_ORDER)})-([^\W_]+)", re.DOTALL)

SPACES = re.compile(r"\s+")
"""Tabs and line ends would break a table."""

MAX_NAME_BYTES = 255
"""The longest file name of the usual file systems."""

DSEG_TABLE = "dseg.tsv"
"""One per folder: the names of the values in its label volumes."""

FLAT_EXTENSION = {"dseg": ".png", "mask": ".png", "probseg": ".npz", "map": ".npz", "logits": ".npz"}
"""2-D images without a grid: PNG holds whole numbers exactly, but 8 bits are not enough for probabilities."""


class SameName(UsageError):
    """Two things that would be written to one file. Arguments: what they are, one, the other, their common name."""

    template = "{0} {1} and {2} would both be written as {3}; rename one"


class NoName(UsageError):
    """A class name without any letter or digit."""

    template = "class name {0!r} holds no letter or digit, so no file can be named after it"


def entity_value(name: str) -> str:
    """A name as letters and digits: ``whole tumour`` -> ``wholeTumour``. Each part but the first gets a capital."""
    first, *rest = re.findall(r"[^\W_]+", unicodedata.normalize("NFC", name)) or [""]
    return first + "".join(part[0].upper() + part[1:] for part in rest)


def entity_values(names: Iterable[str]) -> dict[str, str]:
    """Class name -> value of its ``label`` entity.

    Raises SameName if two become equal (capitals aside, since some file systems ignore them), NoName.
    """
    values: dict[str, str] = {}
    owner: dict[str, str] = {}
    for name in names:
        value = entity_value(name)
        if not value:
            raise NoName(name)
        other = owner.setdefault(value.casefold(), name)
        if other != name:
            raise SameName("classes", other, name, f"label-{value}")
        values[name] = value
    return values


def level_desc(word: str, level: float) -> str:
    """``desc`` of a set at a level in (0, 1): ``level_desc("inner", 0.975)`` is ``inner97p5``, in percent."""
    return word + f"{100 * level:.10g}".replace(".", "p")


def output_name(
    case: str,
    kind: Kind,
    *,
    desc: str | None = None,
    label: str | None = None,
    extension: str = ".nii.gz",
) -> str:
    """The file name of one output of a case. desc and label may be any words; they are squeezed by entity_value."""
    head, entities = split_entities(case)
    if label is not None:
        entities["label"] = entity_value(label)
    if desc is not None:
        entities["desc"] = entity_value(desc)
    written = "".join(f"_{key}-{entities[key]}" for key in ENTITY_ORDER if key in entities)
    return f"{head}{written}_{kind}{extension}"


def split_entities(case: str) -> tuple[str, dict[str, str]]:
    """A case id without the known entities that it ends with, and these."""
    entities: dict[str, str] = {}
    while (found := TRAILING_ENTITY.fullmatch(case)) and found[2] not in entities:
        case, key, value = found.groups()
        entities[key] = value
    return case, entities


def refuse_same_names(cases: Sequence[str], kind: Kind, *, desc: str | None = None, label: str | None = None) -> None:
    """Raises SameName if two case ids, which may differ in a replaced entity only, would share an output."""
    owner: dict[str, str] = {}
    for case in cases:
        name = output_name(case, kind, desc=desc, label=label, extension="")
        other = owner.setdefault(name.casefold(), case)
        if other != case:
            raise SameName("cases", other, case, name)


def output_path(folder: Path, name: str) -> Path:
    """The path of an output in its folder.

    Raises WriteError if the name is too long or leads anywhere else. A link at the path itself does not matter, since
    writing replaces it.
    """
    path = folder / name
    if real_path(path.parent) != real_path(folder) or path.name != name or name in ("", "..") or "\\" in name:
        raise WriteError(path, f"it does not lie in {folder}")
    size = len(name.encode("utf-8", "surrogateescape"))
    if size > MAX_NAME_BYTES:
        raise WriteError(path, f"its name is {size} bytes long, {MAX_NAME_BYTES} are allowed")
    return path


def sidecar_name(name: str) -> str:
    """The JSON file that describes a ``.nii.gz`` output."""
    return name.removesuffix(".nii.gz") + ".json"


def label_map_sidecar(names: Sequence[str], **marks: object) -> str:
    """JSON text that names the channels of a 4-D file, as BIDS requires; marks are further keys."""
    return json.dumps({"LabelMap": list(names), **marks}, indent=2, ensure_ascii=False, allow_nan=False) + "\n"


def dseg_table(space: LabelSpace) -> str:
    """The text of ``dseg.tsv``: label value and class name, by value. A value in several regions names them all."""
    rows = []
    for value in sorted(space.known_values):
        # Under sigmoid 0 is in no region, and every label volume holds it.
        names = [channel.name for channel in space.channels if value in channel.values] or ["background"]
        rows.append(f"{value}\t{SPACES.sub(' ', '+'.join(names))}\n")
    return "index\tname\n" + "".join(rows)
