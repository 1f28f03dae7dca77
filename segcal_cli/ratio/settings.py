"""Settings: the statistics of an interval, chosen at ``fit`` as defaults and again at ``apply``.

Every combination that would print a guarantee that does not hold, or that means nothing, is refused here.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from typing import Any, Literal

from segcal_cli.core.annotations import require_fields
from segcal_cli.core.errors import UsageError
from segcal_cli.core.frozen import dataclass

Method = Literal["nested", "joint", "care", "care-guaranteed", "cp"]
METHODS: tuple[Method, ...] = ("nested", "joint", "care", "care-guaranteed", "cp")

DEFAULT_MINIMUM_ML = 0.01
"""The least denominator that has a ratio, in ml: ten voxels of 1 mm3."""
DEFAULT_MINIMUM_VOXELS = 10.0
"""The same where there is no grid."""
MM3_PER_ML = 1000.0


class BadSetting(UsageError):
    """An option, or options together, that cannot be."""

    template = "{0}"


@dataclass(frozen=True, slots=True)
class Settings:
    """method, level: what is promised. calibration_error: None for the method's own (ece for care, vbias for
    care-guaranteed). quantile: conformal, or plain and mean without a guarantee. split, delta1: how care divides the
    error between its two bounds. estimation: of the squared error; tail: Markov's, or Fieller's interval. ce_unit:
    scores in mm3, or per voxel as printed. debias: the estimator of a further column. unit: the rule for several scans
    of a patient. minimum: least denominator in ml (voxels without a grid), None for the default. alarm_width: a width,
    or a percentile such as "80%". cutoff: clinical, or None.
    """

    method: Method = "nested"
    level: float = 0.9
    calibration_error: Literal["ece", "vbias", "kde"] | None = None
    quantile: Literal["conformal", "plain", "mean"] = "conformal"
    split: Literal["grid", "fixed"] = "grid"
    delta1: float | None = None
    estimation: Literal["iid", "block", "none"] = "iid"
    tail: Literal["markov", "fieller"] = "markov"
    ce_unit: Literal["volume", "mean"] = "volume"
    debias: Literal["none", "first", "paper", "exact", "jackknife"] = "none"
    unit: Literal["max", "hcp"] = "max"
    weighted: bool = False
    minimum: float | None = None
    alarm_width: str = "80%"
    cutoff: float | None = None

    @property
    def delta(self) -> float:
        return 1.0 - self.level

    @property
    def care(self) -> bool:
        return self.method in ("care", "care-guaranteed")

    @property
    def score(self) -> str:
        """Which calibration error the care methods rank."""
        if self.calibration_error is not None:
            return self.calibration_error
        return "vbias" if self.method == "care-guaranteed" else "ece"

    @property
    def markov(self) -> bool:
        """Whether the interval has an estimation part."""
        return self.method == "care" and self.estimation != "none"

    @property
    def estimation_share(self) -> float | None:
        """delta1 of care's fixed split: as given, or half of the error; None where there is no such split."""
        if not self.markov or self.split != "fixed":
            return None
        return self.delta / 2.0 if self.delta1 is None else self.delta1

    @property
    def guaranteed(self) -> bool:
        """Whether what is printed holds for new patients: not for other quantiles, the kernel error, or weights."""
        return self.quantile == "conformal" and not (self.care and self.score == "kde") and not self.weighted

    def minimum_volume(self, volume_unit: str) -> float:
        """The least denominator, in mm3 (voxels without a grid)."""
        if volume_unit == "voxel":
            return DEFAULT_MINIMUM_VOXELS if self.minimum is None else self.minimum
        return MM3_PER_ML * (DEFAULT_MINIMUM_ML if self.minimum is None else self.minimum)

    def check(self, *, contained: bool) -> None:
        """Raises BadSetting. contained: whether the ratio lies in [0, 1]."""
        if self.method not in METHODS:
            raise BadSetting(f"--method {self.method} is not known; possible are {', '.join(METHODS)}")
        if not 0.0 < self.level < 1.0:
            raise BadSetting(f"--level {self.level:g} is not allowed; it must lie strictly between 0 and 1")
        if self.quantile != "conformal" and self.method not in ("care", "cp"):
            raise BadSetting(f"--quantile {self.quantile} is for --method care and cp only, not {self.method}")
        if self.quantile != "conformal" and self.unit == "hcp":
            raise BadSetting(
                f"--quantile {self.quantile} ranks one score per patient; it cannot be used with --unit hcp"
            )
        if self.calibration_error == "kde" and self.method == "care-guaranteed":
            raise BadSetting("--calibration-error kde bounds nothing, so --method care-guaranteed cannot use it")
        if self.weighted and self.care:
            raise BadSetting(f"--weighted is for --method nested, joint and cp, not {self.method}")
        if self.weighted and self.quantile != "conformal":
            raise BadSetting(f"--weighted ranks conformal scores; --quantile {self.quantile} has no ranks")
        if self.delta1 is not None and self.split != "fixed":
            raise BadSetting("--delta1 needs --split fixed")
        if self.tail == "fieller" and self.estimation == "none":
            raise BadSetting("--estimation-tail fieller needs an estimation bound; --estimation none has none")
        if self.delta1 is not None and not 0.0 < self.delta1 < self.delta:
            raise BadSetting(f"--delta1 {self.delta1:g} is not allowed; it must lie between 0 and 1 - level")
        if self.minimum is not None and not 0.0 <= self.minimum < float("inf"):
            raise BadSetting(f"--min-denominator-ml {self.minimum:g} is not allowed; it must be 0 or more")
        if self.cutoff is not None and not 0.0 <= self.cutoff <= (1.0 if contained else float("inf")):
            raise BadSetting(f"--cutoff {self.cutoff:g} is not a value that this ratio can take")
        alarm_of(self.alarm_width)

    def of_method(self, method: Method) -> Settings:
        """The same for another method, without what that one cannot have."""
        made = dataclasses.replace(self, method=method)
        if method not in ("care", "cp"):
            made = dataclasses.replace(made, quantile="conformal")
        if method == "care-guaranteed" and made.calibration_error == "kde":
            made = dataclasses.replace(made, calibration_error=None)
        return dataclasses.replace(made, weighted=False) if made.care else made

    def changed(self, options: Mapping[str, Any]) -> Settings:
        """These settings with every option that is not None in place."""
        return dataclasses.replace(self, **{name: value for name, value in options.items() if value is not None})

    def to_json(self) -> dict[str, Any]:
        return dataclasses.asdict(self)

    @classmethod
    def from_json(cls, data: Mapping[str, Any]) -> Settings:
        """Raises TypeError for unknown names, ValueError for values of another type."""
        settings = cls(**data)
        require_fields(settings)
        return settings


@dataclass(frozen=True, slots=True)
class Alarm:
    """When a width is too large: a fixed width, or a percentile of the calibration cases' own."""

    width: float | None = None
    percentile: float | None = None


def alarm_of(text: str) -> Alarm:
    """The alarm of "0.3" or "80%". Raises BadSetting."""
    number, percent = (text[:-1], True) if text.endswith("%") else (text, False)
    try:
        value = float(number)
    except ValueError:
        value = float("nan")
    if percent and 0.0 < value <= 100.0:
        return Alarm(percentile=value)
    if not percent and 0.0 <= value < float("inf"):
        return Alarm(width=value)
    raise BadSetting(f"--alarm-width {text} is not allowed; give a width such as 0.3, or a percentile such as 80%")
