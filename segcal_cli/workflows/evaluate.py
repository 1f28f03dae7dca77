"""``evaluate``: predictions against labels, raw, through each artifact and beside other models, on the same voxels."""

from __future__ import annotations

from pathlib import Path

from segcal_cli.core.errors import UsageError
from segcal_cli.core.observer import Observer
from segcal_cli.io.atomic import write_text
from segcal_cli.io.outputs import refuse_existing
from segcal_cli.reporting.tables import csv_text
from segcal_cli.workflows.judged import entries, file_ends
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
        for path in (output, outputs.summary, outputs.comparison, outputs.bin_table, outputs.histograms)
        if path is not None
    ]
    for path in targets:
        if targets.count(path) > 1:
            raise OutputTwice(path)
    _, promised = named_artifacts(sourcing.artifact)
    beside = [path_beside(output, one.name, end) for one in promised for end in file_ends(one)]
    refuse_existing([*targets, *beside], overwrite=writing.overwrite)
    study = measured_or_loaded(
        predictions, labels, sourcing, measuring, drawing, reading, truth, running, observer,
        with_digests=outputs.histograms is not None,
    )  # fmt: skip
    say(study.evaluation, observer)
    presented = {verdict.judged.name: verdict.present(judging) for verdict in study.verdicts}
    for name, one in presented.items():
        for end, text in one.files.items():
            write_text(path_beside(output, name, end), text)
    _write(study, output, outputs)
    done = len(study.evaluation.sources[0].cases)
    failed = len(study.failures)
    return Outcome(
        result={**evaluation_json(study.evaluation), **entries(list(presented.values()))},
        counts=Counts(done + failed, done, failed),
        tables=(*people_tables(study.evaluation), *(table for one in presented.values() for table in one.tables)),
        failures=study.failures,
    )


def path_beside(output: Path, name: str, end: str) -> Path:
    """The file ``TABLE.NAME.END`` beside TABLE.csv."""
    return output.with_name(f"{output.name.removesuffix('.csv')}.{name}.{end}")


def _write(study: Study, output: Path, outputs: EvaluateOptions) -> None:
    """Every file that is asked for, the table last: it stands for the run."""
    evaluation: Evaluation = study.evaluation
    for path, columns, rows in (
        (outputs.summary, SUMMARY_COLUMNS, summary_rows),
        (outputs.comparison, COMPARISON_COLUMNS, comparison_rows),
        (outputs.bin_table, BIN_COLUMNS, bin_rows),
    ):
        if path is not None:
            write_text(path, csv_text(columns, rows(evaluation)))
    if outputs.histograms is not None:
        save_study(outputs.histograms, study)
    write_text(output, csv_text(TABLE_COLUMNS, table_rows(evaluation)))
