"""One pass over a case's log-odds, slab by slab: what needs every voxel and no neighbour.

Tau and gamma of ``log-odds``, the curve of missed fractions for risk control, and the sums behind the features that
need no label.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace

import numpy as np

from segcal_cli.confidence.features import BandSums
from segcal_cli.confidence.log_odds import (
    LOG_ODDS_CLIP,
    QUICK_ERROR,
    QUICK_RANGE,
    log_odds,
    quick_log_odds,
    slabs,
)
from segcal_cli.confidence.risk_control import EDGES, missed_below
from segcal_cli.confidence.views import TargetView


@dataclass(frozen=True, slots=True)
class Scan:
    """Of one target. tau, gamma: of the score ``log-odds``; missed: int64 "edge", voxels of the truth below each edge
    (None without labels)."""

    bands: BandSums
    tau: float = -np.inf
    gamma: float = -np.inf
    missed: np.ndarray | None = None


@dataclass(frozen=True, slots=True)
class _Part:
    """A slab of one target. bands.largest, tau: of float32 log-odds."""

    at: slice
    bands: BandSums
    tau: float = -np.inf
    gamma: float = -np.inf
    missed: np.ndarray | None = None


def scan(views: Sequence[TargetView], threads: int = 1) -> tuple[Scan, ...]:
    """Every target of one case. With labels where the case has them.

    Every voxel is looked at in float32. What a threshold can hang on is float64: the log-odds of the truth, and of the
    slabs in which a maximum can be.
    """
    case = views[0].case
    volume, exclusive = case.volume, case.space.exclusive
    targets = [view.target for view in views]
    labelled = case.labels is not None
    counted, domain = views[0].counted, views[0].domain
    if labelled:
        for view in views:
            _ = view.truth  # made once, before threads share it

    def one(at: slice) -> list[_Part]:
        found = []
        array = volume.array[:, at]
        quick = quick_log_odds(array, volume.values, targets, exclusive=exclusive)
        for view, s in zip(views, quick, strict=True):
            bands = BandSums.of(s if domain is None else s[domain[at]])
            if not labelled:
                found.append(_Part(at, bands))
                continue
            truth = view.truth[at]
            if counted is not None or truth.any():
                np.copyto(s, -np.inf, where=~_free(view, at, counted))
            tau = float(s.max())
            at_truth = log_odds(array[:, truth], volume.values, [view.target], exclusive=exclusive)[0]
            gamma = float(np.max(-at_truth, initial=-np.inf))
            found.append(_Part(at, bands, tau, gamma, missed_below(at_truth) if at_truth.size else None))
        return found

    if threads > 1:
        with ThreadPoolExecutor(threads) as pool:
            parts = list(pool.map(one, slabs(volume.array)))
    else:
        parts = [one(at) for at in slabs(volume.array)]
    return tuple(_joined(view, [part[index] for part in parts], counted) for index, view in enumerate(views))


def _free(view: TargetView, at: slice, counted: np.ndarray | None) -> np.ndarray:
    """bool: the voxels of a slab that enter tau."""
    return ~view.truth[at] if counted is None else counted[at] & ~view.truth[at]


def _joined(view: TargetView, parts: Sequence[_Part], counted: np.ndarray | None) -> Scan:
    bands = BandSums.joined([part.bands for part in parts])
    largest = _exact_maximum(
        view,
        [(part.bands.largest, part.at) for part in parts],
        lambda at: True if view.domain is None else view.domain[at],
    )
    bands = replace(bands, largest=largest)
    if view.case.labels is None:
        return Scan(bands)
    tau = _exact_maximum(view, [(part.tau, part.at) for part in parts], lambda at: _free(view, at, counted))
    missed = [part.missed for part in parts if part.missed is not None]
    total = np.sum(missed, axis=0) if missed else np.zeros(EDGES.size, np.int64)
    return Scan(bands, tau, max(part.gamma for part in parts), total)


def _exact_maximum(
    view: TargetView, maxima: Sequence[tuple[float, slice]], where: Callable[[slice], np.ndarray | bool]
) -> float:
    """The largest log-odds, float64, of some voxels. maxima: (float32 maximum, slab), -inf for a slab with none.

    Only slabs are computed again whose float32 maximum lies as high as the largest so far, up to its error.
    """
    volume, exclusive = view.case.volume, view.case.space.exclusive
    best = -np.inf
    for quick, at in sorted(maxima, key=lambda one: -one[0]):
        if quick == -np.inf or best >= LOG_ODDS_CLIP:
            break
        known = -QUICK_RANGE < quick < QUICK_RANGE
        if known and quick + QUICK_ERROR < best:
            break
        s = log_odds(volume.array[:, at], volume.values, [view.target], exclusive=exclusive)[0]
        best = max(best, float(np.max(s, where=where(at), initial=-np.inf)))
    return best
