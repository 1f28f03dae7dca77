"""Every key of what segcal reads as a document: in part in each run of the suite, as a whole among the slow tests."""

from __future__ import annotations

import itertools

import pytest

from tests.fuzz.every import SCENES, scene_of
from tests.fuzz.every_key import LEFT_OUT, finding, holders, paths, replaced, substitutions
from tests.fuzz.trials import Stage

ONE_OF_EACH = (
    ("calibrate-artifacts", "platt.npz"),
    ("conformal-sets-artifacts", "plain.npz"),
    ("history", "history.npz"),
    ("ntr-interval-artifacts", "ratio.npz"),
    ("cluster-artifacts", "annuli.npz"),
    ("saved-counts", "counts.npz"),
    ("parts", "part2.npz"),
    ("measured-parts", "measured1.npz"),
    ("shard-records", "kept/segcal-run.shard-001-of-002.json"),
    ("journal", "kept/.segcal-journal.jsonl"),
)
"""Scene and file: every kind of document once. The entries of a record are those of a journal."""

FEW = (LEFT_OUT, {"x": None})
"""Two substitutes for each run of the suite: nothing, and what is neither number nor text nor list."""

TRIED = 64
"""At most about so many substitutes a document in each run of the suite."""

EVERY = [(scene.name, victim.file) for scene in SCENES for victim in holders(scene)]


def findings(stage, victim, pairs):
    """What is found among pairs of a substitution and a command."""
    return [said for one, command in pairs if (said := finding(stage, victim, one, command))]


def staged(place, name, file):
    stage = Stage(scene_of(name), place / "scene")
    return stage, next(victim for victim in stage.scene.victims if victim.file == file)


@pytest.mark.parametrize(("name", "file"), ONE_OF_EACH)
def test_a_key_that_is_missing_or_holds_something_else_is_no_bug(name, file, tmp_path):
    """Half of the keys, or as many as ``TRIED`` allows, substitutes and commands in turn; the slow test below takes
    all."""
    stage, victim = staged(tmp_path, name, file)
    every = list(substitutions(victim, stage.contents[file], FEW))
    apart = max(2, -(-len(every) // (2 * TRIED)))
    tried = (one for k, one in enumerate(every) if (k + k // 2) % (2 * apart) == 0)
    found = findings(stage, victim, zip(tried, itertools.cycle(stage.commands(file)), strict=False))
    assert not found, "\n\n".join(found[:3])


@pytest.mark.slow
@pytest.mark.parametrize(("name", "file"), EVERY)
def test_no_substitute_for_any_key_is_a_bug_to_any_command(name, file, tmp_path):
    stage, victim = staged(tmp_path, name, file)
    commands = list(stage.commands(file))
    pairs = ((one, command) for one in substitutions(victim, stage.contents[file]) for command in commands)
    found = findings(stage, victim, pairs)
    assert not found, "\n\n".join(found[:3])


def test_every_node_is_reached_once_and_of_siblings_built_alike_the_first_is_entered():
    document = {"a": {"x": 1}, "b": {"x": 2}, "c": [[1, 2, 3], [4, 5, 6]], "seal": "5e"}
    assert list(paths(document)) == [("a",), ("a", "x"), ("b",), ("c",), ("c", 0), ("c", 0, 0), ("c", 0, 1), ("c", 1)]


def test_a_substitute_stands_where_the_node_stood_and_the_rest_is_as_it_was():
    document = {"a": [{"x": 1}, 2], "b": 3}
    assert replaced(document, ("a", 0, "x"), None) == {"a": [{"x": None}, 2], "b": 3}
    assert replaced(document, ("a", 0), LEFT_OUT) == {"a": [2], "b": 3}
    assert replaced(document, ("b",), LEFT_OUT) == {"a": [{"x": 1}, 2]}
    assert document == {"a": [{"x": 1}, 2], "b": 3}
