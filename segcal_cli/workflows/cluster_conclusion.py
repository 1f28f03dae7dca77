"""The end of ``cluster fit``: from the pools of both passes to the artifact and what it promises."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np

from segcal_cli.core.artifact import Artifact, Header
from segcal_cli.core.case import CaseFacts
from segcal_cli.core.frozen import dataclass
from segcal_cli.core.labels import LabelSpace
from segcal_cli.core.observer import Observer
from segcal_cli.core.volume import Values
from segcal_cli.execution.engine import failure_records
from segcal_cli.execution.work import Result
from segcal_cli.io.artifacts import write_artifact
from segcal_cli.kandinsky.arrays import HOST, Arrays
from segcal_cli.kandinsky.codes import N_CODES
from segcal_cli.kandinsky.model import Model, to_arrays, to_json
from segcal_cli.kandinsky.spec import MapSpec
from segcal_cli.kandinsky.text import UNGROUPED, guarantee, map_lines, smallest_alpha_text, vacuous_lines
from segcal_cli.workflows.calibrators import LoadedCalibrator
from segcal_cli.workflows.cluster_artifacts import KIND, LoadedCluster, loaded_cluster
from segcal_cli.workflows.cluster_options import bytes_of
from segcal_cli.workflows.cluster_roles import refuse_shared
from segcal_cli.workflows.cluster_stages import Calibrated
from segcal_cli.workflows.cluster_tables import model_document, people_table
from segcal_cli.workflows.outcome import Counts, Outcome
from segcal_cli.workflows.requests import ClusterFitOptions
from segcal_cli.workflows.tracing import (
    Traced,
    refuse_copies,
    refuse_hard,
    refuse_seen,
    report_facts,
    without_folders,
)

LARGE_ARTIFACT = 100 * 10**6
"""An artifact of more bytes than this is worth a word."""


@dataclass(frozen=True, slots=True)
class ClusterConclusion:
    """What remains of a fit once all cases have been read. who: id and group of every case. read_as: see
    ``reading_spec``.

    makers, calibrators: ids by role; others: case -> patient of the artifact ``other`` whose map is used; overlap:
    patients on both sides, by permission. before: the calibrator that predictions were read through. grouped: somebody
    told patients apart; roi: some cases have a region. atlas: "file", "folder" or None, and what the artifact keeps of
    it. v1_files: see ``refuse_hard``.
    """

    spec: MapSpec
    space: LabelSpace
    values: Values
    fitting: ClusterFitOptions
    read_as: Mapping[str, object]
    who: tuple[tuple[str, str], ...]
    before: LoadedCalibrator | None
    other: LoadedCluster | None
    makers: frozenset[str]
    calibrators: frozenset[str]
    overlap: bool
    others: Mapping[str, str]
    grouped: bool
    roi: bool
    dimension: int
    unit: str
    atlas: str | None
    atlas_arrays: Mapping[str, np.ndarray]
    v1_files: Mapping[str, Path]
    arrays: Arrays = HOST

    def conclude(self, traced: Traced, failures: Sequence[Result], output: Path, observer: Observer) -> Outcome:
        """Write the artifact.

        Raises OnlyHardMasks, RoundedSoftmax, SamePrediction, SharedPatients, SeenCases, WriteError.
        """
        facts, before = traced.facts, self.before
        found: Calibrated = traced.result
        for note in found.notes:
            observer.warn(note)
        report_facts(facts, observer)
        refuse_hard(facts, self.v1_files)
        refuse_copies(facts)
        digests = {case: fact.digest for case, fact in facts.items()}
        overlap = self.overlap or self._copies_of_makers(digests)
        overlaps = before is not None and refuse_seen(
            before.artifact, before.path, self.who, digests, allow=self.fitting.allow_overlap
        )
        model = Model(
            self.space,
            found.regions,
            found.pools,
            found.image_pools,
            self.spec.weighting,
            dict(found.described),
            self.arrays,
        )
        artifact = self._artifact(model, digests, failures, overlaps, facts, overlap)
        digest = write_artifact(output, artifact)
        loaded = loaded_cluster(output, artifact)
        alpha = self.fitting.alpha
        _warn(loaded, alpha, output.stat().st_size, observer)
        if not self.grouped:
            observer.note(UNGROUPED)
        done = len(facts)
        return Outcome(
            result={
                "artifact": {"file": output.name, "sha256": digest},
                **model_document(loaded, (alpha,)),
                "guarantee": artifact.header.guarantee,
            },
            counts=Counts(done + len(failures), done, len(failures)),
            lines=(*map_lines(model), smallest_alpha_text(model), artifact.header.guarantee),
            tables=people_table(model, alpha),
            failures=tuple(failure_records(failures)),
        )

    def _copies_of_makers(self, digests: Mapping[str, str]) -> bool:
        """Whether scans that made another artifact's map calibrate on it under other names. Raises SharedPatients."""
        if self.other is None:
            return False
        before = self.other.artifact.header.case_digests
        made = {before[case] for case in self.others if before.get(case)}
        return refuse_shared({case for case, digest in digests.items() if digest in made}, self.fitting)

    def _artifact(
        self,
        model: Model,
        digests: Mapping[str, str],
        failures: Sequence[Result],
        overlaps: bool,
        facts: Mapping[str, CaseFacts],
        overlap: bool,
    ) -> Artifact:
        spec, fitting, other = self.spec, self.fitting, self.other
        everybody = dict(self.who)
        groups = {case: group for case, group in self.who if case in facts}
        before = {} if other is None else other.artifact.header.case_digests
        cases = {**self.others, **groups}
        ids = tuple(sorted(cases, key=str.encode))
        all_digests = {**{case: before.get(case, "") for case in self.others}, **digests}
        calibrated = sorted((case for case in self.calibrators if case in facts), key=str.encode)
        map_cases = {**self.others, **{case: everybody[case] for case in sorted(self.makers)}}
        results = {
            "model": to_json(model),
            "map_cases": {case: group for case, group in sorted(map_cases.items()) if case in cases},
            "calibration_cases": calibrated,
            "n_map_groups": len(set(map_cases.values())),
            "n_calibration_groups": len({groups[case] for case in calibrated}),
            "reuse": bool(fitting.reuse and spec.learns),
            "overlap": overlap,
            "grouped": self.grouped,
            "dimension": self.dimension,
            "unit": self.unit,
            "atlas": self.atlas,
        }
        header = Header(
            kind=KIND,
            method=spec.method,
            space=self.space,
            values=self.values,
            spec={
                **spec.to_json(),
                "alpha": fitting.alpha,
                "split": fitting.split if fitting.split is None else Path(fitting.split).name,
                "memory": bytes_of(fitting.memory),
                "map": None if other is None else other.artifact.digest,
                **self.read_as,
                "roi": self.roi,
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
        arrays = {**to_arrays(model), **self.atlas_arrays}
        loaded = LoadedCluster(Path(), Artifact(header, arrays), model)
        promise = guarantee(model, fitting.alpha, loaded.circumstances)
        return Artifact(replace(header, guarantee=promise), arrays)


def _input_digest(ids: Sequence[str], groups: Mapping[str, str], digests: Mapping[str, str]) -> str:
    """sha256 over ids, patients and digests of all cases."""
    lines = [f"{case}\t{groups[case]}\t{digests[case]}\n" for case in ids]
    return hashlib.sha256("".join(lines).encode()).hexdigest()


def _like_labels(model: Model) -> bool:
    """Whether two classes or more each lie in one region, and no two in the same."""
    voxels = model.pools.n_voxels
    regions = [np.flatnonzero(voxels[model.slots(channel)]).tolist() for channel in range(len(model.space.names))]
    found = [own for own in regions if own]
    return len(found) > 1 and all(len(own) == 1 for own in found) and len({own[0] for own in found}) == len(found)


def _warn(loaded: LoadedCluster, alpha: float, size: int, observer: Observer) -> None:
    model = loaded.model
    absent = [name for name, n in zip(model.space.names, model.image_pools.n_voxels, strict=True) if not n]
    for name in absent:
        observer.warn(f"class {name} occurs in no calibration label: it will stand in every set")
    if model.regions.method == "atlas" and _like_labels(model):
        observer.warn(
            "--atlas: every class lies in one region of its own, as if the atlas were the labels; sets hold for a new "
            "scan only if its atlas is made the same way, without the truth"
        )
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
