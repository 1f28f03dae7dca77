"""One pass over a case's log-odds, slab by slab: what needs every voxel and no neighbour.

Tau and gamma of ``log-odds``, the curve of missed fractions for risk control, and the sums behind the features that
need no label.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace

import numpy as np

from segcal_cli.confidence.features import BAND, BandSums
from segcal_cli.confidence.log_odds import (
    LOG_ODDS_CLIP,
    QUICK_ERROR,
    QUICK_RANGE,
    log_odds,
    quick_log_odds,
    slabs,
)
from segcal_cli.confidence.risk_control import EDGES, filed, missed_from
from segcal_cli.confidence.views import TargetView
from segcal_cli.core.frozen import dataclass


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
    """A slab of one target. bands.largest, tau: of float32 log-odds. filed: of the true voxels, None without any."""

    at: slice
    bands: BandSums
    tau: float = -np.inf
    gamma: float = -np.inf
    filed: np.ndarray | None = None


def scan(views: Sequence[TargetView], threads: int = 1) -> tuple[Scan, ...]:
    """Every target of one case. With labels where the case has them.

    Every voxel is looked at in float32. What a threshold can hang on is float64: the log-odds of the truth, and of the
    voxels where a maximum can be.
    """
    case = views[0].case
    volume, exclusive = case.volume, case.space.exclusive
    targets = [view.target for view in views]
    counted, domain = views[0].counted, views[0].domain
    if case.labels is not None:
        for view in views:
            _ = view.truth  # made once, before threads share it

    def one(at: slice) -> list[_Part]:
        quick = quick_log_odds(volume.array[:, at], volume.values, targets, exclusive=exclusive)
        found = []
        for view, s in zip(views, quick, strict=True):
            near = np.flatnonzero(s > -BAND)
            high = s.reshape(-1)[near]
            bands = BandSums.of(s, high) if domain is None else BandSums.of(s[domain[at]])
            if case.labels is None:
                found.append(_Part(at, bands))
                continue
            true = np.flatnonzero(view.truth[at])
            tau = bands.largest
            if true.size or counted is not None:
                free = _free(view, at, counted)
                among = high[free.reshape(-1)[near]]
                # Only where no voxel that counts lies near are the others looked at.
                tau = float(among.max() if among.size else np.max(s[free], initial=-np.inf))
            if not true.size:
                found.append(_Part(at, bands, tau))
                continue
            at_truth = _log_odds_of(view, at, true)
            found.append(_Part(at, bands, tau, float(np.max(-at_truth)), filed(at_truth)))
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


def _log_odds_of(view: TargetView, at: slice, places: np.ndarray) -> np.ndarray:
    """float64 "place": log-odds of some voxels of a slab. places: indices into it, flat."""
    volume = view.case.volume
    stored = np.stack([channel[at].reshape(-1)[places] for channel in volume.array])
    return log_odds(stored, volume.values, [view.target], exclusive=view.case.space.exclusive)[0]


def _joined(view: TargetView, parts: Sequence[_Part], counted: np.ndarray | None) -> Scan:
    bands = BandSums.joined([part.bands for part in parts])
    largest = _exact_maximum(
        view,
        [(part.bands.largest, part.at) for part in parts],
        lambda at: None if view.domain is None else view.domain[at],
    )
    bands = replace(bands, largest=largest)
    if view.case.labels is None:
        return Scan(bands)
    tau = _exact_maximum(view, [(part.tau, part.at) for part in parts], lambda at: _free(view, at, counted))
    counts = [part.filed for part in parts if part.filed is not None]
    missed = missed_from(np.sum(counts, axis=0)) if counts else np.zeros(EDGES.size, np.int64)
    return Scan(bands, tau, max(part.gamma for part in parts), missed)


def _exact_maximum(
    view: TargetView, maxima: Sequence[tuple[float, slice]], where: Callable[[slice], np.ndarray | None]
) -> float:
    """The largest log-odds, float64, of some voxels (None: all). maxima: (float32 maximum, slab), -inf for a slab with
    none.

    Only voxels are computed again whose float32 log-odds lie as high as the largest so far, up to their error.
    """
    volume, exclusive = view.case.volume, view.case.space.exclusive
    best = -np.inf
    for quick, at in sorted(maxima, key=lambda one: -one[0]):
        if quick == -np.inf or best >= LOG_ODDS_CLIP:
            break
        low = _lowest_candidate(max(best, quick - QUICK_ERROR if quick > -QUICK_RANGE else -np.inf))
        if quick < low:
            break
        (s,) = quick_log_odds(volume.array[:, at], volume.values, [view.target], exclusive=exclusive)
        among, high = where(at), s >= low
        places = np.flatnonzero(high if among is None else high & among)
        best = max(best, float(np.max(_log_odds_of(view, at, places), initial=-np.inf)))
    return best


def _lowest_candidate(known: float) -> float:
    """How low float32 log-odds can lie of a voxel with at least ``known`` in float64.

    Beyond the range of float32 all that is known is that they lie beyond it.
    """
    low = min(known, QUICK_RANGE) - QUICK_ERROR
    return low if low > -QUICK_RANGE else -np.inf
