"""Cases from bare arrays, and the reference numbers, for the tests of metrics."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from segcal_cli.core.case import Case
from segcal_cli.core.labels import Channel, LabelMap, LabelSpace
from segcal_cli.core.scores import scores_of
from segcal_cli.core.volume import Box, Grid, Stored, Values, Volume
from segcal_cli.metrics.measures import CaseMeasures, Settings, measure_case

REFERENCE = np.load(Path(__file__).parent / "fixtures" / "calibration.npz")

BINARY = LabelSpace((Channel("lesion", frozenset({1})),), "sigmoid")


def softmax_space(classes: int) -> LabelSpace:
    return LabelSpace(tuple(Channel(f"c{i}", frozenset({i})) for i in range(classes)), "softmax")


def volume_case(
    array: np.ndarray,
    labels: LabelMap,
    space: LabelSpace,
    *,
    name: str = "case",
    group: str | None = None,
    values: Values = "probabilities",
    roi: np.ndarray | None = None,
    predicted: Box | None = None,
    spacing: float | None = 1.0,
) -> Case:
    """A case whose array is "class z y x"; missing axes are added in front."""
    shape = (1,) * (3 - (array.ndim - 1)) + array.shape[1:]
    affine = None if spacing is None else np.diag([spacing, spacing, spacing, 1.0])
    volume = Volume(
        np.ascontiguousarray(array, np.float32).reshape(len(array), *shape),
        Grid(shape, affine),
        values,
        Stored("float32"),
        predicted,
    )
    labels = LabelMap(
        labels.codes.reshape(shape), labels.members, None if labels.ignored is None else labels.ignored.reshape(shape)
    )
    roi = None if roi is None else roi.reshape(shape)
    return Case(name, group or name, space, volume, labels, roi)


def binary_case(p: np.ndarray, y: np.ndarray, **more) -> Case:
    """One channel. p, y: any shape of up to three axes."""
    return volume_case(p[None], LabelMap(y.astype(np.uint8), np.array([[False, True]])), BINARY, **more)


def softmax_case(p: np.ndarray, labels: np.ndarray, **more) -> Case:
    """Exclusive channels. p: "class ..."; labels: class indices."""
    members = np.eye(len(p), dtype=bool)
    return volume_case(p, LabelMap(labels.astype(np.uint8), members), softmax_space(len(p)), **more)


def region_case(p: np.ndarray, y: np.ndarray, **more) -> Case:
    """Independent channels that may overlap. p, y: "class ..."; the codes number the combinations of regions."""
    channels = tuple(Channel(f"r{i}", frozenset({i + 1})) for i in range(len(p)))
    combination = (y.astype(np.uint8) << np.arange(len(p), dtype=np.uint8).reshape(-1, *[1] * (y.ndim - 1))).sum(axis=0)
    members = (np.arange(1 << len(p)) >> np.arange(len(p))[:, None]) & 1
    labels = LabelMap(combination.astype(np.uint8), members.astype(bool))
    return volume_case(p, labels, LabelSpace(channels, "sigmoid"), **more)


def measured(case: Case, settings: Settings | None = None, threads: int = 1) -> CaseMeasures:
    """The case as it is, measured."""
    volume = case.volume
    source = lambda raw: scores_of(raw, volume.values, volume.stored, exclusive=case.space.exclusive)  # noqa: E731
    return measure_case(case, {"raw": source}, settings or Settings(), threads)["raw"]


def random_softmax(rng: np.random.Generator, classes: int, voxels: int, spread: float = 3.0) -> np.ndarray:
    """float32 "class voxel" probabilities."""
    z = rng.normal(scale=spread, size=(classes, voxels))
    p = np.exp(z - z.max(axis=0))
    return (p / p.sum(axis=0)).astype(np.float32)
