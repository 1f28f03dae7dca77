"""Passes: exact in any order of cases, and within their memory."""

import itertools

import numpy as np
import pytest

from segcal_cli.kandinsky.features import N_BINS
from segcal_cli.kandinsky.passes import PAIR_BYTES, CalibrationPass, MapPass
from segcal_cli.kandinsky.regions import Regions
from tests.kandinsky.builders_rings import PLACING, SPACE, cases

PIXEL = Regions("pixel", (768,) * 3, PLACING)
SOME = cases("calibration")[:12]
GROUPS = {case.group: 2 for case in SOME}


def states(estimator, some):
    return [estimator.update(estimator.empty(), case) for case in some]


def merged(estimator, parts):
    state = estimator.empty()
    for part in parts:
        state = estimator.merge(state, part)
    return state


@pytest.mark.parametrize("memory", [10**9, 400 * PAIR_BYTES, 4000 * PAIR_BYTES])
def test_order_and_grouping_of_cases_change_no_byte(memory):
    estimator = CalibrationPass(SPACE, PIXEL, GROUPS, memory)
    parts = states(estimator, SOME)
    straight = estimator.finish(merged(estimator, parts))
    backwards = estimator.finish(merged(estimator, reversed(parts)))
    halves = estimator.finish(estimator.merge(merged(estimator, parts[1::2]), merged(estimator, parts[::2])))
    for other in (backwards, halves):
        for a, b in itertools.product(range(2), range(1)):
            for name in ("offsets", "codes", "mass", "counts"):
                assert np.array_equal(getattr(straight[a], name), getattr(other[a], name)), (a, b)
            assert straight[a].shift == other[a].shift


def test_as_few_bits_as_will_do_are_dropped():
    plenty = CalibrationPass(SPACE, PIXEL, GROUPS, 10**9)
    pools, image = plenty.finish(merged(plenty, states(plenty, SOME)))
    pairs = len(pools.codes) + len(image.codes)
    tight = CalibrationPass(SPACE, PIXEL, GROUPS, (pairs - 1) * PAIR_BYTES)
    coarser, coarser_image = tight.finish(merged(tight, states(tight, SOME)))
    assert pools.shift == 0
    assert coarser.shift >= 1
    assert len(coarser.codes) + len(coarser_image.codes) < pairs
    assert np.array_equal(coarser.n_voxels, pools.n_voxels)
    assert np.array_equal(coarser.n_groups, pools.n_groups)


def test_coarser_thresholds_admit_what_the_fine_ones_do():
    fine = CalibrationPass(SPACE, Regions("image", (1, 1, 1)), GROUPS, 10**9)
    coarse = CalibrationPass(SPACE, Regions("image", (1, 1, 1)), GROUPS, 400 * PAIR_BYTES)
    a, _ = fine.finish(merged(fine, states(fine, SOME)))
    b, _ = coarse.finish(merged(coarse, states(coarse, SOME)))
    assert b.shift > 0
    for alpha in (0.15, 0.3, 0.5):
        assert (a.thresholds(alpha, "patient") >> b.shift <= b.thresholds(alpha, "patient")).all()


def test_a_patient_that_lost_a_case_still_counts():
    estimator = CalibrationPass(SPACE, Regions("image", (1, 1, 1)), GROUPS, 10**9)
    pools, _ = estimator.finish(merged(estimator, states(estimator, SOME[:3])))
    assert pools.n_groups.tolist() == [2, 2, 2]


def test_histograms_count_every_voxel_of_the_learned_classes_once():
    estimator = MapPass(SPACE, (1, 2), "ecdf", PLACING)
    found = estimator.finish(merged(estimator, states(estimator, SOME)))
    labels = np.stack([case.labels.codes[0] for case in SOME])
    cells = np.bincount(found.all.keys // N_BINS["ecdf"], weights=found.all.columns[0], minlength=2 * 768)
    assert np.array_equal(cells.reshape(2, 24, 32), np.stack([(labels == c).sum(0) for c in (1, 2)]))


def test_patients_kept_apart_add_up_to_the_whole():
    together, apart = (MapPass(SPACE, (1,), "ecdf", PLACING, keep_groups=keep) for keep in (False, True))
    a = together.finish(merged(together, states(together, SOME)))
    b = apart.finish(merged(apart, states(apart, SOME)))
    assert np.array_equal(a.all.keys, b.all.keys)
    assert np.array_equal(a.all.columns, b.all.columns)
    assert list(b.by_group) == sorted(GROUPS)
