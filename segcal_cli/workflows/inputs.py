"""Inputs: from what a command was asked to read, to opened cases.

Every command that reads predictions begins here: find the class table, pair files into cases, open every header, list
all problems. What follows differs: a fit stops at any problem, ``apply`` goes on with the good cases.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import field, replace
from pathlib import Path

from segcal_cli.core.artifact import Artifact
from segcal_cli.core.errors import (
    CaseErrors,
    FormatError,
    NothingToDo,
    PairingError,
    SegcalError,
    UsageError,
    count_text,
)
from segcal_cli.core.frozen import dataclass
from segcal_cli.core.labels import LabelSpace
from segcal_cli.core.observer import Observer
from segcal_cli.core.paths import real_path
from segcal_cli.core.volume import Values
from segcal_cli.execution.work import Result
from segcal_cli.io import files
from segcal_cli.io.arrays import ArrayHeader
from segcal_cli.io.case_files import CaseFiles, Pairing, PredictionFile, missing_labels, same_predictions
from segcal_cli.io.case_sources import CaseReader, CaseSource, Opened, Transform, open_cases
from segcal_cli.io.case_table import read_cases
from segcal_cli.io.classes import classes_from_caret, default_space, read_classes, single_foreground
from segcal_cli.io.companions import Companions
from segcal_cli.io.fingerprints import size_and_time
from segcal_cli.io.folders import ImageFolder, expand_folders
from segcal_cli.io.groups import parse_groups, scans_of_one_patient
from segcal_cli.io.nifti_header import NiftiHeader
from segcal_cli.io.nnunet import V1_KEY, find_model_files
from segcal_cli.io.pairing import pair
from segcal_cli.io.predictions import ReadingRules, Reduce
from segcal_cli.io.problems import Problem, raise_all
from segcal_cli.io.truth import TruthRules
from segcal_cli.workflows.calibrators import DoesNotFit, Loaded
from segcal_cli.workflows.case_inputs import own_files, still_arriving
from segcal_cli.workflows.idle_options import refuse_idle_reading
from segcal_cli.workflows.requests import LabelOptions, PredictionOptions

MEAN: Reduce = "mean-probabilities"
"""How samples are joined unless something else is asked for."""

CARET_EXTENSION = 30
"""NIfTI extension code of Caret, whose XML holds a label table; TotalSegmentator marks the same XML with 0."""


class MissingMember(PairingError):
    """A case that one of the member folders does not hold."""

    template = "{0}: the member {1} does not hold this case"


class MemberTwice(UsageError):
    """One folder that would count as two members of an ensemble, which then seem to agree."""

    template = "--member {0}: this folder is a member already; every member is a prediction of its own"


class AllWaiting(NothingToDo):
    """Every file is younger than ``--min-age``."""

    template = "{0}, 0 done, {1} waiting"


class UnusedOption(UsageError):
    """An option that a table of cases makes meaningless."""

    template = "{0} does not go with --cases: the table names the files itself{1}"


NO_GROUPS = (
    "no --groups: each case is taken as a patient of its own, and {0} and {1} look like scans of one; "
    "intervals and guarantees then claim too much"
)
"""Said where nobody told cases of one patient, and ids look as if there were some."""


@dataclass(frozen=True, slots=True)
class Inputs:
    """Opened cases, the class table that a user gave or a folder holds, and what could not be opened.

    reading: the options, with what the files settled: ``reduce`` says how samples were joined, or None without any.
    files: those of all paired cases, opened or not. given: PREDICTIONS. waiting: ids of cases that are still arriving
    (``--min-age``). seen: (size, mtime_ns) of the cases' own files before they were opened.
    """

    table: LabelSpace
    opened: Opened
    failures: tuple[Result, ...]
    reading: PredictionOptions
    files: tuple[CaseFiles, ...] = ()
    given: Path = Path()
    waiting: tuple[str, ...] = ()
    seen: Mapping[Path, tuple[int, int]] = field(default_factory=dict)

    @property
    def sources(self) -> tuple[CaseSource, ...]:
        return self.opened.sources

    @property
    def space(self) -> LabelSpace:
        return self.opened.space

    @property
    def values(self) -> Values:
        return self.opened.values

    def require_all(self) -> None:
        """Raises CaseErrors that list all problems, or the only one if it is not that of a single case."""
        errors = [failure.error for failure in self.failures if isinstance(failure.error, SegcalError)]
        if len(errors) == 1 and not errors[0].case:
            raise errors[0]
        if errors:
            raise CaseErrors(*errors)

    @property
    def v1_files(self) -> dict[str, Path]:
        """Case id -> the file of nnU-Net v1 that holds its prediction."""
        firsts = {source.id: source.prediction.parts[0].first for source in self.sources}
        return {
            case: header.path
            for case, header in firsts.items()
            if isinstance(header, ArrayHeader) and header.key == V1_KEY
        }

    def reader(
        self,
        *,
        with_digest: bool = False,
        transform: Transform | None = None,
        with_checksum: bool = False,
        companions: Companions | None = None,
    ) -> CaseReader:
        return CaseReader(with_digest, transform, with_checksum, companions)


def find_cases(
    predictions: Path,
    labels: Path | None,
    reading: PredictionOptions,
    truth: LabelOptions | None,
    roi: Path | None = None,
    artifact: Loaded | None = None,
) -> tuple[LabelSpace | None, Pairing]:
    """The class table, if there is one, and the cases. roi: masks where there is no truth to name them. artifact: see
    ``open_inputs``.

    Raises NoSuchInput, UnusedOption, and what pairing and class tables raise.
    """
    _require_paths(predictions, labels, reading, truth, roi)
    table = class_table(predictions, reading)
    known = None if artifact is None else artifact.artifact.header.space
    if table is None and known is not None and reading.activation in (None, known.activation):
        table = known
    groups = None if reading.groups is None else parse_groups(reading.groups)
    if reading.cases is not None:
        return table, read_cases(reading.cases, space=table, groups=groups)
    return table, pair(
        predictions,
        labels,
        pattern=reading.pattern,
        label_pattern=None if truth is None else truth.label_pattern,
        space=table,
        roi=roi if truth is None else truth.roi,
        groups=groups,
    )


def with_members(pairing: Pairing, predictions: Path, reading: PredictionOptions, table: LabelSpace | None) -> Pairing:
    """The cases with the files of every member folder as further samples; without what a member lacks. Raises
    MemberTwice."""
    cases, problems = list(pairing.cases), list(pairing.problems)
    seen = {real_path(path) for path in expand_folders(predictions)}
    for number, folder in enumerate(reading.member, start=2):
        own_folders = {real_path(path) for path in expand_folders(Path(folder))}
        if seen & own_folders:
            raise MemberTwice(folder)
        seen |= own_folders
        own = {case.id: case for case in pair(Path(folder), None, pattern=reading.pattern, space=table).cases}
        problems += [Problem(case.id, MissingMember(case.id, folder)) for case in cases if case.id not in own]
        cases = [
            replace(case, predictions=case.predictions + tuple(_sample(f, number) for f in own[case.id].predictions))
            for case in cases
            if case.id in own
        ]
    return pairing if not reading.member else replace(pairing, cases=tuple(cases), problems=tuple(problems))


def _sample(file: PredictionFile, member: int) -> PredictionFile:
    return replace(file, sample=f"{member}" if file.sample is None else f"{member}/{file.sample}")


def files_of(reading: PredictionOptions) -> dict[str, Path | None]:
    """The files beside predictions that are read, by option."""
    return {"--cases": reading.cases, "--classes": reading.classes, "--calibrator": reading.calibrator}


def class_table(predictions: Path, reading: PredictionOptions) -> LabelSpace | None:
    """The table of ``--classes``, else of the ``dataset.json`` by the predictions, else None."""
    if reading.classes is not None:
        return read_classes(reading.classes, reading.activation)
    dataset = find_model_files(expand_folders(predictions)[0]).dataset
    return None if dataset is None else read_classes(dataset, reading.activation)


def open_inputs(
    predictions: Path,
    labels: Path | None,
    reading: PredictionOptions,
    truth: LabelOptions | None,
    observer: Observer,
    *,
    volumes: bool = False,
    hard: bool = False,
    regions: bool = False,
    masks: bool = False,
    roi: Path | None = None,
    min_age: float = 0.0,
    artifact: Loaded | None = None,
    also: bool = False,
) -> Inputs:
    """Find, pair and open. truth: None where a command needs no labels. volumes: the command gives mm3. hard: masks and
    label maps are predictions too. regions: the command measures unions of classes besides. masks: read the regions of
    interest (of ``roi`` or of the table of cases) although no labels are asked for. min_age: seconds; cases with a
    younger file are left for a later run. artifact: what will be applied; its class table holds where
    there is no other. also: other folders are read in the same way.

    Raises AllWaiting, IdleOption, and what makes the whole run impossible (no case, a bad class table); problems of
    single cases are collected.
    """
    table, pairing = find_cases(predictions, labels, reading, truth, roi, artifact)
    pairing = with_members(pairing, predictions, reading, table)
    for note in pairing.notes:
        observer.note(note)
    for copies in same_predictions(pairing.cases):
        observer.warn(str(copies))
    if not pairing.cases:
        pairing.require()
    waiting = tuple(case.id for case in pairing.cases if still_arriving(case, min_age))
    if waiting:
        pairing = replace(pairing, cases=tuple(case for case in pairing.cases if case.id not in set(waiting)))
        if not pairing.cases and not pairing.problems:
            raise AllWaiting(count_text(len(waiting), "case"), len(waiting))
    seen = {path: stamp for case in pairing.cases for path in own_files(case) if (stamp := size_and_time(path))}
    observer.progress(0, len(pairing.cases), "looking at headers")
    problems = list(pairing.problems)
    for problem in problems:
        problem.error.case = problem.case
    # Pairing by names has listed these; a table of cases does not know whether labels are wanted.
    unlabelled = None if truth is None or reading.cases is None else missing_labels(pairing.cases)
    if unlabelled is not None:
        problems.append(Problem("", unlabelled))
    if table is None:
        table = guessed_table(pairing.cases)
    elif artifact is not None and table is artifact.artifact.header.space and not hard:
        _refuse_other_channels(artifact, predictions, pairing.cases, reading)
    if not regions:
        table = replace(table, regions=())
    rules = truth_rules(truth, volumes=volumes)
    if rules is None and masks:
        rules = TruthRules(volumes=volumes, labelled=False)
    opened = open_cases(pairing.cases, table, reading_rules(reading, hard=hard, several=also), rules)
    for note in opened.notes:
        observer.note(note)
    if truth is not None and reading.groups is None and all(source.group == source.id for source in opened.sources):
        alike = scans_of_one_patient([source.id for source in opened.sources])
        if alike is not None:
            observer.warn(NO_GROUPS.format(*alike))
    failures = tuple(Result(problem.case, error=problem.error) for problem in (*problems, *opened.problems))
    if opened.sources and not failures and not also:
        refuse_idle_reading(reading, opened.sources)
    joined = any(len(source.prediction.parts) > 1 for source in opened.sources)
    settled = replace(reading, reduce=(reading.reduce or MEAN) if joined else None)
    if truth is None:
        # What is wrong with no single case, such as missing regions of interest, is wrong with all of them.
        raise_all([problem.error for problem in problems if not problem.case])
    inputs = Inputs(table, opened, failures, settled, pairing.cases, predictions, waiting, seen)
    if not opened.sources:
        inputs.require_all()
    return inputs


def guessed_table(cases: Sequence[CaseFiles]) -> LabelSpace:
    """The table where nobody gave one: names inside a label file, or one foreground.

    Files that cannot be read are passed over here, and refused when they are opened. Raises TableNeeded,
    UnreadableLabelTable.
    """
    for label in (label for case in cases for label in case.labels[:1]):
        header = _readable(label.path)
        if header is None:
            continue
        for code, content in header.extensions if isinstance(header, NiftiHeader) else ():
            if code in (0, CARET_EXTENSION) and b"<CaretExtension" in content:
                return classes_from_caret(content, label.path)
        break
    headers = (_readable(case.predictions[0].path) for case in cases)
    header = next((header for header in headers if header is not None), None)
    return single_foreground() if header is None else default_space(header.path, files.channel_count(header))


def _refuse_other_channels(
    artifact: Loaded, predictions: Path, cases: Sequence[CaseFiles], reading: PredictionOptions
) -> None:
    """Raise DoesNotFit where files that say nothing of their classes cannot hold those of the artifact."""
    whole = [case.predictions[0].path for case in cases if case.predictions[0].class_name is None]
    header = next((header for path in whole if (header := _readable(path)) is not None), None)
    channels = len(artifact.artifact.header.space.channels)
    if header is None:
        return
    found = files.channel_count(header, reading.channel_axis)
    if found != channels:
        then, now = (count_text(number, "channel") for number in (channels, found))
        raise DoesNotFit(artifact.path, then, predictions, now)


def _readable(path: Path) -> files.FileHeader | None:
    try:
        return files.probe(path)
    except FormatError:
        return None


def reading_rules(reading: PredictionOptions, *, hard: bool = False, several: bool = False) -> ReadingRules:
    """hard: masks and label maps are predictions too. several: folders of different models are read in one run."""
    return ReadingRules(
        hard=hard,
        several=several,
        values=reading.values,
        channel_axis=reading.channel_axis,
        reader=reading.reader,
        prove=reading.prove,
        reduce=reading.reduce,
        geometry=None if reading.geometry is None else ImageFolder(reading.geometry),
    )


def reading_spec(
    reading: PredictionOptions, truth: LabelOptions | None, calibrator: Artifact | None
) -> dict[str, object]:
    """The options that change what is read, for the artifact's header."""
    spec: dict[str, object] = {
        "channel_axis": reading.channel_axis,
        "reader": reading.reader,
        "prove": reading.prove,
        "reduce": reading.reduce,
        "members": len(reading.member) + 1 if reading.member else None,
        "calibrator": None if calibrator is None else calibrator.digest,
    }
    if truth is not None:
        spec |= {
            "ignore_label": truth.ignore_label,
            "mask_value": truth.mask_value,
            "roi": truth.roi is not None,
        }
    return spec


def truth_rules(truth: LabelOptions | None, *, volumes: bool) -> TruthRules | None:
    """None where a command needs no labels. volumes: it gives mm3."""
    return None if truth is None else TruthRules(truth.ignore_label, truth.mask_value, volumes)


def _require_paths(
    predictions: Path, labels: Path | None, reading: PredictionOptions, truth: LabelOptions | None, roi: Path | None
) -> None:
    """Raise NoSuchInput for a path that is not there, UnusedOption for options that --cases makes meaningless."""
    given = [predictions, labels, reading.cases, reading.classes, reading.geometry, *map(Path, reading.member)]
    region = roi if truth is None else truth.roi
    given.append(region)
    for path in given:
        if path is not None:
            expand_folders(path)
    if reading.cases is None:
        return
    if reading.pattern is not None:
        raise UnusedOption("--pattern", "")
    if truth is not None and truth.label_pattern is not None:
        raise UnusedOption("--label-pattern", "")
    if region is not None:
        raise UnusedOption("--roi", " (column roi)")
