"""Why an array does not reproduce the segmentation beside it.

There are a handful of usual reasons, and each can be tested: undo it, and the agreement becomes 1. They are tried in
a fixed order, from those that make every number wrong to those where the array is right and the segmentation is not.
This runs only after a proof has failed, so it may take many passes over the array.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np

from segcal_cli.core.frozen import dataclass
from segcal_cli.core.volume import Values
from segcal_cli.io.axes import Orientation, fitting
from segcal_cli.io.proof import Agreement, NotReproduced, Painting
from segcal_cli.io.tallies import slabs

REMAINING_SHARE = 0.1
"""A reason counts if undoing it leaves at most this share of the disagreeing voxels: two things can be wrong at once,
a turn and a removed component, say, and the larger one should still be named."""
SIGMOID_NEAR_HALF = 1e-6
"""For a smaller p > 0, sigmoid(p) may round to exactly a half, so whether it was painted is not known."""


@dataclass(frozen=True, slots=True)
class FailedProof:
    """What is known when a proof has failed.

    array: float32 "class z y x", C-contiguous, as it was read. segmentation: encoded, "z y x", of its own shape,
    which may differ. agreement: what was found; all voxels disagree if the shapes differ. other: how the other reader
    would turn the array as read, if there is another.
    """

    array: np.ndarray
    segmentation: np.ndarray
    painting: Painting
    values: Values
    agreement: Agreement
    other: Orientation | None = None

    def explains(self, found: Agreement) -> bool:
        return found.disagreeing <= REMAINING_SHARE * self.agreement.disagreeing


def explain(path: Path, reader: str, beside: Path, failed: FailedProof) -> NotReproduced:
    """The error to raise, with the first reason that holds. beside: the segmentation's file."""
    reason = _turned(failed)
    if failed.array.shape[1:] == failed.segmentation.shape:
        reason = reason or _reordered(failed) or _painted_twice(failed) or _post_processed(failed)
    return NotReproduced(
        path, reader, beside.name, str(failed.agreement), reason or f"Is {beside.name} from the same model and run?"
    )


def _turned(failed: FailedProof) -> str | None:
    """The other reader, then all flips and permutations that fit."""
    found: tuple[Agreement, Orientation] | None = None
    source = failed.array.shape[1:]
    others = [failed.other] if failed.other and failed.other.shape(source) == failed.segmentation.shape else []
    for orientation in (*others, *fitting(source, failed.segmentation.shape)):
        if orientation.identity:
            continue
        # The segmentation is turned back, not the array on to it: it has a sixteenth of the bytes or less.
        turned = failed.painting.compare(failed.array, np.ascontiguousarray(orientation.undo(failed.segmentation)))
        if found is None or turned.disagreeing < found[0].disagreeing:
            found = turned, orientation
        if turned.holds:
            break
    if found is None or not failed.explains(found[0]):
        return None
    return f"With axes {found[1]} it is {found[0]}: wrong reader or orientation"


def _reordered(failed: FailedProof) -> str | None:
    """The best assignment of channels to classes, by how often each channel and each class occur together."""
    from scipy.optimize import linear_sum_assignment

    together = _coincidences(failed)
    # Doubled, so that a bonus of 1 keeps a channel in its place where the counts leave it open.
    channels, classes = linear_sum_assignment(2 * together + np.eye(len(together), dtype=np.int64), maximize=True)
    order = np.empty_like(channels)
    order[classes] = channels
    if (order == np.arange(len(order))).all():
        return None
    found = failed.painting.compare(failed.array, failed.segmentation, order)
    if not failed.explains(found):
        return None
    names = failed.painting.space.names
    inverse = np.argsort(order)
    return (
        f"With channels in the order ({', '.join(names[i] for i in inverse)}) it is {found}: "
        "the class table is not the model's"
    )


def _coincidences(failed: FailedProof) -> np.ndarray:
    """int64 "channel class": voxels where the channel wins and the class is named; for regions, where both are there or
    both are not."""
    painting, n = failed.painting, len(failed.array)
    flat, codes = failed.array.reshape(n, -1), failed.segmentation.reshape(-1)
    counts = np.zeros((n, n), dtype=np.int64)
    # Which codes a region is made of: those of its label values that are painted at all.
    parts = [
        [code for code, value in enumerate(painting.values, 1) if value in channel.values]
        for channel in painting.space.channels
    ]
    for part in slabs(*flat.shape):
        slab, named = flat[:, part], codes[part]
        if painting.exclusive:
            known = named < n
            pairs = slab.argmax(axis=0)[known] * n + named[known]
            counts += np.bincount(pairs, minlength=n * n).reshape(n, n)
        else:
            targets = [np.isin(named, members) for members in parts]
            for channel, row in enumerate(slab):
                painted = row > painting.threshold
                counts[channel] += [np.count_nonzero(painted == target) for target in targets]
    return counts


def _painted_twice(failed: FailedProof) -> str | None:
    """Regions painted from sigmoid(p), which is above a half wherever p > 0."""
    painting = failed.painting
    if painting.exclusive or failed.values != "probabilities":
        return None
    flat, codes = failed.array.reshape(len(failed.array), -1), failed.segmentation.reshape(-1)
    twice = Painting(painting.space, False, painting.values, 0.0)
    for part in slabs(*flat.shape):
        slab = flat[:, part]
        open_to_rounding = ((slab > 0) & (slab < SIGMOID_NEAR_HALF)).any(axis=0)
        if ((twice.paint(slab) != codes[part]) & ~open_to_rounding).any():
            return None
    return (
        "As painted from sigmoid(p) it is 1: nnUNetv2_ensemble before 2.7.0; the .npz is right, "
        "the segmentation is not: --no-prove"
    )


def _post_processed(failed: FailedProof) -> str | None:
    """Every disagreeing voxel is background in the segmentation: components were removed after the model."""
    painting = failed.painting
    flat, codes = failed.array.reshape(len(failed.array), -1), failed.segmentation.reshape(-1)
    for part in slabs(*flat.shape):
        if (codes[part][painting.disagreement(flat[:, part], codes[part])] != painting.background).any():
            return None
    return "The segmentation looks post-processed (components removed): --no-prove accepts it"
