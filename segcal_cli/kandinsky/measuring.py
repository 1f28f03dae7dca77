"""Measuring a model on labelled cases: coverage per class, cluster and patient, set sizes, and errors place by place.

One pass gives all levels: each positive adds to one counter, that of the smallest level at which the set holds it, and
coverage at a level is a running sum. What is kept per case is a few rows; places are counted over all cases.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import field

import numpy as np

from segcal_cli.core.case import Case
from segcal_cli.core.frozen import dataclass
from segcal_cli.kandinsky.codes import N_CODES, SLAB_VOXELS
from segcal_cli.kandinsky.model import Model
from segcal_cli.kandinsky.passes import checked_view
from segcal_cli.kandinsky.places import Placing
from segcal_cli.kandinsky.regions import place_cells
from segcal_cli.kandinsky.runs import Run, compacted, counted, empty_run, join
from segcal_cli.kandinsky.sets import ClassView, Empty, class_view, fill_empty, levels_at, members
from segcal_cli.kandinsky.views import View

GREY_STEPS = 1000
"""Steps of a probability in pictures: more than the eye tells apart, and sums of them are whole numbers."""

MOST_CLUSTER_ROWS = 256
"""Above this many clusters of a class (pixel) only the whole image has rows of its own."""


@dataclass(frozen=True, slots=True)
class CaseCoverage:
    """One case. Rows: class by class, first the whole image, then the clusters that have rows.

    n: int64 "row"; levels: int64 "row level"; held: int64 "alpha row", positives in the set. sizes: int64 "alpha size";
    empty: int64 "alpha"; others: int64 "class", voxels of other classes; included: int64 "alpha class", those whose set
    holds the class. infinite: int64 "alpha class", voxels where the class's threshold is infinite. keys: int64, places
    of the positives, kept where methods are to be compared.
    """

    group: str
    n: np.ndarray
    levels: np.ndarray
    held: np.ndarray
    sizes: np.ndarray
    empty: np.ndarray
    others: np.ndarray
    included: np.ndarray
    infinite: np.ndarray
    keys: Run | None = None


@dataclass(frozen=True, slots=True)
class Snapshot:
    """One scan, canonical "z y x". clusters: uint16 by class; probability: uint16 by class, steps of 1/GREY_STEPS."""

    clusters: tuple[np.ndarray, ...]
    probability: tuple[np.ndarray, ...]
    spacing: tuple[float, float, float]
    has_mm: bool


@dataclass(frozen=True, slots=True)
class CoverageState:
    """Cases by id, and positives by key (class * cells + cell) * levels + level - 1: of the model, and imagewise.

    grey: voxels by key class * cells + cell, and the sum of their probabilities in steps of 1/GREY_STEPS. snapshots: by
    case id, clusters and probabilities of a scan whose clusters are its own.
    """

    cases: Mapping[str, CaseCoverage] = field(default_factory=dict)
    cells: tuple[Run, ...] = ()
    image_cells: tuple[Run, ...] = ()
    grey: tuple[Run, ...] = ()
    snapshots: Mapping[str, Snapshot] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Coverage:
    """What measuring came to. cases: by id, ascending. cells, image_cells: joined."""

    cases: Mapping[str, CaseCoverage]
    cells: Run
    image_cells: Run
    grey: Run
    snapshots: Mapping[str, Snapshot]


@dataclass(frozen=True)
class CoverageMeasurement:
    """The estimator. alphas: levels; per_class: own level of a class, which replaces them all. placing: the cells.

    pictured: cases of which a snapshot is kept.
    """

    model: Model
    alphas: tuple[float, ...]
    placing: Placing
    empty_sets: Empty = "top1"
    n_levels: int = 20
    per_class: Mapping[int, float] = field(default_factory=dict)
    keep_places: bool = False
    pictured: frozenset[str] = frozenset()

    @property
    def clusters_shown(self) -> tuple[int, ...]:
        """Per class how many clusters have rows of their own."""
        sizes = self.model.regions.sizes
        return tuple(n if 1 < n <= MOST_CLUSTER_ROWS else 0 for n in sizes)

    @property
    def rows(self) -> list[tuple[int, int | None]]:
        """(class, cluster) of each row; None: the whole image."""
        return [
            (channel, cluster) for channel, shown in enumerate(self.clusters_shown) for cluster in (None, *range(shown))
        ]

    def empty(self) -> CoverageState:
        return CoverageState()

    def update(self, state: CoverageState, case: Case) -> CoverageState:
        """Raises NoTruth, NothingCounts, AtlasNotWhole."""
        view = checked_view(case)
        n_classes = len(self.model.space.channels)
        classes = [class_view(self.model, view, channel) for channel in range(n_classes)]
        truths = [view.truth(channel) for channel in range(n_classes)]
        counts, levels, own, images = [], [], [], []
        n_keys = n_classes * self.placing.n_cells * self.n_levels
        for channel, (one, where) in enumerate(zip(classes, truths, strict=True)):
            cell = place_cells(view, self.placing, channel)
            table, ours, theirs = self._levels(channel, one, where, cell)
            levels.append(table)
            counts.append(table.sum(axis=1))
            if ours is not None and theirs is not None and where.size:
                # The keys of a class lie beyond those of the one before it, so runs of classes follow one another.
                own.append(counted(ours, n_keys))
                images.append(counted(theirs, n_keys))
        held, sizes, empty, included, infinite = self._sets(view, classes, truths)
        n_voxels = view.flat.shape[1] if view.counted is None else int(np.count_nonzero(view.counted))
        held_places, image_places = (join(runs or [empty_run(1)]) for runs in (own, images))
        one_case = CaseCoverage(
            case.group,
            np.concatenate(counts),
            np.concatenate(levels),
            held,
            sizes,
            empty,
            np.array([n_voxels - where.size for where in truths], np.int64),
            included,
            infinite,
            held_places if self.keep_places else None,
        )
        grey = (self._grey(view, classes),)
        shots = {case.id: _snapshot(self.model, view, classes)} if case.id in self.pictured else {}
        return self.merge(state, CoverageState({case.id: one_case}, (held_places,), (image_places,), grey, shots))

    def merge(self, a: CoverageState, b: CoverageState) -> CoverageState:
        return CoverageState(
            {**a.cases, **b.cases},
            compacted((*a.cells, *b.cells)),
            compacted((*a.image_cells, *b.image_cells)),
            compacted((*a.grey, *b.grey)),
            {**a.snapshots, **b.snapshots},
        )

    def finish(self, state: CoverageState) -> Coverage:
        cases = dict(sorted(state.cases.items(), key=lambda item: item[0].encode()))
        nothing = (empty_run(1),)
        return Coverage(
            cases,
            join(state.cells or nothing),
            join(state.image_cells or nothing),
            join(state.grey or (empty_run(2),)),
            dict(sorted(state.snapshots.items())),
        )

    def alpha_of(self, alpha: float, channel: int) -> float:
        return self.per_class.get(channel, alpha)

    def _levels(
        self, channel: int, one: ClassView, where: np.ndarray, cell: np.ndarray | None
    ) -> tuple[np.ndarray, np.ndarray | None, np.ndarray | None]:
        """Of the true voxels of a class: int64 "row level", and int64 "n" keys of their places, of the model and
        imagewise; None without places. cell: int64 "voxel". Slab by slab, since a class may fill the scan.
        """
        shown = self.clusters_shown[channel]
        table = np.zeros((1 + shown, self.n_levels), np.int64)
        ours = theirs = None
        if cell is not None:
            ours, theirs = np.empty(where.size, np.int64), np.empty(where.size, np.int64)
        for start in range(0, where.size, SLAB_VOXELS):
            at = slice(start, start + SLAB_VOXELS)
            level = levels_at(self.model, one, where[at], self.n_levels).astype(np.int64) - 1
            table[0] += np.bincount(level, minlength=self.n_levels)
            if shown:
                row = np.minimum(one.clusters.at(where[at]), shown)
                both = np.bincount(row * self.n_levels + level, minlength=(shown + 1) * self.n_levels)
                table[1:] += both.reshape(-1, self.n_levels)[:shown]
            if cell is not None and ours is not None and theirs is not None:
                base = (channel * self.placing.n_cells + cell[where[at]]) * self.n_levels
                ours[at] = base + level
                theirs[at] = base + self._imagewise(one.codes[where[at]], channel)
        return table, ours, theirs

    def _imagewise(self, codes: np.ndarray, channel: int) -> np.ndarray:
        """Integers: level - 1 with one cluster for the whole image, of the same calibration patients."""
        level: np.ndarray = np.zeros(codes.size, np.uint8 if self.n_levels < 256 else np.uint16)
        for m in range(1, self.n_levels):
            level += codes > self.model.baseline.thresholds(channel, 1 - m / self.n_levels)[0]
        return level

    def _grey(self, view: View, classes: Sequence[ClassView]) -> Run:
        table = _probabilities(self.model.shift)
        keys, sums, counts = [], [], []
        for channel, one in enumerate(classes):
            cell = place_cells(view, self.placing, channel)
            if cell is None:
                continue
            n: np.ndarray = np.zeros(self.placing.n_cells, np.int64)
            total: np.ndarray = np.zeros(self.placing.n_cells)
            for start in range(0, cell.size, SLAB_VOXELS):
                at = slice(start, start + SLAB_VOXELS)
                places, values = cell[at], table[one.codes[at]]
                if view.counted is not None:
                    kept = view.counted.reshape(-1)[at]
                    places, values = places[kept], values[kept]
                n += np.bincount(places, minlength=n.size)
                # Below 2^53, so the sums of floats are whole numbers still.
                total += np.bincount(places, weights=values, minlength=n.size)
            used = np.flatnonzero(n)
            keys.append(channel * self.placing.n_cells + used)
            counts.append(n[used])
            sums.append(total[used].astype(np.int64))
        if not keys:
            return empty_run(2)
        return Run(np.concatenate(keys), np.stack((np.concatenate(counts), np.concatenate(sums))))

    def _sets(self, view, classes, truths):  # type: ignore[no-untyped-def]
        """Counts of the sets at every alpha."""
        n_classes = len(classes)
        kept = None if view.counted is None else np.flatnonzero(view.counted)
        held, sizes, empty, included, infinite = [], [], [], [], []
        for alpha in self.alphas:
            limits = [self.model.thresholds(c, self.alpha_of(alpha, c)) for c in range(n_classes)]
            sets = members(classes, limits)
            none = ~sets.any(axis=0)
            if self.empty_sets == "top1" and self.model.space.exclusive:
                fill_empty(sets, view)
            rows = []
            for channel, where in enumerate(truths):
                inside = sets[channel, where]
                shown = self.clusters_shown[channel]
                rows.append([np.count_nonzero(inside)])
                if shown:
                    cluster = classes[channel].clusters.at(where[inside])
                    rows.append(np.bincount(cluster[cluster < shown], minlength=shown))
            size = sets.sum(axis=0, dtype=np.uint8 if n_classes < 256 else np.uint16)
            counted_sets = sets if kept is None else sets[:, kept]
            held.append(np.concatenate(rows))
            sizes.append(np.bincount(size if kept is None else size[kept], minlength=n_classes + 1))
            empty.append(np.count_nonzero(none if kept is None else none[kept]))
            total = counted_sets.sum(axis=1)
            included.append([int(n) - np.count_nonzero(s[w]) for n, s, w in zip(total, sets, truths, strict=True)])
            unbounded = []
            for one, limit in zip(classes, limits, strict=True):
                where_infinite = one.infinite(limit)
                n = counted_sets.shape[1]
                if not isinstance(where_infinite, bool):
                    n = np.count_nonzero(where_infinite if kept is None else where_infinite[kept])
                elif not where_infinite:
                    n = 0
                unbounded.append(n)
            infinite.append(unbounded)
        return tuple(np.array(part, np.int64) for part in (held, sizes, empty, included, infinite))


def _probabilities(shift: int) -> np.ndarray:
    """uint16 "code": the probability of a code in steps of 1/GREY_STEPS."""
    odds = 2.0 ** (((np.arange(N_CODES >> shift) << shift) - 32768) / 1024)
    return np.rint(GREY_STEPS / (1 + odds)).astype(np.uint16)


def _snapshot(model: Model, view: View, classes: Sequence[ClassView]) -> Snapshot:
    table = _probabilities(model.shift)
    frame = view.frame
    clusters, probability = [], []
    for one in classes:
        index = np.zeros(one.codes.size, np.uint16) if one.clusters.index is None else one.clusters.index
        clusters.append(np.ascontiguousarray(frame.canonical(index.astype(np.uint16).reshape(view.shape))))
        probability.append(np.ascontiguousarray(frame.canonical(table[one.codes].reshape(view.shape))))
    return Snapshot(tuple(clusters), tuple(probability), frame.spacing, frame.has_mm)
