"""Views: what cluster maps look at in a scan. Its frame, the region of interest, and what the network decided.

Everything here is known without labels, so that a map may use it and the promise stands.
"""

from __future__ import annotations

from functools import cached_property

import numpy as np

from segcal_cli.core.case import Case
from segcal_cli.core.frozen import dataclass
from segcal_cli.kandinsky.frames import Frame


@dataclass(frozen=True, slots=True)
class AtlasCase(Case):
    """A case with the atlas that belongs to it. atlas: integers "z y x" on the case's grid."""

    atlas: np.ndarray | None = None


@dataclass(frozen=True)
class View:
    """A case, seen by a cluster map."""

    case: Case

    @cached_property
    def frame(self) -> Frame:
        return Frame.of(self.case.volume.grid)

    @property
    def shape(self) -> tuple[int, int, int]:
        return self.case.volume.grid.shape

    @property
    def atlas(self) -> np.ndarray | None:
        return self.case.atlas if isinstance(self.case, AtlasCase) else None

    @cached_property
    def flat(self) -> np.ndarray:
        """float32 "class voxel": the numbers of the prediction."""
        array = self.case.volume.array
        return array.reshape(len(array), -1)

    @cached_property
    def winner(self) -> np.ndarray:
        """uint8 "z y x" (uint16 beyond 256 classes): the most probable class, the first among equals."""
        array = self.case.volume.array
        best = array[0].copy()
        winner = np.zeros(array.shape[1:], np.uint8 if len(array) <= 256 else np.uint16)
        for channel in range(1, len(array)):
            more = array[channel] > best
            winner[more] = channel
            np.copyto(best, array[channel], where=more)
        return winner

    def predicted(self, channel: int) -> np.ndarray:
        """bool "z y x": the hard decision for a class: argmax, or p > 1/2 of an independent region."""
        if self.case.space.exclusive:
            return self.winner == channel
        return self.case.volume.array[channel] > (0.0 if self.case.volume.values == "logits" else 0.5)

    @cached_property
    def roi_box(self) -> list[tuple[int, int]] | None:
        """Half-open index ranges of the region of interest along the canonical axes."""
        if self.case.roi is None:
            return None
        inside = self.frame.canonical(self.case.roi)
        return [_range(np.any(inside, axis=tuple(other for other in range(3) if other != axis))) for axis in range(3)]

    def middle_of(self, channel: int) -> tuple[float, ...] | None:
        """Centroid of the predicted mask of a class, as canonical indices; None where it is predicted nowhere."""
        mask = self.frame.canonical(self.predicted(channel))
        profiles = [mask.sum(axis=tuple(other for other in range(3) if other != axis)) for axis in range(3)]
        total = int(profiles[0].sum())
        if not total:
            return None
        return tuple(float((profile * np.arange(len(profile))).sum() / total) for profile in profiles)

    @cached_property
    def counted(self) -> np.ndarray | None:
        """bool "z y x": voxels that exist, padding included; None for all."""
        return self.case.counted(padding=True)

    def truth(self, channel: int) -> np.ndarray:
        """int64: flat indices of the voxels that exist and belong to a class."""
        return np.flatnonzero(self.holds(channel))

    def holds(self, channel: int) -> np.ndarray:
        """bool "voxel": whether it exists and belongs to a class."""
        labels = self.case.labels
        assert labels is not None, "asked of labelled cases only"
        held = labels.holds(channel)
        if self.counted is not None:
            held = held & self.counted
        return held.reshape(-1)


def _range(used: np.ndarray) -> tuple[int, int]:
    where = np.flatnonzero(used)
    return int(where[0]), int(where[-1]) + 1
