"""Cases made in memory for the tests of calibration."""

from __future__ import annotations

import numpy as np

from segcal_cli.core.case import Case
from segcal_cli.core.labels import Activation, Channel, LabelMap, LabelSpace
from segcal_cli.core.volume import Box, Grid, Stored, Values, Volume


def space_of(count: int, activation: Activation = "softmax") -> LabelSpace:
    """Classes c0, c1, ... with one label value each; sigmoid channels have the values 1, 2, ..."""
    first = 0 if activation == "softmax" and count > 1 else 1
    return LabelSpace(tuple(Channel(f"c{i}", frozenset({first + i})) for i in range(count)), activation)


def regions(*values: set[int]) -> LabelSpace:
    """Sigmoid regions r0, r1, ... of the given label values."""
    return LabelSpace(tuple(Channel(f"r{i}", frozenset(v)) for i, v in enumerate(values)), "sigmoid")


def case_of(
    array: np.ndarray,
    labels: np.ndarray,
    space: LabelSpace,
    values: Values = "logits",
    *,
    name: str = "a",
    group: str | None = None,
    stored: Stored | None = None,
    roi: np.ndarray | None = None,
    ignored: np.ndarray | None = None,
    predicted: Box | None = None,
) -> Case:
    """A case. array: "class voxel" or "class z y x". labels: class indices if exclusive, else bool "class voxel"."""
    flat = array.reshape(len(array), -1)
    shape = (1, 1, flat.shape[1]) if array.ndim == 2 else array.shape[1:]
    count = len(space.channels)
    if space.exclusive:
        codes, members = labels.astype(np.uint8), np.eye(count, dtype=bool)
    else:  # every combination of channels is a code of its own
        codes = (labels.reshape(count, -1) * (1 << np.arange(count))[:, np.newaxis]).sum(axis=0).astype(np.uint8)
        members = (np.arange(1 << count)[np.newaxis] >> np.arange(count)[:, np.newaxis] & 1).astype(bool)
    volume = Volume(
        np.ascontiguousarray(array, dtype=np.float32).reshape(count, *shape),
        Grid(shape),
        values,
        stored or Stored("float32"),
        predicted,
    )
    truth = LabelMap(codes.reshape(shape), members, None if ignored is None else ignored.reshape(shape))
    where = None if roi is None else roi.reshape(shape)
    return Case(name, group or name, space, volume, truth, where)


def binary_cases(n: int, voxels: int, seed: int, slope: float = 0.6, offset: float = -0.4) -> list[Case]:
    """Cases of one channel with labels drawn from sigmoid(slope z + offset)."""
    rng = np.random.default_rng(seed)
    cases = []
    for i in range(n):
        z = rng.normal(-1.0, 3.0, voxels).astype(np.float32)
        y = rng.random(voxels) < 1.0 / (1.0 + np.exp(-(slope * z.astype(np.float64) + offset)))
        cases.append(case_of(z[np.newaxis], y[np.newaxis], space_of(1, "sigmoid"), name=f"case{i:03d}"))
    return cases


def softmax_cases(n: int, voxels: int, seed: int, classes: int = 4, scale: float = 0.5) -> list[Case]:
    """Cases of exclusive classes with labels drawn from softmax(scale x logits)."""
    rng = np.random.default_rng(seed)
    cases = []
    for i in range(n):
        logits = rng.normal(0.0, 2.5, (classes, voxels)).astype(np.float32)
        logits[0] += 1.5
        labels = (scale * logits + rng.gumbel(size=logits.shape)).argmax(axis=0)
        cases.append(case_of(logits, labels, space_of(classes), name=f"case{i:03d}"))
    return cases
