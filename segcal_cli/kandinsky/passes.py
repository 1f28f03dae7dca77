"""The two passes of a fit, as estimators: histograms of places for the map, then codes per patient for the thresholds.

Both states are runs of integers, so merging is addition, exact in any order. A patient's scores can be weighed only
when its last case is in, so the second state keeps patients that are not complete.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import field

import numpy as np

from segcal_cli.core.case import Case
from segcal_cli.core.errors import FitError
from segcal_cli.core.frozen import dataclass
from segcal_cli.core.labels import LabelSpace
from segcal_cli.kandinsky.arrays import HOST, Arrays
from segcal_cli.kandinsky.boundary import SIDE_BINS, distance_bins, signed_distance
from segcal_cli.kandinsky.codes import N_CODES
from segcal_cli.kandinsky.features import N_BINS, FeatureKind
from segcal_cli.kandinsky.places import Placing
from segcal_cli.kandinsky.pools import CODE_BITS, Pools
from segcal_cli.kandinsky.regions import Regions, place_cells
from segcal_cli.kandinsky.runs import Run, empty_run
from segcal_cli.kandinsky.views import View

PAIR_BYTES = 100
"""Memory that a pair of the second pass takes at the worst, while runs are joined."""


class NoTruth(FitError):
    """A case without labels."""

    template = "{0}: has no labels; a fit needs them"


class NothingCounts(FitError):
    """A case of which no voxel is left."""

    template = "{0}: no voxel is left (region of interest, ignored voxels)"


def checked_view(case: Case) -> View:
    """Raises NoTruth, NothingCounts."""
    if case.labels is None:
        raise NoTruth(case.id)
    view = View(case)
    if view.counted is not None and not view.counted.any():
        raise NothingCounts(case.id)
    return view


@dataclass(frozen=True, slots=True)
class Histograms:
    """Counts by key (channel position * cells + cell) * bins + bin; by patient where that is needed."""

    runs: tuple[Run, ...] = ()
    by_group: Mapping[str, tuple[Run, ...]] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class MapPass:
    """Histograms of scores per cell, over the map-making patients.

    channels: classes whose map is learned. placing: cells are places; None: cells are bins of the signed distance, of
    width ``width``. keep_groups: also keep each patient's own, for folds.
    """

    space: LabelSpace
    channels: tuple[int, ...]
    kind: FeatureKind
    placing: Placing | None
    width: float = 1.0
    keep_groups: bool = False
    arrays: Arrays = HOST

    @property
    def n_cells(self) -> int:
        return 2 * SIDE_BINS if self.placing is None else self.placing.n_cells

    def empty(self) -> Histograms:
        return Histograms()

    def update(self, state: Histograms, case: Case) -> Histograms:
        """Raises NoTruth, NothingCounts."""
        view = checked_view(case)
        n_keys = len(self.channels) * self.n_cells * N_BINS[self.kind]
        keys = []
        shared: np.ndarray | None = None
        for position, channel in enumerate(self.channels):
            scored = self.arrays.scored(view, channel, exclusive=self.space.exclusive)
            if self.placing is None or self.placing.coords == "object" or shared is None:
                shared = self._cells(view, channel)
            if shared is None or scored is None:
                continue
            cell = position * self.n_cells + self.arrays.taken(shared, scored.where)
            keys.append(cell * N_BINS[self.kind] + self.arrays.bins_of(scored.codes, self.kind))
        run = self.arrays.counted(keys, n_keys) if keys else empty_run(1)
        if self.keep_groups:
            return self.merge(state, Histograms(by_group={case.group: (run,)}))
        return self.merge(state, Histograms((run,)))

    def merge(self, a: Histograms, b: Histograms) -> Histograms:
        groups = {
            group: self.arrays.compacted((*a.by_group.get(group, ()), *b.by_group.get(group, ())))
            for group in {**a.by_group, **b.by_group}
        }
        return Histograms(self.arrays.compacted((*a.runs, *b.runs)), groups)

    def finish(self, state: Histograms) -> MapHistograms:
        join, host = self.arrays.join, self.arrays.host
        groups = {group: join(state.by_group[group]) for group in sorted(state.by_group)}
        runs = [*state.runs, *groups.values()]
        every = join(runs) if runs else empty_run(1)
        return MapHistograms(host(every), {group: host(run) for group, run in groups.items()})

    def _cells(self, view: View, channel: int) -> np.ndarray | None:
        if self.placing is not None:
            return place_cells(view, self.placing, channel)
        x, y, z = view.case.volume.grid.spacing_mm or (1.0, 1.0, 1.0)
        distance = signed_distance(view.predicted(channel), [round(edge, 5) for edge in (z, y, x)])
        return None if distance is None else distance_bins(distance, self.width).ravel()


@dataclass(frozen=True, slots=True)
class MapHistograms:
    """What the first pass came to: all patients together, and each patient's own where it was kept."""

    all: Run
    by_group: Mapping[str, Run]


@dataclass(frozen=True, slots=True)
class PoolState:
    """runs: of complete patients. pending: patient -> cases seen, and their counts."""

    runs: tuple[Run, ...] = ()
    pending: Mapping[str, tuple[int, tuple[Run, ...]]] = field(default_factory=dict)
    shift: int = 0


@dataclass(frozen=True, slots=True)
class CalibrationPass:
    """Codes of the true class per cluster and patient, and the same for the whole image.

    cases_per_group: how many cases each patient has, so that it can be folded in when the last one has come. memory:
    bytes that the pairs may take; beyond, all codes lose their lowest bits, as few as will do.
    """

    space: LabelSpace
    regions: Regions
    cases_per_group: Mapping[str, int]
    memory: int
    arrays: Arrays = HOST

    @property
    def n_classes(self) -> int:
        return len(self.space.channels)

    def empty(self) -> PoolState:
        return PoolState()

    def update(self, state: PoolState, case: Case) -> PoolState:
        """Raises NoTruth, NothingCounts, AtlasNotWhole."""
        view = checked_view(case)
        offsets, n_slots = self.regions.offsets, self.regions.n_slots
        runs, whole = [], []
        for channel in range(self.n_classes):
            scored = self.arrays.scored(view, channel, exclusive=self.space.exclusive)
            if scored is None:
                continue
            index, size = self.regions.clusters(view, channel).index, self.regions.sizes[channel]
            own = scored.codes
            if index is not None:
                cluster = self.arrays.taken(index, scored.where)
                inside = cluster < size
                own = (cluster[inside] << CODE_BITS) | own[inside]
            runs.append(_at_slot(self.arrays.counted([own], size * N_CODES), int(offsets[channel])))
            whole.append(_at_slot(self.arrays.counted([scored.codes], N_CODES), n_slots + channel))
        joined = self.arrays.join([*runs, *whole]) if runs else empty_run(1)
        return self.merge(state, PoolState((), {case.group: (1, (joined,))}))

    def merge(self, a: PoolState, b: PoolState) -> PoolState:
        shift = max(a.shift, b.shift)
        runs = [self.arrays.coarsened(run, shift - state.shift) for state in (a, b) for run in state.runs]
        pending: dict[str, tuple[int, tuple[Run, ...]]] = {}
        for group in {**a.pending, **b.pending}:
            none: tuple[int, tuple[Run, ...]] = (0, ())
            before, after = a.pending.get(group, none), b.pending.get(group, none)
            n, parts = before[0] + after[0], (*before[1], *after[1])
            if n == self.cases_per_group[group]:
                runs.append(self._weighed(parts, shift))
            else:
                pending[group] = (n, parts)
        return self._fitted(PoolState(self.arrays.compacted(runs), pending, shift))

    def finish(self, state: PoolState) -> tuple[Pools, Pools]:
        """Pools per class and cluster, and per class over the whole image. Patients that lost a case count too."""
        parts = [self._weighed(state.pending[group][1], state.shift) for group in sorted(state.pending)]
        runs = [*state.runs, *parts]
        done = self._fitted(PoolState((self.arrays.join(runs),) if runs else (empty_run(2),), {}, state.shift))
        n_slots = self.regions.n_slots
        every = Pools.of(self.arrays.host(done.runs[0]), n_slots + self.n_classes, done.shift)
        return every.slice(0, n_slots), every.slice(n_slots, n_slots + self.n_classes)

    def _weighed(self, parts: Sequence[Run], shift: int) -> Run:
        """One patient's shares. Weighed first, since floors of coarser codes would be other floors."""
        return self.arrays.coarsened(self.arrays.patient_run(self.arrays.join(parts)), shift)

    def _fitted(self, state: PoolState) -> PoolState:
        """The state with as few code bits dropped as make its largest run fit. What all data need decides, whatever
        their order: a part of them never needs more."""
        runs, shift = state.runs, state.shift
        while runs and max(map(len, runs)) * PAIR_BYTES > self.memory and shift < CODE_BITS - 1:
            shift += 1
            runs = tuple(self.arrays.coarsened(run, 1) for run in runs)
        return PoolState(runs, state.pending, shift)


def _at_slot(run: Run, slot: int) -> Run:
    return Run(run.keys + (slot << CODE_BITS), run.columns)
