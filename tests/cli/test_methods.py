"""Every method on the command line: fit, inspect, apply, evaluate."""

from __future__ import annotations

from pathlib import Path

import nibabel as nib
import numpy as np
import pytest

from segcal_cli.calibration import patients
from segcal_cli.calibration.registry import METHODS
from tests.cli.builders import Folders, make_folders, make_scans, segcal, write_volume

EXTRA = {"histogram": ["--histogram-bins", "5"], "local": ["--epochs", "2"]}

ALONE = [name for name, record in METHODS.items() if not record.beside]
"""Methods that need predictions only; ``test_nets.py`` has the others."""


@pytest.fixture(autouse=True)
def _few_resamples(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(patients, "RESAMPLES", 50)


def with_logits(root: Path, classes: int) -> Folders:
    folders = make_folders(root, make_scans(6, classes))
    for scan in folders.scans:
        array = scan.logits * 2.0
        write_volume(folders.root / "logits" / f"{scan.name}.nii.gz", array[0] if len(array) == 1 else array)
    return folders


@pytest.mark.parametrize("classes", [1, 2, 3])
@pytest.mark.parametrize("values", ["logits", "probabilities"])
@pytest.mark.parametrize("method", ALONE)
def test_fit_inspect_apply_evaluate(tmp_path: Path, method: str, values: str, classes: int):
    folders = with_logits(tmp_path, classes)
    predictions = folders.predictions if values == "probabilities" else tmp_path / "logits"
    reading = ["--values", values, "--classes", folders.classes]
    fitted, table, out = tmp_path / "fitted.npz", tmp_path / "m.csv", tmp_path / "out"
    fit = [predictions, folders.labels, *reading, "--method", method, *EXTRA.get(method, [])]
    said = segcal("calibrate", "fit", *fit, "-o", fitted, "--json")
    kind = "softmax" if classes == 3 else "binary"
    if kind not in METHODS[method].families or (values, method) == ("probabilities", "matrix"):
        assert said.code == 2
        assert f"--method {method} does not fit" in said.stderr
        return
    assert said.code == 0
    before = said.document["result"]["summary"]["before"]["micro"]["all"]["nll"]
    assert segcal("inspect", fitted).code == 0
    assert segcal("calibrate", "apply", fitted, predictions, *reading, "-o", out).code == 0
    array = nib.load(sorted(out.glob("case_00*probseg.nii.gz"))[0]).get_fdata()
    assert 0.0 <= array.min() <= array.max() <= 1.0
    if classes > 1:
        np.testing.assert_allclose(array.sum(axis=-1), 1.0, atol=1e-6)
    measure = ["evaluate", predictions, folders.labels, *reading, "--artifact", fitted, "-o", table]
    assert segcal(*measure).code == 4
    assert segcal(*measure, "--allow-overlap").code == 0
    assert before > 0.0
