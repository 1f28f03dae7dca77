"""The files of a case: what pairing finds and reading takes.

A case is one scan. Usually it has one prediction file; it has one per class where a tool saves channels one by one,
and several samples where folds or dropout draws are kept apart. A bare array (``CASE.npz``) may have a segmentation
by the same model beside it, its *proof*: it says where the array lies and shows whether it was read right.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from segcal_cli.core.errors import PairingError, count_text
from segcal_cli.core.frozen import dataclass
from segcal_cli.core.paths import real_path
from segcal_cli.io.problems import Problem, raise_all

CROSS_VALIDATION = "cross-validation"
"""Source of cases that fold models predicted: honest for fitting, but not the deployed ensemble."""


class MissingLabels(PairingError):
    """Predictions without a label. Arguments: how many, with a verb, their ids."""

    template = "{0} no label: {1}"


class SamePrediction(PairingError):
    """One prediction under two ids. Guarantees need exchangeable cases, and a copy is not one. Arguments: ids."""

    template = "{0} and {1} hold the same prediction: duplicates break exchangeability"


@dataclass(frozen=True, slots=True)
class PredictionFile:
    """One file of a prediction. sample, class_name: None where the file holds the only sample, or all classes."""

    path: Path
    sample: str | None = None
    class_name: str | None = None
    proof: Path | None = None


@dataclass(frozen=True, slots=True)
class LabelFile:
    """One file of the truth. class_name: None where it is a volume of label values, else it is a mask of that class."""

    path: Path
    class_name: str | None = None


@dataclass(frozen=True, slots=True)
class CaseFiles:
    """One case. predictions: by sample, then in the order of the class table. group: the patient or site, else the id.

    labels: empty where no truth is known. source: CROSS_VALIDATION or "".
    """

    id: str
    group: str
    predictions: tuple[PredictionFile, ...]
    labels: tuple[LabelFile, ...] = ()
    roi: Path | None = None
    source: str = ""

    @property
    def proof(self) -> Path | None:
        """The segmentation beside the first prediction file."""
        return self.predictions[0].proof

    @property
    def samples(self) -> tuple[str, ...]:
        """Names of the samples, in order; empty where there is but one prediction."""
        return tuple(dict.fromkeys(file.sample for file in self.predictions if file.sample is not None))


@dataclass(frozen=True, slots=True)
class Pairing:
    """What pairing found: usable cases in id order, sentences worth a warning, and problems."""

    cases: tuple[CaseFiles, ...]
    notes: tuple[str, ...] = ()
    problems: tuple[Problem, ...] = ()

    def require(self) -> tuple[CaseFiles, ...]:
        """The cases, if there is no problem. Raises the only problem, or CaseErrors that lists them all."""
        raise_all([problem.error for problem in self.problems])
        return self.cases


def missing_labels(cases: Sequence[CaseFiles]) -> MissingLabels | None:
    """The error that lists every case without a label, or None if each has one."""
    bare = [case.id for case in cases if not case.labels]
    return MissingLabels(count_text(len(bare), "prediction has", "predictions have"), ", ".join(bare)) if bare else None


def same_predictions(cases: Sequence[CaseFiles]) -> tuple[SamePrediction, ...]:
    """Pairs of ids that share a prediction file, links resolved; copies of a file are found by their content, later."""
    owner: dict[Path, str] = {}
    pairs: dict[tuple[str, str], None] = {}
    for case in cases:
        for file in case.predictions:
            first = owner.setdefault(real_path(file.path), case.id)
            if first != case.id:
                pairs[first, case.id] = None
    return tuple(SamePrediction(*ids) for ids in pairs)
