"""The curves and frequencies that pictures show."""

from __future__ import annotations

import math

import numpy as np
import pytest
from scipy.optimize import brentq, isotonic_regression
from sklearn.isotonic import IsotonicRegression

from segcal_cli.metrics import smooth_error
from segcal_cli.metrics.calibration_errors import BinTable
from segcal_cli.metrics.cells import CellGrid
from segcal_cli.metrics.corp import decompose, isotonic
from segcal_cli.metrics.curves import BAND_CELLS, band_counts, corp_band, corp_curve
from segcal_cli.metrics.frequencies import case_frequencies, joint_histogram
from segcal_cli.metrics.measures import Settings
from segcal_cli.metrics.pooling import UNITS
from segcal_cli.metrics.smooth_error import smooth_ece, smoothed_frequency
from tests.metrics.builders_measures import REFERENCE, binary_case, measured, softmax_case


def softmax_measures(settings=None):
    return [
        measured(softmax_case(p, y), settings) for p, y in zip(REFERENCE["mc_prob"], REFERENCE["mc_label"], strict=True)
    ]


def cells_of(p, y):
    pooled = measured(binary_case(p, y)).pooled
    return BinTable(pooled.n[0], pooled.hits[0], pooled.p[0] / UNITS)


def random_cells(seed=0, voxels=5000):
    rng = np.random.default_rng(seed)
    p = rng.beta(0.3, 0.5, size=voxels).astype(np.float32)
    return p, rng.random(voxels) < p**1.5, cells_of(p, rng.random(voxels) < p**1.5)


@pytest.mark.parametrize("row", range(4))
def test_the_joint_histogram_equals_that_of_the_published_code(row):
    tables = [case.pooled.table(f"c{row}") for case in softmax_measures()]
    assert joint_histogram(tables, min_voxels=1).tolist() == REFERENCE["ace_dliris.mc.heatmap.M20"][row].tolist()


def test_a_column_of_the_joint_histogram_sums_to_the_cases_with_enough_voxels():
    tables = [case.pooled.table("c1") for case in softmax_measures()]
    n = np.stack([table.n for table in tables])
    for least in (1, 20, 40):
        assert joint_histogram(tables, least).sum(axis=0).tolist() == (n >= least).sum(axis=0).tolist()


def test_frequencies_on_the_edges_of_rows_belong_to_the_lower_row_and_zero_to_the_last():
    """12 of 20 voxels is 0.6, exactly the upper edge of (0.55, 0.6]: level 11 of 20, row 8."""
    table = BinTable(np.array([20] * 20), np.array([12, 0, 20, 1] + [0] * 16), np.zeros(20))
    rows = joint_histogram([table]).argmax(axis=0)
    assert rows[:4].tolist() == [8, 19, 0, 19]


def test_case_frequencies_are_left_out_below_the_least_number_of_voxels():
    tables = [BinTable(np.array([0, 4, 10]), np.array([0, 1, 5]), np.zeros(3))]
    np.testing.assert_array_equal(case_frequencies(tables, 5), [[np.nan, np.nan, 0.5]])
    np.testing.assert_array_equal(case_frequencies(tables, 0), [[np.nan, 0.25, 0.5]])


@pytest.mark.parametrize("seed", range(20))
def test_pooling_adjacent_violators_equals_scipy(seed):
    rng = np.random.default_rng(seed)
    size = int(rng.integers(1, 1700))
    y = rng.choice([0.0, 0.25, 0.5, 1.0], size) if seed % 2 else rng.random(size) + np.linspace(0.0, seed / 10.0, size)
    weights = rng.integers(1, 10**7, size).astype(float)
    expected = isotonic_regression(y, weights=weights).x
    np.testing.assert_allclose(isotonic(y, weights), expected, rtol=0, atol=1e-12)


def test_pooling_leaves_what_rises_and_levels_what_falls():
    assert isotonic(np.array([0.1, 0.2, 0.7]), np.ones(3)).tolist() == [0.1, 0.2, 0.7]
    assert isotonic(np.array([3.0, 2.0, 1.0]), np.array([1.0, 1.0, 2.0])).tolist() == [1.75] * 3


def test_the_corp_curve_is_isotonic_regression_of_the_cells():
    _, _, cells = random_cells()
    filled = cells.n > 0
    p = cells.p[filled] / cells.n[filled]
    expected = IsotonicRegression().fit_transform(
        p, cells.hits[filled] / cells.n[filled], sample_weight=cells.n[filled]
    )
    curve = corp_curve(cells)
    assert np.interp(p, curve.p, curve.r) == pytest.approx(expected, abs=1e-9)
    assert (np.diff(curve.r) >= 0.0).all()
    _, first = np.unique(curve.r, return_index=True)
    assert curve.n[first].sum() == cells.n.sum()


def test_the_corp_curve_of_a_class_without_voxels_is_empty():
    empty = BinTable(np.zeros(10, np.int64), np.zeros(10, np.int64), np.zeros(10))
    assert corp_curve(empty).p.size == 0


@pytest.mark.parametrize("bins", [1, 7, 20])
def test_band_counts_keep_every_voxel_in_a_cell_of_its_hundredth(bins):
    rng = np.random.default_rng(3)
    p = rng.random(4000).astype(np.float32)
    y = rng.random(4000) < 0.5
    pooled = measured(binary_case(p, y), Settings(bins=bins)).pooled
    counts = band_counts(pooled.n, pooled.hits, CellGrid(bins))
    uniform = CellGrid(bins).uniform
    cell = (np.ceil(p.astype(np.float64) * uniform) - 1).clip(0, uniform - 1).astype(int)
    edges = np.arange(BAND_CELLS) * uniform // BAND_CELLS
    expected = np.bincount(np.searchsorted(edges, cell, side="right") - 1, minlength=BAND_CELLS)
    assert counts[0, 0].tolist() == expected.tolist()
    assert counts[1].sum() == y.sum()


def test_the_corp_band_holds_the_curve_and_narrows_with_more_groups():
    rng = np.random.default_rng(4)

    def group():
        n = np.full(BAND_CELLS, 50)
        return np.stack([n, rng.binomial(n, np.linspace(0.05, 0.95, BAND_CELLS))])

    widths = []  # isotonic fits narrow with the cube root: by half from 8 to 64 groups
    for groups in (8, 64):
        counts = [group() for _ in range(groups)]
        centers, band = corp_band(counts, resamples=200)
        total = np.sum(counts, axis=0)
        curve = corp_curve(BinTable(total[0], total[1], total[0] * centers))
        at = np.interp(centers, curve.p, curve.r)
        assert ((band.low - 1e-9 <= at) & (at <= band.high + 1e-9)).mean() > 0.95
        widths.append((band.high - band.low).mean())
    assert widths[1] < 0.7 * widths[0]


def test_there_is_no_corp_band_with_five_groups_or_without_resamples():
    counts = np.ones((2, BAND_CELLS), np.int64)
    assert corp_band([counts] * 5) is None
    assert corp_band([counts] * 6, resamples=0) is None


def test_a_resample_without_voxels_in_a_cell_borrows_from_its_neighbours():
    one = np.zeros((2, BAND_CELLS), np.int64)
    one[0, [10, 90]], one[1, 90] = 10, 10
    other = np.zeros((2, BAND_CELLS), np.int64)
    other[0, [10, 50, 90]], other[1, [50, 90]] = 10, 10
    centers, band = corp_band([one] * 5 + [other], resamples=500)
    assert centers == pytest.approx([0.105, 0.505, 0.905])
    assert band.low[1] == pytest.approx(0.5)
    assert band.high[1] == 1.0


@pytest.mark.parametrize("seed", range(12))
def test_smooth_ece_is_the_root_that_scipy_finds(seed):
    rng = np.random.default_rng(seed)
    p = 1.0 / (1.0 + np.exp(-rng.normal(seed - 6.0, 1.0 + seed % 4, 4000)))
    cells = cells_of(p.astype(np.float32), rng.random(4000) < p ** (1.0 + 0.2 * (seed % 3)))
    waves = smooth_error._difference_waves(cells)
    excess = lambda width: smooth_error._smoothed_size(waves, width) - width  # noqa: E731
    root = brentq(excess, smooth_error.NARROWEST, 1.0, xtol=1e-12) if excess(smooth_error.NARROWEST) > 0 else None
    assert smooth_ece(cells) == pytest.approx(smooth_error._smoothed_size(waves, root or 1e-3), abs=2e-8)


def test_the_smoothed_frequency_is_the_kernel_mean_of_single_voxels():
    rng = np.random.default_rng(5)
    p = rng.random(3000).astype(np.float32)
    y = rng.random(3000) < np.clip(p + 0.1, 0.0, 1.0)
    made = smoothed_frequency(cells_of(p, y))
    width = smooth_ece(cells_of(p, y))  # where E(s) = s, the error is the width
    assert made.width == pytest.approx(width, abs=1e-6)
    at = np.array([0.0, 0.25, 0.5, 1.0])
    shift = at[:, None, None] - np.stack([p, -p, 2.0 - p])[None]
    kernel = np.exp(-0.5 * (shift / width) ** 2).sum(axis=1)
    assert np.interp(at, made.t, made.frequency) == pytest.approx(
        (kernel * y).sum(axis=1) / kernel.sum(axis=1), abs=2e-3
    )
    assert np.interp(at, made.t, made.reach) == pytest.approx(kernel.sum(axis=1), rel=5e-3)


def test_the_shift_of_a_smoothed_frequency_is_the_mean_distance_of_what_is_averaged():
    """Most voxels near 0, as in a scan: beside them the kernel averages its outermost flank."""
    rng = np.random.default_rng(6)
    p = np.concatenate([rng.random(20000) * 0.01, rng.random(500)]).astype(np.float32)
    made = smoothed_frequency(cells_of(p, rng.random(p.size) < p * 0.6))
    at = np.array([0.0, 0.03, 0.05, 0.5, 1.0])
    shift = at[:, None, None] - np.stack([p, -p, 2.0 - p])[None]
    kernel = np.exp(-0.5 * (shift / made.width) ** 2)
    far = np.abs((kernel * shift).sum(axis=(1, 2))) / kernel.sum(axis=(1, 2)) / made.width
    assert np.interp(at, made.t, made.shift) == pytest.approx(far, abs=0.02)
    assert far[2] > 1.0
    assert far[0] == pytest.approx(0.0, abs=1e-9)


def test_a_smoothed_frequency_is_not_narrower_than_can_be_seen_and_smooth_at_its_width():
    """With a well calibrated model smooth ECE is tiny; neighbouring nodes must not jump."""
    rng = np.random.default_rng(7)
    p = rng.random(200000).astype(np.float32)
    cells = cells_of(p, rng.random(p.size) < p)
    made = smoothed_frequency(cells)
    assert smooth_ece(cells) < smooth_error.NARROWEST_SHOWN == made.width
    assert np.diff(made.t).max() < made.width / 4
    assert np.abs(np.diff(made.frequency, n=2)).max() < 0.004


def test_where_nothing_is_uncertain_the_log_loss_of_the_rate_is_zero_and_not_minus_zero():
    n, none = np.array([3, 5]), np.array([0, 0])
    for hits in (none, n):
        for part in decompose(BinTable(n, hits, np.array([0.1, 0.2])), 0.1, 0.2):
            assert math.copysign(1.0, part.uncertainty) == 1.0
