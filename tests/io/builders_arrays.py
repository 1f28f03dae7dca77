"""Builds array files, images and class tables, whole and broken, byte by byte where a library would refuse to."""

from __future__ import annotations

import io
import json
import os
import pickle
import struct
import zipfile
import zlib
from pathlib import Path

import numpy as np

PNG_SIGNATURE = b"\x89PNG\r\n\x1a\n"


def npy_bytes(array: np.ndarray, *, shape: tuple | None = None, header: str | None = None) -> bytes:
    """A .npy file whose header may claim another shape, or be any text."""
    if header is None:
        order = array.flags.f_contiguous and not array.flags.c_contiguous
        fields = {"descr": array.dtype.str, "fortran_order": order, "shape": array.shape if shape is None else shape}
        header = repr(fields)
    text = header.encode("latin1") + b" " * (-(len(header) + 11) % 64) + b"\n"
    return b"\x93NUMPY\x01\x00" + struct.pack("<H", len(text)) + text + array.tobytes("A")


def write_npz(path: Path, members: dict[str, bytes], method: int = zipfile.ZIP_DEFLATED) -> Path:
    """A zip archive of raw members."""
    with zipfile.ZipFile(path, "w", method) as archive:
        for name, content in members.items():
            archive.writestr(name, content)
    return path


def field(shape: tuple[int, ...], seed: int = 0) -> np.ndarray:
    """A random float32 array in [0, 1)."""
    return np.random.default_rng(seed).random(shape, dtype=np.float32)


class Trap:
    """Unpickling an instance creates a file."""

    def __init__(self, victim: Path) -> None:
        self.victim = str(victim)

    def __reduce__(self):
        return os.mkdir, (self.victim,)


def pickled_npy(victim: Path) -> bytes:
    """An object array whose unpickling leaves ``victim`` behind."""
    body = pickle.dumps(np.array([Trap(victim)], dtype=object), protocol=3)
    return npy_bytes(np.zeros(0), header="{'descr': '|O', 'fortran_order': False, 'shape': (1,)}") + body


def png_bytes(rows: list[bytes], width: int, bits: int, colour: int, palette: bytes = b"") -> bytes:
    """A PNG from packed rows; any bit depth and colour type."""
    chunks = [(b"IHDR", struct.pack(">IIBBBBB", width, len(rows), bits, colour, 0, 0, 0))]
    if palette:
        chunks.append((b"PLTE", palette))
    chunks += [(b"IDAT", zlib.compress(b"".join(b"\0" + row for row in rows))), (b"IEND", b"")]
    return PNG_SIGNATURE + b"".join(
        struct.pack(">I", len(data)) + name + data + struct.pack(">I", zlib.crc32(name + data)) for name, data in chunks
    )


def saved_image(path: Path, array: np.ndarray, mode: str | None = None) -> Path:
    """An image written by Pillow, converted to ``mode`` first."""
    from PIL import Image

    image = Image.fromarray(array)
    (image if mode is None else image.convert(mode)).save(path)
    return path


def palette_png(path: Path, indices: np.ndarray) -> Path:
    """A palette image whose colours say nothing about its indices."""
    from PIL import Image

    image = Image.fromarray(indices.astype(np.uint8)).convert("P")
    image.putdata(indices.reshape(-1).tolist())
    image.putpalette(bytes(range(255, -1, -1)) * 3)
    image.save(path)
    return path


def write_json(path: Path, document: object) -> Path:
    path.write_text(document if isinstance(document, str) else json.dumps(document), encoding="utf-8")
    return path


def saved_npy(array: np.ndarray) -> bytes:
    """What numpy.save writes."""
    file = io.BytesIO()
    np.save(file, array, allow_pickle=False)
    return file.getvalue()
