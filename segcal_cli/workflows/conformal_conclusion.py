"""The end of ``conformal-sets fit``: from the rows of all cases to the artifact and what it promises."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np

from segcal_cli.confidence.cautions import cautions, refuse_absent, same_pairs
from segcal_cli.confidence.learning import Learned
from segcal_cli.confidence.spec import SetSpec
from segcal_cli.confidence.store import KIND, arrays_of, choices_json
from segcal_cli.confidence.table import CaseRow, Rows, table_of
from segcal_cli.confidence.text import guarantee
from segcal_cli.confidence.thresholds import Calibration
from segcal_cli.core.artifact import Artifact, Header
from segcal_cli.core.errors import OverlapError, count_text
from segcal_cli.core.frozen import dataclass
from segcal_cli.core.labels import LabelSpace
from segcal_cli.core.observer import Observer
from segcal_cli.core.volume import Values
from segcal_cli.execution.engine import failure_records
from segcal_cli.execution.work import Result
from segcal_cli.io.artifacts import write_artifact
from segcal_cli.workflows.calibrators import LoadedCalibrator
from segcal_cli.workflows.conformal_text import sets_document, threshold_lines
from segcal_cli.workflows.outcome import Counts, Outcome
from segcal_cli.workflows.requests import ConformalFitOptions
from segcal_cli.workflows.strata import StrataRule, assigned
from segcal_cli.workflows.tracing import (
    Traced,
    after_dropping,
    refuse_hard,
    refuse_seen,
    report_facts,
    without_folders,
)


class LearnedToo(OverlapError):
    """A case that both chose the scores and calibrates."""

    template = "{0} and the learning case {1} hold the same prediction; a case that chose the scores cannot calibrate"


@dataclass(frozen=True, slots=True)
class SetConclusion:
    """What remains of a fit once all cases have been read. strata: of ``--mondrian``. read_as: see ``reading_spec``.

    roi: some cases have a region. ignored: some voxels may be ignored. who: id and group of every case. before: the
    calibrator that predictions were read through. learned: what other cases chose, from ``learned_from``.
    """

    spec: SetSpec
    space: LabelSpace
    values: Values
    fitting: ConformalFitOptions
    strata: StrataRule | None
    read_as: Mapping[str, object]
    roi: bool
    ignored: bool
    who: tuple[tuple[str, str], ...]
    before: LoadedCalibrator | None
    learned: Learned | None
    learned_from: str
    learned_digests: Mapping[str, str]

    def conclude(self, traced: Traced, failures: Sequence[Result], output: Path, observer: Observer) -> Outcome:
        """Write the artifact. Raises OnlyHardMasks, LearnedToo, SeenCases, WriteError, and what the table refuses."""
        spec, before = self.spec, self.before
        report_facts(traced.facts, observer)
        if not self.fitting.labels_only:
            refuse_hard(traced.facts)
        rows: Rows = traced.result
        digests = {case: fact.digest for case, fact in traced.facts.items()}
        if self.fitting.labels_only:
            digests = without_empty(digests, {id: row.predicted_voxels for id, row in rows.rows.items()})
        _refuse_learned(digests, self.learned_digests)
        overlaps = before is not None and refuse_seen(
            before.artifact, before.path, self.who, digests, allow=self.fitting.allow_overlap
        )
        table = table_of(rows.rows)
        if self.strata is not None:
            names, strata = assigned(self.strata, table.ids, table.predicted_voxels, table.voxel_volume)
            spec, table = replace(spec, strata=names), replace(table, stratum=strata)
        calibration = Calibration(spec, table)
        refuse_absent(calibration)

        pairs = same_pairs(rows.rows, digests)
        warnings = cautions(
            calibration,
            spec.alpha,
            channels=len(self.space.channels),
            precise=before is None and self.values == "logits",
        )
        if pairs:
            shown = "; ".join(f"{a} and {b}" for a, b in pairs[:5]) + ("; ..." if len(pairs) > 5 else "")
            many = count_text(len(pairs), "pair of cases holds", "pairs of cases hold")
            warnings.append(f"{many} the same prediction and label ({shown}): copies are not exchangeable")
        for warning in warnings:
            observer.warn(warning)
        promise = guarantee(calibration, spec.alpha, roi=self.roi, ignored=self.ignored, overlapped=overlaps)
        learned = self.learned
        header = Header(
            kind=KIND,
            method=spec.joint,
            space=self.space,
            values=self.values,
            spec={
                **spec.to_json(self.space),
                **self.read_as,
                "roi": self.roi,
                "overlap_allowed": overlaps,
            },
            case_ids=table.ids,
            group_ids=table.groups,
            case_digests={**self.learned_digests, **digests},
            fit_input_digest=_input_digest(rows.rows, digests),
            guarantee=promise + after_dropping(failures, table.n),
            seed=self.fitting.seed,
            dropped=tuple({"case": failure.id, "error": without_folders(failure.error)} for failure in failures),
            results={
                "warnings": warnings,
                "duplicate_pairs": len(pairs),
                "ignored_voxels": self.ignored,
                "learning": None if learned is None else {
                    "from": self.learned_from,
                    "n_cases": len(learned.cases),
                    "choices": choices_json(learned),
                },
            },
        )  # fmt: skip
        digest = write_artifact(output, Artifact(header, arrays_of(calibration, rows.curve, learned)))
        lines = [*threshold_lines(calibration, spec.alpha), header.guarantee]
        return Outcome(
            result={
                **sets_document(calibration, self.space, (spec.alpha,)),
                "artifact": {"file": output.name, "sha256": digest},
                "guarantee": header.guarantee,
            },
            counts=Counts(table.n + len(failures), table.n, len(failures)),
            lines=tuple(lines),
            failures=tuple(failure_records(failures)),
        )


def without_empty(digests: Mapping[str, str], voxels: Mapping[str, np.ndarray]) -> dict[str, str]:
    """Digests of label maps, "" for empty ones: two of these are not one scan. voxels: predicted, by target."""
    return {case: digest if voxels[case].any() else "" for case, digest in digests.items()}


def _refuse_learned(digests: Mapping[str, str], learned: Mapping[str, str]) -> None:
    owner = {digest: case for case, digest in learned.items() if digest}
    for case, digest in digests.items():
        if digest in owner:
            raise LearnedToo(case, owner[digest])


def _input_digest(rows: Mapping[str, CaseRow], digests: Mapping[str, str]) -> str:
    """sha256 over ids, patients and contents of all cases."""
    lines = [
        f"{id}\t{rows[id].group}\t{digests.get(id, '')}\t{rows[id].label_digest}\n"
        for id in sorted(rows, key=str.encode)
    ]
    return hashlib.sha256("".join(lines).encode()).hexdigest()
