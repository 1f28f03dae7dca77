"""Files that segcal does not read, and what to say of each.

Most can be converted by a tool that knows them. A JPEG cannot: its numbers are no longer those that were saved. A
pickle is never opened at all, because loading one runs whatever code it holds.
"""

from __future__ import annotations

from pathlib import Path

from segcal_cli.core.errors import FormatError

CONVERT = "convert it to NIfTI"
LOSSY = "lossy"
NEVER_OPENED = "never opened, it can run code"

REFUSED = {
    **dict.fromkeys((".nrrd", ".mha", ".mhd", ".gipl", ".dcm", ".mat", ".h5", ".zarr"), CONVERT),
    **dict.fromkeys((".jpg", ".jpeg"), LOSSY),
    **dict.fromkeys((".pkl", ".pt", ".pth", ".joblib"), NEVER_OPENED),
}
"""Suffix (lower case) -> what to do about it, or why not."""


class ForeignFormat(FormatError):
    """A format that segcal does not read."""

    template = "{0}: segcal does not read {1}; {2}"


def refuse(path: Path) -> None:
    """Raise ForeignFormat if the name says that segcal does not read this; ``.nrrd.gz`` counts as ``.nrrd``."""
    suffixes = [suffix.lower() for suffix in path.suffixes]
    last = suffixes[-2:-1] if suffixes[-1:] == [".gz"] else suffixes[-1:]
    for suffix in last:
        if suffix in REFUSED:
            raise ForeignFormat(path, suffix, REFUSED[suffix])
