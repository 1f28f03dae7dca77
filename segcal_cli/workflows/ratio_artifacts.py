"""Ratio artifacts in use: read, made into a table of calibration cases, checked against what they are applied to."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterable
from pathlib import Path
from typing import Annotated, Any, Literal, NotRequired, TypedDict

from segcal_cli.core.annotations import Count, NotEmpty
from segcal_cli.core.artifact import Artifact
from segcal_cli.core.errors import ArtifactError, InputError, SegcalError
from segcal_cli.core.frozen import dataclass
from segcal_cli.io.artifacts import read_artifact, require_kept
from segcal_cli.io.case_sources import CaseSource
from segcal_cli.metrics.cells import MIN_UNIFORM_BINS
from segcal_cli.ratio.guarantees import Circumstances, guarantee, guaranteed
from segcal_cli.ratio.regions import Ratio, region_of_values
from segcal_cli.ratio.settings import BadSetting, Settings
from segcal_cli.ratio.table import KERNEL, RatioTable, from_artifact
from segcal_cli.ratio.thresholds import Calibration
from segcal_cli.workflows.requests import RatioOptions
from segcal_cli.workflows.tracing import dropping_clause

KIND = "ntr-interval"

NAMES = {"estimation_tail": "tail", "min_denominator_ml": "minimum"}
"""Options whose name differs from that of the setting."""


INSIDE_ROI = " All of this inside the region of interest."

CARE_OPTIONS = ("calibration_error", "ce_unit")
"""Options that no other method than care and care-guaranteed looks at."""

MARKOV_OPTIONS = ("split", "delta1", "estimation_tail")
"""Options of the bound that care alone has."""


class DamagedTable(ArtifactError):
    """An artifact whose header or arrays do not make a table of cases."""

    template = "{0} is not a segcal artifact: {1}"


class OtherUnit(ArtifactError):
    """Volumes in ml and volumes in voxels cannot be compared."""

    template = "{0} was fitted on {1}, {2} has {3}"


class MixedUnits(InputError):
    """Cases with and without a place in space in one run."""

    template = "{0}: has {1}, the other cases {2}; volumes need one unit"


class NoKernelErrors(ArtifactError):
    """The kernel calibration error was not kept."""

    template = "{0} holds no kernel calibration errors; fit again with --calibration-error kde"


def bin_number(value: int) -> bool:
    return 1 <= value <= MIN_UNIFORM_BINS


class RegionDocument(TypedDict):
    values: NotEmpty[int]


class KeptSpec(TypedDict):
    """What of a header's spec is looked at again."""

    numerator: RegionDocument
    denominator: RegionDocument
    bins: Annotated[int, bin_number]
    volume_unit: Literal["ml", "voxel"]
    settings: dict[str, Any]


class KeptResults(TypedDict):
    """What of a fit's numbers is shown, or decides what is promised."""

    n_patients: Count
    n_ratio_scores: Count
    n_without_denominator: Count
    n_small_denominator: Count
    unannotated: NotRequired[float]


@dataclass(frozen=True, slots=True)
class LoadedRatio:
    """A ratio artifact, ready for use. unit: "ml" or "voxel"."""

    path: Path
    artifact: Artifact
    table: RatioTable
    ratio: Ratio
    settings: Settings
    unit: str

    def calibration(self, settings: Settings) -> Calibration:
        """Raises NoKernelErrors."""
        if settings.care and settings.score == "kde" and KERNEL[0] not in self.table:
            raise NoKernelErrors(self.path)
        return Calibration.of(self.table, settings, self.unit)

    @property
    def counts_some(self) -> bool:
        """Whether some voxels of the fit did not count: outside a region of interest, or without annotation."""
        header = self.artifact.header
        return bool(header.spec.get("roi")) or float(header.results.get("unannotated", 0.0)) > 0

    def circumstances(self, *, in_sample: bool = False) -> Circumstances:
        """What became of its cases. in_sample: it is judged on some that it, or the calibrator, had seen."""
        header = self.artifact.header
        return Circumstances(
            unannotated=float(header.results.get("unannotated", 0.0)),
            overlapped=bool(header.spec.get("overlap_allowed")),
            in_sample=in_sample,
        )

    def promise(self, calibration: Calibration, *, in_sample: bool = False) -> str:
        """The guarantee under the settings of the calibration."""
        header = self.artifact.header
        circumstances = self.circumstances(in_sample=in_sample)
        failed, roi = len(header.dropped), bool(header.spec.get("roi"))
        return promised(calibration, self.ratio, self.unit, circumstances, failed, header.n_cases, roi=roi)


def load_ratio(path: Path, command: str) -> LoadedRatio:
    """Read a ratio artifact. Raises NotAnArtifact, NewerArtifact, OtherKind, DamagedTable."""
    return loaded_ratio(path, read_artifact(path, KIND, command))


def loaded_ratio(path: Path, artifact: Artifact) -> LoadedRatio:
    """The table and the ratio of an artifact that has been read. Raises NotAnArtifact, DamagedTable."""
    spec = artifact.header.spec
    require_kept(path, artifact.header, KeptSpec, KeptResults)
    try:
        regions = [
            region_of_values(frozenset(spec[name]["values"]), artifact.header.space, f"--{name}")
            for name in ("numerator", "denominator")
        ]
        settings = Settings.from_json(spec["settings"])
        ratio = Ratio(*regions)
        settings.check(contained=ratio.contained)
        return LoadedRatio(path, artifact, from_artifact(artifact), ratio, settings, spec["volume_unit"])
    except (KeyError, ValueError, TypeError, IndexError, AttributeError, OverflowError, SegcalError) as error:
        raise DamagedTable(path, f"its table of cases is damaged ({error})") from error


def promised(
    calibration: Calibration,
    ratio: Ratio,
    unit: str,
    circumstances: Circumstances,
    failed: int,
    done: int,
    *,
    roi: bool,
) -> str:
    """The guarantee, of which voxels, and under which condition where cases of the fit were left out."""
    text = guarantee(calibration, ratio, unit, circumstances)
    holds = guaranteed(calibration, circumstances) or text.startswith("Approximate")
    if not holds:
        return text
    return text + (INSIDE_ROI if roi else "") + dropping_clause(failed, done)


def settings_of(options: RatioOptions, stored: Settings) -> Settings:
    """The stored settings under the options given. What only the stored method, or the stored split, can have goes with
    it."""
    given = {NAMES.get(name, name): value for name, value in dataclasses.asdict(options).items()}
    if given["split"] == "grid" and given["delta1"] is None:
        stored = dataclasses.replace(stored, delta1=None)
    if given["method"] is not None:
        stored = stored.of_method(given["method"])
    return stored.changed(given)


def refuse_unused(options: RatioOptions, settings: Settings) -> None:
    """Raise BadSetting for an option that was given now, and that the method does not look at."""
    given = {name for name, value in dataclasses.asdict(options).items() if value is not None}
    for names, methods in ((CARE_OPTIONS, ("care", "care-guaranteed")), (MARKOV_OPTIONS, ("care",))):
        for name in (name for name in names if name in given and settings.method not in methods):
            option = f"--{name.replace('_', '-')}"
            raise BadSetting(f"{option} is for --method {' and '.join(methods)} only, not {settings.method}")


def volume_unit(sources: Iterable[CaseSource]) -> str:
    """ "ml" where cases have a place in space, "voxel" where none has. Raises MixedUnits."""
    unit = ""
    words = {"ml": "a place in space", "voxel": "none"}
    for source in sources:
        place = source.prediction.place if source.truth is None else source.truth.place
        own = "voxel" if place.grid.affine is None else "ml"
        if unit and own != unit:
            raise MixedUnits(source.prediction.parts[0].first.path, words[own], words[unit])
        unit = own
    return unit


def refuse_other_unit(loaded: LoadedRatio, predictions: Path, unit: str) -> None:
    """Raises OtherUnit."""
    words = {"ml": "scans with a place in space (ml)", "voxel": "images without one (voxels)"}
    if unit != loaded.unit:
        raise OtherUnit(loaded.path, words[loaded.unit], predictions, words[unit])
