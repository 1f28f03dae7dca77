"""Targets: classes, regions, unions; and what is refused."""

import numpy as np
import pytest

from segcal_cli.confidence.targets import (
    PartOfClass,
    Target,
    TargetTwice,
    UnionOfRegions,
    UnknownTarget,
    WholeImage,
    default_targets,
    parse_targets,
    truth_of,
)
from segcal_cli.core.labels import Channel, LabelMap, LabelSpace


def table(activation="softmax", **values):
    channels = tuple(Channel(name, frozenset(found)) for name, found in values.items())
    return LabelSpace(channels, activation)


BRAIN = table(background={0}, edema={1}, core={2, 3})
NESTED = table("sigmoid", whole={1, 2, 3}, core={2, 3})


def test_without_a_name_every_foreground_class_or_region_is_a_target():
    assert default_targets(BRAIN) == (Target("edema", (1,)), Target("core", (2,)))
    assert default_targets(NESTED) == (Target("whole", (0,)), Target("core", (1,)))
    assert default_targets(table(background={0}, lesion={1})) == (Target("lesion", (1,)),)


def test_unions_of_names_and_of_label_values_are_the_same():
    both = (Target("tumour", (1, 2)),)
    assert parse_targets(["tumour=1+2+3"], BRAIN) == parse_targets(["tumour=edema+core"], BRAIN) == both
    assert parse_targets(["edema", "x=1"], BRAIN) == (Target("edema", (1,)), Target("x", (1,)))


def test_a_named_region_of_exclusive_classes_is_a_union():
    space = LabelSpace(BRAIN.channels, "softmax", regions=(Channel("tumour", frozenset({1, 2, 3})),))
    assert parse_targets(["tumour"], space) == (Target("tumour", (1, 2)),)


@pytest.mark.parametrize(
    ("texts", "space", "error"),
    [
        (["liver"], BRAIN, UnknownTarget),
        (["x=7"], BRAIN, UnknownTarget),
        (["x=2"], BRAIN, PartOfClass),
        (["x=0+1+2+3"], BRAIN, WholeImage),
        (["edema", "edema"], BRAIN, TargetTwice),
        (["x=whole+core"], NESTED, UnionOfRegions),
    ],
)
def test_what_is_no_target_is_refused(texts, space, error):
    with pytest.raises(error):
        parse_targets(texts, space)


def test_the_truth_of_a_union_leaves_ignored_voxels_out():
    codes = np.array([[[0, 1, 2, 0]]], np.uint8)
    ignored = np.array([[[False, False, True, True]]])
    labels = LabelMap(codes, np.eye(3, dtype=bool), ignored)
    assert truth_of(labels, Target("tumour", (1, 2))).tolist() == [[[False, True, False, False]]]
