"""The one shape of everything that learns from, or measures, a set of cases.

    state = empty()             a picklable record
    state = update(state, case) one case at a time; no voxel arrays are kept
    state = merge(a, b)         commutative, associative and exact, so that the way in which cases are spread over
                                processes, shards and machines cannot be seen in the result
    result = finish(state)      the result, or another Estimator: the next pass over the same cases

A method of several passes returns its next pass from ``finish``; the engine goes on until something else comes back.
Where a pass carries much that only ``finish`` needs, its method ``for_update()`` returns a copy without it, which goes
to the workers. A pass that needs only some of the cases says which by its method ``reads(case id)``. To be exact,
states hold integers, or floats per case that ``finish`` sums with ``math.fsum`` in the order of the case ids.
"""

from __future__ import annotations

from typing import Any, Protocol, TypeVar, runtime_checkable

from segcal_cli.core.case import Case

State = TypeVar("State")


@runtime_checkable
class Estimator(Protocol[State]):
    """See the module. Instances are picklable and immutable: they travel to worker processes once per pass."""

    def empty(self) -> State: ...

    def update(self, state: State, case: Case) -> State: ...

    def merge(self, a: State, b: State) -> State: ...

    def finish(self, state: State) -> Any: ...
