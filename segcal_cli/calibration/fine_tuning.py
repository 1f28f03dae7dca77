"""Fine-tuning: the last layer of the network fitted anew on saved features, by likelihood and on held-out cases.

    u = W f + b          p = softmax(u), or sigmoid(u)

f is what the network's last layer was given, a few dozen numbers per voxel; W and b start as the network has them.
Rousseau, Becker, Bertels, Blaschko, Valkenborg 2021, "Post training uncertainty calibration of deep networks for
medical image segmentation", section 3.3. With all layers but the last kept the fit is convex: logistic regression on
features, with a small ridge towards the layer as it was. The result can be loaded back into the network. Two exclusive
classes are one problem, whose weights are the difference of the two rows.
"""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np

from segcal_cli.calibration import on_device
from segcal_cli.calibration.canonical import kind_of
from segcal_cli.calibration.equipment import Device, LastLayer
from segcal_cli.calibration.likelihood import sigmoid
from segcal_cli.calibration.linear import Shape, Sums, Voxels, added, inputs, sums_of
from segcal_cli.calibration.method import Method
from segcal_cli.core.case import Case
from segcal_cli.core.errors import InputError, UsageError
from segcal_cli.core.frozen import dataclass
from segcal_cli.core.labels import LabelSpace
from segcal_cli.core.scores import log_softmax
from segcal_cli.core.volume import Volume

RIDGE = 1e-6
"""Times |w - w0|^2, added to the mean loss: settles what the data leave open."""

ALLOWED_HALF, ALLOWED = 2e-2, 1e-4
"""How far logits of features in half, and in single, precision may be from the saved ones."""

RUN_VOXELS = 1 << 16
"""Voxels summed at a time."""

METHOD = Method(
    name="fine-tune",
    families={"binary": "sample", "sigmoid": "sample", "softmax": "sample"},
    options=("voxels", "refine"),
    beside="features",
    on_gpu=True,
)


class FeaturesNeeded(InputError):
    """A volume that came without its features."""

    template = (
        "--features FOLDER is needed (calibrate, evaluate and reliability have it): fine-tune works on what the "
        "network's last layer was given; or load the weights of calibrate fit --export-weights into the network, and "
        "predict anew"
    )


class LayerNeeded(UsageError):
    """A fit without the layer that it starts from."""

    template = "--last-layer FILE is needed: fine-tune starts from the weights of the network's last layer"


class OtherLayer(InputError):
    """The layer is not one of this class table, or not of these features."""

    template = "--last-layer: weight is {0}, bias {1}; {2} channels of {3} features need ({2}, {3}) and ({2},)"


class NotOneModel(InputError):
    """Features and layer do not make the predictions that they came with."""

    template = (
        "--features: features and last layer are not of one model: what they make is {0:.3g} away from the saved {1} "
        "(allowed {2:g})"
    )


@dataclass(frozen=True, slots=True)
class FineTuneModel:
    """What the shared machinery of samples and exact passes needs to know of this method."""

    space: LabelSpace
    layer: LastLayer
    device: Device = "cpu"

    @property
    def exclusive(self) -> bool:
        return kind_of(self.space) == "softmax"

    @property
    def numbers(self) -> int:
        """Kept per sampled voxel."""
        return int(self.layer.weight.shape[-1])

    def prepared(self, voxels: Voxels, present: np.ndarray) -> FineTuneModel:
        return self

    def shape(self, present: np.ndarray) -> Shape:
        start = problem_weights(self.layer, self.space)
        free = np.tile(present[:, np.newaxis], (1, start.shape[1]))
        return Shape(start, free, np.where(free, RIDGE, 0.0), start)

    def sample(self, case: Case, places: np.ndarray) -> np.ndarray:
        """float32 features "1 feature voxel" at flat voxel indices. Raises FeaturesNeeded, OtherLayer, NotOneModel."""
        found = features_of(case.volume)
        x = found.reshape(len(found), -1)[:, places].astype(np.float32)
        saved = case.volume.array.reshape(len(case.volume.array), -1)[:, places]
        refuse_other_model(self.layer, self.space, case.volume, x, saved)
        return x[np.newaxis]

    def sums(self, case: Case, weights: np.ndarray, threads: int) -> Sums:
        """Value and gradient over all counted voxels."""
        assert case.labels is not None, "fits need labels"
        features = features_of(case.volume)
        features = features.reshape(len(features), -1)
        codes = case.labels.codes.reshape(-1)
        counted = case.counted(padding=False)
        keep = None if counted is None else counted.reshape(-1)
        members = case.labels.members if self.exclusive else case.labels.members[list(self.space.measured)]
        parts = []
        for start in range(0, codes.size, RUN_VOXELS):
            where = np.arange(start, min(start + RUN_VOXELS, codes.size))
            if keep is not None:
                where = where[keep[where]]
            if where.size:
                x = features[np.newaxis, :, where[0] : where[-1] + 1][:, :, where - where[0]]
                voxels = Voxels(x, members[:, codes[where]], np.ones(where.size))
                if self.device == "cpu":
                    parts.append(sums_of(weights, voxels, exclusive=self.exclusive, curvature=False))
                else:
                    parts.append(on_device.linear_sums(weights, voxels, exclusive=self.exclusive, device=self.device))
        return added(parts)


def features_of(volume: Volume) -> np.ndarray:
    """float "feature z y x". Raises FeaturesNeeded."""
    if volume.features is None:
        raise FeaturesNeeded
    return volume.features


def refuse_other_model(layer: LastLayer, space: LabelSpace, volume: Volume, x: np.ndarray, saved: np.ndarray) -> None:
    """Raise OtherLayer, NotOneModel unless the layer makes of features x "feature voxel" what was saved, float "class
    voxel"."""
    channels = len(space.channels)
    if layer.weight.shape != (channels, len(x)) or layer.bias.shape != (channels,):
        raise OtherLayer(layer.weight.shape, layer.bias.shape, channels, len(x))
    made = inputs(np.column_stack([layer.weight, layer.bias]).astype(np.float64), x[np.newaxis])
    if volume.values == "probabilities":
        made = np.exp(log_softmax(made)) if space.exclusive else sigmoid(made)
    kept = features_of(volume).dtype
    half = kept == np.float16 or volume.stored.dtype == "float16" or volume.stored.step is not None
    allowed = ALLOWED_HALF if half else ALLOWED
    distance = float(np.abs(made - saved).max(initial=0.0))
    if not distance <= allowed:
        raise NotOneModel(distance, volume.values, allowed)


def problem_weights(layer: LastLayer, space: LabelSpace) -> np.ndarray:
    """float64 "problem feature+1", the offset last: rows of the layer, or the difference of two exclusive ones."""
    rows = np.column_stack([layer.weight, layer.bias]).astype(np.float64)
    if kind_of(space) == "binary" and len(rows) == 2:
        return rows[[space.foreground]] - rows[[1 - space.foreground]]
    return rows


def layer_with(weights: np.ndarray, layer: LastLayer, space: LabelSpace) -> LastLayer:
    """The layer in the network's own layout and type, of weights "problem feature+1". Of two exclusive classes the
    background's row stays, and the other takes the change."""
    rows = weights
    if kind_of(space) == "binary" and len(layer.weight) == 2:
        whole = np.column_stack([layer.weight, layer.bias]).astype(np.float64)
        whole[space.foreground] = whole[1 - space.foreground] + weights[0]
        rows = whole
    return LastLayer(rows[:, :-1].astype(layer.weight.dtype), rows[:, -1].astype(layer.bias.dtype))


def tuned(
    volume: Volume, space: LabelSpace, weights: np.ndarray, layer: LastLayer | None = None, device: Device = "cpu"
) -> Volume:
    """The volume as the logits of the new layer, float32. weights: "problem feature+1". layer: as it was, where
    features have not been held against the predictions yet. Raises FeaturesNeeded, OtherLayer, NotOneModel."""
    features = features_of(volume)
    flat = features.reshape(len(features), -1)
    saved = volume.array.reshape(len(volume.array), -1)
    out = np.zeros(saved.shape, dtype=np.float32)
    channels = list(space.measured) if kind_of(space) != "softmax" else list(range(len(out)))
    for start in range(0, flat.shape[1], RUN_VOXELS):
        where = slice(start, start + RUN_VOXELS)
        x = flat[np.newaxis, :, where]
        if layer is not None:
            refuse_other_model(layer, space, volume, x[0], saved[:, where])
        if device == "cpu":
            out[channels, where] = inputs(weights, x)
        else:
            out[channels, where] = on_device.linear_inputs(weights, x, device)
    return replace(volume, array=out.reshape(volume.array.shape), values="logits")


def told(weights: np.ndarray, layer: LastLayer, space: LabelSpace) -> dict[str, Any]:
    """What can be told of the weights "problem feature+1" in a few numbers per class."""
    moved = weights - problem_weights(layer, space)
    names = [space.names[c] for c in space.measured]
    columns = {
        "length": np.linalg.norm(weights[:, :-1], axis=1),
        "moved": np.linalg.norm(moved[:, :-1], axis=1),
        "offset": weights[:, -1],
    }
    return {key: dict(zip(names, column.tolist(), strict=True)) for key, column in columns.items()}
