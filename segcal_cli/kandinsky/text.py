"""What a model promises, and what its map is, in words.

The wording decides what a reader believes, so it is made in one place: the promise of the patient rule, what it does
not cover, where it is vacuous, and the sentences that take its place where there is none.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from segcal_cli.core.conformal import smallest_sufficient_n
from segcal_cli.core.frozen import dataclass
from segcal_cli.kandinsky.codes import INFINITE, score_interval, smallest_probability
from segcal_cli.kandinsky.model import Model

SHOWN_SLOTS = 12
"""Vacuous clusters that are named one by one; more are counted."""

UNGROUPED = "without --groups each file counts as a patient; several files of one patient break the promise"

IN_SAMPLE = " In-sample: some of the cases measured here were used in the fit, so their coverage is no evidence."


@dataclass(frozen=True, slots=True)
class Circumstances:
    """What of a fit, and of its use, decides whether anything is promised. n_groups: calibration patients; n_dropped:
    cases left out of n_cases. seen_before: the calibrator, through which predictions are read, had seen some of them.

    roi: only voxels inside a region of interest counted; ignored: the labels could ignore voxels.
    in_sample: it is judged on some cases of the fit.
    """

    n_groups: int
    reuse: bool = False
    overlap: bool = False
    grouped: bool = True
    n_dropped: int = 0
    n_cases: int = 0
    seen_before: bool = False
    roi: bool = False
    ignored: bool = False
    in_sample: bool = False


def guarantee(model: Model, alpha: float | Sequence[float], facts: Circumstances) -> str:
    """One sentence on what holds at this level, or why nothing does. alpha: of all classes, or one per class."""
    return _promise(model, alpha, facts) + (IN_SAMPLE if facts.in_sample else "")


def _promise(model: Model, alpha: float | Sequence[float], facts: Circumstances) -> str:
    if model.weighting == "voxel":
        return "No guarantee: voxels of one patient are pooled as if they were independent (--weighting voxel)."
    if facts.reuse:
        return "No guarantee: the map was made from the calibration patients themselves (--reuse)."
    if facts.overlap:
        return "No guarantee: some patients made the map and calibrated it too (--allow-overlap)."
    if facts.seen_before:
        return "No guarantee: the calibrator had been fitted on some of the calibration patients (--allow-overlap)."
    levels = np.broadcast_to(np.asarray(alpha, float), len(model.space.channels)).tolist()
    clustered = model.regions.n_slots > len(levels)
    units = model.pools.units(model.weighting)
    enough = sum(
        int((units[model.slots(channel)] >= smallest_sufficient_n(level)).sum()) for channel, level in enumerate(levels)
    )
    what = "class and cluster" if clustered else "class"
    distinct = list(dict.fromkeys(levels))
    needed = smallest_sufficient_n(distinct[0])
    if not enough:
        at = f"alpha {', '.join(f'{level:g}' for level in distinct)}"
        many = f"{needed} " if len(distinct) == 1 else ""
        return (
            f"Vacuous at {at}: no {what} has the {many}patients that it needs (at most "
            f"{int(units.max(initial=0))} are there), so every set holds every class."
        )
    name = model.space.names[0] if len(model.space.names) == 1 else ""
    voxels = f"{name} voxels" if name else "voxels of a class"
    where = " in a cluster" if clustered else ""
    misses = (
        f"at most {100 * distinct[0]:g} % on average over patients, for each {what} with at least {needed} "
        f"{_plural('patient', needed)}"
        if len(distinct) == 1
        else f"on average over patients at most {_by_class(model, levels)}, for each {what} with so many patients"
    )
    text = (
        f"For a new patient exchangeable with the {facts.n_groups} calibration patients: of the patient's "
        f"{voxels}{where} the set misses {misses} (here {enough} of {len(units)}). Nothing is promised for one "
        "voxel, one scan, "
    )
    text += "the whole image, or several clusters or classes at once." if clustered else "or several classes at once."
    return text + _conditions(facts)


def _by_class(model: Model, levels: Sequence[float]) -> str:
    """Levels that differ, each with its classes and the patients that it needs."""
    parts = []
    for level in dict.fromkeys(levels):
        names = ", ".join(name for name, own in zip(model.space.names, levels, strict=True) if own == level)
        needed = smallest_sufficient_n(level)
        parts.append(f"{100 * level:g} % ({names}; from {needed} {_plural('patient', needed)})")
    return f"{', '.join(parts[:-1])} or {parts[-1]}"


def _conditions(facts: Circumstances) -> str:
    """What a promise holds for and under which conditions, after its first sentences."""
    text = ""
    if facts.roi:
        text += " Only voxels inside the region of interest count."
    if facts.ignored:
        text += " Voxels that the labels ignore do not count."
    if not facts.grouped:
        text += f" {UNGROUPED[0].upper()}{UNGROUPED[1:]}."
    if facts.n_dropped:
        text += (
            f" After leaving out {facts.n_dropped} of {facts.n_cases} cases; it holds only if they did not fail for a "
            "reason related to their scores."
        )
    return text


def vacuous_lines(model: Model, alpha: float) -> list[str]:
    """Per class the clusters whose threshold is infinite at this level: how many units they have, and would need."""
    needed = smallest_sufficient_n(alpha)
    units = model.pools.units(model.weighting)
    word = "patient" if model.weighting == "patient" else "voxel"
    lines = []
    for channel, name in enumerate(model.space.names):
        own = units[model.slots(channel)]
        short = np.flatnonzero(own < needed)
        if not short.size:
            continue
        if len(own) == 1:
            where, has = "", f"{own[0]} {_plural(word, int(own[0]))}"
        elif short.size <= SHOWN_SLOTS:
            where = f"{_clusters(model, channel, short.tolist())}: "
            has = f"{', '.join(str(own[cluster]) for cluster in short)} {_plural(word, 2)}"
        else:
            where = f"{short.size} of {len(own)} clusters: "
            has = f"{int(own[short].min())} to {int(own[short].max())} {_plural(word, 2)}"
        lines.append(
            f"{name}: {where}{has}, alpha {alpha:g} needs {needed}; the class stands in every set "
            f"{'there' if where else 'everywhere'}"
        )
    return lines


def map_lines(model: Model) -> list[str]:
    """The map of each class in words."""
    regions, lines = model.regions, []
    fixed = {
        "image": "one cluster, the whole image",
        "pixel": f"every voxel its own cluster ({max(regions.sizes)})",
        "grid": f"{' x '.join(map(str, regions.blocks))} blocks along x, y and z",
        "atlas": f"{len(regions.values)} regions of an atlas ({', '.join(map(str, regions.values[:20]))})",
    }
    if regions.method in fixed:
        return [fixed[regions.method]]
    for channel, name in enumerate(model.space.names):
        if regions.sizes[channel] == 1:
            lines.append(f"{name}: one cluster, the whole image")
        elif regions.method == "boundary":
            edges = ", ".join(f"{edge:.3g}" for edge in regions.edges[channel])
            unit = "mm"
            lines.append(
                f"{name}: {len(regions.edges[channel]) + 1} shells by distance to its predicted border, edges at "
                f"{edges} {unit} (inside negative), and one cluster where it is predicted nowhere"
            )
        else:
            lines.append(f"{name}: {_learned(model, channel)}")
    return lines


def threshold_rows(model: Model, alphas: Sequence[float]) -> list[dict[str, Any]]:
    """One row per class, cluster and level with data. cells: of the map; code None and score "inf" where infinite."""
    rows = []
    groups, voxels = model.pools.n_groups, model.pools.n_voxels
    for alpha in alphas:
        needed = smallest_sufficient_n(alpha)
        for channel, name in enumerate(model.space.names):
            limits = model.thresholds(channel, alpha)
            where = model.slots(channel)
            cells = cluster_cells(model, channel)
            for cluster in range(model.regions.sizes[channel]):
                slot = where.start + cluster
                if not voxels[slot]:
                    continue
                code = int(limits[cluster])
                infinite = code == INFINITE
                low, high = score_interval(code, model.shift) if not infinite else (float("inf"), float("inf"))
                rows.append(
                    {
                        "class": name,
                        "class_index": channel,
                        "cluster": cluster,
                        "cells": None if cells is None else int(cells[cluster]),
                        "n_groups": int(groups[slot]),
                        "n_voxels": int(voxels[slot]),
                        "needed_groups": needed,
                        "alpha": alpha,
                        "code": None if infinite else code,
                        "score_low": low,
                        "score_high": high,
                        "probability": 0.0 if infinite else smallest_probability(code, model.shift),
                        "vacuous": infinite,
                    }
                )
    return rows


def pixel_rows(model: Model, alphas: Sequence[float]) -> list[dict[str, Any]]:
    """Of ``pixel``, instead of thresholds: the share of voxels whose threshold is finite, per class and level."""
    return [
        {
            "class": name,
            "class_index": channel,
            "alpha": alpha,
            "finite_share": float((model.thresholds(channel, alpha)[:-1] < INFINITE).mean()),
        }
        for alpha in alphas
        for channel, name in enumerate(model.space.names)
    ]


def cluster_cells(model: Model, channel: int) -> np.ndarray | None:
    """int64 "cluster": cells of the map in each cluster; None where the map is no list of cells."""
    cells = model.regions.cells.get(channel)
    return None if cells is None else np.bincount(cells.reshape(-1), minlength=model.regions.sizes[channel])


def cluster_name(model: Model, channel: int, cluster: int) -> str:
    """How people know a cluster: its number from 1, the value of an atlas, the ends of a shell."""
    regions = model.regions
    if regions.sizes[channel] == 1:
        return "whole image"
    if regions.method == "atlas":
        return f"region {regions.values[cluster]}"
    if regions.method == "boundary" and channel in regions.edges:
        edges = regions.edges[channel]
        if cluster == len(edges) + 1:
            return "predicted nowhere"
        if not edges:
            return "everywhere"
        if cluster == 0:
            return f"up to {edges[0]:.3g}"
        return (
            f"beyond {edges[-1]:.3g}" if cluster == len(edges) else f"{edges[cluster - 1]:.3g} to {edges[cluster]:.3g}"
        )
    placing = regions.placing
    if placing is not None and placing.coords == "object" and cluster == regions.sizes[channel] - 1:
        return "predicted nowhere"
    return str(cluster + 1)


def smallest_alpha_text(model: Model) -> str:
    """The smallest level that is finite somewhere, in words."""
    smallest = model.smallest_alpha()
    return "no level is finite anywhere" if smallest is None else f"smallest finite alpha {smallest:.4g}"


def _learned(model: Model, channel: int) -> str:
    regions, known = model.regions, model.described.get(channel, {})
    k = regions.sizes[channel]
    nowhere = regions.placing is not None and regions.placing.coords == "object"
    extra = ", and one cluster where it is predicted nowhere" if nowhere else ""
    k -= nowhere
    if "centre" not in known:
        return f"{k} clusters of cells whose scores are distributed alike{extra}"
    axes = known["axes"]
    aspect = max(axes) / min(axes)
    shape = (
        "star shells"
        if regions.method == "star"
        else ("circles", "ellipses")[aspect > 1]
        if len(axes) == 2
        else (("spheres", "ellipsoids")[aspect > 1])
    )
    unit = known.get("unit", "mm")
    centre = ", ".join(f"{number:.0f}" for number in reversed(known["centre"]))
    radii = ", ".join(f"{radius:.3g}" for radius in known["radii"])
    return f"{k} {shape} about ({centre}) {unit}, radii {radii}, aspect {aspect:.2f}{extra}"


def _clusters(model: Model, channel: int, clusters: Sequence[int]) -> str:
    """Clusters as tables name them; bare numbers get the word."""
    names = [cluster_name(model, channel, cluster) for cluster in clusters]
    listed = ", ".join(names)
    return f"{_plural('cluster', len(names))} {listed}" if names[0].isdigit() else listed


def _plural(word: str, n: int) -> str:
    return word if n == 1 else f"{word}s"
