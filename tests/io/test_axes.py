import itertools

import nibabel.orientations as nio
import numpy as np
import pytest

from segcal_cli.io.axes import Orientation, fitting, from_ras
from tests.io.builders_nnunet import affine, in_ras

ALL = [
    Orientation(axes, flips)
    for axes in itertools.permutations(range(3))
    for flips in itertools.product((False, True), repeat=3)
]


@pytest.mark.parametrize("turn", ALL, ids=str)
def test_undo_takes_back_every_one_of_the_48_orientations(turn):
    array = np.arange(2 * 3 * 4 * 5).reshape(2, 3, 4, 5)
    turned = turn.apply(array)
    assert turned.shape[1:] == turn.shape((3, 4, 5))
    np.testing.assert_array_equal(turn.undo(turned), array)


@pytest.mark.parametrize("turn", ALL, ids=str)
def test_turning_in_place_gives_the_bits_of_a_turned_copy_in_the_same_memory(turn):
    array = np.random.default_rng(0).random((2, 3, 4, 5), dtype=np.float32)
    expected = turn.apply(array).copy()
    turned = turn.turn(array)
    np.testing.assert_array_equal(turned, expected)
    assert turned.flags.c_contiguous
    assert np.shares_memory(turned, array)


def test_then_is_one_turn_after_the_other():
    array = np.arange(3 * 4 * 5).reshape(3, 4, 5)
    for first, second in itertools.product(ALL[::5], ALL[::7]):
        np.testing.assert_array_equal(first.then(second).apply(array), second.apply(first.apply(array)))


def test_from_ras_is_nibabels_orientation_for_random_affines():
    rng = np.random.default_rng(3)
    array = rng.random((1, 3, 4, 5))
    for _ in range(200):
        matrix = np.eye(4)
        matrix[:3, :3] = rng.standard_normal((3, 3))
        ras = in_ras(array, matrix)
        np.testing.assert_array_equal(from_ras(matrix).apply(ras), array)


@pytest.mark.parametrize("codes", ["RAS", "LPS", "LPI", "ASL", "PLS"])
def test_from_ras_names_the_axes_of_an_affine(codes):
    turn = from_ras(affine(codes))
    x, y, z = nio.axcodes2ornt(codes)
    assert turn.axes == (2 - z[0], 2 - y[0], 2 - x[0])
    assert turn.flips == (z[1] < 0, y[1] < 0, x[1] < 0)


def test_an_orientation_reads_in_the_order_x_y_z():
    assert str(Orientation((0, 2, 1), (False, True, False))) == "(y, -x, z)"


def test_a_cube_fits_in_48_ways_and_an_unequal_box_in_8_and_a_plane_in_4():
    assert len(list(fitting((3, 3, 3), (3, 3, 3)))) == 48
    assert len(list(fitting((3, 4, 5), (5, 3, 4)))) == 8
    assert len(list(fitting((1, 4, 5), (1, 4, 5)))) == 4
    assert list(fitting((3, 4, 5), (3, 4, 6))) == []
