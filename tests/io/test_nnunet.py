from pathlib import Path

import numpy as np
import pytest

from segcal_cli.io import nnunet
from segcal_cli.io.nnunet import BadModelFile, NoSegmentation, OtherShape, TotalSegmentatorGrid, UnknownReader
from segcal_cli.io.proof import NotReproduced, Painting
from tests.io.builders_nnunet import (
    affine,
    in_ras,
    painted,
    region_field,
    region_space,
    softmax_field,
    softmax_space,
    write_model,
)

NPZ, SEGMENTATION = Path("out/A.npz"), Path("out/A.nii.gz")
SPACE = softmax_space(3)
PAINTING = Painting.of(SPACE, "probabilities")
GRIDS = pytest.mark.parametrize(
    ("codes", "degrees", "shape"),
    [(c, d, s) for c in ("RAS", "LPS", "LPI", "ASL", "PLS") for d in (0, 12) for s in ((6, 7, 9), (8, 8, 8))],
)
REORIENTING = pytest.mark.parametrize("reader", ["NibabelIOWithReorient", "SimpleITKIOWithReorient"])


def settle(array, segmentation, grid, reader, painting=PAINTING):
    return nnunet.settle(NPZ, array, segmentation, SEGMENTATION, grid, painting, "probabilities", reader)


@GRIDS
@pytest.mark.parametrize("reader", ["SimpleITKIO", "NibabelIO"])
def test_plain_readers_keep_the_order_of_the_segmentation(codes, degrees, shape, reader):
    array, labels = softmax_field(shape, 3)
    placed = settle(array, labels, affine(codes, degrees), reader)
    assert placed.status == "proved"
    assert np.shares_memory(placed.array, array)
    assert placed.orientation.identity


@GRIDS
@REORIENTING
def test_reordered_arrays_are_turned_back_bit_for_bit_and_proved(codes, degrees, shape, reader):
    array, labels = softmax_field(shape, 3)
    grid = affine(codes, degrees)
    ras = np.ascontiguousarray(in_ras(array, grid))
    placed = settle(ras.copy(), labels, grid, reader)
    np.testing.assert_array_equal(placed.array, array)
    np.testing.assert_array_equal(nnunet.orient(ras.copy(), reader, grid), array)
    assert placed.array.flags.c_contiguous
    assert PAINTING.compare(placed.array, labels).disagreeing == 0
    assert placed.status == "proved"


@GRIDS
def test_a_reordered_array_is_refused_with_the_plain_reader(codes, degrees, shape):
    if codes == "RAS":
        return  # both readers give the same array
    array, labels = softmax_field(shape, 3)
    grid = affine(codes, degrees)
    with pytest.raises(NotReproduced) as caught:
        settle(np.ascontiguousarray(in_ras(array, grid)), labels, grid, "SimpleITKIO")
    message = str(caught.value)
    assert message.startswith("out/A.npz: read as SimpleITKIO it reproduces A.nii.gz on 0")
    assert message.endswith(f"With axes {nnunet.from_ras(grid)} it is 1: wrong reader or orientation")


@pytest.mark.parametrize("codes", ["LPS", "LPI", "ASL", "PLS"])
@pytest.mark.parametrize("shape", [(6, 7, 9), (8, 8, 8)])
def test_a_plain_array_is_refused_with_a_reorienting_reader(codes, shape):
    array, labels = softmax_field(shape, 3)
    turn = nnunet.from_ras(affine(codes)).inverse
    with pytest.raises(NotReproduced) as caught:
        settle(array, labels, affine(codes), "NibabelIOWithReorient")
    message = str(caught.value)
    assert message.startswith("out/A.npz: read as NibabelIOWithReorient it reproduces A.nii.gz on 0")
    assert message.endswith(f"With axes {turn} it is 1: wrong reader or orientation")


def test_on_a_random_field_the_wrong_reader_agrees_on_about_a_third():
    array, labels = softmax_field((8, 8, 8), 3)
    ras = np.ascontiguousarray(in_ras(array, affine("LPI")))
    assert 0.25 < 1 - PAINTING.compare(ras, labels).disagreeing / labels.size < 0.45


@REORIENTING
def test_regions_are_turned_back_and_proved(reader):
    array, segmentation = region_field((6, 7, 9))
    grid = affine("LPI", 12)
    placed = settle(
        np.ascontiguousarray(in_ras(array, grid)),
        segmentation,
        grid,
        reader,
        Painting.of(region_space(), "probabilities"),
    )
    np.testing.assert_array_equal(placed.array, array)


def test_regions_painted_from_twice_applied_sigmoid_are_refused_by_name():
    array, _ = region_field((6, 7, 9))
    twice = painted(1 / (1 + np.exp(-array)), (1, 2, 3))
    with pytest.raises(NotReproduced, match=r"As painted from sigmoid\(p\) it is 1: nnUNetv2_ensemble before 2\.7\.0"):
        settle(array, twice, affine("LPS"), "SimpleITKIO", Painting.of(region_space(), "probabilities"))


@pytest.mark.parametrize("ras_order", [False, True])
def test_without_a_reader_the_order_that_proves_itself_is_taken(ras_order):
    array, labels = softmax_field((8, 8, 8), 3)
    grid = affine("LPI", 12)
    stored = np.ascontiguousarray(in_ras(array, grid)) if ras_order else array
    placed = settle(stored, labels, grid, None)
    np.testing.assert_array_equal(placed.array, array)
    assert placed.status == "proved"


@pytest.mark.parametrize("grid", [affine("RAS", 12), None])
def test_without_a_reader_equal_orders_count_as_one_even_for_background(grid):
    array, labels = softmax_field((8, 8, 8), 3)
    assert settle(array, labels, grid, None).status == "proved"
    array[0] = 2
    assert settle(array, np.zeros((8, 8, 8), np.uint8), grid, None).status == "background"


def test_without_a_reader_an_array_that_is_its_own_mirror_image_is_read_plain():
    half, labels = softmax_field((4, 8, 8), 3)
    array = np.concatenate([half, half[:, ::-1]], axis=1)
    assert settle(array, np.concatenate([labels, labels[::-1]]), affine("RAI"), None).array is array


def test_without_a_reader_background_alone_is_refused():
    array, _ = softmax_field((8, 8, 8), 3)
    array[0] = 2
    with pytest.raises(UnknownReader) as caught:
        settle(array, np.zeros((8, 8, 8), np.uint8), affine("LPS"), None)
    assert str(caught.value) == (
        "out/A.npz: cannot tell which nnU-Net reader wrote this (plain 1, RAS 1 agreement); give --reader"
    )


def test_without_a_reader_an_array_that_neither_order_proves_is_refused():
    array, _ = softmax_field((8, 8, 8), 3)
    _, labels = softmax_field((8, 8, 8), 3, seed=1)
    plain = PAINTING.compare(array, labels)
    ras = PAINTING.compare(nnunet.orient(array.copy(), "NibabelIOWithReorient", affine("LPS")), labels)
    with pytest.raises(UnknownReader) as caught:
        settle(array, labels, affine("LPS"), None)
    assert f"(plain {plain}, RAS {ras} agreement)" in str(caught.value)


def test_an_unknown_reader_class_must_prove_itself_plain():
    array, labels = softmax_field((8, 8, 8), 3)
    grid = affine("LPI")
    assert settle(array, labels, grid, "OurOwnIO").orientation.identity
    with pytest.raises(UnknownReader):
        settle(np.ascontiguousarray(in_ras(array, grid)), labels, grid, "OurOwnIO")
    array[0] = 2
    with pytest.raises(UnknownReader):
        settle(array, np.zeros((8, 8, 8), np.uint8), affine("RAS"), "OurOwnIO")


def test_a_known_reader_reads_background_alone():
    array, _ = softmax_field((8, 8, 8), 3)
    array[0] = 2
    assert settle(array, np.zeros((8, 8, 8), np.uint8), affine("LPS"), "NibabelIOWithReorient").status == "background"


def test_a_2d_array_has_a_single_plane_and_no_affine():
    array, labels = softmax_field((1, 7, 9), 3)
    assert settle(array, labels, None, "NaturalImage2DIO").status == "proved"
    with pytest.raises(NotReproduced, match=r"With axes \(-x, y, z\) it is 1"):
        settle(np.ascontiguousarray(array[..., ::-1]), labels, None, "NaturalImage2DIO")


def test_nnunet_v1_never_reorients(tmp_path):
    write_model(tmp_path, reader="NibabelIOWithReorient")
    files = nnunet.find_model_files(tmp_path)
    assert nnunet.reader_of("softmax", files) == "SimpleITKIO"
    assert nnunet.reader_of("probabilities", files) == "NibabelIOWithReorient"


def test_a_full_size_array_of_nnunet_v1_is_proved():
    array, labels = softmax_field((6, 7, 9), 3)
    rounded = array.astype(np.float16).astype(np.float32)
    assert settle(rounded, labels, affine("LPI", 12), nnunet.V1_READER).status == "proved"


@pytest.mark.parametrize("up", [0, 1, 2])
def test_the_files_of_the_model_are_found_up_to_two_folders_up(tmp_path, up):
    predictions = tmp_path / "model/fold_0/validation"
    predictions.mkdir(parents=True)
    write_model([predictions, *predictions.parents][up], reader="NibabelIOWithReorient")
    files = nnunet.find_model_files(predictions)
    assert files.found
    assert files.reader() == "NibabelIOWithReorient"
    (predictions / "A.npz").touch()
    assert nnunet.find_model_files(predictions / "A.npz") == files


def test_three_folders_up_is_too_far(tmp_path):
    predictions = tmp_path / "a/b/c"
    predictions.mkdir(parents=True)
    write_model(tmp_path, reader="NibabelIO")
    files = nnunet.find_model_files(predictions)
    assert not files.found
    assert files.reader() is None


def test_plans_decide_over_the_dataset_which_decides_over_nothing(tmp_path):
    write_model(tmp_path, overwrite="NibabelIO")
    assert nnunet.find_model_files(tmp_path).reader() == "NibabelIO"
    write_model(tmp_path, reader="SimpleITKIO", overwrite="NibabelIO")
    assert nnunet.find_model_files(tmp_path).reader() == "SimpleITKIO"


@pytest.mark.parametrize(
    ("text", "why"), [("{", "Expecting property name"), ("[1]", "no JSON object"), ("\xff", "can't decode")]
)
def test_a_broken_model_file_is_refused_by_name(tmp_path, text, why):
    (tmp_path / "plans.json").write_bytes(text.encode("latin-1"))
    with pytest.raises(BadModelFile, match=why) as caught:
        nnunet.find_model_files(tmp_path).reader()
    assert str(caught.value).startswith(f"{tmp_path / 'plans.json'}: not a file of an nnU-Net model (")


def test_an_array_of_another_shape_without_model_files_is_totalsegmentators(tmp_path):
    with pytest.raises(TotalSegmentatorGrid) as caught:
        nnunet.refuse_shape(NPZ, (50, 60, 70), SEGMENTATION, (155, 240, 240), nnunet.find_model_files(tmp_path))
    assert str(caught.value) == (
        "out/A.npz: lies on TotalSegmentator's cropped, resampled grid 70 x 60 x 50, "
        "not on the scan's 240 x 240 x 155. With several part models each is "
        "saved to this one path, so only the last is left"
    )


def test_an_array_of_another_shape_beside_model_files_is_refused(tmp_path):
    write_model(tmp_path)
    with pytest.raises(OtherShape) as caught:
        nnunet.refuse_shape(NPZ, (50, 60, 70), SEGMENTATION, (155, 240, 240), nnunet.find_model_files(tmp_path))
    assert str(caught.value) == "out/A.npz is 70 x 60 x 50, A.nii.gz is 240 x 240 x 155 (x y z)"


def test_a_permuted_shape_is_left_to_the_proof(tmp_path):
    nnunet.refuse_shape(NPZ, (240, 155, 240), SEGMENTATION, (155, 240, 240), nnunet.find_model_files(tmp_path))


def test_an_array_alone_names_the_segmentation_that_it_lacks():
    assert str(NoSegmentation(NPZ, "A.nii.gz")) == (
        "out/A.npz: no segmentation A.nii.gz beside it, so its place in space is unknown; give --geometry FOLDER"
    )
