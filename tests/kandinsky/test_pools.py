"""Pools: the thresholds of both weightings, exact, infinities included."""

import math
from fractions import Fraction

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from segcal_cli.core.conformal import conformal_rank
from segcal_cli.kandinsky.codes import INFINITE
from segcal_cli.kandinsky.passes import CalibrationPass
from segcal_cli.kandinsky.pools import Pools, patient_run
from segcal_cli.kandinsky.regions import Regions
from segcal_cli.kandinsky.runs import coarsened, counted, empty_run, join
from tests.kandinsky.builders_rings import EXACT, PLACING, SPACE, cases, codes, run

REGIONS = {
    "image": Regions("image", (1, 1, 1)),
    "pixel": Regions("pixel", (768,) * 3, PLACING),
    "grid": Regions("grid", (12,) * 3, blocks=(4, 3)),
    "atlas": Regions("atlas", (4,) * 3, values=(0, 1, 2, 3)),
    "boundary": Regions("boundary", (1, 6, 6), edges=dict.fromkeys((1, 2), (-1.2, 0.0, 1.2, 2.1))),
}

patients = st.lists(st.lists(st.integers(0, 40), min_size=1, max_size=6), min_size=1, max_size=12)


def pools_of(scores, slots=1):
    """Pools of one slot: a list of codes per patient."""
    runs = [patient_run(counted(np.array(own), slots << 16)) for own in scores]
    return Pools.of(join(runs) if runs else empty_run(2), slots)


@pytest.mark.parametrize("method", REGIONS)
def test_thresholds_of_the_rings_are_those_of_the_brute_force(method):
    regions = REGIONS[method]
    pools, _ = run(
        CalibrationPass(SPACE, regions, {case.group: 2 for case in cases("calibration")}, 10**9), cases("calibration")
    )
    offsets = regions.offsets
    for weighting in ("voxel", "patient"):
        for index, alpha in enumerate(EXACT["alphas"]):
            found = pools.thresholds(float(alpha), weighting)
            expected = codes(EXACT[f"A_{method}_q_{weighting}"][index])
            for channel, size in enumerate(regions.sizes):
                assert np.array_equal(found[offsets[channel] : offsets[channel + 1]], expected[channel, :size])
    expected_groups = EXACT[f"A_{method}_n_groups"]
    for channel, size in enumerate(regions.sizes):
        assert np.array_equal(pools.n_groups[offsets[channel] : offsets[channel + 1]], expected_groups[channel, :size])


@given(patients, st.integers(1, 99))
def test_the_patient_rule_is_that_of_fractions(scores, percent):
    groups = len(scores)
    need = (groups + 1) * (1 - Fraction(percent, 100))
    shares = [(q, sum(Fraction(sum(s <= q for s in own), len(own)) for own in scores)) for q in range(41)]
    expected = next((q for q, share in shares if share >= need and share > 0), INFINITE)
    assert pools_of(scores).thresholds(percent / 100, "patient").tolist() == [expected]


@given(patients, st.integers(1, 99))
def test_the_voxel_rule_is_the_conformal_rank_of_all_voxels(scores, percent):
    pooled = sorted(code for own in scores for code in own)
    k = conformal_rank(len(pooled), percent / 100)
    expected = pooled[k - 1] if k <= len(pooled) else INFINITE
    assert pools_of(scores).thresholds(percent / 100, "voxel").tolist() == [expected]


@given(st.lists(st.integers(0, 40), min_size=1, max_size=30), st.integers(1, 99))
def test_with_one_voxel_per_patient_both_weightings_agree(scores, percent):
    pools = pools_of([[score] for score in scores])
    assert np.array_equal(pools.thresholds(percent / 100, "patient"), pools.thresholds(percent / 100, "voxel"))


@given(patients, st.sampled_from(["patient", "voxel"]))
def test_a_class_is_in_the_set_exactly_where_its_p_value_exceeds_alpha(scores, weighting):
    pools = pools_of(scores)
    every = np.arange(45, dtype=np.uint16)
    p = pools.p_values(np.zeros(45, np.int64), every, weighting)
    for percent in range(1, 100):
        limit = pools.thresholds(percent / 100, weighting)[0]
        assert np.array_equal(every <= limit, p > percent / 100)


@given(patients)
def test_sets_shrink_as_alpha_grows(scores):
    pools = pools_of(scores)
    limits = [pools.thresholds(percent / 100, "patient")[0] for percent in range(1, 100)]
    assert limits == sorted(limits, reverse=True)


def test_nine_patients_are_needed_for_a_tenth_not_ten():
    assert pools_of([[5]] * 8).thresholds(0.1, "patient")[0] == INFINITE
    assert pools_of([[5]] * 9).thresholds(0.1, "patient")[0] == 5
    assert pools_of([[5]] * 18).thresholds(0.05, "patient")[0] == INFINITE
    assert pools_of([[5]] * 19).thresholds(0.05, "patient")[0] == 5


@pytest.mark.parametrize("n", [5, 9, 19, 25])
def test_numpy_quantiles_and_clamped_ranks_give_other_thresholds(n):
    """What is easily written instead: np.quantile by the higher value or linear, and a rank clamped to n."""
    scores = np.arange(n)
    alpha = 0.1
    ours = pools_of([[int(score)] for score in scores]).thresholds(alpha, "voxel")[0]
    k = conformal_rank(n, alpha)
    clamped = min(k, n) - 1
    higher = np.quantile(scores, min(1.0, math.ceil((n + 1) * (1 - alpha)) / n), method="higher")
    linear = np.quantile(scores, 1 - alpha)
    assert ours != linear
    if k > n:
        assert ours == INFINITE != clamped
        assert ours != higher
    else:
        assert ours == k - 1


def test_half_an_image_in_one_voxel_and_two_hundred_weigh_the_same():
    pools = pools_of([[7], [3] * 200])
    assert pools.n_groups.tolist() == [2]
    assert pools.thresholds(0.4, "patient")[0] == 7


def test_a_slot_without_data_is_infinite_and_has_p_value_one():
    pools = pools_of([[3]], slots=2)
    assert pools.thresholds(0.6, "patient").tolist() == [3, INFINITE]
    assert pools.p_values(np.array([1]), np.array([0], np.uint16), "patient").tolist() == [1.0]


def test_ties_at_the_threshold_are_all_in_the_set():
    assert pools_of([[4, 4, 4]] * 20).thresholds(0.1, "patient")[0] == 4


def test_counts_beyond_two_to_the_19_do_not_overflow():
    n = 2**21
    run_ = patient_run(counted(np.repeat([1, 2], n), 1 << 16))
    assert run_.columns[0].tolist() == [2**43, 2**43]


def test_dropping_bits_commutes_with_adding_up():
    rng = np.random.default_rng(0)
    runs = [patient_run(counted(rng.integers(0, 3000, 50), 1 << 16)) for _ in range(6)]
    before = join([coarsened(one, 4, 16) for one in runs])
    after = coarsened(join(runs), 4, 16)
    assert np.array_equal(before.keys, after.keys)
    assert np.array_equal(before.columns, after.columns)


def test_the_p_values_of_the_rings_are_those_of_the_brute_force():
    from segcal_cli.kandinsky.model import Model
    from segcal_cli.kandinsky.sets import class_view, p_values
    from segcal_cli.kandinsky.views import View

    pools = run(
        CalibrationPass(SPACE, REGIONS["atlas"], {c.group: 2 for c in cases("calibration")}, 10**9),
        cases("calibration"),
    )
    model = Model(SPACE, REGIONS["atlas"], *pools, "patient")
    for image in range(2):
        view = View(cases("test")[image])
        for channel in range(3):
            p = p_values(model, class_view(model, view, channel)).reshape(24, 32)
            assert np.abs(p - EXACT["A_atlas_pvalues_test0to1"][image, channel]).max() < 1e-6
