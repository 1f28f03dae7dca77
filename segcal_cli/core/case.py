"""A case: one prediction of one scan, and what is known about its truth.

This is what an estimator sees: arrays and names, no paths. ``group`` is the patient (or site), the unit of
exchangeability; without ``--groups`` every case is a group of its own.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from segcal_cli.core.labels import LabelMap, LabelSpace
from segcal_cli.core.volume import Volume


@dataclass(frozen=True, slots=True)
class Case:
    """One case, read and checked.

    labels: None where no truth was given (``apply``). roi: bool "z y x", True where voxels count, or None.
    digest: sha256 over what was read (array, labels, roi), the identity that overlap checks compare.
    warnings: sentences about this case, for the record.
    """

    id: str
    group: str
    space: LabelSpace
    volume: Volume
    labels: LabelMap | None = None
    roi: np.ndarray | None = None
    digest: str = ""
    warnings: tuple[str, ...] = ()

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
