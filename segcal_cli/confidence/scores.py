"""Score names: which map says how strongly the model claims a voxel. "Large" always means "inside"."""

from __future__ import annotations

from typing import Literal

from segcal_cli.core.errors import UsageError
from segcal_cli.core.frozen import dataclass

Metric = Literal["euclidean", "taxicab", "chessboard"]
EmptyRule = Literal["empty", "full", "peak"]

PLAIN = ("log-odds", "softmax", "sigmoid", "identity", "distance", "boxes")
WITH_NUMBER = {"smooth": "mm", "smooth-distance": "mm", "hybrid": "log-odds per length"}
"""Scores with a parameter, and its unit."""

MASK_SCORES = ("distance", "smooth-distance", "boxes", "hybrid")
"""Scores that start from a predicted mask, so that an empty prediction needs a rule."""

SAME_SETS = ("log-odds", "softmax", "sigmoid")
"""Monotone in one another, so they give the same sets; all are computed on log-odds."""

LABEL_SCORES = ("distance", "boxes")
"""Scores that need nothing but a predicted mask."""


class BadScore(UsageError):
    """A score that does not exist."""

    template = "score {0!r} is not known; it is one of log-odds, softmax, sigmoid, identity, smooth:S, distance, " + (
        "smooth-distance:S, boxes, hybrid:W"
    )


class BadParameter(UsageError):
    """A score with an impossible number."""

    template = "score {0!r}: {1}"


@dataclass(frozen=True, slots=True)
class Score:
    """A score: its kind, and its number (sigma in mm, or weight) where it has one."""

    kind: str
    number: float | None = None

    def __str__(self) -> str:
        return self.kind if self.number is None else f"{self.kind}:{self.number:.10g}"

    @property
    def of_mask(self) -> bool:
        return self.kind in MASK_SCORES

    @property
    def of_log_odds(self) -> bool:
        """Whether the value of a voxel is its log-odds and nothing else."""
        return self.kind in SAME_SETS

    def unit(self, metric: Metric, length: str) -> str:
        """The unit of its thresholds. length: "mm" or "px"."""
        if self.kind == "boxes" or (self.kind == "distance" and metric != "euclidean"):
            return "steps"
        if self.kind in ("distance", "smooth-distance"):
            return "steps" if metric != "euclidean" else length
        if self.kind == "identity":
            return "stored values"
        return "log-odds"

    def in_length(self, metric: Metric) -> bool:
        """Whether thresholds or parameters are lengths, so that mm and px must not be mixed."""
        if self.kind in ("smooth", "smooth-distance"):
            return True
        return self.kind in ("distance", "hybrid") and metric == "euclidean"

    def in_steps(self, metric: Metric) -> bool:
        """Whether thresholds count voxels, so that they do not compare across spacings."""
        return self.kind == "boxes" or (self.kind in MASK_SCORES and metric != "euclidean")


def parse_score(text: str) -> Score:
    """A score from its name. Raises BadScore, BadParameter."""
    kind, mark, number = text.strip().partition(":")
    if kind in PLAIN and not mark:
        return Score(kind)
    if kind not in WITH_NUMBER:
        raise BadScore(text)
    try:
        value = float(number)
    except ValueError:
        raise BadParameter(text, f"a number in {WITH_NUMBER[kind]} must follow the colon") from None
    if not 0.0 < value < float("inf"):
        raise BadParameter(text, "the number must be positive")
    return Score(kind, value)
