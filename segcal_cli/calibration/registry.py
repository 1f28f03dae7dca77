"""The calibration methods that there are, by name."""

from __future__ import annotations

from segcal_cli.calibration import (
    affine,
    auxiliary,
    beta,
    ensemble,
    fine_tuning,
    histogram,
    isotonic,
    local,
    platt,
    temperature,
)
from segcal_cli.calibration.canonical import Kind, kind_of
from segcal_cli.calibration.method import Method
from segcal_cli.core.errors import UsageError
from segcal_cli.core.labels import LabelSpace

METHODS: dict[str, Method] = {
    record.name: record
    for record in (
        temperature.METHOD,
        platt.METHOD,
        beta.METHOD,
        isotonic.METHOD,
        histogram.METHOD,
        *affine.METHODS,
        auxiliary.METHOD,
        ensemble.METHOD,
        fine_tuning.METHOD,
        local.METHOD,
    )
}


class UnknownMethod(UsageError):
    """No method of this name, or one that this kind of prediction cannot have."""

    template = "--method {0} does not fit {1}; methods that fit: {2}"


KIND_WORDS = {
    "binary": "one binary problem",
    "sigmoid": "sigmoid regions",
    "softmax": "a softmax of three or more classes",
}
"""How messages speak of a kind of problem."""


def joint(record: Method, space: LabelSpace) -> bool:
    """Whether one row of parameters serves all classes together, inside one softmax."""
    kind = kind_of(space)
    return kind == "softmax" and record.families[kind] != "sketch"


def methods_for(kind: Kind) -> tuple[str, ...]:
    """Names of the methods that fit a kind of problem."""
    return tuple(name for name, record in METHODS.items() if kind in record.families)


def method_for(name: str, kind: Kind) -> Method:
    """The record of a method. Raises UnknownMethod, which names the methods that fit."""
    if name not in methods_for(kind):
        raise UnknownMethod(name, KIND_WORDS[kind], ", ".join(methods_for(kind)))
    return METHODS[name]
