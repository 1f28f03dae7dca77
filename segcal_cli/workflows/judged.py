"""Judged artifacts: those that promise something of new cases, held against labels in the pass that measures sources.

A calibrator among the artifacts is a source of probabilities. Every other kind has a promise of its own, made for
predictions as they are or through one calibrator; that calibrator may stand in front of everything, or among the
artifacts of the same run.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import fields
from pathlib import Path
from typing import Any

from segcal_cli.core.artifact import Artifact
from segcal_cli.core.errors import UsageError
from segcal_cli.core.estimator import Estimator
from segcal_cli.core.frozen import dataclass
from segcal_cli.io.artifacts import NotAnArtifact
from segcal_cli.reporting.pictures import Picture
from segcal_cli.workflows.calibrators import CalibratorTransform, LoadedCalibrator, refuse_misfit
from segcal_cli.workflows.inputs import Inputs, reading_spec
from segcal_cli.workflows.kinds import KINDS, Compared, Presented, Reading, module_of
from segcal_cli.workflows.requests import JudgeOptions, PredictionOptions
from segcal_cli.workflows.together import OfFirst

PICTURED: Mapping[str, str] = {
    **dict.fromkeys(
        ("overlay", "score-maps", "false-coverage", "set-sizes", "resplits", "set-scores"), "conformal-sets"
    ),
    **dict.fromkeys(("ntr-intervals", "ntr-widths", "ntr-bias", "ntr-width-error"), "ntr-interval"),
    **dict.fromkeys(("cluster-map", "coverage-diagram", "coverage-violin", "difference-map", "error-map"), "cluster"),
}
"""Plot of ``reliability`` -> the kind of artifact that it is of."""

SETS = "conformal-sets"
"""The kind of artifact whose sets are drawn on scans."""

SETS_AND_CLUSTERS = ("conformal-sets", "cluster")

ASKED_OF: Mapping[str, tuple[str, ...]] = {
    **dict.fromkeys(("alpha", "alphas"), SETS_AND_CLUSTERS),
    **dict.fromkeys(("resplits", "by", "compare", "mondrian"), ("conformal-sets",)),
    **dict.fromkeys(("ratio_tolerance", "alarm_width"), ("ntr-interval",)),
    **dict.fromkeys(("empty", "ce_bins", "block", "min_positives", "atlas"), ("cluster",)),
}
"""Field of JudgeOptions -> the kinds of artifacts that can use it."""

DRAWN_OF: Mapping[str, tuple[str, ...]] = {
    **dict.fromkeys(("max_cases", "alphas", "show_scores"), (SETS,)),
    "cells": ("cluster",),
}
"""Field of ReliabilityOptions -> the kinds of artifacts that can use it."""


class NotJudged(UsageError):
    """A kind that cannot be held against labels."""

    template = "{0} is {1:an} artifact, which cannot be measured"


class OptionWithoutArtifact(UsageError):
    """An option of artifacts that are not there."""

    template = "--{0} is of {1} artifacts, and none is given with --artifact"


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
        options: JudgeOptions,
    ) -> Estimator:
        """What measures it. Raises DoesNotFit, and what its kind raises for inputs that it was not made for."""
        wanted = self.artifact.header.spec.get("calibrator")
        own = None if before is not None else next((c for c in calibrators if c.artifact.digest == wanted), None)
        through = before if own is None else own
        spec = reading_spec(reading, None, None if through is None else through.artifact)
        refuse_misfit(self, predictions, inputs.space, inputs.values, spec)
        kind = module_of(self.artifact.header.kind)
        measuring = kind.measurement(self.path, self.artifact, predictions, inputs, options)
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


def refuse_unasked(options: Any, of: Mapping[str, tuple[str, ...]], judged: Sequence[Judged]) -> None:
    """Raise OptionWithoutArtifact for a field with a value of its own that no artifact can use. options: a record of
    options; of: ASKED_OF or DRAWN_OF."""
    kinds = {one.artifact.header.kind for one in judged}
    default = type(options)()
    for field in fields(options):
        usable = of.get(field.name)
        given = getattr(options, field.name) != getattr(default, field.name)
        if usable is not None and given and kinds.isdisjoint(usable):
            raise OptionWithoutArtifact(field.name.replace("_", "-"), " or ".join(usable))


def file_ends(judged: Judged) -> tuple[str, ...]:
    """Ends of the names of the files that are written for it beside the table."""
    return module_of(judged.artifact.header.kind).FILES


@dataclass(frozen=True, slots=True)
class Verdict:
    """A judged artifact and what measuring it came to. in_sample: it, or its calibrator, was fitted on some of them."""

    judged: Judged
    result: Any
    in_sample: bool

    def present(self, options: JudgeOptions) -> Presented:
        return self.judged.present(self.result, options, in_sample=self.in_sample)


def pictures_of(
    verdicts: Sequence[Verdict], plots: Sequence[str], options: JudgeOptions, cells: Sequence[str] = ()
) -> Iterator[Picture]:
    """Those of the plots that the kinds of the artifacts have, in order. cells: places with lines of their own."""
    for kind in dict.fromkeys(verdict.judged.artifact.header.kind for verdict in verdicts):
        own = [plot for plot in plots if PICTURED.get(plot) == kind]
        those = [verdict for verdict in verdicts if verdict.judged.artifact.header.kind == kind]
        if not own:
            continue
        module = module_of(kind)
        if hasattr(module, "pictures_together"):
            shown = [(v.judged.name, v.judged.path, v.judged.artifact, v.result, v.in_sample) for v in those]
            yield from module.pictures_together(shown, own, options, cells)
            continue
        for verdict in those:
            one = verdict.judged
            yield from module.pictures(
                one.name, one.path, one.artifact, verdict.result, own, options, in_sample=verdict.in_sample
            )


def reading_of(plot: str) -> Reading:
    """How to read a picture of a judged artifact."""
    return module_of(PICTURED[plot]).READING[plot]


def compare(verdicts: Sequence[Verdict], options: JudgeOptions) -> Mapping[str, Compared]:
    """Kind -> the comparison of its artifacts, of the kinds that have one."""
    made = {}
    for kind in dict.fromkeys(verdict.judged.artifact.header.kind for verdict in verdicts):
        module = module_of(kind)
        if hasattr(module, "compare"):
            own = [verdict.judged for verdict in verdicts if verdict.judged.artifact.header.kind == kind]
            results = [verdict.result for verdict in verdicts if verdict.judged.artifact.header.kind == kind]
            named = [(one.name, one.path, one.artifact, found) for one, found in zip(own, results, strict=True)]
            made[kind] = module.compare(named, options)
    return made


def compared_files(judged: Sequence[Judged]) -> list[tuple[str, str]]:
    """(kind, end of the name) of the files that comparisons write."""
    kinds = [one.artifact.header.kind for one in judged]
    return [
        (kind, end)
        for kind in dict.fromkeys(kinds)
        if kinds.count(kind) > 1
        for end in getattr(module_of(kind), "COMPARED_FILES", ())
    ]


def entries(
    presented: Mapping[str, Presented], verdicts: Sequence[Verdict], compared: Mapping[str, Compared]
) -> Mapping[str, list[dict[str, Any]]]:
    """The entries of the document, a list per kind, each with what its kind's comparison says."""
    found: dict[str, list[dict[str, Any]]] = {}
    for verdict in verdicts:
        one, kind = presented[verdict.judged.name], verdict.judged.artifact.header.kind
        extra = compared[kind].extra if kind in compared else {}
        found.setdefault(one.key, []).append({**one.entry, **extra})
    return found
