"""What a fit is asked for: the options of a map, checked against each other.

Each method has options of its own; one that a method has no use for is refused, never ignored.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import asdict
from typing import Any

from segcal_cli.core.errors import UsageError
from segcal_cli.core.frozen import dataclass
from segcal_cli.core.labels import LabelSpace
from segcal_cli.kandinsky.ellipsoids import Shape
from segcal_cli.kandinsky.features import FeatureKind
from segcal_cli.kandinsky.objectives import ObjectiveName
from segcal_cli.kandinsky.places import Coordinates
from segcal_cli.kandinsky.pools import Weighting
from segcal_cli.kandinsky.regions import Method

METHODS: tuple[Method, ...] = ("image", "pixel", "kmeans", "annuli", "star", "grid", "atlas", "boundary")

USES: Mapping[str, frozenset[str]] = {
    "image": frozenset(),
    "pixel": frozenset({"block"}),
    "grid": frozenset({"grid"}),
    "atlas": frozenset({"atlas"}),
    "boundary": frozenset({"k", "edges", "features", "levels"}),
    "kmeans": frozenset(
        {"k", "features", "levels", "smooth", "min_count", "coords", "block", "shared_map", "cluster_background"}
    ),
    "annuli": frozenset(
        {"k", "features", "levels", "shape", "free_axes", "objective", "optimizer", "coords", "block", "shared_map"}
        | {"cluster_background"}
    ),
    "star": frozenset(
        {"k", "features", "levels", "shape", "free_axes", "objective", "order", "roughness", "coords", "block"}
        | {"shared_map", "cluster_background"}
    ),
}
"""Options that each method has a use for, of those that not every method has."""

NEEDS = {"grid": "grid", "atlas": "atlas"}
"""Options that a method cannot do without."""

DEFAULT_LEVELS = (0.5, 0.6, 0.7, 0.8, 0.9)
DEFAULT_K = 4
DEFAULT_MIN_COUNT = 5

MOST_ORDER = 32
"""Of the star's curves: 1089 spherical harmonics, far beyond what labelled patients can tell apart."""


class UnknownMethod(UsageError):
    """A method that there is not."""

    template = "--method {0} is not one of {1}"


class NoUse(UsageError):
    """An option that the method has no use for."""

    template = "--{0} has no meaning with --method {1}"


class Needed(UsageError):
    """An option that the method needs."""

    template = "--method {0} needs --{1}"


class BadOption(UsageError):
    """An option's value cannot be."""

    template = "--{0} {1} is not allowed; {2}"


class UnknownClass(UsageError):
    """A class that the table does not have."""

    template = "--{0}: no class is called {1}; there are {2}"


@dataclass(frozen=True, slots=True)
class MapSpec:
    """Options of the map, None where they were not given. k: 0 stands for ``auto``; roughness: -1 for ``auto``."""

    method: Method = "annuli"
    shape: Shape | None = None
    free_axes: bool = False
    k: int | None = None
    grid: tuple[int, ...] | None = None
    atlas: bool = False
    edges: tuple[float, ...] | None = None
    features: FeatureKind | None = None
    levels: tuple[float, ...] | None = None
    objective: ObjectiveName | None = None
    optimizer: str | None = None
    smooth: float | None = None
    min_count: int | None = None
    order: int | None = None
    roughness: float | None = None
    coords: Coordinates | None = None
    block: int | None = None
    shared_map: bool = False
    cluster_background: bool = False
    only: tuple[str, ...] = ()
    weighting: Weighting = "patient"
    seed: int = 0

    def check(self, space: LabelSpace) -> None:
        """Raises UnknownMethod, NoUse, Needed, BadOption, UnknownClass."""
        if self.method not in METHODS:
            raise UnknownMethod(self.method, ", ".join(METHODS))
        for name in sorted(set().union(*USES.values())):
            if getattr(self, name) not in (None, False) and name not in USES[self.method]:
                raise NoUse(name.replace("_", "-"), self.method)
        needed = NEEDS.get(self.method)
        if needed and not getattr(self, needed):
            raise Needed(self.method, needed)
        if self.method == "boundary" and self.edges is not None and self.k is not None:
            raise NoUse("k", "boundary and --edges")
        if self.levels is not None and self.features != "quantiles":
            raise NoUse("levels", f"{self.method} and --features ecdf")
        if self.only and self.method == "image":
            raise NoUse("only", self.method)
        if self.free_axes and self.shape == "circle":
            raise NoUse("free-axes", f"{self.method} and --shape circle")
        self._check_values()
        for name in self.only:
            if name not in space.names:
                raise UnknownClass("only", name, ", ".join(space.names))

    def _check_values(self) -> None:
        """Raises BadOption."""
        if self.seed < 0:
            raise BadOption("seed", self.seed, "give 0 or more")
        if self.k is not None and not 0 <= self.k <= 250:
            raise BadOption("k", self.k, "give 1 to 250, or auto")
        if self.edges is not None and not (
            self.edges and all(map(math.isfinite, self.edges)) and list(self.edges) == sorted(set(self.edges))
        ):
            raise BadOption("edges", ",".join(map(str, self.edges)), "give ascending distances in mm")
        if self.grid is not None and not (len(self.grid) in (2, 3) and all(1 <= n <= 250 for n in self.grid)):
            raise BadOption("grid", "x".join(map(str, self.grid)), "give blocks along x and y (and z), such as 4x4x2")
        if self.grid is not None and math.prod(self.grid) > 65000:
            raise BadOption("grid", "x".join(map(str, self.grid)), "that is more than 65000 blocks")
        if self.levels is not None and not (self.levels and all(0 < level < 1 for level in self.levels)):
            raise BadOption("levels", ",".join(map(str, self.levels)), "give levels between 0 and 1")
        if self.order is not None and not 0 <= self.order <= MOST_ORDER:
            raise BadOption("order", self.order, f"give 0 to {MOST_ORDER}")
        for name, least in (("smooth", 0), ("min_count", 1), ("block", 1)):
            value = getattr(self, name)
            if value is not None and not least <= value < math.inf:
                raise BadOption(name.replace("_", "-"), value, f"give {least} or more")
        if self.roughness is not None and not (self.roughness == -1 or 0 <= self.roughness < math.inf):
            raise BadOption("roughness", self.roughness, "give 0 or more, or auto")
        if self.objective == "energy" and self.method == "star":
            raise BadOption("objective", "energy", "star has sse and paper")

    @property
    def learns(self) -> bool:
        """Whether patients make the map."""
        return self.method in ("kmeans", "annuli", "star") or (self.method == "boundary" and self.edges is None)

    def learned_channels(self, space: LabelSpace) -> tuple[int, ...]:
        """Classes that get clusters: not the background of learned maps unless asked for, and not what ``only``
        leaves out. Boundary shells treat the background as the learned maps do."""
        background = None
        if space.exclusive and self.method in ("kmeans", "annuli", "star", "boundary") and not self.cluster_background:
            background = next((i for i, channel in enumerate(space.channels) if 0 in channel.values), None)
        return tuple(
            index for index, name in enumerate(space.names) if (name in self.only if self.only else index != background)
        )

    def to_json(self) -> dict[str, Any]:
        return {name: list(value) if isinstance(value, tuple) else value for name, value in asdict(self).items()}
