"""The result of a fit: parameters, what they gained, what to beware of; and its form in an artifact.

An artifact keeps the per-case statistics next to the parameters, so that another loss, weight or fold could be had
from it without the images.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import field
from typing import Annotated, Any, Literal, NotRequired, TypedDict

import numpy as np

from segcal_cli.calibration import auxiliary, cautions, ensemble, fine_tuning, local
from segcal_cli.calibration.affine import LINEAR_METHODS, named
from segcal_cli.calibration.calibrator import Calibrator
from segcal_cli.calibration.canonical import kind_of
from segcal_cli.calibration.equipment import NOTHING, Equipment, LastLayer
from segcal_cli.calibration.fitting import Fitted
from segcal_cli.calibration.likelihood import sigmoid
from segcal_cli.calibration.local import LocalNetwork
from segcal_cli.calibration.method import Sketched, filled
from segcal_cli.calibration.patients import Patients
from segcal_cli.calibration.registry import METHODS, joint
from segcal_cli.calibration.spec import FitSpec
from segcal_cli.core.annotations import Count, NotEmpty, Positive
from segcal_cli.core.artifact import Artifact
from segcal_cli.core.errors import ArtifactError, count_text
from segcal_cli.core.frozen import dataclass
from segcal_cli.core.labels import LabelSpace
from segcal_cli.core.volume import Grid, Stored, Values, Volume

LARGEST_PARAMETER = 1e4
"""Fitted parameters are some tens at most; beyond this, sums over voxels leave the numbers that count them exactly."""

LOSS_WORDS = {"nll": "NLL", "brier": "Brier score", "soft-ace": "soft ACE", "nll+ace": "NLL and soft ACE"}
"""What a guarantee calls that which was minimised."""

TRIED_VOXELS, TRIED_LOGIT = 9, 20.0
"""A calibrator from a file is tried on so many voxels, with log-odds up to this."""

HOODED = (auxiliary.METHOD.name, local.METHOD.name)
"""Methods that look at neighbours, and so depend on the size of voxels."""


class KeptSpec(TypedDict):
    """What of ``FitSpec.to_json()`` makes a calibrator; the rest of it says how it was found."""

    nesting: Literal["project", "none"]
    kernel: NotRequired[int]
    dim: NotRequired[Literal[2, 3]]
    pad: NotRequired[Literal["replicate", "zero"]]
    slice_axis: NotRequired[Literal["auto", "x", "y", "z"]]


class Objective(TypedDict):
    loss: str
    before: float
    after: float
    gradient: float
    iterations: Count
    nll_before: float
    nll_after: float


class Change(TypedDict):
    before: float | None
    after: float | None


class AllClasses(TypedDict):
    all: dict[str, float | None]


class Pooled(TypedDict):
    micro: AllClasses


class Summary(TypedDict):
    before: Pooled
    after: Pooled
    evaluated_on: str


class TrainingNll(TypedDict):
    alone: float
    after: float


class TrainingFacts(TypedDict):
    epochs: Count
    best: Count
    kept: bool
    nll: TrainingNll


class Facts(TypedDict):
    spacing_mm: Annotated[list[Annotated[list[Positive], 3]], 2] | None
    training: NotRequired[TrainingFacts]


class KeptResults(TypedDict):
    """What of ``FitResult.results()`` is shown, or looked at, by whoever uses the artifact."""

    method: str
    parameters: dict[str, float | NotEmpty[float] | NotEmpty[NotEmpty[float]] | dict[str, float]]
    objective: Objective
    threshold: dict[str, float | None]
    dice: dict[str, Change]
    summary: Summary | None
    passes: Count
    split_kind: str
    warnings: list[str]
    notes: list[str]
    facts: Facts


def canonical_of(spec: FitSpec, space: LabelSpace) -> str:
    """What goes into the method."""
    if spec.record(space).only == "logits":
        return "logits"
    if spec.method == fine_tuning.METHOD.name:
        return "features"
    return "log-softmax" if joint(spec.record(space), space) else "log-odds"


class NotACalibrator(ArtifactError):
    """An artifact of another kind, or of a method that this version does not have."""

    template = "this is {0:an} artifact of method {1}; calibrate apply needs a calibrate artifact of: {2}"


@dataclass(frozen=True, slots=True)
class FitResult:
    """What ``fit`` found. Everything but ``arrays`` and ``calibrator`` is plain numbers and strings.

    parameters, interval: name -> number, or class -> number; [low, high]. objective: loss over the fitted voxels
    before and after, the largest gradient left, steps of the solver, NLL before and after. threshold: class -> raw
    probability at calibrated 0.5, or None.
    summary: as documented in ``summary.py``, or None. warnings, notes: sentences. case_ids, group_ids: one per case,
    in byte order of the case ids. arrays: parameters and per-case statistics. passes: over the cases.
    """

    spec: FitSpec
    space: LabelSpace
    values: Values
    calibrator: Calibrator
    parameters: dict[str, Any]
    objective: dict[str, Any]
    threshold: dict[str, float | None]
    summary: dict[str, Any] | None
    interval: dict[str, Any]
    warnings: tuple[str, ...]
    notes: tuple[str, ...]
    case_ids: tuple[str, ...]
    group_ids: tuple[str, ...]
    n_voxels: int
    passes: int
    guarantee: str
    facts: dict[str, Any]
    arrays: dict[str, np.ndarray]

    @property
    def dice(self) -> dict[str, dict[str, float | None]]:
        """Class -> Dice of the raw and of the calibrated decision, all voxels pooled; None without a summary."""
        names = list(self.threshold)
        if self.summary is None:
            return {name: {"before": None, "after": None} for name in names}
        phases = {phase: self.summary[phase]["micro"]["classes"] for phase in ("before", "after")}
        return {name: {phase: of[name]["dice"] for phase, of in phases.items()} for name in names}

    def results(self) -> dict[str, Any]:
        """Plain values, strict JSON: what ``fit --json`` shows and the header of the artifact keeps."""
        return {
            "method": self.spec.method,
            "loss": self.spec.loss,
            "optimiser": "adam" if self.spec.method == local.METHOD.name else self.spec.optimiser,
            "family": self.spec.family(self.space),
            "classes": list(self.space.names),
            "canonical": canonical_of(self.spec, self.space),
            "parameters": self.parameters,
            "objective": self.objective,
            "threshold": self.threshold,
            "dice": self.dice,
            "summary": self.summary,
            "n_cases": len(self.case_ids),
            "n_groups": len(set(self.group_ids)),
            "n_voxels": self.n_voxels,
            "passes": self.passes,
            "split_kind": self.spec.split_kind,
            "interval": self.interval,
            "warnings": list(self.warnings),
            "notes": list(self.notes),
            "facts": self.facts,
        }


@dataclass(frozen=True, slots=True)
class FoldCalibrators:
    """What each case is measured with: the calibrator fitted without the fold of its patient.

    calibrators: one per fold, or the only one where there are no folds. fold: case id -> which of them.
    """

    calibrators: tuple[Calibrator, ...]
    fold: Mapping[str, int]

    def without(self, case: str) -> Calibrator:
        return self.calibrators[self.fold[case]]


@dataclass(frozen=True, slots=True)
class Unmeasured:
    """A fit before its summary: what the second pass, where there is one, carries along. network: of the local method.
    notes, facts: what else there is to say of the fit, in sentences and for the result.
    """

    spec: FitSpec
    space: LabelSpace
    values: Values
    patients: Patients
    fitted: Fitted
    passes: int = 1
    equipment: Equipment = NOTHING
    network: LocalNetwork | None = None
    notes: tuple[str, ...] = ()
    facts: Mapping[str, Any] = field(default_factory=dict)

    def fold_calibrators(self) -> FoldCalibrators:
        """A calibrator for every case that its patient had no part in; that of all patients if there are no folds."""
        patients, fitted = self.patients, self.fitted
        folds = range(fitted.folds) if fitted.folds else (None,)
        places = {case.case: int(fitted.fold_of[m]) for case, m in zip(patients.cases, patients.member, strict=True)}
        return FoldCalibrators(tuple(self._calibrator(fold) for fold in folds), places)

    def with_summary(
        self,
        summary_of: Callable[[bool], dict[str, Any]] | None,
        held_out: tuple[float, float],
        *,
        passes: int,
    ) -> FitResult:
        """The result. summary_of: the summary, told whether the loss improved; None: no summary. held_out: NLL before
        and
        after, out of fold where there are folds."""
        patients, fitted, spec, space = self.patients, self.fitted, self.spec, self.space
        summary = None if summary_of is None else summary_of(cautions.improved(*held_out))
        warnings, notes = cautions.of_fit(patients, fitted, spec, space, self.values)
        warnings += cautions.of_summary(summary, held_out, fitted, spec, space)
        calibrator = self._calibrator(None)
        return FitResult(
            spec=spec,
            space=space,
            values=self.values,
            calibrator=calibrator,
            parameters=self._weights() or self._curves() or self._by_name(lambda block, i: float(block.row[i])),
            objective={
                "loss": spec.loss,
                "before": fitted.mean("before"),
                "after": fitted.mean("after"),
                "gradient": fitted.gradient,
                "iterations": fitted.steps,
                "nll_before": fitted.nll[0],
                "nll_after": fitted.nll[1],
                "in_sample": True,
            },
            threshold=self._threshold(calibrator),
            summary=summary,
            interval=self._by_name(lambda block, i: _interval(block.interval[:, i])) if self._intervals() else {},
            warnings=tuple(warnings),
            notes=(*notes, *self.notes),
            case_ids=tuple(case.case for case in patients.cases),
            group_ids=tuple(case.group for case in patients.cases),
            n_voxels=sum(case.voxels for case in patients.cases),
            passes=passes,
            guarantee=self._guarantee(held_out, summary is not None),
            facts={**_facts(patients), **self.facts},
            arrays={**calibrator.arrays(), **self._layer_arrays(), **_statistics(patients)},
        )

    def _calibrator(self, fold: int | None) -> Calibrator:
        rows = self.fitted.rows(1 if self._joint() else len(self.space.measured), fold)
        hood = self.spec.surroundings if self.spec.method in HOODED else None
        return Calibrator(
            self.spec.method, self.space, rows, self.spec.nesting == "project", hood,
            network=self.network, device=self.equipment.device,
        )  # fmt: skip

    def _layer_arrays(self) -> dict[str, np.ndarray]:
        """The layer that fine-tuning started from."""
        layer = self.equipment.layer if self.spec.method == fine_tuning.METHOD.name else None
        return {} if layer is None else {"layer_weight": layer.weight, "layer_bias": layer.bias}

    def _by_name(self, value: Callable[[Any, int], Any]) -> dict[str, Any]:
        """Parameter -> a value where one calibrator serves all classes, else class -> value. Slope and offset of a
        single
        problem stand under its class too, because they belong to it."""
        record, blocks = self.spec.record(self.space), self.fitted.blocks
        if not isinstance(record, Sketched):
            return {}
        one = len(blocks) == 1 and (record.keeps_decisions or len(self.space.measured) > 1)
        names = [self.space.names[c] for c in self.space.measured]
        if record.pieces:
            return {}
        return {
            parameter: value(blocks[0], i)
            if one
            else {names[p]: value(block, i) for block in blocks for p in block.problems}
            for i, parameter in enumerate(record.parameters)
        }

    def _weights(self) -> dict[str, Any]:
        """Parameters of a linear map of all classes; of a kernel, a layer or a network, what can be told in a few
        numbers; else {}."""
        if self.spec.method == local.METHOD.name:
            size = 0 if self.network is None else self.network.size
            return {"temperature": float(self.fitted.blocks[0].row[0]), "weights": size}
        if self.spec.method == fine_tuning.METHOD.name:
            assert self.equipment.layer is not None, "fine-tuning starts from a layer"
            rows = np.concatenate([block.row for block in self.fitted.blocks]).reshape(len(self.space.measured), -1)
            return fine_tuning.told(rows, self.equipment.layer, self.space)
        if self.spec.method == auxiliary.METHOD.name:
            names = [self.space.names[c] for c in self.space.measured]
            hood = self.spec.surroundings
            rows = np.concatenate([block.row for block in self.fitted.blocks]).reshape(len(names), hood.taps + 1)
            told = {"centre": rows[:, hood.centre], "sum": rows[:, :-1].sum(axis=1), "offset": rows[:, -1]}
            return {key: dict(zip(names, column.tolist(), strict=True)) for key, column in told.items()}
        if self.spec.method not in LINEAR_METHODS:
            return {}
        classes = len(self.space.channels)
        weights = self.fitted.blocks[0].row.reshape(classes, classes + 1)
        return named(self.spec.method, weights, self.spec.odir)

    def _curves(self) -> dict[str, dict[str, int]]:
        """What each class's curve is made of; {} for methods with named parameters."""
        record = self.spec.record(self.space)
        names = [self.space.names[c] for c in self.space.measured]
        if not isinstance(record, Sketched) or not record.pieces:
            return {}
        return {
            record.pieces: {names[p]: (len(filled(b.row)) + 1) // 2 for b in self.fitted.blocks for p in b.problems}
        }

    def _intervals(self) -> bool:
        return len(self.patients.groups) > 1

    def _joint(self) -> bool:
        """Whether one row of parameters serves all classes together."""
        return joint(self.spec.record(self.space), self.space)

    def _threshold(self, calibrator: Calibrator) -> dict[str, float | None]:
        names = [self.space.names[c] for c in self.space.measured]
        if self._joint():  # the cut of a class depends on the other classes
            return dict.fromkeys(names)
        return {
            name: cautions.threshold_of(calibrator.record, row)
            for name, row in zip(names, calibrator.rows, strict=True)
        }

    def _guarantee(self, held_out: tuple[float, float], measured: bool) -> str:
        cases, groups = len(self.patients.cases), len(self.patients.groups)
        who = f"{count_text(cases, 'case')} of {count_text(groups, 'patient')}"
        if self.spec.method == ensemble.METHOD.name:
            return f"Members joined, nothing fitted ({who}); no finite-sample guarantee."
        sentence = f"Calibrated on {who} by {LOSS_WORDS[self.spec.loss]}; no finite-sample guarantee."
        if not measured:
            return sentence
        where = self.fitted.where.capitalize()
        return f"{sentence} {where} NLL {cautions.number(held_out[0])} -> {cautions.number(held_out[1])}."


def to_artifact_parts(result: FitResult) -> tuple[dict[str, Any], dict[str, np.ndarray]]:
    """(results, arrays) for the header and the arrays of an artifact. The header's spec is
    ``result.spec.to_json()``."""
    return result.results(), result.arrays


def calibrator_from(artifact: Artifact) -> Calibrator:
    """The calibrator of an artifact. Raises NotACalibrator, and ValueError for parameters that do not work."""
    header = artifact.header
    if header.results["method"] != header.method:
        raise ValueError("results.method is not that of the header")
    fits = header.kind == "calibrate" and header.method in METHODS
    if not fits or kind_of(header.space) not in METHODS[header.method].families:
        raise NotACalibrator(header.kind, header.method, ", ".join(METHODS))
    spec = header.spec
    hood = network = None
    rows = artifact.arrays["parameters"]
    if header.method == auxiliary.METHOD.name:
        hood = auxiliary.Surroundings(spec["kernel"], spec["dim"], spec["pad"], spec["slice_axis"])
        if rows.size != len(header.space.measured) * (hood.taps + 1):
            raise ValueError("the kernel has another size")
    if header.method == local.METHOD.name:
        hood = local.surroundings(spec["dim"], spec["slice_axis"])
        network = LocalNetwork.of_arrays(artifact.arrays, float(rows[0, 0]), len(header.space.measured))
    layer = None
    if header.method == fine_tuning.METHOD.name:
        layer = LastLayer(artifact.arrays["layer_weight"], artifact.arrays["layer_bias"])
        if rows.size != len(header.space.measured) * (layer.weight.shape[1] + 1):
            raise ValueError("the layer has another size")
    found = Calibrator(
        header.method, header.space, rows, spec["nesting"] == "project", hood, network=network, layer=layer
    )
    _try(found, header.values)
    return found


def layer_from(artifact: Artifact) -> LastLayer:
    """The last layer that a fine-tuned artifact makes, in the network's own layout. Raises KeyError."""
    layer = LastLayer(artifact.arrays["layer_weight"], artifact.arrays["layer_bias"])
    space = artifact.header.space
    weights = artifact.arrays["parameters"].reshape(len(space.measured), -1)
    return fine_tuning.layer_with(weights, layer, space)


def _try(calibrator: Calibrator, values: Values) -> None:
    """Apply a calibrator to a few voxels from sure to unsure. Raises ValueError unless probabilities come out."""
    rows, classes = calibrator.rows, len(calibrator.space.channels)
    problems = 1 if joint(calibrator.record, calibrator.space) else len(calibrator.space.measured)
    if (
        rows.dtype != np.float64
        or rows.ndim != 2
        or (calibrator.hood is None and calibrator.layer is None and len(rows) != problems)
    ):
        raise ValueError(f"parameters of type {rows.dtype} and shape {rows.shape}")
    if (np.abs(rows[np.isfinite(rows)]) > LARGEST_PARAMETER).any():
        raise ValueError(f"parameters up to {np.nanmax(np.abs(rows)):.3g}")
    if isinstance(calibrator.record, Sketched) and not joint(calibrator.record, calibrator.space):
        for row in rows:
            calibrator.record.require_row(row)
    elif not np.isfinite(rows).all():
        raise ValueError("parameters that are no numbers")
    if calibrator.layer is not None:
        return  # what goes into it are a network's features, of which there is no example
    logits = np.zeros((classes, 1, 1, TRIED_VOXELS))
    logits[-1] = np.linspace(-TRIED_LOGIT, TRIED_LOGIT, TRIED_VOXELS)
    array = logits
    if values == "probabilities":
        array = sigmoid(logits)
        if calibrator.space.exclusive:
            array[:-1] = (1.0 - array[-1]) / (classes - 1)
    shape = (1, 1, TRIED_VOXELS)
    volume = Volume(array.astype(np.float32), Grid(shape), values, Stored("float32"), image=np.zeros(shape))
    with np.errstate(all="ignore"):
        alone, given = calibrator.pointwise(volume)
        p = alone.apply(given.array, given.values, given.stored).array
        scores = alone.scores(given.array.reshape(classes, -1), given.values, given.stored)
    logs = [log for log in (scores.log_p, scores.log_q) if log is not None]
    probable = all(((one >= 0) & (one <= 1)).all() for one in (p, scores.p))
    if not probable or not all((log >= -2 * TRIED_LOGIT * LARGEST_PARAMETER).all() for log in logs):
        raise ValueError("its parameters give no probabilities")


def _interval(ends: np.ndarray) -> list[float] | None:
    return None if np.isnan(ends).any() else [float(ends[0]), float(ends[1])]


def _facts(patients: Patients) -> dict[str, Any]:
    """What the predictions of the fit were like: stored types with their floors, padding, region of interest."""
    stored = sorted({(case.stored.dtype, case.stored.step or 0.0): case.stored for case in patients.cases}.items())
    voxels = np.array([case.voxels for case in patients.cases], dtype=np.float64)
    return {
        "stored": [
            {
                "dtype": one.dtype,
                "step": one.step,
                "floor": one.floor,
                "complement_floor": one.complement_floor,
            }
            for _, one in stored
        ],
        "padding_share": float(np.mean([case.padding_share for case in patients.cases])),
        "roi": any(case.roi for case in patients.cases),
        "counted_share": float(voxels.sum() / np.sum(voxels / [case.counted_share for case in patients.cases])),
        "zeros": [int(n) for n in np.sum([case.zeros for case in patients.cases], axis=0)],
        "spacing_mm": _spacings(patients),
    }


def _spacings(patients: Patients) -> list[list[float]] | None:
    """Smallest and largest voxel edge along x, y and z; None where a case has no place in space."""
    found = [case.spacing_mm for case in patients.cases]
    if any(one is None for one in found):
        return None
    table = np.round(np.array(found), 6)
    return [table.min(axis=0).tolist(), table.max(axis=0).tolist()]


def _statistics(patients: Patients) -> dict[str, np.ndarray]:
    """Per-case statistics as plain arrays, cases in order. Sketches: entries of case i, problem j are those from
    sketch_ends[i, j - 1] (or the end before it) to sketch_ends[i, j]."""
    cases = patients.cases
    arrays = {"voxels": np.array([case.voxels for case in cases], dtype=np.int64)}
    sketches = [sketch for case in cases for sketch in case.sketches]
    if sketches:
        ends = np.cumsum([len(sketch.bins) for sketch in sketches]).astype(np.int64)
        arrays["sketch_ends"] = ends.reshape(len(cases), -1)
        arrays["sketch_bins"] = np.concatenate([sketch.bins for sketch in sketches])
        arrays["sketch_sums"] = np.concatenate([sketch.sums for sketch in sketches], axis=1)
        return arrays
    if all(case.nodes is None for case in cases):  # a sample is as large as a volume, and drawn again by its seed
        return arrays
    sums = [case.nodes for case in cases if case.nodes is not None]
    arrays["node_sums"] = np.stack([one.d for one in sums])
    arrays["node_label_gap"] = np.array([one.label_gap for one in sums])
    squares = [one.squares for one in sums if one.squares is not None]
    if squares:
        arrays["node_squares"] = np.stack(squares)
    return arrays
