"""What a fit keeps of one case: the statistics of its family, and the facts that warnings are made of.

The statistics stand for all voxels of the case. Folds, bootstrap over patients and weights of cases are then
arithmetic on them, and no voxel is read again.
"""

from __future__ import annotations

from dataclasses import replace
from typing import Protocol

import numpy as np

from segcal_cli.calibration.canonical import (
    Chunk,
    chunks,
    kind_of,
    log_odds,
    log_probabilities,
    ordered_map,
    zero_where_true,
)
from segcal_cli.calibration.likelihood import sigmoid
from segcal_cli.calibration.linear import Voxels
from segcal_cli.calibration.method import Family
from segcal_cli.calibration.nodes import ROUNDING_MATTERS, NodeSums, added, node_sums
from segcal_cli.calibration.recipes import Slices
from segcal_cli.calibration.sampling import MOST_NUMBERS, draw, generator, unsure
from segcal_cli.calibration.sketch import BINS, SUMS, Sketch, sketch_of, table_of
from segcal_cli.calibration.tiles import Tile
from segcal_cli.core.case import Case
from segcal_cli.core.errors import FitError, LabelError
from segcal_cli.core.frozen import dataclass
from segcal_cli.core.volume import Stored


class NoTruthToFit(LabelError):
    """A case without labels cannot be fitted."""

    template = "{0}: no label volume, so nothing can be fitted"


class NothingToFit(LabelError):
    """Padding, the region of interest and the ignore label leave no voxel."""

    template = "{0}: the region of interest, the ignore label and padding leave no voxel to fit"


class TwiceTheSameCase(FitError):
    """A case came in twice."""

    template = "{0}: this case was read twice; every case counts once"


@dataclass(frozen=True, slots=True)
class CaseStatistics:
    """One case. sketches: one per binary problem, or () for the nodes family, whose sums are in ``nodes``.

    voxels: counted ones. zeros: int64 "problem", voxels of the class whose stored probability is 0. constant: every
    channel holds one value only. hard: stored probabilities are all exactly 0 or 1. roi: whether a region was given.
    counted_share: voxels counted, of the grid without padding. sample, positives: sample family only; a few voxels, and
    int64 "class", voxels of each class in all. slices, whole: of fits by a published recipe, of convolutions or of
    features. tiles: network family only. spacing_mm: voxel edges along x, y and z.
    """

    case: str
    group: str
    voxels: int
    sketches: tuple[Sketch, ...]
    nodes: NodeSums | None
    zeros: np.ndarray
    constant: bool
    hard: bool
    stored: Stored
    padding_share: float
    counted_share: float
    roi: bool
    sample: Voxels | None = None
    positives: np.ndarray | None = None
    slices: Slices | None = None
    whole: Voxels | None = None
    tiles: tuple[Tile, ...] = ()
    spacing_mm: tuple[float, float, float] | None = None


class Sampler(Protocol):
    """Chooses voxels and brings their features. numbers: kept per voxel."""

    @property
    def numbers(self) -> int: ...

    def sample(self, case: Case, places: np.ndarray) -> np.ndarray: ...


@dataclass(frozen=True, slots=True)
class Sampled:
    """How a case is sampled. most: voxels; features: what is kept of each."""

    most: int
    seed: int
    features: Sampler


@dataclass(frozen=True, slots=True)
class _Partial:
    """A chunk's share of the statistics. low, high: float32 "class". tables: float64 "problem 5 bin" or None."""

    voxels: int
    tables: np.ndarray | None
    nodes: NodeSums | None
    zeros: np.ndarray
    low: np.ndarray
    high: np.ndarray
    soft: bool
    worth: np.ndarray | None = None


def statistics_of(
    case: Case, family: Family, *, squares: bool, threads: int = 1, sampled: Sampled | None = None
) -> CaseStatistics:
    """Read one labelled case. squares: whether the nodes family keeps the Brier sums too. sampled: sample family only.

    The result does not depend on the number of threads. Raises NoTruthToFit, NothingToFit.
    """
    if case.labels is None:
        raise NoTruthToFit(case.id)
    counted = case.counted(padding=False)
    voxels = case.labels.codes.size if counted is None else int(np.count_nonzero(counted))
    if voxels == 0:
        raise NothingToFit(case.id)
    reader = _Reader(case, family, squares, voxels > ROUNDING_MATTERS, sampled is not None)
    problems = len(case.space.measured)
    tables = np.zeros((problems, SUMS, BINS))
    sums: list[NodeSums] = []
    zeros = np.zeros(problems, dtype=np.int64)
    low, high = np.full(len(case.space.channels), np.inf), np.full(len(case.space.channels), -np.inf)
    soft = False
    worth: list[np.ndarray] = []
    for part in ordered_map(reader.read, chunks(case), threads):
        if part.tables is not None:
            tables += part.tables
        if part.nodes is not None:
            sums.append(part.nodes)
        if part.worth is not None:
            worth.append(part.worth)
        zeros += part.zeros
        low, high = np.minimum(low, part.low), np.maximum(high, part.high)
        soft |= part.soft
    sample = None if sampled is None else _sample_of(case, np.concatenate(worth), sampled)
    grid = case.labels.codes.size
    predicted = 1.0 - case.padding_share
    return CaseStatistics(
        case=case.id,
        group=case.group,
        voxels=voxels,
        sketches=tuple(sketch_of(table) for table in tables) if family == "sketch" else (),
        nodes=added(sums) if sums else None,
        zeros=zeros,
        constant=bool((low == high).all()),
        hard=case.volume.values == "probabilities" and not soft,
        stored=case.volume.stored,
        padding_share=case.padding_share,
        counted_share=voxels / (grid * predicted),
        roi=case.roi is not None,
        sample=sample,
        positives=None if sample is None else _positives(case),
        spacing_mm=case.volume.grid.spacing_mm,
    )


def whole_of(case: Case, seed: int, features: Sampler) -> Voxels:
    """All counted voxels of a case; of too many some, drawn by the case's name, each for as many as it stands for."""
    assert case.labels is not None, "fits need labels"
    counted = case.counted(padding=False)
    voxels = case.labels.codes.size if counted is None else int(np.count_nonzero(counted))
    most = max(1, MOST_NUMBERS // features.numbers)
    places = np.arange(voxels)
    if voxels > most:
        places = np.sort(generator(seed, case.id).choice(voxels, most, replace=False))
    return _voxels_at(case, places, np.full(len(places), voxels / len(places)), features)


def _sample_of(case: Case, worth: np.ndarray, sampled: Sampled) -> Voxels:
    """The sampled voxels of a case. worth: "voxel", of the counted ones."""
    most = min(sampled.most, max(1, MOST_NUMBERS // sampled.features.numbers))
    places, weights = draw(worth, most, generator(sampled.seed, case.id))
    return _voxels_at(case, places, weights, sampled.features)


def _voxels_at(case: Case, places: np.ndarray, weights: np.ndarray, features: Sampler) -> Voxels:
    """Some voxels of a case. places: int64, among the counted ones."""
    assert case.labels is not None, "fits need labels"
    counted = case.counted(padding=False)
    if counted is not None:
        places = np.flatnonzero(counted.reshape(-1))[places]
    truth = case.labels.members[:, case.labels.codes.reshape(-1)[places]]
    if case.space.binary:
        truth = truth[list(case.space.measured)]
    return Voxels(features.sample(case, places), truth, weights)


def _positives(case: Case) -> np.ndarray:
    """int64 "problem": counted voxels of each class."""
    assert case.labels is not None, "fits need labels"
    counted, codes = case.counted(padding=False), case.labels.codes
    kept = codes if counted is None else codes[counted]
    counts = np.bincount(kept.reshape(-1), minlength=case.labels.members.shape[1])
    return case.labels.members[list(case.space.measured)] @ counts


@dataclass(frozen=True, slots=True)
class _Reader:
    case: Case
    family: Family
    squares: bool
    single: bool
    sampled: bool

    def read(self, chunk: Chunk) -> _Partial:
        """Statistics of one chunk; threads share the reader."""
        case, volume = self.case, self.case.volume
        assert case.labels is not None
        members = case.labels.members
        partial = _Partial(
            voxels=chunk.codes.size,
            tables=None,
            nodes=None,
            zeros=np.zeros(len(case.space.measured), dtype=np.int64),
            low=chunk.array.min(axis=1),
            high=chunk.array.max(axis=1),
            soft=True,
        )
        if volume.values == "probabilities":
            zeros = zero_where_true(chunk, members, case.space)
            partial = replace(partial, zeros=zeros, soft=bool(((chunk.array > 0.0) & (chunk.array < 1.0)).any()))
        if self.sampled:
            partial = replace(partial, worth=self._worth(chunk))
        if self.family == "sample":
            return partial
        if self.family == "nodes":
            logs = log_probabilities(chunk.array, volume.values, volume.stored)
            return replace(partial, nodes=node_sums(logs, chunk.codes, squares=self.squares, single=self.single))
        z = log_odds(chunk.array, volume.values, volume.stored, case.space)
        rows = [table_of(z[i], members[c][chunk.codes]) for i, c in enumerate(case.space.measured)]
        return replace(partial, tables=np.stack(rows))

    def _worth(self, chunk: Chunk) -> np.ndarray:
        """float64 "voxel": how much sampling each voxel is worth."""
        volume, space = self.case.volume, self.case.space
        if kind_of(space) == "softmax":
            p = np.exp(log_probabilities(chunk.array, volume.values, volume.stored))
            return unsure(p, exclusive=True)
        return unsure(sigmoid(log_odds(chunk.array, volume.values, volume.stored, space)), exclusive=False)
