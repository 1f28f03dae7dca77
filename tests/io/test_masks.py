"""Masks: joined where they exclude each other or may overlap, refused where the class table says that they cannot."""

from pathlib import Path

import numpy as np
import pytest

from segcal_cli.core.labels import Channel, LabelSpace
from segcal_cli.io.labelmaps import NotWhole, class_voxels
from segcal_cli.io.masks import EmptyRoi, MissingMask, OverlappingMasks, SoftMask, UncoveredVoxels, join_masks, roi_mask

NAMES = ("background", "liver", "tumour")
EXCLUSIVE = LabelSpace(tuple(Channel(name, frozenset({value})) for value, name in enumerate(NAMES)), "softmax")
REGIONS = LabelSpace(tuple(Channel(f"r{c}", frozenset({c + 1})) for c in range(5)), "sigmoid")


def mask(*values):
    return np.array(values, np.uint8).reshape(1, 1, -1)


def join(masks, space):
    return join_masks(
        [(channel, array, Path(f"{channel}.nii.gz")) for channel, array in masks.items()], space, case="a"
    )


def text_of(error, masks, space):
    with pytest.raises(error) as caught:
        join(masks, space)
    return str(caught.value)


def test_exclusive_masks_become_channels_and_the_rest_background():
    result = join({2: mask(0, 0, 255, 0), 1: mask(1, 0, 0, 1)}, EXCLUSIVE)
    np.testing.assert_array_equal(result.codes, mask(1, 0, 2, 1))
    assert result.codes.dtype == np.uint8
    np.testing.assert_array_equal(result.members, np.eye(3, dtype=bool))


def test_a_background_mask_is_taken_at_its_word():
    masks = {0: mask(0, 1, 0), 1: mask(1, 0, 0), 2: mask(0, 0, 1)}
    np.testing.assert_array_equal(join(masks, EXCLUSIVE).codes, mask(1, 0, 2))
    masks[0] = mask(0, 0, 0)
    assert text_of(UncoveredVoxels, masks, EXCLUSIVE) == "a: 1 voxel belongs to no class"


def test_exclusive_masks_that_overlap_are_refused():
    text = text_of(OverlappingMasks, {1: mask(1, 1, 1, 0), 2: mask(0, 1, 1, 1)}, EXCLUSIVE)
    assert text == "a: liver and tumour overlap in 2 voxels; exclusive classes cannot"


@pytest.mark.parametrize("masks", [{1: mask(1, 0)}, {}])
def test_every_class_but_the_background_needs_a_mask(masks):
    assert "every class but the background needs one" in text_of(MissingMask, masks, EXCLUSIVE)
    assert text_of(MissingMask, {}, REGIONS).startswith("a: no mask for class r0")


@pytest.mark.parametrize("order", ["C", "F"])
def test_overlapping_regions_are_joined_by_the_combinations_that_occur(order):
    rng = np.random.default_rng(0)
    masks = {c: (rng.random((4, 5, 6)) < 0.4).astype(np.uint8, order=order) * (c + 1) for c in (3, 0, 1, 4, 2)}
    result = join(masks, REGIONS)
    assert result.codes.dtype == np.uint8
    assert result.members.shape == (5, result.codes.max() + 1)
    for channel, array in masks.items():
        np.testing.assert_array_equal(result.holds(channel), array != 0)
    np.testing.assert_array_equal(class_voxels(result), [np.count_nonzero(masks[c]) for c in range(5)])


def test_a_mask_of_more_than_two_values_is_refused():
    with pytest.raises(SoftMask) as caught:
        join({1: mask(0, 1, 2)}, EXCLUSIVE)
    assert str(caught.value) == "1.nii.gz: 3 different values in a mask of one class; expected 0 and one other"
    with pytest.raises(NotWhole, match="a probability map"):
        join({1: mask(0, 1, 2) / 3}, EXCLUSIVE)


@pytest.mark.parametrize("dtype", [bool, np.uint8, np.int16, np.float32])
def test_a_region_of_interest_keeps_what_is_not_0(dtype):
    array = np.array([[0, 1], [3, 0]]).astype(dtype)
    np.testing.assert_array_equal(roi_mask(array, Path("r.nii.gz")), array[None] != 0)


def test_an_empty_region_of_interest_is_refused():
    with pytest.raises(EmptyRoi) as caught:
        roi_mask(np.zeros((2, 3, 4, 1)), Path("r.nii.gz"))
    assert str(caught.value) == "r.nii.gz: the region of interest is empty"


def test_an_undefined_region_of_interest_is_refused():
    with pytest.raises(NotWhole, match=r"1 voxel is not a whole number \(e.g. nan\)"):
        roi_mask(np.array([[0, np.nan]]), Path("r.nii.gz"))
