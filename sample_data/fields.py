"""Smooth random fields: what every texture, ragged outline and annotator's whim of the simulation is made of."""

from __future__ import annotations

import numpy as np
from scipy.ndimage import gaussian_filter


def smooth_field(
    rng: np.random.Generator, shape: tuple[int, ...], voxel: tuple[float, ...], length: float
) -> np.ndarray:
    """A Gaussian random field, correlated over ``length`` (in the unit of ``voxel``); mean 0 and deviation 1."""
    noise = rng.standard_normal(shape)
    field = gaussian_filter(noise, [length / edge for edge in voxel], mode="reflect")
    field -= field.mean()
    return field / field.std()


def sigmoid(field: np.ndarray) -> np.ndarray:
    """Soft membership of a shape whose signed depth is ``field``: 1 deep inside, 0 far outside, 1/2 on the outline."""
    return 1.0 / (1.0 + np.exp(-np.clip(field, -40.0, 40.0)))
