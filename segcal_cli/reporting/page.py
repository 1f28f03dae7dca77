"""The report: one HTML file that asks the network for nothing.

Pictures stand in it as SVG, tables sort by a script of a few lines inside the page, and a content policy forbids
everything else, so that no name of a class or a case can become a request. Ink and paper of the pictures follow the
page: light, dark, or printed on A4.
"""

from __future__ import annotations

import itertools
import re
from collections.abc import Sequence

from segcal_cli.core.frozen import dataclass
from segcal_cli.reporting.style import BLUE, GREEN, INK, PAPER, QUIET, VERMILLION

TEMPLATE = "report.html"

PROLOGUE = re.compile(r"^.*?(?=<svg)", re.DOTALL)
"""XML declaration and document type, which have no place inside HTML."""

METADATA = re.compile(r"<metadata>.*?</metadata>\s*", re.DOTALL)

IDENTIFIER = re.compile(r'(\bid="|\bhref="#|url\(#)')
"""Where an SVG names a part of itself. Names must differ between the pictures of a page."""

FOLLOWING = {INK: "ink", PAPER: "paper", QUIET: "grey", BLUE: "blue", VERMILLION: "vermillion", GREEN: "green"}
"""Colours that are others on a dark page: the template says which. The rest is bright enough."""

SIZE = re.compile(r'(<svg\b[^>]*?) width="([\d.]+)pt" height="[\d.]+pt"')


@dataclass(frozen=True, slots=True)
class Cell:
    """A cell of a table. value: what it sorts by, the text itself where None. strong: stands out. note: below it."""

    text: str
    value: float | None = None
    strong: bool = False
    note: str = ""


@dataclass(frozen=True, slots=True)
class SortableTable:
    """A table with a caption. numbers: which columns hold numbers, and are set flush right."""

    title: str
    columns: tuple[str, ...]
    rows: tuple[tuple[Cell, ...], ...]
    caption: str
    numbers: frozenset[int] = frozenset()


@dataclass(frozen=True, slots=True)
class Shown:
    """A picture of the page. svg: as a file; stem, endings: of the files that hold it and its numbers."""

    svg: str
    title: str
    alt: str
    stem: str
    endings: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Section:
    """Pictures of one kind, and how to read them."""

    key: str
    title: str
    how: str
    pictures: tuple[Shown, ...]


@dataclass(frozen=True, slots=True)
class Page:
    """Everything that the report says. left_out: a sentence for each case that failed; options: (name, value) pairs;
    digests: inputs and artifacts.
    """

    version: str
    summary: str
    guarantee: str
    left_out: Sequence[str]
    warnings: Sequence[str]
    notes: Sequence[str]
    tables: Sequence[SortableTable]
    sections: Sequence[Section]
    options: Sequence[tuple[str, str]]
    digests: SortableTable


def render(page: Page) -> str:
    """The page as HTML."""
    from jinja2 import Environment, PackageLoader, StrictUndefined
    from markupsafe import Markup

    environment = Environment(
        loader=PackageLoader("segcal_cli.reporting", "templates"),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
        keep_trailing_newline=True,
    )
    number = itertools.count(1)
    drawn = {
        section.key: [
            (picture, Markup(inline(picture, next(number))), printed_width(picture.svg)) for picture in section.pictures
        ]
        for section in page.sections
    }
    return environment.get_template(TEMPLATE).render(page=page, drawn=drawn)


def printed_width(svg: str) -> float:
    """Points: on a wide page text has its printed size, on a narrow one it shrinks with the picture."""
    found = SIZE.search(svg)
    return float(found[2]) if found else 0.0


def inline(picture: Shown, number: int) -> str:
    """The SVG as part of a page: names of its own, alternative text, colours that follow the page."""
    from markupsafe import escape

    svg = METADATA.sub("", PROLOGUE.sub("", picture.svg, count=1))
    svg = IDENTIFIER.sub(lambda found: f"{found[1]}p{number}-", svg)
    for colour, name in FOLLOWING.items():
        svg = svg.replace(colour.lower(), f"var(--{name})")
    svg = SIZE.sub(r"\1", svg, count=1)
    return svg.replace("<svg ", f'<svg role="img" aria-label="{escape(picture.alt)}" ', 1).rstrip()
