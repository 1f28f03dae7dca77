"""Joint cases: the same scans as several models see them, on the same voxels.

Comparing models asks for the same cases, and in each case for the same voxels. So every folder must hold every case,
and says which it lacks; volumes are turned onto the grid of the first folder's; and what one model left out of its crop
is left out of the calibration of all.
"""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np

from segcal_cli.core.case import Case, CaseFacts, Contents
from segcal_cli.core.errors import CaseErrors, LabelError, SegcalError, UsageError
from segcal_cli.core.frozen import dataclass
from segcal_cli.core.labels import LabelSpace
from segcal_cli.core.observer import Observer
from segcal_cli.core.volume import Box, Volume
from segcal_cli.execution.work import Result
from segcal_cli.io.artifacts import file_digest
from segcal_cli.io.case_files import CaseFiles
from segcal_cli.io.case_sources import CaseReader, CaseSource, Decoded, Transform, digest_of, open_cases
from segcal_cli.io.geometry import Alignment, align
from segcal_cli.io.groups import parse_groups
from segcal_cli.io.pairing import pair
from segcal_cli.io.truth import Aligned, TruthSource
from segcal_cli.io.voxels import read_prediction
from segcal_cli.metrics.comparison import DifferentCases
from segcal_cli.workflows.inputs import Inputs, class_table, guessed_table, reading_rules, truth_rules
from segcal_cli.workflows.requests import LabelOptions, PredictionOptions


class NameNeeded(UsageError):
    """Another folder without a name."""

    template = "--also {0}: give it a name, NAME=FOLDER"


class OtherClasses(LabelError):
    """A folder of predictions of other classes."""

    template = "{0} has the classes {1}; the first folder has {2}. One run takes one class table"


class NothingShared(LabelError):
    """Crops of several models without a common voxel."""

    template = "{0}: the parts that the models predicted share no voxel"


@dataclass(frozen=True, slots=True)
class Folder:
    """Another prediction folder: the name of its source, and where it is."""

    name: str
    path: Path


@dataclass(frozen=True, slots=True)
class Other:
    """Another prediction of a case before it is read, and how it is turned onto the first one's grid. name: of its
    folder.
    """

    name: str
    source: CaseSource
    alignment: Alignment


@dataclass(frozen=True, slots=True)
class JointSource:
    """One case before it is read: as the first folder holds it, and as each other one does."""

    first: CaseSource
    others: tuple[Other, ...] = ()

    @property
    def id(self) -> str:
        return self.first.id

    @property
    def group(self) -> str:
        return self.first.group

    @property
    def paths(self) -> tuple[Path, ...]:
        """What whoever reads the case must see."""
        return tuple(path for source in (self.first, *(other.source for other in self.others)) for path in source.paths)


@dataclass(frozen=True, slots=True)
class JointCase:
    """A case as every folder has it, the first one first; labels, region and what counts as predicted are shared."""

    cases: tuple[Case, ...]

    @property
    def id(self) -> str:
        return self.cases[0].id

    @property
    def facts(self) -> CaseFacts:
        return self.cases[0].facts


@dataclass(frozen=True, slots=True)
class JointReader:
    """Reads joint cases. first: reads the first folder's, with labels. identified: hash all that is read."""

    first: CaseReader
    transform: Transform | None = None
    identified: bool = False

    def __call__(self, source: JointSource) -> JointCase:
        """Raises the refusals of formats, proofs, values and labels, NothingShared."""
        return self.complete(self.decode(source))

    def decode(self, source: JointSource) -> tuple[JointSource, Decoded]:
        """See ``CaseReader.decode``."""
        return source, self.first.decode(source.first)

    def complete(self, decoded: tuple[JointSource, Decoded]) -> JointCase:
        """See ``CaseReader.complete``."""
        source, first_decoded = decoded
        case = self.first.complete(first_decoded)
        volumes, warnings = [case.volume], list(case.facts.warnings)
        # A blank prediction has no digest of its own, since it says nothing of whose it is.
        arrays = [case.facts.digest or digest_of(case.volume.array)] if self.identified else []
        for other in source.others:
            truth = other.source.truth
            read = read_prediction(other.source.prediction, None if truth is None else truth.place)
            warnings += [
                f"{other.name}: {text.removeprefix(f'{report.path}: ')}"
                for report in read.reports
                for text in report.warnings
            ]
            if self.identified:
                arrays.append(digest_of(read.volume.array))
            volume = turned(read.volume, other.alignment, case.volume)
            volumes.append(volume if self.transform is None else self.transform(volume, case.space))
        box = shared_box(case.id, [volume.predicted for volume in volumes])
        joint = [
            replace(case, volume=replace(volume, predicted=box), facts=replace(case.facts, warnings=tuple(warnings)))
            for volume in volumes
        ]
        contents = _contents(source.first.truth, arrays) if self.identified else None
        facts = replace(joint[0].facts, padding_share=joint[0].padding_share, contents=contents)
        first = replace(joint[0], facts=facts)
        return JointCase((first, *joint[1:]))


def parse_folder(text: str) -> Folder:
    """``NAME=FOLDER``. Raises NameNeeded."""
    name, mark, path = text.partition("=")
    if not (name and mark and path):
        raise NameNeeded(text)
    return Folder(name, Path(path))


def join(
    inputs: Inputs,
    first: str,
    folders: Sequence[Folder],
    reading: PredictionOptions,
    truth: LabelOptions,
    observer: Observer,
    *,
    hard: bool = False,
) -> tuple[tuple[JointSource, ...], tuple[Result, ...]]:
    """The cases of the first folder as each other folder holds them, and the failures of all. first: its name.

    Raises CaseErrors of DifferentCases, OtherClasses, and what pairing and opening raise.
    """
    ids = {case.id for case in inputs.files} | {failure.id for failure in inputs.failures if failure.id}
    known = {case.id: case for case in inputs.files}
    found: dict[str, dict[str, CaseSource]] = {}
    failures = {failure.id: failure for failure in reversed(inputs.failures) if failure.id}
    different: list[DifferentCases] = []
    for folder in folders:
        cases, problems, absent = _cases_of(folder, reading, known, ids, first)
        different += absent
        if absent:
            continue
        table = class_table(folder.path, reading) or guessed_table(cases)
        opened = open_cases(
            cases, table, reading_rules(reading, hard=hard, several=True), truth_rules(truth, volumes=False)
        )
        for note in opened.notes:
            observer.note(f"{folder.name}: {note}")
        if opened.sources and _what(opened.space) != _what(inputs.space):
            raise OtherClasses(folder.path, _what(opened.space), _what(inputs.space))
        found[folder.name] = {source.id: source for source in opened.sources}
        for case, error in [*problems, *((problem.case, problem.error) for problem in opened.problems)]:
            failures.setdefault(case, Result(case, error=error))
    if different:
        raise different[0] if len(different) == 1 else CaseErrors(*different)
    joint = []
    for source in inputs.sources:
        if source.id in failures:
            continue
        try:
            joint.append(JointSource(source, tuple(_other(source, f.name, found[f.name][source.id]) for f in folders)))
        except SegcalError as error:
            failures[source.id] = Result(source.id, error=error)
    general = [failure for failure in inputs.failures if not failure.id]
    return tuple(joint), (*general, *(failures[case] for case in sorted(failures, key=str.encode)))


def turned(volume: Volume, alignment: Alignment, like: Volume) -> Volume:
    """The volume on the grid of ``like``, without loss."""
    if alignment.identity:
        return replace(volume, grid=like.grid)
    array = np.stack([alignment.apply(channel) for channel in volume.array])
    box = None
    if volume.predicted is not None:
        inside = np.nonzero(alignment.apply(volume.predicted.mask(volume.grid.shape)))
        box = Box(*((int(axis.min()), int(axis.max()) + 1) for axis in inside))
    return replace(volume, array=array, grid=like.grid, predicted=box)


def shared_box(case: str, boxes: Sequence[Box | None]) -> Box | None:
    """The box that every model predicted; None if that is the whole grid. Raises NothingShared."""
    cropped = [box for box in boxes if box is not None]
    if not cropped:
        return None
    ranges = []
    for axis in ("z", "y", "x"):
        low, high = (max(getattr(b, axis)[0] for b in cropped), min(getattr(b, axis)[1] for b in cropped))
        if low >= high:
            raise NothingShared(case)
        ranges.append((low, high))
    return Box(*ranges)


def _cases_of(
    folder: Folder, reading: PredictionOptions, known: dict[str, CaseFiles], ids: set[str], first: str
) -> tuple[list[CaseFiles], list, list[DifferentCases]]:
    """Cases of another folder with the labels, region and group of the first folder's, problems, and what differs."""
    groups = None if reading.groups is None else parse_groups(reading.groups)
    pairing = pair(folder.path, None, pattern=reading.pattern, space=class_table(folder.path, reading), groups=groups)
    own = {case.id: case for case in pairing.cases}
    broken = {problem.case: problem.error for problem in pairing.problems}
    held = own.keys() | broken.keys()
    different = [
        DifferentCases(lacking, ", ".join(sorted(absent, key=str.encode)), other)
        for lacking, absent, other in ((folder.name, ids - held, first), (first, own.keys() - ids, folder.name))
        if absent
    ]
    cases = [
        replace(own[case], group=known[case].group, labels=known[case].labels, roi=known[case].roi)
        for case in sorted(own.keys() & known.keys(), key=str.encode)
    ]
    return cases, sorted(broken.items()), different


def _other(first: CaseSource, name: str, other: CaseSource) -> Other:
    assert first.truth is not None, "measuring needs labels"
    assert other.truth is not None, "labels are those of the first folder"
    return Other(name, other, align(first.truth.place, other.truth.place))


def _contents(truth: TruthSource | None, arrays: Sequence[str]) -> Contents:
    """arrays: digests of the predictions, in order."""
    labels = () if truth is None else truth.labels
    roi = () if truth is None or truth.roi is None else (truth.roi,)
    return Contents(tuple(arrays), _digest_of_files(labels), _digest_of_files(roi))


def _digest_of_files(found: Sequence[Aligned]) -> str:
    """Of one file its sha256; of several that of their sorted digests; "" of none."""
    # A file may stand for several classes.
    digests = sorted(file_digest(path) for path in dict.fromkeys(aligned.header.path for aligned in found))
    if len(digests) < 2:
        return "".join(digests)
    return hashlib.sha256("".join(f"{digest}\n" for digest in digests).encode()).hexdigest()


def _what(space: LabelSpace) -> str:
    shown = "; ".join(f"{c.name}={','.join(map(str, sorted(c.values)))}" for c in space.channels)
    return f"{shown} ({'exclusive' if space.exclusive else 'independent'})"
