"""Which slices of a scan are drawn."""

import numpy as np

from segcal_cli.confidence.sets import CaseSets
from segcal_cli.confidence.views import views
from segcal_cli.workflows.conformal_overlays import planes_of
from tests.confidence.builders_synth2d import TARGETS, binary_case

SHAPE = (5, 7, 9)


def view_of(truth):
    return views(binary_case("c", np.full(SHAPE, -1.0), truth), TARGETS)[0]


def sets_with(outer):
    return CaseSets(np.zeros(SHAPE, bool), outer, 0)


def box(z, y, x):
    made = np.zeros(SHAPE, bool)
    made[z, y, x] = True
    return made


def test_slices_go_through_the_most_of_the_truth():
    truth = box(slice(1, 4), 2, 3) | box(3, slice(2, 5), 3) | box(3, 2, slice(3, 8))
    assert planes_of(view_of(truth), [sets_with(np.ones(SHAPE, bool))]) == [(0, 3), (1, 2), (2, 3)]


def test_without_truth_they_go_through_an_outer_set_that_says_something():
    """At the strictest level it is everything, which has its most anywhere, and at the next one nothing."""
    found = [sets_with(np.ones(SHAPE, bool)), sets_with(np.zeros(SHAPE, bool)), sets_with(box(4, 5, 6))]
    assert planes_of(view_of(np.zeros(SHAPE, bool)), found) == [(0, 4), (1, 5), (2, 6)]


def test_where_there_is_nothing_to_see_they_go_through_the_middle():
    found = [sets_with(np.ones(SHAPE, bool)), sets_with(np.zeros(SHAPE, bool))]
    assert planes_of(view_of(np.zeros(SHAPE, bool)), found) == [(0, 2), (1, 3), (2, 4)]
