"""Names of picture files."""

from __future__ import annotations

import pytest

from segcal_cli.reporting.pictures import Picture, SamePictureName, refuse_same_names, safe
from tests.reporting.builders_drawings import DRAWINGS


def picture(name, source="raw", case=None):
    return Picture("corp", name, source, case, "", "", DRAWINGS["corp"])


def test_a_file_is_named_by_plot_class_source_and_case():
    assert picture("lesion", case="p1").stem == "corp__lesion__raw__p1"


def test_all_classes_and_all_sources_are_called_all():
    assert picture("(all)", "").stem == picture("", "").stem == "corp__all__all"


@pytest.mark.parametrize(
    ("name", "expected"),
    [("a/b\\c", "a-b-c"), ("../x", "..-x"), ("a__b", "a-b"), ("tumör 1", "tumör-1"), ("$(rm)", "--rm"), ("", "-")],
)
def test_unsafe_characters_become_dashes(name, expected):
    assert safe(name) == expected


def test_two_pictures_of_one_name_are_refused_capitals_aside():
    with pytest.raises(SamePictureName, match="A b, raw and a-B, raw would both be written as corp__a-B__raw"):
        refuse_same_names([picture("A b"), picture("a-B")])
    refuse_same_names([picture("a"), picture("b")])
