"""Cases on disk: opened by their headers, all of them, before one voxel is read; then read one at a time.

Opening collects every problem instead of stopping at the first, so that one run tells everything that is wrong with a
folder. What it returns is small and picklable, and travels to worker processes, which read.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np

from segcal_cli.core.case import Case, CaseFacts
from segcal_cli.core.errors import PairingError, SegcalError, UsageError, count_text
from segcal_cli.core.frozen import dataclass
from segcal_cli.core.labels import LabelSpace
from segcal_cli.core.volume import Stored, Values, Volume
from segcal_cli.io import files
from segcal_cli.io.case_files import CaseFiles
from segcal_cli.io.checks import ValueReport
from segcal_cli.io.companions import Companions, at_voxels
from segcal_cli.io.nnunet import ModelFiles, find_model_files
from segcal_cli.io.predictions import (
    PredictionSource,
    ReadingRules,
    open_prediction,
    reduced_values,
)
from segcal_cli.io.problems import Problem
from segcal_cli.io.truth import TruthRules, TruthSource, open_truth, read_truth
from segcal_cli.io.voxels import FirstPart, read_prediction

Transform = Callable[[Volume, LabelSpace], Volume]
"""Applied to every volume as it is read: a calibrator on the fly."""


class MixedInputs(PairingError):
    """Cases of one run that hold different things."""

    template = "{0}: holds {1}, the other cases {2}; one run takes one kind"


@dataclass(frozen=True, slots=True)
class CaseSource:
    """One case before it is read. id, group: as in Case; found: CaseFiles.source."""

    id: str
    group: str
    prediction: PredictionSource
    truth: TruthSource | None
    found: str = ""

    @property
    def paths(self) -> tuple[Path, ...]:
        """The first file of the prediction and of its labels: what whoever reads the case must see."""
        labels = () if self.truth is None else self.truth.labels
        return self.prediction.parts[0].first.path, *(aligned.header.path for aligned in labels[:1])

    @property
    def format(self) -> str:
        return files.format_name(self.prediction.parts[0].first)


@dataclass(frozen=True, slots=True)
class Opened:
    """All cases of a run, opened. problems: what is wrong with the others; notes: to be said once."""

    sources: tuple[CaseSource, ...]
    problems: tuple[Problem, ...]
    notes: tuple[str, ...] = ()

    @property
    def space(self) -> LabelSpace:
        return self.sources[0].prediction.space

    @property
    def values(self) -> Values:
        return reduced_values(self.sources[0].prediction)

    @property
    def stored(self) -> Stored:
        return self.sources[0].prediction.stored


def open_cases(cases: Sequence[CaseFiles], table: LabelSpace, rules: ReadingRules, truth: TruthRules | None) -> Opened:
    """Look at every header of every case, and list what is wrong. truth: None where labels are not asked for.

    Raises UsageError at once: an option that one case needs, all cases need.
    """
    sources: list[CaseSource] = []
    problems: list[Problem] = []
    notes: dict[str, None] = {}
    models: dict[Path, ModelFiles] = {}
    for case in cases:
        folder = case.predictions[0].path.parent
        try:
            if folder not in models:
                models[folder] = find_model_files(folder)
            if truth is not None and not truth.labelled:
                case = replace(case, labels=())
            opened = open_prediction(case, table, rules, models[folder], placed_by_label=bool(truth and case.labels))
            known = bool(case.labels) if truth is None or truth.labelled else case.roi is not None
            labels = open_truth(case, opened, table, truth) if truth is not None and known else None
            _refuse_mixture(opened, sources)
        except UsageError:
            raise
        except SegcalError as error:
            error.case = case.id
            problems.append(Problem(case.id, error))
            continue
        sources.append(CaseSource(case.id, case.group, opened, labels, case.source))
        notes.update(dict.fromkeys(opened.notes))
    turned = [source.truth.turned for source in sources if source.truth is not None and source.truth.turned]
    for note in dict.fromkeys(turned):
        notes[f"{note} ({turned.count(note)} of {count_text(len(sources), 'case')})"] = None
    return Opened(tuple(sources), tuple(problems), tuple(notes))


@dataclass(frozen=True, slots=True)
class Decoded:
    """A case of which the first part of its prediction is in memory."""

    source: CaseSource
    first: FirstPart


@dataclass(frozen=True, slots=True)
class CaseReader:
    """Reads an opened case: the ``load`` half of the work.

    with_digest: hash the array (fits, overlap checks). with_checksum: sum it up, which finds copies within a run at a
    tenth of the cost. companions: what comes along with predictions, attached before the transform.
    """

    with_digest: bool = False
    transform: Transform | None = None
    with_checksum: bool = False
    companions: Companions | None = None

    def __call__(self, source: CaseSource) -> Case:
        """Raises the refusals of formats, proofs, values and labels."""
        return self.complete(self.decode(source))

    def decode(self, source: CaseSource) -> Decoded:
        """The first half: what takes longest, and no other thread can help with. Raises the refusals of formats."""
        return Decoded(source, FirstPart(source.prediction))

    def complete(self, decoded: Decoded) -> Case:
        """The second half; once for what was decoded, since it works in place."""
        source = decoded.source
        truth = source.truth
        read = read_prediction(source.prediction, None if truth is None else truth.place, decoded.first)
        volume, space = read.volume, source.prediction.space
        constant = all(report.constant for report in read.reports)
        # A blank prediction says nothing of whose it is: two of them are not one scan.
        digest = digest_of(volume.array) if self.with_digest and not constant else ""
        checksum = checksum_of(volume.array, read.reports) if self.with_checksum and not constant else ""
        labels, roi = (None, None) if truth is None else read_truth(truth)
        index = None
        if self.companions is not None:
            place = source.prediction.place if truth is None else truth.place
            volume, index = self.companions.attached(source.id, volume, place)
        if self.transform is not None:
            volume = self.transform(volume, space)
        case = Case(source.id, source.group, space, volume, labels, roi)
        # Said without the file, which the case names, so that cases of one kind share a sentence.
        warnings = [text.removeprefix(f"{report.path}: ") for report in read.reports for text in report.warnings]
        facts = CaseFacts(
            digest=digest,
            checksum=checksum,
            proof=read.proof,
            hard=all(report.hard for report in read.reports),
            constant=constant,
            stored=source.prediction.stored.dtype,
            grid_distance_mm=None if truth is None else truth.distance_mm,
            padding_share=case.padding_share,
            source=source.found,
            warnings=(*source.prediction.warnings, *warnings, *(() if truth is None else truth.warnings)),
            turned="" if truth is None else truth.turned,
            saturation=_saturation(space.names, read.reports),
        )
        case = replace(case, facts=facts)
        return case if index is None else at_voxels(case, index)


def digest_of(array: np.ndarray) -> str:
    """sha256 of an array's shape and numbers, in hexadecimal: the same prediction in another file is the same."""
    digest = hashlib.sha256(repr(array.shape).encode())
    digest.update(np.ascontiguousarray(array).reshape(-1).view(np.uint8).data)
    return digest.hexdigest()


def checksum_of(array: np.ndarray, reports: Sequence[ValueReport]) -> str:
    """crc32 of an array's numbers, with its shape and what its checks counted: enough to tell apart the predictions of
    one run."""
    from isal import isal_zlib

    numbers = np.ascontiguousarray(array).reshape(-1).view(np.uint8).data
    counted = [(r.lo, r.hi, r.saturation and r.saturation.shares) for r in reports]
    return f"{array.shape} {isal_zlib.crc32(numbers):08x} {counted}"


def _saturation(names: Sequence[str], reports: Sequence[ValueReport]) -> dict[str, tuple[float, float, float, float]]:
    """CaseFacts.saturation; the mean over samples."""
    shares = [report.saturation.shares for report in reports if report.saturation is not None]
    if not shares:
        return {}
    mean = np.mean(np.array(shares), axis=0).tolist()
    return {name: (row[0], row[1], row[2], row[3]) for name, row in zip(names, mean, strict=True)}


def _refuse_mixture(opened: PredictionSource, before: Sequence[CaseSource]) -> None:
    """Cases of one run hold the same kind of numbers and the same channels."""
    if not before:
        return
    first = before[0].prediction
    for mine, theirs in ((opened.values, first.values), (opened.shape[0], first.shape[0])):
        if mine != theirs:
            words = [f"{kind} channels" if isinstance(kind, int) else kind for kind in (mine, theirs)]
            raise MixedInputs(opened.parts[0].first.path, *words)
