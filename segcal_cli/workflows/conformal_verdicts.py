"""Tables of what conformal sets are worth on labelled cases, and the options that decide what is in them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from segcal_cli.confidence.risk_control import crc_budget, grid_threshold, rcps_budget
from segcal_cli.confidence.spec import BadOption
from segcal_cli.confidence.studies import group_rows, method_rows, resplit_rows, sweep_rows
from segcal_cli.confidence.text import percent, threshold_text
from segcal_cli.confidence.validation import alpha_grid
from segcal_cli.confidence.verdict import Verdict
from segcal_cli.io.groups import parse_groups
from segcal_cli.reporting.tables import Table, csv_text, short
from segcal_cli.workflows.conformal_sources import LoadedSets
from segcal_cli.workflows.kinds import Presented
from segcal_cli.workflows.requests import JudgeOptions

FILE_ENDS = ("cases.csv", "coverage.csv", "sweep.csv", "resplits.csv", "groups.csv", "methods.csv")
"""Ends of the files beside the table."""

KEY = "conformal_sets"

METHODS = ("crc", "rcps", "bonferroni")

RESPLITS_SAY = (
    "Random resplits follow the beta-binomial law whatever the data, unless scores are tied: they check the program "
    "and show the spread, and prove nothing about exchangeability. Leaving out one group at a time (--by) is the test "
    "that can fail."
)

COVERAGE_SHOWN = (
    "target", "stratum", "side", "covered", "of", "coverage", "95 % interval", "nominal", "expected", "p_low", "p_two",
)  # fmt: skip
PROMISE_SHOWN = (
    "target", "stratum", "side", "score", "threshold", "promised", "n", "n needed", "rank", "own coverage, 5-95 %",
)  # fmt: skip
METHODS_SHOWN = (
    "target", "method", "score", "threshold", "mean_missed_fraction", "fully_held", "cases", "mean_voxels", "guarantee",
)  # fmt: skip

SWEEP = "0.01:0.5:0.01"
"""Levels of the sweep where none are given."""

MAX_ALPHAS = 1000
"""A finer grid than this is a slip of the finger."""


def judged_levels(loaded: LoadedSets, options: JudgeOptions) -> tuple[float, tuple[float, ...]]:
    """(alpha, alphas of the sweep). Raises BadOption."""
    alpha = loaded.spec.alpha if options.alpha is None else options.alpha
    if not 0.0 < alpha < 1.0:
        raise BadOption(f"--alpha {alpha:g} is not allowed; it must lie strictly between 0 and 1")
    if options.resplits < 0:
        raise BadOption(f"--resplits {options.resplits} is not allowed; it must be 0 or more")
    text = SWEEP if options.alphas is None else options.alphas
    try:
        start, stop, step = (float(part) for part in text.split(":"))
    except ValueError:
        raise BadOption(f"--alphas {text}: three numbers are expected, as in 0.01:0.5:0.01") from None
    if not (0.0 < start <= stop < 1.0 and step > 0.0) or (stop - start) / step > MAX_ALPHAS:
        raise BadOption(f"--alphas {text}: levels must lie strictly between 0 and 1 and ascend")
    return alpha, alpha_grid(start, stop, step)


def compared_methods(options: JudgeOptions) -> tuple[str, ...]:
    """The methods of ``--compare``. Raises BadOption."""
    asked = [] if options.compare is None else [part.strip() for part in options.compare.split(",") if part.strip()]
    for method in asked:
        if method not in METHODS:
            raise BadOption(f"--compare {method}: not known; known are {', '.join(METHODS)}")
    return tuple(method for method in METHODS if method in asked)


def controls_of(loaded: LoadedSets, options: JudgeOptions, alpha: float) -> list[tuple[str, tuple[float, ...]]]:
    """(method, threshold on the log-odds by target) of risk control. Raises BadOption for label maps."""
    methods = [method for method in compared_methods(options) if method != "bonferroni"]
    if not methods:
        return []
    curve = loaded.artifact.arrays.get("missed_curve")
    if curve is None:
        raise BadOption(
            f"--compare {','.join(methods)}: {loaded.path} was fitted on label maps, risk control needs scores"
        )
    n = loaded.calibration.table.n
    budgets = {"crc": crc_budget(n, alpha), "rcps": rcps_budget(n, alpha)}
    return [(method, tuple(grid_threshold(one, n, budgets[method]) for one in curve)) for method in methods]


def presented(
    name: str,
    loaded: LoadedSets,
    verdict: Verdict,
    options: JudgeOptions,
    controls: Sequence[tuple[str, Sequence[float]]],
    *,
    in_sample: bool,
) -> Presented:
    """Everything about one artifact. Raises BadExpression and NoGroup for ``--by``."""
    coverage, sizes = verdict.coverage_rows(), verdict.size_summary()
    resplits, _ = resplit_rows(verdict, options.resplits)
    rows: dict[str, list[dict[str, Any]]] = {
        "cases": verdict.case_rows(),
        "coverage": coverage,
        "sweep": sweep_rows(verdict),
        "resplits": resplits,
        "groups": [],
        "methods": [],
    }
    if options.by is not None:
        rule = parse_groups(options.by)
        ids = (*loaded.calibration.table.ids, *verdict.table.ids)
        rows["groups"] = group_rows(verdict, {id: rule.of(id) for id in ids})
    if compared_methods(options):
        rows["methods"] = method_rows(
            verdict,
            name,
            controls,
            bonferroni="bonferroni" in compared_methods(options),
            overlapped=bool(loaded.artifact.header.spec.get("overlap_allowed")),
        )
    promise = loaded.promise(loaded.calibration, verdict.alpha)
    entry = {
        "name": name,
        "file": loaded.path.name,
        "in_sample": in_sample,
        "alpha": verdict.alpha,
        "unit": loaded.spec.unit,
        "n_cases": len(verdict.outcomes),
        "guarantee": promise,
        "thresholds": [row.to_json() for row in loaded.calibration.thresholds(verdict.alpha)],
        "coverage": coverage,
        "sizes": sizes,
        "sweep": rows["sweep"],
        "resplits": resplits,
        "groups": rows["groups"],
        "methods": rows["methods"],
        "resplits_note": RESPLITS_SAY,
    }
    files = {f"{key}.csv": csv_text(tuple(found[0]), found) for key, found in rows.items() if found}
    tables = [promise_table(name, loaded, verdict), *people_tables(name, verdict, rows, sizes, in_sample=in_sample)]
    return Presented(KEY, entry, tuple(tables), files)


def promise_table(name: str, loaded: LoadedSets, verdict: Verdict) -> Table:
    """What is promised of each target and side, from how many units, above the sentence that says it all."""
    calibration, alpha = verdict.calibration, verdict.alpha
    spec = calibration.spec
    overlapped = bool(loaded.artifact.header.spec.get("overlap_allowed"))
    rows = []
    for target, entry in enumerate(spec.targets):
        for stratum in range(len(calibration.strata)):
            found = calibration.threshold(target, stratum, alpha)
            for side, one in (("inner", found.inner), ("outer", found.outer)):
                said = one.reason if one.vacuous else "nothing" if overlapped else percent(1.0 - one.alpha)
                rows.append((
                    entry.target.name, found.stratum or "-", side, str(entry.score(side)),
                    f"{'>' if side == 'inner' else '<='} {threshold_text(spec, target, side, one.value)}",
                    said, str(one.n), str(one.n_needed), "-" if one.rank is None else str(one.rank),
                    "-" if one.range is None or one.vacuous else f"{one.range[0]:.3f}-{one.range[1]:.3f}",
                ))  # fmt: skip
    return Table(
        f"{name}: what is promised at alpha {alpha:g}", PROMISE_SHOWN, tuple(rows), loaded.promise(calibration, alpha)
    )


def people_tables(
    name: str,
    verdict: Verdict,
    rows: Mapping[str, Sequence[Mapping[str, Any]]],
    sizes: Sequence[Mapping[str, Any]],
    *,
    in_sample: bool,
) -> list[Table]:
    """Coverage, sizes, one line of the resplits, groups and methods, for people."""
    unit = "patients" if verdict.calibration.spec.unit != "case" else "cases"
    seen = " IN-SAMPLE: some of these cases calibrated the sets." if in_sample else ""
    suspicious = [row for row in rows["coverage"] if row["message"]]
    said = "".join(f" {row['target']}, {row['side']}: {row['message']}." for row in suspicious)
    tables = [
        Table(
            f"{name}: coverage at alpha {verdict.alpha:g}",
            COVERAGE_SHOWN,
            tuple(_coverage_cells(row) for row in rows["coverage"]),
            f"Units: {unit}. p_low: how likely as few or fewer are covered if units are exchangeable.{said}{seen}",
        ),
        Table(
            f"{name}: sizes at alpha {verdict.alpha:g}",
            ("target", "|I| voxels", "|O| voxels", "I diameter ratio", "O diameter ratio", "I empty", "O everything",
             "contradictions", "false alarms"),
            tuple(_size_cells(row) for row in sizes),
            "Medians [quartiles]. Diameter ratio: the d-th root of |set|/|truth|. False alarms: non-empty inner sets "
            "where there is no target.",
        ),
    ]  # fmt: skip
    if rows["resplits"]:
        near = min({row["alpha"] for row in rows["resplits"]}, key=lambda alpha: abs(alpha - verdict.alpha))
        tables.append(
            Table(
                f"{name}: resplits at alpha {near:g}",
                ("target", "side", "n", "m", "mean", "sd", "5 %", "95 %", "law mean", "law sd"),
                tuple(
                    (str(row["target"]), str(row["side"]), str(row["n"]), str(row["m"]),
                     *(short(row[key]) for key in ("mean", "sd", "low", "high", "law_mean", "law_sd")))
                    for row in rows["resplits"]
                    if row["alpha"] == near
                ),
                RESPLITS_SAY,
            )
        )  # fmt: skip
    if rows["groups"]:
        columns = ("target", "stratum", "side", "group", "n", "m", "covered", "coverage", "p_low", "message")
        tables.append(
            Table(
                f"{name}: each group left out",
                columns,
                tuple(tuple(_cell(row[key]) for key in columns) for row in rows["groups"]),
                "All other groups, stored and new, calibrate (within a stratum); coverage of the group's own units.",
            )
        )
    if rows["methods"]:
        tables.append(
            Table(
                f"{name}: outer sets of other methods at alpha {verdict.alpha:g}",
                METHODS_SHOWN,
                tuple(tuple(_cell(row[key]) for key in METHODS_SHOWN) for row in rows["methods"]),
            )
        )
    return tables


def _coverage_cells(row: Mapping[str, Any]) -> tuple[str, ...]:
    interval = "-" if not row["m"] else f"{row['low']:.3f}-{row['high']:.3f}"
    return (
        str(row["target"]),
        row["stratum"] or "-",
        str(row["side"]),
        str(row["covered"]),
        str(row["m"]),
        short(row["coverage"], 3),
        interval,
        *(short(row[key], 3) for key in ("nominal", "expected", "p_low", "p_two")),
    )


def _size_cells(row: Mapping[str, Any]) -> tuple[str, ...]:
    def quartiles(found: Mapping[str, float | None], digits: int) -> str:
        low, middle, high = (
            "-" if found[key] is None else f"{found[key]:.{digits}f}" for key in ("q25", "median", "q75")
        )
        return f"{middle} [{low}, {high}]"

    return (
        str(row["target"]),
        quartiles(row["inner_voxels"], 0),
        quartiles(row["outer_voxels"], 0),
        quartiles(row["inner_diameter_ratio"], 3),
        quartiles(row["outer_diameter_ratio"], 3),
        str(row["inner_empty"]),
        str(row["outer_everything"]),
        str(row["contradictions"]),
        f"{row['false_alarms']} of {row['without_target']}",
    )


def _cell(value: Any) -> str:
    if value is None:
        return "-"
    return short(float(value)) if isinstance(value, float | np.floating) else str(value)
