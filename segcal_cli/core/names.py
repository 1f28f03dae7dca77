"""Names are data: classes and patients are called as users call them, and their names go into tables and messages.

A spreadsheet runs a cell that begins like a formula, and a terminal obeys control characters. A name that could do
either is refused where it is read, so that nothing that writes it has to think of it. Case ids are held to more, since
they become file names (``io/case_ids.py``).
"""

from __future__ import annotations

FORMULA_SIGNS = ("=", "+", "-", "@")
"""What a spreadsheet takes for the beginning of a formula."""


def harmless(name: str) -> bool:
    """Whether a name may stand in a table: no control character, and not the beginning of a formula."""
    return name.isprintable() and not name.startswith(FORMULA_SIGNS)


def escaped(text: str, kept: str = "") -> str:
    """The text with control characters, and bytes that were no UTF-8, escaped. kept: characters that stay."""
    if text.isprintable():
        return text
    return "".join(c if c.isprintable() or c in kept else _escape(c) for c in text)


def _escape(character: str) -> str:
    return character.encode("unicode_escape", "surrogatepass").decode()
