"""Learning cases: which scores, which split of alpha and which standardisation, chosen before calibration.

The choice minimises a margin in lengths: a case's margin is (|O|/|Y|)^(1/d) - (|I|/|Y|)^(1/d) with d the number of axes
longer than one voxel. A criterion in voxels, such as |O without I| / |Y|, would always choose an empty inner set. Units
are dealt into five folds; each fold's sets use the thresholds of the other four. Cases of the network's training are
allowed: sets stay valid, the choice is optimistic.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import field, replace
from typing import Any

import numpy as np

from segcal_cli.confidence.maps import SIDES, Side, score_map
from segcal_cli.confidence.scan import scan
from segcal_cli.confidence.scores import Score
from segcal_cli.confidence.scoring import inner_score, outer_score
from segcal_cli.confidence.sets import set_sizes, side_reach
from segcal_cli.confidence.spec import BadOption, SetSpec, TargetSpec
from segcal_cli.confidence.thresholds import TOO_FEW, raised, unit_scores
from segcal_cli.confidence.views import spacing_of, views
from segcal_cli.core.case import Case
from segcal_cli.core.errors import FitError
from segcal_cli.core.frozen import dataclass
from segcal_cli.metrics.coverage import sufficient_n

FOLDS = 5
"""Unit j of the sorted learning units is in fold j mod 5."""

SHARES = tuple(tenth / 10 for tenth in range(1, 10))
"""Candidate shares alpha_I / alpha."""

MARGIN_TIES = 1e-9
"""Median margins closer than this are equal; the first in list order wins."""

MIN_STANDARD = 10
"""Fewer finite learning scores than this give no location and scale."""


class TooFewToLearn(FitError):
    """No admissible share."""

    template = (
        "target {0}: {1} learning units are too few to choose scores at alpha = {2:g}: no split of alpha has finite "
        "ranks in all {3} folds; about {4} units would do"
    )


class NoScale(FitError):
    """Scores that cannot be standardised."""

    template = "target {0}, {1} score: {2} finite values, spread {3:g}; --joint max needs at least {4} and a spread"


@dataclass(frozen=True, slots=True)
class Candidates:
    """Score lists in the order of preference, and the shares to try."""

    inner: tuple[Score, ...]
    outer: tuple[Score, ...]
    shares: tuple[float, ...] = SHARES

    def of(self, side: Side) -> tuple[Score, ...]:
        return self.inner if side == "inner" else self.outer


@dataclass(frozen=True, slots=True)
class LearnedCase:
    """One learning case: scores "target score" of each side by candidate, and what margins need."""

    id: str
    group: str
    tau: np.ndarray
    gamma: np.ndarray
    present: np.ndarray
    predicted_voxels: np.ndarray
    truth_voxels: np.ndarray
    dimensions: int


@dataclass(frozen=True, slots=True)
class ChoiceRow:
    """One admissible combination. cases: how many have a margin."""

    inner: Score
    outer: Score
    share: float
    margin: float
    cases: int

    def to_json(self) -> dict[str, Any]:
        return {
            "inner_score": str(self.inner),
            "outer_score": str(self.outer),
            "share_inner": self.share,
            "median_margin": self.margin,
            "cases": self.cases,
        }


@dataclass(frozen=True, slots=True)
class Learned:
    """What learning came to, per target: the chosen spec, the whole table, and the scores of the chosen pair."""

    targets: tuple[TargetSpec, ...]
    tables: tuple[tuple[ChoiceRow, ...], ...]
    cases: tuple[LearnedCase, ...]
    tau: np.ndarray
    gamma: np.ndarray


def default_candidates(edge: float, *, labels_only: bool) -> Candidates:
    """Default lists. edge: h, the smallest voxel edge (mm), median over learning cases."""
    if labels_only:
        return Candidates((Score("distance"),), (Score("distance"), Score("boxes")))
    edge = float(f"{edge:.6g}")
    inner = (Score("distance"), Score("log-odds"), Score("smooth", edge), Score("smooth", 2 * edge))
    outer = (
        Score("distance"),
        Score("smooth-distance", edge),
        Score("boxes"),
        Score("log-odds"),
        Score("hybrid", 0.5),
    )
    return Candidates(inner, outer)


@dataclass(frozen=True, slots=True)
class Learning:
    """Estimator, first pass: tau and gamma of every candidate. Its result is the second pass, or Learned at once."""

    spec: SetSpec
    candidates: Candidates

    def empty(self) -> dict[str, LearnedCase]:
        return {}

    def update(self, state: Mapping[str, LearnedCase], case: Case) -> dict[str, LearnedCase]:
        return {**state, case.id: self._read(case)}

    def merge(self, a: Mapping[str, LearnedCase], b: Mapping[str, LearnedCase]) -> dict[str, LearnedCase]:
        return {**a, **b}

    def finish(self, state: Mapping[str, LearnedCase]) -> Any:
        cases = tuple(state[id] for id in sorted(state, key=str.encode))
        chosen = len(self.candidates.inner) * len(self.candidates.outer) * len(self.candidates.shares)
        if chosen == 1:
            only = tuple(
                replace(
                    entry,
                    inner=self.candidates.inner[0],
                    outer=self.candidates.outer[0],
                )
                for entry in self.spec.targets
            )
            return finished(self.spec, only, ((),) * len(only), cases, self.candidates)
        return Sizing(self.spec, self.candidates, cases, _fold_thresholds(self.spec, self.candidates, cases))

    def _read(self, case: Case) -> LearnedCase:
        made = views(case, [entry.target for entry in self.spec.targets])
        scans = [None] * len(made) if self.spec.labels_only else scan(made)
        rules = self.spec.rules
        return LearnedCase(
            case.id,
            case.group,
            np.array([
                [inner_score(v, s, rules, found) for s in self.candidates.inner]
                for v, found in zip(made, scans, strict=True)
            ]),
            np.array([
                [outer_score(v, s, rules, found) for s in self.candidates.outer]
                for v, found in zip(made, scans, strict=True)
            ]),
            np.array([bool(view.all_truth.any()) for view in made]),
            np.array([view.mask_voxels for view in made]),
            np.array([view.all_truth_voxels for view in made]),
            made[0].dimensions,
        )  # fmt: skip


@dataclass(frozen=True, slots=True)
class Sizing:
    """Estimator, second pass: exact sizes of every candidate's sets at the thresholds of the other folds.

    thresholds: fold -> side -> float64 "target score share", NaN where the rank does not exist.
    """

    spec: SetSpec
    candidates: Candidates
    cases: tuple[LearnedCase, ...]
    thresholds: tuple[Mapping[Side, np.ndarray], ...]
    folds: Mapping[str, int] = field(default_factory=dict)

    def empty(self) -> dict[str, Mapping[Side, np.ndarray]]:
        return {}

    def update(
        self, state: Mapping[str, Mapping[Side, np.ndarray]], case: Case
    ) -> dict[str, Mapping[Side, np.ndarray]]:
        return {**state, case.id: self._sizes(case)}

    def merge(
        self, a: Mapping[str, Mapping[Side, np.ndarray]], b: Mapping[str, Mapping[Side, np.ndarray]]
    ) -> dict[str, Mapping[Side, np.ndarray]]:
        return {**a, **b}

    def finish(self, state: Mapping[str, Mapping[Side, np.ndarray]]) -> Learned:
        """Raises TooFewToLearn."""
        tables, chosen = [], []
        for target, entry in enumerate(self.spec.targets):
            rows = self._table(target, state)
            if not rows:
                alpha = self.spec.alpha / (len(self.spec.targets) if self.spec.across == "split" else 1)
                needed = math.ceil(sufficient_n(alpha / 2, self.spec.side_confidence()) * FOLDS / (FOLDS - 1))
                raise TooFewToLearn(
                    entry.target.name, len(set(_unit_names(self.spec, self.cases))), self.spec.alpha, FOLDS, needed
                )
            best = rows[0]
            for row in rows[1:]:
                if row.margin < best.margin - MARGIN_TIES:
                    best = row
            tables.append(tuple(rows))
            outer = 1.0 - best.share
            chosen.append(replace(entry, inner=best.inner, outer=best.outer, share_inner=best.share, share_outer=outer))
        return finished(self.spec, tuple(chosen), tuple(tables), self.cases, self.candidates)

    def _sizes(self, case: Case) -> Mapping[Side, np.ndarray]:
        made = views(case, [entry.target for entry in self.spec.targets])
        fold = fold_of(self.spec, self.cases)[case.id]
        found: dict[Side, np.ndarray] = {}
        for side in SIDES:
            wanted = self.thresholds[fold][side]
            sizes = np.zeros(wanted.shape, np.int64)
            for target, view in enumerate(made):
                for index, score in enumerate(self.candidates.of(side)):
                    levels = np.where(np.isnan(wanted[target, index]), np.inf, wanted[target, index])
                    reach = side_reach(side, raised(levels))
                    mapped = score_map(view, score, side, self.spec.rules.maps, reach=reach)
                    sizes[target, index] = set_sizes(view, mapped, side, levels)
            found[side] = sizes
        return found

    def _table(self, target: int, sizes: Mapping[str, Mapping[Side, np.ndarray]]) -> list[ChoiceRow]:
        rows = []
        exists = {side: np.all([~np.isnan(fold[side][target]) for fold in self.thresholds], axis=0) for side in SIDES}
        base = np.array([_base(case, target) for case in self.cases])
        kept = [index for index, value in enumerate(base) if value]
        power = np.array([1.0 / self.cases[index].dimensions for index in kept])
        roots = {
            side: np.stack([sizes[self.cases[index].id][side][target] for index in kept], axis=-1) for side in SIDES
        }
        roots = {side: (value / base[kept]) ** power for side, value in roots.items()}
        for i, inner in enumerate(self.candidates.inner):
            for o, outer in enumerate(self.candidates.outer):
                for s, share in enumerate(self.candidates.shares):
                    if exists["inner"][i, s] and exists["outer"][o, s]:
                        margin = float(np.median(roots["outer"][o, s] - roots["inner"][i, s]))
                        rows.append(ChoiceRow(inner, outer, share, margin, len(kept)))
        return rows


def fold_of(spec: SetSpec, cases: Sequence[LearnedCase]) -> dict[str, int]:
    """Fold of each case: that of its unit, dealt in the order of names."""
    names = _unit_names(spec, cases)
    fold = {name: index % FOLDS for index, name in enumerate(sorted(set(names), key=str.encode))}
    return {case.id: fold[name] for case, name in zip(cases, names, strict=True)}


def finished(
    spec: SetSpec,
    targets: tuple[TargetSpec, ...],
    tables: tuple[tuple[ChoiceRow, ...], ...],
    cases: tuple[LearnedCase, ...],
    candidates: Candidates,
) -> Learned:
    """The chosen targets with their scores on the learning cases; under ``max`` standardised by them."""
    columns = [(candidates.inner.index(t.inner), candidates.outer.index(t.outer)) for t in targets]
    tau = np.stack([[case.tau[t, i] for t, (i, _) in enumerate(columns)] for case in cases])
    gamma = np.stack([[case.gamma[t, o] for t, (_, o) in enumerate(columns)] for case in cases])
    if spec.joint == "max":
        targets = tuple(
            replace(entry, standard=standard_of(entry.target.name, tau[:, t], gamma[:, t]))
            for t, entry in enumerate(targets)
        )
    return Learned(targets, tables, cases, tau, gamma)


def standard_of(target: str, tau: np.ndarray, gamma: np.ndarray) -> tuple[tuple[float, float], tuple[float, float]]:
    """(median, q90 - q50) of the finite scores of each side. Raises NoScale."""
    found = []
    for side, scores in zip(SIDES, (tau, gamma), strict=True):
        finite = scores[np.isfinite(scores)]
        middle, high = np.quantile(finite, (0.5, 0.9)) if finite.size else (0.0, 0.0)
        if finite.size < MIN_STANDARD or not high > middle:
            raise NoScale(target, side, int(finite.size), float(high - middle), MIN_STANDARD)
        found.append((float(middle), float(high - middle)))
    return found[0], found[1]


def learning_edge(cases: Sequence[Case]) -> float:
    """h: the smallest voxel edge of each case, median over cases."""
    return float(np.median([min(spacing_of(case)) for case in cases]))


def _unit_names(spec: SetSpec, cases: Sequence[LearnedCase]) -> list[str]:
    return [case.id if spec.unit == "case" else case.group for case in cases]


def _base(case: LearnedCase, target: int) -> int:
    """|Y|, or |M| where Y is empty; 0 where both are."""
    return int(case.truth_voxels[target]) or int(case.predicted_voxels[target])


def _fold_thresholds(
    spec: SetSpec, candidates: Candidates, cases: Sequence[LearnedCase]
) -> tuple[Mapping[Side, np.ndarray], ...]:
    folds = fold_of(spec, cases)
    groups = np.array([case.group for case in cases], dtype=object)
    which = np.array([folds[case.id] for case in cases])
    alpha = spec.alpha / (len(spec.targets) if spec.across == "split" else 1)
    confidence = spec.side_confidence()
    made = []
    for fold in range(FOLDS):
        others = which != fold
        found: dict[Side, np.ndarray] = {}
        for side in SIDES:
            scores = np.stack([case.tau if side == "inner" else case.gamma for case in cases])[others]
            present = np.stack([case.present for case in cases])[others]
            table = np.full((len(spec.targets), len(candidates.of(side)), len(candidates.shares)), np.nan)
            for target, index in np.ndindex(*table.shape[:2]):
                ranked = unit_scores(
                    scores[:, target, index],
                    groups[others],
                    present[:, target] if side == "outer" else None,
                    spec.unit,
                )
                for s, share in enumerate(candidates.shares):
                    level = (share if side == "inner" else 1.0 - share) * alpha
                    found_threshold = ranked.threshold(level, confidence)
                    if found_threshold.reason != TOO_FEW:
                        table[target, index, s] = found_threshold.value
            found[side] = table
        made.append(found)
    return tuple(made)


def check_candidates(candidates: Candidates, *, planar: bool) -> None:
    """Raise BadOption for inner boxes among candidates of volumes."""
    if not planar and any(score.kind == "boxes" for score in candidates.inner):
        raise BadOption("--inner-score boxes is for 2-D images only")
