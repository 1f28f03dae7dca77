"""Groups: the patient of each case, by a table or a regular expression."""

from __future__ import annotations

import csv
import pickle

import pytest

from segcal_cli.core.errors import CaseErrors
from segcal_cli.io.folders import NoSuchInput
from segcal_cli.io.groups import BadExpression, BadGroup, NoGroup, parse_groups, scans_of_one_patient
from segcal_cli.io.tables import TableError


def test_the_first_capture_group_names_the_patient():
    assert parse_groups(r"^(sub-\d+)_ses-(\d+)").of("sub-07_ses-2") == "sub-07"


def test_without_a_capture_group_it_is_the_whole_match():
    assert parse_groups(r"p\d+").of("scan_p12_b") == "p12"


def test_an_id_that_the_expression_does_not_match_is_refused():
    with pytest.raises(NoGroup) as caught:
        parse_groups(r"^(sub-\d+)").of("case-1")
    assert str(caught.value) == r"case-1: no group in ^(sub-\d+)"


def test_an_empty_match_is_no_group():
    for rule in (r"x*", r"(x)?a"):
        with pytest.raises(NoGroup):
            parse_groups(rule).of("a")


@pytest.mark.parametrize("rule", ["(sub", "a{99999999999999999999}", "[z-a]", "(?P<n>a)(?P<n>b)"])
def test_an_expression_that_does_not_compile_is_a_usage_error(rule):
    with pytest.raises(BadExpression) as caught:
        parse_groups(rule)
    assert str(caught.value).startswith(f"--groups {rule}: neither a CSV file nor a regular expression (")


def test_an_expression_that_python_may_read_otherwise_one_day_does_not_warn():
    assert parse_groups(r"[[ab]+").of("ab") == "ab"


def test_a_table_names_the_patient_of_each_case(tmp_path):
    table = tmp_path / "groups.csv"
    table.write_bytes(b"\xef\xbb\xbfgroup,case\np1,a\np1,b\n\np2,c d\n")
    groups = parse_groups(str(table))
    assert [groups.of(case) for case in ("a", "b", "c d")] == ["p1", "p1", "p2"]
    with pytest.raises(NoGroup) as caught:
        groups.of("z")
    assert str(caught.value) == f"z: no group in {table}"


def test_a_table_may_have_another_suffix(tmp_path):
    table = tmp_path / "groups.txt"
    table.write_text("case,group\na,p1\n")
    assert parse_groups(str(table)).of("a") == "p1"


def test_a_table_that_is_not_there_is_no_expression(tmp_path):
    with pytest.raises(NoSuchInput) as caught:
        parse_groups(str(tmp_path / "none.csv"))
    assert str(caught.value) == f"{tmp_path / 'none.csv'} does not exist"


def test_a_case_in_two_groups_is_refused(tmp_path):
    table = tmp_path / "groups.csv"
    table.write_text("case,group\na,p1\na,p1\na,p2\n")
    with pytest.raises(TableError) as caught:
        parse_groups(str(table))
    assert str(caught.value) == f"{table}:4: case a is in group p1 already"


def test_every_problem_of_a_table_is_listed(tmp_path):
    table = tmp_path / "groups.csv"
    table.write_text("case,group\na,\nb\n")
    with pytest.raises(CaseErrors) as caught:
        parse_groups(str(table))
    assert str(caught.value).splitlines() == [
        f"{table}:2: the cell group is empty",
        f"{table}:3: 1 cells, but the header has 2",
    ]


def test_rules_and_errors_travel_between_processes():
    groups = pickle.loads(pickle.dumps(parse_groups(r"^(p\d)")))
    assert groups.of("p1_a") == "p1"
    assert str(pickle.loads(pickle.dumps(NoGroup("a", "b")))) == "a: no group in b"


@pytest.mark.parametrize("group", ["=1+1", "+1", "-1", "@x", "a\tb", "a\x1b[31m"])
def test_a_group_that_a_spreadsheet_or_a_terminal_would_obey_is_refused(group, tmp_path):
    with (tmp_path / "g.csv").open("w", newline="", encoding="utf-8") as file:
        csv.writer(file, lineterminator="\n").writerows([("case", "group"), ("a", group)])
    with pytest.raises(BadGroup) as refusal:
        parse_groups(str(tmp_path / "g.csv")).of("a")
    assert str(refusal.value) == f"a: a group cannot be called {group!r}"


@pytest.mark.parametrize(("cases", "alike"), [
    (("sub-01_ses-1", "sub-01_ses-2", "sub-02_ses-1"), ("sub-01_ses-1", "sub-01_ses-2")),
    (("p1_t0_T1w", "p2_t0_T1w", "p2_t1_T1w"), ("p2_t0_T1w", "p2_t1_T1w")),
    (("GLI-00001-000", "GLI-00002-000", "GLI-00002-001"), ("GLI-00002-000", "GLI-00002-001")),
    (("sub-01_ses-1", "sub-02_ses-1"), None), (("BraTS2021_00001", "BraTS2021_00002"), None),
    (("hippocampus_001", "hippocampus_019"), None), (("before_1", "before_2", "after_1"), None),
    (("p1_t0",), None), ((), None),
])  # fmt: skip
def test_ids_that_share_a_numbered_beginning_look_like_scans_of_one_patient(cases, alike):
    assert scans_of_one_patient(cases) == alike
