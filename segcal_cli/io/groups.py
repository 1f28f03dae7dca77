"""Groups: the patient, or the site, that a case belongs to.

Scans of one patient resemble each other, so the patient and not the scan is the unit of exchangeability. Every case
has exactly one group, which holds for all its files; a case without a group is refused, since a group of its own
would count a patient twice. A rule is a table with the columns ``case`` and ``group``, or a regular expression
searched for in the id, whose first capture group (or else the whole match) names the patient: ``^(sub-[0-9]+)``.
"""

from __future__ import annotations

import re
import warnings
from collections.abc import Mapping, Sequence
from dataclasses import field
from itertools import takewhile
from pathlib import Path

from segcal_cli.core.errors import PairingError, UsageError
from segcal_cli.core.frozen import dataclass
from segcal_cli.core.names import harmless
from segcal_cli.io.folders import NoSuchInput
from segcal_cli.io.problems import raise_all
from segcal_cli.io.tables import TableError, read_table

COLUMNS = ("case", "group")
"""Columns of a table of groups; it holds both and no other."""

SEPARATORS = re.compile(r"[-_. ]+")
"""What stands between the words of an id."""


class NoGroup(PairingError):
    """A case whose group the rule does not know. Arguments: case, the rule as it was given."""

    template = "{0}: no group in {1}"


class BadGroup(PairingError):
    """A group whose name a spreadsheet or a terminal would obey. Arguments: case, group."""

    template = "{0}: a group cannot be called {1!r}"


class BadExpression(UsageError):
    """A regular expression that does not compile. Arguments: the expression, why."""

    template = "--groups {0}: neither a CSV file nor a regular expression ({1})"


@dataclass(frozen=True, slots=True)
class Groups:
    """A rule from case id to group. rule: as given, for messages. Exactly one of table and expression is set."""

    rule: str
    table: Mapping[str, str] | None = None
    expression: re.Pattern[str] | None = field(default=None)

    def of(self, case: str) -> str:
        """The group of a case. Raises BadGroup, NoGroup; an empty match is none."""
        group: str | None = None
        if self.table is not None:
            group = self.table.get(case)
        elif self.expression is not None and (found := self.expression.search(case)):
            group = found[1] if self.expression.groups else found[0]
        if not group:
            raise NoGroup(case, self.rule)
        if not harmless(group):
            raise BadGroup(case, group)
        return group


def parse_groups(rule: str) -> Groups:
    """The rule that ``--groups`` names: a CSV if it ends so or is a file, else a regular expression.

    Raises BadExpression, NoSuchInput, CaseErrors or TableError (a case in two groups, and what read_table raises).
    """
    path = Path(rule)
    if rule.lower().endswith(".csv") or path.is_file():
        if not path.exists():
            raise NoSuchInput(path)
        return Groups(rule, table=_read(path))
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", FutureWarning)  # "[[" may mean a set of sets one day
            return Groups(rule, expression=re.compile(rule))
    except (re.error, OverflowError, RecursionError) as error:
        raise BadExpression(rule, error) from error


def scans_of_one_patient(cases: Sequence[str]) -> tuple[str, str] | None:
    """Two ids that look like scans of one patient, as ``sub-01_ses-1`` and ``sub-01_ses-2`` do; None where none do.

    Words that all ids begin with are the name of a data set. What follows names the patient up to its first word with
    a digit, if there is more behind it.
    """
    words = [SEPARATORS.split(case) for case in cases]
    alike = (len(set(column)) == 1 for column in zip(*words, strict=False))
    shared = sum(takewhile(bool, alike)) if len(words) > 1 else 0
    first: dict[tuple[str, ...], str] = {}
    for case, own in zip(cases, words, strict=True):
        end = next((i for i in range(shared, len(own)) if any(c.isdigit() for c in own[i])), len(own))
        if end + 1 < len(own) and (other := first.setdefault(tuple(own[: end + 1]), case)) != case:
            return other, case
    return None


def _read(path: Path) -> dict[str, str]:
    groups: dict[str, str] = {}
    problems = []
    for row in read_table(path, known=COLUMNS, required=COLUMNS, filled=COLUMNS):
        case, group = row.cells["case"], row.cells["group"]
        if groups.setdefault(case, group) != group:
            problems.append(TableError(path, row.line, f"case {case} is in group {groups[case]} already"))
    raise_all(problems)
    return groups
