"""Tiles: what they hold, which are drawn, and what their weights make up for."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from segcal_cli.calibration import tiles
from segcal_cli.calibration.auxiliary import FlatImages, Surroundings
from segcal_cli.calibration.tiles import Scene, standardised, tiles_of
from segcal_cli.core.volume import Grid
from tests.calibration.builders_cases import case_of, space_of

BINARY = space_of(1, "sigmoid")


def noise_case(shape=(3, 9, 10), *, seed=0, **more):
    rng = np.random.default_rng(seed)
    z = rng.normal(size=(1, *shape)).astype(np.float32)
    return case_of(z, rng.random((1, z.size)) < 0.5, BINARY, **more)


def test_a_tile_is_a_slice_with_the_outermost_voxels_going_on_beyond_it():
    case = noise_case()
    found = tiles_of(case, Surroundings(7, 2), 0)
    assert len(found) == 3
    assert found[1].x.shape == (1, 1, 15, 16)
    padded = np.pad(case.volume.array[0, 1], 3, mode="edge")
    np.testing.assert_array_equal(found[1].x[0, 0], padded)
    np.testing.assert_array_equal(found[1].truth[0, 0], case.labels.holds(0)[1])


def test_in_three_dimensions_a_tile_sees_other_planes_too():
    case = noise_case()
    (tile,) = tiles_of(case, Surroundings(7, 3), 0)
    np.testing.assert_array_equal(tile.x[0], np.pad(case.volume.array[0], 3, mode="edge"))


def test_tiles_are_cut_along_the_axis_with_the_largest_spacing():
    case = noise_case()
    turned = replace(case, volume=replace(case.volume, grid=Grid((3, 9, 10), np.diag([1.0, 5.0, 1.0, 1.0]))))
    found = tiles_of(turned, Surroundings(7, 2), 0)
    assert len(found) == 9
    np.testing.assert_array_equal(found[4].x[0, 0, 3:-3, 3:-3], case.volume.array[0, :, 4])


def test_voxels_that_do_not_count_are_marked_and_tiles_without_any_other_left_out():
    roi = np.zeros((3, 9, 10), dtype=bool)
    roi[1, 2:5] = True
    (tile,) = tiles_of(noise_case(roi=roi), Surroundings(7, 2), 0)
    np.testing.assert_array_equal(tile.inside[0], roi[1])
    assert tile.voxels == 30.0


def test_the_scan_is_a_further_input_standardised_over_the_whole_of_it():
    case = noise_case()
    image = np.random.default_rng(3).normal(50.0, 9.0, (3, 9, 10)).astype(np.float32)
    case = replace(case, volume=replace(case.volume, image=image))
    found = tiles_of(case, Surroundings(7, 2), 0)
    np.testing.assert_allclose(found[2].x[1, 0, 3:-3, 3:-3], (image[2] - image.mean()) / image.std(), rtol=1e-4)
    assert not standardised(np.full((2, 2), 7.0)).any()


def test_drawn_tiles_estimate_sums_over_all_without_bias(monkeypatch: pytest.MonkeyPatch):
    """Mean of 300 draws of the number of voxels; standard error 0.6 %; false alarm below 1e-6."""
    monkeypatch.setattr(tiles, "EDGES", {2: (1, 4, 4)})
    monkeypatch.setattr(tiles, "MOST_NUMBERS", 160)
    case = noise_case((4, 20, 22))
    drawn = [tiles_of(case, Surroundings(7, 2), seed) for seed in range(300)]
    assert all(len(found) == 10 for found in drawn)
    voxels = np.array([sum(tile.voxels for tile in found) for found in drawn])
    assert voxels.mean() == pytest.approx(4 * 20 * 22, abs=5.0 * voxels.std() / np.sqrt(300))


def test_the_draw_depends_on_the_seed_and_the_case_alone(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(tiles, "MOST_NUMBERS", 90)
    once, again, other = (tiles_of(noise_case(name=name), Surroundings(7, 2), 0) for name in ("a", "a", "b"))
    assert len(once) == 1
    np.testing.assert_array_equal(once[0].x, again[0].x)
    assert once[0].weight == again[0].weight
    assert not np.array_equal(once[0].x, other[0].x)


def test_a_block_of_a_scene_is_the_volume_around_it():
    case = noise_case((8, 9, 10))
    scene = Scene.of(case.volume, BINARY, Surroundings(7, 3))
    block = scene.block((slice(4, 6), slice(0, 9), slice(5, 7)))
    np.testing.assert_array_equal(block[0], np.pad(case.volume.array[0], 3, mode="edge")[4:12, :, 5:13])


def test_three_dimensions_need_volumes():
    with pytest.raises(FlatImages, match="--dim 3 needs volumes"):
        tiles_of(noise_case((1, 9, 10)), Surroundings(7, 3), 0)
