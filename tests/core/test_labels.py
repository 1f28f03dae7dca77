"""Class tables and label maps."""

import numpy as np
import pytest

from segcal_cli.core.labels import BadClassTable, Channel, LabelMap, LabelSpace, OverlappingClasses


def table(activation="softmax", ignore=None, **classes):
    channels = tuple(Channel(name, frozenset(values)) for name, values in classes.items())
    return LabelSpace(channels, activation, ignore)


def test_one_value_in_two_exclusive_classes_is_refused():
    with pytest.raises(OverlappingClasses) as caught:
        table(a=[0], b=[1, 2], c=[2])
    assert str(caught.value) == "label 2 belongs to b and c; overlapping classes need --activation sigmoid"


def test_regions_may_overlap():
    assert table("sigmoid", whole=[1, 2, 3], core=[2, 3]).known_values == {0, 1, 2, 3}


def test_the_row_over_all_classes_keeps_its_name_to_itself():
    with pytest.raises(BadClassTable, match=r"cannot be called \(all\)"):
        table(background=[0], **{"(all)": [1]})


@pytest.mark.parametrize("name", ["=1+1", "+a", "-a", "@a", "a\nb", "a\x1b[31m", "\x00"])
def test_a_name_that_a_spreadsheet_or_a_terminal_would_obey_is_no_class(name):
    with pytest.raises(BadClassTable) as caught:
        table(background=[0], **{name: [1]})
    assert str(caught.value) == f"class table: a class cannot be called {name!r}"


def test_a_name_stands_once_and_the_ignore_value_belongs_to_no_class():
    with pytest.raises(BadClassTable, match="ignore label 1"):
        table(background=[0], lesion=[1], ignore=1)
    with pytest.raises(BadClassTable, match="a name stands twice"):
        LabelSpace((Channel("a", frozenset({0})), Channel("a", frozenset({1}))), "softmax")


def test_two_exclusive_classes_and_one_channel_are_one_binary_problem():
    assert table(background=[0], lesion=[1]).measured == (1,)
    assert table(lesion=[1], background=[0]).measured == (0,)
    assert table("sigmoid", lesion=[1]).measured == (0,)
    assert table(background=[0], a=[1], b=[2]).measured == (0, 1, 2)
    assert not table("sigmoid", a=[1], b=[2]).binary


def test_order_values_activation_ignore_and_paint_make_a_table():
    same = table(background=[0], lesion=[1, 3], ignore=4)
    assert LabelSpace.from_json(same.to_json()) == same
    assert table(lesion=[1], background=[0]) != table(background=[0], lesion=[1])


def test_a_label_map_answers_for_classes_and_for_overlapping_regions():
    codes = np.array([[[0, 1, 2]]], dtype=np.uint8)
    regions = LabelMap(codes, np.array([[False, True, True], [False, False, True]]))
    assert regions.holds(0).tolist() == [[[False, True, True]]]
    assert regions.holds(1, np.s_[..., 2:]).tolist() == [[[True]]]
