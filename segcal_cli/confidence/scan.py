"""One pass over a case's log-odds, slab by slab: what needs every voxel and no neighbour.

Tau and gamma of ``log-odds``, the curve of missed fractions for risk control, and the sums behind the features that
need no label.
"""

from __future__ import annotations

from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass

import numpy as np

from segcal_cli.confidence.features import BandSums
from segcal_cli.confidence.log_odds import log_odds, slabs
from segcal_cli.confidence.risk_control import missed_below
from segcal_cli.confidence.views import TargetView


@dataclass(frozen=True, slots=True)
class Scan:
    """Of one target. tau, gamma: of the score ``log-odds``; missed: int64 "edge", voxels of the truth below each edge
    (None without labels)."""

    bands: BandSums
    tau: float = -np.inf
    gamma: float = -np.inf
    missed: np.ndarray | None = None


def scan(views: Sequence[TargetView], threads: int = 1) -> tuple[Scan, ...]:
    """Every target of one case. With labels where the case has them."""
    case = views[0].case
    volume, exclusive = case.volume, case.space.exclusive
    targets = [view.target for view in views]
    labelled = case.labels is not None
    counted, domain = views[0].counted, views[0].domain
    if labelled:
        for view in views:
            _ = view.truth  # made once, before threads share it

    def one(at: slice) -> list[Scan]:
        found = []
        for view, s in zip(
            views, log_odds(volume.array[:, at], volume.values, targets, exclusive=exclusive), strict=True
        ):
            inside = s if domain is None else s[domain[at]]
            bands = BandSums.of(inside)
            if not labelled:
                found.append(Scan(bands))
                continue
            truth = view.truth[at]
            free = ~truth if counted is None else counted[at] & ~truth
            at_truth = s[truth]
            found.append(
                Scan(
                    bands,
                    float(np.max(s, where=free, initial=-np.inf)),
                    float(np.max(-at_truth, initial=-np.inf)),
                    missed_below(at_truth),
                )
            )
        return found

    if threads > 1:
        with ThreadPoolExecutor(threads) as pool:
            parts = list(pool.map(one, slabs(volume.array)))
    else:
        parts = [one(at) for at in slabs(volume.array)]
    return tuple(_joined([part[index] for part in parts]) for index in range(len(views)))


def _joined(parts: Sequence[Scan]) -> Scan:
    missed = [part.missed for part in parts if part.missed is not None]
    return Scan(
        BandSums.joined([part.bands for part in parts]),
        max(part.tau for part in parts),
        max(part.gamma for part in parts),
        np.sum(missed, axis=0) if missed else None,
    )
