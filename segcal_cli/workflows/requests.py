"""What a command is asked to do: plain records with defaults, shared by the library and the command line.

Each field is one option; the command line adds only its spelling and its help (``cli/options.py``). This module imports
nothing heavy, because the command line reads it to build ``--help``.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Literal


@dataclass(frozen=True, slots=True)
class PredictionOptions:
    """How predictions are found and read."""

    cases: Path | None = None
    values: Literal["logits", "probabilities"] | None = None
    activation: Literal["softmax", "sigmoid"] | None = None
    classes: Path | None = None
    channel_axis: Literal["first", "last"] | None = None
    groups: str | None = None
    pattern: str | None = None
    reader: str | None = None
    prove: bool = True
    reduce: Literal["mean-probabilities", "mean-logits"] | None = None
    geometry: Path | None = None
    calibrator: Path | None = None


@dataclass(frozen=True, slots=True)
class LabelOptions:
    """How labels are found and read, and which voxels count."""

    label_pattern: str | None = None
    roi: Path | None = None
    ignore_label: int | None = None
    mask_value: int | None = None


@dataclass(frozen=True, slots=True)
class RunOptions:
    """How the work is spread, and what a failing case does. on_failure None: the command's own default."""

    jobs: int = 1
    on_failure: Literal["stop", "continue"] | None = None


@dataclass(frozen=True, slots=True)
class CalibrateFitOptions:
    """What is fitted, on whose word, and how the gain is estimated."""

    method: str = "temperature"
    loss: Literal["nll", "brier"] = "nll"
    weight: Literal["voxel", "case"] = "voxel"
    scope: Literal["per-class", "shared"] = "per-class"
    nesting: Literal["project", "none"] = "project"
    split_kind: Literal["out-of-fold", "held-out", "in-sample", "unknown"] = "unknown"
    folds: int = 5
    summary: bool = True
    histogram_bins: int = 20
    binning: Literal["mass", "width"] = "mass"
    odir: float = 1e-6
    voxels: int = 20_000
    refine: int = 5
    allow_inverted: bool = False
    allow_overlap: bool = False
    seed: int = 0


@dataclass(frozen=True, slots=True)
class CalibrateApplyOptions:
    """What is written, and in which form."""

    format: Literal["nifti", "npz"] | None = None
    dtype: Literal["float32", "float16", "uint16"] = "float32"
    split_classes: bool = False
    segmentation: Literal["none", "keep", "recompute"] = "none"


@dataclass(frozen=True, slots=True)
class MeasureOptions:
    """The conventions of the calibration measures."""

    bins: int = 20
    closed: Literal["right", "left"] = "right"
    empty_bins: Literal["skip", "zero"] = "skip"
    background: Literal["exclude", "include"] = "exclude"
    absent: Literal["include", "skip"] = "include"
    decision: Literal["argmax", "threshold"] = "argmax"
    empty_dice: Literal["null", "one"] = "null"


@dataclass(frozen=True, slots=True)
class EvaluateOptions:
    """What is compared, and which further files are written."""

    artifact: tuple[str, ...] = ()
    name: str = "raw"
    raw: bool = True
    summary: Path | None = None
    allow_overlap: bool = False


@dataclass(frozen=True, slots=True)
class OutputOptions:
    """What may happen to files that exist."""

    overwrite: bool = False
