"""Guarantees: what may be said about an interval, in one sentence, and why nothing may be said where that is so."""

from __future__ import annotations

from segcal_cli.ratio.regions import Ratio
from segcal_cli.ratio.settings import MM3_PER_ML, Settings
from segcal_cli.ratio.thresholds import Calibration

VOLUMES = "Each volume interval alone holds in at least {level} of {whom}."

WHY_NONE = {
    "plain": "a linearly interpolated quantile covers less than its level in small calibration sets",
    "mean": "a mean calibration error is no quantile",
    "kde": "the kernel calibration error lies below the volume bias in about half of the images",
}


def guarantee(
    calibration: Calibration, ratio: Ratio, volume_unit: str, unannotated: float = 0.0, *, overlapped: bool = False
) -> str:
    """The sentence, with its numbers. unannotated: share of voxels without annotation among the calibration cases.

    overlapped: the calibrator had seen some of them, so that their scores are not those of new cases.
    """
    settings = calibration.settings
    if overlapped:
        return "No guarantee: some of the cases had been used to fit the calibrator."
    if unannotated > 0:
        return f"no guarantee: {100 * unannotated:.3g} % of the voxels had no annotation"
    why = _why_none(settings)
    if why:
        return f"No guarantee: {WHY_NONE[why]}."
    promise = _promise(calibration, ratio, volume_unit)
    if settings.weighted:
        return f"Approximate: {promise} Rests on estimated weights."
    if settings.method == "joint":
        return promise
    whom = "new scans, one per patient" if settings.unit == "hcp" else "new patients"
    return f"{promise} {VOLUMES.format(level=percent(settings.level), whom=whom)}"


def percent(level: float) -> str:
    """A level in words: 90 %, 97.5 %."""
    return f"{100 * level:.6g} %"


def minimum_text(settings: Settings, volume_unit: str) -> str:
    """The least denominator in words."""
    minimum = settings.minimum_volume(volume_unit)
    return f"{minimum:g} voxels" if volume_unit == "voxel" else f"{minimum / MM3_PER_ML:g} ml"


def _why_none(settings: Settings) -> str:
    if settings.quantile != "conformal":
        return settings.quantile
    return "kde" if settings.care and settings.score == "kde" else ""


def _promise(calibration: Calibration, ratio: Ratio, volume_unit: str) -> str:
    settings, n = calibration.settings, calibration.n
    level = percent(settings.level)
    names = " + ".join(ratio.denominator.names)
    hcp = settings.unit == "hcp"
    whom = "new scans, one per patient," if hcp else "new patients"
    which = "the interval of a scan" if hcp else "the interval of every scan"
    held = (
        "the labelled ratio and both labelled volumes at once" if settings.method == "joint" else "the labelled ratio"
    )
    text = (
        f"In at least {level} of {whom} from the population of the {n} calibration patients, {which} in which {names} "
        f"is present and predicted to be at least {minimum_text(settings, volume_unit)} holds {held}"
    )
    rank = calibration.rank
    if settings.care or rank is None:
        return f"{text}."
    if rank > n:
        return f"{text} (no finite interval: {calibration.n_needed} patients would do)."
    return f"{text} (rank {rank} of {n}: {rank / (n + 1):.4g} on average over calibration sets)."
