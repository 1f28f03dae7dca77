"""Conventions: which options decide what a measure is, and what published work chose.

Barfoot et al. 2024 and Rousseau et al. 2021 measure segmentations, each by rules of its own; ``classification`` is what
papers on image classifiers do. An option that was given beats the convention, the convention beats the default.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import fields
from typing import Any

from segcal_cli.core.errors import UsageError
from segcal_cli.core.frozen import dataclass
from segcal_cli.core.labels import LabelSpace
from segcal_cli.metrics.intervals import BadInterval, tails
from segcal_cli.metrics.measures import Settings
from segcal_cli.metrics.selection import select_metrics
from segcal_cli.workflows.requests import IntervalOptions, MeasureOptions

CONVENTIONS: Mapping[str, Mapping[str, Any]] = {
    "barfoot": {
        "bins": 20,
        "closed": "right",
        "empty_bins": "skip",
        "background": "exclude",
        "absent": "include",
        "decision": "threshold",
        "empty_dice": "null",
    },
    "rousseau": {"bins": 20, "closed": "left", "empty_dice": "one"},
    "classification": {"bins": 15, "closed": "right"},
}
"""Name -> settings that it fixes."""

NEEDS_ROI = frozenset({"rousseau"})
"""Conventions that measure inside a region of interest only."""

DEFAULT_LEVEL = 0.95

DEFAULT_RESAMPLES = 2000


class RegionNeeded(UsageError):
    """A convention that measures inside a region of interest."""

    template = "--convention {0} measures inside a region of interest: give --roi FOLDER"


class WithoutMeaning(UsageError):
    """A convention of tables of another kind."""

    template = "--{0} {1} means nothing here: {2}"


class BadBandwidth(UsageError):
    """A bandwidth that is no number."""

    template = "--kde-bandwidth {0} is not allowed; it is a positive number, or auto"


MOST_RESAMPLES = 1_000_000
"""A hundred times what settles the third digit of an interval, and as much as fits into memory."""


@dataclass(frozen=True, slots=True)
class Intervals:
    """How intervals over patients are drawn. Raises BadInterval."""

    level: float = DEFAULT_LEVEL
    resamples: int = DEFAULT_RESAMPLES
    seed: int = 0

    def __post_init__(self) -> None:
        tails(self.level)
        if not 0 <= self.resamples <= MOST_RESAMPLES:
            raise BadInterval("bootstrap", self.resamples, f"it must be 0 (no intervals) to {MOST_RESAMPLES}")
        if self.seed < 0:
            raise BadInterval("seed", self.seed, "it must be 0 or more")


def given_settings(measuring: MeasureOptions, seed: int | None) -> dict[str, Any]:
    """The settings that options and convention fix, by their names in Settings. Raises what reading them raises."""
    fixed = dict(CONVENTIONS[measuring.convention]) if measuring.convention is not None else {}
    known = {field.name for field in fields(Settings)} - {"metrics", "kde_bandwidth"}
    fixed |= {
        name: value
        for name in MeasureOptions.__dataclass_fields__
        if name in known and (value := getattr(measuring, name)) is not None
    }
    if measuring.metrics is not None:
        fixed["metrics"] = select_metrics(measuring.metrics)
    if measuring.kde_bandwidth is not None:
        fixed["kde_bandwidth"] = _bandwidth(measuring.kde_bandwidth)
    if seed is not None:
        fixed["seed"] = seed
    return fixed


def settings_of(measuring: MeasureOptions, seed: int | None = None) -> Settings:
    """The settings of a run. Raises UnknownSetting, BadBins, UnknownMetric, BadKernel, BadBandwidth."""
    return Settings(**given_settings(measuring, seed))


def refuse_meaningless(measuring: MeasureOptions, space: LabelSpace) -> None:
    """Raise WithoutMeaning for an option that was given and that this class table has no use for."""
    if measuring.decision == "argmax" and not space.exclusive:
        raise WithoutMeaning("decision", "argmax", "each class is decided by itself, by p > 0.5")
    if measuring.background == "include" and (space.binary or not space.exclusive):
        raise WithoutMeaning("background", "include", "no background is measured by itself")


def intervals_of(options: IntervalOptions, before: Intervals | None = None) -> Intervals:
    """How intervals are drawn. before: as an earlier run drew them, in place of the defaults."""
    before = before or Intervals()
    return Intervals(
        before.level if options.level is None else options.level,
        before.resamples if options.bootstrap is None else options.bootstrap,
        before.seed if options.seed is None else options.seed,
    )


def _bandwidth(text: str) -> float | None:
    if text == "auto":
        return None
    try:
        return float(text)
    except ValueError:
        raise BadBandwidth(text) from None
