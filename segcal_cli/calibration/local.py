"""Local temperature scaling: a temperature for every voxel, from a small network that sees its surroundings.

    sigmoid(z / T(x)), or softmax(l / T(x))          T(x) = T0 exp(2 tanh(h(x) / 2))

h is what three convolutions of 3^d with 16 channels, and one of 1^d, make of the log-odds or log-softmax, and of the
scan if it is given. Where a model is sure for good reasons T is small, along doubtful borders it is large; decisions
stay, because one T divides all channels of a voxel. Ding, Han, Liu, Niethammer 2021, "Local Temperature Scaling for
Probability Calibration". Here T stays within a factor of e^2 of T0, the temperature that is best for all voxels; and
as h starts at 0, training starts there.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING

import numpy as np

from segcal_cli.calibration.auxiliary import Surroundings, channel_inputs
from segcal_cli.calibration.canonical import kind_of
from segcal_cli.calibration.equipment import Device
from segcal_cli.calibration.method import Method
from segcal_cli.calibration.on_device import steady
from segcal_cli.calibration.tiles import Scene, boxes_of
from segcal_cli.core.errors import InputError
from segcal_cli.core.frozen import dataclass
from segcal_cli.core.labels import LabelSpace
from segcal_cli.core.volume import Volume

if TYPE_CHECKING:
    from torch import Tensor

CHANNELS = 16
"""Of each hidden layer."""

HIDDEN = 3
"""Convolutions of 3^d before the last."""

REACH = 2 * HIDDEN + 1
"""Edge of what a voxel's temperature depends on."""

CLIPPED = 20.0
"""Log-odds and log-probabilities beyond this are cut off, for the network's eyes only."""

BLOCK_EDGES = {2: (8, 256, 256), 3: (64, 64, 64)}
"""Voxels that go through the network at a time: its hidden layers are 16 times as large."""

RUN_VOXELS = 1 << 16
"""Voxels divided at a time."""

METHOD = Method(
    name="local",
    families={"binary": "network", "sigmoid": "network", "softmax": "network"},
    keeps_decisions=True,
    options=("dim", "slice_axis", "epochs", "batch", "learning_rate"),
    on_gpu=True,
    slope=lambda row: float(1.0 / row[0]),
    cut=lambda row: 0.0,
)


class ImageNeeded(InputError):
    """A network that looks at the scan, and a volume without it."""

    template = "--images FOLDER is needed: this calibrator looks at the scan too"


@dataclass(frozen=True, slots=True)
class LocalNetwork:
    """A trained network. layers: float32 weight "out in ..." and bias "out" of each convolution, in turn. mean, spread:
    float64 "input", what inputs are standardised with. temperature: T0. image: whether the last input is the scan."""

    layers: tuple[np.ndarray, ...]
    mean: np.ndarray
    spread: np.ndarray
    temperature: float
    image: bool = False

    @property
    def size(self) -> int:
        """Number of weights."""
        return int(sum(layer.size for layer in self.layers))

    def arrays(self) -> dict[str, np.ndarray]:
        """For an artifact."""
        named = {f"network_{i}": layer for i, layer in enumerate(self.layers)}
        return {**named, "network_mean": self.mean, "network_spread": self.spread}

    @classmethod
    def of_arrays(cls, arrays: Mapping[str, np.ndarray], temperature: float, problems: int) -> LocalNetwork | None:
        """The network of an artifact, None where T0 alone was kept. Raises KeyError, ValueError."""
        if "network_mean" not in arrays:
            return None
        layers = tuple(arrays[f"network_{i}"] for i in range(2 * HIDDEN + 2))
        fits = all(len(weight) == len(bias) for weight, bias in zip(layers[::2], layers[1::2], strict=True))
        seen = arrays["network_mean"].size
        if not fits or layers[0].shape[1] != seen or seen - problems not in (0, 1):
            raise ValueError("the layers do not fit each other")
        return cls(layers, arrays["network_mean"], arrays["network_spread"], temperature, seen > problems)


def surroundings(dim: int, slice_axis: str) -> Surroundings:
    """What the network sees of a voxel's neighbours."""
    return Surroundings(REACH, dim, "replicate", slice_axis)  # type: ignore[arg-type]  # checked with the options


def heights(x: Tensor, layers: Sequence[Tensor]) -> Tensor:
    """h "image ..." of standardised inputs "image input ...", without the outermost voxels."""
    from torch.nn.functional import conv2d, conv3d, relu

    convolve = conv2d if x.dim() == 4 else conv3d
    for weight, bias in zip(layers[:-2:2], layers[1:-2:2], strict=True):
        x = relu(convolve(x, weight, bias))
    return convolve(x, layers[-2], layers[-1])[:, 0]


def as_images(x: np.ndarray, hood: Surroundings, mean: np.ndarray, spread: np.ndarray, device: Device) -> Tensor:
    """Inputs "input plane row column" as the network takes them: float32, cut off, standardised; slices one by one in
    two dimensions."""
    import torch

    on = torch.as_tensor(np.ascontiguousarray(x)).to(device=device, dtype=torch.float32)
    by_input = (len(x), 1, 1, 1)
    centre, scale = (torch.as_tensor(v, dtype=torch.float32, device=device).reshape(by_input) for v in (mean, spread))
    on = (on.clamp(-CLIPPED, CLIPPED) - centre) / scale
    return on.transpose(0, 1) if hood.dim == 2 else on[None]


def temperatures(
    volume: Volume, space: LabelSpace, network: LocalNetwork, hood: Surroundings, device: Device = "cpu"
) -> np.ndarray:
    """float32 T "z y x", block by block. Raises ImageNeeded."""
    import torch

    if network.image and volume.image is None:
        raise ImageNeeded
    seen = volume if network.image else replace(volume, image=None)
    scene = Scene.of(seen, space, hood)
    out = np.empty(volume.array.shape[1:], dtype=np.float32)
    turned = np.moveaxis(out, hood.front(volume.grid), 0)
    layers = [torch.as_tensor(layer, device=device) for layer in network.layers]
    with steady(), torch.inference_mode():
        for box in boxes_of(turned.shape, BLOCK_EDGES[hood.dim]):
            x = as_images(scene.block(box), hood, network.mean, network.spread, device)
            h = heights(x, layers).double().cpu().numpy().reshape(turned[box].shape)
            turned[box] = network.temperature * np.exp(2.0 * np.tanh(0.5 * h))
    return out


def scaled(volume: Volume, space: LabelSpace, temperature: np.ndarray) -> Volume:
    """The volume as logits divided by T "z y x", float32; every decision is that of the volume as it was.

    Two exclusive classes become 0 and the log-odds of the foreground.
    """
    array = volume.array.reshape(len(volume.array), -1)
    t = temperature.reshape(-1)
    out = np.zeros(array.shape, dtype=np.float32)
    channels = list(space.measured) if kind_of(space) != "softmax" else list(range(len(out)))
    for start in range(0, t.size, RUN_VOXELS):
        where = slice(start, start + RUN_VOXELS)
        out[channels, where] = channel_inputs(array[:, where], volume, space) / t[where]
        _keep_decisions(out[:, where], array[:, where], volume, space)
    return replace(volume, array=out.reshape(volume.array.shape), values="logits")


def _keep_decisions(out: np.ndarray, raw: np.ndarray, volume: Volume, space: LabelSpace) -> None:
    """Raise the former winner where rounding moved a decision, in place."""
    if space.exclusive:
        winner = raw.argmax(axis=0)
        moved = np.flatnonzero(out.argmax(axis=0) != winner)
        out[winner[moved], moved] = np.nextafter(out[:, moved].max(axis=0), np.float32(np.inf))
        return
    decided = raw > (0.0 if volume.values == "logits" else 0.5)
    tiny = np.nextafter(np.float32(0.0), np.float32(1.0))
    out[decided & (out <= 0.0)] = tiny
