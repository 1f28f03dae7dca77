"""Tables of what ratio intervals are worth: a row per method, source and level, and a row per case of each."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import numpy as np

from segcal_cli.core.errors import count_text
from segcal_cli.ratio.comparison import TERTILES, Comparison
from segcal_cli.ratio.guarantees import percent
from segcal_cli.ratio.table import RatioTable
from segcal_cli.reporting.tables import Table, csv_text, short

METHOD_COLUMNS = (
    "method",
    "source",
    "level",
    "guaranteed",
    "n",
    "covered",
    "coverage",
    "coverage_low",
    "coverage_high",
    "patients",
    "patients_covered",
    "undercoverage_p",
    "width_mean",
    "width_median",
    "vacuous_share",
    *(f"{key}_{name}" for name in TERTILES for key in ("n", "coverage", "width_mean")),
    "spearman_width_error",
    "alarm_threshold",
    "alarm_tolerance",
    "alarm_alarms",
    "alarm_large_errors",
    "alarm_precision",
    "alarm_recall",
    *(
        f"{region}_{key}"
        for region in ("numerator", "denominator")
        for key in ("coverage", "width_mean_ml", "width_relative_median")
    ),
    "joint_coverage",
    "delta1",
)

CASE_COLUMNS = (
    "case",
    "group",
    "status",
    "method",
    "source",
    "level",
    "ratio",
    "ratio_low",
    "ratio_high",
    "width",
    "ratio_label",
    "error",
    "covered",
    "tertile",
    "alarm",
)

SCORED, UNLABELLED, SMALL, NO_MASK = "ok", "no_label", "no_ratio", "no_hard_denominator"
"""Status of a case: scored, its label holds no denominator, too little is predicted, its hard mask holds none."""


def method_csv(methods: Sequence[Mapping[str, Any]]) -> str:
    """``TABLE.ARTIFACT.methods.csv``."""
    return csv_text(METHOD_COLUMNS, [_flat(entry) for entry in methods])


def case_csv(new: RatioTable, compared: Sequence[Comparison], minimum: float) -> str:
    """``TABLE.ARTIFACT.cases.csv``: every case for every method, scored or not. minimum: mm3, or voxels."""
    return csv_text(CASE_COLUMNS, [row for one in compared for row in case_rows(new, one, minimum)])


def case_rows(new: RatioTable, one: Comparison, minimum: float) -> Iterator[dict[str, Any]]:
    """The rows of one method, source and level, by case id."""
    place = {case: i for i, case in enumerate(one.cases.ids)}
    columns = {
        "ratio": one.cases.ratio,
        "ratio_low": one.found.clipped.low,
        "ratio_high": one.found.clipped.high,
        "width": one.found.width,
        "ratio_label": one.cases.ratio_label,
        "error": one.error,
    }
    for i, case in enumerate(new.ids):
        row: dict[str, Any] = {
            "case": case,
            "group": new.groups[i],
            "method": one.settings.method,
            "source": one.source,
            "level": one.settings.level,
        }
        at = place.get(case)
        if at is None:
            small = not (new["B"][i] > 0 and new["B"][i] >= minimum)
            row["status"] = UNLABELLED if new["B_label"][i] == 0 else SMALL if small else NO_MASK
        else:
            row |= {name: _finite(column[at]) for name, column in columns.items()}
            row |= {
                "status": SCORED,
                "covered": bool(one.covered[at]),
                "tertile": TERTILES[int(one.tertile[at])],
                "alarm": bool(one.wide[at]),
            }
        yield row


def other_splits(methods: Sequence[Mapping[str, Any]], stored: float | None) -> str:
    """Where care could not take the split of the fit, and what it took; "" where it could. stored: --delta1."""
    other = {one["level"]: one["delta1"] for one in methods if one["delta1"] not in (None, stored)}
    if stored is None or not other:
        return ""
    taken = ", ".join(f"{delta1:g} at level {percent(level)}" for level, delta1 in sorted(other.items()))
    return f"The --delta1 {stored:g} of the fit is too large for other levels: care takes half of the error, {taken}"


def people_tables(name: str, entry: Mapping[str, Any], level: float, why_none: str) -> Iterator[Table]:
    """For people: all methods at the level of the fit, and what the predictions themselves are worth. why_none: why no
    method is guaranteed, or ""."""
    rows = [
        (
            one["method"] if one["source"] == "soft" else f"{one['method']}, hard masks",
            f"{one['covered']}/{one['n']}",
            f"{short(one['coverage'], 3)} ({short(one['coverage_low'], 3)}-{short(one['coverage_high'], 3)})",
            short(one["width_mean"], 3),
            "/".join(short(tertile["coverage"], 2) for tertile in one["tertiles"]),
            short(one["spearman_width_error"], 2),
            f"{short(one['alarm']['precision'], 2)}/{short(one['alarm']['recall'], 2)}",
            "yes" if one["guaranteed"] else "no",
        )
        for one in entry["methods"]
        if one["level"] == level
    ]
    title = f"{name}: intervals of the ratio at level {percent(level)}"
    if not rows:
        # The reason stands in a cell: a title is folded to the width of its table.
        yield Table("", (title,), ((_why_empty(entry),),))
        return
    bias = entry["r_bias"]
    caption = (
        f"{entry['n_ratio']} of {count_text(entry['n_cases'], 'case')} with a labelled ratio, "
        f"{count_text(entry['n_patients'], 'patient')}; mean absolute R-Bias {short(bias['abs_mean'])} (hard masks "
        f"{short(entry['r_bias_hard']['abs_mean'])})"
    )
    if entry["in_sample"]:
        caption += "; SOME CASES WERE USED TO FIT IT, so coverage is flattered"
    if entry["other_splits"]:
        caption += f". {entry['other_splits']}"
    if why_none:
        caption += f". No guarantee: {why_none}"
    yield Table(
        title,
        (
            "method",
            "covered",
            "coverage (95 %)",
            "width",
            "small/medium/large",
            "width~error",
            "alarm prec/rec",
            "guar.",
        ),
        tuple(rows),
        caption,
    )


def _why_empty(entry: Mapping[str, Any]) -> str:
    below = " + ".join(entry["denominator"]["names"])
    cases, without = count_text(entry["n_cases"], "case"), count_text(entry["n_without_denominator"], "label")
    small = count_text(entry["n_small_denominator"], "case")
    return f"None of {cases} can be scored: {without} without {below}, {small} predicted below the least {below}"


def _flat(entry: Mapping[str, Any]) -> dict[str, Any]:
    row = {name: entry[name] for name in METHOD_COLUMNS if name in entry}
    for tertile in entry["tertiles"]:
        row |= {f"{key}_{tertile['name']}": tertile[key] for key in ("n", "coverage", "width_mean")}
    row |= {f"alarm_{key}": value for key, value in entry["alarm"].items()}
    volumes = entry["volumes"] or {}
    for region in ("numerator", "denominator"):
        row |= {f"{region}_{key}": value for key, value in volumes.get(region, {}).items()}
    return row | {"joint_coverage": volumes.get("joint_coverage")}


def _finite(value: np.floating) -> float | None:
    return float(value) if np.isfinite(value) else None
