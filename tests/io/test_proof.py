import functools
import pickle
import tracemalloc
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest

from segcal_cli.core.labels import Channel, LabelSpace
from segcal_cli.io.proof import Agreement, NotReproduced, Painting
from segcal_cli.io.reasons import FailedProof, explain
from tests.io.builders_nnunet import painted, region_field, region_space, softmax_field, softmax_space

SHAPE = (6, 7, 9)
NPZ, SEGMENTATION = Path("out/A.npz"), Path("out/A.nii.gz")


def failure(array, segmentation, space, values="probabilities") -> str:
    painting = Painting.of(space, values)
    codes = painting.encode(segmentation)
    agreement = painting.compare(array, codes)
    assert agreement.status is None
    failed = FailedProof(array, codes, painting, values, agreement)
    return str(explain(NPZ, "SimpleITKIO", SEGMENTATION, failed))


@pytest.mark.parametrize("n", [2, 3, 5])
def test_a_softmax_reproduces_its_labels(n):
    array, labels = softmax_field(SHAPE, n)
    agreement = Painting.of(softmax_space(n), "probabilities").compare(array, labels)
    assert (agreement.voxels, agreement.disagreeing, agreement.status) == (6 * 7 * 9, 0, "proved")
    assert agreement.foreground == np.count_nonzero(labels)


def test_logits_prove_a_softmax_as_their_probabilities_do():
    array, labels = softmax_field(SHAPE, 3)
    assert Painting.of(softmax_space(3), "logits").compare(np.log(array) - 5, labels).status == "proved"


def test_every_wrong_voxel_is_counted():
    array, labels = softmax_field(SHAPE, 4)
    labels[1, 2, 3:6] = (labels[1, 2, 3:6] + 1) % 4
    assert Painting.of(softmax_space(4), "probabilities").compare(array, labels).disagreeing == 3


def test_ties_of_float16_agree_whichever_class_the_writer_chose():
    rng = np.random.default_rng(5)
    logits = rng.standard_normal((3, *SHAPE)) * 1e-4
    exact = np.exp(logits) / np.exp(logits).sum(axis=0)
    rounded = exact.astype(np.float16).astype(np.float32)
    labels = exact.argmax(axis=0).astype(np.uint8)
    assert (rounded.argmax(axis=0) != labels).any()
    assert Painting.of(softmax_space(3), "probabilities").compare(rounded, labels).holds


def test_regions_are_painted_in_channel_order():
    array, segmentation = region_field(SHAPE)
    painting = Painting.of(region_space(), "probabilities")
    np.testing.assert_array_equal(painting.paint(array), segmentation)
    assert painting.compare(array, segmentation).status == "proved"


def test_the_later_region_wins_whatever_value_it_paints():
    array = np.random.default_rng(1).random((3, *SHAPE), dtype=np.float32)
    space = LabelSpace(
        tuple(Channel(n, frozenset({v})) for n, v in zip("cab", (7, 2, 2), strict=True)), "sigmoid", paint=(7, 2, 2)
    )
    painting = Painting.of(space, "probabilities")
    segmentation = painted(array, (7, 2, 2))
    assert painting.compare(array, painting.encode(segmentation)).status == "proved"
    segmentation[0, 0, 0] = 5
    assert painting.compare(array, painting.encode(segmentation)).disagreeing == 1


def test_a_region_value_of_exactly_a_half_is_not_counted():
    array, segmentation = region_field(SHAPE)
    array[0, 2, 2, 2], array[1:, 2, 2, 2], segmentation[2, 2, 2] = 0.5, 0, 1
    painting = Painting.of(region_space(), "probabilities")
    assert painting.compare(array, segmentation).holds
    segmentation[0, 0, 0] = (segmentation[0, 0, 0] + 1) % 4
    assert painting.compare(array, segmentation).disagreeing == 1


def test_logits_of_regions_are_painted_above_0():
    array, segmentation = region_field(SHAPE)
    logits = np.log(array) - np.log1p(-array)
    assert Painting.of(region_space(), "logits").compare(logits, segmentation).status == "proved"


def test_one_channel_is_painted_with_its_own_value():
    space = LabelSpace((Channel("lesion", frozenset({3})),), "sigmoid")
    array = np.random.default_rng(1).random((1, *SHAPE), dtype=np.float32)
    painting = Painting.of(space, "probabilities")
    assert painting.compare(array, painting.encode(painted(array, (3,)))).status == "proved"


def test_regions_without_a_paint_order_cannot_be_proved():
    space = LabelSpace((Channel("a", frozenset({1})), Channel("b", frozenset({2}))), "sigmoid")
    assert Painting.of(space, "probabilities") is None


def test_background_alone_proves_the_shape_only():
    array, _ = softmax_field(SHAPE, 3)
    array[0] = 2
    assert (
        Painting.of(softmax_space(3), "probabilities").compare(array, np.zeros(SHAPE, np.uint8)).status == "background"
    )


@pytest.mark.parametrize("dtype", ["uint8", "int16", "int32", "float32"])
def test_label_values_that_are_not_channel_numbers_are_translated(dtype):
    array, labels = softmax_field(SHAPE, 3)
    space = LabelSpace(
        (Channel("bg", frozenset({0})), Channel("a", frozenset({4, 7})), Channel("b", frozenset({2}))), "softmax"
    )
    segmentation = np.array([0, 4, 2])[labels].astype(dtype)
    segmentation[:3][labels[:3] == 1] = 7
    painting = Painting.of(space, "probabilities")
    assert painting.compare(array, painting.encode(segmentation)).status == "proved"


def test_a_label_value_as_large_as_a_class_table_may_hold_needs_no_table_of_its_size():
    array, labels = softmax_field(SHAPE, 3)
    largest = 2**31 - 1
    space = LabelSpace(tuple(Channel(str(v), frozenset({v})) for v in (0, 1, largest)), "softmax")
    segmentation = np.array([0, 1, largest], np.int32)[labels]
    painting = Painting.of(space, "probabilities")
    tracemalloc.start()
    codes = painting.encode(segmentation)
    most = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert painting.compare(array, codes).status == "proved"
    assert most < 2**20


@pytest.mark.parametrize("foreign", [np.nan, np.inf, -np.inf, 1e30, -1e30])
def test_what_is_no_label_at_all_disagrees(foreign):
    array, labels = softmax_field(SHAPE, 3)
    segmentation = labels.astype(np.float32)
    segmentation[0, 0, :2] = foreign
    painting = Painting.of(softmax_space(3), "probabilities")
    assert painting.compare(array, painting.encode(segmentation)).disagreeing == 2


@pytest.mark.parametrize("foreign", [3, 200, -1, -300, 4000])
def test_a_label_value_outside_the_class_table_disagrees(foreign):
    array, labels = softmax_field(SHAPE, 3)
    segmentation = labels.astype(np.int16 if not 0 <= foreign < 256 else np.uint8)
    segmentation[0, 0, :2] = foreign
    painting = Painting.of(softmax_space(3), "probabilities")
    codes = painting.encode(segmentation)
    assert painting.compare(array, codes).disagreeing == 2
    assert np.count_nonzero(painting.disagreement(array.reshape(3, -1), codes.reshape(-1))) == 2


def test_slabs_from_two_threads_add_up_to_the_whole():
    array, labels = softmax_field(SHAPE, 3)
    labels[3] = 0
    painting = Painting.of(softmax_space(3), "probabilities")
    flat, codes = array.reshape(3, -1), labels.reshape(-1)
    with ThreadPoolExecutor(2) as pool:
        parts = list(
            pool.map(lambda i: painting.agreement(flat[:, i : i + 17], codes[i : i + 17]), range(0, codes.size, 17))
        )
    assert functools.reduce(Agreement.__add__, reversed(parts)) == painting.compare(array, labels)


def test_the_share_of_agreeing_voxels_never_rounds_up_to_1():
    assert [str(Agreement(1_000_000, n, 1)) for n in (0, 1, 690_001, 1_000_000)] == ["1", "0.9999", "0.3099", "0"]


def test_two_swapped_channels_are_named():
    array, labels = softmax_field(SHAPE, 4)
    swapped = np.ascontiguousarray(array[[0, 3, 2, 1]])
    share = Painting.of(softmax_space(4), "probabilities").compare(swapped, labels)
    assert failure(swapped, labels, softmax_space(4)) == (
        f"out/A.npz: read as SimpleITKIO it reproduces A.nii.gz on {share} of the voxels. With channels in the order "
        "(background, class 3, class 2, class 1) it is 1: the class table is not the model's"
    )


def test_a_cycle_of_channels_is_named_in_the_order_of_the_file():
    array, labels = softmax_field(SHAPE, 4)
    cycled = np.ascontiguousarray(array[[0, 2, 3, 1]])
    assert "in the order (background, class 2, class 3, class 1) it is 1: the class" in failure(
        cycled, labels, softmax_space(4)
    )


def test_regions_in_another_order_are_named():
    array, segmentation = region_field(SHAPE)
    message = failure(np.ascontiguousarray(array[[1, 2, 0]]), segmentation, region_space())
    assert "With channels in the order (core, active, whole) it is 1: the class table is not the model's" in message


def test_a_flip_is_named():
    array, labels = softmax_field(SHAPE, 3)
    message = failure(np.ascontiguousarray(array[:, :, ::-1]), labels, softmax_space(3))
    assert message.endswith(" of the voxels. With axes (x, -y, z) it is 1: wrong reader or orientation")


def test_a_flip_is_named_although_components_were_removed_too():
    array, labels = softmax_field((12, 13, 14), 3)
    labels[:1, :4] = 0
    message = failure(np.ascontiguousarray(array[..., ::-1]), labels, softmax_space(3))
    assert "With axes (-x, y, z) it is 0.9" in message


def test_a_permutation_of_equal_axes_is_named():
    array, labels = softmax_field((5, 5, 5), 3)
    message = failure(np.ascontiguousarray(array.transpose(0, 2, 3, 1)), labels, softmax_space(3))
    assert message.endswith("With axes (y, z, x) it is 1: wrong reader or orientation")


def test_a_segmentation_painted_from_sigmoid_of_the_probabilities_is_named():
    array, _ = region_field(SHAPE)
    array[:, 3] = 0
    array[0, 2, 2] = 1e-9  # sigmoid rounds to exactly a half here
    twice = painted(1 / (1 + np.exp(-array)), (1, 2, 3))
    share = Painting.of(region_space(), "probabilities").compare(array, twice)
    assert failure(array, twice, region_space()) == (
        f"out/A.npz: read as SimpleITKIO it reproduces A.nii.gz on {share} of the voxels. "
        "As painted from sigmoid(p) it is 1: nnUNetv2_ensemble before 2.7.0; "
        "the .npz is right, the segmentation is not: --no-prove"
    )


def test_removed_components_are_named():
    array, labels = softmax_field(SHAPE, 3)
    labels[2, 3, 4:7], array[1, 2, 3, 4:7] = 0, 2
    assert failure(array, labels, softmax_space(3)).endswith(
        " of the voxels. The segmentation looks post-processed (components removed): --no-prove accepts it"
    )


def test_a_segmentation_of_another_run_is_named():
    array, _ = softmax_field(SHAPE, 3)
    _, labels = softmax_field(SHAPE, 3, seed=9)
    assert failure(array, labels, softmax_space(3)).endswith("Is A.nii.gz from the same model and run?")


def test_the_error_survives_pickling():
    error = NotReproduced(NPZ, "NibabelIO", "A.nii.gz", "0.5", "Is A.nii.gz from the same model and run?")
    assert str(pickle.loads(pickle.dumps(error))) == str(error)
