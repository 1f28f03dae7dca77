"""What commands ask of a ``cluster`` artifact: its map, its thresholds, and what they promise."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from collections.abc import Set as AbstractSet
from pathlib import Path
from typing import Any

from segcal_cli.core.artifact import Artifact
from segcal_cli.core.case import Case
from segcal_cli.core.errors import count_text
from segcal_cli.core.estimator import Estimator, require_state
from segcal_cli.core.frozen import dataclass
from segcal_cli.kandinsky.measuring import Coverage, CoverageMeasurement
from segcal_cli.kandinsky.text import guarantee, map_lines, smallest_alpha_text, vacuous_lines
from segcal_cli.reporting.pictures import Picture
from segcal_cli.workflows import cluster_pictures, cluster_verdicts
from segcal_cli.workflows.cluster_artifacts import loaded_cluster
from segcal_cli.workflows.cluster_tables import model_document, people_table
from segcal_cli.workflows.inputs import Inputs
from segcal_cli.workflows.kinds import Compared, Description, Presented, Reading
from segcal_cli.workflows.requests import JudgeOptions

FILES = cluster_verdicts.FILES

COMPARED_FILES = ("methods.csv",)

SHOWN_ALPHAS = (0.05, 0.1, 0.2)
"""Levels at which ``inspect`` shows thresholds where none is asked for."""


def describe(path: Path, artifact: Artifact) -> Description:
    """The map in words, thresholds at the usual levels, and what each level promises. Raises DamagedModel."""
    return describe_at(path, artifact, SHOWN_ALPHAS)


def describe_at(path: Path, artifact: Artifact, alphas: Sequence[float], *, verbose: bool = False) -> Description:
    """The same at levels of choice. verbose changes nothing: everything is shown. Raises DamagedModel, BadLevel."""
    loaded = loaded_cluster(path, artifact)
    model, results = loaded.model, artifact.header.results
    levels = tuple(alphas) or SHOWN_ALPHAS
    lines = [
        f"map         {count_text(results['n_map_groups'], 'patient')} made it, "
        f"{results['n_calibration_groups']} calibrated"
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


def measurement(path: Path, artifact: Artifact, predictions: Path, inputs: Inputs, options: JudgeOptions) -> Estimator:
    """Measures coverage on labelled cases. Raises what ``cluster_verdicts.measurement`` raises."""
    loaded = loaded_cluster(path, artifact)
    estimator, counting = cluster_verdicts.measurement(loaded, inputs, options)
    return Remembering(estimator, counting)


@dataclass(frozen=True)
class Remembering:
    """An estimator whose result says by what it was counted."""

    inner: Estimator
    counting: CoverageMeasurement

    def empty(self) -> Any:
        return self.inner.empty()

    def update(self, state: Any, case: Case) -> Any:
        return self.inner.update(state, case)

    def merge(self, a: Any, b: Any) -> Any:
        return self.inner.merge(a, b)

    def require_state(self, state: Any, cases: AbstractSet[str]) -> None:
        """See ``core/estimator.py``."""
        require_state(self.inner, state, cases)

    def finish(self, state: Any) -> tuple[CoverageMeasurement, Coverage]:
        return self.counting, self.inner.finish(state)


def present(
    name: str,
    path: Path,
    artifact: Artifact,
    result: tuple[CoverageMeasurement, Coverage],
    options: JudgeOptions,
    *,
    in_sample: bool,
) -> Presented:
    """Coverage per class, cluster and patient, errors by place, sizes of sets."""
    rows = cluster_verdicts.rows_of(*result, options)
    return cluster_verdicts.present(name, loaded_cluster(path, artifact), rows, in_sample=in_sample)


def compare(
    verdicts: Sequence[tuple[str, Path, Artifact, tuple[CoverageMeasurement, Coverage]]], options: JudgeOptions
) -> Compared:
    """All cluster artifacts side by side."""
    named = [(name, cluster_verdicts.rows_of(*result, options)) for name, _, _, result in verdicts]
    rows, tables, text = cluster_verdicts.compared_rows(named)
    return Compared({"methods": rows}, tables, {"methods.csv": text} if len(named) > 1 else {})


READING = {plot: Reading(title, how) for plot, (title, how) in cluster_pictures.SECTIONS.items()}


def pictures_together(
    verdicts: Sequence[tuple[str, Path, Artifact, tuple[CoverageMeasurement, Coverage], bool]],
    plots: Sequence[str],
    options: JudgeOptions,
    cells: Sequence[str],
) -> Iterator[Picture]:
    """Maps, coverage at every level, and errors place by place. Raises BadCell."""
    shown = [
        cluster_pictures.Shown(
            name, loaded_cluster(path, artifact), cluster_verdicts.rows_of(*result, options), in_sample
        )
        for name, path, artifact, result, in_sample in verdicts
    ]
    yield from cluster_pictures.draw(shown, plots, cells)
