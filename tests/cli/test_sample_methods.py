"""Every method on the sample scans: fit, inspect, apply, evaluate, in logits and probabilities, classes and regions."""

from __future__ import annotations

import json
import re
from dataclasses import dataclass
from pathlib import Path

import nibabel as nib
import numpy as np
import pytest

from segcal_cli.calibration import patients
from segcal_cli.calibration.registry import METHODS
from tests.cli.builders import read_rows, segcal, sigmoid, softmax, write_npz, write_volume

SAMPLES = Path(__file__).parents[2] / "sample_data" / "brain"

PARTS = {
    "fit": ("calibration", (1, 2, 4, 5, 6, 8)),
    "new": ("test", (25, 26)),
}
"""Which patients of which folder: all of the first have every class."""

REGIONS = {"whole": [1, 2, 3], "core": [2, 3], "enhancing": 3}

EXTRA = {"local": ("--epochs", "8", "--learning-rate", "0.01"), "auxiliary": ("--refine", "12")}

USUAL = {
    ("temperature", "classes", "logits"),
    ("platt", "regions", "probabilities"),
    ("fine-tune", "classes", "probabilities"),
    ("local", "regions", "logits"),
}
"""One of each family; the other combinations are slow tests."""

JOINT = ("temperature", "vector", "matrix", "dirichlet", "auxiliary", "fine-tune", "local")
"""Methods that calibrate all exclusive classes inside one softmax; others take one class against the rest."""


@pytest.fixture(autouse=True)
def _few_resamples(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(patients, "RESAMPLES", 20)


@dataclass(frozen=True, slots=True)
class Study:
    """Sample scans as one kind of prediction of one kind of classes."""

    root: Path
    kind: str
    values: str

    def folder(self, part: str, name: str) -> Path:
        return self.root / part / name

    @property
    def reading(self) -> list[object]:
        activation = ["--activation", "sigmoid"] if self.kind == "regions" else []
        return ["--classes", self.root / "classes.json", "--values", self.values, *activation]

    def beside(self, method: str, part: str) -> list[object]:
        """What the method sees besides predictions."""
        options = {"ensemble": "--member", "fine-tune": "--features", "local": "--images"}
        folders = {"ensemble": "member", "fine-tune": "features", "local": "images"}
        return [options[method], self.folder(part, folders[method])] if method in options else []


def region_logits(logits: np.ndarray) -> np.ndarray:
    """float32 log-odds of the nested regions, of logits "class z y x" of the classes that they are made of."""
    wide = logits.astype(np.float64)
    inside = [np.logaddexp.reduce(wide[list(classes)], axis=0) for classes in ((1, 2, 3), (2, 3), (3,))]
    outside = [np.logaddexp.reduce(wide[list(classes)], axis=0) for classes in ((0,), (0, 1), (0, 1, 2))]
    return np.stack([a - b for a, b in zip(inside, outside, strict=True)]).astype(np.float32)


@pytest.fixture(scope="module")
def studies(tmp_path_factory: pytest.TempPathFactory) -> dict[tuple[str, str], Study]:
    """Kind and values -> the study. Features are the logits and the scan, so that the last layer is known."""
    made = {}
    for kind in ("classes", "regions"):
        for values in ("logits", "probabilities"):
            study = Study(tmp_path_factory.mktemp(f"{kind}_{values}"), kind, values)
            table = json.loads((SAMPLES / "dataset.json").read_text())["labels"] if kind == "classes" else REGIONS
            (study.root / "classes.json").write_text(json.dumps(table))
            for part, (folder, numbers) in PARTS.items():
                for number in numbers:
                    write_case(study, part, SAMPLES / folder, f"patient_{number:03d}")
            channels = len(table)
            weight = np.eye(channels, channels + 1, dtype=np.float32)
            write_npz(study.root / "layer.npz", weight=weight, bias=np.zeros(channels, np.float32))
            made[kind, values] = study
    return made


def write_case(study: Study, part: str, source: Path, case: str) -> None:
    image, label, prediction = (nib.load(source / f / f"{case}.nii.gz") for f in ("images", "labels", "predictions"))
    logits = np.asarray(prediction.dataobj, dtype=np.float32).transpose(3, 2, 1, 0)
    rng = np.random.default_rng(int(case[-3:]))
    other = (0.9 * logits + rng.normal(size=logits.shape)).astype(np.float32)
    affine = prediction.affine
    scan = np.asarray(image.dataobj, dtype=np.float32).T
    if study.kind == "regions":
        logits, other = region_logits(logits), region_logits(other)
    for folder, array in (("predictions", logits), ("member", other)):
        if study.values == "probabilities":
            array = softmax(array) if study.kind == "classes" else sigmoid(array)
        write_volume(study.folder(part, folder) / f"{case}.nii.gz", array, affine)
    write_volume(study.folder(part, "labels") / f"{case}.nii.gz", np.asarray(label.dataobj).astype(np.uint8).T, affine)
    write_volume(study.folder(part, "images") / f"{case}.nii.gz", scan, affine)
    features = np.concatenate([logits, scan[np.newaxis] / np.float32(255)])
    write_npz(study.folder(part, "features") / f"{case}.npz", features=features)


def combinations():
    for method in METHODS:
        for kind in ("classes", "regions"):
            for values in ("logits", "probabilities"):
                marks = () if (method, kind, values) in USUAL else pytest.mark.slow
                yield pytest.param(method, kind, values, marks=marks, id=f"{method}-{kind}-{values}")


@pytest.mark.parametrize(("method", "kind", "values"), list(combinations()))
def test_a_method_goes_from_fit_to_evaluate(studies, tmp_path: Path, method: str, kind: str, values: str):
    study, fitted, out, table = studies[kind, values], tmp_path / "fitted.npz", tmp_path / "out", tmp_path / "m.csv"
    old = {part: [study.folder(part, "predictions"), study.folder(part, "labels")] for part in PARTS}
    layer = ["--last-layer", study.root / "layer.npz"] if method == "fine-tune" else []
    fit = ["calibrate", "fit", *old["fit"], *study.reading, *study.beside(method, "fit"), *layer]
    said = segcal(*fit, "--method", method, *EXTRA.get(method, ()), "--split-kind", "held-out", "-o", fitted, "--json")
    record, problem = METHODS[method], "softmax" if kind == "classes" else "sigmoid"
    if problem not in record.families or record.only not in (None, values):
        assert said.code == 2
        assert f"--method {method} does not fit" in said.closing
        assert not fitted.exists()
        return
    assert said.code == 0, said.stderr
    result = said.document["result"]
    check_inspected(segcal("inspect", fitted).stdout, result, study)

    new = ["calibrate", "apply", fitted, old["new"][0], *study.reading, *study.beside(method, "new"), "-o", out]
    assert segcal(*new).code == 0
    for number in PARTS["new"][1]:
        name = f"patient_{number:03d}"
        check_written(
            nib.load(study.folder("new", "predictions") / f"{name}.nii.gz").get_fdata(),
            nib.load(out / f"{name}_desc-calibrated_probseg.nii.gz").get_fdata(),
            study,
            keeps=record.keeps_decisions and method != "ensemble",
        )

    again = ["evaluate", *old["fit"], *study.reading, *study.beside(method, "fit"), "--artifact", f"it={fitted}"]
    refused = segcal(*again, "-o", table)
    assert refused.code == 4
    assert "6 cases were used to fit" in refused.stderr
    said = segcal(*again, "--allow-overlap", "--bootstrap", "0", "-o", table, "--json")
    assert said.code == 0, said.stderr
    assert {row["source"] for row in read_rows(table)} == {"raw", "it†"}
    pooled = {one["name"]: one["micro"]["all"] for one in said.document["result"]["sources"]}
    check_measured(pooled, result, study, method)


def check_inspected(text: str, result: dict, study: Study) -> None:
    """What was fitted, on what, to which optimum; the map of every class from 0 to 1 in eleven lines."""
    lines, method, objective = text.splitlines(), result["method"], result["objective"]
    assert f"kind        calibrate, method {method}" in lines
    values = "probabilities" if method == "ensemble" else study.values  # members are joined as probabilities
    assert f"fitted on   6 cases of 6 patients, {values}" in lines
    optimum = next(line for line in lines if line.startswith("optimum     "))
    told = re.fullmatch(
        r"optimum     NLL (\S+) -> (\S+) on the fitted voxels; largest gradient (\S+) after .*", optimum
    )
    assert [float(one) for one in told.groups()] == pytest.approx(
        [objective["nll_before"], objective["nll_after"], objective["gradient"]], rel=0.05
    )
    for name, change in result["dice"].items():
        moved = [line for line in lines if line.startswith(f"decision    {name}: ")]
        assert len(moved) == int(not METHODS[method].keeps_decisions)
        for line in moved:
            shown = re.search(r"Dice (\S+) -> (\S+) where the decision is taken anew", line)
            assert [float(one) for one in shown.groups()] == pytest.approx([*change.values()], abs=1e-3)
    if method == "fine-tune":
        assert "no map of probabilities" in text
        return
    for name in result["threshold"]:
        headings = (i for i, line in enumerate(lines) if line.endswith(": raw p -> calibrated p"))
        at = next(i for i in headings if name in lines[i].removesuffix(": raw p -> calibrated p").split(", "))
        shown = [float(re.fullmatch(r"  \S+ -> (\S+)(?: #*)?", line)[1]) for line in lines[at + 1 : at + 12]]
        assert len(shown) == 11
        assert all(0.0 <= one <= 1.0 for one in shown)
        assert shown == sorted(shown) or not METHODS[method].keeps_decisions


def check_written(raw: np.ndarray, array: np.ndarray, study: Study, *, keeps: bool) -> None:
    """Probabilities of exclusive classes sum to 1, those of regions nest, and decisions stay where that is promised."""
    assert raw.shape == array.shape
    assert 0.0 <= array.min() <= array.max() <= 1.0
    if study.kind == "classes":
        np.testing.assert_allclose(array.sum(axis=-1), 1.0, atol=1e-6)
        same = raw.argmax(axis=-1) == array.argmax(axis=-1)
    else:
        assert (array[..., 1:] <= array[..., :-1]).all()
        same = (raw > (0.0 if study.values == "logits" else 0.5)) == (array > 0.5)
    assert same.all() or not keeps


def check_measured(pooled: dict, result: dict, study: Study, method: str) -> None:
    """``evaluate`` finds on the fitted cases the likelihood that the fit says it has reached, and lower than raw."""
    key = "joint_nll" if study.kind == "classes" else "nll"
    objective = result["objective"]
    if method == "ensemble":
        assert pooled["it"][key] == pytest.approx(pooled["raw"][key], rel=1e-8)  # nothing is fitted on top
        return
    assert pooled["it"][key] < pooled["raw"][key]
    if study.kind == "classes" and method in JOINT:
        assert pooled["raw"][key] == pytest.approx(objective["nll_before"], rel=1e-6)
        assert pooled["it"][key] == pytest.approx(objective["nll_after"], rel=1e-6)
