"""What nnU-Net leaves on disk, made from random fields whose classes are known beforehand."""

from __future__ import annotations

import json
from pathlib import Path

import nibabel.orientations as nio
import numpy as np

from segcal_cli.core.labels import Channel, LabelSpace

AXIS_DIRECTIONS = {"R": (0, 1), "L": (0, -1), "A": (1, 1), "P": (1, -1), "S": (2, 1), "I": (2, -1)}


def softmax_space(n: int) -> LabelSpace:
    names = ("background", *(f"class {i}" for i in range(1, n)))
    return LabelSpace(tuple(Channel(name, frozenset({i})) for i, name in enumerate(names)), "softmax")


def region_space() -> LabelSpace:
    """Three nested regions, whose order is not that of the alphabet, and an ignore value."""
    regions = {"whole": {1, 2, 3}, "core": {2, 3}, "active": {3}}
    channels = tuple(Channel(name, frozenset(values)) for name, values in regions.items())
    return LabelSpace(channels, "sigmoid", ignore=4, paint=(1, 2, 3))


def softmax_field(shape: tuple[int, int, int], n: int, seed: int = 0) -> tuple[np.ndarray, np.ndarray]:
    """Probabilities (float32 "class z y x") and the label (uint8 "z y x") that is the most probable in each voxel.

    The label is drawn first; its class is then made the largest by a margin that survives rounding to float16.
    """
    rng = np.random.default_rng(seed)
    labels = rng.integers(0, n, size=shape, dtype=np.uint8)
    field = rng.random((n, *shape))
    np.put_along_axis(field, labels[None].astype(np.intp), field.max(axis=0, keepdims=True) + 0.1, axis=0)
    return (field / field.sum(axis=0)).astype(np.float32), labels


def region_field(shape: tuple[int, int, int], seed: int = 0) -> tuple[np.ndarray, np.ndarray]:
    """Three nested regions (float32 "class z y x") and what nnU-Net paints from them, uint8 "z y x"."""
    field = -np.sort(-np.random.default_rng(seed).random((3, *shape), dtype=np.float32), axis=0)
    return field, painted(field, (1, 2, 3))


def painted(field: np.ndarray, order: tuple[int, ...], threshold: float = 0.5) -> np.ndarray:
    segmentation = np.zeros(field.shape[1:], dtype=np.uint8)
    for value, region in zip(order, field, strict=True):
        segmentation[region > threshold] = value
    return segmentation


def affine(codes: str, degrees: float = 0, spacing: tuple[float, float, float] = (0.8, 1.1, 2.5)) -> np.ndarray:
    """Index (x, y, z, 1) -> mm for array axes that run in these directions, turned about two axes."""
    matrix = np.zeros((3, 3))
    for axis, (code, length) in enumerate(zip(codes, spacing, strict=True)):
        direction, sign = AXIS_DIRECTIONS[code]
        matrix[direction, axis] = sign * length
    c, s = np.cos(np.deg2rad(degrees)), np.sin(np.deg2rad(degrees))
    turn = np.array([[c, -s, 0], [s, c, 0], [0, 0, 1]]) @ np.array([[1, 0, 0], [0, c, -s], [0, s, c]])
    full = np.eye(4)
    full[:3, :3] = turn @ matrix
    full[:3, 3] = (-30.0, 12.5, 7.0)
    return full


def in_ras(array: np.ndarray, of: np.ndarray) -> np.ndarray:
    """An array "class z y x" on a grid with the affine ``of``, in RAS+ order: what ``*WithReorient`` readers save.

    nibabel turns it, so that it is an oracle for the reading.
    """
    return np.stack([nio.apply_orientation(channel.T, nio.io_orientation(of)).T for channel in array])


def pad(field: np.ndarray, before: tuple[int, int, int], after: tuple[int, int, int], first: float) -> np.ndarray:
    """Constant voxels (first, 0, .., 0) around a field."""
    width = [(0, 0), *zip(before, after, strict=True)]
    full = np.pad(field, width)
    inside = np.pad(np.ones(field.shape[1:], dtype=bool), width[1:])
    full[0][~inside] = first
    return full


def write_model(folder: Path, reader: str | None = None, overwrite: str | None = None) -> None:
    """``dataset.json``, and ``plans.json`` if there is a reader."""
    folder.mkdir(parents=True, exist_ok=True)
    dataset = {"labels": {"background": 0, "tumour": 1}, "file_ending": ".nii.gz"}
    if overwrite is not None:
        dataset["overwrite_image_reader_writer"] = overwrite
    (folder / "dataset.json").write_text(json.dumps(dataset))
    if reader is not None:
        (folder / "plans.json").write_text(json.dumps({"image_reader_writer": reader}))
