"""Small folders of predictions and labels as tools leave them on disk, and the command line run on them in process."""

from __future__ import annotations

import json
import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from tests.cli.invoking import invoke
from tests.io.builders_nifti import affine_of, save

SHAPE = (5, 6, 7)

OWN_FILE = re.compile(r".*segcal-run\.json|\..*segcal\.lock|\..*\.npz\.lock")
"""Record and locks of a run."""
CASES = ("case-1", "case-2", "case-3", "case-4")
CLASSES = ("background", "edema", "necrosis")
REGIONS = {"whole": [1, 2], "core": [2]}
AFFINE = affine_of("LPS", oblique=12.0)


@dataclass(frozen=True, slots=True)
class Ran:
    """What a command came to."""

    code: int
    out: str
    err: str

    @property
    def closing(self) -> str:
        """The last line on stderr."""
        return self.err.rstrip("\n").rsplit("\n", 1)[-1]

    @property
    def document(self) -> dict:
        return json.loads(self.out)


def segcal(*arguments: object) -> Ran:
    """Run the command line in this process."""
    result = invoke(*arguments)
    return Ran(result.exit_code, result.stdout, result.stderr)


@dataclass(frozen=True, slots=True)
class Study:
    """A folder of predictions and one of labels below ``root``."""

    root: Path
    cases: tuple[str, ...] = CASES

    @property
    def predictions(self) -> Path:
        return self.root / "predictions"

    @property
    def labels(self) -> Path:
        return self.root / "labels"

    @property
    def classes(self) -> Path:
        return self.root / "classes.json"

    @property
    def both(self) -> tuple[Path, Path]:
        return self.predictions, self.labels

    def folders(self) -> Study:
        self.predictions.mkdir(parents=True, exist_ok=True)
        self.labels.mkdir(parents=True, exist_ok=True)
        return self


def logits_of(classes: int, seed: int, shape: tuple[int, int, int] = SHAPE) -> np.ndarray:
    """float32 "class z y x", rounded to float16 so that every format of logits holds them exactly."""
    drawn = np.random.default_rng(seed).normal(0.0, 2.5, (classes, *shape))
    return drawn.astype(np.float16).astype(np.float32)


def softmax_of(logits: np.ndarray) -> np.ndarray:
    values = np.exp(logits.astype(np.float64) - logits.max(axis=0))
    return (values / values.sum(axis=0)).astype(np.float32)


def sigmoid_of(logits: np.ndarray) -> np.ndarray:
    return (1.0 / (1.0 + np.exp(-logits.astype(np.float64)))).astype(np.float32)


def drawn_labels(logits: np.ndarray, seed: int) -> np.ndarray:
    """uint8 "z y x": labels that the logits, cooled, are calibrated for, so that a fit finds a finite temperature."""
    noise = np.random.default_rng(1000 + seed).gumbel(size=logits.shape)
    return (0.5 * logits + noise).argmax(axis=0).astype(np.uint8)


def nested_regions(seed: int) -> tuple[np.ndarray, np.ndarray]:
    """Logits float32 "region z y x" of ``whole`` and ``core``, nested, and labels 0, 1, 2."""
    logits = np.sort(logits_of(2, seed), axis=0)[::-1].copy()
    noise = np.random.default_rng(2000 + seed).logistic(size=SHAPE)
    return logits, (0.5 * logits > noise).sum(axis=0).astype(np.uint8)


def painted(regions: np.ndarray) -> np.ndarray:
    """uint8 "z y x": what nnU-Net paints from the probabilities of two regions."""
    segmentation = np.zeros(regions.shape[1:], np.uint8)
    for value, region in enumerate(regions, 1):
        segmentation[region > 0.5] = value
    return segmentation


def write_classes(path: Path, table: dict) -> Path:
    path.write_text(json.dumps(table), encoding="utf-8")
    return path


def write_npz(path: Path, **arrays: np.ndarray) -> Path:
    with path.open("wb") as file:
        np.savez_compressed(file, **arrays)
    return path


def nnunet_study(root: Path, cases: Sequence[str] = CASES, *, dtype: str = "float32", key: str = "probabilities"):
    """A result folder of nnU-Net: ``dataset.json``, ``plans.json``, arrays, segmentations; and labels."""
    study = Study(root, tuple(cases)).folders()
    labels = {name: value for value, name in enumerate(CLASSES)}
    write_classes(study.predictions / "dataset.json", {"labels": labels, "file_ending": ".nii.gz"})
    write_classes(study.predictions / "plans.json", {"image_reader_writer": "SimpleITKIO"})
    for seed, case in enumerate(cases):
        logits = logits_of(3, seed)
        write_npz(study.predictions / f"{case}.npz", **{key: softmax_of(logits).astype(dtype)})
        save(study.predictions / f"{case}.nii.gz", logits.argmax(axis=0).astype(np.uint8), AFFINE)
        save(study.labels / f"{case}.nii.gz", drawn_labels(logits, seed), AFFINE)
    return study


def nifti_study(root: Path, cases: Sequence[str] = CASES, *, values: str = "logits") -> Study:
    """4-D volumes (x, y, z, C) as MONAI saves them, labels, and a class table beside them."""
    study = Study(root, tuple(cases)).folders()
    write_classes(study.classes, {name: value for value, name in enumerate(CLASSES)})
    for seed, case in enumerate(cases):
        logits = logits_of(3, seed)
        save(study.predictions / f"{case}.nii.gz", logits if values == "logits" else softmax_of(logits), AFFINE)
        save(study.labels / f"{case}.nii.gz", drawn_labels(logits, seed), AFFINE)
    return study


def region_study(root: Path, cases: Sequence[str] = CASES) -> Study:
    """An nnU-Net model of two nested regions."""
    study = Study(root, tuple(cases)).folders()
    table = {"labels": {"background": 0, **REGIONS}, "regions_class_order": [1, 2]}
    write_classes(study.predictions / "dataset.json", table)
    write_classes(study.predictions / "plans.json", {"image_reader_writer": "SimpleITKIO"})
    for seed, case in enumerate(cases):
        logits, labels = nested_regions(seed)
        write_npz(study.predictions / f"{case}.npz", probabilities=sigmoid_of(logits))
        save(study.predictions / f"{case}.nii.gz", painted(sigmoid_of(logits)), AFFINE)
        save(study.labels / f"{case}.nii.gz", labels, AFFINE)
    return study


def png_study(root: Path, cases: Sequence[str] = CASES, *, bits: int = 16, foreground: int = 255) -> Study:
    """2-D: gray probabilities of one foreground, labels 0 and ``foreground``."""
    from PIL import Image

    study = Study(root, tuple(cases)).folders()
    top, kind = (65535, np.uint16) if bits == 16 else (255, np.uint8)
    for seed, case in enumerate(cases):
        logits = logits_of(1, seed, (1, 24, 31))[0, 0]
        noise = np.random.default_rng(3000 + seed).logistic(size=logits.shape)
        pixels = np.rint(sigmoid_of(logits) * top).astype(kind)
        Image.fromarray(pixels).save(study.predictions / f"{case}.png")
        mask = np.where(0.5 * logits > noise, foreground, 0).astype(np.uint8)
        Image.fromarray(mask).save(study.labels / f"{case}.png")
    return study


def tree(folder: Path) -> dict[str, bytes]:
    """Every output below a folder, by its relative name; the files of the run itself, which hold times, are none."""
    return {
        path.relative_to(folder).as_posix(): path.read_bytes()
        for path in sorted(folder.rglob("*"))
        if path.is_file() and not OWN_FILE.fullmatch(path.name)
    }
