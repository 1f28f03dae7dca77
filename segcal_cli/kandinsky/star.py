"""Star shells: nested star-shaped regions about a centre, by a Fourier series, or spherical harmonics in 3-D.

The outer radius of shell l in direction u follows r_l(u)^d = sum over i <= l of exp(B(u) . a_i), d the dimension, so
shells are nested and positive whatever the coefficients, and no penalty has to keep them apart. The sum of squares
within shells is an integral over directions of running integrals along each ray, which are tabulated once; objective
and gradient then cost a look-up per direction. The Fourier concentric clusters of Brunekreef et al. 2023 (section
3.1.3, appendix C) with what does not work there put right: areas weigh, the core is not empty, curves cannot cross.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import numpy as np

from segcal_cli.core.frozen import dataclass
from segcal_cli.kandinsky.annuli import Field, ShellFit
from segcal_cli.kandinsky.ellipsoids import Ellipsoid
from segcal_cli.kandinsky.features import Features

DIRECTIONS = {2: 180, 3: 1000}
"""Rays on which the integrals are tabulated: equal angles, or a Fibonacci lattice on the sphere."""

DEFAULT_ORDER = {2: 4, 3: 2}
"""Highest frequency of the Fourier series, degree of the spherical harmonics."""

STEP = 0.5
"""Length of a tabulated step along a ray, in smallest cells."""

ROUGHNESSES = (0.0, 1e-5, 1e-4, 1e-3)
"""Weights of the penalty, sum of order^4 |a|^2, to choose from; see ``choose_roughness``."""

USUAL_ROUGHNESS = 1e-4
"""Where too few patients are there to choose."""

TINY_SHARE = 1e-6
"""Share of the field below which a shell of the start is raised, so that its logarithm exists."""


@dataclass(frozen=True, slots=True)
class StarShells:
    """Coefficients "shell term" about a centre (mm from the first cell's), for the inner K - 1 surfaces."""

    centre: tuple[float, ...]
    coefficients: np.ndarray
    order: int

    @property
    def k(self) -> int:
        return len(self.coefficients) + 1

    def radii(self, directions: np.ndarray) -> np.ndarray:
        """float64 "shell direction", mm."""
        d = len(self.centre)
        parts = np.exp(self.coefficients @ basis(directions, self.order).T)
        return np.cumsum(parts, axis=0) ** (1.0 / d)

    def labels(self, places: np.ndarray) -> np.ndarray:
        """int64 "cell": the shell with r_{i-1} < d <= r_i; the centre itself is in the core."""
        labels = np.empty(len(places), np.int64)
        for start in range(0, len(places), 1 << 16):
            offset = places[start : start + (1 << 16)] - self.centre
            distance = np.sqrt((offset**2).sum(axis=1))
            # Any direction will do for the centre itself.
            offset[distance == 0, 0] = 1.0
            direction = offset / np.sqrt((offset**2).sum(axis=1))[:, None]
            labels[start : start + (1 << 16)] = (distance > self.radii(direction)).sum(axis=0)
        return labels


@dataclass(frozen=True)
class Rays:
    """Running integrals of (n F, n, n |F|^2) r^(d-1) dr along rays from a centre.

    directions: "ray axis"; running: float64 "ray step column", 0 at the centre; step: mm; total: of n.
    """

    centre: tuple[float, ...]
    directions: np.ndarray
    running: np.ndarray
    step: float

    @property
    def dimension(self) -> int:
        return self.directions.shape[1]

    @property
    def total(self) -> float:
        return float(self.running[:, -1, -2].sum())

    @property
    def constant(self) -> float:
        """The mean of |F|^2: the sum of squares of one cluster whose mean is 0."""
        return float(self.running[:, -1, -1].sum()) / self.total

    def at(self, radii: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Sums inside radii "shell ray", and their slopes: both float64 "shell ray column" (n F and n)."""
        last = self.running.shape[1] - 2
        position = radii / self.step
        low = np.clip(np.floor(position).astype(np.int64), 0, last)
        ray = np.arange(len(self.directions))
        before = self.running[ray, low, :-1]
        slope = (self.running[ray, low + 1, :-1] - before) / self.step
        inside = position < last + 1
        part = np.where(inside, position - low, 1.0) * self.step
        return before + slope * part[..., None], np.where(inside[..., None], slope, 0.0)


def basis(directions: np.ndarray, order: int) -> np.ndarray:
    """float64 "direction term": 1, cos kt, sin kt up to k = order, or real spherical harmonics up to that degree.

    directions: unit vectors along the axes of the field. The polar axis of the harmonics is the first.
    """
    if directions.shape[1] == 2:
        angle = np.arctan2(directions[:, 0], directions[:, 1])
        waves = [f(k * angle) for k in range(1, order + 1) for f in (np.cos, np.sin)]
        return np.stack([np.ones(len(directions)), *waves], axis=1)
    from scipy.special import sph_harm_y

    polar = np.arccos(np.clip(directions[:, 0], -1, 1))
    azimuth = np.arctan2(directions[:, 1], directions[:, 2])
    terms = []
    for degree in range(order + 1):
        for m in range(-degree, degree + 1):
            value = sph_harm_y(degree, abs(m), polar, azimuth)
            part = value.real if m >= 0 else value.imag
            terms.append(part * (np.sqrt(4 * np.pi) * (1.0 if m == 0 else np.sqrt(2))))
    return np.stack(terms, axis=1)


def frequencies(dimension: int, order: int) -> np.ndarray:
    """The order of each term of the basis, which the penalty grows with."""
    if dimension == 2:
        return np.array([0, *(k for k in range(1, order + 1) for _ in range(2))], np.float64)
    return np.array([degree for degree in range(order + 1) for _ in range(2 * degree + 1)], np.float64)


def rays_of(given: Features, field: Field, centre: Sequence[float]) -> Rays:
    """Tabulate the field's features along rays. Nearest cell at each step; nothing beyond the field."""
    d = field.dimension
    directions = _directions(d)
    spacing, shape = np.array(field.spacing), np.array(field.shape)
    step = STEP * float(spacing.min())
    corners = np.stack(np.meshgrid(*[(0.0, side) for side in field.sides], indexing="ij"), -1).reshape(-1, d)
    reach = float(np.sqrt(((corners - spacing / 2 - centre) ** 2).sum(axis=1)).max())
    n_steps = int(np.ceil(reach / step)) + 1
    columns = np.column_stack(
        (given.centred * given.weights[:, None], given.weights, given.weights * (given.centred**2).sum(axis=1))
    )
    running = np.zeros((len(directions), n_steps + 1, columns.shape[1]))
    middle = (np.arange(n_steps) + 0.5) * step
    shells = ((np.arange(n_steps) + 1.0) ** d - np.arange(n_steps) ** d) * step**d / d
    for ray, direction in enumerate(directions):
        at = np.rint((np.array(centre) + middle[:, None] * direction) / spacing).astype(np.int64)
        inside = ((at >= 0) & (at < shape)).all(axis=1)
        cell = np.ravel_multi_index(tuple(at[inside].T), field.shape)
        np.cumsum(columns[cell] * shells[inside, None], axis=0, out=running[ray, 1 : 1 + len(cell)])
        running[ray, 1 + len(cell) :] = running[ray, len(cell)]
    return Rays(tuple(map(float, centre)), directions, running, step)


def objective(
    flat: np.ndarray, rays: Rays, base: np.ndarray, orders: np.ndarray, roughness: float, *, paper: bool = False
) -> tuple[float, np.ndarray]:
    """Sum of squares within shells per unit of n, plus the penalty, and its gradient. flat: coefficients.

    paper: the sum of the shells' variances, each weighing the same whatever its area (eq. 7), for reproduction.
    """
    d = rays.dimension
    coefficients = flat.reshape(-1, base.shape[1])
    parts = np.exp(np.clip(coefficients @ base.T, -200, 200))
    powers = np.cumsum(parts, axis=0)
    radii = powers ** (1.0 / d)
    inside, slopes = rays.at(radii)
    whole = rays.running[:, -1, :-1].sum(axis=0)
    sums = np.diff(inside.sum(axis=1), axis=0, prepend=0, append=whole[None])
    flow, mass = sums[:, :-1], sums[:, -1]
    safe = np.where(mass > 0, mass, 1.0)
    if paper:
        squares = _squares(rays, radii)
        value = float((squares / safe - (flow**2).sum(axis=1) / safe**2).sum())
        return value + _penalty(coefficients, orders, roughness)[0], np.empty(0)
    square = (flow**2).sum(axis=1)
    value = rays.constant - float((square / safe).sum()) / rays.total
    # Derivative of the value by each shell's sums, then by what the surface between two shells moves.
    by_flow = -2 * flow / safe[:, None] / rays.total
    by_mass = square / safe**2 / rays.total
    by_surface = np.einsum("lrf,lf->lr", slopes[..., :-1], by_flow[:-1] - by_flow[1:])
    by_surface += slopes[..., -1] * (by_mass[:-1] - by_mass[1:])[:, None]
    by_power = by_surface * radii ** (1 - d) / d
    by_part = np.cumsum(by_power[::-1], axis=0)[::-1] * parts
    penalty, by_penalty = _penalty(coefficients, orders, roughness)
    return value + penalty, ((by_part @ base) + by_penalty).ravel()


def fit_star(
    given: Features,
    field: Field,
    start: ShellFit,
    order: int | None = None,
    roughness: float = USUAL_ROUGHNESS,
    *,
    paper: bool = False,
) -> tuple[StarShells, float]:
    """Star shells from the shells of an ellipsoid, and their sum of squares per unit of n (without the penalty)."""
    rays = rays_of(given, field, start.ellipsoid.centre)
    return fit_rays(rays, start.ellipsoid, start.radii, order, roughness, paper=paper)


def fit_rays(
    rays: Rays,
    ellipsoid: Ellipsoid,
    radii: Sequence[float],
    order: int | None = None,
    roughness: float = USUAL_ROUGHNESS,
    *,
    paper: bool = False,
) -> tuple[StarShells, float]:
    """The fit on tabulated rays: BFGS from the least-squares fit of log increments to the ellipsoid's shells."""
    from scipy.optimize import minimize

    order = DEFAULT_ORDER[rays.dimension] if order is None else order
    base, orders = basis(rays.directions, order), frequencies(rays.dimension, order)
    flat = _start(rays, ellipsoid, radii, base).ravel()
    if paper:
        found = minimize(
            lambda x: objective(x, rays, base, orders, roughness, paper=True)[0], flat, method="BFGS",
            options={"maxiter": 60},
        )  # fmt: skip
    else:
        found = minimize(objective, flat, args=(rays, base, orders, roughness), jac=True, method="BFGS")
    shells = StarShells(rays.centre, found.x.reshape(-1, base.shape[1]), order)
    return shells, objective(found.x, rays, base, orders, 0.0)[0]


def star_sse(shells: StarShells, rays: Rays, means: np.ndarray) -> float:
    """Sum of squares of other patients' rays about the means "shell feature" of these shells, per unit of n."""
    inside, _ = rays.at(shells.radii(rays.directions))
    sums = np.diff(inside.sum(axis=1), axis=0, prepend=0, append=rays.running[:, -1, :-1].sum(axis=0)[None])
    cross = 2 * (sums[:, :-1] * means).sum() - (sums[:, -1] * (means**2).sum(axis=1)).sum()
    return rays.constant - float(cross) / rays.total


def shell_means(shells: StarShells, rays: Rays) -> np.ndarray:
    """float64 "shell feature": mean features within the shells."""
    inside, _ = rays.at(shells.radii(rays.directions))
    sums = np.diff(inside.sum(axis=1), axis=0, prepend=0, append=rays.running[:, -1, :-1].sum(axis=0)[None])
    return sums[:, :-1] / np.maximum(sums[:, -1:], 1e-300)


def choose_roughness(
    folds: Sequence[tuple[Features, Features]], field: Field, start: ShellFit, order: int | None = None
) -> float:
    """The weight of the penalty with the least held-out sum of squares. folds: features of the other patients and of
    those held out, by the same points."""
    losses = np.zeros(len(ROUGHNESSES))
    for training, held_out in folds:
        # One centre for both, or the means would not be comparable.
        mean = training.weights @ training.values / max(training.weights.sum(), 1.0)
        learn = rays_of(training, field, start.ellipsoid.centre)
        test = rays_of(_shifted(held_out, mean), field, start.ellipsoid.centre)
        own = held_out.weights @ (held_out.values - mean) / max(held_out.weights.sum(), 1.0)
        for index, roughness in enumerate(ROUGHNESSES):
            shells, _ = fit_rays(learn, start.ellipsoid, start.radii, order, roughness)
            losses[index] += star_sse(shells, test, shell_means(shells, learn) - own)
    return ROUGHNESSES[int(losses.argmin())]


def _shifted(given: Features, mean: np.ndarray) -> Features:
    return replace(given, values=np.where(given.known[:, None], given.values - mean, 0.0))


def _directions(dimension: int) -> np.ndarray:
    n = DIRECTIONS[dimension]
    if dimension == 2:
        angle = 2 * np.pi * (np.arange(n) + 0.5) / n
        return np.stack((np.sin(angle), np.cos(angle)), axis=1)
    height = 1 - 2 * (np.arange(n) + 0.5) / n
    turn = np.pi * (3 - np.sqrt(5)) * np.arange(n)
    ring = np.sqrt(1 - height**2)
    return np.stack((height, ring * np.sin(turn), ring * np.cos(turn)), axis=1)


def _start(rays: Rays, ellipsoid: Ellipsoid, radii: Sequence[float], base: np.ndarray) -> np.ndarray:
    surface = ellipsoid.radius(rays.directions)
    powers = (np.array(radii)[:, None] * surface) ** rays.dimension
    parts = np.diff(powers, axis=0, prepend=0)
    floor = TINY_SHARE * powers.max()
    return np.linalg.lstsq(base, np.log(np.maximum(parts, floor)).T, rcond=None)[0].T


def _squares(rays: Rays, radii: np.ndarray) -> np.ndarray:
    """float64 "shell": integrals of n |F|^2 within the shells."""
    last = rays.running.shape[1] - 1
    position = np.clip(radii / rays.step, 0, last - 1e-9)
    low = np.floor(position).astype(np.int64)
    ray = np.arange(len(rays.directions))
    before, after = rays.running[ray, low, -1], rays.running[ray, low + 1, -1]
    inside = (before + (after - before) * (position - low)).sum(axis=1)
    return np.diff(inside, prepend=0, append=rays.running[:, -1, -1].sum())


def _penalty(coefficients: np.ndarray, orders: np.ndarray, roughness: float) -> tuple[float, np.ndarray]:
    weight = roughness * orders**4
    return float((weight * coefficients**2).sum()), 2 * weight * coefficients
