"""How long the command line takes to say anything."""

from __future__ import annotations

from pathlib import Path

from processes import Contender, python, race, segcal, table


def run(folder: Path, runs: int) -> str:
    """``segcal --help`` next to an interpreter that does nothing."""
    contenders = [
        Contender("python -c pass", python("pass")),
        Contender("segcal --help", segcal("--help")),
        Contender("segcal evaluate --help", segcal("evaluate", "--help")),
    ]
    return table("start-up", race(contenders, runs), "python -c pass")
