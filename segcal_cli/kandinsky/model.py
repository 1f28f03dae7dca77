"""A fitted model: cluster maps, pools of calibration scores, and the imagewise baseline of the same patients.

It keeps the scores' distributions and no threshold, so that any level can be chosen later. As arrays it is what an
artifact holds.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import field, replace
from functools import cached_property
from typing import Annotated, Any, NotRequired, TypedDict

import numpy as np

from segcal_cli.core.annotations import Count, NotEmpty, Positive, require_type
from segcal_cli.core.errors import ArtifactError
from segcal_cli.core.frozen import dataclass
from segcal_cli.core.labels import LabelSpace
from segcal_cli.kandinsky.arrays import HOST, Arrays
from segcal_cli.kandinsky.codes import INFINITE
from segcal_cli.kandinsky.learning import ClassMap
from segcal_cli.kandinsky.places import Coordinates, Placing
from segcal_cli.kandinsky.pools import Pools, Weighting
from segcal_cli.kandinsky.regions import Method, Regions
from segcal_cli.kandinsky.spec import MapSpec

MOST_UNITS = 2.0**62
"""What a pool may hold, of voxels or of shares of patients; one more patient still fits into 64 bits."""

BASELINE_CODES = "image_"
"""Prefix of the arrays of the imagewise baseline."""


class Damaged(ArtifactError):
    """Arrays that do not belong together."""

    template = "{0}"


class PlacingDocument(TypedDict):
    coords: Coordinates
    shape: Annotated[list[Count], 3]
    spacing: Annotated[list[Positive], 3]
    block: Count


class MapDocument(TypedDict):
    """What is known of the map of a class; of shells about a centre also what they are."""

    objective: float
    objective_one_cluster: float
    unit: NotRequired[str]
    centre: NotRequired[list[float]]
    axes: NotRequired[NotEmpty[Positive]]
    angles: NotRequired[list[float]]
    radii: NotRequired[list[float]]
    order: NotRequired[int]
    roughness: NotRequired[float]


class ModelDocument(TypedDict):
    """What ``to_json`` makes."""

    shift: Count
    placing: PlacingDocument | None
    edges: dict[str, list[float]]
    atlas_values: list[int]
    grid: list[Count]
    maps: dict[str, MapDocument]


OF_SHELLS = frozenset({"centre", "axes", "radii"})
"""What is known of shells, all or nothing."""


@dataclass(frozen=True)
class Model:
    """What a fit came to. described: channel -> what is known of its map (centre, radii, objective). arrays: what finds
    thresholds."""

    space: LabelSpace
    regions: Regions
    pools: Pools
    image_pools: Pools
    weighting: Weighting
    described: Mapping[int, Mapping[str, Any]] = field(default_factory=dict)
    arrays: Arrays = HOST

    @property
    def shift(self) -> int:
        return self.pools.shift

    @cached_property
    def baseline(self) -> Model:
        """The same patients with one cluster for the whole image."""
        regions = Regions("image", (1,) * len(self.space.channels))
        return Model(self.space, regions, self.image_pools, self.image_pools, self.weighting, {}, self.arrays)

    def slots(self, channel: int) -> slice:
        offsets = self.regions.offsets
        return slice(int(offsets[channel]), int(offsets[channel + 1]))

    def of(self, channel: int) -> Pools:
        """The pools of one class."""
        where = self.slots(channel)
        return self.pools.slice(where.start, where.stop)

    def thresholds(self, channel: int, alpha: float) -> np.ndarray:
        """int32 "cluster + 1": the largest code in the set per cluster; the last entry, for what no fit has seen, is
        infinite. Raises BadLevel."""
        key = (channel, alpha)
        if key not in self._found:
            found = self.arrays.thresholds(self.of(channel), alpha, self.weighting)
            self._found[key] = np.append(found, np.int32(INFINITE))
        return self._found[key]

    @cached_property
    def _found(self) -> dict[tuple[int, float], np.ndarray]:
        """Thresholds asked for so far: every case asks for the same."""
        return {}

    def smallest_alpha(self) -> float | None:
        """The smallest level with a finite threshold somewhere: 1 / (units + 1)."""
        units = self.pools.units(self.weighting)
        return None if not units.size or not units.max() else 1.0 / (int(units.max()) + 1)


def regions_of(
    spec: MapSpec,
    space: LabelSpace,
    placing: Placing | None,
    maps: Mapping[int, ClassMap],
    atlas_values: tuple[int, ...] = (),
) -> Regions:
    """The regions that a spec and, for learned methods, the maps of the classes make."""
    channels = spec.learned_channels(space)
    sizes = [1] * len(space.channels)
    cells: dict[int, np.ndarray] = {}
    edges: dict[int, tuple[float, ...]] = {}
    for channel in channels:
        found = maps.get(channel)
        if spec.method == "pixel":
            assert placing is not None, "pixel has a field"
            sizes[channel] = placing.n_cells
        elif spec.method == "grid":
            assert spec.grid is not None, "checked with the spec"
            sizes[channel] = int(np.prod(spec.grid))
        elif spec.method == "atlas":
            sizes[channel] = len(atlas_values)
        elif spec.method == "boundary":
            edges[channel] = spec.edges if spec.edges is not None else found.edges if found else ()
            # One for each shell, and the last for a class that is predicted nowhere.
            sizes[channel] = len(edges[channel]) + 2
        elif found is not None and found.cells is not None:
            cells[channel] = found.cells
            nowhere = placing is not None and placing.coords == "object"
            sizes[channel] = found.k + nowhere
    return Regions(spec.method, tuple(sizes), placing, cells, edges, atlas_values, spec.grid or ())


def to_arrays(model: Model) -> dict[str, np.ndarray]:
    """Plain arrays of a model: pools in rows of class x cluster, the baseline, and the map's cells."""
    arrays: dict[str, np.ndarray] = {"sizes": np.array(model.regions.sizes, np.int64)}
    for prefix, pools in (("", model.pools), (BASELINE_CODES, model.image_pools)):
        arrays |= {
            f"{prefix}codes": pools.codes,
            f"{prefix}mass": pools.mass,
            f"{prefix}counts": pools.counts,
            f"{prefix}offsets": pools.offsets,
            f"{prefix}n_groups": pools.n_groups,
            f"{prefix}n_voxels": pools.n_voxels,
        }
    for channel, cells in model.regions.cells.items():
        arrays[f"cells_{channel}"] = cells
    return arrays


def to_json(model: Model) -> dict[str, Any]:
    """What of a model is no array."""
    regions = model.regions
    placing = regions.placing
    return {
        "shift": model.shift,
        "placing": None
        if placing is None
        else {
            "coords": placing.coords,
            "shape": list(placing.shape),
            "spacing": list(placing.spacing),
            "block": placing.block,
        },
        "edges": {str(channel): list(edges) for channel, edges in regions.edges.items()},
        "atlas_values": list(regions.values),
        "grid": list(regions.blocks),
        "maps": {str(channel): dict(known) for channel, known in model.described.items()},
    }


def from_arrays(
    space: LabelSpace, method: Method, weighting: Weighting, data: Mapping[str, Any], arrays: Mapping[str, np.ndarray]
) -> Model:
    """The model of an artifact. data: a ModelDocument.

    Raises KeyError, TypeError, ValueError, Damaged for arrays that do not fit.
    """
    require_type(method, Method, "method")
    sizes = tuple(int(n) for n in arrays["sizes"])
    if len(sizes) != len(space.channels) or min(sizes) < 1:
        raise Damaged("its clusters do not fit its classes")
    placing = None
    if data["placing"] is not None:
        placed = data["placing"]
        placing = Placing(placed["coords"], tuple(placed["shape"]), tuple(placed["spacing"]), placed["block"])
    cells = {channel: arrays[f"cells_{channel}"] for channel in range(len(sizes)) if f"cells_{channel}" in arrays}
    for channel, one in cells.items():
        fits = placing is not None and placing.sound and one.shape == placing.cells and one.dtype.kind == "u"
        if not fits or int(one.max()) >= sizes[channel]:
            raise Damaged(f"its map of class {channel} does not fit its field")
    regions = Regions(
        method,
        sizes,
        placing,
        cells,
        {int(channel): tuple(edges) for channel, edges in data["edges"].items()},
        tuple(data["atlas_values"]),
        tuple(data["grid"]),
    )
    if method == "grid" and (len(regions.blocks) not in (2, 3) or min(regions.blocks) < 1):
        raise Damaged("its grid has no blocks")
    placed_by_field = any(size > 1 for size in sizes) and method not in ("grid", "atlas", "boundary")
    if (placing is None and placed_by_field) or (placing is not None and not placing.sound):
        raise Damaged("its field has no cells")
    if any(_clusters_made(regions, channel) > size for channel, size in enumerate(sizes)):
        raise Damaged("its map has more clusters than pools")
    pools = [_pools(arrays, prefix, n, int(data["shift"])) for prefix, n in (
        ("", regions.n_slots), (BASELINE_CODES, len(sizes)),
    )]  # fmt: skip
    described = {int(channel): known for channel, known in data["maps"].items()}
    if any(len(OF_SHELLS & known.keys()) not in (0, len(OF_SHELLS)) for known in described.values()):
        raise Damaged("its shells have no centre, axes or radii")
    return Model(space, regions, pools[0], pools[1], weighting, described)


def _clusters_made(regions: Regions, channel: int) -> int:
    """How many clusters a map can put the voxels of a class into."""
    if regions.method == "boundary":
        return len(regions.edges[channel]) + 2 if channel in regions.edges else 1
    if regions.sizes[channel] == 1 or channel in regions.cells:
        return 1
    if regions.method == "grid":
        return math.prod(regions.blocks)
    if regions.method == "atlas":
        return len(regions.values)
    return 1 if regions.placing is None else regions.placing.n_cells


def with_map_of(other: Model, spec: MapSpec) -> MapSpec:
    """The spec of a fit on another model's map: its method and shape, this fit's weighting and seed."""
    return replace(spec, method=other.regions.method)


def _pools(arrays: Mapping[str, np.ndarray], prefix: str, n_slots: int, shift: int) -> Pools:
    offsets, codes = arrays[f"{prefix}offsets"], arrays[f"{prefix}codes"]
    mass, counts = arrays[f"{prefix}mass"], arrays[f"{prefix}counts"]
    ordered = offsets.shape == (n_slots + 1,) and int(offsets[0]) == 0 and bool((np.diff(offsets) >= 0).all())
    if not (ordered and int(offsets[-1]) == len(codes) == len(mass) == len(counts) and codes.dtype == np.uint16):
        raise Damaged("its pools do not fit its clusters")
    if not 0 <= shift < 16 or any(part.dtype.kind not in "iu" or (part < 0).any() for part in (mass, counts)):
        raise Damaged("its pools hold less than nothing")
    for part in (mass, counts):
        if (np.diff(np.append(0.0, np.cumsum(part, dtype=np.float64))[offsets.astype(np.int64)]) > MOST_UNITS).any():
            raise Damaged("its pools hold more than can be counted")
    return Pools(offsets.astype(np.int64), codes, mass.astype(np.int64), counts.astype(np.int64), shift)
