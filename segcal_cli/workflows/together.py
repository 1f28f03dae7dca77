"""Together: several estimators over the same cases in one pass, each on the predictions that it was made for."""

from __future__ import annotations

from collections.abc import Mapping
from collections.abc import Set as AbstractSet
from dataclasses import replace
from typing import Any

from segcal_cli.core.annotations import OtherType
from segcal_cli.core.case import Case
from segcal_cli.core.estimator import Estimator, require_state
from segcal_cli.core.frozen import dataclass
from segcal_cli.io.case_sources import Transform


@dataclass(frozen=True, slots=True)
class Together:
    """One-pass estimators by name; the result is a dict of their results."""

    estimators: Mapping[str, Estimator]

    def empty(self) -> dict[str, Any]:
        return {name: estimator.empty() for name, estimator in self.estimators.items()}

    def update(self, state: dict[str, Any], case: Any) -> dict[str, Any]:
        return {name: estimator.update(state[name], case) for name, estimator in self.estimators.items()}

    def merge(self, a: dict[str, Any], b: dict[str, Any]) -> dict[str, Any]:
        return {name: estimator.merge(a[name], b[name]) for name, estimator in self.estimators.items()}

    def require_state(self, state: dict[str, Any], cases: AbstractSet[str]) -> None:
        """See ``core/estimator.py``."""
        if set(state) != set(self.estimators):
            raise OtherType("state", f"of {', '.join(self.estimators)}")
        for name, estimator in self.estimators.items():
            require_state(estimator, state[name], cases)

    def finish(self, state: dict[str, Any]) -> dict[str, Any]:
        return {name: estimator.finish(state[name]) for name, estimator in self.estimators.items()}


@dataclass(frozen=True, slots=True)
class OfFirst:
    """An estimator over joint cases that sees each as the first folder holds it, through a calibrator or as it is."""

    inner: Estimator
    transform: Transform | None = None

    def empty(self) -> Any:
        return self.inner.empty()

    def update(self, state: Any, case: Any) -> Any:
        """case: a JointCase."""
        first: Case = case.cases[0]
        if self.transform is not None:
            first = replace(first, volume=self.transform(first.volume, first.space))
        return self.inner.update(state, first)

    def merge(self, a: Any, b: Any) -> Any:
        return self.inner.merge(a, b)

    def require_state(self, state: Any, cases: AbstractSet[str]) -> None:
        """See ``core/estimator.py``."""
        require_state(self.inner, state, cases)

    def finish(self, state: Any) -> Any:
        return self.inner.finish(state)
