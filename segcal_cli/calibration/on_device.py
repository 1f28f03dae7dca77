"""The same sums on a GPU: convolutions and linear maps over all voxels, in float64, with torch.

Each function does what its namesake on the CPU does, to the rounding of sums; ``refining.py`` therefore takes the same
steps on either. The code asks nothing of the device but its name, so that it runs on the CPU too.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING

import numpy as np

from segcal_cli.calibration.linear import Sums, Voxels

if TYPE_CHECKING:
    from torch import Tensor

    from segcal_cli.calibration.auxiliary import Slab, Surroundings


@contextmanager
def steady() -> Iterator[None]:
    """Torch with one order of sums: one thread, no search for the fastest kernel, no shortened mantissas."""
    import torch

    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        with torch.backends.cudnn.flags(enabled=True, benchmark=False, deterministic=True, allow_tf32=False):
            yield
    finally:
        torch.set_num_threads(threads)


def linear_inputs(weights: np.ndarray, x: np.ndarray, device: str) -> np.ndarray:
    """float64 u "class voxel"; see ``linear.inputs``. x: "1 feature voxel"."""
    return _linear(_at(weights, device), _at(x[0], device)).cpu().numpy()


def linear_sums(weights: np.ndarray, voxels: Voxels, *, exclusive: bool, device: str) -> Sums:
    """Value and gradient; see ``linear.sums_of``. All classes share one set of features."""
    import torch

    w, x, truth = _at(weights, device), _at(voxels.x[0], device), _at(voxels.truth, device)
    counts = _at(voxels.weights, device)
    losses, left = _losses_and_left(_linear(w, x), truth, exclusive=exclusive)
    left = left * counts
    gradient = torch.cat([left @ x.T, left.sum(dim=1, keepdim=True)], dim=1)
    return Sums(float((losses * counts).sum()), gradient.cpu().numpy(), None, float(voxels.weights.sum()))


def convolved(slab: Slab, weights: np.ndarray, hood: Surroundings, device: str) -> np.ndarray:
    """float64 u "class plane row column"; see ``auxiliary.convolved``."""
    with steady():
        return _convolution(_at(slab.z, device), _at(weights, device), hood).cpu().numpy()


def slab_sums(
    slab: Slab,
    truth: np.ndarray,
    inside: np.ndarray | None,
    weights: np.ndarray,
    hood: Surroundings,
    *,
    exclusive: bool,
    device: str,
) -> Sums:
    """Value and gradient over a slab; see ``AuxiliaryModel.sums``. truth: bool "class plane row column"; inside: bool
    "plane row column", voxels that count."""
    w = _at(weights, device).requires_grad_()
    with steady():
        u = _convolution(_at(slab.z, device), w, hood)
        losses, _ = _losses_and_left(u, _at(truth, device), exclusive=exclusive)
        counted = losses if inside is None else losses * _at(inside, device)
        value = counted.sum()
        value.backward()
    assert w.grad is not None, "every tap has been used"
    count = losses.numel() if inside is None else np.count_nonzero(inside)
    return Sums(float(value.detach()), w.grad.cpu().numpy(), None, float(count))


def _at(array: np.ndarray, device: str) -> Tensor:
    import torch

    return torch.as_tensor(np.ascontiguousarray(array)).to(device=device, dtype=torch.float64)


def _linear(weights: Tensor, x: Tensor) -> Tensor:
    return weights[:, :-1] @ x + weights[:, -1:]


def _convolution(z: Tensor, weights: Tensor, hood: Surroundings) -> Tensor:
    """u "class plane row column" of padded z, each class with its own kernel."""
    from torch.nn.functional import conv2d, conv3d

    edge = (hood.kernel,) * hood.dim
    kernels, offsets = weights[:, :-1].reshape(len(weights), 1, *edge), weights[:, -1]
    if hood.dim == 3:
        return conv3d(z[None], kernels, offsets, groups=len(z))[0]
    return conv2d(z.transpose(0, 1), kernels, offsets, groups=len(z)).transpose(0, 1)


def _losses_and_left(u: Tensor, truth: Tensor, *, exclusive: bool) -> tuple[Tensor, Tensor]:
    """Negative log-likelihood of each voxel, and p - y "class ..."."""
    import torch
    from torch.nn.functional import logsigmoid

    if exclusive:
        logs = torch.log_softmax(u, dim=0)
        return -(logs * truth).sum(dim=0), logs.exp() - truth
    return (-logsigmoid(-u) - truth * u).sum(dim=0), torch.sigmoid(u) - truth
