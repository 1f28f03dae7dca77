"""Strata: kinds of cases known without labels, each with thresholds of its own (Mondrian conformal prediction)."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import replace
from itertools import pairwise
from pathlib import Path

import numpy as np

from segcal_cli.core.errors import PairingError, UsageError
from segcal_cli.core.frozen import dataclass
from segcal_cli.io.groups import Groups, NoGroup, parse_groups

VOLUME = "volume:"
"""Start of a rule by the volume of the predicted mask."""

TABLE = "CSV"
"""What an artifact says of a rule that was a table: the table of new cases is another one."""

MM3_PER_ML = 1000.0

UNKNOWN = -1
"""Index of a stratum that calibration did not have: its sets say nothing."""


class BadEdges(UsageError):
    """Volume strata need ascending edges."""

    template = "--mondrian {0}: edges in ml must be positive and ascending, as in volume:1,10"


class NoVoxelSize(UsageError):
    """Volumes without a voxel size."""

    template = "--mondrian {0}: strata by volume need a voxel size, and these predictions have no place in space"


class TableNeeded(UsageError):
    """An artifact with strata of a table is applied without one."""

    template = "{0} has strata from a CSV; give --mondrian with the strata of the new cases"


class UnwantedRule(UsageError):
    """A rule for an artifact that has another one, or none."""

    template = "--mondrian {0}: {1} has {2}"


class NoStratum(PairingError):
    """A case whose stratum the rule does not know."""

    template = "{0}: no stratum in {1}"


@dataclass(frozen=True, slots=True)
class StrataRule:
    """Exactly one of groups and edges is used. text: as given."""

    text: str
    groups: Groups | None = None
    edges: tuple[float, ...] = ()

    @property
    def stored(self) -> str:
        """What the artifact says of the rule: no path."""
        return TABLE if self.groups is not None and self.groups.table is not None else self.text

    @property
    def portable(self) -> StrataRule:
        """The same rule, whose messages name a table without its folder."""
        if self.groups is None or self.groups.table is None:
            return self
        name = Path(self.text).name
        return replace(self, text=name, groups=replace(self.groups, rule=name))

    @property
    def names(self) -> tuple[str, ...]:
        """Names of the volume strata, from small to large."""
        shown = [f"{edge:g}" for edge in self.edges]
        between = [f"{low} to {high} ml" for low, high in pairwise(shown)]
        return (f"below {shown[0]} ml", *between, f"{shown[-1]} ml or more")

    def of(self, case: str, predicted_ml: float) -> str | None:
        """The stratum of a case, None where the rule does not know it."""
        if self.groups is None:
            return self.names[int(np.searchsorted(self.edges, predicted_ml, side="right"))]
        try:
            return self.groups.of(case)
        except NoGroup:
            return None


def parse_strata(text: str) -> StrataRule:
    """The rule of ``--mondrian``. Raises BadEdges, and what parse_groups raises."""
    if not text.startswith(VOLUME):
        return StrataRule(text, parse_groups(text))
    try:
        edges = tuple(float(part) for part in text.removeprefix(VOLUME).split(","))
    except ValueError:
        raise BadEdges(text) from None
    if not all(0 < edge < math.inf for edge in edges) or list(edges) != sorted(set(edges)):
        raise BadEdges(text)
    return StrataRule(text, edges=edges)


def assigned(
    rule: StrataRule, ids: Sequence[str], predicted_voxels: np.ndarray, voxel_volume: np.ndarray
) -> tuple[tuple[str, ...], np.ndarray]:
    """Names of the strata, and int64 "case target" of indices into them. predicted_voxels: "case target".

    Raises NoStratum.
    """
    found = np.empty(predicted_voxels.shape, dtype=object)
    for case, target in np.ndindex(*found.shape):
        ml = predicted_voxels[case, target] * voxel_volume[case] / MM3_PER_ML
        name = rule.of(ids[case], float(ml))
        if name is None:
            raise NoStratum(ids[case], rule.text)
        found[case, target] = name
    names = rule.names if rule.groups is None else tuple(sorted(set(found.reshape(-1)), key=str.encode))
    return names, np.vectorize(names.index, otypes=[np.int64])(found)


@dataclass(frozen=True, slots=True)
class Strata:
    """The index of a new case's stratum among those of the calibration; UNKNOWN for another one."""

    rule: StrataRule
    names: tuple[str, ...]

    def __call__(self, case: str, predicted_ml: float) -> int:
        name = self.rule.of(case, predicted_ml)
        return self.names.index(name) if name in self.names else UNKNOWN


def strata_rule(artifact: Path, stored: str | None, given: str | None) -> StrataRule | None:
    """How new cases get their stratum. stored: the artifact's rule; given: that of the command line, or None.

    Raises TableNeeded, UnwantedRule.
    """
    if stored is None:
        if given is not None:
            raise UnwantedRule(given, artifact, "no strata")
        return None
    if stored == TABLE:
        if given is None:
            raise TableNeeded(artifact)
        return parse_strata(given)
    if given is not None and given != stored:
        raise UnwantedRule(given, artifact, f"the strata of {stored}")
    return parse_strata(stored)
