"""Disagreement: what several members of an ensemble, or dropout samples, say about one scan beyond their mean.

    entropy               H(mean p)               how unsure the ensemble is
    mutual information    H(mean p) - mean H(p)   how much of that is because its members differ
    variance              of p over members, mean over channels

Members come one at a time; running sums of p, p^2 and p log p in float64 are all that is kept. Channels that exclude
each other share one entropy; those of independent channels add up. Rousseau, Becker, Bertels, Blaschko, Valkenborg
2021, "Post training uncertainty calibration of deep networks for medical image segmentation", for Monte Carlo dropout.
"""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np

from segcal_cli.core.scores import TINY

MAP_NAMES: Mapping[str, str] = {
    "entropy": "entropy",
    "mutual-information": "mutualInformation",
    "variance": "variance",
}
"""Map -> the name that its file carries."""


class Disagreement:
    """Running sums over members. exclusive: channels sum to 1."""

    def __init__(self, exclusive: bool) -> None:
        self.exclusive = exclusive
        self.members = 0
        self.p: np.ndarray | None = None
        self.squares: np.ndarray | None = None
        self.entropies: np.ndarray | None = None

    def add(self, p: np.ndarray) -> None:
        """One member's probabilities, float64 "class z y x"."""
        entropy = entropy_of(p, exclusive=self.exclusive)
        if self.p is None or self.squares is None or self.entropies is None:
            self.p, self.squares, self.entropies = p.copy(), p * p, entropy
        else:
            self.p += p
            self.squares += p * p
            self.entropies += entropy
        self.members += 1

    def maps(self) -> dict[str, np.ndarray]:
        """Name -> float32 "z y x"."""
        assert self.p is not None, "there is at least one member"
        assert self.squares is not None, "there is at least one member"
        assert self.entropies is not None, "there is at least one member"
        mean = self.p / self.members
        entropy = entropy_of(mean, exclusive=self.exclusive)
        variance = (self.squares / self.members - mean * mean).mean(axis=0)
        found = {
            "entropy": entropy,
            # Both are 0 or more; rounding of their sums is not.
            "mutual-information": np.maximum(entropy - self.entropies / self.members, 0.0),
            "variance": np.maximum(variance, 0.0),
        }
        return {name: array.astype(np.float32) for name, array in found.items()}


def entropy_of(p: np.ndarray, *, exclusive: bool) -> np.ndarray:
    """float64 "z y x", nats: of the classes, or the sum of those of independent channels. p: "class z y x"."""
    whole = -(p * np.log(np.maximum(p, TINY))).sum(axis=0)
    if exclusive:
        return whole
    q = 1.0 - p
    return whole - (q * np.log(np.maximum(q, TINY))).sum(axis=0)
