"""The table of cases: read strictly, written so that it reads back."""

from __future__ import annotations

import csv
import io
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from segcal_cli.core.errors import CaseErrors
from segcal_cli.io.case_files import LabelFile, PredictionFile, missing_labels, same_predictions
from segcal_cli.io.case_ids import BadCaseId, fits_file_name
from segcal_cli.io.case_table import REPORTED, USED, CaseRow, EmptyTable, read_cases, rows_of, write_rows
from segcal_cli.io.class_files import MissingSamples, NoClassFile
from segcal_cli.io.folders import TwoFiles
from segcal_cli.io.groups import NoGroup, parse_groups
from segcal_cli.io.pairing import pair
from segcal_cli.io.suffixes import UnreadFormat
from segcal_cli.io.tables import TableError
from tests.io.builders_folders import exclusive, put, regions


@pytest.fixture
def folder(tmp_path):
    names = [f"p/{case}.npz" for case in "abc"] + [f"l/{case}.nii.gz" for case in "abc"] + ["r/a.nii.gz", "r/b.nii.gz"]
    return put(tmp_path, *names)


def table(folder: Path, text: str, encoding: str = "utf-8") -> Path:
    path = folder / "cases.csv"
    path.write_bytes(text.encode(encoding))
    return path


def refusal(path: Path, kind: type[Exception] = TableError, **options: object) -> str:
    with pytest.raises(kind) as caught:
        read_cases(path, **options)
    return str(caught.value).replace(str(path), "cases.csv")


def test_rows_become_cases_in_the_order_of_their_ids_with_paths_relative_to_the_table(folder, monkeypatch):
    monkeypatch.chdir("/")
    path = table(
        folder,
        "case,prediction,label,group,roi\nb,p/b.npz,l/b.nii.gz,p1,r/b.nii.gz\na,p/a.npz,l/a.nii.gz,p1,r/a.nii.gz\n",
    )
    pairing = read_cases(path)
    assert pairing.problems == ()
    assert [case.id for case in pairing.cases] == ["a", "b"]
    first = pairing.cases[0]
    assert first.predictions == (PredictionFile(folder / "p/a.npz"),)
    assert first.labels == (LabelFile(folder / "l/a.nii.gz"),)
    assert (first.group, first.roi, first.source, first.proof) == ("p1", folder / "r/a.nii.gz", "", None)


@pytest.mark.parametrize("encoding", ["utf-8", "utf-8-sig"])
def test_a_byte_order_mark_makes_no_difference(folder, encoding):
    put(folder, "p/ü.npz")
    assert [case.id for case in read_cases(table(folder, "case,prediction\nü,p/ü.npz\n", encoding)).cases] == ["ü"]


def test_line_ends_of_windows_and_blank_lines_make_no_difference(folder):
    path = table(folder, "case,prediction\r\n\r\na,p/a.npz\r\n\r\n")
    assert [case.id for case in read_cases(path).cases] == ["a"]


def test_absolute_paths_are_kept(folder):
    path = table(folder, f"case,prediction\na,{folder / 'p/a.npz'}\n")
    assert read_cases(path).cases[0].predictions[0].path == folder / "p/a.npz"


def test_columns_that_pairs_writes_are_accepted_and_not_used(folder):
    path = table(folder, f"case,prediction,{','.join(REPORTED)}\na,p/a.npz,x,logits,,,,failed,bad\n")
    assert read_cases(path).require()[0].id == "a"


def test_the_segmentation_beside_an_array_is_its_proof(folder):
    put(folder, "p/a.nii.gz")
    assert read_cases(table(folder, "case,prediction\nz,p/a.npz\n")).cases[0].proof == folder / "p/a.nii.gz"


def test_a_fold_of_validation_cases_is_cross_validation(folder):
    put(folder, "fold_0/validation/a.npz")
    path = table(folder, "case,prediction\na,fold_0/validation/a.npz\n")
    assert read_cases(path).cases[0].source == "cross-validation"


def test_an_unknown_column_is_refused(folder):
    known = ", ".join(USED + REPORTED)
    path = table(folder, "case,prediction,labels\na,p/a.npz,x\n")
    assert refusal(path) == f"cases.csv:1: unknown column labels; known are {known}"


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("case,label\na,l/a.nii.gz\n", "cases.csv:1: no column prediction"),
        ("case,prediction,case\na,p/a.npz,a\n", "cases.csv:1: column case stands twice"),
        ("", "cases.csv:1: empty; a header is expected"),
        ("case,prediction\na,p/z.npz\n", "cases.csv:2: prediction p/z.npz does not exist"),
        ("case,prediction\na,p\n", "cases.csv:2: prediction p is not a file"),
        ("case,prediction,label\na,p/a.npz,l/z.nii\n", "cases.csv:2: label l/z.nii does not exist"),
        ("case,prediction,roi\na,p/a.npz,z.nii\n", "cases.csv:2: roi z.nii does not exist"),
        ("case,prediction\na,\n", "cases.csv:2: the cell prediction is empty"),
        ("case,prediction\n ,p/a.npz\n", "cases.csv:2: the cell case is empty"),
        ("case,prediction,group\na,p/a.npz,g\nb,p/b.npz,\n", "cases.csv:3: the cell group is empty"),
        ("case,prediction,sample\na,p/a.npz,\na,p/b.npz,1\n", "cases.csv:2: the cell sample is empty"),
        ("case,prediction\na,p/a.npz,x\n", "cases.csv:2: 3 cells, but the header has 2"),
        ("case,prediction\n\na\n", "cases.csv:3: 1 cells, but the header has 2"),
        ('case,prediction\na,"p/a.npz\n', "cases.csv:2: unexpected end of data"),
        ('"case",prediction\na,"p/a"x\n', "cases.csv:2: ',' expected after '\"'"),
        (
            "case,prediction,sample,group\na,p/a.npz,1,g\na,p/b.npz,2,h\n",
            "cases.csv:3: group of a is h, but g in line 2",
        ),
        (
            "case,prediction,sample,label\na,p/a.npz,1,\na,p/b.npz,2,l/a.nii.gz\n",
            "cases.csv:2: the cell label is empty",
        ),
    ],
)
def test_a_bad_table_is_refused_with_the_line(folder, text, message):
    assert refusal(table(folder, text)) == message


def test_a_row_counts_from_the_line_that_it_begins_on(folder):
    path = table(folder, 'case,prediction,problem\na,p/a.npz,"two\nlines"\nb,p/z.npz,\n')
    assert refusal(path) == "cases.csv:4: prediction p/z.npz does not exist"


def test_text_that_is_not_utf8_is_refused_with_the_line(folder):
    assert refusal(table(folder, "case,prediction\na,p/a.npz\nü,p/b.npz\n", "latin-1")) == "cases.csv:3: not UTF-8"


def test_a_table_that_is_not_there_is_refused(folder):
    assert refusal(folder / "cases.csv") == "cases.csv:1: cannot be read (no such file or directory)"


def test_all_problems_of_a_table_are_listed(folder):
    path = table(folder, "case,prediction\na,p/z.npz\n[/red],p/a.npz\nb,q/b.npz\n")
    assert refusal(path, CaseErrors).splitlines() == [
        "cases.csv:2: prediction p/z.npz does not exist",
        "cases.csv:3: case id '[/red]' cannot be a file name",
        "cases.csv:4: prediction q/b.npz does not exist",
    ]


@pytest.mark.parametrize(
    "case", ["a/b", "a\\b", "[/red]", "=1+1", "-a", ".a", " a", "a\tb", "a\x7fb", "a\u2028b", "a" * 181]
)
def test_an_id_that_cannot_be_a_file_name_is_refused(folder, case):
    path = table(folder, f"case,prediction\n{case},p/a.npz\n")
    assert refusal(path, BadCaseId) == f"cases.csv:2: case id {case!r} cannot be a file name"


def test_other_ids_pass_unharmed(folder):
    ids = ["_a", "Ä b", 'say "a", b', "a[red]", "1.2.3", "ü" * 90, "a=+-@"]
    text = io.StringIO()
    csv.writer(text, lineterminator="\n").writerows([["case", "prediction"], *([case, "p/a.npz"] for case in ids)])
    assert {case.id for case in read_cases(table(folder, text.getvalue())).require()} == set(ids)


def test_a_format_that_is_not_read_is_refused(folder):
    put(folder, "p/a.nrrd")
    path = table(folder, "case,prediction\na,p/a.nrrd\n")
    assert refusal(path, UnreadFormat) == f"{folder}/p/a.nrrd: segcal does not read .nrrd; convert it to NIfTI"


def test_a_table_without_rows_has_no_case(folder):
    assert refusal(table(folder, "case,prediction\n"), EmptyTable) == (
        "no case matched: cases.csv has no row; see segcal pairs"
    )


def test_two_rows_for_one_case_need_a_sample_or_a_class(folder):
    [problem] = read_cases(table(folder, "case,prediction\na,p/a.npz\na,p/b.npz\n")).problems
    assert isinstance(problem.error, TwoFiles)
    assert str(problem.error) == f"a: both {folder}/p/a.npz and {folder}/p/b.npz"


def test_ids_that_differ_by_case_only_are_refused(folder):
    pairing = read_cases(table(folder, "case,prediction\nb,p/c.npz\na,p/a.npz\nA,p/b.npz\n"))
    assert [case.id for case in pairing.cases] == ["b"]
    assert [str(problem.error) for problem in pairing.problems] == [f"A: both {folder}/p/b.npz and {folder}/p/a.npz"]


def test_one_file_under_two_ids_is_found_through_links(folder):
    (folder / "p/link.npz").symlink_to(folder / "p/a.npz")
    cases = read_cases(table(folder, "case,prediction\nx,p/a.npz\ny,p/link.npz\nz,p/b.npz\n")).require()
    [error] = same_predictions(cases)
    assert str(error) == "x and y hold the same prediction: duplicates break exchangeability"


def test_cases_without_label_are_listed(folder):
    cases = read_cases(table(folder, "case,prediction,label\na,p/a.npz,\nb,p/b.npz,l/b.nii.gz\nc,p/c.npz,\n")).require()
    assert str(missing_labels(cases)) == "2 predictions have no label: a, c"
    assert missing_labels(cases[1:2]) is None


def test_classes_come_in_the_order_of_the_class_table(folder):
    path = table(
        folder,
        "case,prediction,label,class\na,p/a.npz,l/a.nii.gz,tumour\na,p/b.npz,l/b.nii.gz,edema\n",
    )
    [case] = read_cases(path, space=exclusive("background", "edema", "tumour")).require()
    assert [(file.path.name, file.class_name) for file in case.predictions] == [("b.npz", "edema"), ("a.npz", "tumour")]
    assert [(file.path.name, file.class_name) for file in case.labels] == [
        ("b.nii.gz", "edema"),
        ("a.nii.gz", "tumour"),
    ]


def test_a_path_that_classes_share_is_one_file(folder):
    path = table(
        folder,
        "case,prediction,label,class\na,p/a.npz,l/a.nii.gz,x\na,p/a.npz,l/b.nii.gz,y\n",
    )
    [case] = read_cases(path, space=regions("x", "y")).require()
    assert case.predictions == (PredictionFile(folder / "p/a.npz"),)
    assert [label.class_name for label in case.labels] == ["x", "y"]


def test_a_class_without_file_is_refused(folder):
    path = table(folder, "case,prediction,class\na,p/a.npz,x\n")
    [problem] = read_cases(path, space=regions("x", "y")).problems
    assert isinstance(problem.error, NoClassFile)
    assert str(problem.error) == f"a: no file for class y (looked for {path})"


def test_a_class_that_is_not_in_the_class_table_is_refused(folder):
    path = table(folder, "case,prediction,class\na,p/a.npz,z\n")
    expected = "cases.csv:2: class z is not in the class table (x, y)"
    assert refusal(path, space=regions("x", "y")) == expected


def test_samples_must_be_complete(folder):
    text = "case,prediction,sample\na,p/a.npz,f1\na,p/b.npz,f0\nb,p/c.npz,f1\n"
    pairing = read_cases(table(folder, text))
    assert pairing.cases[0].samples == ("f0", "f1")
    [problem] = pairing.problems
    assert isinstance(problem.error, MissingSamples)
    assert str(problem.error) == "b: 1 of 2 samples (f0 absent)"


def test_a_rule_overrides_the_column_of_groups(folder):
    path = table(folder, "case,prediction,group\na,p/a.npz,x\nb,p/b.npz,x\n")
    pairing = read_cases(path, groups=parse_groups("a"))
    assert [(case.id, case.group) for case in pairing.cases] == [("a", "a")]
    assert [type(problem.error) for problem in pairing.problems] == [NoGroup]


def test_without_groups_a_case_is_its_own(folder):
    assert read_cases(table(folder, "case,prediction\na,p/a.npz\n")).cases[0].group == "a"


def test_a_table_has_a_header_even_without_rows():
    head = "case,prediction,label,group,roi,format,values,reader,shape,spacing,status,problem\n"
    assert write_rows([]) == head


def test_cells_are_quoted_where_they_must_be():
    rows = [CaseRow('a "b", c', "p/a,b.npz", problem="two\nlines"), CaseRow("d", sample="1", class_name="x")]
    assert write_rows(rows) == (
        "case,prediction,label,group,roi,sample,class,format,values,reader,shape,spacing,status,problem\n"
        '"a ""b"", c","p/a,b.npz",,,,,,,,,,,,"two\nlines"\n'
        "d,,,,,1,x,,,,,,,\n"
    )


def test_pairs_of_a_folder_are_written_and_read_back(tmp_path):
    put(tmp_path / "p", *(f"{case}_{name}.nii.gz" for case in "ab" for name in ("edema", "tumour")))
    put(tmp_path / "l", "a.nii.gz", "b.nii.gz")
    space = exclusive("background", "edema", "tumour")
    cases = pair(tmp_path / "p", tmp_path / "l", space=space, groups=parse_groups(".")).require()
    text = write_rows(rows_of(cases, tmp_path))
    assert text.splitlines()[1] == "a,p/a_edema.nii.gz,l/a.nii.gz,a,,edema,,,,,,,"
    assert read_cases(table(tmp_path, text), space=space).require() == cases


def test_label_masks_of_a_whole_prediction_are_written_and_read_back(tmp_path):
    put(tmp_path / "p", "a.npz", "a.nii.gz")
    put(tmp_path / "l", "a/x.nii.gz", "a/y.nii.gz")
    space = regions("y", "x")
    cases = pair(tmp_path / "p", tmp_path / "l", space=space, label_pattern="{case}/{class}").require()
    assert read_cases(table(tmp_path, write_rows(rows_of(cases, tmp_path))), space=space).require() == cases


def test_samples_are_written_and_read_back(tmp_path):
    put(tmp_path, *(f"p/{sample}/a.npz" for sample in ("s1", "s2")), "l/a.nii.gz")
    cases = pair(tmp_path / "p", tmp_path / "l", pattern="{sample}/{case}").require()
    assert read_cases(table(tmp_path, write_rows(rows_of(cases, tmp_path)))).require() == cases


def test_paths_beside_the_table_are_written_with_dots(tmp_path):
    put(tmp_path, "p/a.npz", "out/x")
    rows = rows_of(pair(tmp_path / "p").cases, tmp_path / "out")
    assert rows[0].prediction == "../p/a.npz"


IDS = st.text(st.sampled_from('aÄ1_ .,"[]/=@red'), min_size=1, max_size=12).filter(fits_file_name)


@settings(max_examples=60, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(ids=st.lists(IDS, min_size=1, max_size=4, unique_by=str.casefold))
def test_any_usable_ids_survive_writing_and_reading(tmp_path, ids):
    put(tmp_path, "a.npz")
    path = table(tmp_path, write_rows([CaseRow(case, "a.npz", group=case) for case in ids]))
    cases = read_cases(path).require()
    assert [case.id for case in cases] == sorted(ids, key=str.encode)
    assert [case.group for case in cases] == [case.id for case in cases]


@given(st.lists(st.text(), min_size=7, max_size=7))
def test_any_cell_survives_the_csv(cells):
    text = write_rows([CaseRow(*cells)])
    assert list(csv.reader(io.StringIO(text, newline="")))[1][:4] == cells[:4]
