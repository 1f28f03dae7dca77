"""Voxel sizes: whether a calibrator that looks at neighbours meets voxels like those that it was fitted on.

A kernel counts voxels, not millimetres: on finer voxels it sees less of the patient, on coarser ones more.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from segcal_cli.calibration.result import HOODED
from segcal_cli.core.artifact import Artifact
from segcal_cli.io.case_sources import CaseSource

ALLOWED = 0.2
"""Share by which a voxel edge may differ from those of the fit."""


def other_voxels(artifact: Artifact, sources: Sequence[CaseSource]) -> Iterator[tuple[str, str]]:
    """(case, warning) of cases with a voxel edge that is more than 20 % off those of the fit."""
    fitted = artifact.header.results["facts"]["spacing_mm"]
    if artifact.header.method not in HOODED or fitted is None:
        return
    for source in sources:
        edges = source.prediction.place.grid.spacing_mm
        if edges is None:
            continue
        low, high = fitted
        if any(e < (1.0 - ALLOWED) * a or e > (1.0 + ALLOWED) * b for e, a, b in zip(edges, low, high, strict=True)):
            yield (
                source.id,
                f"voxels of {_size(edges)} mm, the calibrator was fitted on {_range(low, high)} mm; it looks at "
                f"neighbours and counts voxels, not millimetres",
            )


def _size(edges: Sequence[float]) -> str:
    return " x ".join(f"{edge:.3g}" for edge in edges)


def _range(low: Sequence[float], high: Sequence[float]) -> str:
    return _size(low) if _size(low) == _size(high) else f"{_size(low)} to {_size(high)}"
