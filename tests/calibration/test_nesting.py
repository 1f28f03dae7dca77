"""Projection of nested regions."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.optimize import isotonic_regression

from segcal_cli.calibration.nesting import TooManyBranches, families_of, nested, project
from tests.calibration.builders_cases import regions, space_of

CHAIN = regions({1, 2, 3}, {2, 3}, {3})
TREE = regions({1, 2, 3, 4}, {2}, {3, 4}, {4}, {9})


def test_families_come_from_the_label_sets():
    assert [family.channels for family in families_of(CHAIN)] == [(0, 1, 2)]
    assert [family.channels for family in families_of(TREE)] == [(0, 1, 2, 3)]
    assert families_of(regions({1}, {2})) == ()
    assert families_of(space_of(3)) == ()


def test_a_chain_is_projected_like_isotonic_regression():
    p = np.random.default_rng(0).random((3, 300))
    projected = p.copy()
    changed = project(projected, families_of(CHAIN))
    for i in range(300):
        np.testing.assert_allclose(projected[:, i], isotonic_regression(p[:, i], increasing=False).x, atol=1e-12)
    assert (changed == ((p[1] > p[0]) | (p[2] > p[1]))).all()


def test_a_tree_gets_the_nearest_nested_probabilities():
    """No small feasible move brings the projection closer."""
    p = np.random.default_rng(1).random((5, 50))
    projected = p.copy()
    project(projected, families_of(TREE))
    assert (projected[4] == p[4]).all()
    rng = np.random.default_rng(2)
    distance = ((projected - p) ** 2).sum(axis=0)
    for _ in range(300):
        other = projected + rng.normal(0, 0.05, projected.shape) * (rng.random((5, 1)) < 0.5)
        feasible = np.ones(50, dtype=bool)
        for parent, child in ((0, 1), (0, 2), (2, 3)):
            assert (projected[child] <= projected[parent] + 1e-15).all()
            feasible &= other[child] <= other[parent]
        assert (((other - p) ** 2).sum(axis=0)[feasible] >= distance[feasible] - 1e-12).all()


@settings(max_examples=100, deadline=None)
@given(st.lists(st.tuples(*[st.floats(0, 1)] * 3), min_size=1, max_size=20))
def test_projected_probabilities_nest_and_nested_decisions_stay(rows: list[tuple[float, float, float]]):
    p = np.array(rows).T
    before = p > 0.5
    kept = nested(before, families_of(CHAIN))
    project(p, families_of(CHAIN))
    assert (np.diff(p, axis=0) <= 1e-15).all()
    assert ((p > 0.5) == before)[:, kept].all()


def test_regions_that_branch_without_end_are_refused():
    with pytest.raises(TooManyBranches, match="--nesting none"):
        families_of(regions(set(range(1, 12)), *({i} for i in range(1, 11))))
