"""``apply`` takes the class table of its artifact where neither the command line nor the folder has one."""

from __future__ import annotations

import json

import numpy as np
import pytest

from tests.cli.builders_reading import AFFINE, CLASSES, Study, nifti_study, segcal, tree
from tests.io.builders_nifti import save

FITS = {
    "calibrate": ("--no-summary",),
    "conformal-sets": ("--target", "edema", "--alpha", "0.4"),
    "ntr-interval": ("--numerator", "necrosis", "--denominator", "edema,necrosis", "--method", "joint", "--level=0.7"),
    "cluster": ("--alpha", "0.4", "--method", "image"),
}


@pytest.fixture(scope="module")
def study(tmp_path_factory) -> Study:
    study = nifti_study(tmp_path_factory.mktemp("study"))
    for kind, options in FITS.items():
        target = ["--values", "logits", "--classes", study.classes, "-o", study.root / f"{kind}.npz"]
        ran = segcal(kind, "fit", *study.both, *target, *options)
        assert ran.code == 0, ran.err
    return study


def apply(kind: str, study: Study, out, *options: object, predictions=None):
    command = [kind, "apply", study.root / f"{kind}.npz", predictions or study.predictions, "--values", "logits"]
    return segcal(*command, "-o", out / ("out.csv" if kind == "ntr-interval" else "out"), *options)


@pytest.mark.parametrize("kind", list(FITS))
def test_the_table_of_the_artifact_gives_what_the_same_table_gives(kind, study, tmp_path):
    for name, options in (("told", ("--classes", study.classes)), ("known", ())):
        (tmp_path / name).mkdir()
        ran = apply(kind, study, tmp_path / name, *options)
        assert ran.code == 0, ran.err
    assert tree(tmp_path / "told") == tree(tmp_path / "known")


@pytest.mark.parametrize("kind", list(FITS))
def test_files_with_other_channels_do_not_fit_the_artifact(kind, study, tmp_path):
    noise = np.random.default_rng(0).normal(size=(4, 5, 6, 7)).astype(np.float32)
    (tmp_path / "four").mkdir()
    save(tmp_path / "four" / "a.nii.gz", noise, AFFINE)
    ran = apply(kind, study, tmp_path, predictions=tmp_path / "four")
    assert ran.code == 5
    assert f"{kind}.npz was fitted on 3 channels, {tmp_path / 'four'} has 4 channels" in ran.closing


def test_a_table_that_contradicts_the_artifact_is_still_refused(study, tmp_path):
    other = tmp_path / "other.json"
    other.write_text(json.dumps({"background": 0, "edema": 2, "necrosis": 1}))
    ran = apply("calibrate", study, tmp_path, "--classes", other)
    assert ran.code == 5
    assert "background=0; edema=1; necrosis=2" in ran.closing


def test_a_table_in_the_folder_comes_before_that_of_the_artifact(study, tmp_path):
    (tmp_path / "preds").mkdir()
    for path in study.predictions.iterdir():
        (tmp_path / "preds" / path.name).write_bytes(path.read_bytes())
    (tmp_path / "preds" / "dataset.json").write_text(json.dumps({"labels": {"background": 0, "a": 1, "b": 2}}))
    assert apply("calibrate", study, tmp_path, predictions=tmp_path / "preds").code == 5


def test_one_file_per_class_is_joined_by_the_classes_of_the_artifact(study, tmp_path):
    import nibabel

    for path in study.predictions.iterdir():
        array = np.moveaxis(np.asarray(nibabel.load(path).dataobj), -1, 0).transpose(0, 3, 2, 1)
        (tmp_path / "split").mkdir(exist_ok=True)
        for name, channel in zip(CLASSES, array, strict=True):
            save(tmp_path / "split" / f"{path.name.removesuffix('.nii.gz')}_{name}.nii.gz", channel, AFFINE)
    ran = apply("calibrate", study, tmp_path, predictions=tmp_path / "split")
    assert ran.closing == "segcal: 4 cases, 4 done (exit 0)"
