"""Training of the local temperature network: Adam on tiles, ended by patients that it is not trained on.

The loss is the mean negative log-likelihood of the voxels that tiles stand for. After every epoch it is taken on the
tiles of the patients that are held out; the weights of the best epoch are kept, and training ends early once it has not
improved for some epochs. Everything random comes from the seed, and sums have one order, so that the same cases give
the same weights on the same device.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import replace
from typing import TYPE_CHECKING

import numpy as np

from segcal_cli.calibration.auxiliary import Surroundings
from segcal_cli.calibration.equipment import Device
from segcal_cli.calibration.local import CHANNELS, CLIPPED, HIDDEN, LocalNetwork, as_images, heights
from segcal_cli.calibration.on_device import steady
from segcal_cli.calibration.tiles import Tile
from segcal_cli.core.frozen import dataclass

if TYPE_CHECKING:
    from torch import Tensor

EPOCHS, BATCH, LEARNING_RATE = 30, 4, 1e-3
"""Of training, unless something else is asked for."""

PATIENCE = 6
"""Epochs without a better loss on the held-out patients that end training."""


@dataclass(frozen=True, slots=True)
class Training:
    """How a network is trained. seed: of its first weights and of the order of tiles."""

    epochs: int = EPOCHS
    batch: int = BATCH
    learning_rate: float = LEARNING_RATE
    seed: int = 0


@dataclass(frozen=True, slots=True)
class Trained:
    """A network and how it came about. epochs: that were run; steps: of Adam; best: the one whose weights were kept,
    0 where none beat T0. losses: on the held-out tiles, before training and after each epoch. gradient: the largest
    of the loss on the trained tiles."""

    network: LocalNetwork
    epochs: int
    steps: int
    best: int
    losses: tuple[float, ...]
    gradient: float


def train(
    tiles: Sequence[tuple[Tile, float]],
    held_out: Sequence[tuple[Tile, float]],
    temperature: float,
    hood: Surroundings,
    training: Training,
    *,
    exclusive: bool,
    image: bool,
    device: Device = "cpu",
) -> Trained:
    """The network of best loss on the held-out tiles, each with the weight of its case. exclusive: softmax.

    Without held-out tiles the trained ones decide.
    """
    import torch

    mean, spread = standards([tile for tile, _ in tiles], hood, image=image)
    random = np.random.default_rng([training.seed, len(mean), hood.dim])
    layers = first_layers(len(mean), hood.dim, random)
    with steady():
        parameters = [torch.tensor(layer, device=device, requires_grad=True) for layer in layers]
        seen = _Losses(tiles, temperature, hood, mean, spread, exclusive, device)
        judges = replace(seen, tiles=held_out) if held_out else seen
        adam = torch.optim.Adam(parameters, lr=training.learning_rate)
        losses = [judges.mean_loss(parameters)]
        best, kept = 0, [layer.copy() for layer in layers]
        for epoch in range(1, training.epochs + 1):
            order = random.permutation(len(tiles))
            for start in range(0, len(order), training.batch):
                chosen = order[start : start + training.batch]
                share = seen.voxels * len(chosen) / len(order)
                adam.zero_grad()
                for at in chosen:
                    (seen.of_tile(int(at), parameters) / share).backward()
                adam.step()
            losses.append(judges.mean_loss(parameters))
            if losses[-1] < losses[best]:
                best, kept = epoch, [layer.detach().cpu().numpy().copy() for layer in parameters]
            elif epoch - best >= PATIENCE:
                break
        gradient = seen.gradient(kept)
    network = LocalNetwork(tuple(kept), mean, spread, temperature, image)
    epochs = len(losses) - 1
    return Trained(network, epochs, epochs * math.ceil(len(tiles) / training.batch), best, tuple(losses), gradient)


def standards(tiles: Sequence[Tile], hood: Surroundings, *, image: bool) -> tuple[np.ndarray, np.ndarray]:
    """float64 mean and spread "input" of what the network sees, cut off; the scan has been standardised already."""
    totals = np.zeros((3, len(tiles[0].x)))
    for tile in tiles:
        x = np.clip(core(tile.x, hood).astype(np.float64), -CLIPPED, CLIPPED)
        totals += tile.weight * np.stack(
            [np.full(len(x), x[0].size), x.sum(axis=(1, 2, 3)), (x * x).sum(axis=(1, 2, 3))]
        )
    mean = totals[1] / totals[0]
    spread = np.sqrt(np.maximum(totals[2] / totals[0] - mean * mean, 0.0))
    spread[spread < 1e-6] = 1.0
    if image:
        mean[-1], spread[-1] = 0.0, 1.0
    return mean, spread


def first_layers(inputs: int, dim: int, random: np.random.Generator) -> list[np.ndarray]:
    """float32 weights and biases before training: uniform within 1/sqrt(fan-in), the last layer 0."""
    layers = []
    for number in range(HIDDEN):
        fan_in = (CHANNELS if number else inputs) * 3**dim
        shape = (CHANNELS, CHANNELS if number else inputs, *(3,) * dim)
        end = 1.0 / math.sqrt(fan_in)
        layers += [random.uniform(-end, end, shape).astype(np.float32)]
        layers += [random.uniform(-end, end, CHANNELS).astype(np.float32)]
    last = [np.zeros((1, CHANNELS, *(1,) * dim), dtype=np.float32), np.zeros(1, dtype=np.float32)]
    return [*layers, *last]


def core(x: np.ndarray, hood: Surroundings) -> np.ndarray:
    """A tile's inputs without what lies around it."""
    half = hood.kernel // 2
    planes = slice(half, x.shape[1] - half) if hood.dim == 3 else slice(None)
    return x[:, planes, half : x.shape[2] - half, half : x.shape[3] - half]


@dataclass(frozen=True, slots=True)
class _Losses:
    """Losses of tiles, each with the weight of its case. Tiles go to the device one at a time."""

    tiles: Sequence[tuple[Tile, float]]
    temperature: float
    hood: Surroundings
    mean: np.ndarray
    spread: np.ndarray
    exclusive: bool
    device: Device

    @property
    def voxels(self) -> float:
        """Weighted number of voxels that count."""
        return math.fsum(weight * tile.voxels for tile, weight in self.tiles)

    def of_tile(self, at: int, parameters: Sequence[Tensor]) -> Tensor:
        """Weighted sum over the voxels of a tile, in float64; of independent problems their mean."""
        import torch
        from torch.nn.functional import logsigmoid

        tile, weight = self.tiles[at]
        problems = len(tile.truth)
        inputs = core(tile.x, self.hood)[:problems].reshape(problems, -1).astype(np.float64) / self.temperature
        over_t0 = torch.as_tensor(inputs, dtype=torch.float32, device=self.device)
        truth = torch.as_tensor(tile.truth.reshape(problems, -1), dtype=torch.float32, device=self.device)
        counted = torch.as_tensor(tile.inside.reshape(-1), dtype=torch.float64, device=self.device)
        x = as_images(tile.x, self.hood, self.mean, self.spread, self.device)
        u = over_t0 * torch.exp(-2.0 * torch.tanh(0.5 * heights(x, parameters).reshape(-1)))
        if self.exclusive:
            losses = -(torch.log_softmax(u, dim=0) * truth).sum(dim=0)
        else:
            losses = (-logsigmoid(-u) - truth * u).mean(dim=0)
        return (losses.double() * counted).sum() * (weight * tile.weight)

    def mean_loss(self, parameters: Sequence[Tensor]) -> float:
        import torch

        with torch.no_grad():
            sums = [float(self.of_tile(at, parameters)) for at in range(len(self.tiles))]
        return math.fsum(sums) / self.voxels

    def gradient(self, layers: Sequence[np.ndarray]) -> float:
        """The largest derivative of the mean loss in any weight."""
        import torch

        parameters = [torch.tensor(layer, device=self.device, requires_grad=True) for layer in layers]
        for at in range(len(self.tiles)):
            (self.of_tile(at, parameters) / self.voxels).backward()
        return max(float(one.grad.abs().max()) for one in parameters if one.grad is not None)
