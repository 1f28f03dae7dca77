"""Published recipes: the same models, fitted by Adam as the papers did. For reproduction; the exact fit is the default.

    temperature   T from 1.5, one epoch, a step of 1e-3 per case        Barfoot et al. 2024, "Average Calibration Error"
    platt         1 x 1 convolution of slices, uniform start, shuffled batches of 64, Adam 5e-3, a tenth of that after
    auxiliary     3 epochs without gain, an end after 6, at most 50     Rousseau et al. 2021, "Post training uncertainty
    fine-tune     from the layer as it was, 2 volumes a step, 1e-4      calibration of deep networks"

Where such a run ends depends on the seed and on how long it runs, and never below the optimum. Rousseau et al. stopped
on the fold that they reported; here the loss of the fitted slices decides, since a reported fold must not. Slices and
features stay in memory while they are used; of a large scan only as many are kept as the numbers of any sample allow.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import TYPE_CHECKING

import numpy as np

from segcal_cli.calibration.auxiliary import Surroundings, channel_inputs
from segcal_cli.calibration.canonical import log_odds
from segcal_cli.calibration.linear import Shape, Voxels
from segcal_cli.calibration.method import SLOPE_LIMIT
from segcal_cli.calibration.sampling import MOST_NUMBERS, generator
from segcal_cli.core.case import Case
from segcal_cli.core.frozen import dataclass

if TYPE_CHECKING:
    import torch

RECIPES = ("temperature", "platt", "auxiliary", "fine-tune")
"""Methods with a published recipe."""

FIRST_TEMPERATURE = 1.5
PATIENCE, END, LEAST_GAIN = 3, 6, 1e-4
"""Epochs without a relative gain of LEAST_GAIN after which the rate falls, and after which the run ends."""

SLOWER = 0.1
FIRST_MOMENT, SECOND_MOMENT, EPSILON = 0.9, 0.999, 1e-8
"""Adam's constants (Kingma, Ba 2015)."""


@dataclass(frozen=True, slots=True)
class Recipe:
    """batch: cases (temperature, fine-tune) or slices per step."""

    epochs: int
    batch: int
    rate: float


PUBLISHED = {
    "temperature": Recipe(1, 1, 1e-3),
    "platt": Recipe(50, 64, 5e-3),
    "auxiliary": Recipe(50, 64, 5e-3),
    "fine-tune": Recipe(50, 2, 1e-4),
}


@dataclass(frozen=True, slots=True)
class Slices:
    """Slices of a case. z: float32 "slice problem row column"; y: bool, the same; counted: bool "slice row column"."""

    z: np.ndarray
    y: np.ndarray
    counted: np.ndarray


def slices_of(case: Case, hood: Surroundings, seed: int, *, against_rest: bool) -> Slices:
    """The slices of a case that hold a counted voxel; of too many, some drawn by the case's name. against_rest: inputs
    are the log-odds of each class against the others."""
    assert case.labels is not None, "fits need labels"
    volume, space = case.volume, case.space
    front = hood.front(volume.grid)
    array = np.moveaxis(volume.array, 1 + front, 1)
    counted = case.counted(padding=False)
    kept = np.ones(case.labels.codes.shape, dtype=bool) if counted is None else counted
    kept, codes = np.moveaxis(kept, front, 0), np.moveaxis(case.labels.codes, front, 0)
    places = np.flatnonzero(kept.any(axis=(1, 2)))
    problems = len(space.measured)
    most = max(1, MOST_NUMBERS // (problems * kept[0].size))
    if len(places) > most:
        places = np.sort(generator(seed, case.id).choice(places, most, replace=False))
    chosen = array[:, places]
    flat = chosen.reshape(len(chosen), -1)
    z = log_odds(flat, volume.values, volume.stored, space) if against_rest else channel_inputs(flat, volume, space)
    shape = (problems, len(places), *kept.shape[1:])
    y = case.labels.members[list(space.measured)][:, codes[places]]
    return Slices(
        np.moveaxis(z.reshape(shape), 1, 0).astype(np.float32), np.moveaxis(y, 1, 0).copy(), kept[places].copy()
    )


def convolution(
    cases: Sequence[Slices], kernel: int, recipe: Recipe, seed: int, *, exclusive: bool, pad: str
) -> tuple[np.ndarray, int]:
    """float64 weights "problem tap+1", the offset last, and the number of steps. One kernel per problem."""
    import torch
    from torch.nn import functional

    with _one_thread():
        random = torch.Generator().manual_seed(seed)
        problems = cases[0].z.shape[1]
        limit = kernel**-1.0  # torch's start of a convolution: 1 / sqrt(fan in)
        weight = ((torch.rand((problems, 1, kernel, kernel), generator=random) * 2 - 1) * limit).requires_grad_()
        bias = ((torch.rand(problems, generator=random) * 2 - 1) * limit).requires_grad_()
        places = [(i, j) for i, case in enumerate(cases) for j in range(len(case.z))]

        def summed(batch: Sequence[int]) -> tuple[torch.Tensor, float]:
            """Loss over the voxels of a batch, and their number; slices of one size go together."""
            sizes: dict[tuple[int, ...], list[tuple[int, int]]] = {}
            for i, j in (places[k] for k in batch):
                sizes.setdefault(cases[i].z.shape[2:], []).append((i, j))
            total, voxels = torch.zeros(()), 0
            half = kernel // 2
            for members in sizes.values():
                z, y, kept = (
                    torch.from_numpy(np.stack([getattr(cases[i], name)[j] for i, j in members]))
                    for name in ("z", "y", "counted")
                )
                mode = "constant" if pad == "zero" else "replicate"
                u = functional.conv2d(functional.pad(z, (half,) * 4, mode=mode), weight, bias, groups=problems)
                if exclusive:
                    loss = functional.cross_entropy(u, y.float(), reduction="none")
                else:
                    loss = functional.binary_cross_entropy_with_logits(u, y.float(), reduction="none").mean(dim=1)
                total = total + (loss * kept).sum()
                voxels += int(kept.sum())
            return total, voxels

        steps = _descended([weight, bias], len(places), recipe, random, summed)
        flat = weight.detach().double().reshape(problems, -1)
        return torch.cat([flat, bias.detach().double()[:, None]], dim=1).numpy(), steps


def layer(
    cases: Sequence[Voxels], shape: Shape, recipe: Recipe, seed: int, *, exclusive: bool
) -> tuple[np.ndarray, int]:
    """float64 weights "problem feature+1" from the layer as it was, and the number of steps. cases: their voxels, each
    with as much weight as it stands for; rows that are not free stay."""
    import torch
    from torch.nn import functional

    with _one_thread():
        random = torch.Generator().manual_seed(seed)
        start, free = torch.from_numpy(shape.start.copy()), torch.from_numpy(shape.free)
        moved = start.clone().requires_grad_()

        def summed(batch: Sequence[int]) -> tuple[torch.Tensor, float]:
            total, voxels = torch.zeros((), dtype=torch.float64), 0.0
            weights = torch.where(free, moved, start)
            for case in (cases[k] for k in batch):
                u = weights[:, :-1] @ torch.from_numpy(case.x[0]).double() + weights[:, -1:]
                y = torch.from_numpy(case.truth).double()
                if exclusive:
                    loss = -(functional.log_softmax(u, dim=0) * y).sum(dim=0)
                else:
                    loss = functional.binary_cross_entropy_with_logits(u, y, reduction="none").mean(dim=0)
                total = total + (loss * torch.from_numpy(case.weights)).sum()
                voxels += float(case.weights.sum())
            return total, voxels

        steps = _descended([moved], len(cases), recipe, random, summed)
        return torch.where(free, moved, start).detach().numpy(), steps


def _descended(
    parameters: Sequence[torch.Tensor],
    parts: int,
    recipe: Recipe,
    random: torch.Generator,
    summed: Callable[[Sequence[int]], tuple[torch.Tensor, float]],
) -> int:
    """The number of steps of Adam, in place. parts: that are shuffled; summed: loss of some of them, and its voxels."""
    import torch

    optimiser = torch.optim.Adam(parameters, lr=recipe.rate)
    plateau = torch.optim.lr_scheduler.ReduceLROnPlateau(
        optimiser, factor=SLOWER, patience=PATIENCE - 1, threshold=LEAST_GAIN
    )
    best, waited, steps = float("inf"), 0, 0
    for _ in range(recipe.epochs):
        order = torch.randperm(parts, generator=random).tolist()
        whole, count = 0.0, 0.0
        for start in range(0, parts, recipe.batch):
            total, voxels = summed(order[start : start + recipe.batch])
            optimiser.zero_grad()
            (total / voxels).backward()
            optimiser.step()
            whole, count, steps = whole + float(total.detach()), count + voxels, steps + 1
        plateau.step(whole / count)
        waited = 0 if whole / count < best * (1.0 - LEAST_GAIN) else waited + 1
        best = min(best, whole / count)
        if waited >= END:
            break
    return steps


@contextmanager
def _one_thread() -> Iterator[None]:
    """Sums in floating point depend on their order."""
    import torch

    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        yield
    finally:
        torch.set_num_threads(threads)


def temperature(
    slopes: Sequence[Callable[[float], tuple[float, float]]], recipe: Recipe, seed: int
) -> tuple[float, int]:
    """T and the number of steps. slopes: of each case, the derivative by T of the summed loss at T, and its voxels."""
    random = np.random.default_rng(seed)
    t, first, second, steps = FIRST_TEMPERATURE, 0.0, 0.0, 0
    for _ in range(recipe.epochs):
        order = random.permutation(len(slopes))
        for start in range(0, len(order), recipe.batch):
            parts = [slopes[i](t) for i in order[start : start + recipe.batch]]
            slope = sum(part for part, _ in parts) / sum(voxels for _, voxels in parts)
            steps += 1
            first = FIRST_MOMENT * first + (1.0 - FIRST_MOMENT) * slope
            second = SECOND_MOMENT * second + (1.0 - SECOND_MOMENT) * slope * slope
            move = first / (1.0 - FIRST_MOMENT**steps)
            size = np.sqrt(second / (1.0 - SECOND_MOMENT**steps)) + EPSILON
            t = float(np.clip(t - recipe.rate * move / size, 1.0 / SLOPE_LIMIT, SLOPE_LIMIT))
    return t, steps
