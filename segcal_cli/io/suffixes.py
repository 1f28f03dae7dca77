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

PICTURES = (".png", ".tif", ".tiff")
"""Images without an affine."""

IMAGES = (".nii.gz", ".nii", *PICTURES)
"""Images and volumes, which may hold predictions, labels or segmentations."""

KNOWN = tuple(sorted(ARRAYS + IMAGES, key=len, reverse=True))
"""Every suffix that segcal reads, longest first."""

LOSSY = frozenset({".jpg", ".jpeg"})
"""Formats that change the values which they store."""

PICKLES = frozenset({".pkl", ".pickle", ".pt", ".pth", ".joblib", ".ckpt"})
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


def require_suffix(path: Path) -> str:
    """The known suffix of a path. Raises UnreadFormat if it has none. Opens nothing."""
    suffix = split_suffix(path.name)[1]
    if not suffix:
        raise unread(path)
    return suffix


def unread(path: Path) -> UnreadFormat:
    """The refusal of a file whose suffix is not in KNOWN, with the advice that fits it; ``.nrrd.gz`` is ``.nrrd``."""
    inner = Path(path.stem).suffix if path.suffix.lower() == ".gz" else ""
    suffix = (inner if inner[1:].isalpha() else path.suffix).lower()
    if suffix in PICKLES:
        advice = "never opened, it can run code"
    elif suffix in LOSSY:
        advice = "lossy"
    else:
        advice = "convert it to NIfTI"
    return UnreadFormat(path, suffix or "files without a suffix", advice)
