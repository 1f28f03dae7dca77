"""Kinds of artifacts: what each command asks of one, whatever method it came from.

Every kind has a module ``KIND_kind.py`` with the functions named here; it is imported when an artifact of that kind
is met, so that no command loads methods that it does not use.

    describe(path, artifact, alphas) -> Description     for ``inspect``; alphas: () for the usual

For ``evaluate``, of kinds other than ``calibrate`` (a calibrator is a source of probabilities like any other):

    FILES                                       ends of the names of the files that ``present`` makes
    measurement(path, artifact, predictions, inputs, judging) -> Estimator over cases
    present(name, path, artifact, result, judging, *, in_sample) -> Presented
    PLOTS, SECTIONS, pictures(verdicts, judging, plots, cells)            of kinds that ``reliability`` draws
    compare([(name, path, artifact, result)], judging) -> Compared        of kinds that are compared side by side
"""

from __future__ import annotations

import importlib
from collections.abc import Mapping
from dataclasses import dataclass, field
from types import ModuleType
from typing import Any

from segcal_cli.core.errors import UsageError
from segcal_cli.reporting.tables import Table

KINDS: Mapping[str, str] = {"calibrate": "calibrate_kind", "cluster": "cluster_kind", "ntr-interval": "ratio_kind"}
"""Kind -> its module in this package."""


class NoLevels(UsageError):
    """A level for an artifact that has none to choose."""

    template = "{0} is a {1} artifact; it has no levels for --alpha"


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


def module_of(kind: str) -> ModuleType:
    """The module of a kind. Raises KeyError for a kind that this version does not have."""
    return importlib.import_module(f"segcal_cli.workflows.{KINDS[kind]}")
