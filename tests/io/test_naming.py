"""Output names: BIDS-like, one file per thing, always inside the output folder."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from segcal_cli.core.errors import WriteError
from segcal_cli.core.labels import Channel, LabelSpace
from segcal_cli.io.case_ids import fits_file_name
from segcal_cli.io.naming import (
    FLAT_EXTENSION,
    NoName,
    SameName,
    dseg_table,
    entity_value,
    entity_values,
    label_map_sidecar,
    level_desc,
    output_name,
    output_path,
    refuse_same_names,
    sidecar_name,
)
from tests.io.builders_folders import exclusive


@pytest.mark.parametrize(
    ("name", "options"),
    [
        ("CASE_desc-calibrated_probseg.nii.gz", {"kind": "probseg", "desc": "calibrated"}),
        (
            "CASE_label-Tumour_desc-calibrated_probseg.nii.gz",
            {"kind": "probseg", "desc": "calibrated", "label": "Tumour"},
        ),
        (
            "CASE_label-Tumour_desc-inner97p5_mask.nii.gz",
            {"kind": "mask", "desc": "inner97p5", "label": "Tumour"},
        ),
        ("CASE_desc-calibrated_dseg.nii.gz", {"kind": "dseg", "desc": "calibrated"}),
        ("CASE_desc-mutualInformation_map.nii.gz", {"kind": "map", "desc": "mutual-information"}),
        ("CASE_desc-inner90_mask.png", {"kind": "mask", "desc": "inner90", "extension": FLAT_EXTENSION["mask"]}),
        ("CASE_desc-calibrated_probseg.npz", {"kind": "probseg", "desc": "calibrated", "extension": ".npz"}),
        ("CASE_probseg.nii.gz", {"kind": "probseg"}),
        ("CASE_logits.nii.gz", {"kind": "logits"}),
    ],
)
def test_each_output_has_its_name(name, options):
    assert output_name("CASE", **options) == name


def test_two_dimensional_probabilities_are_never_eight_bits():
    assert FLAT_EXTENSION == {"dseg": ".png", "mask": ".png", "probseg": ".npz", "map": ".npz", "logits": ".npz"}


@pytest.mark.parametrize(
    ("case", "name"),
    [
        ("sub-01_space-T1w", "sub-01_space-T1w_label-Tumour_desc-new_mask.nii.gz"),
        ("sub-01_desc-raw_space-T1w", "sub-01_space-T1w_label-Tumour_desc-new_mask.nii.gz"),
        ("sub-01_space-T1w_res-2_label-Edema_desc-raw", "sub-01_space-T1w_res-2_label-Tumour_desc-new_mask.nii.gz"),
        ("sub-01_res-2_seg-a_space-b", "sub-01_space-b_seg-a_res-2_label-Tumour_desc-new_mask.nii.gz"),
        ("sub-01_desc-raw_T1w", "sub-01_desc-raw_T1w_label-Tumour_desc-new_mask.nii.gz"),
        ("_desc-raw", "_desc-raw_label-Tumour_desc-new_mask.nii.gz"),
        ("case.1 [x] ü", "case.1 [x] ü_label-Tumour_desc-new_mask.nii.gz"),
    ],
)
def test_entities_at_the_end_of_the_id_keep_their_place_and_old_label_and_desc_give_way(case, name):
    assert output_name(case, "mask", desc="new", label="Tumour") == name


def test_an_entity_that_is_not_replaced_stays():
    assert (
        output_name("a_label-Tumour", "probseg", desc="calibrated") == "a_label-Tumour_desc-calibrated_probseg.nii.gz"
    )


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("whole tumour", "wholeTumour"),
        ("Tumour", "Tumour"),
        ("GD-enhancing tumor", "GDEnhancingTumor"),
        ("kidney_left", "kidneyLeft"),
        ("vertebrae_L1", "vertebraeL1"),
        (" a  b ", "aB"),
        ("ödem", "ödem"),
        ("+", ""),
    ],
)
def test_values_keep_letters_and_digits(name, value):
    assert entity_value(name) == value


@given(st.text())
def test_a_value_is_letters_and_digits_for_any_name_and_stays_itself(name):
    value = entity_value(name)
    assert value == "" or value.isalnum()
    assert entity_value(value) == value


@pytest.mark.parametrize(
    ("names", "common"), [(("whole tumour", "wholeTumour"), "wholeTumour"), (("a b", "A-b"), "AB")]
)
def test_two_classes_of_one_name_are_refused(names, common):
    with pytest.raises(SameName) as caught:
        entity_values(names)
    first, second = names
    assert str(caught.value) == f"classes {first} and {second} would both be written as label-{common}; rename one"


def test_a_class_without_letters_is_refused():
    with pytest.raises(NoName) as caught:
        entity_values(["a", "++"])
    assert str(caught.value) == "class name '++' holds no letter or digit, so no file can be named after it"


def test_distinct_classes_have_their_values():
    assert entity_values(["background", "whole tumour"]) == {"background": "background", "whole tumour": "wholeTumour"}


def test_cases_that_differ_in_a_replaced_entity_only_are_refused():
    refuse_same_names(["a_label-x", "a_label-y"], "probseg", desc="calibrated")
    with pytest.raises(SameName) as caught:
        refuse_same_names(["a_label-x", "a_label-y"], "mask", desc="inner90", label="t")
    expected = "cases a_label-x and a_label-y would both be written as a_label-t_desc-inner90_mask; rename one"
    assert str(caught.value) == expected


@pytest.mark.parametrize(
    ("level", "desc"),
    [(0.9, "inner90"), (0.975, "inner97p5"), (0.999, "inner99p9"), (0.07, "inner7"), (0.29, "inner29")],
)
def test_levels_are_percent_with_p_for_the_point(level, desc):
    assert level_desc("inner", level) == desc


def test_the_sidecar_names_the_channels():
    text = label_map_sidecar(["background", "Ödem"])
    assert text == '{\n  "LabelMap": [\n    "background",\n    "Ödem"\n  ]\n}\n'
    assert json.loads(label_map_sidecar(["a"], ForDisplay=True)) == {"LabelMap": ["a"], "ForDisplay": True}


def test_the_sidecar_lies_beside_its_volume():
    assert sidecar_name("a.1_probseg.nii.gz") == "a.1_probseg.json"


def test_the_table_of_label_values_is_in_order_of_value():
    table = LabelSpace((Channel("rest", frozenset({0, 3})), Channel("tu mour", frozenset({2}))), "softmax")
    assert dseg_table(table) == "index\tname\n0\trest\n2\ttu mour\n3\trest\n"
    assert dseg_table(exclusive("background", "a")) == "index\tname\n0\tbackground\n1\ta\n"


def test_nested_regions_name_each_value_by_all_that_hold_it():
    nested = LabelSpace((Channel("whole", frozenset({1, 2})), Channel("core", frozenset({2}))), "sigmoid", ignore=3)
    assert dseg_table(nested) == "index\tname\n0\tbackground\n1\twhole\n2\twhole+core\n"


@pytest.mark.parametrize("name", ["../a", "/a", "b/a", "..", ".", "", "a\\b", "b/../a"])
def test_a_path_outside_the_folder_is_refused(tmp_path, name):
    with pytest.raises(WriteError) as caught:
        output_path(tmp_path, name)
    assert str(caught.value) == f"cannot write {tmp_path / name}: it does not lie in {tmp_path}"


def test_a_name_that_file_systems_do_not_take_is_refused(tmp_path):
    output_path(tmp_path, "ü" * 127 + "x")
    with pytest.raises(WriteError) as caught:
        output_path(tmp_path, "ü" * 128)
    assert str(caught.value).endswith(": its name is 256 bytes long, 255 are allowed")


def test_a_link_at_the_target_does_not_lead_away(tmp_path):
    (tmp_path / "out").mkdir()
    (tmp_path / "out" / "a").symlink_to(tmp_path / "elsewhere")
    assert output_path(tmp_path / "out", "a") == tmp_path / "out" / "a"


@given(st.text(min_size=1, max_size=60).filter(fits_file_name))
def test_every_usable_id_gives_a_name_inside_the_folder(case):
    name = output_name(case, "mask", desc="inner90", label="whole tumour")
    assert output_path(Path("out"), name) == Path("out") / name
    assert not name.startswith(("=", "+", "-", "@", "."))
