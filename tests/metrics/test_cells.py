"""The grid of cells: its size, its order, and edges that are exact for every float32."""

from __future__ import annotations

import math

import numpy as np
import pytest

from segcal_cli.metrics.cells import CellGrid, geometric_cell
from segcal_cli.metrics.measures import Settings
from tests.metrics.builders_measures import binary_case, measured


def test_twenty_bins_make_1674_cells():
    grid = CellGrid(20)
    assert (grid.uniform, grid.tail, grid.size) == (1200, 238, 1674)


@pytest.mark.parametrize(("bins", "uniform"), [(1, 1200), (7, 1204), (15, 1200), (700, 1400), (1200, 1200)])
def test_uniform_bins_are_the_smallest_multiple_from_1200_up(bins, uniform):
    assert CellGrid(bins).uniform == uniform


def test_geometric_cells_are_eight_to_a_factor_of_two():
    for q in [2.0**-40, 1e-9, 3.3e-5, 1 / 1200, 2.0**-10, 0.75 * 2.0**-20]:
        f, e = math.frexp(q)
        assert geometric_cell(np.array([q]))[0] == 8 * (e + 39) + math.floor(8 * (2 * f - 1))
    assert geometric_cell(np.array([0.0, 1e-30, 2.0**-41])).tolist() == [0, 0, 0]


@pytest.mark.parametrize("closed", ["right", "left"])
@pytest.mark.parametrize("bins", [1, 7, 20, 1000, 1200])
@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_comparing_with_the_last_number_before_an_edge_is_the_same_as_computing_the_bin(closed, bins, dtype):
    grid, one = CellGrid(bins, closed), dtype(1)
    for edge in (1, grid.uniform // 2, grid.uniform - 1):
        last = grid.last_before(edge, grid.uniform, np.dtype(dtype))
        around = np.array([last, np.nextafter(last, one)]).astype(np.float64)
        assert (grid.uniform_bin(around) >= edge).tolist() == [False, True]


@pytest.mark.parametrize("closed", ["right", "left"])
@pytest.mark.parametrize("bins", [1, 2, 7, 20, 999, 1200])
def test_reported_bins_are_those_of_the_definition(closed, bins):
    edges = (np.arange(bins + 1) / bins).astype(np.float32)
    p = np.unique(np.concatenate([edges, np.nextafter(edges, np.float32(0)), np.nextafter(edges, np.float32(1))]))
    wide = p.astype(np.float64) * bins
    index = np.ceil(wide) - 1 if closed == "right" else np.floor(wide)
    expected = np.bincount(np.clip(index, 0, bins - 1).astype(int), minlength=bins)
    table = measured(binary_case(p, np.zeros(p.shape)), Settings(bins=bins, closed=closed)).pooled.table("lesion")
    np.testing.assert_array_equal(table.n, expected)


def test_cells_are_in_order_of_p():
    p = np.sort(np.concatenate([np.geomspace(1e-14, 0.5, 4000), 1 - np.geomspace(1e-7, 0.5, 4000)])).astype(np.float32)
    counts = measured(binary_case(p, np.zeros(p.shape))).pooled
    filled = counts.n[0] > 0
    mean = counts.p[0][filled] / counts.n[0][filled]
    assert (np.diff(mean) >= -1.0).all()  # pooled sums are whole multiples of 2^-24
    assert counts.n.sum() == p.size
