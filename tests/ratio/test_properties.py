"""What holds for every case: bounds, invariances, and the guards against known misprints."""

from __future__ import annotations

import itertools
import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from segcal_cli.ratio.bounds import nested_ends
from segcal_cli.ratio.fit import RatioSums, Rows, TwiceTheSameCase
from segcal_cli.ratio.intervals import intervals
from segcal_cli.ratio.settings import METHODS, Settings
from segcal_cli.ratio.sums import Wanted, case_row
from segcal_cli.ratio.table import to_arrays
from segcal_cli.ratio.thresholds import Calibration, method_scores
from tests.ratio.builders_ratio import ratio, reference_table, softmax_case

WANTED = Wanted(labels=True, blocks=True, debiased=True)
FEW = settings(max_examples=40)

shapes = st.tuples(st.integers(1, 6), st.integers(2, 7), st.integers(2, 7))


@st.composite
def cases(draw, name="case"):
    """A softmax case of any shape with probabilities down to exact 0."""
    shape = draw(shapes)
    odds = draw(arrays(np.float32, (4, *shape), elements=st.sampled_from([0.0, 0.25, 1.0, 3.0, 8.0])))
    total = odds.sum(axis=0)
    odds[0] += total == 0
    p = (odds / odds.sum(axis=0)).astype(np.float32)
    label = draw(arrays(np.uint8, shape, elements=st.integers(0, 3)))
    return softmax_case(p, label, name)


@FEW
@given(cases())
def test_the_volume_bias_never_exceeds_the_calibration_error(case):
    row = case_row(case, ratio(), WANTED)
    for name in "AB":
        assert abs(row[name] - row[f"{name}_label"]) <= row[f"ece_{name}"] * (1 + 1e-12) + 1e-9


@FEW
@given(cases())
def test_the_squared_error_is_never_negative_and_blocks_never_lower_it(case):
    row = case_row(case, ratio(), WANTED)
    if row["B"] > 0:
        assert 0 <= row["squared_error_iid"] <= row["squared_error_block"]


def test_equal_numerator_and_denominator_give_ratio_1_and_error_0():
    """All of the tumour is necrosis, so a = b in every voxel."""
    random = np.random.default_rng(1)
    p = np.zeros((4, 5, 6, 7), np.float32)
    p[2] = random.random((5, 6, 7))
    p[0] = 1 - p[2]
    row = case_row(softmax_case(p, np.zeros((5, 6, 7))), ratio(), WANTED)
    assert row["A"] / row["B"] == 1.0
    assert row["squared_error_iid"] == row["squared_error_block"] == 0.0
    assert row["ratio_exact"] == pytest.approx(1.0, abs=1e-15)


@FEW
@given(cases(), st.integers(0, 2), st.integers(1, 4))
def test_background_after_the_end_of_an_axis_changes_nothing_but_n(case, axis, more):
    width = [(0, 0)] * 3
    width[axis] = (0, more)
    p = np.stack([np.pad(channel, width, constant_values=float(c == 0)) for c, channel in enumerate(case.volume.array)])
    padded = softmax_case(p, np.pad(case.labels.codes, width))
    before, after = (case_row(one, ratio(), WANTED) for one in (case, padded))
    for name in ("A", "B", "U_A", "U_B", "sum_b2", "ece_A", "ece_B", "A_hard", "B_hard", "A_label", "B_label"):
        assert after[name] == pytest.approx(before[name], rel=1e-12)
    if before["B"] > 0:
        n, m = before["voxels"], after["voxels"]
        factor = m / (m - 1) / (n / (n - 1))
        assert after["squared_error_iid"] == pytest.approx(before["squared_error_iid"] * factor, rel=1e-9, abs=1e-18)


def test_empty_slices_change_the_block_error_by_nothing_but_n():
    random = np.random.default_rng(2)
    odds = random.gamma(1.0, size=(4, 12, 16, 16)).astype(np.float32)
    p = odds / odds.sum(axis=0)
    empty = np.zeros((4, 5, 16, 16), np.float32)
    empty[0] = 1
    label = random.integers(0, 4, (12, 16, 16))
    before = case_row(softmax_case(p, label, spacing=(1, 1, 1)), ratio(), WANTED)
    longer = softmax_case(
        np.concatenate([p, empty], axis=1), np.concatenate([label, np.zeros((5, 16, 16))]), spacing=(1, 1, 1)
    )
    after = case_row(longer, ratio(), WANTED)
    assert before["squared_error_block"] > before["squared_error_iid"]
    assert after["squared_error_block"] == pytest.approx(before["squared_error_block"], rel=1e-12)


def test_the_size_of_a_voxel_scales_volumes_and_nothing_else():
    random = np.random.default_rng(3)
    odds = random.gamma(0.3, size=(4, 6, 7, 8)).astype(np.float32)
    p, label = odds / odds.sum(axis=0), random.integers(0, 4, (6, 7, 8))
    small, large = (case_row(softmax_case(p, label, spacing=(s, s, s)), ratio(), WANTED) for s in (1.0, 2.0))
    volumes = {"A", "B", "U_A", "U_B", "A_hard", "B_hard", "A_label", "B_label", "voxel_mm3"}
    volumes |= {"ece_A", "ece_B", "ece_A_hard", "ece_B_hard"}
    for name, value in small.items():
        assert large[name] == pytest.approx(8 * value if name in volumes else value, rel=1e-12)


def test_a_sheared_voxel_has_the_volume_of_its_determinant():
    affine = np.array([[1, 0.5, 0, 0], [0, 1, 0, 0], [0, 0, 2, 0], [0, 0, 0, 1.0]])
    case = softmax_case(np.full((4, 2, 2, 2), 0.25), np.zeros((2, 2, 2)))
    grid = type(case.volume.grid)((2, 2, 2), affine)
    sheared = type(case)("case", "case", case.space, type(case.volume)(case.volume.array, grid, "probabilities",
                         case.volume.stored), case.labels)  # fmt: skip
    assert case_row(sheared, ratio(), Wanted())["voxel_mm3"] == pytest.approx(2.0)


@pytest.mark.parametrize("stored", ["float32", "float16"])
def test_sums_of_stored_halves_stay_within_a_thousandth(stored):
    random = np.random.default_rng(4)
    odds = random.gamma(0.2, size=(4, 20, 20, 20)).astype(np.float32)
    p = odds / odds.sum(axis=0)
    exact = case_row(softmax_case(p, None), ratio(), Wanted())["A"]
    rounded = case_row(softmax_case(p.astype(stored), None), ratio(), Wanted())["A"]
    assert rounded == pytest.approx(exact, rel=1e-3)


SETTINGS = [Settings(method=method) for method in METHODS] + [
    Settings("care", split="fixed"),
    Settings("care", estimation="block"),
    Settings("care", calibration_error="vbias"),
]


@pytest.mark.parametrize("chosen", SETTINGS, ids=lambda s: f"{s.method}-{s.split}-{s.estimation}-{s.score}")
@pytest.mark.parametrize("name", ["NTR", "CTR"])
def test_every_interval_holds_the_predicted_ratio_and_a_higher_level_never_narrows_it(name, chosen):
    known, new = reference_table(name, "cal"), reference_table(name, "test")
    before = None
    for level in (0.5, 0.68, 0.8, 0.85, 0.9):
        calibration = Calibration.of(known, chosen.changed({"level": level}), "ml")
        found = intervals(calibration, new, 1.0).clipped
        assert (found.low <= new.ratio).all()
        assert (new.ratio <= found.high).all()
        graded = chosen.method == "care" and chosen.split == "grid"
        if before is not None and not graded:
            assert (found.low <= before.low + 1e-12).all()
            assert (found.high >= before.high - 1e-12).all()
        before = found


@pytest.mark.parametrize("error", ["ece", "vbias"])
@pytest.mark.parametrize("split", ["grid", "fixed"])
@pytest.mark.parametrize("estimation", ["iid", "block"])
@pytest.mark.parametrize("level", [0.68, 0.8, 0.9])
def test_care_contains_care_guaranteed_so_looking_at_twenty_splits_costs_no_coverage(error, split, estimation, level):
    known, new = reference_table("NTR", "cal"), reference_table("NTR", "test")
    wide = Settings("care", level, calibration_error=error, split=split, estimation=estimation)
    narrow = Settings("care-guaranteed", level, calibration_error=error)
    outer, inner = (intervals(Calibration.of(known, one, "ml"), new, 1.0).clipped for one in (wide, narrow))
    assert (outer.low <= inner.low + 1e-12).all()
    assert (outer.high >= inner.high - 1e-12).all()


def test_the_nested_score_is_the_smallest_multiple_whose_interval_holds_the_label():
    table = reference_table("NTR", "test")
    scores = method_scores(table, "nested")
    low, high = np.zeros(len(table)), np.full(len(table), 50.0)
    for _ in range(80):
        middle = (low + high) / 2
        ends = nested_ends(table, middle)
        inside = (ends.low <= table.ratio_label) & (table.ratio_label <= ends.high)
        low, high = np.where(inside, low, middle), np.where(inside, middle, high)
    assert high == pytest.approx(scores, rel=1e-9)


def test_rows_merge_to_the_same_bytes_in_any_order_and_grouping():
    estimator = RatioSums(ratio(), WANTED)
    random = np.random.default_rng(5)
    states = []
    for name in ("b", "a", "ä", "c"):
        odds = random.gamma(0.3, size=(4, 3, 4, 5)).astype(np.float32)
        case = softmax_case(odds / odds.sum(axis=0), random.integers(0, 4, (3, 4, 5)), name)
        states.append(estimator.update(estimator.empty(), case))
    expected = None
    for a, b, c, d in itertools.permutations(states):
        for joined in (
            estimator.merge(estimator.merge(a, b), estimator.merge(c, d)),
            estimator.merge(a, estimator.merge(estimator.merge(b, c), d)),
        ):
            table = estimator.finish(joined)
            found = {name: array.tobytes() for name, array in to_arrays(table).items()}
            assert table.ids == ("a", "b", "c", "ä")
            assert expected in (None, found)
            expected = found


def test_a_case_in_both_parts_is_refused():
    state = Rows({"a": ("a", {})})
    with pytest.raises(TwiceTheSameCase, match="a: this case is in both parts"):
        RatioSums(ratio(), WANTED).merge(state, state)


def test_a_case_without_denominator_has_no_ratio_and_no_number_that_looks_like_one():
    p = np.zeros((4, 3, 3, 3), np.float32)
    p[0] = 1
    row = case_row(softmax_case(p, np.zeros((3, 3, 3))), ratio(), WANTED)
    assert row["A"] == row["B"] == 0
    for name in ("squared_error_iid", "squared_error_block", "ratio_exact", "border_share", "nesting_violation"):
        assert math.isnan(row[name])
