"""What labelled cases say of an artifact: which units are counted, by which score, and what is said of them."""

import numpy as np
import pytest

from segcal_cli.confidence.evaluation import CaseOutcome, TargetOutcome
from segcal_cli.confidence.studies import group_rows, method_rows
from segcal_cli.confidence.table import CaseRow
from segcal_cli.confidence.thresholds import Calibration
from segcal_cli.confidence.verdict import Verdict
from tests.confidence.builders_synth2d import plain_table, spec_of


def outcome(id, group, tau, gamma, *, present=True, stratum=0):
    """A case of one target with a lesion of 10 voxels; sizes play no part."""
    one = np.array
    row = CaseRow(
        id, group, one([tau]), one([gamma]), one([present]), one([0]), np.zeros((1, 5)), one([10]),
        one([10 if present else 0]), np.ones(3), 1.0, 1600,
    )  # fmt: skip
    sizes, none = one([5]), (np.zeros(0, np.float32), np.zeros(0, np.float32))
    found = TargetOutcome(stratum, sizes, sizes, 5, 20, 0, 0, 0, (none, none), ((1, 15),))
    return CaseOutcome(row, (found,), 2)


def verdict(spec, table, outcomes, alpha=0.25):
    return Verdict(Calibration(spec, table), {one.row.id: one for one in outcomes}, alpha, (alpha,), 0)


def rows_by_side(made):
    return {row["side"]: row for row in made.coverage_rows()}


def test_cases_with_the_target_are_promised_nothing_where_all_cases_were_ranked():
    table = plain_table(np.arange(9.0), np.arange(9.0))
    new = [outcome("n0", "n0", 1.0, 1.0), outcome("n1", "n1", 1.0, -np.inf, present=False)]
    found = rows_by_side(verdict(spec_of(), table, new))
    assert (found["outer"]["nominal"], found["outer_present"]["nominal"]) == (0.75, None)
    assert (found["outer"]["m"], found["outer_present"]["m"]) == (2, 1)
    found = rows_by_side(verdict(spec_of(present_only=True), table, new))
    assert found["outer_present"]["nominal"] == 0.75


def test_under_hcp_a_patient_with_one_lesion_in_five_scans_still_counts_among_those_with_one():
    """Drawn among all five scans it would be judged by one without a lesion four times in five, and not counted."""
    table = plain_table(np.arange(9.0), np.arange(9.0))
    new = [outcome(f"n{i}", "n", 1.0, 99.0 if i == 4 else -np.inf, present=i == 4) for i in range(5)]
    found = rows_by_side(verdict(spec_of(unit="hcp", present_only=True), table, new))
    assert (found["outer_present"]["m"], found["outer_present"]["covered"]) == (1, 0)


def test_leaving_out_a_group_under_max_ranks_the_larger_of_both_scores():
    """Others: 9 cases whose larger score is 0..8, at alpha .25 the 8th, which is 7. The group has 7 and 8."""
    table = plain_table(np.arange(9.0), np.zeros(9))
    new = [outcome("n0", "n0", 0.0, 7.0), outcome("n1", "n1", 0.0, 8.0)]
    made = verdict(spec_of(joint="max"), table, new)
    old = dict.fromkeys(table.ids, "old")
    rows = {row["group"]: row for row in group_rows(made, {**old, "n0": "new", "n1": "new"})}
    assert {row["side"] for row in rows.values()} == {"joint"}
    assert (rows["new"]["n"], rows["new"]["m"], rows["new"]["covered"]) == (9, 2, 1)


def test_a_patient_seen_in_two_groups_does_not_calibrate_for_itself():
    """Patient p is at both sites. With site b left out, the eight others of site a calibrate, not p itself."""
    table = plain_table(np.arange(9.0), np.arange(9.0), groups=tuple("abcdefghp"))
    new = [outcome("n0", "p", 5.0, 5.0)]
    made = verdict(spec_of(unit="max"), table, new)
    rows = group_rows(made, {**dict.fromkeys(table.ids, "a"), "n0": "b"})
    assert [(row["n"], row["m"]) for row in rows if row["group"] == "b"] == [(8, 1), (8, 1)]
    assert [(row["n"], row["m"]) for row in rows if row["group"] == "a"] == [(0, 9), (0, 9)]


def test_leaving_out_a_group_stays_within_the_stratum():
    """Two strata on different scales: each new case is held against its own."""
    table = plain_table(np.r_[np.arange(9.0), 100 + np.arange(9.0)], np.zeros(18), stratum=np.repeat([0, 1], 9))
    new = [outcome("n0", "n0", 8.0, 0.0), outcome("n1", "n1", 8.0, 0.0, stratum=1)]
    made = verdict(spec_of(strata=("small", "large")), table, new)
    groups = dict.fromkeys(table.ids, "old") | {"n0": "new", "n1": "new"}
    rows = {row["stratum"]: row for row in group_rows(made, groups) if row["group"] == "new" and row["side"] == "inner"}
    assert {name: (row["n"], row["covered"], row["m"]) for name, row in rows.items()} == {
        "small": (9, 0, 1),
        "large": (9, 1, 1),
    }


@pytest.mark.parametrize(
    ("changes", "own", "control"),
    [
        ({}, "if there is any lesion, all of it is in the outer set: in at least 75 % of new cases", "on average"),
        ({"overlapped": True}, "none: the calibrator had seen the calibration cases", "none: the calibrator had seen"),
        ({"repeated": True}, "in at least 75 % of new patients", "none: it counts cases, and patients repeat"),
        ({"confidence": 0.9}, "in at least 75 % of new cases, with confidence 90 %", "on average"),
    ],
)  # fmt: skip
def test_methods_promise_no_more_than_holds(changes, own, control):
    groups = np.arange(18) // 2 if "repeated" in changes else None
    table = plain_table(np.arange(18.0), np.arange(18.0), groups=groups)
    unit = "max" if "repeated" in changes else "case"
    spec = spec_of(present_only=True, unit=unit, confidence=changes.get("confidence"))
    made = verdict(spec, table, [outcome("n0", "n0", 1.0, 1.0)])
    first, second = method_rows(
        made, "sets", [("crc", (0.0,))], bonferroni=False, overlapped="overlapped" in changes
    )  # fmt: skip
    assert own in first["guarantee"]
    assert control in second["guarantee"]
