"""``inspect``: what an artifact is, what it was fitted on, and what it guarantees."""

from __future__ import annotations

from dataclasses import asdict
from pathlib import Path
from typing import Any

from segcal_cli.core.artifact import Artifact
from segcal_cli.core.errors import UsageError, count_text, with_article
from segcal_cli.core.observer import Observer
from segcal_cli.io.artifacts import NotAnArtifact, UnmergedPart, read_artifact
from segcal_cli.io.parts import ROUND, read_part
from segcal_cli.workflows.kinds import KINDS, SAVED, Description, module_of
from segcal_cli.workflows.outcome import Counts, Outcome
from segcal_cli.workflows.requests import InspectOptions

DAMAGE = (KeyError, ValueError, IndexError, TypeError, AttributeError, OverflowError, ZeroDivisionError)
"""What results in a header or arrays raise where they are shown, and are not what their kind writes."""


class NoLevels(UsageError):
    """Levels of an artifact without any."""

    template = "--alpha: {0} is {1:an}, which has no alpha"


class BadAlpha(UsageError):
    """A level that is no number."""

    template = "--alpha {0}: a number between 0 and 1 is expected"


def run(path: Path, asking: InspectOptions, verbose: bool, observer: Observer) -> Outcome:
    """Describe an artifact, as text and as a document. verbose: with every detail that it holds.

    Raises the errors of reading one, NoLevels, BadAlpha.
    """
    alphas = []
    for text in asking.alpha:
        try:
            alphas.append(float(text))
        except ValueError:
            raise BadAlpha(text) from None
    try:
        artifact = read_artifact(path)
    except UnmergedPart:
        if alphas:
            raise NoLevels(path, "part") from None
        return part_description(path)
    try:
        described = _described(path, artifact, alphas, verbose)
    except DAMAGE as error:
        raise NotAnArtifact(path, f"its contents are damaged ({type(error).__name__}: {error})") from error
    lines = [path.name, *header_lines(artifact), *described.lines]
    n = artifact.header.n_cases
    return Outcome(
        {**header_document(artifact), **described.document},
        Counts(n, n),
        data="\n".join(lines) + "\n",
        closing=f"{path.name} is {with_article(artifact.header.kind)} artifact",
    )


def _described(path: Path, artifact: Artifact, alphas: list[float], verbose: bool) -> Description:
    """What its kind says of it; of saved counts the header says all."""
    if artifact.header.kind == SAVED and not alphas:
        return Description()
    if artifact.header.kind not in (*KINDS, SAVED):
        raise NotAnArtifact(path, f"kind {artifact.header.kind} is not known to this version")
    if artifact.header.kind == SAVED:
        raise NoLevels(path, f"{SAVED} artifact")
    kind = module_of(artifact.header.kind)
    if hasattr(kind, "describe_at"):
        return kind.describe_at(path, artifact, alphas, verbose=verbose)
    if alphas:
        raise NoLevels(path, f"{artifact.header.kind} artifact")
    return kind.describe(path, artifact)


def part_description(path: Path) -> Outcome:
    """What a part, or a state between two rounds, belongs to. Raises NotAPart, OtherVersion."""
    part = read_part(path)
    header = part.header
    between = header.kind == ROUND
    place = (
        f"the state that round {header.number} begins with, in {count_text(header.shards, 'shard')}"
        if between
        else f"part {header.shard} of {header.shards}, round {header.number}"
    )
    after = (
        f"run each of the {header.shards} shards again with --resume {path.name}"
        if between
        else "segcal merge joins the parts of all shards"
    )
    n = len(header.cases)
    lines = [path.name, f"part of     {header.command}: {place}", f"next        {after}"]
    if not between:
        lines.append(f"cases       {n}: {', '.join(header.cases)}" if n else "cases       none")
    document = {"sha256": part.digest, **asdict(header), "cases": list(header.cases)}
    return Outcome(document, Counts(n, n), data="\n".join([*lines, f"sha256      {part.digest}"]) + "\n")


def header_document(artifact: Artifact) -> dict[str, Any]:
    """Everything in the header, with the file's digest and the shapes of its arrays."""
    header = artifact.header
    return {
        "sha256": artifact.digest,
        "kind": header.kind,
        "method": header.method,
        "format_version": header.format_version,
        "fitted_with": header.segcal_version,
        "space": header.space.to_json(),
        "values": header.values,
        "spec": header.spec,
        "n_cases": header.n_cases,
        "n_groups": header.n_groups,
        "case_ids": header.case_ids,
        "group_ids": header.group_ids,
        "fit_input_digest": header.fit_input_digest,
        "seed": header.seed,
        "guarantee": header.guarantee,
        "dropped": header.dropped,
        "results": header.results,
        "arrays": {name: list(array.shape) for name, array in artifact.arrays.items()},
    }


def header_lines(artifact: Artifact) -> list[str]:
    """The header in words, one fact a line; the same for every kind."""
    header = artifact.header
    classes = ", ".join(f"{c.name} ({'/'.join(map(str, sorted(c.values)))})" for c in header.space.channels)
    on = f"{count_text(header.n_cases, 'case')} of {count_text(header.n_groups, 'patient')}"
    lines = [
        f"kind        {header.kind}, method {header.method}",
        f"fitted on   {on}, {header.values}",
        f"fitted by   segcal {header.segcal_version}",
        f"classes     {classes}; {'exclusive' if header.space.exclusive else 'independent'}",
        f"guarantee   {header.guarantee}",
        f"sha256      {artifact.digest}",
    ]
    if header.spec.get("source") == "cross-validation":
        lines.append("source      models of single folds, which are not the deployed ensemble")
    if header.spec.get("prove") is False:
        lines.append("proof       predictions were not checked against the segmentations beside them (--no-prove)")
    if header.spec.get("calibrator"):
        lines.append(f"on top of   the calibrator {str(header.spec['calibrator'])[:12]}")
    if header.spec.get("overlap_allowed"):
        lines.append("overlap     some cases had been used to fit that calibrator (--allow-overlap)")
    if header.dropped:
        lines.append(f"left out    {', '.join(entry['case'] for entry in header.dropped)}")
    return lines
