"""The table of cases (``--cases``), which says itself what belongs together and replaces pairing by name.

One row is one prediction file. A case has several rows where it has one file per class or several samples; a label, a
group, a region of interest that holds for the whole case is then repeated in each. ``segcal pairs`` writes the same
table with columns about what it found, which are accepted and not used when it is read back. Paths are relative to
the table.
"""

from __future__ import annotations

import os
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path

from segcal_cli.core.errors import NoCaseError, PairingError, SegcalError
from segcal_cli.core.frozen import dataclass
from segcal_cli.core.labels import LabelSpace
from segcal_cli.core.names import harmless
from segcal_cli.io.case_files import CaseFiles, LabelFile, Pairing
from segcal_cli.io.case_ids import BadCaseId, byte_order, fits_file_name
from segcal_cli.io.class_files import spelling_clashes, whole_case
from segcal_cli.io.folders import Siblings
from segcal_cli.io.groups import Groups
from segcal_cli.io.pairing import add_proofs, source_of
from segcal_cli.io.patterns import Match
from segcal_cli.io.problems import Problem, raise_all
from segcal_cli.io.suffixes import UnreadFormat, require_suffix
from segcal_cli.io.tables import Row, TableError, read_table

PATH_COLUMNS = ("prediction", "label", "roi")
"""Columns that name files."""

USED = ("case", "prediction", "label", "group", "roi", "sample", "class")
"""Columns that say which files make a case."""

REPORTED = ("format", "values", "reader", "shape", "spacing", "status", "problem")
"""Columns that ``segcal pairs`` adds."""

ALL_OR_NONE = ("group", "roi", "sample", "class")
"""Columns that are filled in every row or in none. A label may be missing: only some commands need it."""


class EmptyTable(NoCaseError):
    """A table with a header and no row."""

    template = "no case matched: {0} has no row; see segcal pairs"


@dataclass(frozen=True, slots=True)
class CaseRow:
    """A row to be written; "" is undefined. shape, spacing: as text, x y z."""

    case: str
    prediction: str = ""
    label: str = ""
    group: str = ""
    roi: str = ""
    sample: str = ""
    class_name: str = ""
    format: str = ""
    values: str = ""
    reader: str = ""
    shape: str = ""
    spacing: str = ""
    status: str = ""
    problem: str = ""


def read_cases(path: Path, *, space: LabelSpace | None = None, groups: Groups | None = None) -> Pairing:
    """The cases of a table, in the order of their ids. groups: a rule that overrides the column.

    Raises what is wrong with the table itself, all of it at once: TableError, BadCaseId, UnreadFormat, or CaseErrors of
    these; EmptyTable. Incomplete cases are problems of the result.
    """
    table = read_table(path, known=USED + REPORTED, required=("case", "prediction"), filled=("case", "prediction"))
    if not table:
        raise EmptyTable(path)
    raise_all([*(error for row in table for error in _row_problems(path, row, space)), *_gaps(path, table)])
    by_case: dict[str, list[Row]] = {}
    for row in table:
        by_case.setdefault(row.cells["case"], []).append(row)
    raise_all([error for rows in by_case.values() for error in _contradictions(path, rows)])

    clashes = spelling_clashes({case: path.parent / rows[0].cells["prediction"] for case, rows in by_case.items()})
    problems = [Problem(case, error) for case, error in clashes.items() if error.args[0] == case]
    samples = sorted({row.cells["sample"] for row in table} - {""}, key=byte_order)
    siblings = Siblings()
    cases = []
    for case in sorted(by_case.keys() - clashes.keys(), key=byte_order):
        try:
            cases.append(_case(path, case, by_case[case], space, samples, groups, siblings))
        except PairingError as error:
            problems.append(Problem(case, error))
    return Pairing(tuple(cases), problems=tuple(problems))


def rows_of(cases: Iterable[CaseFiles], base: Path) -> tuple[CaseRow, ...]:
    """The rows that read_cases turns into these cases again. base: the folder that the table will lie in.

    What has no column is found again (proofs) or left out: the mask of a class that has no prediction file.
    """
    rows: list[CaseRow] = []
    for case in cases:
        masks = {label.class_name: relative(label.path, base) for label in case.labels}
        common = {"group": case.group, "roi": relative(case.roi, base) if case.roi else ""}
        for file in case.predictions:
            classes = [file.class_name] if file.class_name is not None or len(masks) < 2 else list(masks)
            rows += [
                CaseRow(
                    case=case.id,
                    prediction=relative(file.path, base),
                    label=next(iter(masks.values())) if len(masks) == 1 else masks.get(name, ""),
                    sample=file.sample or "",
                    class_name=name or "",
                    **common,
                )
                for name in classes
            ]
    return tuple(rows)


def write_rows(rows: Sequence[CaseRow]) -> str:
    """CSV text: RFC 4180 but with ``\\n``, always a header. Columns for sample and class only where a row has them."""
    columns = [name for name in USED if name not in ("sample", "class")]
    columns += ["sample"] if any(row.sample for row in rows) else []
    columns += ["class"] if any(row.class_name for row in rows) else []
    columns += REPORTED
    lines = [columns]
    lines += [[getattr(row, "class_name" if name == "class" else name) for name in columns] for row in rows]
    return "".join(",".join(map(_quoted, line)) + "\n" for line in lines)


def relative(path: Path, base: Path) -> str:
    """A path as seen from a folder, with ``/``; absolute only where no relative one exists (another Windows drive)."""
    try:
        return Path(os.path.relpath(path, base)).as_posix()
    except ValueError:
        return path.absolute().as_posix()


def _quoted(cell: str) -> str:
    """A cell, quoted where it must be. Python's csv.writer leaves a lone carriage return bare."""
    return '"' + cell.replace('"', '""') + '"' if any(character in cell for character in ',"\r\n') else cell


def _row_problems(path: Path, row: Row, space: LabelSpace | None) -> Iterator[SegcalError]:
    """What is wrong with a row by itself."""
    if not fits_file_name(row.cells["case"]):
        yield BadCaseId(f"{path}:{row.line}", row.cells["case"])
    for column in PATH_COLUMNS:
        if not row.cells[column]:
            continue
        file = path.parent / row.cells[column]
        if not file.is_file():
            what = "is not a file" if file.exists() else "does not exist"
            yield TableError(path, row.line, f"{column} {row.cells[column]} {what}")
            continue
        try:
            require_suffix(file)
        except UnreadFormat as error:
            yield error
    if not harmless(row.cells["group"]):
        yield TableError(path, row.line, f"a group cannot be called {row.cells['group']!r}")
    name = row.cells["class"]
    if name and space is not None and name not in space.names:
        yield TableError(path, row.line, f"class {name} is not in the class table ({', '.join(space.names)})")


def _gaps(path: Path, table: Sequence[Row]) -> list[TableError]:
    """Empty cells of columns that other rows fill."""
    used = [column for column in ALL_OR_NONE if any(row.cells[column] for row in table)]
    return [
        TableError(path, row.line, f"the cell {column} is empty")
        for row in table
        for column in used
        if not row.cells[column]
    ]


def _contradictions(path: Path, rows: Sequence[Row]) -> Iterator[TableError]:
    """Rows of one case that disagree about what the case has once."""
    first = rows[0]
    for row in rows[1:]:
        for column in ("group", "roi"):
            if row.cells[column] != first.cells[column]:
                what = f"{column} of {row.cells['case']} is {row.cells[column]}, but {first.cells[column]}"
                yield TableError(path, row.line, f"{what} in line {first.line}")
        if bool(row.cells["label"]) != bool(first.cells["label"]):
            yield TableError(path, (first if row.cells["label"] else row).line, "the cell label is empty")


def _case(
    path: Path,
    case: str,
    rows: Sequence[Row],
    space: LabelSpace | None,
    samples: Sequence[str],
    groups: Groups | None,
    siblings: Siblings,
) -> CaseFiles:
    """One case from its rows. Raises PairingError."""

    def looked_for(sample: str | None, name: str) -> Path:
        return path

    files = whole_case(case, _matches(path, rows, "prediction"), space, samples, looked_for)
    labels: tuple[Match, ...] = ()
    if rows[0].cells["label"]:
        labels = whole_case(case, _matches(path, rows, "label"), space, (), looked_for)
    roi = rows[0].cells["roi"]
    return CaseFiles(
        id=case,
        group=groups.of(case) if groups is not None else rows[0].cells["group"] or case,
        predictions=add_proofs(case, files, labels, siblings),
        labels=tuple(LabelFile(match.path, match.class_name) for match in labels),
        roi=path.parent / roi if roi else None,
        source=source_of(files[0]),
    )


def _matches(path: Path, rows: Sequence[Row], column: str) -> list[Match]:
    """The files that a column names for one case.

    A path that several classes share is one file with all of them. A label that stands in every row, be it only one, is
    the label of the whole case; labels that differ are masks of the classes, the same for every sample.
    """
    whole = column == "label" and len({row.cells["label"] for row in rows}) == 1
    classes: dict[str, set[str]] = {}
    for row in rows:
        classes.setdefault(row.cells[column], set()).add(row.cells["class"])
    found: dict[Match, None] = {}
    matches = []
    for row in rows:
        shared = whole or len(classes[row.cells[column]]) > 1
        match = Match(
            path.parent / row.cells[column],
            path.parent,
            row.cells["case"],
            row.cells["sample"] or None if column == "prediction" else None,
            None if shared else row.cells["class"] or None,
        )
        if not (shared or column == "label") or match not in found:
            matches.append(match)
        found[match] = None
    return matches
