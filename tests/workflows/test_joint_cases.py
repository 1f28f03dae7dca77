"""Several predictions of one scan on the same voxels."""

from __future__ import annotations

import numpy as np
import pytest

from segcal_cli.core.volume import Box, Grid, Stored, Volume
from segcal_cli.io.geometry import Alignment
from segcal_cli.workflows.joint_cases import Folder, NameNeeded, NothingShared, parse_folder, shared_box, turned


def test_a_folder_has_a_name():
    folder = parse_folder("ours=a/b=c")
    assert (folder.name, str(folder.path)) == ("ours", "a/b=c")
    assert isinstance(folder, Folder)


@pytest.mark.parametrize("text", ["folder", "=folder", "name="])
def test_a_folder_without_name_or_place_is_refused(text):
    with pytest.raises(NameNeeded, match="give it a name, NAME=FOLDER"):
        parse_folder(text)


def test_what_every_model_predicted_is_the_intersection():
    a, b = Box((0, 4), (1, 9), (2, 8)), Box((2, 6), (0, 7), (3, 10))
    assert shared_box("k", [a, None, b]) == Box((2, 4), (1, 7), (3, 8))
    assert shared_box("k", [None, None]) is None


def test_crops_without_a_common_voxel_are_an_error_of_the_case():
    with pytest.raises(NothingShared, match="k: the parts that the models predicted share no voxel"):
        shared_box("k", [Box((0, 2), (0, 2), (0, 2)), Box((2, 4), (0, 2), (0, 2))])


def test_a_volume_and_its_crop_are_turned_together():
    array = np.arange(2 * 3 * 4, dtype=np.float32).reshape(1, 2, 3, 4)
    volume = Volume(array, Grid((2, 3, 4)), "probabilities", Stored("float32"), Box((0, 2), (1, 2), (1, 4)))
    like = Volume(np.zeros((1, 2, 4, 3), np.float32), Grid((2, 4, 3)), "probabilities", Stored("float32"))
    found = turned(volume, Alignment((1, 0, 2), (True, False, False)), like)
    assert found.grid is like.grid
    np.testing.assert_array_equal(found.array, array.transpose(0, 1, 3, 2)[..., ::-1])
    assert found.predicted == Box((0, 2), (1, 4), (1, 2))
