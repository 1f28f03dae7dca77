"""Presets: accepted under the names of their own data set, refused under those of any other."""

from __future__ import annotations

import pytest

from segcal_cli.core.labels import Channel, LabelSpace
from segcal_cli.ratio.presets import PRESETS, OtherConvention, UnknownPreset, preset_of


def classes(*names):
    """Exclusive classes with the values 0, 1, 2 ..."""
    return LabelSpace(tuple(Channel(name, frozenset({value})) for value, name in enumerate(names)), "softmax")


def regions(**channels):
    return LabelSpace(tuple(Channel(name, frozenset(values)) for name, values in channels.items()), "sigmoid")


NNUNET_REGIONS = regions(whole_tumor=(1, 2, 3), tumor_core=(2, 3), enhancing_tumor=(3,))
KITS_REGIONS = regions(kidney=(1, 2, 3), masses=(2, 3), tumor=(2,))


@pytest.mark.parametrize(
    ("preset", "space"),
    [
        ("ntr-brats2023", classes("background", "NCR", "ED", "ET")),
        ("ntr-brats2023", classes("background", "NETC", "SNFH", "ET")),
        ("ntr-brats2023", classes("background", "necrotic tumor core", "peritumoral edema", "enhancing tumor")),
        ("ctr-brats2023", classes("background", "necrosis", "oedema", "enhancing", "resection cavity")),
        ("ctr-brats2023", classes("background", "class_1", "class_2", "3")),
        ("ntr-brats-nnunet", classes("background", "edema", "non-enhancing tumor", "enhancing tumour")),
        ("ntr-brats-nnunet", NNUNET_REGIONS),
        ("tumour-kidney-kits", classes("background", "kidney", "tumor", "cyst")),
        ("tumour-kidney-kits", KITS_REGIONS),
    ],
)
def test_a_preset_takes_the_names_of_its_own_data_set_and_names_that_mean_nothing(preset, space):
    assert preset_of(preset, space) is PRESETS[preset]


@pytest.mark.parametrize(
    ("preset", "space", "words"),
    [
        ("ntr-brats2023", classes("background", "edema", "necrosis", "enhancing"), "1 for necrosis .* calls it edema"),
        ("ntr-brats2023", classes("background", "liver", "lesion", "vessel"), "1 for necrosis .* calls it liver"),
        ("ntr-brats2023", classes("background", "kidney", "tumor", "cyst"), "1 for necrosis .* calls it kidney"),
        ("ntr-brats2023", classes("background", "Anterior", "Posterior"), "1 for necrosis .* calls it Anterior"),
        ("ntr-brats2023", NNUNET_REGIONS, "2,3 for oedema \\+ enhancing tumour .* calls it tumor_core"),
        ("ntr-brats2021", classes("background", "NCR", "ED", "ET"), "3 for nothing .* calls it ET"),
        ("ntr-brats2023", classes("background", "pancreas", "cancer"), "1 for necrosis .* calls it pancreas"),
        ("tumour-kidney-kits", classes("background", "NCR", "ED", "ET"), "1 for kidney .* calls it NCR"),
        ("tumour-kidney-kits", classes("background", "tumor", "kidney"), "1 for kidney .* calls it tumor"),
        ("tumour-kidney-kits", regions(organ=(1, 2, 3), tumor=(2,)), "calls it organ"),
    ],
)
def test_a_preset_is_refused_where_a_name_belongs_to_another_data_set_and_both_are_shown(preset, space, words):
    with pytest.raises(OtherConvention, match=words):
        preset_of(preset, space)


def test_an_unknown_preset_is_refused_with_those_that_there_are():
    with pytest.raises(UnknownPreset, match="ntr is not known; possible are ntr-brats2023, ctr-brats2023"):
        preset_of("ntr", classes("background", "a"))
