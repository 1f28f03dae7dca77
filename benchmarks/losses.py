"""mL1-ACE as a loss: forward and backward on one training batch, next to loops over images and classes.

The peer is the loss the way it is usually written: for every image and class a ``bucketize``, then three sums scattered
into bins. Both see the same scores; their values are compared before either is timed.

    python benchmarks/losses.py [--device cuda]
"""

from __future__ import annotations

import argparse
import statistics
import time
from collections.abc import Callable
from pathlib import Path

import torch

from segcal_cli.losses import ACELoss

SHAPE = (2, 4, 96, 96, 96)
"""image class z y x"""

BINS = 20


def run(folder: Path, runs: int, device: str = "cpu") -> str:
    """The table. folder: not used."""
    torch.manual_seed(0)
    scores = (3 * torch.randn(SHAPE)).to(device)
    codes = torch.randint(0, SHAPE[1], (SHAPE[0], *SHAPE[2:]))
    target = torch.nn.functional.one_hot(codes, SHAPE[1]).movedim(-1, 1).float().to(device)
    losses: dict[str, Callable[[torch.Tensor, torch.Tensor], torch.Tensor]] = {
        "loops over images and classes": looped,
        "ACELoss, hard": ACELoss(BINS),
        "ACELoss, soft": ACELoss(BINS, binning="soft"),
    }
    difference = abs(losses["ACELoss, hard"](scores, target).item() - looped(scores, target).item())
    if difference > 1e-5:
        raise AssertionError(f"the peers differ by {difference}")
    times: dict[str, list[float]] = {name: [] for name in losses}
    for _ in range(runs + 1):
        for name, loss in losses.items():
            times[name].append(seconds(loss, scores, target))
    first = statistics.median(times["loops over images and classes"][1:])
    name = torch.cuda.get_device_name() if device == "cuda" else f"CPU, {torch.get_num_threads()} threads"
    lines = [
        f"mL1-ACE, forward and backward, {' x '.join(map(str, SHAPE))}, {BINS} bins, {name}",
        f"{'':34}{'seconds':>9}{'ratio':>8}",
    ]
    for label, all_times in times.items():
        median = statistics.median(all_times[1:])
        lines.append(f"{label:34}{median:>9.4f}{median / first:>8.2f}")
    return "\n".join(lines) + "\n"


def seconds(
    loss: Callable[[torch.Tensor, torch.Tensor], torch.Tensor], scores: torch.Tensor, target: torch.Tensor
) -> float:
    leaf = scores.clone().requires_grad_()
    if scores.is_cuda:
        torch.cuda.synchronize()
    start = time.perf_counter()
    loss(leaf, target).backward()
    if scores.is_cuda:
        torch.cuda.synchronize()
    return time.perf_counter() - start


def looped(scores: torch.Tensor, target: torch.Tensor) -> torch.Tensor:
    """Mean over images and classes of the mean gap of the non-empty bins, right-closed."""
    probabilities = scores.softmax(dim=1)
    edges = torch.linspace(0, 1, BINS + 1, device=scores.device)[1:-1]
    errors = []
    for image in range(scores.shape[0]):
        for channel in range(scores.shape[1]):
            p, y = probabilities[image, channel].flatten(), target[image, channel].flatten()
            index = torch.bucketize(p.detach(), edges)
            empty = torch.zeros(BINS, device=scores.device)
            count = empty.scatter_add(0, index, torch.ones_like(p))
            mean = empty.scatter_add(0, index, p) / count.clamp(min=1)
            frequency = empty.scatter_add(0, index, y) / count.clamp(min=1)
            errors.append((mean - frequency).abs()[count > 0].mean())
    return torch.stack(errors).mean()


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--device", choices=("cpu", "cuda"), default="cpu")
    parser.add_argument("--runs", type=int, default=5)
    options = parser.parse_args()
    print(run(Path(), options.runs, options.device))
