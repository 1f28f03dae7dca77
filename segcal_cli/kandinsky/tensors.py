"""Tensors: the counting of a fit on a torch device, equal to numpy's.

Histograms, joined runs and patients' shares are integers, so they are bit for bit the same; codes of probabilities are
IEEE float32 arithmetic and so the same too. Codes of logits may differ by one. k-means assigns in float64, and finds
the same labels but for ties. torch has quantiles of its own, which refuse more than 2^24 values and turn NaN near
infinity; counts have neither trouble.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from segcal_cli.core.frozen import dataclass
from segcal_cli.core.volume import Values
from segcal_cli.kandinsky.arrays import Scored
from segcal_cli.kandinsky.codes import INFINITE, LOWEST, MANTISSA_SHIFT, N_CODES
from segcal_cli.kandinsky.features import BIN_SHIFT, FIRST_CODE, N_BINS, FeatureKind, bin_scores
from segcal_cli.kandinsky.kmeans import Steps
from segcal_cli.kandinsky.pools import CODE_BITS, HALF_BITS, Pools, Weighting, needed
from segcal_cli.kandinsky.runs import DENSE_KEYS, Run, compacted
from segcal_cli.kandinsky.views import View

if TYPE_CHECKING:
    from torch import Tensor


@dataclass(frozen=True)
class TensorArrays:
    """Arrays of torch. device: as torch calls it, "cuda" or "cpu"."""

    device: str

    def scored(self, view: View, channel: int, *, exclusive: bool) -> Scored | None:
        held = self._put(view.holds(channel))
        where = held.nonzero().squeeze(1)
        if not len(where):
            return None
        values = view.case.volume.values
        if values == "probabilities" or not exclusive:
            part = self._put(view.flat[channel])[where][None]
            return Scored(where, codes_of(part, values, 0, exclusive=False))
        part = self._put(view.flat)[:, where]
        return Scored(where, codes_of(part, values, channel, exclusive=True))

    def taken(self, whole: np.ndarray, where: Any) -> Any:
        return self._put(whole)[where].long()

    def bins_of(self, codes: Any, kind: FeatureKind) -> Any:
        return ((codes - FIRST_CODE) >> BIN_SHIFT[kind]).clamp_(0, N_BINS[kind] - 1)

    def counted(self, keys: Sequence[Any], n_keys: int) -> Run:
        import torch

        every = torch.cat(list(keys))
        if n_keys <= DENSE_KEYS:
            counts = torch.bincount(every, minlength=n_keys)
            used = counts.nonzero().squeeze(1)
            return Run(used, counts[used][None])  # type: ignore[arg-type]
        used, counts = torch.unique(every, return_counts=True)
        return Run(used, counts[None])

    def join(self, runs: Sequence[Run]) -> Run:
        import torch

        if len(runs) == 1:
            return self._on_device(runs[0])
        placed = [self._on_device(run) for run in runs]
        keys, order = torch.sort(torch.cat([run.keys for run in placed]))  # type: ignore[misc]
        return _summed(keys, torch.cat([run.columns for run in placed], dim=1)[:, order])  # type: ignore[misc]

    def compacted(self, runs: Sequence[Run]) -> tuple[Run, ...]:
        return compacted(runs, self.join, lambda large, small: self.join([large, small]))

    def coarsened(self, run: Run, bits: int) -> Run:
        if not bits:
            return run
        placed = self._on_device(run)
        keys = (placed.keys >> CODE_BITS << CODE_BITS) | ((placed.keys & (N_CODES - 1)) >> bits)
        return _summed(keys, placed.columns)

    def patient_run(self, run: Run) -> Run:
        import torch

        keys: Any = self._on_device(run).keys
        counts: Any = self._on_device(run).columns[0]
        if not len(keys):
            return Run(keys, counts.new_empty((2, 0)))
        _, sizes = torch.unique_consecutive(keys >> CODE_BITS, return_counts=True)
        first = torch.cumsum(sizes, 0) - sizes
        total = torch.cumsum(counts, 0)
        cumulative = total - torch.repeat_interleave(total[first] - counts[first], sizes)
        n = torch.repeat_interleave(cumulative[first + sizes - 1], sizes)
        # As in ``pools.patient_run``: two halves of 22 bits do not overflow.
        scaled = cumulative << HALF_BITS
        share = ((scaled // n) << HALF_BITS) + ((scaled % n) << HALF_BITS) // n
        steps = torch.diff(share, prepend=share.new_zeros(1))
        steps[first] = share[first]
        return Run(keys, torch.stack((steps, counts)))  # type: ignore[arg-type]

    def host(self, run: Run) -> Run:
        if isinstance(run.keys, np.ndarray):
            return run
        return Run(run.keys.cpu().numpy(), run.columns.cpu().numpy())

    def quantiles(self, run: Run, n: np.ndarray, kind: FeatureKind, levels: Sequence[float]) -> np.ndarray:
        import torch

        placed = self._on_device(run)
        scores = torch.as_tensor(bin_scores(kind), device=self.device)
        bins: Any = placed.keys % N_BINS[kind]
        running: Any = torch.cumsum(placed.columns[0], 0)
        voxels = self._put(n.astype(np.int64))
        known = voxels > 0
        base, count = (torch.cumsum(voxels, 0) - voxels)[known], voxels[known]
        values = torch.zeros((len(n), len(levels)), dtype=torch.float64, device=self.device)
        for column, level in enumerate(levels):
            rank = level * (count - 1).double()
            low = torch.floor(rank + 1e-9)
            part = (rank - low).clamp(0.0, 1.0)
            ends = []
            for position in (low.long(), torch.minimum(low.long() + 1, count - 1)):
                ends.append(scores[bins[torch.searchsorted(running, base + position, right=True)]])
            values[known, column] = (1 - part) * ends[0] + part * ends[1]
        return values.cpu().numpy()

    def thresholds(self, pools: Pools, alpha: float, weighting: Weighting) -> np.ndarray:
        """int32 "slot": what ``Pools.thresholds`` finds."""
        import torch

        found = torch.full((pools.n_slots,), INFINITE, dtype=torch.int32, device=self.device)
        need = self._put(needed(pools.units(weighting), np.broadcast_to(alpha, pools.n_slots), weighting))
        offsets = self._put(pools.offsets)
        mass = self._put(pools.mass if weighting == "patient" else pools.counts)
        # Sums over all slots may wrap around; differences within a slot are right all the same.
        running = torch.cumsum(mass, 0)
        sizes = torch.diff(offsets)
        slots = torch.repeat_interleave(torch.arange(pools.n_slots, device=self.device), sizes)
        before = torch.cat((running.new_zeros(1), running))[offsets[:-1]]
        short = (running - before[slots] < need[slots]).long()
        low = offsets[:-1] + torch.zeros_like(sizes).index_add_(0, slots, short)
        inside = low < offsets[1:]
        found[inside] = self._put(pools.codes.astype(np.int32))[low[inside]]
        return found.cpu().numpy()

    def steps(self, points: np.ndarray, weights: np.ndarray) -> Steps:
        return TensorSteps(points, weights, self.device)

    def _put(self, array: np.ndarray) -> Tensor:
        import torch

        # torch has no uint16 and uint32 arithmetic worth the name; and it warns of arrays that cannot be written to.
        kinds = {np.dtype(np.uint16): np.int32, np.dtype(np.uint32): np.int64}
        array = np.ascontiguousarray(array, kinds.get(array.dtype, array.dtype))
        return torch.as_tensor(array if array.flags.writeable else array.copy(), device=self.device)

    def _on_device(self, run: Run) -> Run:
        if isinstance(run.keys, np.ndarray):
            return Run(self._put(run.keys), self._put(run.columns))  # type: ignore[arg-type]
        return run


def codes_of(part: Tensor, values: Values, channel: int, *, exclusive: bool) -> Tensor:
    """int64 "voxel": codes of one channel, as ``codes.score_codes``. part: float32 "class voxel"."""
    import torch

    odds = _odds(part, values, channel, exclusive=exclusive)
    bits = (odds.contiguous().view(torch.int32) >> MANTISSA_SHIFT) - LOWEST
    return bits.clamp_(0, N_CODES - 1).long()


def _odds(part: Tensor, values: Values, channel: int, *, exclusive: bool) -> Tensor:
    import torch

    if values == "probabilities":
        return (1.0 - part[channel]) / part[channel]
    if not exclusive:
        return torch.exp(-part[channel])
    others = torch.cat((part[:channel], part[channel + 1 :]))
    top = others.amax(dim=0)
    rest = torch.exp(others - top).sum(dim=0) if len(others) > 1 else torch.ones_like(top)
    return rest * torch.exp(top - part[channel])


def _summed(keys: Any, columns: Any) -> Run:
    """Equal neighbours of sorted keys become one pair."""
    import torch

    different, place = torch.unique_consecutive(keys, return_inverse=True)
    summed = columns.new_zeros((len(columns), len(different))).index_add_(1, place, columns)
    return Run(different, summed)


class TensorSteps:
    """One round of Lloyd's algorithm, in float64."""

    def __init__(self, points: np.ndarray, weights: np.ndarray, device: str) -> None:
        import torch

        self.points = torch.as_tensor(points, dtype=torch.float64, device=device)
        weight = torch.as_tensor(weights, dtype=torch.float64, device=device)
        self.weighted = torch.column_stack((self.points * weight[:, None], weight))
        self.square = (self.points**2).sum(dim=1)

    def assign(self, centres: np.ndarray) -> tuple[Any, np.ndarray, np.ndarray]:
        import torch

        centre = torch.as_tensor(centres, device=self.points.device)
        labels = ((centre**2).sum(dim=1) - 2 * (self.points @ centre.T)).argmin(dim=1)
        return labels, *self.sums(labels, len(centres))

    def sums(self, labels: Any, k: int) -> tuple[np.ndarray, np.ndarray]:
        import torch

        member = torch.nn.functional.one_hot(labels, k).to(torch.float64)
        sums = (member.T @ self.weighted).cpu().numpy()
        return sums[:, :-1], sums[:, -1]

    def same(self, labels: Any, others: Any) -> bool:
        return bool((labels == others).all())

    def host(self, labels: Any) -> np.ndarray:
        return np.array(labels.cpu().numpy())

    def native(self, labels: np.ndarray) -> Any:
        import torch

        return torch.as_tensor(labels, device=self.points.device)
