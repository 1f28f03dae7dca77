"""Saved studies: every count of a study in an artifact of kind ``evaluation``, from which its tables come again.

Kept are the finished measures, reported bins and band cells of each case, and the pooled cells of each source, all
exact; so the same options give the same bytes as the run that read the images. Intervals are drawn anew, with any
level and seed. What the counts cannot be turned into, other bins above all, is refused.
"""

from __future__ import annotations

import hashlib
import math
from collections.abc import Sequence
from dataclasses import asdict, fields
from pathlib import Path
from typing import Any, TypedDict

import numpy as np

from segcal_cli.core.annotations import Count, NotEmpty, require_fields
from segcal_cli.core.artifact import Artifact, Header
from segcal_cli.core.errors import ArtifactError, SegcalError, UsageError
from segcal_cli.core.observer import Observer
from segcal_cli.io.artifacts import read_artifact, require_kept, write_artifact
from segcal_cli.metrics.columns import (
    ALL_COLUMNS,
    CLASS_COLUMNS,
    LARGEST,
    MOST_VOXELS,
    WHOLE_COLUMNS,
    Row,
    only_wanted,
)
from segcal_cli.metrics.counting import JOINT, SUMS, WHOLE
from segcal_cli.metrics.measures import CaseMeasures, Settings
from segcal_cli.metrics.pooling import UNITS, Pooled
from segcal_cli.workflows.beside import companions_of
from segcal_cli.workflows.conventions import Intervals, given_settings, intervals_of
from segcal_cli.workflows.devices import device_of
from segcal_cli.workflows.kinds import SAVED
from segcal_cli.workflows.measure_tables import Evaluation, SourceResult
from segcal_cli.workflows.requests import IntervalOptions, MeasureOptions, SourceOptions, StudyRequest
from segcal_cli.workflows.study import ImagesNeeded, Study, measure

WHOLE_OF_ALL = ("n_voxels", "n_classes")
"""Columns of the row ``(all)`` that are no means."""

ROUNDING = 1e-9
"""By how much of itself a sum of probabilities may exceed what it cannot exceed."""

TABLES = ("n", "hits", "p", "whole", "sums", "top_n", "top_hits", "top_p", "joint")
"""Arrays of ``Pooled``, all int64."""


class SourceDocument(TypedDict):
    name: str
    artifact: str | None
    in_sample: bool


class KeptSpec(TypedDict):
    """Of a saved study beside its ``Settings``."""

    roi: bool
    convention: str | None
    level: float
    bootstrap: Count
    resampling_seed: Count


class KeptResults(TypedDict):
    sources: NotEmpty[SourceDocument]
    artifacts: dict[str, str]
    measured: list[str]
    averaged: list[str]


LEFT_OUT = "left out when the images were read"
"""What a saved study says of a case that failed."""


class SavedOtherwise(UsageError):
    """An option that the saved counts were not made with."""

    template = "{0} was measured with {1} = {2}, not {3}; measure again from the images"


class SourcesFixed(UsageError):
    """Sources beside saved ones."""

    template = "--from brings its own sources; {0} cannot be given beside it"


class DamagedStudy(ArtifactError):
    """An artifact whose arrays do not make a study."""

    template = "{0} is not a segcal artifact: its arrays are damaged ({1})"


def measured_or_loaded(request: StudyRequest, observer: Observer, *, with_digests: bool = False) -> Study:
    """The study of the images, or of ``--from``. Raises ImagesNeeded, and what measuring and loading raise."""
    saved = request.sourcing.saved
    if saved is None:
        return measure(request, observer, with_digests=with_digests)
    if request.predictions is not None:
        raise ImagesNeeded
    companions_of(request.along, request.reading, features=False, images=False)
    device_of(request.device, cpu_only="--from")
    return load_study(saved, request.sourcing, request.measuring, request.drawing)


def save_study(path: Path, study: Study) -> str:
    """Write the artifact; returns its sha256. Raises WriteError."""
    evaluation = study.evaluation
    cases = evaluation.sources[0].cases
    arrays: dict[str, np.ndarray] = {}
    for number, source in enumerate(evaluation.sources):
        arrays |= {f"source{number}_{name}": array for name, array in _arrays(source).items()}
    header = Header(
        kind=SAVED,
        method="histograms",
        space=evaluation.space,
        values=study.values,
        spec={
            **asdict(evaluation.settings),
            "roi": evaluation.roi,
            "convention": evaluation.convention,
            "level": evaluation.intervals.level,
            "bootstrap": evaluation.intervals.resamples,
            "resampling_seed": evaluation.intervals.seed,
        },
        case_ids=tuple(case.case for case in cases),
        group_ids=tuple(case.group for case in cases),
        case_digests=dict(study.digests),
        fit_input_digest=_input_digest(cases, study),
        guarantee=evaluation.guarantee,
        seed=evaluation.settings.seed,
        # Without the messages, which say where the files lie.
        dropped=tuple({key: failure[key] for key in ("case", "file", "error")} for failure in study.failures),
        results={
            "sources": [
                {"name": source.name, "artifact": source.artifact, "in_sample": source.in_sample}
                for source in evaluation.sources
            ],
            "artifacts": dict(study.artifacts),
            "measured": list(evaluation.sources[0].pooled.classes),
            "averaged": list(evaluation.sources[0].pooled.averaged),
        },
    )
    return write_artifact(path, Artifact(header, arrays))


def load_study(path: Path, sourcing: SourceOptions, measuring: MeasureOptions, drawing: IntervalOptions) -> Study:
    """The study that ``save_study`` wrote, with the intervals that are asked for now.

    Raises SavedOtherwise, SourcesFixed, DamagedStudy, NotAnArtifact, NewerArtifact, OtherKind.
    """
    _refuse_sources(sourcing)
    artifact = read_artifact(path, SAVED, "--from")
    header = artifact.header
    require_kept(path, header, KeptSpec, KeptResults)
    try:
        saved, before = _conventions(header.spec)
        settings = _chosen(path, saved, given_settings(measuring, drawing.seed))
        sources = [_source(artifact, number, settings) for number in range(len(header.results["sources"]))]
        evaluation = Evaluation(
            header.space,
            settings,
            sources,
            header.spec["roi"],
            intervals_of(drawing, before),
            measuring.convention or header.spec["convention"],
        )
    except UsageError:
        raise
    except (KeyError, ValueError, IndexError, TypeError, AttributeError, OverflowError, SegcalError) as error:
        raise DamagedStudy(path, f"{type(error).__name__}: {error}") from error
    failures = tuple({**failure, "message": LEFT_OUT} for failure in header.dropped)
    return Study(evaluation, header.values, header.case_digests, failures, header.results["artifacts"])


def _refuse_sources(sourcing: SourceOptions) -> None:
    given = {
        "--artifact": sourcing.artifact,
        "--also": sourcing.also,
        "--name": sourcing.name,
        "--no-raw": not sourcing.raw,
    }
    for flag, value in given.items():
        if value:
            raise SourcesFixed(flag)


def _conventions(spec: dict[str, Any]) -> tuple[Settings, Intervals]:
    saved = {field.name: spec[field.name] for field in fields(Settings)}
    saved["metrics"] = tuple(saved["metrics"])
    if not 0 < spec["level"] < 1:
        raise ValueError(f"intervals of level {spec['level']}")
    try:
        settings = Settings(**saved)
    except UsageError as error:  # not what somebody asked for now
        raise ValueError(str(error)) from error
    require_fields(settings)
    return settings, Intervals(spec["level"], spec["bootstrap"], spec["resampling_seed"])


def _chosen(path: Path, saved: Settings, given: dict[str, Any]) -> Settings:
    """The saved settings, with fewer measures if so asked. Raises SavedOtherwise."""
    metrics = given.pop("metrics", saved.metrics)
    more = [key for key in metrics if key not in saved.metrics]
    if more:
        raise SavedOtherwise(path, "--metrics", ",".join(saved.metrics), ",".join(more))
    if "kde_ece" not in saved.metrics:
        # Nothing was drawn yet that a seed could have decided.
        given.pop("seed", None)
    for name, value in given.items():
        if value != getattr(saved, name):
            raise SavedOtherwise(path, "--" + name.replace("_", "-"), getattr(saved, name), value)
    return Settings(**{**asdict(saved), "metrics": metrics})


def _arrays(source: SourceResult) -> dict[str, np.ndarray]:
    cases = source.cases
    found = {
        "rows": np.array([[_numbers(row, CLASS_COLUMNS) for row in case.classes.values()] for case in cases]),
        "all": np.array([_numbers(case.all, ALL_COLUMNS) for case in cases]),
    }
    for name in TABLES:
        found[name] = np.stack([getattr(case.pooled, name) for case in cases])
        found[f"pooled_{name}"] = getattr(source.pooled, name)
    found["curves"] = np.stack([case.curves for case in cases if case.curves is not None])
    classes = len(source.pooled.classes)
    found["spaced"] = np.array([case.pooled.bias_ml is not None for case in cases])
    found["bias_ml"] = np.stack([_or_zero(case.pooled.bias_ml, classes) for case in cases])
    found["pooled_bias_ml"] = _or_zero(source.pooled.bias_ml, classes)
    return found


def _source(artifact: Artifact, number: int, settings: Settings) -> SourceResult:
    header = artifact.header
    of = {
        name.removeprefix(f"source{number}_"): array
        for name, array in artifact.arrays.items()
        if name.startswith(f"source{number}_")
    }
    names, averaged = tuple(header.results["measured"]), tuple(header.results["averaged"])
    if averaged != settings.averaged(header.space) or names != header.space.measured_names:
        raise ValueError(f"classes {names}, averaged over {averaged}")
    _check_counts(of, len(header.case_ids), len(names), settings)

    def pooled(prefix: str, at: tuple[int, ...], *, cells: bool, spaced: bool) -> Pooled:
        return Pooled(
            classes=names,
            averaged=averaged,
            grid=settings.grid,
            cells=cells,
            bias_ml=of[f"{prefix}bias_ml"][at] if spaced else None,
            **{name: of[f"{prefix}{name}"][at] for name in TABLES},
        )

    cases = []
    for i, (case, group) in enumerate(zip(header.case_ids, header.group_ids, strict=True)):
        rows = {
            name: only_wanted(_row(of["rows"][i, k], CLASS_COLUMNS, WHOLE_COLUMNS), settings)
            for k, name in enumerate(names)
        }
        whole = only_wanted(_row(of["all"][i], ALL_COLUMNS, WHOLE_OF_ALL), settings)
        table = pooled("", (i,), cells=False, spaced=bool(of["spaced"][i]))
        cases.append(CaseMeasures(case, group, rows, whole, table, of["curves"][i]))
    entry = header.results["sources"][number]
    together = pooled("pooled_", (), cells=True, spaced=bool(of["spaced"].all()))
    return SourceResult(entry["name"], entry["artifact"], entry["in_sample"], cases, together)


def _check_counts(of: dict[str, np.ndarray], cases: int, classes: int, settings: Settings) -> None:
    """Raises ValueError for arrays of one source that have another shape, type or order of size than counts have."""
    bins, top = (classes, settings.grid.bins), (settings.grid.bins,)
    one: dict[str, tuple[int, ...]] = {
        "n": bins,
        "hits": bins,
        "p": bins,
        "whole": (classes, len(WHOLE)),
        "sums": (classes, len(SUMS)),
    }
    one |= {"top_n": top, "top_hits": top, "top_p": top, "joint": (len(JOINT),), "bias_ml": (classes,)}
    cells = dict.fromkeys(("n", "hits", "p"), (classes, settings.grid.size))
    shapes: dict[str, tuple[int, ...]] = {name: (cases, *shape) for name, shape in one.items()}
    shapes |= {f"pooled_{name}": shape for name, shape in (one | cells).items()}
    floats: dict[str, tuple[int, ...]] = {
        "rows": (cases, classes, len(CLASS_COLUMNS)),
        "all": (cases, len(ALL_COLUMNS)),
    }
    kinds = dict.fromkeys(shapes, "i") | dict.fromkeys(floats, "f") | {"spaced": "b", "curves": "i"}
    for name, shape in {**shapes, **floats, "spaced": (cases,)}.items():
        if of[name].shape != shape:
            raise ValueError(f"{name} has the shape {of[name].shape}, not {shape}")
    for name, kind in kinds.items():
        if of[name].dtype.kind != kind or (kind == "f" and of[name].dtype != np.float64):
            raise ValueError(f"{name} is {of[name].dtype}")
    if any((np.abs(of[name]) > LARGEST).any() for name in floats):
        raise ValueError("measures beyond any")
    if len(of["curves"]) != cases:
        raise ValueError("curves of another number of cases")
    for prefix in ("", "pooled_"):
        for most, part in (("n", "hits"), ("top_n", "top_hits")):
            whole, some = of[prefix + most], of[prefix + part]
            if some.size and (some.min() < 0 or (some > whole).any() or whole.max() > MOST_VOXELS):
                raise ValueError(f"{prefix}{part} is no part of {prefix}{most}")
        if any(of[prefix + name].size and of[prefix + name].min() < 0 for name in ("p", "whole", "top_p")):
            raise ValueError("counts below 0")
        for most, total in (("n", "p"), ("top_n", "top_p")):
            # Beside rounding: a probability is at most 1.
            if (of[prefix + total] > of[prefix + most] * (UNITS * (1.0 + ROUNDING))).any():
                raise ValueError(f"{prefix}{total} is more than {prefix}{most} allows")


def _numbers(row: Row, columns: Sequence[str]) -> list[float]:
    return [math.nan if row[key] is None else float(row[key] or 0) for key in columns]


def _row(numbers: np.ndarray, columns: Sequence[str], whole: Sequence[str]) -> Row:
    return {
        key: None if math.isnan(value) else int(value) if key in whole else value
        for key, value in zip(columns, numbers.tolist(), strict=True)
    }


def _or_zero(array: np.ndarray | None, classes: int) -> np.ndarray:
    return np.zeros(classes, np.int64) if array is None else array


def _input_digest(cases: Sequence[CaseMeasures], study: Study) -> str:
    """sha256 over ids, patients and digests of all cases."""
    lines = [f"{case.case}\t{case.group}\t{study.digests.get(case.case, '')}\n" for case in cases]
    return hashlib.sha256("".join(lines).encode()).hexdigest()
