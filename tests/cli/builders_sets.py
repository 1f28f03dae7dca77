"""Folders of synthetic images for conformal sets: binary logits on a grid, or as PNG, and what is expected of them."""

from __future__ import annotations

import json
from functools import cache
from pathlib import Path

import nibabel
import numpy as np
from PIL import Image

from segcal_cli.core.conformal import conformal_quantile
from tests.cli.builders import sigmoid, write_volume
from tests.confidence.builders_synth2d import fixture, synth2d

GRID = np.diag([1.0, 1.0, 1.0, 1.0])


def name_of(index: int) -> str:
    return f"image_{index:03d}"


def write_images(root: Path, which, *, affine=GRID, depth=1, values="logits", dtype=np.float32, labels=True) -> Path:
    """``root/predictions`` and ``root/labels`` of these images; depth > 1 repeats the plane."""
    logits, truth, _ = synth2d()
    for index in which:
        z = np.repeat(logits[index][None], depth, axis=0)
        array = z if values == "logits" else sigmoid(z)
        write_volume(root / "predictions" / f"{name_of(index)}.nii.gz", array.astype(dtype), affine)
        if labels:
            mask = np.repeat(truth[index][None], depth, axis=0).astype(np.uint8)
            write_volume(root / "labels" / f"{name_of(index)}.nii.gz", mask, affine)
    (root / "classes.json").write_text(json.dumps({"lesion": 1}))
    return root


def write_label_maps(root: Path, which) -> Path:
    """The same with the predicted masks in place of logits."""
    logits, truth, _ = synth2d()
    for index in which:
        write_volume(
            root / "predictions" / f"{name_of(index)}.nii.gz", (logits[index] > 0)[None].astype(np.uint8), GRID
        )
        write_volume(root / "labels" / f"{name_of(index)}.nii.gz", truth[index][None].astype(np.uint8), GRID)
    (root / "classes.json").write_text(json.dumps({"lesion": 1}))
    return root


def write_pngs(root: Path, which) -> Path:
    """Probabilities as 16-bit PNG, labels as masks of 0 and 255."""
    logits, truth, _ = synth2d()
    for part in ("predictions", "labels"):
        (root / part).mkdir(parents=True, exist_ok=True)
    for index in which:
        stored = np.round(sigmoid(logits[index]) * 65535).astype(np.uint16)
        Image.fromarray(stored).save(root / "predictions" / f"{name_of(index)}.png")
        Image.fromarray(truth[index].astype(np.uint8) * 255).save(root / "labels" / f"{name_of(index)}.png")
    (root / "classes.json").write_text(json.dumps({"lesion": 1}))
    return root


def arguments(root: Path, *, labels: bool = True, values: str | None = "logits") -> list[object]:
    """Positional arguments, class table and values."""
    given: list[object] = [root / "predictions", *([root / "labels"] if labels else [])]
    return [*given, "--classes", root / "classes.json", *(["--values", values] if values else [])]


@cache
def thresholds(name: str, which: tuple[int, ...], alpha: float, *, present: bool = True) -> tuple[float, float]:
    """(lambda_I, lambda_O) by the reference scores of these images; gamma over images with truth."""
    scores, (_, truth, _) = fixture("scores2d"), synth2d()
    chosen = np.array(which)
    holds = truth[chosen].reshape(len(chosen), -1).any(axis=1)
    outer = chosen[holds] if present else chosen
    return (
        conformal_quantile(scores[f"tau_{name}"][chosen], alpha),
        conformal_quantile(scores[f"gamma_{name}"][outer], alpha),
    )


def voxels(path: Path) -> np.ndarray:
    """Stored numbers "z y x" of a NIfTI file, scaling not applied."""
    return np.asarray(nibabel.load(path).dataobj.get_unscaled()).T
