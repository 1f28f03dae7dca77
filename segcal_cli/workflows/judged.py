"""Judged artifacts: those that promise something of new cases, held against labels in the pass that measures sources.

A calibrator among the artifacts is a source of probabilities. Every other kind has a promise of its own, made for
predictions as they are or through one calibrator; that calibrator may stand in front of everything, or among the
artifacts of the same run.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from segcal_cli.core.artifact import Artifact
from segcal_cli.core.errors import UsageError
from segcal_cli.core.estimator import Estimator
from segcal_cli.io.artifacts import NotAnArtifact
from segcal_cli.workflows.calibrators import CalibratorTransform, LoadedCalibrator, refuse_misfit
from segcal_cli.workflows.inputs import Inputs, reading_spec
from segcal_cli.workflows.kinds import KINDS, Presented, module_of
from segcal_cli.workflows.requests import JudgeOptions, PredictionOptions
from segcal_cli.workflows.together import OfFirst


class NotJudged(UsageError):
    """A kind that cannot be held against labels."""

    template = "{0} is a {1} artifact, which cannot be measured"


@dataclass(frozen=True, slots=True)
class Judged:
    """An artifact of the command line: its name in tables, and its file."""

    name: str
    path: Path
    artifact: Artifact

    def estimator(
        self,
        predictions: Path,
        inputs: Inputs,
        reading: PredictionOptions,
        before: LoadedCalibrator | None,
        calibrators: Sequence[LoadedCalibrator],
    ) -> Estimator:
        """What measures it. Raises DoesNotFit, and what its kind raises for inputs that it was not made for."""
        wanted = self.artifact.header.spec.get("calibrator")
        own = None if before is not None else next((c for c in calibrators if c.artifact.digest == wanted), None)
        through = before if own is None else own
        spec = reading_spec(reading, None, None if through is None else through.artifact)
        refuse_misfit(self, predictions, inputs.space, inputs.values, spec)
        measuring = module_of(self.artifact.header.kind).measurement(self.path, self.artifact, predictions, inputs)
        return OfFirst(measuring, None if own is None else CalibratorTransform(own.calibrator))

    def present(self, result: Any, options: JudgeOptions, *, in_sample: bool) -> Presented:
        """What ``evaluate`` says of it."""
        kind = module_of(self.artifact.header.kind)
        return kind.present(self.name, self.path, self.artifact, result, options, in_sample=in_sample)


def judged_artifact(name: str, path: Path, artifact: Artifact) -> Judged:
    """Raises NotAnArtifact, NotJudged."""
    kind = artifact.header.kind
    if kind not in KINDS:
        raise NotAnArtifact(path, f"kind {kind} is not known to this version")
    if not hasattr(module_of(kind), "measurement"):
        raise NotJudged(path, kind)
    return Judged(name, path, artifact)


def file_ends(judged: Judged) -> tuple[str, ...]:
    """Ends of the names of the files that are written for it beside the table."""
    return module_of(judged.artifact.header.kind).FILES


@dataclass(frozen=True, slots=True)
class Verdict:
    """A judged artifact and what measuring it came to. in_sample: it was fitted on some of these cases."""

    judged: Judged
    result: Any
    in_sample: bool

    def present(self, options: JudgeOptions) -> Presented:
        return self.judged.present(self.result, options, in_sample=self.in_sample)


def entries(presented: Sequence[Presented]) -> Mapping[str, list[dict[str, Any]]]:
    """The entries of the document, a list per kind."""
    found: dict[str, list[dict[str, Any]]] = {}
    for one in presented:
        found.setdefault(one.key, []).append(one.entry)
    return found
