"""Cases: all headers first, every problem collected; then one case at a time, with what reading it showed."""

from __future__ import annotations

import pickle
from pathlib import Path

import numpy as np
import pytest

from segcal_cli.core.volume import Volume
from segcal_cli.io.case_sources import CaseReader, MixedInputs, checksum_of, digest_of, open_cases
from segcal_cli.io.classes import read_classes
from segcal_cli.io.pairing import pair
from segcal_cli.io.predictions import ReadingRules, ValuesNeeded
from segcal_cli.io.truth import TruthRules
from tests.cli.builders_reading import (
    AFFINE,
    SHAPE,
    Study,
    logits_of,
    nifti_study,
    nnunet_study,
    png_study,
    softmax_of,
    write_npz,
)
from tests.io.builders_nifti import save

LOGITS = ReadingRules(values="logits")
AS_TOLD = ReadingRules()


def opened(study: Study, rules: ReadingRules = AS_TOLD, *, labelled: bool = True):
    table = read_classes(study.classes if study.classes.exists() else study.predictions / "dataset.json")
    pairing = pair(study.predictions, study.labels if labelled else None, space=table)
    return open_cases(pairing.cases, table, rules, TruthRules() if labelled else None)


def test_every_problem_of_every_header_is_collected(tmp_path):
    study = nnunet_study(tmp_path)
    (study.predictions / "case-1.npz").write_bytes(b"")
    (study.labels / "case-3.nii.gz").write_bytes(b"")
    found = opened(study)
    assert [problem.case for problem in found.problems] == ["case-1", "case-3"]
    assert [problem.error.case for problem in found.problems] == ["case-1", "case-3"]
    assert [source.id for source in found.sources] == ["case-2", "case-4"]


def test_a_missing_option_is_asked_for_at_once(tmp_path):
    with pytest.raises(ValuesNeeded):
        opened(nifti_study(tmp_path))


def test_one_run_takes_one_kind_of_numbers(tmp_path):
    study = nnunet_study(tmp_path)
    write_npz(study.predictions / "case-2.npz", logits=logits_of(3, 1))
    (problem,) = opened(study).problems
    assert isinstance(problem.error, MixedInputs)
    path = study.predictions / "case-2.npz"
    assert str(problem.error) == f"{path}: holds logits, the other cases probabilities; one run takes one kind"


def test_sources_travel_between_processes(tmp_path):
    found = opened(nnunet_study(tmp_path, ("a",)))
    (source,) = found.sources
    again = pickle.loads(pickle.dumps(source))
    ours, theirs = CaseReader(with_digest=True)(source), CaseReader(with_digest=True)(again)
    np.testing.assert_array_equal(ours.volume.array, theirs.volume.array)
    assert ours.facts == theirs.facts


def test_a_prediction_has_one_digest_whatever_file_holds_it(tmp_path):
    digests = set()
    for name, study in (
        ("npz", nnunet_study(tmp_path / "npz", ("a",))),
        ("nii", nifti_study(tmp_path / "nii", ("a",))),
    ):
        if name == "nii":
            save(study.predictions / "a.nii.gz", softmax_of(logits_of(3, 0)), AFFINE)
        rules = ReadingRules(values="probabilities")
        digests.add(CaseReader(with_digest=True)(opened(study, rules).sources[0]).facts.digest)
    assert digests == {digest_of(softmax_of(logits_of(3, 0)))}


def test_a_checksum_tells_predictions_apart_and_copies_together():
    array = logits_of(3, 0)
    other = array.copy()
    other[0, 0, 0, :2] = other[0, 0, 0, 1::-1]
    assert checksum_of(np.asfortranarray(array), ()) == checksum_of(array, ())
    assert len({checksum_of(some, ()) for some in (array, other, array.reshape(3, 6, 5, 7))}) == 3


def test_another_shape_of_the_same_numbers_is_another_prediction():
    array = logits_of(3, 0)
    assert digest_of(array) != digest_of(array.reshape(3, 6, 5, 7))
    assert digest_of(np.asfortranarray(array)) == digest_of(array)


def test_reading_says_what_it_saw(tmp_path):
    study = nnunet_study(tmp_path, ("a",))
    field = softmax_of(logits_of(3, 0))
    field[:, :, :, 0] = np.array([1, 0, 0]).reshape(3, 1, 1)
    write_npz(study.predictions / "a.npz", probabilities=field)
    save(study.predictions / "a.nii.gz", field.argmax(axis=0).astype(np.uint8), AFFINE)
    case = CaseReader()(opened(study).sources[0])
    facts = case.facts
    assert (facts.digest, facts.proof, facts.hard, facts.constant, facts.stored) == (
        "",
        "proved",
        False,
        False,
        "float32",
    )
    assert facts.padding_share == pytest.approx(1 / 7)
    assert facts.grid_distance_mm == pytest.approx(0, abs=1e-4)
    assert facts.saturation["background"][1] == pytest.approx((field[0] == 1).mean())
    assert case.volume.grid.shape == SHAPE


def test_logits_have_no_saturation(tmp_path):
    assert CaseReader()(opened(nifti_study(tmp_path, ("a",)), LOGITS).sources[0]).facts.saturation == {}


def test_warnings_do_not_name_the_file_that_their_case_names(tmp_path):
    study = nnunet_study(tmp_path, ("a",))
    field = softmax_of(1000 * logits_of(3, 0)).round()
    write_npz(study.predictions / "a.npz", probabilities=field)
    facts = CaseReader()(opened(study).sources[0]).facts
    assert facts.warnings == ("holds only 0 and 1: a hard mask, or a writer that rounded",)


def test_a_transform_changes_the_volume_but_not_the_digest(tmp_path):
    (source,) = opened(nifti_study(tmp_path, ("a",)), LOGITS).sources

    def halved(volume: Volume, space: object) -> Volume:
        return Volume(volume.array / 2, volume.grid, volume.values, volume.stored)

    case = CaseReader(with_digest=True, transform=halved)(source)
    np.testing.assert_array_equal(case.volume.array, logits_of(3, 0) / 2)
    assert case.facts.digest == digest_of(logits_of(3, 0))


def test_cases_need_no_labels(tmp_path):
    case = CaseReader()(opened(nnunet_study(tmp_path, ("a",)), labelled=False).sources[0])
    assert (case.labels, case.roi) == (None, None)


def test_the_format_is_named(tmp_path: Path):
    study = png_study(tmp_path, ("a",))
    study.classes.write_text('{"background": 0, "cell": 1}')
    assert opened(study).sources[0].format == "png"
