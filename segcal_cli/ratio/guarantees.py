"""Guarantees: what may be said about an interval, in one sentence, and why nothing may be said where that is so.

A conformal threshold promises something of new cases that are exchangeable with the calibration cases. What breaks
that (a calibrator or an artifact that had seen them, voxels that nobody annotated) takes the promise away from every
method at every level, in the sentence as in the column ``guaranteed``.
"""

from __future__ import annotations

import math
from decimal import Decimal

from segcal_cli.core.errors import count_text
from segcal_cli.core.frozen import dataclass
from segcal_cli.ratio.regions import Ratio
from segcal_cli.ratio.settings import MM3_PER_ML, Settings
from segcal_cli.ratio.thresholds import Calibration

VOLUMES = "Each volume interval alone holds in at least {level} of {whom}."

WHY_NONE = {
    "plain": "a linearly interpolated quantile covers less than its level in small calibration sets",
    "mean": "a mean calibration error is no quantile",
    "kde": "the kernel calibration error lies below the volume bias in about half of the images",
}

OVERLAPPED = "some calibration cases had been used to fit the calibrator (--allow-overlap)"
IN_SAMPLE = "some of these cases were used to fit the artifact or the calibrator (--allow-overlap)"


@dataclass(frozen=True, slots=True)
class Circumstances:
    """What happened to the calibration cases, or to those that are judged.

    unannotated: share of the calibration cases' voxels without annotation. overlapped: the calibrator had seen some
    calibration cases. in_sample: the artifact, or the calibrator, had seen some of the cases that are judged.
    """

    unannotated: float = 0.0
    overlapped: bool = False
    in_sample: bool = False

    @property
    def broken(self) -> str:
        """Why no method at all is guaranteed, or ""."""
        if self.in_sample:
            return IN_SAMPLE
        if self.overlapped:
            return OVERLAPPED
        return f"{100 * self.unannotated:.3g} % of the voxels had no annotation" if self.unannotated > 0 else ""


UNDISTURBED = Circumstances()
"""Nothing took the promise away."""


def guaranteed(calibration: Calibration, circumstances: Circumstances) -> bool:
    """Whether the intervals of the ratio hold what their level says."""
    return not circumstances.broken and calibration.settings.guaranteed and calibration.n > 0


def guarantee(
    calibration: Calibration, ratio: Ratio, volume_unit: str, circumstances: Circumstances = UNDISTURBED
) -> str:
    """The sentence, with its numbers."""
    settings = calibration.settings
    if circumstances.broken:
        # The words about annotation are as documented, in lower case.
        head = "no guarantee" if not (circumstances.in_sample or circumstances.overlapped) else "No guarantee"
        return f"{head}: {circumstances.broken}" + ("" if head == "no guarantee" else ".")
    why = _why_none(settings)
    if why:
        return f"No guarantee: {WHY_NONE[why]}."
    promise = _promise(calibration, ratio, volume_unit)
    if settings.weighted and calibration.n:
        return f"Approximate: {promise} Rests on estimated weights."
    if settings.method != "joint":
        whom = "new scans, one per patient" if settings.unit == "hcp" else "new patients"
        promise += f" {VOLUMES.format(level=percent(settings.level), whom=whom)}"
    return promise


def percent(share: float) -> str:
    """A share in words, with the digits that it was given with: 90 %, 97.5 %, 99.99999 %."""
    return f"{(Decimal(repr(float(share))) * 100).normalize():f} %"


def rounded_down(share: float, digits: int = 4) -> float:
    """A share that is reached, not rounded up: 0.99996 is not 1."""
    return math.floor(share * 10**digits) / 10**digits


def average_coverage(rank: int, n: int) -> str:
    """rank / (n + 1) to four digits, to more where these would say 1."""
    share = rank / (n + 1)
    return next(text for digits in range(4, 18) if float(text := f"{share:.{digits}g}") < 1.0)


def minimum_text(settings: Settings, volume_unit: str) -> str:
    """The least denominator in words."""
    minimum = settings.minimum_volume(volume_unit)
    return (
        f"{minimum:g} {'voxel' if minimum == 1 else 'voxels'}"
        if volume_unit == "voxel"
        else f"{minimum / MM3_PER_ML:g} ml"
    )


def none_scored_text(calibration: Calibration, ratio: Ratio, volume_unit: str) -> str:
    """That no calibration case has a ratio under these settings."""
    names = " + ".join(ratio.denominator.names)
    least = minimum_text(calibration.settings, volume_unit)
    return f"no calibration case that holds {names} is predicted to hold at least {least} of it"


def _why_none(settings: Settings) -> str:
    if settings.quantile != "conformal":
        return settings.quantile
    return "kde" if settings.care and settings.score == "kde" else ""


def _promise(calibration: Calibration, ratio: Ratio, volume_unit: str) -> str:
    settings, n = calibration.settings, calibration.n
    if n == 0:
        return (
            f"No guarantee: {none_scored_text(calibration, ratio, volume_unit)}, so every interval of the ratio is "
            f"{ratio.bounds}."
        )
    level = percent(settings.level)
    names = " + ".join(ratio.denominator.names)
    hcp = settings.unit == "hcp"
    whom = "new scans, one per patient," if hcp else "new patients"
    which = "the interval of a scan" if hcp else "the interval of every scan"
    held = (
        "the labelled ratio and both labelled volumes at once" if settings.method == "joint" else "the labelled ratio"
    )
    patients = count_text(n, "calibration patient")
    text = (
        f"In at least {level} of {whom} from the population of the {patients}, {which} in which {names} is present and "
        f"predicted to be at least {minimum_text(settings, volume_unit)} holds {held}"
    )
    if calibration.infinite:
        return f"{text} (no finite interval: {count_text(calibration.n_needed, 'patient')} would do)."
    rank = calibration.rank
    if settings.care or rank is None:
        return f"{text}."
    return f"{text} (rank {rank} of {n}: {average_coverage(rank, n)} on average over calibration sets)."
