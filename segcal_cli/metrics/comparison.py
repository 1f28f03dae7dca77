"""Comparison of sources: which is better, in how many patients, and can chance explain it.

Groups (patients) are the pairs; they are matched by name. Per measure and class every source is tested against the one
with the best mean: Wilcoxon's signed-rank test with the paired t-test beside it, because on skewed differences they
disagree. Marked as best are the best source and all that do not differ from it at 0.05, as in the tables of Rousseau et
al. 2021 (whose code tests against the base model instead). In the plane of overlap and calibration error, the Pareto
front holds the sources that no other beats in both.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence

import numpy as np

from segcal_cli.core.errors import PairingError
from segcal_cli.core.frozen import dataclass
from segcal_cli.metrics.columns import mean
from segcal_cli.metrics.measures import CaseMeasures
from segcal_cli.metrics.summaries import group_values

SIGNIFICANCE = 0.05
"""p below this separates a source from the best one."""

MIN_TESTED_GROUPS = 6
"""Two-sided signed ranks of five pairs cannot fall below 2/32 = 0.0625."""

HIGHER_IS_BETTER = frozenset({"dice", "iou", "accuracy", "brier_dsc", "nll_dsc"})
"""Of all other compared measures, less is better."""

BY_SIZE = frozenset({"volume_bias", "volume_bias_ml"})
"""Signed measures: the source nearer to 0 is better."""

COMPARED = (
    "ece",
    "ace",
    "mce",
    "adaptive_ece",
    "smooth_ece",
    "kde_ece",
    "brier",
    "nll",
    "brier_mcb",
    "brier_dsc",
    "nll_mcb",
    "nll_dsc",
    "volume_bias",
    "volume_bias_ml",
    "dice",
    "iou",
    "top_ece",
    "top_ace",
    "top_mce",
    "accuracy",
    "joint_nll",
    "joint_brier",
)
"""Measures that have a better side."""


class DifferentCases(PairingError):
    """Two sources do not hold the same cases; comparing their intersection would hide that."""

    template = "{0} lacks {1}, which {2} has"


@dataclass(frozen=True, slots=True)
class Compared:
    """One source in one measure and class, against the best one.

    mean: macro; of a signed measure that of its size, by which sources are compared. n: groups where both have a value;
    n_zero: those without a difference. median_difference: this minus best. better_in: share of groups in which this
    source is the better one. p is None for the best source itself and with fewer than two groups. bold: the best, or
    not told apart from it. pareto: on the front of dice and ece of this class.
    """

    metric: str
    name: str
    source: str
    best: str
    mean: float | None
    n: int
    n_zero: int
    median_difference: float | None
    p_wilcoxon: float | None
    p_holm: float | None
    p_ttest: float | None
    better_in: float | None
    bold: bool
    pareto: bool


def compare(
    sources: Mapping[str, Sequence[CaseMeasures]], name: str, metrics: Sequence[str] = COMPARED
) -> list[Compared]:
    """Rows of one class (or ``(all)``), by metric and then source. Metrics that no source has are left out.

    Raises DifferentCases.
    """
    check_same_cases(sources)
    if len({case.group for cases in sources.values() for case in cases}) < 2:
        return []
    front = pareto_front(overlap_and_error(sources, name))
    rows = []
    for metric in metrics:
        values = {source: group_values(cases, name, metric) for source, cases in sources.items()}
        known = {source: of for source, of in values.items() if any(value is not None for value in of.values())}
        if known:
            rows += _compare_metric(known, metric, name, front)
    return rows


def _compare_metric(
    values: Mapping[str, Mapping[str, float | None]], metric: str, name: str, front: Sequence[str]
) -> list[Compared]:
    """values: of each source, by group."""
    losses = {
        source: {group: _loss(value, metric) for group, value in of.items() if value is not None}
        for source, of in values.items()
    }
    best = min(losses, key=lambda source: math.fsum(losses[source].values()) / len(losses[source]))
    others = [source for source in losses if source != best]
    differences = {
        source: np.array([losses[source][g] - losses[best][g] for g in losses[source] if g in losses[best]])
        for source in others
    }
    p_wilcoxon = {source: wilcoxon(differences[source]) for source in others}
    p_holm = holm(p_wilcoxon)
    sign = -1.0 if metric in HIGHER_IS_BETTER else 1.0
    rows = []
    for source in losses:
        d = differences.get(source, np.zeros(len(losses[best])))
        p = p_wilcoxon.get(source)
        alike = p is not None and p >= SIGNIFICANCE and d.size >= MIN_TESTED_GROUPS
        rows.append(
            Compared(
                metric,
                name,
                source,
                best,
                mean(_size(value, metric) for value in values[source].values()),
                d.size,
                int((d == 0.0).sum()),
                sign * float(np.median(d)) + 0.0 if d.size else None,
                p,
                p_holm.get(source),
                paired_t(d) if source != best else None,
                float((d < 0.0).mean()) if d.size else None,
                source == best or alike,
                source in front,
            )
        )
    return rows


def heading_of(metric: str) -> str:
    """What is compared, as a table says it: of a signed measure its size."""
    return f"|{metric}|" if metric in BY_SIZE else metric


def _size(value: float | None, metric: str) -> float | None:
    return abs(value) if value is not None and metric in BY_SIZE else value


def _loss(value: float, metric: str) -> float:
    """The measure turned so that less is better."""
    return abs(value) if metric in BY_SIZE else -value if metric in HIGHER_IS_BETTER else value


def wilcoxon(differences: np.ndarray) -> float | None:
    """Two-sided p of the signed-rank test, zeros dropped; 1 if all are zero, None for fewer than two pairs."""
    if differences.size < 2:
        return None
    if not differences.any():
        return 1.0
    from scipy import stats

    return float(stats.wilcoxon(differences, zero_method="wilcox", method="auto").pvalue)


def paired_t(differences: np.ndarray) -> float | None:
    """Two-sided p of the paired t-test; 1 if all differences are zero, None for fewer than two pairs."""
    if differences.size < 2:
        return None
    if not differences.any():
        return 1.0
    error = differences.std(ddof=1) / math.sqrt(differences.size)
    if error == 0.0:
        return 0.0
    from scipy import stats

    return float(2.0 * stats.t.sf(abs(differences.mean()) / error, differences.size - 1))


def holm(p_values: Mapping[str, float | None]) -> dict[str, float]:
    """Holm-adjusted p values of those that exist: the k-th smallest of m times m + 1 - k, made monotone, at most 1."""
    known = sorted((p, key) for key, p in p_values.items() if p is not None)
    adjusted, largest = {}, 0.0
    for rank, (p, key) in enumerate(known):
        largest = max(largest, min(1.0, p * (len(known) - rank)))
        adjusted[key] = largest
    return adjusted


def overlap_and_error(sources: Mapping[str, Sequence[CaseMeasures]], name: str) -> dict[str, tuple[float, float]]:
    """Macro means (dice, ece) of the sources that have both."""
    points = {}
    for source, cases in sources.items():
        dice, error = (mean(group_values(cases, name, key).values()) for key in ("dice", "ece"))
        if dice is not None and error is not None:
            points[source] = (dice, error)
    return points


def pareto_front(points: Mapping[str, tuple[float, float]]) -> list[str]:
    """Names of the points (overlap, error) that no other dominates, by falling overlap. Equal points stay together.

    A point is dominated if another is at least as good in both and better in one.
    """

    def dominated(dice: float, error: float) -> bool:
        return any(d >= dice and e <= error and (d > dice or e < error) for d, e in points.values())

    front = [name for name, point in points.items() if not dominated(*point)]
    return sorted(front, key=lambda name: (-points[name][0], points[name][1]))


def check_same_cases(sources: Mapping[str, Sequence[CaseMeasures]]) -> None:
    """Raises DifferentCases, naming the cases that a source lacks."""
    held = {source: {case.case for case in cases} for source, cases in sources.items()}
    for source, own in held.items():
        for other, theirs in held.items():
            if theirs - own:
                raise DifferentCases(source, ", ".join(sorted(theirs - own)), other)
