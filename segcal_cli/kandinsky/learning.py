"""Learning a map: from histograms of scores per cell to clusters of cells, class by class.

How many clusters there are to find is settled on held-out patients: the number whose cluster quantiles predict their
scores best by pinball loss, or the smallest number that is not clearly worse.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import field, replace
from typing import Any

import numpy as np

from segcal_cli.core.errors import FitError, count_text
from segcal_cli.core.frozen import dataclass
from segcal_cli.kandinsky.annuli import (
    Field,
    ShellFit,
    fit_annuli,
    fit_annuli_by_evolution,
    shell_labels,
)
from segcal_cli.kandinsky.arrays import HOST, Arrays
from segcal_cli.kandinsky.boundary import SIDE_BINS, edge_of
from segcal_cli.kandinsky.ellipsoids import Family
from segcal_cli.kandinsky.features import N_BINS, FeatureKind, Features, bin_scores, decile_bins, features, side_by_side
from segcal_cli.kandinsky.features import smoothed as smooth_features
from segcal_cli.kandinsky.kmeans import kmeans, spread_to_rest
from segcal_cli.kandinsky.objectives import squared_error
from segcal_cli.kandinsky.passes import MapHistograms
from segcal_cli.kandinsky.places import Placing
from segcal_cli.kandinsky.runs import Run, join
from segcal_cli.kandinsky.shells import Binned, best_runs, binned
from segcal_cli.kandinsky.spec import DEFAULT_K, DEFAULT_LEVELS, DEFAULT_MIN_COUNT, MapSpec
from segcal_cli.kandinsky.split import folds
from segcal_cli.kandinsky.star import (
    DEFAULT_ORDER,
    USUAL_ROUGHNESS,
    choose_roughness,
    fit_star,
)

FOLDS = 5
MOST_CLUSTERS = 8
"""``--k auto`` tries 1 to 8."""

PINBALL_LEVELS = (0.5, 0.6, 0.7, 0.8, 0.9, 0.95)
"""Levels whose quantiles are judged on held-out patients."""

SMOOTH_SHARE = 0.025
"""Default width of the smoothing, as a share of the longest side."""

FLAT = 1e-18
"""A mean square of the features below this means that all are equal."""


class TooFewToChoose(FitError):
    """One patient cannot be held out of itself."""

    template = "--k auto needs at least 2 map-making patients; there is {0}. Give --k N"


@dataclass(frozen=True, slots=True)
class ClassMap:
    """The map of one class. cells: uint8 clusters, canonical "z y x", or None; edges: of boundary shells.

    described: centre, axes, radii and objectives for people. notes: sentences.
    """

    k: int
    cells: np.ndarray | None = None
    edges: tuple[float, ...] = ()
    described: Mapping[str, Any] = field(default_factory=dict)
    notes: tuple[str, ...] = ()


@dataclass(frozen=True)
class Learner:
    """Makes maps from histograms of the first pass. channels: the classes, in the order of their keys."""

    spec: MapSpec
    channels: tuple[int, ...]
    names: tuple[str, ...]
    placing: Placing | None
    width: float = 1.0
    arrays: Arrays = HOST

    @property
    def kind(self) -> FeatureKind:
        return self.spec.features or "ecdf"

    @property
    def n_cells(self) -> int:
        return 2 * SIDE_BINS if self.placing is None else self.placing.n_cells

    def learn(self, histograms: MapHistograms) -> dict[int, ClassMap]:
        """Channel -> map. Raises TooFewToChoose."""
        groups = [list(range(len(self.channels)))] if self.spec.shared_map else [[i] for i in range(len(self.channels))]
        made: dict[int, ClassMap] = {}
        for positions in groups:
            found = self._learn(histograms, positions)
            made |= {self.channels[position]: found for position in positions}
        return made

    def _learn(self, histograms: MapHistograms, positions: Sequence[int]) -> ClassMap:
        name = ", ".join(self.names[self.channels[position]] for position in positions)
        given = self._features(histograms.all, positions)
        notes = []
        if not given.known.any() or float((given.weights * (given.centred**2).sum(axis=1)).sum()) <= FLAT * float(
            given.weights.sum()
        ):
            why = (
                "the features of all cells are equal" if given.known.any() else "no map-making patient holds the class"
            )
            return self._one_cluster(f"{name}: {why}; one cluster for the whole image")
        wanted = DEFAULT_K if self.spec.k is None else self.spec.k
        parts = folds(histograms.by_group, FOLDS, self.spec.seed) if histograms.by_group else []
        if wanted == 0:
            if len(parts) < 2:
                raise TooFewToChoose(len(parts))
            wanted = self._choose(histograms, positions, parts)
            notes.append(f"{name}: {count_text(wanted, 'cluster')} chosen on held-out patients (--k auto)")
        if wanted == 1:
            return replace(self._one_cluster(""), notes=tuple(notes))
        found = self._map(given, wanted, lambda: self._fold_features(histograms, positions, parts))
        if found.k < wanted:
            notes.append(f"{name}: {count_text(found.k, 'cluster')}, since {wanted} could not be told apart")
        return replace(found, notes=(*notes, *(f"{name}: {note}" for note in found.notes)))

    def _one_cluster(self, note: str) -> ClassMap:
        return ClassMap(1, None, (), {}, (note,) if note else ())

    def _map(self, given: Features, k: int, fold_features) -> ClassMap:  # type: ignore[no-untyped-def]
        if self.placing is None:
            return self._boundary(given, k)
        if self.spec.method == "kmeans":
            return self._kmeans(given, k)
        start = self._annuli(given, k)
        return self._as_map(start) if self.spec.method == "annuli" else self._star(given, start, fold_features)

    def _features(self, run: Run, positions: Sequence[int], at: Sequence[np.ndarray] | None = None) -> Features:
        """Of the classes at these positions; side by side where there are several."""
        levels = self.spec.levels or DEFAULT_LEVELS
        made = [
            features(
                self._of(run, position),
                self.n_cells,
                self.kind,
                levels,
                None if at is None else at[number],
                self.arrays.quantiles,
            )
            for number, position in enumerate(positions)
        ]
        return made[0] if len(made) == 1 else side_by_side(made)

    def _of(self, run: Run, position: int) -> Run:
        """One class's part of a run, keys from 0."""
        size = self.n_cells * N_BINS[self.kind]
        low, high = np.searchsorted(run.keys, (position * size, (position + 1) * size))
        return Run(run.keys[low:high] - position * size, run.columns[:, low:high])

    def _kmeans(self, given: Features, k: int) -> ClassMap:
        assert self.placing is not None, "k-means clusters places"
        space = self.placing.field
        smooth = SMOOTH_SHARE * max(space.sides) if self.spec.smooth is None else self.spec.smooth
        smoothed = smooth_features(given, space.shape, [smooth / edge for edge in space.spacing])
        enough = DEFAULT_MIN_COUNT if self.spec.min_count is None else self.spec.min_count
        valid = smoothed.weights >= enough
        note: tuple[str, ...] = ()
        if not valid.any():
            valid, note = smoothed.known, (f"no cell holds {enough} voxels; --min-count 1 was used",)
        found = kmeans(smoothed.values[valid], np.sqrt(smoothed.weights[valid]), k, self.spec.seed, self.arrays.steps)
        labels = np.zeros(len(valid), np.int64)
        labels[valid] = found.labels
        spread = spread_to_rest(labels.reshape(space.shape), valid.reshape(space.shape), space.spacing)
        one = float(np.sqrt(smoothed.weights[valid]) @ (_centred(smoothed, valid) ** 2).sum(axis=1))
        total = float(np.sqrt(smoothed.weights[valid]).sum())
        described = {
            "objective": found.inertia / total, "objective_one_cluster": one / total, "smooth_mm": smooth,
            "cells_used": int(valid.sum()),
        }  # fmt: skip
        return ClassMap(len(found.centres), self._cells(spread), (), described, note)

    def _annuli(self, given: Features, k: int) -> ShellFit:
        assert self.placing is not None, "annuli have a centre in a field"
        space = self.placing.field
        family = self._family(space)
        name = self.spec.objective or "sse"
        if self.spec.method == "star":
            # The paper's eq. 7 is the star's; the start is the same for both.
            return fit_annuli(given, space, family, k, "sse", self.spec.seed)
        fit = fit_annuli_by_evolution if self.spec.optimizer == "de" else fit_annuli
        return fit(given, space, family, k, name, self.spec.seed)

    def _family(self, space: Field) -> Family:
        if space.dimension == 1:
            return Family(1, "circle")
        shape = self.spec.shape or ("ellipse" if space.dimension == 2 else "ellipsoid")
        return Family(space.dimension, shape, self.spec.free_axes)

    def _as_map(self, found: ShellFit) -> ClassMap:
        described = {
            "objective": found.objective,
            "objective_one_cluster": found.objective_one_cluster,
            **_ellipsoid(found),
            "radii": list(found.radii),
        }
        notes = ("the centre lies at the search bound",) if found.at_bound else ()
        return ClassMap(found.k, self._cells(found.labels), (), described, notes)

    def _star(self, given: Features, start: ShellFit, fold_features) -> ClassMap:  # type: ignore[no-untyped-def]
        assert self.placing is not None, "stars have a centre in a field"
        space = self.placing.field
        if start.k == 1 or space.dimension == 1:
            return self._as_map(start)
        paper = self.spec.objective == "paper"
        roughness = -1.0 if self.spec.roughness is None else self.spec.roughness
        if roughness < 0:
            parts = fold_features()
            enough = len(parts) == FOLDS and not paper
            roughness = choose_roughness(parts, space, start, self.spec.order) if enough else USUAL_ROUGHNESS
        shells, value = fit_star(given, space, start, self.spec.order, roughness, paper=paper)
        labels = shells.labels(space.places)
        used, labels = np.unique(labels, return_inverse=True)
        described = {
            "objective": value,
            "objective_one_cluster": start.objective_one_cluster,
            **_ellipsoid(start),
            "radii": list(start.radii),
            "order": DEFAULT_ORDER[space.dimension] if self.spec.order is None else self.spec.order,
            "roughness": roughness,
            "coefficients": shells.coefficients.tolist(),
        }
        notes = ("the centre lies at the search bound",) if start.at_bound else ()
        return ClassMap(len(used), self._cells(labels), (), described, notes)

    def _boundary(self, given: Features, k: int) -> ClassMap:
        costs = _line_costs(given)
        value, cuts = best_runs(costs, k)
        known = np.flatnonzero(given.known)
        inner = sorted({cut for cut in cuts if known[0] < cut <= known[-1]})
        edges = tuple(edge_of(cut, self.width) for cut in inner)
        constant = squared_error(np.zeros((len(given.weights), 1)), given).constant
        described = {"objective": constant + value, "objective_one_cluster": constant + float(costs[0, -1])}
        return ClassMap(len(edges) + 1, None, edges, described)

    def _cells(self, labels: np.ndarray) -> np.ndarray:
        assert self.placing is not None, "cells lie in a field"
        return np.ascontiguousarray(labels.reshape(self.placing.cells).astype(np.uint8))

    def _fold_features(
        self, histograms: MapHistograms, positions: Sequence[int], parts: Sequence[frozenset[str]]
    ) -> list[tuple[Features, Features]]:
        """Per fold: features of the other patients and of those held out, at the same points."""
        points = None
        if self.kind == "ecdf":
            points = [decile_bins(self._of(histograms.all, position)) for position in positions]
        made = []
        for part in parts:
            inside = [run for group, run in histograms.by_group.items() if group in part]
            outside = [run for group, run in histograms.by_group.items() if group not in part]
            if inside and outside:
                training = self._features(join(outside), positions, points)
                held_out = self._features(join(inside), positions, points)
                if training.known.any() and held_out.known.any():
                    made.append((training, held_out))
        return made

    def _choose(self, histograms: MapHistograms, positions: Sequence[int], parts: Sequence[frozenset[str]]) -> int:
        """The number of clusters by held-out pinball loss, one standard error of the best."""
        losses: list[np.ndarray] = []
        for part in parts:
            training = join([run for group, run in histograms.by_group.items() if group not in part])
            held_out = [run for group, run in histograms.by_group.items() if group in part]
            given = self._features(training, positions)
            if not given.known.any():
                continue
            maps = self._candidates(given)
            for run in held_out:
                scored = [self._of(run, position) for position in positions]
                if sum(int(one.columns.sum()) for one in scored):
                    losses.append(self._losses(maps, [self._of(training, p) for p in positions], scored))
        return _smallest_good(np.array(losses)) if losses else 1

    def _candidates(self, given: Features) -> list[np.ndarray]:
        """Labels of the cells for 1, 2, ... clusters. Shells of all numbers share the centre of the usual one."""
        n = len(given.weights)
        whole = np.zeros(n, np.int64)
        numbers = range(2, MOST_CLUSTERS + 1)
        if self.placing is None:
            costs = _line_costs(given)
            return [whole, *(np.searchsorted(best_runs(costs, k)[1], np.arange(n), side="right") for k in numbers)]
        if self.spec.method == "kmeans":
            maps = [self._kmeans(given, k).cells for k in numbers]
            return [whole, *(whole if cells is None else cells.reshape(-1).astype(np.int64) for cells in maps)]
        found = self._annuli(given, DEFAULT_K)
        distance = found.ellipsoid.distance(self.placing.field.places)
        fine = squared_error(self.placing.field.places, given)
        bins = binned(found.ellipsoid.distance(fine.places), 512, float(distance.max()))
        costs = fine.costs(bins)
        return [
            whole,
            *(shell_labels(distance, [cut * bins.width for cut in best_runs(costs, k)[1] if cut]) for k in numbers),
        ]

    def _losses(self, maps: Sequence[np.ndarray], training: Sequence[Run], scored: Sequence[Run]) -> np.ndarray:
        """float64 "number of clusters": mean pinball loss of one held-out patient."""
        n_bins, scores = N_BINS[self.kind], bin_scores(self.kind)
        made = []
        for labels in maps:
            k = int(labels.max()) + 1
            loss, n = 0.0, 0
            for learned, own in zip(training, scored, strict=True):
                table = _by_cluster(learned, labels, k, n_bins)
                held = _by_cluster(own, labels, k, n_bins)
                pooled = table.sum(axis=0)
                running = np.cumsum(np.where(table.sum(axis=1, keepdims=True) > 0, table, pooled), axis=1)
                for level in PINBALL_LEVELS:
                    target = level * running[:, -1:]
                    at = scores[np.minimum((running < target - 1e-9).sum(axis=1), n_bins - 1)]
                    over = scores[None, :] - at[:, None]
                    loss += float((held * np.where(over > 0, level * over, (level - 1) * over)).sum())
                n += int(held.sum())
            made.append(loss / n / len(PINBALL_LEVELS))
        return np.array(made)


def _line_costs(given: Features) -> np.ndarray:
    """Costs of runs of the cells of a line, each a bin of its own."""
    line = np.arange(len(given.weights))
    on = squared_error(line[:, None].astype(np.float64), given)
    return on.costs(Binned(line[given.known], 1.0, len(line)))


def _by_cluster(run: Run, labels: np.ndarray, k: int, n_bins: int) -> np.ndarray:
    key = labels[run.keys // n_bins] * n_bins + run.keys % n_bins
    return np.bincount(key, weights=run.columns[0], minlength=k * n_bins).reshape(k, n_bins)


def _smallest_good(losses: np.ndarray) -> int:
    """losses: "patient number". The smallest number within one standard error, of paired differences, of the best."""
    best = int(losses.mean(axis=0).argmin())
    for number in range(best):
        gap = losses[:, number] - losses[:, best]
        error = gap.std(ddof=1) / np.sqrt(len(gap)) if len(gap) > 1 else 0.0
        if gap.mean() <= error:
            return number + 1
    return best + 1


def _centred(given: Features, valid: np.ndarray) -> np.ndarray:
    weights = np.sqrt(given.weights[valid])
    return given.values[valid] - weights @ given.values[valid] / weights.sum()


def _ellipsoid(found: ShellFit) -> dict[str, Any]:
    return {
        "centre": list(found.ellipsoid.centre),
        "axes": list(found.ellipsoid.axes),
        "angles": list(found.ellipsoid.angles),
    }
