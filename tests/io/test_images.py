"""PNG and TIFF: gray is a probability, indices are labels, colour is neither, and damage is named."""

import contextlib
import io
import struct
import tracemalloc
import zlib

import numpy as np
import pytest
import tifffile
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import array_shapes, arrays
from PIL import Image

from segcal_cli.core.errors import FormatError
from segcal_cli.core.volume import Stored
from segcal_cli.io import images
from segcal_cli.io.arrays import HardMask
from segcal_cli.io.images import BadSpacing, BrokenImage, ColourLabels, ColourProbabilities, UnusableNumbers
from segcal_cli.io.inputs import AbsurdSize, EmptyFile, OversizedCase
from segcal_cli.io.tiffs import BrokenTiff, UnusableTiff
from tests.io.builders_arrays import palette_png, png_bytes, saved_image, write_json

RAMP8 = np.arange(12, dtype=np.uint8).reshape(3, 4) * 23
RAMP16 = np.arange(12, dtype=np.uint16).reshape(3, 4) * 5957
COLOURS = ["RGB", "RGBA", "LA"]


def save(path, content):
    path.write_bytes(content)
    return path


@pytest.mark.parametrize(("ramp", "mode", "top"), [(RAMP8, "L", 255), (RAMP16, "I;16", 65535)])
def test_gray_is_a_share_of_its_largest_value(tmp_path, ramp, mode, top):
    header = images.probe(saved_image(tmp_path / "a.png", ramp))
    assert (header.mode, header.shape) == (mode, (1, 3, 4))
    result = images.read_probabilities(header)
    assert (result.dtype, result.shape) == (np.float32, (1, 1, 3, 4))
    np.testing.assert_array_equal(result[0, 0], ramp.astype(np.float32) / np.float32(top))
    assert images.stored(header) == Stored(ramp.dtype.name, 1 / top)
    assert images.values_of(header) == "probabilities"


def test_the_top_of_the_range_is_exactly_1(tmp_path):
    header = images.probe(saved_image(tmp_path / "a.png", np.full((2, 2), 255, np.uint8)))
    assert (images.read_probabilities(header) == 1).all()


@pytest.mark.parametrize("mode", [*COLOURS, "P"])
def test_colour_and_palette_cannot_hold_probabilities(tmp_path, mode):
    header = images.probe(saved_image(tmp_path / "a.png", RAMP8, mode))
    assert header.mode == mode
    with pytest.raises(ColourProbabilities) as caught:
        images.read_probabilities(header)
    assert str(caught.value) == (
        f"{tmp_path / 'a.png'}: a colour image cannot hold probabilities; one gray image per class"
    )


@pytest.mark.parametrize("mode", COLOURS)
def test_colour_cannot_hold_labels(tmp_path, mode):
    header = images.probe(saved_image(tmp_path / "a.png", RAMP8, mode))
    with pytest.raises(ColourLabels) as caught:
        images.read_indices(header)
    assert str(caught.value) == f"{tmp_path / 'a.png'}: RGB label image; save palette indices or one mask per class"


@pytest.mark.parametrize("mode", COLOURS)
def test_a_scan_in_colours_is_seen_in_shades_of_gray(tmp_path, mode):
    header = images.probe(saved_image(tmp_path / "a.png", RAMP8, mode))
    np.testing.assert_array_equal(images.read_shades(header), RAMP8[None])


def test_a_scan_in_gray_keeps_its_values(tmp_path):
    for ramp in (RAMP8, RAMP16):
        np.testing.assert_array_equal(
            images.read_shades(images.probe(saved_image(tmp_path / "a.png", ramp))), ramp[None]
        )


def test_luminance_weighs_green_most(tmp_path):
    """ITU-R BT.601: .299, .587, .114."""
    from PIL import Image

    colours = np.array([[[255, 0, 0], [0, 255, 0], [0, 0, 255]]], np.uint8)
    Image.fromarray(colours).save(tmp_path / "a.png")
    assert images.read_shades(images.probe(tmp_path / "a.png")).tolist() == [[[76, 150, 29]]]


def test_a_colour_tiff_is_no_scan(tmp_path):
    import tifffile

    tifffile.imwrite(tmp_path / "a.tif", np.zeros((4, 5, 3), np.uint8), photometric="rgb")
    with pytest.raises(images.ColourTiff, match="a colour TIFF cannot be drawn or looked at; save the scan as a gray"):
        images.read_shades(images.probe(tmp_path / "a.tif"))


def test_a_one_bit_image_is_a_hard_mask_and_a_label(tmp_path):
    header = images.probe(saved_image(tmp_path / "a.png", RAMP8 > 100))
    assert header.mode == "1"
    np.testing.assert_array_equal(images.read_indices(header), (RAMP8 > 100)[None].astype(np.uint8))
    with pytest.raises(HardMask, match="a hard mask; calibration needs logits or probabilities"):
        images.read_probabilities(header)


def test_a_palette_gives_indices_and_not_colours(tmp_path):
    indices = np.array([[0, 1, 2], [7, 5, 0]], np.uint8)
    header = images.probe(palette_png(tmp_path / "a.png", indices))
    assert header.mode == "P"
    np.testing.assert_array_equal(images.read_indices(header), indices[None])


@pytest.mark.parametrize("ramp", [RAMP8, RAMP16])
def test_gray_labels_are_read_as_they_are(tmp_path, ramp):
    result = images.read_indices(images.probe(saved_image(tmp_path / "a.png", ramp)))
    assert result.dtype == ramp.dtype
    np.testing.assert_array_equal(result, ramp[None])


@pytest.mark.parametrize(("bits", "row"), [(2, b"\x1b"), (4, b"\x01\x23")])
@pytest.mark.parametrize("palette", [b"", bytes(48)])
def test_packed_labels_keep_their_values(tmp_path, bits, row, palette):
    """0, 1, 2, 3 in two or four bits; the image library alone would give 0, 85, 170, 255 or 0, 17, 34, 51."""
    content = png_bytes([row], 4, bits, 3 if palette else 0, palette[: 3 * 2**bits])
    header = images.probe(save(tmp_path / "a.png", content))
    np.testing.assert_array_equal(images.read_indices(header), [[[0, 1, 2, 3]]])


def test_packed_gray_is_a_share_of_its_own_largest_value(tmp_path):
    header = images.probe(save(tmp_path / "a.png", png_bytes([b"\x1b"], 4, 2, 0)))
    np.testing.assert_allclose(images.read_probabilities(header)[0, 0, 0], [0, 1 / 3, 2 / 3, 1], rtol=1e-7)
    assert images.stored(header).step == 1 / 3


def test_broken_png_files_are_refused(tmp_path):
    whole = saved_image(tmp_path / "a.png", RAMP16).read_bytes()
    path = tmp_path / "b.png"
    with pytest.raises(EmptyFile):
        images.probe(save(path, b""))
    for end in range(1, len(whole) - 12, 7):
        with pytest.raises(FormatError, match=r"b.png"):
            images.read_indices(images.probe(save(path, whole[:end])))
    with pytest.raises(BrokenImage, match="it does not begin as a PNG"):
        images.probe(save(path, b"GIF89a" + bytes(60)))


@settings(max_examples=60, deadline=None, derandomize=True, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(data=st.data())
def test_a_flipped_bit_in_a_png_is_refused_or_leaves_the_image_intact(tmp_path, data):
    content = bytearray(saved_image(tmp_path / "a.png", RAMP16).read_bytes())
    content[data.draw(st.integers(0, len(content) - 1))] ^= 1 << data.draw(st.integers(0, 7))
    path = save(tmp_path / "b.png", bytes(content))
    try:
        result = images.read_indices(images.probe(path))
    except FormatError as error:
        assert str(error).startswith(str(path))  # noqa: PT017  (either outcome is right)
    else:
        np.testing.assert_array_equal(result, RAMP16[None])


def test_a_png_that_claims_gigapixels_is_refused_before_anything_is_allocated(tmp_path):
    content = bytearray(png_bytes([b"\0"], 1, 8, 0))
    content[16:24] = struct.pack(">II", 60_000, 60_000)
    tracemalloc.start()
    try:
        with pytest.raises(AbsurdSize):
            images.probe(save(tmp_path / "a.png", bytes(content)))
        assert tracemalloc.get_traced_memory()[1] < 2**20
    finally:
        tracemalloc.stop()


def test_an_image_above_the_limit_of_a_case_is_refused(tmp_path, monkeypatch):
    monkeypatch.setattr("segcal_cli.io.inputs.MAX_CASE_BYTES", 47)
    with pytest.raises(OversizedCase):
        images.probe(saved_image(tmp_path / "a.png", RAMP8))


def test_the_image_librarys_own_limit_plays_no_part(tmp_path, monkeypatch):
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 4)
    saved_image(tmp_path / "a.png", RAMP8)
    assert images.read_probabilities(images.probe(tmp_path / "a.png")).size == 12


# -- TIFF


@pytest.mark.parametrize("compression", [None, "zlib"])
@pytest.mark.parametrize("dtype", ["u1", "<u2", ">u2", "<f4", "f8", "i2"])
def test_a_stack_is_z_y_x(tmp_path, compression, dtype):
    stack = (np.arange(24).reshape(2, 3, 4) * 10).astype(dtype)
    tifffile.imwrite(
        tmp_path / "a.tif",
        stack,
        compression=compression,
        byteorder=">" if dtype[0] == ">" else "<",
        photometric="minisblack",
    )
    header = images.probe(tmp_path / "a.tif")
    assert (header.mode, header.shape) == ("gray", (2, 3, 4))
    result = images.read_indices(header)
    np.testing.assert_array_equal(result, stack)
    assert result.dtype == np.dtype(dtype).newbyteorder("=")


@pytest.mark.parametrize("name", ["a.tif", "a.TIFF"])
def test_a_single_tiff_image_has_z_1(tmp_path, name):
    tifffile.imwrite(tmp_path / name, RAMP8)
    np.testing.assert_array_equal(images.read_indices(images.probe(tmp_path / name)), RAMP8[None])


def test_tiff_integers_are_scaled_and_floats_kept(tmp_path):
    tifffile.imwrite(tmp_path / "a.tif", np.full((2, 5, 6), 65535, np.uint16))
    header = images.probe(tmp_path / "a.tif")
    assert (images.read_probabilities(header) == 1).all()
    assert images.stored(header) == Stored("uint16", 1 / 65535)
    values = np.linspace(-3, 3, 60).reshape(2, 5, 6).astype(np.float32)
    tifffile.imwrite(tmp_path / "b.tif", values)
    header = images.probe(tmp_path / "b.tif")
    np.testing.assert_array_equal(images.read_probabilities(header), values[None])
    assert (images.stored(header), images.values_of(header)) == (Stored("float32"), None)


def test_tiff_integers_that_are_no_share_are_refused(tmp_path):
    tifffile.imwrite(tmp_path / "a.tif", np.ones((3, 4), np.int32))
    with pytest.raises(UnusableNumbers, match="int32 samples cannot be probabilities"):
        images.read_probabilities(images.probe(tmp_path / "a.tif"))


def test_a_colour_tiff_is_refused_as_a_colour_png_is(tmp_path):
    tifffile.imwrite(tmp_path / "a.tif", np.zeros((5, 6, 3), np.uint8), photometric="rgb")
    header = images.probe(tmp_path / "a.tif")
    with pytest.raises(ColourProbabilities, match="a colour image cannot hold probabilities; one gray image per class"):
        images.read_probabilities(header)
    with pytest.raises(ColourLabels, match="RGB label image; save palette indices or one mask per class"):
        images.read_indices(header)


def test_a_palette_tiff_gives_indices(tmp_path):
    colours = np.zeros((3, 256), np.uint16)
    tifffile.imwrite(tmp_path / "a.tif", RAMP8, photometric="palette", colormap=colours)
    header = images.probe(tmp_path / "a.tif")
    np.testing.assert_array_equal(images.read_indices(header), RAMP8[None])
    with pytest.raises(ColourProbabilities):
        images.read_probabilities(header)


def test_other_kinds_of_tiff_are_refused(tmp_path):
    path = tmp_path / "a.tif"
    tifffile.imwrite(path, np.zeros((2, 2, 5, 6), np.uint8))
    with pytest.raises(UnusableTiff, match="one gray stack"):
        images.probe(path)
    tifffile.imwrite(path, np.zeros((3, 4), np.complex64))
    with pytest.raises(UnusableTiff, match="it holds complex64"):
        images.probe(path)
    tifffile.imwrite(path, RAMP8, photometric="miniswhite")
    with pytest.raises(UnusableTiff, match="white is stored as 0"):
        images.probe(path)
    with tifffile.TiffWriter(path) as writer:
        writer.write(RAMP8)
        writer.write(RAMP16)
    with pytest.raises(UnusableTiff, match="2 images of different kinds"):
        images.probe(path)
    Image.fromarray(RAMP8).save(path, compression="tiff_lzw")
    with pytest.raises(UnusableTiff, match="compressed as LZW"):
        images.probe(path)
    Image.fromarray(RAMP8).save(path, compression="jpeg")
    with pytest.raises(UnusableTiff, match="JPEG inside a TIFF is lossy"):
        images.probe(path)


@pytest.mark.parametrize("compression", [None, "zlib"])
def test_truncated_tiff_files_are_refused(tmp_path, compression, capfd):
    stack = np.random.default_rng(0).integers(0, 255, (5, 30, 20), np.uint8)
    tifffile.imwrite(tmp_path / "a.tif", stack, compression=compression)
    whole, path = (tmp_path / "a.tif").read_bytes(), tmp_path / "b.tif"
    for end in (0, 3, 60, len(whole) // 2, len(whole) - 40):
        with pytest.raises(FormatError, match=r"b.tif"):
            images.read_indices(images.probe(save(path, whole[:end])))
    assert capfd.readouterr().err == ""


@pytest.mark.parametrize("bigtiff", [False, True])
@pytest.mark.parametrize("byteorder", ["<", ">"])
def test_a_chain_of_pages_that_bites_its_own_tail_is_refused(tmp_path, bigtiff, byteorder):
    path, width = tmp_path / "a.tif", 8 if bigtiff else 4
    tifffile.imwrite(path, RAMP8, bigtiff=bigtiff, byteorder=byteorder, metadata=None)
    np.testing.assert_array_equal(images.read_indices(images.probe(path)), RAMP8[None])
    with tifffile.TiffFile(path) as tiff:
        first, end = tiff.pages[0].offset, tiff.pages.next_page_offset
    content = bytearray(path.read_bytes())
    content[end : end + width] = first.to_bytes(width, "little" if byteorder == "<" else "big")
    with pytest.raises(BrokenTiff, match=f"page 2 would begin at byte {first} of {len(content)}"):
        images.probe(save(path, bytes(content)))


def test_a_tiff_that_claims_gigapixels_is_refused(tmp_path):
    path = tmp_path / "a.tif"
    tifffile.imwrite(path, np.zeros((64, 60), np.uint8), metadata=None, compression="zlib")
    content = path.read_bytes()
    for tag in (256, 257, 278):  # width, length, rows per strip
        at = content.index(struct.pack("<HHI", tag, 4, 1)) + 8
        content = content[:at] + struct.pack("<I", 2**20) + content[at + 4 :]
    with pytest.raises(AbsurdSize, match=f"its header asks for {2**40} bytes"):
        images.probe(save(path, content))


@pytest.mark.parametrize("layout", [{}, {"tile": (16, 16)}, {"rowsperstrip": 2}])
def test_a_tiff_whose_pixels_inflate_beyond_their_number_stops_there(tmp_path, layout):
    path = tmp_path / "a.tif"
    tifffile.imwrite(path, np.zeros((20, 20), np.uint8), photometric="minisblack", compression="zlib", **layout)
    kind = "Tile" if layout.get("tile") else "Strip"
    with tifffile.TiffFile(path) as tiff:
        tags = tiff.pages[0].tags
        lengths, starts = tags[f"{kind}ByteCounts"], tags[f"{kind}Offsets"]
        count, at = lengths.count, (lengths.valueoffset, starts.valueoffset)
        sizes = [4 if tag.dtype.name == "LONG" else 2 for tag in (lengths, starts)]
    content, bomb = bytearray(path.read_bytes()), zlib.compress(bytes(2**24))
    for place, number, size in zip(at, (len(bomb), len(content)), sizes, strict=True):
        content[place : place + size] = number.to_bytes(size, "little")
    save(path, bytes(content) + bomb)
    assert count >= 1
    tracemalloc.start()
    try:
        with pytest.raises(BrokenTiff, match=r"more than the [0-9]+ bytes of pixels declared"):
            images.read_indices(images.probe(path))
        assert tracemalloc.get_traced_memory()[1] < 2**23
    finally:
        tracemalloc.stop()


@pytest.mark.parametrize("chunk", [b"zTXt", b"iTXt", b"iCCP"])
def test_a_png_with_a_bomb_beside_its_pixels_takes_no_memory_for_it(tmp_path, chunk):
    bomb = zlib.compress(bytes(2**26))
    body = {b"zTXt": b"a\0\0", b"iTXt": b"a\0\1\0\0\0", b"iCCP": b"a\0\0"}[chunk] + bomb
    whole = png_bytes([b"\0\7\7\7"] * 2, 3, 8, 0)
    extra = struct.pack(">I", len(body)) + chunk + body + struct.pack(">I", zlib.crc32(chunk + body))
    path = save(tmp_path / "a.png", whole[:33] + extra + whole[33:])
    tracemalloc.start()
    try:
        try:
            pixels = images.read_indices(images.probe(path))
            assert pixels.shape == (1, 2, 3)
        except BrokenImage:
            pass
        assert tracemalloc.get_traced_memory()[1] < 2**24
    finally:
        tracemalloc.stop()


def test_a_png_whose_pixels_inflate_beyond_their_number_stops_there(tmp_path):
    whole = png_bytes([b"\0\7\7\7"] * 2, 3, 8, 0)
    body = zlib.compress(bytes(2**26))
    at = whole.index(b"IDAT") - 4
    end = whole.index(b"IEND") - 4
    chunk = struct.pack(">I", len(body)) + b"IDAT" + body + struct.pack(">I", zlib.crc32(b"IDAT" + body))
    path = save(tmp_path / "a.png", whole[:at] + chunk + whole[end:])
    tracemalloc.start()
    try:
        with contextlib.suppress(BrokenImage):
            images.read_indices(images.probe(path))
        assert tracemalloc.get_traced_memory()[1] < 2**24
    finally:
        tracemalloc.stop()


def test_spacing_comes_from_the_json_beside_a_tiff(tmp_path):
    tifffile.imwrite(tmp_path / "a.1.tif", np.zeros((2, 5, 6), np.uint8))
    header = images.probe(tmp_path / "a.1.tif")
    assert images.grid(header).affine is None
    write_json(tmp_path / "a.1.json", {"spacing": [3, 2.0, 0.5]})
    grid = images.grid(header)
    assert (grid.shape, grid.spacing_mm) == ((2, 5, 6), (0.5, 2.0, 3.0))


@pytest.mark.parametrize(
    "spacing",
    [
        None,
        [1, 2],
        [1, 2, 0],
        [1, 2, -1],
        [1, 2, True],
        ["1", 2, 3],
        [1, 2, float("inf")],
        [1, 2, 1e-320],
        [1, 2, 1e30],
        3,
    ],
)
def test_a_spacing_that_is_none_is_refused(tmp_path, spacing):
    tifffile.imwrite(tmp_path / "a.tif", RAMP8)
    write_json(tmp_path / "a.json", {"spacing": spacing})
    with pytest.raises(BadSpacing) as caught:
        images.grid(images.probe(tmp_path / "a.tif"))
    assert str(caught.value) == f"{tmp_path / 'a.json'}: spacing must be three positive numbers (z, y, x)"


def test_a_png_lies_nowhere(tmp_path):
    assert images.grid(images.probe(saved_image(tmp_path / "a.png", RAMP8))).affine is None


# -- writing


def written(writer, array):
    file = io.BytesIO()
    writer(file, array)
    return file.getvalue()


@settings(max_examples=30, deadline=None, derandomize=True, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(codes=st.sampled_from([np.uint8, np.uint16]).flatmap(lambda t: arrays(t, array_shapes(min_dims=2, max_dims=2))))
def test_labels_come_back_from_a_png_bit_for_bit(tmp_path, codes):
    path = save(tmp_path / "a.png", written(images.write_label_png, codes))
    np.testing.assert_array_equal(images.read_indices(images.probe(path)), codes[None])
    assert written(images.write_label_png, np.asfortranarray(codes)[None]) == path.read_bytes()


def test_a_mask_is_written_as_0_and_255(tmp_path):
    path = save(tmp_path / "a.png", written(images.write_mask_png, RAMP8[None] > 100))
    np.testing.assert_array_equal(images.read_indices(images.probe(path)), np.where(RAMP8 > 100, 255, 0)[None])


def test_a_png_holds_one_plane_of_8_or_16_bits():
    with pytest.raises(ValueError, match="one plane"):
        written(images.write_mask_png, np.zeros((2, 3, 4), bool))
    with pytest.raises(ValueError, match="uint8 or uint16"):
        written(images.write_label_png, np.zeros((3, 4), np.int32))
