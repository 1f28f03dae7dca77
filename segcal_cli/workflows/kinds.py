"""Kinds of artifacts: what each command asks of one, whatever method it came from.

Every kind has a module ``KIND_kind.py`` with the functions named here; it is imported when an artifact of that kind
is met, so that no command loads methods that it does not use.

    describe(path, artifact) -> Description     for ``inspect``
    describe_at(path, artifact, alphas, verbose=) -> Description    the same at levels, of kinds that have levels

For ``evaluate``, of kinds other than ``calibrate`` (a calibrator is a source of probabilities like any other):

    FILES                                       ends of the names of the files that ``present`` makes
    measurement(path, artifact, predictions, inputs, options) -> Estimator over cases
    present(name, path, artifact, result, options, *, in_sample) -> Presented
    READING                                     of the pictures that it has for ``reliability``: plot -> Reading
    pictures(name, path, artifact, result, plots, options, *, in_sample) -> Iterator[Picture]
    pictures_together(shown, plots, options, cells) -> Iterator[Picture]      instead, of kinds that share pictures
    COMPARED_FILES, compare(named, options) -> Compared                 of kinds that are compared side by side
"""

from __future__ import annotations

import importlib
from collections.abc import Mapping
from dataclasses import field
from types import ModuleType
from typing import Any

from segcal_cli.core.frozen import dataclass
from segcal_cli.reporting.tables import Table

KINDS: Mapping[str, str] = {
    "calibrate": "calibrate_kind",
    "cluster": "cluster_kind",
    "conformal-sets": "conformal_kind",
    "ntr-interval": "ratio_kind",
}
"""Kind -> its module in this package."""

IN_SAMPLE = " In-sample: some of these cases were used in the fit, or by its calibrator, so coverage is flattered."
"""The end of a caption of such pictures."""

SAVED = "evaluation"
"""The kind of saved counts, which no command applies."""


@dataclass(frozen=True, slots=True)
class Reading:
    """The title of a kind of picture, and how to read it, in two sentences."""

    title: str
    how: str


@dataclass(frozen=True, slots=True)
class Description:
    """What ``inspect`` says of an artifact beyond its header: lines of text, and entries of the document."""

    lines: tuple[str, ...] = ()
    document: dict[str, Any] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Presented:
    """What ``evaluate`` says of an artifact. key: under which ``entry`` stands in the result of the document.

    entry: one artifact's numbers; several artifacts of a kind make a list. tables: for people. files: what is written
    beside the table, text by the end of its name.
    """

    key: str
    entry: dict[str, Any]
    tables: tuple[Table, ...] = ()
    files: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Compared:
    """What several artifacts of a kind come to side by side. extra: joins each entry; files: text by the end of its
    name, beside the table under the kind's name."""

    extra: Mapping[str, Any]
    tables: tuple[Table, ...] = ()
    files: Mapping[str, str] = field(default_factory=dict)


def module_of(kind: str) -> ModuleType:
    """The module of a kind. Raises KeyError for a kind that this version does not have."""
    return importlib.import_module(f"segcal_cli.workflows.{KINDS[kind]}")
