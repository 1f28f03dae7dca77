"""Simulated fluorescence images of cell nuclei, 96 x 96 pixels of half a micrometre.

Nuclei are ragged ellipses, some of them touching. The microscope is the source of the doubt: each nucleus lies at a
depth of its own, and the further from the focal plane the more it is blurred and dimmed; the field is curved, so
focus and light fall off towards the corners of *every* image (what calibrates the centre does not calibrate the
corners). Then haze, shot noise and read-out noise.

The annotator draws each outline where the depth inside the nucleus plus a smooth random field of his own crosses
zero, and of the dim, out-of-focus nuclei he draws the more visible ones only, by a coin that nobody else can see.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from fields import sigmoid, smooth_field
from scipy.ndimage import gaussian_filter

SEED = 20260102
SIZE = 96
CLASSES = {"background": 0, "cell": 1}

CAMERA_OFFSET = 12.0
"""Grey value of a pixel that saw no light; it keeps the read-out noise above zero."""


@dataclass(frozen=True, slots=True)
class Photograph:
    """One simulated image: intensities uint8 and labels uint8 (0 background, 1 cell), both "y x"."""

    image: np.ndarray
    labels: np.ndarray


def simulate_photograph(number: int) -> Photograph:
    rng = np.random.default_rng([SEED, number])
    y, x = np.mgrid[:SIZE, :SIZE].astype(float)
    corner = ((y - SIZE / 2) ** 2 + (x - SIZE / 2) ** 2) / (SIZE**2 / 2)
    sharp, dim = np.zeros((SIZE, SIZE)), np.zeros((SIZE, SIZE))
    labels = np.zeros((SIZE, SIZE), np.uint8)
    taste = rng.normal(0.0, 0.3) + 0.8 * smooth_field(rng, labels.shape, (1.0, 1.0), 3.0)

    centres: list[np.ndarray] = []
    for _ in range(rng.integers(8, 17)):
        centre, radius = rng.uniform(-4, SIZE + 4, 2), rng.uniform(5.5, 10.0)
        if any(np.hypot(*(centre - other)) < 13.0 for other in centres):
            continue
        centres.append(centre)
        inside = _nucleus(rng, y - centre[0], x - centre[1], radius)
        texture = 1.0 + 0.18 * smooth_field(rng, labels.shape, (1.0, 1.0), 1.8)
        light = sigmoid(inside / 0.35) * texture * rng.uniform(0.55, 1.0)
        out_of_focus = abs(rng.normal(0.0, 0.45))
        sharp += light * np.exp(-2.0 * out_of_focus**2) * (out_of_focus < 0.6)
        dim += light * np.exp(-1.2 * out_of_focus) * (out_of_focus >= 0.6)
        if rng.random() < sigmoid(np.array((1.0 - out_of_focus) / 0.12)):
            labels[inside + taste > 0] = 1

    near, far = gaussian_filter(sharp, 0.8), gaussian_filter(sharp, 2.2)
    focus = np.clip(corner * 1.1, 0.0, 1.0)
    picture = (1 - focus) * near + focus * far + gaussian_filter(dim, 2.8)
    picture = picture + rng.uniform(0.08, 0.2) * gaussian_filter(picture, 9.0) + rng.uniform(0.04, 0.12)
    picture *= 1.0 - 0.5 * corner
    photons = rng.uniform(25.0, 90.0)
    counts = rng.poisson(picture * photons) + rng.normal(0.0, 1.5, picture.shape)
    return Photograph(
        np.clip(np.rint(CAMERA_OFFSET + counts / photons * rng.uniform(140.0, 190.0)), 1, 255).astype(np.uint8), labels
    )


def _nucleus(rng: np.random.Generator, y: np.ndarray, x: np.ndarray, radius: float) -> np.ndarray:
    """Signed depth in pixels of an ellipse whose outline waves a little."""
    turn, stretch = rng.uniform(0, np.pi), np.exp(rng.normal(0.0, 0.13))
    u = (y * np.cos(turn) + x * np.sin(turn)) * stretch
    v = (x * np.cos(turn) - y * np.sin(turn)) / stretch
    angle = np.arctan2(v, u)
    waves = sum(rng.normal(0, 0.05 / k) * np.cos(k * angle + rng.uniform(0, 2 * np.pi)) for k in (2, 3, 4))
    return radius * (1 + waves) - np.hypot(u, v)
