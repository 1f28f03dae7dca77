"""Folders on a disk that others write to: what lies in one, and which ones a shell-style pattern names.

Dot-files (Finder's ``._CASE.nii.gz``, half-written temporaries) and the side files that tools leave next to
predictions are never candidates. A folder is read flat. Names come in the order of their bytes, whatever order the
file system gives.
"""

from __future__ import annotations

import glob
import os
import re
from pathlib import Path

from segcal_cli.core.errors import FormatError, PairingError, UsageError
from segcal_cli.core.frozen import dataclass
from segcal_cli.io.suffixes import ARRAYS, IMAGES, split_suffix

SIDE_FILES = frozenset({".json", ".csv", ".tsv", ".txt", ".pkl"})
"""Files that tools write beside predictions: nnU-Net's JSON and pickles, tables, logs. A pickle is never opened."""

VOLUME_FOLDERS = frozenset({".zarr"})
"""Formats that store one volume as a folder."""


class NoSuchInput(UsageError):
    """A path on the command line that is not there."""

    template = "{0} does not exist"


class UnreadableFolder(FormatError):
    """A folder that the system does not let us list. Arguments: path, reason."""

    template = "{0}: {1}"


class TwoFiles(PairingError):
    """Two files, or two spellings, for one case. Arguments: case, both paths."""

    template = "{0}: both {1} and {2}"


class NoImage(PairingError):
    """A folder of images lacks that of a case. Arguments: case, its two possible names, folder."""

    template = "{0}: neither {1} nor {2} in {3}"


@dataclass(frozen=True, slots=True)
class Listing:
    """Names in a folder: files that segcal reads, files that it does not, and sub-folders."""

    files: tuple[str, ...]
    unread: tuple[str, ...]
    folders: tuple[str, ...]


def list_folder(folder: Path) -> Listing:
    """What lies in a folder, each list in the order of bytes. Raises UnreadableFolder."""
    files: list[str] = []
    unread: list[str] = []
    folders: list[str] = []
    try:
        with os.scandir(folder) as entries:
            for entry in entries:
                suffix = Path(entry.name).suffix.lower()
                if entry.name.startswith("."):
                    continue
                if _is_folder(entry):
                    (unread if suffix in VOLUME_FOLDERS else folders).append(entry.name)
                elif split_suffix(entry.name)[1]:
                    files.append(entry.name)
                elif suffix not in SIDE_FILES:
                    unread.append(entry.name)
    except OSError as error:
        raise UnreadableFolder(folder, (error.strerror or str(error)).lower()) from error
    return Listing(*(tuple(sorted(names, key=os.fsencode)) for names in (files, unread, folders)))


def _is_folder(entry: os.DirEntry[str]) -> bool:
    """Whether a folder is behind an entry. A link that leads nowhere, or round and round, is a file that will not open:
    the trouble of its case alone."""
    try:
        return entry.is_dir()
    except OSError:
        return False


def expand_folders(path: Path) -> tuple[Path, ...]:
    """The folders that a path names: itself, or those that match its ``*``. Raises NoSuchInput.

    Only ``*`` is special. A folder may well be called ``scan[1]``, so brackets and question marks mean themselves.
    """
    if path.exists():
        return (path,)
    if "*" in str(path):
        # Path.glob would also find dot-folders.
        found = sorted(glob.glob(re.sub(r"[\[?]", r"[\g<0>]", str(path))), key=os.fsencode)  # noqa: PTH207
        folders = tuple(Path(name) for name in found if Path(name).is_dir())
        if folders:
            return folders
    raise NoSuchInput(path)


class Siblings:
    """Finds the segmentation beside an array. Lists each folder once."""

    def __init__(self) -> None:
        self._stems: dict[Path, dict[str, list[str]]] = {}

    def proof_of(self, case: str, path: Path) -> Path | None:
        """The image with the array's own stem in its folder; None if there is none, or the file is no array.

        Raises TwoFiles if several could be it.
        """
        stem, suffix = split_suffix(path.name)
        if suffix not in ARRAYS:
            return None
        if path.parent not in self._stems:
            self._stems[path.parent] = images_by_stem(path.parent)
        names = self._stems[path.parent].get(stem, [])
        if len(names) > 1:
            raise TwoFiles(case, path.parent / names[0], path.parent / names[1])
        return path.parent / names[0] if names else None


class ImageFolder:
    """A folder of scans (``--geometry``, ``--images``): the file of a case is CASE, or nnU-Net's CASE_0000.

    Raises UnreadableFolder.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self._stems = images_by_stem(folder)

    def find(self, case: str) -> Path:
        """The image of a case; the plain name wins. Raises NoImage, TwoFiles."""
        for stem in (case, f"{case}_0000"):
            names = self._stems.get(stem, [])
            if len(names) > 1:
                raise TwoFiles(case, self.folder / names[0], self.folder / names[1])
            if names:
                return self.folder / names[0]
        raise NoImage(case, case, f"{case}_0000", self.folder)


def images_by_stem(folder: Path) -> dict[str, list[str]]:
    """Names of the images (no arrays) in a folder by their stem."""
    stems: dict[str, list[str]] = {}
    for name in list_folder(folder).files:
        stem, suffix = split_suffix(name)
        if suffix in IMAGES:
            stems.setdefault(stem, []).append(name)
    return stems
