"""File names: which suffixes segcal reads, and what it says about the others.

A case id may hold dots (``case.1.2.nii.gz`` is case ``case.1.2``), so a name is split at a known suffix and nowhere
else; ``Path.stem`` would cut ids short. Files that segcal does not read are named at once, with what to do about them.
"""

from __future__ import annotations

from pathlib import Path

from segcal_cli.core.errors import FormatError

KNOWN_SUFFIXES = (".nii.gz", ".tiff", ".nii", ".npz", ".npy", ".png", ".tif")
"""Every suffix that segcal reads, longest first, so that ``.nii.gz`` is found before any part of it."""

NIFTI_SUFFIXES = (".nii.gz", ".nii")
ARRAY_SUFFIXES = (".npz", ".npy")
IMAGE_SUFFIXES = (".tiff", ".png", ".tif")

PICKLE_SUFFIXES = (".pkl", ".pickle", ".pt", ".pth", ".joblib", ".ckpt")
"""Files that are, or hold, pickles: opening one runs whatever code it names."""

LOSSY_SUFFIXES = (".jpg", ".jpeg")
"""Images that change the numbers they store."""


class UnreadSuffix(FormatError):
    """A file in a format that segcal leaves to converters."""

    template = "{0}: segcal does not read {1}; convert it to NIfTI"


class LossySuffix(FormatError):
    """A JPEG: its values are not those that the model wrote."""

    template = "{0}: segcal does not read {1}; lossy, so its values are not those that were saved"


class PickleSuffix(FormatError):
    """A pickle, by whatever name."""

    template = "{0}: segcal does not read {1}; never opened, it can run code"


def split_suffix(name: str) -> tuple[str, str]:
    """A file name without folders as (stem, known suffix in lower case); the suffix is "" if none of them fits."""
    lower = name.lower()
    for suffix in KNOWN_SUFFIXES:
        if lower.endswith(suffix):
            return name[: -len(suffix)], suffix
    return name, ""


def require_suffix(path: Path) -> str:
    """The known suffix of a path. Raises PickleSuffix, LossySuffix, UnreadSuffix."""
    suffix = split_suffix(path.name)[1]
    if suffix:
        return suffix
    last = path.suffix.lower()
    if last == ".gz":
        last = "".join(path.suffixes[-2:]).lower()
    if last in PICKLE_SUFFIXES:
        raise PickleSuffix(path, last)
    if last in LOSSY_SUFFIXES:
        raise LossySuffix(path, last)
    raise UnreadSuffix(path, last or "files without a suffix")
