"""What ``fit`` and ``inspect`` say of the thresholds of conformal sets: for people, and as a document."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from segcal_cli.confidence.text import threshold_text
from segcal_cli.confidence.thresholds import Calibration, SideThreshold
from segcal_cli.core.errors import count_text
from segcal_cli.core.labels import LabelSpace


def sets_document(calibration: Calibration, space: LabelSpace, alphas: Sequence[float]) -> dict[str, Any]:
    """The entries that ``inspect --json`` and ``fit --json`` share."""
    spec, table = calibration.spec, calibration.table
    targets = []
    for index, entry in enumerate(spec.targets):
        present = table.present[:, index]
        targets.append(
            {
                "name": entry.target.name,
                "labels": list(entry.target.values(space)),
                "inner_score": str(entry.inner),
                "outer_score": str(entry.outer),
                "metric": spec.rules.maps.metric,
                "unit_inner": spec.unit_of(index, "inner"),
                "unit_outer": spec.unit_of(index, "outer"),
                "empty_prediction": spec.rules.maps.empty,
                "present_only": spec.ranks_present,
                "coverage_ratio": spec.rules.coverage_ratio,
                "inner_ratio": spec.rules.inner_ratio,
                "share_inner": entry.share_inner,
                "n_cases": table.n,
                "n_present": int(present.sum()),
                "n_missed": int((present & (table.predicted_voxels[:, index] == 0)).sum()),
            }
        )
    return {
        "unit": spec.unit,
        "joint": spec.joint,
        "across_targets": spec.across,
        "alpha": spec.alpha,
        "confidence": spec.confidence,
        "targets": targets,
        "thresholds": [row.to_json() for alpha in alphas for row in calibration.thresholds(alpha)],
    }


def threshold_lines(calibration: Calibration, alpha: float) -> list[str]:
    """Both thresholds of each target and stratum, one fact a line."""
    spec, table = calibration.spec, calibration.table
    lines = []
    for index, entry in enumerate(spec.targets):
        present = int(table.present[:, index].sum())
        lines.append(f"target      {entry.target.name}: {count_text(table.n, 'case')}, in {present} of which it occurs")
        for row in calibration.thresholds(alpha):
            if row.target != entry.target.name:
                continue
            where = f", stratum {row.stratum}" if row.stratum is not None else ""
            for side, found in (("inner", row.inner), ("outer", row.outer)):
                said = threshold_text(spec, index, side, found.value)
                lines.append(f"  {side}     {entry.score(side)} {'>' if side == 'inner' else '<='} {said}{where}"
                             f" at alpha {found.alpha:.6g} ({_rank_text(found)})")  # fmt: skip
        if entry.outer.kind in ("distance", "smooth-distance"):
            what = "prediction" if entry.outer.kind == "distance" else "smoothed prediction"
            lines.append(f"            outer: every voxel within this distance of the {what}; negative: inside it")
    return lines


def _rank_text(found: SideThreshold) -> str:
    if found.rank is None:
        return f"{count_text(found.n, 'patient')}, weighted"
    ties = f", {found.ties} tied" if found.ties else ""
    return f"rank {found.rank} of {found.n}{ties}"
