"""Bundles: ``.npz`` files that segcal itself writes, and reads back without trust.

The same arrays give the same bytes: members are stored, not deflated, so no compressor's version shows, and carry the
first date that zip can express. Reading takes plain numbers and text only, and checks every size before it allocates.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import BinaryIO

import numpy as np

from segcal_cli.core.errors import FormatError
from segcal_cli.io.inputs import check_case_size
from segcal_cli.io.members import array_members
from segcal_cli.io.npy import fill, read_header

ZIP_EPOCH = (1980, 1, 1, 0, 0, 0)
"""The first moment of the zip calendar: a bundle does not say when it was written."""

UNIX = 3
"""The zip host system; fixed, since it would otherwise tell Windows from the rest."""

MAX_CODE_POINT = 0x10FFFF
"""Text beyond the end of Unicode is damage, and Python could not even print it."""


class BrokenText(FormatError):
    """A text array with impossible characters."""

    template = "{0}: array {1} holds text outside Unicode"


def write_bundle(file: BinaryIO, arrays: Mapping[str, np.ndarray]) -> None:
    """Writes arrays, in the given order, as an uncompressed ``.npz`` to an open, seekable file; C order, no pickle."""
    import zipfile

    with zipfile.ZipFile(file, "w", zipfile.ZIP_STORED) as archive:
        for name, array in arrays.items():
            info = zipfile.ZipInfo(f"{name}.npy", date_time=ZIP_EPOCH)
            info.create_system = UNIX
            info.external_attr = 0o644 << 16
            # Always with 64-bit sizes, as numpy does: the layout must not depend on how large an array is.
            with archive.open(info, "w", force_zip64=True) as member:
                np.lib.format.write_array(member, np.asarray(array, order="C"), version=(1, 0), allow_pickle=False)


def read_bundle(path: Path) -> dict[str, np.ndarray]:
    """All arrays of an ``.npz``, in the archive's order: numbers, truth values and text, native byte order.

    Raises what the archive and header readers raise (all of them FormatError), BrokenText, OversizedCase for the sum.
    """
    members = array_members(path)
    headers = {name: read_header(member) for name, member in members.items()}
    check_case_size(path, sum(header.count * header.dtype.itemsize for header in headers.values()))
    arrays = {}
    for name, header in headers.items():
        array = np.empty(header.shape, header.dtype.newbyteorder("="))
        if array.nbytes:
            fill(array, members[name], header)
        if header.dtype.kind == "U" and array.nbytes and int(_code_points(array).max()) > MAX_CODE_POINT:
            raise BrokenText(path, name)
        arrays[name] = array
    return arrays


def _code_points(array: np.ndarray) -> np.ndarray:
    return np.frombuffer(array.tobytes(), np.uint32)
