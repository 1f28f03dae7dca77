from __future__ import annotations

import contextlib
import gzip
import io
import pickle
import struct
import tempfile
import time
import tracemalloc
from pathlib import Path

import nibabel as nib
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from segcal_cli.core.errors import FormatError
from segcal_cli.core.labels import Channel, LabelSpace
from segcal_cli.core.volume import Stored
from segcal_cli.io import gzipped, nifti, nifti_header
from segcal_cli.io.inputs import AbsurdSize, EmptyFile, OversizedCase
from tests.io import builders_nifti as build

SHAPE = (5, 7, 6)


def classes(count, activation="softmax"):
    return LabelSpace(tuple(Channel(f"c{i}", frozenset({i})) for i in range(count)), activation)


def refused(error, path, text, call):
    with pytest.raises(error) as caught:
        call()
    assert isinstance(caught.value, FormatError)
    assert str(caught.value) == f"{path}: {text}"
    assert str(pickle.loads(pickle.dumps(caught.value))) == str(caught.value)


@pytest.fixture(params=["a.nii", "a.nii.gz"])
def path(tmp_path, request):
    return tmp_path / request.param


def read(path):
    return nifti.read(nifti.probe(path))


# What is read


def test_a_3d_file_is_read_as_z_y_x_bit_for_bit(path):
    array = build.field(SHAPE)
    build.save(path, array)
    got = read(path)
    assert got.dtype == np.float32
    assert got.flags.c_contiguous
    np.testing.assert_array_equal(got, array)


def test_a_4d_file_is_read_as_class_z_y_x_bit_for_bit(path):
    array = build.softmax_field((4, *SHAPE))
    build.save(path, array)
    header = nifti.probe(path)
    assert header.shape == (6, 7, 5, 4)
    got = nifti.as_channels(header, nifti.read(header), classes(4))
    np.testing.assert_array_equal(got, array)
    assert got.flags.c_contiguous


def test_a_channel_last_file_needs_no_copy(path):
    build.save(path, build.softmax_field((4, *SHAPE)))
    header = nifti.probe(path)
    array = nifti.read(header)
    assert np.shares_memory(nifti.as_channels(header, array, classes(4)), array)


def test_a_5d_vector_file_has_its_channels_on_the_fifth_axis(path):
    array = build.softmax_field((3, 1, *SHAPE))
    build.save(path, array)
    header = nifti.probe(path)
    assert header.shape == (6, 7, 5, 1, 3)
    np.testing.assert_array_equal(nifti.as_channels(header, nifti.read(header), classes(3)), array[:, 0])


def test_a_2d_file_of_monai_has_one_plane(path):
    array = build.softmax_field((3, 1, 7, 6))
    build.save(path, array)
    header = nifti.probe(path)
    assert header.shape == (6, 7, 1, 3)
    np.testing.assert_array_equal(nifti.as_channels(header, nifti.read(header), classes(3)), array)
    assert header.space().grid.shape == (1, 7, 6)


@pytest.mark.parametrize("shape", [SHAPE, (7, 6)])
@pytest.mark.parametrize("space", [classes(1, "sigmoid"), classes(2)], ids=["one class", "two exclusive"])
def test_a_file_without_channel_axis_is_one_channel(path, shape, space):
    array = build.field(shape)
    build.save(path, array)
    header = nifti.probe(path)
    got = nifti.as_channels(header, nifti.read(header), space)
    np.testing.assert_array_equal(got, array.reshape(1, *(1, *shape)[-3:]))


def test_a_trailing_axis_of_length_one_is_one_channel(path):
    array = build.field((1, *SHAPE))
    build.save(path, array)
    header = nifti.probe(path)
    np.testing.assert_array_equal(nifti.as_channels(header, nifti.read(header), classes(2)), array)


def test_channels_on_the_first_axis_are_moved_if_asked_for(path):
    array = build.softmax_field((3, *SHAPE))
    build.save(path, np.transpose(array, (0, 3, 2, 1)), axes="disk")
    header = nifti.probe(path)
    assert header.shape == (3, 6, 7, 5)
    got = nifti.as_channels(header, nifti.read(header), classes(3), "first")
    np.testing.assert_array_equal(got, array)
    assert got.flags.c_contiguous
    assert header.space(channel_axis="first").grid.shape == SHAPE


@pytest.mark.parametrize("big_endian", [False, True])
@pytest.mark.parametrize("dtype", ["u1", "i1", "i2", "u2", "i4", "u4", "i8", "u8", "f4", "f8"])
def test_every_type_and_byte_order_is_read_as_nibabel_reads_it(path, dtype, big_endian):
    array = (build.field((2, *SHAPE)) * 100).astype(dtype)
    build.save(path, array, big_endian=big_endian)
    header = nifti.probe(path)
    assert header.big_endian == (big_endian and dtype[1] != "1")
    np.testing.assert_array_equal(nifti.read(header), nib.load(path).get_fdata().transpose().astype(np.float32))
    raw = nifti.read_raw(header)
    assert raw.dtype == np.dtype(dtype)
    np.testing.assert_array_equal(raw, array)


@pytest.mark.parametrize("version", [1, 2])
def test_both_versions_are_read(path, version):
    array = build.field(SHAPE)
    build.save(path, array, version=version)
    header = nifti.probe(path)
    assert header.version == version
    np.testing.assert_array_equal(nifti.read(header), array)
    np.testing.assert_allclose(header.affine, build.affine_of(), atol=1e-5)


@pytest.mark.parametrize("big_endian", [False, True])
def test_slope_and_intercept_are_applied(path, big_endian):
    array = (build.field(SHAPE) * 65535).astype("u2")
    build.save(path, array, slope=(1 / 65535, -0.25), big_endian=big_endian)
    header = nifti.probe(path)
    expected = (array * np.float64(np.float32(1 / 65535)) - 0.25).astype(np.float32)
    np.testing.assert_array_equal(nifti.read(header), expected)
    np.testing.assert_array_equal(nifti.read_raw(header), array)
    assert nifti.stored(header) == Stored("uint16", float(np.float32(1 / 65535)))


@pytest.mark.parametrize("slope", [0.0, float("nan"), float("inf")])
def test_a_slope_of_zero_or_nan_scales_nothing(path, slope):
    array = (build.field(SHAPE) * 9).astype("i2")
    build.save(path, array, slope=(slope, 7.0))
    header = nifti.probe(path)
    assert not header.scaled
    np.testing.assert_array_equal(nifti.read(header), array)


def test_a_slope_with_an_impossible_intercept_is_refused(path):
    build.save(path, build.field(SHAPE), slope=(2.0, float("nan")))
    text = "its voxels are scaled by 2 and shifted by nan"
    refused(nifti_header.BadScaling, path, text, lambda: nifti.probe(path))


def test_what_is_stored_says_how_fine_the_numbers_are(path):
    build.save(path, build.field(SHAPE))
    assert nifti.stored(nifti.probe(path)) == Stored("float32", None)
    build.save(path, np.ones(SHAPE, "u1"), slope=(1 / 255, 0))
    assert nifti.stored(nifti.probe(path)) == Stored("uint8", float(np.float32(1 / 255)))
    build.save(path, build.field(SHAPE).astype("f8"), big_endian=True)
    assert nifti.stored(nifti.probe(path)) == Stored("float64", None)


def test_gzip_in_several_members_is_read(tmp_path):
    path = tmp_path / "a.nii.gz"
    array = build.field((3, *SHAPE))
    build.save(path, array)
    path.write_bytes(build.in_members(gzip.decompress(path.read_bytes()), 5))
    np.testing.assert_array_equal(read(path), array)


def test_elements_split_between_pieces_are_joined(tmp_path):
    """Voxels that begin at an odd byte: every piece but the last ends inside an element."""
    path = tmp_path / "a.nii.gz"
    array = build.field((20, 100, 100)).astype("f8")
    build.save(path, array)
    content = gzip.decompress(path.read_bytes())
    path.write_bytes(gzip.compress(content[:352] + b"\0" * 3 + content[352:], 1))
    build.edit(path, 108, struct.pack("<f", 355.0))
    np.testing.assert_array_equal(nifti.read_raw(nifti.probe(path)), array)


@pytest.mark.parametrize("kind", ["f4", "f8", "i2"])
def test_reading_holds_little_beside_the_array(path, kind):
    array = (build.field((100, 200, 200)) * 100).astype(kind)
    nifti.write(path, array, build.affine_of())
    header = nifti.probe(path)
    tracemalloc.start()
    try:
        got = nifti.read(header)
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    # Compressed bytes, decoded bytes, and what is converted of them.
    assert peak < got.nbytes + 10 * 2**20


# What a header says


@pytest.mark.parametrize("oblique", [0, 12])
@pytest.mark.parametrize("codes", build.ORIENTATIONS)
@pytest.mark.parametrize("forms", [(1, 1), (2, 0), (0, 3)], ids=["both", "sform", "qform"])
def test_the_affine_is_nibabels(path, codes, oblique, forms):
    sform, qform = forms
    build.save(path, build.field(SHAPE), build.affine_of(codes, oblique=oblique), sform=sform, qform=qform)
    header = nifti.probe(path)
    image = nib.load(path)
    np.testing.assert_allclose(header.affine, image.affine, atol=1e-6)
    assert (header.sform_code, header.qform_code) == (sform, qform)
    for mine, oracle in ((header.sform, image.get_sform(coded=True)), (header.qform, image.get_qform(coded=True))):
        assert (mine is None) == (oracle[0] is None)
        if mine is not None:
            np.testing.assert_allclose(mine, oracle[0], atol=1e-6)


def test_the_sform_beats_the_qform(path):
    other = build.affine_of("LPS")
    build.save(path, build.field(SHAPE), qform_affine=other)
    header = nifti.probe(path)
    np.testing.assert_allclose(header.affine, build.affine_of(), atol=1e-6)
    np.testing.assert_allclose(header.qform, other, atol=1e-6)


def test_without_either_the_affine_is_pixdim_alone(path):
    build.save(path, build.field(SHAPE), sform=0, qform=0)
    header = nifti.probe(path)
    assert header.sform is None
    assert header.qform is None
    np.testing.assert_allclose(header.affine, np.diag([*build.SPACING, 1.0]), atol=1e-6)


@pytest.mark.parametrize(
    ("code", "name", "factor"), [(0, "mm", 1), (1, "metre", 1e3), (2, "mm", 1), (3, "micrometre", 1e-3)]
)
def test_metres_and_micrometres_become_mm(path, code, name, factor):
    affine = np.diag([1 / factor, 1 / factor, 1 / factor, 1]) @ build.affine_of("LPS", oblique=12)
    build.save(path, build.field(SHAPE), affine, units=code + 8)
    header = nifti.probe(path)
    assert header.units == name
    for matrix in (header.affine, header.sform, header.qform):
        np.testing.assert_allclose(matrix, build.affine_of("LPS", oblique=12), atol=2e-5)
    np.testing.assert_allclose(header.pixdim_mm, build.SPACING, rtol=1e-6)
    build.save(path, build.field(SHAPE), affine, units=code, sform=0, qform=0)
    np.testing.assert_allclose(nifti.probe(path).affine, np.diag([*build.SPACING, 1]), atol=1e-5)


def test_an_extension_is_handed_over_as_it_is(path):
    xml = b"<CaretExtension><Label Key='1'>liver</Label></CaretExtension>"
    build.save(path, build.field(SHAPE), extension=(0, xml))
    header = nifti.probe(path)
    ((code, content),) = header.extensions
    assert code == 0
    assert content.rstrip(b"\0") == xml
    np.testing.assert_array_equal(nifti.read(header), build.field(SHAPE))


def test_an_extension_that_runs_over_the_voxels_is_left_out(path):
    build.save(path, build.field(SHAPE), extension=(0, b"x" * 40))
    build.edit(path, 352, struct.pack("<i", 4000))
    assert nifti.probe(path).extensions == ()


def test_probe_reads_no_voxel_and_takes_under_5_ms(tmp_path):
    path = tmp_path / "a.nii.gz"
    nifti.write(path, build.field((4, 60, 100, 100)), build.affine_of())
    path.write_bytes(path.read_bytes()[:300_000] + bytes(path.stat().st_size - 300_000))
    nifti.probe(path)
    times = []
    for _ in range(9):
        start = time.perf_counter()
        nifti.probe(path)
        times.append(time.perf_counter() - start)
    assert min(times) < 0.005


# What is refused


@pytest.mark.parametrize(
    ("shape", "count", "axis", "text"),
    [
        ((5, *SHAPE), 4, "last", "last axis has 5 entries, the class table 4"),
        (
            (5, 6, 7, 4),
            4,
            "last",
            "last axis has 5 entries, the class table 4; the first would fit: --channel-axis first",
        ),
        (
            (1, 6, 7, 4),
            4,
            "last",
            "last axis has 1 entries, the class table 4; the first would fit: --channel-axis first",
        ),
        (
            (4, 6, 7, 5),
            4,
            "first",
            "first axis has 5 entries, the class table 4; the last would fit: --channel-axis last",
        ),
        ((3, 1, *SHAPE), 4, "last", "last axis has 3 entries, the class table 4"),
    ],
)
def test_a_channel_axis_of_another_length_is_refused(path, shape, count, axis, text):
    build.save(path, build.field(shape))
    header = nifti.probe(path)
    refused(nifti.WrongChannelCount, path, text, lambda: nifti.check_channels(header, classes(count), axis))


def test_several_time_points_are_refused(path):
    build.save(path, build.field((3, 2, *SHAPE)))
    header = nifti.probe(path)
    text = "5-D with 2 time points; one volume per case is expected"
    refused(nifti.TimeSeries, path, text, lambda: nifti.check_channels(header, classes(3)))


@pytest.mark.parametrize("shape", [SHAPE, (1, *SHAPE), (7, 6)])
def test_one_channel_for_several_classes_is_refused(path, shape):
    build.save(path, build.field(shape))
    header = nifti.probe(path)
    text = "one channel, but the class table has 3"
    refused(nifti.OneChannel, path, text, lambda: nifti.check_channels(header, classes(3)))


def test_one_channel_for_two_regions_is_refused(path):
    build.save(path, build.field(SHAPE))
    header = nifti.probe(path)
    text = "one channel, but the class table has 2"
    refused(nifti.OneChannel, path, text, lambda: nifti.check_channels(header, classes(2, "sigmoid")))


def test_six_axes_are_refused(path):
    build.save(path, build.field((2, 2, 1, *SHAPE)))
    header = nifti.probe(path)
    text = "6-D (6 x 7 x 5 x 1 x 2 x 2); one volume per case is expected"
    refused(nifti.TooManyAxes, path, text, lambda: nifti.check_channels(header, classes(2)))


@pytest.mark.parametrize(
    ("dims", "said"),
    [
        ((3, -6, 7, 5), "-6 x 7 x 5 (rank 3)"),
        ((3, 6, 0, 5), "6 x 0 x 5 (rank 3)"),
        ((1, 6, 7, 5), "6 (rank 1)"),
        ((0, 6, 7, 5, 1, 1, 1, 1), "6 x 7 x 5 x 1 x 1 x 1 x 1 (rank 0)"),
        ((8, 6, 7, 5, 1, 1, 1, 1), "6 x 7 x 5 x 1 x 1 x 1 x 1 (rank 8)"),
        ((-1, 6, 7, 5, 1, 1, 1, 1), "6 x 7 x 5 x 1 x 1 x 1 x 1 (rank -1)"),
    ],
)
def test_negative_and_impossible_dimensions_are_refused(path, dims, said):
    build.with_dims(build.save(path, build.field(SHAPE)), *dims)
    text = f"its header declares dimensions {said}, which no volume has"
    refused(nifti_header.BadDimensions, path, text, lambda: nifti.probe(path))


def test_absurd_dimensions_are_refused_before_anything_is_allocated(path):
    build.with_dims(build.save(path, build.field(SHAPE)), 3, 32767, 32767, 32767)
    asked = 352 + 4 * 32767**3
    text = f"needs {asked} bytes in memory; at most {64 * 2**30} are read"
    refused(OversizedCase, path, text, lambda: nifti.probe(path))


def test_small_types_are_counted_as_the_floats_that_they_become(path):
    build.with_dims(build.save(path, np.ones(SHAPE, "u1")), 3, 4096, 4096, 2048)
    text = f"needs {2**37} bytes in memory; at most {64 * 2**30} are read"
    refused(OversizedCase, path, text, lambda: nifti.probe(path))


def test_dimensions_that_deflate_cannot_reach_are_refused(tmp_path):
    path = tmp_path / "a.nii.gz"
    build.with_dims(build.save(path, build.field(SHAPE)), 3, 1000, 1000, 1000)
    size = path.stat().st_size
    text = f"its header asks for 4000000352 bytes, more than its {size} bytes can hold"
    refused(AbsurdSize, path, text, lambda: nifti.probe(path))


@pytest.mark.parametrize(("extra", "error"), [(-4, gzipped.TooShort), (4, gzipped.TooLong)])
def test_an_uncompressed_file_of_another_size_is_refused_by_its_header(tmp_path, extra, error):
    path = tmp_path / "a.nii"
    build.save(path, build.field(SHAPE))
    content, size = path.read_bytes(), 352 + 4 * 210
    path.write_bytes(content[:extra] if extra < 0 else content + bytes(extra))
    text = {
        gzipped.TooShort: f"holds {size - 4} bytes, but its header declares {size}",
        gzipped.TooLong: f"holds more than the {size} bytes that its header declares",
    }[error]
    refused(error, path, text, lambda: nifti.probe(path))


@pytest.mark.parametrize(("extra", "error"), [(-4, gzipped.TooShort), (4, gzipped.TooLong)])
def test_a_compressed_file_of_another_size_is_refused_when_read(tmp_path, extra, error):
    path = tmp_path / "a.nii.gz"
    build.save(path, build.field(SHAPE))
    content = gzip.decompress(path.read_bytes())
    path.write_bytes(gzip.compress(content[:extra] if extra < 0 else content + bytes(extra)))
    for call in (nifti.read, nifti.read_raw):
        with pytest.raises(error):
            call(nifti.probe(path))


def test_a_half_file_passes_its_header_and_is_refused_when_read(tmp_path):
    path = tmp_path / "a.nii.gz"
    build.save(path, build.field((40, 100, 100)))
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])
    header = nifti.probe(path)
    text = "the gzip stream ends too early; the file is truncated"
    refused(gzipped.TruncatedGzip, path, text, lambda: nifti.read(header))


def test_a_wrong_checksum_is_refused_though_all_voxels_are_there(tmp_path):
    path = tmp_path / "a.nii.gz"
    build.save(path, build.field((40, 100, 100)))
    path.write_bytes(build.flipped(path.read_bytes(), -6))
    header = nifti.probe(path)
    text = "the gzip stream is damaged (incorrect checksum found)"
    refused(gzipped.DamagedGzip, path, text, lambda: nifti.read(header))


def test_bytes_after_the_stream_are_refused(tmp_path):
    path = tmp_path / "a.nii.gz"
    build.save(path, build.field(SHAPE))
    path.write_bytes(path.read_bytes() + b"more")
    text = "bytes that are not gzip follow the end of the stream"
    refused(gzipped.TrailingBytes, path, text, lambda: read(path))


def test_an_empty_file_is_refused(path):
    path.write_bytes(b"")
    refused(EmptyFile, path, "is empty (0 bytes)", lambda: nifti.probe(path))


@pytest.mark.parametrize("keep", [2, 60])
def test_the_first_bytes_alone_are_refused(path, keep):
    build.save(path, build.field(SHAPE))
    path.write_bytes(path.read_bytes()[:keep])
    with pytest.raises(FormatError) as caught:
        nifti.probe(path)
    assert str(caught.value).startswith(f"{path}: ")


def test_60_bytes_of_a_header_are_refused(tmp_path):
    path = build.save(tmp_path / "a.nii", build.field(SHAPE))
    path.write_bytes(path.read_bytes()[:60])
    refused(gzipped.TooShort, path, "holds 60 bytes, but its header declares 352", lambda: nifti.probe(path))


def test_plain_nifti_named_gz_is_refused(tmp_path):
    path = build.save(tmp_path / "a.nii", build.field(SHAPE)).rename(tmp_path / "a.nii.gz")
    refused(gzipped.NotGzip, path, "is not gzip, though its name ends in .gz", lambda: nifti.probe(path))


def test_gzip_named_nii_is_refused(tmp_path):
    path = build.save(tmp_path / "a.nii.gz", build.field(SHAPE)).rename(tmp_path / "a.nii")
    text = "is not NIfTI (it is gzip; is .gz missing from its name?)"
    refused(nifti_header.NotNifti, path, text, lambda: nifti.probe(path))


def test_another_format_under_the_name_is_refused(path):
    data = b"not a volume" * 100
    path.write_bytes(gzip.compress(data) if path.suffix == ".gz" else data)
    refused(nifti_header.NotNifti, path, "is not NIfTI (it begins with 6e 6f 74 20)", lambda: nifti.probe(path))


def test_half_of_a_pair_is_refused(path):
    build.edit(build.save(path, build.field(SHAPE)), 344, b"ni1\0")
    text = "is half of a .hdr/.img pair; convert it to one .nii.gz"
    refused(nifti_header.HeaderPair, path, text, lambda: nifti.probe(path))


def test_analyze_is_refused(path):
    build.edit(build.save(path, build.field(SHAPE)), 344, b"\0\0\0\0")
    text = r"is not NIfTI (its magic is b'\x00\x00\x00\x00'; Analyze 7.5 is not read)"
    refused(nifti_header.NotNifti, path, text, lambda: nifti.probe(path))


@pytest.mark.parametrize(
    ("code", "name"), [(32, "complex"), (128, "RGB"), (2304, "RGBA"), (1536, "float128"), (77, "unknown (datatype 77)")]
)
def test_voxels_that_are_not_one_real_number_are_refused(path, code, name):
    build.edit(build.save(path, build.field(SHAPE)), 70, struct.pack("<h", code))
    text = f"holds {name} voxels; one real number per voxel is expected"
    refused(nifti_header.UnusableType, path, text, lambda: nifti.probe(path))


@pytest.mark.parametrize("offset", [0.0, 348.0, -352.0, 352.5, float("nan"), float("inf"), 1e30])
def test_voxels_that_begin_nowhere_are_refused(path, offset):
    build.edit(build.save(path, build.field(SHAPE)), 108, struct.pack("<f", offset))
    text = f"its header lets the voxels begin at byte {np.float32(offset):g}"
    refused(nifti_header.BadOffset, path, text, lambda: nifti.probe(path))


def test_no_damaged_header_byte_raises_anything_else(tmp_path):
    path = build.save(tmp_path / "a.nii", build.field(SHAPE))
    good = path.read_bytes()
    for position in range(352):
        path.write_bytes(build.flipped(good, position))
        # Anything but a FormatError fails here; many bytes may change without harm.
        with contextlib.suppress(FormatError):
            read(path)


# What is written


@settings(max_examples=60, deadline=None)
@given(
    shape=st.tuples(*[st.integers(1, 9)] * 3),
    channels=st.one_of(st.none(), st.integers(1, 5)),
    codes=st.sampled_from(build.ALL_ORIENTATIONS),
    oblique=st.sampled_from([0.0, 12.0]),
    suffix=st.sampled_from([".nii", ".nii.gz"]),
)
def test_what_is_written_is_read_bit_for_bit_by_segcal_and_by_nibabel(shape, channels, codes, oblique, suffix):
    array = build.field(shape if channels is None else (channels, *shape))
    affine = build.affine_of(codes, oblique=oblique)
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / f"a{suffix}"
        nifti.write(path, array, affine)
        header = nifti.probe(path)
        np.testing.assert_array_equal(nifti.read(header), array)
        image = nib.load(path)
        # nibabel drops a trailing axis of length 1 nowhere, so the shapes agree too.
        np.testing.assert_array_equal(np.asarray(image.dataobj).transpose(), array)
    np.testing.assert_allclose(header.affine, affine, atol=1e-5)
    np.testing.assert_allclose(image.get_sform(), affine, atol=1e-5)
    # nibabel takes more quaternions for half turns than the standard's own code does, hence not 1e-5.
    np.testing.assert_allclose(image.get_qform(), affine, atol=1e-3)
    np.testing.assert_allclose(header.qform, affine, atol=1e-3)


def test_all_48_quaternions_agree_with_nibabels():
    for codes in build.ALL_ORIENTATIONS:
        for oblique in (0.0, 12.0, 77.0, 180.0):
            affine = build.affine_of(codes, oblique=oblique)
            header = nib.Nifti1Header()
            header.set_qform(affine, code=1)
            qfac, bcd = nifti.quaternion(affine)
            assert qfac == header["pixdim"][0]
            mine = nifti_header._qform(np.array(bcd), affine[:3, 3], np.array(build.SPACING), qfac)
            np.testing.assert_allclose(mine, affine, atol=1e-7)


def test_the_header_holds_place_codes_units_and_intent_and_nothing_else(path):
    nifti.write(path, build.field((2, *SHAPE)), build.affine_of("LPS"), sform_code=2, qform_code=3, intent_code=1001)
    header = nib.load(path).header
    assert (int(header["sform_code"]), int(header["qform_code"]), int(header["intent_code"])) == (2, 3, 1001)
    assert header.get_xyzt_units() == ("mm", "unknown")
    assert header.get_data_dtype() == np.float32
    assert header["bitpix"] == 32
    np.testing.assert_allclose(header["pixdim"][1:4], build.SPACING)
    for field in ("descrip", "aux_file", "intent_name", "db_name"):
        assert header[field].tobytes().strip(b"\0") == b""
    assert len(header.extensions) == 0


def test_sheared_axes_are_written_as_sform_only(path):
    affine = build.affine_of()
    affine[0, 1] = 0.4
    nifti.write(path, build.field(SHAPE), affine, sform_code=0)
    header = nifti.probe(path)
    assert (header.sform_code, header.qform_code) == (1, 0)
    np.testing.assert_allclose(header.affine, affine, atol=1e-6)


def test_a_file_without_place_stays_without(path):
    nifti.write(path, build.field(SHAPE), np.diag([*build.SPACING, 1]), sform_code=0, qform_code=0)
    header = nifti.probe(path)
    assert (header.sform, header.qform) == (None, None)
    np.testing.assert_allclose(header.affine, np.diag([*build.SPACING, 1]), atol=1e-6)


@pytest.mark.parametrize("kind", ["u1", "u2"])
def test_masks_and_labels_are_written_as_integers(path, kind):
    labels = np.random.default_rng(0).integers(0, 200, SHAPE).astype(kind)
    nifti.write(path, labels, build.affine_of(), intent_code=nifti.INTENT_LABEL)
    header = nifti.probe(path)
    assert header.dtype == np.dtype(kind)
    np.testing.assert_array_equal(nifti.read_raw(header), labels)
    nifti.write(path, labels > 100, build.affine_of())
    np.testing.assert_array_equal(nifti.read_raw(nifti.probe(path)), (labels > 100).astype("u1"))


def test_probabilities_for_display_come_back_within_half_a_step(path):
    array = build.softmax_field((3, *SHAPE))
    nifti.write(path, array, build.affine_of(), dtype=np.uint16, slope=1 / 65535)
    header = nifti.probe(path)
    assert header.dtype == np.uint16
    assert np.abs(nifti.read(header) - array).max() <= 0.5 / 65535 + 1e-7


def test_a_transposed_array_is_written_as_it_is_seen(path):
    array = build.field((7, 6, 5)).transpose(2, 0, 1)
    nifti.write(path, array, build.affine_of())
    np.testing.assert_array_equal(read(path), array)


def test_the_same_input_gives_the_same_bytes_in_a_file_and_in_a_stream(tmp_path):
    array = build.softmax_field((3, *SHAPE))
    files = [tmp_path / "a.nii.gz", tmp_path / "other.nii.gz"]
    for path in files:
        nifti.write(path, array, build.affine_of())
    stream = io.BytesIO()
    nifti.write(stream, array, build.affine_of(), compressed=True)
    assert files[0].read_bytes() == files[1].read_bytes() == stream.getvalue()


def test_axes_beyond_16_bits_make_the_file_nifti_2(path):
    array = build.field((1, 1, 32768))
    nifti.write(path, array, build.affine_of())
    header = nifti.probe(path)
    assert (header.version, header.shape) == (2, (32768, 1, 1))
    np.testing.assert_array_equal(nifti.read(header), array)
    np.testing.assert_array_equal(np.asarray(nib.load(path).dataobj).transpose(), array)
    nifti.write(path, array[..., :-1], build.affine_of())
    assert nifti.probe(path).version == 1


def test_float16_cannot_be_written(path):
    with pytest.raises(ValueError, match="float16"):
        nifti.write(path, build.field(SHAPE).astype("f2"), build.affine_of())
    assert not path.exists()
