from __future__ import annotations

import gzip
import io
import pickle
import tracemalloc

import numpy as np
import pytest

from segcal_cli.core.errors import FormatError
from segcal_cli.io import gzipped
from segcal_cli.io.inputs import AbsurdSize, EmptyFile, UnreadableFile, check_expansion
from tests.io.builders_nifti import flipped, in_members

CONTENT = np.random.default_rng(1).integers(0, 60, 3_000_000, dtype=np.uint8).tobytes()
CONTENT_BYTES = len(CONTENT)


@pytest.fixture
def packed(tmp_path):
    path = tmp_path / "a.nii.gz"
    path.write_bytes(gzip.compress(CONTENT, 1))
    return path


def read_all(path, size=CONTENT_BYTES, skip=0):
    return b"".join(gzipped.payload(path, gzipped.chunks(path), skip=skip, size=size))


def refused(error, path, text, read=read_all):
    with pytest.raises(error) as caught:
        read(path)
    assert isinstance(caught.value, FormatError)
    assert str(caught.value) == f"{path}: {text}"
    assert str(pickle.loads(pickle.dumps(caught.value))) == str(caught.value)


def test_what_gzip_wrote_is_read_byte_for_byte(packed):
    assert read_all(packed) == CONTENT


@pytest.mark.parametrize("skip", [1, 352, gzipped.CHUNK_BYTES, gzipped.CHUNK_BYTES + 7, len(CONTENT)])
def test_the_first_bytes_are_left_out(packed, skip):
    assert read_all(packed, len(CONTENT) - skip, skip) == CONTENT[skip:]


@pytest.mark.parametrize("count", [2, 7, 40])
def test_several_members_are_joined(packed, count):
    packed.write_bytes(in_members(CONTENT, count))
    assert read_all(packed) == CONTENT


@pytest.mark.parametrize("rest", range(gzipped.INPUT_BYTES - 4, gzipped.INPUT_BYTES + 4))
def test_a_member_may_end_anywhere_in_the_input(packed, rest):
    """The first member's length is steered past the boundary of an input read by bytes that do not compress."""
    noise = np.random.default_rng(2).bytes(gzipped.INPUT_BYTES)
    kept = noise[: rest - (len(gzip.compress(noise, 0, mtime=0)) - len(noise))]
    first = gzip.compress(kept, 0, mtime=0)
    assert abs(len(first) - gzipped.INPUT_BYTES) < 20
    packed.write_bytes(first + gzip.compress(b"tail"))
    assert read_all(packed, len(kept) + 4) == kept + b"tail"


def test_zero_padding_after_the_stream_is_passed_over(packed):
    packed.write_bytes(packed.read_bytes() + bytes(512))
    assert read_all(packed) == CONTENT


def test_an_empty_file_is_refused(packed):
    packed.write_bytes(b"")
    refused(EmptyFile, packed, "is empty (0 bytes)")


@pytest.mark.parametrize("keep", [2, 9, 60, 500_000, -9, -8, -1])
def test_a_truncated_file_is_refused(packed, keep):
    packed.write_bytes(packed.read_bytes()[:keep])
    text = "the gzip stream ends too early; the file is truncated"
    refused(gzipped.TruncatedGzip, packed, text)


def test_a_truncated_second_member_is_refused(packed):
    packed.write_bytes(in_members(CONTENT, 2)[:-3])
    refused(gzipped.TruncatedGzip, packed, "the gzip stream ends too early; the file is truncated")


@pytest.mark.parametrize("position", [-8, -5, -4, -1])
def test_a_wrong_checksum_or_length_is_refused_though_all_bytes_are_there(packed, position):
    packed.write_bytes(flipped(packed.read_bytes(), position))
    refused(gzipped.DamagedGzip, packed, "the gzip stream is damaged (incorrect checksum found)")


def test_no_single_damaged_byte_passes(packed):
    content = CONTENT[:4000]
    good = gzip.compress(content, mtime=0)
    harmless = set(range(4, 10))  # date, level and operating system of the gzip header
    for position in sorted(set(range(len(good))) - harmless)[::7]:
        packed.write_bytes(flipped(good, position))
        with pytest.raises(FormatError):
            read_all(packed, len(content))


def test_bytes_after_the_stream_are_refused(packed):
    packed.write_bytes(packed.read_bytes() + b"xyz")
    refused(gzipped.TrailingBytes, packed, "bytes that are not gzip follow the end of the stream")


def test_a_single_byte_after_the_stream_is_refused(packed):
    packed.write_bytes(packed.read_bytes() + b"\x1f")
    refused(gzipped.TrailingBytes, packed, "bytes that are not gzip follow the end of the stream")


def test_something_else_named_gz_is_refused(packed):
    packed.write_bytes(CONTENT)
    refused(gzipped.NotGzip, packed, "is not gzip, though its name ends in .gz")


def test_less_than_declared_is_refused(packed):
    refused(
        gzipped.TooShort,
        packed,
        f"holds {len(CONTENT)} bytes, but its header declares {len(CONTENT) + 1}",
        lambda path: read_all(path, len(CONTENT) + 1),
    )


def test_more_than_declared_is_refused(packed):
    refused(
        gzipped.TooLong,
        packed,
        f"holds more than the {len(CONTENT) - 1} bytes that its header declares",
        lambda path: read_all(path, len(CONTENT) - 1),
    )


def test_a_missing_file_is_refused(tmp_path):
    refused(UnreadableFile, tmp_path / "none.gz", "no such file or directory")


def test_a_size_that_deflate_cannot_reach_is_refused(packed):
    size = packed.stat().st_size
    most = 1032 * size + 2**20
    check_expansion(packed, most, size)
    refused(
        AbsurdSize,
        packed,
        f"its header asks for {most + 1} bytes, more than its {size} bytes can hold",
        lambda path: check_expansion(path, most + 1, size),
    )


def test_deflate_reaches_the_bound_that_the_size_check_allows(tmp_path):
    """The best that zlib can do, on zeros, stays under it, so no honest file is refused."""
    path = tmp_path / "zeros.gz"
    path.write_bytes(gzip.compress(bytes(10_000_000), 9))
    size = path.stat().st_size
    assert 1000 < 10_000_000 / size <= 1032
    check_expansion(path, 10_000_000, size)


def test_head_reads_no_further_than_asked(packed):
    packed.write_bytes(packed.read_bytes()[:400_000])
    assert gzipped.head(packed, 352) == CONTENT[:352]


def test_head_of_a_short_stream_is_all_of_it(packed):
    packed.write_bytes(gzip.compress(b"abc"))
    assert gzipped.head(packed, 352) == b"abc"


def test_reading_holds_little_at_a_time(tmp_path):
    path = tmp_path / "large.gz"
    content = np.random.default_rng(3).integers(0, 60, 20_000_000, dtype=np.uint8)
    path.write_bytes(gzip.compress(content.tobytes(), 1))
    gzipped.head(path, 1)
    tracemalloc.start()
    try:
        decoded = sum(len(piece) for piece in gzipped.chunks(path))
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    assert peak < 8 * 2**20
    assert decoded == content.size


def test_writing_is_reproducible_and_names_neither_date_nor_file(tmp_path):
    first, second = io.BytesIO(), io.BytesIO()
    for file in (first, second):
        gzipped.compress_into(file, [b"head", memoryview(CONTENT)])
    assert first.getvalue() == second.getvalue()
    assert gzip.decompress(first.getvalue()) == b"head" + CONTENT
    assert first.getvalue()[:10] == b"\x1f\x8b\x08\x00\x00\x00\x00\x00\x00\xff"
