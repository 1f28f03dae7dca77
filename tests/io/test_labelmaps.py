"""Label volumes: what the table knows becomes codes, and anything else is counted, named and refused."""

from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import array_shapes, arrays

from segcal_cli.core.labels import Channel, LabelSpace
from segcal_cli.io import labelmaps
from segcal_cli.io.labelmaps import (
    ForeignLabel,
    MaskValueUnclear,
    NotWhole,
    OneHotLabel,
    RareClass,
    TooManyValues,
    WrongLabelRank,
)

PATH = Path("labels/a.nii.gz")


def space(activation="softmax", ignore=None, **values):
    channels = tuple(Channel(name, frozenset(v if isinstance(v, tuple) else (v,))) for name, v in values.items())
    return LabelSpace(channels, activation, ignore)


THREE = space(background=0, liver=1, tumour=2)
JOINED = space(tumour=(1, 3), background=0, edema=2)
NESTED = space("sigmoid", whole=(1, 2, 4), core=(1, 4))
TWO = space(background=0, tumour=1)
ONE = space("sigmoid", foreground=1)


def volume(values):
    return np.array(values).reshape(1, 1, -1)


def map_of(values, table, **options):
    return labelmaps.label_map(np.asarray(values), table, path=PATH, **options)


def text_of(error, values, table, **options):
    with pytest.raises(error) as caught:
        map_of(values, table, **options)
    return str(caught.value).removeprefix(f"{PATH}: ")


@pytest.mark.parametrize("dtype", ["u1", "i1", "<i2", ">i2", "u2", "i4", ">u4", "i8", "u8", "f4", ">f4", "f8", "f2"])
@pytest.mark.parametrize("table", [THREE, JOINED, space("sigmoid", a=(1, 2), b=(2, 3))])
@pytest.mark.parametrize("order", ["C", "F"])
def test_every_type_gives_the_same_map(dtype, table, order):
    values = np.random.default_rng(0).integers(0, 3, (3, 4, 5))
    result = map_of(values.astype(dtype, order=order), table)
    assert result.codes.dtype == np.uint8
    assert result.codes.flags.c_contiguous
    assert result.ignored is None
    for channel, entry in enumerate(table.channels):
        np.testing.assert_array_equal(result.holds(channel), np.isin(values, list(entry.values)))


def test_softmax_codes_are_channels_and_sigmoid_codes_are_ranks_of_values():
    np.testing.assert_array_equal(map_of(volume([3, 0, 2, 1]), JOINED).codes, volume([0, 1, 2, 0]))
    result = map_of(volume([4, 0, 2, 1]), NESTED)
    np.testing.assert_array_equal(result.codes, volume([3, 0, 2, 1]))
    np.testing.assert_array_equal(result.members, [[False, True, True, True], [False, True, False, True]])


def test_labels_that_already_are_codes_are_not_copied():
    values = np.random.default_rng(0).integers(0, 3, (3, 4, 5), dtype=np.uint8)
    assert np.shares_memory(map_of(values, THREE).codes, values)


def test_a_bool_volume_is_0_and_1():
    np.testing.assert_array_equal(map_of(volume([True, False]), TWO).codes, volume([1, 0]))


def test_more_than_256_classes_need_16_bits():
    table = space(**{f"c{value}": value for value in range(300)})
    values = np.arange(300, dtype=np.int16).reshape(1, 15, 20)
    assert map_of(values, table).codes.dtype == np.uint16
    np.testing.assert_array_equal(map_of(values, table).codes, values)


def test_large_label_values_are_fine():
    table = space("sigmoid", cortex=14175, pons=(12, 2**31 - 1))
    with pytest.raises(TooManyValues):
        map_of(volume([0, 2**31 - 1]), table)
    np.testing.assert_array_equal(map_of(volume([0, 14175, 12]), table).holds(0), volume([False, True, False]))


@pytest.mark.parametrize(
    ("dtype", "slope", "inter"), [("i2", 4.58e-05, 0.0), ("u1", 0.01, -0.5), ("i4", 4.66e-10, 0.0)]
)
def test_scaled_labels_within_the_tolerance_are_rounded(dtype, slope, inter):
    wanted = np.array([0, 1, 1, 0])
    raw = np.rint((wanted - inter) / slope).astype(dtype)
    np.testing.assert_array_equal(map_of(volume(raw), TWO, slope=slope, inter=inter).codes, volume(wanted))


@pytest.mark.parametrize("dtype", ["f4", "f8"])
def test_labels_are_rounded_below_the_tolerance_and_refused_above(dtype):
    near = np.array([0, 1 + 0.9 * labelmaps.LABEL_ROUNDING, 2 - 0.9 * labelmaps.LABEL_ROUNDING], dtype)
    np.testing.assert_array_equal(map_of(volume(near), THREE).codes, volume([0, 1, 2]))
    far = np.array([0, 1 + 1.1 * labelmaps.LABEL_ROUNDING, 0.5, 2], dtype)
    assert text_of(NotWhole, volume(far), THREE) == "2 voxels are not whole numbers (e.g. 1.0011); a probability map?"


def test_scaled_integers_that_are_not_whole_are_refused_with_their_count():
    text = text_of(NotWhole, volume(np.array([0, 1, 3, 3, 2], np.int16)), TWO, slope=0.5)
    assert text == "3 voxels are not whole numbers (e.g. 0.5); a probability map?"


@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf])
def test_undefined_labels_are_refused(value):
    assert text_of(NotWhole, volume([0.0, value]), TWO).startswith(f"1 voxel is not a whole number (e.g. {value})")


def test_a_scan_in_place_of_a_label_is_refused():
    assert text_of(TooManyValues, volume([0, 2**40]), TWO) == (
        "label values from 0 to 1.09951e+12; a scan instead of its label?"
    )
    assert "from 0 to 1e+12;" in text_of(TooManyValues, volume([0.0, 1e12]), TWO)
    assert "from 0 to 1e+30;" in text_of(TooManyValues, volume(np.array([0, 1], np.uint8)), TWO, slope=1e30)
    assert "a scan" in text_of(TooManyValues, volume(np.array([2**64 - 1, 2**64 - 2], np.uint64)), TWO)


def test_a_value_that_the_table_does_not_know_is_refused_and_never_remapped():
    text = text_of(ForeignLabel, volume([0, 1, 2, 4, 4]), JOINED)
    assert text == (
        "label 4 (2 voxels) is not in the class table (tumour 1+3, background 0, edema 2); add it, or --ignore-label 4"
    )
    text = text_of(ForeignLabel, volume([-1, 7, 7, 9, 0]), TWO)
    assert text == (
        "label -1 (1 voxel) is not in the class table (background 0, tumour 1); add it, or --ignore-label -1"
        "; also 7 (2 voxels), 9 (1 voxel)"
    )


def test_0_is_always_allowed_under_sigmoid_and_not_under_softmax():
    assert not map_of(volume([0, 1]), ONE).holds(0)[0, 0, 0]
    assert text_of(ForeignLabel, volume([0, 1]), space(left=1, right=2)).startswith("label 0 (1 voxel)")


def test_ignored_voxels_have_code_0_and_stand_in_a_mask_of_their_own():
    result = map_of(volume([0, 3, 2, 9, 1]), space(ignore=3, background=0, liver=1, tumour=2), ignore_label=9)
    np.testing.assert_array_equal(result.ignored, volume([False, True, False, True, False]))
    np.testing.assert_array_equal(result.codes, volume([0, 0, 2, 0, 1]))
    np.testing.assert_array_equal(labelmaps.class_voxels(result), [1, 1, 1])
    assert map_of(volume([0, 1]), space(ignore=3, background=0, liver=1)).ignored is None


@pytest.mark.parametrize("table", [TWO, ONE, space(tumour=3, background=0), space("sigmoid", nodule=(4, 5))])
def test_an_image_of_0_and_255_is_a_mask_of_the_one_foreground_class(table):
    values = np.array([[0, 255], [255, 0]], np.uint8)
    result = labelmaps.foreground(map_of(values, table, image_mask=True), table)
    np.testing.assert_array_equal(result.holds(0), values[None] == 255)


@pytest.mark.parametrize("value", [0, 255])
def test_a_mask_may_be_all_one_value(value):
    result = map_of(np.full((2, 2), value, np.uint8), ONE, image_mask=True)
    assert (result.holds(0) == (value == 255)).all()


def test_255_in_an_image_is_a_label_if_the_table_knows_it():
    result = map_of(volume([0, 255]), space(background=0, nodule=255), image_mask=True)
    np.testing.assert_array_equal(result.codes, volume([0, 1]))


def test_255_is_foreign_in_a_volume_among_other_values_and_with_several_classes():
    assert text_of(ForeignLabel, volume([0, 255]), ONE).startswith("label 255 (1 voxel)")
    assert text_of(ForeignLabel, volume([0, 1, 255]), ONE, image_mask=True).startswith("label 255 (1 voxel)")
    assert text_of(ForeignLabel, volume([0, 255]), THREE, image_mask=True).startswith("label 255 (1 voxel)")


def test_mask_value_names_the_foreground():
    np.testing.assert_array_equal(map_of(volume([0, 128]), TWO, mask_value=128).codes, volume([0, 1]))
    assert text_of(ForeignLabel, volume([0, 1, 128]), TWO, mask_value=128).startswith("label 1 (1 voxel)")
    text = text_of(MaskValueUnclear, volume([0, 128]), THREE, mask_value=128)
    assert text == "--mask-value 128 names the one foreground class, but the class table has 2"


@pytest.mark.parametrize("shape", [(2, 3, 4, 1), (2, 3, 4, 1, 1), (1, 2, 3, 4), (1, 1, 2, 3, 4), (2, 3, 4)])
def test_axes_of_length_1_around_a_volume_are_dropped(shape):
    values = np.random.default_rng(0).integers(0, 3, shape)
    np.testing.assert_array_equal(map_of(values, THREE).codes, values.reshape(2, 3, 4))


@pytest.mark.parametrize("shape", [(3, 5, 6, 7), (5, 6, 7, 3), (1, 3, 5, 6, 7)])
def test_one_hot_labels_are_refused(shape):
    assert text_of(OneHotLabel, np.zeros(shape, np.uint8), THREE) == (
        "3 channels in a label; expected one volume of label values"
    )


@pytest.mark.parametrize("shape", [(4,), (), (0, 2, 3)])
def test_a_label_that_is_no_volume_is_refused(shape):
    text = text_of(WrongLabelRank, np.zeros(shape, np.uint8), THREE)
    assert text == f"a label of shape {shape}; expected a volume or an image"


def test_an_image_gets_z_1():
    assert map_of(np.zeros((3, 4), np.uint8), THREE).codes.shape == (1, 3, 4)


def test_class_voxels_counts_overlapping_classes_in_each():
    np.testing.assert_array_equal(labelmaps.class_voxels(map_of(volume([0, 2, 1, 4, 4]), NESTED)), [4, 3])
    np.testing.assert_array_equal(labelmaps.class_voxels(map_of(volume([0, 0]), THREE)), [2, 0, 0])


def test_a_rare_class_names_the_number_of_cases_that_would_do():
    assert str(RareClass("tumour", 3, 9)) == "class tumour: 3 cases hold it, 9 are needed"


def test_the_foreground_of_two_classes_keeps_other_background_values():
    table = space(background=(0, 2), tumour=1)
    result = labelmaps.foreground(map_of(volume([0, 1, 2]), table), table)
    assert result.members.shape == (1, 2)
    np.testing.assert_array_equal(result.holds(0), volume([False, True, False]))


@settings(max_examples=80, deadline=None, derandomize=True)
@given(
    values=st.sampled_from(["u1", "i2", "i8", "f4", "f8"]).flatmap(
        lambda dtype: arrays(dtype, array_shapes(min_dims=3, max_dims=3), elements=st.integers(0, 9))
    )
)
def test_codes_and_members_say_what_the_values_say(values):
    table = space("sigmoid", ignore=9, odd=(1, 3, 5, 7), high=(5, 6, 7, 8), two=(2, 4))
    result = map_of(values, table)
    kept = values != 9
    for channel, entry in enumerate(table.channels):
        np.testing.assert_array_equal(result.holds(channel) & kept, np.isin(values, list(entry.values)))
    np.testing.assert_array_equal(np.zeros_like(kept) if result.ignored is None else result.ignored, ~kept)
