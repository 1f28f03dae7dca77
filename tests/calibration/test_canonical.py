"""The canonical input: the same from logits and probabilities, with the floors of the stored type."""

from __future__ import annotations

import numpy as np
import pytest

from segcal_cli.calibration.canonical import CHUNK_VOXELS, chunks, kind_of, log_odds, log_probabilities, ordered_map
from segcal_cli.core.scores import log_softmax
from segcal_cli.core.volume import Box, Stored
from tests.calibration.builders_cases import case_of, space_of

FLOAT32 = Stored("float32")


def test_kinds_of_class_tables():
    assert kind_of(space_of(1, "sigmoid")) == "binary"
    assert kind_of(space_of(2)) == "binary"
    assert kind_of(space_of(2, "sigmoid")) == "sigmoid"
    assert kind_of(space_of(3)) == "softmax"


def test_two_exclusive_classes_are_the_difference_of_their_logits():
    logits = np.array([[1.0, -2.0], [0.5, 3.0]], dtype=np.float32)
    assert log_odds(logits, "logits", FLOAT32, space_of(2)).tolist() == [[-0.5, 5.0]]


def test_log_odds_of_one_half_is_exactly_zero():
    p = np.array([[0.5]], dtype=np.float32)
    assert log_odds(p, "probabilities", FLOAT32, space_of(1, "sigmoid"))[0, 0] == 0.0


@pytest.mark.parametrize(
    ("stored", "low", "high"),
    [
        (FLOAT32, -103.2789, 17.3287),
        (Stored("float16"), -16.6355, 8.3178),
        (Stored("uint8", 1 / 255), -6.2344, 6.2344),
    ],
)
def test_zero_and_one_of_a_single_channel_become_the_floors_of_the_stored_type(stored: Stored, low: float, high: float):
    z = log_odds(np.array([[0.0, 1.0]], dtype=np.float32), "probabilities", stored, space_of(1, "sigmoid"))
    np.testing.assert_allclose(z[0], [low, high], atol=1e-4)


@pytest.mark.parametrize("scale", [1.0, 30.0, 1e4])
def test_log_odds_against_the_rest_do_not_cancel(scale: float):
    logits = (np.random.default_rng(0).normal(0, 1, (4, 200)) * scale).astype(np.float32)
    z = log_odds(logits, "logits", FLOAT32, space_of(4))
    for c in range(4):
        others = np.delete(logits.astype(np.float64), c, axis=0)
        exact = logits[c] - np.logaddexp.reduce(others, axis=0)
        np.testing.assert_allclose(z[c], exact, rtol=1e-12, atol=1e-12)


def test_log_odds_against_the_rest_are_the_same_from_probabilities():
    logits = np.random.default_rng(0).normal(0, 3, (4, 200)).astype(np.float32)
    p = np.exp(log_softmax(logits))
    from_p = log_odds(p, "probabilities", FLOAT32, space_of(4))
    np.testing.assert_allclose(from_p, log_odds(logits, "logits", FLOAT32, space_of(4)), rtol=1e-9, atol=1e-9)


def test_stored_zeros_of_a_softmax_become_the_floor():
    p = np.array([[1.0], [0.0], [0.0]], dtype=np.float32)
    np.testing.assert_allclose(
        log_probabilities(p, "probabilities", FLOAT32)[:, 0], [0, -103.2789, -103.2789], atol=1e-4
    )


def test_padding_roi_and_ignored_voxels_are_left_out():
    shape = (4, 5, 6)
    rng = np.random.default_rng(0)
    roi, ignored = rng.random(shape) < 0.7, rng.random(shape) < 0.2
    array = np.arange(120, dtype=np.float32).reshape(1, *shape)
    case = case_of(
        array, np.zeros((1, 120), dtype=bool), space_of(1, "sigmoid"), roi=roi, ignored=ignored,
        predicted=Box((1, 3), (0, 5), (2, 6)),
    )  # fmt: skip
    inside = np.zeros(shape, dtype=bool)
    inside[1:3, :, 2:6] = True
    read = np.concatenate([chunk().array[0] for chunk in chunks(case)])
    assert (read == array[0][roi & ~ignored & inside]).all()


def test_chunks_come_back_in_order_whatever_the_number_of_threads():
    array = np.arange(5 * CHUNK_VOXELS + 3, dtype=np.float32)[np.newaxis]
    case = case_of(array, np.zeros(array.shape, dtype=bool), space_of(1, "sigmoid"))
    for threads in (1, 3):
        firsts = list(ordered_map(lambda chunk: float(chunk.array[0, 0]), chunks(case), threads))
        assert firsts == [float(i * CHUNK_VOXELS) for i in range(6)]
