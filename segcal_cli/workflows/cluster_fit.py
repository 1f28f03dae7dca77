"""``cluster fit``: some patients make a map of places that behave alike, the others calibrate on it."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from segcal_cli.core.errors import FitError
from segcal_cli.core.labels import LabelSpace
from segcal_cli.core.observer import Observer
from segcal_cli.io.case_files import same_predictions
from segcal_cli.io.geometry import check_distances
from segcal_cli.io.outputs import refuse_existing, refuse_inside, require_file_place
from segcal_cli.io.problems import raise_all
from segcal_cli.kandinsky.arrays import Arrays, arrays_on
from segcal_cli.kandinsky.frames import Frame
from segcal_cli.kandinsky.learning import Learner
from segcal_cli.kandinsky.passes import MapPass
from segcal_cli.kandinsky.places import MAX_CELLS, Placing, ShapesDiffer, choose_placing
from segcal_cli.kandinsky.spec import BadOption, MapSpec
from segcal_cli.workflows.calibrators import CalibratorTransform, load_calibrator, refuse_misfit
from segcal_cli.workflows.cluster_artifacts import (
    BY_LENGTH,
    LoadedCluster,
    frames_of,
    load_cluster,
    place_of,
    refuse_other_scans,
)
from segcal_cli.workflows.cluster_atlas import AtlasReader, open_atlases
from segcal_cli.workflows.cluster_conclusion import ClusterConclusion
from segcal_cli.workflows.cluster_options import bytes_of, map_spec
from segcal_cli.workflows.cluster_roles import Roles, roles_of
from segcal_cli.workflows.cluster_stages import Calibrating, Calibration, MapMaking
from segcal_cli.workflows.devices import device_of
from segcal_cli.workflows.inputs import Inputs, open_inputs, reading_spec
from segcal_cli.workflows.outcome import Outcome
from segcal_cli.workflows.regions_of_interest import has_region
from segcal_cli.workflows.requests import (
    ClusterFitOptions,
    DeviceOptions,
    LabelOptions,
    OutputOptions,
    PredictionOptions,
    RoundOptions,
    RunOptions,
)
from segcal_cli.workflows.running import plan_of
from segcal_cli.workflows.sharding import WHOLE, Job, carried_out, parse_shard
from segcal_cli.workflows.tracing import (
    WithFacts,
    hint_at_groups,
    names_alone,
    refuse_seen,
)

MOST_PIXELS = 10**6
"""``pixel`` keeps scores for every voxel of at most this many."""

PLACED = frozenset({"kmeans", "annuli", "star", "pixel"})
"""Methods whose map lies in a field of cells."""


class OneGrid(FitError):
    """Pixelwise thresholds of scans that differ."""

    template = "pixel needs one common grid; there are {0}"


class TooManyPixels(FitError):
    """Pixelwise thresholds of a volume."""

    template = "pixel keeps scores for every voxel, and {0} voxels are more than {1}; give --block"


class NotAMap(FitError):
    """A map that needs no patients."""

    template = "--map {0}: its method {1} has no learned map; give --method {1} with its options"


def run(
    predictions: Path,
    labels: Path,
    output: Path,
    fitting: ClusterFitOptions,
    reading: PredictionOptions,
    truth: LabelOptions,
    running: RunOptions,
    device: DeviceOptions,
    writing: OutputOptions,
    observer: Observer,
    sharding: RoundOptions = WHOLE,
) -> Outcome:
    """Fit and write the artifact. Raises what reading and fitting raise; then nothing is written."""
    shard = parse_shard(sharding.shard)
    plan = plan_of(running)
    refuse_inside(output, (predictions, labels))
    refuse_existing([output], overwrite=writing.overwrite)
    require_file_place(output)
    spec, memory = map_spec(fitting), bytes_of(fitting.memory)
    # Parts hold numpy, and are merged wherever; so no shard counts on a GPU.
    arrays = arrays_on(device_of(device, cpu_only=None if shard is None else "a shard"))
    before = None if reading.calibrator is None else load_calibrator(reading.calibrator, "--calibrator")
    other = None if fitting.map is None else load_cluster(fitting.map, "--map")
    inputs = open_inputs(predictions, labels, reading, truth, observer)
    spec.check(inputs.space)
    if plan.on_failure == "stop":
        inputs.require_all()
    raise_all(same_predictions(inputs.files))
    reading = inputs.reading
    who = tuple((source.id, source.group) for source in inputs.sources)
    if before is not None:
        refuse_misfit(before, predictions, inputs.space, inputs.values, reading_spec(reading, None, None))
        refuse_seen(before.artifact, before.path, who, {}, allow=fitting.allow_overlap)
    read_as = reading_spec(reading, truth, None if before is None else before.artifact)
    if other is not None:
        refuse_misfit(other, predictions, inputs.space, inputs.values, read_as)
        spec = _spec_of(other, spec)
        hint_at_groups(other.artifact, other.path, who, reading.groups, observer)
    roles = roles_of(inputs.sources, spec, fitting, other)
    frames = frames_of(inputs.sources)
    placing = _placing(spec, frames, other, inputs, observer)
    atlases = None if fitting.atlas is None else open_atlases(fitting.atlas, [case for case, _ in who])
    reader: Any = inputs.reader(
        with_digest=True, transform=None if before is None else CalibratorTransform(before.calibrator)
    )
    if atlases is not None:
        reader = AtlasReader(reader, atlases)

    unit = "mm" if inputs.sources and place_of(inputs.sources[0]).grid.affine is not None else "voxels"
    calibration = Calibration(
        spec=spec,
        space=inputs.space,
        placing=placing,
        atlas=() if atlases is None else atlases.values(),
        unit=unit,
        cases=frozenset(source.id for source in roles.calibrators),
        sizes=dict(Counter(source.group for source in roles.calibrators)),
        memory=memory,
        arrays=arrays,
    )
    job = Job(
        "cluster fit",
        WithFacts(_first_pass(calibration, roles, frames, other)),
        reader,
        inputs.sources,
        inputs.failures,
        inputs,
        ClusterConclusion(
            spec=spec,
            space=inputs.space,
            values=inputs.values,
            fitting=names_alone(fitting),
            read_as=read_as,
            who=who,
            before=before,
            other=other,
            makers=frozenset(source.id for source in roles.makers),
            calibrators=calibration.cases,
            overlap=roles.overlap,
            others=roles.others,
            roi=has_region(inputs.sources),
            grouped=reading.groups is not None or any(case != group for case, group in who),
            dimension=frames[0].dimension,
            unit="mm" if frames[0].has_mm else "voxels",
            atlas=None if atlases is None else "file" if atlases.shared is not None else "folder",
            atlas_arrays={} if atlases is None else atlases.arrays(),
            v1_files=inputs.v1_files,
            arrays=arrays,
        ),
        "fitting",
    )
    return carried_out(job, plan, sharding, output, observer)


def _first_pass(
    calibration: Calibration, roles: Roles, frames: Sequence[Frame], other: LoadedCluster | None
) -> MapMaking | Calibrating:
    """The pass that makes the map; or the one that calibrates, on another fit's map or where nothing is learned."""
    if other is not None:
        return calibration.on(other.model.regions, dict(other.model.described), ())
    if not roles.makers:
        return calibration.after({})
    spec, space, arrays = calibration.spec, calibration.space, calibration.arrays
    learner = _learner(spec, space, calibration.placing, frames, arrays)
    keep = spec.k == 0 or (spec.method == "star" and spec.roughness in (None, -1))
    making = MapPass(space, learner.channels, learner.kind, learner.placing, learner.width, keep, arrays)
    return MapMaking(making, frozenset(source.id for source in roles.makers), learner, calibration)


def _spec_of(other: LoadedCluster, spec: MapSpec) -> MapSpec:
    """The spec of the map that is used, with this fit's weighting and seed. Raises NotAMap."""
    header = other.artifact.header
    if not header.results["map_cases"]:
        raise NotAMap(other.path, header.method)
    return replace(spec, method=header.method)  # type: ignore[arg-type]


def _placing(
    spec: MapSpec,
    frames: Sequence[Frame],
    other: LoadedCluster | None,
    inputs: Inputs,
    observer: Observer,
) -> Placing | None:
    """The field of a map by place. Raises ShapesDiffer, OneGrid, TooManyPixels, and what refuse_other_scans raises."""
    if other is not None:
        refuse_other_scans(other, inputs.sources)
        return other.model.regions.placing
    if spec.method == "boundary" or spec.coords in BY_LENGTH:
        for source in inputs.sources:
            check_distances(place_of(source))
    # Every fit is of one dimension, whatever its method.
    has_roi = has_region(inputs.sources)
    if spec.method not in PLACED:
        choose_placing(frames, None, None, has_roi=has_roi)
        return None
    if spec.method == "pixel":
        try:
            placing, _ = choose_placing(frames, "index", spec.block or 1, has_roi=has_roi)
        except ShapesDiffer as error:
            raise OneGrid(*error.args) from None
        if spec.block is None and placing.n_cells > MOST_PIXELS:
            raise TooManyPixels(placing.n_cells, MOST_PIXELS)
        return placing
    placing, note = choose_placing(frames, spec.coords, spec.block, has_roi=has_roi)
    if note:
        observer.note(note)
    if placing.n_cells > MAX_CELLS:
        raise BadOption("block", spec.block, f"the map would have {placing.n_cells} cells; {MAX_CELLS} are allowed")
    return placing


def _learner(
    spec: MapSpec, space: LabelSpace, placing: Placing | None, frames: Sequence[Frame], arrays: Arrays
) -> Learner:
    edges = [edge for frame in frames for edge, n in zip(frame.spacing, frame.shape, strict=True) if n > 1]
    width = min(edges, default=1.0) / 2
    return Learner(spec, spec.learned_channels(space), space.names, placing, width, arrays)
