"""Damage: what disks, copies and people do to a file, drawn from a seeded generator.

Plain damage changes bytes. Most containers guard their bytes by a checksum, so plain damage seldom comes past their
door; the other kinds therefore take a file apart, damage what is inside, and put it together again with checksums that
are right: the members of a zip, the payload of a gzip, the chunks of a PNG, the nodes of a JSON document, the cells of
a table, the header and the arrays of an artifact. Every function takes the generator and the whole content, and
returns the whole damaged content; the same draw gives the same bytes.
"""

from __future__ import annotations

import csv
import gzip
import io
import json
import struct
import warnings
import zipfile
import zlib
from collections.abc import Callable
from random import Random
from typing import Any

import numpy as np

from segcal_cli.io.seals import sealed

Damage = Callable[[Random, bytes], bytes]

NUMBERS = (0, 1, 2, 7, 127, 128, 255, 256, 32767, 32768, 65535, 2**31 - 1, 2**31, 2**32 - 1, 2**63 - 1, 2**64 - 1)
"""Integers at which counters, signs and sizes turn over."""

WORDS = (
    *("", " ", "[/red]", "[bold]x", '"', ",", "ü", "\u202e", "\x00", "\x1b[31m", "a\nb", "=1+1", "@x", "-1", "../../x"),
    *("/etc/passwd", "C:\\x", "NaN", "inf", "1e400", "9" * 5000, "x" * 300, "<b>", "{0}", "%s", "con", ".", ".."),
)
"""Texts that mean something to a terminal, a spreadsheet, a file system, a format string or a parser."""

VALUES: tuple[Any, ...] = (
    *(None, True, False, 0, -1, 1, 2, 1.5, -0.5, 1e-320, 1e308, float("inf"), float("-inf"), float("nan")),
    *(2**31, 2**63, -(2**63), 10**400, [], {}, [[]], [1, "x"], {"x": 1}, {"": {}}, [0] * 50, *WORDS),
)
"""What may stand in a document where something else is expected."""


def damaged_bytes(rng: Random, content: bytes) -> bytes:
    """One to three plain damages; most often near the beginning, where headers are."""
    data = bytearray(content)
    for _ in range(rng.choice((1, 1, 1, 2, 3))):
        at = _place(rng, len(data))
        kind = rng.randrange(9)
        if kind == 0 and data:
            data[at] ^= 1 << rng.randrange(8)
        elif kind == 1 and data:
            data[at] = rng.randrange(256)
        elif kind == 2:
            width = rng.choice((1, 2, 4, 8))
            number = rng.choice(NUMBERS) & (256**width - 1)
            data[at : at + width] = number.to_bytes(width, rng.choice(("little", "big")))
        elif kind == 3:
            special = rng.choice((float("nan"), float("inf"), -1.0, 0.0, 1e300, 1e-300))
            data[at : at + 4] = struct.pack("<f", min(special, 3e38))
        elif kind == 4:
            del data[at:]
        elif kind == 5:
            del data[at : at + rng.randrange(1, 40)]
        elif kind == 6:
            data[at:at] = data[at : at + rng.randrange(1, 40)]
        elif kind == 7:
            data[at:at] = rng.randbytes(rng.randrange(1, 20))
        else:
            data += rng.randbytes(rng.randrange(1, 50)) if rng.random() < 0.5 else bytes(data)
    return bytes(data)


def _place(rng: Random, length: int) -> int:
    near = rng.random() < 0.6
    return rng.randrange(max(1, min(length, 400) if near else length))


def damaged_gzip(rng: Random, content: bytes) -> bytes:
    """The payload damaged and packed again, sometimes in two members; else the packed bytes."""
    if rng.random() < 0.4:
        return damaged_bytes(rng, content)
    payload = damaged_bytes(rng, gzip.decompress(content))
    cut = rng.randrange(len(payload) + 1) if rng.random() < 0.2 else 0
    return b"".join(gzip.compress(part, 1, mtime=0) for part in (payload[:cut], payload[cut:]) if part or not cut)


NIFTI_FIELDS = (
    *((40 + 2 * i, 2) for i in range(8)),
    *((70, 2), (72, 2), (108, 4), (112, 4), (116, 4), (123, 1), (252, 2), (254, 2), (344, 4), (348, 4)),
    *((76 + 4 * i, 4) for i in range(8)),
    *((256 + 4 * i, 4) for i in range(18)),
)
"""Offset and width of what a reader of NIfTI-1 believes: dim, datatype, bitpix, vox_offset, scaling, units, affine."""


def damaged_nifti(rng: Random, content: bytes) -> bytes:
    """A field of the header set to a number at which something turns over; packed again where it was."""
    packed = content.startswith(b"\x1f\x8b")
    data = bytearray(gzip.decompress(content) if packed else content)
    for _ in range(rng.choice((1, 1, 2))):
        at, width = rng.choice(NIFTI_FIELDS)
        if width == 4 and rng.random() < 0.5:
            number = rng.choice((float("nan"), float("inf"), 0.0, -1.0, 1e30, 1e-30, 352.0, 0.5))
            data[at : at + 4] = struct.pack("<f", number)
        else:
            data[at : at + width] = (rng.choice(NUMBERS) & (256**width - 1)).to_bytes(width, "little")
    return gzip.compress(bytes(data), 1, mtime=0) if packed else bytes(data)


def damaged_png(rng: Random, content: bytes) -> bytes:
    """A chunk damaged, dropped, doubled or moved, with a right checksum."""
    chunks, at = [], 8
    while at < len(content):
        (length,) = struct.unpack(">I", content[at : at + 4])
        chunks.append((content[at + 4 : at + 8], content[at + 8 : at + 8 + length]))
        at += 12 + length
    which = rng.randrange(len(chunks))
    name, body = chunks[which]
    kind = rng.randrange(5)
    if kind == 0:
        del chunks[which]
    elif kind == 1:
        chunks.insert(rng.randrange(len(chunks)), chunks[which])
    elif kind == 2 and name == b"IDAT":
        chunks[which] = (name, zlib.compress(damaged_bytes(rng, zlib.decompress(body))))
    elif kind == 3:
        chunks[which] = (bytes(rng.choice((b"IDAT", b"PLTE", b"tRNS", b"zTXt", b"iCCP", b"acTL"))), body)
    else:
        chunks[which] = (name, damaged_bytes(rng, body))
    parts = [content[:8]]
    for name, body in chunks:
        parts += [struct.pack(">I", len(body)), name, body, struct.pack(">I", zlib.crc32(name + body))]
    return b"".join(parts)


def damaged_zip(rng: Random, content: bytes) -> bytes:
    """A member damaged, renamed, doubled or dropped and all packed again; else the directory's own bytes."""
    if rng.random() < 0.25:
        return damaged_bytes(rng, content)
    members = _members(content)
    which = rng.randrange(len(members))
    name, body = members[which]
    kind = rng.randrange(6)
    if kind < 3:
        members[which] = (name, damaged_bytes(rng, body))
    elif kind == 3:
        members[which] = (rng.choice((*WORDS, "../x.npy", "/x.npy", "a/b.npy", "header.npy", "x.npy\x00y")), body)
    elif kind == 4:
        members.append((rng.choice((name, "x.npy", "probabilities.npy", "logits.npy")), rng.randbytes(80)))
    else:
        del members[which]
    return _directory_damaged(rng, packed(rng, members))


def _members(content: bytes) -> list[tuple[str, bytes]]:
    with zipfile.ZipFile(io.BytesIO(content)) as archive:
        return [(info.filename, archive.read(info)) for info in archive.infolist()]


def packed(rng: Random, members: list[tuple[str, bytes]]) -> bytes:
    file = io.BytesIO()
    method = rng.choice((zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED))
    with zipfile.ZipFile(file, "w", method) as archive, warnings.catch_warnings():
        warnings.simplefilter("ignore", UserWarning)  # a name that stands twice is meant
        for name, body in members:
            info = zipfile.ZipInfo("x", (1980, 1, 1, 0, 0, 0))
            # Set afterwards: the constructor cuts names at a NUL, which a hostile archive does not.
            info.filename, info.compress_type = name or "x", method
            archive.writestr(info, body)
    return file.getvalue()


def _directory_damaged(rng: Random, content: bytes) -> bytes:
    """Now and then an entry of the directory that claims other sizes, or the place of another member."""
    if rng.random() < 0.75:
        return content
    at = content.rfind(b"PK\x01\x02")
    field, width = rng.choice(((10, 2), (16, 4), (20, 4), (24, 4), (28, 2), (42, 4)))
    number = rng.choice((*NUMBERS, 30, 31)) & (256**width - 1)
    if at < 0:
        return content
    return content[: at + field] + number.to_bytes(width, "little") + content[at + field + width :]


def damaged_json(rng: Random, content: bytes) -> bytes:
    """A node of the document replaced, dropped or renamed; now and then a key twice, or plain damage."""
    if rng.random() < 0.2:
        return damaged_bytes(rng, content)
    return _text(damaged_document(rng, json.loads(content)), rng)


def damaged_lines(rng: Random, content: bytes) -> bytes:
    """One line of JSON changed, doubled, dropped or torn."""
    lines = content.splitlines()
    at = rng.randrange(len(lines))
    kind = rng.randrange(5)
    if kind == 0:
        lines.insert(rng.randrange(len(lines) + 1), lines[at])
    elif kind == 1:
        del lines[at]
    elif kind == 2:
        lines[at] = lines[at][: rng.randrange(len(lines[at]) + 1)]
    elif lines[at]:
        lines[at] = damaged_json(rng, lines[at])
    return b"\n".join(lines) + b"\n"


def damaged_document(rng: Random, document: Any) -> Any:
    """The document with one to two nodes changed. What stands in it is only replaced, never changed in place."""
    for _ in range(rng.choice((1, 1, 2))):
        document = _changed(rng, document, depth=0)
    return document


def _changed(rng: Random, node: Any, depth: int) -> Any:
    inner = isinstance(node, (dict, list)) and len(node) > 0
    if not inner or (depth and rng.random() < 0.15):
        return _other(rng, node)
    if isinstance(node, list):
        at = rng.randrange(len(node))
        kind = rng.randrange(6)
        if kind == 0:
            return node[:at] + node[at + 1 :]
        if kind == 1:
            return [*node, node[at]]
        return [*node[:at], _changed(rng, node[at], depth + 1), *node[at + 1 :]]
    key = rng.choice(list(node))
    kind = rng.randrange(8)
    if kind == 0:
        return {name: value for name, value in node.items() if name != key}
    if kind == 1:
        new = str(rng.choice(WORDS))
        return {(new if name == key else name): value for name, value in node.items()}
    if kind == 2:
        return {**node, str(rng.choice(WORDS)): rng.choice(VALUES)}
    return {**node, key: _changed(rng, node[key], depth + 1)}


def _other(rng: Random, node: Any) -> Any:
    if isinstance(node, (int, float)) and not isinstance(node, bool) and rng.random() < 0.5:
        # Whole numbers that a damaged document holds already may have no float at all.
        real = float(node) if abs(node) < 2**1000 else node
        return rng.choice((-node, node + 1, node - 1, node * 1000, real, str(node), [node]))
    return rng.choice(VALUES)


def _text(document: Any, rng: Random) -> bytes:
    text = json.dumps(document, ensure_ascii=rng.random() < 0.5)
    if rng.random() < 0.05 and text.startswith("{") and len(text) > 2:
        text = "{" + text[1:-1] + "," + text[1:]
    return text.encode("utf-8", "surrogatepass")


def damaged_table(rng: Random, content: bytes) -> bytes:
    """A cell, row or column of a CSV changed, by other habits of writing one now and then; else plain damage."""
    if rng.random() < 0.2:
        return damaged_bytes(rng, content)
    rows = list(csv.reader(io.StringIO(content.decode(), newline="")))
    for _ in range(rng.choice((1, 1, 2))):
        row = rng.choice(rows)
        at = rng.randrange(len(row)) if row else 0
        kind = rng.randrange(8)
        if kind < 4 and row:
            row[at] = str(rng.choice(WORDS))
        elif kind == 4:
            row.append(str(rng.choice(WORDS)))
        elif kind == 5 and row:
            del row[at]
        elif kind == 6:
            rows.append(list(row))
        else:
            rows.remove(row)
        rows = rows or [[]]
    file = io.StringIO(newline="")
    separator = ";" if rng.random() < 0.05 else ","
    csv.writer(file, delimiter=separator, lineterminator=rng.choice(("\n", "\n", "\r\n", "\r"))).writerows(rows)
    encoding = rng.choice(("utf-8",) * 6 + ("utf-8-sig", "utf-16", "latin-1"))
    return file.getvalue().encode(encoding, "replace")


def damaged_bundle(rng: Random, content: bytes) -> bytes:
    """The header's document or an array of a bundle changed, its checksums right; else damage of the container."""
    if rng.random() < 0.2:
        return damaged_zip(rng, content)
    return packed(rng, written(_other_arrays(rng, content)))


def damaged_artifact(rng: Random, content: bytes) -> bytes:
    """The same; half of the time the seal is right too, so that what lies behind the seal is looked at as well."""
    if rng.random() < 0.2:
        return damaged_zip(rng, content)
    arrays = _other_arrays(rng, content)
    return packed(rng, written(arrays | (resealed(arrays) if rng.random() < 0.5 else {})))


def _other_arrays(rng: Random, content: bytes) -> dict[str, np.ndarray]:
    with np.load(io.BytesIO(content), allow_pickle=False) as file:
        arrays = {name: file[name] for name in file.files}
    if rng.random() < 0.6:
        text = _text(damaged_document(rng, json.loads(str(arrays["header"]))), rng).decode("utf-8", "replace")
        arrays["header"] = np.array(text.rstrip("\0"))
    else:
        name = rng.choice([name for name in arrays if name != "header"] or ["header"])
        arrays |= damaged_array(rng, name, arrays[name])
        if rng.random() < 0.15:
            del arrays[name]
    return arrays


def written(arrays: dict[str, np.ndarray]) -> list[tuple[str, bytes]]:
    members = []
    for name, array in arrays.items():
        file = io.BytesIO()
        np.lib.format.write_array(file, array, version=(1, 0), allow_pickle=False)
        members.append((f"{name}.npy", file.getvalue()))
    return members


def resealed(arrays: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
    """The header with the seal that fits; nothing where there is no header that can be sealed."""
    try:
        header = json.loads(str(arrays["header"]))
        rest = {name: array for name, array in arrays.items() if name != "header"}
        return {"header": np.array(json.dumps(sealed(header, rest)))}
    except (KeyError, TypeError, ValueError, AttributeError, RecursionError):
        return {}


def damaged_array(rng: Random, name: str, array: np.ndarray) -> dict[str, np.ndarray]:
    """An array with other entries, shape, type or name."""
    kind = rng.randrange(9)
    if kind < 4 and array.size and array.dtype.kind in "biuf":
        changed = array.copy()
        flat = changed.reshape(-1)
        where = slice(None) if rng.random() < 0.3 else rng.randrange(flat.size)
        if array.dtype.kind == "f":
            flat[where] = rng.choice((np.nan, np.inf, -np.inf, -1.0, 0.0, 1.0, 1e300, 1e-300, 0.5))
        else:
            limits = (0, 1) if array.dtype.kind == "b" else (np.iinfo(array.dtype).min, np.iinfo(array.dtype).max)
            flat[where] = rng.choice((*limits, 0, 1))
        return {name: changed}
    if kind == 4:
        return {name: array[: rng.randrange(len(array) + 1)] if array.ndim else array.reshape(1)}
    if kind == 5:
        return {name: array.reshape(-1) if rng.random() < 0.5 else array[np.newaxis]}
    if kind == 6 and array.dtype.kind in "biuf":
        with np.errstate(all="ignore"):
            return {name: array.astype(rng.choice(("f4", "i1", "f8", "?", "u8", "U8")))}
    if kind == 7:
        return {name: np.concatenate([array, array]) if array.ndim else array}
    return {rng.choice((name + "x", "x", str(rng.choice(WORDS)).replace("\0", "") or "y")): array}
