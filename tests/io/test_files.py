"""One interface over all formats: what a header tells, and the numbers behind it."""

from __future__ import annotations

import numpy as np
import pytest

from segcal_cli.core.labels import Channel, LabelSpace
from segcal_cli.io import arrays, files, images, nifti
from segcal_cli.io.labelmaps import OneHotLabel
from tests.io.builders_arrays import npy_bytes, saved_image, write_npz
from tests.io.builders_folders import exclusive
from tests.io.builders_nifti import affine_of, field, save

SHAPE = (4, 5, 6)
THREE = exclusive("background", "edema", "necrosis")
TWO = exclusive("background", "tumour")
ONE = LabelSpace((Channel("tumour", frozenset({1})),), "sigmoid")


def array_file(tmp_path, array, key="probabilities"):
    return write_npz(tmp_path / "a.npz", {f"{key}.npy": npy_bytes(array)})


def test_each_format_has_a_name(tmp_path):
    paths = [
        save(tmp_path / "a.nii.gz", field(SHAPE)),
        array_file(tmp_path, field(SHAPE)),
        saved_image(tmp_path / "a.png", np.zeros((5, 6), np.uint8)),
    ]
    (tmp_path / "b.npy").write_bytes(npy_bytes(field(SHAPE)))
    names = [files.format_name(files.probe(path)) for path in (*paths, tmp_path / "b.npy")]
    assert names == ["nifti", "npz", "png", "npy"]


@pytest.mark.parametrize(
    ("key", "told"),
    [("probabilities", "probabilities"), ("softmax", "probabilities"), ("logits", "logits"), ("x", None)],
)
def test_a_key_says_what_an_array_holds(key, told, tmp_path):
    assert files.values_of(files.probe(array_file(tmp_path, field(SHAPE), key))) == told


def test_a_format_that_tells_may_be_repeated_but_not_contradicted(tmp_path):
    header = files.probe(array_file(tmp_path, field(SHAPE)))
    assert files.checked_values(header, "probabilities") == "probabilities"
    with pytest.raises(files.ValuesContradicted) as caught:
        files.checked_values(header, "logits")
    assert str(caught.value).endswith(
        "holds probabilities by its format (key probabilities), not logits; leave --values out"
    )


@pytest.mark.parametrize(
    ("shape", "space", "axis", "found"),
    [
        ((3, *SHAPE), THREE, None, (3, *SHAPE)),
        ((3, 5, 6), THREE, None, (3, 1, 5, 6)),
        ((5, 6, 3), THREE, "last", (3, 1, 5, 6)),
        ((*SHAPE, 3), THREE, "last", (3, *SHAPE)),
        ((2, *SHAPE), TWO, None, (2, *SHAPE)),
        ((1, *SHAPE), TWO, None, (1, *SHAPE)),
        (SHAPE, TWO, None, (1, *SHAPE)),
        ((5, 6), TWO, None, (1, 1, 5, 6)),
        (SHAPE, ONE, None, (1, *SHAPE)),
        ((1, 5, 6), ONE, None, (1, 1, 5, 6)),
    ],
)
def test_the_shape_of_an_array_follows_from_its_classes(shape, space, axis, found, tmp_path):
    values = field(shape)
    header = files.probe(array_file(tmp_path, values))
    assert files.soft_shape(header, space, axis) == found
    read = files.read_soft(header, space, axis)
    assert (read.shape, read.dtype, read.flags.c_contiguous) == (found, np.float32, True)
    moved = np.moveaxis(values, -1, 0) if axis == "last" else values
    np.testing.assert_array_equal(read, moved.reshape(found))


@pytest.mark.parametrize(
    ("shape", "space", "axis", "found"),
    [
        ((3, *SHAPE), THREE, None, (3, *SHAPE)),
        ((3, 1, *SHAPE), THREE, None, (3, *SHAPE)),
        ((*SHAPE, 3), THREE, "first", (3, *SHAPE)),
        (SHAPE, TWO, None, (1, *SHAPE)),
        ((5, 6), ONE, None, (1, 1, 5, 6)),
        ((1, *SHAPE), ONE, None, (1, *SHAPE)),
    ],
)
def test_the_shape_of_a_nifti_follows_from_its_axes(shape, space, axis, found, tmp_path):
    values = field(shape)
    header = files.probe(save(tmp_path / "a.nii.gz", values))
    assert files.soft_shape(header, space, axis) == found
    moved = np.moveaxis(values, -1, 0) if axis == "first" else values
    np.testing.assert_array_equal(files.read_soft(header, space, axis), moved.reshape(found))


def test_an_image_is_one_channel(tmp_path):
    header = files.probe(saved_image(tmp_path / "a.png", np.arange(30, dtype=np.uint8).reshape(5, 6)))
    assert files.soft_shape(header, TWO, None) == (1, 1, 5, 6)
    with pytest.raises(nifti.OneChannel):
        files.soft_shape(header, THREE, None)


def test_colour_is_told_before_the_number_of_channels(tmp_path):
    header = files.probe(saved_image(tmp_path / "a.png", np.zeros((5, 6), np.uint8), "RGB"))
    with pytest.raises(images.ColourProbabilities):
        files.soft_shape(header, THREE, None)


@pytest.mark.parametrize(("shape", "count"), [((3, *SHAPE), 3), ((3, 1, *SHAPE), 3), (SHAPE, 1), ((5, 6), 1)])
def test_the_channels_of_a_nifti_are_counted(shape, count, tmp_path):
    assert files.channel_count(files.probe(save(tmp_path / "a.nii.gz", field(shape)))) == count


def test_an_array_lies_nowhere_and_a_nifti_where_it_says(tmp_path):
    assert files.place(files.probe(array_file(tmp_path, field((3, *SHAPE)))), SHAPE).grid.affine is None
    affine = affine_of("ASL", oblique=5)
    space = files.place(files.probe(save(tmp_path / "a.nii.gz", field((3, *SHAPE)), affine)), SHAPE)
    assert space.grid.shape == SHAPE
    np.testing.assert_allclose(space.grid.affine, affine, atol=1e-5)


@pytest.mark.parametrize("shape", [SHAPE, (1, *SHAPE), (1, 1, *SHAPE)])
def test_axes_of_length_1_around_a_label_do_not_count(shape, tmp_path):
    header = files.probe(save(tmp_path / "a.nii.gz", np.zeros(shape, np.uint8)))
    assert files.label_shape(header) == SHAPE


def test_a_label_of_one_slice_keeps_its_axes(tmp_path):
    assert files.label_shape(files.probe(save(tmp_path / "a.nii.gz", np.zeros((1, 5, 6), np.uint8)))) == (1, 5, 6)


def test_a_label_with_a_class_axis_is_refused_by_its_header(tmp_path):
    with pytest.raises(OneHotLabel, match="3 channels in a label; expected one volume of label values"):
        files.label_shape(files.probe(save(tmp_path / "a.nii.gz", np.zeros((3, *SHAPE), np.uint8))))


def test_labels_come_as_stored_with_their_scaling(tmp_path):
    values = np.arange(120, dtype=np.int16).reshape(SHAPE)
    numbers = files.read_labels(files.probe(save(tmp_path / "a.nii.gz", values, slope=(0.5, 1.0))))
    np.testing.assert_array_equal(numbers.raw, values)
    assert (numbers.raw.dtype, numbers.slope, numbers.inter, numbers.image) == (np.int16, 0.5, 1.0, False)


def test_precision_is_that_of_the_file(tmp_path):
    assert files.stored(files.probe(array_file(tmp_path, field(SHAPE).astype(np.float16)))).dtype == "float16"
    image = files.probe(saved_image(tmp_path / "a.png", np.zeros((5, 6), np.uint8)))
    assert files.stored(image).step == 1 / 255


def test_a_usable_affine_is_asked_for_by_the_header_alone(tmp_path):
    path = save(tmp_path / "a.nii.gz", field(SHAPE), np.diag([1.0, 1.0, 1.0, 1.0]))
    assert files.probe(path).shape == SHAPE[::-1]
    assert isinstance(files.probe(array_file(tmp_path, field(SHAPE))), arrays.ArrayHeader)
