"""``evaluate``: predictions against labels, raw, through each artifact and beside other models, on the same voxels."""

from __future__ import annotations

from pathlib import Path

from segcal_cli.core.errors import UsageError
from segcal_cli.core.observer import Observer, Recorder
from segcal_cli.io.atomic import write_text
from segcal_cli.io.outputs import refuse_existing, refuse_inside, require_file_place
from segcal_cli.reporting.tables import csv_text
from segcal_cli.workflows.conventions import settings_of
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
    comparison_rows,
    summary_rows,
    table_rows,
)
from segcal_cli.workflows.measure_text import people_tables
from segcal_cli.workflows.outcome import Counts, Outcome
from segcal_cli.workflows.requests import (
    EvaluateOptions,
    IntervalOptions,
    JudgeOptions,
    LabelOptions,
    MeasureOptions,
    OutputOptions,
    PredictionOptions,
    RunOptions,
    SourceOptions,
)
from segcal_cli.workflows.saved_studies import measured_or_loaded, save_study
from segcal_cli.workflows.study import Study, named_artifacts, say


class OutputTwice(UsageError):
    """One file for two outputs."""

    template = "{0} is asked for twice as an output"


def run(
    predictions: Path | None,
    labels: Path | None,
    output: Path,
    outputs: EvaluateOptions,
    sourcing: SourceOptions,
    measuring: MeasureOptions,
    drawing: IntervalOptions,
    reading: PredictionOptions,
    truth: LabelOptions,
    running: RunOptions,
    writing: OutputOptions,
    judging: JudgeOptions,
    observer: Observer,
) -> Outcome:
    """Measure every source, write the tables. Raises what reading and measuring raise; then nothing is written."""
    targets = [
        path
        for path in (output, outputs.summary, outputs.comparison, outputs.bin_table, outputs.histograms, outputs.html)
        if path is not None
    ]
    for path in targets:
        if targets.count(path) > 1:
            raise OutputTwice(path)
    # Saved counts bring their own sources; artifacts beside them are refused later, by what loads them.
    _, promised = named_artifacts(() if sourcing.saved is not None else sourcing.artifact)
    refuse_unasked(judging, ASKED_OF, promised)
    beside = [path_beside(output, one.name, end) for one in promised for end in file_ends(one)]
    beside += [path_beside(output, kind, end) for kind, end in compared_files(promised)]
    others = [Path(text.partition("=")[2]) for text in sourcing.also]
    for path in targets:
        # A folder of --also that is not there is refused later, by what reads it.
        refuse_inside(path, [predictions, labels, *(folder for folder in others if folder.exists())])
    refuse_existing([*targets, *beside], overwrite=writing.overwrite)
    for path in targets:
        require_file_place(path)
    if outputs.html is not None:
        # Pictures are only imported where some are asked for.
        from segcal_cli.workflows.reliability import require_pictured

        require_pictured(settings_of(measuring, drawing.seed))
    heard = Recorder(observer)
    study = measured_or_loaded(
        predictions, labels, sourcing, measuring, drawing, reading, truth, running, heard,
        with_digests=outputs.histograms is not None or outputs.html is not None, judging=judging,
    )  # fmt: skip
    say(study.evaluation, heard)
    presented = {verdict.judged.name: verdict.present(judging) for verdict in study.verdicts}
    compared = compare(study.verdicts, judging)
    written: dict[str, Presented | Compared] = {**presented, **compared}
    page = None
    if outputs.html is not None:
        from segcal_cli.workflows.reliability import report_alone

        page = report_alone(study, reading, truth, heard, judging)
    for name, one in written.items():
        for end, text in one.files.items():
            write_text(path_beside(output, name, end), text)
    _write(study, output, outputs, page)
    done = len(study.evaluation.sources[0].cases)
    failed = len(study.failures)
    return Outcome(
        result={**evaluation_json(study.evaluation), **entries(presented, study.verdicts, compared)},
        counts=Counts(done + failed, done, failed),
        tables=(*people_tables(study.evaluation), *(table for one in written.values() for table in one.tables)),
        failures=study.failures,
    )


def path_beside(output: Path, name: str, end: str) -> Path:
    """The file ``TABLE.NAME.END`` beside TABLE.csv."""
    return output.with_name(f"{output.name.removesuffix('.csv')}.{name}.{end}")


def _write(study: Study, output: Path, outputs: EvaluateOptions, page: str | None) -> None:
    """Every file that is asked for, the table last: it stands for the run."""
    evaluation: Evaluation = study.evaluation
    for path, columns, rows in (
        (outputs.summary, SUMMARY_COLUMNS, summary_rows),
        (outputs.comparison, COMPARISON_COLUMNS, comparison_rows),
        (outputs.bin_table, BIN_COLUMNS, bin_rows),
    ):
        if path is not None:
            write_text(path, csv_text(columns, rows(evaluation)))
    if outputs.html is not None and page is not None:
        write_text(outputs.html, page)
    if outputs.histograms is not None:
        save_study(outputs.histograms, study)
    write_text(output, csv_text(TABLE_COLUMNS, table_rows(evaluation)))
