"""Broken and hostile files through the command line, each in a process of its own.

Whatever is wrong with a file: the documented exit code, the file named, no traceback, stdout empty, nothing written,
and no more than 200 MiB beyond what a plain ``--help`` takes.
"""

from __future__ import annotations

import gzip
import json
import os
import shutil
import struct
import sys
import zipfile
import zlib
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pytest
import tifffile
from PIL import Image

from segcal_cli.io.bundles import read_bundle, write_bundle
from segcal_cli.io.seals import sealed
from tests.cli.builders_reading import CLASSES, SHAPE, logits_of, nifti_study, segcal, softmax_of, tree, write_classes
from tests.cli.forked import server
from tests.io.builders_arrays import npy_bytes, pickled_npy, png_bytes, write_npz
from tests.io.builders_nifti import edit, with_dims

MORE_MIB = 200
"""Memory that a refusal may take beyond a plain ``--help``; most of it is for imports. Bombs are larger, packed or
not."""

pytestmark = pytest.mark.skipif(not hasattr(os, "fork"), reason="the processes are forked")

READ = ("convert", "{}/predictions", "-o", "{}/out", "--values", "probabilities", "--classes", "{}/classes.json")
FITTED = ("{}/predictions", "{}/labels", "--values", "logits", "--classes", "{}/classes.json")


@dataclass(frozen=True, slots=True)
class Row:
    """build: makes the files of a folder that holds a study of NIfTI logits, if ``study``. says: of the last lines on
    stderr, with the folder left out. names: the file that must be named."""

    build: Callable[[Path], object]
    code: int
    names: str
    command: tuple[str, ...]
    says: str = ""


ROWS: list[Row] = []


def row(code: int, names: str, *command: str, says: str = ""):
    def add(build: Callable[[Path], object]) -> Callable[[Path], object]:
        ROWS.append(Row(build, code, names, command or READ, says))
        return build

    return add


@pytest.fixture(scope="module")
def study(tmp_path_factory):
    """Logits, labels, a calibrator, conformal sets."""
    root = tmp_path_factory.mktemp("broken") / "study"
    made = nifti_study(root)
    common = [*made.both, "--values", "logits", "--classes", made.classes, "-q"]
    assert segcal("calibrate", "fit", *common, "-o", root / "cal.npz").code == 0
    assert segcal("calibrate", "fit", *common, "--method", "platt", "-o", root / "platt.npz").code == 0
    assert segcal("conformal-sets", "fit", *common, "--alpha", "0.5", "-o", root / "sets.npz").code == 0
    return root


@pytest.fixture(scope="module")
def processes(tmp_path_factory):
    with server(tmp_path_factory.mktemp("streams")) as running:
        yield running


@pytest.mark.parametrize("row", ROWS, ids=lambda row: row.build.__name__)
def test_broken_input_is_refused_by_name_within_200_mib(row, study, processes, tmp_path):
    root = tmp_path / "work"
    shutil.copytree(study, root)
    row.build(root)
    before = tree(root)
    ran = processes.run(*(word.replace("{}", str(root)) for word in row.command))
    said = ran.err.replace(f"{root}/", "")
    assert ran.code == row.code, said
    assert f"(exit {row.code})" in ran.closing
    assert "Traceback" not in said
    assert row.names in said
    assert row.says in said
    assert ran.out == ""
    after = {name: content for name, content in tree(root).items() if not name.endswith("segcal-run.json")}
    assert after == before
    assert ran.peak_mib < processes.plain_mib + MORE_MIB


def only(root: Path, name: str, content: bytes) -> Path:
    """A folder of predictions with this file alone."""
    shutil.rmtree(root / "predictions")
    (root / "predictions").mkdir()
    (root / "predictions" / name).write_bytes(content)
    write_classes(root / "classes.json", dict(zip(CLASSES, range(3), strict=True)))
    return root / "predictions" / name


def volume(root: Path) -> bytes:
    """A good prediction, inflated."""
    return gzip.decompress((root / "predictions" / "case-1.nii.gz").read_bytes())


def array() -> np.ndarray:
    return softmax_of(logits_of(3, 0))


# NIfTI and gzip.


@row(4, "predictions/a.nii.gz", says="is empty (0 bytes)")
def an_empty_volume(root):
    only(root, "a.nii.gz", b"")


@row(4, "predictions/a.nii.gz")
def sixty_bytes_of_a_volume(root):
    only(root, "a.nii.gz", gzip.compress(volume(root)[:60]))


@row(4, "predictions/a.nii", says="holds 60 bytes")
def sixty_bytes_of_a_plain_volume(root):
    only(root, "a.nii", volume(root)[:60])


@row(4, "predictions/a.nii.gz", says="the file is truncated")
def half_a_volume(root):
    content = (root / "predictions" / "case-1.nii.gz").read_bytes()
    only(root, "a.nii.gz", content[: len(content) // 2])


@row(4, "predictions/a.nii.gz", says="the gzip stream is damaged")
def a_wrong_checksum(root):
    content = bytearray((root / "predictions" / "case-1.nii.gz").read_bytes())
    content[-7] ^= 1
    only(root, "a.nii.gz", bytes(content))


@row(4, "predictions/a.nii.gz", says="bytes that are not gzip follow the end of the stream")
def bytes_after_the_stream(root):
    only(root, "a.nii.gz", (root / "predictions" / "case-1.nii.gz").read_bytes() + b"more")


@row(4, "predictions/a.nii.gz", says="is not gzip, though its name ends in .gz")
def a_plain_volume_named_gz(root):
    only(root, "a.nii.gz", volume(root))


@row(4, "predictions/a.nii.gz", says="declares dimensions")
def negative_dimensions(root):
    path = only(root, "a.nii.gz", (root / "predictions" / "case-1.nii.gz").read_bytes())
    with_dims(path, 4, -7, 6, 5, 3, 1, 1, 1)


@row(4, "predictions/a.nii.gz", says="bytes in memory; at most")
def absurd_dimensions(root):
    path = only(root, "a.nii.gz", (root / "predictions" / "case-1.nii.gz").read_bytes())
    with_dims(path, 4, 30000, 30000, 30000, 3, 1, 1, 1)


@row(4, "predictions/a.nii.gz", says="more than its")
def dimensions_of_a_gigabyte(root):
    path = only(root, "a.nii.gz", (root / "predictions" / "case-1.nii.gz").read_bytes())
    with_dims(path, 4, 512, 512, 512, 3, 1, 1, 1)


@row(4, "predictions/a.nii.gz", says="holds more than")
def a_gzip_bomb_behind_a_small_header(root):
    only(root, "a.nii.gz", gzip.compress(volume(root) + bytes(2**28), 1))


@row(4, "predictions/a.nii.gz", says="lets the voxels begin at byte")
def voxels_that_begin_beyond_the_file(root):
    path = only(root, "a.nii.gz", (root / "predictions" / "case-1.nii.gz").read_bytes())
    edit(path, 108, struct.pack("<f", -400.0))


# Arrays.


@row(4, "predictions/a.npz", says="truncated?")
def a_truncated_archive(root):
    path = only(root, "a.npz", b"")
    np.savez(path, probabilities=array())
    path.write_bytes(path.read_bytes()[:-40])


MEASURE = ("evaluate", "{}/predictions", "{}/labels", "-o", "{}/out.csv", "--classes", "{}/classes.json")


@row(4, "predictions/case-1.npz", *MEASURE, says="array probabilities is broken")
def a_flipped_bit(root):
    path = only(root, "case-1.npz", b"")
    np.savez(path, probabilities=array())
    content = bytearray(path.read_bytes())
    content[700] ^= 4
    path.write_bytes(content)


@row(4, "predictions/a.npz", says="holds Python objects, that is a pickle; never opened, it can run code")
def an_object_array(root):
    path = only(root, "a.npz", b"")
    write_npz(path, {"probabilities.npy": pickled_npy(root / "victim")})


@row(4, "predictions/a.npz", says="its header asks for")
def a_header_larger_than_its_member(root):
    write_npz(only(root, "a.npz", b""), {"probabilities.npy": npy_bytes(array(), shape=(3, 5, 6, 8))})


@row(4, "predictions/a.npz", says="its header asks for")
def a_header_smaller_than_its_member(root):
    write_npz(only(root, "a.npz", b""), {"probabilities.npy": npy_bytes(array(), shape=(3, 5, 6, 6))})


@row(4, "predictions/a.npy", says="its header asks for")
def a_bare_array_that_asks_for_terabytes(root):
    only(root, "a.npy", npy_bytes(array(), shape=(3, 50000, 50000, 500)))


@row(4, "predictions/a.npz", says="more than the")
def a_zip_bomb_behind_a_small_claim(root):
    bomb = npy_bytes(np.zeros(2**26, np.float32), shape=SHAPE)
    path = write_npz(only(root, "a.npz", b""), {"probabilities.npy": bomb})
    claimed = struct.pack("<I", 128 + 4 * 210)
    path.write_bytes(path.read_bytes().replace(struct.pack("<I", len(bomb)), claimed))


@row(4, "predictions/a.npz", says="share bytes")
def members_that_share_bytes(root):
    path = only(root, "a.npz", b"")
    write_npz(path, {"probabilities.npy": npy_bytes(array()), "other.npy": npy_bytes(array())}, zipfile.ZIP_STORED)
    content = bytearray(path.read_bytes())
    first = content.find(b"PK\1\2")
    second = content.find(b"PK\1\2", first + 4)
    content[second + 42 : second + 46] = content[first + 42 : first + 46]
    path.write_bytes(content)


# Images.


@row(4, "predictions/a.png", says="it does not begin as a PNG")
def a_text_named_png(root):
    only(root, "a.png", b"no image")


@row(4, "predictions/a.png", says="its header asks for")
def a_png_of_gigapixels(root):
    content = bytearray(png_bytes([b"\0\7\7\7"], 3, 8, 0))
    content[16:24] = struct.pack(">II", 60000, 60000)
    content[29:33] = struct.pack(">I", zlib.crc32(bytes(content[12:29])))
    only(root, "a.png", bytes(content))


@row(4, "predictions/case-1.tif", *MEASURE, "--values", "probabilities", says="bytes of pixels declared")
def a_tiff_bomb(root):
    path = only(root, "case-1.tif", b"")
    tifffile.imwrite(path, array()[0], photometric="minisblack", compression="zlib")
    with tifffile.TiffFile(path) as tiff:
        tags = tiff.pages[0].tags
        places = [tags[name].valueoffset for name in ("StripByteCounts", "StripOffsets")]
    content, bomb = bytearray(path.read_bytes()), zlib.compress(bytes(2**28), 1)
    for at, number in zip(places, (len(bomb), len(content)), strict=True):
        content[at : at + 4] = struct.pack("<I", number)
    path.write_bytes(bytes(content) + bomb)
    write_classes(root / "classes.json", {"background": 0, "lesion": [1, 2]})


# Text.


@row(4, "classes.json:1", says="not valid JSON")
def a_class_table_that_is_cut_off(root):
    (root / "classes.json").write_text('{"background": 0,')


@row(4, "classes.json", says="nested too deeply")
def a_class_table_as_deep_as_the_sea(root):
    (root / "classes.json").write_text("[" * 100_000)


@row(4, "classes.json", says="bytes of text; at most")
def a_class_table_beyond_the_limit(root):
    (root / "classes.json").write_bytes(b" " * (16 * 2**20 + 1))


CASES = ("pairs", "{}/predictions", "{}/labels", "--cases", "{}/cases.csv", *FITTED[2:])


@row(4, "cases.csv:1", *CASES, says="more than 16777216 bytes")
def a_table_of_cases_beyond_the_limit(root):
    (root / "cases.csv").write_bytes(b"case,prediction\n" + b"a" * (16 * 2**20))


@row(4, "cases.csv:2", *CASES, says="case id '../../up' cannot be a file name")
def a_case_that_leads_out_of_the_folder(root):
    (root / "cases.csv").write_text("case,prediction\n../../up,predictions/case-1.nii.gz\n")


@row(4, "cases.csv:2", *CASES, says="case id '=1+1' cannot be a file name")
def a_case_that_is_a_formula(root):
    (root / "cases.csv").write_text("case,prediction\n=1+1,predictions/case-1.nii.gz\n")


@row(4, "cases.csv:2", *CASES, says="case id 'a\\x1b[31m' cannot be a file name")
def a_case_that_colours_the_terminal(root):
    (root / "cases.csv").write_text("case,prediction\na\x1b[31m,predictions/case-1.nii.gz\n")


@row(4, "cases.csv:2", *CASES, says="case id '[/red]' cannot be a file name")
def a_case_that_closes_a_tag(root):
    (root / "cases.csv").write_text("case,prediction\n[/red],predictions/case-1.nii.gz\n")


# Artifacts.

APPLY = ("calibrate", "apply", "{}/x.npz", "{}/predictions", "-o", "{}/out", *FITTED[2:])
EVALUATE = ("evaluate", *FITTED, "--artifact", "{}/x.npz", "-o", "{}/out.csv")


def reforged(root: Path, change: Callable[[dict], object], source: str = "cal.npz") -> None:
    arrays = read_bundle(root / source)
    header = json.loads(str(arrays.pop("header")))
    change(header)
    with (root / "x.npz").open("wb") as file:
        write_bundle(file, {"header": np.array(json.dumps(sealed(header, arrays))), **arrays})


@row(5, "x.npz", *APPLY, says="is not a segcal artifact: no such file")
def an_artifact_that_is_not_there(root):
    pass


@row(5, "x.npz", *APPLY, says="is not a segcal artifact")
def a_truncated_artifact(root):
    content = (root / "cal.npz").read_bytes()
    (root / "x.npz").write_bytes(content[: len(content) // 2])


@row(5, "x.npz", *APPLY, says="is not a segcal artifact: array header is broken")
def an_artifact_with_a_damaged_byte(root):
    content = bytearray((root / "cal.npz").read_bytes())
    content[400] ^= 1
    (root / "x.npz").write_bytes(content)


@row(5, "x.npz", *EVALUATE, says="is not a segcal artifact: array header holds Python objects")
def an_artifact_that_is_a_pickle(root):
    write_npz(root / "x.npz", {"header.npy": pickled_npy(root / "victim")})


@row(5, "x.npz", *APPLY, says="is not a segcal artifact: its header is damaged")
def an_artifact_with_a_damaged_header(root):
    reforged(root, lambda header: header.pop("classes"))


@row(5, "x.npz", *APPLY, says="has artifact format 99; this segcal reads up to")
def an_artifact_from_the_future(root):
    reforged(root, lambda header: header.update(format_version=99))


@row(5, "x.npz", *APPLY, says="is a conformal-sets artifact; calibrate apply needs a calibrate artifact")
def an_artifact_of_another_kind(root):
    shutil.copy(root / "sets.npz", root / "x.npz")


@row(5, "x.npz", *EVALUATE, says="kind crystal-ball is not known to this version")
def an_artifact_of_a_kind_that_nobody_knows(root):
    reforged(root, lambda header: header.update(kind="crystal-ball"))


@row(5, "x.npz", *APPLY, says="was fitted on 3 classes (background=0; edema=1; other=2)")
def an_artifact_of_other_classes(root):
    reforged(root, lambda header: header["classes"][2].update(name="other"))


@row(5, "x.npz", *APPLY, says="was fitted on independent channels (sigmoid)")
def an_artifact_of_another_activation(root):
    reforged(root, lambda header: header.update(activation="sigmoid"), "platt.npz")


@row(5, "x.npz", *APPLY, says="was fitted on probabilities")
def an_artifact_of_other_values(root):
    reforged(root, lambda header: header.update(values="probabilities"))


@row(5, "x.npz", *APPLY, says="was fitted on samples joined by mean-logits")
def an_artifact_of_another_reduction(root):
    reforged(root, lambda header: header["spec"].update(reduce="mean-logits"))


@row(4, "cal.npz", "evaluate", *FITTED, "--artifact", "{}/cal.npz", "-o", "{}/out.csv", says="were used to fit")
def cases_that_the_artifact_was_fitted_on(root):
    pass


# Paths and options.


@row(2, "nowhere", "evaluate", "{}/nowhere", "{}/labels", "-o", "{}/out.csv", says="nowhere does not exist")
def predictions_that_are_not_there(root):
    pass


@row(2, "PREDICTIONS and LABELS", "evaluate", "{}/labels", "{}/labels", "-o", "{}/out.csv", says="are the same folder")
def one_folder_for_both(root):
    pass


@row(2, "predictions/out", "convert", "{}/predictions", "-o", "{}/predictions/out", *FITTED[2:], says="lies in")
def an_output_inside_its_input(root):
    pass


@row(2, "--alpha", "conformal-sets", "fit", *FITTED, "--alpha", "1.5", "-o", "{}/new.npz", says="1.5")
def an_alpha_beyond_1(root):
    pass


@row(2, "cal.npz", "calibrate", "fit", *FITTED, "-o", "{}/cal.npz", says="exists; give --overwrite")
def an_output_that_exists(root):
    pass


@row(2, "case-1.nii.gz", *READ[:4], *READ[6:], says="does not say what it holds; give --values logits or probabilities")
def values_that_nothing_tells(root):
    pass


@row(3, "predictions", says="no case")
def a_folder_of_dot_files(root):
    shutil.rmtree(root / "predictions")
    (root / "predictions").mkdir()
    (root / "predictions" / "._case-1.nii.gz").write_bytes(b"x")


@row(4, "predictions/case-1.nii.gz", "convert", *READ[1:4], *FITTED[2:], says="permission denied")
def a_file_that_may_not_be_read(root):
    if os.geteuid() == 0:
        pytest.skip("nothing is forbidden to root")
    (root / "predictions" / "case-1.nii.gz").chmod(0)


@row(4, "/proc/nowhere", "convert", "{}/predictions", "-o", "/proc/nowhere", *FITTED[2:], says="cannot write")
def an_output_place_that_takes_nothing(root):
    if not sys.platform.startswith("linux"):
        pytest.skip("no /proc")


def test_too_few_cases_for_alpha_are_a_warning(study, processes, tmp_path):
    common = [word.replace("{}", str(study)) for word in FITTED]
    ran = processes.run("conformal-sets", "fit", *common, "--alpha", "0.1", "--joint", "none", "-o", tmp_path / "s.npz")
    assert ran.code == 0
    assert "threshold +inf, the outer set is everything; 9 would do" in ran.err


def test_a_colour_image_and_a_palette_are_told_apart_from_gray_in_a_process_of_its_own(study, processes, tmp_path):
    (tmp_path / "p").mkdir()
    Image.new("RGB", (4, 4)).save(tmp_path / "p" / "a.png")
    write_classes(tmp_path / "classes.json", {"lesion": 1})
    ran = processes.run("convert", tmp_path / "p", "-o", tmp_path / "o", "--classes", tmp_path / "classes.json")
    assert ran.code == 4
    assert "a.png: a colour image cannot hold probabilities" in ran.err
