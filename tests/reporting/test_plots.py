"""Every plot: legible, inside its sheet, the same bytes on every run, and its numbers those that it shows."""

from __future__ import annotations

import csv
import io
import itertools
import re

import matplotlib
import numpy as np
import pytest
from matplotlib.markers import MarkerStyle
from matplotlib.text import Text

from segcal_cli.reporting import comparisons, curves, diagrams, distributions, mean_curves
from segcal_cli.reporting.diagrams import Errors
from segcal_cli.reporting.distributions import Sample
from segcal_cli.reporting.style import FORMATS, INK, LOOKS, PAPER, SMALL_POINTS, styled, text_width, wrapped
from tests.reporting.builders_drawings import CASES, DRAWINGS, WORDS, bins, points, samples, series

PLOTS = sorted(DRAWINGS)


def rows_of(drawing):
    return list(csv.DictReader(io.StringIO(drawing.csv)))


@pytest.fixture(scope="module")
def drawn():
    """Plot -> its figure, drawn once, with the extents of all text."""
    with styled():
        figures = {plot: drawing.figure() for plot, drawing in DRAWINGS.items()}
        for figure in figures.values():
            figure.canvas.draw()
        yield figures


def texts(figure):
    """Text that is drawn: ticks beyond the ends of an axis are not."""
    beyond = {
        id(label)
        for axes in figure.axes
        for axis in (axes.xaxis, axes.yaxis)
        for tick in axis.get_major_ticks()
        if not min(axis.get_view_interval()) <= tick.get_loc() <= max(axis.get_view_interval())
        for label in (tick.label1, tick.label2)
    }
    found = figure.findobj(lambda artist: isinstance(artist, Text) and id(artist) not in beyond)
    return [text for text in found if text.get_visible() and text.get_text().strip()]


@pytest.mark.parametrize("plot", PLOTS)
def test_no_text_is_smaller_than_eight_points(drawn, plot):
    assert min(text.get_fontsize() for text in texts(drawn[plot])) >= SMALL_POINTS


@pytest.mark.parametrize("plot", PLOTS)
def test_all_text_lies_inside_the_sheet(drawn, plot):
    figure = drawn[plot]
    page = figure.bbox
    for text in texts(figure):
        box = text.get_window_extent()
        inside = page.x0 - 1 <= box.x0 and box.x1 <= page.x1 + 1 and page.y0 - 1 <= box.y0 and box.y1 <= page.y1 + 1
        assert inside, f"{text.get_text()!r} at {box}"


@pytest.mark.parametrize("plot", PLOTS)
def test_title_legend_and_caption_cover_neither_axes_nor_each_other(drawn, plot):
    figure = drawn[plot]
    outside = [text.get_window_extent() for text in figure.texts]
    outside += [legend.get_window_extent() for legend in figure.legends]
    blocks = outside + [axes.get_tightbbox() for axes in figure.axes]
    for i, one in enumerate(outside):
        for other in blocks[i + 1 :]:
            apart = one.x1 <= other.x0 + 1 or other.x1 <= one.x0 + 1 or one.y1 <= other.y0 + 1 or other.y1 <= one.y0 + 1
            assert apart, (one, other)


@pytest.mark.parametrize("plot", PLOTS)
def test_tick_labels_of_an_axis_do_not_overlap(drawn, plot):
    for axes in drawn[plot].axes:
        for axis in (axes.xaxis, axes.yaxis):
            drawn_labels = {id(text) for text in texts(drawn[plot])}
            boxes = [label.get_window_extent() for label in axis.get_ticklabels() if id(label) in drawn_labels]
            for one, other in itertools.pairwise(boxes):
                assert not one.overlaps(other), (axes.get_xlabel(), axes.get_ylabel())


@pytest.mark.parametrize("plot", PLOTS)
def test_the_same_drawing_gives_the_same_bytes_in_every_format_and_none_tells_the_day(plot):
    formats = FORMATS if plot in ("case-diagram", "dataset-histogram") else ("svg",)
    first, second = (DRAWINGS[plot].files(formats, 60, "title") for _ in range(2))
    assert first == second
    for data in first.values():
        assert not re.search(rb"CreationDate|Software|Matplotlib v|dc:date|Producer \(", data)


def test_a_users_own_style_changes_no_byte():
    plain = DRAWINGS["mean-curve"].files(("svg",), 60, "")
    with matplotlib.rc_context({"lines.linewidth": 9.0, "font.size": 20.0, "axes.grid": True}):
        assert DRAWINGS["mean-curve"].files(("svg",), 60, "") == plain


def test_a_style_is_left_as_it_was():
    before = dict(matplotlib.rcParams)
    DRAWINGS["mass"].files(("svg",), 60, "")
    assert dict(matplotlib.rcParams) == before


def test_sources_differ_without_colour():
    assert len(LOOKS) == len({one.marker for one in LOOKS}) == 12
    assert all(MarkerStyle(one.marker).is_filled() and one.marker not in ("P", "X") for one in LOOKS)
    assert len({one.hatch for one in LOOKS}) == len(LOOKS)
    assert len({str(one.line) for one in LOOKS}) == len(LOOKS)
    assert INK not in {one.colour for one in LOOKS} | {PAPER}


def test_a_name_that_the_font_cannot_write_is_drawn_without_a_warning():
    words = type(WORDS)("脑 $x_1$", "captions")
    drawing = diagrams.case_diagram(bins(), Errors(None, None, None, None), words)
    assert drawing.files(("png",), 50, words.title)["png"].startswith(b"\x89PNG")


def test_words_wrap_within_the_width_and_a_long_word_is_cut():
    lines = wrapped("one two three " + "w" * 200, 2.0, 8.0)
    assert max(text_width(line, 8.0) for line in lines) <= 2.0
    assert "".join(lines).replace(" ", "") == "onetwothree" + "w" * 200


def test_a_line_that_fits_at_one_resolution_fits_at_all():
    from matplotlib.backends.backend_agg import RendererAgg
    from matplotlib.font_manager import FontProperties

    line = "For a new patient exchangeable with the 24 calibration patients: of the patient's voxels of a class"
    font, width = FontProperties(family="DejaVu Sans", size=8.0), text_width(line, 8.0)
    with styled():
        drawn = [
            RendererAgg(1, 1, dpi).get_text_width_height_descent(line, font, ismath=False)[0] / dpi
            for dpi in (50, 72, 80, 96, 150, 300)
        ]
    assert drawn == pytest.approx([width] * len(drawn), rel=0.01)


@pytest.mark.parametrize("count", [1, 5, 200, *(pytest.param(count, marks=pytest.mark.slow) for count in (2, 100))])
def test_any_number_of_bins_can_be_drawn(count):
    for drawing in (
        diagrams.case_diagram(bins(count), Errors(0.1, 0.1, 0.1, 0), WORDS),
        distributions.dataset_histogram(np.ones((count, count), np.int64), WORDS),
    ):
        assert len(drawing.files(("svg",), 60, "")["svg"]) > 1000


# What the numbers are.


def test_the_case_diagram_lists_every_bin_with_empty_ones_undefined():
    rows = rows_of(DRAWINGS["case-diagram"])
    assert [int(row["bin"]) for row in rows] == list(range(20))
    assert rows[4] == {
        "bin": "4", "lower": "0.2", "upper": "0.25", "n": "0", "mean_probability": "", "frequency": "", "gap": "",
    }  # fmt: skip
    assert float(rows[0]["gap"]) == pytest.approx(float(rows[0]["frequency"]) - 0.025)


def test_the_alternative_text_of_a_case_counts_bins_on_either_side():
    assert "Of 19 bins with voxels 10 are over-confident and 9 under-confident" in DRAWINGS["case-diagram"].alt


def test_a_data_set_without_bands_leaves_their_columns_empty():
    drawing = diagrams.dataset_diagram(bins(), Errors(0.1, 0.2, 0.3, 1), None, None, LOOKS[0], WORDS)
    assert {row["consistency_low"] for row in rows_of(drawing)} == {""}
    assert drawing.files(("svg",), 60, "")


def test_columns_of_the_histogram_sum_to_one_and_one_without_cases_is_blank():
    counts = np.zeros((4, 4), np.int64)
    counts[[3, 0, 1], [0, 3, 3]] = 2, 1, 3
    rows = rows_of(distributions.dataset_histogram(counts, WORDS))
    shares = {m: [row["share"] for row in rows if row["bin"] == str(m)] for m in range(4)}
    assert shares[0] == ["1.0", "0.0", "0.0", "0.0"]  # rows of a column run from frequency 0 upwards
    assert shares[1] == [""] * 4
    assert shares[3] == ["0.0", "0.0", "0.75", "0.25"]
    assert {row["cases_in_column"] for row in rows if row["bin"] == "3"} == {"4"}


def test_the_violin_lists_each_case_with_the_quartiles_of_its_bin():
    one = series(1)
    rows = [row for row in rows_of(distributions.case_violin(one, CASES, WORDS)) if row["bin"] == "3"]
    assert [row["case"] for row in rows] == list(CASES)
    assert [float(row["frequency"]) for row in rows] == one[0].values[:, 3].tolist()
    assert float(rows[0]["q25"]) == np.quantile(one[0].values[:, 3], 0.25)


def test_a_bin_without_cases_has_no_mean_and_one_case_no_deviation():
    rows = rows_of(mean_curves.mean_curve(series(1), WORDS))
    assert (rows[7]["cases"], rows[7]["mean"], rows[7]["std"]) == ("0", "", "")
    assert (rows[8]["cases"], rows[8]["std"]) == ("1", "")
    assert float(rows[3]["std"]) == pytest.approx(series(1)[0].values[:, 3].std(ddof=1))


def test_a_violin_is_one_at_its_peak_and_has_a_width_where_all_agree():
    assert distributions.density(np.array([0.1, 0.5, 0.52, 0.9]), np.linspace(0, 1, 50)).max() == 1.0
    assert np.isfinite(distributions.density(np.full(12, 0.5), np.array([0.49, 0.51]))).all()


def test_the_pareto_front_is_a_step_through_the_sources_on_it():
    with styled():
        figure = comparisons.pareto(points(), WORDS).figure()
    front = [line for line in figure.axes[0].lines if line.get_drawstyle() == "steps-pre"]
    assert len(front) == 1
    assert front[0].get_xdata().tolist() == pytest.approx([0.80, 0.81, 0.82])
    assert front[0].get_ydata().tolist() == pytest.approx([2.0, 2.1, 2.2])


def test_dominated_sources_are_hollow():
    with styled():
        figure = comparisons.pareto(points(), WORDS).figure()
    filled = [line.get_markerfacecolor() for line in figure.axes[0].lines if line.get_markersize() == 7]
    assert [face == PAPER for face in filled] == [False, False, False, True, True]


def test_the_front_lies_over_intervals_and_under_markers():
    with styled():
        axes = comparisons.pareto(points(), WORDS).figure().axes[0]
    front = next(line for line in axes.lines if line.get_drawstyle() == "steps-pre")
    markers = [line for line in axes.lines if line.get_markersize() == 7]
    bars = [*axes.collections, *(line for line in axes.lines if line not in (front, *markers))]
    assert max(bar.get_zorder() for bar in bars) < front.get_zorder() < min(one.get_zorder() for one in markers)
    assert front.get_linewidth() > max(bar.get_linewidths()[0] for bar in axes.collections)


def legend_of(figure):
    return [text.get_text() for text in figure.legends[0].get_texts()]


@pytest.mark.parametrize("plot", ["case-diagram", "dataset-diagram", "case-violin", "mean-curve", "corp"])
def test_the_legend_names_the_diagonal(drawn, plot):
    assert "calibrated" in legend_of(drawn[plot])


def test_the_legend_of_a_box_plot_names_points_boxes_and_whiskers(drawn):
    assert legend_of(drawn["boxplot"]) == [
        "median", "mean", "quartiles", "to the last case within 1.5 lengths of the box",
        "case (heights keep them apart)",
    ]  # fmt: skip


def test_axes_of_measures_do_not_leave_what_a_measure_can_be():
    """All cases alike, which leaves the choice of the axis to the library."""
    constant = [Sample("a", LOOKS[0], {"ece": [1.0] * 4, "ace": [0.5] * 4, "mce": [1.0] * 4, "dice": [0.0] * 4})]
    point = comparisons.Point(
        "a", LOOKS[0], comparisons.Interval(1.0, 0.9, 1.0, 4), comparisons.Interval(0, 0, 1, 4), True
    )
    with styled():
        boxes = distributions.boxplot(constant, "abcd", {"ece": "ECE", "dice": "Dice"}, WORDS).figure().axes
        panels = comparisons.case_scatter(constant, "abcd", WORDS).figure().axes
        front = comparisons.pareto([point], WORDS).figure().axes[0]
    limits = [axes.get_xlim() for axes in (*boxes, *panels, front)] + [axes.get_ylim() for axes in panels]
    assert all(0.0 <= low < high <= 1.0 for low, high in limits), limits
    assert front.get_ylim() == (0.0, 100.0)


def caps(axes):
    return np.concatenate([line.get_ydata() for line in axes.lines if line.get_marker() == "_"])


def test_a_deviation_that_goes_on_beyond_the_axis_has_no_cap_there():
    values = np.tile([[0.0], [0.9], [1.0]], (1, 4))
    values[:, 1] = [0.4, 0.5, 0.6]
    with styled():
        axes = mean_curves.mean_curve([distributions.Series("a", LOOKS[0], values)], WORDS).figure().axes[0]
    assert sorted(caps(axes)) == pytest.approx([*[values[:, 0].mean() - values[:, 0].std(ddof=1)] * 3, 0.4, 0.6])


@pytest.mark.parametrize(("sources", "panels"), [(1, 1), (mean_curves.SIDE_BY_SIDE, 1), (8, 8)])
def test_many_sources_have_a_panel_each_and_few_stay_in_the_middle_of_their_bin(sources, panels):
    with styled():
        figure = mean_curves.mean_curve(series(sources), WORDS).figure()
    assert len(figure.axes) == panels
    centers = (np.arange(20) + 0.5) / 20
    for axes in figure.axes:
        means = [line for line in axes.lines if line.get_zorder() == 4]
        assert all(np.abs(line.get_xdata() - centers).max() < 0.5 * mean_curves.SPREAD / 20 for line in means)


def test_predictions_that_are_all_the_same_make_a_point_of_the_corp_curve():
    one, none = curves.Curve(np.array([0.3]), np.array([0.2])), curves.Curve(np.array([0.3]), np.array([np.nan]))
    band = (np.array([0.3]), diagrams.Bounds(np.array([0.1]), np.array([0.3])))
    with styled():
        figure = curves.corp(one, band, none, curves.Parts(0.00004, None, 0.2), LOOKS[0], WORDS).figure()
    assert next(line.get_marker() for line in figure.axes[0].lines if line.get_xdata().tolist() == [0.3]) == "o"
    assert figure.axes[0].collections[0].get_paths()[0].get_extents().width == pytest.approx(diagrams.POINT_BAND)
    assert "kernel mean" not in legend_of(figure)


def test_parts_of_the_brier_score_have_three_digits_however_small():
    assert curves.Parts(0.00004, 0.091, None).sentence == "Brier score: MCB 4.00e-05, DSC 0.0910, UNC -"


def test_undefined_measures_leave_their_cells_empty():
    rows = rows_of(comparisons.case_scatter(samples(1), CASES, WORDS))
    assert rows[0]["ece"] == rows[0]["dice"] == ""
    assert float(rows[1]["dice"]) == samples(1)[0].values["dice"][1]


def test_gaps_of_a_curve_are_no_rows():
    rows = rows_of(DRAWINGS["corp"])
    assert {row["curve"] for row in rows} == {"corp", "band", "smooth"}
    assert min(float(row["p"]) for row in rows if row["curve"] == "smooth") >= 0.2


def test_shares_that_are_tiny_are_told_from_none():
    assert "25.00 % exactly 0, < 0.01 % exactly 1" in DRAWINGS["mass"].alt
    drawing = curves.mass([curves.Mass("a", bins(), 0.0, 1.0)], LOOKS[0], WORDS)
    assert "0 % exactly 0, 100 % exactly 1" in drawing.alt
