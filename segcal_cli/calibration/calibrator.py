"""Calibrators: fitted parameters, and how they turn raw predictions into calibrated probabilities.

``scores`` serves measurement: float64, with exact logarithms. ``apply`` serves writing: it works through a volume in
short runs of voxels, in float64, and casts once. A cast can make two channels equal that were not, and so move the
argmax; for methods that keep decisions the former winner is raised by one unit in the last place there, so that the
decision of what is written is exactly that of what was read.
"""

from __future__ import annotations

from dataclasses import replace
from typing import Literal

import numpy as np

from segcal_cli.calibration import fine_tuning, local, temperature
from segcal_cli.calibration.affine import LINEAR_METHODS, features
from segcal_cli.calibration.auxiliary import Surroundings, calibrated
from segcal_cli.calibration.canonical import CHUNK_VOXELS, kind_of, log_odds
from segcal_cli.calibration.equipment import Device, LastLayer
from segcal_cli.calibration.likelihood import sigmoid, softplus
from segcal_cli.calibration.linear import inputs
from segcal_cli.calibration.local import LocalNetwork
from segcal_cli.calibration.method import Method, Sketched
from segcal_cli.calibration.nesting import families_of, nested, project
from segcal_cli.calibration.registry import METHODS, joint
from segcal_cli.core.frozen import dataclass
from segcal_cli.core.labels import LabelSpace
from segcal_cli.core.scores import TINY, Scores, log_softmax, scores_of, scores_of_log_odds, scores_of_log_softmax
from segcal_cli.core.volume import Grid, Stored, Values, Volume

WrittenType = Literal["float32", "float16", "uint16"]
"""float32, float16, or uint16 in steps of 1/65535."""

UINT16_STEPS = 65535

CACHED_VOXELS = 1 << 12
"""Voxels that are calibrated at a time: a few float64 arrays of some classes stay in a core's cache."""

SMALLEST_LOGGED = 2.0**-1000
"""Above this a float64 has all its digits, and so has its logarithm."""


@dataclass(frozen=True, slots=True)
class Applied:
    """Calibrated probabilities of one volume.

    array: "class z y x" of the written type. repaired: voxels (of a channel, under sigmoid) whose decision the cast
    would have moved. projected: voxels whose regions were not nested. kept_raw: voxels where every class vanished,
    left as read.
    """

    array: np.ndarray
    repaired: int
    projected: int
    kept_raw: int


@dataclass(frozen=True, slots=True)
class Calibrator:
    """Parameters of one method for one class table.

    rows: float64 "problem parameter", one row per binary problem (``space.measured``), or one row in all for a softmax
    temperature. project: whether probabilities of nested regions are made to nest. hood: what a voxel sees, of a
    method that looks at neighbours. network: of the local method, None where T0 alone was kept. Methods that look at
    neighbours or features need ``pointwise`` first. raw: whether it is given predictions as they are. device: of
    convolutions. layer: as it was before fine-tuning, where features are still to be held against predictions.
    """

    method: str
    space: LabelSpace
    rows: np.ndarray
    project: bool = True
    hood: Surroundings | None = None
    raw: bool = True
    network: LocalNetwork | None = None
    device: Device = "cpu"
    layer: LastLayer | None = None

    @property
    def record(self) -> Method:
        return METHODS[self.method]

    def arrays(self) -> dict[str, np.ndarray]:
        """Everything that was fitted, for an artifact."""
        return {"parameters": self.rows, **({} if self.network is None else self.network.arrays())}

    def pointwise(self, volume: Volume) -> tuple[Calibrator, Volume]:
        """A calibrator for single voxels and what it is given. Methods for single voxels: themselves, and the volume as
        it is. Raises FeaturesNeeded, ImageNeeded."""
        problems = len(self.space.measured)
        if self.method == local.METHOD.name:
            if self.network is None:
                return self._temperature(self.rows), volume
            return self._temperature(np.ones_like(self.rows)), local.scaled(
                volume, self.space, self.temperatures(volume)
            )
        if self.method == fine_tuning.METHOD.name:
            given = fine_tuning.tuned(volume, self.space, self.rows.reshape(problems, -1), self.layer, self.device)
        elif self.hood is not None:
            given = calibrated(volume, self.space, self.rows.reshape(problems, -1), self.hood, self.device)
        else:
            return self, volume
        return replace(self._alone(np.ones(problems), np.zeros(problems)), raw=False), given

    def temperatures(self, volume: Volume) -> np.ndarray:
        """float32 T "z y x" of the local method. Raises ImageNeeded."""
        if self.network is None:
            return np.full(volume.array.shape[1:], self.rows[0, 0], dtype=np.float32)
        assert self.hood is not None, "a network sees surroundings"
        return local.temperatures(volume, self.space, self.network, self.hood, self.device)

    def amid_equals(self, slab: np.ndarray) -> np.ndarray:
        """float64 calibrated p of probabilities float32 "class voxel", each amid neighbours that are all like it, and
        in a scan of one grey."""
        single, stored = self, Stored("float32")
        if self.network is not None:
            # Volumes of one voxel: beyond their ends they go on as they are.
            shape = (len(slab), 1, 1, 1)
            ones = [
                Volume(slab[:, i].reshape(shape), Grid(shape[1:]), "probabilities", stored, image=np.zeros(shape[1:]))
                for i in range(slab.shape[1])
            ]
            pairs = [self.pointwise(one) for one in ones]
            return np.concatenate(
                [one.scores(given.array.reshape(len(slab), 1), given.values, stored).p for one, given in pairs], axis=1
            )
        if self.method == local.METHOD.name:
            single = self._temperature(self.rows)
        elif self.hood is not None:
            weights = self.rows.reshape(len(self.space.measured), -1)
            single = self._alone(weights[:, :-1].sum(axis=1), weights[:, -1])
        return single.scores(slab, "probabilities", stored).p

    def _temperature(self, rows: np.ndarray) -> Calibrator:
        """Temperature scaling by T; one for all classes."""
        return Calibrator(temperature.METHOD.name, self.space, rows, self.project)

    def _alone(self, slopes: np.ndarray, offsets: np.ndarray) -> Calibrator:
        """A calibrator of single voxels with a slope and an offset for each problem."""
        if kind_of(self.space) == "softmax":
            row = np.concatenate([np.diag(slopes), offsets[:, np.newaxis]], axis=1).reshape(1, -1)
            return Calibrator("vector", self.space, row, self.project)
        return Calibrator("platt", self.space, np.stack([slopes, offsets], axis=1), self.project)

    def scores(self, slab: np.ndarray, values: Values, stored: Stored) -> Scores:
        """Calibrated scores, float64, of raw stored numbers float32 "class voxel".

        Logarithms are exact: given with the scores, or left to be taken of a p that has all its digits.
        """
        if not self.space.exclusive:
            return self._independent(slab, values, stored)
        p = np.empty(slab.shape)
        for start in range(0, slab.shape[1], CACHED_VOXELS):
            where = slice(start, start + CACHED_VOXELS)
            p[:, where] = self._probabilities(slab[:, where], values, stored)[0]
        if p.min(initial=1.0) < SMALLEST_LOGGED:
            return self._exact(slab, values, stored)
        return Scores(p, True, TINY, TINY)

    def _exact(self, slab: np.ndarray, values: Values, stored: Stored) -> Scores:
        """Scores of exclusive classes by way of their logarithms, which do not underflow."""
        kind = kind_of(self.space)
        if joint(self.record, self.space):
            return scores_of_log_softmax(log_softmax(self._inputs(slab, values, stored)))
        u = self._log_odds(slab, values, stored)
        if kind == "softmax":
            return self._against_rest(u, slab, values, stored)
        return scores_of_log_softmax(self._both(-softplus(-u), -softplus(u)))

    def _independent(self, slab: np.ndarray, values: Values, stored: Stored) -> Scores:
        """Scores of channels that may overlap."""
        p, log_p, log_q = (np.empty(slab.shape) for _ in range(3))
        families = bool(self._families())
        for start in range(0, slab.shape[1], CACHED_VOXELS):
            where = slice(start, start + CACHED_VOXELS)
            u = self._log_odds(slab[:, where], values, stored)
            part = scores_of_log_odds(u)
            if families:
                self._project_scores(part, u)
            p[:, where], log_p[:, where], log_q[:, where] = part.p, part.log_p, part.log_q
        return Scores(p, False, TINY, TINY, log_p, log_q)

    def apply(self, array: np.ndarray, values: Values, stored: Stored, dtype: WrittenType = "float32") -> Applied:
        """Calibrated probabilities of a volume float32 "class z y x"."""
        flat = array.reshape(len(array), -1)
        out = np.empty(flat.shape, dtype=dtype)
        repaired = projected = kept_raw = 0
        families = self._families()
        for start in range(0, flat.shape[1], CHUNK_VOXELS):
            where = slice(start, start + CHUNK_VOXELS)
            slab = flat[:, where]
            p, kept = self._probabilities(slab, values, stored)
            kept_raw += kept
            if families:
                projected += int(np.count_nonzero(project(p, families)))
            written = p if dtype != "uint16" else np.rint(p * UINT16_STEPS)
            out[:, where] = written
            if self.record.keeps_decisions:
                repaired += self._repair(slab, values, out[:, where])
        return Applied(out.reshape(array.shape), repaired, projected, kept_raw)

    def _probabilities(self, slab: np.ndarray, values: Values, stored: Stored) -> tuple[np.ndarray, int]:
        """float64 p "class voxel" before the projection, and how many voxels keep their raw probabilities."""
        kind = kind_of(self.space)
        if joint(self.record, self.space):
            power = self._inputs(slab, values, stored)
            np.exp(power, out=power)
            power /= power.sum(axis=0)
            return power, 0
        u = self._log_odds(slab, values, stored)
        if kind == "softmax":
            p = sigmoid(u)
            vanished = p.max(axis=0) < TINY
            if vanished.any():
                return self._against_rest(u, slab, values, stored).p, int(np.count_nonzero(vanished))
            p /= p.sum(axis=0)
            return p, 0
        return (self._both(sigmoid(u), sigmoid(-u)) if self.space.exclusive else sigmoid(u)), 0

    def _both(self, foreground: np.ndarray, background: np.ndarray) -> np.ndarray:
        """The channels of two exclusive classes, in their order."""
        return np.concatenate([foreground, background] if self.space.foreground == 0 else [background, foreground])

    def _inputs(self, slab: np.ndarray, values: Values, stored: Stored) -> np.ndarray:
        """float64 "class voxel" that goes into the softmax, up to a constant per voxel that makes the largest 0."""
        if self.method not in LINEAR_METHODS:
            return self._cooled(slab, values, stored)
        classes = len(self.space.channels)
        u = inputs(self.rows.reshape(classes, classes + 1), features(self.method, slab, values, stored)[np.newaxis])
        u -= u.max(axis=0)
        return u

    def _cooled(self, slab: np.ndarray, values: Values, stored: Stored) -> np.ndarray:
        """float64 l/T "class voxel", up to a constant per voxel that makes the largest 0."""
        wide = slab.astype(np.float64)
        if values == "probabilities":
            np.log(np.maximum(wide, stored.floor, out=wide), out=wide)
        wide -= wide.max(axis=0)
        wide /= self.rows[0, 0]
        return wide

    def _log_odds(self, slab: np.ndarray, values: Values, stored: Stored) -> np.ndarray:
        record = self.record
        assert isinstance(record, Sketched), "what goes into a softmax has gone another way"
        z = log_odds(slab, values, stored, self.space)
        return np.stack([record.log_odds(row, z[i]) for i, row in enumerate(self.rows)])

    def _against_rest(self, u: np.ndarray, slab: np.ndarray, values: Values, stored: Stored) -> Scores:
        """One-vs-rest probabilities divided by their sum; where all of them vanish, the raw ones stand."""
        log_p = -softplus(-u)
        best = log_p.max(axis=0)
        vanished = best < np.log(TINY)
        log_p -= best
        log_p -= np.log(np.exp(log_p).sum(axis=0))
        if vanished.any():
            raw = scores_of(slab[:, vanished], values, stored, exclusive=True)
            log_p[:, vanished] = np.log(np.maximum(raw.p, raw.floor)) if raw.log_p is None else raw.log_p
        return scores_of_log_softmax(log_p)

    def _families(self) -> tuple:
        # One increasing map for all channels cannot break an order.
        one_map = self.raw and bool((self.rows == self.rows[:1]).all()) and self.record.slope(self.rows[0]) > 0.0
        return () if not self.project or one_map else families_of(self.space)

    def _project_scores(self, scores: Scores, u: np.ndarray) -> None:
        """Project p and, by the mirrored order, 1 - p, so that both keep their relative precision near 0."""
        families = self._families()
        assert scores.log_p is not None, "log-odds have exact logarithms"
        assert scores.log_q is not None, "log-odds have exact logarithms"
        p = scores.p.copy()
        changed = project(p, families)
        if not changed.any():
            return
        # p nests downwards exactly if -(1 - p) does.
        minus_q = -sigmoid(-u[:, changed])
        project(minus_q, families)
        scores.p[:, changed] = p[:, changed]
        scores.log_p[:, changed] = np.log(np.maximum(p[:, changed], TINY))
        scores.log_q[:, changed] = np.log(np.maximum(-minus_q, TINY))

    def _repair(self, slab: np.ndarray, values: Values, written: np.ndarray) -> int:
        """Raise the former winner where the cast moved the decision, in place; how many voxels that were."""
        if self.space.exclusive:
            winner = slab.argmax(axis=0)
            moved = np.flatnonzero(written.argmax(axis=0) != winner)
            written[winner[moved], moved] = _next_up(written[:, moved].max(axis=0))
            return int(moved.size)
        decided = slab > (0.0 if values == "logits" else 0.5)
        half = written.dtype.type(UINT16_STEPS // 2 if written.dtype == np.uint16 else 0.5)
        moved = (written > half) != decided
        if self._families():
            # Decisions that were not nested are what the projection is there to change.
            moved &= nested(decided, self._families())
        count = int(np.count_nonzero(moved))
        if count:
            written[moved] = np.where(decided[moved], _next_up(half), half)
        return count


def _next_up(values: np.ndarray) -> np.ndarray:
    if values.dtype == np.uint16:
        return values + np.uint16(1)
    return np.nextafter(values, values.dtype.type(2))
