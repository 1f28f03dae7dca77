"""``pairs``: what would be read, how the files pair up, and everything that is wrong with them."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, replace
from pathlib import Path

from segcal_cli.core.case import Case
from segcal_cli.core.errors import first_line
from segcal_cli.core.observer import Observer
from segcal_cli.execution.engine import results
from segcal_cli.execution.work import Result, Work
from segcal_cli.io.atomic import write_text
from segcal_cli.io.case_files import Pairing, same_predictions
from segcal_cli.io.case_sources import CaseReader, CaseSource, open_cases
from segcal_cli.io.case_table import CaseRow, rows_of, write_rows
from segcal_cli.io.outputs import refuse_existing, refuse_inside, require_file_place
from segcal_cli.io.predictions import ValuesNeeded
from segcal_cli.workflows.inputs import find_cases, guessed_table, reading_rules, truth_rules
from segcal_cli.workflows.outcome import DONE, NOTHING_PRODUCED, Counts, Outcome
from segcal_cli.workflows.requests import LabelOptions, OutputOptions, PredictionOptions, RunOptions
from segcal_cli.workflows.running import cluster_of, jobs_of, require_workers

OK = "ok"


def run(
    predictions: Path,
    labels: Path | None,
    output: Path | None,
    prove: bool,
    reading: PredictionOptions,
    truth: LabelOptions,
    running: RunOptions,
    writing: OutputOptions,
    observer: Observer,
) -> Outcome:
    """Pair, open every header and, with ``prove``, read every voxel. All problems stand in the table."""
    require_workers(running)
    if output is not None:
        refuse_inside(output, (predictions, labels))
        refuse_existing([output], overwrite=writing.overwrite)
        require_file_place(output)
    table, pairing = find_cases(predictions, labels, reading, truth)
    for note in pairing.notes:
        observer.note(note)
    if table is None and pairing.cases:
        table = guessed_table(pairing.cases)
    problems = _by_case(pairing, labels is not None, truth.roi)
    sources: dict[str, CaseSource] = {}
    values_known = True
    if table is not None:
        rules, wanted = reading_rules(reading), truth_rules(truth, volumes=False)
        try:
            opened = open_cases(pairing.cases, table, rules, wanted)
        except ValuesNeeded as error:
            if prove:
                raise
            # Headers can be looked at without it, and a fit will ask.
            observer.note(str(error))
            values_known = False
            opened = open_cases(pairing.cases, table, replace(rules, values="probabilities"), wanted)
        sources = {source.id: source for source in opened.sources}
        for problem in opened.problems:
            problems.setdefault(problem.case, []).append(first_line(problem.error))
        for note in opened.notes:
            observer.note(note)
    proofs: dict[str, str] = {}
    if prove:
        proofs, failures = _read_all(sources, running, observer)
        for failure in failures:
            problems.setdefault(failure.id, []).append(first_line(failure.error or Exception()))

    base = Path.cwd() if output is None else output.parent
    rows = [
        _described(row, sources.get(row.case), problems.get(row.case, []), values_known)
        for row in rows_of(pairing.cases, base)
    ]
    paired = {case.id for case in pairing.cases}
    rows += [
        CaseRow(case=case, status="problem", problem="; ".join(texts))
        for case, texts in problems.items()
        if case not in paired
    ]
    text = write_rows(rows)
    if output is not None:
        write_text(output, text)
    wrong = {row.case for row in rows if row.status != OK}
    cases = {row.case for row in rows}
    return Outcome(
        result={"cases": [{**_row_json(row), "proof": proofs.get(row.case)} for row in rows]},
        counts=Counts(len(cases), len(cases) - len(wrong), len(wrong)),
        data=text if output is None else "",
        failures=tuple(
            {"case": case, "file": "", "error": "problem", "message": "; ".join(texts)}
            for case, texts in problems.items()
        ),
        exit_code=NOTHING_PRODUCED if wrong else DONE,
    )


def _read_all(
    sources: Mapping[str, CaseSource], running: RunOptions, observer: Observer
) -> tuple[dict[str, str], list[Result]]:
    """Read every case; the proof of each, and those that cannot be read."""
    proofs, failures = {}, []
    work = Work(CaseReader(), _facts)
    observer.progress(0, len(sources), "reading")
    for number, result in enumerate(
        results(work, list(sources.values()), jobs_of(running), cluster_of(running)), start=1
    ):
        observer.progress(number, len(sources), "reading")
        if result.error is None:
            proof, warnings = result.value
            proofs[result.id] = proof or "unproved"
            for warning in warnings:
                observer.warn(warning, result.id)
        else:
            failures.append(result)
    return proofs, failures


def _facts(case: Case) -> tuple[str, tuple[str, ...]]:
    return case.facts.proof, case.facts.warnings


def _by_case(pairing: Pairing, labelled: bool, roi: Path | None) -> dict[str, list[str]]:
    """Case id -> its problems. What pairing says of several cases at once is said here in the row of each."""
    problems: dict[str, list[str]] = {}
    for problem in pairing.problems:
        if problem.case:
            problems.setdefault(problem.case, []).append(first_line(problem.error))
    for case in pairing.cases:
        if labelled and not case.labels:
            problems.setdefault(case.id, []).append("no label")
        if roi is not None and case.roi is None:
            problems.setdefault(case.id, []).append("no region of interest")
    for copies in same_predictions(pairing.cases):
        for case in copies.args:
            problems.setdefault(case, []).append(str(copies))
    return problems


def _described(row: CaseRow, source: CaseSource | None, problems: list[str], values_known: bool) -> CaseRow:
    """The row with what the headers told."""
    if source is not None:
        prediction = source.prediction
        z, y, x = prediction.place.grid.shape
        spacing = prediction.place.grid.spacing_mm
        row = replace(
            row,
            format=source.format,
            values=prediction.values if values_known else "",
            reader=prediction.parts[0].reader or "",
            shape=f"{x} {y} {z}",
            spacing="" if spacing is None else " ".join(f"{edge:.6g}" for edge in spacing),
        )
    if problems:
        return replace(row, status="problem", problem="; ".join(problems))
    return replace(row, status=OK)


def _row_json(row: CaseRow) -> dict[str, str | None]:
    data = {key: value or None for key, value in asdict(row).items()}
    data["class"] = data.pop("class_name")
    return data
