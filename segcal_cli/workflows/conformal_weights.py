"""Weights of cases at ``apply``: from a table, or estimated from label-free features of the whole batch."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np

from segcal_cli.confidence.features import LABEL_FEATURES, SOFT_FEATURES
from segcal_cli.confidence.scan import scan
from segcal_cli.confidence.spec import BadOption, SetSpec
from segcal_cli.confidence.table import features_of
from segcal_cli.confidence.thresholds import Calibration
from segcal_cli.confidence.views import TargetView, views
from segcal_cli.confidence.weighting import FEW, estimated_weights
from segcal_cli.core.case import Case
from segcal_cli.core.errors import FitError
from segcal_cli.core.frozen import dataclass
from segcal_cli.io.tables import TableError, read_table
from segcal_cli.metrics.coverage import BadWeight, check_weights, effective_sample_size

ESTIMATE = "estimate"


class MissingWeight(FitError):
    """A case without a weight."""

    template = "{0}: no weight for case {1}; calibration and new cases all need one"


@dataclass(frozen=True, slots=True)
class CaseWeights:
    """calibration: float64 "case", in the table's order. new: by case id. how: "given" or "estimated"."""

    calibration: np.ndarray
    new: Mapping[str, float]
    how: str

    @property
    def effective_n(self) -> float:
        return effective_sample_size(self.calibration)

    @property
    def few(self) -> bool:
        return self.effective_n < FEW


@dataclass(frozen=True, slots=True)
class FeatureReader:
    """Features of one case, without labels: the ``compute`` half of a pass over new cases."""

    spec: SetSpec

    def __call__(self, case: Case) -> dict[str, object]:
        made = views(case, [entry.target for entry in self.spec.targets])
        return {"case": case.id, "features": case_features(made, labels_only=self.spec.labels_only), "warnings": []}


def case_features(made: Sequence[TargetView], *, labels_only: bool) -> np.ndarray:
    """float64 "target feature"."""
    return features_of(made, None if labels_only else scan(made))


def feature_names(spec: SetSpec) -> tuple[str, ...]:
    """Names over all targets, ``TARGET/FEATURE``, in the order of a flattened "target feature" array."""
    names = LABEL_FEATURES if spec.labels_only else SOFT_FEATURES
    return tuple(f"{entry.target.name}/{name}" for entry in spec.targets for name in names)


def refuse_weights(spec: SetSpec) -> None:
    """Raise BadOption where weights have no meaning."""
    if spec.unit != "case":
        raise BadOption("--weights are for cases; this artifact ranks patients")
    if spec.confidence is not None:
        raise BadOption("--weights do not go with an artifact of --confidence: its rank needs equal units")


def given_weights(path: Path, calibration: Sequence[str], new: Sequence[str]) -> CaseWeights:
    """Weights of a table with the columns case, weight. Raises TableError, MissingWeight, BadWeight."""
    found: dict[str, float] = {}
    for row in read_table(path, known=("case", "weight"), required=("case", "weight"), filled=("case", "weight")):
        try:
            weight = float(row.cells["weight"])
        except ValueError:
            raise TableError(path, row.line, f"weight {row.cells['weight']!r} is no number") from None
        if not 0.0 <= weight < float("inf"):
            raise TableError(path, row.line, f"case {row.cells['case']}: weight {weight:g} is not allowed (0 or more)")
        if found.setdefault(row.cells["case"], weight) != weight:
            raise TableError(path, row.line, f"case {row.cells['case']} has two weights")
    for case in (*calibration, *new):
        if case not in found:
            raise MissingWeight(path, case)
    weights = np.array([found[case] for case in calibration])
    try:
        check_weights(weights)
    except BadWeight as error:
        raise BadWeight(f"{path}: {error}") from None
    return CaseWeights(weights, {case: found[case] for case in new}, "given")


def estimated(calibration: Calibration, features: Mapping[str, np.ndarray]) -> CaseWeights:
    """Weights by logistic regression on the features of all targets. features: by new case, "target feature"."""
    ids = sorted(features, key=str.encode)
    batch = np.stack([features[id].reshape(-1) for id in ids])
    known = calibration.table.features.reshape(calibration.table.n, -1)
    old, new = estimated_weights(known, batch)
    return CaseWeights(old, dict(zip(ids, new.tolist(), strict=True)), "estimated")
