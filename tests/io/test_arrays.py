"""Array files: read bit for bit, or refused with the file named and nothing allocated or run."""

import io
import pickle
import struct
import time
import tracemalloc
import zipfile
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import array_shapes, arrays

from segcal_cli.core.errors import FormatError
from segcal_cli.core.volume import Stored
from segcal_cli.io import arrays as module
from segcal_cli.io import npy
from segcal_cli.io.arrays import ClassAxisUnclear, HardMask, OneChannel, SeveralArrays, WrongChannels, WrongRank
from segcal_cli.io.bundles import read_bundle, write_bundle
from segcal_cli.io.inputs import AbsurdSize, EmptyFile, OversizedCase, UnreadableFile
from segcal_cli.io.members import BrokenArchive, BrokenMember, UnreadableMember
from segcal_cli.io.npy import BrokenHeader, ObjectArray, SizeMismatch, UnusableType
from tests.io.builders_arrays import field, npy_bytes, pickled_npy, saved_npy, write_npz

FIELD = field((3, 4, 5, 6))


def save(path: Path, content: bytes) -> Path:
    path.write_bytes(content)
    return path


@pytest.fixture
def deflated(tmp_path) -> Path:
    np.savez_compressed(tmp_path / "a.npz", probabilities=FIELD)
    return tmp_path / "a.npz"


@pytest.mark.parametrize("key", ["probabilities", "softmax", "logits", "anything"])
def test_the_only_array_is_read_bit_for_bit(tmp_path, key):
    np.savez_compressed(tmp_path / "a.npz", **{key: FIELD})
    header = module.probe(tmp_path / "a.npz")
    assert (header.key, header.shape, header.dtype, header.compressed) == (key, FIELD.shape, np.float32, True)
    result = module.read(header)
    assert result.flags.c_contiguous
    np.testing.assert_array_equal(result, FIELD)


def test_headers_are_parsed_by_one_thread_at_a_time(tmp_path, monkeypatch):
    """Python 3.11 can end in a SystemError where two threads parse literals at once."""
    np.save(tmp_path / "a.npy", FIELD)
    inside, most, real = [], [], npy.ast.literal_eval

    def parsing(text):
        inside.append(text)
        most.append(len(inside))
        time.sleep(0.01)
        inside.pop()
        return real(text)

    monkeypatch.setattr(npy.ast, "literal_eval", parsing)
    with ThreadPoolExecutor(4) as threads:
        headers = list(threads.map(module.probe, [tmp_path / "a.npy"] * 8))
    assert {header.shape for header in headers} == {FIELD.shape}
    assert most == [1] * len(most)


@pytest.mark.parametrize(
    ("key", "values"),
    [("probabilities", "probabilities"), ("softmax", "probabilities"), ("logits", "logits"), ("x", None)],
)
def test_the_key_says_what_the_array_holds(tmp_path, key, values):
    np.savez(tmp_path / "a.npz", **{key: FIELD})
    assert module.values_of(module.probe(tmp_path / "a.npz")) == values


def test_a_bare_array_does_not_say_what_it_holds(tmp_path):
    np.save(tmp_path / "a.npy", FIELD)
    header = module.probe(tmp_path / "a.npy")
    assert (header.key, header.keys, module.values_of(header)) == (None, (), None)


@pytest.mark.parametrize(
    "dtype", ["<f4", ">f4", "<f2", "<f8", ">f8", "|i1", "|u1", ">i2", "<u2", "<i4", ">u4", "<i8", "|b1"]
)
@pytest.mark.parametrize("order", ["C", "F"])
def test_every_plain_type_and_order_becomes_float32(tmp_path, dtype, order):
    array = np.asarray(FIELD * 100, dtype=dtype, order=order)
    np.save(tmp_path / "a.npy", array)
    np.savez_compressed(tmp_path / "a.npz", probabilities=array)
    for name in ("a.npy", "a.npz"):
        header = module.probe(tmp_path / name)
        result, kept = module.read(header), module.read_stored(header)
        assert result.dtype == np.float32
        assert result.flags.c_contiguous
        np.testing.assert_array_equal(result, array.astype(np.float32))
        np.testing.assert_array_equal(kept, array)
        assert kept.dtype.isnative
        assert module.stored(header) == Stored(np.dtype(dtype).name)


def test_numbers_beyond_float32_become_infinite_without_a_warning(tmp_path):
    np.save(tmp_path / "a.npy", np.array([[1e300, 1.0]]))
    np.testing.assert_array_equal(module.read(module.probe(tmp_path / "a.npy")), [[np.inf, 1.0]])


def test_pieces_that_cut_a_number_in_two_are_joined(tmp_path):
    array = np.arange(300_001, dtype=np.float64).reshape(1, -1)
    np.savez_compressed(tmp_path / "a.npz", logits=array)
    np.testing.assert_array_equal(module.read(module.probe(tmp_path / "a.npz")), array)


def test_a_known_key_is_taken_from_among_others(tmp_path):
    np.savez(tmp_path / "a.npz", spacing=np.ones(3), softmax=FIELD)
    assert module.probe(tmp_path / "a.npz").key == "softmax"


@pytest.mark.parametrize("keys", [("a", "b"), ("probabilities", "logits")])
def test_several_arrays_need_a_choice(tmp_path, keys):
    np.savez(tmp_path / "a.npz", **dict.fromkeys(keys, FIELD))
    with pytest.raises(SeveralArrays) as caught:
        module.probe(tmp_path / "a.npz")
    assert str(caught.value) == (
        f"{tmp_path / 'a.npz'}: several arrays ({', '.join(keys)}); expected one of probabilities, softmax, logits"
    )
    assert module.probe(tmp_path / "a.npz", key=keys[1]).key == keys[1]


def test_an_absent_key_and_an_archive_without_arrays_are_named(tmp_path, deflated):
    with pytest.raises(FormatError, match=r"a.npz: no array x \(it holds: probabilities\)"):
        module.probe(deflated, key="x")
    with pytest.raises(FormatError, match=r"b.npz: no array in it \(it holds: nothing\)"):
        module.probe(write_npz(tmp_path / "b.npz", {"readme.txt": b"x"}))


def test_probe_reads_no_numbers(deflated):
    content = bytearray(deflated.read_bytes())
    content[len(content) // 2] ^= 0xFF
    deflated.write_bytes(content)
    header = module.probe(deflated)
    assert header.shape == FIELD.shape
    with pytest.raises(BrokenMember):
        module.read(header)


def test_headers_and_errors_travel_by_pickle(deflated):
    header = module.probe(deflated)
    assert pickle.loads(pickle.dumps(header)) == header
    error = WrongChannels(deflated, "first", 3, 2, "")
    assert str(pickle.loads(pickle.dumps(error))) == str(error)


@pytest.mark.parametrize("format", ["npz", "npy"])
def test_peak_memory_stays_below_1_3_times_the_array(tmp_path, format):
    array = field((4, 40, 60, 120))
    path = tmp_path / f"a.{format}"
    np.savez_compressed(path, probabilities=array) if format == "npz" else np.save(path, array)
    module.read(module.probe(path))
    tracemalloc.start()
    try:
        module.read(module.probe(path))
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    assert peak < 1.3 * array.nbytes


# -- broken files


def test_an_empty_and_an_absent_file_are_refused(tmp_path):
    for name in ("a.npz", "a.npy"):
        with pytest.raises(UnreadableFile, match=f"{name}: no such file or directory"):
            module.probe(tmp_path / name)
        with pytest.raises(EmptyFile, match=f"{name}: is empty"):
            module.probe(save(tmp_path / name, b""))


def test_every_truncation_is_refused(tmp_path, deflated):
    whole = deflated.read_bytes()
    bare = saved_npy(FIELD)
    for share in (0.02, 0.1, 0.5, 0.9, 0.999):
        for name, content in (("b.npz", whole), ("b.npy", bare)):
            with pytest.raises(FormatError) as caught:
                module.read(module.probe(save(tmp_path / name, content[: int(len(content) * share)])))
            assert str(caught.value).startswith(str(tmp_path / name))


@settings(max_examples=60, deadline=None, derandomize=True, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(data=st.data())
def test_a_flipped_bit_is_refused_or_leaves_the_array_intact(tmp_path, deflated, data):
    content = bytearray(deflated.read_bytes())
    content[data.draw(st.integers(0, len(content) - 1))] ^= 1 << data.draw(st.integers(0, 7))
    path = save(tmp_path / "b.npz", bytes(content))
    try:
        result = module.read(module.probe(path))
    except FormatError as error:
        assert str(error).startswith(str(path))  # noqa: PT017  (either outcome is right)
    else:
        np.testing.assert_array_equal(result, FIELD)


def test_a_wrong_crc_is_refused_in_stored_members_too(tmp_path):
    path = write_npz(tmp_path / "a.npz", {"probabilities.npy": saved_npy(FIELD)}, zipfile.ZIP_STORED)
    content = path.read_bytes()
    at = content.index(FIELD.tobytes()) + 17
    save(path, content[:at] + bytes([content[at] ^ 1]) + content[at + 1 :])
    with pytest.raises(BrokenMember, match=r"a.npz: array probabilities is broken: its checksum is wrong"):
        module.read(module.probe(path))


@pytest.mark.parametrize("method", [zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED])
@pytest.mark.parametrize("shape", [(3, 4, 5, 7), (3, 4, 5, 5), (3, 4)])
def test_a_header_larger_or_smaller_than_its_member_is_refused(tmp_path, method, shape):
    path = write_npz(tmp_path / "a.npz", {"probabilities.npy": npy_bytes(FIELD, shape=shape)}, method)
    with pytest.raises(SizeMismatch) as caught:
        module.probe(path)
    wanted = 4 * int(np.prod(shape))
    assert str(caught.value) == (
        f"{path}: array probabilities: its header asks for {wanted} bytes of numbers, {FIELD.nbytes} are there"
    )
    with pytest.raises(SizeMismatch):
        module.probe(save(tmp_path / "a.npy", npy_bytes(FIELD, shape=shape)))


def test_a_header_that_asks_for_terabytes_is_refused_before_anything_is_allocated(tmp_path):
    content = npy_bytes(FIELD, shape=(3, 10**5, 10**5, 10**4))
    for path in (write_npz(tmp_path / "a.npz", {"logits.npy": content}), save(tmp_path / "a.npy", content)):
        tracemalloc.start()
        try:
            with pytest.raises(AbsurdSize, match="its header asks for 1200000000000000 bytes"):
                module.probe(path)
            assert tracemalloc.get_traced_memory()[1] < 2**21
        finally:
            tracemalloc.stop()


def test_a_member_that_claims_more_than_deflate_can_expand_is_refused(tmp_path):
    path = write_npz(tmp_path / "a.npz", {"logits.npy": saved_npy(FIELD)})
    content = path.read_bytes()
    size = struct.pack("<I", len(saved_npy(FIELD)))
    save(path, content.replace(size, struct.pack("<I", 2**31)))
    with pytest.raises(AbsurdSize):
        module.probe(path)


def test_a_member_that_inflates_beyond_its_claim_stops_there(tmp_path):
    bomb = npy_bytes(np.zeros(2**21, np.float32), shape=(2, 8))
    path = write_npz(tmp_path / "a.npz", {"logits.npy": bomb})
    true_size, claimed = struct.pack("<I", len(bomb)), struct.pack("<I", 128 + 64)
    save(path, path.read_bytes().replace(true_size, claimed))
    tracemalloc.start()
    try:
        with pytest.raises(BrokenMember, match="more than the 192 bytes declared"):
            module.probe(path)
        assert tracemalloc.get_traced_memory()[1] < 2**21
    finally:
        tracemalloc.stop()


def overlapping(path: Path, count: int, content: bytes, method: int) -> Path:
    """An archive whose directory names one member's bytes many times."""
    write_npz(path, {f"a{number:03d}.npy": content for number in range(count)}, method)
    data = bytearray(path.read_bytes())
    at = data.find(b"PK\x01\x02")
    first = data[at + 42 : at + 46]
    while at >= 0:
        data[at + 42 : at + 46] = first
        at = data.find(b"PK\x01\x02", at + 4)
    return save(path, bytes(data))


@pytest.mark.parametrize("method", [zipfile.ZIP_DEFLATED, zipfile.ZIP_STORED])
def test_members_that_share_bytes_are_refused_before_anything_is_allocated(tmp_path, method):
    path = overlapping(tmp_path / "a.npz", 50, npy_bytes(np.zeros(2**16)), method)
    tracemalloc.start()
    try:
        for read in (module.probe, read_bundle):
            with pytest.raises(BrokenArchive, match="arrays 'a000' and 'a001' share bytes"):
                read(path)
        assert tracemalloc.get_traced_memory()[1] < 2**21
    finally:
        tracemalloc.stop()


def test_members_together_hold_no_more_than_the_file_can_expand_to(tmp_path):
    """Each member alone may claim a mebibyte more than its bytes can hold; a thousand of them may not."""
    content = npy_bytes(np.zeros(1), shape=(120_000,))
    path = write_npz(tmp_path / "a.npz", {f"a{number}.npy": content for number in range(200)})
    save(path, path.read_bytes().replace(struct.pack("<I", len(content)), struct.pack("<I", 960_128)))
    with pytest.raises(AbsurdSize):
        read_bundle(path)


def test_an_array_above_the_limit_of_a_case_is_refused(tmp_path, monkeypatch):
    np.save(tmp_path / "a.npy", FIELD)
    monkeypatch.setattr("segcal_cli.io.inputs.MAX_CASE_BYTES", FIELD.nbytes - 1)
    with pytest.raises(OversizedCase, match=f"needs {FIELD.nbytes} bytes in memory"):
        module.probe(tmp_path / "a.npy")


def test_an_object_array_is_refused_and_its_code_does_not_run(tmp_path):
    victim = tmp_path / "victim"
    content = pickled_npy(victim)
    np.load(io.BytesIO(content), allow_pickle=True)
    assert victim.is_dir()
    victim.rmdir()
    for path in (write_npz(tmp_path / "a.npz", {"logits.npy": content}), save(tmp_path / "a.npy", content)):
        with pytest.raises(ObjectArray, match="holds Python objects, that is a pickle; never opened, it can run code"):
            module.probe(path)
        with pytest.raises(FormatError):
            read_bundle(path)
    save(tmp_path / "a.pkl", content)
    with pytest.raises(FormatError, match="never opened, it can run code"):
        module.probe(tmp_path / "a.pkl")
    assert not victim.exists()


def test_a_pickle_named_npz_or_npy_is_refused_unopened(tmp_path):
    from tests.io.builders_arrays import Trap

    victim = tmp_path / "victim"
    for name in ("a.npz", "a.npy"):
        with pytest.raises(FormatError, match=name):
            module.probe(save(tmp_path / name, pickle.dumps(Trap(victim))))
    assert not victim.exists()


@pytest.mark.parametrize(
    "array", [np.ones(3, complex), np.array(["a"]), np.ones(3, np.longdouble), np.zeros(2, "M8[s]")]
)
def test_what_is_not_a_plain_number_is_refused(tmp_path, array):
    np.save(tmp_path / "a.npy", array)
    with pytest.raises(UnusableType, match="expected whole numbers or floats"):
        module.probe(tmp_path / "a.npy")


def test_an_array_without_voxels_is_refused(tmp_path):
    np.save(tmp_path / "a.npy", np.zeros((3, 0, 4), np.float32))
    with pytest.raises(FormatError, match=r"has no voxel \(shape \(3, 0, 4\)\)"):
        module.probe(tmp_path / "a.npy")


@pytest.mark.parametrize(
    "header",
    [
        "",
        "{",
        "[1, 2]",
        "{'descr': '<f4', 'fortran_order': False}",
        "{'descr': '<f4', 'fortran_order': 0, 'shape': (3,)}",
        "{'descr': '<f4', 'fortran_order': False, 'shape': (-3,)}",
        "{'descr': '<f4', 'fortran_order': False, 'shape': (True,)}",
        "{'descr': '<f4', 'fortran_order': False, 'shape': [3]}",
        "{'descr': 'zz', 'fortran_order': False, 'shape': (3,)}",
        "{'descr': __import__('os'), 'fortran_order': False, 'shape': (3,)}",
        "(" * 5000,
    ],
)
def test_a_header_that_is_no_header_is_refused(tmp_path, header):
    path = save(tmp_path / "a.npy", npy_bytes(np.ones(3, np.float32), header=header))
    with pytest.raises(BrokenHeader, match=r"has no valid .npy header"):
        module.probe(path)


@pytest.mark.parametrize(
    "content", [b"\x93NUMPY", b"\x93NUMPY\x01\x00\xff\xff{}", b"\x93NUMPY\x09\x00\x10\x00" + b" " * 99]
)
def test_a_header_that_does_not_end_is_refused(tmp_path, content):
    with pytest.raises(BrokenHeader):
        module.probe(save(tmp_path / "a.npy", content))


@pytest.mark.filterwarnings("ignore:Duplicate name")
def test_an_array_that_stands_twice_is_refused(tmp_path):
    path = tmp_path / "a.npz"
    with zipfile.ZipFile(path, "w") as archive:
        for _ in range(2):
            archive.writestr("logits.npy", saved_npy(FIELD))
    with pytest.raises(BrokenArchive, match=r"a.npz: broken .npz archive: it holds array 'logits' twice"):
        module.probe(path)


@pytest.mark.parametrize("shift", [-9999, 7])
def test_a_directory_that_points_beside_its_members_is_refused(tmp_path, deflated, shift):
    content = bytearray(deflated.read_bytes())
    end = content.index(b"PK\x05\x06")
    content[end + 16 : end + 20] = struct.pack("<I", int.from_bytes(content[end + 16 : end + 20], "little") - shift)
    with pytest.raises(BrokenMember, match="no member begins where the archive says"):
        module.probe(save(tmp_path / "b.npz", bytes(content)))


def test_an_encrypted_member_is_refused(tmp_path, deflated):
    content = bytearray(deflated.read_bytes())
    content[content.index(b"PK\x01\x02") + 8] |= 1
    with pytest.raises(UnreadableMember, match="array probabilities is encrypted"):
        module.probe(save(tmp_path / "b.npz", bytes(content)))


def test_an_unusual_compression_is_refused(tmp_path):
    path = write_npz(tmp_path / "a.npz", {"logits.npy": saved_npy(FIELD)}, zipfile.ZIP_BZIP2)
    with pytest.raises(UnreadableMember, match="array logits is compressed by zip method 12; save it with"):
        module.probe(path)


def test_another_file_named_npz_is_refused(tmp_path):
    with pytest.raises(BrokenArchive, match="it does not begin as a zip file"):
        module.probe(save(tmp_path / "a.npz", saved_npy(FIELD)))


@pytest.mark.parametrize(
    "name", ["../../up.npy", "/abs.npy", "C:\\\\x.npy", "..\\\\up.npy", "a/b.npy", "\u202egnp.npy"]
)
def test_a_member_that_names_a_path_leaves_no_file(tmp_path, name, monkeypatch):
    inside = tmp_path / "deep" / "inside"
    inside.mkdir(parents=True)
    monkeypatch.chdir(inside)
    path = write_npz(inside / "a.npz", {name: npy_bytes(FIELD)})
    assert np.array_equal(module.read(module.probe(path)), FIELD)
    assert list(read_bundle(path)) == [name.removesuffix(".npy")]
    assert [entry for entry in tmp_path.rglob("*") if entry.is_file()] == [path]


def test_a_hostile_member_name_is_only_a_name(tmp_path):
    path = write_npz(tmp_path / "a.npz", {"../../evil.npy": saved_npy(FIELD)})
    assert module.probe(path).key == "../../evil"
    np.testing.assert_array_equal(module.read(module.probe(path)), FIELD)
    assert [p.name for p in tmp_path.iterdir()] == ["a.npz"]


# -- axes


@pytest.mark.parametrize(
    ("shape", "classes", "axis", "expected"),
    [
        ((3, 4, 5, 6), 3, None, (3, 4, 5, 6)),
        ((4, 5, 6, 3), 3, "last", (3, 4, 5, 6)),
        ((3, 5, 6), 3, None, (3, 1, 5, 6)),
        ((5, 6, 3), 3, "last", (3, 1, 5, 6)),
        ((1, 5, 6), 1, None, (1, 1, 5, 6)),
        ((4, 5, 6), 1, None, (1, 4, 5, 6)),
        ((5, 6, 1), 1, None, (1, 5, 6, 1)),
        ((5, 6, 1), 1, "last", (1, 1, 5, 6)),
        ((1, 4, 5, 6), 1, None, (1, 4, 5, 6)),
        ((4, 5, 6, 1), 1, "last", (1, 4, 5, 6)),
        ((5, 6), 1, None, (1, 1, 5, 6)),
        ((3, 4, 5, 3), 3, "first", (3, 4, 5, 3)),
        ((3, 4, 5, 3), 3, "last", (3, 3, 4, 5)),
    ],
)
def test_rank_and_class_count_decide_what_the_axes_are(tmp_path, shape, classes, axis, expected):
    array = field(shape)
    np.save(tmp_path / "a.npy", array)
    plan = module.layout(Path("a.npy"), shape, classes, axis)
    assert plan.shape == expected
    result = module.read_channels(module.probe(tmp_path / "a.npy"), plan)
    assert result.flags.c_contiguous
    moved = np.moveaxis(array, -1, 0) if plan.axis == len(shape) - 1 else array
    np.testing.assert_array_equal(result, moved.reshape(expected))
    np.testing.assert_array_equal(module.arrange(array, plan), result)


def test_a_last_class_axis_in_fortran_order_is_read_right(tmp_path):
    array = field((4, 5, 6, 3))
    np.savez_compressed(tmp_path / "a.npz", logits=np.asfortranarray(array))
    plan = module.layout(Path("a.npz"), array.shape, 3, "last")
    result = module.read_channels(module.probe(tmp_path / "a.npz"), plan)
    np.testing.assert_array_equal(result, np.moveaxis(array, -1, 0))


WRONG = "{} axis has 4 entries, the class table 3{}"
UNCLEAR = "first and last axis both have {} entries, as the class table has; give --channel-axis first or last"
RANK = "{}-D array of shape {}; expected class z y x, class y x, z y x or y x"


@pytest.mark.parametrize(
    ("shape", "classes", "axis", "error", "text"),
    [
        ((4, 5, 6, 3), 3, None, WrongChannels, WRONG.format("first", "; the last would fit: --channel-axis last")),
        ((3, 5, 6, 4), 3, "last", WrongChannels, WRONG.format("last", "; the first would fit: --channel-axis first")),
        ((4, 5, 6, 7), 3, None, WrongChannels, WRONG.format("first", "")),
        ((3, 4, 5, 3), 3, None, ClassAxisUnclear, UNCLEAR.format(3)),
        ((1, 4, 5, 1), 1, None, ClassAxisUnclear, UNCLEAR.format(1)),
        ((1, 4, 5, 6), 3, None, OneChannel, "one channel, but the class table has 3"),
        ((5, 6), 2, None, OneChannel, "one channel, but the class table has 2"),
        ((6,), 1, None, WrongRank, RANK.format(1, (6,))),
        ((1, 2, 3, 4, 5), 1, None, WrongRank, RANK.format(5, (1, 2, 3, 4, 5))),
    ],
)
def test_a_shape_that_does_not_fit_the_class_table_is_refused(shape, classes, axis, error, text):
    with pytest.raises(error) as caught:
        module.layout(Path("a.npy"), shape, classes, axis)
    assert str(caught.value) == f"a.npy: {text}"


@pytest.mark.parametrize(("dtype", "values"), [(bool, "logits"), (bool, "probabilities"), (np.uint8, "probabilities")])
def test_a_hard_mask_is_no_prediction(tmp_path, dtype, values):
    np.save(tmp_path / "a.npy", np.ones((3, 4), dtype))
    with pytest.raises(HardMask) as caught:
        module.require_soft(module.probe(tmp_path / "a.npy"), values)
    assert str(caught.value) == f"{tmp_path / 'a.npy'}: a hard mask; calibration needs logits or probabilities"


def test_whole_numbers_may_be_logits(tmp_path):
    np.save(tmp_path / "a.npy", np.ones((3, 4), np.int16))
    module.require_soft(module.probe(tmp_path / "a.npy"), "logits")


# -- round trips


@st.composite
def stored_arrays(draw):
    dtype = draw(st.sampled_from(["<f4", ">f4", "<f2", "<f8", "|u1", "<i2", ">i4"]))
    elements = {"allow_nan": False} if "f" in dtype else None
    array = draw(arrays(dtype, array_shapes(min_dims=2, max_dims=4, max_side=9), elements=elements))
    return np.asfortranarray(array) if draw(st.booleans()) else array


@settings(max_examples=60, deadline=None, derandomize=True, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(array=stored_arrays(), deflate=st.booleans())
def test_what_numpy_saves_is_read_back(tmp_path, array, deflate):
    (np.savez_compressed if deflate else np.savez)(tmp_path / "a.npz", probabilities=array)
    header = module.probe(tmp_path / "a.npz")
    with np.errstate(over="ignore"):
        np.testing.assert_array_equal(module.read(header), array.astype(np.float32))
    np.testing.assert_array_equal(module.read_stored(header), array)


BUNDLE = {
    "header": np.array('{"kind": "cluster", "ü": 1}'),
    "counts": np.arange(12, dtype=np.int64).reshape(3, 4),
    "none": np.zeros((0, 3), np.float32),
    "flags": np.array([True, False]),
    "scalar": np.array(2.5),
    "names": np.array(["a", "longer", ""]),
}


def bundle_bytes(arrays: dict[str, np.ndarray]) -> bytes:
    file = io.BytesIO()
    write_bundle(file, arrays)
    return file.getvalue()


def test_a_bundle_comes_back_in_order_and_numpy_reads_it_too(tmp_path):
    path = save(tmp_path / "a.npz", bundle_bytes(BUNDLE))
    result = read_bundle(path)
    assert list(result) == list(BUNDLE)
    for name, array in BUNDLE.items():
        assert result[name].dtype == array.dtype
        np.testing.assert_array_equal(result[name], array)
    with np.load(path) as loaded:
        np.testing.assert_array_equal(loaded["counts"], BUNDLE["counts"])


def test_the_same_arrays_give_the_same_bytes_whatever_their_memory_layout(monkeypatch):
    import time

    first = bundle_bytes(BUNDLE)
    monkeypatch.setattr(time, "time", lambda: 2e9)
    assert bundle_bytes({name: np.array(array, order="F") for name, array in BUNDLE.items()}) == first


def test_a_bundle_of_objects_is_not_written():
    with pytest.raises(ValueError, match="allow_pickle"):
        bundle_bytes({"a": np.array([{}], dtype=object)})


def test_text_outside_unicode_is_refused(tmp_path):
    content = npy_bytes(
        np.array([0x110000], np.uint32), header="{'descr': '<U1', 'fortran_order': False, 'shape': (1,)}"
    )
    with pytest.raises(FormatError, match=r"a.npz: array header holds text outside Unicode"):
        read_bundle(write_npz(tmp_path / "a.npz", {"header.npy": content}))


def test_an_absurd_axis_beside_an_empty_one_is_refused(tmp_path):
    content = npy_bytes(np.zeros(0, np.float32), shape=(0, 2**62))
    with pytest.raises(OversizedCase):
        read_bundle(write_npz(tmp_path / "a.npz", {"header.npy": content}))


def test_a_truncated_bundle_is_refused(tmp_path):
    content = bundle_bytes(BUNDLE)
    for end in range(0, len(content), 97):
        with pytest.raises(FormatError):
            read_bundle(save(tmp_path / "a.npz", content[:end]))
