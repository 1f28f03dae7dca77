"""A small U-Net, trained with the soft Dice loss and nothing else.

Soft Dice rewards the right shape and does not care for honest probabilities: the loss is lowest at 0 and 1 even where
the annotators disagree, so the network turns out over-confident, like many that are trained this way in earnest
(Bertels et al. 2019, "Optimizing the Dice score and Jaccard index for medical image segmentation: theory and
practice"). That is the point: the miscalibration of the sample data is a network's own, not painted on.
"""

from __future__ import annotations

import itertools
from collections.abc import Sequence

import numpy as np
import torch
from torch import nn
from torch.nn import functional as F  # noqa: N812 (its usual name)

WIDTHS = (8, 16, 32)
"""Feature maps per level; one thread trains it in a minute or two."""

SMOOTH = 1.0
"""Voxels added to both halves of the Dice fraction, so that an absent class has a gradient."""

LEARNING_RATE = 4e-3
"""Of Adam at the start; it falls to zero."""


class UNet(nn.Module):
    """Images "batch 1 (z) y x" to logits "batch class (z) y x"; the rank follows from the strides."""

    def __init__(self, classes: int, strides: Sequence[tuple[int, ...]]) -> None:
        super().__init__()
        three_d = len(strides[0]) == 3
        self.convolution: type[nn.Module] = nn.Conv3d if three_d else nn.Conv2d
        self.norm: type[nn.Module] = nn.InstanceNorm3d if three_d else nn.InstanceNorm2d
        self.pool = F.max_pool3d if three_d else F.max_pool2d
        self.strides = tuple(strides)
        kernels = [tuple(3 if n > 1 else 1 for n in stride) for stride in strides]
        kernels.append((3,) * len(strides[0]))
        inputs = (1, *WIDTHS[:-1])
        self.down = nn.ModuleList(self._block(*each) for each in zip(inputs, WIDTHS, kernels, strict=True))
        joined = [deep + wide for wide, deep in itertools.pairwise(WIDTHS)]
        self.up = nn.ModuleList(
            self._block(*each) for each in zip(joined[::-1], WIDTHS[-2::-1], kernels[-2::-1], strict=True)
        )
        self.head = self.convolution(WIDTHS[0], classes, 1)

    def _block(self, inputs: int, outputs: int, kernel: tuple[int, ...]) -> nn.Sequential:
        layers: list[nn.Module] = []
        padding = tuple(n // 2 for n in kernel)
        for n in (inputs, outputs):
            layers += [
                self.convolution(n, outputs, kernel, padding=padding),
                self.norm(outputs, affine=True),
                nn.LeakyReLU(0.01),
            ]
        return nn.Sequential(*layers)

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        features, skips = self.down[0](images), []
        for block, stride in zip(self.down[1:], self.strides, strict=True):
            skips.append(features)
            features = block(self.pool(features, stride, ceil_mode=True))
        for block in self.up:
            skip = skips.pop()
            features = block(torch.cat([F.interpolate(features, size=skip.shape[2:]), skip], dim=1))
        return self.head(features)


def soft_dice_loss(logits: torch.Tensor, labels: torch.Tensor) -> torch.Tensor:
    """1 - soft Dice, pooled over the batch, mean over the classes; one channel: the foreground under a sigmoid."""
    if logits.shape[1] == 1:
        probabilities, truth = torch.sigmoid(logits), labels[:, None].float()
    else:
        probabilities = torch.softmax(logits, dim=1)
        truth = F.one_hot(labels, logits.shape[1]).movedim(-1, 1).float()
    over = [0, *range(2, logits.ndim)]
    overlap = (probabilities * truth).sum(over)
    return 1 - ((2 * overlap + SMOOTH) / (probabilities.sum(over) + truth.sum(over) + SMOOTH)).mean()


def train(net: UNet, images: np.ndarray, labels: np.ndarray, *, epochs: int, batch: int, seed: int) -> None:
    """Adam with a learning rate that falls to zero; left-right and front-back flips are the only augmentation."""
    order = np.random.default_rng(seed)
    inputs = torch.from_numpy(np.stack([normalised(image) for image in images]))[:, None]
    targets = torch.from_numpy(labels.astype(np.int64))
    steps = epochs * (len(inputs) // batch)
    optimizer = torch.optim.Adam(net.parameters(), lr=LEARNING_RATE)
    schedule = torch.optim.lr_scheduler.LambdaLR(optimizer, lambda step: (1 - step / steps) ** 0.9)
    for _ in range(epochs):
        shuffled = order.permutation(len(inputs))
        for first in range(0, len(shuffled) - batch + 1, batch):
            chosen = shuffled[first : first + batch]
            flips = [-axis for axis in (1, 2) if order.random() < 0.5]
            loss = soft_dice_loss(net(inputs[chosen].flip(flips)), targets[chosen].flip(flips))
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
            schedule.step()


def predict(net: UNet, image: np.ndarray) -> np.ndarray:
    """Logits, float32 "class (z) y x", of one image "(z) y x"."""
    with torch.no_grad():
        return net(torch.from_numpy(normalised(image))[None, None])[0].numpy()


def normalised(image: np.ndarray) -> np.ndarray:
    """Zero mean and unit variance over the voxels that are not exactly zero; zeros stay zero."""
    inside = image > 0
    values = image[inside].astype(np.float64)
    return np.where(inside, (image - values.mean()) / max(values.std(), 1e-6), 0.0).astype(np.float32)
