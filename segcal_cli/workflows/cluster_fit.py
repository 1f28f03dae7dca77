"""``cluster fit``: some patients make a map of places that behave alike, the others calibrate on it."""

from __future__ import annotations

import hashlib
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np

from segcal_cli.core.artifact import Artifact, Header
from segcal_cli.core.case import CaseFacts
from segcal_cli.core.errors import FitError
from segcal_cli.core.observer import Observer
from segcal_cli.execution.engine import Plan, failure_records, run_estimator
from segcal_cli.execution.work import Result
from segcal_cli.io.artifacts import write_artifact
from segcal_cli.io.case_files import same_predictions
from segcal_cli.io.geometry import check_distances
from segcal_cli.io.outputs import refuse_existing, refuse_inside, require_file_place
from segcal_cli.io.problems import raise_all
from segcal_cli.kandinsky.arrays import Arrays, arrays_on
from segcal_cli.kandinsky.codes import N_CODES
from segcal_cli.kandinsky.frames import Frame
from segcal_cli.kandinsky.learning import ClassMap, Learner
from segcal_cli.kandinsky.model import Model, regions_of, to_arrays, to_json
from segcal_cli.kandinsky.passes import CalibrationPass, MapHistograms, MapPass
from segcal_cli.kandinsky.places import MAX_CELLS, Placing, ShapesDiffer, choose_placing
from segcal_cli.kandinsky.regions import Regions
from segcal_cli.kandinsky.spec import BadOption, MapSpec
from segcal_cli.kandinsky.text import (
    UNGROUPED,
    guarantee,
    map_lines,
    smallest_alpha_text,
    vacuous_lines,
)
from segcal_cli.workflows.calibrators import CalibratorTransform, load_calibrator, refuse_misfit
from segcal_cli.workflows.cluster_artifacts import (
    BY_LENGTH,
    KIND,
    LoadedCluster,
    frames_of,
    load_cluster,
    loaded_cluster,
    place_of,
    refuse_other_scans,
)
from segcal_cli.workflows.cluster_atlas import Atlases, AtlasReader, open_atlases
from segcal_cli.workflows.cluster_options import bytes_of, map_spec
from segcal_cli.workflows.cluster_roles import Roles, roles_of
from segcal_cli.workflows.cluster_tables import model_document, people_table
from segcal_cli.workflows.devices import device_of
from segcal_cli.workflows.inputs import Inputs, open_inputs, reading_spec
from segcal_cli.workflows.outcome import Counts, Outcome
from segcal_cli.workflows.requests import (
    ClusterFitOptions,
    DeviceOptions,
    LabelOptions,
    OutputOptions,
    PredictionOptions,
    RunOptions,
)
from segcal_cli.workflows.running import jobs_of
from segcal_cli.workflows.tracing import (
    WithFacts,
    refuse_copies,
    refuse_hard,
    refuse_seen,
    report_facts,
    without_folders,
)

LARGE_ARTIFACT = 100 * 10**6
"""An artifact of more bytes than this is worth a word."""

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
) -> Outcome:
    """Fit and write the artifact. Raises what reading and fitting raise; then nothing is written."""
    refuse_inside(output, (predictions, labels))
    refuse_existing([output], overwrite=writing.overwrite)
    require_file_place(output)
    spec, memory = map_spec(fitting), bytes_of(fitting.memory)
    arrays = arrays_on(device_of(device))
    before = None if reading.calibrator is None else load_calibrator(reading.calibrator, "--calibrator")
    other = None if fitting.map is None else load_cluster(fitting.map, "--map")
    inputs = open_inputs(predictions, labels, reading, truth, observer)
    spec.check(inputs.space)
    plan = Plan(jobs_of(running), running.on_failure or "stop")
    if plan.on_failure == "stop":
        inputs.require_all()
    raise_all(same_predictions(inputs.files))
    reading = inputs.reading
    who = [(source.id, source.group) for source in inputs.sources]
    if before is not None:
        refuse_misfit(before, predictions, inputs.space, inputs.values, reading_spec(reading, None, None))
        refuse_seen(before.artifact, before.path, who, {}, allow=fitting.allow_overlap)
    read_as = reading_spec(reading, truth, None if before is None else before.artifact)
    if other is not None:
        refuse_misfit(other, predictions, inputs.space, inputs.values, read_as)
        spec = _spec_of(other, spec)
    roles = roles_of(inputs.sources, spec, fitting, other)
    frames = frames_of(inputs.sources)
    placing = _placing(spec, frames, other, truth, inputs, observer)
    atlases = None if fitting.atlas is None else open_atlases(fitting.atlas, [case for case, _ in who])
    reader: Any = inputs.reader(
        with_digest=True, transform=None if before is None else CalibratorTransform(before.calibrator)
    )
    if atlases is not None:
        reader = AtlasReader(reader, atlases)

    facts: dict[str, CaseFacts] = {}
    failures: list[Result] = list(inputs.failures)
    maps: dict[int, ClassMap] = {}
    if roles.makers:
        learner = _learner(spec, inputs, placing, frames, arrays)
        keep = spec.k == 0 or (spec.method == "star" and spec.roughness in (None, -1))
        estimator = MapPass(inputs.space, learner.channels, learner.kind, learner.placing, learner.width, keep, arrays)
        traced, failed = run_estimator(WithFacts(estimator), reader, roles.makers, plan, observer, "making the map")
        facts |= traced.facts
        failures += failed
        histograms: MapHistograms = traced.result
        maps = learner.learn(histograms)
        for note in dict.fromkeys(note for found in maps.values() for note in found.notes):
            observer.warn(note)
    regions, described = _regions(spec, inputs, placing, maps, atlases, other)
    sizes = Counter(source.group for source in roles.calibrators)
    estimator2 = CalibrationPass(inputs.space, regions, dict(sizes), memory, arrays)
    traced, failed = run_estimator(WithFacts(estimator2), reader, roles.calibrators, plan, observer, "calibrating")
    known = {failure.id for failure in failures}
    failures += [failure for failure in failed if failure.id not in known]
    facts |= traced.facts
    report_facts(facts, observer)
    refuse_hard(facts, inputs.v1_files)
    refuse_copies(facts)
    digests = {case: fact.digest for case, fact in facts.items()}
    overlaps = before is not None and refuse_seen(
        before.artifact, before.path, who, digests, allow=fitting.allow_overlap
    )
    pools, image_pools = traced.result
    model = Model(inputs.space, regions, pools, image_pools, spec.weighting, described, arrays)
    artifact = _artifact(
        model, spec, fitting, reading, roles, frames, inputs, digests, failures, read_as, overlaps, other,
        {} if atlases is None else atlases.arrays(), atlases, facts,
    )  # fmt: skip
    digest = write_artifact(output, artifact)
    loaded = loaded_cluster(output, artifact)
    _warn(loaded, fitting.alpha, output.stat().st_size, observer)
    if reading.groups is None and reading.cases is None:
        observer.note(UNGROUPED)
    done = len(facts)
    return Outcome(
        result={
            "artifact": {"file": output.name, "sha256": digest},
            **model_document(loaded, (fitting.alpha,)),
            "guarantee": artifact.header.guarantee,
        },
        counts=Counts(done + len(failures), done, len(failures)),
        lines=(*map_lines(model), smallest_alpha_text(model), artifact.header.guarantee),
        tables=people_table(model, fitting.alpha),
        failures=tuple(failure_records(failures)),
    )


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
    truth: LabelOptions,
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
    has_roi = truth.roi is not None or any(s.truth is not None and s.truth.roi is not None for s in inputs.sources)
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
    spec: MapSpec, inputs: Inputs, placing: Placing | None, frames: Sequence[Frame], arrays: Arrays
) -> Learner:
    edges = [edge for frame in frames for edge, n in zip(frame.spacing, frame.shape, strict=True) if n > 1]
    width = min(edges, default=1.0) / 2
    return Learner(spec, spec.learned_channels(inputs.space), inputs.space.names, placing, width, arrays)


def _regions(
    spec: MapSpec,
    inputs: Inputs,
    placing: Placing | None,
    maps: Mapping[int, ClassMap],
    atlases: Atlases | None,
    other: LoadedCluster | None,
) -> tuple[Regions, dict[int, Mapping[str, Any]]]:
    if other is not None:
        return other.model.regions, dict(other.model.described)
    values = () if atlases is None else atlases.values()
    unit = "mm" if inputs.sources and place_of(inputs.sources[0]).grid.affine is not None else "voxels"
    described: dict[int, Mapping[str, Any]] = {
        channel: {**found.described, "unit": unit, "k": found.k} for channel, found in maps.items() if found.described
    }
    return regions_of(spec, inputs.space, placing, maps, values), described


def _artifact(
    model: Model,
    spec: MapSpec,
    fitting: ClusterFitOptions,
    reading: PredictionOptions,
    roles: Roles,
    frames: Sequence[Frame],
    inputs: Inputs,
    digests: dict[str, str],
    failures: Sequence[Result],
    read_as: dict[str, object],
    overlaps: bool,
    other: LoadedCluster | None,
    extra: dict[str, np.ndarray],
    atlases: Atlases | None,
    facts: Mapping[str, CaseFacts],
) -> Artifact:
    groups = {source.id: source.group for source in inputs.sources if source.id in facts}
    before = {} if other is None else other.artifact.header.case_digests
    cases = {**roles.others, **groups}
    ids = tuple(sorted(cases, key=str.encode))
    all_digests = {**{case: before.get(case, "") for case in roles.others}, **digests}
    calibrated = sorted((source.id for source in roles.calibrators if source.id in facts), key=str.encode)
    results = {
        "model": to_json(model),
        "map_cases": {case: group for case, group in sorted(roles.map_cases.items()) if case in cases},
        "calibration_cases": calibrated,
        "n_map_groups": len(set(roles.map_cases.values())),
        "n_calibration_groups": len({groups[case] for case in calibrated}),
        "reuse": bool(fitting.reuse and spec.learns),
        "overlap": roles.overlap,
        "grouped": reading.groups is not None or reading.cases is not None,
        "dimension": frames[0].dimension,
        "unit": "mm" if frames[0].has_mm else "voxels",
        "atlas": None if atlases is None else "file" if atlases.shared is not None else "folder",
    }
    header = Header(
        kind=KIND,
        method=spec.method,
        space=inputs.space,
        values=inputs.values,
        spec={
            **spec.to_json(),
            "alpha": fitting.alpha,
            "split": fitting.split if fitting.split is None else Path(fitting.split).name,
            "memory": bytes_of(fitting.memory),
            "map": None if other is None else other.artifact.digest,
            **read_as,
            "overlap_allowed": overlaps,
        },
        case_ids=ids,
        group_ids=tuple(cases[case] for case in ids),
        case_digests={case: all_digests[case] for case in ids},
        fit_input_digest=_input_digest(ids, cases, all_digests),
        guarantee="",
        seed=spec.seed,
        dropped=tuple({"case": failure.id, "error": without_folders(failure.error)} for failure in failures),
        results=results,
    )
    arrays = {**to_arrays(model), **extra}
    loaded = LoadedCluster(Path(), Artifact(header, arrays), model)
    promise = guarantee(model, fitting.alpha, loaded.circumstances)
    return Artifact(replace(header, guarantee=promise), arrays)


def _input_digest(ids: Sequence[str], groups: Mapping[str, str], digests: Mapping[str, str]) -> str:
    """sha256 over ids, patients and digests of all cases."""
    lines = [f"{case}\t{groups[case]}\t{digests[case]}\n" for case in ids]
    return hashlib.sha256("".join(lines).encode()).hexdigest()


def _warn(loaded: LoadedCluster, alpha: float, size: int, observer: Observer) -> None:
    model = loaded.model
    absent = [name for name, n in zip(model.space.names, model.image_pools.n_voxels, strict=True) if not n]
    for name in absent:
        observer.warn(f"class {name} occurs in no calibration label: it will stand in every set")
    for line in vacuous_lines(model, alpha):
        if line.split(":")[0] not in absent:
            observer.warn(line)
    extremes = model.image_pools.codes_share(0) + model.image_pools.codes_share((N_CODES - 1) >> model.shift)
    for name, share in zip(model.space.names, extremes, strict=True):
        if share > alpha:
            observer.warn(
                f"class {name}: {100 * share:.1f} % of its scores are the extreme ones (p = 0 or 1 as stored), which "
                "cannot be told apart; save logits"
            )
    if model.shift:
        observer.note(f"--memory: scores were made coarser by {model.shift} bits; thresholds stay valid")
    if size > LARGE_ARTIFACT:
        observer.warn(f"the artifact is {size / 1e6:.0f} MB; --block makes it smaller")
