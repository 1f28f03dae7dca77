"""The one shape of everything that learns from, or measures, a set of cases.

    state = empty()             a picklable record
    state = update(state, case) one case at a time; no voxel arrays are kept
    state = merge(a, b)         commutative, associative and exact, so that the way in which cases are spread over
                                processes, shards and machines cannot be seen in the result
    result = finish(state)      the result, or another Estimator: the next pass over the same cases

A method of several passes returns its next pass from ``finish``; the engine goes on until something else comes back.
Where a pass carries much that only ``finish`` needs, its method ``for_update()`` returns a copy without it, which goes
to the workers. A pass that needs only some of the cases says which by its method ``reads(case id)``. What its states
promise beyond the annotation of ``empty`` it looks at in ``require_state(state, case ids)``. To be exact, states hold
integers, or floats per case that ``finish`` sums with ``math.fsum`` in the order of the case ids.
"""

from __future__ import annotations

import typing
from collections.abc import Iterable
from collections.abc import Set as AbstractSet
from typing import Any, Protocol, TypeVar, runtime_checkable

from segcal_cli.core.annotations import OtherType, require_type
from segcal_cli.core.case import Case

State = TypeVar("State")

BY_CASE = ("cases", "rows")
"""Fields of states that map case ids to what was made of each."""


@runtime_checkable
class Estimator(Protocol[State]):
    """See the module. Instances are picklable and immutable: they travel to worker processes once per pass."""

    def empty(self) -> State: ...

    def update(self, state: State, case: Case) -> State: ...

    def merge(self, a: State, b: State) -> State: ...

    def finish(self, state: State) -> Any: ...


def require_state(estimator: Estimator, state: Any, cases: AbstractSet[str]) -> None:
    """Raise OtherType unless a state that was read is one of this estimator, after these cases.

    A state that keeps something of every case keeps it under BY_CASE.
    """
    require_type(state, typing.get_type_hints(type(estimator).empty)["return"], "state")
    for name in BY_CASE:
        require_cases(getattr(state, name, cases), cases)
    further = getattr(estimator, "require_state", None)
    if further is not None:
        further(state, cases)


def require_cases(found: Iterable[str], cases: AbstractSet[str]) -> None:
    """Raise OtherType unless these are the cases that were read."""
    if set(found) != cases:
        raise OtherType("state", "of the cases of its part")
