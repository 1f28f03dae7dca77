"""Folders of predictions and labels on disk, and the command line run on them in this process.

A folder holds small scans with known faults: probabilities are those of the truth, sharpened by a factor, so that a
temperature mends them. Everything is drawn from a seed; the same arguments make the same bytes.
"""

from __future__ import annotations

import csv
import json
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from segcal_cli.io import nifti
from segcal_cli.io.bundles import write_bundle
from tests.cli.invoking import invoke

SHAPE = (4, 9, 11)
"""(z, y, x) of a scan: small, and no two axes alike."""

AFFINE = np.diag([0.8, 1.1, 2.5, 1.0])


@dataclass(frozen=True, slots=True)
class Scan:
    """One scan. logits: float32 "class z y x" of the truth; labels: uint8 "z y x", drawn from them."""

    name: str
    logits: np.ndarray
    labels: np.ndarray


@dataclass(frozen=True, slots=True)
class Folders:
    """Where a set of scans lies. predictions may be one of several folders of the same scans."""

    root: Path
    scans: tuple[Scan, ...]

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
    def arguments(self) -> list[str]:
        """Positional arguments and class table of a command that reads predictions and labels."""
        return [str(self.predictions), str(self.labels), "--classes", str(self.classes)]


def make_scans(cases: int = 8, classes: int = 3, *, shape: tuple[int, int, int] = SHAPE, seed: int = 0) -> list[Scan]:
    """Scans of exclusive classes (or, with one class, of a foreground), called case_00, case_01, .."""
    scans = []
    for number in range(cases):
        rng = np.random.default_rng([seed, number])
        logits = rng.normal(scale=1.5, size=(max(classes, 2), *shape))
        logits[0] += 1.0
        labels = (logits + rng.gumbel(size=logits.shape)).argmax(axis=0).astype(np.uint8)
        if classes == 1:
            logits = logits[1:] - logits[:1]
        scans.append(Scan(f"case_{number:02d}", logits.astype(np.float32), labels))
    return scans


def softmax(logits: np.ndarray) -> np.ndarray:
    """float32 probabilities "class ..."."""
    power = np.exp(logits.astype(np.float64) - logits.max(axis=0))
    return (power / power.sum(axis=0)).astype(np.float32)


def sigmoid(logits: np.ndarray) -> np.ndarray:
    """float32 probabilities."""
    return (1.0 / (1.0 + np.exp(-logits.astype(np.float64)))).astype(np.float32)


def write_volume(path: Path, array: np.ndarray, affine: np.ndarray = AFFINE) -> Path:
    """A NIfTI file: "z y x", or "class z y x" with the class last on disk."""
    path.parent.mkdir(parents=True, exist_ok=True)
    nifti.write(path, array, affine)
    return path


def write_npz(path: Path, **arrays: np.ndarray) -> Path:
    """A bundle of arrays, by nnU-Net's names: ``probabilities``, ``softmax``, ``logits``."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("wb") as file:
        write_bundle(file, arrays)
    return path


def write_classes(path: Path, **values: int | list[int]) -> Path:
    """A flat class table."""
    path.write_text(json.dumps(values))
    return path


def write_predictions(folder: Path, scans: list[Scan] | tuple[Scan, ...], *, sharpness: float = 2.0) -> Path:
    """Probabilities of every scan, too sure by a factor."""
    for scan in scans:
        p = sigmoid(scan.logits * sharpness)[0] if len(scan.logits) == 1 else softmax(scan.logits * sharpness)
        write_volume(folder / f"{scan.name}.nii.gz", p)
    return folder


def make_folders(root: Path, scans: list[Scan] | None = None, *, sharpness: float = 2.0) -> Folders:
    """Predictions, labels and class table of the scans (eight of three classes, where none are given)."""
    root.mkdir(parents=True, exist_ok=True)
    folders = Folders(root, tuple(make_scans() if scans is None else scans))
    write_predictions(folders.predictions, folders.scans, sharpness=sharpness)
    for scan in folders.scans:
        write_volume(folders.labels / f"{scan.name}.nii.gz", scan.labels)
    count = len(folders.scans[0].logits)
    if count == 1:
        write_classes(folders.classes, lesion=1)
    else:
        write_classes(folders.classes, **{"background": 0, **{f"class{i}": i for i in range(1, count)}})
    return folders


@dataclass(frozen=True, slots=True)
class Said:
    """What a command came to."""

    code: int
    stdout: str
    stderr: str

    @property
    def document(self) -> dict:
        """The document of ``--json``; NaN and Infinity are no JSON."""
        return json.loads(self.stdout, parse_constant=lambda name: 1 / 0)

    @property
    def closing(self) -> str:
        """The last line on stderr."""
        return self.stderr.strip().splitlines()[-1]


def segcal(*arguments: object, environment: dict[str, str] | None = None) -> Said:
    """Run a command in this process; what is raised beside an exit comes through."""
    run = invoke(*arguments, environment=environment)
    return Said(run.exit_code, run.stdout, run.stderr)


def read_rows(path: Path) -> list[dict[str, str]]:
    """The rows of a CSV."""
    with path.open(newline="", encoding="utf-8") as file:
        return list(csv.DictReader(file))
