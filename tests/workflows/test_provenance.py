"""What a study was made from: names without places, and digests of what was read."""

from __future__ import annotations

import hashlib
import json
from pathlib import Path

from segcal_cli.core.case import CaseFacts, Contents
from segcal_cli.core.observer import Recorder, Saying, Silent, say_again
from segcal_cli.workflows.provenance import (
    InputSet,
    Provenance,
    given_options,
    in_words,
    input_sets,
    without_folders,
)
from segcal_cli.workflows.requests import LabelOptions, PredictionOptions

SAID = (Saying("a note"), Saying("a warning", warning=True), Saying("of one", warning=True, case="a"))


def test_a_provenance_comes_back_from_json():
    made = Provenance({"roi": "roi"}, (InputSet("predictions", ("raw", "T"), 2, "5e"),), SAID)
    assert Provenance.from_json(json.loads(json.dumps(made.to_json()))) == made


def test_what_was_said_is_said_again_in_order():
    heard = Recorder(Silent())
    say_again(SAID, heard)
    assert tuple(heard.said) == SAID
    assert (heard.notes, heard.warnings) == (["a note"], ["a warning", "a: of one"])


def test_a_set_is_the_sha256_of_a_line_for_each_case_by_id():
    facts = {case: CaseFacts(contents=Contents((case, f"other {case}"), f"label {case}")) for case in ("b", "a")}
    expected = hashlib.sha256(b"a\tother a\nb\tother b\n").hexdigest()
    found = input_sets(facts, ("raw", "T"), ("ours",))
    assert [(one.what, one.sources, one.cases) for one in found] == [
        ("predictions", ("raw", "T"), 2), ("predictions", ("ours",), 2), ("labels", (), 2),
    ]  # fmt: skip
    assert found[1].sha256 == expected


def test_nothing_is_told_of_inputs_that_were_not_hashed():
    facts = {"a": CaseFacts(contents=Contents(("1",))), "b": CaseFacts()}
    assert input_sets(facts, ("raw",), ()) == ()
    assert input_sets({"a": CaseFacts(contents=Contents(()))}, ("raw",), ()) == ()


def test_only_options_that_were_given_are_told_and_paths_by_name(tmp_path: Path):
    groups = tmp_path / "groups.csv"
    groups.touch()
    reading = PredictionOptions(
        classes=tmp_path / "c.json", groups=str(groups), member=(str(tmp_path), "b"), prove=False
    )
    assert given_options(reading, LabelOptions(ignore_label=9)) == {
        "classes": "c.json",
        "groups": "groups.csv",
        "member": f"{tmp_path.name}, b",
        "prove": "no",
        "ignore-label": "9",
    }
    assert in_words(r"^(p\d+)/") == r"^(p\d+)/"
    assert in_words(None) == "none"


def test_names_stand_in_place_of_the_paths_of_inputs():
    said = [Saying("/data/x/preds: left out"), Saying("/data/x/preds/a.nii: odd", warning=True, case="a")]
    found = without_folders(said, [Path("/data/x"), Path("/data/x/preds"), Path("labels"), None])
    assert [one.text for one in found] == ["preds: left out", "preds/a.nii: odd"]
    assert found[1].case == "a"
