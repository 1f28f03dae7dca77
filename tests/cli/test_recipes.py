"""`calibrate fit --optimiser adam`: the same bytes however cases are dealt, and what a recipe does not have."""

from __future__ import annotations

from pathlib import Path

import pytest

from segcal_cli.calibration import patients
from segcal_cli.calibration.recipes import RECIPES
from tests.cli.builders import segcal
from tests.cli.builders_shards import merged
from tests.cli.test_nets import Study, make_study


@pytest.fixture(autouse=True)
def _few_resamples(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(patients, "RESAMPLES", 20)


def fit(study: Study, method: str) -> list[object]:
    epochs = [] if method == "temperature" else ["--epochs", "3"]
    beside = study.tuning if method == "fine-tune" else ["--method", method]
    return [*study.fit, *beside, "--optimiser", "adam", *epochs, "--folds", "2"]


@pytest.mark.parametrize("method", ["fine-tune", *(pytest.param(m, marks=pytest.mark.slow) for m in RECIPES[:-1])])
def test_jobs_and_shards_write_the_same_bytes(tmp_path: Path, method: str):
    study = make_study(tmp_path, 3)
    for jobs in ("1", "2"):
        said = segcal(*fit(study, method), "-j", jobs, "-o", tmp_path / f"{jobs}.npz")
        assert said.code == 0, said.stderr
    assert (tmp_path / "1.npz").read_bytes() == (tmp_path / "2.npz").read_bytes()
    merged(fit(study, method), 2, tmp_path / "shards", tmp_path / "merged.npz")
    assert (tmp_path / "merged.npz").read_bytes() == (tmp_path / "1.npz").read_bytes()


@pytest.mark.parametrize("method", RECIPES)
def test_the_artifact_says_that_it_is_a_reproduction(tmp_path: Path, method: str):
    study = make_study(tmp_path, 3)
    said = segcal(*fit(study, method), "-o", tmp_path / "a.npz", "--json")
    assert said.document["result"]["optimiser"] == "adam"
    told = "reproduction of a published recipe (Adam): it ends above the optimum, which --optimiser exact finds"
    assert f"note: {told}" in said.stderr
    assert told in segcal("inspect", tmp_path / "a.npz").stdout
