"""Makes the sample data: simulate, train, predict, write. Nothing is downloaded and nothing is a real patient.

    python sample_data/make_sample_data.py [--out DIR]

1. Simulate. ``brain.py`` makes 3-D scans with a tumour of three classes, ``cells.py`` 2-D images of cell nuclei. Both
   draw the labels as a fallible annotator would, so a border voxel is honestly uncertain. Patients and images are
   independent draws of one distribution, but for one scan without a tumour that each part of brain/ is given.
2. Train. ``unet.py`` trains one small U-Net per data set with the soft Dice loss, on further simulated patients that
   are not written. The networks are over-confident because of that loss and of their few training cases.
3. Predict every written scan. brain/ keeps logits, rounded so that they compress; nnunet/ holds the softmax of
   exactly these logits for the test scans, laid out as nnU-Net v2 lays out its results, with the constant that it
   writes outside the box of non-zero image voxels; cells/ keeps the probability in 16-bit gray PNG.
4. Report overlap, temperature and calibration error on the written test scans; README.md quotes them.

All seeds are fixed, torch runs on one thread, and files carry no time of writing: a second run on the same machine
gives the same bytes. It takes about two and a half minutes on one core.
"""

from __future__ import annotations

import argparse
import gzip
import json
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import brain
import cells
import nibabel as nib
import numpy as np
import torch
import unet
from PIL import Image
from scipy.optimize import minimize_scalar
from scipy.special import log_softmax, softmax

CALIBRATION_PATIENTS, TEST_PATIENTS = range(1, 25), range(25, 41)
SCANNED_TWICE = frozenset({3, 7, 12, 18})
"""Calibration patients with a follow-up scan: their ids end in _a and _b."""

WITHOUT_TUMOUR = frozenset({11, 33})
CALIBRATION_IMAGES, TEST_IMAGES = range(1, 49), range(49, 73)

FIRST_TRAINING_NUMBER = 10_000
"""Numbers from here on are training patients and images; none of them is ever written."""

TRAINING_PATIENTS, TRAINING_IMAGES = 80, 40
LOGIT_STEP = 1 / 16
"""Brain logits are multiples of this: 6 % of the odds, and a quarter of the bytes."""

LOGIT_LIMIT = 30.0
BINS = 15
"""Equal bins of the confidence in the report's calibration error."""


@dataclass(frozen=True, slots=True)
class BrainCase:
    """A written scan: its id, the scan, and its rounded logits, float32 "class z y x"."""

    name: str
    scan: brain.Scan
    logits: np.ndarray


@dataclass(frozen=True, slots=True)
class CellCase:
    """A written image: its id, the image, and the probability of a cell as uint16 "y x", p = v / 65535."""

    name: str
    photograph: cells.Photograph
    probability: np.ndarray


def main() -> None:
    parser = argparse.ArgumentParser(description="Make segcal's sample data: brain/, nnunet/ and cells/.")
    parser.add_argument(
        "--out", type=Path, default=Path(__file__).parent, help="folder to write to (default: this one)"
    )
    out = parser.parse_args().out
    torch.set_num_threads(1)
    torch.use_deterministic_algorithms(True)

    started = time.perf_counter()
    network = train_on_brains()
    print(f"brain network trained ({time.perf_counter() - started:.0f} s)", flush=True)
    calibration = list(predict_brains(network, CALIBRATION_PATIENTS))
    test = list(predict_brains(network, TEST_PATIENTS))
    write_brains(out / "brain", calibration, test)
    write_nnunet(out / "nnunet", test)
    report_brains(calibration, test)

    network = train_on_cells()
    print(f"cell network trained ({time.perf_counter() - started:.0f} s)", flush=True)
    calibration_cells, test_cells = (
        [predict_cells(network, number) for number in numbers] for numbers in (CALIBRATION_IMAGES, TEST_IMAGES)
    )
    write_cells(out / "cells", calibration_cells, test_cells)
    report_cells(calibration_cells, test_cells)


# -- networks ---------------------------------------------------------------------------------------------------------


def train_on_brains() -> unet.UNet:
    """Slices are thick, so the first level looks within slices only; every twentieth patient has no tumour."""
    scans = [
        brain.simulate_scan(FIRST_TRAINING_NUMBER + i, tumour=i % 20 != 0, varied_grid=False)
        for i in range(TRAINING_PATIENTS)
    ]
    torch.manual_seed(1)
    network = unet.UNet(classes=len(brain.CLASSES), strides=[(1, 2, 2), (2, 2, 2)])
    images, labels = np.stack([scan.image for scan in scans]), np.stack([scan.labels for scan in scans])
    unet.train(network, images, labels, epochs=24, batch=2, seed=1)
    return network


def train_on_cells() -> unet.UNet:
    photographs = [cells.simulate_photograph(FIRST_TRAINING_NUMBER + i) for i in range(TRAINING_IMAGES)]
    torch.manual_seed(2)
    network = unet.UNet(classes=1, strides=[(2, 2), (2, 2)])
    images, labels = np.stack([each.image for each in photographs]), np.stack([each.labels for each in photographs])
    unet.train(network, images, labels, epochs=50, batch=4, seed=2)
    return network


def predict_brains(network: unet.UNet, patients: range) -> Iterator[BrainCase]:
    for patient in patients:
        visits = {"_a": 0, "_b": 1} if patient in SCANNED_TWICE else {"": 0}
        for suffix, visit in visits.items():
            scan = brain.simulate_scan(patient, visit=visit, tumour=patient not in WITHOUT_TUMOUR)
            logits = np.clip(unet.predict(network, scan.image), -LOGIT_LIMIT, LOGIT_LIMIT)
            rounded = np.rint(logits / LOGIT_STEP) * LOGIT_STEP
            yield BrainCase(f"patient_{patient:03d}{suffix}", scan, rounded.astype(np.float32))


def predict_cells(network: unet.UNet, number: int) -> CellCase:
    photograph = cells.simulate_photograph(number)
    logit = unet.predict(network, photograph.image)[0].astype(np.float64)
    probability = np.rint(65535 / (1 + np.exp(-logit))).astype(np.uint16)
    return CellCase(f"cells_{number:03d}", photograph, probability)


# -- files ------------------------------------------------------------------------------------------------------------


def write_brains(folder: Path, calibration: list[BrainCase], test: list[BrainCase]) -> None:
    for part, cases in (("calibration", calibration), ("test", test)):
        for case in cases:
            write_nifti(folder / part / "images" / f"{case.name}.nii.gz", case.scan.image, case.scan.affine)
            write_nifti(folder / part / "labels" / f"{case.name}.nii.gz", case.scan.labels, case.scan.affine)
            write_nifti(folder / part / "predictions" / f"{case.name}.nii.gz", case.logits, case.scan.affine)
    write_json(folder / "dataset.json", dataset_table())


def write_nnunet(folder: Path, test: list[BrainCase]) -> None:
    """One flat folder, as ``nnUNetv2_predict --save_probabilities`` leaves it, without the .pkl files."""
    folder.mkdir(parents=True, exist_ok=True)
    for case in test:
        probabilities = nnunet_probabilities(case)
        with (folder / f"{case.name}.npz").open("wb") as file:
            np.savez_compressed(file, probabilities=probabilities)
        segmentation = probabilities.argmax(axis=0).astype(np.uint8)
        write_nifti(folder / f"{case.name}.nii.gz", segmentation, case.scan.affine)
    write_json(folder / "dataset.json", dataset_table())
    plans = {
        "dataset_name": "Dataset501_SimulatedBrain",
        "plans_name": "nnUNetPlans",
        "image_reader_writer": "SimpleITKIO",
        "transpose_forward": [0, 1, 2],
        "transpose_backward": [0, 1, 2],
    }
    write_json(folder / "plans.json", plans)


def nnunet_probabilities(case: BrainCase) -> np.ndarray:
    """The softmax, float32 "class z y x"; certain background outside the bounding box of the non-zero image."""
    probabilities = softmax(case.logits.astype(np.float64), axis=0).astype(np.float32)
    padded = np.zeros_like(probabilities)
    padded[0] = 1
    box = (slice(None), *nonzero_box(case.scan.image))
    padded[box] = probabilities[box]
    return padded


def nonzero_box(image: np.ndarray) -> tuple[slice, ...]:
    return tuple(slice(int(places.min()), int(places.max()) + 1) for places in np.nonzero(image))


def write_cells(folder: Path, calibration: list[CellCase], test: list[CellCase]) -> None:
    for part, cases in (("calibration", calibration), ("test", test)):
        for case in cases:
            write_png(folder / part / "images" / f"{case.name}.png", case.photograph.image)
            write_png(folder / part / "labels" / f"{case.name}.png", case.photograph.labels * np.uint8(255))
            write_png(folder / part / "predictions" / f"{case.name}.png", case.probability)
    write_json(folder / "classes.json", cells.CLASSES)


def dataset_table() -> dict[str, object]:
    """nnU-Net v2's ``dataset.json``."""
    return {
        "channel_names": {"0": "contrast-enhanced FLAIR"},
        "labels": brain.CLASSES,
        "numTraining": TRAINING_PATIENTS,
        "file_ending": ".nii.gz",
    }


def write_nifti(path: Path, array: np.ndarray, affine: np.ndarray) -> None:
    """array: "z y x" or "class z y x", stored as (x, y, z) or (x, y, z, class)."""
    image = nib.Nifti1Image(array.T, affine)
    image.set_sform(affine, code=1)
    image.set_qform(affine, code=1)
    image.header.set_xyzt_units("mm")
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(gzip.compress(image.to_bytes(), compresslevel=9, mtime=0))


def write_png(path: Path, array: np.ndarray) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(array).save(path, optimize=True)


def write_json(path: Path, content: object) -> None:
    path.write_text(json.dumps(content, indent=2) + "\n", encoding="utf-8")


# -- report -----------------------------------------------------------------------------------------------------------


def report_brains(calibration: list[BrainCase], test: list[BrainCase]) -> None:
    """Voxels outside the non-zero box are left out of temperature and calibration error, as they are no predictions."""
    for name, value in brain.CLASSES.items():
        if value != brain.BACKGROUND:
            pairs = [(case.logits.argmax(axis=0) == value, case.scan.labels == value) for case in test]
            print_dice(f"brain, {name}", pairs)
    print_calibration("brain", *_brain_voxels(calibration), *_brain_voxels(test))
    for case in test:
        soft = softmax(case.logits, axis=0).sum(axis=(1, 2, 3))
        drawn = np.bincount(case.scan.labels.ravel(), minlength=4)
        if drawn[1:].sum():
            ratios = (soft[brain.NECROSIS] / soft[1:].sum(), drawn[brain.NECROSIS] / drawn[1:].sum())
            print(f"  {case.name}: necrosis / tumour predicted {ratios[0]:.3f}, drawn {ratios[1]:.3f}")


def report_cells(calibration: list[CellCase], test: list[CellCase]) -> None:
    print_dice("cells", [(case.probability > 32767, case.photograph.labels == 1) for case in test])
    print_calibration("cells", *_cell_pixels(calibration), *_cell_pixels(test))


def _brain_voxels(cases: list[BrainCase]) -> tuple[np.ndarray, np.ndarray]:
    boxes = [nonzero_box(case.scan.image) for case in cases]
    logits = [case.logits[:, *box].reshape(len(case.logits), -1) for case, box in zip(cases, boxes, strict=True)]
    labels = [case.scan.labels[box].ravel() for case, box in zip(cases, boxes, strict=True)]
    return np.concatenate(logits, axis=1).astype(np.float64), np.concatenate(labels)


def _cell_pixels(cases: list[CellCase]) -> tuple[np.ndarray, np.ndarray]:
    """Two channels of log-probability; a stored 0 or 65535 counts as half a step."""
    steps = np.concatenate([case.probability.ravel() for case in cases]).astype(np.float64)
    logits = np.log(np.stack([np.maximum(65535 - steps, 0.5), np.maximum(steps, 0.5)]))
    return logits, np.concatenate([case.photograph.labels.ravel() for case in cases])


def print_dice(name: str, pairs: list[tuple[np.ndarray, np.ndarray]]) -> None:
    """Over the cases that hold the class."""
    dice = [2 * (a & b).sum() / (a.sum() + b.sum()) for a, b in pairs if b.any()]
    print(f"{name}: Dice {np.mean(dice):.2f} ({min(dice):.2f} to {max(dice):.2f}), {len(dice)} cases")


def print_calibration(
    name: str, logits: np.ndarray, labels: np.ndarray, test_logits: np.ndarray, test_labels: np.ndarray
) -> None:
    """The temperature of least negative log-likelihood on the calibration part, and what it does to the test part."""

    def loss(temperature: float) -> float:
        return -float(np.take_along_axis(log_softmax(logits / temperature, axis=0), labels[None].astype(int), 0).mean())

    temperature = minimize_scalar(loss, bounds=(0.2, 20), method="bounded").x
    before, after = (calibration_error(softmax(test_logits / t, axis=0), test_labels) for t in (1.0, temperature))
    doubt = softmax(test_logits, axis=0).max(axis=0) < 0.95
    print(f"{name}: temperature {temperature:.2f}, calibration error {before:.4f} -> {after:.4f}")
    print(f"{name}: {100 * doubt.mean():.1f} % of the voxels have no class above 0.95")


def calibration_error(probabilities: np.ndarray, labels: np.ndarray) -> float:
    """Top-label expected calibration error, equal bins."""
    confidence, right = probabilities.max(axis=0), probabilities.argmax(axis=0) == labels
    bins = np.minimum((confidence * BINS).astype(int), BINS - 1)
    gaps = np.bincount(bins, weights=confidence - right, minlength=BINS)
    return float(np.abs(gaps).sum() / labels.size)


if __name__ == "__main__":
    main()
