"""Records as plain data: what comes back equals what went in, and a tree cannot name anything but records."""

from __future__ import annotations

import json
import math
import re
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as arrays

from segcal_cli.calibration.auxiliary import Slab
from segcal_cli.core.case import CaseFacts
from segcal_cli.core.labels import Channel, LabelSpace
from segcal_cli.execution.work import Result, WorkerDied
from segcal_cli.io.records import NotARecord, flattened, restored

SPACE = LabelSpace((Channel("background", frozenset({0})), Channel("lesion", frozenset({1, 3}))), "softmax")


def back(value: Any) -> Any:
    """There and back, through the text of the tree."""
    tree, pool = flattened(value)
    return restored(json.loads(json.dumps(tree, allow_nan=False)), pool)


scalars = st.none() | st.booleans() | st.integers() | st.text() | st.floats(allow_nan=False)
plain = st.recursive(
    scalars,
    lambda inner: (
        st.lists(inner, max_size=3)
        | st.tuples(inner, inner)
        | st.dictionaries(scalars, inner, max_size=3)
        | st.frozensets(st.integers(), max_size=3)
    ),
    max_leaves=8,
)


@given(plain)
def test_plain_data_come_back(value: Any):
    found = back(value)
    assert found == value
    assert repr(found) == repr(value) or isinstance(value, frozenset | tuple | dict | list)


@given(arrays.arrays(st.sampled_from(["bool", "int8", "uint16", "int64", "float32", "float64"]), arrays.array_shapes()))
def test_arrays_come_back_with_every_bit(array: np.ndarray):
    found = back({"array": array})["array"]
    assert (found.dtype, found.shape, found.tobytes()) == (array.dtype, array.shape, array.tobytes())


def test_an_array_keeps_its_order_in_memory():
    array = np.asfortranarray(np.arange(6.0).reshape(2, 3))
    found = back(array)
    assert found.flags.f_contiguous
    assert not found.flags.c_contiguous
    np.testing.assert_array_equal(found, array)


def test_an_array_that_stands_twice_is_kept_once():
    array = np.arange(1000.0)
    _, pool = flattened({"a": array, "b": array})
    assert pool["float64"].size == 1000
    both = back({"a": array, "b": array})
    assert both["a"] is both["b"]


def test_numpy_scalars_keep_their_type():
    assert type(back(np.float32(0.1))) is np.float32
    assert back(np.float32(0.1)) == np.float32(0.1)


@pytest.mark.parametrize("value", [math.inf, -math.inf, math.nan])
def test_floats_that_json_does_not_know_come_back(value: float):
    assert repr(back(value)) == repr(value)


@pytest.mark.parametrize(
    "value",
    [
        SPACE,
        CaseFacts("ab", saturation={"lesion": (0.0, 0.1, 0.2, 0.3)}),
        Slab(0, 2, np.zeros(3)),
        re.compile(r"(\d+)_x"),
    ],
)
def test_records_come_back(value: Any):
    assert repr(back(value)) == repr(value)
    assert type(back(value)) is type(value)


def test_a_failed_case_comes_back_with_its_error():
    error = WorkerDied("case_1")
    error.case = "case_1"
    found = back(Result("case_1", error=error))
    assert (type(found.error), found.error.args, found.error.case) == (WorkerDied, ("case_1",), "case_1")


def test_a_path_keeps_its_name_alone():
    assert back(Path("/home/somebody/preds/a.npz")) == Path("a.npz")


@pytest.mark.parametrize(
    "value", [object(), len, {1, 2}, np.array([None], dtype=object), np.array(["text"]), re.compile("a", re.IGNORECASE)]
)
def test_what_is_no_plain_data_is_refused(value: Any):
    with pytest.raises(NotARecord):
        flattened(value)


@pytest.mark.parametrize(
    "tree",
    [
        {"record": "os:system", "fields": {}},
        {"record": "builtins:eval", "fields": {}},
        {"record": "io.records:importlib", "fields": {}},
        {"record": "io.records:Path", "fields": {}},
        {"record": "..os:path", "fields": {}},
        {"record": "io.records:flattened", "fields": {}},
        {"record": "io.parts:read_part", "fields": {}},
        {"record": "no.such.module:Name", "fields": {}},
        {"record": "core.errors:SegcalError", "fields": {}},
        {"error": "core.labels:LabelSpace", "args": [], "of": ""},
        {"named": "core.case:CaseFacts", "items": []},
        {"record": "core.case:CaseFacts", "fields": {"nonsense": 1}},
        {"array": ["float64", [4], 0, "C"]},
        {"array": ["float64", [-1], 0, "C"]},
        {"array": ["float64", [1], -1, "C"]},
        {"array": ["object", [1], 0, "C"]},
        {"unknown": 1},
        {},
    ],
)
def test_a_tree_that_no_state_made_is_refused(tree: Any):
    with pytest.raises(NotARecord):
        restored(tree, {"float64": np.zeros(3)})
