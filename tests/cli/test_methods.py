"""Every method on the command line: fit, inspect, apply, evaluate."""

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
from tests.cli.builders import AFFINE, make_scans, read_rows, segcal, softmax, write_volume

EXTRA = {"histogram": ["--histogram-bins", "5"], "local": ["--epochs", "2"]}

ALONE = [name for name, record in METHODS.items() if not record.beside]
"""Methods that need predictions only; ``test_nets.py`` has the others."""

KINDS = ("one", "two", "three", "regions")
"""One channel; two exclusive classes; three; nested regions."""

USUAL = {("logits", "three"), ("probabilities", "regions")}
"""What every method is tried on by default; the other combinations are slow tests."""

PROBLEMS = {"one": "binary", "two": "binary", "three": "softmax", "regions": "sigmoid"}


@pytest.fixture(autouse=True)
def _few_resamples(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(patients, "RESAMPLES", 50)


@dataclass(frozen=True, slots=True)
class Study:
    """Six cases to fit on and two others. reading: what the folders need to be read. member: a second model's."""

    root: Path
    reading: tuple[str, ...]

    def folders(self, part: str) -> list[str]:
        return [str(self.root / part / kind) for kind in ("predictions", "labels")]

    def member(self, part: str) -> str:
        return str(self.root / part / "member")


def study_of(root: Path, kind: str, values: str) -> Study:
    count = {"one": 1, "two": 2, "three": 3, "regions": 3}[kind]
    rng = np.random.default_rng(9)
    for number, scan in enumerate(make_scans(8, count)):
        part = root / ("fit" if number < 6 else "new")
        for folder, noise in (("predictions", 0.0), ("member", 0.5)):
            logits = 2.0 * (scan.logits + noise * rng.normal(size=scan.logits.shape)).astype(np.float32)
            if kind == "regions":  # whole holds core: the odds of classes 1 and 2 together, and of 2
                wide = logits.astype(np.float64)
                whole = np.logaddexp(wide[1], wide[2]) - wide[0]
                logits = np.stack([whole, wide[2] - np.logaddexp(wide[0], wide[1])]).astype(np.float32)
            array = logits
            if values == "probabilities":
                array = softmax(logits) if count > 1 and kind != "regions" else 1.0 / (1.0 + np.exp(-logits))
            write_volume(part / folder / f"{scan.name}.nii.gz", array[0] if len(array) == 1 else array, AFFINE)
        write_volume(part / "labels" / f"{scan.name}.nii.gz", scan.labels)
    table: dict = {"one": {"lesion": 1}, "two": {"background": 0, "lesion": 1}}.get(
        kind, {"background": 0, "a": 1, "b": 2} if kind == "three" else {"whole": [1, 2], "core": 2}
    )
    (root / "classes.json").write_text(json.dumps(table))
    activation = ("--activation", "sigmoid") if kind == "regions" else ()
    return Study(root, ("--classes", str(root / "classes.json"), "--values", values, *activation))


def combinations():
    for method in ALONE:
        for kind in KINDS:
            for values in ("logits", "probabilities"):
                marks = () if (values, kind) in USUAL else pytest.mark.slow
                yield pytest.param(method, kind, values, marks=marks, id=f"{method}-{kind}-{values}")


@pytest.mark.parametrize(("method", "kind", "values"), list(combinations()))
def test_fit_inspect_apply_evaluate(tmp_path: Path, method: str, kind: str, values: str):
    study = study_of(tmp_path, kind, values)
    fitted, table, out = tmp_path / "fitted.npz", tmp_path / "m.csv", tmp_path / "out"
    members = [["--member", study.member(part)] if method == "ensemble" else [] for part in ("fit", "new")]
    fit = [*study.folders("fit"), *study.reading, *members[0], "--method", method, *EXTRA.get(method, [])]
    said = segcal("calibrate", "fit", *fit, "-o", fitted, "--json")
    if PROBLEMS[kind] not in METHODS[method].families or (values, method) == ("probabilities", "matrix"):
        assert said.code == 2
        assert f"--method {method} does not fit" in said.stderr
        return
    assert said.code == 0, said.stderr
    result = said.document["result"]
    check_report(result, said.stderr, segcal("inspect", fitted).stdout)
    read = [study.folders("new")[0], *study.reading, *members[1]]
    assert segcal("calibrate", "apply", fitted, *read, "-o", out).code == 0
    for name in ("case_06", "case_07"):
        label = "_label-lesion" if kind == "one" else ""
        array = nib.load(out / f"{name}{label}_desc-calibrated_probseg.nii.gz").get_fdata()
        assert 0.0 <= array.min() <= array.max() <= 1.0
        if kind in ("two", "three"):
            np.testing.assert_allclose(array.sum(axis=-1), 1.0, atol=1e-6)
        if kind == "regions":
            assert (array[..., 1] <= array[..., 0]).all()
    measure = [
        "evaluate",
        *study.folders("new"),
        *study.reading,
        *members[1],
        "--artifact",
        f"it={fitted}",
        "-o",
        table,
    ]
    assert segcal(*measure).code == 0
    nll = {row["source"]: float(row["nll"]) for row in read_rows(table) if row["class"] == "(all)"}
    # Predictions are too sure by a factor of two; a mean of two members, and few equal bins, need not mend that.
    assert nll["it"] < nll["raw"] or method in ("ensemble", "histogram")
    again = [
        "evaluate",
        *study.folders("fit"),
        *study.reading,
        *members[0],
        "--artifact",
        fitted,
        "-o",
        table,
        "--bootstrap",
        "0",
    ]
    refused = segcal(*again, "--overwrite")
    assert refused.code == 4
    assert "6 cases were used to fit" in refused.stderr
    assert segcal(*again, "--overwrite", "--allow-overlap").code == 0


def check_report(result: dict, fit: str, inspected: str) -> None:
    """Gradient, iterations, NLL before and after, and what a moved decision does to Dice, in all three places."""
    objective = result["objective"]
    assert objective["gradient"] <= 1e-8
    assert objective["iterations"] >= 0
    assert objective["nll_after"] <= objective["nll_before"] + 1e-12 or result["method"] == "histogram"
    line = re.compile(r"NLL \S+ -> \S+ on the fitted voxels; largest gradient \S+ after \d+ steps? and \d+ readings?")
    assert line.search(fit)
    assert line.search(inspected)
    moves = not METHODS[result["method"]].keeps_decisions
    for name, change in result["dice"].items():
        assert change == {
            phase: result["summary"][phase]["micro"]["classes"][name]["dice"] for phase in ("before", "after")
        }
        told = re.compile(rf"{name}: .*Dice \S+ -> \S+ where the decision is taken anew")
        assert (told.search(fit) is not None) == (told.search(inspected) is not None) == moves


def test_a_second_fit_on_top_refuses_the_cases_of_the_first(tmp_path: Path):
    study = study_of(tmp_path, "three", "logits")
    first, second = tmp_path / "first.npz", tmp_path / "second.npz"
    fit = ["calibrate", "fit", *study.folders("fit"), *study.reading]
    assert segcal(*fit, "-o", first).code == 0
    on_top = [*fit, "--calibrator", first, "--method", "platt", "-o", second]
    said = segcal(*on_top)
    assert said.code == 4
    assert "6 cases were used to fit" in said.stderr
    assert not second.exists()
    assert segcal(*on_top, "--allow-overlap").code == 0
    assert segcal("inspect", second, "--json").document["result"]["spec"]["overlap_allowed"] is True
    new = ["calibrate", "fit", *study.folders("new"), *study.reading, "--calibrator", first, "-o", tmp_path / "new.npz"]
    assert segcal(*new).code == 0
