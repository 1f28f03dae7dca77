"""`local` and `fine-tune` on the command line: fit, inspect, apply, evaluate, in front of other commands, refusals."""

from __future__ import annotations

import shutil
from dataclasses import dataclass
from pathlib import Path

import nibabel as nib
import numpy as np
import pytest
import torch

from segcal_cli.calibration import patients
from tests.cli.builders import Folders, make_folders, make_scans, segcal, sigmoid, softmax, write_volume

FEATURES = 4

TRAINED = ("--learning-rate", "0.03", "--epochs", "6")
"""Enough for the network to beat T0 where it sees the scans of the study."""


@pytest.fixture(autouse=True)
def _few_resamples(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(patients, "RESAMPLES", 50)


@dataclass(frozen=True)
class Study:
    """Predictions of one model with what made them."""

    folders: Folders
    values: str

    @property
    def root(self) -> Path:
        return self.folders.root

    @property
    def predictions(self) -> Path:
        return self.root / "made"

    @property
    def reading(self) -> list[object]:
        return ["--values", self.values, "--classes", self.folders.classes]

    @property
    def fit(self) -> list[object]:
        return ["calibrate", "fit", self.predictions, self.folders.labels, *self.reading]

    @property
    def tuning(self) -> list[object]:
        return ["--method", "fine-tune", "--features", self.root / "features", "--last-layer", self.root / "layer.npz"]


def make_study(root: Path, classes: int, values: str = "logits", *, activation: str = "softmax") -> Study:
    """Six scans, whose logits a layer makes of features that hold the true ones and noise."""
    folders = make_folders(root, make_scans(6, classes))
    channels = len(folders.scans[0].logits)
    weight = np.concatenate([2.0 * np.eye(channels), 0.3 * np.ones((channels, 1))], axis=1).astype(np.float32)
    bias = np.linspace(-0.5, 0.5, channels).astype(np.float32)
    np.savez(root / "layer.npz", weight=weight, bias=bias)
    (root / "features").mkdir()
    (root / "some").mkdir()
    for number, scan in enumerate(folders.scans):
        rng = np.random.default_rng([7, number])
        f = np.concatenate([scan.logits, rng.normal(size=(1, *scan.logits.shape[1:]))]).astype(np.float32)
        logits = np.tensordot(weight, f, 1) + bias[:, None, None, None]
        p = sigmoid(logits) if channels == 1 else softmax(logits)
        array = logits if values == "logits" else p
        write_volume(root / "made" / f"{scan.name}.nii.gz", array[0] if channels == 1 else array)
        write_volume(root / "images" / f"{scan.name}.nii.gz", f[-1])
        np.savez(root / "features" / f"{scan.name}.npz", features=f)
        at = rng.choice(scan.labels.size, 300, replace=False)
        index = np.stack(np.unravel_index(at, scan.labels.shape), axis=1)
        few = f.reshape(len(f), -1)[:, at].T
        np.savez(root / "some" / f"{scan.name}.npz", features=few, index=index, shape=np.array(scan.labels.shape))
    return Study(folders, values)


@pytest.mark.parametrize("classes", [1, 2, 3])
@pytest.mark.parametrize("values", ["logits", "probabilities"])
def test_fine_tune_fits_is_inspected_applied_and_measured(tmp_path: Path, values: str, classes: int):
    study, made, out = make_study(tmp_path, classes, values), tmp_path / "fitted.npz", tmp_path / "out"
    said = segcal(*study.fit, *study.tuning, "--export-weights", tmp_path / "new.npz", "-o", made, "--json")
    assert said.code == 0, said.stderr
    result = said.document["result"]
    assert result["summary"]["after"]["micro"]["all"]["nll"] < result["summary"]["before"]["micro"]["all"]["nll"]
    assert result["objective"]["gradient"] < 1e-8
    assert (result["family"], result["canonical"], result["optimiser"]) == ("sample", "features", "exact")
    inspected = segcal("inspect", made)
    assert "no map of probabilities" in inspected.stderr + inspected.stdout
    features = ["--features", tmp_path / "features"]
    apply = ["calibrate", "apply", made, study.predictions, *study.reading]
    assert segcal(*apply, *features, "-o", out).code == 0
    layer = np.load(tmp_path / "new.npz")
    f = np.load(tmp_path / "features" / "case_00.npz")["features"]
    logits = torch.from_numpy(np.tensordot(layer["weight"], f, 1) + layer["bias"][:, None, None, None])
    expected = torch.sigmoid(logits)[0] if classes == 1 else torch.softmax(logits, 0).movedim(0, -1)
    array = nib.load(next(out.glob("case_00*probseg.nii.gz"))).get_fdata()
    written = array.transpose(2, 1, 0) if classes == 1 else array.transpose(2, 1, 0, 3)
    np.testing.assert_allclose(written, expected.numpy(), atol=2e-6)
    table = tmp_path / "m.csv"
    measure = ["evaluate", study.predictions, study.folders.labels, *study.reading, "--artifact", made, "-o", table]
    assert segcal(*measure, *features, "--allow-overlap").code == 0
    assert segcal(*measure, "--allow-overlap", "--overwrite").code == 4


def test_features_of_some_voxels_fit_but_do_not_apply(tmp_path: Path):
    study, made = make_study(tmp_path, 3), tmp_path / "fitted.npz"
    tuning = [tmp_path / "some" if one == tmp_path / "features" else one for one in study.tuning]
    said = segcal(*study.fit, *tuning, "-o", made, "--json")
    assert said.code == 0, said.stderr
    assert said.document["result"]["n_voxels"] == 6 * 300
    apply = ["calibrate", "apply", made, study.predictions, *study.reading, "-o", tmp_path / "out"]
    said = segcal(*apply, "--features", tmp_path / "some")
    assert said.code == 4
    assert "features of 300 voxels only" in said.stderr
    assert segcal(*apply, "--features", tmp_path / "features").code == 0
    said = segcal(*apply)
    assert said.code == 4
    assert "--features FOLDER is needed" in said.stderr
    assert "--export-weights" in said.stderr


def test_jobs_and_shards_write_the_same_artifact(tmp_path: Path):
    study = make_study(tmp_path, 3)
    fit = [*study.fit, *study.tuning, "--refine", "0", "--no-summary"]
    assert segcal(*fit, "-o", tmp_path / "one.npz").code == 0
    assert segcal(*fit, "-o", tmp_path / "two.npz", "--jobs", "2").code == 0
    parts = [tmp_path / f"part{i}.npz" for i in (1, 2)]
    for i, part in enumerate(parts, start=1):
        assert segcal(*fit, "-o", part, "--shard", f"{i}/2").code == 0
    assert segcal("merge", *parts, "-o", tmp_path / "three.npz").code == 0
    one = (tmp_path / "one.npz").read_bytes()
    assert one == (tmp_path / "two.npz").read_bytes() == (tmp_path / "three.npz").read_bytes()


@pytest.mark.parametrize("values", ["logits", "probabilities"])
def test_local_writes_its_map_and_keeps_every_decision(tmp_path: Path, values: str):
    study, made, out = make_study(tmp_path, 3, values), tmp_path / "fitted.npz", tmp_path / "out"
    local = ["--method", "local", "--images", tmp_path / "images", "--learning-rate", "0.01", "--epochs", "12"]
    said = segcal(*study.fit, *local, "-o", made, "--json")
    assert said.code == 0, said.stderr
    result = said.document["result"]
    told = result["facts"]["training"]
    assert (result["family"], result["optimiser"], told["left_out"]) == ("network", "adam", 1)
    assert told["epochs"] <= 12
    assert len(told["losses"]) == told["epochs"] + 1
    inspected = segcal("inspect", made)
    shown = inspected.stdout + inspected.stderr
    assert f"training    {told['epochs']} epochs, the best was {told['best']}; NLL " in shown
    assert "(all voxels pooled, on patients left out of training)" in shown
    apply = ["calibrate", "apply", made, study.predictions, *study.reading, "-o", out, "--write", "temperature"]
    if told["kept"]:
        assert segcal(*apply).code == 4
        apply += ["--images", tmp_path / "images"]
    assert segcal(*apply).code == 0
    raw = nib.load(study.predictions / "case_03.nii.gz").get_fdata()
    array = nib.load(out / "case_03_desc-calibrated_probseg.nii.gz").get_fdata()
    np.testing.assert_array_equal(raw.argmax(axis=-1), array.argmax(axis=-1))
    t = nib.load(out / "case_03_desc-temperature_map.nii.gz").get_fdata()
    np.testing.assert_allclose(array, _softmax(np.log(raw) if values == "probabilities" else raw, t), atol=2e-5)


def _softmax(logits: np.ndarray, t: np.ndarray) -> np.ndarray:
    power = np.exp(logits / t[..., np.newaxis])
    return power / power.sum(axis=-1, keepdims=True)


def test_a_local_calibrator_stands_in_front_of_other_commands(tmp_path: Path):
    study, made = make_study(tmp_path, 3), tmp_path / "fitted.npz"
    assert segcal(*study.fit, "--method", "local", "--epochs", "1", "-o", made).code == 0
    converted = ["convert", study.predictions, *study.reading, "--calibrator", made, "-o", tmp_path / "converted"]
    assert segcal(*converted).code == 0
    assert segcal("calibrate", "apply", made, study.predictions, *study.reading, "-o", tmp_path / "out").code == 0
    one = nib.load(next((tmp_path / "converted").glob("case_00*probseg.nii.gz"))).get_fdata()
    other = nib.load(next((tmp_path / "out").glob("case_00*probseg.nii.gz"))).get_fdata()
    np.testing.assert_array_equal(one, other)


def test_a_fine_tuned_calibrator_in_front_of_a_command_without_features_says_what_to_do(tmp_path: Path):
    study, made = make_study(tmp_path, 3), tmp_path / "fitted.npz"
    assert segcal(*study.fit, *study.tuning, "-o", made).code == 0
    said = segcal("convert", study.predictions, *study.reading, "--calibrator", made, "-o", tmp_path / "converted")
    assert said.code == 4
    assert "--features FOLDER is needed (calibrate, evaluate and reliability have it)" in said.stderr
    again = [
        "--calibrator",
        made,
        "--features",
        tmp_path / "features",
        "--allow-overlap",
        "-o",
        tmp_path / "second.npz",
    ]
    assert segcal(*study.fit, *again).code == 0


@pytest.mark.parametrize("method", ["fine-tune", "local"])
def test_reliability_draws_what_looks_at_features_or_scans(tmp_path: Path, method: str):
    study, made = make_study(tmp_path, 3), tmp_path / "fitted.npz"
    scans = ["--images", tmp_path / "images"]
    how = study.tuning if method == "fine-tune" else ["--method", "local", *scans, *TRAINED]
    said = segcal(*study.fit, *how, "-o", made, "--json")
    assert said.code == 0
    assert method == "fine-tune" or said.document["result"]["facts"]["training"]["kept"]
    beside = ["--features", tmp_path / "features"] if method == "fine-tune" else scans
    draw = ["reliability", study.predictions, study.folders.labels, *study.reading, "--allow-overlap"]
    draw += ["--plots", "dataset-diagram", "--format", "svg", "--bootstrap", "0"]
    for number, how in enumerate((["--artifact", f"it={made}"], ["--calibrator", made])):
        out = tmp_path / f"pictures{number}"
        lacking = segcal(*draw, *how, "-o", out)
        assert lacking.code == 4
        assert f"{beside[0]} FOLDER is needed" in lacking.stderr
        assert not out.exists()
        said = segcal(*draw, *how, *beside, "-o", out, "--json")
        assert said.code == 0, said.stderr
        assert (out / "report.html").is_file()
        named = [source["name"] for source in said.document["result"]["sources"]]
        assert named == (["raw", "it"] if number == 0 else ["raw"])


@pytest.mark.parametrize(("options", "text"), [
    (["--features", "features"], "--features is for --method fine-tune, and there is none here"),
    (["--images", "images"], "--images is of conformal-sets or local calibrate artifacts, and none is given"),
    (["--device", "cuda"], "without a calibrator of method auxiliary, local or fine-tune runs on the CPU only"),
])  # fmt: skip
def test_reliability_refuses_what_no_artifact_looks_at(tmp_path: Path, options: list[str], text: str):
    study, made = make_study(tmp_path, 3), tmp_path / "t.npz"
    assert segcal(*study.fit, "-o", made).code == 0
    draw = ["reliability", study.predictions, study.folders.labels, *study.reading, "--artifact", made]
    given = [tmp_path / one if one in ("features", "images") else one for one in options]
    said = segcal(*draw, *given, "--allow-overlap", "-o", tmp_path / "pictures")
    assert said.code == 2
    assert text in said.stderr
    assert not (tmp_path / "pictures").exists()


def test_shards_of_a_network_are_refused(tmp_path: Path):
    study = make_study(tmp_path, 3)
    said = segcal(*study.fit, "--method", "local", "--shard", "1/2", "-o", tmp_path / "a.npz")
    assert said.code == 2
    assert "--method local does not go with --shard: its training needs all cases" in said.stderr
    export = ["--export-weights", tmp_path / "new.npz", "--shard", "1/2", "-o", tmp_path / "a.npz"]
    said = segcal(*study.fit, *study.tuning, *export)
    assert said.code == 2
    assert "--export-weights does not go with --shard" in said.stderr


@pytest.mark.parametrize(("options", "code", "message"), [
    (["--method", "platt", "--last-layer", "LAYER"], 2, "--last-layer is for --method fine-tune"),
    (["--method", "platt", "--features", "FEATURES"], 2, "--features is for --method fine-tune"),
    (["--method", "platt", "--images", "IMAGES"], 2, "--images is for --method local"),
    (["--method", "fine-tune"], 2, "--features FOLDER is needed: fine-tune is fitted on"),
    (["--method", "fine-tune", "--features", "FEATURES"], 2, "--last-layer FILE is needed"),
    (["--method", "fine-tune", "--features", "IMAGES", "--last-layer", "LAYER"], 4, "case_00: no features"),
    (["--method", "local", "--images", "FEATURES"], 4, "case_00"),
    (["--method", "local", "--epochs", "0"], 2, "--epochs 0: it is 1 or more"),
    (["--method", "local", "--voxels", "5"], 2, "--voxels 5: it is for --method"),
    (["--method", "platt", "--device", "cuda"], 2, "--device cuda: method platt runs on the CPU only"),
])  # fmt: skip
def test_refusals(tmp_path: Path, options: list[str], code: int, message: str):
    study = make_study(tmp_path, 3)
    places = {"LAYER": tmp_path / "layer.npz", "FEATURES": tmp_path / "features", "IMAGES": tmp_path / "images"}
    said = segcal(*study.fit, *(places.get(one, one) for one in options), "-o", tmp_path / "a.npz")
    assert said.code == code
    assert message in said.stderr
    assert not (tmp_path / "a.npz").exists()


def test_features_are_those_of_one_model_and_not_of_calibrated_predictions(tmp_path: Path):
    study, made = make_study(tmp_path, 3), tmp_path / "t.npz"
    other = shutil.copytree(study.predictions, tmp_path / "other")
    said = segcal(*study.fit, *study.tuning, "--member", other, "-o", tmp_path / "a.npz")
    assert said.code == 2
    assert "--features are those of one model: they do not go with --member" in said.stderr
    assert segcal(*study.fit, "-o", made).code == 0
    said = segcal(*study.fit, *study.tuning, "--calibrator", made, "--allow-overlap", "-o", tmp_path / "a.npz")
    assert said.code == 2
    assert "they do not go with --calibrator" in said.stderr


def test_another_layer_is_told(tmp_path: Path):
    study = make_study(tmp_path, 3)
    layer = dict(np.load(tmp_path / "layer.npz"))
    np.savez(tmp_path / "layer.npz", weight=layer["weight"] * 1.1, bias=layer["bias"])
    said = segcal(*study.fit, *study.tuning, "-o", tmp_path / "a.npz")
    assert said.code == 4
    assert "features and last layer are not of one model" in said.stderr


@pytest.mark.skipif(torch.cuda.is_available(), reason="there is one here")
def test_a_gpu_that_is_not_there_is_refused(tmp_path: Path):
    study = make_study(tmp_path, 3)
    said = segcal(*study.fit, "--method", "auxiliary", "--device", "cuda", "-o", tmp_path / "a.npz")
    assert said.code == 2
    assert "--device cuda: torch finds no CUDA GPU here" in said.stderr


@pytest.mark.gpu
def test_a_gpu_changes_no_number_that_is_shown(tmp_path: Path):
    study = make_study(tmp_path, 3)
    for device in ("cpu", "cuda"):
        made = [*study.fit, *study.tuning, "--device", device, "-o", tmp_path / f"{device}.npz"]
        assert segcal(*made).code == 0
        out = ["--features", tmp_path / "features", "--device", device, "-o", tmp_path / device]
        assert segcal("calibrate", "apply", tmp_path / "cpu.npz", study.predictions, *study.reading, *out).code == 0
    arrays = [nib.load(next((tmp_path / d).glob("case_00*.nii.gz"))).get_fdata() for d in ("cpu", "cuda")]
    np.testing.assert_allclose(arrays[0], arrays[1], atol=1e-6)


@pytest.mark.parametrize("method", ["auxiliary", "local", "temperature"])
def test_apply_warns_of_other_voxels_where_neighbours_count(tmp_path: Path, method: str):
    study, made = make_study(tmp_path, 3), tmp_path / "fitted.npz"
    extra = ["--epochs", "1"] if method == "local" else []
    assert segcal(*study.fit, "--method", method, *extra, "-o", made).code == 0
    for scale, told in ((1.19, False), (1.25, True)):
        affine = np.diag([0.8, 1.1 * scale, 2.5, 1.0])
        folder = tmp_path / f"scans{told}"
        for scan in study.folders.scans[:1]:
            write_volume(folder / f"{scan.name}.nii.gz", scan.logits, affine)
        said = segcal("calibrate", "apply", made, folder, *study.reading, "-o", tmp_path / f"out{told}")
        assert said.code == 0
        warned = "it looks at neighbours and counts voxels, not millimetres" in said.stderr
        assert warned == (told and method != "temperature")
        if warned:
            assert "voxels of 0.8 x 1.38 x 2.5 mm, the calibrator was fitted on 0.8 x 1.1 x 2.5 mm" in said.stderr


def test_a_map_of_temperatures_needs_a_local_artifact(tmp_path: Path):
    study, made = make_study(tmp_path, 3), tmp_path / "fitted.npz"
    assert segcal(*study.fit, "-o", made).code == 0
    apply = ["calibrate", "apply", made, study.predictions, *study.reading, "-o", tmp_path / "out"]
    said = segcal(*apply, "--write", "temperature")
    assert said.code == 2
    assert "--write temperature needs an artifact of --method local" in said.stderr
    assert "temperature" in segcal(*apply, "--write", "colour").stderr


@pytest.mark.parametrize("lost", ["the artifact", "the old layer", "the class table"])
def test_no_output_takes_the_place_of_another_or_of_what_is_read(tmp_path: Path, lost: str):
    study = make_study(tmp_path, 3)
    artifact, layer, classes = tmp_path / "tuned.npz", tmp_path / "layer.npz", study.folders.classes
    export = {"the artifact": artifact, "the old layer": layer, "the class table": tmp_path / "x.npz"}[lost]
    output = classes if lost == "the class table" else artifact
    before = (layer.read_bytes(), classes.read_bytes())
    said = segcal(*study.fit, *study.tuning, "--export-weights", export, "-o", output, "--overwrite")
    told = {
        "the artifact": "tuned.npz is asked for twice as an output",
        "the old layer": "layer.npz is read by this run (--last-layer) and would be overwritten; name another output",
        "the class table": "is read by this run (--classes) and would be overwritten; name another output",
    }
    assert said.code == 2
    assert told[lost] in said.closing
    assert (layer.read_bytes(), classes.read_bytes()) == before
    assert not artifact.exists()
