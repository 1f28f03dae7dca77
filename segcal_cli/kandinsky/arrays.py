"""Arrays: where the counting of a fit happens, on the CPU or on a GPU.

A pass over cases takes codes of the true class, makes integer keys of them and counts the keys. All of it is integer
arithmetic after the code, so counts are the same wherever they are made; only codes of logits may differ by one, where
exp differs in its last bits. ``HostArrays`` is numpy; ``tensors.TensorArrays`` is the same on a torch device. Runs stay
on the device until a pass is finished.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Protocol

import numpy as np

from segcal_cli.core.frozen import dataclass
from segcal_cli.kandinsky.codes import true_codes
from segcal_cli.kandinsky.features import FeatureKind, bins_of, quantiles
from segcal_cli.kandinsky.kmeans import HostSteps, Steps
from segcal_cli.kandinsky.pools import CODE_BITS, Pools, Weighting, patient_run
from segcal_cli.kandinsky.runs import Run, coarsened, compacted, counted, join
from segcal_cli.kandinsky.views import View

Native = Any
"""An array of the device: numpy, or a tensor."""


@dataclass(frozen=True, slots=True)
class Scored:
    """Voxels of a class in a case. where: flat indices; codes: integers, one per index. Both native."""

    where: Native
    codes: Native


class Arrays(Protocol):
    """What a fit asks of the device that it runs on."""

    def scored(self, view: View, channel: int, *, exclusive: bool) -> Scored | None:
        """The true voxels of a class and their codes; None where there are none."""

    def taken(self, whole: np.ndarray, where: Native) -> Native:
        """int64 native: values of an array over all voxels at flat indices."""

    def bins_of(self, codes: Native, kind: FeatureKind) -> Native: ...

    def counted(self, keys: Sequence[Native], n_keys: int) -> Run: ...

    def join(self, runs: Sequence[Run]) -> Run: ...

    def compacted(self, runs: Sequence[Run]) -> tuple[Run, ...]: ...

    def coarsened(self, run: Run, bits: int) -> Run: ...

    def patient_run(self, run: Run) -> Run: ...

    def host(self, run: Run) -> Run:
        """The run in numpy."""

    def quantiles(self, run: Run, n: np.ndarray, kind: FeatureKind, levels: Sequence[float]) -> np.ndarray: ...

    def thresholds(self, pools: Pools, alpha: float, weighting: Weighting) -> np.ndarray: ...

    def steps(self, points: np.ndarray, weights: np.ndarray) -> Steps: ...


@dataclass(frozen=True)
class HostArrays:
    """Arrays in numpy."""

    def scored(self, view: View, channel: int, *, exclusive: bool) -> Scored | None:
        where = view.truth(channel)
        if not where.size:
            return None
        codes = true_codes(view.flat, view.case.volume.values, channel, where, exclusive=exclusive)
        return Scored(where, codes.astype(np.int64))

    def taken(self, whole: np.ndarray, where: Native) -> Native:
        return whole[where].astype(np.int64)

    def bins_of(self, codes: Native, kind: FeatureKind) -> Native:
        return bins_of(codes, kind)

    def counted(self, keys: Sequence[Native], n_keys: int) -> Run:
        return counted(np.concatenate(keys), n_keys)

    def join(self, runs: Sequence[Run]) -> Run:
        return join(runs)

    def compacted(self, runs: Sequence[Run]) -> tuple[Run, ...]:
        return compacted(runs)

    def coarsened(self, run: Run, bits: int) -> Run:
        return coarsened(run, bits, CODE_BITS)

    def patient_run(self, run: Run) -> Run:
        return patient_run(run)

    def host(self, run: Run) -> Run:
        return run

    def quantiles(self, run: Run, n: np.ndarray, kind: FeatureKind, levels: Sequence[float]) -> np.ndarray:
        return quantiles(run, n, kind, levels)

    def thresholds(self, pools: Pools, alpha: float, weighting: Weighting) -> np.ndarray:
        return pools.thresholds(alpha, weighting)

    def steps(self, points: np.ndarray, weights: np.ndarray) -> Steps:
        return HostSteps(points, weights)


HOST = HostArrays()


def arrays_on(device: str) -> Arrays:
    """cpu: numpy; anything else: that device of torch."""
    if device == "cpu":
        return HOST
    from segcal_cli.kandinsky.tensors import TensorArrays

    return TensorArrays(device)
