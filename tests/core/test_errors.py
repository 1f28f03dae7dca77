"""Counts in the texts of errors."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from segcal_cli.core.errors import SegcalError, count_text, with_article
from segcal_cli.io.artifacts import OtherKind


class Uncovered(SegcalError):
    """An error whose text has a count."""

    template = "{0}: {1:voxel belongs|voxels belong} to no class, of {2}"


@pytest.mark.parametrize(
    ("count", "text"),
    [(0, "0 voxels belong"), (1, "1 voxel belongs"), (2, "2 voxels belong"), (np.int64(1), "1 voxel b")],
)
def test_a_template_asks_for_a_count_with_its_noun_and_verb(count: int, text: str):
    assert f"case: {text}" in str(Uncovered("case", count, 1000))
    assert str(Uncovered("case", count, 1000)).endswith("of 1000")


def test_a_noun_alone_takes_an_s():
    assert [count_text(n, "case") for n in (0, 1, 2)] == ["0 cases", "1 case", "2 cases"]
    assert count_text(2, "class", "classes") == "2 classes"


@pytest.mark.parametrize(
    ("kind", "words"),
    [("evaluation", "an evaluation"), ("calibrate", "a calibrate"), ("ntr-interval", "an ntr-interval"), ("", "a ")],
)
def test_a_noun_has_its_article(kind, words):
    assert with_article(kind) == words
    assert f"is {words} artifact;" in str(OtherKind(Path("f.npz"), kind, "apply", "cluster"))
