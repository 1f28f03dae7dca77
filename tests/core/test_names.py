"""Names as data: what may stand in a table, and how it is shown."""

from pathlib import Path

import pytest

from segcal_cli.core.errors import WriteError
from segcal_cli.core.names import escaped, harmless


@pytest.mark.parametrize("name", ["a", "", "ü", "[/red]", '"', ",", "<b>", "a=b", "1-2", "a@b", " "])
def test_these_names_are_harmless(name):
    assert harmless(name)


@pytest.mark.parametrize("name", ["=1", "+1", "-1", "@a", "a\n", "\t", "\x1b[31m", "\x7f", "\u202e"])
def test_these_names_are_not(name):
    assert not harmless(name)


def test_what_a_terminal_would_obey_is_escaped_and_the_rest_stays():
    assert escaped("ü [/red] a\nb\x1b[31m\u202e\udc80") == "ü [/red] a\\nb\\x1b[31m\\u202e\\udc80"
    assert escaped("a\nb\r", kept="\n") == "a\nb\\r"


def test_a_line_break_in_a_path_begins_no_line_of_a_message():
    assert str(WriteError(Path("a\nsegcal: done (exit 0)"), "why")) == "cannot write a\\nsegcal: done (exit 0): why"
