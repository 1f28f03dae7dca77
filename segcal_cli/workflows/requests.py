"""What a command is asked to do: plain records with defaults, shared by the library and the command line.

Each field is one option; the command line adds only its spelling and its help (``cli/options.py``). This module imports
nothing heavy, because the command line reads it to build ``--help``.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import field
from pathlib import Path
from typing import Literal

from segcal_cli.core.frozen import dataclass


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
    member: tuple[str, ...] = ()
    geometry: Path | None = None
    calibrator: Path | None = None


@dataclass(frozen=True, slots=True)
class CompanionOptions:
    """What comes along with predictions, for calibrators that look at more than those."""

    features: Path | None = None
    images: Path | None = None


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
    allow_partial: bool = False
    engine: Literal["local", "dask"] = "local"
    scheduler: str | None = None


@dataclass(frozen=True, slots=True)
class ShardOptions:
    """Which share of the cases a run takes."""

    shard: str | None = None


@dataclass(frozen=True, slots=True)
class RoundOptions:
    """The same of a fit, and the state that the parts of its previous round were merged to."""

    shard: str | None = None
    resume: Path | None = None


@dataclass(frozen=True, slots=True)
class CalibrateFitOptions:
    """What is fitted, on whose word, and how the gain is estimated."""

    method: str = "temperature"
    loss: Literal["nll", "brier", "soft-ace", "nll+ace"] = "nll"
    ace_weight: float = 1.0
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
    kernel: int = 5
    dim: int = 2
    pad: Literal["replicate", "zero"] = "replicate"
    slice_axis: Literal["auto", "x", "y", "z"] = "auto"
    optimiser: Literal["exact", "adam"] = "exact"
    last_layer: Path | None = None
    export_weights: Path | None = None
    epochs: int | None = None
    batch: int | None = None
    learning_rate: float | None = None
    allow_inverted: bool = False
    allow_overlap: bool = False
    seed: int = 0


@dataclass(frozen=True, slots=True)
class CalibrateCompareOptions:
    """Which methods are compared, and how each is fitted. methods None: all that fit the predictions, fine-tune and
    local if what they look at is given."""

    methods: str | None = None
    folds: int = 5
    weight: Literal["voxel", "case"] = "voxel"
    nesting: Literal["project", "none"] = "project"
    histogram_bins: int = 20
    binning: Literal["mass", "width"] = "mass"
    odir: float = 1e-6
    voxels: int = 20_000
    kernel: int = 5
    dim: int = 2
    pad: Literal["replicate", "zero"] = "replicate"
    slice_axis: Literal["auto", "x", "y", "z"] = "auto"
    last_layer: Path | None = None
    epochs: int | None = None
    batch: int | None = None
    learning_rate: float | None = None
    allow_overlap: bool = False


@dataclass(frozen=True, slots=True)
class CalibrateApplyOptions:
    """What is written, and in which form."""

    format: Literal["nifti", "npz"] | None = None
    dtype: Literal["float32", "float16", "uint16"] = "float32"
    split_classes: bool = False
    segmentation: Literal["none", "keep", "recompute"] = "none"
    write: str | None = None


@dataclass(frozen=True, slots=True)
class ConformalFitOptions:
    """Which sets, of what, at which level, and whom the promise is for. None: the default hangs on other options."""

    target: tuple[str, ...] = ()
    alpha: float = 0.1
    joint: Literal["split", "max", "none"] = "split"
    alpha_split: str | None = None
    across_targets: Literal["each", "split", "max"] = "each"
    inner_score: str | None = None
    outer_score: str | None = None
    metric: Literal["euclidean", "taxicab", "chessboard"] = "euclidean"
    empty_prediction: Literal["empty", "full", "peak"] = "empty"
    box_truth: bool = False
    present_only: bool | None = None
    learn: str | None = None
    unit: Literal["case", "max", "hcp"] | None = None
    mondrian: str | None = None
    confidence: float | None = None
    coverage_ratio: float = 1.0
    inner_ratio: float = 1.0
    labels_only: bool = False
    allow_overlap: bool = False
    seed: int = 0


@dataclass(frozen=True, slots=True)
class ConformalApplyOptions:
    """At which level, what is written besides the sets, and how new cases are weighted and watched."""

    alpha: float | None = None
    alpha_split: str | None = None
    p_values: Literal["none", "inner", "outer", "both"] = "none"
    weights: str | None = None
    mondrian: str | None = None
    roi: Path | None = None
    drift: bool = True
    history: Path | None = None


@dataclass(frozen=True, slots=True)
class MeasureOptions:
    """The conventions of the measures. None: what the named convention says, else the default (``conventions.py``)."""

    convention: Literal["barfoot", "rousseau", "classification"] | None = None
    bins: int | None = None
    closed: Literal["right", "left"] | None = None
    empty_bins: Literal["skip", "zero"] | None = None
    background: Literal["exclude", "include"] | None = None
    absent: Literal["include", "skip"] | None = None
    decision: Literal["argmax", "threshold"] | None = None
    empty_dice: Literal["null", "one"] | None = None
    metrics: str | None = None
    kde_sample: int | None = None
    kde_bandwidth: str | None = None


@dataclass(frozen=True, slots=True)
class SourceOptions:
    """What is measured. artifact, also: ``NAME=PATH``. saved: histograms of an earlier run, in place of images."""

    name: str | None = None
    raw: bool = True
    artifact: tuple[str, ...] = ()
    also: tuple[str, ...] = ()
    saved: Path | None = None
    allow_overlap: bool = False


@dataclass(frozen=True, slots=True)
class IntervalOptions:
    """How intervals over patients are drawn. None: as saved histograms say, else the default."""

    level: float | None = None
    bootstrap: int | None = None
    seed: int | None = None


@dataclass(frozen=True, slots=True)
class EvaluateOptions:
    """Which further files are written."""

    summary: Path | None = None
    comparison: Path | None = None
    bin_table: Path | None = None
    histograms: Path | None = None
    html: Path | None = None


@dataclass(frozen=True, slots=True)
class MergeOptions:
    """Which further files the parts of ``evaluate`` are merged to."""

    summary: Path | None = None
    comparison: Path | None = None
    bin_table: Path | None = None
    histograms: Path | None = None


@dataclass(frozen=True, slots=True)
class ReliabilityOptions:
    """Which pictures are drawn, and how. Lists are comma-separated."""

    plots: str = "all"
    format: str = "svg,png"
    dpi: int = 150
    show_cases: str = "worst:3,median:1,best:1"
    min_voxels: int = 20
    cells: tuple[str, ...] = ()
    features: Path | None = None
    images: Path | None = None
    max_cases: int = 12
    alphas: str = "0.05,0.1,0.2"
    show_scores: bool = False


@dataclass(frozen=True, slots=True)
class DeviceOptions:
    """Where the array work runs that has a GPU path."""

    device: Literal["auto", "cpu", "cuda"] = "auto"


@dataclass(frozen=True, slots=True)
class OutputOptions:
    """What may happen to files that exist."""

    overwrite: bool = False


@dataclass(frozen=True, slots=True)
class FolderOptions:
    """What may happen to outputs that exist, and what a run does about inputs and outputs that others work on.

    origins: option -> who said it ("command line", "environment", "config"), for the record; no option itself.
    """

    overwrite: bool = False
    skip_existing: bool = False
    verify: bool = False
    min_age: float = 0.0
    if_locked: Literal["fail", "skip", "wait"] = "fail"
    origins: Mapping[str, str] = field(default_factory=dict)

    @property
    def replace(self) -> bool:
        """Whether outputs that exist may be replaced."""
        return self.overwrite or self.skip_existing


@dataclass(frozen=True, slots=True)
class CoverageOptions:
    """How pictures of prediction sets are made. alpha None: as stored in the artifact."""

    alpha: float | None = None
    ce_bins: int = 20
    block: int | None = None
    min_positives: int = 20
    atlas: Path | None = None


@dataclass(frozen=True, slots=True)
class InspectOptions:
    """What is asked of an artifact. alpha: levels, as text."""

    alpha: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class JudgeOptions:
    """How artifacts that promise something are judged. None: as stored in the artifact."""

    ratio_tolerance: float = 0.1
    alarm_width: str | None = None
    alpha: float | None = None
    alphas: str | None = None
    resplits: int = 1000
    by: str | None = None
    compare: str | None = None
    mondrian: str | None = None
    empty: Literal["top1", "allow"] | None = None
    ce_bins: int = 20
    block: int | None = None
    min_positives: int = 20
    atlas: Path | None = None


@dataclass(frozen=True, slots=True)
class RatioRegionOptions:
    """What is divided by what."""

    numerator: str | None = None
    denominator: str | None = None
    preset: str | None = None


@dataclass(frozen=True, slots=True)
class RatioOptions:
    """The statistics of a ratio's interval. None: the method's default at ``fit``, the stored choice at ``apply``."""

    level: float | None = None
    method: Literal["nested", "joint", "care", "care-guaranteed", "cp"] | None = None
    calibration_error: Literal["ece", "vbias", "kde"] | None = None
    quantile: Literal["conformal", "plain", "mean"] | None = None
    split: Literal["grid", "fixed"] | None = None
    delta1: float | None = None
    estimation: Literal["iid", "block", "none"] | None = None
    estimation_tail: Literal["markov", "fieller"] | None = None
    ce_unit: Literal["volume", "mean"] | None = None
    debias: Literal["none", "first", "paper", "exact", "jackknife"] | None = None
    unit: Literal["max", "hcp"] | None = None
    weighted: bool | None = None
    min_denominator_ml: float | None = None
    alarm_width: str | None = None
    cutoff: float | None = None


@dataclass(frozen=True, slots=True)
class RatioFitOptions:
    """What a fit keeps."""

    bins: int = 15
    allow_overlap: bool = False
    seed: int = 0


@dataclass(frozen=True, slots=True)
class RatioApplyOptions:
    """What is written beside the table, and which voxels count."""

    triage: Path | None = None
    roi: Path | None = None


@dataclass(frozen=True, slots=True)
class ClusterFitOptions:
    """Which voxels are calibrated together, and on whom. What is None has a default of its method."""

    method: str | None = None
    shape: Literal["circle", "ellipse", "ellipsoid"] | None = None
    free_axes: bool = False
    k: str | None = None
    weighting: Literal["patient", "voxel"] = "patient"
    alpha: float = 0.1
    split: str | None = None
    reuse: bool = False
    map: Path | None = None
    grid: str | None = None
    atlas: Path | None = None
    edges: str | None = None
    features: Literal["ecdf", "quantiles"] | None = None
    levels: str | None = None
    objective: Literal["sse", "energy", "paper"] | None = None
    optimizer: Literal["dp", "de"] | None = None
    smooth: float | None = None
    min_count: int | None = None
    order: int | None = None
    roughness: str | None = None
    coords: Literal["index", "unit", "mm", "roi", "object"] | None = None
    block: int | None = None
    shared_map: bool = False
    cluster_background: bool = False
    only: str | None = None
    memory: str = "1GB"
    allow_overlap: bool = False
    seed: int = 0


@dataclass(frozen=True, slots=True)
class ClusterApplyOptions:
    """Which sets are written, and in which form."""

    alpha: tuple[str, ...] = ()
    empty: Literal["top1", "allow"] | None = None
    emit: str = "sets,size"
    atlas: Path | None = None
    roi: Path | None = None


@dataclass(frozen=True, slots=True)
class StudyRequest:
    """A study: which predictions are measured against which labels, through and beside what, and how.

    predictions, labels: folders or files; None where saved counts stand for them (``sourcing.saved``). judging: how
    artifacts that are no calibrators are judged. along: what calibrators look at besides.
    """

    predictions: Path | None
    labels: Path | None
    sourcing: SourceOptions = SourceOptions()
    measuring: MeasureOptions = MeasureOptions()
    drawing: IntervalOptions = IntervalOptions()
    reading: PredictionOptions = PredictionOptions()
    truth: LabelOptions = LabelOptions()
    running: RunOptions = RunOptions()
    judging: JudgeOptions = JudgeOptions()
    along: CompanionOptions = CompanionOptions()
    device: DeviceOptions = DeviceOptions()
