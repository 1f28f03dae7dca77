"""Pictures of sets: the numbers in them, and that they can be drawn in corners."""

import math

import numpy as np

from segcal_cli.reporting.overlays import Slice, Strip, overlay, score_maps
from segcal_cli.reporting.sets import (
    ErrorCurve,
    ScoreSet,
    SizeCurve,
    Splits,
    false_coverage,
    resplits,
    set_scores,
    set_sizes,
)
from segcal_cli.reporting.style import Words

WORDS = Words("Title", "Caption")


def drawn(drawing):
    """The first bytes of its PNG."""
    return drawing.files(["png"], 60, "t")["png"][:4]


def test_false_coverage_holds_what_it_shows_with_and_without_a_law():
    level = np.array([0.05, 0.1, 0.2])
    nothing = np.full(3, np.nan)
    curves = [
        ErrorCurve("inner", level, np.array([0.0, 0.1, 0.15]), level, level / 2, level * 2),
        ErrorCurve("joint", level, np.array([0.1, 0.2, 0.3]), nothing, nothing, nothing),
    ]
    made = false_coverage(curves, WORDS)
    assert made.rows[1] == {
        "side": "inner", "level": 0.1, "false_coverage": 0.1, "expected": 0.1, "band_low": 0.05, "band_high": 0.2,
    }  # fmt: skip
    assert made.rows[4]["band_low"] is None
    assert "joint: 0.200 wrong at level 0.1" in made.alt
    assert drawn(made) == b"\x89PNG"


def test_infinite_scores_stand_in_bins_of_their_own_and_no_score_is_lost():
    values = np.array([-math.inf, 0.0, 1.0, 2.0, math.inf, math.inf])
    side = ScoreSet("outer", "mm", values, np.array([1.0, 5.0]), 2.0, np.array([0.5]), np.array([]))
    made = set_scores([side], WORDS)
    mine = [row for row in made.rows if row["what"] == "calibration"]
    assert sum(row["count"] for row in mine) == 6
    assert (mine[0]["count"], mine[-1]["count"], mine[-1]["low"]) == (1, 2, math.inf)
    assert "2 of them infinite" not in made.alt
    assert "3 of them infinite" in made.alt
    assert drawn(made) == b"\x89PNG"


def test_scores_that_are_all_infinite_can_be_drawn():
    side = ScoreSet("inner", "mm", np.full(3, -math.inf), np.array([]), math.inf, np.array([]), np.array([]))
    assert drawn(set_scores([side], WORDS)) == b"\x89PNG"


def test_resplits_are_counted_by_number_covered():
    made = resplits([Splits("inner", np.array([0.5, 1.0, 1.0]), np.array([0.1, 0.2, 0.7]))], WORDS)
    assert [row["share_of_resplits"] for row in made.rows] == [0.0, 1 / 3, 2 / 3]
    assert [row["law"] for row in made.rows] == [0.1, 0.2, 0.7]
    assert drawn(made) == b"\x89PNG"


def test_sizes_are_those_of_the_curve():
    made = set_sizes(SizeCurve(np.array([0.05, 0.1]), np.array([0.2, 0.5]), np.array([2.0, 1.5])), WORDS)
    assert made.rows[1] == {"alpha": 0.1, "inner_diameter_ratio": 0.5, "outer_diameter_ratio": 1.5}
    assert drawn(made) == b"\x89PNG"


def slice_of(name, towards=("", "")):
    truth = np.zeros((6, 8), bool)
    truth[2:4, 2:5] = True
    masks = {"truth": truth, "inner": np.zeros_like(truth), "outer": np.ones_like(truth)}
    return Slice(name, np.random.default_rng(0).normal(size=(6, 8)), masks, (3.0, 1.0), towards)


def test_overlays_count_pixels_and_what_lies_on_the_wrong_side():
    made = overlay([Strip("alpha 0.1", (slice_of("axial 3", ("S", "R")), slice_of("")))], WORDS)
    assert made.rows[0] == {
        "row": "alpha 0.1", "slice": "axial 3", "note": "", "truth_pixels": 6, "inner_pixels": 0, "outer_pixels": 48,
        "inner_outside_truth": 0, "truth_outside_outer": 0,
    }  # fmt: skip
    assert drawn(made) == b"\x89PNG"


def test_images_stand_side_by_side_and_slices_of_a_scan_below_each_other():
    """Six images of one slice: two rows of at most four. Sets that no outline shows are named."""
    image = Strip("case\nouter wrong by 3 voxels", (slice_of(""),), "inner empty, outer everything")
    many, few = (overlay([image] * count, WORDS).figure() for count in (6, 3))
    assert len(many.axes) == 6
    assert many.get_figheight() > few.get_figheight()
    assert many.get_figwidth() > few.get_figwidth()
    assert many.axes[0].get_title().splitlines() == [
        "case", "outer wrong by 3 voxels", "inner empty, outer everything",
    ]  # fmt: skip
    (row,) = overlay([image], WORDS).rows
    assert row["note"] == "inner empty, outer everything"
    scan = overlay([Strip("a", (slice_of("axial 1"), slice_of("coronal 2")))] * 2, WORDS).figure()
    assert scan.axes[2].get_position().y1 < scan.axes[0].get_position().y0


def test_score_maps_name_their_thresholds():
    made = score_maps([slice_of("inner: log-odds"), slice_of("inner: distance")], [(0.5, 1.0), ()], WORDS)
    assert [(row["score"], row["threshold"]) for row in made.rows] == [
        ("inner: log-odds", 0.5), ("inner: log-odds", 1.0), ("inner: distance", 0.0),
    ]  # fmt: skip
    assert drawn(made) == b"\x89PNG"
