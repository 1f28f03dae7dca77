from pathlib import Path

import numpy as np
import pytest

from segcal_cli.core.volume import Box, Stored
from segcal_cli.io import padding
from segcal_cli.io.padding import CropNotPlaced
from segcal_cli.io.proof import Painting
from tests.io.builders_nnunet import pad, region_field, region_space, softmax_field, softmax_space

NPZ = Path("v1/A.npz")
SPACE = softmax_space(3)
FLOAT32, FLOAT16 = Stored("float32"), Stored("float16")
CROP, BEFORE, AFTER = (5, 6, 7), (2, 3, 1), (4, 1, 2)
PLACE = Box((2, 7), (3, 9), (1, 8))
SCAN = (11, 10, 10)


def v1_crop(shape=CROP, seed=0):
    """A float16 crop, decoded, and the segmentation of the whole scan that holds it."""
    array, labels = softmax_field(shape, 3, seed)
    segmentation = np.pad(labels, list(zip(BEFORE, AFTER, strict=True)))
    return array.astype(np.float16).astype(np.float32), segmentation


def place(array, segmentation, space=SPACE):
    return padding.place_crop(NPZ, array, segmentation, Painting.of(space, "probabilities"))


def test_padding_of_certain_background_is_left_out():
    array, _ = softmax_field(CROP, 3)
    assert padding.predicted_box(pad(array, BEFORE, AFTER, 1), SPACE, FLOAT32) == PLACE


def test_padding_of_regions_is_all_zeros():
    array, _ = region_field(CROP)
    assert padding.predicted_box(pad(array, BEFORE, AFTER, 0), region_space(), FLOAT32) == PLACE


def test_in_float16_only_zeros_are_padding():
    array, _ = softmax_field(CROP, 3)
    assert padding.predicted_box(pad(array, BEFORE, AFTER, 0), SPACE, FLOAT16) == PLACE
    assert padding.predicted_box(pad(array, BEFORE, AFTER, 1), SPACE, FLOAT16) is None


@pytest.mark.parametrize("axis", [0, 1, 2])
@pytest.mark.parametrize("side", [0, 1])
def test_padding_on_a_single_side_is_found(axis, side):
    array, _ = softmax_field(CROP, 3)
    width = [[0, 0], [0, 0], [0, 0]]
    width[axis][side] = 2
    before, after = zip(*width, strict=True)
    padded = pad(array, before, after, 1)
    ranges = [(b, b + n) for b, n in zip(before, CROP, strict=True)]
    assert padding.predicted_box(padded, SPACE, FLOAT32) == Box(*ranges)


def test_a_full_array_has_no_padding():
    assert padding.predicted_box(softmax_field(CROP, 3)[0], SPACE, FLOAT32) is None


def test_an_array_of_nothing_but_padding_has_an_empty_box():
    array = np.zeros((3, *CROP), dtype=np.float32)
    array[0] = 1
    assert padding.predicted_box(array, SPACE, FLOAT32) == Box((0, 0), (0, 0), (0, 0))


def test_a_saturated_voxel_is_padding_only_if_every_channel_is_exactly_the_constant():
    array = np.zeros((3, *CROP), dtype=np.float32)
    array[0] = 1
    array[2, 1, 4, 2] = 1e-30
    array[1, 3, 2, 5] = 1e-30
    assert padding.predicted_box(array, SPACE, FLOAT32) == Box((1, 4), (2, 5), (2, 6))


def test_the_box_of_sparse_voxels_is_that_of_a_plain_search():
    rng = np.random.default_rng(2)
    for _ in range(50):
        array = np.zeros((3, *SCAN), dtype=np.float32)
        array[0] = 1
        where = tuple(rng.integers(0, SCAN, size=(rng.integers(1, 6), 3)).T)
        array[(1, *where)] = 0.25
        found = padding.predicted_box(array, SPACE, FLOAT32)
        assert found == padding.bounding_box(array[1] > 0) or (found is None and array[1].any())


def test_a_crop_is_placed_exactly():
    array, segmentation = v1_crop()
    full, box = place(array, segmentation)
    assert box == PLACE
    np.testing.assert_array_equal(full[:, 2:7, 3:9, 1:8], array)
    assert Painting.of(SPACE, "probabilities").compare(full, segmentation).status == "proved"


def test_the_rest_of_the_scan_reads_as_certain_background():
    array, segmentation = v1_crop()
    full, box = place(array, segmentation)
    outside = ~box.mask(SCAN)
    np.testing.assert_array_equal(full[:, outside], np.array([1, 0, 0])[:, None] * np.ones(outside.sum()))


def test_a_crop_of_regions_is_placed_exactly():
    array, labels = region_field(CROP)
    full, box = place(array, np.pad(labels, list(zip(BEFORE, AFTER, strict=True))), region_space())
    assert box == PLACE
    assert not full[:, ~box.mask(SCAN)].any()


def test_ties_of_float16_that_move_the_foreground_box_do_not_move_the_crop():
    array, labels = softmax_field((8, 8, 8), 3)
    array[0], labels[...] = 2, 0
    array[1, 2:6, 2:6, 2:6], labels[2:6, 2:6, 2:6] = 3, 1
    array[:2, 2, 2:6, 2:6] = 3  # a tie: painted background, named class 1 by the segmentation
    array[:2, 5, 2:6, 2:6] = 3
    array[1, 3, 3, 3], labels[3, 3, 3] = 0, 0
    segmentation = np.pad(labels, 3)
    assert place(array, segmentation)[1] == Box((3, 11), (3, 11), (3, 11))


def refused(array, segmentation, why):
    with pytest.raises(CropNotPlaced) as caught:
        place(array, segmentation)
    a, b = (" x ".join(map(str, shape[::-1])) for shape in (array.shape[1:], segmentation.shape))
    assert str(caught.value) == (
        f"v1/A.npz: array {a}, scan {b}: nnU-Net v1 saved the cropped box and its place cannot be found ({why})"
    )


def test_a_crop_without_foreground_is_refused():
    array, segmentation = v1_crop()
    array[0] = 2
    refused(array, np.zeros_like(segmentation), "no foreground")


def test_a_crop_of_another_segmentation_is_refused():
    array, _ = v1_crop()
    refused(array, v1_crop(seed=1)[1], "no place reproduces the segmentation")


def test_foreground_outside_the_crop_is_refused():
    array, segmentation = v1_crop()
    segmentation[-1, -1, -1] = 1
    refused(array, segmentation, "no place reproduces the segmentation")


def test_a_crop_that_fits_in_two_places_is_refused():
    array = np.zeros((3, 4, 4, 4), dtype=np.float32)
    array[:2] = 0.5  # every voxel ties, so that any place agrees
    array[:, 1, 1, 1] = (0, 1, 0)
    segmentation = np.zeros((4, 4, 6), dtype=np.uint8)
    segmentation[1, 1, 1:4] = 1
    refused(array, segmentation, "2 places reproduce the segmentation")


def test_an_array_larger_than_its_scan_is_refused():
    array, segmentation = v1_crop()
    refused(array, segmentation[:, :, :6], "the array is larger than the scan")


def test_zero_padding_of_v1_is_counted_and_becomes_certain_background():
    array, labels = v1_crop()
    full = pad(array, BEFORE, AFTER, 0)
    box = padding.predicted_box(full, SPACE, FLOAT16)
    assert box == PLACE
    assert padding.empty_padding(full, box) == 11 * 10 * 10 - 5 * 6 * 7
    padding.fill_background(full, box, SPACE)
    np.testing.assert_array_equal(full, pad(array, BEFORE, AFTER, 1))
    assert padding.empty_padding(full, box) == 0
    assert padding.empty_padding(array, None) == 0
    assert Painting.of(SPACE, "probabilities").compare(full, labels).status == "proved"


def test_the_parts_outside_a_box_are_disjoint_and_complete():
    counted = PLACE.mask(SCAN).astype(int)
    for part in padding.outside(PLACE, SCAN):
        counted[part] += 1
    assert (counted == 1).all()
