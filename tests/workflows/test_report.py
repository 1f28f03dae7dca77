"""What the report repeats of what was said while the numbers were made."""

from __future__ import annotations

from segcal_cli.core.observer import Recorder, Silent
from segcal_cli.workflows.pictures import PLOTS
from segcal_cli.workflows.report import READING


def test_a_warning_of_several_cases_is_kept_once_with_their_number():
    heard = Recorder(Silent())
    heard.note("a note")
    heard.warn("alone")
    for case in ("a", "b"):
        heard.warn("shared", case)
    heard.warn("of one", "c")
    assert heard.warnings == ["alone", "shared (2 cases)", "c: of one"]
    assert heard.notes == ["a note"]


def test_every_plot_has_its_reading_of_two_sentences():
    assert list(READING) == list(PLOTS)
    for reading in READING.values():
        assert reading.how.count(". ") + reading.how.endswith(".") == 2, reading.how
