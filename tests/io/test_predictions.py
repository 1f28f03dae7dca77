"""Opening a prediction: everything that its headers settle, and how it is then read."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from segcal_cli.core.labels import LabelSpace
from segcal_cli.io import nnunet, voxels
from segcal_cli.io.case_files import CaseFiles, PredictionFile
from segcal_cli.io.checks import NotFinite
from segcal_cli.io.geometry import ShapeMismatch
from segcal_cli.io.nnunet import NoSegmentation, OtherShape, find_model_files
from segcal_cli.io.predictions import (
    NoBackgroundLogits,
    PredictionSource,
    ReadingRules,
    SampleOtherwise,
    ValuesNeeded,
    open_prediction,
)
from tests.io.builders_arrays import npy_bytes, write_npz
from tests.io.builders_folders import exclusive
from tests.io.builders_nifti import affine_of, field, save, softmax_field

SHAPE = (4, 5, 6)
THREE = exclusive("background", "edema", "necrosis")
TWO = exclusive("background", "tumour")
PROBABILITIES = ReadingRules(values="probabilities")


def opened(
    *files: PredictionFile,
    table: LabelSpace = THREE,
    rules: ReadingRules = PROBABILITIES,
    placed_by_label: bool = False,
) -> PredictionSource:
    case = CaseFiles("a", "a", tuple(files))
    model = find_model_files(files[0].path)
    return open_prediction(case, table, rules, model, placed_by_label=placed_by_label)


def nifti(tmp_path: Path, name: str, shape=(3, *SHAPE), affine=None, seed: int = 0) -> Path:
    values = softmax_field(shape, seed) if len(shape) == 4 else field(shape, seed)
    return save(tmp_path / f"{name}.nii.gz", values, affine_of() if affine is None else affine)


def array(tmp_path: Path, values: np.ndarray, key: str = "probabilities") -> Path:
    return write_npz(tmp_path / "a.npz", {f"{key}.npy": npy_bytes(values)})


def test_values_that_nothing_tells_are_asked_for(tmp_path):
    with pytest.raises(ValuesNeeded):
        opened(PredictionFile(nifti(tmp_path, "a")), rules=ReadingRules())


def test_a_volume_of_all_classes_lies_where_it_says(tmp_path):
    source = opened(PredictionFile(nifti(tmp_path, "a")))
    assert (source.shape, source.space, source.values, source.placed) == ((3, *SHAPE), THREE, "probabilities", True)


def test_the_foreground_alone_has_a_table_of_its_own(tmp_path):
    source = opened(PredictionFile(nifti(tmp_path, "a", SHAPE)), table=TWO)
    assert (source.space.names, source.space.activation, source.shape) == (("tumour",), "sigmoid", (1, *SHAPE))


def test_channels_follow_the_class_table_and_not_the_folder(tmp_path):
    paths = {name: nifti(tmp_path, name, SHAPE, seed=i) for i, name in enumerate(reversed(THREE.names))}
    logits = ReadingRules(values="logits")
    source = opened(*(PredictionFile(path, None, name) for name, path in sorted(paths.items())), rules=logits)
    volume = voxels._decode(source.parts[0], source)
    for channel, name in zip(volume, THREE.names, strict=True):
        np.testing.assert_array_equal(channel, field(SHAPE, list(paths).index(name)))


def test_an_absent_background_cannot_be_a_logit(tmp_path):
    files = [PredictionFile(nifti(tmp_path, name, SHAPE), None, name) for name in THREE.names[1:]]
    assert opened(*files).parts[0].headers[0] is None
    with pytest.raises(NoBackgroundLogits):
        opened(*files, rules=ReadingRules(values="logits"))


def test_class_files_of_another_shape_are_refused_by_their_headers(tmp_path):
    files = [PredictionFile(nifti(tmp_path, name, SHAPE), None, name) for name in THREE.names[:2]]
    odd = PredictionFile(nifti(tmp_path, "necrosis", (4, 5, 7)), None, "necrosis")
    with pytest.raises(ShapeMismatch):
        opened(*files, odd)


def test_samples_that_hold_other_channels_are_refused(tmp_path):
    one = PredictionFile(nifti(tmp_path, "one", (2, *SHAPE)), "1")
    other = PredictionFile(nifti(tmp_path, "other", SHAPE), "2")
    with pytest.raises(SampleOtherwise, match="has 1 channels"):
        opened(one, other, table=TWO)


def test_a_mean_is_single_precision_whatever_its_samples_are(tmp_path):
    files = [PredictionFile(nifti(tmp_path, str(i), seed=i), str(i)) for i in range(3)]
    source = opened(*files)
    assert source.stored.dtype == "float32"
    volume = voxels.read_prediction(source).volume
    expected = np.mean([softmax_field((3, *SHAPE), i) for i in range(3)], axis=0)
    np.testing.assert_allclose(volume.array, expected, atol=1e-7)


def test_the_mean_of_log_odds_is_a_logit(tmp_path):
    files = [PredictionFile(nifti(tmp_path, str(i), SHAPE, seed=i), str(i)) for i in range(2)]
    rules = ReadingRules(values="probabilities", reduce="mean-logits")
    volume = voxels.read_prediction(opened(*files, table=TWO, rules=rules)).volume
    p = np.stack([field(SHAPE, i) for i in range(2)]).astype(np.float64)
    assert volume.values == "logits"
    np.testing.assert_allclose(volume.array[0], np.log(p / (1 - p)).mean(axis=0), atol=1e-5)


# nnU-Net.


def model(tmp_path: Path) -> None:
    (tmp_path / "dataset.json").write_text('{"labels": {"background": 0, "edema": 1, "necrosis": 2}}')


def test_an_array_of_nnunet_needs_something_that_places_it(tmp_path):
    model(tmp_path)
    file = PredictionFile(array(tmp_path, softmax_field((3, *SHAPE))))
    with pytest.raises(NoSegmentation, match=r"no segmentation a\.nii\.gz beside it"):
        opened(file)
    assert not opened(file, placed_by_label=True).placed


def test_an_array_without_a_model_may_lie_nowhere(tmp_path):
    assert not opened(PredictionFile(array(tmp_path, softmax_field((3, *SHAPE))))).placed


def test_a_flat_array_of_nnunet_may_lie_nowhere(tmp_path):
    model(tmp_path)
    assert not opened(PredictionFile(array(tmp_path, softmax_field((3, 1, 5, 6))))).placed


def test_channels_of_nnunets_own_array_come_first_even_if_the_last_axis_has_that_length(tmp_path):
    model(tmp_path)
    values = softmax_field((3, 4, 5, 3))
    proof = save(tmp_path / "a.nii.gz", values.argmax(axis=0).astype(np.uint8))
    source = opened(PredictionFile(array(tmp_path, values), proof=proof))
    np.testing.assert_array_equal(voxels.read_prediction(source).volume.array, values)


def test_version_1_is_read_by_its_only_reader(tmp_path):
    values = softmax_field((3, *SHAPE))
    proof = save(tmp_path / "a.nii.gz", values.argmax(axis=0).astype(np.uint8))
    source = opened(PredictionFile(array(tmp_path, values, "softmax"), proof=proof))
    assert source.parts[0].reader == nnunet.V1_READER


def test_a_volume_that_says_how_its_axes_run_has_no_reader(tmp_path):
    (tmp_path / "plans.json").write_text('{"image_reader_writer": "NibabelIOWithReorient"}')
    assert opened(PredictionFile(nifti(tmp_path, "a"))).parts[0].reader is None


@pytest.mark.parametrize("key", ["probabilities", "logits", "mine"])
def test_an_array_of_another_shape_than_its_segmentation_is_refused_by_its_header(key, tmp_path):
    model(tmp_path)
    proof = save(tmp_path / "a.nii.gz", np.zeros((4, 5, 7), np.uint8))
    rules = ReadingRules(values="logits" if key == "logits" else "probabilities")
    with pytest.raises(OtherShape):
        opened(PredictionFile(array(tmp_path, softmax_field((3, *SHAPE)), key), proof=proof), rules=rules)


def test_a_nan_is_told_before_the_proof_that_fails_by_it(tmp_path):
    model(tmp_path)
    values = softmax_field((3, *SHAPE))
    proof = save(tmp_path / "a.nii.gz", values.argmax(axis=0).astype(np.uint8))
    values[1, 2, 3, 4] = np.nan
    source = opened(PredictionFile(array(tmp_path, values), proof=proof))
    with pytest.raises(NotFinite, match=r"first at \(x,y,z\) = \(4, 3, 2\), class edema"):
        voxels.read_prediction(source)


def test_an_unproved_array_of_another_order_of_axes_than_its_place_is_refused(tmp_path):
    (tmp_path / "dataset.json").write_text('{"overwrite_image_reader_writer": "SimpleITKIO", "labels": {}}')
    source = opened(PredictionFile(array(tmp_path, softmax_field((3, *SHAPE)))), placed_by_label=True)
    turned = opened(PredictionFile(nifti(tmp_path, "b", (3, 6, 5, 4)))).place
    with pytest.raises(OtherShape):
        voxels.read_prediction(source, turned)
