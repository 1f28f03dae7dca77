"""Label maps and masks as predictions, where only decisions are measured."""

from __future__ import annotations

import numpy as np
import pytest

from segcal_cli.io import files
from segcal_cli.io.classes import single_foreground
from segcal_cli.io.hard_predictions import is_label_map, label_map_shape, read_label_map
from segcal_cli.io.labelmaps import ForeignLabel
from tests.cli.builders import write_npz, write_volume
from tests.io.builders_arrays import palette_png, saved_image
from tests.io.builders_folders import exclusive, regions

MAP = np.array([[[0, 1, 2], [2, 1, 0]]], np.uint8)
THREE = exclusive("background", "a", "b")


def read(path, table):
    header = files.probe(path)
    assert is_label_map(header, table)
    array, report = read_label_map(header, table)
    assert array.shape == label_map_shape(header, table)
    assert report.hard
    return array


@pytest.mark.parametrize("dtype", [np.uint8, np.int16, np.float32])
def test_a_volume_of_label_values_becomes_a_channel_per_class(tmp_path, dtype):
    path = write_volume(tmp_path / "a.nii.gz", MAP.astype(dtype))
    np.testing.assert_array_equal(read(path, THREE), [MAP == 0, MAP == 1, MAP == 2])


def test_a_bare_array_of_label_values_too(tmp_path):
    path = write_npz(tmp_path / "a.npz", probabilities=MAP)
    np.testing.assert_array_equal(read(path, THREE)[2], MAP == 2)


def test_overlapping_regions_hold_the_voxels_of_their_label_values(tmp_path):
    path = write_volume(tmp_path / "a.nii.gz", MAP)
    np.testing.assert_array_equal(read(path, regions("a", "b")), [MAP == 1, MAP == 2])


def test_a_mask_of_one_foreground_is_one_channel(tmp_path):
    path = write_volume(tmp_path / "a.nii.gz", np.minimum(MAP, 1))
    for table in (single_foreground(), exclusive("background", "lesion")):
        np.testing.assert_array_equal(read(path, table), [MAP > 0])


@pytest.mark.parametrize("kind", ["values", "one bit", "palette"])
def test_masks_in_png_are_read_by_value(tmp_path, kind):
    mask = (MAP[0] > 0).astype(np.uint8)
    path = tmp_path / "a.png"
    if kind == "values":
        saved_image(path, mask)
    elif kind == "one bit":
        saved_image(path, mask * 255, "1")
    else:
        palette_png(path, mask)
    np.testing.assert_array_equal(read(path, single_foreground())[0, 0], mask > 0)


@pytest.mark.parametrize("top", [2, 200, 255])
def test_a_gray_image_beyond_the_label_values_is_soft(tmp_path, top):
    path = saved_image(tmp_path / "a.png", MAP[0] * np.uint8(top // 2))
    assert not is_label_map(files.probe(path), single_foreground())


def test_soft_volumes_are_no_label_maps(tmp_path):
    four = write_volume(tmp_path / "a.nii.gz", np.full((3, 2, 3, 4), 1 / 3, np.float32))
    one = write_volume(tmp_path / "b.nii.gz", np.full((2, 3, 4), 0.5, np.float32))
    assert not is_label_map(files.probe(four), THREE)
    assert not is_label_map(files.probe(one), single_foreground())


def test_values_that_the_table_does_not_know_are_refused(tmp_path):
    path = write_volume(tmp_path / "a.nii.gz", MAP)
    with pytest.raises(ForeignLabel, match="label 2"):
        read_label_map(files.probe(path), exclusive("background", "lesion"))
