"""File names end in a suffix that names the format, and the suffix may hold a dot of its own.

``case.1.2.nii.gz`` is the file of ``case.1.2``: neither ``Path.stem`` (``case.1.2.nii``) nor a cut at the first dot
(``case``) finds that. So the suffixes that segcal reads are a closed list, tried longest first and in any case; what
ends otherwise is refused by its name alone, before anything is opened.
"""

from __future__ import annotations

from pathlib import Path

from segcal_cli.core.errors import FormatError

ARRAYS = (".npz", ".npy")
"""Bare arrays: they do not say where they lie in space, so a segmentation may stand beside them as proof."""

IMAGES = (".nii.gz", ".tiff", ".nii", ".png", ".tif")
"""Images and volumes, which may hold predictions, labels or segmentations."""

KNOWN = tuple(sorted(ARRAYS + IMAGES, key=len, reverse=True))
"""Every suffix that segcal reads, longest first."""

LOSSY = frozenset({".jpg", ".jpeg"})
"""Formats that change the values which they store."""

PICKLES = frozenset({".pkl", ".pickle", ".pt", ".pth", ".joblib"})
"""Formats whose loading can run code."""


class UnreadFormat(FormatError):
    """A file in a format that segcal does not read, known by its suffix. Arguments: path, suffix, advice."""

    template = "{0}: segcal does not read {1}; {2}"


def split_suffix(name: str) -> tuple[str, str]:
    """(stem, suffix) of a file name. The suffix is one of KNOWN, in lower case, or "" if the name has none."""
    lower = name.lower()
    for suffix in KNOWN:
        if lower.endswith(suffix):
            return name[: len(name) - len(suffix)], suffix
    return name, ""


def refuse_unread(path: Path) -> None:
    """Raises UnreadFormat if the file's suffix is not one that segcal reads. Opens nothing."""
    if not split_suffix(path.name)[1]:
        raise unread(path)


def unread(path: Path) -> UnreadFormat:
    """The refusal of a file whose suffix is not in KNOWN, with the advice that fits it."""
    suffix = path.suffix.lower()
    if suffix in PICKLES:
        advice = "never opened, it can run code"
    elif suffix in LOSSY:
        advice = "lossy"
    else:
        advice = "convert it to NIfTI"
    return UnreadFormat(path, suffix or "files without a suffix", advice)
