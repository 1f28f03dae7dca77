"""Where voxels lie in space, and whether a label lies where its prediction does.

Every file says by a 4 x 4 affine where the centre of voxel (x, y, z) is, in mm, with x to the right, y to the front and
z up. Two grids are the same if no corner of the one is further than a hundredth of a voxel from the corner of the
other. That is the only distance that matters here: it sees shifts, spacings and rotations alike, and nothing else about
two headers has to agree.

A label whose grid covers the very same voxels but counts them in another order or from another side (RAS against LPS)
is flipped and permuted onto the prediction's grid, which loses nothing. Everything else is refused: a label is never
resampled, and a prediction never touched.

NIfTI can hold two affines, qform and sform, both legal and both with readers that prefer them. Where a file's two
differ, the label fits only if it fits by both.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Iterator

import numpy as np

from segcal_cli.core.errors import GeometryError
from segcal_cli.core.frozen import dataclass
from segcal_cli.core.volume import Grid

TOLERANCE_VOXELS = 0.01
"""Share of the smallest voxel edge by which corners may differ: a hundredth of a voxel changes no label."""

TOLERANCE_MM = 0.002
"""Floor of that tolerance: a quaternion in float32 alone moves the corners of a large CT by 0.0016 mm."""

QUATERNION_ROUNDING = 2.0**-23
"""How far the squares of a quaternion's float32 components can be from summing to 1."""

SHEAR_COSINE = 1e-3
"""Axes whose directions have a larger cosine than this are not at right angles, and voxels no boxes."""

VOLUME_RATIO = 1e-3
"""Relative difference of two voxel volumes from which on a volume in mm3 would depend on the reader."""

LARGEST_MM = 1e9
"""A voxel edge or a place beyond this (a thousand kilometres) is damage, and its square would leave the floats."""

CORNERS = np.array(list(itertools.product((0, 1), repeat=3)), dtype=np.float64)
"""The 8 corners of the unit cube."""

AXIS_NAMES = "xyz"

Shape = tuple[int, int, int]
Turn = tuple[Shape, tuple[bool, bool, bool], np.ndarray]


class GridShifted(GeometryError):
    """Same shape, another place."""

    template = "{0} and {1} differ by {2:.3g} mm at a corner (allowed {3:.3g}): {4}. Resample the label first"


class ShapeMismatch(GeometryError):
    """Another shape, and no order of axes that mends it."""

    template = "{0} is {2}, {1} is {3} (x y z){4}"


class FormsDisagree(GeometryError):
    """The two affines of one file differ, and only one of them is shared by the other file."""

    template = "{0}: qform and sform differ by {1:.3g} mm, and {2} and {3} agree in {4} only"


class VoxelSizeAmbiguous(GeometryError):
    """The two affines of one file give different volumes."""

    template = "{0}: voxel size is {1} by sform and {2} by qform; fix the header"


class ShearedAxes(GeometryError):
    """Voxels that are no boxes, where a distance is asked for."""

    template = "{0}: axes are sheared by {1:.3g} degrees; distances in mm are undefined"


class AffineUnusable(GeometryError):
    """A place in space that is none."""

    template = "{0}: affine is not usable: {1}"


@dataclass(frozen=True, slots=True, eq=False)
class Space:
    """A file's grid and all that its header says about its place.

    name: how messages call the file. grid: shape and the affine that segcal uses (None: PNG, bare array). sform, qform:
    float64 4 x 4, index (x, y, z, 1) -> mm, or None where the file has none (code 0). pixdim_mm: the voxel edges that
    stand beside the affines, or None where the format has none. units: what the lengths were in before they were made
    mm.
    """

    name: str
    grid: Grid
    sform: np.ndarray | None = None
    qform: np.ndarray | None = None
    sform_code: int = 0
    qform_code: int = 0
    pixdim_mm: tuple[float, ...] | None = None
    units: str = "mm"

    @property
    def forms_apart_mm(self) -> float:
        """Corner distance of sform and qform in mm; 0 if there are not two."""
        if self.sform is None or self.qform is None:
            return 0.0
        return corner_distance(self.sform, self.qform, self.grid.shape)

    @property
    def ambiguous(self) -> bool:
        """Whether sform and qform put the voxels in different places."""
        if self.sform is None or self.qform is None:
            return False
        rounding = quaternion_rounding(self.sform, self.grid.shape)
        return self.forms_apart_mm > grid_tolerance(self.sform, self.qform) + rounding

    def by(self, form: str) -> np.ndarray | None:
        """The affine of a reader that prefers ``form`` ("sform" or "qform"); the other one if there is only that."""
        preferred, other = (self.sform, self.qform) if form == "sform" else (self.qform, self.sform)
        if preferred is not None:
            return preferred
        return other if other is not None else self.grid.affine


@dataclass(frozen=True, slots=True)
class Alignment:
    """How a label is brought onto a prediction's grid.

    order: for each axis (x, y, z) of the prediction, the label's axis that runs along it. flips: for each axis of the
    prediction, whether the label counts it from the other side. distance_mm: the corner distance that is left, None
    where a side has no affine. warnings: sentences about these two files.
    """

    order: Shape = (0, 1, 2)
    flips: tuple[bool, bool, bool] = (False, False, False)
    distance_mm: float | None = None
    warnings: tuple[str, ...] = ()

    @property
    def identity(self) -> bool:
        return self.order == (0, 1, 2) and not any(self.flips)

    @property
    def note(self) -> str | None:
        """What is done to the label, in words that are the same for all cases of a kind; None for nothing."""
        if self.identity:
            return None
        axes = ", ".join(
            ("-" if flip else "+") + AXIS_NAMES[axis] for axis, flip in zip(self.order, self.flips, strict=True)
        )
        return f"label turned onto the prediction's grid without loss (prediction's x, y, z are the label's {axes})"

    def apply(self, labels: np.ndarray) -> np.ndarray:
        """``labels`` "z y x" on the prediction's grid, C-contiguous; the very array where nothing has to be done."""
        if self.identity:
            return labels
        # Axis a in x, y, z order is axis 2 - a in z, y, x order.
        turned = labels.transpose(tuple(2 - axis for axis in reversed(self.order)))
        return np.ascontiguousarray(np.flip(turned, axis=tuple(2 - axis for axis in range(3) if self.flips[axis])))


def corners(shape: Shape) -> np.ndarray:
    """float64 "8 4": the outer corners of a grid of ``shape`` (z, y, x), as homogeneous (x, y, z, 1) indices."""
    outer = CORNERS * np.array(shape[::-1], dtype=np.float64) - 0.5
    return np.column_stack((outer, np.ones(8)))


def corner_distance(a: np.ndarray, b: np.ndarray, shape: Shape) -> float:
    """Largest distance, in mm, between where ``a`` and ``b`` put a corner of a grid of ``shape`` (z, y, x)."""
    return float(np.linalg.norm((corners(shape) @ (a - b).T)[:, :3], axis=1).max())


def voxel_edges(affine: np.ndarray) -> np.ndarray:
    """float64 "3": lengths of a voxel's edges along x, y, z in mm."""
    return np.linalg.norm(affine[:3, :3], axis=0)


def grid_tolerance(*affines: np.ndarray) -> float:
    """By how many mm the corners of these grids may differ, and be called the same."""
    return max(TOLERANCE_VOXELS * min(float(voxel_edges(affine).min()) for affine in affines), TOLERANCE_MM)


def quaternion_rounding(affine: np.ndarray, shape: Shape) -> float:
    """By how many mm a corner of the qform can miss the sform that it was made from, for want of digits alone.

    A header keeps b, c, d of the quaternion in float32, and readers get the real part from a^2 = 1 - b^2 - c^2 - d^2,
    which that rounding makes uncertain by 1.2e-7. Near a half turn (LPS axes, slightly oblique) a is almost 0, and the
    angle 2 acos(a) then uncertain by up to 0.04 degrees: a quarter of a millimetre at the corner of a head.
    """
    directions = affine[:3, :3] / voxel_edges(affine)
    if np.linalg.det(directions) < 0:
        directions = directions * (1.0, 1.0, -1.0)
    real = math.sqrt(max(1.0 + float(np.trace(directions)), 0.0)) / 2
    angle = 2 * QUATERNION_ROUNDING / max(real, math.sqrt(QUATERNION_ROUNDING))
    lever = float(np.linalg.norm((corners(shape)[:, :3]) @ affine[:3, :3].T, axis=1).max())
    return angle * lever


def shear_degrees(affine: np.ndarray) -> float:
    """How far the two axes that are furthest from a right angle are from it, in degrees."""
    return math.degrees(math.asin(min(_shear_cosine(affine), 1.0)))


def sheared(affine: np.ndarray) -> bool:
    return _shear_cosine(affine) > SHEAR_COSINE


def check_usable(space: Space) -> None:
    """Raise AffineUnusable for a zero, NaN, infinity or absurd length where a length or direction should be, or axes in
    one plane."""
    if space.pixdim_mm is not None and not all(0 < abs(edge) <= LARGEST_MM for edge in space.pixdim_mm):
        raise AffineUnusable(space.name, f"pixdim = {_numbers(space.pixdim_mm)}")
    for name, affine in (("sform", space.sform), ("qform", space.qform), ("affine", space.grid.affine)):
        if affine is None:
            continue
        for axis, row in zip(AXIS_NAMES, affine[:3], strict=True):
            if not (np.abs(row) <= LARGEST_MM).all() or not row[:3].any():
                raise AffineUnusable(space.name, f"{name} {axis} = {_numbers(row)}")
        edges = voxel_edges(affine)
        # Relative to the edges, so that microscopes and metres are judged alike.
        if not edges.all() or abs(np.linalg.det(affine[:3, :3] / edges)) < 1e-6:
            raise AffineUnusable(space.name, f"{name} axes lie in one plane, {_numbers(affine[:3, :3].ravel())}")


def check_distances(space: Space) -> None:
    """Raise ShearedAxes where distances in mm have no meaning. For commands that use distances."""
    if space.grid.affine is not None and sheared(space.grid.affine):
        raise ShearedAxes(space.name, shear_degrees(space.grid.affine))


def check_voxel_size(space: Space) -> None:
    """Raise VoxelSizeAmbiguous where a volume depends on the reader. For commands that give mm or mm3."""
    if space.sform is None or space.qform is None:
        return
    by_sform, by_qform = (abs(np.linalg.det(affine[:3, :3])) for affine in (space.sform, space.qform))
    if abs(by_sform - by_qform) > VOLUME_RATIO * min(by_sform, by_qform):
        raise VoxelSizeAmbiguous(space.name, *(f"{_edges(affine)} mm" for affine in (space.sform, space.qform)))


def align(prediction: Space, label: Space) -> Alignment:
    """How ``label`` (labels, region of interest, segmentation) is brought onto the grid of ``prediction``.

    Raises AffineUnusable, GridShifted (same shape, another place), ShapeMismatch, FormsDisagree.
    """
    check_usable(prediction)
    check_usable(label)
    if prediction.grid.affine is None or label.grid.affine is None:
        if prediction.grid.shape != label.grid.shape:
            raise _shapes(prediction, label, "")
        return Alignment()
    warnings = [*_unplaced(prediction), *_unplaced(label)]
    apart = [space for space in (prediction, label) if space.ambiguous]
    if not apart:
        found = _match(prediction, prediction.grid.affine, label, label.grid.affine)
        if found is None:
            raise _mismatch(prediction, prediction.grid.affine, label, label.grid.affine)
    else:
        by_form = {form: _match_by(form, prediction, label) for form in ("sform", "qform")}
        fitting = {form: match for form, match in by_form.items() if match is not None}
        if not fitting:
            raise _mismatch(prediction, prediction.grid.affine, label, label.grid.affine)
        turns = {(match.order, match.flips) for match in fitting.values()}
        if len(fitting) < len(by_form) or len(turns) > 1:
            which = next(iter(fitting))
            raise FormsDisagree(apart[0].name, apart[0].forms_apart_mm, prediction.name, label.name, which)
        found = max(fitting.values(), key=lambda match: match.distance_mm or 0.0)
        warnings += [
            f"{space.name}: qform and sform differ by {space.forms_apart_mm:.3g} mm; the two files agree in both"
            for space in apart[:1]
        ]
    return Alignment(found.order, found.flips, found.distance_mm, tuple(warnings))


def _match_by(form: str, prediction: Space, label: Space) -> Alignment | None:
    a, b = prediction.by(form), label.by(form)
    return None if a is None or b is None else _match(prediction, a, label, b)


def _match(prediction: Space, a: np.ndarray, label: Space, b: np.ndarray) -> Alignment | None:
    """The identity if it is close enough, else the closest of the 48 turns if that is."""
    allowed = grid_tolerance(a, b)
    best: Alignment | None = None
    for order, flips, index_map in _turns(prediction.grid.shape, label.grid.shape):
        distance = corner_distance(a, b @ index_map, prediction.grid.shape)
        if distance <= allowed:
            if order == (0, 1, 2) and not any(flips):
                return Alignment(order, flips, distance)
            if best is None or distance < (best.distance_mm or 0.0):
                best = Alignment(order, flips, distance)
    return best


def _turns(to: Shape, of: Shape) -> Iterator[Turn]:
    """The signed permutations that map a grid of shape ``to`` onto one of shape ``of``, both (z, y, x); identity first.

    Yields (order, flips, 4 x 4 map from indices of the first grid to indices of the second).
    """
    target, source = to[::-1], of[::-1]
    orders: Iterator[Shape] = itertools.permutations((0, 1, 2))  # type: ignore[assignment]
    every: list[tuple[bool, bool, bool]] = list(itertools.product((False, True), repeat=3))  # type: ignore[arg-type]
    for order in orders:
        if any(source[order[axis]] != target[axis] for axis in range(3)):
            continue
        for flips in every:
            index_map = np.zeros((4, 4))
            index_map[3, 3] = 1.0
            for axis in range(3):
                index_map[order[axis], axis] = -1.0 if flips[axis] else 1.0
                index_map[order[axis], 3] = target[axis] - 1.0 if flips[axis] else 0.0
            yield order, flips, index_map


def _mismatch(prediction: Space, a: np.ndarray, label: Space, b: np.ndarray) -> GeometryError:
    """Why two grids are not one, in the words that help most."""
    shape, other = prediction.grid.shape, label.grid.shape
    if shape == other:
        distance, allowed = corner_distance(a, b, shape), grid_tolerance(a, b)
        return GridShifted(prediction.name, label.name, distance, allowed, _kind(a, b, shape, allowed))
    if _holds(a, shape, b, other) or _holds(b, other, a, shape):
        return _shapes(prediction, label, ": one holds the other, cropped")
    if _same_extent(a, shape, b, other):
        return _shapes(prediction, label, ": same extent, resampled")
    return _shapes(prediction, label, "")


def _kind(a: np.ndarray, b: np.ndarray, shape: tuple[int, int, int], allowed: float) -> str:
    """What two grids of one shape differ by. A spacing or direction moves the corners whatever the origin is."""
    half = np.array(shape[::-1], dtype=np.float64) / 2
    edges_a, edges_b = voxel_edges(a), voxel_edges(b)
    spacing = float(np.linalg.norm((edges_a - edges_b) * half))
    signs = (2 * CORNERS - 1) * half * edges_b
    rotation = float(np.linalg.norm(signs @ (a[:3, :3] / edges_a - b[:3, :3] / edges_b).T, axis=1).max())
    if max(spacing, rotation) <= allowed:
        return "shift"
    return "spacing" if spacing >= rotation else "rotation"


def _same_extent(a: np.ndarray, shape: Shape, b: np.ndarray, other: Shape) -> bool:
    """Whether two grids fill one box, up to the voxel that a resampler may add or drop at an end."""
    box, box_b = (corners(shape) @ a.T)[:, :3], (corners(other) @ b.T)[:, :3]
    # Each corner of one box beside some corner of the other: independent of how the axes are counted.
    gaps = np.linalg.norm(box[:, None] - box_b[None], axis=2)
    allowed = max(float(voxel_edges(a).max()), float(voxel_edges(b).max()))
    return bool(max(gaps.min(axis=1).max(), gaps.min(axis=0).max()) <= allowed)


def _holds(large: np.ndarray, shape: Shape, small: np.ndarray, part: Shape) -> bool:
    """Whether the voxels of the grid ``small`` of shape ``part`` are some of the voxels of ``large``."""
    index_map = np.rint(np.linalg.solve(large, small))
    turn = np.abs(index_map[:3, :3])
    if not ((turn.sum(axis=0) == 1).all() and (turn.sum(axis=1) == 1).all()):
        return False
    if corner_distance(large @ index_map, small, part) > grid_tolerance(large, small):
        return False
    at = (corners(part) @ index_map.T)[:, :3]
    return bool((at >= -0.5).all() and (at <= np.array(shape[::-1]) - 0.5).all())


def _shapes(prediction: Space, label: Space, hint: str) -> ShapeMismatch:
    a, b = (" x ".join(str(n) for n in reversed(space.grid.shape)) for space in (prediction, label))
    return ShapeMismatch(prediction.name, label.name, a, b, hint)


def _unplaced(space: Space) -> list[str]:
    """A warning for a NIfTI file that says nothing about its place: pixdim is there, both codes are 0."""
    if space.pixdim_mm is None or space.sform is not None or space.qform is not None:
        return []
    return [f"{space.name}: neither qform nor sform is set; its place in space is taken from pixdim alone"]


def _shear_cosine(affine: np.ndarray) -> float:
    directions = affine[:3, :3] / voxel_edges(affine)
    return float(np.abs((directions.T @ directions)[np.triu_indices(3, 1)]).max())


def _edges(affine: np.ndarray) -> str:
    return " x ".join(f"{edge:.4g}" for edge in voxel_edges(affine))


def _numbers(values: np.ndarray | tuple[float, ...]) -> str:
    return " ".join(f"{value:.6g}" for value in values)
