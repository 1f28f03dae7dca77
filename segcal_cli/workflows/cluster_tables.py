"""Tables of a cluster model: its maps and thresholds, for people and for programs."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from segcal_cli.kandinsky.codes import INFINITE, smallest_probability
from segcal_cli.kandinsky.model import Model
from segcal_cli.kandinsky.text import cluster_cells, cluster_name, pixel_rows, threshold_rows
from segcal_cli.reporting.tables import Table
from segcal_cli.workflows.cluster_artifacts import LoadedCluster

SHOWN_ROWS = 64
"""More class x cluster rows than this are for programs only."""


def model_document(loaded: LoadedCluster, alphas: Sequence[float]) -> dict[str, Any]:
    """What ``inspect --json`` and ``fit --json`` share beyond the header."""
    model, results = loaded.model, loaded.artifact.header.results
    document = {
        "method": model.regions.method,
        "weighting": model.weighting,
        "n_map_groups": results["n_map_groups"],
        "n_calibration_groups": results["n_calibration_groups"],
        "reuse": results["reuse"],
        "shift": model.shift,
        "smallest_alpha": model.smallest_alpha(),
        "maps": [_map(model, channel) for channel in range(len(model.space.names))],
    }
    if model.regions.method == "pixel":
        return {**document, "pixels": pixel_rows(model, alphas)}
    return {**document, "thresholds": threshold_rows(model, alphas)}


def people_table(model: Model, alpha: float) -> tuple[Table, ...]:
    """Class x cluster: area, patients, voxels, threshold at a level. Nothing where there are too many rows."""
    if model.regions.n_slots > SHOWN_ROWS:
        return ()
    groups, voxels = model.pools.n_groups, model.pools.n_voxels
    rows = []
    for channel, name in enumerate(model.space.names):
        limits, cells = model.thresholds(channel, alpha), cluster_cells(model, channel)
        share = None if cells is None else cells / cells.sum()
        for cluster in range(model.regions.sizes[channel]):
            slot = model.slots(channel).start + cluster
            code = int(limits[cluster])
            rows.append(
                (
                    name,
                    cluster_name(model, channel, cluster),
                    "-" if share is None else f"{100 * share[cluster]:.1f} %",
                    str(groups[slot]),
                    str(voxels[slot]),
                    "every set" if code == INFINITE else f"{smallest_probability(code, model.shift):.4g}",
                )
            )
    caption = (
        f"A class is in the set where its probability is at least the threshold of its cluster, at alpha {alpha:g}."
    )
    return (Table("", ("class", "cluster", "area", "patients", "voxels", "p at least"), tuple(rows), caption),)


def _map(model: Model, channel: int) -> dict[str, Any]:
    known = dict(model.described.get(channel, {}))
    edges = model.regions.edges.get(channel)
    cells = cluster_cells(model, channel)
    return {
        "class": model.space.names[channel],
        "k": model.regions.sizes[channel],
        "objective": known.get("objective"),
        "objective_one_cluster": known.get("objective_one_cluster"),
        "centre": known.get("centre"),
        "axes": known.get("axes"),
        "angles": known.get("angles"),
        "radii": known.get("radii"),
        "order": known.get("order"),
        "roughness": known.get("roughness"),
        "edges": None if edges is None else list(edges),
        "cells": None if cells is None else np.asarray(cells).tolist(),
    }
