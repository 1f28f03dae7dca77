"""Simulated scans of brain tumours: one contrast-enhanced FLAIR-like window, 3 to 4 cm wide, per scan.

Anatomy first, on a fine grid (each slice of 3 mm is made of three thin ones): a curved brain surface with everything
outside it exactly zero, as after skull stripping; a cortical ribbon with dark sulci; white matter; a ventricle; a few
bright vessels and old white-matter spots that only look like disease. The tumour is three nested shapes given by
their signed depth in mm: oedema, inside it the enhancing core, inside that the necrosis. Each outline is an
ellipsoid made ragged by a smooth random field.

Then the scanner: soft borders (a sigmoid of the depth), a patchy enhancement, thick slices, blur, a bias field, noise.
Contrast, blur and noise are drawn per scan, so that some scans are easy and some are not.

Then the annotator, who draws each outline where the depth plus a random field of his own crosses zero. That field is
smooth, so his deviations are whole bulges of a border and not salt and pepper, and no network can foresee them: the
honest probability near a border is strictly between 0 and 1.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from fields import sigmoid, smooth_field
from scipy.ndimage import gaussian_filter

SEED = 20260101
BACKGROUND, EDEMA, NECROSIS, ENHANCING = 0, 1, 2, 3
CLASSES = {"background": BACKGROUND, "edema": EDEMA, "necrosis": NECROSIS, "enhancing": ENHANCING}

Shape = tuple[int, ...]
Spacing = tuple[float, ...]

THIN = 3
"""Thin slices per stored slice; their mean is the partial-volume effect of a thick slice."""

CSF, NECROSIS_TONE, WHITE, GREY = 0.22, 0.40, 0.52, 0.64
OLD_SPOT, EDEMA_TONE, VESSEL, ENHANCING_TONE = 0.82, 0.92, 1.15, 1.30
"""Mean intensities, before contrast, bias and gain."""

RIM_DRAWN = 0.5
"""An annotator leaves the necrosis at least this much of an enhancing rim, in mm."""


@dataclass(frozen=True, slots=True)
class Scan:
    """One simulated scan: image uint8 and labels uint8, both "z y x"; affine from voxel (x, y, z) to mm in RAS+."""

    image: np.ndarray
    labels: np.ndarray
    affine: np.ndarray


@dataclass(frozen=True, slots=True)
class Shapes:
    """Signed depths in mm on the thin grid, "z y x", positive inside."""

    brain: np.ndarray
    csf: np.ndarray
    grey: np.ndarray
    look_alikes: np.ndarray
    vessels: np.ndarray
    edema: np.ndarray
    core: np.ndarray
    necrosis: np.ndarray


def simulate_scan(patient: int, *, visit: int = 0, tumour: bool = True, varied_grid: bool = True) -> Scan:
    """The scan of a patient number. A later visit shows the same anatomy, a grown tumour, and a new acquisition.

    varied_grid False gives 12 x 38 x 38 voxels, so that training scans stack into batches.
    """
    anatomy = np.random.default_rng([SEED, patient])
    shape, spacing, affine = _grid(anatomy, varied_grid)
    shapes = _shapes(anatomy, shape, spacing, growth=1.0 + 0.12 * visit, tumour=tumour)
    acquisition = np.random.default_rng([SEED, patient, 1 + visit])  # a trailing 0 would repeat the anatomy's numbers
    affine[:3, 3] += acquisition.normal(0.0, 2.0, 3) * (visit > 0)
    image = _acquire(acquisition, shapes, spacing)
    return Scan(image, _annotate(acquisition, shapes, spacing), affine)


def _grid(rng: np.random.Generator, varied: bool) -> tuple[Shape, Spacing, np.ndarray]:
    """Shape and spacing in mm, "z y x", and affine; axes run to L, P, S as ITK's do, one scan in four oblique."""
    size = rng.integers([11, 34, 34], [13, 40, 40])
    shape = tuple(int(n) for n in size) if varied else (12, 38, 38)
    in_plane, slice_gap = rng.uniform(0.9, 1.1), rng.uniform(2.7, 3.3)
    direction = np.diag([-1.0, -1.0, 1.0])
    tilt = np.radians(rng.uniform(4.0, 12.0))
    if rng.random() < 0.25:
        c, s = np.cos(tilt), np.sin(tilt)
        direction = np.array([[1, 0, 0], [0, c, -s], [0, s, c]]) @ direction
    spacing_xyz = np.round([in_plane, in_plane, slice_gap], 4)
    affine = np.eye(4)
    affine[:3, :3] = direction * spacing_xyz
    affine[:3, 3] = np.round(rng.normal([25.0, 15.0, 10.0], 12.0), 3)
    return shape, tuple(float(edge) for edge in spacing_xyz[::-1]), affine


def _shapes(
    rng: np.random.Generator,
    shape: Shape,
    spacing: Spacing,
    growth: float,
    tumour: bool,
) -> Shapes:
    thin = (shape[0] * THIN, shape[1], shape[2])
    edges = (spacing[0] / THIN, spacing[1], spacing[2])
    axes = [(np.arange(n) - (n - 1) / 2) * edge for n, edge in zip(thin, edges, strict=True)]
    z, y, x = np.meshgrid(*axes, indexing="ij", sparse=True)

    def field(length: float) -> np.ndarray:
        return smooth_field(rng, thin, edges, length)

    # The brain surface is a sphere of 55 mm seen from inside; "outward" points from the window's centre to it.
    angle, lift = rng.uniform(0, 2 * np.pi), rng.normal(0.0, 0.25)
    outward = np.array([np.sin(lift), np.cos(lift) * np.sin(angle), np.cos(lift) * np.cos(angle)])
    surface = rng.uniform(10.5, 17.5)
    centre = outward * (surface - 55.0)
    brain = 55.0 - np.sqrt((z - centre[0]) ** 2 + (y - centre[1]) ** 2 + (x - centre[2]) ** 2) + 0.8 * field(4.0)

    folds = field(4.0)
    cortical = 11.0 - brain
    sulci = np.minimum(0.16 - np.abs(folds), 0.1 * cortical) * 4.0
    grey = np.maximum(np.minimum(0.75 - np.abs(folds), 0.2 * cortical) * 4.0, 3.0 - brain)
    offset = outward * -rng.uniform(15.0, 20.0) + rng.normal(0, 2.0, 3)
    ventricle = (
        6.0
        - np.sqrt(((z - offset[0]) / 2.2) ** 2 + ((y - offset[1]) / 1.5) ** 2 + ((x - offset[2]) / 0.8) ** 2)
        + 0.6 * field(4.0)
    )
    look_alikes = np.minimum(field(2.2) - rng.uniform(2.1, 2.8), brain - 4.0) * 2.0
    tube = field(5.0)
    vessels = np.minimum(np.minimum(0.11 - np.abs(folds - 0.2), 0.11 - np.abs(tube)) * 9.0, 0.6 * (9.0 - brain))

    return Shapes(
        brain,
        np.maximum(sulci, ventricle),
        grey,
        look_alikes,
        vessels,
        *_tumour(rng, (z, y, x), -1.5 * outward, field, growth, tumour),
    )


def _tumour(
    rng: np.random.Generator,
    position: tuple[np.ndarray, ...],
    middle: np.ndarray,
    field: Callable[[float], np.ndarray],
    growth: float,
    present: bool,
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Depths of oedema, core and necrosis. rho is the distance from the centre in mm, stretched to an ellipsoid."""
    centre = middle + rng.normal(0.0, 2.0, 3)
    stretch = np.exp(rng.normal(0.0, 0.14, 3))
    stretch /= np.prod(stretch) ** (1 / 3)
    rho = np.sqrt(sum(((p - c) / s) ** 2 for p, c, s in zip(position, centre, stretch, strict=True)))
    radius = rng.uniform(6.5, 11.5) * growth
    rim = rng.uniform(0.10, 0.42) * radius
    swelling = rng.uniform(0.7, 4.5) * growth
    core = radius - rho + 1.3 * field(4.5)
    necrosis = np.minimum(core - rim + 0.8 * field(3.0), core - 0.8)
    edema = np.maximum(radius + swelling - rho + (1.0 + 0.25 * swelling) * field(5.0), core + 0.3)
    if not present:
        nowhere = np.full_like(core, -np.inf)
        return nowhere, nowhere, nowhere
    return edema, core, necrosis


def _acquire(rng: np.random.Generator, shapes: Shapes, spacing: Spacing) -> np.ndarray:
    edges = (spacing[0] / THIN, spacing[1], spacing[2])
    thin = shapes.brain.shape

    def paint(picture: np.ndarray, depth: np.ndarray, tone: np.ndarray | float, softness: float) -> np.ndarray:
        share = sigmoid(depth / softness)
        return picture + share * (tone - picture)

    contrast = rng.uniform(0.65, 1.15)
    patchy = np.clip(rng.uniform(0.55, 1.0) + 0.3 * smooth_field(rng, thin, edges, 3.5), 0.1, 1.2)
    picture = np.full(thin, WHITE)
    picture = paint(picture, shapes.grey, GREY, 0.4)
    picture = paint(picture, shapes.csf, CSF, 0.3)
    picture = paint(picture, shapes.look_alikes, WHITE + contrast * (OLD_SPOT - WHITE), 0.3)
    picture = paint(
        picture,
        np.minimum(shapes.edema, -4.0 * shapes.csf),
        WHITE + contrast * (EDEMA_TONE - WHITE),
        rng.uniform(0.5, 1.6),
    )
    rim_tone = EDEMA_TONE * contrast + WHITE * (1 - contrast) + patchy * (ENHANCING_TONE - EDEMA_TONE)
    picture = paint(picture, shapes.core, rim_tone, rng.uniform(0.3, 0.8))
    necrotic = NECROSIS_TONE + 0.07 * smooth_field(rng, thin, edges, 2.5)
    picture = paint(picture, shapes.necrosis, necrotic, rng.uniform(0.3, 0.9))
    picture = paint(picture, shapes.vessels, VESSEL, 0.3)
    picture += 0.025 * smooth_field(rng, thin, edges, 1.5)

    blur = rng.uniform(0.35, 0.7)
    picture = gaussian_filter(picture * (shapes.brain > 0), [blur / edge for edge in edges])
    slices = _slabs(picture)
    slices *= np.exp(0.10 * smooth_field(rng, slices.shape, spacing, 20.0))
    noise = rng.uniform(0.03, 0.08)
    slices = np.hypot(slices + rng.normal(0, noise, slices.shape), rng.normal(0, noise, slices.shape))
    gain = rng.uniform(105.0, 150.0)
    return np.where(_slabs(shapes.brain) > 0, np.clip(np.rint(slices * gain), 1, 255), 0).astype(np.uint8)


def _annotate(rng: np.random.Generator, shapes: Shapes, spacing: Spacing) -> np.ndarray:
    """Oedema's outline is the most a matter of taste (0.75 mm), the enhancing rim's the least (0.45 mm)."""
    edema, core, necrosis = (_slabs(depth) for depth in (shapes.edema, shapes.core, shapes.necrosis))
    shape = edema.shape
    edema = edema + rng.normal(0, 0.35) + 0.75 * smooth_field(rng, shape, spacing, 3.0)
    core = core + 0.45 * smooth_field(rng, shape, spacing, 2.5)
    necrosis = np.minimum(
        necrosis + rng.normal(0, 0.15) + 0.45 * smooth_field(rng, shape, spacing, 2.5), core - RIM_DRAWN
    )
    labels = np.zeros(shape, np.uint8)
    labels[(edema > 0) & (_slabs(shapes.csf) < 0)] = EDEMA
    labels[core > 0] = ENHANCING
    labels[necrosis > 0] = NECROSIS
    labels[_slabs(shapes.brain) <= 0] = BACKGROUND
    return labels


def _slabs(thin: np.ndarray) -> np.ndarray:
    return thin.reshape(-1, THIN, *thin.shape[1:]).mean(axis=1)
