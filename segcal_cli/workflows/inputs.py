"""Inputs: from what a command was asked to read, to opened cases.

Every command that reads predictions begins here: find the class table, pair files into cases, open every header, list
all problems. What follows differs: a fit stops at any problem, ``apply`` goes on with the good cases.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from segcal_cli.core.artifact import Artifact
from segcal_cli.core.errors import CaseErrors, SegcalError
from segcal_cli.core.labels import LabelSpace
from segcal_cli.core.observer import Observer
from segcal_cli.core.volume import Values
from segcal_cli.execution.work import Result
from segcal_cli.io import files
from segcal_cli.io.case_files import CaseFiles, Pairing, missing_labels, same_predictions
from segcal_cli.io.case_sources import CaseReader, CaseSource, Opened, Transform, open_cases
from segcal_cli.io.case_table import read_cases
from segcal_cli.io.classes import classes_from_caret, default_space, read_classes
from segcal_cli.io.folders import ImageFolder, expand_folders
from segcal_cli.io.groups import parse_groups
from segcal_cli.io.nifti_header import NiftiHeader
from segcal_cli.io.nnunet import find_model_files
from segcal_cli.io.pairing import pair
from segcal_cli.io.predictions import ReadingRules
from segcal_cli.io.problems import Problem
from segcal_cli.io.truth import TruthRules
from segcal_cli.workflows.requests import LabelOptions, PredictionOptions

CARET_EXTENSION = 30
"""NIfTI extension code of Caret, whose XML holds a label table; TotalSegmentator marks the same XML with 0."""


@dataclass(frozen=True, slots=True)
class Inputs:
    """Opened cases, the class table that a user gave or a folder holds, and what could not be opened.

    files: those of all paired cases, opened or not.
    """

    table: LabelSpace
    opened: Opened
    failures: tuple[Result, ...]
    files: tuple[CaseFiles, ...] = ()

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
        """Raises the only problem, or CaseErrors that list all of them."""
        errors = [failure.error for failure in self.failures if failure.error is not None]
        if len(errors) == 1 and isinstance(errors[0], SegcalError):
            raise errors[0]
        if errors:
            raise CaseErrors(*errors)

    def reader(self, *, with_digest: bool = False, transform: Transform | None = None) -> CaseReader:
        return CaseReader(with_digest, transform)


def find_cases(
    predictions: Path,
    labels: Path | None,
    reading: PredictionOptions,
    truth: LabelOptions | None,
    roi: Path | None = None,
) -> tuple[LabelSpace | None, Pairing]:
    """The class table, if there is one, and the cases. roi: masks where there is no truth to name them.

    Raises what pairing and class tables raise.
    """
    table = class_table(predictions, reading)
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
    roi: Path | None = None,
) -> Inputs:
    """Find, pair and open. truth: None where a command needs no labels. volumes: the command gives mm3. hard: masks and
    label maps are predictions too. regions: read the regions of interest (of ``roi`` or of the table of cases) although
    no labels are asked for.

    Raises what makes the whole run impossible (no case, a bad class table); problems of single cases are collected.
    """
    table, pairing = find_cases(predictions, labels, reading, truth, roi)
    for note in pairing.notes:
        observer.note(note)
    problems = [*pairing.problems, *_more_problems(pairing.cases, labels is not None or truth is not None, pairing)]
    if not pairing.cases:
        pairing.require()
    if table is None:
        table = guessed_table(pairing.cases)
    rules = truth_rules(truth, volumes=volumes)
    if rules is None and regions:
        rules = TruthRules(volumes=volumes, labelled=False)
    opened = open_cases(pairing.cases, table, reading_rules(reading, hard=hard), rules)
    for note in opened.notes:
        observer.note(note)
    failures = tuple(Result(problem.case, error=problem.error) for problem in (*problems, *opened.problems))
    inputs = Inputs(table, opened, failures, tuple(pairing.cases))
    if not opened.sources:
        inputs.require_all()
    return inputs


def guessed_table(cases: Sequence[CaseFiles]) -> LabelSpace:
    """The table where nobody gave one: names inside a label file, or one foreground. Raises TableNeeded."""
    first = cases[0]
    for label in first.labels[:1]:
        header = files.probe(label.path)
        if isinstance(header, NiftiHeader):
            for code, content in header.extensions:
                if code in (0, CARET_EXTENSION) and b"<CaretExtension" in content:
                    return classes_from_caret(content, label.path)
    header = files.probe(first.predictions[0].path)
    return default_space(header.path, files.channel_count(header))


def reading_rules(reading: PredictionOptions, *, hard: bool = False) -> ReadingRules:
    """hard: masks and label maps are predictions too."""
    return ReadingRules(
        hard=hard,
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


def _more_problems(cases: Sequence[CaseFiles], labelled: bool, pairing: Pairing) -> list[Problem]:
    """Problems of several cases together that a table of cases does not look for."""
    found = [Problem("", error) for error in same_predictions(cases)] if labelled else []
    known = {str(problem.error) for problem in pairing.problems}
    unlabelled = missing_labels(cases) if labelled else None
    if unlabelled is not None and str(unlabelled) not in known:
        found.append(Problem("", unlabelled))
    return found
