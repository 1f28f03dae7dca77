"""What commands ask of a ``cluster`` artifact: its map, its thresholds, and what they promise."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from segcal_cli.core.artifact import Artifact
from segcal_cli.kandinsky.text import guarantee, map_lines, smallest_alpha_text, vacuous_lines
from segcal_cli.workflows.cluster_artifacts import loaded_cluster
from segcal_cli.workflows.cluster_tables import model_document, people_table
from segcal_cli.workflows.kinds import Description

SHOWN_ALPHAS = (0.05, 0.1, 0.2)
"""Levels at which ``inspect`` shows thresholds where none is asked for."""


def describe(path: Path, artifact: Artifact, alphas: Sequence[float] = ()) -> Description:
    """The map in words, thresholds at some levels, and what each level promises. Raises DamagedModel, BadLevel."""
    loaded = loaded_cluster(path, artifact)
    model, results = loaded.model, artifact.header.results
    levels = tuple(alphas) or SHOWN_ALPHAS
    lines = [
        f"map         {results['n_map_groups']} patients made it, {results['n_calibration_groups']} calibrated"
        if results["map_cases"]
        else f"map         needs no patients; {results['n_calibration_groups']} calibrated",
        f"weighting   {model.weighting}; {smallest_alpha_text(model)}",
        *(f"            {line}" for line in map_lines(model)),
    ]
    for alpha in levels:
        lines += ["", f"alpha {alpha:g}"]
        for table in people_table(model, alpha):
            widths = [max(map(len, column)) for column in zip(table.columns, *table.rows, strict=True)]
            for row in (table.columns, *table.rows):
                cells = [cell.ljust(w) if i < 2 else cell.rjust(w) for i, (cell, w) in enumerate(zip(row, widths))]  # noqa: B905
                lines.append("  " + "  ".join(cells).rstrip())
        lines += [f"  vacuous: {line}" for line in vacuous_lines(model, alpha)]
        lines.append(f"  {guarantee(model, alpha, loaded.circumstances)}")
    return Description(tuple(lines), model_document(loaded, levels))
