"""Selection: which measures are computed. All by default, but for the one whose cost grows with the square of voxels.

Counts of voxels are always there: they say what the other numbers are about. A measure that was not asked for stays
undefined, in the same column, so that tables of any selection have one form.
"""

from __future__ import annotations

from collections.abc import Iterable

from segcal_cli.core.errors import UsageError
from segcal_cli.metrics.columns import CALIBRATION_COLUMNS, OVERLAP_COLUMNS, SATURATION_COLUMNS, TOP_COLUMNS

METRICS = (*CALIBRATION_COLUMNS, *OVERLAP_COLUMNS, *SATURATION_COLUMNS, *TOP_COLUMNS)
"""Measures that can be asked for, in the order of the table."""

DEFAULT_METRICS = tuple(key for key in METRICS if key != "kde_ece")


class UnknownMetric(UsageError):
    """A measure that does not exist."""

    template = "--metrics {0}: no such measure; known are {1}"


class MixedSelection(UsageError):
    """Some names with a sign, some without."""

    template = (
        "--metrics {0}: give names alone (only these), or every name with + (adds to the default) or - (takes from it)"
    )


class NothingSelected(UsageError):
    """A selection without a measure."""

    template = "--metrics {0!r} leaves no measure"


def select_metrics(text: str) -> tuple[str, ...]:
    """Measures of ``dice,iou`` (only these) or ``+kde_ece,-nll_mcb`` (a change to the default), in table order.

    Raises UnknownMetric, MixedSelection, NothingSelected.
    """
    words = [word.strip() for word in text.split(",") if word.strip()]
    names = [word.lstrip("+-") for word in words]
    check_metrics(names)
    signs = {word[0] if word[0] in "+-" else "" for word in words}
    if "" in signs and len(signs) > 1:
        raise MixedSelection(text)
    chosen = set() if "" in signs else set(DEFAULT_METRICS)
    for word, name in zip(words, names, strict=True):
        if word[0] == "-":
            chosen.discard(name)
        else:
            chosen.add(name)
    if not words or not chosen:
        raise NothingSelected(text)
    return tuple(key for key in METRICS if key in chosen)


def check_metrics(names: Iterable[str]) -> None:
    """Raises UnknownMetric."""
    for name in names:
        if name not in METRICS:
            raise UnknownMetric(name, ", ".join(METRICS))


def needs_soft(metrics: Iterable[str]) -> bool:
    """Whether any of these measures says something about probabilities, not about hard decisions alone."""
    return any(name not in OVERLAP_COLUMNS for name in metrics)
