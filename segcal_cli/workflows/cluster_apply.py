"""``cluster apply``: new predictions in, prediction sets out. Needs no labels."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from segcal_cli.core.artifact import Header
from segcal_cli.core.case import Case
from segcal_cli.core.errors import UsageError, count_text
from segcal_cli.core.frozen import dataclass
from segcal_cli.core.observer import Observer
from segcal_cli.io.geometry import Space
from segcal_cli.io.naming import entity_values
from segcal_cli.io.outputs import File, refuse_existing, refuse_inside, voxel_file
from segcal_cli.io.run_files import RunFiles
from segcal_cli.kandinsky.codes import INFINITE, smallest_probability
from segcal_cli.kandinsky.model import Model
from segcal_cli.kandinsky.sets import (
    ClassView,
    Empty,
    bit_flags,
    class_view,
    fill_empty,
    members,
    p_values,
    rounded_down,
)
from segcal_cli.kandinsky.text import guarantee, vacuous_lines
from segcal_cli.kandinsky.views import View
from segcal_cli.reporting.tables import csv_text
from segcal_cli.workflows.calibrators import CalibratorTransform, LoadedCalibrator, load_calibrator, refuse_misfit
from segcal_cli.workflows.case_keeping import Made
from segcal_cli.workflows.cluster_artifacts import LoadedCluster, alphas_of, load_cluster, place_of, refuse_other_scans
from segcal_cli.workflows.cluster_atlas import AtlasReader, atlases_for
from segcal_cli.workflows.folder_runs import FolderRun, running_on
from segcal_cli.workflows.folder_shards import EVERY_CASE, concluded, share_of
from segcal_cli.workflows.inputs import open_inputs, reading_spec
from segcal_cli.workflows.outcome import Outcome
from segcal_cli.workflows.regions_of_interest import refuse_other_region
from segcal_cli.workflows.requests import (
    ClusterApplyOptions,
    FolderOptions,
    PredictionOptions,
    RunOptions,
    ShardOptions,
)
from segcal_cli.workflows.run_settings import settings_for
from segcal_cli.workflows.running import refuse_contradictions, require_workers
from segcal_cli.workflows.sharding import parse_shard
from segcal_cli.workflows.tracing import Fitted, hint_at_groups, seen_by

KINDS = ("sets", "size", "pvalue", "clusters", "thresholds")
PER_CLASS = frozenset({"pvalue", "clusters", "thresholds"})

MOST_CLASSES, MOST_CLASSES_PNG = 32, 16
"""Bits that NIfTI and PNG have for sets."""

NOT_EVALUATED = 255
"""Size of the set of a voxel that does not exist (ignored, outside the region of interest)."""

PNG_STEPS = 65535
"""p-values in PNG are floor(65535 p)."""

CASES = "cases.csv"

COLUMNS = (
    "case", "group", "class", "alpha", "predicted_voxels", "set_voxels", "only_voxels", "mean_set_size", "empty_share",
    "infinite_share", "unseen_share", "flags",
)  # fmt: skip


class BadEmit(UsageError):
    """An output that there is not."""

    template = "--emit {0} is not allowed; it takes {1}"


class TooManyClasses(UsageError):
    """More classes than bits."""

    template = "{0} classes do not fit into the {1} bits of a set; use --emit size,pvalue"


class EmptyOfRegions(UsageError):
    """What to do with empty sets of regions."""

    template = "--empty has no meaning for independent regions: an empty set is a proper answer there"


@dataclass(frozen=True)
class SetWriter:
    """Makes the sets of one case: its files, and its rows of the table. seen, copies: flags by case and by digest."""

    model: Model
    alphas: tuple[float, ...]
    empty: Empty
    emit: tuple[str, ...]
    places: Mapping[str, Space]
    seen: Mapping[str, tuple[str, ...]]
    copies: Mapping[str, tuple[str, ...]]

    def __call__(self, case: Case) -> Made:
        view = View(case)
        names = self.model.space.names
        limits = [self.model.thresholds(channel, alpha) for channel, alpha in enumerate(self.alphas)]
        classes = [class_view(self.model, view, channel) for channel in range(len(names))]
        held = members(classes, limits)
        before = ~held.any(axis=0)
        if self.empty == "top1" and self.model.space.exclusive:
            fill_empty(held, view)
        keep = None if view.counted is None else view.counted.reshape(-1)
        files = self._files(view, classes, limits, held, keep)
        flags = tuple(dict.fromkeys((*self.seen.get(case.id, ()), *self.copies.get(case.facts.digest or "", ()))))
        rows = self._rows(view, classes, limits, held, before, keep, flags)
        return Made(files, {"proof": case.facts.proof or None, "flags": list(flags), "rows": rows})

    def _files(
        self,
        view: View,
        classes: Sequence[ClassView],
        limits: Sequence[np.ndarray],
        held: np.ndarray,
        keep: np.ndarray | None,
    ) -> list[File]:
        case, shape = view.case, view.shape
        place = self.places[case.id]
        made = []
        flat = place.grid.affine is None
        for kind in reversed(KINDS):
            if kind not in self.emit:
                continue
            for name, channel in output_names(case.id, [kind], self.model, flat=flat, planar=shape[0] == 1):
                array = self._map(kind, channel, classes, limits, held, keep, flat=name.endswith(".png"))
                made.append(voxel_file(name, array.reshape(shape), place))
        return made

    def _map(  # type: ignore[no-untyped-def]
        self, kind: str, channel: int, classes, limits, held: np.ndarray, keep: np.ndarray | None, *, flat: bool
    ) -> np.ndarray:
        if kind == "sets":
            array: np.ndarray = bit_flags(held)
            outside: Any = 0
        elif kind == "size":
            array = held.sum(axis=0, dtype=np.uint8)
            outside = NOT_EVALUATED
        elif kind == "pvalue":
            p = p_values(self.model, classes[channel])
            array = np.floor(p * PNG_STEPS).astype(np.uint16) if flat else rounded_down(p)
            outside = 0 if flat else np.nan
        elif kind == "clusters":
            array, outside = _cluster_map(classes[channel], self.model.regions.sizes[channel])
        else:
            table = _smallest(limits[channel], self.model.shift)
            index = classes[channel].clusters.index
            array = np.full(classes[channel].codes.size, table[0]) if index is None else table[index]
            if flat:
                array = np.floor(array * PNG_STEPS).astype(np.uint16)
            outside = 0 if flat else np.nan
        if keep is not None:
            array[~keep] = outside
        return array

    def _rows(self, view, classes, limits, held, before, keep, flags):  # type: ignore[no-untyped-def]
        n = held.shape[1] if keep is None else int(keep.sum())

        def share(where: Any) -> float:
            if isinstance(where, bool):
                return float(where)
            return float(np.count_nonzero(where if keep is None else where & keep)) / n

        size = held.sum(axis=0)
        inside = slice(None) if keep is None else keep
        rows = []
        for channel, one in enumerate(classes):
            own = held[channel][inside]
            unseen = one.clusters.unseen
            rows.append(
                {
                    "case": view.case.id,
                    "group": view.case.group,
                    "class": self.model.space.names[channel],
                    "alpha": self.alphas[channel],
                    "predicted_voxels": int(np.count_nonzero(view.predicted(channel).reshape(-1)[inside])),
                    "set_voxels": int(np.count_nonzero(own)),
                    "only_voxels": int(np.count_nonzero(own & (size[inside] == 1))),
                    "mean_set_size": float(size[inside].sum()) / n,
                    "empty_share": share(before),
                    "infinite_share": share(one.infinite(limits[channel])),
                    "unseen_share": 0.0 if unseen is None else share(unseen),
                    "flags": ";".join(flags),
                }
            )
        return rows


def run(
    artifact: Path,
    predictions: Path,
    output: Path,
    applying: ClusterApplyOptions,
    reading: PredictionOptions,
    running: RunOptions,
    writing: FolderOptions,
    observer: Observer,
    sharding: ShardOptions = EVERY_CASE,
) -> Outcome:
    """Write the sets of every case that can be read. A case that fails fails alone."""
    shard = parse_shard(sharding.shard)
    require_workers(running)
    refuse_contradictions(running, writing)
    loaded = load_cluster(artifact, "cluster apply")
    model = loaded.model
    emit = _emitted(applying.emit)
    if applying.empty is not None and not model.space.exclusive:
        raise EmptyOfRegions
    level, own = alphas_of(applying.alpha, loaded.alpha, model.space)
    alphas = tuple(own.get(channel, level) for channel in range(len(model.space.names)))
    refuse_inside(output, [predictions])
    entity_values(model.space.names)
    before = None if reading.calibrator is None else load_calibrator(reading.calibrator, "--calibrator")
    inputs = open_inputs(
        predictions,
        None,
        reading,
        None,
        observer,
        masks=True,
        roi=applying.roi,
        min_age=writing.min_age,
        artifact=loaded,
    )
    reading = inputs.reading
    refuse_misfit(
        loaded, predictions, inputs.space, inputs.values,
        reading_spec(reading, None, None if before is None else before.artifact),
    )  # fmt: skip
    if before is not None:
        refuse_misfit(before, predictions, inputs.space, inputs.values, reading_spec(reading, None, None))
    refuse_other_region(artifact, loaded.artifact, inputs.sources)
    refuse_other_scans(loaded, inputs.sources)
    who = [(source.id, source.group) for source in inputs.sources]
    hint_at_groups(loaded.artifact, loaded.path, who, reading.groups, observer)
    _refuse_bits(model, emit, any(place_of(source).grid.affine is None for source in inputs.sources))
    atlases = atlases_for(
        artifact, loaded.artifact.arrays, applying.atlas, [source.id for source in inputs.sources], model.regions.method
    )
    share = share_of(inputs, shard)
    names: list[str] = []
    others: list[str] = []
    for source in share.sources:
        grid = place_of(source).grid
        for name, kind in _all_names(source.id, model, flat=grid.affine is None, planar=grid.shape[0] == 1):
            (names if kind in emit else others).append(name)
    outputs = [output / name for name in (*names, *((CASES,) if shard is None else ()))]
    refuse_existing(outputs, overwrite=writing.replace)
    _warn_of_others([name for name in others if (output / name).exists()], output, observer)

    writer = SetWriter(
        model, alphas, applying.empty or ("top1" if model.space.exclusive else "allow"), emit,
        {source.id: place_of(source) for source in inputs.sources},
        _seen(loaded, before, who),
        _copies(loaded, before),
    )  # fmt: skip
    reader: Any = inputs.reader(
        with_digest=True, transform=None if before is None else CalibratorTransform(before.calibrator)
    )
    if atlases is not None:
        reader = AtlasReader(reader, atlases)
    settings = settings_for(
        "cluster apply",
        (artifact, loaded.artifact),
        None if before is None else before.artifact,
        reading,
        inputs.values,
        {"alphas": alphas, "empty": writer.empty, "emit": emit},
        (applying, running, writing),
        writing.origins,
    )
    tables = ClusterTables(loaded, alphas, writer.empty)
    with running_on(RunFiles(output, shard=shard), settings, share, writing, running, observer) as run:
        run.refuse_existing(outputs)
        run.map(reader, writer, "making sets", beside=None if atlases is None else atlases.files)
        outcome = concluded(run, tables, inputs)
    return outcome


@dataclass(frozen=True, slots=True)
class ClusterTables:
    """The table of all cases. alphas: by class; empty: what becomes of empty sets."""

    loaded: LoadedCluster
    alphas: tuple[float, ...]
    empty: str

    @property
    def names(self) -> tuple[str, ...]:
        return (CASES,)

    def conclude(self, run: FolderRun) -> Outcome:
        """Raises WriteError."""
        model, alphas = self.loaded.model, self.alphas
        rows = [row for found in run.results.values() for row in found["rows"]]
        run.write(CASES, csv_text(COLUMNS, rows))
        records = [{key: value for key, value in record.items() if key != "rows"} for record in run.documents]
        for alpha in sorted(set(alphas)):
            for line in vacuous_lines(model, alpha):
                name = line.split(":")[0]
                if alphas[model.space.names.index(name)] == alpha:
                    run.observer.warn(line)
        seen = sum(1 for record in records if record["flags"])
        taught = any("in_calibrator" in record["flags"] for record in records)
        if seen:
            run.observer.note(
                f"{seen} of these cases {'was' if seen == 1 else 'were'} used in the fit"
                f"{' or by its calibrator' * taught}: flagged in {CASES}, and nothing is promised there"
            )
        promise = guarantee(model, alphas, self.loaded.circumstances)
        result = {
            **run.result,
            "cases": records,
            "artifact": run.settings.artifact,
            "method": model.regions.method,
            "weighting": model.weighting,
            "alpha": dict(zip(model.space.names, alphas, strict=True)),
            "empty": self.empty,
            "rows": rows,
            "guarantee": promise,
        }
        return Outcome(result, run.counts, (promise,), failures=run.failures, exit_code=run.exit_code)


def output_names(case: str, emit: Sequence[str], model: Model, *, flat: bool, planar: bool) -> list[tuple[str, int]]:
    """Names of a case's files, each with its class (0 for what is of all classes)."""
    end = ".nii.gz" if not flat else ".png" if planar else ".npz"
    labels = entity_values(model.space.names)
    made = []
    for kind in emit:
        if kind in PER_CLASS:
            made += [(f"{case}_{kind}_{labels[name]}{end}", index) for index, name in enumerate(model.space.names)]
        else:
            made.append((f"{case}_{kind}{end}", 0))
    return made


def _all_names(case: str, model: Model, *, flat: bool, planar: bool) -> list[tuple[str, str]]:
    """Names of all files that a case can have, each with its kind."""
    return [(name, kind) for kind in KINDS for name, _ in output_names(case, [kind], model, flat=flat, planar=planar)]


def _warn_of_others(left: Sequence[str], output: Path, observer: Observer) -> None:
    """Files of kinds that this run does not write stay as they are, and may be of another level or artifact."""
    if left:
        observer.warn(
            f"{output}: {count_text(len(left), 'file')} of kinds that --emit leaves out stay as an earlier run made "
            f"them, perhaps with another --alpha or artifact: {', '.join(left[:3])}{', ...' if len(left) > 3 else ''}"
        )


def _emitted(text: str) -> tuple[str, ...]:
    wanted = [part.strip() for part in text.split(",") if part.strip()]
    if not wanted or any(kind not in KINDS for kind in wanted):
        raise BadEmit(text, ", ".join(KINDS))
    return tuple(kind for kind in KINDS if kind in wanted)


def _refuse_bits(model: Model, emit: Sequence[str], flat: bool) -> None:
    most = MOST_CLASSES_PNG if flat else MOST_CLASSES
    if "sets" in emit and len(model.space.names) > most:
        raise TooManyClasses(len(model.space.names), most)


def _seen(loaded, before, who):  # type: ignore[no-untyped-def]
    """Case -> flags: it, or its patient, made the map, calibrated, or taught the calibrator before."""
    header = loaded.artifact.header
    makers, groups, calibrated = _roles(header)
    calibrating = {groups[case] for case in calibrated}
    taught = set() if before is None else set(seen_by(before.artifact, who, {}))
    flags = {}
    for case, group in who:
        marks = []
        if case in calibrated or group in calibrating:
            marks.append("in_calibration")
        if case in makers or group in set(makers.values()):
            marks.append("in_map")
        if case in taught:
            marks.append("in_calibrator")
        if marks:
            flags[case] = tuple(marks)
    return flags


def _copies(loaded: LoadedCluster, before: LoadedCalibrator | None) -> dict[str, tuple[str, ...]]:
    """Digest of a prediction of the fits -> flags of a case that holds the same, whatever its name."""
    header = loaded.artifact.header
    makers, _, calibrated = _roles(header)
    flags = {
        digest: (*(["in_calibration"] if case in calibrated else []), *(["in_map"] if case in makers else []))
        for case, digest in header.case_digests.items()
        if digest
    }
    for digest in Fitted.by([] if before is None else [before.artifact], ()).digests:
        flags[digest] = (*flags.get(digest, ()), "in_calibrator")
    return flags


def _roles(header: Header) -> tuple[dict[str, str], dict[str, str], set[str]]:
    """Of a fit's cases: patients of those that made the map, patients of all, those that calibrated."""
    groups = dict(zip(header.case_ids, header.group_ids, strict=True))
    return dict(header.results["map_cases"]), groups, set(header.results["calibration_cases"])


def _cluster_map(one: ClassView, size: int) -> tuple[np.ndarray, int]:
    """Cluster numbers from 0, and the number of a voxel that is not evaluated: the largest of the type."""
    kind = np.uint8 if size < 255 else np.uint16 if size < 65535 else np.uint32
    index = one.clusters.index
    array = np.zeros(one.codes.size, kind) if index is None else index.astype(kind)
    return array, int(np.iinfo(kind).max)


def _smallest(limits: np.ndarray, shift: int) -> np.ndarray:
    """float32 "cluster": the smallest probability admitted, 0 where the threshold is infinite."""
    distinct, where = np.unique(limits, return_inverse=True)
    table = [0.0 if code == INFINITE else smallest_probability(int(code), shift) for code in distinct]
    return np.array(table, np.float32)[where]
