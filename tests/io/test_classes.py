"""Class tables: every dialect gives the same kind of record, and a contradiction is named with its file."""

from pathlib import Path

import pytest

from segcal_cli.core.labels import Channel, LabelSpace
from segcal_cli.io import classes
from segcal_cli.io.classes import BrokenTable, RegionCount, ReservedClassName, TableNeeded, UnreadableLabelTable
from segcal_cli.io.documents import BrokenDocument, BrokenJson
from segcal_cli.io.inputs import EmptyFile, OversizedText
from tests.io.builders_arrays import write_json


def space(activation="softmax", ignore=None, paint=None, **values):
    channels = tuple(Channel(name, frozenset(v if isinstance(v, tuple) else (v,))) for name, v in values.items())
    return LabelSpace(channels, activation, ignore, paint)


def read(tmp_path, document, activation=None):
    return classes.read_classes(write_json(tmp_path / "c.json", document), activation)


def refused(tmp_path, document, error=BrokenTable, activation=None):
    with pytest.raises(error) as caught:
        read(tmp_path, document, activation)
    start = str(tmp_path / "c.json")
    assert str(caught.value).startswith(start)
    return str(caught.value).removeprefix(start)


def test_nnunet_v2_channels_are_label_values_whatever_the_order_of_names(tmp_path):
    document = {"labels": {"tumour": 2, "background": 0, "liver": [1]}, "file_ending": ".nii.gz"}
    assert read(tmp_path, document) == space(background=0, liver=1, tumour=2)


def test_ignore_is_no_channel(tmp_path):
    assert read(tmp_path, {"labels": {"background": 0, "liver": 1, "ignore": 2}}) == space(
        ignore=2, background=0, liver=1
    )


def test_regions_are_sigmoid_channels_in_json_order_with_their_paint(tmp_path):
    document = {
        "labels": {"background": 0, "whole": [1, 2, 3], "enhancing": 3, "core": [2, 3], "ignore": 4},
        "regions_class_order": [1, 3, 2],
    }
    expected = space("sigmoid", 4, (1, 3, 2), whole=(1, 2, 3), enhancing=3, core=(2, 3))
    assert read(tmp_path, document) == expected
    assert read(tmp_path, document).names == ("whole", "enhancing", "core")


@pytest.mark.parametrize(("order", "count"), [([1], 1), ([1, 2, 3], 3), (None, 0)])
def test_regions_need_one_paint_value_each(tmp_path, order, count):
    document = {"labels": {"background": [0, 0], "whole": [1, 2], "core": [2]}, "regions_class_order": order}
    text = refused(tmp_path, document, RegionCount)
    assert text == f": 2 regions but regions_class_order has {count} entries"


def test_nnunet_v1_and_decathlon_map_the_other_way_round(tmp_path):
    document = {"labels": {"0": "background", "2": "cancer", "1": "pancreas"}}
    assert read(tmp_path, document) == space(background=0, pancreas=1, cancer=2)


def test_v2_names_may_be_digits(tmp_path):
    assert read(tmp_path, {"labels": {"0": 0, "1": 1}}).names == ("0", "1")


def test_a_flat_table_is_in_key_order_and_a_list_joins_values(tmp_path):
    assert read(tmp_path, {"tumour": [1, 3], "background": 0}) == space(tumour=(1, 3), background=0)
    assert read(tmp_path, {"background": 0, "a": 4, "ignore": 255}) == space(ignore=255, background=0, a=4)


def test_under_sigmoid_the_background_of_a_flat_table_is_no_channel(tmp_path):
    document = {"background": 0, "whole": [1, 2], "core": 2}
    assert read(tmp_path, document, "sigmoid") == space("sigmoid", whole=(1, 2), core=2)


def test_one_value_in_two_exclusive_classes_is_refused(tmp_path):
    text = refused(tmp_path, {"background": 0, "whole": [1, 2], "core": 2})
    assert text == ": label 2 belongs to whole and core; overlapping classes need --activation sigmoid"


@pytest.mark.parametrize(
    "labels", [{"background": 0, "a": 2}, {"a": 1, "b": 2}, {"a": 0, "b": 1, "c": 1}, {"0": "a", "2": "b"}]
)
def test_label_models_have_the_values_0_to_c_minus_1(tmp_path, labels):
    assert "a model with one channel per label has 0.." in refused(tmp_path, {"labels": labels})


@pytest.mark.parametrize("ignore", [1, 3, 7])
def test_ignore_is_the_highest_value_plus_1(tmp_path, ignore):
    text = refused(tmp_path, {"labels": {"background": 0, "a": 1, "ignore": ignore}})
    assert text == f": ignore is {ignore}; nnU-Net wants the highest label value plus 1"


def test_a_dataset_json_may_not_be_contradicted(tmp_path):
    document = {"labels": {"background": 0, "a": 1}}
    assert read(tmp_path, document, "softmax").activation == "softmax"
    text = refused(tmp_path, document, activation="sigmoid")
    assert text == ": it describes a softmax model, which contradicts --activation sigmoid"


@pytest.mark.parametrize(
    ("document", "text"),
    [
        ([1], ": a class table is a JSON object, not a list"),
        ("3", ": a class table is a JSON object, not a number"),
        ({}, ": class table: it holds no class"),
        ({"labels": {}}, ": class table: it holds no class"),
        ({"a": True}, ": 'a' must be a label value (a whole number from 0) or a list, not True"),
        ({"a": 1.5}, ": 'a' must be a label value (a whole number from 0) or a list, not 1.5"),
        ({"a": -1}, ": 'a' must be a label value (a whole number from 0) or a list, not -1"),
        ({"a": []}, ": 'a' must be a label value (a whole number from 0) or a list, not []"),
        ({"a": {"b": 1}}, ": 'a' must be a label value (a whole number from 0) or a list, not {'b': 1}"),
        ({"a": 0, "ignore": [1, 2]}, ": ignore must be a single label value"),
        ({"a": [0, 1], "ignore": 1}, ": class table: the ignore label 1 belongs to a class"),
        ({"labels": {"0": "a", "1": "a"}}, ": the name 'a' stands twice"),
        ({"labels": {"0": "a", "x": "b"}}, ": 'x' is not a label value, but its entry 'b' is a name"),
        (
            {"labels": {"a": [1, 2]}, "regions_class_order": "1"},
            ": regions_class_order must be a list of whole numbers",
        ),
    ],
)
def test_a_table_of_the_wrong_form_is_refused(tmp_path, document, text):
    assert refused(tmp_path, document) == text


def test_a_class_of_the_name_for_all_is_a_usage_error(tmp_path):
    for document in ({"(all)": 0}, {"labels": {"background": 0, "(all)": 1}}):
        assert refused(tmp_path, document, ReservedClassName) == ": class table: a class cannot be called (all)"


def test_broken_json_names_its_line(tmp_path):
    assert refused(tmp_path, '{\n"a": 0,\n"b" 1}', BrokenJson) == ":3: not valid JSON: Expecting ':' delimiter"


def test_a_key_that_stands_twice_is_refused(tmp_path):
    assert refused(tmp_path, '{"labels": {"a": 0, "b": 1, "a": 2}}', BrokenDocument) == ": the key 'a' stands twice"


def test_a_byte_order_mark_is_read_over(tmp_path):
    assert read(tmp_path, '\ufeff{"a": 0, "ü": 1}').names == ("a", "ü")


def test_files_that_are_no_json_text_are_refused(tmp_path, monkeypatch):
    path = tmp_path / "c.json"
    for content, error in ((b"", EmptyFile), (b'{"\xff": 1}', BrokenDocument), (b"[" * 100_000, BrokenDocument)):
        path.write_bytes(content)
        with pytest.raises(error, match=r"c.json"):
            classes.read_classes(path)
    path.write_text('{"a": ' + "1" * 5000 + "}")
    with pytest.raises(BrokenDocument):
        classes.read_classes(path)
    monkeypatch.setattr("segcal_cli.io.inputs.MAX_TEXT_BYTES", 100)
    with pytest.raises(OversizedText, match="5007 bytes of text; at most 100 are read"):
        classes.read_classes(path)


def test_a_single_channel_needs_no_table_and_several_do():
    assert classes.default_space(Path("a.npz"), 1) == space("sigmoid", foreground=1)
    assert classes.single_foreground() == space("sigmoid", foreground=1)
    with pytest.raises(TableNeeded) as caught:
        classes.default_space(Path("a.npz"), 3)
    assert str(caught.value) == "a.npz: 3 channels need names and label values: give --classes"


def test_two_exclusive_classes_reduce_to_the_one_without_label_0():
    assert classes.reduce_to_foreground(space(background=0, a=(1, 2))) == space("sigmoid", a=(1, 2))
    assert classes.reduce_to_foreground(space(a=1, background=(0, 2))) == space("sigmoid", a=1)
    assert classes.reduce_to_foreground(space(ignore=9, left=1, right=2)).ignore == 9
    for kept in (space(b=0, c=1, d=2), space("sigmoid", c=1, d=2), space("sigmoid", c=1)):
        assert classes.reduce_to_foreground(kept) is kept


CARET = (
    b'<?xml version="1.0" encoding="UTF-8"?> <CaretExtension>  <Date><![CDATA[2013-07-14T05:45:09]]></Date>'
    b'   <VolumeInformation Index="0">   <LabelTable>\n%s\n  </LabelTable>  <StudyMetaDataLinkSet>'
    b"  </StudyMetaDataLinkSet>  <VolumeType><![CDATA[Label]]></VolumeType>   </VolumeInformation></CaretExtension>\n  "
)


def label(key, name):
    return f'<Label Key="{key}" Red="0.1" Green="0.2" Blue="0.3" Alpha="1"><![CDATA[{name}]]></Label>'.encode()


def test_totalsegmentator_names_come_from_its_nifti_extension():
    xml = CARET % (label(2, "kidney_right") + label(1, "spleen")) + bytes(13)
    assert classes.classes_from_caret(xml, Path("a.nii.gz")) == space(background=0, spleen=1, kidney_right=2)
    named = CARET % (label(0, "nothing") + label(5, "spleen"))
    assert classes.classes_from_caret(named, Path("a.nii.gz")) == space(nothing=0, spleen=5)


BILLION = b'<!DOCTYPE x [<!ENTITY a "aaaaaaaaaa"><!ENTITY b "&a;&a;&a;&a;&a;&a;">]><x>&b;</x>'


@pytest.mark.parametrize(
    ("xml", "why"),
    [
        (BILLION, "it holds <!DOCTYPE"),
        (BILLION.replace(b"<!DOCTYPE x [", b""), "it holds <!ENTITY"),
        (BILLION.decode().encode("utf-16"), "not UTF-8"),
        (CARET % label("x", "a"), "Label Key='x' 'a'"),
        (CARET % label(-1, "a"), "Label Key='-1' 'a'"),
        (CARET % label("9" * 30, "a"), f"Label Key='{'9' * 30}' 'a'"),
        (CARET % label(1, " "), "Label Key='1' ''"),
        (CARET % (label(1, "a") + label(1, "b")), "key 1 stands twice"),
        (CARET % (label(1, "a") + label(2, "a")), "class table: a name stands twice: background, a, a"),
        (CARET % b"", "it holds no Label"),
        (b"<CaretExtension>", "no element found: line 1, column 16"),
    ],
)
def test_a_label_table_that_cannot_be_read_is_refused(xml, why):
    with pytest.raises(UnreadableLabelTable) as caught:
        classes.classes_from_caret(xml, Path("a.nii.gz"))
    assert str(caught.value) == f"a.nii.gz: its label table cannot be read ({why}); give --classes"


def test_a_label_table_of_many_megabytes_is_refused_unparsed():
    with pytest.raises(UnreadableLabelTable, match="16777217 bytes"):
        classes.classes_from_caret(bytes(2**24 + 1), Path("a.nii.gz"))


def test_a_name_for_several_classes_of_their_own_is_a_region_of_an_exclusive_table(tmp_path):
    space = read(tmp_path, {"background": 0, "NCR": 1, "ED": 2, "ET": 3, "TC": [1, 3], "WT": [1, 2, 3]})
    assert space.names == ("background", "NCR", "ED", "ET")
    assert [(region.name, space.parts(region)) for region in space.regions] == [("TC", (1, 3)), ("WT", (1, 2, 3))]
    assert type(space).from_json(space.to_json()) == space


def test_a_name_for_several_label_values_without_classes_is_a_channel(tmp_path):
    space = read(tmp_path, {"background": 0, "tumour": [1, 3], "edema": 2})
    assert (space.names, space.regions) == (("background", "tumour", "edema"), ())
