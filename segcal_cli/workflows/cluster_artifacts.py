"""Cluster artifacts in use: read, made into a model, checked against what they are applied to."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Literal, TypedDict

from segcal_cli.core.annotations import Count
from segcal_cli.core.artifact import Artifact, Header
from segcal_cli.core.errors import ArtifactError, SegcalError, UsageError
from segcal_cli.core.frozen import dataclass
from segcal_cli.core.labels import LabelSpace
from segcal_cli.io.artifacts import read_artifact, require_kept
from segcal_cli.io.case_sources import CaseSource
from segcal_cli.io.geometry import Space, check_distances
from segcal_cli.kandinsky.frames import Frame
from segcal_cli.kandinsky.model import Model, ModelDocument, from_arrays
from segcal_cli.kandinsky.pools import Weighting
from segcal_cli.kandinsky.text import Circumstances

KIND = "cluster"

BY_LENGTH = frozenset({"mm", "object"})
"""Coordinates that are lengths: a scan without spacing cannot have them."""


class DamagedModel(ArtifactError):
    """An artifact whose header or arrays do not make a model."""

    template = "{0} is not a segcal artifact: {1}"


class OtherDimension(ArtifactError):
    """A map of images on volumes, or the reverse."""

    template = "{0} was fitted on {1}-D scans, {2} is {3}-D"


class OtherLengths(ArtifactError):
    """A map in mm on a scan without spacing, or the reverse."""

    template = "{0} measures in {1}, and {2} has {3}"


class BadAlpha(UsageError):
    """A level, or the class that it is for, that cannot be."""

    template = "--alpha {0} is not allowed; {1}"


class KeptSpec(TypedDict):
    """What of a header's spec is looked at again; the rest of it says how the map was found."""

    weighting: Weighting
    alpha: float
    map: str | None


class KeptResults(TypedDict):
    """map_cases: case -> patient. unit: of lengths."""

    model: ModelDocument
    map_cases: dict[str, str]
    calibration_cases: list[str]
    n_map_groups: Count
    n_calibration_groups: Count
    reuse: bool
    overlap: bool
    grouped: bool
    dimension: Literal[2, 3]
    unit: Literal["mm", "voxels"]
    atlas: Literal["file", "folder"] | None


@dataclass(frozen=True, slots=True)
class LoadedCluster:
    """A cluster artifact, ready for use."""

    path: Path
    artifact: Artifact
    model: Model

    @property
    def alpha(self) -> float:
        """The level that the fit stored."""
        return float(self.artifact.header.spec["alpha"])

    @property
    def circumstances(self) -> Circumstances:
        """What decides whether anything is promised."""
        results, spec, n_cases = self.artifact.header.results, self.artifact.header.spec, self.artifact.header.n_cases
        # Cases that made another artifact's map were no input of this fit.
        others = len(set(results["map_cases"]) - set(results["calibration_cases"])) if spec["map"] else 0
        return Circumstances(
            results["n_calibration_groups"],
            results["reuse"],
            results["overlap"],
            results["grouped"],
            len(self.artifact.header.dropped),
            n_cases - others + len(self.artifact.header.dropped),
            seen_before=bool(spec.get("overlap_allowed")),
            roi=bool(spec.get("roi")),
            ignored=spec.get("ignore_label") is not None,
        )

    def judged(self, *, in_sample: bool) -> Circumstances:
        """The same where it is judged. in_sample: on cases of the fit."""
        return replace(self.circumstances, in_sample=in_sample)


def load_cluster(path: Path, command: str) -> LoadedCluster:
    """Read a cluster artifact. Raises NotAnArtifact, NewerArtifact, OtherKind, DamagedModel."""
    return loaded_cluster(path, read_artifact(path, KIND, command))


def loaded_cluster(path: Path, artifact: Artifact) -> LoadedCluster:
    """The model of an artifact that has been read. Raises NotAnArtifact, DamagedModel."""
    header = artifact.header
    require_kept(path, header, KeptSpec, KeptResults)
    try:
        model = from_arrays(
            header.space, header.method, header.spec["weighting"], header.results["model"], artifact.arrays  # type: ignore[arg-type]
        )  # fmt: skip
        loaded = LoadedCluster(path, artifact, model)
        if not 0 < loaded.alpha < 1:
            raise ValueError("alpha")
        _require_roles(header)
    except (KeyError, ValueError, TypeError, IndexError, AttributeError, SegcalError) as error:
        raise DamagedModel(path, f"its model is damaged ({type(error).__name__}: {error})") from error
    return loaded


def _require_roles(header: Header) -> None:
    """Raise ValueError unless those that calibrated are cases of the fit."""
    if not set(header.results["calibration_cases"]) <= set(header.case_ids):
        raise ValueError("calibration cases that were not fitted on")


def place_of(source: CaseSource) -> Space:
    """Where a case lies: by its prediction, or by its label where a bare array says nothing."""
    return source.prediction.place if source.truth is None else source.truth.place


def frames_of(sources: Iterable[CaseSource]) -> list[Frame]:
    return [Frame.of(place_of(source).grid) for source in sources]


def refuse_other_scans(loaded: LoadedCluster, sources: Sequence[CaseSource]) -> None:
    """Raise OtherDimension, OtherLengths, ShearedAxes for scans that the map cannot be brought to."""
    results = loaded.artifact.header.results
    for source in sources:
        place = place_of(source)
        frame = Frame.of(place.grid)
        if frame.dimension != results["dimension"]:
            raise OtherDimension(loaded.path, results["dimension"], place.name, frame.dimension)
        if measures_lengths(loaded.model):
            if frame.has_mm != (results["unit"] == "mm"):
                here = "spacings in mm" if frame.has_mm else "no spacing"
                raise OtherLengths(loaded.path, results["unit"], place.name, here)
            check_distances(place)


def measures_lengths(model: Model) -> bool:
    """Whether clusters depend on lengths within the scan."""
    placing = model.regions.placing
    return model.regions.method == "boundary" or (placing is not None and placing.coords in BY_LENGTH)


def alphas_of(texts: Sequence[str], stored: float, space: LabelSpace) -> tuple[float, dict[int, float]]:
    """The level of all classes and those of single ones, from ``A`` and ``CLASS=A``. Raises BadAlpha."""
    level, own = stored, {}
    for text in texts:
        name, mark, number = text.rpartition("=")
        try:
            alpha = float(number)
        except ValueError:
            raise BadAlpha(text, "give A or CLASS=A, A between 0 and 1") from None
        if not 0 < alpha < 1:
            raise BadAlpha(text, "it must lie strictly between 0 and 1")
        if not mark:
            level = alpha
        elif name in space.names:
            own[space.names.index(name)] = alpha
        else:
            raise BadAlpha(text, f"no class is called {name}; there are {', '.join(space.names)}")
    return level, own
