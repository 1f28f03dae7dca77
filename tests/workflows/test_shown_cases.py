"""Which cases get a diagram of their own."""

from __future__ import annotations

import numpy as np
import pytest

from segcal_cli.metrics.cells import CellGrid
from segcal_cli.metrics.counting import Counts
from segcal_cli.metrics.measures import CaseMeasures
from segcal_cli.metrics.pooling import Pooled
from segcal_cli.workflows.shown_cases import ShownCases, UnknownCase

GRID = CellGrid(20)

NOTHING = Pooled.of(Counts.zero(1, GRID), ("a",), ("a",), GRID, np.zeros(1))


def cases(**ace):
    return [CaseMeasures(name, name, {}, {"ace": value}, NOTHING) for name, value in ace.items()]


FIVE = cases(a=0.1, b=0.5, c=0.3, d=0.2, e=0.4)


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("worst:2", ("b", "e")),
        ("best:2", ("a", "d")),
        ("median:1", ("c",)),
        ("median:3", ("c", "e", "d")),
        ("worst:1,median:1,best:1", ("b", "c", "a")),
        ("worst:9", ("b", "e", "c", "d", "a")),
        ("worst:1, b , d", ("b", "d")),
        ("all", ("a", "b", "c", "d", "e")),
        ("worst:0", ()),
        ("", ()),
    ],
)
def test_items_choose_cases_each_once_in_their_order(text, expected):
    assert ShownCases.parse(text).choose(FIVE) == expected


def test_cases_without_ace_have_no_rank_and_equal_ones_rank_by_id():
    assert ShownCases.parse("worst:3").choose(cases(x=None, b=0.2, a=0.2)) == ("a", "b")
    assert ShownCases.parse("best:1,x").choose(cases(x=None, b=0.3, a=0.2)) == ("a", "x")


def test_an_id_that_is_no_case_is_refused_with_examples():
    with pytest.raises(UnknownCase, match=r"--show-cases: f is no case; .* or ids such as a, b, c, d, e$"):
        ShownCases.parse("f").choose(FIVE)
    with pytest.raises(UnknownCase, match=r"such as a, b, c, d, e, \.\.\.$"):
        ShownCases.parse("g").require("abcdef")
