"""What was asked of an artifact of conformal sets, resolved: every option that changes a threshold or a set."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import field
from typing import Annotated, Any, Literal, TypedDict

from segcal_cli.confidence.maps import MapRules
from segcal_cli.confidence.scores import LABEL_SCORES, EmptyRule, Metric, Score, parse_score
from segcal_cli.confidence.scoring import ScoringRules
from segcal_cli.confidence.targets import Target
from segcal_cli.core.annotations import Count, NotEmpty
from segcal_cli.core.errors import UsageError
from segcal_cli.core.frozen import dataclass
from segcal_cli.core.labels import LabelSpace

Joint = Literal["split", "max", "none"]
Across = Literal["each", "split", "max"]
Unit = Literal["case", "max", "hcp"]

SPLIT_ROUNDING = 1e-9
"""alpha_I + alpha_O may exceed alpha by this much rounding."""


class TargetDocument(TypedDict):
    name: str
    channels: NotEmpty[Count]
    inner_score: str
    outer_score: str
    share_inner: float
    share_outer: float
    standard: Annotated[list[Annotated[list[float], 2]], 2]


class SpecDocument(TypedDict):
    """What ``SetSpec.to_json`` makes."""

    targets: NotEmpty[TargetDocument]
    alpha: float
    joint: Joint
    across_targets: Across
    metric: Metric
    empty_prediction: EmptyRule
    coverage_ratio: float
    inner_ratio: float
    box_truth: bool
    present_only: bool
    unit: Unit
    confidence: float | None
    labels_only: bool
    length_unit: Literal["mm", "px"]
    strata: list[str]
    mondrian: str | None


class BadOption(UsageError):
    """Options that contradict each other."""

    template = "{0}"


@dataclass(frozen=True, slots=True)
class TargetSpec:
    """One target with its scores. share_inner, share_outer: alpha_I / alpha and alpha_O / alpha under ``split``.

    standard: (location, scale) of the inner and of the outer score under ``max``.
    """

    target: Target
    inner: Score
    outer: Score
    share_inner: float = 0.5
    share_outer: float = 0.5
    standard: tuple[tuple[float, float], tuple[float, float]] = ((0.0, 1.0), (0.0, 1.0))

    def score(self, side: str) -> Score:
        return self.inner if side == "inner" else self.outer


@dataclass(frozen=True, slots=True)
class SetSpec:
    """See the module. strata: names of the Mondrian strata, () for none. length: "mm", or "px" without a grid."""

    targets: tuple[TargetSpec, ...]
    alpha: float = 0.1
    joint: Joint = "split"
    across: Across = "each"
    rules: ScoringRules = field(default_factory=ScoringRules)
    present_only: bool = True
    unit: Unit = "case"
    confidence: float | None = None
    labels_only: bool = False
    length: str = "mm"
    strata: tuple[str, ...] = ()
    mondrian: str | None = None

    @property
    def ranks_present(self) -> bool:
        """Whether gamma is ranked over units that hold the target; the maximum ranks all units."""
        return self.present_only and self.joint != "max"

    def unit_of(self, target: int, side: str) -> str:
        """The unit of a side's thresholds."""
        return self.targets[target].score(side).unit(self.rules.maps.metric, self.length)

    def levels(self, target: int, alpha: float) -> tuple[float, float]:
        """(alpha_I, alpha_O) of one target at a total alpha: divided by targets first, then by side."""
        own = alpha / len(self.targets) if self.across == "split" else alpha
        if self.joint != "split":
            return own, own
        spec = self.targets[target]
        return spec.share_inner * own, spec.share_outer * own

    def side_confidence(self) -> float | None:
        """The confidence of one side, so that all statements of the joint one hold together."""
        if self.confidence is None:
            return None
        sides = 2 if self.joint == "split" else 1
        if self.across == "split":
            sides *= len(self.targets)
        return 1.0 - (1.0 - self.confidence) / sides

    def check(self) -> None:
        """Raise BadOption, or BadLevel, for options that contradict each other."""
        maps = self.rules.maps
        for name, level in (("alpha", self.alpha), ("confidence", self.confidence)):
            if level is not None and not 0.0 < level < 1.0:
                raise BadOption(f"--{name} {level:g} is not allowed; it must lie strictly between 0 and 1")
        for name, ratio in (("coverage-ratio", self.rules.coverage_ratio), ("inner-ratio", self.rules.inner_ratio)):
            if not 0.0 < ratio <= 1.0:
                raise BadOption(f"--{name} {ratio:g} is not allowed; it must lie in (0, 1]")
        if self.confidence is not None and self.unit == "hcp":
            raise BadOption("--confidence needs units that are ranked; it does not go with --unit hcp")
        if self.across == "max" and self.joint != "max":
            raise BadOption("--across-targets max needs --joint max: the maximum runs over targets and sides")
        if self.across == "max" and self.mondrian is not None and self.mondrian.startswith("volume:"):
            raise BadOption("--across-targets max needs one stratum per case; volume strata differ by target")
        if self.labels_only:
            for spec in self.targets:
                for score in (spec.inner, spec.outer):
                    if score.kind not in LABEL_SCORES:
                        raise BadOption(f"--labels-only knows the scores distance and boxes; {score} needs soft values")
            if maps.empty == "peak":
                raise BadOption("--labels-only knows the rules empty and full; peak needs soft values")
        if self.joint == "max" and all(spec.standard == TargetSpec(spec.target, spec.inner, spec.outer).standard
                                       for spec in self.targets):  # fmt: skip
            units = {self.unit_of(t, side) for t in range(len(self.targets)) for side in ("inner", "outer")}
            compared = [units] if self.across == "max" else [
                {self.unit_of(t, side) for side in ("inner", "outer")} for t in range(len(self.targets))
            ]  # fmt: skip
            if any(len(one) > 1 for one in compared):
                raise BadOption(
                    "--joint max without --learn compares the scores as they are, so both must have one scale; "
                    f"here they are in {' and '.join(sorted(units))}"
                )

    def to_json(self, space: LabelSpace) -> dict[str, Any]:
        """The spec for the header."""
        return {
            "targets": [
                {
                    "name": spec.target.name,
                    "channels": list(spec.target.channels),
                    "labels": list(spec.target.values(space)),
                    "inner_score": str(spec.inner),
                    "outer_score": str(spec.outer),
                    "share_inner": spec.share_inner,
                    "share_outer": spec.share_outer,
                    "standard": [list(side) for side in spec.standard],
                }
                for spec in self.targets
            ],
            "alpha": self.alpha,
            "joint": self.joint,
            "across_targets": self.across,
            "metric": self.rules.maps.metric,
            "empty_prediction": self.rules.maps.empty,
            "coverage_ratio": self.rules.coverage_ratio,
            "inner_ratio": self.rules.inner_ratio,
            "box_truth": self.rules.box_truth,
            "present_only": self.present_only,
            "unit": self.unit,
            "confidence": self.confidence,
            "labels_only": self.labels_only,
            "length_unit": self.length,
            "strata": list(self.strata),
            "mondrian": self.mondrian,
        }


def spec_from_json(data: Mapping[str, Any]) -> SetSpec:
    """The spec of a header. data: a SpecDocument. Raises UsageError for scores that there are not."""
    targets = tuple(
        TargetSpec(
            Target(entry["name"], tuple(entry["channels"])),
            parse_score(entry["inner_score"]),
            parse_score(entry["outer_score"]),
            entry["share_inner"],
            entry["share_outer"],
            tuple((a, b) for a, b in entry["standard"]),  # type: ignore[arg-type]
        )
        for entry in data["targets"]
    )
    return SetSpec(
        targets=targets,
        alpha=data["alpha"],
        joint=data["joint"],
        across=data["across_targets"],
        rules=ScoringRules(
            MapRules(data["metric"], data["empty_prediction"]),
            data["coverage_ratio"],
            data["inner_ratio"],
            data["box_truth"],
        ),
        present_only=data["present_only"],
        unit=data["unit"],
        confidence=data["confidence"],
        labels_only=data["labels_only"],
        length=data["length_unit"],
        strata=tuple(data["strata"]),
        mondrian=data["mondrian"],
    )
