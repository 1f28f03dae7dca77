"""Boxes: the largest inside a mask, the bounding ones around its components."""

import itertools

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from segcal_cli.confidence.boxes import InnerBoxesIn3D, components, inner_boxes, largest_rectangle, outer_boxes


def brute(mask):
    rows, columns = mask.shape
    best = None
    for top, left in itertools.product(range(rows), range(columns)):
        for bottom, right in itertools.product(range(top, rows), range(left, columns)):
            if mask[top : bottom + 1, left : right + 1].all():
                key = (-(bottom - top + 1) * (right - left + 1), top, left, bottom, right)
                best = key if best is None else min(best, key)
    return best[1:]


@given(st.integers(0, 2**32 - 1), st.floats(0.3, 0.95))
@settings(max_examples=80, deadline=None)
def test_the_largest_box_is_the_first_of_the_largest(seed, share):
    mask = np.random.default_rng(seed).random((6, 7)) < share
    if mask.any():
        assert largest_rectangle(mask) == brute(mask)


def test_boxes_of_two_components_are_taken_one_by_one():
    mask = np.zeros((1, 6, 10), bool)
    mask[0, 1:4, 1:3] = mask[0, 3, 3] = True
    mask[0, 4:6, 7:10] = True
    mask[0, 4, 7] = False
    inner, outer = inner_boxes(mask, "c"), outer_boxes(mask)
    assert [component.bounds for component in components(mask)] == [
        ((0, 1), (1, 4), (1, 4)),
        ((0, 1), (4, 6), (7, 10)),
    ]
    assert outer.sum() == 9 + 6
    expected = np.zeros_like(mask)
    expected[0, 1:4, 1:3] = True
    expected[0, 4:6, 8:10] = True
    assert np.array_equal(inner, expected)


def test_a_singleton_axis_anywhere_makes_an_image():
    mask = np.zeros((5, 1, 6), bool)
    mask[1:4, 0, 2:4] = True
    assert np.array_equal(inner_boxes(mask, "c"), mask)


def test_inner_boxes_of_a_volume_are_refused_by_name():
    with pytest.raises(InnerBoxesIn3D, match="case-1: inner boxes are for 2-D images"):
        inner_boxes(np.ones((2, 3, 4), bool), "case-1")
