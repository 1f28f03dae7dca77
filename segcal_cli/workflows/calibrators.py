"""Calibrators in use: read from an artifact, checked against what they are applied to, put in front of a reader."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Protocol

import numpy as np

from segcal_cli.core.artifact import Artifact
from segcal_cli.core.errors import ArtifactError, count_text
from segcal_cli.core.frozen import dataclass
from segcal_cli.core.labels import LabelSpace
from segcal_cli.core.scores import Scores
from segcal_cli.core.volume import Stored, Values, Volume
from segcal_cli.io.artifacts import read_artifact, require_kept

if TYPE_CHECKING:
    from segcal_cli.calibration.calibrator import Calibrator

CALIBRATED = Stored("float32")
"""How calibrated probabilities stand in memory, whatever the prediction was stored as."""


class DoesNotFit(ArtifactError):
    """An artifact that was fitted on something else."""

    template = "{0} was fitted on {1}, {2} has {3}"


class DamagedCalibrator(ArtifactError):
    """An artifact whose arrays do not make a calibrator."""

    template = "{0} is not a segcal artifact: {1}"


@dataclass(frozen=True, slots=True)
class LoadedCalibrator:
    """A calibrator and the artifact it came from."""

    path: Path
    artifact: Artifact
    calibrator: Calibrator

    @property
    def values_after(self) -> Values:
        return "probabilities"


@dataclass(frozen=True, slots=True)
class CalibratorTransform:
    """Calibrates every volume as it is read."""

    calibrator: Calibrator

    def __call__(self, volume: Volume, space: LabelSpace) -> Volume:
        calibrator, given = self.calibrator.pointwise(volume)
        applied = calibrator.apply(given.array, given.values, given.stored)
        return replace(volume, array=applied.array, values="probabilities", stored=CALIBRATED)


@dataclass(frozen=True, slots=True)
class CalibratedScores:
    """Scores of raw numbers through a calibrator: a source of measures, exact, without rounding to a written type."""

    calibrator: Calibrator
    values: Values
    stored: Stored

    def __call__(self, slab: np.ndarray) -> Scores:
        return self.calibrator.scores(slab, self.values, self.stored)


def load_calibrator(path: Path, command: str) -> LoadedCalibrator:
    """Read a calibrate artifact. Raises NotAnArtifact, NewerArtifact, OtherKind, DamagedCalibrator."""
    return loaded_calibrator(path, read_artifact(path, "calibrate", command))


def loaded_calibrator(path: Path, artifact: Artifact) -> LoadedCalibrator:
    """The calibrator of an artifact that has been read. Raises NotAnArtifact, DamagedCalibrator."""
    # What fits and applies calibrators is imported where there is one.
    from segcal_cli.calibration.result import KeptResults, KeptSpec, calibrator_from

    require_kept(path, artifact.header, KeptSpec, KeptResults)
    try:
        calibrator = calibrator_from(artifact)
    except (KeyError, ValueError, IndexError, TypeError, AttributeError, OverflowError) as error:
        raise DamagedCalibrator(path, f"its arrays are damaged ({error})") from error
    return LoadedCalibrator(path, artifact, calibrator)


class Loaded(Protocol):
    """An artifact of any kind, and the file it came from."""

    @property
    def path(self) -> Path: ...

    @property
    def artifact(self) -> Artifact: ...


def refuse_misfit(
    loaded: Loaded,
    predictions: Path,
    space: LabelSpace,
    values: Values,
    spec: dict[str, object],
) -> None:
    """Raise DoesNotFit unless classes, activation, values, reduction and calibrator are those of the fit.

    spec: how the predictions are read now, as the artifact's own ``spec`` says how they were read then.
    """
    header = loaded.artifact.header
    for then, now in (
        (_classes(header.space), _classes(space)),
        (_activation(header.space), _activation(space)),
        # What is averaged decides what the mean holds, so it is told first.
        (_reduction(header.spec), _reduction(spec)),
        (header.values, values),
        (_calibration(header.spec), _calibration(spec)),
    ):
        if then != now:
            raise DoesNotFit(loaded.path, then, predictions, now)


def _classes(space: LabelSpace) -> str:
    shown = "; ".join(f"{c.name}={','.join(map(str, sorted(c.values)))}" for c in space.channels)
    return f"{count_text(len(space.channels), 'class', 'classes')} ({shown})"


def _activation(space: LabelSpace) -> str:
    return "exclusive classes (softmax)" if space.exclusive else "independent channels (sigmoid)"


def _reduction(spec: dict[str, object]) -> str:
    if not spec.get("reduce"):
        return "one prediction per case"
    members = f"{spec['members']} members" if spec.get("members") else "samples"
    return f"{members} joined by {spec['reduce']}"


def _calibration(spec: dict[str, object]) -> str:
    digest = spec.get("calibrator")
    return f"predictions through the calibrator {str(digest)[:12]}" if digest else "uncalibrated predictions"
