"""Atlases on disk: one label volume for all scans, or a folder with one per case, brought onto the scan's grid.

An atlas is turned like a label, without loss, and never resampled. One file for all is kept in the artifact.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from collections.abc import Set as AbstractSet
from pathlib import Path
from typing import Any

import numpy as np

from segcal_cli.core.case import Case
from segcal_cli.core.errors import ArtifactError
from segcal_cli.core.estimator import require_state
from segcal_cli.core.frozen import dataclass
from segcal_cli.core.volume import Grid
from segcal_cli.io import files
from segcal_cli.io.case_sources import CaseSource
from segcal_cli.io.folders import ImageFolder
from segcal_cli.io.geometry import Space, align
from segcal_cli.kandinsky.regions import AtlasNotWhole
from segcal_cli.kandinsky.views import AtlasCase

ATLAS, ATLAS_AFFINE = "atlas", "atlas_affine"
"""Arrays of an artifact that keep an atlas of one file."""

ATLAS_NAME = "the atlas of the artifact"


class AtlasNeeded(ArtifactError):
    """A folder of atlases is not in the artifact."""

    template = "{0} was fitted with one atlas per case; give --atlas FOLDER for these cases"


class AtlasStored(ArtifactError):
    """An atlas for an artifact that has its own, or none."""

    template = "{0} has no use for --atlas: {1}"


@dataclass(frozen=True)
class Atlases:
    """Where the atlas of a case comes from. paths: by case id; shared: one for all, with its place."""

    paths: Mapping[str, Path]
    shared: tuple[np.ndarray, Space] | None = None

    def files(self, case: str) -> dict[str, Path]:
        """Role -> the file of a case; nothing where one atlas is for all."""
        return {"atlas": self.paths[case]} if case in self.paths else {}

    def attach(self, case: Case) -> AtlasCase:
        """The case with its atlas on its grid. Raises the refusals of formats and geometry, AtlasNotWhole."""
        raw, space = self.shared or read_atlas(self.paths[case.id])
        here = Space(case.id, case.volume.grid)
        atlas = align(here, space).apply(raw)
        return AtlasCase(
            case.id, case.group, case.space, case.volume, case.labels, case.roi, case.facts, np.ascontiguousarray(atlas)
        )

    def values(self) -> tuple[int, ...]:
        """All region numbers, sorted. Reads every atlas once."""
        if self.shared is not None:
            return tuple(np.unique(self.shared[0]).tolist())
        found: set[int] = set()
        for path in self.paths.values():
            found.update(np.unique(read_atlas(path)[0]).tolist())
        return tuple(sorted(found))

    def arrays(self) -> dict[str, np.ndarray]:
        """What an artifact keeps: nothing of a folder."""
        if self.shared is None:
            return {}
        raw, space = self.shared
        kept = {ATLAS: np.ascontiguousarray(raw)}
        if space.grid.affine is not None:
            kept[ATLAS_AFFINE] = space.grid.affine
        return kept


@dataclass(frozen=True)
class AtlasReader:
    """Reads a case and its atlas."""

    load: Callable[[CaseSource], Case]
    atlases: Atlases

    def __call__(self, source: CaseSource) -> AtlasCase:
        return self.atlases.attach(self.load(source))


@dataclass(frozen=True)
class WithAtlas:
    """An estimator that sees every case with its atlas."""

    inner: Any
    atlases: Atlases

    def empty(self) -> Any:
        return self.inner.empty()

    def update(self, state: Any, case: Case) -> Any:
        return self.inner.update(state, self.atlases.attach(case))

    def merge(self, a: Any, b: Any) -> Any:
        return self.inner.merge(a, b)

    def require_state(self, state: Any, cases: AbstractSet[str]) -> None:
        """See ``core/estimator.py``."""
        require_state(self.inner, state, cases)

    def finish(self, state: Any) -> Any:
        return self.inner.finish(state)


def open_atlases(path: Path, cases: Iterable[str]) -> Atlases:
    """Of a file, or of a folder with one per case. Raises NoImage, TwoFiles and the refusals of formats."""
    if path.is_dir():
        folder = ImageFolder(path)
        return Atlases({case: folder.find(case) for case in cases})
    return Atlases({}, read_atlas(path))


def stored_atlases(arrays: Mapping[str, np.ndarray]) -> Atlases | None:
    """The atlas that an artifact keeps, or None. Raises ValueError for one that cannot be."""
    raw = arrays.get(ATLAS)
    if raw is None:
        return None
    if raw.ndim != 3 or raw.dtype.kind not in "iu":
        raise ValueError("atlas")
    affine = arrays.get(ATLAS_AFFINE)
    return Atlases({}, (raw, Space(ATLAS_NAME, Grid((raw.shape[0], raw.shape[1], raw.shape[2]), affine))))


def atlases_for(path: Path, arrays: Mapping[str, np.ndarray], given: Path | None, cases: Iterable[str], method: str):  # type: ignore[no-untyped-def]
    """The atlases of a run with an artifact; None where it needs none. path: the artifact.

    Raises AtlasNeeded, AtlasStored and what reading raises.
    """
    if method != "atlas":
        if given is not None:
            raise AtlasStored(path, f"its method is {method}")
        return None
    kept = stored_atlases(arrays)
    if kept is not None:
        if given is not None:
            raise AtlasStored(path, "it keeps its own")
        return kept
    if given is None or not given.is_dir():
        raise AtlasNeeded(path)
    return open_atlases(given, cases)


def read_atlas(path: Path) -> tuple[np.ndarray, Space]:
    """Region numbers "z y x" and their place. Raises AtlasNotWhole and the refusals of formats."""
    header = files.probe(path)
    numbers = files.read_labels(header)
    shape = files.label_shape(header)
    raw = numbers.raw.reshape(shape)
    scaled = (numbers.slope, numbers.inter) != (1.0, 0.0)
    if scaled or raw.dtype.kind == "f":
        with np.errstate(over="ignore", invalid="ignore"):
            exact = raw * numbers.slope + numbers.inter if scaled else raw
            whole = np.rint(exact)
        if not (np.isfinite(exact).all() and np.array_equal(whole, exact)):
            raise AtlasNotWhole(path, "holds fractions")
        raw = whole
    kept = np.iinfo(np.int32)
    if raw.size and (raw.min() < kept.min or raw.max() > kept.max):
        raise AtlasNotWhole(path, "holds numbers beyond 32 bits")
    kind = np.uint8 if raw.size and raw.min() >= 0 and raw.max() <= 255 else np.int32
    return raw.astype(kind), files.place(header, shape)
