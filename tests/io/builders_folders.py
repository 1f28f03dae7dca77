"""Folders of empty files: pairing goes by names and opens nothing."""

from __future__ import annotations

from pathlib import Path

from segcal_cli.core.labels import Channel, LabelSpace


def put(root: Path, *names: str) -> Path:
    """The root, with an empty file under each relative name."""
    root.mkdir(parents=True, exist_ok=True)
    for name in names:
        path = root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.touch()
    return root


def exclusive(*names: str) -> LabelSpace:
    """Exclusive classes with label values 0, 1, 2, ..; the first is the background."""
    return LabelSpace(tuple(Channel(name, frozenset({value})) for value, name in enumerate(names)), "softmax")


def regions(*names: str) -> LabelSpace:
    """Independent regions with label values 1, 2, .."""
    return LabelSpace(tuple(Channel(name, frozenset({value})) for value, name in enumerate(names, 1)), "sigmoid")
