from pathlib import Path

import pytest

from segcal_cli.io.suffixes import LossySuffix, PickleSuffix, UnreadSuffix, require_suffix, split_suffix


@pytest.mark.parametrize(
    ("name", "parts"),
    [
        ("case.1.2.nii.gz", ("case.1.2", ".nii.gz")),
        ("a.NII.GZ", ("a", ".nii.gz")),
        ("a.nii", ("a", ".nii")),
        ("a.b.npz", ("a.b", ".npz")),
        ("a.Npy", ("a", ".npy")),
        ("a.png", ("a", ".png")),
        ("a.tiff", ("a", ".tiff")),
        ("a.tif", ("a", ".tif")),
        ("a.gz", ("a.gz", "")),
        ("nii.gz", ("nii.gz", "")),
    ],
)
def test_a_name_is_split_at_a_known_suffix_only(name, parts):
    assert split_suffix(name) == parts


@pytest.mark.parametrize("ext", [".nrrd", ".mha", ".mhd", ".gipl", ".dcm", ".mat", ".h5", ".zarr", ".nrrd.gz"])
def test_other_formats_are_sent_to_nifti(ext):
    with pytest.raises(UnreadSuffix) as caught:
        require_suffix(Path(f"in/a{ext.upper()}"))
    assert str(caught.value) == f"in/a{ext.upper()}: segcal does not read {ext}; convert it to NIfTI"


@pytest.mark.parametrize("ext", [".jpg", ".jpeg"])
def test_jpeg_is_refused_as_lossy(ext):
    with pytest.raises(LossySuffix) as caught:
        require_suffix(Path(f"a{ext}"))
    assert str(caught.value).startswith(f"a{ext}: segcal does not read {ext}; lossy")


@pytest.mark.parametrize("ext", [".pkl", ".pt", ".pth", ".joblib"])
def test_pickles_are_refused_as_code(ext):
    with pytest.raises(PickleSuffix) as caught:
        require_suffix(Path(f"a{ext}"))
    assert str(caught.value) == f"a{ext}: segcal does not read {ext}; never opened, it can run code"


def test_a_file_without_suffix_is_refused():
    with pytest.raises(UnreadSuffix, match="files without a suffix"):
        require_suffix(Path("a"))
