"""Prediction sets: for every voxel the classes that are still possible.

C_alpha(v) holds class c where the voxel's code for c is at most the threshold of its cluster. Equivalently where its
p-value exceeds alpha. A class without calibration data in a cluster stands in every set there.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal

import numpy as np

from segcal_cli.core.frozen import dataclass
from segcal_cli.kandinsky.codes import INFINITE, score_codes
from segcal_cli.kandinsky.model import Model
from segcal_cli.kandinsky.regions import Clusters
from segcal_cli.kandinsky.views import View

Empty = Literal["top1", "allow"]


@dataclass(frozen=True)
class ClassView:
    """One class in one scan. codes: uint16 "voxel", shifted as the model's; clusters: of every voxel."""

    channel: int
    codes: np.ndarray
    clusters: Clusters

    def admitted(self, thresholds: np.ndarray) -> np.ndarray:
        """bool "voxel": codes at or below the cluster's threshold. thresholds: "cluster + 1"."""
        if self.clusters.index is None:
            return np.less_equal(self.codes, thresholds[0])
        return np.less_equal(self.codes, thresholds[self.clusters.index])

    def infinite(self, thresholds: np.ndarray) -> np.ndarray | bool:
        """bool "voxel", or one for all: where the threshold is infinite."""
        if self.clusters.index is None:
            return bool(thresholds[0] == INFINITE)
        where: np.ndarray = np.asarray(thresholds == INFINITE)[self.clusters.index]
        return where


def class_view(model: Model, view: View, channel: int) -> ClassView:
    """Codes and clusters of one class everywhere. Raises AtlasNotWhole."""
    volume = view.case.volume
    codes = score_codes(view.flat, volume.values, channel, exclusive=model.space.exclusive)
    if model.shift:
        codes >>= np.uint16(model.shift)
    return ClassView(channel, codes, model.regions.clusters(view, channel))


def members(classes: Sequence[ClassView], thresholds: Sequence[np.ndarray]) -> np.ndarray:
    """bool "class voxel": the sets, before anything is done about empty ones."""
    held = np.empty((len(classes), classes[0].codes.size), bool)
    for row, one, limit in zip(held, classes, thresholds, strict=True):
        row[:] = one.admitted(limit)
    return held


def fill_empty(held: np.ndarray, view: View) -> np.ndarray:
    """bool "voxel": sets that were empty and got the most probable class. In place; sets only grow."""
    empty: np.ndarray = np.logical_not(held.any(axis=0))
    where = np.flatnonzero(empty)
    held[view.winner.reshape(-1)[where], where] = True
    return empty


def bit_flags(held: np.ndarray) -> np.ndarray:
    """Bit c = class c: uint8, uint16 or uint32 "voxel". held: bool "class voxel", at most 32 classes."""
    kind = np.uint8 if len(held) <= 8 else np.uint16 if len(held) <= 16 else np.uint32
    flags = np.zeros(held.shape[1], kind)
    for channel, row in enumerate(held):
        np.bitwise_or(flags, row.astype(kind) << kind(channel), out=flags)
    return flags


def p_values(model: Model, one: ClassView) -> np.ndarray:
    """float64 "voxel": the smallest level at which the class leaves the set; 1 where there is no data."""
    pools = model.of(one.channel)
    if one.clusters.index is None:
        return pools.p_values(np.zeros(one.codes.size, np.uint8), one.codes, model.weighting)
    inside = one.clusters.index < pools.n_slots
    if inside.all():
        return pools.p_values(one.clusters.index, one.codes, model.weighting)
    p = np.ones(one.codes.size)
    p[inside] = pools.p_values(one.clusters.index[inside], one.codes[inside], model.weighting)
    return p


def rounded_down(p: np.ndarray) -> np.ndarray:
    """float32, toward zero: .1 in float32 is a hair more than .1, and would pass p > .1."""
    single = p.astype(np.float32)
    above = single.astype(np.float64) > p
    single[above] = np.nextafter(single[above], np.float32(0))
    return single


def levels_at(model: Model, one: ClassView, where: np.ndarray, n_levels: int) -> np.ndarray:
    """uint8 "n": the smallest m = 1..M such that the set at alpha = 1 - m/M holds the class; M (everything) at the
    latest. where: flat indices."""
    codes = one.codes[where]
    clusters = one.clusters.at(where)
    level = np.ones(where.size, np.uint8 if n_levels < 256 else np.uint16)
    for m in range(1, n_levels):
        np.add(level, codes > model.thresholds(one.channel, 1 - m / n_levels)[clusters], out=level)
    return level
