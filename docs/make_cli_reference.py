"""Writes docs/cli.md from the command line's own help, so that the two cannot differ. Run by ``make docs``."""

from __future__ import annotations

from pathlib import Path

from typer.testing import CliRunner

from segcal_cli.cli.app import app

COMMANDS: tuple[tuple[str, ...], ...] = (
    (),
    ("calibrate",),
    ("calibrate", "fit"),
    ("calibrate", "apply"),
    ("calibrate", "compare"),
    ("cluster",),
    ("cluster", "fit"),
    ("cluster", "apply"),
    ("conformal-sets",),
    ("conformal-sets", "fit"),
    ("conformal-sets", "apply"),
    ("ntr-interval",),
    ("ntr-interval", "fit"),
    ("ntr-interval", "apply"),
    ("evaluate",),
    ("reliability",),
    ("merge",),
    ("pairs",),
    ("convert",),
    ("inspect",),
)

PAGE = Path(__file__).parent / "cli.md"

INTRODUCTION = """# Command-line reference

Written from `--help` by `make docs`; a test fails when the two differ. Exit codes: 0 done, 1 a bug in segcal, 2
usage, 3 no case matched, 4 bad input and nothing produced, 5 artifact missing, damaged or incompatible, 8 some cases
failed and the rest is done, 130 interrupted.
"""


def help_of(command: tuple[str, ...]) -> str:
    """The help text of one command, 100 columns wide, without colours."""
    environment = {"COLUMNS": "100", "TERM": "dumb", "NO_COLOR": "1"}
    run = CliRunner().invoke(app, [*command, "--help"], prog_name="segcal", env=environment)
    return "\n".join(line.rstrip() for line in run.output.strip("\n").splitlines())


def page() -> str:
    """The whole page."""
    sections = [INTRODUCTION]
    for command in COMMANDS:
        sections.append(f"## `{' '.join(('segcal', *command))}`\n\n```text\n{help_of(command)}\n```\n")
    return "\n".join(sections)


if __name__ == "__main__":
    PAGE.write_text(page(), encoding="utf-8")
