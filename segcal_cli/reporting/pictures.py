"""Pictures: a figure, the numbers in it, and the words for those who do not see it.

Each plot module turns plain arrays into a ``Drawing``. The figure is built only when it is saved, so that thousands of
pictures need the memory of one; the numbers are exactly those that the figure shows, and become the CSV beside it.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import TYPE_CHECKING, Any

from segcal_cli.core.errors import UsageError
from segcal_cli.core.frozen import dataclass
from segcal_cli.reporting.style import saved, styled
from segcal_cli.reporting.tables import csv_text

if TYPE_CHECKING:
    from matplotlib.figure import Figure

EVERY = "all"
"""Stands in a file name for all classes, or all sources, in one picture."""

UNSAFE = re.compile(r"[^\w.+-]|_{2,}")
"""Characters that a shell or a file system may read as something else, and the separator of the parts of a name."""


class SamePictureName(UsageError):
    """Two pictures would be one file."""

    template = "the pictures of {0} and {1} would both be written as {2}; rename a class, a source or a case"


@dataclass(frozen=True, slots=True)
class Drawing:
    """A plot. figure: builds it, inside ``styled``. columns, rows: the numbers shown. alt: what it shows, in words."""

    figure: Callable[[], Figure]
    columns: tuple[str, ...]
    rows: tuple[Mapping[str, Any], ...]
    alt: str

    @property
    def csv(self) -> str:
        return csv_text(self.columns, self.rows)

    def files(self, formats: Iterable[str], dpi: int, title: str) -> dict[str, bytes]:
        """Format -> the picture in it; drawn once."""
        with styled():
            figure = self.figure()
            return {format: saved(figure, format, dpi, title) for format in formats}


@dataclass(frozen=True, slots=True)
class Picture:
    """A drawing and what it is of. name: a class, or "" for all; source: "" for all; case: only where it shows one.

    of_artifact: ``source`` is an artifact that promises something of its own; case is then a page of several.
    """

    plot: str
    name: str
    source: str
    case: str | None
    title: str
    caption: str
    drawing: Drawing
    of_artifact: bool = False

    @property
    def stem(self) -> str:
        """``PLOT__CLASS__SOURCE[__CASE]``, or ``PLOT__ARTIFACT[__PAGE]``."""
        parts = [self.plot, self.source] if self.of_artifact else [self.plot, self.name or EVERY, self.source or EVERY]
        return "__".join(safe(part) for part in (parts if self.case is None else [*parts, self.case]))

    @property
    def subject(self) -> str:
        """What it is of, for messages."""
        parts = [self.name or "all classes", self.source or "all sources", *([] if self.case is None else [self.case])]
        return ", ".join(parts)


def safe(name: str) -> str:
    """The name with unsafe characters as dashes; brackets around it fall away."""
    return UNSAFE.sub("-", name.removeprefix("(").removesuffix(")")) or "-"


def refuse_same_names(pictures: Sequence[Picture]) -> None:
    """Raise SamePictureName if two pictures would be one file, capitals aside (some file systems ignore them)."""
    owner: dict[str, Picture] = {}
    for picture in pictures:
        other = owner.setdefault(picture.stem.casefold(), picture)
        if other is not picture:
            raise SamePictureName(other.subject, picture.subject, picture.stem)
