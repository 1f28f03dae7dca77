"""The two passes of ``cluster fit`` as estimators: the map-making patients first, then those that calibrate on it."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from segcal_cli.core.case import Case
from segcal_cli.core.frozen import dataclass
from segcal_cli.core.labels import LabelSpace
from segcal_cli.kandinsky.arrays import HOST, Arrays
from segcal_cli.kandinsky.learning import ClassMap, Learner
from segcal_cli.kandinsky.model import regions_of
from segcal_cli.kandinsky.passes import CalibrationPass, Histograms, MapPass, PoolState
from segcal_cli.kandinsky.places import Placing
from segcal_cli.kandinsky.pools import Pools
from segcal_cli.kandinsky.regions import Regions
from segcal_cli.kandinsky.spec import MapSpec


@dataclass(frozen=True, slots=True)
class Calibrated:
    """What both passes came to. notes: what the map has to say."""

    regions: Regions
    described: Mapping[int, Mapping[str, Any]]
    notes: tuple[str, ...]
    pools: Pools
    image_pools: Pools


@dataclass(frozen=True, slots=True)
class Calibrating:
    """The pass over the calibration cases. cases: their ids."""

    inner: CalibrationPass
    cases: frozenset[str]
    described: Mapping[int, Mapping[str, Any]]
    notes: tuple[str, ...] = ()

    def reads(self, case: str) -> bool:
        return case in self.cases

    def empty(self) -> PoolState:
        return self.inner.empty()

    def update(self, state: PoolState, case: Case) -> PoolState:
        return self.inner.update(state, case)

    def merge(self, a: PoolState, b: PoolState) -> PoolState:
        return self.inner.merge(a, b)

    def finish(self, state: PoolState) -> Calibrated:
        pools, image_pools = self.inner.finish(state)
        return Calibrated(self.inner.regions, self.described, self.notes, pools, image_pools)


@dataclass(frozen=True, slots=True)
class Calibration:
    """How the calibration pass is made once the map is known. atlas: numbers of its regions. unit: of lengths.

    cases: ids of those that calibrate. sizes: patient -> how many of them are his. memory: see ``CalibrationPass``.
    """

    spec: MapSpec
    space: LabelSpace
    placing: Placing | None
    atlas: tuple[int, ...]
    unit: str
    cases: frozenset[str]
    sizes: Mapping[str, int]
    memory: int
    arrays: Arrays = HOST

    def on(self, regions: Regions, described: Mapping[int, Mapping[str, Any]], notes: tuple[str, ...]) -> Calibrating:
        """The pass on regions that are known."""
        inner = CalibrationPass(self.space, regions, self.sizes, self.memory, self.arrays)
        return Calibrating(inner, self.cases, described, notes)

    def after(self, maps: Mapping[int, ClassMap]) -> Calibrating:
        """The pass on learned maps, by channel; none where regions need no learning."""
        described: dict[int, Mapping[str, Any]] = {
            channel: {**found.described, "unit": self.unit, "k": found.k}
            for channel, found in maps.items()
            if found.described
        }
        notes = tuple(dict.fromkeys(note for found in maps.values() for note in found.notes))
        return self.on(regions_of(self.spec, self.space, self.placing, maps, self.atlas), described, notes)


@dataclass(frozen=True, slots=True)
class MapMaking:
    """The pass over the map-making cases; what follows is the calibration on what it learns. cases: their ids."""

    inner: MapPass
    cases: frozenset[str]
    learner: Learner
    calibration: Calibration

    def reads(self, case: str) -> bool:
        return case in self.cases

    def empty(self) -> Histograms:
        return self.inner.empty()

    def update(self, state: Histograms, case: Case) -> Histograms:
        return self.inner.update(state, case)

    def merge(self, a: Histograms, b: Histograms) -> Histograms:
        return self.inner.merge(a, b)

    def finish(self, state: Histograms) -> Calibrating:
        """Raises TooFewToChoose."""
        return self.calibration.after(self.learner.learn(self.inner.finish(state)))
