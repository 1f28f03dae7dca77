"""The options of ``cluster fit`` as a spec: texts like ``4x4x2``, ``-5,0,5`` or ``1GB`` read, defaults left open."""

from __future__ import annotations

import re
from collections.abc import Callable
from typing import Any

from segcal_cli.core.errors import UsageError
from segcal_cli.kandinsky.spec import BadOption, MapSpec, NoUse
from segcal_cli.workflows.requests import ClusterFitOptions

AUTO = "auto"

UNITS = {"": 1, "KB": 10**3, "MB": 10**6, "GB": 10**9, "KIB": 2**10, "MIB": 2**20, "GIB": 2**30}

OF_A_MAP = (
    "method", "shape", "free_axes", "k", "grid", "atlas", "edges", "features", "levels", "objective", "optimizer",
    "smooth", "min_count", "order", "roughness", "coords", "block", "shared_map", "cluster_background", "only",
)  # fmt: skip
"""Options that make a map, and mean nothing where one is given."""

WAYS = ("split", "reuse", "map")
"""Ways to say who makes the map; they exclude each other."""


class Excluded(UsageError):
    """Two options that exclude each other."""

    template = "--{0} and --{1} exclude each other"


def map_spec(options: ClusterFitOptions) -> MapSpec:
    """The spec that the options name, not yet checked against classes. Raises BadOption, NoUse, Excluded."""
    given = [way for way in WAYS if getattr(options, way) not in (None, False)]
    if len(given) > 1:
        raise Excluded(given[0], given[1])
    if options.map is not None:
        for name in OF_A_MAP:
            if getattr(options, name) not in (None, False):
                raise NoUse(name.replace("_", "-"), "the map of another artifact (--map)")
    if not 0 < options.alpha < 1:
        raise BadOption("alpha", options.alpha, "it must lie strictly between 0 and 1")
    spec = MapSpec(
        method=options.method or "annuli",  # type: ignore[arg-type]
        shape=options.shape,
        free_axes=options.free_axes,
        k=_parsed("k", options.k, lambda text: 0 if text == AUTO else _positive(text), "give 1 to 250, or auto"),
        grid=_parsed(
            "grid",
            options.grid,
            lambda text: tuple(_positive(part) for part in text.lower().split("x")),
            "give blocks along x and y (and z), such as 4x4x2",
        ),
        atlas=options.atlas is not None,
        edges=_parsed("edges", options.edges, _floats, "give ascending distances in mm, such as -5,0,5"),
        features=options.features,
        levels=_parsed("levels", options.levels, _floats, "give levels between 0 and 1, such as .6,.7,.8,.9"),
        objective=options.objective,
        optimizer=options.optimizer,
        smooth=options.smooth,
        min_count=options.min_count,
        order=options.order,
        roughness=_parsed(
            "roughness", options.roughness, lambda text: -1.0 if text == AUTO else float(text), "give a number, or auto"
        ),
        coords=options.coords,
        block=options.block,
        shared_map=options.shared_map,
        cluster_background=options.cluster_background,
        only=() if options.only is None else tuple(name.strip() for name in options.only.split(",")),
        weighting=options.weighting,
        seed=options.seed,
    )
    if options.map is None and given and not spec.learns:
        raise NoUse(given[0], spec.method if spec.edges is None else f"{spec.method} and --edges")
    return spec


def bytes_of(text: str) -> int:
    """A size such as ``1GB`` or ``500MB``. Raises BadOption."""
    found = re.fullmatch(r"\s*([0-9]*\.?[0-9]+)\s*([KMG]?I?B?)\s*", text.upper())
    unit = "" if found is None or found[2] == "B" else found[2]
    if unit and not unit.endswith("B"):
        unit += "B"
    if found is None or unit not in UNITS or float(found[1]) <= 0:
        raise BadOption("memory", text, "give a size such as 1GB or 500MB")
    return int(float(found[1]) * UNITS[unit])


def split_of(text: str | None) -> float | None:
    """The fraction of ``--split``; None where it names a file. Raises BadOption."""
    if text is None:
        return 0.3
    try:
        fraction = float(text)
    except ValueError:
        return None
    if not 0 < fraction < 1:
        raise BadOption("split", text, "give a share between 0 and 1, or a CSV of the map-making cases")
    return fraction


def _parsed(name: str, text: str | None, parse: Callable[[str], Any], words: str) -> Any:
    if text is None:
        return None
    try:
        return parse(text)
    except ValueError:
        raise BadOption(name, text, words) from None


def _positive(text: str) -> int:
    number = int(text)
    if number < 1:
        raise ValueError(text)
    return number


def _floats(text: str) -> tuple[float, ...]:
    return tuple(float(part) for part in text.split(","))
