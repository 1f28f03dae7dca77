"""``calibrate apply``: new predictions in, calibrated probabilities out. Needs no labels."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence
from dataclasses import field
from pathlib import Path

import numpy as np

from segcal_cli.calibration import fine_tuning, local
from segcal_cli.calibration.calibrator import Applied, Calibrator
from segcal_cli.calibration.disagreement import MAP_NAMES, Disagreement
from segcal_cli.core.case import Case
from segcal_cli.core.errors import UsageError, count_text
from segcal_cli.core.frozen import dataclass
from segcal_cli.core.labels import LabelSpace
from segcal_cli.core.observer import Observer
from segcal_cli.core.volume import Volume
from segcal_cli.io import padding
from segcal_cli.io.case_sources import CaseSource
from segcal_cli.io.companions import Companions
from segcal_cli.io.folders import expand_folders
from segcal_cli.io.geometry import Space
from segcal_cli.io.inputs import read_text_bytes
from segcal_cli.io.naming import DSEG_TABLE, dseg_table, entity_values, refuse_same_names
from segcal_cli.io.nnunet import find_model_files
from segcal_cli.io.outputs import (
    File,
    label_file,
    label_name,
    map_file,
    map_name,
    npz_file,
    paint_values,
    painted,
    refuse_changed,
    refuse_inside,
    soft_files,
    soft_names,
)
from segcal_cli.io.predictions import DISPLAY_MARK, PredictionSource
from segcal_cli.io.run_files import RunFiles
from segcal_cli.io.voxels import member_probabilities
from segcal_cli.workflows.beside import ALONE, ANYWHERE, companions_of, folders_of, needs_of, on
from segcal_cli.workflows.calibrators import CalibratorTransform, LoadedCalibrator, load_calibrator, refuse_misfit
from segcal_cli.workflows.case_keeping import Made
from segcal_cli.workflows.devices import device_of
from segcal_cli.workflows.folder_runs import FolderRun, running_on
from segcal_cli.workflows.folder_shards import EVERY_CASE, concluded, share_of
from segcal_cli.workflows.inputs import open_inputs, reading_spec
from segcal_cli.workflows.outcome import Outcome
from segcal_cli.workflows.requests import (
    CalibrateApplyOptions,
    CompanionOptions,
    DeviceOptions,
    FolderOptions,
    PredictionOptions,
    RunOptions,
    ShardOptions,
)
from segcal_cli.workflows.run_settings import settings_for
from segcal_cli.workflows.running import refuse_contradictions, require_workers
from segcal_cli.workflows.sharding import parse_shard
from segcal_cli.workflows.tracing import Fitted
from segcal_cli.workflows.voxel_sizes import other_voxels

TEMPERATURE = "temperature"
"""The map of T of a local calibrator."""

MAPS = {**MAP_NAMES, TEMPERATURE: "temperature"}
"""Map -> the name that its file carries."""

DESC = "calibrated"
"""The ``desc`` entity of everything that a calibrator made."""


SHOWN = 5
"""So many cases that the calibrator has seen are named."""


class Float16NeedsNpz(UsageError):
    """NIfTI has no half precision."""

    template = "--dtype float16 needs --format npz: NIfTI has no such type"


class UnknownMap(UsageError):
    """A map that there is none of."""

    template = "--write {0}: it is one or more of {1}"


class MembersNeeded(UsageError):
    """Maps of disagreement where there is nothing to disagree."""

    template = "--write {0} needs several predictions of each case; give --member"


class LocalNeeded(UsageError):
    """A map of temperatures where there is one temperature, or none."""

    template = "--write {0} needs an artifact of --method local"


class DisplayOnly(UsageError):
    """Scaled integers are for NIfTI viewers."""

    template = "--dtype uint16 is for NIfTI only; an .npz holds floats"


@dataclass(frozen=True, slots=True)
class CaseWriter:
    """Calibrates one case: its files, and what was done to it."""

    calibrator: Calibrator
    options: CalibrateApplyOptions
    places: dict[str, Space]
    fitted: Fitted
    disagreeing: Mapping[str, PredictionSource] = field(default_factory=dict)

    def __call__(self, case: Case) -> Made:
        volume = case.volume
        calibrator, given = self.calibrator.pointwise(volume)
        applied = calibrator.apply(given.array, given.values, given.stored, self.options.dtype)
        keep_padding(applied.array, volume, case.space)
        files = case_files(case, applied, self.places[case.id], self.options)
        if self.options.write is not None:
            files = [*self._maps(case), *files]
        result = {
            "proof": case.facts.proof or None,
            "in_calibration": self.fitted.holds(case),
            "decisions_repaired": applied.repaired,
            "regions_projected": applied.projected,
            "left_raw": applied.kept_raw,
        }
        return Made(files, result)

    def _maps(self, case: Case) -> list[File]:
        """Maps of temperatures, and of how the members, read once more and one at a time, disagree."""
        maps: dict[str, np.ndarray] = {}
        names = wanted_maps(self.options.write)
        if TEMPERATURE in names:
            maps[TEMPERATURE] = self.calibrator.temperatures(case.volume)
        if self.disagreeing:
            sums = Disagreement(case.space.exclusive)
            for p in member_probabilities(self.disagreeing[case.id]):
                sums.add(p)
            maps |= sums.maps()
        return [map_file(case.id, MAPS[name], maps[name], self.places[case.id]) for name in names]


def wanted_maps(text: str | None) -> tuple[str, ...]:
    """The maps of a list with commas. Raises UnknownMap."""
    names = () if text is None else tuple(dict.fromkeys(name.strip() for name in text.split(",")))
    for name in names:
        if name not in MAPS:
            raise UnknownMap(name, ", ".join(MAPS))
    return names


def _placed(
    loaded: LoadedCalibrator, before: LoadedCalibrator | None, device: DeviceOptions
) -> tuple[LoadedCalibrator, LoadedCalibrator | None]:
    """Both calibrators on the device. Raises NoCuda, DeviceUnused."""
    both = [loaded, *([] if before is None else [before])]
    heavy = any(one.calibrator.record.on_gpu for one in both)
    where = device_of(device, cpu_only=None if heavy else f"method {loaded.artifact.header.method}")
    return on(loaded, where), None if before is None else on(before, where)


def _companions(
    loaded: LoadedCalibrator,
    before: LoadedCalibrator | None,
    reading: PredictionOptions,
    beside: CompanionOptions,
    applying: CalibrateApplyOptions,
) -> Companions | None:
    """Features and scans that the calibrators look at. Raises NotLookedAt, FeaturesNeeded, ImageNeeded, LocalNeeded."""
    if TEMPERATURE in wanted_maps(applying.write) and loaded.artifact.header.method != local.METHOD.name:
        raise LocalNeeded(applying.write)
    needs = needs_of([loaded, *([] if before is None else [before])])
    if needs["features"] and beside.features is None:
        raise fine_tuning.FeaturesNeeded
    if needs["images"] and beside.images is None:
        raise local.ImageNeeded
    return companions_of(beside, reading, **needs)


def keep_padding(written: np.ndarray, volume: Volume, space: LabelSpace) -> None:
    """Leave what the model never predicted as it was read, in place: no prediction, so nothing to calibrate.

    written: "class z y x" of the written type. Read again, it is found to be padding again.
    """
    if volume.predicted is None or volume.values == "logits":
        return
    top = np.iinfo(written.dtype).max if written.dtype.kind == "u" else 1
    for part in padding.outside(volume.predicted, volume.grid.shape):
        where = (slice(None), *part)
        written[where] = volume.array[where] * top


def run(
    artifact: Path,
    predictions: Path,
    output: Path,
    applying: CalibrateApplyOptions,
    reading: PredictionOptions,
    running: RunOptions,
    writing: FolderOptions,
    observer: Observer,
    beside: CompanionOptions = ALONE,
    device: DeviceOptions = ANYWHERE,
    sharding: ShardOptions = EVERY_CASE,
) -> Outcome:
    """Calibrate every case that can be read, and write it. A case that fails fails alone."""
    shard = parse_shard(sharding.shard)
    require_workers(running)
    refuse_contradictions(running, writing)
    if applying.dtype == "float16" and applying.format != "npz":
        raise Float16NeedsNpz
    if applying.dtype == "uint16" and applying.format == "npz":
        raise DisplayOnly
    refuse_inside(output, [predictions, *map(Path, reading.member), *folders_of(beside)])
    maps = wanted_maps(applying.write)
    loaded = load_calibrator(artifact, "calibrate apply")
    before = None if reading.calibrator is None else load_calibrator(reading.calibrator, "--calibrator")
    loaded, before = _placed(loaded, before, device)
    companions = _companions(loaded, before, reading, beside, applying)
    inputs = open_inputs(predictions, None, reading, None, observer, min_age=writing.min_age, artifact=loaded)
    reading = inputs.reading
    spec = reading_spec(reading, None, None if before is None else before.artifact)
    refuse_misfit(loaded, predictions, inputs.space, inputs.values, spec)
    if before is not None:
        refuse_misfit(before, predictions, inputs.space, inputs.values, reading_spec(reading, None, None))
    _refuse_names(inputs.sources, inputs.space, applying)
    of_members = any(name in MAP_NAMES for name in maps)
    if of_members and any(len(source.prediction.parts) == 1 for source in inputs.sources):
        raise MembersNeeded(applying.write)
    for case, text in other_voxels(loaded.artifact, inputs.sources):
        observer.warn(text, case)
    if loaded.artifact.header.results["split_kind"] == "in-sample":
        observer.warn("the calibrator was fitted on cases that the network was trained on; expect too much confidence")
    if loaded.artifact.header.spec.get("source") == "cross-validation":
        observer.note("the calibrator was fitted on the models of single folds, which are not the deployed ensemble")
    fitted = Fitted.by(
        [loaded.artifact, *([] if before is None else [before.artifact])],
        [(source.id, source.group) for source in inputs.sources],
    )
    folder_files = shared_files(predictions, inputs.space, inputs.sources, applying)
    writer = CaseWriter(
        loaded.calibrator,
        applying,
        {source.id: source.prediction.place for source in inputs.sources},
        fitted,
        {source.id: source.prediction for source in inputs.sources} if of_members else {},
    )
    transform = None if before is None else CalibratorTransform(before.calibrator)
    reader = inputs.reader(with_digest=True, transform=transform, companions=companions)
    settings = settings_for(
        "calibrate apply",
        (artifact, loaded.artifact),
        None if before is None else before.artifact,
        reading,
        inputs.values,
        {**dataclasses.asdict(applying), "device": device.device},
        (applying, beside, device, running, writing),
        writing.origins,
    )
    own = share_of(inputs, shard)
    header = loaded.artifact.header
    tables = CalibrateTables(header.method, header.n_cases, header.n_groups)
    with running_on(RunFiles(output, shard=shard), settings, own, writing, running, observer) as run:
        run.refuse_existing([output / name for source in own.sources for name in output_names(source, applying)])
        refuse_changed(output, folder_files, overwrite=writing.replace)
        run.map(reader, writer, "calibrating", beside=None if companions is None else companions.files)
        for name, text in folder_files.items():
            run.write(name, text)
        outcome = concluded(run, tables, inputs)
    return outcome


@dataclass(frozen=True, slots=True)
class CalibrateTables:
    """What is said of all cases; no file stands for all of them. method, n_cases, n_groups: of the fit."""

    method: str
    n_cases: int
    n_groups: int

    @property
    def names(self) -> tuple[str, ...]:
        return ()

    def conclude(self, run: FolderRun) -> Outcome:
        seen = [record["case"] for record in run.documents if record["in_calibration"]]
        if seen:
            shown = ", ".join(seen[:SHOWN]) + (", ..." if len(seen) > SHOWN else "")
            verb = "was" if len(seen) == 1 else "were"
            run.observer.note(f"{len(seen)} of these cases {verb} used to fit the calibrator: {shown}")
        repaired = sum(int(record["decisions_repaired"]) for record in run.documents)
        line = (
            f"calibrated with {self.method}, fitted on {count_text(self.n_cases, 'case')} of "
            f"{count_text(self.n_groups, 'patient')}. No finite-sample guarantee."
        )
        kept = (f"{repaired} decisions that rounding would have moved were kept",) if repaired else ()
        result = {**run.result, "artifact": run.settings.artifact}
        return Outcome(result, run.counts, (line, *kept), failures=run.failures, exit_code=run.exit_code)


def output_names(source: CaseSource, options: CalibrateApplyOptions) -> list[str]:
    """Names of the files of a case that stand for it."""
    placed = source.prediction.placed
    space = source.prediction.space
    if options.format == "npz":
        names = [f"{source.id}.npz"]
        if placed and _paintable(space):
            names.append(f"{source.id}.nii.gz")
    else:
        names = list(
            soft_names(source.id, "probseg", space, desc=DESC, placed=placed, split_classes=options.split_classes)
        )
    if options.segmentation != "none":
        names.append(label_name(source.id, DESC, placed=placed))
    return [*names, *(map_name(source.id, MAPS[name], placed=placed) for name in wanted_maps(options.write))]


def case_files(case: Case, applied: Applied, place: Space, options: CalibrateApplyOptions) -> list[File]:
    """All files of one calibrated case, the soft volume last."""
    space = case.space
    placed = place.grid.affine is not None
    made: list[File] = []
    if options.segmentation != "none":
        raw = options.segmentation == "keep"
        decided = decisions(case.volume, space) if raw else written_decisions(applied.array, space)
        made.append(label_file(label_name(case.id, DESC, placed=placed), painted(decided, space), place))
    if options.format == "npz":
        if placed and _paintable(space):
            codes = painted(written_decisions(applied.array, space), space)
            made.append(label_file(f"{case.id}.nii.gz", codes, place))
        return [*made, npz_file(f"{case.id}.npz", applied.array)]
    marks: dict[str, object] = {DISPLAY_MARK: "uint16, steps of 1/65535"} if options.dtype == "uint16" else {}
    return made + soft_files(
        case.id, "probseg", applied.array, space, place,
        desc=DESC, split_classes=options.split_classes, marks=marks,
    )  # fmt: skip


def decisions(volume: Volume, space: LabelSpace) -> np.ndarray:
    """bool "class z y x": the hard decision of stored numbers: argmax, or p > 0.5 of independent channels."""
    if space.exclusive:
        return _one_hot(volume.array)
    return volume.array > (0.0 if volume.values == "logits" else 0.5)


def written_decisions(array: np.ndarray, space: LabelSpace) -> np.ndarray:
    """bool "class z y x": the hard decision of probabilities as they are written."""
    if space.exclusive:
        return _one_hot(array)
    return array > (np.iinfo(array.dtype).max // 2 if array.dtype.kind == "u" else array.dtype.type(0.5))


def _one_hot(array: np.ndarray) -> np.ndarray:
    winner = array.argmax(axis=0)
    return winner == np.arange(len(array)).reshape(-1, 1, 1, 1)


def _paintable(space: LabelSpace) -> bool:
    return space.exclusive or len(space.channels) == 1 or space.paint is not None


def _refuse_names(sources: Sequence[CaseSource], space: LabelSpace, options: CalibrateApplyOptions) -> None:
    """Raise early what would only show when a file is written: names that collide, regions without a paint order."""
    entity_values(space.names)
    refuse_same_names([source.id for source in sources], "probseg", desc=DESC)
    if options.segmentation != "none":
        paint_values(space)


def shared_files(
    predictions: Path, space: LabelSpace, sources: Sequence[CaseSource], options: CalibrateApplyOptions
) -> dict[str, str]:
    """Name -> text of files that hold for all cases: names of label values, the class table of an nnU-Net folder."""
    made = {}
    if options.segmentation != "none" and any(source.prediction.placed for source in sources):
        made[DSEG_TABLE] = dseg_table(space)
    dataset = find_model_files(expand_folders(predictions)[0]).dataset
    if options.format == "npz" and dataset is not None:
        made[dataset.name] = read_text_bytes(dataset).decode("utf-8-sig")
    return made
