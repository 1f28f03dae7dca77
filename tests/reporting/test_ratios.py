"""Pictures of ratio intervals: every dot once, missed ones with a shape of their own, the same bytes on every run."""

from __future__ import annotations

import csv
import io

import numpy as np
import pytest

from segcal_cli.reporting.ratios import (
    Cloud,
    Outline,
    Panel,
    bias_histogram,
    interval_panels,
    width_error_scatter,
    width_histogram,
)
from segcal_cli.reporting.style import Words, look, styled

WORDS = Words("Intervals", "Unit: case.")
N = 7


def panel(method="nested"):
    random = np.random.default_rng(0)
    ratio = np.sort(random.random(N))
    low, high = np.maximum(ratio - 0.1, 0), np.minimum(ratio + 0.1, 1)
    target = ratio + random.normal(0, 0.1, N)
    high[-1] = np.inf
    covered = (low <= target) & (target <= high)
    return Panel(method, f"{method}: 5/7", tuple(f"c{i}" for i in range(N)), low, high, ratio, target, covered)


def rows(drawing):
    return list(csv.DictReader(io.StringIO(drawing.csv)))


DRAWINGS = {
    "intervals": interval_panels([panel(m) for m in ("nested", "care", "cp")], 1.0, 0.3, WORDS),
    "widths": width_histogram([Outline("nested", look(0), np.array([0.0, 0.07, 1.0, np.inf]))], 1.0, 0.4, WORDS),
    "bias": bias_histogram([Outline("soft", look(0), np.array([0.0, 0.019, 0.021]))], WORDS),
    "scatter": width_error_scatter(
        [Cloud("nested", look(0), ("a", "b"), np.array([0.1, np.inf]), np.array([0.02, 0.2]), 1.0)], 1.0, WORDS
    ),
}


@pytest.mark.parametrize("name", sorted(DRAWINGS))
def test_a_picture_has_the_same_bytes_on_every_run(name):
    once, again = (DRAWINGS[name].files(("svg", "png"), 80, "t") for _ in range(2))
    assert once == again
    assert DRAWINGS[name].alt.startswith("Intervals. ")


def test_there_is_a_dot_for_every_case_and_missed_ones_have_another_colour_and_shape():
    with styled():
        figure = DRAWINGS["intervals"].figure()
    own, table = panel(), rows(DRAWINGS["intervals"])
    assert len(figure.axes) == 3
    assert len(table) == 3 * N
    for axes in figure.axes:
        inside, missed = (next(line for line in axes.lines if line.get_gid() == gid) for gid in ("inside", "missed"))
        assert len(inside.get_xdata()) + len(missed.get_xdata()) == N
        assert len(missed.get_xdata()) == (~own.covered).sum() > 0
        assert inside.get_color() != missed.get_color()
        assert inside.get_marker() != missed.get_marker()
    assert [row["covered"] for row in table[:N]] == ["true" if c else "false" for c in own.covered]
    assert table[N - 1]["ratio_high"] == "inf"


def test_widths_are_counted_in_bins_of_a_twentieth_and_endless_ones_in_the_last():
    assert [int(row["cases"]) for row in rows(DRAWINGS["widths"])] == [1, 1, *[0] * 17, 2]


def test_errors_are_counted_in_bins_of_a_fiftieth():
    assert [int(row["cases"]) for row in rows(DRAWINGS["bias"])] == [2, 1, 0, 0, 0]
