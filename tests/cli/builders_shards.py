"""Sharded runs: every shard of a command, its parts merged in a shuffled order, in as many rounds as it takes."""

from __future__ import annotations

import random
from pathlib import Path

import numpy as np

from tests.cli.builders import Said, segcal

MOST_ROUNDS = 20
"""A method that still asks for more has lost its way."""


def parts_of(command: list[object], shards: int, folder: Path, *more: object) -> list[Path]:
    """The part of every shard. command: everything but -o."""
    paths = []
    for shard in range(1, shards + 1):
        path = folder / f"{shard}.npz"
        said = segcal(*command, "--shard", f"{shard}/{shards}", *more, "-o", path)
        assert said.code == 0, said.stderr
        paths.append(path)
    return paths


def merged(command: list[object], shards: int, folder: Path, output: Path, *tables: object, seed: int = 0) -> int:
    """Run every shard and merge, until there is a result; returns the number of rounds."""
    shuffled = random.Random(seed)
    resume: tuple[object, ...] = ()
    for number in range(1, MOST_ROUNDS):
        rounds = folder / f"round{number}"
        rounds.mkdir(parents=True)
        parts = parts_of(command, shards, rounds, *resume)
        shuffled.shuffle(parts)
        said = segcal("merge", *parts, "-o", output, *tables)
        assert said.code == 0, said.stderr
        if "is joined" not in said.stderr:
            return number
        state = rounds / "state.npz"
        output.rename(state)
        resume = ("--resume", state)
    raise AssertionError("no end of rounds")


def run(command: list[object], output: Path, *more: object) -> Said:
    """One run over all cases."""
    said = segcal(*command, "-o", output, *more)
    assert said.code == 0, said.stderr
    return said


def different(a: Path, b: Path) -> list[str]:
    """Names of arrays that differ between two artifacts, for a message that says more than "bytes differ"."""
    with np.load(a) as first, np.load(b) as second:
        names = sorted(set(first.files) | set(second.files))
        return [n for n in names if n not in first or n not in second or first[n].tobytes() != second[n].tobytes()]
