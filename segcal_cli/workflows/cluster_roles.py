"""Roles: which cases make the map and which calibrate on it, so that no patient does both unknowingly."""

from __future__ import annotations

import csv
import io
from collections.abc import Mapping, Sequence
from pathlib import Path

from segcal_cli.core.errors import FormatError, OverlapError
from segcal_cli.core.frozen import dataclass
from segcal_cli.io.case_sources import CaseSource
from segcal_cli.io.inputs import read_text_bytes
from segcal_cli.kandinsky.spec import MapSpec
from segcal_cli.kandinsky.split import map_makers
from segcal_cli.workflows.cluster_artifacts import LoadedCluster
from segcal_cli.workflows.cluster_options import split_of
from segcal_cli.workflows.requests import ClusterFitOptions


class BadSplit(FormatError):
    """A list of map-making cases that cannot be used."""

    template = "{0}: {1}"


class SharedPatients(OverlapError):
    """Patients on both sides of the split."""

    template = (
        "{0:patient makes the map and calibrates|patients make the map and calibrate} on it: {1}; list all cases of a "
        "patient, or --allow-overlap"
    )


@dataclass(frozen=True, slots=True)
class Roles:
    """Cases by what they do. others: case -> patient of the artifact whose map is used. overlap: patients on both
    sides, by permission."""

    makers: tuple[CaseSource, ...]
    calibrators: tuple[CaseSource, ...]
    others: Mapping[str, str]
    overlap: bool = False

    @property
    def map_cases(self) -> dict[str, str]:
        """Case -> patient of everybody who made the map."""
        return {**self.others, **{source.id: source.group for source in self.makers}}


def roles_of(
    sources: Sequence[CaseSource], spec: MapSpec, options: ClusterFitOptions, other: LoadedCluster | None
) -> Roles:
    """Who does what. Raises NotDivisible, BadSplit, SharedPatients, BadOption."""
    everyone = tuple(sources)
    if other is not None:
        makers = dict(other.artifact.header.results["map_cases"])
        shared = {source.group for source in sources if source.id in makers or source.group in set(makers.values())}
        return Roles((), everyone, makers, refuse_shared(shared, options))
    if not spec.learns:
        return Roles((), everyone, {})
    if options.reuse:
        return Roles(everyone, everyone, {})
    fraction = split_of(options.split)
    if fraction is not None:
        groups = map_makers((source.group for source in sources), fraction, spec.seed)
        chosen = {source.id for source in sources if source.group in groups}
    else:
        chosen = _listed(Path(str(options.split)), {source.id for source in sources})
    first = tuple(source for source in sources if source.id in chosen)
    rest = tuple(source for source in sources if source.id not in chosen)
    if not rest:
        raise BadSplit(options.split, "it lists every case; none is left to calibrate")
    shared = {source.group for source in first} & {source.group for source in rest}
    return Roles(first, rest, {}, refuse_shared(shared, options))


def refuse_shared(groups: set[str], options: ClusterFitOptions) -> bool:
    """Raise SharedPatients for patients on both sides, unless allowed. Returns whether there are any."""
    if groups and not options.allow_overlap:
        shown = sorted(groups)
        raise SharedPatients(len(shown), ", ".join(shown[:10]) + (", ..." if len(shown) > 10 else ""))
    return bool(groups)


def _listed(path: Path, known: set[str]) -> set[str]:
    """The column ``case`` of a CSV."""
    try:
        rows = list(csv.DictReader(io.StringIO(read_text_bytes(path).decode("utf-8-sig"))))
    except UnicodeDecodeError:
        raise BadSplit(path, "is not a text file") from None
    if not rows or "case" not in rows[0]:
        raise BadSplit(path, "needs a column called case, and a row per map-making case")
    listed = {str(row["case"]) for row in rows}
    strangers = sorted(listed - known)
    if strangers:
        raise BadSplit(path, f"no such case: {', '.join(strangers[:5])}")
    return listed
