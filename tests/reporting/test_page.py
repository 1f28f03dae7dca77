"""The report as a page: it asks for nothing, escapes every name, and says what its pictures show."""

from __future__ import annotations

import re
from html.parser import HTMLParser

import pytest

from segcal_cli.reporting.page import Cell, Page, Section, Shown, SortableTable, render
from tests.reporting.builders_drawings import DRAWINGS

EVIL = '<script>alert("x")</script>'


@pytest.fixture(scope="module")
def html():
    shown = tuple(
        Shown(
            DRAWINGS[plot].files(("svg",), 60, EVIL)["svg"].decode(), plot, f'{plot} & "{EVIL}"', plot, ("csv", "svg")
        )
        for plot in ("case-diagram", "dataset-histogram", "case-diagram")
    )
    table = SortableTable(
        "Numbers", ("name", "ece"), ((Cell(EVIL), Cell("0.1", 0.1, True, "[0, 1]")),), "unit", frozenset({1})
    )
    return render(
        Page("1.0", EVIL, "guarantee", [EVIL], [EVIL], ["a note"], [table], [Section("one", "One", "How.", shown)],
             [("bins", "20")], table)
    )  # fmt: skip


class Tags(HTMLParser):
    def __init__(self, html):
        super().__init__()
        self.found, self.open = [], []
        self.feed(html)

    def handle_starttag(self, tag, attrs):
        self.found.append((tag, dict(attrs)))


def test_the_page_asks_the_network_for_nothing(html):
    for tag, attributes in Tags(html).found:
        assert tag not in ("link", "iframe", "img", "object", "embed", "base")
        for name in ("src", "href", "xlink:href", "action", "srcset"):
            assert attributes.get(name, "#").startswith(("#", "data:")), (tag, attributes)
    assert not re.search(r"@import|url\((?!#)", html)
    namespaces = ("http://www.w3.org/2000/svg", "http://www.w3.org/1999/xlink")
    assert set(re.findall(r"https?://[^\"' <]+", html)) <= set(namespaces)
    assert "default-src 'none'" in html


def test_names_cannot_become_markup(html):
    assert EVIL not in html
    assert html.count("<script>") == 1
    assert "&lt;script&gt;" in html


def test_every_picture_has_alternative_text_and_parts_of_its_own_names(html):
    pictures = [attributes for tag, attributes in Tags(html).found if tag == "svg"]
    assert [one["role"] for one in pictures] == ["img"] * 3
    assert pictures[0]["aria-label"] == f'case-diagram & "{EVIL}"'
    names = [attributes["id"] for _, attributes in Tags(html).found if "id" in attributes]
    assert len(names) == len(set(names))
    used = set(re.findall(r'href="#([^"]+)"|url\(#([^)]+)\)', html))
    assert {one or other for one, other in used} <= set(names)


def test_pictures_follow_ink_and_paper_of_the_page(html):
    inside = "".join(re.findall(r"<svg.*?</svg>", html, re.DOTALL))
    assert "var(--ink)" in inside
    assert "#222222" not in inside
    assert "prefers-color-scheme: dark" in html
    assert "size: A4" in html


def test_a_cell_sorts_by_its_value_and_can_stand_out(html):
    assert '<td class="number" data-value="0.1"><strong>0.1</strong><span class="quiet">[0, 1]</span></td>' in html


def test_headings_break_at_underscores_and_names_of_options_nowhere():
    table = SortableTable("Numbers", ("smooth_ece", EVIL), (), "unit")
    html = render(Page("1.0", "", "", [], [], [], [table], [], [("show-scores", "no")], table))
    assert html.count('<button type="button">smooth_<wbr>ece</button>') == 2
    assert EVIL not in html
    assert ".wrap code { overflow-wrap: normal; }" in html
    assert ".wrap th { white-space: nowrap; }" in html


def test_what_failed_stands_above_the_numbers(html):
    listed = html.split('<h2 id="left-out"')[1]
    assert listed.index("&lt;script&gt;") < listed.index('id="numbers"')
    assert "Cases left out" not in render(Page("1.0", "", "", [], [], [], [], [], [], SortableTable("", (), (), "")))


def test_a_picture_without_files_names_none():
    shown = Shown("<svg></svg>", "t", "a", "boxplot__all", ())
    page = Page(
        "1.0", "", "", [], [], [], [], [Section("one", "One", "How.", (shown,))], [], SortableTable("", (), (), "")
    )
    assert "<figcaption><code>boxplot__all</code></figcaption>" in render(page)
