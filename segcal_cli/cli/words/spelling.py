"""How an option is spelled and explained, and the panels of `--help` that options stand in."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from segcal_cli.core.frozen import dataclass

READING, LABELS, RUNNING, OUTPUT, TALKING = "Reading predictions", "Reading labels", "Running", "Output", "Messages"
METHOD, CONVENTIONS, COMPARING, PICTURES = "Method", "Conventions", "Comparing", "Pictures"
SETS, CLUSTERS, COVERAGE = "Sets", "Clusters", "Coverage of sets"
RATIO, INTERVAL, PAPER, ALARMS = "Ratio", "Interval", "Interval of --method care", "Alarms"


@dataclass(frozen=True, slots=True)
class Words:
    """How an option is spelled and explained. callback: called with its value before other options are looked at."""

    flags: tuple[str, ...]
    help: str
    panel: str
    metavar: str | None = None
    count: bool = False
    show_default: bool = True
    callback: Callable[..., Any] | None = None


def plain(flag: str, help: str, panel: str, metavar: str | None = None, **more: Any) -> Words:
    """Words of an option with one flag."""
    return Words((flag,), help, panel, metavar, **more)
