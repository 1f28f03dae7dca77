"""A case: one prediction of one scan, and what is known about its truth.

This is what an estimator sees: arrays and names, no paths. ``group`` is the patient (or site), the unit of
exchangeability; without ``--groups`` every case is a group of its own.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import field

import numpy as np

from segcal_cli.core.annotations import Text
from segcal_cli.core.frozen import dataclass
from segcal_cli.core.labels import LabelMap, LabelSpace
from segcal_cli.core.volume import Volume


@dataclass(frozen=True, slots=True)
class CaseFacts:
    """What reading a case showed, besides its numbers. Small: it travels between processes and into records.

    digest: sha256 over the array of the prediction, the identity that overlap checks and the search for duplicates
    compare ("" where nobody asked, and for a blank prediction, which is nobody's). checksum: shape, crc32 and extremes
    of the same array where only copies within one run are looked for, "" elsewhere. proof: ``proved``, ``background``
    (only the shape is proved) or "" (no segmentation beside it). hard: no value strictly inside (0, 1). constant: every
    voxel holds the same values. stored: type on disk. grid_distance_mm: how far the corners of the label's grid are.
    padding_share: share of voxels never predicted. source: ``cross-validation`` or "". warnings: sentences. turned: how
    the label was brought onto the grid, or "". saturation: class -> shares of the voxels with p = 0, p = 1, p < 1e-6, p
    > 1 - 1e-6; empty for logits.
    """

    digest: Text = ""
    checksum: str = ""
    proof: str = ""
    hard: bool = False
    constant: bool = False
    stored: str = ""
    grid_distance_mm: float | None = None
    padding_share: float = 0.0
    source: str = ""
    warnings: tuple[str, ...] = ()
    turned: str = ""
    saturation: Mapping[str, tuple[float, float, float, float]] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Case:
    """One case, read and checked.

    labels: None where no truth was given (``apply``). roi: bool "z y x", True where voxels count, or None.
    """

    id: str
    group: str
    space: LabelSpace
    volume: Volume
    labels: LabelMap | None = None
    roi: np.ndarray | None = None
    facts: CaseFacts = field(default_factory=CaseFacts)

    def counted(self, *, padding: bool) -> np.ndarray | None:
        """bool "z y x": voxels inside the ROI and not ignored; None means all of them.

        padding: whether voxels that the model never predicted count too (overlap, volumes, coverage) or not
        (calibration).
        """
        keep = self.roi
        if self.labels is not None and self.labels.ignored is not None:
            keep = ~self.labels.ignored if keep is None else keep & ~self.labels.ignored
        if not padding and self.volume.predicted is not None:
            inside = self.volume.predicted.mask(self.volume.grid.shape)
            keep = inside if keep is None else keep & inside
        return keep

    @property
    def padding_share(self) -> float:
        """Share of the grid that is padding."""
        if self.volume.predicted is None:
            return 0.0
        z, y, x = self.volume.predicted.slices
        inside = (z.stop - z.start) * (y.stop - y.start) * (x.stop - x.start)
        return 1.0 - inside / float(np.prod(self.volume.grid.shape))
