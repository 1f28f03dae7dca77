"""What is written for a case: names, forms, and the places where nothing may be written."""

from __future__ import annotations

import os
from pathlib import Path

import nibabel as nib
import numpy as np
import pytest

from segcal_cli.core.errors import WriteError
from segcal_cli.core.labels import Channel, LabelSpace
from segcal_cli.core.volume import Grid
from segcal_cli.io import outputs
from segcal_cli.io.folders import NoSuchInput
from segcal_cli.io.geometry import Space
from tests.cli.builders_reading import tree
from tests.io.builders_folders import exclusive, regions
from tests.io.builders_nifti import affine_of, softmax_field
from tests.io.builders_nnunet import region_space

SHAPE = (4, 5, 6)
THREE = exclusive("background", "edema", "necrosis")
HERE = Space("p", Grid(SHAPE, affine_of("LPS", oblique=9.0)), sform_code=1, qform_code=1)
NOWHERE = Space("p", Grid((1, 5, 6)))


def soft(array: np.ndarray, place: Space = HERE, space: LabelSpace = THREE, **more) -> list[outputs.File]:
    options = {"desc": "calibrated", "split_classes": False, "marks": {}} | more
    return outputs.soft_files("a", "probseg", array, space, place, **options)


# Places.


def test_an_output_in_an_input_is_refused(tmp_path):
    (tmp_path / "in" / "deep").mkdir(parents=True)
    for output in ("in", "in/out", "in/deep/out.npz", "x/../in/out"):
        with pytest.raises(outputs.OutputInInput):
            outputs.refuse_inside(tmp_path / output, (None, tmp_path / "in"))
    outputs.refuse_inside(tmp_path / "in2", (tmp_path / "in",))
    outputs.refuse_inside(tmp_path / "out" / "in", (tmp_path / "in",))


def test_a_link_into_an_input_is_in_it(tmp_path):
    (tmp_path / "in").mkdir()
    (tmp_path / "link").symlink_to(tmp_path / "in")
    with pytest.raises(outputs.OutputInInput):
        outputs.refuse_inside(tmp_path / "link" / "out", (tmp_path / "in",))


def test_folders_that_a_star_joins_are_inputs_each(tmp_path):
    (tmp_path / "fold_0").mkdir()
    (tmp_path / "fold_1").mkdir()
    with pytest.raises(outputs.OutputInInput):
        outputs.refuse_inside(tmp_path / "fold_1" / "out", (tmp_path / "fold_*",))


def test_a_file_may_lie_beside_an_input_file(tmp_path):
    (tmp_path / "a.npz").touch()
    outputs.refuse_inside(tmp_path / "out.npz", (tmp_path / "a.npz",))
    with pytest.raises(outputs.OutputInInput):
        outputs.refuse_inside(tmp_path / "a.npz", (tmp_path / "a.npz",))


def test_an_input_must_be_there(tmp_path):
    with pytest.raises(NoSuchInput):
        outputs.refuse_inside(tmp_path / "out", (tmp_path / "in",))


def test_at_most_five_outputs_that_exist_are_named(tmp_path):
    paths = [tmp_path / f"{i}.npz" for i in range(7)]
    for path in paths:
        path.touch()
    with pytest.raises(outputs.OutputExists) as caught:
        outputs.refuse_existing([tmp_path / "none", *paths], overwrite=False)
    text = f"{paths[0]} exists (and 1.npz, 2.npz, 3.npz, 4.npz, ...); give --overwrite"
    assert str(caught.value) == text
    outputs.refuse_existing(paths, overwrite=True)


def test_a_dangling_link_exists(tmp_path):
    (tmp_path / "x").symlink_to(tmp_path / "none")
    with pytest.raises(outputs.OutputExists):
        outputs.refuse_existing([tmp_path / "x"], overwrite=False)


def test_a_shared_file_of_the_same_content_may_stay(tmp_path):
    (tmp_path / "dseg.tsv").write_text("same")
    outputs.refuse_changed(tmp_path, {"dseg.tsv": "same", "other": "x"}, overwrite=False)
    with pytest.raises(outputs.OutputExists):
        outputs.refuse_changed(tmp_path, {"dseg.tsv": "new"}, overwrite=False)


def test_a_place_is_looked_at_before_any_work(tmp_path):
    outputs.require_file_place(tmp_path / "t.npz")
    (tmp_path / "file").touch()
    os.mkfifo(tmp_path / "pipe")
    for path, why in (
        (tmp_path / "pipe", "it is a device, a pipe or a socket"),
        (tmp_path, "it is a folder"),
        (tmp_path / "none" / "t.npz", f"the folder {tmp_path / 'none'} does not exist"),
        (tmp_path / "file" / "t.npz", f"{tmp_path / 'file'} is not a folder"),
    ):
        with pytest.raises(WriteError) as caught:
            outputs.require_file_place(path)
        assert str(caught.value) == f"cannot write {path}: {why}"


def test_a_folder_without_permission_is_refused(tmp_path, monkeypatch):
    monkeypatch.setattr(os, "access", lambda path, mode: False)
    with pytest.raises(WriteError, match="permission denied"):
        outputs.make_folder(tmp_path / "out")
    with pytest.raises(WriteError, match="permission denied"):
        outputs.require_file_place(tmp_path / "t.npz")


def test_a_file_in_the_way_of_a_folder_is_refused(tmp_path):
    (tmp_path / "out").touch()
    with pytest.raises(WriteError, match="file exists"):
        outputs.make_folder(tmp_path / "out")
    with pytest.raises(WriteError, match="not a directory"):
        outputs.make_folder(tmp_path / "out" / "deeper")


# Soft volumes.


def test_the_side_file_comes_before_the_volume():
    assert [file.name for file in soft(softmax_field((3, *SHAPE)))] == [
        "a_desc-calibrated_probseg.json",
        "a_desc-calibrated_probseg.nii.gz",
    ]


@pytest.mark.parametrize("kind", [np.float32, np.uint16])
def test_a_volume_is_written_where_it_lies(kind, tmp_path):
    array = softmax_field((3, *SHAPE))
    array = array if kind is np.float32 else np.rint(array * 65535).astype(kind)
    outputs.write_files(tmp_path, soft(array))
    image = nib.load(tmp_path / "a_desc-calibrated_probseg.nii.gz")
    stored = np.asarray(image.dataobj.get_unscaled()).T
    np.testing.assert_array_equal(stored, array)
    np.testing.assert_allclose(image.affine, HERE.grid.affine, atol=1e-5)
    assert (int(image.header["intent_code"]), image.header.get_xyzt_units()[0]) == (1001, "mm")
    if kind is np.uint16:
        np.testing.assert_allclose(np.asarray(image.dataobj).T, array / 65535, atol=1e-7)


def test_codes_of_the_prediction_are_kept(tmp_path):
    place = Space("p", HERE.grid, sform_code=4, qform_code=2)
    outputs.write_files(tmp_path, soft(softmax_field((3, *SHAPE)), place))
    header = nib.load(tmp_path / "a_desc-calibrated_probseg.nii.gz").header
    assert (int(header["sform_code"]), int(header["qform_code"])) == (4, 2)


def test_one_channel_needs_no_side_file():
    one = LabelSpace((Channel("whole tumour", frozenset({1})),), "sigmoid")
    (file,) = soft(softmax_field((1, *SHAPE)), space=one)
    assert file.name == "a_label-wholeTumour_desc-calibrated_probseg.nii.gz"


def test_marks_stand_in_the_side_file_of_every_class():
    names = [file.name for file in soft(softmax_field((3, *SHAPE)), split_classes=True, marks={"Display": "x"})]
    volumes = [f"a_label-{name}_desc-calibrated_probseg" for name in THREE.names]
    assert names == [f"{stem}{end}" for stem in volumes for end in (".json", ".nii.gz")]


def test_without_a_place_the_array_is_kept_as_it_is(tmp_path):
    array = softmax_field((3, 1, 5, 6))
    assert outputs.write_files(tmp_path, soft(array, NOWHERE)) == ("a.npz",)
    with np.load(tmp_path / "a.npz", allow_pickle=False) as archive:
        np.testing.assert_array_equal(archive["probabilities"], array)


def test_the_same_files_have_the_same_bytes(tmp_path):
    array = softmax_field((3, *SHAPE))
    for name in ("1", "2"):
        (tmp_path / name).mkdir()
        outputs.write_files(tmp_path / name, [*soft(array), outputs.npz_file("a.npz", array)])
    assert tree(tmp_path / "1") == tree(tmp_path / "2")


def test_a_case_of_which_one_file_fails_leaves_none(tmp_path):
    def broken(file: object) -> None:
        raise OSError(28, "No space left on device")

    with pytest.raises(OSError, match="No space left"):
        outputs.write_files(tmp_path, [*soft(softmax_field((3, *SHAPE))), outputs.File("z.nii.gz", broken)])
    assert tree(tmp_path) == {}


@pytest.mark.parametrize("name", ["../a.npz", "sub/a.npz", "..", ""])
def test_no_name_leads_out_of_the_folder(name, tmp_path):
    (tmp_path / "out").mkdir()
    with pytest.raises(WriteError):
        outputs.write_files(tmp_path / "out", [outputs.text_file(name, "x")])
    assert tree(tmp_path) == {}


# Label volumes.


def test_exclusive_classes_paint_their_smallest_value():
    space = LabelSpace((Channel("background", frozenset({0})), Channel("tumour", frozenset({3, 1}))), "softmax")
    winner = np.random.default_rng(0).integers(0, 2, SHAPE)
    np.testing.assert_array_equal(outputs.painted(np.stack([winner == 0, winner == 1]), space), winner)


def test_later_regions_paint_over_earlier_ones():
    decisions = np.random.default_rng(0).random((3, *SHAPE)) > 0.5
    expected = np.zeros(SHAPE, np.uint8)
    for value, decision in enumerate(decisions, 1):
        expected[decision] = value
    np.testing.assert_array_equal(outputs.painted(decisions, region_space()), expected)


def test_regions_without_an_order_are_not_painted():
    with pytest.raises(outputs.NotPaintable):
        outputs.paint_values(regions("whole", "core"))
    assert outputs.paint_values(regions("whole")) == (1,)


def test_large_label_values_need_16_bits():
    space = LabelSpace((Channel("a", frozenset({0})), Channel("b", frozenset({300}))), "softmax")
    label = outputs.painted(np.stack([np.zeros(SHAPE, bool), np.ones(SHAPE, bool)]), space)
    assert (label.dtype, int(label.max())) == (np.uint16, 300)


def test_a_label_volume_is_nifti_in_its_place_and_png_without_one(tmp_path: Path):
    from PIL import Image

    codes = np.random.default_rng(0).integers(0, 3, SHAPE).astype(np.uint8)
    placed, flat = (outputs.label_name("a", "x", placed=placed) for placed in (True, False))
    assert (placed, flat) == ("a_desc-x_dseg.nii.gz", "a_desc-x_dseg.png")
    outputs.write_files(
        tmp_path, [outputs.label_file(placed, codes, HERE), outputs.label_file(flat, codes[:1], NOWHERE)]
    )
    image = nib.load(tmp_path / placed)
    np.testing.assert_array_equal(np.asarray(image.dataobj).T, codes)
    assert (image.get_data_dtype(), int(image.header["intent_code"])) == (np.uint8, 1002)
    np.testing.assert_array_equal(np.asarray(Image.open(tmp_path / flat)), codes[0])
