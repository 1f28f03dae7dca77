"""What ``evaluate`` says of cluster artifacts: coverage against labels, per class, cluster and patient."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from segcal_cli.core.conformal import BadLevel
from segcal_cli.core.errors import UsageError
from segcal_cli.core.estimator import Estimator
from segcal_cli.kandinsky.coverage_rows import WHOLE, CoverageRows, method_rows, same_places
from segcal_cli.kandinsky.measuring import Coverage, CoverageMeasurement
from segcal_cli.kandinsky.places import Placing, choose_placing
from segcal_cli.kandinsky.text import cluster_name, guarantee
from segcal_cli.reporting.tables import Table, csv_text, short
from segcal_cli.workflows.cluster_artifacts import LoadedCluster, frames_of, refuse_other_scans
from segcal_cli.workflows.cluster_atlas import WithAtlas, atlases_for
from segcal_cli.workflows.cluster_pictures import pictured_cases
from segcal_cli.workflows.inputs import Inputs
from segcal_cli.workflows.kinds import Presented
from segcal_cli.workflows.regions_of_interest import refuse_other_region
from segcal_cli.workflows.requests import JudgeOptions

FILES = ("coverage.csv", "errors.csv", "levels.csv", "sets.csv", "cases.csv")

COVERAGE = (
    "class", "cluster", "alpha", "coverage_voxel", "coverage_patient", "low", "high", "nominal", "n_voxels", "n_groups",
    "share_infinite",
)  # fmt: skip
ERRORS = (
    "class", "ce20_mean", "ce20_q05", "ce20_q95", "floor_mean", "shortfall_mean", "worst_cluster_gap", "n_cells",
    "n_cells_left_out", "image_ce20_mean",
)  # fmt: skip
LEVELS = ("class", "cluster", "level", "coverage_voxel", "coverage_patient", "n")
CASES = ("case", "group", "class", "alpha", "n_voxels", "missed_share", "mean_size")
METHODS = (
    "class", "artifact", "method", "weighting", "ce20_mean", "ce20_q05", "ce20_q95", "floor_mean", "n_cells",
    "coverage_patient", "alpha", "mean_size", "best",
)  # fmt: skip

KEPT_VOXELS = 5_000_000
"""Places of single patients are kept, to compare methods, while all cases together hold at most this many voxels."""

SHOWN_ROWS = 40


class BadCoverage(UsageError):
    """An option that cannot be."""

    template = "--{0} {1} is not allowed; {2}"


class NoTopOne(UsageError):
    """Filling empty sets of independent regions."""

    template = "--empty has no meaning for {0}: its regions are independent, and an empty set is a proper answer"


def measurement(loaded: LoadedCluster, inputs: Inputs, options: JudgeOptions) -> tuple[Estimator, CoverageMeasurement]:
    """The estimator of a pass, and the measurement in it.

    Raises OtherRegion, BadCoverage, BadLevel, NoTopOne, AtlasNeeded, AtlasStored, and what refuse_other_scans raises.
    """
    model = loaded.model
    refuse_other_region(loaded.path, loaded.artifact, inputs.sources)
    refuse_other_scans(loaded, inputs.sources)
    if options.empty is not None and not model.space.exclusive:
        raise NoTopOne(loaded.path)
    if not 2 <= options.ce_bins <= 200:
        raise BadCoverage("ce-bins", options.ce_bins, "give 2 to 200 levels")
    if options.min_positives < 1:
        raise BadCoverage("min-positives", options.min_positives, "give 1 or more")
    if options.block is not None and options.block < 1:
        raise BadCoverage("block", options.block, "give 1 or more")
    level = loaded.alpha if options.alpha is None else options.alpha
    if not 0 < level < 1:
        raise BadLevel(level)
    placing = places_of(loaded, inputs, options)
    voxels = sum(int(np.prod(source.prediction.shape[1:])) for source in inputs.sources)
    counting = CoverageMeasurement(
        model,
        tuple(dict.fromkeys((level, *_range(options.alphas)))),
        placing,
        options.empty or "top1",
        options.ce_bins,
        keep_places=voxels <= KEPT_VOXELS,
        pictured=pictured_cases(loaded, [source.id for source in inputs.sources]),
    )
    atlases = atlases_for(
        loaded.path, loaded.artifact.arrays, options.atlas, [source.id for source in inputs.sources],
        model.regions.method,
    )  # fmt: skip
    return (counting if atlases is None else WithAtlas(counting, atlases)), counting


def places_of(loaded: LoadedCluster, inputs: Inputs, options: JudgeOptions) -> Placing:
    """The cells of coverage errors: those of the map, else the voxels of the evaluated scans."""
    own = loaded.model.regions.placing
    if own is not None and options.block is None:
        return own
    coords = None if own is None else own.coords
    return choose_placing(frames_of(inputs.sources), coords, options.block, has_roi=True)[0]


def present(name: str, loaded: LoadedCluster, rows: CoverageRows, *, in_sample: bool) -> Presented:
    """Entry, files and tables of one artifact."""
    model = loaded.model
    coverage, errors, levels, sets, cases = (
        rows.coverage(), rows.errors(), rows.levels(), rows.sets(), rows.cases()
    )  # fmt: skip
    alpha = rows.measurement.alphas[0]
    facts = loaded.judged(in_sample=in_sample)
    promise = guarantee(model, alpha, facts)
    below = rows.below_nominal()
    entry: dict[str, Any] = {
        "artifact": loaded.path.name,
        "name": name,
        "method": model.regions.method,
        "weighting": model.weighting,
        "empty": rows.measurement.empty_sets if model.space.exclusive else "allow",
        "in_sample": in_sample,
        "guarantee": promise,
        "below_nominal": below,
        "coverage": coverage,
        "errors": errors,
        "levels": levels,
        "sets": sets,
        "cases": cases,
    }
    classes = model.space.names
    set_columns = (
        "alpha", "mean_size", "empty_share", *(f"size_{n}" for n in range(len(classes) + 1)),
        *(f"false_inclusion_{one}" for one in classes),
    )  # fmt: skip
    files = {
        "coverage.csv": csv_text(COVERAGE, coverage),
        "errors.csv": csv_text(ERRORS, errors),
        "levels.csv": csv_text(LEVELS, levels),
        "sets.csv": csv_text(set_columns, map(_set_row, sets)),
        "cases.csv": csv_text(CASES, cases),
    }
    return Presented(
        "cluster", entry, tuple(_tables(name, loaded, rows, coverage, errors, sets, (promise, *below))), files
    )


def compared_rows(named: Sequence[tuple[str, CoverageRows]]) -> tuple[list[dict[str, Any]], tuple[Table, ...], str]:
    """All cluster artifacts side by side: rows, a table for people, a CSV."""
    rows = method_rows(named)
    if len(named) < 2:
        return rows, (), csv_text(METHODS, rows)
    shown = [
        (
            row["class"],
            row["artifact"] + ("*" if row["best"] else ""),
            row["method"],
            f"{short(row['ce20_mean'])} [{short(row['ce20_q05'], 3)}, {short(row['ce20_q95'], 3)}]",
            short(row["floor_mean"]),
            short(row["coverage_patient"], 3),
            short(row["mean_size"], 3),
        )
        for row in rows
    ]
    columns = ("class", "artifact", "method", "CE mean [5 %, 95 %]", "floor", "coverage", "mean size")
    caption = (
        "* lowest error, separated from the next by resampling patients. Values are comparable at equal n only."
        if same_places([one for _, one in named])
        else "The artifacts were measured at different places (a map of its own about each object, say): errors can be "
        "held against their floors, not against each other."
    )
    return rows, (Table("Cluster methods", columns, tuple(shown), caption),), csv_text(METHODS, rows)


def rows_of(counting: CoverageMeasurement, found: Coverage, options: JudgeOptions) -> CoverageRows:
    return CoverageRows(counting, found, options.min_positives)


def _tables(name, loaded, rows, coverage, errors, sets, said):  # type: ignore[no-untyped-def]
    model = loaded.model
    first = coverage[: len(rows.measurement.rows)]
    shown = first if len(first) <= SHOWN_ROWS else [row for row in first if row["cluster"] == WHOLE]
    lines = [
        (
            row["class"],
            "whole image"
            if row["cluster"] == WHOLE
            else cluster_name(model, model.space.names.index(row["class"]), row["cluster"]),
            short(row["coverage_patient"], 3),
            "-" if row["low"] is None else f"{short(row['low'], 3)} to {short(row['high'], 3)}",
            short(row["coverage_voxel"], 3),
            str(row["n_groups"]),
            "every set" if row["share_infinite"] == 1 else "",
        )
        for row in shown
    ]
    size = sets[0]
    false = ", ".join(f"{key} {short(value, 3)}" for key, value in size["false_inclusion"].items())
    caption = (
        f"At alpha {rows.measurement.alphas[0]:g}; mean over {len(rows.groups)} patients of the share that the set "
        f"holds, 95 % bootstrap-t over patients. Mean set size {size['mean_size']:.3f}, empty before filling "
        f"{100 * size['empty_share']:.1f} %. Share of other voxels whose set holds the class: {false}. "
    )
    columns = ("class", "cluster", "coverage", "interval", "of voxels", "patients", "")
    yield Table(f"{name}: coverage", columns, tuple(lines), "\n".join([caption + said[0], *said[1:]]))
    table = [
        (
            row["class"],
            f"{short(row['ce20_mean'])} [{short(row['ce20_q05'], 3)}, {short(row['ce20_q95'], 3)}]",
            short(row["floor_mean"]),
            short(row["shortfall_mean"]),
            short(row["image_ce20_mean"]),
            short(row["worst_cluster_gap"], 3),
            f"{row['n_cells']} ({row['n_cells_left_out']})",
        )
        for row in errors
    ]
    yield Table(
        f"{name}: coverage error by place",
        ("class", "CE mean [5 %, 95 %]", "noise floor", "shortfall", "imagewise CE", "worst cluster", "places"),
        tuple(table),
        f"{rows.measurement.n_levels} levels, before empty sets are filled. Places: cells with a positive, in brackets "
        f"those with fewer than {rows.min_positives}, left out of the quantiles. The floor is what exact coverage "
        "shows at the same n. Worst cluster: nominal minus coverage.",
    )


def _set_row(entry: dict[str, Any]) -> dict[str, Any]:
    return {
        **{key: entry[key] for key in ("alpha", "mean_size", "empty_share")},
        **{f"size_{n}": share for n, share in enumerate(entry["share_by_size"])},
        **{f"false_inclusion_{name}": value for name, value in entry["false_inclusion"].items()},
    }


def _range(text: str | None) -> list[float]:
    if text is None:
        return []
    try:
        start, stop, step = (float(part) for part in text.split(":"))
    except ValueError:
        raise BadCoverage("alphas", text, "give START:STOP:STEP, such as 0.05:0.5:0.05") from None
    n = int(np.floor((stop - start) / step + 1e-9)) + 1 if step > 0 else 0
    found = [round(start + step * number, 12) for number in range(max(n, 0))]
    if not found or len(found) > 200 or not all(0 < alpha < 1 for alpha in found):
        raise BadCoverage("alphas", text, "give at most 200 levels between 0 and 1")
    return found
