"""What every command on conformal sets shares: reading predictions or label maps, and artifacts of this kind."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import TypedDict

import numpy as np

from segcal_cli.confidence.distances import SPACING_DIGITS
from segcal_cli.confidence.maps import SIDES
from segcal_cli.confidence.spec import SPLIT_ROUNDING, BadOption, SetSpec, SpecDocument
from segcal_cli.confidence.store import KIND, calibration_from
from segcal_cli.confidence.text import guarantee
from segcal_cli.confidence.thresholds import Calibration
from segcal_cli.core.annotations import Count
from segcal_cli.core.artifact import Artifact
from segcal_cli.core.errors import ArtifactError, CaseErrors, InputError, SegcalError, UsageError
from segcal_cli.core.frozen import dataclass
from segcal_cli.core.observer import Observer
from segcal_cli.io.artifacts import read_artifact, require_kept
from segcal_cli.io.case_sources import CaseReader, CaseSource
from segcal_cli.io.geometry import Space, check_distances
from segcal_cli.workflows.calibrators import CalibratorTransform, Loaded, LoadedCalibrator
from segcal_cli.workflows.inputs import Inputs, open_inputs
from segcal_cli.workflows.regions_of_interest import refuse_other_region
from segcal_cli.workflows.requests import LabelOptions, PredictionOptions
from segcal_cli.workflows.tracing import dropping_clause


class MixedLengths(InputError):
    """Some cases have a place in space and others do not."""

    template = "{0}: lengths are in pixels here and in mm in other cases ({1}); give --geometry, or fit them apart"


class OtherLength(ArtifactError):
    """An artifact in mm, and predictions in pixels, or the reverse."""

    template = "{0} has thresholds in {1}, {2} has lengths in {3} only"


class DamagedSets(ArtifactError):
    """An artifact whose arrays do not make conformal sets."""

    template = "{0} is not a segcal artifact: {1}"


class RowDocument(TypedDict):
    inner_score: str
    outer_score: str
    share_inner: float
    median_margin: float


class ChoiceDocument(TypedDict):
    target: str
    rows: list[RowDocument]


LearningDocument = TypedDict("LearningDocument", {"from": str, "n_cases": Count, "choices": list[ChoiceDocument]})


class KeptResults(TypedDict):
    """What of a fit's results is shown, or decides what is promised."""

    warnings: list[str]
    ignored_voxels: bool
    learning: LearningDocument | None


@dataclass(frozen=True, slots=True)
class LoadedSets:
    """The calibration of an artifact, and the artifact it came from."""

    path: Path
    artifact: Artifact
    calibration: Calibration

    @property
    def spec(self) -> SetSpec:
        return self.calibration.spec

    def promise(self, calibration: Calibration, alpha: float, weights: str = "") -> str:
        """What these sets promise at a level. calibration: this one, perhaps with another split. weights: as in
        ``guarantee``."""
        header = self.artifact.header
        text = guarantee(
            calibration,
            alpha,
            roi=bool(header.spec.get("roi")),
            ignored=bool(header.results.get("ignored_voxels")),
            weights=weights,
            overlapped=bool(header.spec.get("overlap_allowed")),
        )
        return text + dropping_clause(len(header.dropped), header.n_cases)


def load_sets(path: Path, command: str) -> LoadedSets:
    """Read a conformal-sets artifact. Raises NotAnArtifact, NewerArtifact, OtherKind, DamagedSets."""
    return loaded_sets(path, read_artifact(path, KIND, command))


def loaded_sets(path: Path, artifact: Artifact) -> LoadedSets:
    """The calibration of an artifact that has been read. Raises NotAnArtifact, DamagedSets."""
    require_kept(path, artifact.header, SpecDocument, KeptResults)
    try:
        calibration = calibration_from(artifact)
        # Also what follows from the arrays must be there before anything is read for it.
        calibration.thresholds(calibration.spec.alpha)
        return LoadedSets(path, artifact, calibration)
    except (KeyError, TypeError, ValueError, IndexError, AttributeError, OverflowError, UsageError) as error:
        raise DamagedSets(path, f"its arrays are damaged ({error})") from error


def open_set_inputs(
    predictions: Path,
    labels: Path | None,
    reading: PredictionOptions,
    truth: LabelOptions | None,
    observer: Observer,
    *,
    labels_only: bool,
    roi: Path | None = None,
    min_age: float = 0.0,
    artifact: Loaded | None = None,
) -> Inputs:
    """As ``open_inputs``; with labels_only PREDICTIONS may be label maps. roi: masks where no labels are asked for."""
    if labels_only and reading.calibrator is not None:
        raise BadOption("--calibrator changes probabilities; --labels-only has none")
    return open_inputs(
        predictions,
        labels,
        reading,
        truth,
        observer,
        volumes=True,
        hard=labels_only,
        regions=True,
        masks=truth is None,
        roi=roi,
        min_age=min_age,
        artifact=artifact,
    )


def set_reader(inputs: Inputs, before: LoadedCalibrator | None) -> CaseReader:
    """The reader of these inputs. Digests are always taken: they tell copies and cases that were seen before."""
    return inputs.reader(with_digest=True, transform=None if before is None else CalibratorTransform(before.calibrator))


def place_of(source: CaseSource) -> Space:
    """Where a case's voxels lie: as its label says, where the prediction does not."""
    return source.prediction.place if source.truth is None else source.truth.place


def length_of(sources: Sequence[CaseSource]) -> str:
    """ "mm" or "px". Raises MixedLengths."""
    placed = {place_of(source).grid.affine is not None: source for source in sources}
    if len(placed) > 1:
        raise MixedLengths(placed[False].id, placed[True].id)
    return "mm" if True in placed else "px"


def refuse_sheared(sources: Sequence[CaseSource], spec: SetSpec) -> None:
    """Raise ShearedAxes, for every case that has them, where a score measures lengths."""
    if not any(entry.score(side).in_length(spec.rules.maps.metric) for entry in spec.targets for side in SIDES):
        return
    errors: list[Exception] = []
    for source in sources:
        try:
            check_distances(place_of(source))
        except SegcalError as error:
            errors.append(error)
    if errors:
        raise errors[0] if len(errors) == 1 else CaseErrors(*errors)


def smallest_edge(sources: Sequence[CaseSource]) -> float:
    """The smallest voxel edge of each case (mm or px), median over cases."""
    edges = [place_of(source).grid.spacing_mm or (1.0, 1.0, 1.0) for source in sources]
    return round(float(np.median([min(edge) for edge in edges])), SPACING_DIGITS)


def planar(sources: Sequence[CaseSource]) -> bool:
    """Whether all cases are 2-D images, or have a singleton axis."""
    return all(sum(size > 1 for size in source.prediction.shape[1:]) <= 2 for source in sources)


def refuse_other_place(loaded: LoadedSets, predictions: Path, inputs: Inputs) -> None:
    """Raise OtherLength, OtherRegion or ShearedAxes where lengths or regions are not those of the fit."""
    spec = loaded.spec
    refuse_other_region(loaded.path, loaded.artifact, inputs.sources)
    if any(entry.score(side).in_length(spec.rules.maps.metric) for entry in spec.targets for side in SIDES):
        length = length_of(inputs.sources)
        if length != spec.length:
            raise OtherLength(loaded.path, spec.length, predictions, length)
    refuse_sheared(inputs.sources, spec)


def parse_split(text: str, alpha: float) -> tuple[float, float]:
    """(share_inner, share_outer) of ``--alpha-split I,O``. Raises BadOption."""
    try:
        inner, outer = (float(part) for part in text.split(","))
    except ValueError:
        raise BadOption(f"--alpha-split {text}: two numbers are expected, as in 0.02,0.08") from None
    if not (inner > 0 and outer > 0):
        raise BadOption(f"--alpha-split {text}: both parts must be positive")
    if inner + outer > alpha + SPLIT_ROUNDING:
        raise BadOption(f"--alpha-split {text}: together {inner + outer:g}, more than alpha = {alpha:g}")
    return inner / alpha, outer / alpha


def with_levels(spec: SetSpec, alpha: float | None, split: str | None) -> SetSpec:
    """The spec at another level or split; the shares are kept unless a split is given. Raises BadOption, BadLevel."""
    made = replace(spec, alpha=spec.alpha if alpha is None else alpha)
    if split is not None:
        if spec.joint != "split":
            raise BadOption(f"--alpha-split goes with --joint split; this artifact has --joint {spec.joint}")
        inner, outer = parse_split(split, made.alpha)
        targets = tuple(replace(entry, share_inner=inner, share_outer=outer) for entry in spec.targets)
        made = replace(made, targets=targets)
    made.check()
    return made
