"""Suffixes: where a case's name ends, and which files are refused by name."""

from __future__ import annotations

from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from segcal_cli.io.suffixes import ARRAYS, IMAGES, KNOWN, UnreadFormat, require_suffix, split_suffix, unread


@pytest.mark.parametrize(
    ("name", "parts"),
    [
        ("case.1.2.nii.gz", ("case.1.2", ".nii.gz")),
        ("case.nii", ("case", ".nii")),
        ("CASE.NII.GZ", ("CASE", ".nii.gz")),
        ("a.tiff", ("a", ".tiff")),
        ("a.tif", ("a", ".tif")),
        ("a.nii.npz", ("a.nii", ".npz")),
        ("a.npy", ("a", ".npy")),
        ("a.gz", ("a.gz", "")),
        ("case.1.2", ("case.1.2", "")),
        ("nii", ("nii", "")),
        ("İ.PNG", ("İ", ".png")),
    ],
)
def test_the_longest_known_suffix_is_split_off_in_any_case(name, parts):
    assert split_suffix(name) == parts


def test_known_suffixes_are_arrays_and_images_longest_first():
    assert set(KNOWN) == {*ARRAYS, *IMAGES} == {".nii.gz", ".nii", ".npz", ".npy", ".png", ".tif", ".tiff"}
    assert [len(suffix) for suffix in KNOWN] == sorted(map(len, KNOWN), reverse=True)


@given(stem=st.text(min_size=1), suffix=st.sampled_from(KNOWN), upper=st.booleans())
def test_stem_and_suffix_come_back_for_any_stem(stem, suffix, upper):
    assert split_suffix(stem + (suffix.upper() if upper else suffix)) == (stem, suffix)


@pytest.mark.parametrize("ext", [".nrrd", ".mha", ".mhd", ".gipl", ".dcm", ".mat", ".h5", ".zarr", ".foo", ".gz"])
def test_other_volume_formats_are_told_to_be_converted(ext):
    path = Path(f"preds/a.1{ext}")
    with pytest.raises(UnreadFormat) as caught:
        require_suffix(path)
    assert str(caught.value) == f"preds/a.1{ext}: segcal does not read {ext}; convert it to NIfTI"


def test_a_compressed_volume_is_named_by_its_inner_suffix():
    assert str(unread(Path("a.nrrd.gz"))) == "a.nrrd.gz: segcal does not read .nrrd; convert it to NIfTI"


@pytest.mark.parametrize("ext", [".jpg", ".jpeg"])
def test_jpeg_is_refused_as_lossy(ext):
    with pytest.raises(UnreadFormat) as caught:
        require_suffix(Path(f"a{ext}"))
    assert str(caught.value) == f"a{ext}: segcal does not read {ext}; lossy"


@pytest.mark.parametrize("ext", [".pkl", ".pt", ".pth", ".joblib"])
def test_pickles_are_refused_unopened(ext, tmp_path):
    path = tmp_path / f"a{ext.upper()}"
    with pytest.raises(UnreadFormat) as caught:
        require_suffix(path)  # it does not even exist
    assert str(caught.value) == f"{path}: segcal does not read {ext}; never opened, it can run code"


def test_a_file_without_suffix_is_refused():
    with pytest.raises(UnreadFormat) as caught:
        require_suffix(Path("IM0001"))
    assert str(caught.value) == "IM0001: segcal does not read files without a suffix; convert it to NIfTI"


def test_known_suffixes_pass():
    for suffix in KNOWN:
        require_suffix(Path(f"a{suffix}"))
