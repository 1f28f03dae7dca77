"""KDE-ECE: a calibration error with a kernel in place of bins.

Popordanoska, Sayer, Blaschko 2022, "A consistent and differentiable Lp canonical calibration error estimator", for one
class. The frequency at p_i is a weighted mean of the other truths, r_i = sum_j K(p_i; p_j) y_j / sum_j K(p_i; p_j) over
j != i, with the beta kernel K(x; q), the density of Beta(q/h + 1, (1 - q)/h + 1) at x; the error is the mean of |r_i -
p_i|. The published code doubles the binary value. Cost grows with the square of the number of voxels, hence on a
sample.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Mapping
from dataclasses import replace

import numpy as np

from segcal_cli.core.case import Case
from segcal_cli.core.scores import Scores
from segcal_cli.metrics.columns import mean
from segcal_cli.metrics.measures import CaseMeasures, NoTruth, Settings, Source

CLIP = 1e-6
"""Probabilities are moved this far from 0 and 1, where the beta density may be infinite or zero."""

BANDWIDTHS = np.concatenate([np.geomspace(1e-5, 1e-1, 15), [0.2, 0.4, 0.6, 0.8, 1.0]])
"""Bandwidths that ``likeliest_bandwidth`` chooses from."""


def kde_ece(p: np.ndarray, y: np.ndarray, bandwidth: float) -> float:
    """KDE-ECE of one class. p: float64 "voxel"; y: bool or 0/1 "voxel"; at least two voxels."""
    p = np.clip(p.astype(np.float64), CLIP, 1.0 - CLIP)
    log_kernel, _ = _log_kernel(p, bandwidth)
    weight = np.exp(log_kernel - log_kernel.max(axis=1, keepdims=True))
    frequency = (weight * y).sum(axis=1) / weight.sum(axis=1)
    return float(np.abs(frequency - p).mean())


def case_kde_ece(
    case: Case,
    source: Callable[[np.ndarray], Scores],
    *,
    sample: int = 2000,
    bandwidth: float | None = None,
    seed: int = 0,
) -> dict[str, float | None]:
    """KDE-ECE of each measured class of a labelled case, on at most ``sample`` counted voxels.

    The voxels are drawn by a generator that only seed and case id decide, so they are the same for every source.
    bandwidth: None for the likeliest one. None for fewer than two voxels. Raises NoTruth.
    """
    if case.labels is None:
        raise NoTruth(case.id)
    kept = case.counted(padding=False)
    voxels = np.arange(case.labels.codes.size) if kept is None else np.flatnonzero(kept)
    if voxels.size > sample:
        voxels = np.sort(_generator(seed, case.id).choice(voxels, size=sample, replace=False))
    space, codes = case.space, case.labels.codes.reshape(-1)[voxels]
    if voxels.size < 2:
        return dict.fromkeys(space.measured_names)
    p = source(case.volume.array.reshape(len(case.volume.array), -1)[:, voxels]).p.astype(np.float64)
    found: dict[str, float | None] = {}
    parts = [*((channel,) for channel in space.measured), *(space.parts(region) for region in space.regions)]
    for name, channels in zip(space.measured_names, parts, strict=True):
        of_class = p[list(channels)].sum(axis=0)
        truth = np.logical_or.reduce(case.labels.members[list(channels)])[codes]
        found[name] = kde_ece(of_class, truth, likeliest_bandwidth(of_class) if bandwidth is None else bandwidth)
    return found


def with_kde(
    measured: Mapping[str, CaseMeasures], case: Case, sources: Mapping[str, Source], settings: Settings
) -> dict[str, CaseMeasures]:
    """The same measures with KDE-ECE, which no histogram gives, where it is asked for."""
    if "kde_ece" not in settings.wanted:
        return dict(measured)
    filled = {}
    for name, found in measured.items():
        values = case_kde_ece(
            case, sources[name], sample=settings.kde_sample, bandwidth=settings.kde_bandwidth, seed=settings.seed
        )
        rows = {
            key: row | {"kde_ece": None if settings.absent == "skip" and not row["n_label"] else values[key]}
            for key, row in found.classes.items()
        }
        average = mean(rows[key]["kde_ece"] for key in settings.averaged(case.space))
        filled[name] = replace(found, classes=rows, all=found.all | {"kde_ece": average})
    return filled


def _generator(seed: int, case_id: str) -> np.random.Generator:
    digest = hashlib.sha256(case_id.encode()).digest()
    return np.random.default_rng([seed, *np.frombuffer(digest, dtype="<u4").tolist()])


def likeliest_bandwidth(p: np.ndarray) -> float:
    """The bandwidth of the largest leave-one-out likelihood of p, sum_i log (1/(n-1)) sum_(j != i) K(p_i; p_j).

    Voxels of one value, as saturated ones are, share a row and a column.
    """
    values, count = np.unique(np.clip(p.astype(np.float64), CLIP, 1.0 - CLIP), return_counts=True)
    with np.errstate(divide="ignore"):  # a value that occurs once has no other voxel: log 0
        log_count, log_others = np.log(count), np.log(count - 1.0)
    likelihood = []
    for bandwidth in BANDWIDTHS:
        log_kernel, own = _log_kernel(values, bandwidth)
        log_kernel += log_count
        np.fill_diagonal(log_kernel, own + log_others)
        largest = log_kernel.max(axis=1)
        log_kernel -= largest[:, None]
        total = np.exp(log_kernel, out=log_kernel).sum(axis=1)
        likelihood.append((count * (np.log(total) + largest)).sum())
    return float(BANDWIDTHS[int(np.argmax(likelihood))])


def _log_kernel(p: np.ndarray, bandwidth: float) -> tuple[np.ndarray, np.ndarray]:
    """float64 "at of": log K(p_at; p_of), -inf on the diagonal; what stood there."""
    from scipy.special import betaln

    a, b = p / bandwidth, (1.0 - p) / bandwidth
    log_kernel = np.log(p)[:, None] * a
    log_kernel += np.log1p(-p)[:, None] * b
    log_kernel -= betaln(a + 1.0, b + 1.0)
    own = log_kernel.diagonal().copy()
    np.fill_diagonal(log_kernel, -np.inf)
    return log_kernel, own
