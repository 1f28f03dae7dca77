"""Pairing: from folders to cases, and every way in which names do not fit."""

from __future__ import annotations

import os
import pickle
import tempfile
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from segcal_cli.core.errors import CaseErrors, NoCaseError
from segcal_cli.io.case_files import LabelFile, MissingLabels, PredictionFile, SamePrediction, same_predictions
from segcal_cli.io.case_ids import BadCaseId, fits_file_name
from segcal_cli.io.class_files import FoundTwice, MissingSamples, NoClassFile
from segcal_cli.io.folders import ImageFolder, NoImage, NoSuchInput, TwoFiles, UnreadableFolder
from segcal_cli.io.groups import NoGroup, parse_groups
from segcal_cli.io.pairing import NoCaseMatched, SameFolder, pair
from segcal_cli.io.patterns import BadPattern
from segcal_cli.io.suffixes import KNOWN, UnreadFormat
from tests.io.builders_folders import exclusive, put, regions

BRAIN = exclusive("background", "edema", "tumour")


@pytest.fixture(autouse=True)
def _here(tmp_path, monkeypatch):
    """Relative paths, so that messages are short."""
    monkeypatch.chdir(tmp_path)


def folder(name: str, *files: str) -> Path:
    return put(Path(name), *files)


def ids(pairing) -> list[str]:
    return [case.id for case in pairing.cases]


def texts(pairing) -> list[str]:
    return [str(problem.error) for problem in pairing.problems]


def refusal(kind: type[Exception], *args, **options) -> str:
    with pytest.raises(kind) as caught:
        pair(*args, **options)
    return str(caught.value)


# Ids


def test_a_case_is_a_prediction_and_a_label_of_one_id():
    pairing = pair(folder("p", "a.1.2.nii.gz"), folder("l", "a.1.2.nii"))
    [case] = pairing.require()
    assert (case.id, case.group, case.source, case.roi, case.proof) == ("a.1.2", "a.1.2", "", None, None)
    assert case.predictions == (PredictionFile(Path("p/a.1.2.nii.gz")),)
    assert case.labels == (LabelFile(Path("l/a.1.2.nii")),)
    assert pairing.notes == ()


@pytest.mark.parametrize("tail", ["_trans", "_seg", "_pred", "_prob", "_probseg", "_dseg", "-seg"])
def test_a_tail_is_cut_off_if_all_files_end_in_it(tail):
    assert ids(pair(folder("p", f"a{tail}.nii.gz", f"b{tail}.NII"))) == ["a", "b"]


def test_a_tail_that_one_file_lacks_stays():
    assert ids(pair(folder("p", "a_seg.nii.gz", "b.nii.gz"))) == ["a_seg", "b"]


def test_only_one_tail_is_cut_off_and_never_a_whole_name():
    assert ids(pair(folder("p", "a_pred_seg.nii.gz", "b_pred_seg.nii.gz"))) == ["a_pred", "b_pred"]
    assert ids(pair(folder("q", "_seg.nii.gz", "b_seg.nii.gz"))) == ["_seg", "b_seg"]


def test_each_folder_has_its_own_tail():
    [case] = pair(folder("p", "a_prob.nii.gz"), folder("l", "a_seg.nii.gz")).require()
    assert case.id == "a"


def test_cases_come_in_the_order_of_the_bytes_of_their_ids():
    names = ["é", "z", "Z", "a.b", "a_b", "a-b", "a", "\U0001d4d0", "\uffe6x", "10", "9"]
    expected = sorted(names, key=str.encode)
    put(Path("p"), *(f"{name}.npy" for name in names if name not in ("Z", "\uffe6x")))
    found = ids(pair(Path("p")))
    assert found == [name for name in expected if name in found]
    assert len(found) == 9


def test_dot_files_and_side_files_are_not_candidates():
    names = ("._a.nii.gz", ".a.tmp-x.nii.gz", "dataset.json", "x.csv", "dseg.tsv", "log.txt", "a.pkl")
    pairing = pair(folder("p", "a.npz", *names))
    assert ids(pairing) == ["a"]
    assert pairing.notes == ()


def test_folders_are_read_flat():
    assert ids(pair(folder("p", "a.npz", "sub/b.npz"))) == ["a"]


def test_an_id_from_a_folder_that_cannot_go_into_outputs_is_refused():
    pairing = pair(folder("p", "[red]a.npz", "ok.npz"))
    assert ids(pairing) == ["ok"]
    assert texts(pairing) == ["p/[red]a.npz: case id '[red]a' cannot be a file name"]
    assert isinstance(pairing.problems[0].error, BadCaseId)


def test_a_name_that_is_not_utf8_is_refused():
    Path("p").mkdir()
    Path(os.fsdecode(b"p/a\xff.npz")).touch()
    pairing = pair(Path("p"))
    assert [type(problem.error) for problem in pairing.problems] == [BadCaseId]


NAMES = st.text(st.sampled_from("aZ1_ .üÄ[]{}*red=-"), min_size=1, max_size=12).filter(fits_file_name)


@settings(max_examples=80)
@given(stem=NAMES, suffix=st.sampled_from(KNOWN))
def test_any_usable_name_is_its_own_id(stem, suffix):
    with tempfile.TemporaryDirectory() as root:
        put(Path(root), f"p/{stem}{suffix}", "p/other.npz", f"l/{stem}.png", "l/other.png")
        assert set(ids(pair(Path(root, "p"), Path(root, "l")))) == {stem, "other"}


@settings(max_examples=80)
@given(stem=NAMES, suffix=st.sampled_from(KNOWN))
def test_any_usable_name_is_found_by_a_pattern(stem, suffix):
    with tempfile.TemporaryDirectory() as root:
        put(Path(root), f"p/{stem}/{stem}_x{suffix}")
        assert ids(pair(Path(root, "p"), pattern="{case}/{case}_x")) == [stem]


# Proofs


@pytest.mark.parametrize("name", ["a.nii.gz", "a.nii", "a.png", "a.tif", "a.tiff"])
def test_an_array_and_the_segmentation_beside_it_are_one_case(name):
    [case] = pair(folder("p", "a.npz", name, "a.pkl")).require()
    assert case.predictions == (PredictionFile(Path("p/a.npz"), proof=Path("p") / name),)
    assert case.proof == Path("p") / name


def test_an_array_with_two_segmentations_is_refused():
    pairing = pair(folder("p", "a.npz", "a.nii.gz", "a.png"))
    assert texts(pairing) == ["a: both p/a.nii.gz and p/a.png"]


def test_a_segmentation_without_its_array_is_a_case_of_its_own():
    assert ids(pair(folder("p", "a.npz", "a.nii.gz", "b.nii.gz"))) == ["a", "b"]


def test_the_tail_is_cut_from_array_and_segmentation_alike():
    [case] = pair(folder("p", "a_pred.npz", "a_pred.nii.gz")).require()
    assert (case.id, case.proof) == ("a", Path("p/a_pred.nii.gz"))


def test_a_pattern_finds_the_segmentation_too():
    [case] = pair(folder("p", "a/prob.npz", "a/prob.nii.gz"), pattern="{case}/prob.npz").require()
    assert (case.id, case.proof) == ("a", Path("p/a/prob.nii.gz"))


def test_among_labels_an_array_is_left_aside_for_the_image():
    [case] = pair(folder("p", "a.nii.gz"), folder("l", "a.npz", "a.nii.gz")).require()
    assert case.labels == (LabelFile(Path("l/a.nii.gz")),)


def test_the_label_is_never_the_proof():
    put(Path("p"), "a.npz", "a.nii.gz")
    [case] = pair(Path("p/a.npz"), Path("p/a.nii.gz")).require()
    assert case.proof is None


# Two for one


@pytest.mark.parametrize("names", [("A.nii", "A.nii.gz"), ("A.npy", "A.npz"), ("A.png", "A.tif")])
def test_two_files_for_one_id_are_refused(names):
    pairing = pair(folder("p", *names, "b.nii"))
    assert ids(pairing) == ["b"]
    assert texts(pairing) == [f"A: both p/{names[0]} and p/{names[1]}"]
    assert isinstance(pairing.problems[0].error, TwoFiles)


def test_two_labels_for_one_id_are_refused():
    pairing = pair(folder("p", "A.npz"), folder("l", "A.nii", "A.nii.gz"))
    assert texts(pairing) == ["A: both l/A.nii and l/A.nii.gz"]


def test_ids_that_differ_by_case_only_are_refused_on_either_side():
    pairing = pair(folder("p", "Case.npz", "case.npz", "b.npz"), folder("l", "b.nii", "Q.nii", "q.nii"))
    assert ids(pairing) == ["b"]
    assert texts(pairing) == ["Case: both p/Case.npz and p/case.npz", "Q: both l/Q.nii and l/q.nii"]


def test_ids_that_differ_in_how_an_umlaut_is_encoded_only_are_refused():
    pairing = pair(folder("p", "u\u0308.npz", "\u00fc.npz"))
    assert texts(pairing) == ["u\u0308: both p/u\u0308.npz and p/\u00fc.npz"]


def test_a_link_to_another_prediction_is_a_duplicate():
    put(Path("p"), "a.npz", "b.npz")
    Path("p/c.npz").symlink_to("a.npz")
    [error] = same_predictions(pair(Path("p")).cases)
    assert str(error) == "a and c hold the same prediction: duplicates break exchangeability"


# Left over


def test_predictions_without_label_are_all_listed():
    pairing = pair(folder("p", "a.npz", "b.npz", "c.npz", "d.npz", "e.npz"), folder("l", "b.nii"))
    assert texts(pairing) == ["4 predictions have no label: a, c, d, e"]
    assert ids(pairing) == ["a", "b", "c", "d", "e"]
    with pytest.raises(MissingLabels):
        pairing.require()


def test_labels_without_prediction_are_a_note():
    pairing = pair(folder("p", "b.npz"), folder("l", "a.nii", "b.nii", "c.nii", "d.nii", "e.nii"))
    assert pairing.require()
    assert pairing.notes == ("l: 4 labels have no prediction: a, c, d, ..",)


def test_several_problems_are_listed_together():
    pairing = pair(folder("p", "a.nii", "a.nii.gz", "b.nii", "c.nii"), folder("l", "c.nii"))
    with pytest.raises(CaseErrors) as caught:
        pairing.require()
    assert str(caught.value).splitlines() == ["a: both p/a.nii and p/a.nii.gz", "1 prediction has no label: b"]


def test_without_labels_nothing_is_missing():
    assert pair(folder("p", "a.npz")).require()[0].labels == ()


# Nothing pairs


def test_nothing_in_common_shows_what_each_folder_has():
    text = refusal(NoCaseMatched, folder("p", "a_0.npz", "b_0.npz"), folder("l", "A.nii", "B.nii", "C.nii", "D.nii"))
    assert text == "no case matched: p has a_0, b_0, l has A, B, C, ..; see segcal pairs, --pattern"
    assert issubclass(NoCaseMatched, NoCaseError)


@pytest.mark.parametrize("names", [(), (".a.npz",), ("plans.json", "a.pkl")])
def test_a_folder_without_candidates_has_no_case(names):
    assert refusal(NoCaseMatched, folder("p", *names)) == "no case matched: p has nothing; see segcal pairs, --pattern"


def test_an_empty_folder_of_labels_has_no_case():
    text = refusal(NoCaseMatched, folder("p", "a.npz"), folder("l"))
    assert text == "no case matched: p has a, l has nothing; see segcal pairs, --pattern"


def test_a_pattern_that_matches_nothing_shows_the_files():
    text = refusal(NoCaseMatched, folder("p", "a.npz", "sub/b.npz"), pattern="{case}_x.npz")
    assert text == "no case matched: p has a.npz, sub/; see segcal pairs, --pattern"


@pytest.mark.parametrize(
    ("files", "pattern"),
    [
        (("A/A_trans.nii.gz", "B/B_trans.nii.gz"), "{case}/{case}_trans.nii.gz"),
        (("A/A.npz", "A/A.nii.gz", "B/B.npz"), "{case}/{case}.npz"),
        (("A/prob.nii.gz", "B/prob.nii.gz"), "{case}/prob.nii.gz"),
        (
            ("fold_0/validation/A.npz", "fold_0/validation/A.nii.gz", "fold_1/validation/B.npz"),
            "fold_*/validation/{case}.npz",
        ),
        (("site1/A.npz", "site2/B.npz"), "*/{case}.npz"),
        (("run1/A.npz", "run1/B.npz", "run2/A.npz", "run2/B.npz"), "{sample}/{case}.npz"),
        (("fold_0/A.npz", "fold_0/B.npz", "fold_1/A.npz", "fold_1/B.npz"), "fold_{sample}/{case}.npz"),
        (("A/edema.nii.gz", "A/tumour.nii.gz", "B/edema.nii.gz", "B/tumour.nii.gz"), "{case}/{class}.nii.gz"),
    ],
)
def test_sub_folders_lead_to_a_proposal_that_works(files, pattern):
    labels = folder("l", "A.nii", "B.nii")
    text = refusal(NoCaseMatched, folder("p", *files), labels, space=BRAIN)
    assert text.endswith(f"; see segcal pairs, --pattern '{pattern}'")
    assert ids(pair(Path("p"), labels, pattern=pattern, space=BRAIN))


def test_sub_folders_of_predictions_alone_lead_to_a_proposal():
    text = refusal(NoCaseMatched, folder("p", "A/A_trans.nii.gz", "B/B_trans.nii.gz"))
    assert text == "no case matched: p has A/, B/; see segcal pairs, --pattern '{case}/{case}_trans.nii.gz'"


def test_sub_folders_of_labels_lead_to_a_proposal():
    text = refusal(NoCaseMatched, folder("p", "A.npz"), folder("l", "A/edema.nii", "A/tumour.nii"), space=BRAIN)
    assert text.endswith("l has A/; see segcal pairs, --pattern, --label-pattern '{case}/{class}.nii'")


def test_sub_folders_without_an_order_lead_to_no_proposal():
    text = refusal(NoCaseMatched, folder("p", "x/1.npz", "y/2.npz"), folder("l", "A.nii"))
    assert text == "no case matched: p has x/, y/, l has A; see segcal pairs, --pattern"


def test_names_around_an_id_lead_to_a_proposal():
    files = ("a_desc-soft_probseg.nii.gz", "b_desc-calibrated_probseg.nii.gz")
    text = refusal(NoCaseMatched, folder("p", *files), folder("l", "a.nii", "b.nii"))
    assert text.endswith("--pattern '{case}_desc-soft_probseg.nii.gz'")
    text = refusal(NoCaseMatched, Path("l"), Path("p"))
    assert text.endswith("--pattern, --label-pattern '{case}_desc-soft_probseg.nii.gz'")


def test_an_id_inside_a_longer_word_leads_to_no_proposal():
    text = refusal(NoCaseMatched, folder("p", "scan2021.npz"), folder("l", "1.nii"))
    assert text == "no case matched: p has scan2021, l has 1; see segcal pairs, --pattern"


# The arguments themselves


def test_paths_that_are_not_there_are_a_usage_error():
    put(Path("p"), "a.npz")
    assert refusal(NoSuchInput, Path("none")) == "none does not exist"
    assert refusal(NoSuchInput, Path("p"), Path("none")) == "none does not exist"
    assert refusal(NoSuchInput, Path("p"), roi=Path("none")) == "none does not exist"
    assert refusal(NoSuchInput, Path("fold_*/x")) == "fold_*/x does not exist"


def test_one_folder_for_both_is_a_usage_error():
    put(Path("p"), "a.npz")
    Path("link").symlink_to("p")
    assert refusal(SameFolder, Path("p"), Path("link")) == "PREDICTIONS and LABELS are the same folder"


def test_two_files_are_a_pair_whatever_their_names():
    put(Path("p"), "a.npz", "a.nii.gz")
    [case] = pair(Path("p/a.npz"), folder("l", "truth.nii", "roi.nii") / "truth.nii", roi=Path("l/roi.nii")).require()
    assert (case.id, case.proof, case.roi) == ("a", Path("p/a.nii.gz"), Path("l/roi.nii"))
    assert case.labels == (LabelFile(Path("l/truth.nii")),)


def test_a_file_finds_its_label_in_a_folder():
    pairing = pair(folder("p", "a.npz") / "a.npz", folder("l", "a.nii", "b.nii"))
    assert pairing.require()[0].labels == (LabelFile(Path("l/a.nii")),)


def test_a_file_takes_its_id_from_the_pattern():
    [case] = pair(folder("p", "a/prob.npz") / "a/prob.npz", pattern="{case}/prob").require()
    assert case.id == "a"
    text = refusal(NoCaseMatched, Path("p/a/prob.npz"), folder("l", "x.nii") / "x.nii", pattern="{case}_x")
    assert text == "no case matched: p/a/prob.npz has nothing, l/x.nii has x; see segcal pairs, --pattern"


@pytest.mark.parametrize(
    ("name", "advice"),
    [("a.pkl", "never opened, it can run code"), ("a.jpg", "lossy"), ("a.nrrd", "convert it to NIfTI")],
)
def test_a_file_in_a_format_that_is_not_read_is_refused(name, advice):
    path = folder("p", name) / name
    assert refusal(UnreadFormat, path) == f"p/{name}: segcal does not read {path.suffix}; {advice}"


def test_a_folder_of_formats_that_are_not_read_is_refused_once_per_kind():
    text = refusal(CaseErrors, folder("p", "a.nrrd", "b.nrrd", "c.pt", ".d.npz", "d.json"))
    assert text.splitlines() == [
        "p/a.nrrd: segcal does not read .nrrd; convert it to NIfTI",
        "p/c.pt: segcal does not read .pt; never opened, it can run code",
    ]


def test_a_volume_that_is_a_folder_is_refused():
    put(Path("p"), "a.zarr/0.0")
    expected = "p/a.zarr: segcal does not read .zarr; convert it to NIfTI"
    assert refusal(UnreadFormat, Path("p")) == expected
    assert refusal(UnreadFormat, Path("p/a.zarr")) == expected


def test_other_formats_among_usable_files_are_a_note():
    pairing = pair(folder("p", "a.npz", "b.nrrd", "c.jpg"))
    assert ids(pairing) == ["a"]
    assert pairing.notes == ("p: 2 files of a kind that segcal does not read are left out: b.nrrd, c.jpg",)


def test_a_folder_that_may_not_be_listed_is_refused(monkeypatch):
    def refuse(path):
        raise PermissionError(13, "Permission denied", str(path))

    path = folder("p", "a.npz")
    monkeypatch.setattr("segcal_cli.io.folders.os.scandir", refuse)
    assert refusal(UnreadableFolder, path) == "p: permission denied"


def test_nothing_is_opened(monkeypatch):
    put(Path("p"), "a.npz", "a.nii.gz", "a.pkl", "b.npz")
    put(Path("l"), "a.nii", "b.nii")

    def refuse(*args, **options):
        raise AssertionError(args)

    monkeypatch.setattr("builtins.open", refuse)
    monkeypatch.setattr("io.open", refuse)
    assert ids(pair(Path("p"), Path("l"))) == ["a", "b"]


# Patterns


def test_a_pattern_replaces_suffix_and_tail():
    pairing = pair(
        folder("p", "a/a_soft.nii.gz", "b/b_soft.nii.gz", "b/c_soft.nii.gz"), pattern="{case}/{case}_soft.nii.gz"
    )
    assert ids(pairing) == ["a", "b"]
    assert ids(pair(folder("q", "a_seg.nii.gz"), pattern="{case}.nii.gz")) == ["a_seg"]


def test_a_pattern_without_suffix_takes_all_that_are_read():
    assert ids(pair(folder("p", "a_x.NII.GZ", "b_x.png", "c_x.nrrd", "d.png"), pattern="{case}_x")) == ["a", "b"]


def test_a_star_stands_for_anything_within_a_name():
    assert ids(pair(folder("p", "a/x1.npz", "b/x2.npz", "b/c/x3.npz", ".d/x.npz"), pattern="{case}/x*.npz")) == [
        "a",
        "b",
    ]


def test_brackets_in_a_pattern_mean_themselves():
    assert ids(pair(folder("p", "a[1]+.npz", "b1+.npz"), pattern="{case}[1]+")) == ["a"]


@pytest.mark.parametrize(
    ("pattern", "why"),
    [
        ("{patient}.npz", "{patient} is unknown; use {case}, {class}, {sample} and *"),
        ("{}.npz", "{} is unknown; use {case}, {class}, {sample} and *"),
        ("x.npz", "it needs {case}"),
        ("../{case}.npz", "it must be a path below the folder, without . or .."),
        ("/data/{case}.npz", "it must be a path below the folder, without . or .."),
        ("{case}_{class}.npz", "{class} needs the class table; give --classes"),
    ],
)
def test_a_pattern_that_makes_no_sense_is_a_usage_error(pattern, why):
    put(Path("p"), "a.npz")
    put(Path("l"), "a.npz")
    assert refusal(BadPattern, Path("p"), pattern=pattern) == f"--pattern '{pattern}': {why}"
    text = refusal(BadPattern, Path("p"), Path("l"), label_pattern=pattern)
    assert text == f"--label-pattern '{pattern}': {why}"


# One file per class


@pytest.mark.parametrize(
    ("layout", "pattern"),
    [
        ("{case}_{name}.nii.gz", None),
        ("{case}_{name}.png", None),
        ("{case}_label-{name}_probseg.nii.gz", None),
        ("{case}_label-{name}_desc-calibrated_probseg.nii.gz", None),
        ("{case}/{name}.nii.gz", "{case}/{class}.nii.gz"),
        ("{name}/{case}.nii.gz", "{class}/{case}"),
    ],
)
def test_one_file_per_class_is_joined_in_the_order_of_the_class_table(layout, pattern):
    space = exclusive("background", "tumour", "edema")
    names = [layout.format(case=case, name=name) for case in ("a", "b_1") for name in ("edema", "tumour")]
    cases = pair(folder("p", *names), pattern=pattern, space=space).require()
    assert [case.id for case in cases] == ["a", "b_1"]
    for case in cases:
        expected = [(layout.format(case=case.id, name=name), name) for name in ("tumour", "edema")]
        assert case.predictions == tuple(PredictionFile(Path("p", path), class_name=name) for path, name in expected)


def test_the_background_may_have_a_file():
    [case] = pair(folder("p", "a_background.png", "a_edema.png", "a_tumour.png"), space=BRAIN).require()
    assert [file.class_name for file in case.predictions] == ["background", "edema", "tumour"]


def test_class_names_are_found_as_bids_writes_them():
    space = regions("whole tumour", "core")
    files = ("a_label-wholeTumour_probseg.nii.gz", "a_label-core_probseg.nii.gz")
    [case] = pair(folder("p", *files), space=space).require()
    assert [file.class_name for file in case.predictions] == ["whole tumour", "core"]


def test_the_longest_class_name_wins():
    [case] = pair(folder("p", "a_whole_tumour.png", "a_tumour.png"), space=regions("tumour", "whole_tumour")).require()
    assert (case.id, [file.path.name for file in case.predictions]) == ("a", ["a_tumour.png", "a_whole_tumour.png"])


@pytest.mark.parametrize(
    ("present", "absent", "pattern"),
    [
        ("{case}_{name}.nii.gz", "p/b_tumour.nii.gz", None),
        ("{case}_{name}.nii.gz", "p/b_tumour.nii.gz", "{case}_{class}"),
        ("{case}/{name}.png", "p/b/tumour.png", "{case}/{class}.png"),
        ("{case}_label-{name}_probseg.nii", "p/b_label-tumour_probseg.nii", None),
    ],
)
def test_a_class_without_file_is_refused_with_its_place(present, absent, pattern):
    names = [present.format(case=case, name=name) for case, name in (("a", "edema"), ("a", "tumour"), ("b", "edema"))]
    pairing = pair(folder("p", *names), pattern=pattern, space=BRAIN)
    assert ids(pairing) == ["a"]
    assert texts(pairing) == [f"b: no file for class tumour (looked for {absent})"]
    assert isinstance(pairing.problems[0].error, NoClassFile)


def test_regions_need_every_file():
    pairing = pair(folder("p", "a_edema.png"), pattern="{case}_{class}", space=regions("background", "edema"))
    assert texts(pairing) == ["a: no file for class background (looked for p/a_background.png)"]


def test_ids_that_merely_end_in_a_class_are_whole_predictions():
    assert ids(pair(folder("p", "1_edema.npz", "2_tumour.npz"), space=BRAIN)) == ["1_edema", "2_tumour"]
    assert ids(pair(folder("q", "1_edema.npz", "1_tumour.npz", "2.npz"), space=BRAIN)) == ["1_edema", "1_tumour", "2"]


def test_files_of_no_known_class_are_a_note():
    files = ("a/edema.nii", "a/tumour.nii", "a/liver.nii")
    pairing = pair(folder("p", *files), pattern="{case}/{class}.nii", space=BRAIN)
    assert pairing.require()
    assert pairing.notes == ("p: 1 file is of no class of the class table: a/liver.nii",)


def test_labels_may_be_one_mask_per_class():
    labels = folder("l", "a/tumour.nii.gz", "a/edema.nii.gz", "b/edema.nii.gz")
    options = {"label_pattern": "{case}/{class}.nii.gz", "space": BRAIN}
    pairing = pair(folder("p", "a.npz", "b.npz"), labels, **options)
    assert [(file.path.name, file.class_name) for file in pairing.cases[0].labels] == [
        ("edema.nii.gz", "edema"),
        ("tumour.nii.gz", "tumour"),
    ]
    assert texts(pairing) == ["b: no file for class tumour (looked for l/b/tumour.nii.gz)"]


def test_flat_masks_per_class_are_joined_too():
    [case] = pair(folder("p", "a.npz"), folder("l", "a_edema.nii", "a_tumour.nii"), space=BRAIN).require()
    assert [label.class_name for label in case.labels] == ["edema", "tumour"]


def test_two_files_for_one_class_are_refused():
    pairing = pair(folder("p", "a_edema.nii", "a_edema.png", "a_tumour.png"), space=BRAIN)
    assert texts(pairing) == ["a: both p/a_edema.nii and p/a_edema.png"]


# Samples and folds


@pytest.mark.parametrize(
    ("layout", "pattern"),
    [
        ("{case}_pred_{sample}.nii.gz", "{case}_pred_{sample}.nii.gz"),
        ("fold_{sample}/{case}.nii.gz", "fold_{sample}/{case}"),
        ("{case}/draw{sample}.nii.gz", "{case}/draw{sample}.nii.gz"),
    ],
)
def test_samples_are_joined_in_the_order_of_their_names(layout, pattern):
    names = [layout.format(case=case, sample=sample) for case in ("a", "b") for sample in ("2", "10", "1")]
    cases = pair(folder("p", *names), pattern=pattern).require()
    assert [case.samples for case in cases] == [("1", "10", "2")] * 2
    assert cases[1].predictions[0] == PredictionFile(Path("p", layout.format(case="b", sample="1")), sample="1")
    assert cases[0].source == ""


def test_each_sample_has_its_own_proof():
    [case] = pair(
        folder("p", "f0/a.npz", "f0/a.nii.gz", "f1/a.npz", "f1/a.nii.gz"), pattern="{sample}/{case}"
    ).require()
    assert [file.proof for file in case.predictions] == [Path("p/f0/a.nii.gz"), Path("p/f1/a.nii.gz")]


def test_a_case_without_all_samples_is_refused():
    names = [
        f"f{sample}/{case}.npz" for case in "ab" for sample in range(5) if (case, sample) not in {("b", 1), ("b", 3)}
    ]
    pairing = pair(folder("p", *names), pattern="f{sample}/{case}.npz")
    assert ids(pairing) == ["a"]
    assert texts(pairing) == ["b: 3 of 5 samples (1, 3 absent)"]
    assert isinstance(pairing.problems[0].error, MissingSamples)


def test_samples_may_have_one_file_per_class():
    names = [f"{sample}/a_{name}.png" for sample in ("s1", "s2") for name in ("edema", "tumour")]
    options = {"pattern": "{sample}/{case}_{class}", "space": BRAIN}
    [case] = pair(folder("p", *names), **options).require()
    assert [(file.sample, file.class_name) for file in case.predictions] == [
        ("s1", "edema"),
        ("s1", "tumour"),
        ("s2", "edema"),
        ("s2", "tumour"),
    ]
    Path("p/s2/a_tumour.png").unlink()
    assert texts(pair(Path("p"), **options)) == ["a: no file for class tumour (looked for p/s2/a_tumour.png)"]


FOLDS = (
    "fold_0/validation/a.npz",
    "fold_0/validation/a.nii.gz",
    "fold_1/validation/b.npz",
    "fold_1/validation/b.nii.gz",
)


@pytest.mark.parametrize(
    ("given_folder", "pattern"),
    [("p/fold_*/validation", None), ("p", "fold_*/validation/{case}.npz"), ("p/*/validation", "{case}.npz")],
)
def test_folds_are_joined_into_a_cross_validation(given_folder, pattern):
    put(Path("p"), *FOLDS, "fold_1/other/c.npz")
    cases = pair(Path(given_folder), folder("l", "a.nii", "b.nii"), pattern=pattern).require()
    assert [(case.id, case.source) for case in cases] == [("a", "cross-validation"), ("b", "cross-validation")]
    assert cases[0].predictions == (
        PredictionFile(Path("p/fold_0/validation/a.npz"), proof=Path("p/fold_0/validation/a.nii.gz")),
    )


def test_a_case_in_two_folds_is_refused():
    put(Path("p"), *FOLDS, "fold_1/validation/a.npz")
    pairing = pair(Path("p/fold_*/validation"))
    assert ids(pairing) == ["b"]
    assert texts(pairing) == ["a: found in p/fold_0/validation and in p/fold_1/validation"]
    assert isinstance(pairing.problems[0].error, FoundTwice)


def test_one_fold_alone_is_cross_validation_but_joined_sites_are_not():
    put(Path("p"), *FOLDS, "site_1/x.npz", "site_2/y.npz")
    assert pair(Path("p/fold_0/validation")).cases[0].source == "cross-validation"
    assert [(case.id, case.source) for case in pair(Path("p/site_*")).cases] == [("x", ""), ("y", "")]


def test_only_the_star_is_special_in_the_name_of_folders():
    put(Path("d[1]?"), "f1/a.npz", "f2/b.npz", ".f3/c.npz", "f4")
    assert ids(pair(Path("d[1]?/f*"))) == ["a", "b"]
    assert ids(pair(folder("e*", "a.npz"))) == ["a"]


# Groups and regions of interest


def test_groups_are_given_to_cases_and_must_be_known():
    pairing = pair(folder("p", "s1_a.npz", "s1_b.npz", "x.npz"), groups=parse_groups(r"^(s\d)"))
    assert [(case.id, case.group) for case in pairing.cases] == [("s1_a", "s1"), ("s1_b", "s1")]
    assert texts(pairing) == [r"x: no group in ^(s\d)"]
    assert isinstance(pairing.problems[0].error, NoGroup)


def test_every_case_needs_its_region_of_interest():
    pairing = pair(folder("p", "a.npz", "b.npz"), roi=folder("r", "a_seg.nii", "c_seg.nii"))
    assert pairing.cases[0].roi == Path("r/a_seg.nii")
    assert texts(pairing) == ["1 prediction has no region of interest in r: b"]


def test_two_regions_of_interest_for_one_case_are_refused():
    pairing = pair(folder("p", "a.npz"), roi=folder("r", "a.nii", "a.nii.gz"))
    assert texts(pairing) == ["a: both r/a.nii and r/a.nii.gz"]


# Folders of images


def test_the_image_of_a_case_has_its_name_or_ends_in_0000():
    images = ImageFolder(
        folder("i", "a.nii.gz", "a_0000.nii.gz", "b_0000.png", "b_0001.png", "c.npz", "d.nii", "d.png")
    )
    assert images.find("a") == Path("i/a.nii.gz")
    assert images.find("b") == Path("i/b_0000.png")
    with pytest.raises(NoImage) as absent:
        images.find("c")
    assert str(absent.value) == "c: neither c nor c_0000 in i"
    with pytest.raises(TwoFiles) as twice:
        images.find("d")
    assert str(twice.value) == "d: both i/d.nii and i/d.png"


@pytest.mark.parametrize(
    "error",
    [
        MissingLabels(1, "a"),
        NoCaseMatched("p has {case}", " '{case}'"),
        TwoFiles("a", Path("b"), Path("c")),
        SamePrediction("a", "b"),
        BadCaseId("x.csv:2", "a\n"),
        NoClassFile("a", "b", Path("c")),
        MissingSamples("a", 1, 2, "x"),
        FoundTwice("a", Path("b"), Path("c")),
        BadPattern("--pattern", "{x}", "{x} is unknown"),
        SameFolder(),
    ],
)
def test_errors_travel_between_processes(error):
    assert str(pickle.loads(pickle.dumps(error))) == str(error)


@pytest.mark.parametrize("tail", ["_desc-calibrated_probseg", "_label-lesion_desc-calibrated_probseg"])
def test_the_output_of_calibrate_apply_pairs_with_the_labels_of_its_cases(tail):
    found = pair(folder("p", f"a{tail}.nii.gz", f"b{tail}.nii.gz", "dseg.tsv"), folder("l", "a.nii", "b.nii"))
    assert [(case.id, case.predictions[0].path.name) for case in found.require()] == [
        ("a", f"a{tail}.nii.gz"),
        ("b", f"b{tail}.nii.gz"),
    ]


def test_decisions_and_maps_beside_calibrated_probabilities_are_no_predictions():
    names = ("desc-calibrated_probseg", "desc-calibrated_dseg", "desc-entropy_map")
    files = [f"{case}_{name}.nii.gz" for case in "ab" for name in names]
    found = pair(folder("p", *files), folder("l", "a.nii", "b.nii"))
    assert [file.path.name for case in found.require() for file in case.predictions] == [
        "a_desc-calibrated_probseg.nii.gz",
        "b_desc-calibrated_probseg.nii.gz",
    ]
