"""Probabilities and their logarithms, at the ends where they go wrong."""

import numpy as np
import pytest

from segcal_cli.core.scores import log_softmax, scores_of
from segcal_cli.core.volume import Box, Grid, Stored

FLOAT32 = Stored("float32")


def test_log_softmax_survives_logits_of_any_size():
    logits = np.array([[0.0, 1e4, -1e4], [0.0, -1e4, -1e4]], dtype=np.float32)
    assert log_softmax(logits).tolist() == [[-np.log(2), 0.0, -np.log(2)], [-np.log(2), -2e4, -np.log(2)]]


def test_a_sigmoid_logit_keeps_its_upper_tail():
    scores = scores_of(np.array([[40.0, -40.0]], dtype=np.float32), "logits", FLOAT32, exclusive=False)
    np.testing.assert_allclose(scores.log_q, [[-40.0, -np.exp(-40.0)]], rtol=1e-15)
    np.testing.assert_allclose(scores.log_p, [[-np.exp(-40.0), -40.0]], rtol=1e-15)


def test_probabilities_pass_untouched_with_the_floors_of_their_type():
    array = np.array([[0.0, 1.0]], dtype=np.float32)
    scores = scores_of(array, "probabilities", Stored("uint16", 1 / 65535), exclusive=False)
    assert scores.p is array
    assert scores.floor == scores.complement_floor == 0.5 / 65535


@pytest.mark.parametrize(
    ("stored", "log_floor"),
    [
        (FLOAT32, -103.28), (Stored("float64"), -103.28), (Stored("float16"), -16.64),
        (Stored("uint16", 1 / 65535), -11.78), (Stored("uint8", 1 / 255), -6.23),
    ],
)  # fmt: skip
def test_zero_becomes_the_log_of_the_smallest_positive_number_of_the_stored_type(stored, log_floor):
    assert np.log(stored.floor) == pytest.approx(log_floor, abs=0.005)


def test_the_complement_floor_is_half_the_step_below_one():
    assert 1.0 - float(np.nextafter(np.float32(1), np.float32(0))) == 2 * FLOAT32.complement_floor
    assert 1.0 - float(np.nextafter(np.float16(1), np.float16(0))) == 2 * Stored("float16").complement_floor


def test_volume_of_a_voxel_is_the_determinant_also_for_sheared_axes():
    affine = np.eye(4)
    affine[0, 1] = 0.5
    grid = Grid((1, 1, 1), affine)
    assert grid.voxel_mm3 == pytest.approx(1.0)
    assert grid.spacing_mm == pytest.approx((1.0, np.sqrt(1.25), 1.0))
    assert Grid((1, 1, 1)).voxel_mm3 is None


def test_a_box_as_a_mask():
    assert Box((0, 1), (1, 2), (0, 2)).mask((2, 2, 2)).nonzero()[1].tolist() == [1, 1]
