"""``evaluate``: predictions against labels, raw, through each artifact and beside other models, on the same voxels."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import field, fields
from functools import partial
from pathlib import Path
from typing import Any

from segcal_cli.core.annotations import OtherType
from segcal_cli.core.errors import UsageError
from segcal_cli.core.frozen import dataclass
from segcal_cli.core.observer import Observer, Recorder
from segcal_cli.execution.work import Result
from segcal_cli.io.atomic import write_text
from segcal_cli.io.outputs import refuse_existing, refuse_inside, refuse_twice, require_file_place
from segcal_cli.reporting.tables import csv_text
from segcal_cli.workflows.beside import folders_of
from segcal_cli.workflows.conventions import settings_of
from segcal_cli.workflows.idle_options import refuse_idle_bins, refuse_idle_sources
from segcal_cli.workflows.joint_cases import parse_folder
from segcal_cli.workflows.judged import ASKED_OF, compare, compared_files, entries, file_ends, refuse_unasked
from segcal_cli.workflows.kinds import Compared, Presented
from segcal_cli.workflows.measure_document import evaluation_json
from segcal_cli.workflows.measure_tables import (
    BIN_COLUMNS,
    COMPARISON_COLUMNS,
    SUMMARY_COLUMNS,
    TABLE_COLUMNS,
    Evaluation,
    bin_rows,
    marked_comparison_rows,
    summary_rows,
    table_rows,
)
from segcal_cli.workflows.measure_text import people_tables
from segcal_cli.workflows.measurement import Measurement
from segcal_cli.workflows.outcome import Counts, Outcome
from segcal_cli.workflows.requests import (
    EvaluateOptions,
    JudgeOptions,
    OutputOptions,
    RoundOptions,
    ShardOptions,
    SourceOptions,
    StudyRequest,
)
from segcal_cli.workflows.saved_studies import measured_or_loaded, save_study
from segcal_cli.workflows.sharding import Job, carried_out, parse_shard
from segcal_cli.workflows.study import MEASURING, SOURCES, Study, StudyRest, named_artifacts, prepare, say
from segcal_cli.workflows.together import Together
from segcal_cli.workflows.tracing import Traced


class NotOfShards(UsageError):
    """An option that has no meaning for a share of the cases."""

    template = "{0} does not go with --shard: {1}"


class NotATable(UsageError):
    """A table under the name of an archive, which nobody could open by it."""

    template = "-o {0} is the table of cases, as CSV; counts to go on from are written by --histograms {0}"


MERGED = {"html": "merge with --histograms, and give these to segcal evaluate --from with --html"}
"""Outputs that no merge writes, and how to have them."""

COMMAND = "evaluate"

PLAIN, NEW, WHOLE = EvaluateOptions(), OutputOptions(), ShardOptions()
"""The table of cases alone, in no other file's place, of one run over all cases."""


def run(
    request: StudyRequest,
    output: Path,
    observer: Observer,
    outputs: EvaluateOptions = PLAIN,
    writing: OutputOptions = NEW,
    sharding: ShardOptions = WHOLE,
) -> Outcome:
    """Measure every source, write the tables. Raises what reading and measuring raise; then nothing is written."""
    predictions, labels, sourcing, judging = request.predictions, request.labels, request.sourcing, request.judging
    if parse_shard(sharding.shard) is not None:
        _refuse_tables(outputs, sourcing)
    targets = [
        path
        for path in (output, outputs.summary, outputs.comparison, outputs.bin_table, outputs.histograms, outputs.html)
        if path is not None
    ]
    refuse_twice(targets)
    if sharding.shard is None:
        require_table_name(output)
    # Saved counts bring their own sources; artifacts beside them are refused later, by what loads them.
    _, promised = named_artifacts(() if sourcing.saved is not None else sourcing.artifact)
    refuse_unasked(judging, ASKED_OF, promised)
    refuse_idle_sources(sourcing, outputs)
    if sourcing.saved is None:
        refuse_idle_bins(request.measuring, settings_of(request.measuring, request.drawing.seed), outputs)
    beside = [path_beside(output, one.name, end) for one in promised for end in file_ends(one)]
    beside += [path_beside(output, kind, end) for kind, end in compared_files(promised)]
    others = [parse_folder(text).path for text in sourcing.also]
    for path in targets:
        # A folder of --also that is not there is refused later, by what reads it.
        refuse_inside(
            path, [predictions, labels, *folders_of(request.along), *(folder for folder in others if folder.exists())]
        )
    refuse_existing([*targets, *beside], overwrite=writing.overwrite)
    for path in targets:
        require_file_place(path)
    if outputs.html is not None:
        # Pictures are only imported where some are asked for.
        from segcal_cli.workflows.reliability import require_pictured

        require_pictured(settings_of(request.measuring, request.drawing.seed))
    if sharding.shard is not None and predictions is not None and labels is not None:
        ready = prepare(request, observer, with_digests=True)
        job = Job(
            COMMAND, ready.estimator, ready.reader, ready.joint, ready.failures, ready.inputs,
            MeasureConclusion(ready.rest, judging), MEASURING,
        )  # fmt: skip
        return carried_out(job, ready.plan, RoundOptions(sharding.shard), output, observer)
    heard = Recorder(observer)
    with_digests = outputs.histograms is not None or outputs.html is not None
    study = measured_or_loaded(request, heard, with_digests=with_digests)
    page = None
    if outputs.html is not None:
        from segcal_cli.workflows.reliability import report_alone

        page = partial(report_alone, study, request, heard)
    return written(study, output, outputs, judging, heard, page)


def require_table_name(output: Path) -> None:
    """Raise NotATable for a name that ends in ``.npz``."""
    if output.suffix.lower() == ".npz":
        raise NotATable(output)


def written(
    study: Study,
    output: Path,
    outputs: EvaluateOptions,
    judging: JudgeOptions,
    observer: Observer,
    page: Callable[[], str] | None = None,
) -> Outcome:
    """Write the tables of a study. page: makes the HTML report. Raises WriteError, and what judging raises."""
    say(study.evaluation, study.values, observer)
    presented = {verdict.judged.name: verdict.present(judging) for verdict in study.verdicts}
    compared = compare(study.verdicts, judging)
    # An artifact may be called as its kind.
    beside: list[tuple[str, Presented | Compared]] = [*presented.items(), *compared.items()]
    html = None if page is None else page()
    for name, one in beside:
        for end, text in one.files.items():
            write_text(path_beside(output, name, end), text)
    _write(study, output, outputs, html)
    done = len(study.evaluation.sources[0].cases)
    failed = len(study.failures)
    return Outcome(
        result={**evaluation_json(study.evaluation), **entries(presented, study.verdicts, compared)},
        counts=Counts(done + failed, done, failed),
        tables=(*people_tables(study.evaluation), *(table for _, one in beside for table in one.tables)),
        failures=study.failures,
    )


@dataclass(frozen=True, slots=True)
class MeasureConclusion:
    """What remains of a sharded run once all cases have been measured. outputs: what merging is asked to write."""

    rest: StudyRest
    judging: JudgeOptions
    outputs: EvaluateOptions = field(default_factory=EvaluateOptions)

    def files(self, output: Path) -> list[Path]:
        """Every file that is written."""
        options = self.outputs
        asked = (output, options.summary, options.comparison, options.bin_table, options.histograms)
        beside = [path_beside(output, one.name, end) for one in self.rest.judged for end in file_ends(one)]
        beside += [path_beside(output, kind, end) for kind, end in compared_files(self.rest.judged)]
        return [*(path for path in asked if path is not None), *beside]

    def require_of(self, estimator: Any) -> None:
        """Raise OtherType unless the sources are those that the estimator measures."""
        together = getattr(estimator, "inner", None)
        measurement = together.estimators.get(SOURCES) if isinstance(together, Together) else None
        if not isinstance(measurement, Measurement):
            raise OtherType("the estimator", "one of sources")
        if (*self.rest.calibrated, *self.rest.others) != (*measurement.calibrators, *measurement.others):
            raise OtherType("the sources of the conclusion", f"{', '.join(measurement.calibrators)}")

    def conclude(self, traced: Traced, failures: Sequence[Result], output: Path, observer: Observer) -> Outcome:
        """Write the tables."""
        study = self.rest.study(traced, failures, observer)
        return written(study, output, self.outputs, self.judging, observer)


def _refuse_tables(outputs: EvaluateOptions, sourcing: SourceOptions) -> None:
    """Raise NotOfShards for options that are not those of a shard."""
    for field_ in fields(outputs):
        if getattr(outputs, field_.name) is not None:
            flag = f"--{field_.name.replace('_', '-')}"
            raise NotOfShards(flag, MERGED.get(field_.name, f"give {flag} to segcal merge, which writes the tables"))
    if sourcing.saved is not None:
        raise NotOfShards("--from", "it reads no cases that could be shared out")


def path_beside(output: Path, name: str, end: str) -> Path:
    """The file ``TABLE.NAME.END`` beside TABLE.csv."""
    return output.with_name(f"{output.name.removesuffix('.csv')}.{name}.{end}")


def _write(study: Study, output: Path, outputs: EvaluateOptions, page: str | None) -> None:
    """Every file that is asked for, the table last: it stands for the run."""
    evaluation: Evaluation = study.evaluation
    for path, columns, rows in (
        (outputs.summary, SUMMARY_COLUMNS, summary_rows),
        (outputs.comparison, COMPARISON_COLUMNS, marked_comparison_rows),
        (outputs.bin_table, BIN_COLUMNS, bin_rows),
    ):
        if path is not None:
            write_text(path, csv_text(columns, rows(evaluation)))
    if outputs.html is not None and page is not None:
        write_text(outputs.html, page)
    if outputs.histograms is not None:
        save_study(outputs.histograms, study)
    write_text(output, csv_text(TABLE_COLUMNS, table_rows(evaluation)))
