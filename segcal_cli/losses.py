"""Calibration as a training objective: the average calibration error as a loss, and the losses it is combined with.

The idea. A network is calibrated if, among all voxels to which it gives a probability near 0.8, 80 % do belong to the
class. The average calibration error (ACE) sorts the voxels of one image by their predicted probability into M bins of
equal width and averages the gap between mean probability and observed frequency over the bins that hold any voxel.
Every bin counts the same, however few voxels it holds; that is what makes it useful in medical images, where nearly all
voxels lie in the outermost bin and a voxel-weighted average would see nothing else. Dice alone drives probabilities
to 0 and 1 even where the border is ambiguous; adding ACE to it holds them at the frequency that the labels show, at a
small cost in overlap.

The gap of a bin is the absolute value of one quotient, (sum p - sum y) / n, so two sums per image and class suffice.
How a voxel finds its bin decides what gradient there is:

* hard: a voxel belongs to one bin. The bin is piecewise constant in p, so the gradient is the one within the bins,
  dL/dp_i = sign(e_m - o_m) / (n_m M' B C), with M' the number of non-empty bins. It is right almost everywhere, but it
  is not the slope of the loss over a whole image: voxels that cross an edge change the means of two bins at once.
* soft: a voxel is shared between the two bins whose centres enclose it, in linear proportion. The loss is continuous
  in p, and the gradient through the shares makes it agree with finite differences.

Both are one flat index and one scatter-add per sum, over the whole batch and all classes. The sums are float64, because
float32 stops counting at 16 777 216 voxels in a bin. On CUDA the order of a scatter-add is not fixed, so two runs can
differ in the last digits (``torch.use_deterministic_algorithms`` fixes it). Everything runs in float32 or, where scores
are float64, in float64, also under autocast: float16 has no digits left for a frequency.

This module needs torch and nothing else of segcal.

Barfoot, Garcia Peraza Herrera, Glocker, Vercauteren 2024, "Average Calibration Error: A Differentiable Loss for
Improved Reliability in Image Segmentation" (mL1-ACE, hard bins); Barfoot et al., "Average Calibration Losses for
Reliable Uncertainty in Medical Image Segmentation" (soft bins).
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Literal, get_args

import torch
from torch import Tensor, nn

__all__ = ["ACELoss", "CombinedLoss", "CrossEntropyLoss", "SoftDiceLoss", "combine"]

Activation = Literal["softmax", "sigmoid", "identity"]
"""How scores become probabilities: exclusive classes, independent classes, or they are probabilities already."""

Binning = Literal["hard", "soft"]
"""Whether a voxel belongs to one bin or is shared between two."""

Closed = Literal["right", "left"]
"""The side on which a bin (k/M, (k+1)/M] or [k/M, (k+1)/M) holds its edge. Soft bins have no edges."""

Absent = Literal["include", "zero", "skip"]
"""What a class without a voxel in the target counts: its own error; nothing; or it is left out of the mean."""

DICE_SMOOTHING = 1e-5
"""Added above and below in the Dice quotient: a class absent from prediction and target then has Dice 1, not 0/0."""

SOFT_EMPTY = 0.01
"""A soft bin holding at most this many voxels counts as empty; its mean would be a quotient of two rounding errors."""


class ACELoss(nn.Module):
    """mL1-ACE: the average calibration error, averaged over classes and images (Barfoot et al. 2024, equation 3).

    bins: M, the number of bins of equal width on [0, 1]; at least 1, and at least 2 for soft ones.
    binning: hard (as published) or soft.
    closed: the side on which a hard bin holds its edge; right as published. Soft bins have no edge to hold.
    absent: a class without a voxel in an image's target counts its error there (include, as published), counts as 0 in
        a mean that still divides by all images and classes (zero), or is left out of the mean (skip).
    activation: what turns scores into probabilities.
    include_background: False leaves channel 0 out of the mean; it is still part of the softmax.

    Raises ValueError on a value that is none of these.

        loss = ACELoss()
        target = torch.nn.functional.one_hot(labels, classes).movedim(-1, 1)
        loss(network(images), target).backward()
    """

    def __init__(
        self,
        bins: int = 20,
        *,
        binning: Binning = "hard",
        closed: Closed = "right",
        absent: Absent = "include",
        activation: Activation = "softmax",
        include_background: bool = True,
    ) -> None:
        super().__init__()
        _check_choice("binning", binning, Binning)
        _check_choice("closed", closed, Closed)
        _check_choice("absent", absent, Absent)
        _check_choice("activation", activation, Activation)
        fewest = 2 if binning == "soft" else 1
        if not isinstance(bins, int) or isinstance(bins, bool) or bins < fewest:
            raise ValueError(
                f"bins = {bins!r} is not allowed; {binning} binning needs a whole number of at least {fewest}"
            )
        self.bins = bins
        self.binning = binning
        self.closed = closed
        self.absent = absent
        self.activation = activation
        self.include_background = include_background

    def forward(self, scores: Tensor, target: Tensor) -> Tensor:
        """The loss, a scalar.

        scores: float "image class (z) y x", one to three spatial axes, on any device. target: the same shape, 1 where
        the voxel is of the class, 0 elsewhere (not checked: that would wait for the GPU); any dtype. NaN in scores
        gives NaN. Raises ValueError on shapes that do not fit.
        """
        _check_shapes(scores, target, self.activation, self.include_background)
        with torch.autocast(scores.device.type, enabled=False):
            probabilities = _activate(scores, self.activation)
            if not self.include_background:
                probabilities, target = probabilities[:, 1:], target[:, 1:]
            gaps, filled = self._gaps(probabilities.flatten(2).double(), target.flatten(2).to(probabilities.dtype))
            # A product, here and in _mean: NaN times 0 is NaN, so a broken network never looks calibrated.
            error = (gaps * filled).sum(-1) / filled.sum(-1).clamp(min=1)
            return self._mean(error, target.flatten(2).sum(-1) != 0).to(probabilities.dtype)

    def extra_repr(self) -> str:
        """The options, for ``print(network)``."""
        names = ("bins", "binning", "closed", "absent", "activation", "include_background")
        return ", ".join(f"{name}={getattr(self, name)!r}" for name in names)

    def _gaps(self, p: Tensor, y: Tensor) -> tuple[Tensor, Tensor]:
        """abs(e - o) and whether the bin counts, both "image class bin". p: float64 "image class voxel"; y: float."""
        if self.binning == "hard":
            count, residual = self._hard_sums(p, y)
            filled = count > 0
        else:
            count, residual = self._soft_sums(p, y)
            filled = ~(count <= SOFT_EMPTY)  # not `count > SOFT_EMPTY`: a bin whose count is NaN has to be seen
        return (residual / torch.where(filled, count, 1.0)).abs(), filled

    def _hard_sums(self, p: Tensor, y: Tensor) -> tuple[Tensor, Tensor]:
        """n and sum(p - y) of each bin, "image class bin". The bins are constants, found in float64, where M p of a
        float32 p is exact: a value on an edge k/M goes where `closed` says.
        """
        with torch.no_grad():
            scaled = p * self.bins
            index = scaled.ceil_().long().sub_(1) if self.closed == "right" else scaled.floor_().long()
            index = self._flat(index.clamp_(0, self.bins - 1))
            count = self._sum_by_bin(index, p.new_ones(()).expand(index.numel()))
        return count, self._sum_by_bin(index, p - y)

    def _soft_sums(self, p: Tensor, y: Tensor) -> tuple[Tensor, Tensor]:
        """n and sum(p - y) of each bin, "image class bin", each voxel shared between the two nearest bin centres
        (k + 1/2)/M; below the first centre and above the last one it belongs to that bin alone.
        """
        position = (p * self.bins - 0.5).clamp(0, self.bins - 1)
        lower = position.detach().floor().long().clamp_(0, self.bins - 2)
        share = position - lower
        index = self._flat(lower)
        residual = p - y
        one = p.new_ones(()).expand(index.numel())
        return self._shared_sums(index, one, share), self._shared_sums(index, residual, residual * share)

    def _shared_sums(self, index: Tensor, values: Tensor, passed_on: Tensor) -> Tensor:
        """The sums of values by bin, less what each voxel passes on to the next bin, plus what came from the last one.
        This way both neighbours of a voxel need one index.
        """
        passed_on = self._sum_by_bin(index, passed_on)
        return self._sum_by_bin(index, values) - passed_on + passed_on.roll(1, -1)

    def _flat(self, index: Tensor) -> Tensor:
        """Bin k of image b and class c among all bins: (b C + c) M + k. index: int64 "image class voxel", changed."""
        images, classes = index.shape[:2]
        start = torch.arange(images * classes, device=index.device) * self.bins
        return index.add_(start.view(images, classes, 1))

    def _sum_by_bin(self, index: Tensor, values: Tensor) -> Tensor:
        """Values, as many as indices, summed by flat index: "image class bin"."""
        images, classes = index.shape[:2]
        sums = values.new_zeros(images * classes * self.bins)
        return sums.scatter_add(0, index.flatten(), values.flatten()).view(images, classes, self.bins)

    def _mean(self, error: Tensor, present: Tensor) -> Tensor:
        """The mean of the errors "image class" under the rule for absent classes."""
        if self.absent == "include":
            return error.mean()
        total = (error * present).sum()
        return total / error.numel() if self.absent == "zero" else total / present.sum().clamp(min=1)


class SoftDiceLoss(nn.Module):
    """1 - mean over images and classes of (2 sum p y + s) / (sum p + sum y + s), with s = 1e-5 and no squares.

    Milletari, Navab, Ahmadi 2016, "V-Net", in the form that mL1-ACE was published with. Raises ValueError on an unknown
    activation.
    """

    def __init__(self, *, activation: Activation = "softmax", include_background: bool = True) -> None:
        super().__init__()
        _check_choice("activation", activation, Activation)
        self.activation = activation
        self.include_background = include_background

    def forward(self, scores: Tensor, target: Tensor) -> Tensor:
        """The loss, a scalar. scores, target and errors as in ACELoss.forward."""
        _check_shapes(scores, target, self.activation, self.include_background)
        with torch.autocast(scores.device.type, enabled=False):
            p = _activate(scores, self.activation).flatten(2)
            y = target.flatten(2).to(p.dtype)
            if not self.include_background:
                p, y = p[:, 1:], y[:, 1:]
            overlap = 2 * (p * y).sum(-1) + DICE_SMOOTHING
            return 1 - (overlap / (p.sum(-1) + y.sum(-1) + DICE_SMOOTHING)).mean()


class CrossEntropyLoss(nn.Module):
    """-mean log of the true class's probability per voxel (softmax), or the mean binary cross-entropy over voxels and
    classes (sigmoid). From logits, so there is no floor under the probability.

    Raises ValueError on identity: probabilities that were rounded to 0 have no logarithm.
    """

    def __init__(self, *, activation: Activation = "softmax") -> None:
        super().__init__()
        _check_choice("activation", activation, Activation)
        if activation == "identity":
            raise ValueError("cross-entropy needs logits; activation 'identity' says that the scores are probabilities")
        self.activation = activation

    def forward(self, scores: Tensor, target: Tensor) -> Tensor:
        """The loss, a scalar. scores, target and errors as in ACELoss.forward."""
        _check_shapes(scores, target, self.activation, include_background=True)
        with torch.autocast(scores.device.type, enabled=False):
            logits = _at_least_float32(scores)
            if self.activation == "softmax":
                return nn.functional.cross_entropy(logits, target.to(logits.dtype))
            return nn.functional.binary_cross_entropy_with_logits(logits, target.to(logits.dtype))


class CombinedLoss(nn.Module):
    """A weighted sum of losses on the same scores. Made by `combine`."""

    def __init__(self, terms: Mapping[str, nn.Module], weights: Mapping[str, float]) -> None:
        super().__init__()
        self.terms = nn.ModuleDict(terms)
        self.weights = dict(weights)

    def extra_repr(self) -> str:
        """The weights, for ``print(network)``."""
        return ", ".join(f"{name}: {weight:g}" for name, weight in self.weights.items())

    def forward(self, scores: Tensor, target: Tensor) -> Tensor:
        """The loss, a scalar. scores, target and errors as in ACELoss.forward."""
        losses = [self.weights[name] * term(scores, target) for name, term in self.terms.items()]
        return torch.stack(losses).sum()


def combine(
    weights: Mapping[str, float],
    *,
    bins: int = 20,
    binning: Binning = "hard",
    closed: Closed = "right",
    absent: Absent = "include",
    activation: Activation = "softmax",
    include_background: bool = True,
) -> CombinedLoss:
    """One module for a weighted sum of "dice", "ce" and "ace"; a name that is not in weights is not computed.

    Published: {"dice": 0.5, "ace": 0.5}, {"ce": 0.5, "ace": 0.5} and 0.33 each; a later recipe is
    {"dice": 1, "ce": 1, "ace": 0.3}. bins, binning, closed and absent are of the ACE; include_background is of ACE and
    Dice, because a cross-entropy cannot leave a class out. Raises ValueError on an unknown name, a weight that is not a
    positive number, no weight at all, and as the losses do.
    """
    unknown = sorted(set(weights) - {"dice", "ce", "ace"})
    if unknown or not weights:
        raise ValueError(f"weights for {unknown or 'nothing'}; a combined loss is made of 'dice', 'ce' and 'ace'")
    if not all(isinstance(weight, (int, float)) and 0 < weight < float("inf") for weight in weights.values()):
        raise ValueError(f"weights must be positive numbers, not {dict(weights)}")
    terms: dict[str, nn.Module] = {}
    if "dice" in weights:
        terms["dice"] = SoftDiceLoss(activation=activation, include_background=include_background)
    if "ce" in weights:
        terms["ce"] = CrossEntropyLoss(activation=activation)
    if "ace" in weights:
        terms["ace"] = ACELoss(
            bins,
            binning=binning,
            closed=closed,
            absent=absent,
            activation=activation,
            include_background=include_background,
        )
    return CombinedLoss(terms, weights)


def _at_least_float32(scores: Tensor) -> Tensor:
    return scores if scores.dtype == torch.float64 else scores.float()


def _activate(scores: Tensor, activation: Activation) -> Tensor:
    scores = _at_least_float32(scores)
    if activation == "softmax":
        return scores.softmax(1)
    return scores.sigmoid() if activation == "sigmoid" else scores


def _check_choice(name: str, value: str, choices: object) -> None:
    if value not in get_args(choices):
        raise ValueError(f"{name} = {value!r} is not allowed; it must be one of {', '.join(get_args(choices))}")


def _check_shapes(scores: Tensor, target: Tensor, activation: Activation, include_background: bool) -> None:
    shape, other = tuple(scores.shape), tuple(target.shape)
    if shape != other:
        raise ValueError(
            f"scores have shape {shape} and the target {other}; the target must be one-hot in the shape of the scores: "
            "of label numbers, torch.nn.functional.one_hot(labels, classes).movedim(-1, 1)"
        )
    if len(shape) < 3 or 0 in shape:
        raise ValueError(f"scores have shape {shape}; it must be (images, classes, voxel axes), none of them 0")
    if not scores.is_floating_point():
        raise ValueError(f"scores of shape {shape} are {scores.dtype}; they must be floating point")
    if shape[1] == 1 and activation == "softmax":
        raise ValueError(f"scores have shape {shape}; a softmax over one class is 1 everywhere, use 'sigmoid'")
    if shape[1] == 1 and not include_background:
        raise ValueError(f"scores have shape {shape}; without the background there is no class left")
