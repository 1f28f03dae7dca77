"""Class tables on disk: what the channels of a prediction are called, and which label values they stand for.

Three tables are in use. nnU-Net v2 maps names to values and may list several values for a region; Decathlon and nnU-Net
v1 map values to names; the flat table maps names to values, one channel per entry, in the order of the file. All three
become one ``LabelSpace``. The order of JSON keys means something in two of them, so it is kept.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

from segcal_cli.core.errors import FormatError, LabelError, UsageError
from segcal_cli.core.labels import Activation, BadClassTable, Channel, LabelSpace, OverlappingClasses, ReservedName
from segcal_cli.io.documents import read_json
from segcal_cli.io.inputs import MAX_TEXT_BYTES

IGNORE = "ignore"
"""nnU-Net's name for the label value of voxels that nobody annotated; never a class."""

MAX_LABEL_VALUE = 2**31 - 1
"""Label values are whole numbers from 0 to this, which every integer type of 32 bits holds."""


class BrokenTable(FormatError):
    """A class table that is not one, or contradicts itself."""

    template = "{0}: {1}"


class ReservedClassName(UsageError):
    """A class of the name that tables use for all of them."""

    template = "{0}: {1}"


class RegionCount(FormatError):
    """nnU-Net regions without one paint value each."""

    template = "{0}: {1:region|regions} but regions_class_order has {2} entries"


class TableNeeded(LabelError):
    """Several channels, and nothing that names them."""

    template = "{0}: {1} channels need names and label values: give --classes"


class UnreadableLabelTable(FormatError):
    """The label table inside a NIfTI file."""

    template = "{0}: its label table cannot be read ({1}); give --classes"


def read_classes(path: Path, activation: Activation | None = None) -> LabelSpace:
    """The class table in a JSON file: nnU-Net's ``dataset.json`` (v2, v1, Decathlon) or a flat table.

    activation: decides whether the channels of a flat table exclude each other (softmax, the default) or not; a
    ``dataset.json`` says that itself and may not be contradicted. Raises BrokenTable, ReservedClassName, RegionCount,
    and what reading JSON raises.
    """
    document = read_json(path)
    if not isinstance(document, dict):
        raise BrokenTable(path, f"a class table is a JSON object, not a {_json_type(document)}")
    labels = document.get("labels")
    try:
        if not isinstance(labels, dict):
            return _flat(path, document, activation or "softmax")
        if labels and all(isinstance(name, str) for name in labels.values()):
            space = _by_value(path, labels)
        else:
            space = _by_name(path, labels, document.get("regions_class_order"))
    except ReservedName as error:
        raise ReservedClassName(path, str(error)) from error
    except (BadClassTable, OverlappingClasses) as error:
        raise BrokenTable(path, str(error)) from error
    if activation not in (None, space.activation):
        raise BrokenTable(path, f"it describes a {space.activation} model, which contradicts --activation {activation}")
    return space


def single_foreground() -> LabelSpace:
    """The table of a single channel that nobody named: ``foreground``, label value 1."""
    return LabelSpace((Channel("foreground", frozenset({1})),), "sigmoid")


def default_space(path: Path, channels: int) -> LabelSpace:
    """The table of a prediction that comes without one. Raises TableNeeded for several channels."""
    if channels != 1:
        raise TableNeeded(path, channels)
    return single_foreground()


def reduce_to_foreground(space: LabelSpace) -> LabelSpace:
    """The foreground of two exclusive classes as a table of its own, for predictions that hold that channel only.

    Other tables are returned as they are. Label volumes are still read with the table of two classes: its background
    may stand for several label values (see ``labelmaps.foreground``).
    """
    if not (space.exclusive and space.binary):
        return space
    return LabelSpace((space.channels[space.foreground],), "sigmoid", space.ignore)


def classes_from_caret(xml: bytes, path: Path) -> LabelSpace:
    """The class table in a NIfTI header extension (``CaretExtension`` XML, as TotalSegmentator writes with ``--ml``).

    xml: the extension's bytes, zero padding allowed. Channels by label value, exclusive, background added.
    Document types and entities are refused unparsed: they expand without bound. Raises UnreadableLabelTable.
    """
    from xml.etree import ElementTree

    if len(xml) > MAX_TEXT_BYTES:
        raise UnreadableLabelTable(path, f"{len(xml)} bytes")
    try:
        # Decoded here, so that no other encoding can hide a document type from the search below.
        text = xml.rstrip(b"\0 \r\n\t").decode("utf-8-sig")
    except UnicodeDecodeError as error:
        raise UnreadableLabelTable(path, "not UTF-8") from error
    for mark in ("<!DOCTYPE", "<!ENTITY"):
        if mark in text.upper():
            raise UnreadableLabelTable(path, f"it holds {mark}")
    try:
        root = ElementTree.fromstring(text)
    except (ElementTree.ParseError, ValueError) as error:
        raise UnreadableLabelTable(path, str(error)) from error
    names: dict[int, str] = {}
    for label in root.iter("Label"):
        key, name = label.get("Key", ""), " ".join((label.text or "").split())
        value = _whole_number(key)
        if value is None or not name:
            raise UnreadableLabelTable(path, f"Label Key={key!r} {name!r}")
        if value in names:
            raise UnreadableLabelTable(path, f"key {value} stands twice")
        names[value] = name
    if not names:
        raise UnreadableLabelTable(path, "it holds no Label")
    names.setdefault(0, "background")
    try:
        return LabelSpace(tuple(Channel(names[value], frozenset({value})) for value in sorted(names)), "softmax")
    except BadClassTable as error:
        raise UnreadableLabelTable(path, str(error)) from error


def _flat(path: Path, table: dict[str, Any], activation: Activation) -> LabelSpace:
    """``{"background": 0, "tumour": [1, 3]}``: a channel per entry; sigmoid: background is none.

    Softmax: an entry whose several values are each another entry's only value is a region, the union of those.
    """
    values, ignore = _split_ignore(path, table)
    regions: tuple[Channel, ...] = ()
    if activation == "sigmoid":
        values = {name: held for name, held in values.items() if held != (0,)}
    else:
        single = {held[0] for held in values.values() if len(held) == 1}
        joined = [name for name, held in values.items() if len(held) > 1 and single.issuperset(held)]
        regions = tuple(Channel(name, frozenset(values.pop(name))) for name in joined)
    channels = tuple(Channel(name, frozenset(held)) for name, held in values.items())
    return LabelSpace(channels, activation, ignore, regions=regions)


def _by_value(path: Path, labels: dict[str, str]) -> LabelSpace:
    """Decathlon and nnU-Net v1: ``{"0": "background", "1": "liver"}``."""
    values: dict[str, tuple[int, ...]] = {}
    for key, name in labels.items():
        value = _whole_number(key)
        if value is None:
            raise BrokenTable(path, f"{key!r} is not a label value, but its entry {name!r} is a name")
        if name in values:
            raise BrokenTable(path, f"the name {name!r} stands twice")
        values[name] = (value,)
    return _label_model(path, values, None)


def _by_name(path: Path, labels: dict[str, Any], order: Any) -> LabelSpace:
    """nnU-Net v2: ``{"background": 0, "whole": [1, 2, 3], "ignore": 4}``; a longer list makes it a region model."""
    values, ignore = _split_ignore(path, labels)
    if ignore is not None and values and ignore != 1 + max(max(held) for held in values.values()):
        raise BrokenTable(path, f"ignore is {ignore}; nnU-Net wants the highest label value plus 1")
    if all(len(held) == 1 for held in values.values()):
        return _label_model(path, values, ignore)
    regions = {name: held for name, held in values.items() if set(held) != {0}}
    order = [] if order is None else order
    if not isinstance(order, list) or any(type(value) is not int or value < 0 for value in order):
        raise BrokenTable(path, "regions_class_order must be a list of whole numbers")
    if len(order) != len(regions):
        raise RegionCount(path, len(regions), len(order))
    channels = tuple(Channel(name, frozenset(held)) for name, held in regions.items())
    return LabelSpace(channels, "sigmoid", ignore, tuple(order))


def _label_model(path: Path, values: dict[str, tuple[int, ...]], ignore: int | None) -> LabelSpace:
    """Channel c is label value c, whatever the order of the names."""
    ordered = sorted(values.items(), key=lambda item: item[1])
    found = [held[0] for _, held in ordered]
    if found != list(range(len(found))):
        wanted = f"0..{len(found) - 1}"
        raise BrokenTable(
            path, f"label values {', '.join(map(str, found))}; a model with one channel per label has {wanted}"
        )
    return LabelSpace(tuple(Channel(name, frozenset(held)) for name, held in ordered), "softmax", ignore)


def _whole_number(text: str) -> int | None:
    """The label value that a text of decimal digits stands for, None if it stands for none."""
    if not (text.isascii() and text.isdigit()) or len(text) > len(str(MAX_LABEL_VALUE)):
        return None
    return int(text) if int(text) <= MAX_LABEL_VALUE else None


def _split_ignore(path: Path, table: dict[str, Any]) -> tuple[dict[str, tuple[int, ...]], int | None]:
    """Names and their values, in order, and the value of ``ignore``, which must be a single one."""
    values: dict[str, tuple[int, ...]] = {}
    ignore = None
    for name, entry in table.items():
        held = entry if isinstance(entry, list) else [entry]
        if not held or any(type(value) is not int or not 0 <= value <= MAX_LABEL_VALUE for value in held):
            raise BrokenTable(
                path, f"{name!r} must be a label value (a whole number from 0) or a list, not {entry!r:.60}"
            )
        if name == IGNORE:
            if len(held) != 1:
                raise BrokenTable(path, "ignore must be a single label value")
            ignore = held[0]
        else:
            values[name] = tuple(held)
    return values, ignore


def _json_type(document: Any) -> str:
    return {list: "list", str: "string", bool: "truth value", type(None): "null"}.get(type(document), "number")
