"""Rows of what measuring a model showed: coverage with intervals over patients, levels, sets, errors place by place.

The patient is the unit: shares are taken within a patient and averaged over patients, and intervals resample patients.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import cached_property
from typing import Any

import numpy as np

from segcal_cli.core.frozen import dataclass
from segcal_cli.kandinsky.codes import INFINITE
from segcal_cli.kandinsky.coverage_errors import CellErrors, cell_errors
from segcal_cli.kandinsky.measuring import Coverage, CoverageMeasurement
from segcal_cli.metrics.intervals import bootstrap_t, resample

RESAMPLES, LEVEL, SEED = 2000, 0.95, 0
"""Of the intervals over patients."""

PLACE_RESAMPLES = 200
"""Of the comparison of coverage errors between methods, each of which recounts every place."""

PLACE_NUMBERS = 4_000_000
"""Numbers that recounting places holds at a time."""

WHOLE = "(all)"
"""The row of a class over the whole image."""


@dataclass(frozen=True)
class CoverageRows:
    """All rows of one model on labelled cases. min_positives: places with fewer are left out of quantiles."""

    measurement: CoverageMeasurement
    found: Coverage
    min_positives: int = 20

    @cached_property
    def groups(self) -> list[str]:
        return sorted({case.group for case in self.found.cases.values()}, key=str.encode)

    @cached_property
    def n(self) -> np.ndarray:
        """int64 "group row"."""
        return self._by_group("n")

    @cached_property
    def held(self) -> np.ndarray:
        """int64 "group alpha row"."""
        return self._by_group("held")

    @cached_property
    def level_counts(self) -> np.ndarray:
        """int64 "group row level"."""
        return self._by_group("levels")

    def _by_group(self, name: str) -> np.ndarray:
        first = getattr(next(iter(self.found.cases.values())), name)
        total = np.zeros((len(self.groups), *first.shape), np.int64)
        at = {group: index for index, group in enumerate(self.groups)}
        for case in self.found.cases.values():
            total[at[case.group]] += getattr(case, name)
        return total

    def _total(self, name: str) -> np.ndarray:
        return np.sum([getattr(case, name) for case in self.found.cases.values()], axis=0)

    def coverage(self) -> list[dict[str, Any]]:
        """One row per class, cluster and level: shares of voxels and of patients' voxels, with an interval."""
        model, names = self.measurement.model, self.measurement.model.space.names
        n = self.n.astype(np.float64)
        drawn = resample(len(self.groups), RESAMPLES, SEED)
        rows = []
        for index, alpha in enumerate(self.measurement.alphas):
            held = self.held[:, index].astype(np.float64)
            share = np.where(n > 0, held / np.maximum(n, 1), np.nan)
            # A t interval of shares near 0 or 1 leaves [0, 1] where resamples hardly vary.
            low, high = (np.clip(bound, 0.0, 1.0) for bound in bootstrap_t(share, drawn, LEVEL))
            limits = [
                model.thresholds(channel, self.measurement.alpha_of(alpha, channel)) for channel in range(len(names))
            ]
            infinite = self._total("infinite")
            voxels = int(self._total("sizes")[0].sum())
            for row, (channel, cluster) in enumerate(self.measurement.rows):
                total, groups = int(self.n[:, row].sum()), int((self.n[:, row] > 0).sum())
                unbounded = (
                    float(infinite[index, channel]) / float(voxels)
                    if cluster is None
                    else float(limits[channel][cluster] == INFINITE)
                )
                rows.append(
                    {
                        "class": names[channel],
                        "cluster": WHOLE if cluster is None else cluster,
                        "alpha": self.measurement.alpha_of(alpha, channel),
                        "coverage_voxel": float(held[:, row].sum()) / total if total else None,
                        "coverage_patient": float(np.nanmean(share[:, row])) if groups else None,
                        "low": _or_none(low[row]),
                        "high": _or_none(high[row]),
                        "nominal": 1 - self.measurement.alpha_of(alpha, channel),
                        "n_voxels": total,
                        "n_groups": groups,
                        "share_infinite": unbounded,
                    }
                )
        return rows

    def levels(self) -> list[dict[str, Any]]:
        """One row per class, cluster and level m/M, before empty sets are filled."""
        names, n_levels = self.measurement.model.space.names, self.measurement.n_levels
        rows = []
        for row, (channel, cluster) in enumerate(self.measurement.rows):
            covered = np.cumsum(self.level_counts[:, row], axis=1).astype(np.float64)
            n = self.n[:, row]
            known = n > 0
            total = int(n.sum())
            for m in range(n_levels):
                rows.append(
                    {
                        "class": names[channel],
                        "cluster": WHOLE if cluster is None else cluster,
                        "level": (m + 1) / n_levels,
                        "coverage_voxel": float(covered[:, m].sum()) / total if total else None,
                        "coverage_patient": float((covered[known, m] / n[known]).mean()) if total else None,
                        "n": total,
                    }
                )
        return rows

    def sets(self) -> list[dict[str, Any]]:
        """One entry per level: sizes, empty sets, and per class how often it stands where it does not belong."""
        names = self.measurement.model.space.names
        sizes, empty, included, others = map(self._total, ("sizes", "empty", "included", "others"))
        total = sizes.sum(axis=1)
        return [
            {
                "alpha": alpha,
                "mean_size": float((sizes[index] * np.arange(sizes.shape[1])).sum() / total[index]),
                "empty_share": float(empty[index] / total[index]),
                "share_by_size": (sizes[index] / total[index]).tolist(),
                "false_inclusion": {
                    name: float(included[index, channel] / others[channel]) if others[channel] else None
                    for channel, name in enumerate(names)
                },
            }
            for index, alpha in enumerate(self.measurement.alphas)
        ]

    def cases(self) -> list[dict[str, Any]]:
        """Per case, class and level: the share of the class that the set misses, and the mean size of the sets."""
        names, rows = self.measurement.model.space.names, []
        whole = [row for row, (_, cluster) in enumerate(self.measurement.rows) if cluster is None]
        for case_id, case in self.found.cases.items():
            for index, alpha in enumerate(self.measurement.alphas):
                size = float((case.sizes[index] * np.arange(case.sizes.shape[1])).sum() / case.sizes[index].sum())
                for channel, row in enumerate(whole):
                    n = int(case.n[row])
                    missed = (n - int(case.held[index, row])) / n if n else None
                    rows.append(
                        {
                            "case": case_id,
                            "group": case.group,
                            "class": names[channel],
                            "alpha": self.measurement.alpha_of(alpha, channel),
                            "n_voxels": n,
                            "missed_share": missed,
                            "mean_size": size,
                        }
                    )
        return rows

    def places(self, channel: int, *, imagewise: bool = False) -> CellErrors:
        """Coverage errors of one class in every cell; imagewise: with one cluster, of the same patients."""
        return cell_errors(self.cell_levels(channel, imagewise=imagewise))

    def cell_levels(self, channel: int, *, imagewise: bool = False) -> np.ndarray:
        """int64 "cell level": positives of one class by the smallest level that holds them."""
        run = self.found.image_cells if imagewise else self.found.cells
        size = self.measurement.placing.n_cells * self.measurement.n_levels
        low, high = np.searchsorted(run.keys, (channel * size, (channel + 1) * size))
        levels = np.zeros(size, np.int64)
        levels[run.keys[low:high] - channel * size] = run.columns[0, low:high]
        return levels.reshape(-1, self.measurement.n_levels)

    def errors(self) -> list[dict[str, Any]]:
        """One row per class: the coverage error over all places with a positive, beside what noise alone makes."""
        names = self.measurement.model.space.names
        coverage = self.coverage()
        rows = []
        for channel, name in enumerate(names):
            own, image = self.places(channel), self.places(channel, imagewise=True)
            known = own.n > 0
            enough = own.n >= self.min_positives
            # The first of the levels, whose rows come first.
            by_cluster = [row for row in coverage[: len(self.measurement.rows)] if row["class"] == name]
            clusters = [row for row in by_cluster if row["cluster"] != WHOLE] or by_cluster
            gaps = [row["nominal"] - row["coverage_patient"] for row in clusters if row["coverage_patient"] is not None]
            low, high = np.quantile(own.error[enough], (0.05, 0.95)) if enough.any() else (np.nan, np.nan)
            rows.append(
                {
                    "class": name,
                    "ce20_mean": _mean(own.error[known]),
                    "ce20_q05": _or_none(low),
                    "ce20_q95": _or_none(high),
                    "floor_mean": _mean(own.floor[known]),
                    "shortfall_mean": _mean(own.shortfall[known]),
                    "worst_cluster_gap": max(gaps) if gaps else None,
                    "n_cells": int(known.sum()),
                    "n_cells_left_out": int((known & ~enough).sum()),
                    "image_ce20_mean": _mean(image.error[known]),
                }
            )
        return rows

    def below_nominal(self) -> list[str]:
        """A sentence for each row whose interval lies below what was promised."""
        return [
            f"{row['class']}, {'whole image' if row['cluster'] == WHOLE else 'cluster ' + str(row['cluster'] + 1)}: "
            f"coverage {row['coverage_patient']:.3f} ({row['low']:.3f} to {row['high']:.3f}) is "
            f"below {row['nominal']:g}"
            for row in self.coverage()
            if row["high"] is not None and row["high"] < row["nominal"]
        ]

    def resampled_errors(self, drawn: np.ndarray) -> np.ndarray | None:
        """float64 "resample class": mean coverage error over places, patients drawn anew; None where places of single
        patients were not kept. drawn: int64 "resample group"."""
        if not self.measurement.keep_places:
            return None
        at = {group: index for index, group in enumerate(self.groups)}
        runs = [(at[case.group], case.keys) for case in self.found.cases.values() if case.keys is not None]
        keys = np.concatenate([run.keys for _, run in runs])
        counts = np.concatenate([run.columns[0] for _, run in runs]).astype(np.float64)
        group = np.repeat([index for index, _ in runs], [len(run) for _, run in runs])
        n_levels, n_groups = self.measurement.n_levels, len(self.groups)
        used, place = np.unique(keys // n_levels, return_inverse=True)
        order = np.argsort(place, kind="stable")
        place, level, group, counts = place[order], (keys % n_levels)[order], group[order], counts[order]
        levels = np.arange(1, n_levels + 1)[:, None] / n_levels
        n_classes = len(self.measurement.model.space.names)
        sums, known = np.zeros((2, n_classes, len(drawn)))
        step = max(1, PLACE_NUMBERS // (n_levels * max(n_groups, len(drawn))))
        for start in range(0, len(used), step):
            some = used[start : start + step]
            low, high = np.searchsorted(place, (start, start + len(some)))
            key = ((place[low:high] - start) * n_levels + level[low:high]) * n_groups + group[low:high]
            table = np.bincount(key, counts[low:high], len(some) * n_levels * n_groups)
            covered = np.cumsum(table.reshape(len(some), n_levels, n_groups), axis=1) @ drawn.T.astype(np.float64)
            n = covered[:, -1]
            gap = np.abs(levels - covered / np.maximum(n, 1)[:, None]).mean(axis=1)
            for channel in np.unique(some // self.measurement.placing.n_cells):
                own = some // self.measurement.placing.n_cells == channel
                sums[channel] += np.where(n[own] > 0, gap[own], 0.0).sum(axis=0)
                known[channel] += (n[own] > 0).sum(axis=0)
        return np.where(known > 0, sums / np.maximum(known, 1), np.nan).T


def same_places(several: Sequence[CoverageRows]) -> bool:
    """Whether the errors of all are over the same places."""
    return len({one.measurement.placing for one in several}) == 1


def method_rows(named: Sequence[tuple[str, CoverageRows]]) -> list[dict[str, Any]]:
    """Several models side by side (Table 1 of the paper). best: the lowest error, if all were measured at the same
    places and resampling patients separates it from the next."""
    rows = []
    draws = resample(len(named[0][1].groups), PLACE_RESAMPLES, SEED)
    comparable = len(named) > 1 and same_places([one for _, one in named])
    resampled = {name: one.resampled_errors(draws) if comparable else None for name, one in named}
    errors = {name: one.errors() for name, one in named}
    first = {name: one.coverage() for name, one in named}
    for channel, class_name in enumerate(named[0][1].measurement.model.space.names):
        means = {name: errors[name][channel]["ce20_mean"] for name, _ in named}
        best = _separated(means, resampled, channel)
        for name, one in named:
            row = errors[name][channel]
            whole = next(r for r in first[name] if r["class"] == class_name and r["cluster"] == WHOLE)
            rows.append(
                {
                    "class": class_name,
                    "artifact": name,
                    "method": one.measurement.model.regions.method,
                    "weighting": one.measurement.model.weighting,
                    **{key: row[key] for key in ("ce20_mean", "ce20_q05", "ce20_q95", "floor_mean", "n_cells")},
                    "coverage_patient": whole["coverage_patient"],
                    "alpha": whole["alpha"],
                    "mean_size": one.sets()[0]["mean_size"],
                    "best": name == best,
                }
            )
    return rows


def _separated(means: dict[str, float | None], resampled: dict[str, np.ndarray | None], channel: int) -> str | None:
    order = sorted((value, name) for name, value in means.items() if value is not None)
    if len(order) < 2:
        return None
    first, second = (resampled[name] for _, name in order[:2])
    if first is None or second is None or np.isnan(second[:, channel] - first[:, channel]).any():
        return None
    low = np.quantile(second[:, channel] - first[:, channel], (1 - LEVEL) / 2)
    return order[0][1] if low > 0 else None


def _mean(values: np.ndarray) -> float | None:
    return float(values.mean()) if values.size else None


def _or_none(value: float) -> float | None:
    return None if np.isnan(value) else float(value)
