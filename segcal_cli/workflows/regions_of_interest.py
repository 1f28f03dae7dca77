"""Regions of interest at fit and at use.

What an artifact promises, it promises of the voxels that counted in its fit. Under another rule of which voxels count,
its thresholds are those of another population, whatever the method: then it is refused.
"""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path

from segcal_cli.core.artifact import Artifact
from segcal_cli.core.errors import UsageError
from segcal_cli.io.case_sources import CaseSource


class OtherRegion(UsageError):
    """A region of interest at one of fit and use only."""

    template = "{0} was fitted {1} a region of interest: {2}"


def has_region(sources: Iterable[CaseSource]) -> bool:
    """Whether voxels of some case are left out by a mask."""
    return any(source.truth is not None and source.truth.roi is not None for source in sources)


def refuse_other_region(path: Path, artifact: Artifact, sources: Iterable[CaseSource]) -> None:
    """Raise OtherRegion where voxels are left out by a mask now, and were not in the fit, or the reverse."""
    then, now = bool(artifact.header.spec.get("roi")), has_region(sources)
    if then and not now:
        raise OtherRegion(path, "with", "give --roi FOLDER, or --cases with a column roi")
    if now and not then:
        raise OtherRegion(path, "without", "leave --roi, or the column roi of --cases, away")
