"""Generated work of fixed size and seed: what every benchmark runs on."""

from __future__ import annotations

import sys
from pathlib import Path

import numpy as np
from scipy.ndimage import gaussian_filter, zoom

from segcal_cli.io import nifti

BRATS = (155, 240, 240)
"""(z, y, x) of a BraTS scan."""

CLASSES = {"background": 0, "edema": 1, "necrosis": 2, "enhancing": 3}


def smooth_field(rng: np.random.Generator, shape: tuple[int, ...], coarse: int) -> np.ndarray:
    """Standard normal field with a correlation length of about ``coarse`` voxels, float32."""
    small = gaussian_filter(rng.standard_normal([-(-n // coarse) + 2 for n in shape]), 1.0)
    field = zoom(small / small.std(), coarse, order=1)[tuple(slice(0, n) for n in shape)]
    return field.astype(np.float32)


def softmax_case(seed: int, shape: tuple[int, int, int] = BRATS) -> tuple[np.ndarray, np.ndarray]:
    """(probabilities float32 "class z y x", labels uint8 "z y x"): a lesion of nested classes, over-confident.

    Every voxel has a value of its own, as a network's output has, so that the files compress no better than real ones.
    """
    rng = np.random.default_rng(seed)
    axes = np.ogrid[tuple(slice(-1.0, 1.0, complex(0, n)) for n in shape)]
    distance = np.sqrt(sum((axis / size) ** 2 for axis, size in zip(axes, (0.5, 0.42, 0.42), strict=True)))
    logits = np.stack([np.full(shape, 0.0), 8 * (1 - distance), 14 * (0.55 - distance), 11 * (0.7 - distance)])
    logits = logits.astype(np.float32)
    for channel in logits:
        channel += 2.0 * smooth_field(rng, shape, 12) + 0.3 * rng.standard_normal(shape, dtype=np.float32)
    logits[0] += 4.0
    noisy = logits + np.stack([2.5 * smooth_field(rng, shape, 8) for _ in range(4)])
    labels = noisy.argmax(axis=0).astype(np.uint8)
    logits *= 2.0
    logits -= logits.max(axis=0)
    np.exp(logits, out=logits)
    logits /= logits.sum(axis=0)
    return logits, labels


def write_case(folder: Path, name: str, seed: int, shape: tuple[int, int, int] = BRATS) -> None:
    """A case as ``predictions/NAME.nii.gz`` and ``labels/NAME.nii.gz``, unless it is there already."""
    prediction, label = folder / "predictions" / f"{name}.nii.gz", folder / "labels" / f"{name}.nii.gz"
    if prediction.exists() and label.exists():
        return
    for path in (prediction, label):
        path.parent.mkdir(parents=True, exist_ok=True)
    probabilities, codes = softmax_case(seed, shape)
    nifti.write(prediction, probabilities, np.eye(4), intent_code=nifti.INTENT_ESTIMATE)
    nifti.write(label, codes, np.eye(4), intent_code=nifti.INTENT_LABEL)


if __name__ == "__main__":
    place, number, *edges = sys.argv[1:]
    z, y, x = map(int, edges or BRATS)
    write_case(Path(place), f"case_{int(number):03d}", int(number), (z, y, x))
