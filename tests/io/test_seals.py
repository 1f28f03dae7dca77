"""Seals: what was changed since it was written is known."""

from __future__ import annotations

import json

import numpy as np
import pytest

from segcal_cli.io.seals import is_sealed, sealed

DOCUMENT = {"b": [1, 2.5, None], "a": {10: "ü", 9: True}, "c": "\ud800"}
ARRAYS = {"z": np.arange(6.0).reshape(2, 3), "empty": np.zeros((0, 4), np.int8)}


def read_back(document):
    return json.loads(json.dumps(document, indent=2))


def test_a_document_and_its_arrays_are_known_again_in_another_layout():
    arrays = {"empty": ARRAYS["empty"], "z": np.asfortranarray(ARRAYS["z"]).astype(">f8")}
    assert is_sealed(read_back(sealed(DOCUMENT, ARRAYS)), arrays)


def test_a_seal_takes_the_place_of_another():
    assert sealed({**DOCUMENT, "seal": "x"}, ARRAYS) == sealed(DOCUMENT, ARRAYS)


@pytest.mark.parametrize(
    "change",
    [
        {"b": [1, 2.5]},
        {"b": [1.0, 2.5, None]},
        {"b": [1, 2.5, float("nan")]},
        {"new": 1},
        {"seal": None},
        {"seal": 7},
    ],
)
def test_a_changed_document_is_not_sealed(change):
    assert not is_sealed({**read_back(sealed(DOCUMENT, ARRAYS)), **change}, ARRAYS)


@pytest.mark.parametrize(
    "arrays",
    [
        {},
        {"z": ARRAYS["z"]},
        {**ARRAYS, "more": np.zeros(1)},
        {**ARRAYS, "z": ARRAYS["z"].T},
        {**ARRAYS, "z": ARRAYS["z"].astype(np.float32)},
        {**ARRAYS, "z": np.nextafter(ARRAYS["z"], 9.0)},
        {**ARRAYS, "empty": np.zeros((0, 5), np.int8)},
    ],
)
def test_changed_arrays_are_not_sealed(arrays):
    assert not is_sealed(read_back(sealed(DOCUMENT, ARRAYS)), arrays)
