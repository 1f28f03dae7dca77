"""Which cases get a diagram of their own: ``worst:3,median:1,best:1``, ``all``, or ids.

Ranked by ACE of the row ``(all)`` of the first source; a case without, because it holds no class, has no rank.
``median`` takes those nearest to the middle of the ranking, so that they are typical and not chosen.
"""

from __future__ import annotations

import re
from collections.abc import Sequence

from segcal_cli.core.errors import UsageError
from segcal_cli.core.frozen import dataclass
from segcal_cli.metrics.measures import CaseMeasures

RANKED = re.compile(r"(worst|median|best):(\d+)")

EVERY = "all"

NAMED = 5
"""So many ids stand in the message about one that is not there."""


class UnknownCase(UsageError):
    """A case that is not there."""

    template = "--show-cases: {0} is no case; give worst:N, median:N, best:N, all, or ids such as {1}"


@dataclass(frozen=True, slots=True)
class ShownCases:
    """What ``--show-cases`` asks for, item by item."""

    items: tuple[str, ...]

    @classmethod
    def parse(cls, text: str) -> ShownCases:
        return cls(tuple(item for part in text.split(",") if (item := part.strip())))

    @property
    def ids(self) -> tuple[str, ...]:
        """Items that are ids."""
        return tuple(item for item in self.items if item != EVERY and not RANKED.fullmatch(item))

    def require(self, known: Sequence[str]) -> None:
        """Raise UnknownCase for an id that is no case."""
        for item in self.ids:
            if item not in known:
                more = ", ..." if len(known) > NAMED else ""
                raise UnknownCase(item, ", ".join(known[:NAMED]) + more)

    def choose(self, cases: Sequence[CaseMeasures]) -> tuple[str, ...]:
        """Ids in the order of the items, each once. cases: of the first source. Raises UnknownCase."""
        self.require([case.case for case in cases])
        ranking = [case.case for case in sorted(cases, key=_rank) if case.all["ace"] is not None]
        chosen: list[str] = []
        for item in self.items:
            found = RANKED.fullmatch(item)
            if item == EVERY:
                chosen += [case.case for case in cases]
            elif found is None:
                chosen.append(item)
            else:
                chosen += _ranked(ranking, found[1], int(found[2]))
        return tuple(dict.fromkeys(chosen))


def _rank(case: CaseMeasures) -> tuple[float, bytes]:
    """Worst first, equal ones by id."""
    return -float(case.all["ace"] or 0.0), case.case.encode()


def _ranked(ranking: Sequence[str], which: str, n: int) -> list[str]:
    if which == "worst":
        return list(ranking[:n])
    if which == "best":
        return list(ranking[::-1][:n])
    middle = (len(ranking) - 1) / 2
    return [ranking[i] for i in sorted(range(len(ranking)), key=lambda i: (abs(i - middle), i))[:n]]
