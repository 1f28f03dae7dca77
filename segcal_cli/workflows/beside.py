"""Beside predictions: features and scans that a calibrator needs, checked before anything is read."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

from segcal_cli.core.errors import SegcalError, UsageError
from segcal_cli.io.case_sources import CaseSource
from segcal_cli.io.companions import Companions
from segcal_cli.io.folders import ImageFolder, expand_folders
from segcal_cli.io.problems import raise_all
from segcal_cli.workflows.requests import CompanionOptions, DeviceOptions, PredictionOptions

if TYPE_CHECKING:
    from segcal_cli.workflows.calibrators import LoadedCalibrator

ALONE = CompanionOptions()
"""Predictions and nothing else."""

ANYWHERE = DeviceOptions()
"""A GPU where there is one."""


class NotLookedAt(UsageError):
    """Features or scans that nothing looks at."""

    template = "--{0} is for {1}, and there is none here"


class OneModelOnly(UsageError):
    """Features beside a prediction that is not that of one model."""

    template = "--features are those of one model: they do not go with {0}"


USES = {"features": "--method fine-tune", "images": "--method local fitted with them"}
"""What looks at companions."""


def companions_of(
    options: CompanionOptions, reading: PredictionOptions, *, features: bool, images: bool, some: bool = False
) -> Companions | None:
    """Where companions lie, None if there are none. features, images: whether anything looks at them.

    Raises NotLookedAt, OneModelOnly, NoSuchInput.
    """
    for name, used in (("features", features), ("images", images)):
        given = getattr(options, name)
        if given is not None:
            if not used:
                raise NotLookedAt(name, USES[name])
            expand_folders(given)
    if options.features is not None and reading.member:
        raise OneModelOnly("--member")
    if options.features is None and options.images is None:
        return None
    images_in = None if options.images is None else ImageFolder(options.images)
    return Companions(options.features, images_in, some)


def require_companions(companions: Companions | None, sources: Sequence[CaseSource]) -> None:
    """Raise what is missing, of all cases together."""
    if companions is None:
        return
    problems: list[SegcalError] = []
    for source in sources:
        error = companions.missing(source.id)
        if error is not None:
            error.case = source.id
            problems.append(error)
    raise_all(problems)


def folders_of(options: CompanionOptions) -> list[Path]:
    """Folders that are read, and must not be written to."""
    return [path for path in (options.features, options.images) if path is not None]


def needs_of(calibrators: Iterable[LoadedCalibrator]) -> dict[str, bool]:
    """Whether any of the calibrators looks at features, and at scans. Raises FeaturesNeeded, ImageNeeded later."""
    loaded = [one.calibrator for one in calibrators]
    return {
        "features": any(one.record.beside == "features" for one in loaded),
        "images": any(one.network is not None and one.network.image for one in loaded),
    }


def on(loaded: LoadedCalibrator, device: str) -> LoadedCalibrator:
    """The calibrator on a device."""
    return replace(loaded, calibrator=replace(loaded.calibrator, device=device))  # type: ignore[arg-type]
