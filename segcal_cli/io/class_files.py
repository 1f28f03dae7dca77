"""From found files to whole cases: one file per class, and several samples, must be complete.

The order of channels comes from the class table, never from the folder. Of exclusive classes only the background may
have no file, since it is what the others leave; any other gap would shift no channel, but make up a prediction.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import replace
from itertools import product
from pathlib import Path

from segcal_cli.core.errors import PairingError
from segcal_cli.core.labels import LabelSpace
from segcal_cli.io.case_ids import byte_order, confusable
from segcal_cli.io.folders import TwoFiles
from segcal_cli.io.naming import entity_value
from segcal_cli.io.patterns import Match, Pattern
from segcal_cli.io.suffixes import ARRAYS, split_suffix

CLASS_LAYOUTS = (
    "{case}_label-{class}_probseg",
    "{case}_label-{class}_desc-*_probseg",
    "{case}_label-{class}_mask",
    "{case}_{class}",
)
"""Flat layouts with one file per class that are recognised by themselves: those of BIDS and of most scripts."""


CALIBRATED_END = "_desc-calibrated_probseg"
"""The end of segcal's own file of calibrated probabilities."""

COMPANION = re.compile(r"(.+)_desc-[^\W_]+_(?:dseg|map)", re.DOTALL)
"""What segcal writes beside that file."""


class NoClassFile(PairingError):
    """One file per class, and one is not there. Arguments: case, class, path."""

    template = "{0}: no file for class {1} (looked for {2})"


class MissingSamples(PairingError):
    """A case lacks samples that others have. Arguments: case, samples it has, samples of all, names of the absent."""

    template = "{0}: {1} of {2} samples ({3} absent)"


class FoundTwice(PairingError):
    """Joined folders must be disjoint: a scan is validated in one fold only. Arguments: case, both folders."""

    template = "{0}: found in {1} and in {2}"


def needed_classes(space: LabelSpace) -> tuple[str, ...]:
    """Classes that must have a file: all, but for the background (the class of label value 0) of exclusive classes."""
    if space.exclusive:
        return tuple(channel.name for channel in space.channels if 0 not in channel.values)
    return space.names


def class_layout(matches: Sequence[Match], space: LabelSpace | None, option: str) -> tuple[Pattern, list[Match]] | None:
    """The class layout of a flat folder, and its files matched by it; None if the folder holds whole predictions.

    Every file must fit the layout and at least one case must be complete, so that ids which merely end in the name of a
    class are no reason to join files. A single foreground class needs no joining.
    """
    if space is None or len(needed_classes(space)) < 2:
        return None
    for template in CLASS_LAYOUTS:
        pattern = Pattern(template, space.names, option)
        joined = ((match.root, pattern.match_file(match.path)) for match in matches)
        found = [replace(match, root=root) for root, match in joined if match is not None]
        if not found or len(found) < len(matches):
            continue
        have: dict[str, set[str | None]] = {}
        for match in found:
            have.setdefault(match.case, set()).add(match.class_name)
        if any(names.issuperset(needed_classes(space)) for names in have.values()):
            return pattern, found
    return None


def without_proofs(matches: Iterable[Match]) -> list[Match]:
    """Matches of predictions: an image with the stem of an array beside it is that array's proof."""
    matches = list(matches)
    arrays = {(match.path.parent, split_suffix(match.path.name)[0]) for match in matches if is_array(match.path)}
    return [m for m in matches if is_array(m.path) or (m.path.parent, split_suffix(m.path.name)[0]) not in arrays]


def without_companions(matches: Iterable[Match]) -> list[Match]:
    """Matches of predictions: what segcal wrote beside calibrated probabilities (decisions, maps) is no prediction."""
    matches = list(matches)
    stems = {(match.path.parent, split_suffix(match.path.name)[0]) for match in matches}

    def beside(match: Match) -> bool:
        found = COMPANION.fullmatch(split_suffix(match.path.name)[0])
        return found is not None and (match.path.parent, f"{found[1]}{CALIBRATED_END}") in stems

    return [match for match in matches if not beside(match)]


def without_arrays(matches: Iterable[Match]) -> list[Match]:
    """Matches of labels: beside an image with its stem, an array holds the probabilities that the image came from."""
    matches = list(matches)
    images = {(match.path.parent, split_suffix(match.path.name)[0]) for match in matches if not is_array(match.path)}
    return [m for m in matches if not is_array(m.path) or (m.path.parent, split_suffix(m.path.name)[0]) not in images]


def is_array(path: Path) -> bool:
    return split_suffix(path.name)[1] in ARRAYS


def spelling_clashes(paths: Mapping[str, Path]) -> dict[str, TwoFiles]:
    """Ids that some file systems take for one, given a file of each; every id of a clash is in the result."""
    owner: dict[str, str] = {}
    clashes: dict[str, TwoFiles] = {}
    for case in sorted(paths, key=byte_order):
        first = owner.setdefault(confusable(case), case)
        if first != case:
            error = TwoFiles(first, paths[first], paths[case])
            clashes.setdefault(first, error)
            clashes[case] = error
    return clashes


def whole_case(
    case: str,
    matches: Sequence[Match],
    space: LabelSpace | None,
    samples: Sequence[str],
    looked_for: Callable[[str | None, str], Path],
) -> tuple[Match, ...]:
    """The files of a case by sample, then in the order of the class table.

    samples: those of all cases. looked_for: the path that the file of a sample and a class would have.
    Raises FoundTwice, TwoFiles, MissingSamples, NoClassFile.
    """
    slots: dict[tuple[str | None, str | None], Match] = {}
    for match in matches:
        other = slots.setdefault((match.sample, match.class_name), match)
        if other is not match:
            if other.path.parent != match.path.parent:
                raise FoundTwice(case, other.path.parent, match.path.parent)
            raise TwoFiles(case, other.path, match.path)
    absent = [sample for sample in samples if all(match.sample != sample for match in matches)]
    if absent:
        raise MissingSamples(case, len(samples) - len(absent), len(samples), ", ".join(absent))
    rank: dict[str | None, int] = {}
    if space is not None and any(match.class_name is not None for match in matches):
        for sample, name in product(samples or (None,), needed_classes(space)):
            if (sample, name) not in slots:
                raise NoClassFile(case, name, looked_for(sample, name))
        rank = {name: index for index, name in enumerate(space.names)}
    return tuple(sorted(matches, key=lambda m: (byte_order(m.sample or ""), rank.get(m.class_name, 0))))


def place(pattern: Pattern | None, like: Match, sample: str | None, name: str) -> Path:
    """Where the file of a class would lie, with the suffix (and the way to write class names) of one that is there."""
    if pattern is None:
        return like.path
    written = entity_value(name) if "label-{class}" in pattern.text else name
    return like.root / pattern.expand(like.case, sample, written, split_suffix(like.path.name)[1])
