"""Applying calibrators: decisions kept, sums of 1, shifts without effect."""

from __future__ import annotations

import pickle

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from segcal_cli.calibration.calibrator import Calibrator, WrittenType
from segcal_cli.calibration.likelihood import sigmoid
from segcal_cli.core.labels import Channel, LabelSpace
from segcal_cli.core.scores import log_softmax
from segcal_cli.core.volume import Stored, Values
from tests.calibration.builders_cases import regions, space_of

FLOAT32 = Stored("float32")
WRITTEN = ("float32", "float16", "uint16")

logit = st.floats(-1e4, 1e4, width=32) | st.integers(-3, 3).map(float) | st.floats(-(2.0**-10), 2.0**-10, width=32)
temperatures = st.floats(0.05, 20)


@st.composite
def logits(draw: st.DrawFn) -> np.ndarray:
    """float32 "class voxel" with ties, tiny differences and saturation."""
    classes = draw(st.integers(2, 6))
    return draw(arrays(np.float32, (classes, draw(st.integers(1, 12))), elements=logit))


def applied(calibrator: Calibrator, slab: np.ndarray, values: Values = "logits", dtype: WrittenType = "float32"):  # type: ignore[no-untyped-def]
    result = calibrator.apply(slab.reshape(len(slab), 1, 1, -1), values, FLOAT32, dtype)
    return result.array.reshape(slab.shape), result


@settings(max_examples=150, deadline=None)
@given(logits(), temperatures, st.sampled_from(WRITTEN))
def test_temperature_keeps_the_argmax_in_every_written_type(slab: np.ndarray, t: float, dtype: WrittenType):
    written, _ = applied(Calibrator("temperature", space_of(len(slab)), np.array([[t]])), slab, dtype=dtype)
    assert written.dtype == dtype
    assert (written.argmax(axis=0) == slab.argmax(axis=0)).all()


@settings(max_examples=100, deadline=None)
@given(logits(), temperatures, st.sampled_from(WRITTEN))
def test_temperature_keeps_the_argmax_of_probabilities(slab: np.ndarray, t: float, dtype: WrittenType):
    p = np.exp(log_softmax(slab)).astype(np.float32)
    written, _ = applied(Calibrator("temperature", space_of(len(slab)), np.array([[t]])), p, "probabilities", dtype)
    assert (written.argmax(axis=0) == p.argmax(axis=0)).all()


@settings(max_examples=100, deadline=None)
@given(logits(), st.lists(temperatures, min_size=6, max_size=6), st.sampled_from(WRITTEN), st.booleans())
def test_temperatures_of_sigmoid_channels_keep_their_decisions(
    slab: np.ndarray, t: list[float], dtype: WrittenType, stored_p: bool
):
    raw = sigmoid(slab.astype(np.float64)).astype(np.float32) if stored_p else slab
    calibrator = Calibrator("temperature", space_of(len(raw), "sigmoid"), np.array(t[: len(raw)])[:, np.newaxis])
    written, _ = applied(calibrator, raw, "probabilities" if stored_p else "logits", dtype)
    half = 32767 if dtype == "uint16" else 0.5
    assert ((written > half) == (raw > (0.5 if stored_p else 0.0))).all()


def test_a_tie_that_the_cast_makes_is_repaired_and_counted():
    slab = np.array([[0.0], [1e-6]], dtype=np.float32)
    written, result = applied(Calibrator("temperature", space_of(2), np.array([[20.0]])), slab)
    assert result.repaired == 1
    assert written[0, 0] == np.float32(0.5)
    assert written[1, 0] == np.nextafter(np.float32(0.5), np.float32(1))


def test_nested_regions_keep_nested_decisions_where_temperatures_break_the_nesting():
    rng = np.random.default_rng(0)
    slab = np.sort(rng.normal(0, 3, (3, 5000)), axis=0)[::-1].astype(np.float32)
    calibrator = Calibrator("temperature", regions({1, 2, 3}, {2, 3}, {3}), np.array([[3.0], [1.0], [0.5]]))
    written, result = applied(calibrator, slab)
    assert result.projected > 0
    assert (np.diff(written, axis=0) <= 0).all()
    assert ((written > 0.5) == (slab > 0)).all()


def test_without_projection_regions_are_left_as_calibrated():
    slab = np.array([[1.0], [0.9]], dtype=np.float32)
    calibrator = Calibrator("temperature", regions({1, 2}, {2}), np.array([[4.0], [1.0]]), project=False)
    written, result = applied(calibrator, slab)
    assert result.projected == 0
    assert written[1, 0] > written[0, 0]


@pytest.mark.parametrize("method", ["temperature", "platt"])
@pytest.mark.parametrize("classes", [2, 3, 6])
def test_exclusive_channels_sum_to_one(method: str, classes: int):
    slab = np.random.default_rng(0).normal(0, 4, (classes, 20_000)).astype(np.float32)
    problems = 1 if classes == 2 or method == "temperature" else classes
    row = [1.7] if method == "temperature" else [0.6, 0.3]
    calibrator = Calibrator(method, space_of(classes), np.tile(row, (problems, 1)))
    written, _ = applied(calibrator, slab)
    assert np.abs(written.astype(np.float64).sum(axis=0) - 1).max() <= 1e-6
    scores = calibrator.scores(slab, "logits", FLOAT32)
    assert scores.exclusive
    np.testing.assert_allclose(scores.p.sum(axis=0), 1, atol=1e-12)
    np.testing.assert_allclose(written, scores.p, atol=1e-7)


def test_one_against_the_rest_is_each_class_calibrated_and_divided_by_the_sum():
    p = np.array([[0.7], [0.2], [0.1]], dtype=np.float32)
    rows = np.array([[0.5, 0.1], [1.0, 0.0], [2.0, -0.3]])
    z = np.log(p.astype(np.float64)) - np.log(p.sum(axis=0) - p.astype(np.float64))
    one = 1 / (1 + np.exp(-(rows[:, :1] * z + rows[:, 1:])))
    written, _ = applied(Calibrator("platt", space_of(3), rows), p, "probabilities")
    np.testing.assert_allclose(written, one / one.sum(axis=0), rtol=1e-6)


def test_where_every_class_vanishes_the_raw_probabilities_stand_and_are_counted():
    p = np.array([[0.7, 0.5], [0.2, 0.3], [0.1, 0.2]], dtype=np.float32)
    written, result = applied(Calibrator("platt", space_of(3), np.tile([1.0, -2000.0], (3, 1))), p, "probabilities")
    assert result.kept_raw == 2
    np.testing.assert_allclose(written, p, rtol=1e-6)


@pytest.mark.parametrize("method", ["temperature", "platt"])
def test_a_shift_of_all_logits_of_a_voxel_changes_nothing(method: str):
    rng = np.random.default_rng(0)
    slab = (rng.integers(-80, 80, (4, 500)) / 16).astype(np.float32)
    shifted = slab + (rng.integers(-40, 40, 500) / 4).astype(np.float32)
    rows = np.array([[1.7]]) if method == "temperature" else np.tile([0.6, 0.3], (4, 1))
    calibrator = Calibrator(method, space_of(4), rows)
    np.testing.assert_allclose(applied(calibrator, slab)[0], applied(calibrator, shifted)[0], rtol=2e-7)


@pytest.mark.parametrize("count", [1, 3])
def test_scores_of_independent_channels_have_exact_logarithms(count: int):
    slab = np.array([[-800.0, -30.0, 0.0, 30.0, 800.0]] * count, dtype=np.float32)
    scores = Calibrator("temperature", space_of(count, "sigmoid"), np.full((count, 1), 2.0)).scores(
        slab, "logits", FLOAT32
    )
    assert scores.log_p is not None
    assert scores.log_q is not None
    np.testing.assert_allclose(
        scores.log_p[0], [-400, -15 - np.exp(-15), -np.log(2), -3.059e-07, 0], rtol=1e-3, atol=1e-100
    )
    np.testing.assert_allclose(scores.log_q[0], scores.log_p[0][::-1], rtol=1e-12)


def test_projected_scores_agree_with_their_logarithms_near_zero_and_one():
    slab = np.array([[-40.0, 35.0], [-39.0, 36.0]], dtype=np.float32)
    calibrator = Calibrator("temperature", regions({1, 2}, {2}), np.array([[1.0], [0.999999]]))
    scores = calibrator.scores(slab, "logits", FLOAT32)
    assert scores.log_p is not None
    assert scores.log_q is not None
    np.testing.assert_allclose(scores.log_p[0, 0], np.log((np.exp(-40) + np.exp(-39)) / 2), rtol=1e-6)
    np.testing.assert_allclose(scores.log_q[1, 1], np.log((np.exp(-35) + np.exp(-36)) / 2), rtol=1e-6)


def test_calibrators_travel_between_processes():
    calibrator = Calibrator("platt", space_of(2), np.array([[0.5, 0.1]]))
    again = pickle.loads(pickle.dumps(calibrator))
    assert again.space == calibrator.space
    assert (again.rows == calibrator.rows).all()


@pytest.mark.parametrize("method", ["temperature", "platt"])
def test_the_order_of_two_exclusive_classes_does_not_matter(method):
    """A table that names its foreground first gives the mirrored result."""
    logits = np.random.default_rng(3).normal(size=(2, 50)).astype(np.float32)
    rows = np.array([[2.0]] if method == "temperature" else [[0.6, -0.4]])
    background, lesion = Channel("background", frozenset({0})), Channel("lesion", frozenset({1}))
    usual = Calibrator(method, LabelSpace((background, lesion), "softmax"), rows)
    mirrored = Calibrator(method, LabelSpace((lesion, background), "softmax"), rows)
    one = usual.scores(logits, "logits", Stored("float32")).p
    np.testing.assert_allclose(mirrored.scores(logits[::-1].copy(), "logits", Stored("float32")).p, one[::-1])
    volume = logits.reshape(2, 1, 5, 10)
    applied = mirrored.apply(volume[::-1].copy(), "logits", Stored("float32")).array
    np.testing.assert_allclose(applied[::-1], usual.apply(volume, "logits", Stored("float32")).array, atol=1e-7)


@pytest.mark.parametrize("method", ["temperature", "platt"])
@pytest.mark.parametrize("values", ["logits", "probabilities"])
@pytest.mark.parametrize("scale", [2.0, 40.0, 3000.0])
def test_probabilities_without_logarithms_are_those_with_them(method, values, scale):
    """The shorter way is taken only where p keeps its digits; with logits 3000 apart it is not."""
    logits = np.random.default_rng(71).normal(scale=scale, size=(4, 9000)).astype(np.float32)
    power = np.exp(logits - logits.max(axis=0).astype(np.float64))
    slab = logits if values == "logits" else (power / power.sum(axis=0)).astype(np.float32)
    rows = np.array([[0.8]]) if method == "temperature" else np.tile([0.8, -0.2], (4, 1))
    calibrator = Calibrator(method, space_of(4), rows)
    found, exact = calibrator.scores(slab, values, FLOAT32), calibrator._exact(slab, values, FLOAT32)
    np.testing.assert_allclose(found.p, exact.p, rtol=1e-11, atol=1e-300)
    assert (found.log_p is None) == (scale < 100.0 or values == "probabilities")
