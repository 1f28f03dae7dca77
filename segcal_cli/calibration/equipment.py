"""Equipment: what a fit has at hand besides cases and options.

The last layer that a network ended with, whether the scans come along with the predictions, and the device that
convolutions and exact passes run on. None of it is an option of the method, and the device changes no result beyond
rounding.
"""

from __future__ import annotations

from typing import Literal

import numpy as np

from segcal_cli.core.frozen import dataclass

Device = Literal["cpu", "cuda"]


@dataclass(frozen=True, slots=True)
class LastLayer:
    """The last layer of a network: logits are weight @ features + bias. weight: float "channel feature"; bias: float
    "channel"."""

    weight: np.ndarray
    bias: np.ndarray


@dataclass(frozen=True, slots=True)
class Equipment:
    """device: of heavy sums and networks. layer: what ``fine-tune`` starts from. image: whether volumes carry their
    scan, which ``local`` then looks at too."""

    device: Device = "cpu"
    layer: LastLayer | None = None
    image: bool = False


NOTHING = Equipment()
"""Predictions only, on the CPU."""
