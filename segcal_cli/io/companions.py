"""What comes along with predictions: saved features of the network's last layer, and the scans themselves.

Features of a case are in ``CASE.npz``: ``features`` "feature z y x" of all voxels; or of some, "voxel feature", with
their ``index`` "voxel 3" in z, y, x and the ``shape`` of the volume. Those of some are enough to fit: the case then
shrinks to these voxels. They are kept in the type that they were saved in, half precision as a rule, because they are
as large as the volume, times the number of features.
"""

from __future__ import annotations

import contextlib
from dataclasses import replace
from pathlib import Path

import numpy as np

from segcal_cli.core.case import Case
from segcal_cli.core.errors import FormatError, GeometryError, PairingError
from segcal_cli.core.frozen import dataclass
from segcal_cli.core.labels import LabelMap
from segcal_cli.core.volume import Grid, Volume
from segcal_cli.io import arrays, files
from segcal_cli.io.bundles import read_bundle
from segcal_cli.io.folders import ImageFolder
from segcal_cli.io.geometry import Space, align


class NoFeatures(PairingError):
    """A case without a file of features."""

    template = "{0}: no features {1}"


class FeatureForm(FormatError):
    """An array that is not laid out as features are."""

    template = "{0}: {1}"


class FeaturesElsewhere(GeometryError):
    """Features of a volume of another size."""

    template = "{0}: features of a volume of {1} (z, y, x), and the prediction has {2}"


class SomeVoxelsOnly(FormatError):
    """Features of some voxels where those of all are needed."""

    template = "{0}: features of {1:voxel|voxels} only; to apply and to measure, those of every voxel are needed"


@dataclass(frozen=True, slots=True)
class Companions:
    """Where features and scans lie. some: whether features of some voxels will do."""

    features: Path | None = None
    images: ImageFolder | None = None
    some: bool = False

    def missing(self, case: str) -> PairingError | None:
        """What is not there of a case."""
        if self.features is not None and not self._file(case).is_file():
            return NoFeatures(case, self._file(case))
        if self.images is not None:
            try:
                self.images.find(case)
            except PairingError as error:
                return error
        return None

    def files(self, case: str) -> dict[str, Path]:
        """Role -> the file of a case, of what is there."""
        found = {}
        if self.features is not None and self._file(case).is_file():
            found["features"] = self._file(case)
        if self.images is not None:
            with contextlib.suppress(PairingError):
                found["image"] = self.images.find(case)
        return found

    def attached(self, case: str, volume: Volume, place: Space) -> tuple[Volume, np.ndarray | None]:
        """The volume with what comes along, and the voxels "voxel 3" that features are of, None if all.

        Raises NoFeatures, FeatureForm, FeaturesElsewhere, SomeVoxelsOnly, and what reading scans raises.
        """
        if self.images is not None:
            volume = replace(volume, image=scan_on(place, self.images.find(case)))
        if self.features is None:
            return volume, None
        path = self._file(case)
        if not path.is_file():
            raise NoFeatures(case, path)
        features, index = read_features(path, volume.grid.shape)
        if index is not None and not self.some:
            raise SomeVoxelsOnly(path, len(index))
        return replace(volume, features=features), index

    def _file(self, case: str) -> Path:
        assert self.features is not None, "there is a folder of features"
        return self.features / f"{case}.npz"


def read_features(path: Path, shape: tuple[int, int, int]) -> tuple[np.ndarray, np.ndarray | None]:
    """float "feature z y x" and None, or "feature voxel" and int64 z, y, x "voxel 3". shape: of the prediction.

    Raises FeatureForm, FeaturesElsewhere, and what array files raise.
    """
    header = arrays.probe(path, "features")
    if header.dtype.kind != "f":
        raise FeatureForm(path, f"features are {header.dtype.name}; save them as float16 or float32")
    if len(header.shape) not in (2, 4):
        raise FeatureForm(path, f"features have {len(header.shape)} axes; they are (F, z, y, x), or (n, F) with index")
    found = arrays.read_stored(header)
    if not np.isfinite(found).all():
        raise FeatureForm(path, "features hold NaN or infinite values")
    if found.ndim == 4:
        if found.shape[1:] != shape:
            raise FeaturesElsewhere(path, found.shape[1:], shape)
        return found, None
    rest = read_bundle(path)
    index, whole = rest.get("index"), rest.get("shape")
    if index is None or whole is None or index.dtype.kind not in "iu" or whole.dtype.kind not in "iu":
        raise FeatureForm(path, "features of some voxels need index (n, 3) and shape (3,), whole numbers")
    if index.shape != (len(found), 3) or whole.shape != (3,):
        raise FeatureForm(path, f"index is {index.shape} and shape {whole.shape} for {len(found)} voxels")
    if tuple(whole.tolist()) != shape:
        raise FeaturesElsewhere(path, tuple(whole.tolist()), shape)
    index = index.astype(np.int64)
    if (index < 0).any() or (index >= whole.astype(np.int64)).any():
        raise FeatureForm(path, "index goes beyond shape")
    if len(np.unique(np.ravel_multi_index(tuple(index.T), shape))) < len(index):
        raise FeatureForm(path, "index names a voxel twice")
    return np.ascontiguousarray(found.T), index


def read_layer(path: Path) -> tuple[np.ndarray, np.ndarray]:
    """float weight "channel feature" and bias "channel" of a last layer. Raises FeatureForm, and what bundles raise."""
    found = read_bundle(path)
    for name, axes in (("weight", 2), ("bias", 1)):
        array = found.get(name)
        if array is None:
            raise FeatureForm(path, f"no array {name}; a last layer is weight (C, F) and bias (C,)")
        if array.dtype.kind != "f" or array.ndim != axes or not np.isfinite(array).all():
            raise FeatureForm(
                path, f"{name} is not finite floating-point of {axes} axes; it is weight (C, F), bias (C,)"
            )
    return found["weight"], found["bias"]


def scan_on(place: Space, path: Path) -> np.ndarray:
    """float32 "z y x": a scan on a grid. Raises what reading and aligning raise."""
    header = files.probe(path)
    shape = files.label_shape(header)
    return align(place, files.place(header, shape)).apply(files.read_scan(header).reshape(shape))


def at_voxels(case: Case, index: np.ndarray) -> Case:
    """The case of some voxels alone, in one row: z, y, x "voxel 3" that its features "feature voxel" are of.

    What lies in padding stays out.
    """
    volume, labels = case.volume, case.labels
    assert volume.features is not None, "the voxels are those of the features"
    assert labels is not None, "features of some voxels are for fits"
    where = tuple(index.T)
    inside = np.ones(len(index), dtype=bool)
    if volume.predicted is not None:
        inside = volume.predicted.mask(volume.grid.shape)[where]
        where = tuple(index[inside].T)
    shape = (1, 1, int(np.count_nonzero(inside)))
    small = replace(
        volume,
        array=np.ascontiguousarray(volume.array[(slice(None), *where)]).reshape(-1, *shape),
        grid=Grid(shape),
        predicted=None,
        features=np.ascontiguousarray(volume.features[:, inside]).reshape(-1, *shape),
        image=None,
    )
    ignored = None if labels.ignored is None else labels.ignored[where].reshape(shape)
    truth = LabelMap(labels.codes[where].reshape(shape), labels.members, ignored)
    return replace(case, volume=small, labels=truth, roi=None if case.roi is None else case.roi[where].reshape(shape))
