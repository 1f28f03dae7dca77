"""A case is done again exactly when its inputs, the artifact, an option or segcal changed, or an output was touched."""

from __future__ import annotations

import json
import os
import shutil
from pathlib import Path

import numpy as np
import pytest

from segcal_cli.io.seals import sealed
from segcal_cli.workflows import run_settings
from tests.cli.builders_reading import CLASSES, Study, nnunet_study, segcal, tree, write_npz
from tests.cli.builders_runs import record_of, states, without_times


@pytest.fixture(scope="module")
def fitted(tmp_path_factory) -> Study:
    study = nnunet_study(tmp_path_factory.mktemp("fitted"))
    assert segcal("calibrate", "fit", *study.both, "-o", study.root / "t.npz").code == 0
    assert segcal("calibrate", "fit", *study.both, "-o", study.root / "u.npz", "--method", "vector").code == 0
    return study


@pytest.fixture
def study(fitted, tmp_path) -> Study:
    """Predictions and artifacts to change at will, done once."""
    shutil.copytree(fitted.root, tmp_path / "study")
    study = Study(tmp_path / "study")
    assert apply(study).code == 0
    return study


def apply(study: Study, *options: object, artifact: str = "t.npz", out: str = "out"):
    command = ["calibrate", "apply", study.root / artifact, study.predictions, "-o", study.root / out]
    return segcal(*command, "--skip-existing", *options)


def done(study: Study) -> list[str]:
    return [case for case, state in states(study.root / "out").items() if state == "done"]


def test_nothing_changed_nothing_is_done(study):
    before = {path: path.stat().st_mtime_ns for path in (study.root / "out").glob("*.nii.gz")}
    ran = apply(study)
    assert ran.closing == "segcal: 4 cases, 0 done, 4 skipped (exit 0)"
    assert set(states(study.root / "out").values()) == {"skipped"}
    assert {path: path.stat().st_mtime_ns for path in before} == before


def test_quiet_says_nothing_where_all_is_up_to_date(study):
    assert apply(study, "-q").err == ""


def test_a_touched_input_is_skipped_and_not_hashed_a_second_time(study, monkeypatch):
    path = study.predictions / "case-2.npz"
    os.utime(path, ns=(1, 1))
    assert apply(study).closing.endswith("0 done, 4 skipped (exit 0)")
    monkeypatch.setattr("segcal_cli.io.fingerprints.sha256", lambda path: pytest.fail(f"hashed {path}"))
    assert apply(study).closing.endswith("0 done, 4 skipped (exit 0)")


def test_verify_hashes_every_input(study, monkeypatch):
    from segcal_cli.io import fingerprints

    hashed = []
    real = fingerprints.sha256
    monkeypatch.setattr(fingerprints, "sha256", lambda path: hashed.append(path.name) or real(path))
    assert apply(study, "--verify").closing.endswith("0 done, 4 skipped (exit 0)")
    assert sorted(set(hashed)) == sorted(
        ["dataset.json", "plans.json", *(f"{case}{end}" for case in study.cases for end in (".npz", ".nii.gz"))]
    )


def test_a_byte_behind_the_same_size_and_mtime_is_seen(study):
    """ctime cannot be set back."""
    path = study.predictions / "case-2.npz"
    status = path.stat()
    data = bytearray(path.read_bytes())
    data[-10] ^= 1
    path.write_bytes(data)
    os.utime(path, ns=(status.st_atime_ns, status.st_mtime_ns))
    apply(study)
    # The flipped byte is in the directory of the zip file, so the case fails; it was looked at, and that is the point.
    assert states(study.root / "out")["case-2"] in ("done", "failed")
    assert sorted(states(study.root / "out").values())[1:] == ["skipped"] * 3


def test_a_changed_prediction_is_done_again_alone(study):
    path = study.predictions / "case-2.npz"
    p = np.load(path)["probabilities"]
    write_npz(path, probabilities=(0.9 * p + 0.1 / 3).astype(np.float32))
    assert apply(study, "--no-prove").code == 0
    # Whether it is proved is an option, and changes what the record says.
    assert len(done(study)) == 4
    write_npz(path, probabilities=p)
    assert apply(study, "--no-prove").code == 0
    assert done(study) == ["case-2"]


def test_another_segmentation_beside_a_prediction_is_another_input(study):
    shutil.copy(study.predictions / "case-2.nii.gz", study.root / "kept.nii.gz")
    shutil.copy(study.predictions / "case-1.nii.gz", study.predictions / "case-2.nii.gz")
    assert apply(study).code == 8
    assert states(study.root / "out")["case-2"] == "failed"
    shutil.copy(study.root / "kept.nii.gz", study.predictions / "case-2.nii.gz")
    assert apply(study).code == 0
    assert done(study) == ["case-2"]


def test_another_artifact_redoes_all(study):
    assert apply(study, artifact="u.npz").code == 0
    assert len(done(study)) == 4
    assert record_of(study.root / "out")["artifact"]["file"] == "u.npz"


def test_an_artifact_of_another_name_with_the_same_bytes_is_the_same(study):
    shutil.copy(study.root / "t.npz", study.root / "copy.npz")
    apply(study, artifact="copy.npz")
    assert done(study) == []


def test_an_option_that_changes_outputs_redoes_all(study):
    assert apply(study, "--segmentation", "keep").code == 0
    assert len(done(study)) == 4


@pytest.mark.parametrize("options", [["-j", 2], ["-v"], ["--on-failure", "stop"], ["--min-age", 0]])
def test_an_option_that_changes_no_output_redoes_nothing(study, options):
    assert apply(study, *options).code == 0
    assert done(study) == []


def test_another_version_of_segcal_redoes_all(study, monkeypatch):
    monkeypatch.setattr(run_settings, "__version__", "99.0.0")
    apply(study)
    assert len(done(study)) == 4


def test_a_deleted_output_is_made_again_alone(study):
    (study.root / "out" / "case-3_desc-calibrated_probseg.nii.gz").unlink()
    apply(study)
    assert done(study) == ["case-3"]


def test_an_edited_output_is_made_again_alone(study):
    path = study.root / "out" / "case-3_desc-calibrated_probseg.json"
    before = tree(study.root / "out")
    path.write_text("{}")
    apply(study)
    assert done(study) == ["case-3"]
    assert tree(study.root / "out") == before


def test_an_output_that_was_only_touched_is_left(study):
    os.utime(study.root / "out" / "case-3_desc-calibrated_probseg.nii.gz", ns=(1, 1))
    apply(study)
    assert done(study) == []


def test_a_link_in_place_of_an_output_is_replaced(study):
    path = study.root / "out" / "case-3_desc-calibrated_probseg.nii.gz"
    path.rename(study.root / "moved.nii.gz")
    path.symlink_to(study.root / "moved.nii.gz")
    apply(study)
    assert done(study) == ["case-3"]
    assert not path.is_symlink()


def test_a_new_case_is_done_alone(study):
    more = nnunet_study(study.root / "more", ("x", "case-5"))
    for end in (".npz", ".nii.gz"):
        shutil.copy(more.predictions / f"case-5{end}", study.predictions)
    assert apply(study).closing == "segcal: 5 cases, 1 done, 4 skipped (exit 0)"
    assert done(study) == ["case-5"]


@pytest.mark.parametrize("name", ["dataset.json", "plans.json"])
def test_another_file_of_the_model_redoes_all(study, name):
    path = study.predictions / name
    path.write_text(json.dumps({**json.loads(path.read_text()), "note": 1}))
    apply(study)
    assert len(done(study)) == 4


def test_another_class_table_redoes_all(study):
    table = study.root / "classes.json"
    table.write_text(json.dumps({name: value for value, name in enumerate(CLASSES)}))
    assert apply(study, "--classes", table).code == 0
    assert len(done(study)) == 4
    assert apply(study, "--classes", table).code == 0
    assert done(study) == []


def test_a_case_whose_input_is_gone_is_kept_and_counted(study):
    for end in (".npz", ".nii.gz"):
        (study.predictions / f"case-1{end}").unlink()
    ran = apply(study, "--json")
    assert ran.document["counts"] == {
        "cases": 3, "done": 0, "skipped": 3, "failed": 0, "waiting": 0, "not_run": 0, "kept": 1,
    }  # fmt: skip
    assert states(study.root / "out")["case-1"] == "kept"
    assert (study.root / "out" / "case-1_desc-calibrated_probseg.nii.gz").is_file()


def test_a_kept_case_that_comes_back_is_up_to_date(study):
    for end in (".npz", ".nii.gz"):
        (study.predictions / f"case-1{end}").rename(study.root / f"case-1{end}")
    apply(study)
    for end in (".npz", ".nii.gz"):
        (study.root / f"case-1{end}").rename(study.predictions / f"case-1{end}")
    apply(study)
    assert done(study) == []


def test_a_failed_case_is_tried_again_and_its_old_output_is_no_excuse(study):
    path = study.predictions / "case-2.npz"
    good = path.read_bytes()
    path.write_bytes(good[:100])
    assert apply(study).closing == "segcal: 4 cases, 0 done, 3 skipped, 1 failed: case-2 (exit 8)"
    assert apply(study).code == 8
    path.write_bytes(good)
    assert apply(study).closing == "segcal: 4 cases, 1 done, 3 skipped (exit 0)"


def test_outputs_that_no_record_knows_are_made_again(study):
    (study.root / "out" / "segcal-run.json").unlink()
    apply(study)
    assert len(done(study)) == 4


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("{", "segcal-run.json is damaged: every case is done again"),
        ("[]", "segcal-run.json is damaged: every case is done again"),
        ('{"schema": "segcal/run/1"}', "segcal-run.json is damaged: every case is done again"),
        ('{"schema": "other/1", "cases": []}', "segcal-run.json is damaged: every case is done again"),
        (
            '{"schema": "segcal/run/2", "cases": []}',
            "segcal-run.json is of a newer segcal (segcal/run/2): every case is done again",
        ),
    ],
)
def test_a_record_that_is_not_understood_is_a_warning(study, text, words):
    (study.root / "out" / "segcal-run.json").write_text(text)
    ran = apply(study)
    assert ran.code == 0
    assert f"warning: {words}" in ran.err.splitlines()
    assert len(done(study)) == 4


@pytest.mark.parametrize("change", [{"key": None}, {"result": {}}, {"status": "skipped"}, {"error": "x"}])
def test_a_record_that_somebody_edited_is_damaged_as_a_whole(change, study):
    document = record_of(study.root / "out")
    document["cases"][1] |= change
    (study.root / "out" / "segcal-run.json").write_text(json.dumps(document))
    ran = apply(study)
    assert "warning: segcal-run.json is damaged: every case is done again" in ran.err.splitlines()
    assert len(done(study)) == 4


def test_an_entry_that_somebody_forged_is_done_again_alone(study):
    document = record_of(study.root / "out")
    document["cases"][0]["outputs"][0]["file"] = "../t.npz"
    document["cases"][1]["inputs"] = None
    (study.root / "out" / "segcal-run.json").write_text(json.dumps(sealed(document)))
    apply(study)
    assert done(study) == ["case-1", "case-2"]


def test_a_second_run_over_nothing_new_leaves_the_same_record_but_times(study):
    apply(study)
    first = without_times(record_of(study.root / "out"))
    apply(study)
    assert without_times(record_of(study.root / "out")) == first


def test_overwrite_does_every_case_again(study):
    command = ["calibrate", "apply", study.root / "t.npz", study.predictions, "-o", study.root / "out", "--overwrite"]
    assert segcal(*command).closing == "segcal: 4 cases, 4 done (exit 0)"


def test_outputs_that_exist_are_refused_without_either(study):
    command = ["calibrate", "apply", study.root / "t.npz", study.predictions, "-o", study.root / "out"]
    ran = segcal(*command)
    assert ran.code == 2
    assert "case-1_desc-calibrated_probseg.nii.gz exists" in ran.closing
    assert ran.closing.endswith("give --overwrite (exit 2)")


def test_convert_skips_too(study):
    command = ["convert", study.predictions, "-o", study.root / "converted", "--skip-existing"]
    assert segcal(*command).closing == "segcal: 4 cases, 4 done (exit 0)"
    assert segcal(*command).closing == "segcal: 4 cases, 0 done, 4 skipped (exit 0)"
    assert segcal(*command, "--calibrator", study.root / "t.npz").closing == "segcal: 4 cases, 4 done (exit 0)"


def test_the_document_of_a_skipped_case_is_that_of_the_done_one(study, tmp_path: Path):
    first = apply(study, "--json", out="again").document["result"]["cases"]
    second = apply(study, "--json", out="again").document["result"]["cases"]
    assert [case.pop("status") for case in second] == ["skipped"] * 4
    assert [case.pop("status") for case in first] == ["done"] * 4
    assert first == second
