"""Proposals: the pattern that would have matched, for the message that nothing did.

MONAI saves ``CASE/CASE_trans.nii.gz``, TotalSegmentator ``CASE/liver.nii.gz``, nnU-Net
``fold_0/validation/CASE.npz``, and a user cannot know how segcal would like to be told. Candidates are made from the
first file below the folder and tried; the first one that reaches every sub-folder without finding anything twice (and
meets the other side's ids, where there are any) is proposed. It is never used unasked.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from itertools import islice
from pathlib import Path

from segcal_cli.core.labels import LabelSpace
from segcal_cli.io.class_files import without_proofs
from segcal_cli.io.folders import list_folder
from segcal_cli.io.patterns import Pattern
from segcal_cli.io.suffixes import ARRAYS, split_suffix

MAX_DEPTH = 2
"""nnU-Net's ``fold_K/validation`` is the deepest layout that is proposed."""

MAX_FOLDERS = 20
"""A proposal must reach so many sub-folders; more would only take time."""


def propose_layout(root: Path, targets: frozenset[str], space: LabelSpace | None) -> str | None:
    """A pattern for a folder of sub-folders, or None. targets: ids of the other side, empty if there is none."""
    first = _first_file(root)
    if first is None:
        return None
    classes = () if space is None else space.names
    with_files = (folder for folder in list_folder(root).folders if _first_file(root / folder))
    reached = list(islice(with_files, MAX_FOLDERS))
    for template in _templates(first, classes):
        pattern = Pattern(template, classes)
        matches = without_proofs(pattern.matches(root))
        keys = {(match.case, match.sample, match.class_name) for match in matches}
        folders = {match.path.relative_to(root).parts[0] for match in matches}
        if len(keys) < len(matches) or not folders.issuperset(reached):
            continue
        if targets and not targets & {match.case for match in matches}:
            continue
        return template
    return None


def propose_affix(files: Sequence[tuple[str, str]], targets: frozenset[str]) -> str | None:
    """A pattern for flat files whose names are the other side's ids with something around them, or None.

    files: (stem, suffix) of each.
    """
    for stem, suffix in files:
        inside = [case for case in targets if case in stem]
        for case in sorted(inside, key=lambda case: (not stem.startswith(case), -len(case), case)):
            if (named := _with_field(stem, case)) and not re.search(r"[{}*]", stem):
                return f"{named}{suffix}"
    return None


def _with_field(stem: str, case: str) -> str | None:
    """The stem with ``{case}`` in place of the id, or None; only for a whole word: "scan_2021" does not mean "1"."""
    found = re.search(rf"(?<![^\W_]){re.escape(case)}(?![^\W_])", stem)
    return f"{stem[: found.start()]}{{case}}{stem[found.end() :]}" if found else None


def _first_file(root: Path, depth: int = MAX_DEPTH) -> str | None:
    """The relative path of the first file below the sub-folders of a folder; an array before its segmentation."""
    for folder in list_folder(root).folders if depth else ():
        files = list_folder(root / folder).files
        arrays = [name for name in files if split_suffix(name)[1] in ARRAYS]
        if files:
            return f"{folder}/{(arrays or files)[0]}"
        deeper = _first_file(root / folder, depth - 1)
        if deeper:
            return f"{folder}/{deeper}"
    return None


def _templates(first: str, classes: Sequence[str]) -> Iterator[str]:
    """Patterns that the first file fits, the most telling first."""
    *folders, name = first.split("/")
    stem, suffix = split_suffix(name)
    if re.search(r"[{}*]", first):
        return
    rest = "/".join(folders[1:])
    middle = f"{rest}/" if rest else ""
    if named := _with_field(stem, folders[0]):
        yield f"{{case}}/{middle}{named}{suffix}"
    if classes:
        yield f"{{case}}/{middle}{{class}}{suffix}"
    if len(folders) == 1 and not folders[0].lower().startswith("fold"):
        yield f"{{case}}/{stem}{suffix}"
    common = "fold_*" if folders[0].lower().startswith("fold_") else "*"
    yield f"{common}/{middle}{{case}}{suffix}"
    yield f"{'fold_{sample}' if common == 'fold_*' else '{sample}'}/{middle}{{case}}{suffix}"
