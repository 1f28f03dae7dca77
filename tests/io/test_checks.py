import functools
import itertools
import pickle
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest

from segcal_cli.core.errors import CaseErrors
from segcal_cli.core.volume import Stored
from segcal_cli.io import checks, tallies
from segcal_cli.io.checks import ValueChecker, check_all, check_fit, check_values
from tests.io.builders_nnunet import softmax_field

SHAPE = (6, 7, 30)  # 1260 voxels
PATH = Path("out/A.npz")
FLOAT32, FLOAT16, UINT16, UINT8 = (
    Stored("float32"),
    Stored("float16"),
    Stored("uint16", 1 / 65535),
    Stored("uint8", 1 / 255),
)


def checker(n=3, exclusive=True, values="probabilities", stored=FLOAT32, axis=0):
    return ValueChecker(PATH, ("background", *(f"class {i}" for i in range(1, n))), exclusive, values, stored, axis)


def soft(n=3, seed=0):
    return softmax_field(SHAPE, n, seed)[0]


def independent(n=2, seed=0):
    return np.random.default_rng(seed).random((n, *SHAPE), dtype=np.float32)


def check(array, padding=0, **options):
    return check_values(checker(len(array), **options), array, padding)


def refused(array, error, text, **options):
    with pytest.raises(error) as caught:
        check(array, **options)
    assert str(caught.value) == text
    assert str(pickle.loads(pickle.dumps(caught.value))) == text


def twice(array):
    """Softmax of probabilities."""
    return (np.exp(array) / np.exp(array).sum(axis=0)).astype(np.float32)


@pytest.mark.parametrize("n", [2, 3, 7])
def test_a_softmax_passes_without_a_warning(n):
    array = soft(n)
    report = check(array)
    assert (report.warnings, report.hard, report.constant) == ((), False, False)
    assert (report.lo, report.hi) == (array.min(), array.max())


@pytest.mark.parametrize("n", [1, 2, 3])
def test_independent_regions_pass_without_a_warning(n):
    assert check(independent(n), exclusive=False).warnings == ()


def test_logits_pass_and_have_no_saturation():
    report = check(np.log(soft()), values="logits")
    assert (report.warnings, report.saturation, report.hard) == ((), None, False)


# NaN and infinite values


@pytest.mark.parametrize("values", ["probabilities", "logits"])
def test_nan_and_infinite_values_are_counted_and_the_first_is_named(values):
    array = soft()
    array[2, 3, 4, 5] = np.nan
    array[1, 3, 4, 6] = np.nan
    array[0, 5, 0, 0] = -np.inf
    text = "out/A.npz: 2 NaN and 1 infinite values, first at (x,y,z) = (5, 4, 3), class class 2"
    refused(array, checks.NotFinite, text, values=values)


def test_a_single_infinite_logit_is_refused():
    array = np.log(soft())
    array[0, 0, 0, 0] = -np.inf
    text = "out/A.npz: 0 NaN and 1 infinite values, first at (x,y,z) = (0, 0, 0), class background"
    refused(array, checks.NotFinite, text, values="logits")


# the range of probabilities


def test_logits_declared_as_probabilities_are_refused():
    array = np.log(soft()) * 10
    array[0, 0, 0, 0], array[1, 0, 0, 0] = -12.5, 7.25
    lo, hi = array.min(), array.max()
    text = f"out/A.npz: values from {lo:.4g} to {hi:.4g} are not probabilities; logits? --values logits"
    refused(array, checks.NotProbabilities, text)


@pytest.mark.parametrize(("low", "high"), [(-2e-6, 1), (0, 1 + 2e-6)])
def test_an_excess_of_more_than_a_millionth_is_refused(low, high):
    array = independent()
    array[0, 1, 1, 1], array[1, 2, 2, 2] = low, high
    with pytest.raises(checks.NotProbabilities):
        check(array, exclusive=False)


def test_a_smaller_excess_is_clipped_in_place_and_nothing_else_is_touched():
    array = independent()
    array[0, 1, 1, 1], array[1, 2, 2, 2] = -5e-7, 1 + 5e-7
    expected = array.clip(0, 1)
    report = check(array, exclusive=False)
    np.testing.assert_array_equal(array, expected)
    assert (report.lo, report.hi) == (0, 1)
    assert (report.saturation.zeros.tolist(), report.saturation.ones.tolist()) == ([1, 0], [0, 1])


# the sum over channels


def test_a_sigmoid_declared_as_softmax_is_refused_with_the_sums():
    array = independent(3)
    sums = array.sum(axis=0)
    text = (
        f"out/A.npz: channels sum to {np.median(sums):.4g} ({sums.min():.4g} to {sums.max():.4g}) along axis 3: "
        "sigmoid? wrong --channel-axis? cubic resampling?"
    )
    refused(array, checks.BadChannelSum, text, axis=3)


@pytest.mark.parametrize(
    ("stored", "tolerance"),
    [(FLOAT32, 1e-4), (FLOAT16, 2e-3), (UINT16, 3 / 131070 + 1e-4), (UINT8, 3 / 510 + 1e-3), (Stored("float64"), 1e-4)],
)
def test_the_tolerance_of_the_sum_is_that_of_the_stored_type(stored, tolerance):
    assert checker(3, stored=stored).sum_tolerance == pytest.approx(tolerance, rel=1e-12)
    for excess, passes in ((0.98 * tolerance, True), (1.02 * tolerance, False)):
        for sign in (-1, 1):
            array = soft()
            array[:, 2, 3, 4] = np.array([0.25, 0.25, 0.5 + sign * excess])
            if passes:
                assert check(array, stored=stored).warnings == ()
            else:
                with pytest.raises(checks.BadChannelSum):
                    check(array, stored=stored)


@pytest.mark.parametrize(("stored", "steps"), [(UINT8, 255), (UINT16, 65535)])
def test_a_softmax_rounded_to_integers_passes(stored, steps):
    array = (np.rint(soft(7) * steps) / steps).astype(np.float32)
    assert check(array, stored=stored).warnings == ()


def test_a_softmax_rounded_to_float16_passes():
    assert check(soft(7).astype(np.float16).astype(np.float32), stored=FLOAT16).warnings == ()


def test_zero_voxels_are_allowed_as_far_as_they_are_known_to_be_padding():
    array = soft()
    array[:, :2] = 0
    assert check(array, padding=2 * 7 * 30, stored=FLOAT16).warnings == ()
    with pytest.raises(checks.BadChannelSum):
        check(array, padding=2 * 7 * 30 - 1, stored=FLOAT16)


# probabilities declared as logits


@pytest.mark.parametrize(("array", "exclusive"), [(soft(), True), (independent(1), False), (independent(3), False)])
def test_probabilities_declared_as_logits_are_refused(array, exclusive):
    text = "out/A.npz: these are probabilities; say --values probabilities"
    refused(array, checks.NotLogits, text, exclusive=exclusive, values="logits")


def test_log_probabilities_and_small_logits_that_do_not_sum_to_1_are_logits():
    assert check(np.log(soft()), values="logits").warnings == ()
    assert check(independent(3), values="logits").warnings == ()


# an activation applied twice


@pytest.mark.parametrize(("n", "lo", "hi"), [(2, "0.2689", "0.7311"), (3, "0.2119", "0.5761"), (4, "0.1749", "0.4754")])
def test_a_softmax_applied_twice_is_warned_about(n, lo, hi):
    hard = np.eye(n, dtype=np.float32)[np.random.default_rng(0).integers(0, n, SHAPE)].transpose(3, 0, 1, 2)
    report = check(twice(np.ascontiguousarray(hard)))
    assert report.warnings == (f"out/A.npz: all values within {lo}..{hi}, as when the activation is applied twice",)
    assert check(twice(soft(n))).warnings != ()


def test_a_softmax_with_one_value_outside_that_range_is_not_warned_about():
    array = twice(soft())
    array[:, 0, 0, 0] = (0.2, 0.3, 0.5)
    assert check(array).warnings == ()


def test_a_sigmoid_applied_twice_is_refused():
    array = 1 / (1 + np.exp(-independent(2)))
    array[0, 0, 0, 0], array[1, 0, 0, 0] = 0.5, 0.73105
    text = "out/A.npz: all values within 0.5..0.7311, as when the activation is applied twice"
    for stored in (FLOAT32, FLOAT16, UINT16, UINT8):
        refused(array.copy(), checks.TwiceActivated, text, exclusive=False, stored=stored)


# truncated maps


@pytest.mark.parametrize("n", [1, 2])
def test_a_map_kept_only_where_it_wins_is_refused(n):
    array = independent(n)
    array[-1] = np.where(np.arange(1260).reshape(SHAPE) < 1000, 0.5 + array[-1] * 0.49 + 1e-3, 0)
    text = "out/A.npz: a truncated soft map: no value between 0 and 0.5; export the full map"
    refused(array, checks.TruncatedMap, text, exclusive=False)


def test_999_such_values_pass():
    array = np.where(np.arange(1260).reshape(SHAPE) < 999, 0.5 + independent(1) * 0.49 + 1e-3, 0).astype(np.float32)
    assert check(array, exclusive=False).warnings == ()


def test_a_map_clipped_at_a_tenth_is_refused():
    array = independent(1)
    array = np.where(np.arange(1260).reshape(SHAPE) < 1000, 0.1 + array * 0.39, 0).astype(np.float32)
    array[0, -1, -1, -1] = 0.8
    text = "out/A.npz: a truncated soft map: no value between 0 and 0.1; export the full map"
    refused(array, checks.TruncatedMap, text, exclusive=False)


def test_a_single_faint_value_in_another_slab_makes_a_map_whole():
    array = np.where(np.arange(1260).reshape(SHAPE) < 1200, 0.5 + independent(1) * 0.49 + 1e-3, 0).astype(np.float32)
    array[0, -1, -1, -1] = 0.01
    one = checker(1, exclusive=False)
    flat = array.reshape(1, -1)
    assert one.finish(one.tally(flat[:, :1000]) + one.tally(flat[:, 1000:]), array).warnings == ()


def test_a_softmax_is_not_asked_whether_it_is_truncated():
    array = np.zeros((2, *SHAPE), dtype=np.float32)
    array[0] = 0.6 + 0.39 * independent(1)[0]
    array[1] = 1 - array[0]
    array[:, 0, 0, 0] = (1, 0)
    assert check(array).warnings == ()


# hard masks


def test_one_hard_case_is_warned_about_and_all_of_them_are_refused():
    hard = np.eye(3, dtype=np.float32)[np.random.default_rng(0).integers(0, 3, SHAPE)].transpose(3, 0, 1, 2).copy()
    report = check(hard)
    assert report.hard
    assert report.warnings == ("out/A.npz: holds only 0 and 1: a hard mask, or a writer that rounded",)
    check_all([report, check(soft())])
    with pytest.raises(checks.OnlyHardMasks) as caught:
        check_all([report, report])
    assert str(caught.value) == "2 of 2 predictions hold only 0 and 1: hard masks, or a writer that rounded"


def test_the_softmax_that_nnunet_v1_rounded_is_named():
    rounded = np.rint(soft(2)).astype(np.float16).astype(np.float32)
    report = check(rounded, stored=FLOAT16)
    text = "out/A.npz: holds only 0 and 1 (nnU-Net v1 of spring 2023 rounded its softmax); predict again"
    with pytest.raises(checks.RoundedSoftmax) as caught:
        check_all([report], rounding_writer=True)
    assert str(caught.value) == text
    with pytest.raises(CaseErrors) as several:
        check_all([report, report], rounding_writer=True)
    assert str(several.value) == f"{text}\n{text}"


@pytest.mark.parametrize(
    ("stored", "highest", "values"),
    [
        (Stored("uint8"), 1, "probabilities"),
        (Stored("int16", 1.0), 3, "probabilities"),
        (FLOAT32, 3, "probabilities"),
        (FLOAT32, 3, "logits"),
    ],
)
def test_a_label_map_where_soft_values_are_needed_is_refused(stored, highest, values):
    array = np.random.default_rng(0).integers(0, highest + 1, size=(1, *SHAPE)).astype(np.float32)
    array[0, 0, 0, 0] = highest
    text = "out/A.npz: a hard mask; calibration needs logits or probabilities"
    refused(array, checks.HardMask, text, exclusive=False, stored=stored, values=values)


# sigmoid that looks like softmax, constants


def test_regions_that_sum_to_1_everywhere_look_like_softmax():
    report = check(soft(), exclusive=False)
    text = "out/A.npz: the channels of every voxel sum to 1, which looks like softmax, not sigmoid"
    assert report.warnings == (text,)


def test_one_constant_case_is_warned_about_and_no_fit_is_made_of_constants_alone():
    constant = np.full((2, *SHAPE), 0.1, dtype=np.float32)
    constant[0] = 0.9
    report = check(constant)
    assert report.constant
    assert report.warnings == ("out/A.npz: every voxel holds the same values",)
    check_fit([report, check(soft())])
    check_all([report, report])
    with pytest.raises(checks.OnlyConstants) as caught:
        check_fit([report, report])
    assert str(caught.value) == "every prediction is constant; nothing can be fitted"


# counting


def test_saturation_is_counted_per_class():
    array = independent(2) * 0.8 + 0.1
    array[0, 0, 0, :5] = (0, 0, 5e-7, 1, 1 - 5e-7)
    array[1, 0, 0, :4] = (1e-6, 2e-6, 1e-30, 0)
    saturation = check(array, exclusive=False).saturation
    assert saturation.voxels == 1260
    assert saturation.zeros.tolist() == [2, 1]
    assert saturation.ones.tolist() == [1, 0]
    assert saturation.near_zero.tolist() == [3, 2]  # 1e-6 itself is not below 1e-6
    assert saturation.near_one.tolist() == [2, 0]


def reports_equal(a, b):
    left, right = a.saturation, b.saturation
    same = all(np.array_equal(getattr(left, n), getattr(right, n)) for n in ("zeros", "ones", "near_zero", "near_one"))
    return same and (a.lo, a.hi, a.hard, a.constant, a.warnings) == (b.lo, b.hi, b.hard, b.constant, b.warnings)


@pytest.mark.parametrize("exclusive", [True, False])
def test_slabs_from_two_threads_merge_to_the_same_report_in_any_order(exclusive):
    array = soft() if exclusive else independent(3)
    if exclusive:
        array[:, 2] = np.array([1, 0, 0], dtype=np.float32)[:, None, None]
    one = checker(3, exclusive)
    flat = array.reshape(3, -1)
    with ThreadPoolExecutor(2) as pool:
        parts = list(pool.map(lambda i: one.tally(flat[:, i : i + 41]), range(0, 1260, 41)))
    np.random.default_rng(0).shuffle(parts)
    assert reports_equal(one.finish(functools.reduce(tallies.merge, parts), array), check(array, exclusive=exclusive))


def test_slabs_cover_every_voxel_once():
    cut = list(tallies.slabs(4, 1_000_000))
    assert cut[0].start == 0
    assert cut[-1].stop == 1_000_000
    assert all(a.stop == b.start for a, b in itertools.pairwise(cut))
    assert max(part.stop - part.start for part in cut) * 4 == tallies.SLAB_ELEMENTS
